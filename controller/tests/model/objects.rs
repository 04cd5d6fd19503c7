//! Objects as users and speakers write them.

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use landfall_crds::{IPPool, Speaker};
use serde_json::json;

pub fn service(name: &str) -> Service {
    service_in("shop", name)
}

pub fn service_in(namespace: &str, name: &str) -> Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                 "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]},
    }))
    .unwrap()
}

/// A namespace, labelled with its own name as the API server does.
pub fn namespace(name: &str) -> Namespace {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
    }))
    .unwrap()
}

pub fn pool(name: &str, addresses: &[&str]) -> IPPool {
    serde_json::from_value(json!({
        "apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": name},
        "spec": {"addresses": addresses},
    }))
    .unwrap()
}

pub fn speaker(name: &str, number: u8) -> Speaker {
    serde_json::from_value(json!({
        "apiVersion": "landfall.dev/v1alpha1", "kind": "Speaker", "metadata": {"name": name}, "spec": {},
        "status": {"interfaces": [{
            "name": "eth0", "mac": format!("02:00:00:00:00:{number:02x}"), "carrier": "Up",
            "subnets": ["10.0.0.0/24", "fd00::/64"], "addresses": [format!("10.0.0.{number}")],
        }]},
    }))
    .unwrap()
}

/// A Node with the ranges of its pods and addresses of its own.
pub fn node(name: &str, pod_ranges: &[&str], addresses: &[&str]) -> Node {
    let addresses: Vec<_> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"podCIDRs": pod_ranges}, "status": {"addresses": addresses},
    }))
    .unwrap()
}

/// Endpoints of a Service, by their nodes: ready, or ending and still serving.
pub fn endpoint_slice(namespace: &str, service: &str, family: &str, nodes: &[(&str, bool)]) -> EndpointSlice {
    let endpoints: Vec<_> = nodes
        .iter()
        .map(|(node, ready)| {
            let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
            json!({"addresses": ["10.1.0.1"], "nodeName": node, "conditions": conditions})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": namespace, "name": format!("{service}-{}", family.to_lowercase()),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family, "endpoints": endpoints,
    }))
    .unwrap()
}

pub fn service_cidr(name: &str, ranges: &[&str]) -> ServiceCIDR {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"cidrs": ranges}})).unwrap()
}
