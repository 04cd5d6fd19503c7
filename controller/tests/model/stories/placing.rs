//! Which nodes may announce, seen from the VirtualIP.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use landfall_controller::mind::{Change, Event};
use serde_json::json;

use super::{lan, node};
use crate::cluster::Cluster;
use crate::objects::speaker;

fn candidates(cluster: &Cluster, address: &str) -> Vec<String> {
    let placement = cluster.vip(address).spec.placement.clone().unwrap();
    placement.candidates.into_iter().map(|candidate| candidate.node).collect()
}

fn slice(ready_on: &[&str]) -> Event {
    let endpoints: Vec<_> =
        ready_on.iter().map(|node| json!({"addresses": ["10.1.0.1"], "nodeName": node})).collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
    }))
    .unwrap();
    Event::EndpointSlice(Change::Applied(Arc::new(slice)))
}

#[test]
fn with_policy_local_only_nodes_with_an_endpoint_may_announce() {
    let mut cluster = lan();
    cluster.create("web", |service| {
        service.spec.as_mut().unwrap().external_traffic_policy = Some("Local".into());
    });
    assert_eq!(candidates(&cluster, "10.0.0.50"), [""; 0]);
    assert!(
        cluster.condition("web", "Announced").starts_with("False/NoEndpoint: externalTrafficPolicy is Local")
    );
    cluster.tell(slice(&["n2"]));
    assert_eq!(candidates(&cluster, "10.0.0.50"), ["n2"]);
    cluster.tell(slice(&["n2", "n3"]));
    assert_eq!(candidates(&cluster, "10.0.0.50"), ["n2", "n3"]);
    cluster.tell(slice(&["n3"]));
    assert_eq!(candidates(&cluster, "10.0.0.50"), ["n3"]);
}

#[test]
fn endpoints_do_not_matter_with_policy_cluster() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let before = cluster.api.version;
    cluster.tell(slice(&["n2"]));
    assert_eq!(cluster.api.version, before);
}

#[test]
fn new_nodes_join_at_the_end_and_gone_ones_leave() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let before = candidates(&cluster, "10.0.0.50");
    cluster.api.put_speaker(speaker("n4", 4));
    cluster.quiet();
    let joined = [before.clone(), vec!["n4".to_owned()]].concat();
    assert_eq!(candidates(&cluster, "10.0.0.50"), joined);
    cluster.api.delete_speaker(&before[0]);
    cluster.quiet();
    assert_eq!(candidates(&cluster, "10.0.0.50"), joined[1..]);
}

#[test]
fn excluded_nodes_leave_and_cordoned_ones_go_to_the_end() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let before = candidates(&cluster, "10.0.0.50");
    cluster.tell(node(&before[0], json!({}), true));
    let cordoned = [&before[1], &before[2], &before[0]];
    assert_eq!(candidates(&cluster, "10.0.0.50").iter().collect::<Vec<_>>(), cordoned);
    let label = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
    cluster.tell(node(&before[1], label, false));
    assert_eq!(candidates(&cluster, "10.0.0.50"), [before[2].clone(), before[0].clone()]);
}

#[test]
fn a_pool_can_choose_nodes_and_interfaces() {
    let mut cluster = lan();
    cluster.tell(node("n2", json!({"rack": "1"}), false));
    let mut edge = crate::objects::pool("edge", &["13.12.21.31/32"]);
    let announce = json!({"interfaces": ["eth0"], "nodeSelector": {"matchLabels": {"rack": "1"}}});
    edge.spec.announce = serde_json::from_value(announce).unwrap();
    cluster.api.put_pool(edge);
    cluster.create("web", |service| {
        service.spec.as_mut().unwrap().load_balancer_ip = Some("13.12.21.31".into());
    });
    assert_eq!(cluster.addresses("web"), ["13.12.21.31"]);
    assert_eq!(candidates(&cluster, "13.12.21.31"), ["n2"]);
    assert_eq!(cluster.vip("13.12.21.31").spec.announce.as_ref().unwrap().interfaces, ["eth0"]);
}

#[test]
fn without_speakers_the_service_says_so_and_is_placed_when_they_come() {
    let mut cluster = Cluster::new(1);
    cluster.api.put_pool(crate::objects::pool("lan", &["10.0.0.50/31"]));
    cluster.create("web", |_| {});
    assert!(
        cluster
            .condition("web", "Announced")
            .starts_with("False/NoCandidates: no node can announce 10.0.0.50, since no speaker runs")
    );
    let epoch = cluster.vip("10.0.0.50").spec.placement.as_ref().unwrap().epoch;
    cluster.api.put_speaker(speaker("n1", 1));
    cluster.quiet();
    let placement = cluster.vip("10.0.0.50").spec.placement.clone().unwrap();
    assert_eq!((placement.epoch, placement.candidates.len()), (epoch, 1));
}
