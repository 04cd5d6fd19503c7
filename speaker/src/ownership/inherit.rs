//! Addresses that a former process of this node announced, and this one goes on to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::claim::{Claim, Statement};
use super::record::{self, Record};
use super::{Action, Ownership};
use crate::lan::{LinkIndex, NodeName};
use crate::succession::Holding;

/// What nobody asks to be announced after as long was given up meanwhile.
const FORGET: Duration = Duration::from_secs(10);

/// Holdings that wait for their addresses to be looked after.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    holdings: HashMap<IpAddr, (Claim, Vec<LinkIndex>)>,
    until: Option<Instant>,
}

impl Inherited {
    /// When what is left is given up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.until.filter(|_| !self.holdings.is_empty())
    }

    /// Goes on with an address if it is among them.
    pub(super) fn resume(&mut self, record: &mut Record, out: &mut Vec<Action>) {
        let Some((claim, links)) = self.holdings.remove(&record.address()) else { return };
        record.announced |= !claim.probing;
        record.term = record.term.max(claim.term);
        let begin = if claim.probing { Action::Probe } else { Action::Resume };
        out.push(begin(record.address(), links.clone()));
        record.holding = Some(record::Holding { claim, links, ..record::Holding::default() });
    }
}

impl Ownership {
    /// Says at once what the former process said, so that peers hear no other word from this one.
    pub(super) fn inherit(&mut self, now: Instant, holdings: &[Holding], sequence: u64) {
        self.own.resume(sequence);
        self.inherited.until = Some(now + FORGET);
        for Holding { address, claim, links } in holdings {
            // Whether to leave is for this process to say.
            let claim = Claim { leaving: false, ..*claim };
            self.own.say(*address, Statement::Announcing(claim));
            let links = links.iter().copied().map(LinkIndex).collect();
            self.inherited.holdings.insert(*address, (claim, links));
            self.undecided.insert(*address);
        }
    }

    /// Peers that the former process heard, with the instances of their processes: nothing is decided before they
    /// have told what they announce, if they do so soon.
    pub fn expect<'n>(&mut self, now: Instant, peers: impl IntoIterator<Item = (&'n NodeName, u64)>) {
        for (node, instance) in peers {
            self.peers.expect(now, node, instance);
        }
    }

    /// Takes back what was said of addresses that are not looked after any more.
    pub(super) fn forget_inherited(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.inherited.next_deadline().is_none_or(|until| now < until) {
            return;
        }
        let given_up: Vec<IpAddr> = self.inherited.holdings.drain().map(|(address, _)| address).collect();
        for address in &given_up {
            self.own.say(*address, Statement::Nothing);
        }
        out.push(Action::Tell(given_up));
    }

    /// The addresses that are announced, for the next process of this node.
    pub fn leave_behind(&self) -> impl Iterator<Item = Holding> {
        self.records.values().filter_map(|record| {
            let held = record.holding.as_ref()?;
            let links = held.links.iter().map(|link| link.0).collect();
            Some(Holding { address: record.address(), claim: held.claim, links })
        })
    }
}
