//! How a Service gets its address and keeps it.

use std::time::Duration;

use landfall_controller::effects::{Effect, Outcome, Refusal};
use landfall_controller::granting::claim::{Claiming, with_claim};
use landfall_controller::mind::Event;
use landfall_crds::address::Family;
use landfall_crds::{Reservation, TrafficPolicy, VirtualIP, VirtualIPSpec};

use super::{annotate, dual, lan};
use crate::cluster::Way;
use crate::objects::{pool, service};

#[test]
fn a_grant_takes_its_steps_in_order() {
    let mut cluster = lan();
    cluster.api.put_service(service("web"));
    assert_eq!(cluster.steps(), ["AddFinalizers", "CreateVirtualIp", "SetIngress"]);
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    assert_eq!(cluster.condition("web", "Granted"), "True/Granted: 10.0.0.50 from pool lan");
    assert!(cluster.condition("web", "Announced").starts_with("False/NotYetAnnounced"));
    assert_eq!(cluster.told(), [""; 0], "nobody could reach it yet");
    let entry = &landfall_controller::granting::verdict::ingress(cluster.get("web"))[0];
    assert_eq!(entry.ip_mode.as_deref(), Some("VIP"));
    cluster.announce_all();
    assert_eq!(cluster.steps(), ["SetConditions"]);
    assert!(cluster.condition("web", "Announced").starts_with("True/Announced"));
    assert_eq!(cluster.events_of("web"), ["EnsuredLoadBalancer: Ensured load balancer: 10.0.0.50"]);
    cluster.quiet();
    assert_eq!(cluster.told().len(), 1);
    let spec = &cluster.vip("10.0.0.50").spec;
    assert_eq!((spec.claims.len(), spec.ports.len(), spec.pool.as_deref()), (1, 1, Some("lan")));
    assert_eq!(spec.placement.as_ref().unwrap().candidates.len(), 3);
}

/// The condition says so from the first moment, so that nothing but an Event is written when it turns out to be
/// more than a moment; one Event, whoever leads meanwhile.
#[test]
fn of_an_address_that_nobody_announces_the_owner_is_told_once_after_a_while() {
    let mut cluster = lan();
    cluster.api.put_service(service("web"));
    cluster.steps();
    let said = cluster.condition("web", "Announced");
    assert!(said.starts_with("False/NotYetAnnounced: no node answers for 10.0.0.50"), "{said}");
    assert_eq!(cluster.after(Duration::from_millis(4999)), [""; 0]);
    assert_eq!(cluster.told(), [""; 0]);
    cluster.after(Duration::from_millis(1));
    assert!(
        cluster.events_of("web")[0].starts_with("UnAvailableLoadBalancer: no node answers for 10.0.0.50")
    );
    cluster.quiet();
    cluster.pass(Duration::from_secs(2));
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(cluster.told(), [""; 0], "the predecessor told");
    assert_eq!(cluster.condition("web", "Announced"), said);
    assert!(!cluster.api.writes.contains_key("SetConditions"));
    cluster.announce_all();
    cluster.quiet();
    assert_eq!(cluster.told(), ["EnsuredLoadBalancer"]);

    // One who takes over before the time has come tells himself.
    cluster.api.put_service(service("db"));
    cluster.steps();
    cluster.pass(Duration::from_secs(2));
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(cluster.told(), ["UnAvailableLoadBalancer"]);
}

/// An address that ceases to be announced is taken for one between two nodes, for a while.
#[test]
fn of_an_announcement_that_has_ended_the_owner_is_told_once_with_the_condition() {
    let mut cluster = lan();
    cluster.api.put_service(service("web"));
    cluster.steps();
    cluster.announce_all();
    cluster.quiet();
    cluster.announce("10.0.0.50", None);
    assert_eq!(cluster.steps(), [""; 0]);
    assert_eq!(cluster.after(Duration::from_millis(4999)), [""; 0]);
    assert!(cluster.condition("web", "Announced").starts_with("True/"));
    assert_eq!(cluster.after(Duration::from_millis(1)), ["SetConditions"]);
    assert!(cluster.condition("web", "Announced").starts_with("False/NotYetAnnounced"));
    cluster.quiet();
    assert_eq!(cluster.told(), ["EnsuredLoadBalancer", "UnAvailableLoadBalancer"]);
    cluster.announce_all();
    cluster.quiet();
    assert_eq!(cluster.told()[2..], ["EnsuredLoadBalancer"]);
}

/// What is announced already says nothing of an address that comes later.
#[test]
fn an_address_that_comes_beside_another_is_not_called_announced_before_it_is() {
    let mut cluster = lan();
    cluster.api.put_service(service("web"));
    cluster.steps();
    cluster.announce_all();
    cluster.quiet();
    cluster.edit("web", |service| dual(service, "PreferDualStack"));
    assert_eq!(cluster.steps(), ["CreateVirtualIp", "SetIngress"]);
    let said = cluster.condition("web", "Announced");
    assert!(said.starts_with("False/NotYetAnnounced: no node answers for fd00::50"), "{said}");
    cluster.announce_all();
    cluster.quiet();
    assert_eq!(
        cluster.events_of("web")[1..],
        ["EnsuredLoadBalancer: Ensured load balancer: 10.0.0.50, fd00::50"]
    );
}

/// `i5_stable`: nothing that is not about the address moves it.
#[test]
fn ports_and_policies_change_in_place() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.announce_all();
    cluster.quiet();
    let before = cluster.vip("10.0.0.50").clone();
    cluster.edit("web", |service| {
        let spec = service.spec.as_mut().unwrap();
        spec.ports.as_mut().unwrap()[0].port = 8080;
        spec.external_traffic_policy = Some("Local".into());
        spec.health_check_node_port = Some(32000);
        service.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        annotate(service, "other", "thing");
    });
    assert_eq!(
        cluster.steps(),
        ["UpdateVirtualIp", "SetConditions"],
        "the latter since no node has an endpoint"
    );
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    let after = cluster.vip("10.0.0.50");
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(after.spec.ports[0].port, 8080);
    assert_eq!(after.spec.claims[0].health_check_node_port, Some(32000));
    assert_eq!(after.spec.claims[0].traffic_policy, TrafficPolicy::Local);
    let epoch = |vip: &VirtualIP| vip.spec.placement.as_ref().unwrap().epoch;
    assert_eq!(epoch(after), epoch(&before), "and nothing moves");
}

#[test]
fn an_edit_of_the_request_switches_in_the_order_of_safety() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.53"));
    assert_eq!(
        cluster.steps(),
        ["CreateVirtualIp", "SetIngress", "SetVirtualIpStatus", "UpdateVirtualIp", "GetService"]
    );
    assert_eq!(cluster.after(Duration::from_millis(100)), ["DeleteVirtualIp"], "once it is noted who had it");
    assert_eq!(cluster.addresses("web"), ["10.0.0.53"]);
    assert!(!cluster.has_vip("10.0.0.50"));
    cluster.edit("web", |service| annotate(service, "ips", "10.9.0.1"));
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.53"], "what cannot be had does not cost what one has");
    let said = cluster.condition("web", "Granted");
    assert!(
        said.starts_with("False/AddressNotInPool: 10.9.0.1 is asked for, but no IPPool holds it"),
        "{said}"
    );
    assert!(said.ends_with("10.0.0.53 stays until then"), "{said}");
    cluster.edit("web", |service| service.metadata.annotations = None);
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.53"]);
    assert!(cluster.condition("web", "Granted").starts_with("True/Granted"));
}

#[test]
fn both_families_or_none_where_both_are_required() {
    let mut cluster = lan();
    cluster.api.put_pool(pool("lan", &["10.0.0.50-10.0.0.53"]));
    cluster.create("strict", |service| dual(service, "RequireDualStack"));
    cluster.create("easy", |service| dual(service, "PreferDualStack"));
    assert_eq!(cluster.addresses("strict"), [""; 0]);
    assert!(cluster.condition("strict", "Granted").starts_with("False/NoPool: no IPv6 address can be had"));
    assert_eq!(cluster.addresses("easy"), ["10.0.0.50"]);
    assert!(
        cluster.condition("easy", "Granted").starts_with("True/Granted: 10.0.0.50 from pool lan; no IPv6")
    );
    cluster.api.put_pool(pool("six", &["fd00::/64"]));
    cluster.quiet();
    assert_eq!(cluster.addresses("easy"), ["10.0.0.50", "fd00::2"], "fd00:: means every router");
    assert_eq!(cluster.addresses("strict"), ["10.0.0.51", "fd00::1"]);
    cluster.edit("strict", |service| {
        let spec = service.spec.as_mut().unwrap();
        spec.ip_families = Some(vec!["IPv4".into()]);
        spec.ip_family_policy = Some("SingleStack".into());
    });
    cluster.quiet();
    assert_eq!(cluster.addresses("strict"), ["10.0.0.51"]);
    assert!(!cluster.has_vip("fd00::1"));
}

#[test]
fn the_primary_family_stands_first() {
    let mut cluster = lan();
    cluster.create("web", |service| {
        dual(service, "RequireDualStack");
        service.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".into(), "IPv4".into()]);
    });
    assert_eq!(cluster.addresses("web"), ["fd00::50", "10.0.0.50"]);
}

#[test]
fn the_oldest_waits_shortest() {
    let mut cluster = lan();
    for name in ["a", "b", "c", "d", "e", "f"] {
        cluster.create(name, |_| {});
        cluster.pass(Duration::from_secs(1));
    }
    assert!(
        cluster
            .condition("e", "Granted")
            .starts_with("False/PoolExhausted: no IPv4 address can be had: lan is exhausted")
    );
    assert!(cluster.pool_condition("lan", "Exhausted").starts_with("True/AllInUse: no IPv4 address is free"));
    cluster.api.delete_service("shop/b");
    cluster.quiet();
    assert_eq!(cluster.addresses("e"), ["10.0.0.51"]);
    assert_eq!(cluster.addresses("f"), [""; 0]);
}

#[test]
fn a_virtual_ip_deleted_by_mistake_comes_back_as_it_was() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let before = cluster.vip("10.0.0.50").clone();
    cluster.api.delete_vip("10.0.0.50");
    // A new Service comes at the same moment; it does not get the address.
    cluster.api.put_service(service("new"));
    cluster.quiet();
    let after = cluster.vip("10.0.0.50");
    assert_ne!(after.metadata.uid, before.metadata.uid);
    assert_eq!(after.spec, before.spec, "the epoch, too");
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    assert_eq!(cluster.addresses("new"), ["10.0.0.51"]);
}

#[test]
fn what_the_status_shows_is_restored_when_all_virtual_ips_are_gone() {
    let mut cluster = lan();
    for name in ["a", "b"] {
        cluster.create(name, |_| {});
    }
    for name in ["10.0.0.50", "10.0.0.51"] {
        let mut vip = cluster.vip(name).clone();
        vip.metadata.finalizers = None;
        cluster.api.put_vip(vip);
        cluster.api.delete_vip(name);
    }
    cluster.crash(0);
    cluster.api.delete_pool("lan");
    cluster.api.put_pool(pool("lan", &["10.0.0.51-10.0.0.55"]));
    cluster.create("new", |_| {});
    assert_eq!(cluster.addresses("a"), ["10.0.0.50"], "even where no pool holds it any more");
    assert_eq!(cluster.addresses("b"), ["10.0.0.51"]);
    assert_eq!(cluster.addresses("new"), ["10.0.0.52"]);
}

#[test]
fn a_new_uid_takes_over() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let mut old = cluster.get("web").clone();
    old.metadata.finalizers = None;
    cluster.api.put_service(old);
    cluster.api.delete_service("shop/web");
    cluster.create("web", |_| {});
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    assert_eq!(Some(&cluster.vip("10.0.0.50").spec.claims[0].uid), cluster.get("web").metadata.uid.as_ref());
}

#[test]
fn a_deleted_pool_leaves_what_was_granted() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.api.delete_pool("lan");
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    let said = cluster.condition("web", "Granted");
    assert_eq!(said, "True/Granted: 10.0.0.50 (pool lan is gone; address kept)");
    assert_eq!(cluster.vip("10.0.0.50").spec.placement.as_ref().unwrap().candidates.len(), 3);
    cluster.create("new", |_| {});
    assert!(cluster.condition("new", "Granted").starts_with("False/NoPool: there is no IPPool"));
}

#[test]
fn a_reservation_is_for_whom_it_names() {
    let mut cluster = lan();
    let reservation =
        Reservation { namespace: "shop".into(), name: Some("vault".into()), ..Reservation::default() };
    let spec = VirtualIPSpec {
        address: "10.0.0.50".into(),
        reservation: Some(reservation),
        ..VirtualIPSpec::default()
    };
    cluster.api.put_vip(VirtualIP::new("10.0.0.50", spec));
    cluster.quiet();
    assert_eq!(cluster.api.pools["lan"].status.as_ref().unwrap().ipv4.unwrap().reserved, 1);
    cluster.create("web", |service| annotate(service, "ips", "10.0.0.50"));
    assert!(cluster.condition("web", "Granted").starts_with("False/AddressReserved: 10.0.0.50 is asked for"));
    cluster.create("vault", |_| {});
    assert_eq!(cluster.addresses("vault"), ["10.0.0.50"], "without asking");
    cluster.api.delete_service("shop/vault");
    cluster.quiet();
    let kept = cluster.vip("10.0.0.50");
    assert!(kept.spec.claims.is_empty() && kept.spec.reservation.is_some());
    assert!(kept.metadata.finalizers.iter().flatten().next().is_none(), "its owner may delete it");
}

#[test]
fn the_api_server_has_the_last_word_on_who_has_an_address() {
    let mut cluster = lan();
    cluster.controllers[0].wanted.clear();
    cluster.api.put_service(service("web"));
    // Another controller was faster, and its VirtualIP has not been seen here.
    let claiming = Claiming {
        family: Family::IPv4,
        service: &service("other"),
        key: &landfall_crds::ClaimRef { namespace: "shop".into(), name: "other".into() },
        request: None,
        requires_ranges: false,
        named: None,
        guard: None,
        settled: true,
        now: cluster.now().wall,
    };
    let address = "10.0.0.50".parse().unwrap();
    let mut other = with_claim(None, address, &claiming);
    other.pool = Some("lan".into());
    cluster.deliver(0, crate::api::SERVICES);
    cluster.write(0, 0, Way::Fine);
    cluster.answer(0);
    cluster.api.put_service(service("other"));
    cluster.api.put_vip(VirtualIP::new("10.0.0.50", other));
    let (effect, done) = cluster.write(0, 0, Way::Fine).unwrap();
    assert!(matches!(effect, Effect::CreateVirtualIp { .. }) && !done, "{effect:?}");
    cluster.answer(0);
    let (effect, _) = cluster.write(0, 0, Way::Fine).unwrap();
    assert!(matches!(effect, Effect::GetVirtualIp { .. }), "{effect:?}");
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.51"]);
}

#[test]
fn an_api_server_that_is_away_is_asked_again_ever_less_often() {
    let mut cluster = lan();
    cluster.api.put_service(service("web"));
    cluster.deliver(0, crate::api::SERVICES);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        assert!(cluster.write(0, 0, Way::LostBefore).is_some());
        cluster.answer(0);
        cluster.pass(Duration::from_millis(seconds * 1000 - 1));
        assert!(cluster.controllers[0].wanted.is_empty());
        cluster.pass(Duration::from_millis(1));
    }
    assert_eq!(cluster.steps(), ["AddFinalizers", "CreateVirtualIp", "SetIngress"]);
}

#[test]
fn a_refusal_for_good_is_told() {
    let mut cluster = lan();
    cluster.api.put_service(service("web"));
    cluster.deliver(0, crate::api::SERVICES);
    let effect = cluster.controllers[0].wanted.pop_front().unwrap();
    let outcome = Outcome::Refused(Refusal::Invalid("denied by policy".into()));
    let now = cluster.now();
    cluster.controllers[0].tell(now, Event::Done { effect, outcome });
    assert_eq!(cluster.steps(), ["SetConditions"]);
    assert_eq!(cluster.told(), ["SyncLoadBalancerFailed"]);
    let said = cluster.condition("web", "Granted");
    assert!(said.starts_with("False/WriteRefused: ") && said.ends_with("denied by policy"), "{said}");
    // It is tried again, for the policy may be gone.
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
}
