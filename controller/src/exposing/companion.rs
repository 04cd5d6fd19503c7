//! The companion of an exposed Service and its EndpointSlices as they should be, and whether they are so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use landfall_crds::ClaimRef;
use landfall_crds::address::Family;
use landfall_crds::names::annotations::RESOLVED_FROM;
use landfall_crds::names::{LOAD_BALANCER_CLASS, MANAGED_BY_US, labels};
use serde_json::{Value, json};

use super::request::{CARRIED, ExposedPort, Request};

/// What follows the name of a Service in that of its companion.
const SUFFIX: &str = "-lan";
/// The longest name of a Service (RFC 1035 label).
const LONGEST: usize = 63;

/// The companion of a Service; nothing if its name would be too long.
pub fn key_of(service: &ClaimRef) -> Option<ClaimRef> {
    let name = format!("{}{SUFFIX}", service.name);
    (name.len() <= LONGEST).then(|| ClaimRef { namespace: service.namespace.clone(), name })
}

/// The Service whose companion this may be, by its name.
pub fn original_of(companion: &ClaimRef) -> Option<ClaimRef> {
    let name = companion.name.strip_suffix(SUFFIX)?.to_owned();
    Some(ClaimRef { namespace: companion.namespace.clone(), name })
}

/// Whether an object is owned by the Service with this uid.
pub fn is_owned_by(metadata: &ObjectMeta, uid: &str) -> bool {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.kind == "Service" && owner.controller == Some(true) && owner.uid == uid)
}

fn owner(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// The companion to create.
pub fn create(original: &Service, key: &ClaimRef, request: &Request) -> Service {
    let ranges = &request.source_ranges;
    Service {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            annotations: Some(request.annotations.clone()).filter(|all| !all.is_empty()),
            owner_references: Some(vec![owner(original)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            load_balancer_class: Some(LOAD_BALANCER_CLASS.to_owned()),
            // Source ranges do not guard node ports everywhere, and nobody needs them here.
            allocate_load_balancer_node_ports: Some(false),
            external_traffic_policy: Some("Cluster".to_owned()),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            load_balancer_source_ranges: (!ranges.is_empty()).then(|| ranges.clone()),
            ports: Some(request.ports.iter().map(service_port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn service_port(port: &ExposedPort) -> ServicePort {
    ServicePort {
        name: Some(port.name()),
        port: port.port.into(),
        protocol: Some(port.protocol.to_owned()),
        target_port: Some(IntOrString::Int(port.target.into())),
        ..ServicePort::default()
    }
}

/// What to merge into the companion so that its spec and our annotations are as they should be; nothing if they are.
/// What others wrote into its metadata stays.
pub fn mend(companion: &Service, request: &Request) -> Option<Value> {
    let spec = companion.spec.clone().unwrap_or_default();
    let mut wrong = serde_json::Map::new();
    let mut hold = |is_right: bool, field: &str, value: Value| {
        if !is_right {
            wrong.insert(field.to_owned(), value);
        }
    };
    hold(spec.type_.as_deref() == Some("LoadBalancer"), "type", json!("LoadBalancer"));
    hold(spec.selector.is_none(), "selector", Value::Null);
    hold(spec.external_ips.is_none(), "externalIPs", Value::Null);
    hold(spec.load_balancer_ip.is_none(), "loadBalancerIP", Value::Null);
    hold(
        spec.external_traffic_policy.as_deref() == Some("Cluster"),
        "externalTrafficPolicy",
        json!("Cluster"),
    );
    hold(
        spec.allocate_load_balancer_node_ports == Some(false),
        "allocateLoadBalancerNodePorts",
        json!(false),
    );
    let ranges = spec.load_balancer_source_ranges.unwrap_or_default();
    hold(ranges == request.source_ranges, "loadBalancerSourceRanges", json!(request.source_ranges));
    let wanted: Vec<ServicePort> = request.ports.iter().map(service_port).collect();
    let known: Vec<ServicePort> = spec.ports.unwrap_or_default().iter().map(without_node_port).collect();
    hold(known == wanted, "ports", json!(wanted));

    let none = BTreeMap::new();
    let known = companion.metadata.annotations.as_ref().unwrap_or(&none);
    let differing = CARRIED.iter().filter(|key| known.get(**key) != request.annotations.get(**key));
    let annotations: serde_json::Map<String, Value> =
        differing.map(|key| ((*key).to_owned(), json!(request.annotations.get(*key)))).collect();
    if wrong.is_empty() && annotations.is_empty() {
        return None;
    }
    let mut patch = json!({});
    if !wrong.is_empty() {
        patch["spec"] = Value::Object(wrong);
    }
    if !annotations.is_empty() {
        patch["metadata"] = json!({"annotations": annotations});
    }
    Some(patch)
}

fn without_node_port(port: &ServicePort) -> ServicePort {
    ServicePort { node_port: None, ..port.clone() }
}

/// The ports of a companion as it stands.
pub fn ports_of(companion: &Service) -> Vec<ExposedPort> {
    let ports = companion.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let read = |port: &ServicePort| {
        let protocol =
            ["TCP", "UDP", "SCTP"].into_iter().find(|known| Some(*known) == port.protocol.as_deref())?;
        let Some(IntOrString::Int(target)) = port.target_port else { return None };
        Some(ExposedPort { port: port.port.try_into().ok()?, protocol, target: target.try_into().ok()? })
    };
    ports.filter_map(read).collect()
}

/// The slice of one family of a companion. `name` is the name that the addresses were resolved from.
pub fn slice(
    companion: &Service,
    family: Family,
    addresses: &[IpAddr],
    ports: &[ExposedPort],
    name: &str,
) -> EndpointSlice {
    let of = companion.metadata.name.clone().unwrap_or_default();
    let (type_, suffix) = match family {
        Family::IPv4 => ("IPv4", "v4"),
        Family::IPv6 => ("IPv6", "v6"),
    };
    let conditions = EndpointConditions { ready: Some(true), ..EndpointConditions::default() };
    let endpoint = |address: &IpAddr| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(conditions.clone()),
        ..Endpoint::default()
    };
    let port = |port: &ExposedPort| EndpointPort {
        name: Some(port.name()),
        port: Some(port.target.into()),
        protocol: Some(port.protocol.to_owned()),
        app_protocol: None,
    };
    let of_family = addresses.iter().filter(|address| Family::of(**address) == family);
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: companion.metadata.namespace.clone(),
            name: Some(format!("{of}-{suffix}")),
            labels: Some(BTreeMap::from([
                (labels::SERVICE_NAME.to_owned(), of),
                (labels::MANAGED_BY.to_owned(), MANAGED_BY_US.to_owned()),
            ])),
            annotations: Some(BTreeMap::from([(RESOLVED_FROM.to_owned(), name.to_owned())])),
            owner_references: Some(vec![owner(companion)]),
            ..ObjectMeta::default()
        },
        address_type: type_.to_owned(),
        endpoints: of_family.map(endpoint).collect(),
        ports: Some(ports.iter().map(port).collect()),
    }
}

/// Whether a slice says what is wanted already.
pub fn is_as_wanted(known: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let annotation = |slice: &EndpointSlice| {
        slice.metadata.annotations.as_ref().and_then(|all| all.get(RESOLVED_FROM)).cloned()
    };
    let label = |slice: &EndpointSlice| {
        slice.metadata.labels.as_ref().and_then(|all| all.get(labels::SERVICE_NAME)).cloned()
    };
    known.address_type == wanted.address_type
        && known.ports.as_deref().unwrap_or_default() == wanted.ports.as_deref().unwrap_or_default()
        && endpoints_of(known) == endpoints_of(wanted)
        && annotation(known) == annotation(wanted)
        && label(known) == label(wanted)
        && known.metadata.owner_references == wanted.metadata.owner_references
}

/// Addresses, and whether they are ready.
fn endpoints_of(slice: &EndpointSlice) -> Vec<(&[String], Option<bool>)> {
    let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
    slice.endpoints.iter().map(|endpoint| (endpoint.addresses.as_slice(), ready(endpoint))).collect()
}

/// Whether a slice is one of ours.
pub fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|all| all.get(labels::MANAGED_BY)).is_some_and(|by| by == MANAGED_BY_US)
}

/// The addresses of a slice.
pub fn addresses_of(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> + '_ {
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|address| address.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::strip;

    fn original() -> Service {
        let metadata = json!({"namespace": "shop", "name": "db", "uid": "u1"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"type": "ExternalName"}})).unwrap()
    }

    fn request() -> Request {
        Request {
            ports: vec![ExposedPort { port: 6543, protocol: "TCP", target: 5432 }],
            source_ranges: vec!["10.0.0.0/8".to_owned()],
            annotations: BTreeMap::from([("landfall.dev/pool".to_owned(), "lan".to_owned())]),
        }
    }

    /// As the API server keeps it and the watch brings it.
    fn kept() -> Service {
        let key = key_of(&ClaimRef { namespace: "shop".into(), name: "db".into() }).unwrap();
        let mut service = create(&original(), &key, &request());
        let spec = service.spec.as_mut().unwrap();
        spec.cluster_ip = Some("10.96.0.7".into());
        spec.session_affinity = Some("None".into());
        strip::service(&mut service);
        service
    }

    #[test]
    fn a_companion_that_nobody_touched_needs_no_mending() {
        let companion = kept();
        assert_eq!(mend(&companion, &request()), None);
        assert!(is_owned_by(&companion.metadata, "u1") && !is_owned_by(&companion.metadata, "u2"));
        assert_eq!(ports_of(&companion), request().ports);
    }

    #[test]
    fn what_others_change_in_its_spec_is_put_back_and_what_they_note_stays() {
        let mut companion = kept();
        let spec = companion.spec.as_mut().unwrap();
        spec.selector = Some(BTreeMap::new());
        spec.external_traffic_policy = Some("Local".into());
        companion.metadata.annotations.as_mut().unwrap().insert("note".into(), "by hand".into());
        let patch = mend(&companion, &request()).unwrap();
        assert_eq!(patch, json!({"spec": {"selector": null, "externalTrafficPolicy": "Cluster"}}));
    }

    #[test]
    fn edits_of_the_original_are_followed() {
        let edited = Request {
            ports: vec![ExposedPort { port: 80, protocol: "TCP", target: 80 }],
            source_ranges: vec![],
            annotations: BTreeMap::from([("landfall.dev/ips".to_owned(), "192.0.2.9".to_owned())]),
        };
        let patch = mend(&kept(), &edited).unwrap();
        assert_eq!(patch["spec"]["loadBalancerSourceRanges"], json!([]));
        assert_eq!(patch["spec"]["ports"][0]["targetPort"], json!(80));
        assert_eq!(
            patch["metadata"]["annotations"],
            json!({"landfall.dev/pool": null, "landfall.dev/ips": "192.0.2.9"})
        );
    }

    #[test]
    fn slices_hold_one_family_each_and_compare_by_what_matters() {
        let addresses: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let of = |family, addresses: &[IpAddr]| {
            slice(&kept(), family, addresses, &request().ports, "db.example.com")
        };
        let v4 = of(Family::IPv4, &addresses);
        assert_eq!(addresses_of(&v4).collect::<Vec<_>>(), addresses[..1]);
        assert_eq!(addresses_of(&of(Family::IPv6, &addresses)).collect::<Vec<_>>(), addresses[1..]);
        let mut known = v4.clone();
        known.metadata.resource_version = Some("7".into());
        strip::endpoint_slice(&mut known);
        assert!(is_ours(&known) && is_as_wanted(&known, &v4), "{known:?}");
        assert!(!is_as_wanted(&known, &of(Family::IPv4, &[])));
    }

    #[test]
    fn a_name_has_room_for_the_suffix_or_there_is_no_companion() {
        let key = |length| ClaimRef { namespace: "shop".into(), name: "a".repeat(length) };
        assert_eq!(key_of(&key(59)).and_then(|companion| original_of(&companion)), Some(key(59)));
        assert_eq!(key_of(&key(60)), None);
    }
}
