//! What a Service's claim looks like in the spec of a VirtualIP.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::{
    Announce, Claim, ClaimRef, Fallback, IPPool, Placement, Port, Protocol, TrafficPolicy, VirtualIPSpec,
};

use super::ServiceKey;

/// The claim of a Service.
pub fn claim(service: &Service, key: &ServiceKey) -> Claim {
    let spec = service.spec.as_ref();
    Claim {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        health_check_node_port: spec.and_then(|spec| spec.health_check_node_port).filter(|port| *port > 0),
        traffic_policy: traffic_policy(service),
        ..Claim::default()
    }
}

/// `spec.externalTrafficPolicy`.
pub fn traffic_policy(service: &Service) -> TrafficPolicy {
    match service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()) {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

/// The ports of a Service.
pub fn ports(service: &Service, key: &ServiceKey) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    ports
        .iter()
        .map(|port| Port {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            port: port.port,
            claim: key.clone(),
            node_port: port.node_port.filter(|port| *port > 0),
        })
        .collect()
}

/// Where a pool wants its addresses announced.
pub fn announce(pool: &IPPool) -> Option<Announce> {
    let interfaces = pool.spec.announce.as_ref().map(|announce| announce.interfaces.clone())?;
    (!interfaces.is_empty()).then_some(Announce { interfaces, fallback: Fallback::None })
}

/// The spec of a VirtualIP with the Service's claim as it is now; other claims stay.
pub fn with_claim(
    current: Option<&VirtualIPSpec>,
    address: IpAddr,
    service: &Service,
    key: &ServiceKey,
    placement: Placement,
) -> VirtualIPSpec {
    let mut spec = current.cloned().unwrap_or_default();
    spec.address = address.to_string();
    let claim = claim(service, key);
    match spec.claims.iter_mut().find(|known| known.namespace == key.namespace && known.name == key.name) {
        Some(known) => *known = claim,
        None => spec.claims.push(claim),
    }
    spec.ports.retain(|port| port.claim != *key);
    spec.ports.extend(ports(service, key));
    spec.placement = Some(placement);
    spec
}

/// The spec of a VirtualIP without the Service's claim. Placement stays, for its epoch.
pub fn without_claim(current: &VirtualIPSpec, key: &ClaimRef) -> VirtualIPSpec {
    let mut spec = current.clone();
    spec.claims.retain(|claim| claim.namespace != key.namespace || claim.name != key.name);
    spec.ports.retain(|port| port.claim != *key);
    spec
}
