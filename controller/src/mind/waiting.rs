//! The Services that wait for an address, oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use landfall_crds::ClaimRef;
use landfall_crds::address::Family;

use super::Mind;
use crate::granting::choice::{Seeker, could_have, could_share};
use crate::granting::plan::kept_for;
use crate::granting::request::read;
use crate::granting::wait::Until;
use crate::world::virtual_ips::SharingKey;

/// What a Service waits for.
#[derive(Debug)]
struct Entry {
    until: Vec<Until>,
    /// It could have an address in one family and goes without, since it lacks the other.
    goes_without: bool,
}

/// Who waits, and whether any address has become free since they were last asked.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    entries: BTreeMap<(i64, ClaimRef), Entry>,
    age_of: BTreeMap<ClaimRef, i64>,
    for_address: BTreeMap<IpAddr, BTreeSet<ClaimRef>>,
    for_sharing_key: BTreeMap<SharingKey, BTreeSet<ClaimRef>>,
    something_is_free: bool,
    /// The last one that was woken for what is free.
    cursor: Option<(i64, ClaimRef)>,
}

fn forget<Key: Ord>(index: &mut BTreeMap<Key, BTreeSet<ClaimRef>>, at: &Key, key: &ClaimRef) {
    if let Some(keys) = index.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}

impl Waiting {
    pub(crate) fn put(&mut self, key: &ClaimRef, age: i64, until: Vec<Until>, goes_without: bool) {
        self.remove(key);
        if until.is_empty() {
            return;
        }
        for until in &until {
            match until {
                Until::Free(address) => {
                    self.for_address.entry(*address).or_default().insert(key.clone());
                }
                Until::Shared(sharing_key) => {
                    self.for_sharing_key.entry(sharing_key.clone()).or_default().insert(key.clone());
                }
                Until::Edited | Until::Any { .. } => {}
            }
        }
        self.entries.insert((age, key.clone()), Entry { until, goes_without });
        self.age_of.insert(key.clone(), age);
    }

    pub(crate) fn remove(&mut self, key: &ClaimRef) {
        let Some(age) = self.age_of.remove(key) else { return };
        let Some(entry) = self.entries.remove(&(age, key.clone())) else { return };
        for until in entry.until {
            match until {
                Until::Free(address) => forget(&mut self.for_address, &address, key),
                Until::Shared(sharing_key) => forget(&mut self.for_sharing_key, &sharing_key, key),
                Until::Edited | Until::Any { .. } => {}
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Who waits for this very address: to be asked again whenever its holder changes, if only for
    /// what they are told.
    pub(crate) fn for_address(&self, address: IpAddr) -> Vec<ClaimRef> {
        self.for_address.get(&address).into_iter().flatten().cloned().collect()
    }

    /// Who waits in a namespace for others with this sharing key: to be asked again whenever one of them has
    /// changed.
    pub(crate) fn for_sharing_key(&self, sharing_key: &SharingKey) -> Vec<ClaimRef> {
        self.for_sharing_key.get(sharing_key).into_iter().flatten().cloned().collect()
    }

    /// Who waits in a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<ClaimRef> {
        let keys = self.entries.keys().map(|(_, key)| key);
        keys.filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// Who goes without what it could have, and so is told something else once that is gone too.
    pub(crate) fn going_without(&self) -> Vec<ClaimRef> {
        let without = self.entries.iter().filter(|(_, entry)| entry.goes_without);
        without.map(|((_, key), _)| key.clone()).collect()
    }

    /// Notes that some address has become free.
    pub(crate) fn freed(&mut self) {
        self.something_is_free = !self.entries.is_empty();
        self.cursor = None;
    }

    /// The next Service that may now get what it waits for, oldest first. One at a time, since the first
    /// may take what the second hopes for.
    pub(crate) fn next_to_wake(
        &mut self,
        could_have: impl Fn(&ClaimRef, Family, Option<&[String]>) -> bool,
        could_share: impl Fn(&ClaimRef) -> bool,
    ) -> Option<ClaimRef> {
        let from = self.cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let may_succeed = |key: &ClaimRef, until: &Until| match until {
            Until::Edited | Until::Free(_) => false,
            Until::Shared(_) => could_share(key),
            Until::Any { family, pools } => could_have(key, *family, pools.as_deref()),
        };
        let found = self
            .entries
            .range((from, Bound::Unbounded))
            .find(|((_, key), entry)| entry.until.iter().any(|until| may_succeed(key, until)))
            .map(|(at, _)| at.clone());
        self.something_is_free = found.is_some();
        self.cursor = found;
        self.cursor.as_ref().map(|(_, key)| key.clone())
    }
}

impl Mind {
    /// The next Service that waits and may now get an address.
    pub(super) fn next_to_wake(&mut self) -> Option<ClaimRef> {
        if !self.waiting.something_is_free {
            return None;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        // Whether anybody at all could have an address is asked once, not for each.
        let anywhere = |family| {
            let mut pools = self.book.open_pools(family);
            pools.any(|(_, pool, _)| pool.object.spec.auto_assign && pool.is_ready())
        };
        let free = [(Family::IPv4, anywhere(Family::IPv4)), (Family::IPv6, anywhere(Family::IPv6))];
        let has_free = |family, pools: Option<&[String]>| match pools {
            Some(names) => names.iter().any(|name| self.book.lowest_free(name, family).is_some()),
            None => free.contains(&(family, true)),
        };
        let could_have = |key: &ClaimRef, family: Family, pools: Option<&[String]>| {
            has_free(family, pools)
                && self.ask_for(key, Some(family), |seeker| could_have(seeker, family, pools))
        };
        let found = waiting.next_to_wake(could_have, |key| self.ask_for(key, None, could_share));
        self.waiting = waiting;
        found
    }

    /// Asks what one that waits could have, in place of what it has in the family.
    fn ask_for(&self, key: &ClaimRef, family: Option<Family>, could: impl Fn(&Seeker<'_>) -> bool) -> bool {
        let Some(service) = self.services.get(key) else { return false };
        let Ok(request) = read(service) else { return false };
        let instead_of = self.vips.claimed_by(key).find(|address| Some(Family::of(*address)) == family);
        let instead_of = instead_of.or_else(|| kept_for(&self.vips, key, family?));
        let view = self.view();
        could(&Seeker { view, service, key, request: &request, given: &[], instead_of })
    }
}
