//! Internal load balancers: never a public address, and every change in the order of safety.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::names::annotations::internal::{ALIBABA, AWS, AWS_SCHEME, AZURE, GKE};
use serde_json::json;

use super::{annotate, annotate_as, dual, given_by_another, pools};
use crate::cluster::Cluster;

fn internal(service: &mut Service) {
    annotate_as(service, AZURE, "true");
}

/// A public pool, one that serves everybody, and one for internal load balancers.
fn three_scopes() -> Cluster {
    pools(&[
        ("any", json!({"addresses": ["10.0.0.50/31"]})),
        ("public", json!({"addresses": ["10.0.0.60/31"], "scope": "External"})),
        ("private", json!({"addresses": ["10.0.0.70/31"], "scope": "Internal"})),
    ])
}

#[test]
fn a_service_that_asks_for_an_internal_one_is_served_by_pools_of_that_scope() {
    for (annotation, value, address) in [
        (AZURE, "true", "10.0.0.70"),
        (AZURE, "false", "10.0.0.50"),
        (GKE, "Internal", "10.0.0.70"),
        (GKE, "External", "10.0.0.50"),
        (AWS, "0.0.0.0/0", "10.0.0.70"),
        (AWS_SCHEME, "internet-facing", "10.0.0.50"),
        (ALIBABA, "intranet", "10.0.0.70"),
    ] {
        let mut cluster = three_scopes();
        cluster.create("web", |service| annotate_as(service, annotation, value));
        cluster.assert_has("web", &[address]);
    }
}

#[test]
fn a_pool_of_scope_any_serves_it_only_where_it_is_named() {
    for (annotation, value, addresses, reason) in [
        ("pool", "any", "10.0.0.50", ""),
        ("ips", "10.0.0.51", "10.0.0.51", ""),
        ("pool", "public,any", "10.0.0.50", ""),
        ("pool", "public", "", "NoInternalPool"),
        ("ips", "10.0.0.60", "", "NoInternalPool"),
    ] {
        let mut cluster = three_scopes();
        cluster.create("web", |service| {
            internal(service);
            annotate(service, annotation, value);
        });
        if reason.is_empty() {
            cluster.assert_has("web", &[addresses]);
        } else {
            cluster.assert_waits("web", reason);
        }
    }
    // And public ones get nothing from the private pool, named or not.
    let mut cluster = three_scopes();
    cluster.create("web", |service| annotate(service, "pool", "private"));
    cluster.assert_waits("web", "NoPool");
    cluster.create("asks", |service| annotate(service, "ips", "10.0.0.70"));
    cluster.assert_waits("asks", "NoPool");
}

#[test]
fn naming_an_address_of_one_family_names_the_pool_for_the_other_too() {
    let mut cluster = pools(&[("any", json!({"addresses": ["10.0.0.50/31", "fd00::50/127"]}))]);
    cluster.create("web", |service| {
        internal(service);
        dual(service, "RequireDualStack");
        annotate(service, "ips", "fd00::51");
    });
    cluster.assert_has("web", &["10.0.0.50", "fd00::51"]);
}

#[test]
fn to_become_internal_and_public_again_takes_the_new_address_before_the_old_one_goes() {
    let mut cluster = three_scopes();
    cluster.create("web", |_| {});
    cluster.announce_all();
    cluster.quiet();
    cluster.edit("web", internal);
    let steps = cluster.steps();
    assert_eq!(steps[..4], ["CreateVirtualIp", "SetIngress", "SetVirtualIpStatus", "UpdateVirtualIp"]);
    assert_eq!(cluster.addresses("web"), ["10.0.0.70"]);
    assert!(cluster.has_vip("10.0.0.50"), "a node still answers for it");
    cluster.announce("10.0.0.50", None);
    cluster.quiet();
    assert!(!cluster.has_vip("10.0.0.50"));
    assert!(cluster.vip("10.0.0.70").spec.claims[0].terms.as_ref().unwrap().internal);

    cluster.edit("web", |service| service.metadata.annotations = None);
    let steps = cluster.steps();
    assert_eq!(steps[..4], ["CreateVirtualIp", "SetIngress", "SetVirtualIpStatus", "UpdateVirtualIp"]);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    assert!(!cluster.has_vip("10.0.0.70"));
    assert_eq!(cluster.failures_of("web"), 0);
}

#[test]
fn without_an_internal_pool_the_public_address_is_given_up_at_once() {
    let mut cluster = pools(&[
        ("any", json!({"addresses": ["10.0.0.50/31"]})),
        ("public", json!({"addresses": ["10.0.0.60/31"], "scope": "External"})),
    ]);
    cluster.create("web", |_| {});
    cluster.announce_all();
    cluster.quiet();
    cluster.edit("web", internal);
    let steps = cluster.steps();
    assert_eq!(steps, ["SetIngress", "SetVirtualIpStatus", "UpdateVirtualIp"], "out of the status first");
    cluster.assert_waits("web", "NoInternalPool");
    let said = cluster.condition("web", "Granted");
    assert!(said.contains("any serves internal load balancers only where they name it"), "{said}");
    assert!(said.contains("public serves no internal load balancers"), "{said}");
    assert_eq!(cluster.condition("web", "Announced"), "absent");
    cluster.announce("10.0.0.50", None);
    cluster.quiet();
    assert!(cluster.api.vips.is_empty());
    assert_eq!(cluster.get("web").metadata.finalizers.as_ref().unwrap().len(), 2, "it is still ours");
    cluster.put_pool("private", json!({"addresses": ["10.0.0.70/31"], "scope": "Internal"}));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.70"]);
}

#[test]
fn an_internal_address_is_kept_while_no_public_one_can_be_had() {
    let mut cluster = pools(&[("private", json!({"addresses": ["10.0.0.70/31"], "scope": "Internal"}))]);
    cluster.create("web", internal);
    cluster.edit("web", |service| service.metadata.annotations = None);
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.70"], "nothing becomes public by that");
    let said = cluster.condition("web", "Granted");
    assert!(said.starts_with("False/NoPool") && said.ends_with("10.0.0.70 stays until then"), "{said}");
    cluster.put_pool("public", json!({"addresses": ["10.0.0.60/31"], "scope": "External"}));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.60"]);
}

#[test]
fn what_is_asked_for_in_a_pool_of_scope_any_stays_when_it_becomes_internal() {
    let mut cluster = three_scopes();
    cluster.create("web", |service| annotate(service, "pool", "any"));
    let before = cluster.vip("10.0.0.50").metadata.uid.clone();
    cluster.edit("web", internal);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    assert_eq!(cluster.vip("10.0.0.50").metadata.uid, before);
}

#[test]
fn one_that_names_its_pool_of_scope_any_no_more_leaves_it_for_an_internal_one() {
    for (annotation, value) in [("pool", "any"), ("ips", "10.0.0.50")] {
        let stops = move |service: &mut Service| {
            service.metadata.annotations.as_mut().unwrap().remove(&format!("landfall.dev/{annotation}"));
        };
        let mut cluster = three_scopes();
        cluster.create("web", |service| {
            internal(service);
            annotate(service, annotation, value);
        });
        cluster.assert_has("web", &["10.0.0.50"]);
        // What others do to the pool is no wish of the Service's, even where it names an address that is
        // in no pool by now.
        cluster.edit_pool("any", json!({"addresses": ["10.0.0.52/31"]}));
        cluster.quiet();
        assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
        cluster.edit_pool("any", json!({"addresses": ["10.0.0.50/31"]}));
        cluster.quiet();
        for scope in ["Internal", "External", "Any"] {
            cluster.edit_pool("any", json!({"scope": scope}));
            cluster.quiet();
            cluster.assert_has("web", &["10.0.0.50"]);
        }
        cluster.edit("web", stops);
        let steps = cluster.steps();
        assert_eq!(steps[..4], ["CreateVirtualIp", "SetIngress", "SetVirtualIpStatus", "UpdateVirtualIp"]);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.70"]);
        assert!(!cluster.has_vip("10.0.0.50"));

        // Where there is no internal pool it is given up for nothing.
        let mut cluster = pools(&[("any", json!({"addresses": ["10.0.0.50/31"]}))]);
        cluster.create("web", |service| {
            internal(service);
            annotate(service, annotation, value);
        });
        cluster.edit("web", stops);
        cluster.crash(0);
        cluster.quiet();
        cluster.assert_waits("web", "NoInternalPool");
        // A pool that came to serve everybody later was never asked for: its addresses stay.
        let mut cluster = three_scopes();
        cluster.create("web", internal);
        cluster.edit_pool("private", json!({"scope": "Any"}));
        cluster.quiet();
        cluster.edit("web", |service| annotate(service, "pool", "private"));
        cluster.quiet();
        cluster.edit_pool("private", json!({"scope": "Internal"}));
        cluster.quiet();
        cluster.edit("web", |service| {
            service.metadata.annotations.as_mut().unwrap().remove("landfall.dev/pool");
        });
        cluster.quiet();
        cluster.edit_pool("private", json!({"scope": "Any"}));
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.70"]);
    }
}

#[test]
fn one_that_names_its_pool_by_another_word_keeps_its_address_by_that_one() {
    let is_lost = |mut cluster: Cluster| {
        cluster.edit("web", |service| {
            service.metadata.annotations.as_mut().unwrap().remove("landfall.dev/ips");
        });
        cluster.quiet();
        assert!(cluster.condition("web", "Granted").starts_with("False/NoInternalPool"));
        assert_eq!(cluster.addresses("web"), [""; 0], "it names no pool any more");
    };
    let asks_in_vain = || {
        let mut cluster = pools(&[("any", json!({"addresses": ["10.0.0.50/31"]}))]);
        cluster.create("other", |service| annotate(service, "ips", "10.0.0.51"));
        cluster.create("web", |service| {
            internal(service);
            annotate(service, "pool", "any");
        });
        cluster.edit("web", |service| {
            service.metadata.annotations.as_mut().unwrap().remove("landfall.dev/pool");
            annotate(service, "ips", "10.0.0.51");
        });
        cluster.quiet();
        assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
        assert!(cluster.condition("web", "Granted").starts_with("False/AddressTaken"));
        cluster
    };
    is_lost(asks_in_vain());
    // What others do to the pool by then is no wish of the Service's.
    let mut cluster = asks_in_vain();
    cluster.edit_pool("any", json!({"addresses": ["10.0.0.52/31"]}));
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    // Its address comes to lie in another pool, by which it is named just the same.
    cluster.put_pool("next", json!({"addresses": ["10.0.0.50/31"]}));
    cluster.api.delete_vip("10.0.0.50");
    cluster.quiet();
    cluster.edit_pool("next", json!({"addresses": ["10.0.0.54/31"]}));
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    is_lost(cluster);
}

#[test]
fn an_edit_of_a_pools_scope_moves_nobody() {
    let mut cluster = pools(&[
        ("lan", json!({"addresses": ["10.0.0.50/31"]})),
        ("private", json!({"addresses": ["10.0.0.70/31"], "scope": "Internal"})),
        ("public", json!({"addresses": ["10.0.0.60/31"], "scope": "External"})),
    ]);
    cluster.create("inside", internal);
    cluster.create("outside", |service| annotate(service, "pool", "public"));
    for (private, public) in [("External", "Internal"), ("Any", "Any"), ("Internal", "External")] {
        cluster.edit_pool("private", json!({"scope": private}));
        cluster.edit_pool("public", json!({"scope": public}));
        cluster.quiet();
        cluster.assert_has("inside", &["10.0.0.70"]);
        cluster.assert_has("outside", &["10.0.0.60"]);
        let is_outside = |name: &str| cluster.condition(name, "Granted").contains("address kept");
        assert_eq!(
            (is_outside("inside"), is_outside("outside")),
            (private != "Internal", public == "Internal")
        );
        cluster.crash(0);
        cluster.quiet();
        cluster.assert_has("inside", &["10.0.0.70"]);
        cluster.assert_has("outside", &["10.0.0.60"]);
    }
}

#[test]
fn an_annotation_that_is_not_understood_moves_nobody_and_serves_nobody() {
    let mut cluster = three_scopes();
    cluster.create("has", internal);
    cluster.edit("has", |service| annotate_as(service, AZURE, "ture"));
    cluster.quiet();
    assert_eq!(cluster.addresses("has"), ["10.0.0.70"]);
    assert!(cluster.condition("has", "Granted").starts_with("False/AnnotationInvalid"));
    cluster.create("new", |service| annotate_as(service, AZURE, "ture"));
    cluster.assert_waits("new", "AnnotationInvalid");
    cluster.create("torn", |service| {
        internal(service);
        annotate_as(service, GKE, "External");
    });
    cluster.assert_waits("torn", "RequestContradictory");
    cluster.edit("new", internal);
    cluster.edit("has", internal);
    cluster.quiet();
    cluster.assert_has("new", &["10.0.0.71"]);
    cluster.assert_has("has", &["10.0.0.70"]);
}

#[test]
fn a_restart_in_the_middle_of_becoming_internal_ends_the_same() {
    for steps in 0..8 {
        let mut cluster = three_scopes();
        cluster.create("web", |_| {});
        cluster.edit("web", internal);
        cluster.deliver(0, crate::api::SERVICES);
        for _ in 0..steps {
            cluster.write(0, 0, crate::cluster::Way::Fine);
            cluster.answer(0);
        }
        cluster.crash(0);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.70"]);
        assert_eq!(cluster.api.vips.len(), 1, "after {steps} steps");
    }
}

#[test]
fn a_public_address_of_another_is_not_adopted_for_an_internal_one() {
    let mut cluster = three_scopes();
    for (name, ip, adopted) in
        [("a", "10.0.0.60", false), ("b", "10.0.0.50", false), ("c", "10.0.0.70", true)]
    {
        cluster.create(name, |service| {
            internal(service);
            given_by_another(service, ip);
            annotate(service, "adopt", "true");
        });
        assert_eq!(cluster.addresses(name), [ip]);
        assert_eq!(cluster.has_vip(ip), adopted, "{ip}");
        let told = cluster.events_of(name);
        assert_eq!(told[0].starts_with("HeldByAnother: "), !adopted, "{told:?}");
    }
}

#[test]
fn one_that_becomes_internal_leaves_a_public_address_that_it_shares_to_the_others() {
    let mut cluster = pools(&[("any", json!({"addresses": ["10.0.0.50/31"]}))]);
    for (name, port) in [("web", 80), ("tls", 443)] {
        cluster.create(name, |service| {
            annotate(service, "sharing-key", "k");
            service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = port;
        });
    }
    cluster.edit("web", internal);
    cluster.quiet();
    cluster.assert_has("tls", &["10.0.0.50"]);
    cluster.assert_waits("web", "NoInternalPool");
    cluster.put_pool("private", json!({"addresses": ["10.0.0.70/31"], "scope": "Internal"}));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.70"]);
    // The key brings no public one to the internal address, nor the other way round.
    cluster.create("third", |service| {
        annotate(service, "sharing-key", "k");
        service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 8080;
    });
    cluster.assert_has("third", &["10.0.0.50"]);
    cluster.create("inside", |service| {
        internal(service);
        annotate(service, "sharing-key", "k");
        service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 8081;
    });
    cluster.assert_has("inside", &["10.0.0.70"]);
}

#[test]
fn what_is_claimed_already_and_asked_for_anew_is_kept_and_not_claimed_again() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.51"]}))]);
    cluster.create("web", |_| {});
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.51"));
    while cluster.deliver(0, crate::api::SERVICES) {}
    cluster.write(0, 0, crate::cluster::Way::Fine);
    assert!(cluster.has_vip("10.0.0.50") && cluster.has_vip("10.0.0.51"), "on its way from one to the other");
    // Now it asks for an internal one, and the pool of both is another one.
    cluster.edit("web", |service| annotate_as(service, AZURE, "true"));
    cluster.api.delete_pool("lan");
    cluster.put_pool("inner", json!({"addresses": ["10.0.0.50-10.0.0.51"]}));
    cluster.crash(0);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.51"]);
    assert!(!cluster.has_vip("10.0.0.50"));
    assert!(cluster.vip("10.0.0.51").spec.claims[0].terms.as_ref().unwrap().internal);
}
