//! The objects of a large cluster, as the watches bring them.

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use landfall_crds::{IPPool, Speaker};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use landfall_crds::address::Family;

/// Namespaces, over which the Services are spread.
const NAMESPACES: usize = 200;
/// Of every ten pools, this many give to everybody and the others to those who name them.
const AUTOMATIC_OF_TEN: usize = 4;

/// Everything but Services.
pub(crate) struct Cluster {
    pub(crate) pools: Vec<IPPool>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) speakers: Vec<Speaker>,
    pub(crate) namespaces: Vec<Namespace>,
}

/// The families of a Service.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Single(Family),
    Dual,
}

/// Many pools of both families, most of them each for the namespaces of one group.
pub(crate) fn of_many_pools(pools: usize, nodes: usize) -> Cluster {
    let automatic = automatic(pools);
    let of_all = (0..automatic).map(|number| {
        let addresses = json!([block("10.0.0.0", number, 2048), format!("fd00:0:0:{number:x}::/64")]);
        pool(&format!("all-{number}"), json!({"addresses": addresses}))
    });
    let of_groups = (0..pools - automatic).map(|number| {
        let addresses = json!([block("10.64.0.0", number, 1024), format!("fd00:0:1:{number:x}::/64")]);
        let spec = json!({
            "addresses": addresses, "autoAssign": false, "quota": {"perNamespace": 1000},
            "namespaceSelector": {"matchLabels": {"group": number.to_string()}},
        });
        pool(&group_pool(number), spec)
    });
    Cluster { pools: of_all.chain(of_groups).collect(), ..of_nodes(pools, nodes) }
}

/// One pool for all.
pub(crate) fn of_one_pool(addresses: &str, nodes: usize) -> Cluster {
    Cluster { pools: vec![pool("lan", json!({"addresses": [addresses]}))], ..of_nodes(1, nodes) }
}

/// The Service of this number among those that use many pools: of twenty, twelve take what there is in IPv4,
/// five name a pool, two take both families, and one names a pool for both.
pub(crate) fn service_of(number: usize, pools: usize) -> Service {
    let group = (number / 20) % NAMESPACES % (pools - automatic(pools));
    let named = group_pool(group);
    match number % 20 {
        0..=11 => service(number, Kind::Single(Family::IPv4), None),
        12..=16 => service(number, Kind::Single(Family::IPv4), Some(&named)),
        17 | 18 => service(number, Kind::Dual, None),
        _ => service(number, Kind::Dual, Some(&named)),
    }
}

/// A Service with what is kept of one.
pub(crate) fn service(number: usize, kind: Kind, pool: Option<&str>) -> Service {
    let name = format!("web-{number}");
    let (families, policy) = match kind {
        Kind::Single(family) => (vec![family.to_string()], "SingleStack"),
        Kind::Dual => (vec!["IPv4".to_owned(), "IPv6".to_owned()], "RequireDualStack"),
    };
    let port = |name: &str, port: usize| {
        json!({"name": name, "protocol": "TCP", "port": port, "targetPort": 8000 + port,
               "nodePort": 30_000 + number % 2000})
    };
    let mut service = object(json!({
        "metadata": {
            "namespace": namespace_name(number / 20), "name": name,
            "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop"},
        },
        "spec": {
            "type": "LoadBalancer", "ipFamilies": families, "ipFamilyPolicy": policy,
            "clusterIP": "172.16.0.9", "clusterIPs": ["172.16.0.9"], "sessionAffinity": "None",
            "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true, "ports": [port("http", 80), port("https", 443)],
        },
    }));
    set_pool(&mut service, pool);
    service
}

/// Limits who may connect to a Service.
pub(crate) fn limit(service: &mut Service) {
    let ranges = ["192.0.2.0/24", "198.51.100.0/24", "fd00::/16"].map(str::to_owned);
    service.spec.get_or_insert_default().load_balancer_source_ranges = Some(ranges.into());
}

fn set_pool(service: &mut Service, pool: Option<&str>) {
    let pool = pool.map(|pool| ("landfall.dev/pool".to_owned(), pool.to_owned()));
    service.metadata.annotations = pool.map(|pool| [pool].into());
}

fn automatic(pools: usize) -> usize {
    pools * AUTOMATIC_OF_TEN / 10
}

fn group_pool(number: usize) -> String {
    format!("group-{number}")
}

fn namespace_name(number: usize) -> String {
    format!("team-{}", number % NAMESPACES)
}

/// Nodes with a link for all addresses, and namespaces in as many groups as there are pools for some.
fn of_nodes(pools: usize, nodes: usize) -> Cluster {
    let groups = pools - automatic(pools);
    let namespace = |number: usize| {
        let (name, group) = (namespace_name(number), (number % groups).to_string());
        object(json!({"metadata": {
            "name": name, "uid": format!("uid-of-{name}"),
            "labels": {"kubernetes.io/metadata.name": name, "group": group},
        }}))
    };
    Cluster {
        pools: Vec::new(),
        nodes: (1..=nodes).map(node).collect(),
        speakers: (1..=nodes).map(|number| speaker(number, nodes)).collect(),
        namespaces: (0..NAMESPACES).map(namespace).collect(),
    }
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

fn node(number: usize) -> Node {
    object(json!({
        "metadata": {"name": node_name(number), "labels": {"kubernetes.io/hostname": node_name(number)}},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("10.255.0.{number}")}]},
    }))
}

fn speaker(number: usize, nodes: usize) -> Speaker {
    let others = (1..=nodes).filter(|other| *other != number);
    let peers: Vec<Value> = others
        .map(|other| json!({"node": node_name(other), "interface": "eth0", "state": "Alive", "since": "2026-01-01T00:00:00Z"}))
        .collect();
    object(json!({
        "apiVersion": "landfall.dev/v1alpha1", "kind": "Speaker", "metadata": {"name": node_name(number)},
        "spec": {},
        "status": {"peers": peers, "gateways": ["10.255.0.254"], "interfaces": [{
            "name": "eth0", "mac": "02:00:00:00:00:01", "carrier": "Up",
            "subnets": ["10.0.0.0/8", "fd00::/32"], "addresses": [format!("10.255.0.{number}")],
        }]},
    }))
}

fn pool(name: &str, spec: Value) -> IPPool {
    object(json!({
        "apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool",
        "metadata": {"name": name, "generation": 1}, "spec": spec,
    }))
}

/// The block of this number and size from an address on, as a range.
fn block(from: &str, number: usize, size: u32) -> String {
    let from: Ipv4Addr = from.parse().expect("an address");
    let first = from.to_bits() + u32::try_from(number).expect("a small number") * size;
    let (first, last) = (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(first + size - 1));
    format!("{}-{}", IpAddr::from(first), IpAddr::from(last))
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}
