//! What a pool holds, whom it conflicts with, and what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use landfall_controller::mind::{Change, Event};
use landfall_crds::Capacity;
use serde_json::{Value, json};

use super::{annotate, pools};
use crate::api::{KINDS, SERVICE_CIDRS};
use crate::cluster::Cluster;
use crate::objects::{service_cidr, speaker};

fn v6(service: &mut Service) {
    service.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".into()]);
}

pub fn counts(cluster: &Cluster, pool: &str) -> (Option<Capacity>, Option<Capacity>) {
    let status = cluster.api.pools[pool].status.as_ref().unwrap();
    (status.ipv4, status.ipv6)
}

/// Total, granted, reserved, available.
pub fn capacity(total: i64, granted: i64, reserved: i64, available: i64) -> Option<Capacity> {
    Some(Capacity { total, granted, reserved, available })
}

#[test]
fn what_a_pool_holds_is_granted_from_the_lowest_on() {
    const MOST: i64 = i64::MAX;
    /// A pool, the first that are granted from it in each family, and how many there are in each.
    type Row = (Value, &'static [&'static str], &'static [&'static str], i64, i64);
    let table: Vec<Row> = vec![
        (json!({"addresses": ["10.0.0.50/31"]}), &["10.0.0.50", "10.0.0.51"], &[], 2, 0),
        (json!({"addresses": ["10.0.0.50-10.0.0.51"]}), &["10.0.0.50", "10.0.0.51"], &[], 2, 0),
        (json!({"addresses": ["10.0.0.50/32"]}), &["10.0.0.50"], &[], 1, 0),
        (json!({"addresses": ["10.0.0.50-10.0.0.50"]}), &["10.0.0.50"], &[], 1, 0),
        (
            json!({"addresses": ["fd00::50/127", "10.0.0.60-10.0.0.61"]}),
            &["10.0.0.60", "10.0.0.61"],
            &["fd00::50", "fd00::51"],
            2,
            2,
        ),
        (
            json!({"addresses": ["10.0.0.56/29"], "exclude": ["10.0.0.56/30", "10.0.0.62-10.0.0.63"]}),
            &["10.0.0.60", "10.0.0.61"],
            &[],
            2,
            0,
        ),
        (json!({"addresses": ["10.0.0.60/31", "10.0.0.50/32"]}), &["10.0.0.50", "10.0.0.60"], &[], 3, 0),
        (
            json!({"addresses": ["10.0.1.0/30"], "avoidNetworkAndBroadcast": true}),
            &["10.0.1.1", "10.0.1.2"],
            &[],
            2,
            0,
        ),
        (
            json!({"addresses": ["10.0.1.0/31"], "avoidNetworkAndBroadcast": true}),
            &["10.0.1.0", "10.0.1.1"],
            &[],
            2,
            0,
        ),
        (
            json!({"addresses": ["10.0.1.0-10.0.1.3"], "avoidNetworkAndBroadcast": true}),
            &["10.0.1.0", "10.0.1.1"],
            &[],
            4,
            0,
        ),
        // No node has an address there.
        (json!({"addresses": ["11.0.0.0/8"]}), &["11.0.0.0", "11.0.0.1"], &[], 1 << 24, 0),
        (json!({"addresses": ["fd01::/64"]}), &[], &["fd01::", "fd01::1"], 0, MOST),
        (
            json!({"addresses": ["fd01::/120"], "exclude": ["fd01::/121"]}),
            &[],
            &["fd01::80", "fd01::81"],
            0,
            128,
        ),
        // One bad entry takes neither the rest away nor, as an exclusion, everything.
        (
            json!({"addresses": ["10.0.0.9-10.0.0.1", "10.0.0.50/31"], "exclude": ["junk"]}),
            &["10.0.0.50", "10.0.0.51"],
            &[],
            2,
            0,
        ),
    ];
    for (spec, four, six, total_four, total_six) in table {
        let mut cluster = pools(&[("lan", spec.clone())]);
        let names = ["a", "b"];
        for (name, address) in names.iter().zip(four) {
            cluster.create(name, |_| {});
            cluster.assert_has(name, &[address]);
        }
        for (name, address) in ["x", "y"].iter().zip(six) {
            cluster.create(name, v6);
            cluster.assert_has(name, &[address]);
        }
        let expected = |total: i64, granted: usize| {
            let granted = i64::try_from(granted).unwrap();
            let available = if total == MOST { MOST } else { total - granted };
            (total > 0).then_some(Capacity { total, granted, reserved: 0, available })
        };
        let known = counts(&cluster, "lan");
        assert_eq!(known, (expected(total_four, four.len()), expected(total_six, six.len())), "{spec}");
    }
}

#[test]
fn everything_there_is_makes_a_pool_too() {
    // The API server refuses such a pool; the core has to live with it all the same.
    let mut cluster = pools(&[("all", json!({"addresses": ["::/0", "0.0.0.0/0"]}))]);
    cluster.create("six", |service| {
        v6(service);
        annotate(service, "ips", "fd77::1");
    });
    cluster.create("four", |service| annotate(service, "ips", "255.255.255.254"));
    cluster.assert_has("six", &["fd77::1"]);
    cluster.assert_has("four", &["255.255.255.254"]);
    let (four, six) = counts(&cluster, "all");
    assert_eq!(six.map(|six| (six.total, six.granted, six.available)), Some((i64::MAX, 1, i64::MAX)));
    assert_eq!(four.unwrap().granted, 1);
    assert!(cluster.pool_condition("all", "Conflicted").starts_with("True/NodeAddresses"));
}

#[test]
fn of_everything_nothing_is_chosen_that_no_station_can_have() {
    let mut cluster = pools(&[("all", json!({"addresses": ["::/0", "0.0.0.0/0"]}))]);
    cluster.create("four", |_| {});
    cluster.create("six", v6);
    let (four, six) = (cluster.addresses("four"), cluster.addresses("six"));
    assert!(!four.contains(&"0.0.0.0".to_owned()), "{four:?}");
    assert!(!six.contains(&"::".to_owned()) && !six.contains(&"::1".to_owned()), "{six:?}");
}

#[test]
fn the_choice_goes_by_priority_then_age_then_name() {
    let mut cluster = pools(&[("b", json!({"addresses": ["10.0.0.20/32"]}))]);
    cluster.pass(Duration::from_secs(5));
    cluster.put_pool("a", json!({"addresses": ["10.0.0.10/32"]}));
    cluster.put_pool("c", json!({"addresses": ["10.0.0.30/32"]}));
    cluster.put_pool("low", json!({"addresses": ["10.0.0.5/32"], "priority": -1}));
    cluster.put_pool("high", json!({"addresses": ["10.0.0.90/32"], "priority": 7}));
    cluster.put_pool("aside", json!({"addresses": ["10.0.0.4/32"], "priority": 99, "autoAssign": false}));
    cluster.quiet();
    for (name, address) in
        [("1", "10.0.0.90"), ("2", "10.0.0.20"), ("3", "10.0.0.10"), ("4", "10.0.0.30"), ("5", "10.0.0.5")]
    {
        cluster.create(name, |_| {});
        cluster.assert_has(name, &[address]);
    }
    cluster.create("6", |_| {});
    cluster.assert_waits("6", "PoolExhausted");
    let said = cluster.condition("6", "Granted");
    for (pool, why) in [
        ("high", "is exhausted"),
        ("b", "is exhausted"),
        ("low", "is exhausted"),
        ("aside", "gives only to Services that name it"),
    ] {
        assert!(said.contains(&format!("{pool} {why}")), "{said}");
    }
}

#[test]
fn nodes_gateways_and_the_clusters_own_ranges_are_never_granted() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.0/29"]}))]);
    let mut first = speaker("n1", 1);
    first.status.as_mut().unwrap().gateways = vec!["10.0.0.4".into()];
    cluster.api.put_speaker(first);
    let elsewhere: Node = serde_json::from_value(json!({
        "metadata": {"name": "n9"}, "spec": {"podCIDRs": ["10.0.0.6/31"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.5"}, {"type": "Hostname", "address": "n9"},
        ]},
    }))
    .unwrap();
    cluster.tell(Event::Node(Change::Applied(Arc::new(elsewhere))));
    cluster.put_pool("cluster", json!({"addresses": ["10.96.0.0/16"]}));
    let ranges: ServiceCIDR = serde_json::from_value(json!({
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]},
    }))
    .unwrap();
    cluster.tell(Event::ServiceCidr(Change::Listed(vec![Arc::new(ranges)])));
    cluster.create("web", |_| {});
    cluster.assert_waits("web", "PoolExhausted");
    for (number, (address, reason, why)) in [
        ("10.0.0.0", "NodeAddress", "the network's own or broadcast address on a subnet of node n1"),
        ("10.0.0.2", "NodeAddress", "node n2's own"),
        ("10.0.0.4", "NodeAddress", "node n1's gateway"),
        ("10.0.0.5", "NodeAddress", "node n9's own"),
        ("10.0.0.7", "ClusterAddress", "the range of the cluster's own pod addresses"),
        ("10.96.7.7", "ClusterAddress", "the range of the cluster's own Service addresses"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("asks-{number}");
        cluster.create(&name, |service| annotate(service, "ips", address));
        cluster.assert_waits(&name, reason);
        let said = cluster.condition(&name, "Granted");
        assert!(said.contains(why), "{said}");
    }
    let said = cluster.pool_condition("cluster", "Conflicted");
    assert!(said.starts_with("True/ServiceAddresses: never granted"), "{said}");
    assert!(said.contains("10.96.0.0/16"), "{said}");
    assert!(cluster.pool_condition("lan", "Conflicted").starts_with("True/PodAddresses"));
    assert_eq!(counts(&cluster, "lan").0, capacity(0, 0, 0, 0), "six that somebody has and two of pods");
    assert_eq!(counts(&cluster, "cluster"), (None, None));

    // A node's address that comes to lie in the pool later costs nobody an address in use.
    cluster.edit_pool("lan", json!({"addresses": ["10.0.0.0/29", "10.0.0.50/32"]}));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    let mut third = speaker("n3", 3);
    third.status.as_mut().unwrap().interfaces[0].addresses.push("10.0.0.50".into());
    cluster.api.put_speaker(third);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
}

#[test]
fn a_fresh_controller_waits_until_it_knows_the_clusters_own_ranges() {
    let mut cluster = Cluster::new(1);
    cluster.api.put_service_cidr(service_cidr("kubernetes", &["10.0.0.48/28"]));
    cluster.put_pool("lan", json!({"addresses": ["10.0.0.50/32", "10.0.0.70/32"]}));
    cluster.put("web", |_| {});
    for kind in (0..KINDS).filter(|kind| *kind != SERVICE_CIDRS) {
        while cluster.deliver(0, kind) {}
    }
    assert!(!cluster.controllers[0].mind.is_informed());
    assert!(cluster.controllers[0].wanted.is_empty(), "{:?}", cluster.controllers[0].wanted);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.70"]);
}

#[test]
fn who_waits_is_granted_when_the_cluster_gives_a_range_up() {
    let mut cluster = pools(&[]);
    let ranges = |cidrs: &[&str]| -> Arc<ServiceCIDR> {
        let object = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
        Arc::new(serde_json::from_value(object).unwrap())
    };
    cluster.tell(Event::ServiceCidr(Change::Applied(ranges(&["10.0.0.48/28"]))));
    cluster.put_pool("lan", json!({"addresses": ["10.0.0.50/32"]}));
    cluster.create("web", |_| {});
    cluster.assert_waits("web", "NoPool");
    cluster.create("asks", |service| annotate(service, "ips", "10.0.0.50"));
    cluster.assert_waits("asks", "ClusterAddress");
    cluster.delete("asks");
    cluster.tell(Event::ServiceCidr(Change::Deleted(ranges(&["10.0.0.48/28"]))));
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.tell(Event::ServiceCidr(Change::Applied(ranges(&["10.0.0.48/28"]))));
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"], "and keeps it when the cluster wants it back");
    assert!(
        cluster.condition("web", "Granted").starts_with("True/Granted: 10.0.0.50 (no longer in pool lan")
    );
}

#[test]
fn of_overlapping_pools_the_older_keeps_its_range_whatever_the_priority() {
    let mut cluster = pools(&[("old", json!({"addresses": ["10.0.0.50-10.0.0.51"]}))]);
    cluster.pass(Duration::from_secs(5));
    cluster.put_pool(
        "young",
        json!({"addresses": ["10.0.0.50-10.0.0.53"], "priority": 50, "quota": {"perNamespace": 1}}),
    );
    cluster.quiet();
    assert_eq!(counts(&cluster, "young").0, capacity(2, 0, 0, 2));
    cluster.create("a", |service| annotate(service, "pool", "young"));
    cluster.assert_has("a", &["10.0.0.52"]);
    cluster.create("b", |service| annotate(service, "ips", "10.0.0.51"));
    cluster.assert_has("b", &["10.0.0.51"]);
    assert_eq!(cluster.vip("10.0.0.51").spec.pool.as_deref(), Some("old"));
    cluster.create("c", |service| {
        annotate(service, "ips", "10.0.0.50");
        annotate(service, "pool", "young");
    });
    cluster.assert_waits("c", "AddressNotInPool");
    // The older goes: what it granted stays, and what it kept from the younger is there for it.
    cluster.api.delete_pool("old");
    cluster.quiet();
    assert_eq!(cluster.addresses("b"), ["10.0.0.51"]);
    assert_eq!(cluster.condition("b", "Granted"), "True/Granted: 10.0.0.51 (pool old is gone; address kept)");
    assert!(
        cluster.condition("c", "Granted").starts_with("False/QuotaExceeded"),
        "a has the one of the quota"
    );
    assert!(cluster.pool_condition("young", "Conflicted").starts_with("False/NoConflict"));
    cluster.delete("a");
    cluster.assert_has("c", &["10.0.0.50"]);
}

#[test]
fn a_pool_tells_when_it_is_exhausted_reachable_and_ready() {
    let mut cluster = Cluster::new(1);
    cluster.put_pool("lan", json!({"addresses": ["10.0.0.50/32", "fd00::50/127"]}));
    cluster.quiet();
    assert!(cluster.pool_condition("lan", "Unreachable").starts_with("True/NoSpeaker"));
    cluster.api.put_speaker(speaker("n1", 1));
    cluster.quiet();
    let all = |cluster: &Cluster| {
        ["Ready", "Exhausted", "Conflicted", "Unreachable"].map(|type_| cluster.pool_condition("lan", type_))
    };
    assert_eq!(
        all(&cluster),
        [
            "True/Granting: addresses are granted",
            "False/Available: there are free addresses",
            "False/NoConflict: nothing else has its addresses",
            "False/Reachable: every address can be announced"
        ]
    );
    cluster.create("web", |_| {});
    let said = cluster.pool_condition("lan", "Exhausted");
    assert_eq!(said, "True/AllInUse: no IPv4 address is free: add ranges to spec.addresses");
    cluster.delete("web");
    assert!(cluster.pool_condition("lan", "Exhausted").starts_with("False/Available"));
    cluster.edit_pool("lan", json!({"addresses": ["10.0.0.50/32", "13.0.0.0/30"]}));
    cluster.quiet();
    let said = cluster.pool_condition("lan", "Unreachable");
    assert!(said.starts_with("True/NoInterface") && said.contains("13.0.0.0/30"), "{said}");
    cluster.edit_pool("lan", json!({"announce": {"interfaces": ["eth*"]}}));
    cluster.quiet();
    assert!(cluster.pool_condition("lan", "Unreachable").starts_with("False/Reachable"));
    cluster.edit_pool("lan", json!({"announce": {"interfaces": ["bond0"]}}));
    cluster.quiet();
    let said = cluster.pool_condition("lan", "Unreachable");
    assert!(said.starts_with("True/NoInterface") && said.contains("named bond0"), "{said}");
    cluster.edit_pool("lan", json!({"addresses": ["10.0.0.50/32"], "exclude": ["10.0.0.0/24"]}));
    cluster.quiet();
    let said = cluster.pool_condition("lan", "Ready");
    assert!(said.starts_with("False/Invalid: the pool holds no address: spec.exclude takes every"), "{said}");
    assert_eq!(counts(&cluster, "lan"), (None, None));
}

#[test]
fn a_pool_accounts_for_every_address() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"]}))]);
    cluster.create("ours", |_| {});
    cluster.create("theirs", |service| super::given_by_another(service, "10.0.0.55"));
    cluster.create("lists", |service| {
        let spec = service.spec.as_mut().unwrap();
        spec.type_ = Some("ClusterIP".into());
        spec.external_ips = Some(vec!["10.0.0.56".into()]);
    });
    assert_eq!(counts(&cluster, "lan").0, capacity(10, 1, 2, 7));
    cluster.edit_pool("lan", json!({"externalTargets": ["10.9.0.0/16"]}));
    cluster.quiet();
    assert_eq!(counts(&cluster, "lan").0, capacity(10, 1, 2, 0));
}

#[test]
fn a_pool_that_grants_nothing_does_not_call_itself_exhausted() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.51"]}))]);
    cluster.edit_pool("lan", json!({"externalTargets": ["10.9.0.0/16"]}));
    cluster.quiet();
    let said = cluster.pool_condition("lan", "Exhausted");
    assert!(said.starts_with("False/NotGranting: nothing is granted from the pool now"), "{said}");
    assert!(cluster.pool_condition("lan", "Ready").starts_with("False/NotImplemented"));
    cluster.edit_pool("lan", json!({"externalTargets": null}));
    cluster.quiet();
    assert!(cluster.pool_condition("lan", "Exhausted").starts_with("False/Available"));
    let mut held = (*cluster.api.pools["lan"]).clone();
    held.metadata.finalizers = Some(vec!["example.com/theirs".into()]);
    cluster.api.put_pool(held);
    cluster.api.delete_pool("lan");
    cluster.quiet();
    assert!(cluster.pool_condition("lan", "Ready").starts_with("False/Deleting"));
    let said = cluster.pool_condition("lan", "Exhausted");
    assert!(said.starts_with("False/NotGranting: "), "{said}");
}

#[test]
fn a_pool_names_every_kind_of_conflict() {
    let mut cluster = pools(&[
        ("old", json!({"addresses": ["10.0.0.32/30"]})),
        ("lan", json!({"addresses": ["10.0.0.0/26", "10.96.0.0/16", "10.97.0.0/16"]})),
    ]);
    let other: Node = serde_json::from_value(json!({
        "metadata": {"name": "n9"}, "spec": {"podCIDRs": ["10.97.0.0/24"]},
    }))
    .unwrap();
    cluster.tell(Event::Node(Change::Applied(Arc::new(other))));
    let ranges = service_cidr("kubernetes", &["10.96.0.0/16"]);
    cluster.tell(Event::ServiceCidr(Change::Applied(Arc::new(ranges))));
    let said = cluster.pool_condition("lan", "Conflicted");
    assert!(said.starts_with("True/Overlap: it overlaps 10.0.0.32/30 with pool old"), "{said}");
    for part in [
        "; ServiceAddresses: never granted, since the cluster gives 10.96.0.0/16 to its Services",
        "; PodAddresses: never granted, since the cluster gives 10.97.0.0/24 to its pods",
        "; NodeAddresses: never granted, since the cluster's own: 10.0.0.1 (node n1)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_pool_of_one_address_serves_one_after_the_other() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/32"]}))]);
    for name in ["a", "b", "c"] {
        cluster.create(name, |_| {});
        cluster.pass(Duration::from_secs(1));
    }
    cluster.assert_has("a", &["10.0.0.50"]);
    for (gone, next) in [("a", "b"), ("b", "c")] {
        cluster.assert_waits("c", "PoolExhausted");
        cluster.delete(gone);
        cluster.assert_has(next, &["10.0.0.50"]);
    }
    assert_eq!(counts(&cluster, "lan").0, capacity(1, 1, 0, 0));
}

#[test]
fn the_same_events_give_the_same_addresses() {
    let tale = || {
        let mut cluster = pools(&[
            ("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"]})),
            ("six", json!({"addresses": ["fd00::50/124"], "priority": 1})),
        ]);
        for number in 0..6 {
            cluster.put(&format!("s{number}"), |service| {
                super::dual(service, if number % 2 == 0 { "PreferDualStack" } else { "RequireDualStack" });
            });
        }
        cluster.quiet();
        cluster.delete("s2");
        cluster.create("late", |_| {});
        cluster.api.services.keys().map(|name| (name.clone(), cluster.addresses(name))).collect::<Vec<_>>()
    };
    let first = tale();
    assert!(first.iter().all(|(_, addresses)| !addresses.is_empty()));
    assert_eq!(first, tale());
}
