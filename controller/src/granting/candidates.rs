//! The addresses that a Service has or had, in one family.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::Claim;
use landfall_crds::address::Family;
use landfall_crds::names::annotations;

use super::ServiceKey;
use super::book::{Holder, Pool};
use super::choice::{Seeker, Seeking, are_beside, asker, names_by, obstacle};
use super::plan::{View, may_count_under};
use super::request::{Request, annotation, sharing_key};
use super::rules::scope_serves;
use super::sharing::{Party, fits};
use super::verdict::has_our_finalizer;
use crate::status::is_shown_by_us;
use crate::world::virtual_ips::{claim_in, claim_of, key_of_claim};

/// The addresses that the Service has, in all families.
#[derive(Clone, Copy)]
pub(super) struct Has<'a> {
    /// It claims their VirtualIPs.
    pub(super) claimed: &'a [IpAddr],
    /// Its status shows them.
    pub(super) shown: &'a [IpAddr],
    /// Pools from which it is being given an address in another family.
    pub(super) given: &'a [String],
}

/// An address that the Service has or had.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) address: IpAddr,
    /// It claims the VirtualIP; otherwise it is to claim it again.
    pub(super) claimed: bool,
    /// It is what is asked for.
    pub(super) fits: bool,
    /// It must be given up even for nothing: an internal load balancer was asked for, and it may be public.
    pub(super) forbidden: bool,
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
    has: Has<'_>,
    family: Family,
) -> Vec<Candidate> {
    let Has { claimed, shown: in_status, given } = has;
    let judge = |address: IpAddr, pool: Option<&str>, claim: Option<&Claim>| {
        let Some(request) = request else { return (true, false) };
        let lies_in = view.book.pool_of(address);
        // Not where that pool's quota has no room for it: then the Service waits for the pool.
        let may_name =
            |name| may_count_under(view, name, key, address, view.vips.get(address).map(|vip| &vip.spec));
        let accepted = request.accepts(address, pool)
            || request.accepts(address, lies_in) && (pool.is_none() || lies_in.is_some_and(may_name));
        let in_scope = is_in_scope(view, service, key, request, address, pool, claim);
        (accepted && in_scope, request.internal && !in_scope)
    };
    let of_another = |address: IpAddr| {
        let holders = view.book.holders(address);
        !in_status.contains(&address)
            && holders
                .iter()
                .any(|holder| matches!(holder, Holder::Status(by) if !are_beside(view, address, key, by)))
    };
    let mut candidates: Vec<Candidate> = claimed
        .iter()
        .copied()
        .filter(|address| Family::of(*address) == family && !of_another(*address))
        .filter_map(|address| {
            let vip = view.vips.get(address)?;
            let (fits, forbidden) = judge(address, vip.spec.pool.as_deref(), claim_of(vip, key));
            Some(Candidate {
                address,
                claimed: true,
                fits,
                forbidden,
                in_status: in_status.contains(&address),
                born: vip.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
            })
        })
        .collect();
    let claims_any = !candidates.is_empty();
    let lost = view.lost.get(key);
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
        let lost = lost.and_then(|lost| lost.get(&address));
        let claim = lost.and_then(|lost| claim_in(&lost.spec.claims, key));
        // A request that is not understood asks for nothing new.
        let sharing_key = match request {
            Some(request) => request.sharing_key.clone(),
            None => match claim {
                Some(claim) => claim.sharing.as_ref().map(|sharing| sharing.key.clone()),
                None => sharing_key(service).ok().flatten(),
            },
        };
        // Who was edited so that it collides with the others there does not get it back.
        let party = Party::of(service, key, sharing_key.as_deref());
        if lost.is_some_and(|lost| fits(&lost.spec, &party, None).is_err()) {
            continue;
        }
        let seeking = Seeking { service, key, sharing_key: sharing_key.as_deref() };
        let vanished = has_our_finalizer(service)
            && (lost.is_some() && !claims_any && (pool.is_some() || in_status.contains(&address))
                || in_status.contains(&address) && is_shown_by_us(service, address));
        let (fits, forbidden) = judge(address, pool, claim);
        // In a pool, what the status shows may be known to the other controller only. What is to be taken
        // over is taken as it is, even if the Service asks for a pool that only its former keeper had.
        let is_adopted = annotation(service, annotations::ADOPT) == Some("true");
        let is_served = |request: &Request| {
            let seeker = Seeker { view, service, key, request, given, instead_of: None };
            let found = pool.and_then(|name| Some((name, view.book.pool(name)?)));
            found.is_some_and(|(name, pool)| seeker.is_served_by(name, pool, family, Some(address)).is_ok())
        };
        // What others wrote there is taken by the rules that hold for all.
        let may_be_claimed = pool.is_some()
            && (fits || is_adopted)
            && in_status.contains(&address)
            && (is_shown_by_us(service, address) || request.is_some_and(is_served));
        if (vanished || may_be_claimed) && obstacle(view, &seeking, address, vanished).is_none() {
            candidates.push(Candidate {
                address,
                claimed: false,
                fits,
                forbidden,
                in_status: in_status.contains(&address),
                born: i64::MAX,
            });
        }
    }
    candidates
}

/// Whether an address in hand still is of the kind that is asked for, internal or not. An edit of the pool
/// changes nothing about that, only one of the Service: of what it asks for, or of the pool that it names,
/// where it has an internal load balancer only because it named it.
fn is_in_scope(
    view: View<'_>,
    service: &Service,
    key: &ServiceKey,
    request: &Request,
    address: IpAddr,
    pool: Option<&str>,
    claim: Option<&Claim>,
) -> bool {
    let Some(terms) = claim.and_then(|claim| claim.terms.as_ref()) else { return true };
    let known = |name| Some((name, view.book.pool(name)?));
    let pool = pool.and_then(known);
    let lies_in = view.book.pool_of(address).and_then(known);
    let names = |(name, pool): (&str, &Pool)| names_by(request, name, pool).is_some();
    let stopped = terms.named.as_ref().is_some_and(|text| !request.mentions(text));
    let names_no_more = stopped && pool.is_some() && ![pool, lies_in].into_iter().flatten().any(names);
    if terms.internal == request.internal && !names_no_more {
        return true;
    }
    pool.is_some_and(|(name, pool)| {
        let names_it = asker(view, service, key, request, name, pool, Family::of(address)).names_it;
        scope_serves(pool.object.spec.scope, request.internal, names_it)
    })
}
