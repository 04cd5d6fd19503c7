//! Services on one address when things go wrong around them, or all at once.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use landfall_controller::mind::{Change, Event};
use serde_json::json;

use super::sharing::{lan, on, sharer, uid};
use super::{annotate, dual, pools};
use crate::api::{SERVICES, VIPS};
use crate::cluster::{Cluster, Way};

#[test]
fn two_that_are_created_at_the_same_moment_end_on_one_address() {
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut cluster = lan();
        cluster.put(first, sharer("k", 80));
        cluster.put(second, sharer("k", 443));
        cluster.quiet();
        cluster.assert_has("a", &["10.0.0.50"]);
        cluster.assert_has("b", &["10.0.0.50"]);
    }
    // All at once, in the first list of a controller, and both families.
    let mut cluster = lan();
    for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        cluster.put(name, |service| {
            sharer("k", 80 + i32::try_from(number % 2).unwrap())(service);
            dual(service, "RequireDualStack");
        });
    }
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(cluster.api.vips.len(), 4, "two addresses of each family");
    for (one, other) in [("a", "b"), ("c", "d")] {
        assert_eq!(cluster.addresses(one), cluster.addresses(other));
        assert_eq!(cluster.addresses(one).len(), 2);
    }
}

#[test]
fn two_controllers_without_election_bring_them_together_or_apart_but_never_collide() {
    let mut cluster = Cluster::new(2);
    cluster.api.put_speaker(crate::objects::speaker("n1", 1));
    cluster.put_pool("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"]}));
    cluster.quiet();
    cluster.put("a", sharer("k", 80));
    cluster.put("b", sharer("k", 80));
    cluster.put("c", sharer("k", 443));
    cluster.quiet();
    assert_ne!(cluster.addresses("a"), cluster.addresses("b"));
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.addresses(name).len(), 1, "{name}");
    }
    for vip in cluster.api.vips.values() {
        let mut of_vip: Vec<_> = vip.spec.ports.iter().map(|port| (port.protocol, port.port)).collect();
        of_vip.sort();
        of_vip.dedup();
        assert_eq!(of_vip.len(), vip.spec.ports.len());
    }
}

#[test]
fn a_shared_virtual_ip_that_is_deleted_by_mistake_comes_back_with_everyone_on_it() {
    for finalizer in [true, false] {
        let mut cluster = lan();
        for (name, port) in [("web", 80), ("tls", 443), ("alt", 8080)] {
            cluster.create(name, sharer("k", port));
        }
        let before = cluster.vip("10.0.0.50").clone();
        if !finalizer {
            let mut stripped = before.clone();
            stripped.metadata.finalizers = None;
            cluster.api.put_vip(stripped);
        }
        cluster.api.delete_vip("10.0.0.50");
        cluster.put("new", |_| {});
        cluster.quiet();
        let after = cluster.vip("10.0.0.50");
        assert_ne!(after.metadata.uid, before.metadata.uid);
        assert_eq!(after.spec, before.spec, "in the same order, with the same epoch");
        for name in ["web", "tls", "alt"] {
            cluster.assert_has(name, &["10.0.0.50"]);
            assert_eq!(cluster.events_of(name).len(), 1, "{:?}", cluster.events_of(name));
        }
        cluster.assert_has("new", &["10.0.0.51"]);
    }
}

fn lose_all(cluster: &mut Cluster) {
    for name in cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
        let mut vip = (*cluster.api.vips[&name]).clone();
        vip.metadata.finalizers = None;
        cluster.api.put_vip(vip);
        cluster.api.delete_vip(&name);
    }
}

#[test]
fn all_virtual_ips_lost_at_once_come_back_as_they_were() {
    for restart in [false, true] {
        let mut cluster = lan();
        cluster.create("web", sharer("k", 80));
        cluster.create("tls", sharer("k", 443));
        cluster.create("alone", |_| {});
        cluster.create("pair1", sharer("l", 80));
        cluster.create("pair2", sharer("l", 443));
        lose_all(&mut cluster);
        if restart {
            cluster.crash(0);
        }
        cluster.put("new", |_| {});
        cluster.quiet();
        for (name, address) in [
            ("web", "10.0.0.50"),
            ("tls", "10.0.0.50"),
            ("alone", "10.0.0.51"),
            ("pair1", "10.0.0.52"),
            ("pair2", "10.0.0.52"),
        ] {
            assert_eq!(cluster.addresses(name), [address], "{name}, restart {restart}");
            cluster.assert_has(name, &[address]);
        }
        assert_eq!(on(&cluster, "10.0.0.50").len(), 2);
        cluster.assert_has("new", &["10.0.0.53"]);
    }
}

#[test]
fn of_two_that_are_edited_at_once_only_one_leaves_and_none_where_they_still_fit() {
    let serves = |port: i32| {
        move |service: &mut Service| service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = port
    };
    type Change<'a> = &'a dyn Fn(&mut Service);
    let local = |service: &mut Service| {
        let spec = service.spec.as_mut().unwrap();
        spec.external_traffic_policy = Some("Local".into());
        spec.selector = Some([("app".to_owned(), "web".to_owned())].into());
    };
    let to = |key: &'static str| move |service: &mut Service| annotate(service, "sharing-key", key);
    let table: [(&str, Change<'_>, Change<'_>, &[&str]); 6] = [
        ("to the same port", &serves(9), &serves(9), &["a", "c"]),
        ("to each other's port", &serves(443), &serves(80), &["a", "c"]),
        ("to a port that the other gives up", &serves(443), &serves(8443), &["a", "b", "c"]),
        ("to ports that nobody has", &serves(81), &serves(8443), &["a", "b", "c"]),
        ("to another key, away from the third", &to("l"), &to("l"), &["c"]),
        ("to another policy, away from the third", &local, &local, &["c"]),
    ];
    for (what, of_a, of_b, stay) in table {
        let mut cluster = lan();
        cluster.create("a", sharer("k", 80));
        cluster.pass(Duration::from_secs(10));
        cluster.create("b", sharer("k", 443));
        cluster.create("c", sharer("k", 8080));
        let before = uid(&cluster, "10.0.0.50");
        cluster.edit("b", of_b);
        cluster.edit("a", of_a);
        // Nobody has looked between the two.
        cluster.crash(0);
        cluster.quiet();
        assert_eq!(on(&cluster, "10.0.0.50"), stay, "{what}");
        assert_eq!(uid(&cluster, "10.0.0.50"), before);
        for name in ["a", "b", "c"] {
            assert_eq!(cluster.addresses(name).len(), 1, "{what}: {name}");
            assert_eq!(cluster.addresses(name) == ["10.0.0.50"], stay.contains(&name), "{what}: {name}");
        }
    }
    // All of them to another key or policy: nobody is left to collide with.
    for change in [&to("l") as Change<'_>, &local] {
        let mut cluster = lan();
        for (name, port) in [("a", 80), ("b", 443), ("c", 8080)] {
            cluster.create(name, sharer("k", port));
        }
        for name in ["c", "a", "b"] {
            cluster.edit(name, change);
        }
        cluster.crash(0);
        cluster.quiet();
        for name in ["a", "b", "c"] {
            cluster.assert_has(name, &["10.0.0.50"]);
        }
    }
}

#[test]
fn a_restart_in_the_middle_changes_nothing_of_how_it_ends() {
    for steps in 0..10 {
        let mut cluster = lan();
        cluster.put("web", sharer("k", 80));
        cluster.put("tls", sharer("k", 443));
        while cluster.deliver(0, SERVICES) {}
        for _ in 0..steps {
            cluster.write(0, 0, Way::Fine);
            cluster.answer(0);
        }
        cluster.crash(0);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.assert_has("tls", &["10.0.0.50"]);

        cluster.edit("tls", |service| annotate(service, "sharing-key", "l"));
        while cluster.deliver(0, SERVICES) {}
        for _ in 0..steps {
            cluster.write(0, 0, Way::Fine);
            cluster.answer(0);
        }
        cluster.crash(0);
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.assert_has("tls", &["10.0.0.51"]);
        assert_eq!(on(&cluster, "10.0.0.50"), ["web"], "after {steps} steps");
    }
}

#[test]
fn a_service_that_is_gone_with_its_finalizers_leaves_its_neighbours_alone() {
    let mut cluster = lan();
    cluster.create("web", sharer("k", 80));
    cluster.create("tls", sharer("k", 443));
    let before = uid(&cluster, "10.0.0.50");
    let mut stripped = cluster.get("web").clone();
    stripped.metadata.finalizers = None;
    cluster.api.put_service(stripped);
    cluster.api.delete_service("shop/web");
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(on(&cluster, "10.0.0.50"), ["tls"]);
    assert_eq!(uid(&cluster, "10.0.0.50"), before);
    cluster.assert_has("tls", &["10.0.0.50"]);
}

#[test]
fn whose_virtual_ip_another_controller_has_filled_meanwhile_finds_another_place() {
    let mut cluster = lan();
    cluster.create("web", sharer("k", 80));
    cluster.put("tls", sharer("k", 443));
    cluster.deliver(0, SERVICES);
    cluster.write(0, 0, Way::Fine);
    cluster.answer(0);
    // Somebody else serves port 443 there now, and this controller does not know it yet.
    let mut filled = cluster.vip("10.0.0.50").clone();
    let mut claim = filled.spec.claims[0].clone();
    claim.name = "twin".into();
    claim.uid = "uid-of-twin".into();
    let mut port = filled.spec.ports[0].clone();
    port.port = 443;
    port.claim.name = "twin".into();
    filled.spec.claims.push(claim);
    filled.spec.ports.push(port);
    cluster.put("twin", sharer("k", 443));
    cluster.api.put_vip(filled);
    let (_, done) = cluster.write(0, 0, Way::Fine).unwrap();
    assert!(!done, "the API server knows better");
    cluster.answer(0);
    cluster.quiet();
    cluster.assert_has("twin", &["10.0.0.50"]);
    cluster.assert_has("tls", &["10.0.0.51"]);
    assert_eq!(on(&cluster, "10.0.0.50"), ["web", "twin"]);
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    let mut cluster = lan();
    cluster.create("web", sharer("k", 80));
    cluster.create("tls", sharer("k", 443));
    cluster.wait(Duration::from_secs(60));
    let before = cluster.api.version;
    cluster.crash(0);
    cluster.quiet();
    for kind in [SERVICES, VIPS] {
        cluster.relist(0, kind);
        cluster.quiet();
    }
    cluster.tell(Event::Node(Change::Listed(Vec::new())));
    assert_eq!(cluster.api.version, before);
}

#[test]
fn one_that_is_edited_back_on_its_way_out_does_not_stay_with_whom_it_collides() {
    for steps in 0..12 {
        let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50/31"]}))]);
        for (name, port) in [("web", 80), ("tls", 443)] {
            cluster.create(name, |service| {
                annotate(service, "sharing-key", "k");
                service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = port;
            });
        }
        assert_eq!(cluster.addresses("web"), cluster.addresses("tls"));
        // Both are edited, so that the younger is told to leave.
        cluster.edit("web", |service| service.metadata.annotations = None);
        cluster.edit("tls", |service| annotate(service, "sharing-key", "l"));
        while cluster.deliver(0, crate::api::SERVICES) {}
        for _ in 0..steps {
            cluster.write(0, 0, Way::Fine);
            cluster.answer(0);
        }
        cluster.edit("tls", |service| annotate(service, "sharing-key", "k"));
        cluster.quiet();
        let (web, tls) = (cluster.addresses("web"), cluster.addresses("tls"));
        assert!(web.len() == 1 && tls.len() == 1 && web != tls, "after {steps} steps: {web:?}, {tls:?}");
        for address in [&web[0], &tls[0]] {
            assert_eq!(cluster.vip(address).spec.claims.len(), 1, "after {steps} steps");
        }
    }
}
