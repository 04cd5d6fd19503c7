//! The book of addresses: which pool each belongs to, who holds it, which are free.
//!
//! Free addresses are kept as ranges per pool and maintained as holders come and go, so that to find
//! the lowest one costs the same in a /64 as in a /28.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use landfall_crds::IPPool;
use landfall_crds::address::{AddressRange, AddressSet, Family, RangeError};

use super::ServiceKey;

/// Addresses that no station of a LAN can be reached by, so that none is granted whatever a pool holds:
/// this network, loopback, link-local, multicast and broadcast (RFC 6890; RFC 4291 for IPv6). The API
/// server refuses a pool that begins with one, but not each that holds one, such as 169.0.0.0/8.
const NO_STATIONS: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// Why an address is not free. Where there are several reasons the first is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// It has a VirtualIP, in whatever state.
    VirtualIp,
    /// It stands in the status of the Service, granted by us or by somebody else.
    Status(ServiceKey),
    /// It is among `spec.externalIPs` of the Service.
    ExternalIp(ServiceKey),
    /// Its VirtualIP has vanished under the Service, which gets it back.
    Lost(ServiceKey),
    /// The node has it on an interface.
    Node(String),
    /// It is the next hop of a default route of the node.
    Gateway(String),
    /// It is the network's own or the broadcast address of a subnet of the node.
    SubnetEdge(String),
    /// A VirtualIP is being created for it and the outcome has not come yet.
    Busy,
    /// The API server refused a claim on it lately.
    Refused,
}

impl Holder {
    /// Whether a node or a gateway holds the address.
    pub fn is_node(&self) -> bool {
        matches!(self, Self::Node(_) | Self::Gateway(_))
    }
}

/// A pool with what follows from its spec and from the other pools.
#[derive(Debug)]
pub struct Pool {
    /// The pool itself.
    pub object: Arc<IPPool>,
    /// What its spec holds.
    pub grantable: AddressSet,
    /// Its own part: without what older pools hold and what the cluster uses inside.
    pub own: AddressSet,
    /// The pools that it overlaps, each with some of what they share.
    pub overlaps: Vec<(String, AddressSet)>,
    /// What of it the cluster uses inside for Services or pods.
    pub cluster: Vec<(ClusterUse, AddressSet)>,
    /// Entries of its spec that are no ranges.
    pub errors: Vec<RangeError>,
    /// Fields of its spec that are not enforced, so that it is not used.
    pub not_implemented: Vec<&'static str>,
    pub(super) free: AddressSet,
    /// Its place among all pools, best first.
    pub(super) rank: usize,
}

/// What the cluster itself uses addresses for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClusterUse {
    /// ClusterIPs of Services.
    Services,
    /// Pods.
    Pods,
}

impl ClusterUse {
    /// As it stands in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Services => "Service",
            Self::Pods => "pod",
        }
    }
}

impl Pool {
    /// Whether new addresses may be granted from here.
    pub fn is_ready(&self) -> bool {
        self.not_implemented.is_empty() && self.object.metadata.deletion_timestamp.is_none()
    }

    /// How many free addresses of `family` there are.
    pub fn available(&self, family: Family) -> i64 {
        self.free.count(family)
    }
}

/// All pools and all holders.
#[derive(Debug, Default)]
pub struct AddressBook {
    pools: BTreeMap<String, Pool>,
    /// Names of the pools, best first: priority, then age, then name.
    order: Vec<String>,
    /// The ranks of the pools that have free addresses, by family: exhausted ones cost no search any time.
    open: BTreeSet<(Family, usize)>,
    /// The pools' own parts, by first address: last address and pool. No two overlap.
    ranges: BTreeMap<IpAddr, (IpAddr, String)>,
    holders: BTreeMap<IpAddr, Vec<Holder>>,
    /// The ranges that the cluster uses inside.
    cluster: BTreeMap<ClusterUse, AddressSet>,
    /// The namespaces with which each may share addresses of some pool, by the pools' `sharing.namespaces`.
    partners: BTreeMap<String, BTreeSet<String>>,
    /// How often the last free address of a family of some pool was taken.
    exhaustions: u64,
    /// Whether somebody heeds `externalTargets`.
    exposing: bool,
}

impl AddressBook {
    /// Knows of nothing. `exposing` says whether somebody heeds `externalTargets`.
    pub fn new(exposing: bool) -> Self {
        Self { exposing, ..Self::default() }
    }

    /// Takes in a pool. Returns whether anything but its status has changed.
    pub fn put_pool(&mut self, pool: Arc<IPPool>) -> bool {
        let name = pool.metadata.name.clone().unwrap_or_default();
        if let Some(known) = self.pools.get_mut(&name)
            && known.object.spec == pool.spec
            && known.object.metadata.uid == pool.metadata.uid
            && known.object.metadata.deletion_timestamp == pool.metadata.deletion_timestamp
        {
            known.object = pool;
            return false;
        }
        let (mut grantable, errors) = pool.spec.grantable();
        for range in NO_STATIONS.iter().filter_map(|range| range.parse().ok()) {
            grantable.remove(range);
        }
        let not_implemented = if self.exposing { Vec::new() } else { pool.spec.not_implemented() };
        self.pools.insert(
            name,
            Pool {
                object: pool,
                grantable,
                own: AddressSet::new(),
                overlaps: Vec::new(),
                cluster: Vec::new(),
                errors,
                not_implemented,
                free: AddressSet::new(),
                rank: 0,
            },
        );
        self.redraw();
        true
    }

    /// Forgets a pool. What was granted from it stays granted.
    pub fn remove_pool(&mut self, name: &str) {
        if self.pools.remove(name).is_some() {
            self.redraw();
        }
    }

    /// Notes the ranges that the cluster uses inside, of which nothing is granted. Returns whether they
    /// have changed.
    pub fn set_cluster(&mut self, ranges: ClusterUse, set: AddressSet) -> bool {
        if self.cluster.get(&ranges).map_or(set.is_empty(), |known| *known == set) {
            return false;
        }
        self.cluster.insert(ranges, set);
        self.redraw();
        true
    }

    /// What the cluster uses the address for, if its range is known.
    pub fn cluster_use(&self, address: IpAddr) -> Option<ClusterUse> {
        self.cluster.iter().find(|(_, set)| set.contains(address)).map(|(ranges, _)| *ranges)
    }

    /// Draws the borders between pools anew: where two overlap, the older keeps what they share.
    fn redraw(&mut self) {
        let mut by_age: Vec<_> =
            self.pools.iter().map(|(name, pool)| (age(&pool.object), name.clone())).collect();
        by_age.sort();
        let mut best: Vec<_> = by_age
            .iter()
            .filter_map(|(age, name)| {
                Some((-i64::from(self.pools.get(name)?.object.spec.priority), age, name))
            })
            .collect();
        best.sort();
        self.order = best.into_iter().map(|(_, _, name)| name.clone()).collect();

        for (rank, name) in self.order.iter().enumerate() {
            if let Some(pool) = self.pools.get_mut(name) {
                pool.rank = rank;
            }
        }
        self.open.clear();
        self.ranges.clear();
        self.partners.clear();
        for sharing in self.pools.values().filter_map(|pool| pool.object.spec.sharing.as_ref()) {
            for namespace in &sharing.namespaces {
                let others = sharing.namespaces.iter().filter(|other| *other != namespace).cloned();
                self.partners.entry(namespace.clone()).or_default().extend(others);
            }
        }
        let mut older = AddressSet::new();
        let mut drawn: Vec<String> = Vec::new();
        for (_, name) in &by_age {
            let Some(mut pool) = self.pools.remove(name) else { continue };
            pool.own = pool.grantable.clone();
            pool.own.subtract(&older);
            pool.overlaps.clear();
            if pool.own != pool.grantable {
                for other_name in &drawn {
                    let Some(other) = self.pools.get_mut(other_name) else { continue };
                    let shared = pool.grantable.intersection(&other.grantable);
                    if !shared.is_empty() {
                        other.overlaps.push((name.clone(), shared.clone()));
                        pool.overlaps.push((other_name.clone(), shared));
                    }
                }
            }
            older.union(&pool.grantable);
            pool.cluster.clear();
            for (ranges, set) in &self.cluster {
                let shared = pool.grantable.intersection(set);
                if !shared.is_empty() {
                    pool.own.subtract(&shared);
                    pool.cluster.push((*ranges, shared));
                }
            }
            pool.free = pool.own.clone();
            for range in pool.own.ranges() {
                self.ranges.insert(range.first(), (range.last(), name.clone()));
                for held in self.holders.range(range.first()..=range.last()).map(|(address, _)| *address) {
                    pool.free.remove(AddressRange::single(held));
                }
            }
            let families = [Family::IPv4, Family::IPv6].into_iter();
            let open = families.filter(|family| pool.free.first(*family).is_some());
            self.open.extend(open.map(|family| (family, pool.rank)));
            self.pools.insert(name.clone(), pool);
            drawn.push(name.clone());
        }
    }

    /// The pool that the address belongs to.
    pub fn pool_of(&self, address: IpAddr) -> Option<&str> {
        name_in(&self.ranges, address)
    }

    /// A pool by name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// All pools, best first.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &Pool)> {
        self.order.iter().filter_map(|name| Some((name.as_str(), self.pools.get(name)?)))
    }

    /// The pools that have a free address of the family, best first, and the lowest of these.
    pub fn open_pools(&self, family: Family) -> impl Iterator<Item = (&str, &Pool, IpAddr)> {
        let ranks = self.open.range((family, 0)..=(family, usize::MAX));
        ranks.filter_map(move |(_, rank)| {
            let name = self.order.get(*rank)?;
            let pool = self.pools.get(name)?;
            Some((name.as_str(), pool, pool.free.first(family)?))
        })
    }

    /// The other namespaces with which one may share addresses, wherever any pool lets them.
    pub fn partners(&self, namespace: &str) -> impl Iterator<Item = &str> {
        self.partners.get(namespace).into_iter().flatten().map(String::as_str)
    }

    /// Whether there is no pool.
    pub fn has_no_pools(&self) -> bool {
        self.pools.is_empty()
    }

    /// Notes that `holder` holds the address.
    pub fn hold(&mut self, address: IpAddr, holder: Holder) {
        let holders = self.holders.entry(address).or_default();
        let was_free = holders.is_empty();
        if let Err(place) = holders.binary_search(&holder) {
            holders.insert(place, holder);
        }
        let family = Family::of(address);
        if was_free && let Some(pool) = self.pool_of_mut(address) {
            pool.free.remove(AddressRange::single(address));
            if pool.free.first(family).is_none() {
                let rank = pool.rank;
                self.open.remove(&(family, rank));
                self.exhaustions += 1;
            }
        }
    }

    /// Notes that `holder` does no longer hold the address. Returns whether that has made it free.
    pub fn let_go(&mut self, address: IpAddr, holder: &Holder) -> bool {
        let Some(holders) = self.holders.get_mut(&address) else { return false };
        holders.retain(|known| known != holder);
        if !holders.is_empty() {
            return false;
        }
        self.holders.remove(&address);
        if let Some(pool) = self.pool_of_mut(address) {
            pool.free.insert(AddressRange::single(address));
            let rank = pool.rank;
            self.open.insert((Family::of(address), rank));
        }
        true
    }

    /// Who holds the address.
    pub fn holders(&self, address: IpAddr) -> &[Holder] {
        self.holders.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Addresses of the range that somebody holds, the lowest first.
    pub fn held_within(&self, range: AddressRange) -> impl Iterator<Item = (IpAddr, &[Holder])> {
        let held = self.holders.range(range.first()..=range.last());
        held.map(|(address, holders)| (*address, holders.as_slice()))
    }

    /// The lowest free address of the family in the pool.
    pub fn lowest_free(&self, pool: &str, family: Family) -> Option<IpAddr> {
        self.pools.get(pool)?.free.first(family)
    }

    /// Counts how often the last free address of a family of some pool was taken.
    pub fn exhaustions(&self) -> u64 {
        self.exhaustions
    }

    fn pool_of_mut(&mut self, address: IpAddr) -> Option<&mut Pool> {
        self.pools.get_mut(name_in(&self.ranges, address)?)
    }
}

/// The pool in whose range the address lies.
fn name_in(ranges: &BTreeMap<IpAddr, (IpAddr, String)>, address: IpAddr) -> Option<&str> {
    let (_, (last, name)) = ranges.range(..=address).next_back()?;
    (Family::of(*last) == Family::of(address) && address <= *last).then_some(name.as_str())
}

/// Sorts pools by age; one that has no time yet is the youngest.
fn age(pool: &IPPool) -> (bool, i64) {
    match &pool.metadata.creation_timestamp {
        Some(time) => (false, time.0.as_second()),
        None => (true, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use landfall_crds::IPPoolSpec;
    use proptest::prelude::*;

    fn pool(name: &str, born: i64, priority: i32, addresses: &[&str]) -> Arc<IPPool> {
        let spec = IPPoolSpec {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            auto_assign: true,
            priority,
            ..IPPoolSpec::default()
        };
        let mut pool = IPPool::new(name, spec);
        pool.metadata.creation_timestamp = Timestamp::from_second(born).ok().map(Time);
        Arc::new(pool)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn where_pools_overlap_the_older_keeps_what_they_share() {
        let mut book = AddressBook::default();
        book.put_pool(pool("young", 2, 9, &["10.0.0.0-10.0.0.20"]));
        book.put_pool(pool("old", 1, 0, &["10.0.0.0-10.0.0.9"]));
        assert_eq!(book.pool_of(ip("10.0.0.9")), Some("old"));
        assert_eq!(book.pool_of(ip("10.0.0.10")), Some("young"));
        assert_eq!(book.lowest_free("young", Family::IPv4), Some(ip("10.0.0.10")));
        assert_eq!(book.pool("old").unwrap().overlaps[0].0, "young");
        assert_eq!(book.pool("young").unwrap().overlaps[0].0, "old");
        assert_eq!(book.pools().map(|(name, _)| name).collect::<Vec<_>>(), ["young", "old"]);
        book.remove_pool("old");
        assert_eq!(book.pool_of(ip("10.0.0.9")), Some("young"));
        assert!(book.pool("young").unwrap().overlaps.is_empty());
    }

    #[test]
    fn an_address_is_free_once_its_last_holder_has_gone() {
        let mut book = AddressBook::default();
        book.hold(ip("10.0.0.0"), Holder::Node("n1".into()));
        book.put_pool(pool("a", 1, 0, &["10.0.0.0/30"]));
        assert_eq!(book.lowest_free("a", Family::IPv4), Some(ip("10.0.0.1")));
        book.hold(ip("10.0.0.1"), Holder::VirtualIp);
        book.hold(ip("10.0.0.1"), Holder::Busy);
        assert!(!book.let_go(ip("10.0.0.1"), &Holder::Busy));
        assert_eq!(book.lowest_free("a", Family::IPv4), Some(ip("10.0.0.2")));
        assert!(book.let_go(ip("10.0.0.1"), &Holder::VirtualIp));
        assert_eq!(book.lowest_free("a", Family::IPv4), Some(ip("10.0.0.1")));
    }

    #[test]
    fn a_status_write_is_no_change_of_a_pool() {
        let mut book = AddressBook::default();
        assert!(book.put_pool(pool("a", 1, 0, &["10.0.0.0/30"])));
        let mut written = (*pool("a", 1, 0, &["10.0.0.0/30"])).clone();
        written.status = Some(landfall_crds::IPPoolStatus::default());
        assert!(!book.put_pool(Arc::new(written)));
        assert!(book.put_pool(pool("a", 1, 0, &["10.0.0.0/29"])));
    }

    #[test]
    fn families_do_not_run_into_each_other() {
        let mut book = AddressBook::default();
        book.put_pool(pool("a", 1, 0, &["250.0.0.0/8", "fd00::/64"]));
        assert_eq!(book.pool_of(ip("::1")), None);
        assert_eq!(book.pool_of(ip("251.0.0.0")), None);
        assert_eq!(book.pool_of(ip("fd00::ffff")), Some("a"));
    }

    proptest! {
        /// What is kept up to date as holders and pools come and go equals what a fresh book says.
        #[test]
        fn free_sets_stay_true(steps in prop::collection::vec((0_u8..4, 0_u8..40, 0_u8..3), 1..60)) {
            let mut book = AddressBook::default();
            let mut held: Vec<(IpAddr, Holder)> = Vec::new();
            let mut pools: BTreeMap<String, Arc<IPPool>> = BTreeMap::new();
            for (step, at, which) in steps {
                let address = IpAddr::from([10, 0, 0, at]);
                let holder = [Holder::VirtualIp, Holder::Busy, Holder::Node("n".into())][usize::from(which)].clone();
                match step {
                    0 => { book.hold(address, holder.clone()); held.push((address, holder)); }
                    1 => { book.let_go(address, &holder); held.retain(|known| *known != (address, holder.clone())); }
                    2 => {
                        let name = format!("p{which}");
                        let range = format!("10.0.0.{at}-10.0.0.{}", at + 7);
                        let new = pool(&name, i64::from(which), 0, &[&range]);
                        pools.insert(name, Arc::clone(&new));
                        book.put_pool(new);
                    }
                    _ => { pools.remove(&format!("p{which}")); book.remove_pool(&format!("p{which}")); }
                }
            }
            let mut fresh = AddressBook::default();
            for pool in pools.values() { fresh.put_pool(Arc::clone(pool)); }
            for (address, holder) in held { fresh.hold(address, holder); }
            for (name, pool) in fresh.pools() {
                prop_assert_eq!(&pool.free, &book.pool(name).unwrap().free);
            }
            let open = |book: &AddressBook| -> Vec<(String, IpAddr)> {
                let open = book.open_pools(Family::IPv4);
                open.map(|(name, _, lowest)| (name.to_owned(), lowest)).collect()
            };
            let free = fresh.pools().filter_map(|(name, pool)| {
                Some((name.to_owned(), pool.free.first(Family::IPv4)?))
            });
            prop_assert_eq!(open(&book), free.collect::<Vec<_>>());
        }
    }
}
