//! The Services that wait for an address, oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use landfall_crds::ClaimRef;
use landfall_crds::address::Family;

use crate::granting::book::AddressBook;
use crate::granting::wait::Until;

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
    something_is_free: bool,
    /// The last one that was woken for what is free.
    cursor: Option<(i64, ClaimRef)>,
}

impl Waiting {
    pub(crate) fn put(&mut self, key: &ClaimRef, age: i64, until: Vec<Until>, goes_without: bool) {
        self.remove(key);
        if until.is_empty() {
            return;
        }
        for until in &until {
            if let Until::Free(address) = until {
                self.for_address.entry(*address).or_default().insert(key.clone());
            }
        }
        self.entries.insert((age, key.clone()), Entry { until, goes_without });
        self.age_of.insert(key.clone(), age);
    }

    pub(crate) fn remove(&mut self, key: &ClaimRef) {
        let Some(age) = self.age_of.remove(key) else { return };
        let Some(entry) = self.entries.remove(&(age, key.clone())) else { return };
        for until in entry.until {
            if let Until::Free(address) = until
                && let Some(keys) = self.for_address.get_mut(&address)
            {
                keys.remove(key);
                if keys.is_empty() {
                    self.for_address.remove(&address);
                }
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

    /// The next Service that may now get what it waits for. One at a time, since the first may take
    /// what the second hopes for.
    pub(crate) fn next_to_wake(&mut self, book: &AddressBook) -> Option<ClaimRef> {
        if !self.something_is_free {
            return None;
        }
        let from = self.cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let anywhere = |family| {
            book.pools().any(|(name, pool)| {
                pool.object.spec.auto_assign && pool.is_ready() && book.lowest_free(name, family).is_some()
            })
        };
        let free = [(Family::IPv4, anywhere(Family::IPv4)), (Family::IPv6, anywhere(Family::IPv6))];
        let may_succeed = |until: &Until| match until {
            Until::Edited | Until::Free(_) => false,
            Until::Any { family, pools: None } => free.contains(&(*family, true)),
            Until::Any { family, pools: Some(names) } => {
                names.iter().any(|name| book.lowest_free(name, *family).is_some())
            }
        };
        let found = self
            .entries
            .range((from, Bound::Unbounded))
            .find(|(_, entry)| entry.until.iter().any(may_succeed))
            .map(|(at, _)| at.clone());
        self.something_is_free = found.is_some();
        self.cursor = found;
        self.cursor.as_ref().map(|(_, key)| key.clone())
    }
}
