//! Addresses kept for somebody who does not hold them: reservations, and the rest after a release.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use landfall_crds::duration::parse_duration;
use landfall_crds::{IPPool, Reservation, VirtualIP};

use super::ServiceKey;
use super::plan::View;
use crate::conditions::whole_seconds;
use crate::world::namespaces::Namespaces;
use crate::world::virtual_ips::is_tenants;

/// How long an address is kept for a Service that has gone, where the pool does not say (`720h`).
const EXPIRE_AFTER: SignedDuration = SignedDuration::from_hours(720);

/// The reservation of a VirtualIP, unless it has ended: by its time, or with the namespace for whose
/// Service the controller made it.
pub fn live<'a>(vip: &'a VirtualIP, now: Timestamp, namespaces: &Namespaces) -> Option<&'a Reservation> {
    let reservation = vip.spec.reservation.as_ref()?;
    let expired = has_expired(reservation, now);
    let uid = reservation.namespace_uid.as_deref();
    let orphaned = uid.is_some_and(|uid| namespaces.has_ended(&reservation.namespace, uid));
    (!expired && !orphaned).then_some(reservation)
}

fn has_expired(reservation: &Reservation, now: Timestamp) -> bool {
    reservation.expires.as_ref().is_some_and(|expires| expires.0 <= now)
}

/// Whether the Service may have the address.
pub fn is_for(reservation: &Reservation, service: &ServiceKey) -> bool {
    reservation.namespace == service.namespace
        && reservation.name.as_ref().is_none_or(|name| *name == service.name)
}

/// Whether the reservation was made for this very Service at its own wish.
pub fn is_own(reservation: &Reservation, service: &ServiceKey) -> bool {
    is_tenants(reservation) && is_for(reservation, service)
}

/// The reservation that a VirtualIP should have while the Service claims it. What a person wrote stays,
/// and so does what another Service on the same address keeps; one whose time is over makes room.
pub fn while_claimed(
    current: Option<&Reservation>,
    service: &ServiceKey,
    wants: bool,
    pool: Option<&IPPool>,
    namespaces: &Namespaces,
    now: Timestamp,
) -> Option<Reservation> {
    let allowed = wants && pool.is_some_and(|pool| pool.spec.reservations.is_some());
    if let Some(current) = current
        && !is_own(current, service)
        && !(allowed && has_expired(current, now))
    {
        let ended = |uid: &String| namespaces.has_ended(&current.namespace, uid);
        return current.namespace_uid.as_ref().is_none_or(|uid| !ended(uid)).then(|| current.clone());
    }
    if !allowed {
        return None;
    }
    namespaces.get(&service.namespace).map(|namespace| Reservation {
        namespace: service.namespace.clone(),
        name: Some(service.name.clone()),
        expires: None,
        namespace_uid: Some(namespace.uid.clone()),
        note: None,
    })
}

/// Why an address that the Service holds is not kept for it though it asks for that, in words to follow
/// "but"; nothing if it is kept, or is about to be.
pub fn why_not_reserved(view: View<'_>, vip: &VirtualIP, service: &ServiceKey) -> Option<String> {
    if let Some(kept) = live(vip, view.now, view.namespaces) {
        let other = (!is_for(kept, service)).then(|| named_in(kept));
        return other.map(|other| format!("VirtualIP {} keeps it for {other}", vip.spec.address));
    }
    let Some(name) = vip.spec.pool.as_deref() else { return Some("it is of no pool".to_owned()) };
    match view.book.pool(name) {
        None => Some(format!("pool {name} is gone")),
        Some(pool) if pool.object.spec.reservations.is_none() => {
            Some(format!("pool {name} allows no reservations: see its spec.reservations"))
        }
        Some(_) => None,
    }
}

/// For whom a reservation is, as it stands in sentences.
fn named_in(reservation: &Reservation) -> String {
    match &reservation.name {
        Some(name) => format!("Service {}/{name}", reservation.namespace),
        None => format!("namespace {}", reservation.namespace),
    }
}

/// The reservation that a VirtualIP should have once the Service has left it: kept for a time if the
/// Service has `gone`, taken away if it has chosen another address.
pub fn after_claim(
    current: Option<&Reservation>,
    service: &ServiceKey,
    gone: bool,
    pool: Option<&IPPool>,
    now: Timestamp,
) -> Option<Reservation> {
    let current = current?;
    if !is_own(current, service) {
        return Some(current.clone());
    }
    let terms = pool.and_then(|pool| pool.spec.reservations.as_ref())?;
    let wait = terms.expire_after.as_deref().and_then(parse_duration);
    let wait = wait.and_then(|wait| SignedDuration::try_from(wait).ok()).unwrap_or(EXPIRE_AFTER);
    let expires = now.checked_add(wait).unwrap_or(Timestamp::MAX);
    gone.then(|| Reservation { expires: Some(Time(whole_seconds(expires))), ..current.clone() })
}

/// Until when a released address rests, if its pool has it rest. Its last release is noted on it.
pub fn rests_until(vip: &VirtualIP, pool: Option<&IPPool>) -> Option<Timestamp> {
    let delay = parse_duration(pool?.spec.release_delay.as_deref()?)?;
    let released = vip.status.as_ref()?.last_holders.first()?.until.0;
    released.checked_add(SignedDuration::try_from(delay).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Namespace;
    use landfall_crds::{PastHolder, VirtualIPSpec, VirtualIPStatus};
    use serde_json::json;

    fn pool(spec: serde_json::Value) -> IPPool {
        serde_json::from_value(json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "lan"}, "spec": spec,
        }))
        .unwrap()
    }

    fn namespaces(uid: &str) -> Namespaces {
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": "shop", "uid": uid}})).unwrap();
        let mut all = Namespaces::default();
        all.listed = true;
        all.put(&namespace);
        all
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn web() -> ServiceKey {
        ServiceKey { namespace: "shop".into(), name: "web".into() }
    }

    fn with(reservation: Reservation) -> VirtualIP {
        VirtualIP::new(
            "10.0.0.1",
            VirtualIPSpec { reservation: Some(reservation), ..VirtualIPSpec::default() },
        )
    }

    #[test]
    fn a_tenants_reservation_is_made_where_the_pool_allows_it_and_ends_with_time_and_namespace() {
        let allows = pool(json!({"addresses": [], "reservations": {"expireAfter": "2h"}}));
        let refuses = pool(json!({"addresses": []}));
        let all = namespaces("n1");
        assert_eq!(while_claimed(None, &web(), true, Some(&refuses), &all, at(0)), None);
        assert_eq!(while_claimed(None, &web(), false, Some(&allows), &all, at(0)), None);
        let made = while_claimed(None, &web(), true, Some(&allows), &all, at(0)).unwrap();
        assert_eq!((made.name.as_deref(), made.namespace_uid.as_deref()), (Some("web"), Some("n1")));
        assert_eq!(while_claimed(Some(&made), &web(), false, Some(&allows), &all, at(0)), None);

        assert_eq!(after_claim(Some(&made), &web(), false, Some(&allows), at(0)), None);
        let kept = after_claim(Some(&made), &web(), true, Some(&allows), at(0)).unwrap();
        assert_eq!(kept.expires.as_ref().unwrap().0, at(7200));
        let vip = with(kept);
        assert!(live(&vip, at(7199), &all).is_some());
        assert!(live(&vip, at(7200), &all).is_none(), "its time is over");
        assert!(live(&vip, at(1), &namespaces("n2")).is_none(), "the namespace is another one now");
    }

    #[test]
    fn a_persons_reservation_is_left_alone() {
        let hand = Reservation { namespace: "shop".into(), ..Reservation::default() };
        let allows = pool(json!({"addresses": [], "reservations": {}}));
        let kept = while_claimed(Some(&hand), &web(), true, Some(&allows), &namespaces("n1"), at(0));
        assert_eq!(kept.as_ref(), Some(&hand));
        assert_eq!(after_claim(Some(&hand), &web(), false, Some(&allows), at(0)), Some(hand));
    }

    #[test]
    fn a_released_address_rests_as_long_as_its_pool_says() {
        let mut vip = VirtualIP::new("10.0.0.1", VirtualIPSpec::default());
        let slow = pool(json!({"addresses": [], "releaseDelay": "90s"}));
        assert_eq!(rests_until(&vip, Some(&slow)), None, "nobody had it");
        let holder = PastHolder {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "u".into(),
            since: None,
            until: Time(at(10)),
        };
        vip.status = Some(VirtualIPStatus { last_holders: vec![holder], ..VirtualIPStatus::default() });
        assert_eq!(rests_until(&vip, Some(&slow)), Some(at(100)));
        assert_eq!(rests_until(&vip, Some(&pool(json!({"addresses": []})))), None);
    }
}
