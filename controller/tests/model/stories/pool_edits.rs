//! Pools that are edited: what is in use stays where it is, and that it would not be granted now is said.

use serde_json::json;

use super::pools::{capacity, counts};
use super::{annotate, pools};
use crate::cluster::Cluster;
use crate::objects::speaker;

fn outside(cluster: &Cluster, pool: &str) -> Vec<String> {
    let outside = cluster.api.pools[pool].status.as_ref().unwrap().outside.clone().unwrap_or_default();
    assert_eq!(outside.count, i64::try_from(outside.addresses.len()).unwrap());
    outside.addresses
}

#[test]
fn a_pool_that_is_being_deleted_grants_nothing_and_takes_nothing() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/31"]}))]);
    cluster.create("web", |_| {});
    let mut held = (*cluster.api.pools["lan"]).clone();
    held.metadata.finalizers = Some(vec!["example.com/backup".into()]);
    cluster.api.put_pool(held);
    cluster.api.delete_pool("lan");
    cluster.quiet();
    assert!(cluster.pool_condition("lan", "Ready").starts_with("False/Deleting: nothing new is granted"));
    cluster.create("late", |_| {});
    cluster.assert_waits("late", "PoolNotReady");
    cluster.assert_has("web", &["10.0.0.50"]);
    assert_eq!(counts(&cluster, "lan").0, capacity(2, 1, 0, 0));
}

#[test]
fn an_edit_of_a_pool_moves_nothing_and_says_what_falls_outside_until_it_is_undone() {
    let edits = [
        (json!({"addresses": ["10.0.0.60-10.0.0.69"]}), "no longer in pool lan"),
        (json!({"exclude": ["10.0.0.50/32"]}), "no longer in pool lan"),
        (
            json!({"namespaceSelector": {"matchLabels": {"team": "x"}}}),
            "pool lan does not select namespace shop",
        ),
        (
            json!({"serviceSelector": {"matchLabels": {"tier": "x"}}}),
            "pool lan does not select the Service's",
        ),
        (json!({"scope": "Internal"}), "pool lan serves internal load balancers only"),
        (json!({"requireSourceRanges": true}), "pool lan requires spec.loadBalancerSourceRanges"),
    ];
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"]}))]);
    cluster.create("web", |_| {});
    cluster.announce_all();
    cluster.quiet();
    let before = cluster.vip("10.0.0.50").clone();
    for (edit, why) in edits {
        cluster.controllers[0].published.clear();
        let spec = serde_json::to_value(&cluster.api.pools["lan"].spec).unwrap();
        cluster.edit_pool("lan", edit.clone());
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        let said = cluster.condition("web", "Granted");
        assert!(said.starts_with(&format!("True/Granted: 10.0.0.50 ({why}")), "{edit}: {said}");
        assert!(said.ends_with("; address kept)"), "{said}");
        assert!(cluster.condition("web", "Announced").starts_with("True/Announced"), "{edit}");
        assert_eq!(outside(&cluster, "lan"), ["10.0.0.50"], "{edit}");
        assert!(
            cluster.pool_condition("lan", "Ready").contains("1 in use would not be granted now"),
            "{edit}: {}",
            cluster.pool_condition("lan", "Ready")
        );
        assert_eq!(cluster.events_of("web"), [""; 0], "{edit}");
        // Not even a restart moves it.
        cluster.crash(0);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.put_pool("lan", spec);
        cluster.quiet();
        assert_eq!(cluster.condition("web", "Granted"), "True/Granted: 10.0.0.50 from pool lan", "{edit}");
        assert_eq!(outside(&cluster, "lan"), [""; 0], "{edit}");
        assert_eq!(cluster.pool_condition("lan", "Ready"), "True/Granting: addresses are granted");
        let after = cluster.vip("10.0.0.50");
        assert_eq!(after.metadata.uid, before.metadata.uid, "{edit}");
        assert_eq!(after.spec, before.spec, "{edit}");
        assert_eq!(cluster.events_of("web"), [""; 0], "{edit}");
    }
}

#[test]
fn who_asked_for_a_pool_by_name_keeps_its_address_when_the_pool_gives_it_up() {
    for other in [json!({"addresses": ["10.0.0.90/31"]}), json!({"addresses": ["10.0.0.50/31"]})] {
        let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/31"]}))]);
        cluster.create("web", |service| annotate(service, "pool", "lan"));
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.edit_pool("lan", json!({"addresses": ["10.0.0.60/31"]}));
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.put_pool("other", other);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.crash(0);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
    }
}

#[test]
fn smaller_quotas_and_other_priorities_take_nothing_either() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.53"]}))]);
    for name in ["a", "b"] {
        cluster.create(name, |_| {});
    }
    cluster.edit_pool("lan", json!({"quota": {"perNamespace": 0}, "priority": -5, "autoAssign": false}));
    cluster.put_pool("better", json!({"addresses": ["10.0.0.80/30"], "priority": 100}));
    cluster.quiet();
    for (name, address) in [("a", "10.0.0.50"), ("b", "10.0.0.51")] {
        cluster.assert_has(name, &[address]);
        assert_eq!(cluster.condition(name, "Granted"), format!("True/Granted: {address} from pool lan"));
    }
}

#[test]
fn many_that_fall_outside_are_counted_and_the_lowest_are_listed() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.100-10.0.0.199"]}))]);
    for number in 0..70 {
        cluster.put(&format!("s{number:02}"), |_| {});
    }
    cluster.quiet();
    cluster.edit_pool("lan", json!({"addresses": ["10.0.0.169-10.0.0.199"]}));
    cluster.quiet();
    let status = cluster.api.pools["lan"].status.as_ref().unwrap();
    let outside = status.outside.as_ref().unwrap();
    assert_eq!((outside.count, outside.addresses.len()), (69, 64));
    assert_eq!(outside.addresses[0], "10.0.0.100");
    assert_eq!(status.ipv4.map(|four| four.granted), Some(1));
}

#[test]
fn with_default_deny_a_pool_serves_only_whom_it_selects() {
    let mut cluster = Cluster::new(1);
    cluster.config.default_deny = true;
    cluster.crash(0);
    cluster.api.put_speaker(speaker("n1", 1));
    cluster.put_pool("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"]}));
    cluster.create("web", |_| {});
    cluster.assert_waits("web", "NamespaceNotSelected");
    let said = cluster.condition("web", "Granted");
    assert!(said.contains("lan selects no namespace (it has no spec.namespaceSelector"), "{said}");
    cluster.create("asks", |service| annotate(service, "ips", "10.0.0.55"));
    cluster.assert_waits("asks", "NamespaceNotSelected");
    cluster.edit_pool(
        "lan",
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}),
    );
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.assert_has("asks", &["10.0.0.55"]);
    cluster.create("office/web", |_| {});
    cluster.assert_waits("office/web", "NamespaceNotSelected");
    // An empty selector selects all, as everywhere in Kubernetes.
    cluster.edit_pool("lan", json!({"namespaceSelector": {}}));
    cluster.quiet();
    cluster.assert_has("office/web", &["10.0.0.51"]);
    // Taken away again, it takes nothing back.
    cluster.edit_pool("lan", json!({"namespaceSelector": null}));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    assert!(cluster.condition("web", "Granted").contains("selects no namespace"));
    assert_eq!(outside(&cluster, "lan"), ["10.0.0.50", "10.0.0.51", "10.0.0.55"]);
}

#[test]
fn a_pool_that_is_deleted_and_made_anew_is_the_same_to_those_who_have_its_addresses() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"]}))]);
    for name in ["a", "b", "c"] {
        cluster.create(name, |_| {});
    }
    cluster.delete("a");
    let uids =
        |cluster: &Cluster| cluster.api.vips.values().map(|vip| vip.metadata.uid.clone()).collect::<Vec<_>>();
    let before = uids(&cluster);
    let spec = serde_json::to_value(&cluster.api.pools["lan"].spec).unwrap();
    cluster.api.delete_pool("lan");
    cluster.put("late", |_| {});
    cluster.settle();
    assert_eq!(cluster.addresses("late"), [""; 0]);
    cluster.put_pool("lan", spec);
    cluster.quiet();
    cluster.assert_has("late", &["10.0.0.50"]);
    for (name, address) in [("b", "10.0.0.51"), ("c", "10.0.0.52")] {
        cluster.assert_has(name, &[address]);
        assert_eq!(cluster.condition(name, "Granted"), format!("True/Granted: {address} from pool lan"));
    }
    assert_eq!(uids(&cluster)[1..], before);
    assert_eq!(outside(&cluster, "lan"), [""; 0]);
}

#[test]
fn to_ask_for_the_pool_that_an_address_has_come_to_lie_in_lifts_nobody_above_its_quota() {
    for at_once in [true, false] {
        let mut cluster = pools(&[("old", json!({"addresses": ["10.0.0.50-10.0.0.53"]}))]);
        for name in ["a", "b"] {
            cluster.create(name, |_| {});
        }
        cluster.edit_pool("old", json!({"addresses": ["10.0.0.90/32"]}));
        cluster.put_pool("new", json!({"addresses": ["10.0.0.50-10.0.0.53"], "quota": {"perNamespace": 1}}));
        cluster.quiet();
        for name in ["a", "b"] {
            cluster.edit(name, |service| annotate(service, "pool", "new"));
            if !at_once {
                cluster.quiet();
            }
        }
        cluster.quiet();
        cluster.assert_has("a", &["10.0.0.50"]);
        assert_eq!(cluster.vip("10.0.0.50").spec.pool.as_deref(), Some("new"));
        // The other one keeps what it has, and waits for the pool.
        assert_eq!(cluster.addresses("b"), ["10.0.0.51"]);
        assert_eq!(cluster.vip("10.0.0.51").spec.pool.as_deref(), Some("old"));
        let said = cluster.condition("b", "Granted");
        assert!(said.starts_with("False/QuotaExceeded: ") && said.contains("10.0.0.51 stays"), "{said}");
        assert_eq!(cluster.failures_of("b"), 1);
        cluster.delete("a");
        cluster.assert_has("b", &["10.0.0.51"]);
        assert_eq!(cluster.vip("10.0.0.51").spec.pool.as_deref(), Some("new"));
    }
}
