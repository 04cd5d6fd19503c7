//! How many came in and how many were refused, by address and Service.
//!
//! The kernel counts by element of its sets. Counters come and go, and with them their counts, so what grows is
//! the difference to what was read before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::frontend::{Port, ServiceName};
use super::set::Set;
use super::sources::Family;
use super::wanted::Wanted;

/// What the kernel counted at one element of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The set.
    pub set: Set,
    /// The element's address, where it has one.
    pub address: Option<IpAddr>,
    /// The element's port, where it has one.
    pub port: Option<Port>,
    /// How many packets.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrafficOf {
    /// The address; nothing for ports of the node.
    pub address: Option<IpAddr>,
    /// The Service; nothing where the packets were for none of those that share the address.
    pub service: Option<ServiceName>,
    /// Whether they were let in, or else refused.
    pub let_in: bool,
}

/// How much was counted since it was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Of what.
    pub of: TrafficOf,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Names an element of a set that counts.
pub type Counter = (Set, Option<IpAddr>, Option<Port>);

#[derive(Debug, Default)]
pub(super) struct Tally {
    read: BTreeMap<Counter, (u64, u64)>,
}

impl Tally {
    /// The kernel counts from the beginning again.
    pub(super) fn start_anew(&mut self) {
        self.read.clear();
    }

    /// What was counted since the last time; at the first time, since the table was made.
    pub(super) fn take(&mut self, counts: &[Count], wanted: &Wanted) -> Vec<Traffic> {
        let mut traffic: BTreeMap<TrafficOf, (u64, u64)> = BTreeMap::new();
        let mut read = BTreeMap::new();
        for count in counts {
            let element = (count.set, count.address, count.port);
            let (packets, bytes) = self.read.get(&element).copied().unwrap_or_default();
            // Fewer than before: the element was removed and came again.
            let began_anew = count.packets < packets || count.bytes < bytes;
            let since = |now: u64, before: u64| if began_anew { now } else { now - before };
            let more = (since(count.packets, packets), since(count.bytes, bytes));
            read.insert(element, (count.packets, count.bytes));
            if more.0 > 0 {
                let sum = traffic.entry(of(count, wanted)).or_default();
                *sum = (sum.0 + more.0, sum.1 + more.1);
            }
        }
        self.read = read;
        traffic.into_iter().map(|(of, (packets, bytes))| Traffic { of, packets, bytes }).collect()
    }

    /// Elements that the kernel added for what is no more.
    pub(super) fn stale(&self, wanted: &Wanted) -> Vec<(Set, Option<IpAddr>, Option<Port>)> {
        let is_of_use = |(set, address, port): &Counter| match set {
            Set::RefusedAddresses(_) => address.is_some_and(|at| wanted.frontend(at).is_some()),
            Set::RefusedPorts(_) => {
                let entry = address.and_then(|at| wanted.table().address(at));
                entry.zip(*port).is_some_and(|(entry, port)| entry.guarded.contains_key(&port))
            }
            Set::RefusedNodePorts | Set::NodePortTraffic => {
                port.is_some_and(|port| wanted.table().node_port(port).is_some())
            }
            _ => true,
        };
        self.read.keys().filter(|element| !is_of_use(element)).copied().collect()
    }
}

fn of(count: &Count, wanted: &Wanted) -> TrafficOf {
    let Count { set, address, port, .. } = *count;
    let let_in = matches!(set, Set::Ports(_) | Set::NodePortTraffic);
    let service = match address {
        None => port.and_then(|port| wanted.node_port_of(port)).cloned(),
        Some(address) => wanted.frontend(address).and_then(|frontend| {
            let server = port.and_then(|port| frontend.server(port));
            let only = || match frontend.claims() {
                [claim] => Some(claim),
                _ => None,
            };
            server.or_else(only).map(|claim| claim.service.clone())
        }),
    };
    TrafficOf { address, service, let_in }
}

/// The sets that count.
pub const COUNTING: [Set; 8] = [
    Set::Ports(Family::V4),
    Set::Ports(Family::V6),
    Set::RefusedAddresses(Family::V4),
    Set::RefusedAddresses(Family::V6),
    Set::RefusedPorts(Family::V4),
    Set::RefusedPorts(Family::V6),
    Set::RefusedNodePorts,
    Set::NodePortTraffic,
];
