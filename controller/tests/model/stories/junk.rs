//! What people write by mistake: one condition, one Event, nothing else; and once corrected, an address.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::names::annotations::{IPS, POOL, RESERVE, SHARING_KEY, foreign, internal};
use serde_json::json;

use super::{annotate_as, dual, pools};
use crate::cluster::Cluster;

fn lan() -> Cluster {
    pools(&[
        ("lan", json!({"addresses": ["10.0.0.50-10.0.0.59", "fd00::50/124"]})),
        ("private", json!({"addresses": ["10.0.0.70-10.0.0.79", "fd00::70/124"], "scope": "Internal"})),
    ])
}

/// An annotation or `spec.loadBalancerIP`, a value, and the reason that is told.
fn table() -> Vec<(String, String, &'static str)> {
    let mut table: Vec<(String, String, &'static str)> = Vec::new();
    let thousand = (0..1000).map(|n| format!("10.1.{}.{}", n / 250, n % 250)).collect::<Vec<_>>().join(",");
    let long = "1".repeat(100_000);
    let mut add = |name: &str, value: &str, reason| table.push((name.to_owned(), value.to_owned(), reason));
    for name in [IPS].into_iter().chain(foreign::IPS) {
        for (value, reason) in [
            ("web.example.com", "AddressInvalid"),
            ("10.0.0.256", "AddressInvalid"),
            ("10.0.0.50 10.0.0.51", "AddressInvalid"),
            ("10.0.0.50;fd00::50", "AddressInvalid"),
            ("10.0.0.0/24", "AddressInvalid"),
            ("10.0.0.50-10.0.0.59", "AddressInvalid"),
            ("\u{661}\u{660}.0.0.50", "AddressInvalid"),
            ("10\u{ff0e}0.0.50", "AddressInvalid"),
            ("10.0.0.50\u{200b}", "AddressInvalid"),
            ("::ffff:10.0.0.50", "AddressInvalid"),
            ("0.0.0.0", "AddressInvalid"),
            ("\u{1f980}", "AddressInvalid"),
            (&long, "AddressInvalid"),
            ("fd00::50", "FamilyMismatch"),
            ("10.0.0.50,fd00::50", "FamilyMismatch"),
            ("10.0.0.50,10.0.0.51", "RequestContradictory"),
            (&thousand, "RequestContradictory"),
            ("10.0.0.60", "AddressNotInPool"),
            ("127.0.0.1", "AddressNotInPool"),
            ("224.0.0.1", "AddressNotInPool"),
            ("10.0.0.2", "AddressNotInPool"),
        ] {
            add(name, value, reason);
        }
    }
    for value in ["junk", "10.0.0.50,10.0.0.51", " ", "\u{3000}10.0.0.x"] {
        if !value.trim().is_empty() {
            add("spec.loadBalancerIP", value, "AddressInvalid");
        }
    }
    for name in [POOL].into_iter().chain(foreign::POOL) {
        for value in ["typo", "LAN", "l\u{e4}n", "lan;private", "\u{1f980}", &long] {
            add(name, value, "PoolUnknown");
        }
    }
    add(POOL, "slip,typo", "PoolUnknown");
    for name in [SHARING_KEY].into_iter().chain(foreign::SHARING_KEY) {
        add(name, &"k".repeat(257), "AnnotationInvalid");
    }
    for value in ["True", "yes", "1", "ture", "\u{ff54}rue"] {
        add(RESERVE, value, "AnnotationInvalid");
    }
    for name in internal::ALL {
        for value in ["False ,", "no", "\u{1f980}", &long] {
            // The controller of Kubernetes' tree takes every text but a denial for yes.
            if name == internal::AWS && value != "no" {
                continue;
            }
            add(name, value, "AnnotationInvalid");
        }
    }
    table
}

fn write(service: &mut Service, name: &str, value: &str) {
    match name {
        "spec.loadBalancerIP" => service.spec.as_mut().unwrap().load_balancer_ip = Some(value.to_owned()),
        _ => annotate_as(service, name, value),
    }
}

fn correct(service: &mut Service) {
    service.metadata.annotations = None;
    service.spec.as_mut().unwrap().load_balancer_ip = None;
}

#[test]
fn junk_costs_a_new_service_one_condition_and_one_event() {
    let mut cluster = lan();
    for (name, value, reason) in table() {
        cluster.controllers[0].published.clear();
        cluster.put("web", |service| write(service, &name, &value));
        assert_eq!(cluster.steps(), ["SetConditions"], "{name}: {value:.40}");
        for kind in 0..crate::api::KINDS {
            cluster.relist(0, kind);
        }
        cluster.quiet();
        cluster.assert_waits("web", reason);
        assert_eq!(cluster.events_of("web").len(), 1, "{name}: {value:.40}");
        let said = cluster.condition("web", "Granted");
        assert!(said.chars().count() < 1024 && !said.chars().any(char::is_control), "{said}");
        assert!(
            said.contains(name.rsplit('/').next().unwrap())
                || reason.ends_with("NotInPool")
                || reason == "PoolUnknown",
            "{said}"
        );
        let web = cluster.get("web");
        assert_eq!(web.metadata.finalizers, None, "{name}: {value:.40}");
        assert!(cluster.api.vips.is_empty());
        cluster.edit("web", correct);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.delete("web");
    }
}

#[test]
fn junk_costs_a_service_nothing_of_what_it_has() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let before = cluster.vip("10.0.0.50").clone();
    // To name its own pool beside one that does not exist is to have what is asked for.
    let table = table().into_iter().filter(|(_, value, _)| value != "lan,typo");
    for (name, value, reason) in table {
        cluster.controllers[0].published.clear();
        cluster.edit("web", |service| write(service, &name, &value));
        cluster.quiet();
        assert_eq!(cluster.addresses("web"), ["10.0.0.50"], "{name}: {value:.40}");
        let said = cluster.condition("web", "Granted");
        assert!(said.starts_with(&format!("False/{reason}: ")), "{name}: {value:.40}: {said}");
        assert!(said.ends_with("; 10.0.0.50 stays until then"), "{said}");
        assert_eq!(cluster.failures_of("web"), 1, "{name}: {value:.40}");
        cluster.edit("web", correct);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        let after = cluster.vip("10.0.0.50");
        assert_eq!(
            (&after.metadata.uid, &after.spec),
            (&before.metadata.uid, &before.spec),
            "{name}: {value:.40}"
        );
    }
}

#[test]
fn what_looks_odd_and_means_something_is_granted() {
    for (name, value, address) in [
        (IPS, " 10.0.0.53 ", "10.0.0.53"),
        (IPS, "10.0.0.53,10.0.0.53", "10.0.0.53"),
        (IPS, ",,10.0.0.53,", "10.0.0.53"),
        (IPS, "", "10.0.0.50"),
        (IPS, "\n\t", "10.0.0.50"),
        (IPS, ",", "10.0.0.50"),
        (POOL, "lan,lan", "10.0.0.50"),
        (POOL, " , ", "10.0.0.50"),
        (POOL, "private , lan", "10.0.0.50"),
        (SHARING_KEY, "\u{1f980} any text, in fact", "10.0.0.50"),
        (RESERVE, "false", "10.0.0.50"),
        (internal::AZURE, " true\n", "10.0.0.70"),
        (internal::AWS, "0.0.0.0/0", "10.0.0.70"),
        (internal::GKE, "", "10.0.0.50"),
        ("landfall.dev/no-such-thing", "true", "10.0.0.50"),
        ("landfall.dev/adopt", "junk", "10.0.0.50"),
        ("service.beta.kubernetes.io/load-balancer-source-ranges", "junk", "10.0.0.50"),
        ("service.beta.kubernetes.io/aws-load-balancer-type", "nlb", "10.0.0.50"),
    ] {
        let mut cluster = lan();
        cluster.create("web", |service| annotate_as(service, name, value));
        cluster.assert_has("web", &[address]);
    }
}

#[test]
fn two_annotations_that_differ_are_both_named() {
    for (first, one, second, other) in [
        (IPS, "10.0.0.50", "metallb.io/loadBalancerIPs", "10.0.0.51"),
        ("lbipam.cilium.io/ips", "10.0.0.50", "kube-vip.io/loadbalancerIPs", "10.0.0.51"),
        (POOL, "lan", "metallb.io/address-pool", "private"),
        (SHARING_KEY, "a", "metallb.universe.tf/allow-shared-ip", "b"),
        (internal::AZURE, "true", internal::GKE, "External"),
    ] {
        let mut cluster = lan();
        cluster.create("web", |service| {
            annotate_as(service, first, one);
            annotate_as(service, second, other);
        });
        cluster.assert_waits("web", "RequestContradictory");
        let said = cluster.condition("web", "Granted");
        assert!(said.contains(first) && said.contains(second), "{said}");
        cluster.edit("web", |service| {
            service.metadata.annotations.as_mut().unwrap().remove(second);
        });
        cluster.quiet();
        assert_eq!(cluster.addresses("web").len(), 1, "{said}");
    }
}

#[test]
fn from_one_mistake_to_the_next_each_is_told_once() {
    let mut cluster = lan();
    cluster.create("web", |service| annotate_as(service, IPS, "junk"));
    for (value, reason) in
        [("other-junk", "AddressInvalid"), ("fd00::50", "FamilyMismatch"), ("10.0.0.60", "AddressNotInPool")]
    {
        cluster.edit("web", |service| annotate_as(service, IPS, value));
        cluster.quiet();
        let said = cluster.condition("web", "Granted");
        assert!(said.starts_with(&format!("False/{reason}: ")), "{said}");
        assert!(said.contains(value), "{said}");
    }
    assert_eq!(cluster.failures_of("web"), 3, "one for each reason");
}

#[test]
fn junk_in_one_family_takes_neither() {
    let mut cluster = lan();
    cluster.create("web", |service| {
        dual(service, "PreferDualStack");
        annotate_as(service, IPS, "10.0.0.50,junk");
    });
    cluster.assert_waits("web", "AddressInvalid");
    assert!(cluster.api.vips.is_empty());
}

#[test]
fn a_service_without_ports_or_spec_does_no_harm() {
    let mut cluster = lan();
    cluster.create("bare", |service| service.spec.as_mut().unwrap().ports = None);
    cluster.create("empty", |service| service.spec = None);
    cluster.create("odd", |service| {
        let spec = service.spec.as_mut().unwrap();
        spec.ip_families = Some(vec!["IPv5".into(), "IPv4".into(), "IPv4".into()]);
        spec.ip_family_policy = Some("Whatever".into());
    });
    cluster.assert_has("bare", &["10.0.0.50"]);
    cluster.assert_has("odd", &["10.0.0.51"]);
    assert_eq!(cluster.get("empty").status, None);
}
