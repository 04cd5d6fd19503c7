//! Established connections outlive a planned move: what belongs to a connection that this node does not know is
//! sent on to the node that announced the address before, which does, for a bounded time.
//!
//! Connection tracking is each node's own (conntrack). With policy Cluster the former announcer chose the endpoint and
//! translates the packets of a connection; the new one would choose anew, and the endpoint would reset what it
//! never heard of. A pure machine: the kernel's rules and routes are made by a driver. They must be there before
//! the address is announced, since the first packet would be the last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::lan::{LinkIndex, NodeName};
use crate::succession::KeptConnections;

/// What was prepared for a move that does not come is undone after as long.
const PREPARED: Duration = Duration::from_secs(5);

/// Where packets of an address are sent on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// The address.
    pub address: IpAddr,
    /// The link that leads to the former announcer.
    pub link: LinkIndex,
    /// An address of that node on the link, of the same family.
    pub via: IpAddr,
}

/// What happens to connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address is about to be taken from this node, which lives.
    Prepare(NodeName, Detour),
    /// The address was taken.
    Took(IpAddr),
    /// The address is announced here no more.
    Lost(IpAddr),
    /// A node is dead, and nothing can be sent on to it.
    Dead(NodeName),
    /// The time that `next_deadline` named has come.
    Deadline,
}

/// What is to be done about connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send on what belongs to connections that are not known here.
    Begin(Detour),
    /// Send on nothing more of the address.
    End(IpAddr),
}

/// The machine; see the module.
#[derive(Clone, Debug)]
pub struct Draining {
    bound: Duration,
    detours: BTreeMap<IpAddr, (NodeName, Detour, Instant)>,
    timers: BTreeSet<(Instant, IpAddr)>,
}

impl Draining {
    /// Sends nothing on yet. Connections are kept for `bound`; zero switches that off.
    pub fn new(bound: Duration) -> Self {
        Self { bound, detours: BTreeMap::new(), timers: BTreeSet::new() }
    }

    /// Whether connections are kept at all.
    pub fn is_on(&self) -> bool {
        !self.bound.is_zero()
    }

    /// Takes an event in and pushes what follows from it.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Prepare(from, detour) => {
                let address = detour.address;
                if self.detours.get(&address).is_none_or(|(_, known, _)| *known != detour) {
                    self.end(address, out);
                    out.push(Action::Begin(detour.clone()));
                }
                self.put(now + PREPARED, from, detour);
            }
            Event::Took(address) => {
                if let Some((from, detour, _)) = self.detours.get(&address).cloned() {
                    self.put(now + self.bound, from, detour);
                }
            }
            Event::Lost(address) => self.end(address, out),
            Event::Dead(node) => {
                let to_it = self.detours.iter().filter(|(_, (from, ..))| *from == node);
                for address in to_it.map(|(address, _)| *address).collect::<Vec<_>>() {
                    self.end(address, out);
                }
            }
            Event::Deadline => {
                while let Some((_, address)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
                    self.end(address, out);
                }
            }
        }
    }

    /// What the next process of this node goes on to keep.
    pub fn leave_behind(&self, now: Instant) -> impl Iterator<Item = KeptConnections> {
        self.detours.values().map(move |(from, detour, until)| KeptConnections {
            address: detour.address,
            from: from.to_string(),
            link: detour.link.0,
            via: detour.via,
            left: until.saturating_duration_since(now),
        })
    }

    /// Goes on to keep what a former process of this node kept.
    pub fn inherit(&mut self, now: Instant, kept: Vec<KeptConnections>, out: &mut Vec<Action>) {
        for KeptConnections { address, from, link, via, left } in kept {
            let detour = Detour { address, link: LinkIndex(link), via };
            out.push(Action::Begin(detour.clone()));
            self.put(now + left.min(self.bound), from.into(), detour);
        }
    }

    /// When it wants to be woken.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn put(&mut self, until: Instant, from: NodeName, detour: Detour) {
        let address = detour.address;
        if let Some((_, _, former)) = self.detours.insert(address, (from, detour, until)) {
            self.timers.remove(&(former, address));
        }
        self.timers.insert((until, address));
    }

    fn end(&mut self, address: IpAddr, out: &mut Vec<Action>) {
        if let Some((_, _, until)) = self.detours.remove(&address) {
            self.timers.remove(&(until, address));
            out.push(Action::End(address));
        }
    }
}

#[cfg(test)]
#[path = "draining_tests.rs"]
mod tests;
