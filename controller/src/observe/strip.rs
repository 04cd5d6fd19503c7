//! What is kept of an object: only what some decision reads, so that a large cluster fits in a small
//! memory. What is stripped here is never written back; writes are patches.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, NodeSpec, NodeStatus, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use landfall_crds::names::annotations::{self, foreign, internal};
use landfall_crds::names::labels;

use crate::granting::request::has_sharing_key;

/// Longer values of annotations are cut: nothing that they may say is as long, and a tenant who writes a quarter of
/// a megabyte into each of his Services would otherwise fill the controller's memory.
const LONGEST_VALUE: usize = 4 * 1024;

/// So too where source ranges stand, of which there may be a thousand.
const LONGEST_RANGES: usize = 64 * 1024;

/// Stands where a value was cut, so that whoever reads it sees no valid end: it is neither part of an address, nor
/// of a name, nor of a range.
const CUT: char = '\u{2026}';

/// Strips what nobody reads of any object: who wrote which field when, and what kubectl remembers.
pub(crate) fn metadata<K: Resource>(object: &mut K) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    keep_annotations(metadata, |key| !key.starts_with("kubectl.kubernetes.io/"));
}

/// Of a Service that is no load balancer only what tells that it was one, or is to be a load balancer no
/// more, and the external addresses that nobody else may have; of one that is, all but what other tools
/// note on it and what pods are behind it, which counts only where it offers to share its address.
pub(crate) fn service(service: &mut Service) {
    metadata(service);
    keep_annotations(&mut service.metadata, is_read_of_services);
    for (key, value) in service.metadata.annotations.iter_mut().flatten() {
        cut(value, if key == annotations::SOURCE_RANGES { LONGEST_RANGES } else { LONGEST_VALUE });
    }
    let shares = has_sharing_key(service);
    let Some(spec) = &mut service.spec else { return };
    match spec.type_.as_deref() {
        Some("LoadBalancer") => {
            spec.selector.take_if(|_| !shares);
        }
        Some("ExternalName") => {
            *spec = ServiceSpec {
                type_: spec.type_.take(),
                external_name: spec.external_name.take(),
                ..ServiceSpec::default()
            };
        }
        _ => {
            service.metadata.labels = None;
            *spec = ServiceSpec {
                type_: spec.type_.take(),
                external_ips: spec.external_ips.take(),
                ..ServiceSpec::default()
            };
        }
    }
}

/// Whether some decision reads this annotation of a Service.
fn is_read_of_services(key: &str) -> bool {
    let read = [&annotations::ALL[..], &foreign::IPS, &foreign::POOL, &foreign::SHARING_KEY, &internal::ALL];
    read.iter().any(|keys| keys.contains(&key))
}

/// Cuts a value that is too long to mean anything.
fn cut(value: &mut String, longest: usize) {
    if value.len() <= longest {
        return;
    }
    let end = (0..=longest).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    value.truncate(end);
    value.push(CUT);
    value.shrink_to_fit();
}

/// Of a Namespace its name, uid and labels.
pub(super) fn namespace(namespace: &mut Namespace) {
    metadata(namespace);
    namespace.metadata.annotations = None;
    namespace.metadata.finalizers = None;
    namespace.spec = None;
    namespace.status = None;
}

/// Of a Node its name and labels, whether it is cordoned or tainted, its addresses, the ranges of its
/// pods, and how it is (not since when, or since when that is known).
pub(super) fn node(node: &mut Node) {
    metadata(node);
    node.metadata.annotations = None;
    if let Some(spec) = node.spec.take() {
        node.spec = Some(NodeSpec {
            pod_cidr: spec.pod_cidr,
            pod_cidrs: spec.pod_cidrs,
            provider_id: spec.provider_id,
            taints: spec.taints,
            unschedulable: spec.unschedulable,
            ..NodeSpec::default()
        });
    }
    if let Some(status) = node.status.take() {
        let mut conditions = status.conditions;
        for condition in conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
            condition.message = None;
            condition.reason = None;
        }
        node.status = Some(NodeStatus { addresses: status.addresses, conditions, ..NodeStatus::default() });
    }
}

/// Of an EndpointSlice which Service it is for, and on which nodes it has endpoints in which states; not
/// their addresses, of which there may be thousands.
pub(super) fn endpoint_slice(slice: &mut EndpointSlice) {
    metadata(slice);
    slice.metadata.annotations = None;
    if let Some(all) = &mut slice.metadata.labels {
        all.retain(|key, _| key == labels::SERVICE_NAME);
    }
    slice.metadata.owner_references = None;
    slice.ports = None;
    for endpoint in &mut slice.endpoints {
        endpoint.addresses = Vec::new();
        endpoint.deprecated_topology = None;
        endpoint.hints = None;
        endpoint.hostname = None;
        endpoint.target_ref = None;
        endpoint.zone = None;
    }
    let mut kept = Vec::new();
    for endpoint in std::mem::take(&mut slice.endpoints) {
        if !kept.contains(&endpoint) {
            kept.push(endpoint);
        }
    }
    kept.shrink_to_fit();
    slice.endpoints = kept;
}

fn keep_annotations(metadata: &mut ObjectMeta, keep: impl Fn(&str) -> bool) {
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| keep(key));
    }
    metadata.annotations.take_if(|annotations| BTreeMap::is_empty(annotations));
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn stripped<K: DeserializeOwned + serde::Serialize>(object: Value, strip: fn(&mut K)) -> Value {
        let mut object = serde_json::from_value(object).unwrap();
        strip(&mut object);
        let mut rest = serde_json::to_value(object).unwrap();
        for field in ["apiVersion", "kind"] {
            rest.as_object_mut().unwrap().remove(field);
        }
        rest
    }

    #[test]
    fn a_load_balancer_keeps_all_that_a_grant_depends_on() {
        let spec = json!({ "type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": [{ "port": 80, "nodePort": 30080 }],
            "loadBalancerIP": "192.0.2.1", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30081 });
        let mut given = spec.clone();
        given["selector"] = json!({ "app": "web" });
        let rest = stripped(
            json!({ "metadata": { "name": "web", "uid": "u", "resourceVersion": "7", "finalizers": ["x/y"],
                "labels": { "team": "a" },
                "managedFields": [{ "manager": "kubectl" }],
                "annotations": { "landfall.dev/ips": "192.0.2.1", "service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}", "argocd.argoproj.io/tracking-id": "t" } },
                "spec": given, "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } }),
            service,
        );
        assert_eq!(rest["spec"], spec);
        assert_eq!(rest["status"], json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } }));
        assert_eq!(
            rest["metadata"],
            json!({ "name": "web", "uid": "u", "resourceVersion": "7", "finalizers": ["x/y"], "labels": { "team": "a" },
                "annotations": { "landfall.dev/ips": "192.0.2.1", "service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8" } })
        );
    }

    #[test]
    fn a_service_keeps_the_annotations_that_some_decision_reads() {
        let read =
            [&annotations::ALL[..], &foreign::IPS, &foreign::POOL, &foreign::SHARING_KEY, &internal::ALL]
                .concat();
        let others = [
            "metallb.io/ip-allocated-from-pool",
            "metallb.universe.tf/ip-allocated-from-pool",
            "lbipam.cilium.io/sharing-cross-namespace",
            "kube-vip.io/vipHost",
            "networking.gke.io/internal-load-balancer-subnet",
            "cloud.google.com/neg",
            "landfall.dev/x",
            "service.beta.kubernetes.io/aws-load-balancer-attributes",
            "kubectl.kubernetes.io/last-applied-configuration",
        ];
        for type_ in ["LoadBalancer", "NodePort", "ClusterIP", "ExternalName"] {
            let all: BTreeMap<&str, &str> = read.iter().chain(&others).map(|key| (*key, "x")).collect();
            let rest =
                stripped(json!({ "metadata": { "annotations": all }, "spec": { "type": type_ } }), service);
            let expected: BTreeMap<&str, &str> = read.iter().map(|key| (*key, "x")).collect();
            assert_eq!(rest["metadata"]["annotations"], json!(expected), "{type_}");
        }
    }

    #[test]
    fn a_value_that_is_too_long_is_cut_and_says_nothing_valid_any_more() {
        let cases = [
            (annotations::IPS, "192.0.2.1,", LONGEST_VALUE),
            (annotations::POOL, "\u{fc}", LONGEST_VALUE),
            (annotations::SOURCE_RANGES, "192.0.2.0/24,", LONGEST_RANGES),
        ];
        for (key, piece, longest) in cases {
            let long = piece.repeat(256 * 1024 / piece.len());
            let rest = stripped(json!({ "metadata": { "annotations": { key: long } }, "spec": {} }), service);
            let kept = rest["metadata"]["annotations"][key].as_str().unwrap();
            assert!(kept.len() <= longest + CUT.len_utf8() && kept.ends_with(CUT), "{key}");
            let rest =
                stripped(json!({ "metadata": { "annotations": { key: piece } }, "spec": {} }), service);
            assert_eq!(rest["metadata"]["annotations"][key], piece);
        }
    }

    #[test]
    fn the_selector_is_kept_only_of_a_load_balancer_that_offers_to_share() {
        let ours = landfall_crds::names::annotations::SHARING_KEY;
        let keys: Vec<&str> = [ours].into_iter().chain(foreign::SHARING_KEY).collect();
        for type_ in ["LoadBalancer", "NodePort", "ClusterIP", "ExternalName"] {
            let selector = |annotations: Value| {
                let spec = json!({ "type": type_, "selector": { "app": "web" } });
                let rest =
                    stripped(json!({ "metadata": { "annotations": annotations }, "spec": spec }), service);
                rest["spec"].get("selector").cloned()
            };
            for key in &keys {
                let kept = (type_ == "LoadBalancer").then(|| json!({ "app": "web" }));
                assert_eq!(selector(json!({ *key: "k" })), kept, "{type_} {key}");
                assert_eq!(selector(json!({ *key: " " })), None, "{type_} {key}");
            }
            assert_eq!(selector(json!({ "landfall.dev/pool": "a" })), None, "{type_}");
        }
    }

    #[test]
    fn external_addresses_are_kept_of_every_type_that_has_them() {
        for (type_, kept) in
            [("LoadBalancer", true), ("NodePort", true), ("ClusterIP", true), ("ExternalName", false)]
        {
            let rest = stripped(
                json!({ "metadata": {}, "spec": { "type": type_, "externalIPs": ["192.0.2.9"] } }),
                service,
            );
            let expected = kept.then(|| json!(["192.0.2.9"]));
            assert_eq!(rest["spec"].get("externalIPs"), expected.as_ref(), "{type_}");
        }
    }

    #[test]
    fn a_service_that_is_no_load_balancer_keeps_what_a_release_depends_on() {
        let rest = stripped(
            json!({ "metadata": { "name": "web", "uid": "u", "resourceVersion": "7", "finalizers": ["landfall.dev/address"], "labels": { "a": "b" } },
                "spec": { "type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{ "port": 80 }], "selector": { "app": "web" } },
                "status": { "loadBalancer": {}, "conditions": [] } }),
            service,
        );
        assert_eq!(rest["spec"], json!({ "type": "ClusterIP" }));
        assert_eq!(
            rest["metadata"],
            json!({ "name": "web", "uid": "u", "resourceVersion": "7", "finalizers": ["landfall.dev/address"] })
        );
        assert!(rest.get("status").is_some());
    }

    #[test]
    fn a_node_loses_its_images_and_its_heartbeats() {
        let rest = stripped(
            json!({ "metadata": { "name": "n1", "labels": { "zone": "a" }, "annotations": { "csi": "long" } },
                "spec": { "unschedulable": true, "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"] },
                "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.7" }], "images": [{ "names": ["x"] }],
                    "nodeInfo": null, "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "m",
                        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } }),
            node,
        );
        assert_eq!(
            rest,
            json!({ "metadata": { "name": "n1", "labels": { "zone": "a" } },
                "spec": { "unschedulable": true, "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"] },
                "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.7" }], "conditions": [{ "type": "Ready", "status": "True" }] } })
        );
    }

    #[test]
    fn a_thousand_endpoints_on_two_nodes_become_two() {
        let endpoints: Vec<_> = (0..1000)
            .map(|number| {
                json!({ "addresses": [format!("10.1.{}.{}", number / 250, number % 250)], "nodeName": if number % 2 == 0 { "n1" } else { "n2" },
                    "conditions": { "ready": true }, "targetRef": { "kind": "Pod", "name": format!("web-{number}") } })
            })
            .collect();
        let rest = stripped(
            json!({ "addressType": "IPv4", "endpoints": endpoints,
                "metadata": { "name": "web-x", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web", "app": "web" } } }),
            endpoint_slice,
        );
        assert_eq!(
            rest["endpoints"],
            json!([{ "addresses": [], "conditions": { "ready": true }, "nodeName": "n1" }, { "addresses": [], "conditions": { "ready": true }, "nodeName": "n2" }])
        );
        assert_eq!(
            rest["metadata"],
            json!({ "name": "web-x", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } })
        );
    }
}
