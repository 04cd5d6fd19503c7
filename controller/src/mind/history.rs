//! Who had an address is noted in its pool's status before the VirtualIP that tells it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use landfall_crds::{PastGrant, PastHolder, VirtualIP};

use super::Mind;
use super::subject::Subject;
use crate::granting::book::AddressBook;
use crate::world::virtual_ips::concerns;

/// What is on its way into the pools' histories.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Still to be noted, by pool.
    open: BTreeMap<String, BTreeMap<IpAddr, Vec<PastGrant>>>,
    /// In the status of a pool that is being written.
    under_way: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Noted, or never to be, while their VirtualIPs are still there.
    noted: BTreeSet<IpAddr>,
}

impl History {
    /// What is to be noted in a pool's status, latest first.
    pub(super) fn of(&self, pool: &str) -> Vec<PastGrant> {
        let mut open: Vec<PastGrant> =
            self.open.get(pool).into_iter().flat_map(BTreeMap::values).flatten().cloned().collect();
        open.sort_by(|a, b| (b.until.0, &a.address).cmp(&(a.until.0, &b.address)));
        open
    }

    /// Whether anything is to be noted in a pool's status.
    pub(super) fn is_waiting(&self, pool: &str) -> bool {
        self.open.contains_key(pool)
    }

    /// The pool's status is being written with all of that.
    pub(super) fn takes_off(&mut self, pool: &str) {
        let addresses = self.open.get(pool).into_iter().flat_map(BTreeMap::keys).copied().collect();
        self.under_way.insert(pool.to_owned(), addresses);
    }

    /// It has been written, or never can be. Returns whose VirtualIPs may go now.
    fn lands(&mut self, pool: &str) -> BTreeSet<IpAddr> {
        let addresses = self.under_way.remove(pool).unwrap_or_default();
        if let Some(open) = self.open.get_mut(pool) {
            open.retain(|address, _| !addresses.contains(address));
            if open.is_empty() {
                self.open.remove(pool);
            }
        }
        self.noted.extend(&addresses);
        addresses
    }

    /// Pools have changed, so that what was noted in one may belong in another, or the pool is gone with all
    /// that was noted there.
    pub(super) fn reconsider(&mut self, gone: Option<&str>) {
        self.noted.clear();
        if let Some(pool) = gone {
            self.open.remove(pool);
            self.under_way.remove(pool);
        }
    }

    /// The VirtualIP has changed, so that there may be more to note, or is gone.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.noted.remove(&address);
        for open in self.open.values_mut() {
            open.remove(&address);
        }
        self.open.retain(|_, open| !open.is_empty());
    }
}

impl Mind {
    /// Whether all that a VirtualIP which is to go tells of its past stands in its pool's history, if there
    /// is a pool. If not, it is noted there next.
    pub(super) fn is_in_history(&mut self, address: IpAddr, vip: &VirtualIP) -> bool {
        let Some(name) = pool_of(&self.book, address, vip) else { return true };
        if self.history.noted.contains(&address) {
            return true;
        }
        let known = self.book.pool(&name).and_then(|pool| pool.object.status.as_ref());
        let known = known.map(|status| status.history.as_slice()).unwrap_or_default();
        let holders = vip.status.iter().flat_map(|status| &status.last_holders);
        let missing: Vec<PastGrant> =
            holders.map(|holder| past_grant(address, holder)).filter(|past| !known.contains(past)).collect();
        if missing.is_empty() {
            return true;
        }
        self.history.open.entry(name.clone()).or_default().insert(address, missing);
        self.mark(Subject::Pool(name));
        false
    }

    /// What was to be noted in the pool's history is there, or can never be.
    pub(super) fn history_has_landed(&mut self, pool: &str) {
        for address in self.history.lands(pool) {
            self.mark(Subject::VirtualIp(address));
            for key in self.vips.get(address).map(|vip| concerns(vip)).unwrap_or_default() {
                self.mark(Subject::Service(key));
            }
        }
    }
}

/// The pool that keeps the history of an address: the one it was taken from, or lies in.
fn pool_of(book: &AddressBook, address: IpAddr, vip: &VirtualIP) -> Option<String> {
    let named = vip.spec.pool.as_deref().filter(|name| book.pool(name).is_some());
    named.or_else(|| book.pool_of(address)).map(str::to_owned)
}

fn past_grant(address: IpAddr, holder: &PastHolder) -> PastGrant {
    let PastHolder { namespace, name, uid, since, until } = holder.clone();
    PastGrant { address: address.to_string(), namespace, name, uid, since, until }
}
