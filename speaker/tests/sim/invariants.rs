//! What must hold, by name, and for how long it did not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use landfall_speaker::mind::Report;

use crate::world::{World, ms};

/// How an address fared.
#[derive(Clone, Debug, Default)]
struct Fate {
    split_since: Option<Instant>,
    longest_split: Duration,
    void_since: Option<Instant>,
    avoidable_since: Option<Instant>,
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
    /// Since when nothing is wrong with the LAN.
    whole_since: Option<Instant>,
    /// For how long at most two nodes answered at once although the LAN was whole for a while.
    late_split: Duration,
    /// For how long at most nobody answered although a node could have, on such a LAN.
    late_void: Duration,
}

/// A LAN that was whole for as long has no excuse for two that answer, but for a handover.
const SETTLING: Duration = Duration::from_millis(600);

impl Watcher {
    pub fn watch(&mut self, address: IpAddr) {
        self.fates.insert(address, Fate::default());
    }

    pub fn addresses(&self) -> Vec<IpAddr> {
        self.fates.keys().copied().collect()
    }

    /// Whether nothing is wrong with the LAN right now.
    pub fn lan_is(&mut self, now: Instant, whole: bool) {
        if whole {
            self.whole_since.get_or_insert(now);
        } else {
            self.whole_since = None;
        }
    }

    /// For how long at most nobody answered although a node could have, on a LAN that was whole for a
    /// while: whoever did may have died meanwhile.
    pub fn late_void(&self) -> Duration {
        self.late_void
    }

    /// For how long at most two nodes answered at once although the LAN was whole for a while.
    pub fn late_split(&self) -> Duration {
        self.late_split
    }

    /// Forgets how long anything did not hold, so that what follows is measured alone.
    pub fn reset(&mut self) {
        for fate in self.fates.values_mut() {
            *fate = Fate { last: fate.last, ..Fate::default() };
        }
    }

    pub fn observe(
        &mut self,
        now: Instant,
        address: IpAddr,
        answering: &[usize],
        is_served: bool,
        can_be: bool,
    ) {
        let Some(fate) = self.fates.get_mut(&address) else { return };
        let whole = self.whole_since.is_some_and(|whole| now > whole + SETTLING);
        note(now, whole && can_be && answering.is_empty(), &mut fate.avoidable_since, &mut self.late_void);
        note(now, answering.len() > 1, &mut fate.split_since, &mut fate.longest_split);
        if let (Some(split), Some(whole)) = (fate.split_since, self.whole_since)
            && now > whole + SETTLING
        {
            self.late_split = self.late_split.max(now - split.max(whole + SETTLING));
        }
        note(now, answering.is_empty(), &mut fate.void_since, &mut fate.longest_void);
        note(now, !is_served, &mut fate.unserved_since, &mut fate.longest_outage);
        if let [only] = answering
            && fate.last.replace(*only).is_some_and(|last| last != *only)
        {
            fate.moves += 1;
        }
    }

    /// A node says that it announces only what it did not, and withdraws only what it did.
    pub fn reported(&mut self, _: Instant, node: usize, report: &Report) {
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

/// I1: in a connected LAN that was left alone for a while, somebody answers for every address.
#[track_caller]
pub fn i1_no_void(world: &World) {
    for (address, vip) in &world.vips {
        let eligible = vip.candidates.iter().any(|candidate| {
            let node = world.nodes.iter().position(|node| node.name == *candidate);
            node.is_some_and(|number| world.is_reachable(number) && world.nodes[number].mind.is_some())
        });
        if vip.claimed && eligible {
            assert!(
                !world.answering(*address).is_empty(),
                "nobody answers for {address}: {}",
                describe(world, *address)
            );
        }
    }
}

/// I2: in a connected LAN that was left alone for a while, at most one node answers for an address.
#[track_caller]
pub fn i2_no_split(world: &World) {
    for address in world.vips.keys() {
        let answering = world.answering(*address);
        assert!(answering.len() <= 1, "{answering:?} answer for {address}: {}", describe(world, *address));
    }
}

/// Both, at every instant from now on for so long, with a handover of at most `handover`.
#[track_caller]
pub fn hold_for(world: &mut World, duration: Duration, handover: Duration) {
    world.watcher.reset();
    world.run(duration);
    i1_no_void(world);
    i2_no_split(world);
    let (split, void) = (world.watcher.longest_split(), world.watcher.longest_void());
    assert!(split <= handover, "two nodes answered for {split:?}");
    assert!(void <= ms(1), "nobody answered for {void:?}");
}

pub fn describe(world: &World, address: IpAddr) -> String {
    let minds = world.nodes.iter().filter_map(|node| Some((&node.name, node.mind.as_ref()?)));
    let explained = minds.map(|(name, mind)| match mind.explain(address) {
        Some(explanation) => format!("\n  {name}: {explanation}"),
        None => format!("\n  {name}: never heard of it"),
    });
    explained.collect()
}
