//! Services of others, and how they become ours.

use k8s_openapi::api::core::v1::Service;

use super::{annotate, given_by_another, lan};
use crate::objects::service;

#[test]
fn a_service_of_another_class_is_left_alone() {
    let mut cluster = lan();
    cluster.create("theirs", |service| {
        service.spec.as_mut().unwrap().load_balancer_class = Some("example.com/other".into());
    });
    assert_eq!(cluster.api.writes.keys().copied().collect::<Vec<_>>(), ["SetPoolStatus"]);
    assert_eq!(cluster.told(), [""; 0]);
}

#[test]
fn a_class_less_service_that_has_an_address_is_left_alone_and_told_so_once() {
    let mut cluster = lan();
    let mut theirs = service("theirs");
    given_by_another(&mut theirs, "192.0.2.7");
    let before = cluster.api.put_service(theirs);
    cluster.quiet();
    cluster.edit("theirs", |service| annotate(service, "other", "thing"));
    cluster.quiet();
    assert_eq!(cluster.get("theirs").metadata.finalizers, before.metadata.finalizers);
    assert_eq!(cluster.get("theirs").status, before.status);
    assert_eq!(cluster.told(), ["HeldByAnother"]);
}

#[test]
fn an_address_of_another_in_our_pool_is_not_granted() {
    let mut cluster = lan();
    let mut theirs = service("theirs");
    given_by_another(&mut theirs, "10.0.0.50");
    let before = cluster.api.put_service(theirs);
    cluster.create("web", |_| {});
    assert_eq!(cluster.addresses("web"), ["10.0.0.51"]);
    cluster.create("asking", |service| annotate(service, "ips", "10.0.0.50"));
    let said = cluster.condition("asking", "Granted");
    assert!(
        said.starts_with("False/AddressTaken: 10.0.0.50 is asked for, but Service shop/theirs"),
        "{said}"
    );
    assert_eq!(*cluster.get("theirs"), *before, "and who has it is left alone");
}

#[test]
fn adoption_takes_over_exactly_what_is_there() {
    let mut cluster = lan();
    let mut theirs = service("theirs");
    given_by_another(&mut theirs, "10.0.0.52");
    cluster.api.put_service(theirs);
    cluster.quiet();
    cluster.edit("theirs", |service| annotate(service, "adopt", "true"));
    cluster.quiet();
    assert_eq!(cluster.addresses("theirs"), ["10.0.0.52"]);
    assert!(cluster.condition("theirs", "Granted").starts_with("True/Granted: 10.0.0.52 from pool lan"));
    assert_eq!(cluster.vip("10.0.0.52").spec.claims[0].name, "theirs");
}

#[test]
fn adoption_is_refused_where_the_address_is_not_ours_to_give() {
    for (ip, why) in [("192.0.2.7", "no IPPool holds 192.0.2.7"), ("10.0.0.50", "Service shop/web has it")] {
        let mut cluster = lan();
        cluster.create("web", |_| {});
        let mut theirs = service("theirs");
        given_by_another(&mut theirs, ip);
        annotate(&mut theirs, "adopt", "true");
        let before = cluster.api.put_service(theirs);
        cluster.quiet();
        assert_eq!(*cluster.get("theirs"), *before);
        let told = cluster.controllers[0].published.last().unwrap();
        assert!(format!("{told:?}").contains(why), "{told:?}");
    }
}

#[test]
fn who_overwrites_our_address_has_the_service() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.edit("web", |service| {
        let kept = service.status.as_ref().unwrap().conditions.clone();
        given_by_another(service, "192.0.2.7");
        service.status.as_mut().unwrap().conditions = kept;
    });
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["192.0.2.7"], "two that write in turns would never end");
    assert!(cluster.api.vips.is_empty());
    assert_eq!(cluster.condition("web", "Granted"), "absent");
    assert!(cluster.told().contains(&"HeldByAnother"));
}

#[test]
fn an_address_that_was_only_asked_for_is_not_ours_when_another_writes_it() {
    for (asked, reason) in [("192.0.2.7", "AddressNotInPool"), ("10.0.0.50", "AddressTaken")] {
        for held in [true, false] {
            let mut cluster = lan();
            cluster.create("first", |_| {});
            let ask = |service: &mut Service| annotate(service, "ips", asked);
            if held {
                cluster.create("web", |_| {});
                cluster.edit("web", ask);
                cluster.quiet();
            } else {
                cluster.create("web", ask);
            }
            let said = cluster.condition("web", "Granted");
            assert!(said.starts_with(&format!("False/{reason}: {asked} is asked for")), "{said}");
            // By another implementation that honours the same wish and has such a pool.
            cluster.edit("web", |service| {
                let kept = service.status.as_ref().unwrap().conditions.clone();
                given_by_another(service, asked);
                service.status.as_mut().unwrap().conditions = kept;
            });
            cluster.quiet();
            assert_eq!(cluster.addresses("web"), [asked]);
            assert_eq!(cluster.condition("web", "Granted"), "absent");
            assert!(cluster.told().contains(&"HeldByAnother"));
            assert_eq!(cluster.api.vips.keys().collect::<Vec<_>>(), ["10.0.0.50"]);
            assert_eq!(cluster.vip("10.0.0.50").spec.claims[0].name, "first");
        }
    }
}
