//! All VirtualIPs, by address and by the Services that they concern.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use landfall_crds::names::finalizers;
use landfall_crds::{Claim, ClaimRef, PastHolder, Reservation, VirtualIP, VirtualIPSpec};

use super::store::{Index, Known, Store};

/// A sharing key as the Services of one namespace name it. Those of another may name the same one and mean
/// something else, so that nothing is looked up by the key alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharingKey {
    /// The namespace.
    pub namespace: String,
    /// The key.
    pub key: String,
}

/// All VirtualIPs. There is one per address, since it is named by it.
#[derive(Debug, Default)]
pub struct VirtualIps {
    pub(crate) store: Store<IpAddr, VirtualIP>,
    by_service: Index<ClaimRef, BTreeSet<IpAddr>>,
    by_sharing_key: Index<SharingKey, BTreeSet<IpAddr>>,
    by_pool: Index<String, BTreeSet<IpAddr>>,
}

impl VirtualIps {
    /// The VirtualIP of an address.
    pub fn get(&self, address: IpAddr) -> Option<&Arc<VirtualIP>> {
        self.store.get(&address)
    }

    pub(crate) fn known(&self, address: IpAddr) -> Option<&Known<VirtualIP>> {
        self.store.known(&address)
    }

    /// The addresses whose VirtualIPs concern the Service: it claims them, held them before and
    /// nobody claims them now, or they are reserved for it by name.
    pub fn of_service(&self, service: &ClaimRef) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_service.get(service).into_iter().flatten().copied()
    }

    /// All Services that some VirtualIP concerns, in no order.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ClaimRef> {
        self.by_service.keys()
    }

    /// Makes room for so many VirtualIPs that a list brings.
    pub(crate) fn reserve(&mut self, number: usize) {
        self.by_service.reserve(number.saturating_sub(self.by_service.len()));
    }

    /// The addresses that the Service claims.
    pub fn claimed_by<'a>(&'a self, service: &'a ClaimRef) -> impl Iterator<Item = IpAddr> + 'a {
        self.of_service(service)
            .filter(|address| self.get(*address).is_some_and(|vip| claim_of(vip, service).is_some()))
    }

    /// The addresses on which Services of the namespace claim to share by the key.
    pub fn with_sharing_key(&self, key: &SharingKey) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_sharing_key.get(key).into_iter().flatten().copied()
    }

    /// The addresses that were taken from the pool, wherever they lie now.
    pub fn of_pool(&self, pool: &str) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_pool.get(pool).into_iter().flatten().copied()
    }

    /// Keeps the indices true when the VirtualIP of `address` changes.
    pub(crate) fn reindex(&mut self, address: IpAddr, was: Option<&VirtualIP>, is: Option<&VirtualIP>) {
        fn keys<Key>(of: fn(&VirtualIP) -> Vec<Key>, states: [Option<&VirtualIP>; 2]) -> [Vec<Key>; 2] {
            states.map(|vip| vip.map(of).unwrap_or_default())
        }
        let states = [was, is];
        reindex(&mut self.by_service, address, keys(concerns, states));
        reindex(&mut self.by_sharing_key, address, keys(sharing_keys, states));
        reindex(&mut self.by_pool, address, keys(|vip| vip.spec.pool.iter().cloned().collect(), states));
    }
}

fn reindex<Key: Eq + Hash>(
    index: &mut Index<Key, BTreeSet<IpAddr>>,
    address: IpAddr,
    [was, is]: [Vec<Key>; 2],
) {
    if was == is {
        return;
    }
    for key in was {
        if let Some(addresses) = index.get_mut(&key) {
            addresses.remove(&address);
            if addresses.is_empty() {
                index.remove(&key);
            }
        }
    }
    for key in is {
        index.entry(key).or_default().insert(address);
    }
}

/// The sharing keys that the claims on a VirtualIP name.
pub fn sharing_keys(vip: &VirtualIP) -> Vec<SharingKey> {
    sharing_keys_in(&vip.spec)
}

/// The sharing keys that claims name, each once.
pub fn sharing_keys_in(spec: &VirtualIPSpec) -> Vec<SharingKey> {
    let of_claim = |claim: &Claim| {
        let key = claim.sharing.as_ref()?.key.clone();
        Some(SharingKey { namespace: claim.namespace.clone(), key })
    };
    let mut keys: Vec<SharingKey> = spec.claims.iter().filter_map(of_claim).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// The Services that a VirtualIP concerns: those that claim it; or where none does, all that are known to
/// have held it, since each of those that shared it may be the last to let go.
pub fn concerns(vip: &VirtualIP) -> Vec<ClaimRef> {
    let mut services: Vec<ClaimRef> = vip.spec.claims.iter().map(key_of_claim).collect();
    if vip.spec.claims.is_empty() {
        services.extend(vip.status.iter().flat_map(|status| &status.last_holders).map(key_of_holder));
    }
    if let Some(reservation) = &vip.spec.reservation
        && let Some(name) = &reservation.name
    {
        services.push(ClaimRef { namespace: reservation.namespace.clone(), name: name.clone() });
    }
    services
}

/// The Service that a claim names.
pub fn key_of_claim(claim: &Claim) -> ClaimRef {
    ClaimRef { namespace: claim.namespace.clone(), name: claim.name.clone() }
}

/// The Service's claim on a VirtualIP.
pub fn claim_of<'a>(vip: &'a VirtualIP, service: &ClaimRef) -> Option<&'a Claim> {
    claim_in(&vip.spec.claims, service)
}

/// The Service's claim among others.
pub fn claim_in<'a>(claims: &'a [Claim], service: &ClaimRef) -> Option<&'a Claim> {
    claims.iter().find(|claim| is_of(claim, service))
}

/// Whether the claim is the Service's.
pub fn is_of(claim: &Claim, service: &ClaimRef) -> bool {
    claim.name == service.name && claim.namespace == service.namespace
}

/// The Service that held the address last.
pub fn last_holder(vip: &VirtualIP) -> Option<ClaimRef> {
    vip.status.as_ref()?.last_holders.first().map(key_of_holder)
}

fn key_of_holder(holder: &PastHolder) -> ClaimRef {
    ClaimRef { namespace: holder.namespace.clone(), name: holder.name.clone() }
}

/// Whether the controller made the reservation on behalf of a Service, rather than a person.
pub fn is_tenants(reservation: &Reservation) -> bool {
    reservation.namespace_uid.is_some()
}

/// Whether our finalizer is on it.
pub fn has_finalizer(vip: &VirtualIP) -> bool {
    let on_it = vip.metadata.finalizers.as_deref().unwrap_or_default();
    on_it.iter().any(|finalizer| finalizer == finalizers::VIRTUAL_IP_CLAIMED)
}

/// Whether it is being deleted.
pub fn is_deleting(vip: &VirtualIP) -> bool {
    vip.metadata.deletion_timestamp.is_some()
}
