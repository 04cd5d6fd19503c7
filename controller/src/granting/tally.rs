//! What the addresses of each pool are used for. It is kept from one look at a pool to the next, and only
//! addresses that have changed in between are judged anew, so that a look costs the same however many are
//! granted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::Outside;
use landfall_crds::address::Family;

use super::ServiceKey;
use super::book::{Holder, Pool};
use super::outside::is_outside;
use super::plan::View;
use crate::world::store::Store;

/// At most so many addresses outside are listed in a pool's status.
const MOST_LISTED: usize = 64;

/// What an address of a pool is used for, where it is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// A node or a gateway has it.
    Node,
    /// It is the network's own or a broadcast address.
    SubnetEdge,
    /// Services have it, or are about to.
    Granted,
    /// It has a VirtualIP that nobody claims, or something else keeps it from being granted.
    Reserved,
}

/// The tallies of all pools, by name. One that is missing has not been made yet, or everything about the pool
/// may have changed.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    known: BTreeMap<String, Tally>,
}

/// What the addresses of one pool are used for.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    used: BTreeMap<(Family, Use), BTreeSet<IpAddr>>,
    /// Those that were granted from the pool and that it would not grant now.
    outside: BTreeSet<IpAddr>,
    /// Those that may have changed since they were judged.
    changed: BTreeSet<IpAddr>,
}

impl Tallies {
    /// Notes that pools, nodes or namespaces have changed, so that nothing is known any more.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    /// Notes that something has changed about an address that lies in the pool or was taken from it: its
    /// holders, its VirtualIP, or a Service that claims it.
    pub(crate) fn changed(&mut self, pool: &str, address: IpAddr) {
        if let Some(tally) = self.known.get_mut(pool) {
            tally.changed.insert(address);
        }
    }

    /// The tally of a pool as it is now.
    pub(crate) fn of(
        &mut self,
        view: View<'_>,
        services: &Store<ServiceKey, Service>,
        name: &str,
        pool: &Pool,
    ) -> &Tally {
        if !self.known.contains_key(name) {
            let held = pool.own.ranges().flat_map(|range| view.book.held_within(range));
            let changed = held.map(|(address, _)| address).chain(view.vips.of_pool(name)).collect();
            self.known.insert(name.to_owned(), Tally { changed, ..Tally::default() });
        }
        let tally = self.known.entry(name.to_owned()).or_default();
        for address in std::mem::take(&mut tally.changed) {
            tally.put(address, use_of(view, address, name), is_outside(view, services, address, name));
        }
        tally
    }
}

impl Tally {
    fn put(&mut self, address: IpAddr, used_as: Option<Use>, is_outside: bool) {
        let family = Family::of(address);
        for ((_, known_as), addresses) in self.used.iter_mut().filter(|((of, _), _)| *of == family) {
            if Some(*known_as) != used_as {
                addresses.remove(&address);
            }
        }
        if let Some(used_as) = used_as {
            self.used.entry((family, used_as)).or_default().insert(address);
        }
        match is_outside {
            true => self.outside.insert(address),
            false => self.outside.remove(&address),
        };
    }

    /// How many addresses of the family are used so.
    pub(crate) fn count(&self, family: Family, used_as: Use) -> i64 {
        let addresses = self.used.get(&(family, used_as)).map_or(0, BTreeSet::len);
        i64::try_from(addresses).unwrap_or(i64::MAX)
    }

    /// The addresses that nodes and gateways have.
    pub(crate) fn of_nodes(&self) -> impl Iterator<Item = IpAddr> {
        let of_nodes = self.used.iter().filter(|((_, used_as), _)| *used_as == Use::Node);
        of_nodes.flat_map(|(_, addresses)| addresses).copied()
    }

    /// The addresses that were granted from the pool and that it would not grant now.
    pub(crate) fn outside(&self) -> Option<Outside> {
        let addresses = self.outside.iter().take(MOST_LISTED).map(ToString::to_string).collect();
        let count = i64::try_from(self.outside.len()).unwrap_or(i64::MAX);
        (count > 0).then_some(Outside { count, addresses })
    }
}

/// What an address is used for, if it lies in the pool.
fn use_of(view: View<'_>, address: IpAddr, name: &str) -> Option<Use> {
    if view.book.pool_of(address) != Some(name) {
        return None;
    }
    let holders = view.book.holders(address);
    let has = |is: fn(&Holder) -> bool| holders.iter().any(is);
    if has(Holder::is_node) {
        return Some(Use::Node);
    }
    if has(|holder| matches!(holder, Holder::SubnetEdge(_))) {
        return Some(Use::SubnetEdge);
    }
    match view.vips.get(address) {
        Some(vip) if vip.spec.claims.is_empty() => Some(Use::Reserved),
        Some(_) => Some(Use::Granted),
        None if has(|holder| matches!(holder, Holder::Lost(_) | Holder::Busy)) => Some(Use::Granted),
        None => (!holders.is_empty()).then_some(Use::Reserved),
    }
}
