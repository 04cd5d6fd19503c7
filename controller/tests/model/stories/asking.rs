//! What can be asked for, and what is said where it cannot be had.

use k8s_openapi::api::core::v1::Service;

use super::{annotate, dual, lan};
use crate::objects::pool;

#[test]
fn requests_are_granted_or_answered() {
    let mut cluster = lan();
    cluster.api.put_pool(pool("aside", &["10.0.0.60/31", "fd00::60/127"]));
    let mut by_name = pool("by-name", &["10.0.0.70/31"]);
    by_name.spec.auto_assign = false;
    cluster.api.put_pool(by_name);
    let mut excluding = pool("excluding", &["10.0.0.80/30"]);
    excluding.spec.exclude = vec!["10.0.0.81/32".into()];
    cluster.api.put_pool(excluding);
    let mut unready = pool("unready", &["10.0.0.90/31"]);
    unready.spec.external_targets = vec!["10.9.0.0/16".into()];
    cluster.api.put_pool(unready);
    cluster.api.put_pool(pool("nodes", &["10.0.0.2/31", "10.0.0.254/31"]));
    cluster.create("first", |service| annotate(service, "ips", "10.0.0.50"));
    cluster.create("outer", |service| {
        service.spec.as_mut().unwrap().external_ips = Some(vec!["10.0.0.60".into()]);
        service.spec.as_mut().unwrap().type_ = Some("NodePort".into());
    });
    let field = |ip: &'static str| {
        move |service: &mut Service| service.spec.as_mut().unwrap().load_balancer_ip = Some(ip.into())
    };
    let ips = |ips: &'static str| move |service: &mut Service| annotate(service, "ips", ips);
    let from = |pools: &'static str| move |service: &mut Service| annotate(service, "pool", pools);
    type Change = Box<dyn Fn(&mut Service)>;
    let table: Vec<(&str, Change, &str)> = vec![
        ("by field", Box::new(field("10.0.0.53")), "10.0.0.53"),
        ("by annotation", Box::new(ips("10.0.0.53")), "10.0.0.53"),
        ("by pool", Box::new(from("by-name")), "10.0.0.70"),
        ("an address needs no autoAssign", Box::new(ips("10.0.0.71")), "10.0.0.71"),
        ("pools in order", Box::new(from("unready,aside,lan")), "10.0.0.61"),
        (
            "taken",
            Box::new(ips("10.0.0.50")),
            "AddressTaken: 10.0.0.50 is asked for, but Service shop/first has it",
        ),
        (
            "external",
            Box::new(ips("10.0.0.60")),
            "AddressTaken: 10.0.0.60 is asked for, but Service shop/outer has it in spec.externalIPs",
        ),
        (
            "outside",
            Box::new(field("13.12.21.31")),
            "AddressNotInPool: 13.12.21.31 is asked for, but no IPPool holds it",
        ),
        (
            "excluded",
            Box::new(ips("10.0.0.81")),
            "AddressNotInPool: 10.0.0.81 is asked for, but pool excluding excludes it",
        ),
        (
            "not in the pool that is asked for",
            Box::new(|service| {
                annotate(service, "ips", "10.0.0.53");
                annotate(service, "pool", "aside");
            }),
            "AddressNotInPool: 10.0.0.53 is asked for, but it lies in pool lan and not in 'aside'",
        ),
        (
            "unknown pool",
            Box::new(from("typo")),
            "PoolUnknown: the Service asks for pool 'typo', which does not exist: existing pools are",
        ),
        ("unknown pool before one that gives", Box::new(from("typo,aside")), "10.0.0.61"),
        ("unknown pool after one that gives", Box::new(from("aside,typo")), "10.0.0.61"),
        (
            "unknown pool beside one that refuses",
            Box::new(from("typo,unready")),
            "PoolNotReady: no IPv4 address can be had: unready grants nothing (it sets spec.externalTargets, which \
             nobody enforces here: install deploy/expose), 'typo' does not exist: see the conditions of the pool",
        ),
        (
            "pool that is not ready",
            Box::new(from("unready")),
            "PoolNotReady: no IPv4 address can be had: unready grants nothing (it sets spec.externalTargets",
        ),
        (
            "address of a pool that is not ready",
            Box::new(ips("10.0.0.90")),
            "PoolNotReady: 10.0.0.90 is asked for, but pool unready grants nothing",
        ),
        (
            "a node's own",
            Box::new(ips("10.0.0.2")),
            "NodeAddress: 10.0.0.2 is asked for, but it is node n2's own",
        ),
        (
            "broadcast",
            Box::new(ips("10.0.0.255")),
            "NodeAddress: 10.0.0.255 is asked for, but it is the network's own or broadcast",
        ),
        (
            "junk",
            Box::new(field("web.example.com")),
            "AddressInvalid: spec.loadBalancerIP says 'web.example.com'",
        ),
        ("wrong family", Box::new(ips("fd00::50")), "FamilyMismatch: landfall.dev/ips asks for fd00::50"),
        (
            "contradiction",
            Box::new(|service| {
                annotate(service, "ips", "10.0.0.53");
                service.spec.as_mut().unwrap().load_balancer_ip = Some("10.0.0.52".into());
            }),
            "RequestContradictory: spec.loadBalancerIP asks for 10.0.0.52 and landfall.dev/ips for 10.0.0.53",
        ),
    ];
    for (what, change, expected) in table {
        cluster.create("web", |service| change(service));
        let had = cluster.addresses("web").join(",");
        let said = cluster.condition("web", "Granted");
        let failures = cluster.told().iter().filter(|reason| **reason == "SyncLoadBalancerFailed").count();
        if expected.starts_with("10.") {
            assert_eq!((had.as_str(), failures), (expected, 0), "{what}: {said}");
        } else {
            assert!(had.is_empty() && said.starts_with(&format!("False/{expected}")), "{what}: {had} {said}");
            assert_eq!(failures, 1, "{what}: told once");
            assert_eq!(cluster.condition("web", "Announced"), "absent", "{what}");
        }
        cluster.api.delete_service("shop/web");
        cluster.quiet();
        cluster.controllers[0].published.clear();
    }
}

#[test]
fn one_address_of_each_family_can_be_asked_for() {
    let mut cluster = lan();
    cluster.create("web", |service| {
        dual(service, "RequireDualStack");
        annotate(service, "ips", "fd00::53, 10.0.0.52");
    });
    assert_eq!(cluster.addresses("web"), ["10.0.0.52", "fd00::53"]);
}

#[test]
fn who_waits_for_an_address_gets_it_when_it_is_free() {
    let mut cluster = lan();
    cluster.create("first", |service| annotate(service, "ips", "10.0.0.50"));
    cluster.create("second", |service| annotate(service, "ips", "10.0.0.50"));
    assert!(cluster.condition("second", "Granted").starts_with("False/AddressTaken"));
    cluster.api.delete_service("shop/first");
    cluster.quiet();
    assert_eq!(cluster.addresses("second"), ["10.0.0.50"]);
}

#[test]
fn the_best_pool_gives_its_lowest_free_address() {
    let mut cluster = lan();
    cluster.pass(std::time::Duration::from_secs(5));
    let mut preferred = pool("preferred", &["10.0.0.52-10.0.0.53", "10.0.0.100/31"]);
    preferred.spec.priority = 10;
    cluster.api.put_pool(preferred);
    cluster.create("web", |_| {});
    assert_eq!(cluster.addresses("web"), ["10.0.0.100"], "the overlapped part belongs to the older pool");
    let said = cluster.pool_condition("preferred", "Conflicted");
    assert!(
        said.starts_with("True/Overlap: it overlaps 10.0.0.52/31 with pool lan (not granted from here)"),
        "{said}"
    );
    assert!(cluster.pool_condition("lan", "Conflicted").contains("with pool preferred (kept here)"));
}

#[test]
fn pools_say_what_is_wrong_with_them() {
    let mut cluster = lan();
    let mut unready = pool("unready", &["10.0.0.90/31"]);
    unready.spec.external_targets = vec!["10.9.0.0/16".into()];
    cluster.api.put_pool(unready);
    cluster.api.put_pool(pool("far", &["13.12.21.0/24"]));
    let mut named = pool("named", &["13.12.22.0/24"]);
    named.spec.announce = serde_json::from_value(serde_json::json!({"interfaces": ["eth*"]})).unwrap();
    cluster.api.put_pool(named);
    cluster.api.put_pool(pool("nodes", &["10.0.0.0/30"]));
    cluster.api.put_pool(pool("empty", &["10.0.9.9-10.0.9.1"]));
    cluster.quiet();
    for (pool, condition, said) in [
        ("lan", "Ready", "True/Granting"),
        ("lan", "Unreachable", "False/Reachable"),
        (
            "unready",
            "Ready",
            "False/NotImplemented: nothing new is granted, since it sets spec.externalTargets",
        ),
        (
            "far",
            "Unreachable",
            "True/NoInterface: no node that may announce has an interface on the subnet of 13.12.21.0/24: name the interfaces to announce them on in spec.announce.interfaces",
        ),
        ("named", "Unreachable", "False/Reachable"),
        (
            "nodes",
            "Conflicted",
            "True/NodeAddresses: never granted, since the cluster's own: 10.0.0.1 (node n1)",
        ),
        ("empty", "Ready", "False/Invalid: the pool holds no address: the first address 10.0.9.9 is after"),
    ] {
        let is = cluster.pool_condition(pool, condition);
        assert!(is.starts_with(said), "{pool}: {is}");
    }
    let counts = cluster.api.pools["nodes"].status.as_ref().unwrap().ipv4.unwrap();
    assert_eq!((counts.total, counts.available), (0, 0), "three nodes and the network's own");
}

#[test]
fn who_has_more_ports_than_one_address_can_serve_is_told_and_costs_nothing() {
    use k8s_openapi::api::core::v1::ServicePort;
    let many = |count: i32| {
        move |service: &mut Service| {
            let ports = (1..=count).map(|port| ServicePort { port, ..ServicePort::default() });
            service.spec.as_mut().unwrap().ports = Some(ports.collect());
        }
    };
    let mut cluster = lan();
    cluster.put("web", many(257));
    assert_eq!(cluster.steps(), ["SetConditions"]);
    cluster.quiet();
    cluster.assert_waits("web", "TooManyPorts");
    let said = cluster.condition("web", "Granted");
    assert!(said.contains("the Service has 257 ports, and at most 256 are served at one address"), "{said}");
    cluster.wait(std::time::Duration::from_secs(3600));
    assert_eq!((cluster.refusals, cluster.failures_of("web")), (0, 1));
    cluster.edit("web", many(256));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.50"]);
    assert_eq!(cluster.vip("10.0.0.50").spec.ports.len(), 256);
    // One that grows keeps what it has, also when its VirtualIP is lost, and the old ports stay on record.
    cluster.edit("web", many(300));
    cluster.quiet();
    let said = cluster.condition("web", "Granted");
    assert!(
        said.starts_with("False/TooManyPorts: ") && said.ends_with("; 10.0.0.50 stays until then"),
        "{said}"
    );
    let before = cluster.vip("10.0.0.50").spec.clone();
    cluster.api.delete_vip("10.0.0.50");
    cluster.quiet();
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    assert_eq!((cluster.vip("10.0.0.50").spec.clone(), cluster.refusals), (before, 0));
    // Among others it is the editor who leaves.
    cluster.edit("web", |service| {
        many(2)(service);
        annotate(service, "sharing-key", "k");
    });
    cluster.create("tls", |service| {
        annotate(service, "sharing-key", "k");
        service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 443;
    });
    cluster.assert_has("tls", &["10.0.0.50"]);
    cluster.edit("web", many(300));
    cluster.quiet();
    cluster.assert_has("tls", &["10.0.0.50"]);
    assert!(cluster.addresses("web").is_empty() && cluster.condition("web", "Granted").contains("300 ports"));
}
