//! What a pool's status says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use landfall_crds::address::{AddressRange, AddressSet, Family};
use landfall_crds::names::conditions::{CONFLICTED, EXHAUSTED, READY, UNREACHABLE};
use landfall_crds::{Capacity, IPPoolStatus, Outside, PastGrant};

use super::book::{AddressBook, ClusterUse, Holder, Pool};
use super::rules::why_not_ready;
use super::tally::{Tally, Use};
use super::wait::some_of;
use crate::conditions::{Wanted, already_said, with_times};
use crate::ranking::reach::selects;
use crate::world::nodes::Nodes;

/// The condition types that are ours on a pool.
const OURS: [&str; 4] = [READY, EXHAUSTED, CONFLICTED, UNREACHABLE];

/// Reasons of a pool's conditions.
pub mod reasons {
    /// `Ready`: addresses are granted from it.
    pub const GRANTING: &str = "Granting";
    /// `Ready`: it sets fields that are not enforced.
    pub const NOT_IMPLEMENTED: &str = "NotImplemented";
    /// `Ready`: it holds no address.
    pub const INVALID: &str = "Invalid";
    /// `Ready`: it is being deleted.
    pub const DELETING: &str = "Deleting";
    /// `Exhausted`: every address is in use.
    pub const ALL_IN_USE: &str = "AllInUse";
    /// `Exhausted`: it grants nothing at all, so that nothing can run out.
    pub const NOT_GRANTING: &str = "NotGranting";
    /// `Exhausted`: there are free addresses.
    pub const AVAILABLE: &str = "Available";
    /// `Conflicted`: another pool holds some of the same addresses.
    pub const OVERLAP: &str = "Overlap";
    /// `Conflicted`: nodes or gateways have some of its addresses.
    pub const NODE_ADDRESSES: &str = "NodeAddresses";
    /// `Conflicted`: the cluster has its ClusterIPs there.
    pub const SERVICE_ADDRESSES: &str = "ServiceAddresses";
    /// `Conflicted`: the cluster has its pods there.
    pub const POD_ADDRESSES: &str = "PodAddresses";
    /// `Conflicted`: nothing else has its addresses.
    pub const NO_CONFLICT: &str = "NoConflict";
    /// `Unreachable`: no speaker has told about its node.
    pub const NO_SPEAKER: &str = "NoSpeaker";
    /// `Unreachable`: no node has a fitting interface for some address.
    pub const NO_INTERFACE: &str = "NoInterface";
    /// `Unreachable`: every address can be announced.
    pub const REACHABLE: &str = "Reachable";
}

/// So many past holders are remembered on a pool.
const HISTORY: usize = 256;

/// What a pool's status is made from.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    /// Pools and holders.
    pub book: &'a AddressBook,
    /// All nodes.
    pub nodes: &'a Nodes,
    /// What the pool's addresses are used for.
    pub tally: &'a Tally,
    /// Past holders to be added, latest first.
    pub noted: Vec<PastGrant>,
}

/// The status that the pool should have, or nothing if it has it already.
pub(crate) fn changed_status(
    name: &str,
    pool: &Pool,
    seen: Seen<'_>,
    now: Timestamp,
) -> Option<IPPoolStatus> {
    let Seen { book, nodes, tally, noted } = seen;
    let (v4, v6) = (capacity(pool, tally, Family::IPv4), capacity(pool, tally, Family::IPv6));
    let outside = tally.outside();
    let wanted = [
        ready(pool, outside.as_ref()),
        exhausted(pool, v4, v6),
        conflicted(name, pool, book, tally),
        unreachable(pool, nodes),
    ];
    let generation = pool.object.metadata.generation;
    let known = pool.object.status.as_ref();
    let conditions = known.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let unchanged = known.is_some_and(|known| {
        known.ipv4 == v4
            && known.ipv6 == v6
            && known.outside == outside
            && known.observed_generation == generation
    }) && noted.is_empty();
    if unchanged && already_said(conditions, &wanted, &OURS, generation) {
        return None;
    }
    Some(IPPoolStatus {
        observed_generation: generation,
        ipv4: v4,
        ipv6: v6,
        conditions: with_times(conditions, &wanted, generation, now),
        outside,
        history: with_past(known.map(|known| known.history.as_slice()).unwrap_or_default(), noted),
    })
}

/// The history with what is to be added, latest first; the oldest are forgotten. What is added may be long past:
/// a VirtualIP that goes tells of all who had it.
fn with_past(known: &[PastGrant], noted: Vec<PastGrant>) -> Vec<PastGrant> {
    let before = known.iter().filter(|past| !noted.contains(past)).cloned().collect::<Vec<_>>();
    let mut all: Vec<PastGrant> = noted.into_iter().chain(before).collect();
    all.sort_by_key(|past| std::cmp::Reverse(past.until.0));
    all.truncate(HISTORY);
    all
}

/// Counts of one family; none where the pool has no address of it.
fn capacity(pool: &Pool, tally: &Tally, family: Family) -> Option<Capacity> {
    let whole = pool.own.count(family);
    if whole == 0 {
        return None;
    }
    let of_others = tally.count(family, Use::Node) + tally.count(family, Use::SubnetEdge);
    Some(Capacity {
        // A count that has stopped at its end is not counted down from there.
        total: if whole == i64::MAX { whole } else { whole - of_others },
        granted: tally.count(family, Use::Granted),
        reserved: tally.count(family, Use::Reserved),
        available: if pool.is_ready() { pool.available(family) } else { 0 },
    })
}

fn ready(pool: &Pool, outside: Option<&Outside>) -> Wanted {
    let bad = || some_of(&pool.errors, 4);
    if !pool.is_ready() {
        let reason = match pool.not_implemented.is_empty() {
            true => reasons::DELETING,
            false => reasons::NOT_IMPLEMENTED,
        };
        let message = format!("nothing new is granted, since {}; what is granted stays", why_not_ready(pool));
        return Wanted::new(READY, false, reason, message);
    }
    if pool.grantable.is_empty() {
        let why =
            if pool.errors.is_empty() { "spec.exclude takes every address away".to_owned() } else { bad() };
        return Wanted::new(READY, false, reasons::INVALID, format!("the pool holds no address: {why}"));
    }
    if pool.own.is_empty() {
        let message = "every address of the pool belongs to an older pool or to the cluster: see the condition Conflicted";
        return Wanted::new(READY, false, reasons::INVALID, message);
    }
    let mut message = "addresses are granted".to_owned();
    if !pool.errors.is_empty() {
        message.push_str(&format!("; these entries are not understood: {}", bad()));
    }
    if let Some(outside) = outside {
        message.push_str(&format!(
            "; {} in use would not be granted now, since the pool was edited, and stay (see status.outside)",
            outside.count
        ));
    }
    Wanted::new(READY, true, reasons::GRANTING, message)
}

fn exhausted(pool: &Pool, v4: Option<Capacity>, v6: Option<Capacity>) -> Wanted {
    if !pool.is_ready() {
        let message =
            "nothing is granted from the pool now, however many addresses are free: see its condition Ready";
        return Wanted::new(EXHAUSTED, false, reasons::NOT_GRANTING, message);
    }
    let spent = |family: Family, count: Option<Capacity>| {
        count.filter(|count| count.available == 0).map(|_| family.to_string())
    };
    let families: Vec<String> =
        [spent(Family::IPv4, v4), spent(Family::IPv6, v6)].into_iter().flatten().collect();
    if families.is_empty() {
        return Wanted::new(EXHAUSTED, false, reasons::AVAILABLE, "there are free addresses");
    }
    let message = format!("no {} address is free: add ranges to spec.addresses", families.join(" and no "));
    Wanted::new(EXHAUSTED, true, reasons::ALL_IN_USE, message)
}

fn conflicted(name: &str, pool: &Pool, book: &AddressBook, tally: &Tally) -> Wanted {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    if !pool.overlaps.is_empty() {
        let shared = pool.overlaps.iter().map(|(other, shared)| {
            let keeps = if shared.ranges().all(|range| book.pool_of(range.first()) == Some(name)) {
                "kept here"
            } else {
                "not granted from here"
            };
            format!("{} with pool {other} ({keeps})", some_of(shared.ranges(), 3))
        });
        let message = format!(
            "it overlaps {}: the oldest pool keeps what several hold; take the ranges out of one of them",
            some_of(shared, 4)
        );
        all.push((reasons::OVERLAP, message));
    }
    for (by, shared) in &pool.cluster {
        let reason = match by {
            ClusterUse::Services => reasons::SERVICE_ADDRESSES,
            ClusterUse::Pods => reasons::POD_ADDRESSES,
        };
        let message = format!(
            "never granted, since the cluster gives {} to its {}s: take the range out of the pool",
            some_of(shared.ranges(), 4),
            by.name()
        );
        all.push((reason, message));
    }
    let mut of_nodes = tally.of_nodes().peekable();
    if of_nodes.peek().is_some() {
        let of_nodes =
            of_nodes.map(|address| match book.holders(address).iter().find(|holder| holder.is_node()) {
                Some(Holder::Node(node)) => format!("{address} (node {node})"),
                Some(Holder::Gateway(node)) => format!("{address} (gateway of node {node})"),
                _ => address.to_string(),
            });
        let message = format!(
            "never granted, since the cluster's own: {}: add them to spec.exclude",
            some_of(of_nodes, 8)
        );
        all.push((reasons::NODE_ADDRESSES, message));
    }
    let Some((first, _)) = all.first() else {
        return Wanted::new(CONFLICTED, false, reasons::NO_CONFLICT, "nothing else has its addresses");
    };
    // The reason is that of the first; the others are told with theirs.
    let told = all.iter().map(|(reason, message)| match reason == first {
        true => message.clone(),
        false => format!("{reason}: {message}"),
    });
    Wanted::new(CONFLICTED, true, first, told.collect::<Vec<_>>().join("; "))
}

/// Links that are down do not count here: a failure is no mistake of the pool's.
fn unreachable(pool: &Pool, nodes: &Nodes) -> Wanted {
    let announce = pool.object.spec.announce.as_ref();
    let selector = announce.and_then(|announce| announce.node_selector.as_ref());
    let named = announce.map(|announce| announce.interfaces.as_slice()).unwrap_or_default();
    if nodes.iter().next().is_none() {
        let message = "no speaker has told about its node yet: look at the DaemonSet landfall-speaker";
        return Wanted::new(UNREACHABLE, true, reasons::NO_SPEAKER, message);
    }
    let interfaces = nodes
        .iter()
        .filter(|(_, _, node, _)| {
            let unlabelled = std::collections::BTreeMap::new();
            let labels = node.map_or(&unlabelled, |node| &node.labels);
            selector.is_none_or(|selector| selects(selector, labels))
                && !node.is_some_and(|node| node.excluded)
        })
        .flat_map(|(_, speaker, ..)| &speaker.interfaces);
    if !named.is_empty() {
        if interfaces.into_iter().any(|interface| interface.is_named_by(named)) {
            return Wanted::new(UNREACHABLE, false, reasons::REACHABLE, "every address can be announced");
        }
        let message = format!(
            "no node that may announce has an interface named {}: correct spec.announce.interfaces",
            some_of(named, 8)
        );
        return Wanted::new(UNREACHABLE, true, reasons::NO_INTERFACE, message);
    }
    let subnets: BTreeSet<IpNet> =
        interfaces.flat_map(|interface| interface.subnets.iter().copied()).collect();
    let mut off_link: AddressSet = pool.own.clone();
    for subnet in subnets {
        off_link.remove(AddressRange::from(subnet.trunc()));
    }
    if off_link.is_empty() {
        return Wanted::new(UNREACHABLE, false, reasons::REACHABLE, "every address can be announced");
    }
    let message = format!(
        "no node that may announce has an interface on the subnet of {}: name the interfaces to announce them on in \
         spec.announce.interfaces (clients then need an on-link route)",
        some_of(off_link.ranges(), 4)
    );
    Wanted::new(UNREACHABLE, true, reasons::NO_INTERFACE, message)
}

/// The pools that an address may count for: the one it lies in and the one it was taken from.
pub fn pools_of(book: &AddressBook, address: IpAddr, taken_from: Option<&str>) -> BTreeSet<String> {
    book.pool_of(address).into_iter().chain(taken_from).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn past(name: &str, until: i64) -> PastGrant {
        PastGrant {
            address: "10.0.0.1".into(),
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("{name}-{until}"),
            since: None,
            until: Time(Timestamp::from_second(until).unwrap_or_default()),
        }
    }

    #[test]
    fn what_is_noted_late_takes_its_place_by_time_and_puts_nobody_newer_out() {
        let known: Vec<PastGrant> = (0..256).map(|at| past("known", 2000 - at)).collect();
        let noted = vec![past("new", 3000), past("between", 1900), past("old", 7), past("older", 5)];
        let all = with_past(&known, noted.clone());
        assert_eq!(all.len(), HISTORY);
        assert!(all.is_sorted_by(|one, other| one.until.0 >= other.until.0), "latest first");
        let has = |name: &str| all.iter().any(|past| past.name == name);
        assert!(has("new") && has("between") && !has("old") && !has("older"));
        assert_eq!(all.iter().filter(|past| past.name == "known").count(), 254, "the oldest two have gone");
        assert_eq!(with_past(&all, noted), all, "once more is the same");
    }
}
