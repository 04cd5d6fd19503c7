//! The addresses that a Service has or had, in one family.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::Family;

use super::ServiceKey;
use super::book::Holder;
use super::choice::obstacle;
use super::plan::View;
use super::request::Request;
use super::verdict::{addresses, has_our_finalizer};
use crate::status::is_shown_by_us;
use crate::world::virtual_ips::{claim_of, key_of_claim};

/// An address that the Service has or had.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) address: IpAddr,
    /// It claims the VirtualIP; otherwise it is to claim it again.
    pub(super) claimed: bool,
    /// It is what is asked for.
    pub(super) fits: bool,
    /// The status shows it.
    pub(super) in_status: bool,
    /// When the VirtualIP was created, in seconds since the epoch.
    pub(super) born: i64,
}

/// Whether another Service claims an address that this one shows and that one does not. What is
/// shown is in use, so the other has to give way; its claim fell into the gap while the VirtualIP was
/// away.
pub(super) fn is_contested(view: View<'_>, service: &Service, key: &ServiceKey, address: IpAddr) -> bool {
    let Some(vip) = view.vips.get(address) else { return false };
    let holders = view.book.holders(address);
    !vip.spec.claims.is_empty()
        && claim_of(vip, key).is_none()
        && has_our_finalizer(service)
        && is_shown_by_us(service, address)
        && vip.spec.claims.iter().all(|claim| !holders.contains(&Holder::Status(key_of_claim(claim))))
}

/// Everything that the Service has in the family, or had and should get back.
pub(super) fn candidates(
    view: View<'_>,
    service: &Service,
    key: &ServiceKey,
    request: Option<&Request>,
    family: Family,
) -> Vec<Candidate> {
    let in_status = addresses(service);
    let fits = |address: IpAddr, pool: Option<&str>| {
        request.is_none_or(|request| {
            request.accepts(address, pool) || request.accepts(address, view.book.pool_of(address))
        })
    };
    let of_another = |address: IpAddr| {
        let holders = view.book.holders(address);
        !in_status.contains(&address) && holders.iter().any(|holder| matches!(holder, Holder::Status(_)))
    };
    let mut candidates: Vec<Candidate> = view
        .vips
        .claimed_by(key)
        .filter(|address| Family::of(*address) == family && !of_another(*address))
        .filter_map(|address| {
            let vip = view.vips.get(address)?;
            Some(Candidate {
                address,
                claimed: true,
                fits: fits(address, vip.spec.pool.as_deref()),
                in_status: in_status.contains(&address),
                born: vip.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
            })
        })
        .collect();
    let claims_any = !candidates.is_empty();
    let lost = view.lost.get(key);
    let is_lost = |address: IpAddr| lost.is_some_and(|lost| lost.contains_key(&address));
    let of_lost = lost.into_iter().flat_map(|lost| lost.keys().copied());
    let mut unclaimed: Vec<IpAddr> =
        in_status.iter().copied().chain(of_lost).filter(|address| Family::of(*address) == family).collect();
    unclaimed.sort_unstable();
    unclaimed.dedup();
    for address in unclaimed {
        if candidates.iter().any(|known| known.address == address) {
            continue;
        }
        let pool = view.book.pool_of(address);
        let vanished = has_our_finalizer(service)
            && (is_lost(address) && !claims_any && (pool.is_some() || in_status.contains(&address))
                || in_status.contains(&address) && is_shown_by_us(service, address));
        let fits = fits(address, pool);
        // In a pool, what the status shows may be known to the other controller only.
        let may_be_claimed = pool.is_some() && fits && in_status.contains(&address);
        if (vanished || may_be_claimed) && obstacle(view.book, view.vips, key, address, vanished).is_none() {
            candidates.push(Candidate {
                address,
                claimed: false,
                fits,
                in_status: in_status.contains(&address),
                born: i64::MAX,
            });
        }
    }
    candidates
}
