//! Addresses that are kept for somebody who does not hold them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use landfall_crds::{Reservation, VirtualIP, VirtualIPSpec};
use serde_json::json;

use super::{annotate, pools};
use crate::cluster::Cluster;

pub const HOUR: Duration = Duration::from_secs(3600);
pub const SOON: Duration = Duration::from_secs(5);

fn reserving(service: &mut Service) {
    annotate(service, "reserve", "true");
}

pub fn lan(fields: &serde_json::Value) -> Cluster {
    let mut spec = json!({"addresses": ["10.0.0.50-10.0.0.53"], "reservations": {"expireAfter": "2h"}});
    for (field, value) in fields.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    pools(&[("lan", spec)])
}

/// Unlike the other stories' way this does not wait until there is nothing left to wait for.
pub fn come(cluster: &mut Cluster, name: &str, change: impl FnOnce(&mut Service)) {
    cluster.put(name, change);
    cluster.wait(SOON);
}

pub fn go(cluster: &mut Cluster, name: &str) {
    cluster.api.delete_service(&super::full(name));
    cluster.wait(SOON);
}

fn reservation(cluster: &Cluster, address: &str) -> Option<Reservation> {
    cluster.vip(address).spec.reservation.clone()
}

/// Granted and reserved addresses of the pool.
pub fn counts(cluster: &Cluster) -> (i64, i64) {
    let four = cluster.api.pools["lan"].status.as_ref().unwrap().ipv4.unwrap();
    (four.granted, four.reserved)
}

#[test]
fn an_address_is_kept_for_the_name_of_its_service_alone() {
    let mut cluster = lan(&json!({}));
    come(&mut cluster, "web", reserving);
    assert_eq!(cluster.condition("web", "Granted"), "True/Granted: 10.0.0.50 from pool lan");
    let kept = reservation(&cluster, "10.0.0.50").unwrap();
    assert_eq!((kept.namespace.as_str(), kept.name.as_deref()), ("shop", Some("web")));
    assert_eq!(kept.namespace_uid, cluster.api.namespaces["shop"].metadata.uid);
    assert_eq!(kept.expires, None);
    assert_eq!(counts(&cluster), (1, 0), "while it is used it is not counted as kept");

    go(&mut cluster, "web");
    assert!(cluster.api.services.is_empty(), "it holds nobody up");
    let kept = cluster.vip("10.0.0.50");
    assert!(kept.spec.claims.is_empty() && kept.metadata.finalizers.iter().flatten().next().is_none());
    let expires = reservation(&cluster, "10.0.0.50").unwrap().expires.unwrap();
    let left = expires.0.as_second() - cluster.api.now;
    assert!((7100..=7200).contains(&left), "{left} s");
    assert_eq!(counts(&cluster), (0, 1));

    for name in ["other", "office/web"] {
        come(&mut cluster, name, |service| annotate(service, "ips", "10.0.0.50"));
        cluster.assert_waits(name, "AddressReserved");
        go(&mut cluster, name);
    }
    come(&mut cluster, "any", |_| {});
    cluster.assert_has("any", &["10.0.0.51"]);
    // It comes back without asking for anything, also after a restart, and keeps it on if it says so.
    cluster.crash(0);
    cluster.wait(SOON);
    come(&mut cluster, "web", |_| {});
    cluster.assert_has("web", &["10.0.0.50"]);
    assert_eq!(reservation(&cluster, "10.0.0.50"), None, "it does not ask for that any more");
    cluster.edit("web", reserving);
    cluster.wait(SOON);
    assert!(reservation(&cluster, "10.0.0.50").is_some());
    cluster.edit("web", |service| annotate(service, "reserve", "false"));
    cluster.wait(SOON);
    assert_eq!(reservation(&cluster, "10.0.0.50"), None);
    go(&mut cluster, "web");
    assert!(!cluster.has_vip("10.0.0.50"));
}

#[test]
fn what_is_kept_is_free_again_when_its_time_is_over() {
    let mut cluster = lan(&json!({"addresses": ["10.0.0.50/32"]}));
    come(&mut cluster, "web", reserving);
    go(&mut cluster, "web");
    come(&mut cluster, "late", |_| {});
    cluster.assert_waits("late", "PoolExhausted");
    cluster.wait(2 * HOUR - 60 * Duration::from_secs(1));
    cluster.assert_waits("late", "PoolExhausted");
    cluster.wait(Duration::from_secs(120));
    cluster.assert_has("late", &["10.0.0.50"]);
    assert_eq!(cluster.vip("10.0.0.50").spec.claims[0].name, "late");
    assert_eq!(reservation(&cluster, "10.0.0.50"), None);
}

#[test]
fn without_a_time_it_is_kept_for_thirty_days() {
    let mut cluster = lan(&json!({"reservations": {}}));
    come(&mut cluster, "web", reserving);
    go(&mut cluster, "web");
    let expires = reservation(&cluster, "10.0.0.50").unwrap().expires.unwrap();
    let days = (expires.0.as_second() - cluster.api.now + 60) / 86_400;
    assert_eq!(days, 30);
    cluster.crash(0);
    cluster.wait(29 * 24 * HOUR);
    assert!(cluster.has_vip("10.0.0.50"));
    cluster.wait(24 * HOUR);
    assert!(!cluster.has_vip("10.0.0.50"));
}

#[test]
fn what_is_kept_ends_with_the_namespace_it_was_kept_for() {
    for made_anew in [false, true] {
        for away in [false, true] {
            let mut cluster = lan(&json!({}));
            come(&mut cluster, "web", reserving);
            go(&mut cluster, "web");
            assert!(cluster.has_vip("10.0.0.50"));
            cluster.api.delete_namespace("shop");
            if made_anew {
                cluster.label_namespace("shop", &[]);
            }
            if away {
                cluster.crash(0);
            }
            cluster.wait(SOON);
            assert!(!cluster.has_vip("10.0.0.50"), "made anew {made_anew}, away {away}");
        }
    }
    // A person's reservation is for whoever has the name.
    let mut cluster = lan(&json!({}));
    by_hand(&mut cluster, "10.0.0.50", Some("web"), None);
    cluster.api.delete_namespace("shop");
    cluster.wait(SOON);
    assert!(cluster.has_vip("10.0.0.50"));
    cluster.label_namespace("shop", &[]);
    come(&mut cluster, "web", |_| {});
    cluster.assert_has("web", &["10.0.0.50"]);
}

#[test]
fn what_is_kept_counts_in_the_quota() {
    let mut cluster = lan(&json!({"quota": {"perNamespace": 1}}));
    come(&mut cluster, "web", reserving);
    go(&mut cluster, "web");
    come(&mut cluster, "other", |_| {});
    cluster.assert_waits("other", "QuotaExceeded");
    // That it is its own is no reason to refuse it.
    come(&mut cluster, "web", |_| {});
    cluster.assert_has("web", &["10.0.0.50"]);
    go(&mut cluster, "web");
    assert_eq!(cluster.addresses("other").len(), 1);
    go(&mut cluster, "other");
    // One that is kept frees its share when its time is over.
    come(&mut cluster, "web", reserving);
    go(&mut cluster, "web");
    come(&mut cluster, "third", |_| {});
    cluster.assert_waits("third", "QuotaExceeded");
    cluster.wait(2 * HOUR);
    cluster.assert_has("third", &["10.0.0.50"]);
}

#[test]
fn a_person_keeps_addresses_beyond_any_quota() {
    let mut cluster = lan(&json!({"quota": {"perNamespace": 1}}));
    by_hand(&mut cluster, "10.0.0.52", Some("vault"), None);
    come(&mut cluster, "web", |_| {});
    cluster.assert_has("web", &["10.0.0.50"]);
    come(&mut cluster, "vault", |_| {});
    cluster.assert_waits("vault", "QuotaExceeded");
    go(&mut cluster, "web");
    cluster.assert_has("vault", &["10.0.0.52"]);
}

#[test]
fn where_the_pool_allows_no_reservations_the_address_is_granted_and_that_is_said() {
    let mut cluster = lan(&json!({"reservations": null}));
    come(&mut cluster, "web", reserving);
    cluster.assert_has("web", &["10.0.0.50"]);
    assert_eq!(
        cluster.condition("web", "Granted"),
        "True/Granted: 10.0.0.50 from pool lan, not reserved (landfall.dev/reserve is set, but pool lan \
         allows no reservations: see its spec.reservations)"
    );
    assert_eq!(cluster.failures_of("web"), 0);
    assert_eq!(reservation(&cluster, "10.0.0.50"), None);
    cluster.edit_pool("lan", json!({"reservations": {}}));
    cluster.wait(SOON);
    assert_eq!(cluster.condition("web", "Granted"), "True/Granted: 10.0.0.50 from pool lan");
    assert!(reservation(&cluster, "10.0.0.50").is_some());
    cluster.edit_pool("lan", json!({"reservations": null}));
    cluster.wait(SOON);
    assert!(cluster.condition("web", "Granted").contains("not reserved"));
    go(&mut cluster, "web");
    assert!(!cluster.has_vip("10.0.0.50"), "nor is it kept");
    // All of that says nothing about who has the address: what is shown stays known as ours.
    come(&mut cluster, "web", reserving);
    for name in cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
        let mut vip = (*cluster.api.vips[&name]).clone();
        vip.metadata.finalizers = None;
        cluster.api.put_vip(vip);
        cluster.api.delete_vip(&name);
    }
    cluster.crash(0);
    cluster.wait(SOON);
    cluster.assert_has("web", &["10.0.0.50"]);
}

#[test]
fn two_on_one_address_cannot_both_have_it_kept() {
    let mut cluster = lan(&json!({}));
    let sharer = |port: i32| {
        move |service: &mut Service| {
            reserving(service);
            annotate(service, "sharing-key", "k");
            service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = port;
        }
    };
    come(&mut cluster, "web", sharer(80));
    come(&mut cluster, "tls", sharer(443));
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.assert_has("tls", &["10.0.0.50"]);
    assert_eq!(cluster.condition("web", "Granted"), "True/Granted: 10.0.0.50 from pool lan");
    assert!(cluster.condition("tls", "Granted").contains(
        "not reserved (landfall.dev/reserve is set, but VirtualIP 10.0.0.50 keeps it for Service shop/web)"
    ));
    // The first goes: it is kept for it, and the second stays.
    go(&mut cluster, "web");
    cluster.assert_has("tls", &["10.0.0.50"]);
    come(&mut cluster, "web", sharer(80));
    cluster.assert_has("web", &["10.0.0.50"]);
    go(&mut cluster, "web");
    go(&mut cluster, "tls");
    assert_eq!(reservation(&cluster, "10.0.0.50").unwrap().name.as_deref(), Some("web"));
}

#[test]
fn an_address_that_its_service_left_for_another_is_not_kept() {
    let mut cluster = lan(&json!({}));
    come(&mut cluster, "web", reserving);
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.53"));
    cluster.wait(SOON);
    cluster.assert_has("web", &["10.0.0.53"]);
    assert!(!cluster.has_vip("10.0.0.50"));
    assert!(reservation(&cluster, "10.0.0.53").is_some());
}

#[test]
fn one_that_comes_back_and_asks_for_another_address_keeps_the_first_only_until_it_has_it() {
    for still_reserves in [true, false] {
        let mut cluster = lan(&json!({}));
        come(&mut cluster, "other", |service| annotate(service, "ips", "10.0.0.53"));
        come(&mut cluster, "web", reserving);
        go(&mut cluster, "web");
        assert!(reservation(&cluster, "10.0.0.50").is_some());
        come(&mut cluster, "web", |service| {
            annotate(service, "ips", "10.0.0.53");
            if still_reserves {
                reserving(service);
            }
        });
        cluster.assert_waits("web", "AddressTaken");
        assert!(reservation(&cluster, "10.0.0.50").is_some(), "it has nothing else yet");
        go(&mut cluster, "other");
        cluster.assert_has("web", &["10.0.0.53"]);
        assert!(!cluster.has_vip("10.0.0.50"));
        assert_eq!(reservation(&cluster, "10.0.0.53").is_some(), still_reserves);
        assert_eq!(counts(&cluster), (1, 0));
        // It may go through many addresses, but holds one at most.
        for address in ["10.0.0.51", "10.0.0.52", "10.0.0.50"] {
            go(&mut cluster, "web");
            come(&mut cluster, "web", |service| {
                reserving(service);
                annotate(service, "ips", address);
            });
            cluster.assert_has("web", &[address]);
            assert_eq!(counts(&cluster), (1, 0), "{address}");
        }
    }
}

#[test]
fn what_is_kept_for_a_service_does_not_keep_it_from_another_address_by_its_quota() {
    let mut cluster = lan(&json!({"quota": {"perNamespace": 1}}));
    come(&mut cluster, "web", reserving);
    go(&mut cluster, "web");
    come(&mut cluster, "late", |_| {});
    cluster.assert_waits("late", "QuotaExceeded");
    come(&mut cluster, "web", |service| annotate(service, "ips", "10.0.0.52"));
    cluster.assert_has("web", &["10.0.0.52"]);
    assert!(!cluster.has_vip("10.0.0.50"));
    cluster.assert_waits("late", "QuotaExceeded");
}

#[test]
fn a_type_that_flips_is_a_service_that_goes_and_comes_back() {
    let mut cluster = lan(&json!({}));
    come(&mut cluster, "web", reserving);
    come(&mut cluster, "plain", |_| {});
    let flip = |cluster: &mut Cluster, name: &str, type_: &str| {
        cluster.edit(name, |service| service.spec.as_mut().unwrap().type_ = Some(type_.into()));
        cluster.wait(SOON);
    };
    for name in ["web", "plain"] {
        flip(&mut cluster, name, "ClusterIP");
        assert_eq!(cluster.get(name).metadata.finalizers.as_deref().unwrap_or_default(), [""; 0]);
    }
    assert!(cluster.has_vip("10.0.0.50") && !cluster.has_vip("10.0.0.51"));
    come(&mut cluster, "quick", |_| {});
    cluster.assert_has("quick", &["10.0.0.51"]);
    flip(&mut cluster, "web", "LoadBalancer");
    flip(&mut cluster, "plain", "LoadBalancer");
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.assert_has("plain", &["10.0.0.52"]);
}

fn by_hand(cluster: &mut Cluster, address: &str, name: Option<&str>, expires: Option<i64>) {
    let reservation = Reservation {
        namespace: "shop".into(),
        name: name.map(str::to_owned),
        expires: expires.map(|second| Time(Timestamp::from_second(second).unwrap())),
        note: Some("in the firewall".into()),
        ..Reservation::default()
    };
    let spec =
        VirtualIPSpec { address: address.into(), reservation: Some(reservation), ..VirtualIPSpec::default() };
    cluster.api.put_vip(VirtualIP::new(address, spec));
    cluster.wait(SOON);
}

#[test]
fn a_person_keeps_an_address_for_a_name_a_namespace_or_a_time() {
    let mut cluster = lan(&json!({}));
    let until = cluster.api.now + 600;
    by_hand(&mut cluster, "10.0.0.50", Some("web"), None);
    by_hand(&mut cluster, "10.0.0.51", None, None);
    by_hand(&mut cluster, "10.0.0.52", Some("soon"), Some(until));
    assert_eq!(counts(&cluster), (0, 3));
    come(&mut cluster, "office/any", |_| {});
    cluster.assert_has("office/any", &["10.0.0.53"]);
    come(&mut cluster, "office/more", |_| {});
    cluster.assert_waits("office/more", "PoolExhausted");
    // Of the namespace's own, who asks for it has it; nobody is given it unasked.
    come(&mut cluster, "asks", |service| annotate(service, "ips", "10.0.0.51"));
    cluster.assert_has("asks", &["10.0.0.51"]);
    cluster.wait(Duration::from_secs(500));
    cluster.assert_waits("office/more", "PoolExhausted");
    cluster.wait(Duration::from_secs(120));
    cluster.assert_has("office/more", &["10.0.0.52"]);
    come(&mut cluster, "web", |_| {});
    cluster.assert_has("web", &["10.0.0.50"]);
    go(&mut cluster, "web");
    go(&mut cluster, "asks");
    for address in ["10.0.0.50", "10.0.0.51"] {
        let kept = reservation(&cluster, address).unwrap();
        assert_eq!((kept.expires, kept.note.as_deref()), (None, Some("in the firewall")), "{address}");
    }
    // A person takes it back.
    cluster.api.delete_vip("10.0.0.50");
    cluster.wait(SOON);
    assert!(!cluster.has_vip("10.0.0.50"));
    assert_eq!(counts(&cluster).1, 1);
}

#[test]
fn a_reservation_by_hand_that_is_over_leaves_no_trace() {
    let mut cluster = lan(&json!({}));
    let past = cluster.api.now - 1;
    by_hand(&mut cluster, "10.0.0.50", Some("web"), Some(past));
    assert!(!cluster.has_vip("10.0.0.50"));
    // One that ends while its Service has the address takes nothing away.
    let until = cluster.api.now + 60;
    by_hand(&mut cluster, "10.0.0.50", Some("web"), Some(until));
    come(&mut cluster, "web", |_| {});
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.wait(Duration::from_secs(300));
    cluster.assert_has("web", &["10.0.0.50"]);
    go(&mut cluster, "web");
    assert!(!cluster.has_vip("10.0.0.50"));
}

#[test]
fn a_reservation_by_hand_that_is_over_stands_in_nobodys_way() {
    let mut cluster = lan(&json!({}));
    let until = cluster.api.now + 60;
    by_hand(&mut cluster, "10.0.0.50", Some("web"), Some(until));
    come(&mut cluster, "web", reserving);
    assert_eq!(reservation(&cluster, "10.0.0.50").unwrap().note.as_deref(), Some("in the firewall"));
    cluster.wait(Duration::from_secs(120));
    cluster.edit("web", |service| annotate(service, "other", "thing"));
    cluster.wait(SOON);
    assert!(reservation(&cluster, "10.0.0.50").unwrap().namespace_uid.is_some(), "now it is its own");
    go(&mut cluster, "web");
    assert!(cluster.has_vip("10.0.0.50"));
}

#[test]
fn a_reservation_outside_every_pool_harms_nobody() {
    let mut cluster = lan(&json!({}));
    by_hand(&mut cluster, "192.0.2.9", Some("web"), None);
    come(&mut cluster, "web", |_| {});
    cluster.assert_has("web", &["10.0.0.50"]);
    assert!(cluster.has_vip("192.0.2.9"));
    come(&mut cluster, "asks", |service| annotate(service, "ips", "192.0.2.9"));
    cluster.assert_waits("asks", "AddressNotInPool");
}
