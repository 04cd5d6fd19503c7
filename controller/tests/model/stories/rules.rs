//! Whom a pool serves: every rule, whichever way an address is asked for, and what lifts it.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::names::annotations;
use landfall_crds::names::annotations::internal::AZURE;
use serde_json::{Value, json};

use super::{annotate, annotate_as, dual, given_by_another, label, pools};
use crate::cluster::Cluster;

fn plain(_: &mut Service) {}

fn internal(service: &mut Service) {
    annotate_as(service, AZURE, "true");
}

type Change = fn(&mut Service);

/// The ways to ask for an address of pool `lan`.
const WAYS: [(&str, Change); 4] = [
    ("chosen", plain),
    ("by address", |service| annotate(service, "ips", "10.0.0.55")),
    ("by field", |service| service.spec.as_mut().unwrap().load_balancer_ip = Some("10.0.0.55".into())),
    ("by pool", |service| annotate(service, "pool", "lan")),
];

#[test]
fn every_rule_holds_however_an_address_is_asked_for() {
    let selects = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    let any = "spec.namespaceSelector";
    // A rule, who comes, the reason for each of the ways, and a piece of what is said.
    let table: Vec<(Value, Change, [&str; 4], &str)> = vec![
        (json!({"namespaceSelector": selects("team", "a")}), plain, ["NamespaceNotSelected"; 4], any),
        (
            json!({"namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["shop"]}]}}),
            plain,
            ["NamespaceNotSelected"; 4],
            "lan does not select namespace shop",
        ),
        (
            json!({"serviceSelector": selects("tier", "front")}),
            plain,
            ["ServiceNotSelected"; 4],
            "lan does not select the Service's labels",
        ),
        (
            json!({"serviceSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}}),
            |service| label(service, "Tier", "front"),
            ["ServiceNotSelected"; 4],
            "spec.serviceSelector",
        ),
        (json!({"quota": {"perNamespace": 0}}), plain, ["QuotaExceeded"; 4], "lan gives namespace shop 0"),
        (json!({"requireSourceRanges": true}), plain, ["SourceRangesRequired"; 4], "lan requires spec.load"),
        (
            json!({"requireSourceRanges": true}),
            |service| {
                service.spec.as_mut().unwrap().load_balancer_source_ranges =
                    Some(vec!["0.0.0.0/1".into(), "128.0.0.0/1".into()]);
            },
            ["SourceRangesRequired"; 4],
            "that leave no half of all IPv4 addresses open",
        ),
        (
            json!({"requireSourceRanges": true}),
            |service| {
                service.spec.as_mut().unwrap().load_balancer_source_ranges =
                    Some(vec!["fd00::/8".into(), "0.0.0.0/0".into()]);
            },
            ["SourceRangesRequired"; 4],
            "lan requires spec.loadBalancerSourceRanges that leave no half of all IPv4",
        ),
        (
            json!({"requireSourceRanges": true}),
            |service| annotate_as(service, annotations::SOURCE_RANGES, "0.0.0.0/0"),
            ["SourceRangesRequired"; 4],
            "lan requires spec.loadBalancerSourceRanges",
        ),
        // A family of which no range is stated is closed.
        (
            json!({"requireSourceRanges": true}),
            |service| annotate_as(service, annotations::SOURCE_RANGES, "fd00::/8"),
            [""; 4],
            "",
        ),
        (json!({"scope": "Internal"}), plain, ["NoPool"; 4], "lan serves internal load balancers only"),
        (json!({"scope": "External"}), internal, ["NoInternalPool"; 4], "(scope External)"),
        (json!({"scope": "Any"}), internal, ["NoInternalPool", "", "", ""], "only where they name it"),
        (json!({"autoAssign": false}), plain, ["NoPool", "", "", ""], "gives only to Services that name it"),
        (json!({"externalTargets": ["10.9.0.0/16"]}), plain, ["PoolNotReady"; 4], "lan grants nothing (it"),
        (
            json!({"exclude": ["10.0.0.50-10.0.0.59"]}),
            plain,
            ["NoPool", "AddressNotInPool", "AddressNotInPool", "NoPool"],
            "lan",
        ),
        (
            json!({
                "quota": {"perNamespace": 0}, "scope": "Internal",
                "serviceSelector": selects("tier", "front"),
            }),
            plain,
            ["ServiceNotSelected"; 4],
            "lan does not select the Service's labels",
        ),
    ];
    for (rule, who, reasons, piece) in table {
        let mut spec = json!({"addresses": ["10.0.0.50-10.0.0.59"]});
        for (field, value) in rule.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let mut cluster = pools(&[("lan", spec)]);
        for ((way, ask), reason) in WAYS.into_iter().zip(reasons) {
            cluster.create("web", |service| {
                who(service);
                ask(service);
            });
            if reason.is_empty() {
                assert_eq!(cluster.addresses("web").len(), 1, "{rule} {way}");
            } else {
                cluster.assert_waits("web", reason);
                let said = cluster.condition("web", "Granted");
                assert!(said.contains(piece), "{rule} {way}: {said}");
                assert!(said.contains("lan"), "{rule} {way}: names the pool: {said}");
            }
            assert_eq!(cluster.condition("web", "Announced") == "absent", !reason.is_empty(), "{rule} {way}");
            cluster.delete("web");
            assert!(cluster.api.vips.is_empty(), "{rule} {way}");
            cluster.controllers[0].published.clear();
        }
        // And who waits is no trouble to others, nor to the API.
        cluster.create("web", who);
        let before = cluster.api.version;
        cluster.crash(0);
        cluster.quiet();
        assert_eq!(cluster.api.version, before, "{rule}: a restart writes nothing");
    }
}

#[test]
fn a_message_names_every_pool_and_why_it_refused() {
    let mut cluster = pools(&[
        ("full", json!({"addresses": ["10.0.0.40/32"]})),
        ("quota", json!({"addresses": ["10.0.0.50/31"], "quota": {"perNamespace": 0}})),
        ("space", json!({"addresses": ["10.0.0.60/31"], "namespaceSelector": {"matchLabels": {"a": "b"}}})),
        ("label", json!({"addresses": ["10.0.0.70/31"], "serviceSelector": {"matchLabels": {"a": "b"}}})),
        ("inner", json!({"addresses": ["10.0.0.80/31"], "scope": "Internal"})),
        ("range", json!({"addresses": ["10.0.0.90/31"], "requireSourceRanges": true})),
        ("named", json!({"addresses": ["10.0.0.100/31"], "autoAssign": false})),
        ("six", json!({"addresses": ["fd00::50/127"]})),
    ]);
    cluster.create("first", |_| {});
    cluster.create("web", |_| {});
    cluster.assert_waits("web", "PoolExhausted");
    let said = cluster.condition("web", "Granted");
    for part in [
        "no IPv4 address can be had: full is exhausted, ",
        "quota gives namespace shop 0 addresses at most",
        "space does not select namespace shop",
        "label does not select the Service's labels",
        "inner serves internal load balancers only",
        "range requires spec.loadBalancerSourceRanges",
        "named gives only to Services that name it",
        "six holds no IPv4 address of its own",
        ": add addresses to a pool or release some",
    ] {
        assert!(said.contains(part), "{part:?}: {said}");
    }
    // One whose pools are named hears of these alone.
    cluster.create("picky", |service| annotate(service, "pool", "label, quota"));
    cluster.assert_waits("picky", "QuotaExceeded");
    let said = cluster.condition("picky", "Granted");
    assert!(said.contains("quota gives") && said.contains("label does not"), "{said}");
    assert!(!said.contains("full") && !said.contains("six"), "{said}");
}

#[test]
fn more_pools_than_one_can_read_are_counted() {
    let names: Vec<String> = (10..40).map(|number| format!("p{number}")).collect();
    let all: Vec<(&str, Value)> = names
        .iter()
        .map(|name| {
            let addresses = format!("10.0.0.1{}/32", &name[1..]);
            (name.as_str(), json!({"addresses": [addresses], "quota": {"perNamespace": 0}}))
        })
        .collect();
    let mut cluster = pools(&all);
    cluster.create("web", |_| {});
    cluster.assert_waits("web", "QuotaExceeded");
    let said = cluster.condition("web", "Granted");
    assert!(said.contains("p10 gives") && said.contains("and 22 more"), "{said}");
    assert!(said.len() < 1024, "{} characters", said.len());
}

/// A Service waits for a reason while the world goes on around it, and is granted when the reason goes.
fn lifted(spec: &Value, who: Change, reason: &str, lift: &dyn Fn(&mut Cluster)) {
    for (way, ask) in WAYS {
        let mut cluster = pools(&[("lan", spec.clone())]);
        cluster.create("web", |service| {
            who(service);
            ask(service);
        });
        cluster.assert_waits("web", reason);
        let waiting = cluster.get("web").metadata.resource_version.clone();
        cluster.create("office/other", |_| {});
        cluster.delete("office/other");
        cluster.label_namespace("office", &[("floor", "2")]);
        cluster.api.put_speaker(crate::objects::speaker("n4", 4));
        cluster.quiet();
        for kind in 0..crate::api::KINDS {
            cluster.relist(0, kind);
        }
        cluster.quiet();
        assert_eq!(cluster.get("web").metadata.resource_version, waiting, "{reason} {way}: written again");
        cluster.assert_waits("web", reason);
        lift(&mut cluster);
        cluster.quiet();
        let said = cluster.condition("web", "Granted");
        assert!(cluster.addresses("web").len() == 1 && said.starts_with("True/"), "{reason} {way}: {said}");
        assert_eq!(cluster.failures_of("web"), 1, "{reason} {way}");
        cluster.announce_all();
        cluster.quiet();
        let told = cluster.events_of("web");
        assert!(
            told.iter().any(|event| event.starts_with("EnsuredLoadBalancer: ")),
            "{reason} {way}: {told:?}"
        );
    }
}

#[test]
fn who_waits_for_a_rule_is_granted_when_it_is_lifted() {
    let spec = |fields: Value| {
        let mut spec = json!({"addresses": ["10.0.0.50-10.0.0.59"]});
        for (field, value) in fields.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec
    };
    let team = spec(json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}));
    let tier = spec(json!({"serviceSelector": {"matchLabels": {"tier": "front"}}}));
    let quota = spec(json!({"quota": {"perNamespace": 0}}));
    let ranges = spec(json!({"requireSourceRanges": true}));
    let edit = |fields: Value| move |cluster: &mut Cluster| cluster.edit_pool("lan", fields.clone());
    let of_service = |change: Change| move |cluster: &mut Cluster| cluster.edit("web", change);

    lifted(&team, plain, "NamespaceNotSelected", &|cluster| {
        cluster.label_namespace("shop", &[("team", "a")]);
    });
    lifted(&team, plain, "NamespaceNotSelected", &edit(json!({"namespaceSelector": null})));
    lifted(&tier, plain, "ServiceNotSelected", &of_service(|service| label(service, "tier", "front")));
    lifted(&tier, plain, "ServiceNotSelected", &edit(json!({"serviceSelector": null})));
    lifted(&quota, plain, "QuotaExceeded", &edit(json!({"quota": {"perNamespace": 1}})));
    lifted(&quota, plain, "QuotaExceeded", &edit(json!({"quota": null})));
    lifted(
        &ranges,
        plain,
        "SourceRangesRequired",
        &of_service(|service| {
            service.spec.as_mut().unwrap().load_balancer_source_ranges = Some(vec![" 10.0.0.0/8 ".into()]);
        }),
    );
    lifted(&ranges, plain, "SourceRangesRequired", &edit(json!({"requireSourceRanges": false})));
    lifted(&spec(json!({"scope": "Internal"})), plain, "NoPool", &of_service(internal));
    lifted(&spec(json!({"scope": "Internal"})), plain, "NoPool", &edit(json!({"scope": "Any"})));
    lifted(
        &spec(json!({"scope": "External"})),
        internal,
        "NoInternalPool",
        &edit(json!({"scope": "Internal"})),
    );
    lifted(
        &spec(json!({"scope": "External"})),
        internal,
        "NoInternalPool",
        &of_service(|service| annotate_as(service, AZURE, "false")),
    );
    lifted(
        &spec(json!({"externalTargets": ["10.9.0.0/16"]})),
        plain,
        "PoolNotReady",
        &edit(json!({"externalTargets": null})),
    );
}

#[test]
fn a_service_that_is_seen_before_its_namespace_waits_for_that_in_silence() {
    for adopts in [true, false] {
        let mut cluster = pools(&[(
            "lan",
            json!({"addresses": ["10.0.0.50/31"], "namespaceSelector": {"matchLabels": {"team": "new"}}}),
        )]);
        cluster.put("depot/web", |service| {
            if adopts {
                given_by_another(service, "10.0.0.51");
                annotate(service, "adopt", "true");
            }
        });
        let before = cluster.get("depot/web").clone();
        cluster.quiet();
        assert_eq!(*cluster.get("depot/web"), before);
        assert!(cluster.api.vips.is_empty() && cluster.events_of("depot/web").is_empty());
        let key = landfall_crds::ClaimRef { namespace: "depot".into(), name: "web".into() };
        assert_eq!(cluster.controllers[0].mind.explain(&key).next, ["namespace depot is not known yet"]);
        cluster.label_namespace("depot", &[("team", "new")]);
        cluster.quiet();
        cluster.assert_has("depot/web", &[if adopts { "10.0.0.51" } else { "10.0.0.50" }]);
        assert_eq!(cluster.failures_of("depot/web"), 0);
        assert!(cluster.events_of("depot/web").iter().all(|event| !event.starts_with("HeldByAnother")));
        // One that goes with its namespace is let go without it.
        cluster.api.delete_namespace("depot");
        cluster.delete("depot/web");
        assert!(!cluster.api.services.contains_key("depot/web"));
    }
}

#[test]
fn who_waits_for_quota_is_granted_when_another_of_the_namespace_goes() {
    for (_, ask) in WAYS {
        let mut cluster =
            pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"], "quota": {"perNamespace": 2}}))]);
        cluster.create("a", |_| {});
        cluster.create("b", |_| {});
        cluster.create("c", ask);
        cluster.assert_waits("c", "QuotaExceeded");
        cluster.create("office/d", |_| {});
        assert_eq!(cluster.addresses("office/d").len(), 1, "each namespace has its own");
        cluster.delete("office/d");
        cluster.assert_waits("c", "QuotaExceeded");
        cluster.delete("a");
        assert_eq!(cluster.addresses("c").len(), 1, "{}", cluster.condition("c", "Granted"));
        // One that changes its type gives its share back as well.
        cluster.create("e", ask);
        assert!(cluster.condition("e", "Granted").starts_with("False/"));
        cluster.edit("b", |service| service.spec.as_mut().unwrap().type_ = Some("ClusterIP".into()));
        cluster.quiet();
        cluster.delete("c");
        assert_eq!(cluster.addresses("e").len(), 1, "{}", cluster.condition("e", "Granted"));
    }
}

#[test]
fn a_quota_counts_both_families_and_holds_a_switch_up_no_more_than_it_must() {
    let mut cluster = pools(&[(
        "lan",
        json!({"addresses": ["10.0.0.50-10.0.0.59", "fd00::50/124"], "quota": {"perNamespace": 2}}),
    )]);
    cluster.create("web", |service| dual(service, "RequireDualStack"));
    cluster.assert_has("web", &["10.0.0.50", "fd00::50"]);
    cluster.create("late", |_| {});
    cluster.assert_waits("late", "QuotaExceeded");
    // The address that is given up does not count beside the one that is asked for.
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.58"));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.58", "fd00::50"]);
    cluster.assert_waits("late", "QuotaExceeded");
    cluster.edit("web", |service| {
        let spec = service.spec.as_mut().unwrap();
        spec.ip_families = Some(vec!["IPv4".into()]);
        spec.ip_family_policy = Some("SingleStack".into());
    });
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.58"]);
    cluster.assert_has("late", &["10.0.0.50"]);
}

#[test]
fn many_that_come_at_once_get_no_more_than_the_quota() {
    let mut cluster =
        pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.99"], "quota": {"perNamespace": 3}}))]);
    for number in 0..8 {
        cluster.put(&format!("s{number}"), |_| {});
    }
    cluster.quiet();
    let granted = |cluster: &Cluster| {
        (0..8).filter(|number| !cluster.addresses(&format!("s{number}")).is_empty()).count()
    };
    assert_eq!(granted(&cluster), 3);
    cluster.edit_pool("lan", json!({"quota": {"perNamespace": 5}}));
    cluster.quiet();
    assert_eq!(granted(&cluster), 5);
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(granted(&cluster), 5);
    cluster.edit_pool("lan", json!({"quota": {"perNamespace": 1}}));
    cluster.quiet();
    assert_eq!(granted(&cluster), 5, "what is in use stays");
}

#[test]
fn who_asked_for_a_pool_or_address_that_is_added_gets_it() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/32"]}))]);
    cluster.create("by-pool", |service| annotate(service, "pool", "later"));
    cluster.assert_waits("by-pool", "PoolUnknown");
    assert!(
        cluster
            .condition("by-pool", "Granted")
            .contains("'later', which does not exist: existing pools are lan")
    );
    cluster.create("by-address", |service| annotate(service, "ips", "10.0.0.77"));
    cluster.assert_waits("by-address", "AddressNotInPool");
    cluster.create("any", |_| {});
    cluster.create("another", |_| {});
    cluster.assert_waits("another", "PoolExhausted");
    cluster.put_pool("later", json!({"addresses": ["10.0.0.76/31"]}));
    cluster.quiet();
    cluster.assert_has("by-address", &["10.0.0.77"]);
    assert_eq!(cluster.addresses("by-pool").len() + cluster.addresses("another").len(), 1);
    cluster.edit_pool("lan", json!({"addresses": ["10.0.0.50/31"]}));
    cluster.edit_pool("later", json!({"addresses": ["10.0.0.76/30"]}));
    cluster.quiet();
    assert_eq!(cluster.addresses("another").len(), 1);
    assert!(cluster.addresses("by-pool")[0].starts_with("10.0.0.7"));
}

#[test]
fn what_a_service_comes_to_lack_later_is_no_reason_to_take_its_address() {
    let mut cluster = pools(&[(
        "lan",
        json!({
            "addresses": ["10.0.0.50-10.0.0.59"],
            "namespaceSelector": {"matchLabels": {"team": "a"}},
            "serviceSelector": {"matchLabels": {"tier": "front"}},
        }),
    )]);
    cluster.label_namespace("shop", &[("team", "a")]);
    cluster.quiet();
    cluster.create("web", |service| label(service, "tier", "front"));
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.edit("web", |service| service.metadata.labels = None);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    assert!(cluster.condition("web", "Granted").contains("pool lan does not select the Service's labels"));
    cluster.edit("web", |service| label(service, "tier", "front"));
    cluster.label_namespace("shop", &[("team", "b")]);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    assert!(cluster.condition("web", "Granted").contains("pool lan does not select namespace shop"));
    cluster.label_namespace("shop", &[("team", "a")]);
    cluster.quiet();
    assert_eq!(cluster.condition("web", "Granted"), "True/Granted: 10.0.0.50 from pool lan");
    assert_eq!(cluster.failures_of("web"), 0);
}

#[test]
fn who_gives_its_source_ranges_up_keeps_the_address_but_not_its_announcement() {
    let mut cluster =
        pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"], "requireSourceRanges": true}))]);
    let ranges = |service: &mut Service| {
        service.spec.as_mut().unwrap().load_balancer_source_ranges = Some(vec!["10.0.0.0/8".into()]);
    };
    cluster.create("web", ranges);
    cluster.announce_all();
    cluster.quiet();
    cluster.edit("web", |service| service.spec.as_mut().unwrap().load_balancer_source_ranges = None);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    let said = cluster.condition("web", "Announced");
    assert!(said.starts_with("False/SourceRangesRequired: 10.0.0.50 is kept but not announced"), "{said}");
    assert!(cluster.vip("10.0.0.50").spec.placement.as_ref().unwrap().candidates.is_empty());
    cluster.crash(0);
    cluster.quiet();
    assert!(
        cluster.vip("10.0.0.50").spec.placement.as_ref().unwrap().candidates.is_empty(),
        "after a restart too"
    );
    cluster.edit("web", ranges);
    cluster.announce_all();
    cluster.quiet();
    assert_eq!(cluster.vip("10.0.0.50").spec.placement.as_ref().unwrap().candidates.len(), 3);
    // Where the pool came to require them later, nobody loses what was open before.
    cluster.edit_pool("lan", json!({"requireSourceRanges": false}));
    cluster.create("open", |_| {});
    cluster.edit_pool("lan", json!({"requireSourceRanges": true}));
    cluster.quiet();
    assert_eq!(cluster.vip("10.0.0.51").spec.placement.as_ref().unwrap().candidates.len(), 3);
    assert!(cluster.condition("open", "Granted").contains("pool lan requires spec.loadBalancerSourceRanges"));
}

#[test]
fn who_names_several_pools_is_served_by_those_that_are_left() {
    let mut cluster = pools(&[
        ("a", json!({"addresses": ["10.0.0.50-10.0.0.51"]})),
        ("b", json!({"addresses": ["10.0.0.60/32"]})),
    ]);
    let both = |service: &mut Service| annotate(service, "pool", "b,a");
    cluster.create("old", both);
    cluster.assert_has("old", &["10.0.0.60"]);
    cluster.api.delete_pool("b");
    cluster.quiet();
    assert_eq!(cluster.addresses("old"), ["10.0.0.60"], "its deletion moves nobody");
    cluster.create("new", both);
    cluster.assert_has("new", &["10.0.0.50"]);
    cluster.create("newer", both);
    cluster.assert_has("newer", &["10.0.0.51"]);
    cluster.create("last", both);
    cluster.assert_waits("last", "PoolExhausted");
    let said = cluster.condition("last", "Granted");
    assert!(said.contains("a is exhausted, 'b' does not exist: add addresses"), "{said}");
    // One that comes back moves nobody either, and serves who waits.
    cluster.put_pool("b", json!({"addresses": ["10.0.0.61/32"]}));
    cluster.quiet();
    cluster.assert_has("last", &["10.0.0.61"]);
    cluster.assert_has("new", &["10.0.0.50"]);
}

#[test]
fn each_family_has_to_be_limited_by_itself() {
    let spec = json!({"addresses": ["10.0.0.50-10.0.0.59", "fd00::50/124"], "requireSourceRanges": true});
    let set = |ranges: &'static [&'static str]| {
        move |service: &mut Service| {
            let ranges = ranges.iter().map(ToString::to_string).collect();
            service.spec.as_mut().unwrap().load_balancer_source_ranges = Some(ranges);
        }
    };
    let (open, both): (&[&str], &[&str]) = (&["10.0.0.0/8", "::/0"], &["10.0.0.0/8", "fd00::/8"]);
    let mut cluster = pools(&[("lan", spec)]);
    cluster.create("both", |service| {
        dual(service, "RequireDualStack");
        set(open)(service);
    });
    cluster.assert_waits("both", "SourceRangesRequired");
    let said = cluster.condition("both", "Granted");
    assert!(
        said.contains("lan requires spec.loadBalancerSourceRanges that leave no half of all IPv6"),
        "{said}"
    );
    cluster.edit("both", set(both));
    cluster.quiet();
    cluster.assert_has("both", &["10.0.0.50", "fd00::50"]);

    // What there is is granted, and only that is limited.
    cluster.create("either", |service| {
        dual(service, "PreferDualStack");
        set(open)(service);
    });
    cluster.assert_has("either", &["10.0.0.51"]);
    let said = cluster.condition("either", "Granted");
    assert!(said.contains("no IPv6 address can be had: lan requires"), "{said}");

    // A family without a range is closed, and so lets nobody in.
    cluster.create("closed", |service| {
        dual(service, "RequireDualStack");
        set(&["10.0.0.0/8"])(service);
    });
    cluster.assert_has("closed", &["10.0.0.52", "fd00::51"]);

    // One family given up is one family withheld.
    cluster.announce_all();
    cluster.edit("both", set(open));
    cluster.quiet();
    let candidates = |address: &str, cluster: &Cluster| {
        cluster.vip(address).spec.placement.as_ref().unwrap().candidates.len()
    };
    assert_eq!([candidates("10.0.0.50", &cluster), candidates("fd00::50", &cluster)], [3, 0]);
    cluster.assert_has("both", &["10.0.0.50", "fd00::50"]);
    let said = cluster.condition("both", "Announced");
    assert!(said.starts_with("False/SourceRangesRequired: fd00::50 is kept but not announced"), "{said}");
    assert!(said.contains("none that limit IPv6 any more"), "{said}");
}
