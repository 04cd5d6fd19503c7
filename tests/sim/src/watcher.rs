//! How addresses fared, for stories that tell figures: for how long nobody answered, for how long two did, for how
//! long a client's packets went nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use landfall_speaker::mind::Report;

/// How an address fared.
#[derive(Clone, Debug, Default)]
struct Fate {
    split_since: Option<Instant>,
    longest_split: Duration,
    void_since: Option<Instant>,
    longest_void: Duration,
    unserved_since: Option<Instant>,
    longest_outage: Duration,
    moves: u32,
    last: Option<usize>,
}

/// Watches some addresses from instant to instant.
#[derive(Default)]
pub struct Watcher {
    fates: BTreeMap<IpAddr, Fate>,
    announcing: BTreeSet<(usize, IpAddr)>,
}

impl Watcher {
    pub fn watch(&mut self, address: IpAddr) {
        self.fates.entry(address).or_default();
    }

    pub fn addresses(&self) -> Vec<IpAddr> {
        self.fates.keys().copied().collect()
    }

    /// Forgets how long anything did not hold, so that what follows is measured alone.
    pub fn reset(&mut self) {
        for fate in self.fates.values_mut() {
            *fate = Fate { last: fate.last, ..Fate::default() };
        }
    }

    /// Who answers a client now.
    pub fn answered(&mut self, now: Instant, address: IpAddr, answering: &[usize]) {
        let Some(fate) = self.fates.get_mut(&address) else { return };
        note(now, answering.len() > 1, &mut fate.split_since, &mut fate.longest_split);
        note(now, answering.is_empty(), &mut fate.void_since, &mut fate.longest_void);
        if let [only] = answering
            && fate.last.replace(*only).is_some_and(|last| last != *only)
        {
            fate.moves += 1;
        }
    }

    /// Whether what a client sends now comes to a node.
    pub fn served(&mut self, now: Instant, address: IpAddr, is_served: bool) {
        let Some(fate) = self.fates.get_mut(&address) else { return };
        note(now, !is_served, &mut fate.unserved_since, &mut fate.longest_outage);
    }

    /// A node says that it announces only what it did not, and withdraws only what it did.
    pub fn reported(&mut self, node: usize, report: &Report) {
        if let Report::Announcing { address, .. } = report {
            self.announcing.insert((node, *address));
        }
        if let Report::Withdrawn { address, .. } = report {
            assert!(self.announcing.remove(&(node, *address)), "n{} withdraws what it never had", node + 1);
        }
    }

    pub fn restarted(&mut self, node: usize) {
        self.announcing.retain(|(other, _)| *other != node);
    }

    /// For how long at most two nodes answered at once.
    pub fn longest_split(&self) -> Duration {
        self.fates.values().map(|fate| fate.longest_split).max().unwrap_or_default()
    }

    /// For how long at most nobody answered.
    pub fn longest_void(&self) -> Duration {
        self.fates.values().map(|fate| fate.longest_void).max().unwrap_or_default()
    }

    /// For how long at most the client's packets went nowhere.
    pub fn longest_outage(&self) -> Duration {
        self.fates.values().map(|fate| fate.longest_outage).max().unwrap_or_default()
    }

    /// How often an address moved from one node to another.
    pub fn moves(&self) -> u32 {
        self.fates.values().map(|fate| fate.moves).sum()
    }
}

fn note(now: Instant, is_so: bool, since: &mut Option<Instant>, longest: &mut Duration) {
    if is_so {
        let since = *since.get_or_insert(now);
        *longest = (*longest).max(now - since);
    } else if let Some(since) = since.take() {
        *longest = (*longest).max(now - since);
    }
}
