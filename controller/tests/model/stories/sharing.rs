//! Several Services on one address.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use landfall_crds::{Reservation, VirtualIP, VirtualIPSpec};
use serde_json::json;

use super::{annotate, annotate_as, pools};
use crate::cluster::Cluster;

pub fn lan() -> Cluster {
    pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.59", "fd00::50/124"]}))])
}

/// A Service that offers to share, and serves one TCP port.
pub fn sharer(key: &str, port: i32) -> impl Fn(&mut Service) + use<> {
    let key = key.to_owned();
    move |service| {
        annotate(service, "sharing-key", &key);
        serve(service, "TCP", port);
    }
}

fn serve(service: &mut Service, protocol: &str, port: i32) {
    let of_port = ServicePort {
        port,
        protocol: Some(protocol.to_owned()),
        node_port: Some(30000 + port % 2767),
        ..ServicePort::default()
    };
    service.spec.as_mut().unwrap().ports = Some(vec![of_port]);
}

fn local(app: &'static str) -> impl Fn(&mut Service) {
    move |service| {
        let spec = service.spec.as_mut().unwrap();
        spec.external_traffic_policy = Some("Local".into());
        spec.selector = Some([("app".to_owned(), app.to_owned())].into());
    }
}

/// The names of the Services on an address, in the order of their claims.
pub fn on(cluster: &Cluster, address: &str) -> Vec<String> {
    cluster.vip(address).spec.claims.iter().map(|claim| claim.name.clone()).collect()
}

/// The ports that are served at an address, with who serves each.
fn ports(cluster: &Cluster, address: &str) -> Vec<(i32, String)> {
    let ports = &cluster.vip(address).spec.ports;
    ports.iter().map(|port| (port.port, port.claim.name.clone())).collect()
}

pub fn uid(cluster: &Cluster, address: &str) -> String {
    cluster.vip(address).metadata.uid.clone().unwrap()
}

/// Everything about a Service that its neighbour's doings must leave alone.
fn state(cluster: &Cluster, name: &str) -> (Vec<String>, String, Option<String>) {
    (cluster.addresses(name), cluster.condition(name, "Granted"), cluster.get(name).metadata.uid.clone())
}

#[test]
fn two_and_three_are_on_one_address_as_long_as_no_port_collides() {
    let mut cluster = lan();
    cluster.create("web", sharer("k", 80));
    cluster.create("tls", sharer("k", 443));
    cluster.create("dns", |service| {
        annotate(service, "sharing-key", "k");
        serve(service, "UDP", 80);
    });
    for name in ["web", "tls", "dns"] {
        cluster.assert_has(name, &["10.0.0.50"]);
    }
    assert_eq!(on(&cluster, "10.0.0.50"), ["web", "tls", "dns"]);
    assert_eq!(ports(&cluster, "10.0.0.50"), [(80, "web".into()), (443, "tls".into()), (80, "dns".into())]);
    // Who collides, has no key or another one is elsewhere.
    cluster.create("web2", sharer("k", 80));
    cluster.create("other", sharer("l", 8080));
    cluster.create("alone", |service| serve(service, "TCP", 8081));
    cluster.assert_has("web2", &["10.0.0.51"]);
    cluster.assert_has("other", &["10.0.0.52"]);
    cluster.assert_has("alone", &["10.0.0.53"]);
    // The next one joins where it can.
    cluster.create("tls2", sharer("k", 443));
    cluster.assert_has("tls2", &["10.0.0.51"]);
    let counts = cluster.api.pools["lan"].status.as_ref().unwrap().ipv4.unwrap();
    assert_eq!((counts.granted, counts.available), (4, 6), "an address counts once");
}

#[test]
fn what_cannot_share_waits_where_it_asks_for_the_address() {
    let mut cluster = lan();
    cluster.create("web", sharer("k", 80));
    for (what, reason, sentence) in [
        ("port", "SharingConflict", "Service shop/web serves port 80/TCP there"),
        ("key", "SharingConflict", "Service shop/web has it with the sharing key 'k'"),
        ("none", "AddressTaken", "Service shop/web has it"),
        ("policy", "SharingConflict", "another externalTrafficPolicy"),
    ] {
        cluster.create("asks", |service| {
            sharer(if what == "key" { "l" } else { "k" }, if what == "port" { 80 } else { 443 })(service);
            if what == "none" {
                service.metadata.annotations = None;
            }
            if what == "policy" {
                local("web")(service);
            }
            annotate(service, "ips", "10.0.0.50");
        });
        cluster.assert_waits("asks", reason);
        assert!(cluster.condition("asks", "Granted").contains(sentence), "{what}");
        assert_eq!(on(&cluster, "10.0.0.50"), ["web"]);
        cluster.delete("asks");
        cluster.controllers[0].published.clear();
    }
    cluster.create("asks", |service| {
        sharer("k", 443)(service);
        annotate(service, "ips", "10.0.0.50");
    });
    cluster.assert_has("asks", &["10.0.0.50"]);
    // In another namespace the key means nothing, unless the pool says so.
    cluster.create("office/tls", |service| {
        sharer("k", 8443)(service);
        annotate(service, "ips", "10.0.0.50");
    });
    cluster.assert_waits("office/tls", "SharingConflict");
    assert!(cluster.condition("office/tls", "Granted").contains("of another namespace"));
    cluster.edit_pool("lan", json!({"sharing": {"namespaces": ["office"]}}));
    cluster.quiet();
    cluster.assert_waits("office/tls", "SharingConflict");
    cluster.edit_pool("lan", json!({"sharing": {"namespaces": ["office", "shop"]}}));
    cluster.quiet();
    cluster.assert_has("office/tls", &["10.0.0.50"]);
    // Taken back, it moves nobody; but nobody else joins.
    cluster.edit_pool("lan", json!({"sharing": null}));
    cluster.quiet();
    cluster.assert_has("office/tls", &["10.0.0.50"]);
    cluster.create("office/more", sharer("k", 9000));
    assert_eq!(cluster.addresses("office/more"), ["10.0.0.51"]);
}

#[test]
fn with_policy_local_only_services_with_the_same_pods_share() {
    let mut cluster = lan();
    let both = |port: i32, app: &'static str| {
        move |service: &mut Service| {
            sharer("k", port)(service);
            local(app)(service);
        }
    };
    cluster.create("web", both(80, "web"));
    cluster.create("tls", both(443, "web"));
    cluster.create("api", both(8080, "api"));
    cluster.create("none", |service| {
        both(8081, "web")(service);
        service.spec.as_mut().unwrap().selector = None;
    });
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.assert_has("tls", &["10.0.0.50"]);
    cluster.assert_has("api", &["10.0.0.51"]);
    cluster.assert_has("none", &["10.0.0.52"]);
    // A selector that changes makes its Service leave, and only that.
    let before = state(&cluster, "web");
    cluster.edit("tls", |service| local("other")(service));
    cluster.quiet();
    assert_eq!(state(&cluster, "web"), before);
    assert_eq!(cluster.addresses("tls"), ["10.0.0.53"]);
}

#[test]
fn who_edits_itself_into_a_collision_leaves_at_once_and_its_neighbour_stays() {
    type Change = fn(&mut Service);
    let edits: [(&str, Change, &str); 5] = [
        ("port", |service| serve(service, "TCP", 80), "Service shop/web serves port 80/TCP there"),
        ("key", |service| annotate(service, "sharing-key", "l"), "with the sharing key 'k'"),
        ("no key", |service| service.metadata.annotations = None, "Service shop/web has it"),
        (
            "policy",
            |service| service.spec.as_mut().unwrap().external_traffic_policy = Some("Local".into()),
            "another externalTrafficPolicy",
        ),
        (
            "two ports",
            |service| {
                serve(service, "TCP", 443);
                let mut also = service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].clone();
                also.port = 80;
                service.spec.as_mut().unwrap().ports.as_mut().unwrap().push(also);
            },
            "serves port 80/TCP",
        ),
    ];
    for (what, edit, sentence) in edits {
        for asks in [false, true] {
            let mut cluster = lan();
            cluster.create("web", sharer("k", 80));
            cluster.create("tls", |service| {
                sharer("k", 443)(service);
                if asks {
                    service.spec.as_mut().unwrap().load_balancer_ip = Some("10.0.0.50".into());
                }
            });
            cluster.announce_all();
            cluster.quiet();
            assert_eq!(on(&cluster, "10.0.0.50"), ["web", "tls"]);
            let (before, uid_before) = (state(&cluster, "web"), uid(&cluster, "10.0.0.50"));
            cluster.edit("tls", edit);
            let steps = cluster.steps();
            assert_eq!(steps[0], "SetIngress", "{what}: out of the status first: {steps:?}");
            assert_eq!(steps[1..3], ["SetVirtualIpStatus", "UpdateVirtualIp"], "{what}: {steps:?}");
            assert_eq!(on(&cluster, "10.0.0.50"), ["web"], "{what}");
            cluster.quiet();
            assert_eq!((state(&cluster, "web"), uid(&cluster, "10.0.0.50")), (before, uid_before), "{what}");
            assert_eq!(ports(&cluster, "10.0.0.50"), [(80, "web".into())], "{what}");
            let told = cluster.events_of("tls");
            assert!(told.iter().any(|event| event.contains(sentence)), "{what}: {told:?}");
            if asks {
                assert_eq!(cluster.addresses("tls"), [""; 0], "{what}");
                let said = cluster.condition("tls", "Granted");
                assert!(said.starts_with("False/") && said.contains(sentence), "{what}: {said}");
                // What it did is undone: it is back.
                cluster.edit("tls", sharer("k", 443));
                cluster.edit("tls", |service| {
                    service.spec.as_mut().unwrap().external_traffic_policy = None;
                });
                cluster.quiet();
                cluster.assert_has("tls", &["10.0.0.50"]);
            } else {
                cluster.assert_has("tls", &["10.0.0.51"]);
            }
        }
    }
}

#[test]
fn one_that_is_alone_may_change_what_it_likes() {
    let mut cluster = lan();
    cluster.create("web", sharer("k", 80));
    let before = uid(&cluster, "10.0.0.50");
    cluster.edit("web", sharer("l", 443));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.create("old", sharer("k", 80));
    cluster.create("new", sharer("l", 80));
    cluster.assert_has("old", &["10.0.0.51"]);
    cluster.assert_has("new", &["10.0.0.50"]);
    cluster.delete("new");
    cluster.edit("web", |service| service.metadata.annotations = None);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    assert_eq!(uid(&cluster, "10.0.0.50"), before);
    assert!(cluster.vip("10.0.0.50").spec.claims[0].sharing.is_none());
}

#[test]
fn one_that_goes_leaves_the_others_and_the_last_one_frees_the_address() {
    let mut cluster = lan();
    cluster.create("web", sharer("k", 80));
    cluster.create("tls", sharer("k", 443));
    cluster.announce_all();
    cluster.quiet();
    let before = (uid(&cluster, "10.0.0.50"), cluster.vip("10.0.0.50").spec.placement.clone());
    cluster.delete("web");
    assert!(!cluster.api.services.contains_key("shop/web"), "nobody has to withdraw anything for it");
    cluster.assert_has("tls", &["10.0.0.50"]);
    assert_eq!(ports(&cluster, "10.0.0.50"), [(443, "tls".into())]);
    assert_eq!((uid(&cluster, "10.0.0.50"), cluster.vip("10.0.0.50").spec.placement.clone()), before);
    assert_eq!(cluster.vip("10.0.0.50").status.as_ref().unwrap().last_holders[0].name, "web");
    cluster.edit("tls", |service| service.spec.as_mut().unwrap().type_ = Some("ClusterIP".into()));
    cluster.steps();
    assert!(cluster.has_vip("10.0.0.50"), "a node answers still");
    cluster.announce("10.0.0.50", None);
    cluster.quiet();
    assert!(cluster.api.vips.is_empty());
    let history = &cluster.api.pools["lan"].status.as_ref().unwrap().history;
    let mut names: Vec<_> = history.iter().map(|past| past.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["tls", "web"]);
}

#[test]
fn the_keys_of_other_implementations_mean_the_same() {
    for annotation in [
        "metallb.io/allow-shared-ip",
        "metallb.universe.tf/allow-shared-ip",
        "lbipam.cilium.io/sharing-key",
        "io.cilium/lb-ipam-sharing-key",
    ] {
        let mut cluster = lan();
        cluster.create("web", sharer("k", 80));
        cluster.create("tls", |service| {
            serve(service, "TCP", 443);
            annotate_as(service, annotation, "k");
        });
        cluster.assert_has("tls", &["10.0.0.50"]);
        cluster.create("torn", |service| {
            sharer("k", 8080)(service);
            annotate_as(service, annotation, "l");
        });
        cluster.assert_waits("torn", "RequestContradictory");
    }
}

#[test]
fn to_ask_for_the_address_of_those_with_the_same_key_is_to_join_them() {
    let mut cluster = lan();
    cluster.create("web", |service| {
        sharer("k", 80)(service);
        annotate(service, "ips", "10.0.0.55");
    });
    cluster.put("tls", |service| {
        sharer("k", 443)(service);
        annotate(service, "ips", "10.0.0.55");
    });
    cluster.put("any", sharer("k", 8080));
    cluster.put("picky", |service| {
        sharer("k", 8081)(service);
        annotate(service, "pool", "aside");
    });
    cluster.put_pool("aside", json!({"addresses": ["10.0.0.80/31"], "autoAssign": false}));
    cluster.quiet();
    assert_eq!(on(&cluster, "10.0.0.55").len(), 3);
    cluster.assert_has("picky", &["10.0.0.80"]);
    // One that moves to another address by its own wish leaves the others.
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.56"));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.56"]);
    cluster.assert_has("tls", &["10.0.0.55"]);
    // And one that comes to ask for an address of its kin joins there.
    cluster.edit("any", |service| annotate(service, "ips", "10.0.0.56"));
    cluster.quiet();
    cluster.assert_has("any", &["10.0.0.56"]);
    assert_eq!(on(&cluster, "10.0.0.56"), ["web", "any"]);
    assert_eq!(on(&cluster, "10.0.0.55"), ["tls"]);
}

#[test]
fn who_waits_for_an_address_of_its_kin_gets_it_when_a_port_is_free() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/32"]}))]);
    cluster.create("web", sharer("k", 80));
    cluster.create("late", sharer("k", 80));
    cluster.assert_waits("late", "PoolExhausted");
    cluster.edit("web", |service| serve(service, "TCP", 81));
    cluster.quiet();
    cluster.assert_has("late", &["10.0.0.50"]);
    // Or when who has the address comes to offer it.
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/32"]}))]);
    cluster.create("web", |_| {});
    cluster.create("late", sharer("k", 443));
    cluster.assert_waits("late", "PoolExhausted");
    cluster.edit("web", |service| annotate(service, "sharing-key", "k"));
    cluster.quiet();
    cluster.assert_has("late", &["10.0.0.50"]);
    // Or when who is in the way goes.
    cluster.create("third", sharer("k", 443));
    cluster.assert_waits("third", "PoolExhausted");
    cluster.delete("late");
    cluster.assert_has("third", &["10.0.0.50"]);
}

#[test]
fn a_persons_reservation_keeps_others_out_but_throws_nobody_out() {
    let mut cluster = lan();
    cluster.create("web", sharer("k", 80));
    cluster.create("tls", sharer("k", 443));
    let mut vip = cluster.vip("10.0.0.50").clone();
    vip.spec.reservation =
        Some(Reservation { namespace: "shop".into(), name: Some("web".into()), ..Reservation::default() });
    cluster.api.put_vip(vip);
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.assert_has("tls", &["10.0.0.50"]);
    cluster.create("late", |service| {
        sharer("k", 8080)(service);
        annotate(service, "ips", "10.0.0.50");
    });
    cluster.assert_waits("late", "AddressReserved");
    // Its own may come back beside who is there.
    cluster.delete("web");
    cluster.create("web", sharer("k", 80));
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.delete("web");
    cluster.delete("tls");
    assert!(cluster.has_vip("10.0.0.50"), "kept for the one");
    cluster.assert_waits("late", "AddressReserved");
    let mut vip: VirtualIP = cluster.vip("10.0.0.50").clone();
    vip.spec.reservation = None;
    cluster.api.put_vip(vip);
    cluster.quiet();
    cluster.assert_has("late", &["10.0.0.50"]);
}

#[test]
fn a_key_alone_opens_no_pool_that_gives_only_to_who_names_it() {
    let mut cluster = pools(&[("aside", json!({"addresses": ["10.0.0.80-10.0.0.83"], "autoAssign": false}))]);
    cluster.create("web", |service| {
        sharer("k", 80)(service);
        annotate(service, "pool", "aside");
    });
    cluster.assert_has("web", &["10.0.0.80"]);
    cluster.create("tls", sharer("k", 443));
    cluster.assert_waits("tls", "NoPool");
    let said = cluster.condition("tls", "Granted");
    assert!(said.contains("aside gives only to Services that name it"), "{said}");
    // While another is just being given one there, too.
    cluster.put("dns", |service| {
        sharer("l", 53)(service);
        annotate(service, "pool", "aside");
    });
    cluster.put("dot", sharer("l", 853));
    cluster.quiet();
    cluster.assert_has("dns", &["10.0.0.81"]);
    cluster.assert_waits("dot", "NoPool");
    // Who names the pool or the address joins.
    cluster.edit("tls", |service| annotate(service, "pool", "aside"));
    cluster.edit("dot", |service| annotate(service, "ips", "10.0.0.81"));
    cluster.quiet();
    cluster.assert_has("tls", &["10.0.0.80"]);
    cluster.assert_has("dot", &["10.0.0.81"]);
    // And so does everybody once the pool gives to everybody.
    cluster.create("more", sharer("k", 8080));
    cluster.assert_waits("more", "NoPool");
    cluster.edit_pool("aside", json!({"autoAssign": true}));
    cluster.quiet();
    cluster.assert_has("more", &["10.0.0.80"]);
}

#[test]
fn those_of_two_namespaces_come_together_only_where_the_pool_lets_both() {
    let mut cluster = pools(&[
        ("lan", json!({"addresses": ["10.0.0.50-10.0.0.53"]})),
        (
            "open",
            json!({"addresses": ["10.0.0.60-10.0.0.63"], "autoAssign": false, "sharing": {"namespaces": ["shop", "office"]}}),
        ),
    ]);
    cluster.label_namespace("lab", &[]);
    // All at the same moment.
    for (at, namespace) in ["shop", "office", "lab"].into_iter().enumerate() {
        for (pool, port) in [("lan", 80), ("open", 443)] {
            cluster.put(&format!("{namespace}/{pool}"), |service| {
                sharer("k", port + i32::try_from(at).unwrap())(service);
                annotate(service, "pool", pool);
            });
        }
    }
    cluster.quiet();
    let at = |name: &str| cluster.addresses(name).join(",");
    assert_eq!(["shop/open", "office/open"].map(at), [at("shop/open"), at("shop/open")]);
    let mut others = ["shop/lan", "office/lan", "lab/lan", "lab/open", "shop/open"].map(at);
    others.sort();
    assert!(others.windows(2).all(|two| two[0] != two[1]), "{others:?}");
    // One that waits for a partner in the other namespace is woken by it.
    let mut cluster = pools(&[(
        "lan",
        json!({"addresses": ["10.0.0.50/32"], "sharing": {"namespaces": ["shop", "office"]}}),
    )]);
    cluster.create("web", sharer("k", 80));
    cluster.create("office/web", sharer("k", 80));
    cluster.assert_waits("office/web", "PoolExhausted");
    cluster.edit("web", |service| serve(service, "TCP", 81));
    cluster.quiet();
    cluster.assert_has("office/web", &["10.0.0.50"]);
}

#[test]
fn who_could_not_be_there_does_not_wait_for_the_one_that_is_being_given_an_address() {
    let mut cluster = lan();
    cluster.put("web", sharer("k", 80));
    cluster.put("web2", sharer("k", 80));
    cluster.put("tls", sharer("k", 443));
    for kind in 0..crate::api::KINDS {
        while cluster.deliver(0, kind) {}
    }
    for _ in 0..3 {
        cluster.write(0, 0, crate::cluster::Way::Fine);
        cluster.answer(0);
    }
    let wanted: Vec<_> = cluster.controllers[0].wanted.iter().map(crate::api::name_of).collect();
    assert_eq!(wanted, ["CreateVirtualIp", "CreateVirtualIp"], "the third could be beside the first");
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.assert_has("web2", &["10.0.0.51"]);
    cluster.assert_has("tls", &["10.0.0.50"]);
}

#[test]
fn at_most_sixty_four_share_one_address() {
    let mut cluster = lan();
    for number in 0..64 {
        cluster.put(&format!("s{number:02}"), sharer("k", 1000 + number));
    }
    cluster.quiet();
    assert_eq!(cluster.vip("10.0.0.50").spec.claims.len(), 64);
    cluster.create("one-more", sharer("k", 2000));
    cluster.assert_has("one-more", &["10.0.0.51"]);
    cluster.create("asks", |service| {
        sharer("k", 2001)(service);
        annotate(service, "ips", "10.0.0.50");
    });
    cluster.assert_waits("asks", "SharingConflict");
    assert!(cluster.condition("asks", "Granted").contains("64 Services share it already"));
    cluster.delete("s07");
    cluster.assert_has("asks", &["10.0.0.50"]);
    assert_eq!(cluster.vip("10.0.0.50").spec.claims.len(), 64);
}

#[test]
fn no_more_ports_than_a_virtual_ip_can_hold_are_served_at_one_address() {
    let many = |from: i32, count: i32| {
        move |service: &mut Service| {
            annotate(service, "sharing-key", "k");
            let ports = (from..from + count).map(|port| ServicePort { port, ..ServicePort::default() });
            service.spec.as_mut().unwrap().ports = Some(ports.collect());
        }
    };
    let mut cluster = lan();
    cluster.create("a", many(1000, 100));
    cluster.create("b", many(2000, 156));
    cluster.create("c", many(3000, 1));
    cluster.assert_has("b", &["10.0.0.50"]);
    cluster.assert_has("c", &["10.0.0.51"]);
    cluster.edit("a", many(1000, 101));
    cluster.quiet();
    assert_eq!(on(&cluster, "10.0.0.50"), ["b"], "who grows past the bound leaves");
    assert_eq!(cluster.addresses("a").len(), 1);
}

#[test]
fn each_namespace_on_a_shared_address_pays_for_it_once() {
    let mut cluster = pools(&[(
        "lan",
        json!({
            "addresses": ["10.0.0.50-10.0.0.59"], "quota": {"perNamespace": 1},
            "sharing": {"namespaces": ["shop", "office"]},
        }),
    )]);
    cluster.create("web", sharer("k", 80));
    cluster.create("tls", sharer("k", 443));
    cluster.create("office/web", sharer("k", 8080));
    for name in ["web", "tls", "office/web"] {
        cluster.assert_has(name, &["10.0.0.50"]);
    }
    for name in ["more", "office/more"] {
        cluster.create(name, |_| {});
        cluster.assert_waits(name, "QuotaExceeded");
    }
    cluster.delete("web");
    cluster.assert_waits("more", "QuotaExceeded");
    cluster.delete("tls");
    cluster.assert_has("more", &["10.0.0.51"]);
    cluster.assert_waits("office/more", "QuotaExceeded");
}

#[test]
fn who_may_share_again_since_its_namespace_uses_less_is_asked_although_no_address_is_free() {
    let mut cluster = pools(&[(
        "lan",
        json!({
            "addresses": ["10.0.0.50-10.0.0.51"], "quota": {"perNamespace": 1},
            "sharing": {"namespaces": ["shop", "office", "lab"]},
        }),
    )]);
    cluster.label_namespace("lab", &[]);
    cluster.create("lab/web", sharer("k", 80));
    cluster.create("office/b", sharer("l", 80));
    cluster.create("a", sharer("l", 443));
    cluster.create("tls", sharer("k", 443));
    cluster.assert_has("lab/web", &["10.0.0.50"]);
    cluster.assert_has("a", &["10.0.0.51"]);
    assert!(cluster.condition("tls", "Granted").starts_with("False/"));
    assert_eq!(cluster.failures_of("tls"), 1);
    cluster.delete("a");
    cluster.assert_has("tls", &["10.0.0.50"]);
}

#[test]
fn a_hand_written_virtual_ip_with_nobody_on_it_is_no_partner() {
    let mut cluster = lan();
    let reservation = Reservation { namespace: "shop".into(), ..Reservation::default() };
    let spec = VirtualIPSpec {
        address: "10.0.0.50".into(),
        reservation: Some(reservation),
        ..VirtualIPSpec::default()
    };
    cluster.api.put_vip(VirtualIP::new("10.0.0.50", spec));
    cluster.create("web", |service| {
        sharer("k", 80)(service);
        annotate(service, "ips", "10.0.0.50");
    });
    cluster.create("tls", sharer("k", 443));
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.assert_has("tls", &["10.0.0.50"]);
    cluster.create("office/web", |service| {
        sharer("k", 8080)(service);
        annotate(service, "ips", "10.0.0.50");
    });
    assert!(cluster.condition("office/web", "Granted").starts_with("False/SharingConflict"));
}
