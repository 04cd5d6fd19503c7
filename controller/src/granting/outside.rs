//! Addresses in use that their pool would not grant now, because it was edited. They stay where they are.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::Outside;

use super::ServiceKey;
use super::choice::asker;
use super::plan::{View, is_withheld};
use super::request::{Request, read};
use super::rules::serves;
use crate::world::store::Store;
use crate::world::virtual_ips::{claim_of, key_of_claim};

/// At most so many addresses are listed in a pool's status.
const MOST_LISTED: usize = 64;

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
    let mut asker = asker(view, service, key, request, name, pool);
    // Ranges that the Service has given up are said elsewhere: its address is withheld.
    let claim = view.vips.get(address).and_then(|vip| claim_of(vip, key));
    asker.source_ranges |= claim.is_some_and(|claim| is_withheld(service, claim, &pool.object));
    let refused = serves(pool, &asker, view.default_deny).err()?;
    Some(format!("pool {name} {}", refused.text))
}

/// The addresses that were granted from the pool and that it would not grant now.
pub(crate) fn outside_of(
    view: View<'_>,
    services: &Store<ServiceKey, Service>,
    name: &str,
) -> Option<Outside> {
    let mut outside_of = Outside::default();
    for address in view.vips.of_pool(name) {
        let claims = view.vips.get(address).map(|vip| vip.spec.claims.as_slice()).unwrap_or_default();
        let is_outside = claims.iter().any(|claim| {
            let key = key_of_claim(claim);
            let Some(service) = services.get(&key) else { return false };
            outside(view, service, &key, read(service).ok().as_ref(), address, name).is_some()
        });
        if is_outside {
            outside_of.count += 1;
            if outside_of.addresses.len() < MOST_LISTED {
                outside_of.addresses.push(address.to_string());
            }
        }
    }
    (outside_of.count > 0).then_some(outside_of)
}
