//! One address for each family of a Service.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{annotate, pools};
use crate::cluster::Cluster;

fn stack(families: &'static [&'static str], policy: &'static str) -> impl Fn(&mut Service) {
    move |service| {
        let spec = service.spec.as_mut().unwrap();
        spec.ip_families = Some(families.iter().map(ToString::to_string).collect());
        spec.ip_family_policy = Some(policy.to_owned());
    }
}

const FOUR: &[&str] = &["IPv4"];
const SIX: &[&str] = &["IPv6"];
const FOUR_SIX: &[&str] = &["IPv4", "IPv6"];
const SIX_FOUR: &[&str] = &["IPv6", "IPv4"];

fn both() -> Cluster {
    pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.53", "fd00::50-fd00::53"]}))])
}

fn uid(cluster: &Cluster, address: &str) -> Option<String> {
    cluster.vip(address).metadata.uid.clone()
}

#[test]
fn every_policy_gives_what_it_says_with_the_primary_family_first() {
    for (families, policy, expected) in [
        (FOUR, "SingleStack", &["10.0.0.50"][..]),
        (SIX, "SingleStack", &["fd00::50"]),
        (FOUR, "PreferDualStack", &["10.0.0.50"]),
        (FOUR_SIX, "PreferDualStack", &["10.0.0.50", "fd00::50"]),
        (SIX_FOUR, "PreferDualStack", &["fd00::50", "10.0.0.50"]),
        (FOUR_SIX, "RequireDualStack", &["10.0.0.50", "fd00::50"]),
        (SIX_FOUR, "RequireDualStack", &["fd00::50", "10.0.0.50"]),
    ] {
        let mut cluster = both();
        cluster.create("web", stack(families, policy));
        cluster.assert_has("web", expected);
        assert_eq!(cluster.events_of("web").len(), 1, "one grant: {:?}", cluster.events_of("web"));
        cluster.delete("web");
        assert!(cluster.api.vips.is_empty(), "{families:?}");
    }
    // An object from before dual stack names no family.
    let mut cluster = both();
    cluster.create("web", |service| {
        let spec = service.spec.as_mut().unwrap();
        spec.ip_families = None;
        spec.ip_family_policy = None;
    });
    cluster.assert_has("web", &["10.0.0.50"]);
}

#[test]
fn where_one_family_cannot_be_had_prefer_takes_the_other_and_require_waits() {
    for (spec, has, lacks) in [
        (json!({"addresses": ["10.0.0.50/31"]}), "10.0.0.50", "IPv6"),
        (json!({"addresses": ["fd00::50/127"]}), "fd00::50", "IPv4"),
    ] {
        let mut cluster = pools(&[("lan", spec)]);
        cluster.create("strict", stack(FOUR_SIX, "RequireDualStack"));
        cluster.assert_waits("strict", "NoPool");
        let said = cluster.condition("strict", "Granted");
        assert!(said.contains(&format!("no {lacks} address can be had")), "{said}");
        assert!(cluster.api.vips.is_empty(), "it takes nothing meanwhile");
        cluster.create("easy", stack(FOUR_SIX, "PreferDualStack"));
        cluster.assert_has("easy", &[has]);
        let said = cluster.condition("easy", "Granted");
        assert!(said.contains(&format!("; no {lacks} address can be had")), "{said}");
        assert_eq!(cluster.failures_of("easy"), 0);
        cluster.create("single", stack(if lacks == "IPv6" { SIX } else { FOUR }, "SingleStack"));
        cluster.assert_waits("single", "NoPool");
    }
}

#[test]
fn families_may_come_from_different_pools_and_each_by_its_own_rules() {
    let mut cluster = pools(&[
        ("four", json!({"addresses": ["10.0.0.50-10.0.0.59"], "priority": 5})),
        ("six", json!({"addresses": ["fd00::50/127"], "quota": {"perNamespace": 1}})),
        ("mixed", json!({"addresses": ["10.0.0.60/31", "fd00::60/127"], "priority": -1})),
    ]);
    cluster.create("a", stack(FOUR_SIX, "RequireDualStack"));
    cluster.assert_has("a", &["10.0.0.50", "fd00::50"]);
    assert_eq!(
        cluster.condition("a", "Granted"),
        "True/Granted: 10.0.0.50 from pool four, fd00::50 from pool six"
    );
    cluster.create("b", stack(SIX_FOUR, "RequireDualStack"));
    cluster.assert_has("b", &["fd00::60", "10.0.0.51"]);
    cluster.create("c", |service| {
        stack(FOUR_SIX, "RequireDualStack")(service);
        annotate(service, "pool", "six,mixed");
    });
    cluster.assert_has("c", &["10.0.0.60", "fd00::61"]);
    cluster.create("d", |service| {
        stack(FOUR_SIX, "RequireDualStack")(service);
        annotate(service, "pool", "four");
    });
    cluster.assert_waits("d", "NoPool");
}

#[test]
fn where_both_families_wait_each_tells_why() {
    let mut cluster = pools(&[
        ("four", json!({"addresses": ["10.0.0.50/32"]})),
        ("six", json!({"addresses": ["fd00::50/126"], "namespaceSelector": {"matchLabels": {"a": "b"}}})),
    ]);
    cluster.create("first", stack(FOUR, "SingleStack"));
    for (families, policy, name) in
        [(FOUR_SIX, "RequireDualStack", "strict"), (SIX_FOUR, "PreferDualStack", "easy")]
    {
        cluster.create(name, stack(families, policy));
        let said = cluster.condition(name, "Granted");
        for part in [
            "no IPv4 address can be had: four is exhausted",
            "no IPv6 address can be had: six does not select namespace shop",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let reason = if families == FOUR_SIX { "PoolExhausted" } else { "NamespaceNotSelected" };
        cluster.assert_waits(name, reason);
        let other = if families == FOUR_SIX { "; NamespaceNotSelected: no" } else { "; PoolExhausted: no" };
        assert!(said.contains(other), "{said}");
    }
    // What is the matter with both is said once.
    cluster.create("junk", |service| {
        stack(FOUR_SIX, "RequireDualStack")(service);
        annotate(service, "reserve", "maybe");
    });
    assert_eq!(cluster.condition("junk", "Granted").matches("'maybe'").count(), 1);
}

#[test]
fn required_means_both_or_none_also_by_quota() {
    let quota = |most: i32| json!({"quota": {"perNamespace": most}});
    let mut spec = json!({"addresses": ["10.0.0.50-10.0.0.53", "fd00::50-fd00::53"]});
    spec["quota"] = quota(1)["quota"].clone();
    let mut cluster = pools(&[("lan", spec)]);
    cluster.create("strict", stack(FOUR_SIX, "RequireDualStack"));
    cluster.assert_waits("strict", "QuotaExceeded");
    assert!(cluster.api.vips.is_empty());
    cluster.create("office/easy", stack(FOUR_SIX, "PreferDualStack"));
    assert_eq!(cluster.addresses("office/easy"), ["10.0.0.50"]);
    cluster.edit_pool("lan", quota(2));
    cluster.quiet();
    cluster.assert_has("strict", &["10.0.0.51", "fd00::51"]);
    cluster.assert_has("office/easy", &["10.0.0.50", "fd00::50"]);
    assert_eq!(cluster.failures_of("strict"), 1);
}

#[test]
fn required_waits_with_one_event_while_the_other_family_comes_and_goes() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/32", "fd00::50/128"]}))]);
    cluster.create("six", stack(SIX, "SingleStack"));
    cluster.create("strict", stack(FOUR_SIX, "RequireDualStack"));
    cluster.assert_waits("strict", "PoolExhausted");
    // What it could have meanwhile is there for others.
    cluster.create("four", |_| {});
    cluster.assert_has("four", &["10.0.0.50"]);
    cluster.delete("six");
    assert!(cluster.condition("strict", "Granted").starts_with("False/PoolExhausted: no IPv4 address"));
    cluster.assert_waits("strict", "PoolExhausted");
    cluster.delete("four");
    cluster.assert_has("strict", &["10.0.0.50", "fd00::50"]);
}

#[test]
fn a_second_family_is_added_in_place() {
    for policy in ["PreferDualStack", "RequireDualStack"] {
        for (families, both_of) in [(FOUR, FOUR_SIX), (SIX, SIX_FOUR)] {
            let mut cluster = both();
            cluster.create("web", stack(families, "SingleStack"));
            cluster.announce_all();
            cluster.quiet();
            let first = cluster.addresses("web")[0].clone();
            let before = uid(&cluster, &first);
            cluster.edit("web", stack(both_of, policy));
            let steps = cluster.steps();
            assert_eq!(steps, ["CreateVirtualIp", "SetIngress"], "{policy}");
            let second = if families == FOUR { "fd00::50" } else { "10.0.0.50" };
            cluster.quiet();
            cluster.assert_has("web", &[&first, second]);
            assert_eq!(uid(&cluster, &first), before);
            // And taken away in place, by either policy.
            cluster.edit("web", stack(families, "SingleStack"));
            cluster.quiet();
            cluster.assert_has("web", &[&first]);
            assert!(!cluster.has_vip(second));
            assert_eq!(uid(&cluster, &first), before);
            assert_eq!(cluster.failures_of("web"), 0);
        }
    }
}

#[test]
fn what_one_has_stays_while_an_upgrade_waits() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/31"]}))]);
    cluster.create("web", |_| {});
    cluster.edit("web", stack(FOUR_SIX, "RequireDualStack"));
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    let said = cluster.condition("web", "Granted");
    assert!(
        said.starts_with("False/NoPool: no IPv6") && said.ends_with("10.0.0.50 stays until then"),
        "{said}"
    );
    assert_eq!(cluster.failures_of("web"), 1);
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    cluster.put_pool("six", json!({"addresses": ["fd00::50/127"]}));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50", "fd00::50"]);
}

#[test]
fn one_family_that_is_lost_takes_the_other_with_it_from_nobody() {
    let mut cluster = both();
    cluster.create("web", stack(FOUR_SIX, "RequireDualStack"));
    let before = uid(&cluster, "10.0.0.50");
    // Its IPv6 pool goes, and its VirtualIP is deleted by mistake.
    cluster.edit_pool("lan", json!({"addresses": ["10.0.0.50-10.0.0.53"]}));
    cluster.api.delete_vip("fd00-0000-0000-0000-0000-0000-0000-0050");
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50", "fd00::50"]);
    assert_eq!(uid(&cluster, "10.0.0.50"), before);
}

#[test]
fn each_family_can_be_asked_for_and_the_other_is_chosen() {
    let mut cluster = both();
    cluster.create("web", |service| {
        stack(SIX_FOUR, "RequireDualStack")(service);
        annotate(service, "ips", "10.0.0.53");
    });
    cluster.assert_has("web", &["fd00::50", "10.0.0.53"]);
    // To ask for one family's address moves that family alone.
    let before = uid(&cluster, "10.0.0.53");
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.53,fd00::53"));
    cluster.quiet();
    cluster.assert_has("web", &["fd00::53", "10.0.0.53"]);
    assert_eq!(uid(&cluster, "10.0.0.53"), before);
    cluster.create("other", |service| {
        stack(FOUR_SIX, "RequireDualStack")(service);
        annotate(service, "ips", "10.0.0.51,fd00::53");
    });
    cluster.assert_waits("other", "AddressTaken");
    assert!(!cluster.has_vip("10.0.0.51"), "both or none");
    cluster.create("third", |service| annotate(service, "ips", "10.0.0.51"));
    cluster.assert_has("third", &["10.0.0.51"]);
}

#[test]
fn prefer_with_a_wish_that_cannot_be_met_says_that_it_waits() {
    // Only a shortage is a family that cannot be had; a wish that is refused is the user's to mend.
    let mut cluster = both();
    cluster.create("first", |service| {
        stack(SIX, "SingleStack")(service);
        annotate(service, "ips", "fd00::51");
    });
    cluster.create("web", |service| {
        stack(FOUR_SIX, "PreferDualStack")(service);
        annotate(service, "ips", "fd00::51");
    });
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    let said = cluster.condition("web", "Granted");
    assert!(said.starts_with("False/AddressTaken: fd00::51") && said.contains("10.0.0.50 stays"), "{said}");
    cluster.delete("first");
    cluster.assert_has("web", &["10.0.0.50", "fd00::51"]);
}

#[test]
fn a_restart_between_any_two_steps_of_a_dual_grant_ends_the_same() {
    for policy in ["PreferDualStack", "RequireDualStack"] {
        for steps in 0..6 {
            let mut cluster = both();
            cluster.put("web", stack(FOUR_SIX, policy));
            cluster.deliver(0, crate::api::SERVICES);
            for _ in 0..steps {
                cluster.write(0, 0, crate::cluster::Way::Fine);
                cluster.answer(0);
            }
            cluster.crash(0);
            cluster.quiet();
            cluster.assert_has("web", &["10.0.0.50", "fd00::50"]);
            assert_eq!(cluster.api.vips.len(), 2);
        }
    }
}

#[test]
fn required_that_was_killed_between_its_families_gives_back_what_it_cannot_complete() {
    let mut cluster = both();
    cluster.put("web", stack(FOUR_SIX, "RequireDualStack"));
    cluster.deliver(0, crate::api::SERVICES);
    // The finalizers and one VirtualIP are written; then it dies, and its other family goes.
    for _ in 0..2 {
        cluster.write(0, 0, crate::cluster::Way::Fine);
        cluster.answer(0);
    }
    assert_eq!(cluster.api.vips.len(), 1);
    cluster.edit_pool("lan", json!({"addresses": ["10.0.0.50-10.0.0.53"]}));
    cluster.crash(0);
    cluster.quiet();
    cluster.assert_waits("web", "NoPool");
    assert!(cluster.api.vips.is_empty(), "what nobody may have is not held back");
    let spec: Value = json!({"addresses": ["10.0.0.50-10.0.0.53", "fd00::50/127"]});
    cluster.put_pool("lan", spec);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50", "fd00::50"]);
}
