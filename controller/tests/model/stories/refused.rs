//! What the API server refuses for good, as by a policy: who is held up by it, and who is not.

use std::time::Duration;

use super::{annotate, pools};
use crate::cluster::Cluster;
use serde_json::json;

fn lan() -> Cluster {
    pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.53"]}))])
}

/// How often a VirtualIP was to be created since the last time, in an hour.
fn tries(cluster: &mut Cluster) -> usize {
    let before = cluster.refusals;
    cluster.wait(Duration::from_secs(3600));
    cluster.refusals - before
}

#[test]
fn an_address_that_is_refused_holds_up_nobody() {
    let mut cluster = lan();
    cluster.api.policy = Some(|spec| spec.address != "10.0.0.50");
    for (name, address) in [("a", "10.0.0.51"), ("b", "10.0.0.52")] {
        cluster.put(name, |_| {});
        cluster.settle();
        cluster.assert_has(name, &[address]);
    }
    assert_eq!(tries(&mut cluster), 0, "nobody wants it");
    // A long time later it is tried again, and then again put aside.
    cluster.put("c", |_| {});
    cluster.settle();
    cluster.assert_has("c", &["10.0.0.53"]);
    // Who could have nothing else tries it now and then, and is told once.
    cluster.put("d", |_| {});
    cluster.wait(Duration::from_secs(60));
    assert!(cluster.condition("d", "Granted").starts_with("False/"), "{}", cluster.condition("d", "Granted"));
    let in_an_hour = tries(&mut cluster);
    assert!((50..=75).contains(&in_an_hour), "{in_an_hour}");
    let events = cluster.failures_of("d");
    assert!(events <= 3, "{:?}", cluster.events_of("d"));
    tries(&mut cluster);
    assert_eq!(cluster.failures_of("d"), events, "told once");
    cluster.api.policy = None;
    cluster.wait(Duration::from_secs(61));
    cluster.assert_has("d", &["10.0.0.50"]);
}

#[test]
fn who_asks_for_an_address_that_is_refused_is_told_what_the_api_server_says() {
    let mut cluster = lan();
    cluster.api.policy = Some(|spec| spec.address != "10.0.0.52");
    cluster.put("web", |service| annotate(service, "ips", "10.0.0.52"));
    cluster.wait(Duration::from_secs(2));
    let said = cluster.condition("web", "Granted");
    let expected = "False/WriteRefused: the API server refuses to let the Service have an address: a policy refuses 10.0.0.52";
    assert_eq!(said, expected);
    cluster.put("late", |service| annotate(service, "ips", "10.0.0.52"));
    cluster.settle();
    let said = cluster.condition("late", "Granted");
    let expected = "False/WriteRefused: 10.0.0.52 is asked for, but the API server refuses to let it be claimed: \
                    a policy refuses 10.0.0.52";
    assert_eq!(said, expected);
    cluster.api.delete_service("shop/late");
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.53"));
    cluster.settle();
    cluster.assert_has("web", &["10.0.0.53"]);
    cluster.quiet();
}

#[test]
fn a_service_that_is_refused_everywhere_waits_and_leaves_the_pool_to_others() {
    let mut cluster = lan();
    cluster.api.policy = Some(|spec| spec.claims.iter().all(|claim| claim.name != "bad"));
    cluster.put("bad", |_| {});
    cluster.settle();
    let said = cluster.condition("bad", "Granted");
    let expected =
        "False/WriteRefused: the API server refuses to let the Service have an address: a policy refuses";
    assert!(said.starts_with(expected), "{said}");
    let in_an_hour = tries(&mut cluster);
    assert!((50..=75).contains(&in_an_hour), "{in_an_hour}");
    assert_eq!(cluster.condition("bad", "Granted"), said, "what it is told stays");
    let events = cluster.failures_of("bad");
    assert!(events <= 2, "{:?}", cluster.events_of("bad"));
    // Others have all of the pool, even its last address.
    for name in ["a", "b", "c", "d"] {
        cluster.put(name, |_| {});
        cluster.wait(Duration::from_secs(61));
        assert_eq!(cluster.addresses(name).len(), 1, "{name}");
    }
    cluster.api.delete_service("shop/d");
    cluster.wait(Duration::from_secs(61));
    // What it was refused for is mended.
    cluster.api.policy = None;
    cluster.edit("bad", |service| annotate(service, "mended", "true"));
    cluster.wait(Duration::from_secs(31));
    assert_eq!(cluster.addresses("bad").len(), 1);
    cluster.quiet();
    assert!(cluster.failures_of("bad") <= events + 3, "{:?}", cluster.events_of("bad"));
}

#[test]
fn a_place_beside_others_that_is_refused_is_left_for_an_address_of_its_own() {
    let mut cluster = super::sharing::lan();
    cluster.create("web", super::sharing::sharer("k", 80));
    cluster.api.policy = Some(|spec| spec.claims.len() < 2);
    cluster.put("tls", super::sharing::sharer("k", 443));
    cluster.settle();
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.assert_has("tls", &["10.0.0.51"]);
    cluster.quiet();
}

#[test]
fn a_controller_that_leads_no_more_has_put_nothing_aside() {
    let mut cluster = lan();
    cluster.api.policy = Some(|spec| spec.address != "10.0.0.50");
    cluster.put("a", |_| {});
    cluster.settle();
    cluster.api.policy = None;
    cluster.tell(landfall_controller::mind::Event::Leading(false));
    cluster.tell(landfall_controller::mind::Event::Leading(true));
    cluster.put("b", |_| {});
    cluster.settle();
    cluster.assert_has("b", &["10.0.0.50"]);
}
