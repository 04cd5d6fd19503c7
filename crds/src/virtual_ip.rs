//! VirtualIP: one address in use, what is behind it, and which nodes may announce it.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// One address in use, reserved, or lately released.
///
/// It is named by the address, so that the API server itself refuses a second grant of it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "VirtualIP",
    plural = "virtualips",
    shortname = "vip",
    category = "landfall",
    status = "VirtualIPStatus",
    derive = "PartialEq",
    selectable = ".spec.pool",
    doc = "VirtualIP is one address in use, reserved, or lately released; it is named by the address. The controller writes it; only spec.reservation is for people.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.claims[0].namespace"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.claims[*].name"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.announcer.node"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.announcer.since"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Interface", type_ = "string", json_path = ".status.announcer.interface", priority = 1),
    printcolumn(name = "MAC", type_ = "string", json_path = ".status.announcer.mac", priority = 1),
    printcolumn(name = "Candidates", type_ = "string", json_path = ".spec.placement.candidates[*].node", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(
        "!isIP(self.spec.address) || (ip(self.spec.address).family() == 4 \
         ? self.metadata.name == self.spec.address \
         : self.metadata.name.matches('^[0-9a-f]{4}(-[0-9a-f]{4}){7}$') && ip(self.metadata.name.replace('-', ':')) == ip(self.spec.address))"
    ).message("a VirtualIP is named by its address: 192.168.10.50, or for IPv6 eight groups of four digits joined by dashes, fd00-0000-0000-0000-0000-0000-0000-0010")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.ports) || self.ports.all(p, has(self.claims) && self.claims.exists(c, c.__namespace__ == p.claim.__namespace__ && c.name == p.claim.name))"
).message("every port names one of spec.claims as its claim"))]
pub struct VirtualIPSpec {
    /// The address, in canonical form.
    #[schemars(schema_with = "schema::virtual_ip_address")]
    pub address: String,
    /// The IPPool that the address was taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pool: Option<String>,
    /// The Services that hold the address. Without any it is not announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "name"]))]
    pub claims: Vec<Claim>,
    /// The ports that are served, each by one claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["protocol", "port"]))]
    pub ports: Vec<Port>,
    /// Which nodes may announce, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Where it is announced, compiled from the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<Announce>,
    /// Keeps the address for one Service; the only part that people write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Reservation>,
}

/// A Service that holds the address.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The Service's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The Service's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The Service's uid. A new uid takes over when the old one is gone (restore from backup).
    #[schemars(length(max = 64))]
    pub uid: String,
    /// `spec.healthCheckNodePort` of the Service, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub health_check_node_port: Option<i32>,
    /// `spec.externalTrafficPolicy` of the Service.
    #[serde(default)]
    pub traffic_policy: TrafficPolicy,
    /// Since when it holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// With whom it shares the address, if it may be shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<ClaimSharing>,
    /// What the Service was like when it was given the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<ClaimTerms>,
    /// The digest of the ServiceGuard that must be in a node's kernel before it announces the address, where
    /// the Service has source ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub guard: Option<String>,
}

/// With whom a Service shares its address.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSharing {
    /// Services that name the same key may share.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// The Service's selector as `name=value,...`, where its traffic policy is Local: only Services
    /// with the same pods may share then, since only nodes with endpoints of all may announce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub selector: Option<String>,
}

/// What a Service was like when it was given its address. A later edit of the Service is told from an
/// edit of the pool by this: the pool's edits move nothing, the Service's may.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimTerms {
    /// It asked for an internal load balancer.
    #[serde(default)]
    pub internal: bool,
    /// By what it named the pool, where it asked for an internal load balancer: the pool's name, or an
    /// address of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub named: Option<String>,
    /// It had source ranges.
    #[serde(default)]
    pub source_ranges: bool,
}

/// `spec.externalTrafficPolicy` of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TrafficPolicy {
    #[default]
    /// Every node may take the traffic.
    Cluster,
    /// Only nodes with an endpoint of the Service may.
    Local,
}

/// A port that is served at the address.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The Service that serves it.
    pub claim: ClaimRef,
    /// The nodePort behind it, where one is allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
}

/// Names one of `spec.claims`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    /// The Service's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The Service's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// A transport protocol of a Service port.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Which nodes may announce the address.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Raised only when the owner is meant to move, as max(last + 1, unix milliseconds); no other edit
    /// moves anything.
    #[schemars(range(min = 0))]
    pub epoch: i64,
    /// The nodes, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub candidates: Vec<Candidate>,
}

/// A node that may announce.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The node's name.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
}

/// Where an address is announced.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announce {
    /// Names or globs of interfaces; empty means those on the address's subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::interface_names")]
    pub interfaces: Vec<String>,
    /// Who may announce when no candidate can.
    #[serde(default)]
    pub fallback: Fallback,
}

/// Who may announce when no candidate can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Fallback {
    #[default]
    /// Nobody.
    None,
    /// A candidate that would otherwise be passed over.
    Listed,
    /// Any speaker with an interface on the subnet.
    AnyOnSubnet,
}

/// Keeps an address for one Service.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The namespace of the Service that may have the address.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The name of the Service that may have the address; absent means any in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// When the reservation ends by itself; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// The uid of the namespace, where the controller keeps the address on behalf of a Service
    /// (annotation `landfall.dev/reserve`): such a reservation counts in the namespace's quota and
    /// ends with it. A person leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub namespace_uid: Option<String>,
    /// Why it is kept, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub note: Option<String>,
}

/// Who announces the address and who had it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPStatus {
    /// The node that answers for the address; absent while none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announcer: Option<Announcer>,
    /// Nodes that answered before, latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub last_announcers: Vec<PastAnnouncer>,
    /// Services that held the address before, latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub last_holders: Vec<PastHolder>,
    /// `Announced`, `Guarded` and `AddressConflict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The node that answers for an address.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcer {
    /// The node's name.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The interface it answers on.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
    /// The MAC address that it answers with, six groups of two lower-case digits joined by colons.
    #[schemars(length(max = 17))]
    pub mac: String,
    /// Counts the changes of announcer; higher is later.
    #[schemars(range(min = 0))]
    pub term: i64,
    /// The placement epoch under which it announces.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub epoch: i64,
    /// Since when.
    pub since: Time,
}

/// A node that answered for an address once.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastAnnouncer {
    /// The node's name.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// From when.
    pub since: Time,
    /// Until when.
    pub until: Time,
}

/// A Service that held an address once.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastHolder {
    /// The Service's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The Service's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The Service's uid.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// From when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Until when.
    pub until: Time,
}

/// The name of the VirtualIP of `address`: the address itself, or for IPv6 its eight groups of four
/// digits joined by dashes, since an object name may hold no colon.
pub fn virtual_ip_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:04x}")).join("-"),
    }
}

impl VirtualIP {
    /// The address, or nothing where the object holds none (the API server refuses such an object).
    pub fn address(&self) -> Option<IpAddr> {
        crate::address::parse_address(&self.spec.address).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_ip_is_named_by_its_address() {
        assert_eq!(virtual_ip_name("192.168.10.50".parse().unwrap()), "192.168.10.50");
        assert_eq!(virtual_ip_name("fd00::10".parse().unwrap()), "fd00-0000-0000-0000-0000-0000-0000-0010");
    }
}
