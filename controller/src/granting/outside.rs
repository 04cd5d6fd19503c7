//! Addresses in use that their pool would not grant now, because it was edited. They stay where they are.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::Family;

use super::ServiceKey;
use super::choice::asker;
use super::plan::{View, is_withheld};
use super::request::{Request, read};
use super::rules::serves;
use crate::world::store::Store;
use crate::world::virtual_ips::{claim_of, key_of_claim};

/// Why the pool that the address was taken from would not give it to the Service now; nothing if it
/// would, quota aside.
pub fn outside(
    view: View<'_>,
    service: &Service,
    key: &ServiceKey,
    request: Option<&Request>,
    address: IpAddr,
    name: &str,
) -> Option<String> {
    let Some(pool) = view.book.pool(name) else { return Some(format!("pool {name} is gone")) };
    if view.book.pool_of(address) != Some(name) {
        return Some(format!("no longer in pool {name}"));
    }
    let request = request?;
    let family = Family::of(address);
    let mut asker = asker(view, service, key, request, name, pool, family);
    // Ranges that the Service has given up are said elsewhere: its address is withheld.
    let claim = view.vips.get(address).and_then(|vip| claim_of(vip, key));
    asker.source_ranges |= claim.is_some_and(|claim| is_withheld(service, claim, &pool.object, family));
    let refused = serves(pool, &asker, view.default_deny).err()?;
    Some(format!("pool {name} {}", refused.text))
}

/// Whether the address was taken from the pool, and some Service that claims it would not be given it now.
pub(super) fn is_outside(
    view: View<'_>,
    services: &Store<ServiceKey, Service>,
    address: IpAddr,
    name: &str,
) -> bool {
    let Some(vip) = view.vips.get(address) else { return false };
    vip.spec.pool.as_deref() == Some(name)
        && vip.spec.claims.iter().any(|claim| {
            let key = key_of_claim(claim);
            let Some(service) = services.get(&key) else { return false };
            outside(view, service, &key, read(service).ok().as_ref(), address, name).is_some()
        })
}
