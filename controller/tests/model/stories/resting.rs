//! What follows a release: the rest that a pool prescribes, and what is remembered of past holders.

use std::time::Duration;

use serde_json::json;

use super::annotate;
use super::keeping::{HOUR, SOON, come, counts, go, lan};
use crate::cluster::Cluster;

#[test]
fn a_released_address_rests_as_long_as_its_pool_says() {
    let mut cluster = lan(&json!({"addresses": ["10.0.0.50-10.0.0.51"], "releaseDelay": "10m"}));
    come(&mut cluster, "web", |_| {});
    go(&mut cluster, "web");
    assert!(cluster.api.services.is_empty(), "the Service itself waits for nothing");
    let tombstone = cluster.vip("10.0.0.50");
    assert!(tombstone.spec.claims.is_empty() && tombstone.spec.placement.is_some());
    assert_eq!(tombstone.status.as_ref().unwrap().last_holders[0].name, "web");
    assert_eq!(counts(&cluster), (0, 1));
    // Only who asks for it has to wait.
    come(&mut cluster, "any", |_| {});
    cluster.assert_has("any", &["10.0.0.51"]);
    come(&mut cluster, "asks", |service| annotate(service, "ips", "10.0.0.50"));
    cluster.assert_waits("asks", "AddressResting");
    let said = cluster.condition("asks", "Granted");
    assert!(said.contains("was released lately and rests until 20"), "{said}");
    come(&mut cluster, "other", |_| {});
    cluster.assert_waits("other", "PoolExhausted");
    cluster.wait(Duration::from_secs(550));
    cluster.assert_waits("asks", "AddressResting");
    cluster.wait(Duration::from_secs(60));
    cluster.assert_has("asks", &["10.0.0.50"]);
    cluster.assert_waits("other", "PoolExhausted");
}

#[test]
fn the_last_holder_may_have_a_resting_address_back_at_once() {
    for restart in [false, true] {
        let mut cluster = lan(&json!({"releaseDelay": "10m"}));
        come(&mut cluster, "web", |_| {});
        let epoch = cluster.vip("10.0.0.50").spec.placement.as_ref().unwrap().epoch;
        go(&mut cluster, "web");
        if restart {
            cluster.crash(0);
            cluster.wait(SOON);
        }
        come(&mut cluster, "web", |_| {});
        cluster.assert_has("web", &["10.0.0.50"]);
        assert_eq!(
            cluster.vip("10.0.0.50").spec.placement.as_ref().unwrap().epoch,
            epoch,
            "restart {restart}"
        );
    }
}

#[test]
fn a_rest_ends_early_when_the_pool_says_so() {
    let mut cluster = lan(&json!({"addresses": ["10.0.0.50/32"], "releaseDelay": "10h"}));
    come(&mut cluster, "web", |_| {});
    go(&mut cluster, "web");
    come(&mut cluster, "next", |_| {});
    cluster.assert_waits("next", "PoolExhausted");
    cluster.edit_pool("lan", json!({"releaseDelay": null}));
    cluster.wait(SOON);
    cluster.assert_has("next", &["10.0.0.50"]);
}

#[test]
fn a_service_that_asks_for_another_address_lets_the_old_one_rest() {
    let mut cluster = lan(&json!({"releaseDelay": "10m"}));
    come(&mut cluster, "web", |_| {});
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.52"));
    cluster.wait(SOON);
    cluster.assert_has("web", &["10.0.0.52"]);
    assert!(cluster.has_vip("10.0.0.50"));
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.50"));
    cluster.wait(SOON);
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.wait(Duration::from_secs(700));
    assert_eq!(cluster.api.vips.len(), 1);
}

#[test]
fn the_last_ten_holders_stand_on_the_virtual_ip_and_256_on_the_pool() {
    let mut cluster = lan(&json!({"addresses": ["10.0.0.50/32"], "releaseDelay": "1h"}));
    let holders = |cluster: &Cluster| {
        let past = &cluster.vip("10.0.0.50").status.as_ref().unwrap().last_holders;
        past.iter().map(|past| past.uid.clone()).collect::<Vec<_>>()
    };
    let mut uids = Vec::new();
    for _ in 0..13 {
        come(&mut cluster, "web", |_| {});
        uids.insert(0, cluster.get("web").metadata.uid.clone().unwrap());
        go(&mut cluster, "web");
    }
    assert_eq!(holders(&cluster), uids[..10]);
    cluster.wait(2 * HOUR);
    assert!(!cluster.has_vip("10.0.0.50"));
    let history = |cluster: &Cluster| cluster.api.pools["lan"].status.as_ref().unwrap().history.clone();
    let all: Vec<_> = history(&cluster).iter().map(|past| past.uid.clone()).collect();
    assert_eq!(all, uids, "the pool tells of all of them");
    cluster.edit_pool("lan", json!({"releaseDelay": null}));
    for number in 0..300 {
        cluster.put(&format!("s{number}"), |_| {});
        cluster.settle();
        cluster.api.delete_service(&format!("shop/s{number}"));
        cluster.wait(Duration::from_secs(1));
    }
    let past = history(&cluster);
    assert_eq!(past.len(), 256);
    assert_eq!(past[0].name, "s299");
    assert_eq!(past[255].name, "s44");
    assert!(past.windows(2).all(|two| two[0].until.0 >= two[1].until.0), "latest first");
    let one = &past[3];
    assert!(one.since.as_ref().unwrap().0 <= one.until.0);
    assert_eq!((one.address.as_str(), one.namespace.as_str()), ("10.0.0.50", "shop"));
}

#[test]
fn a_quick_delete_and_create_again_keeps_both_holders_apart() {
    let mut cluster = lan(&json!({"addresses": ["10.0.0.50/32"], "releaseDelay": "1h"}));
    come(&mut cluster, "web", |_| {});
    let first = cluster.get("web").metadata.uid.clone().unwrap();
    cluster.api.delete_service("shop/web");
    cluster.settle();
    cluster.put("web", |_| {});
    cluster.wait(SOON);
    cluster.assert_has("web", &["10.0.0.50"]);
    let vip = cluster.vip("10.0.0.50");
    assert_ne!(vip.spec.claims[0].uid, first);
    let past: Vec<_> =
        vip.status.as_ref().unwrap().last_holders.iter().map(|past| past.uid.clone()).collect();
    assert_eq!(past, [first]);
}

#[test]
fn who_had_an_address_gets_it_back_when_what_kept_it_for_another_ends() {
    let mut cluster = lan(&json!({"addresses": ["10.0.0.50/32"], "releaseDelay": "2h"}));
    come(&mut cluster, "web", |_| {});
    go(&mut cluster, "web");
    let mut kept = cluster.vip("10.0.0.50").clone();
    let expires = cluster.now().wall + Duration::from_secs(600);
    kept.spec.reservation =
        serde_json::from_value(json!({"namespace": "shop", "name": "other", "expires": expires.to_string()}))
            .unwrap();
    cluster.api.put_vip(kept);
    cluster.wait(Duration::from_secs(60));
    // Seen by the API server's own word since then, so that it need not be asked for.
    cluster.put("web", |_| {});
    cluster.wait(Duration::from_secs(530));
    cluster.assert_waits("web", "PoolExhausted");
    cluster.wait(Duration::from_secs(11));
    cluster.assert_has("web", &["10.0.0.50"]);
}

#[test]
fn a_kept_address_that_a_person_deletes_leaves_its_past_behind() {
    let mut cluster = lan(&json!({"addresses": ["10.0.0.50/32"], "reservations": {"expireAfter": "10h"}}));
    come(&mut cluster, "web", |service| annotate(service, "reserve", "true"));
    let uid = cluster.get("web").metadata.uid.clone().unwrap();
    go(&mut cluster, "web");
    let kept = cluster.vip("10.0.0.50");
    assert!(kept.spec.reservation.is_some() && kept.metadata.finalizers.iter().flatten().count() == 0);
    let name = kept.metadata.name.clone().unwrap();
    cluster.api.delete_vip(&name);
    cluster.wait(SOON);
    assert!(!cluster.has_vip("10.0.0.50"));
    let history = &cluster.api.pools["lan"].status.as_ref().unwrap().history;
    assert_eq!(history.iter().map(|past| &past.uid).collect::<Vec<_>>(), [&uid]);
}
