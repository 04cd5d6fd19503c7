//! Addresses of another implementation, taken over as they are.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use landfall_crds::names::annotations::internal::AZURE;
use serde_json::json;

use super::{annotate, annotate_as, dual, given_by_another, label, pools};
use crate::cluster::Cluster;

fn lan() -> Cluster {
    pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.69", "fd00::50/124"]}))])
}

fn given(service: &mut Service, ips: &[&str]) {
    let entry =
        |ip: &&str| LoadBalancerIngress { ip: Some((*ip).to_owned()), ..LoadBalancerIngress::default() };
    let balancer = LoadBalancerStatus { ingress: Some(ips.iter().map(entry).collect()) };
    service.status = Some(ServiceStatus { load_balancer: Some(balancer), ..ServiceStatus::default() });
}

/// A Service of another implementation that is to be taken over.
fn adopted(ips: &'static [&'static str]) -> impl Fn(&mut Service) {
    move |service| {
        given(service, ips);
        annotate(service, "adopt", "true");
    }
}

#[test]
fn what_is_free_and_in_a_pool_is_taken_over_as_it_is() {
    let mut cluster = lan();
    cluster.create("one", adopted(&["10.0.0.55"]));
    cluster.create("six", |service| {
        service.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".into()]);
        adopted(&["fd00::55"])(service);
    });
    cluster.create("both", |service| {
        dual(service, "RequireDualStack");
        adopted(&["fd00::57", "10.0.0.57"])(service);
    });
    cluster.create("half", |service| {
        dual(service, "PreferDualStack");
        adopted(&["10.0.0.58"])(service);
    });
    cluster.create("asks", |service| {
        adopted(&["10.0.0.59"])(service);
        annotate_as(service, "metallb.io/loadBalancerIPs", "10.0.0.59");
    });
    cluster.create("by-name", |service| {
        adopted(&["10.0.0.61"])(service);
        annotate_as(service, "metallb.universe.tf/address-pool", "lan");
    });
    cluster.create("other-name", |service| {
        adopted(&["10.0.0.62"])(service);
        annotate_as(service, "metallb.universe.tf/address-pool", "first");
    });
    cluster.assert_has("one", &["10.0.0.55"]);
    cluster.assert_has("other-name", &["10.0.0.62"]);
    assert!(cluster.condition("other-name", "Granted").starts_with("True/Granted: 10.0.0.62"));
    cluster.assert_has("six", &["fd00::55"]);
    cluster.assert_has("both", &["10.0.0.57", "fd00::57"]);
    cluster.assert_has("half", &["10.0.0.58", "fd00::50"]);
    cluster.assert_has("asks", &["10.0.0.59"]);
    cluster.assert_has("by-name", &["10.0.0.61"]);
    for name in ["one", "six", "both", "half", "asks", "by-name", "other-name"] {
        assert_eq!(cluster.get(name).metadata.finalizers.as_ref().unwrap().len(), 2);
        assert!(!cluster.events_of(name).iter().any(|event| event.starts_with("HeldByAnother")), "{name}");
    }
    // Taken over is taken over: the annotation may go.
    cluster.edit("one", |service| service.metadata.annotations = None);
    cluster.quiet();
    cluster.assert_has("one", &["10.0.0.55"]);
}

#[test]
fn what_breaks_a_rule_is_not_taken_over() {
    let mut cluster = pools(&[
        ("lan", json!({"addresses": ["10.0.0.50-10.0.0.54", "fd00::50/126"]})),
        ("space", json!({"addresses": ["10.0.0.60/32"], "namespaceSelector": {"matchLabels": {"a": "b"}}})),
        ("label", json!({"addresses": ["10.0.0.61/32"], "serviceSelector": {"matchLabels": {"a": "b"}}})),
        ("quota", json!({"addresses": ["10.0.0.62/32"], "quota": {"perNamespace": 0}})),
        ("range", json!({"addresses": ["10.0.0.63/32"], "requireSourceRanges": true})),
        ("inner", json!({"addresses": ["10.0.0.64/32"], "scope": "Internal"})),
        ("outer", json!({"addresses": ["10.0.0.65/32"], "scope": "External"})),
    ]);
    cluster.create("web", |service| annotate(service, "ips", "10.0.0.50"));
    type Change = Box<dyn Fn(&mut Service)>;
    let plain = |ips: &'static [&'static str]| -> Change { Box::new(adopted(ips)) };
    let table: Vec<(Change, &str)> = vec![
        (plain(&["10.0.0.50"]), "Service shop/web has it"),
        (plain(&["192.0.2.7"]), "no IPPool holds 192.0.2.7"),
        (plain(&["10.0.0.2"]), "no IPPool holds 10.0.0.2"),
        (plain(&["10.0.0.60"]), "pool space does not select namespace shop"),
        (plain(&["10.0.0.61"]), "pool label does not select the Service's labels"),
        (plain(&["10.0.0.62"]), "pool quota gives namespace shop 0 addresses"),
        (plain(&["10.0.0.63"]), "pool range requires spec.loadBalancerSourceRanges"),
        (plain(&["10.0.0.64"]), "pool inner serves internal load balancers only"),
        (plain(&["10.0.0.51", "10.0.0.52"]), "10.0.0.52 is not the one address of a family"),
        (plain(&["10.0.0.51", "fd00::51"]), "fd00::51 is not the one address of a family"),
        (
            Box::new(|service| {
                adopted(&["10.0.0.65"])(service);
                annotate_as(service, AZURE, "true");
            }),
            "pool outer serves no internal load balancers",
        ),
        (
            Box::new(|service| {
                adopted(&["10.0.0.51"])(service);
                annotate_as(service, AZURE, "true");
            }),
            "pool lan serves internal load balancers only where they name it",
        ),
        (
            Box::new(|service| {
                adopted(&["10.0.0.51"])(service);
                annotate_as(service, AZURE, "ture");
            }),
            "azure-load-balancer-internal says 'ture'",
        ),
        (
            Box::new(|service| {
                adopted(&["10.0.0.51"])(service);
                let entry = LoadBalancerIngress {
                    hostname: Some("lb.example".into()),
                    ..LoadBalancerIngress::default()
                };
                let status = service.status.as_mut().unwrap().load_balancer.as_mut().unwrap();
                status.ingress.as_mut().unwrap().push(entry);
            }),
            "the status holds a host name",
        ),
        (
            Box::new(|service| {
                adopted(&["10.0.0.51"])(service);
                annotate(service, "adopt", "yes");
            }),
            "annotate it with landfall.dev/adopt=true",
        ),
    ];
    for (change, why) in table {
        cluster.put("theirs", change);
        let before = cluster.get("theirs").clone();
        cluster.quiet();
        let told = cluster.events_of("theirs");
        assert!(told.len() == 1 && told[0].starts_with("HeldByAnother: "), "{why}: {told:?}");
        assert!(told[0].contains(why), "{why}: {told:?}");
        assert_eq!(*cluster.get("theirs"), before, "{why}: nothing is written");
        assert_eq!(cluster.api.vips.len(), 1, "{why}");
        cluster.delete("theirs");
        cluster.controllers[0].published.clear();
    }
}

#[test]
fn no_more_is_taken_over_than_a_namespace_may_have() {
    let spec = json!({"addresses": ["10.0.0.50-10.0.0.69", "fd00::50/124"], "quota": {"perNamespace": 1}});
    let mut cluster = pools(&[("lan", spec)]);
    // At the same moment.
    cluster.put("one", adopted(&["10.0.0.55"]));
    cluster.put("two", adopted(&["10.0.0.56"]));
    cluster.put("office/one", adopted(&["10.0.0.57"]));
    cluster.quiet();
    cluster.assert_has("one", &["10.0.0.55"]);
    cluster.assert_has("office/one", &["10.0.0.57"]);
    assert_eq!(cluster.addresses("two"), ["10.0.0.56"], "it stays with whoever gave it");
    assert!(!cluster.has_vip("10.0.0.56"));
    assert_eq!(cluster.get("two").metadata.finalizers.iter().flatten().count(), 0);
    let told = cluster.events_of("two");
    let why = "cannot take the addresses over: pool lan gives namespace shop 1 addresses at most";
    assert!(told[0].starts_with("HeldByAnother: ") && told[0].contains(why), "{told:?}");
    // It is taken over as soon as there is room.
    cluster.delete("one");
    cluster.assert_has("two", &["10.0.0.56"]);
    cluster.delete("two");
    // Two addresses of one Service count as two.
    cluster.create("both", |service| {
        dual(service, "PreferDualStack");
        adopted(&["10.0.0.58", "fd00::58"])(service);
    });
    assert!(!cluster.has_vip("10.0.0.58") && !cluster.has_vip("fd00::58"));
    assert!(cluster.events_of("both")[0].contains(why), "{:?}", cluster.events_of("both"));
    // Nor does a Service of our own class, for which somebody else has written addresses.
    cluster.delete("both");
    cluster.create("held", |_| {});
    cluster.create("written", |service| {
        given(service, &["10.0.0.59"]);
        service.spec.as_mut().unwrap().load_balancer_class = Some("landfall.dev/lan".into());
    });
    cluster.assert_waits("written", "QuotaExceeded");
    cluster.edit_pool("lan", json!({"quota": null}));
    cluster.quiet();
    assert_eq!(cluster.addresses("written").len(), 1);
}

#[test]
fn what_could_not_be_taken_over_is_taken_over_once_it_can() {
    let mut cluster = pools(&[(
        "lan",
        json!({"addresses": ["10.0.0.50-10.0.0.59"], "serviceSelector": {"matchLabels": {"a": "b"}}}),
    )]);
    cluster.create("theirs", adopted(&["10.0.0.55"]));
    assert!(cluster.api.vips.is_empty());
    cluster.edit("theirs", |service| label(service, "a", "b"));
    cluster.quiet();
    cluster.assert_has("theirs", &["10.0.0.55"]);
    // So is an address of which a pool comes to hold, or that comes free.
    cluster.create("late", |service| {
        label(service, "a", "b");
        adopted(&["10.0.0.70"])(service);
    });
    assert!(!cluster.has_vip("10.0.0.70"));
    cluster.edit_pool("lan", json!({"addresses": ["10.0.0.50-10.0.0.79"]}));
    cluster.quiet();
    cluster.assert_has("late", &["10.0.0.70"]);
    cluster.create("third", |service| {
        label(service, "a", "b");
        adopted(&["10.0.0.55"])(service);
    });
    assert_eq!(cluster.vip("10.0.0.55").spec.claims.len(), 1);
    cluster.delete("theirs");
    cluster.edit("third", |service| annotate(service, "other", "thing"));
    cluster.quiet();
    cluster.assert_has("third", &["10.0.0.55"]);
}

#[test]
fn two_that_share_an_address_elsewhere_are_taken_over_together() {
    let sharing = |port: i32| {
        move |service: &mut Service| {
            adopted(&["10.0.0.55"])(service);
            annotate_as(service, "metallb.universe.tf/allow-shared-ip", "k");
            service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = port;
        }
    };
    let mut cluster = lan();
    cluster.put("web", sharing(80));
    cluster.put("tls", sharing(443));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.55"]);
    cluster.assert_has("tls", &["10.0.0.55"]);
    assert!(!cluster.told().contains(&"HeldByAnother"));
    // While the other has still to stay where it is, neither is: two would answer for the address.
    let mut cluster = lan();
    cluster.put("tls", |service| {
        sharing(443)(service);
        service.metadata.annotations.as_mut().unwrap().remove("landfall.dev/adopt");
    });
    cluster.put("web", sharing(80));
    cluster.quiet();
    assert!(cluster.api.vips.is_empty());
    let told = cluster.events_of("web");
    assert!(told.len() == 1 && told[0].contains("Service shop/tls has it"), "{told:?}");
    cluster.edit("tls", |service| annotate(service, "adopt", "true"));
    cluster.quiet();
    cluster.assert_has("tls", &["10.0.0.55"]);
    cluster.assert_has("web", &["10.0.0.55"]);
}

#[test]
fn one_that_is_being_deleted_or_of_another_class_is_not_adopted() {
    let mut cluster = lan();
    cluster.create("theirs", |service| {
        adopted(&["10.0.0.55"])(service);
        service.spec.as_mut().unwrap().load_balancer_class = Some("example.com/other".into());
    });
    cluster.put("going", |service| {
        adopted(&["10.0.0.56"])(service);
        service.metadata.finalizers = Some(vec!["example.com/theirs".into()]);
    });
    cluster.api.delete_service("shop/going");
    cluster.quiet();
    assert!(cluster.api.vips.is_empty());
    cluster.create("new", |service| annotate(service, "ips", "10.0.0.55"));
    cluster.assert_waits("new", "AddressTaken");
}

#[test]
fn what_is_in_the_way_of_an_adoption_is_waited_for() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.69"]}))]);
    cluster.create("web", |service| annotate(service, "ips", "10.0.0.55"));
    cluster.create("theirs", adopted(&["10.0.0.55"]));
    assert_eq!(cluster.get("theirs").metadata.finalizers, None);
    assert_eq!(cluster.events_of("theirs").len(), 1);
    cluster.delete("web");
    cluster.assert_has("theirs", &["10.0.0.55"]);
    // So too where the obstacle is a Service of the other implementation.
    cluster.create("first", |service| given_by_another(service, "10.0.0.56"));
    cluster.create("second", adopted(&["10.0.0.56"]));
    assert_eq!(cluster.get("second").metadata.finalizers, None);
    cluster.delete("first");
    cluster.assert_has("second", &["10.0.0.56"]);
}

#[test]
fn an_address_that_another_implementation_writes_too_is_brought_back_to_the_one_that_has_it_from_us() {
    for is_to_be_adopted in [false, true] {
        for pool in ["10.0.0.50-10.0.0.59", "10.0.0.60-10.0.0.69"] {
            let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"]}))]);
            cluster.create("web", |_| {});
            cluster.create("theirs", |service| {
                given_by_another(service, "10.0.0.50");
                if is_to_be_adopted {
                    annotate(service, "adopt", "true");
                }
            });
            cluster.edit_pool("lan", json!({"addresses": [pool]}));
            cluster.quiet();
            // Nobody remembers who held it.
            let mut vip = cluster.vip("10.0.0.50").clone();
            vip.metadata.finalizers = None;
            cluster.api.put_vip(vip);
            cluster.api.delete_vip("10.0.0.50");
            cluster.crash(0);
            cluster.quiet();
            cluster.assert_has("web", &["10.0.0.50"]);
            assert_eq!(cluster.get("theirs").metadata.finalizers, None);
        }
    }
}
