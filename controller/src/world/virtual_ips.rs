//! All VirtualIPs, by address and by the Services that they concern.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use landfall_crds::names::finalizers;
use landfall_crds::{Claim, ClaimRef, VirtualIP};

use super::store::{Known, Store};

/// All VirtualIPs. There is one per address, since it is named by it.
#[derive(Debug, Default)]
pub struct VirtualIps {
    pub(crate) store: Store<IpAddr, VirtualIP>,
    by_service: BTreeMap<ClaimRef, BTreeSet<IpAddr>>,
}

impl VirtualIps {
    /// The VirtualIP of an address.
    pub fn get(&self, address: IpAddr) -> Option<&Arc<VirtualIP>> {
        self.store.get(&address)
    }

    pub(crate) fn known(&self, address: IpAddr) -> Option<&Known<VirtualIP>> {
        self.store.known(&address)
    }

    /// The addresses whose VirtualIPs concern the Service: it claims them, held them last, or they are
    /// reserved for it by name.
    pub fn of_service(&self, service: &ClaimRef) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_service.get(service).into_iter().flatten().copied()
    }

    /// The addresses that the Service claims.
    pub fn claimed_by<'a>(&'a self, service: &'a ClaimRef) -> impl Iterator<Item = IpAddr> + 'a {
        self.of_service(service)
            .filter(|address| self.get(*address).is_some_and(|vip| claim_of(vip, service).is_some()))
    }

    /// Keeps the index true when the VirtualIP of `address` changes.
    pub(crate) fn reindex(&mut self, address: IpAddr, was: Option<&VirtualIP>, is: Option<&VirtualIP>) {
        for service in was.map(concerns).unwrap_or_default() {
            if let Some(addresses) = self.by_service.get_mut(&service) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.by_service.remove(&service);
                }
            }
        }
        for service in is.map(concerns).unwrap_or_default() {
            self.by_service.entry(service).or_default().insert(address);
        }
    }
}

/// The Services that a VirtualIP concerns.
pub fn concerns(vip: &VirtualIP) -> Vec<ClaimRef> {
    let mut services: Vec<ClaimRef> = vip.spec.claims.iter().map(key_of_claim).collect();
    if vip.spec.claims.is_empty() {
        services.extend(last_holder(vip));
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
    vip.spec.claims.iter().find(|claim| claim.namespace == service.namespace && claim.name == service.name)
}

/// The Service that held the address last.
pub fn last_holder(vip: &VirtualIP) -> Option<ClaimRef> {
    let holder = vip.status.as_ref()?.last_holders.first()?;
    Some(ClaimRef { namespace: holder.namespace.clone(), name: holder.name.clone() })
}

/// Whether the address is kept for somebody else than `service`.
pub fn is_reserved_for_another(vip: &VirtualIP, service: &ClaimRef) -> bool {
    vip.spec.reservation.as_ref().is_some_and(|reservation| {
        reservation.namespace != service.namespace
            || reservation.name.as_ref().is_some_and(|name| *name != service.name)
    })
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
