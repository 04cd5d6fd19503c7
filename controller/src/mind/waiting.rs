//! The Services that wait for an address, oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use landfall_crds::ClaimRef;
use landfall_crds::address::Family;

use crate::granting::book::AddressBook;
use crate::granting::wait::Until;

/// Who waits, and which addresses have become free since they were last asked.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    entries: BTreeMap<(i64, ClaimRef), Vec<Until>>,
    age_of: BTreeMap<ClaimRef, i64>,
    freed: BTreeSet<IpAddr>,
    /// The last one that was woken for what is in `freed`.
    cursor: Option<(i64, ClaimRef)>,
}

impl Waiting {
    pub(crate) fn put(&mut self, key: &ClaimRef, age: i64, until: Vec<Until>) {
        self.remove(key);
        if !until.is_empty() {
            self.entries.insert((age, key.clone()), until);
            self.age_of.insert(key.clone(), age);
        }
    }

    pub(crate) fn remove(&mut self, key: &ClaimRef) {
        if let Some(age) = self.age_of.remove(key) {
            self.entries.remove(&(age, key.clone()));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Notes that an address has become free.
    pub(crate) fn freed(&mut self, address: IpAddr) {
        if !self.entries.is_empty() {
            self.freed.insert(address);
            self.cursor = None;
        }
    }

    /// The next Service that may now get what it waits for. One at a time, since the first may take
    /// what the second hopes for.
    pub(crate) fn next_to_wake(&mut self, book: &AddressBook) -> Option<ClaimRef> {
        if self.freed.is_empty() {
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
            Until::Edited => false,
            Until::Free(address) => self.freed.contains(address),
            Until::Any { family, pools: None } => free.contains(&(*family, true)),
            Until::Any { family, pools: Some(names) } => {
                names.iter().any(|name| book.lowest_free(name, *family).is_some())
            }
        };
        let found = self
            .entries
            .range((from, Bound::Unbounded))
            .find(|(_, until)| until.iter().any(may_succeed))
            .map(|(at, _)| at.clone());
        match found {
            Some(at) => {
                let key = at.1.clone();
                self.cursor = Some(at);
                Some(key)
            }
            None => {
                self.freed.clear();
                None
            }
        }
    }
}
