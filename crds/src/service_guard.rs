//! ServiceGuard: who may come in to one Service.

use std::fmt::Write as _;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::schema;
use crate::{ClaimRef, Protocol};

/// Who may come in to one Service that has source ranges.
///
/// It exists from the moment a Service of ours has ranges, granted or not, and until its nodePorts are gone,
/// so that nothing is open while an address is awaited. Every speaker puts it into its node's kernel.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "ServiceGuard",
    plural = "serviceguards",
    shortname = "guard",
    category = "landfall",
    derive = "PartialEq",
    doc = "ServiceGuard is who may come in to one Service that has source ranges; it is named by the Service's namespace and name. The controller writes it.",
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.service.namespace"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service.name"),
    printcolumn(name = "IPv4", type_ = "string", json_path = ".spec.sources.ipv4"),
    printcolumn(name = "IPv6", type_ = "string", json_path = ".spec.sources.ipv6"),
    printcolumn(name = "Closed", type_ = "string", json_path = ".spec.closed.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(
        "self.metadata.name == self.spec.service.__namespace__ + '.' + self.spec.service.name"
    ).message("a ServiceGuard is named by its Service: namespace, dot, name")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceGuardSpec {
    /// The Service.
    pub service: GuardedService,
    /// Who may come in.
    #[serde(default)]
    pub sources: Sources,
    /// The Service's ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["protocol", "port"]))]
    pub ports: Vec<GuardedPort>,
    /// Why nobody may come in at all, where that is not what the Service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closed>,
}

/// The Service that is guarded.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardedService {
    /// The Service's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The Service's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The Service's uid.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// Who may come in, by family: CIDRs in canonical form that do not overlap. A family without any is closed.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sources {
    /// Over IPv4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::source_ranges")]
    pub ipv4: Vec<String>,
    /// Over IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::source_ranges")]
    pub ipv6: Vec<String>,
}

/// A port of the Service.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardedPort {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port at the Service's addresses.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The nodePort behind it, where one is allocated and is to be guarded as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
}

/// Why nobody may come in.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Closed {
    /// The reason.
    pub reason: ClosedReason,
    /// What to do about it, for people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Why nobody may come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ClosedReason {
    #[default]
    /// An entry of the Service's ranges is none.
    InvalidSourceRange,
    /// The Service has more ranges than are enforced.
    TooManySourceRanges,
}

/// At most so many ranges of one Service are enforced.
pub const MOST_SOURCE_RANGES: usize = 1000;

/// The name of the ServiceGuard of a Service. Neither part holds a dot, so no two Services share one.
pub fn service_guard_name(service: &ClaimRef) -> String {
    format!("{}.{}", service.namespace, service.name)
}

impl ServiceGuardSpec {
    /// The Service, as claims on addresses name it.
    pub fn claim(&self) -> ClaimRef {
        ClaimRef { namespace: self.service.namespace.clone(), name: self.service.name.clone() }
    }

    /// The ranges that are let in: none where the guard is closed, whatever it lists.
    pub fn admitted(&self) -> impl Iterator<Item = &str> {
        let Sources { ipv4, ipv6 } = &self.sources;
        ipv4.iter().chain(ipv6).filter(|_| self.closed.is_none()).map(String::as_str)
    }

    /// Names all that this guard enforces: 32 hexadecimal digits that differ as soon as anything of it does.
    /// A claim on an address names it, so that no node announces before it has this very guard in its kernel.
    pub fn digest(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}/{}", self.service.namespace, self.service.name);
        let mut ranges: Vec<&str> = self.admitted().collect();
        ranges.sort_unstable();
        for range in ranges {
            let _ = writeln!(text, "{range}");
        }
        let mut ports: Vec<&GuardedPort> = self.ports.iter().collect();
        ports.sort_unstable();
        for GuardedPort { protocol, port, node_port } in ports {
            let _ = writeln!(text, "{protocol:?} {port} {}", node_port.unwrap_or_default());
        }
        Sha256::digest(text).iter().take(16).fold(String::new(), |mut digits, byte| {
            let _ = write!(digits, "{byte:02x}");
            digits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> ServiceGuardSpec {
        let port = |protocol, port, node_port| GuardedPort { protocol, port, node_port };
        ServiceGuardSpec {
            service: GuardedService { namespace: "shop".into(), name: "web".into(), uid: "u1".into() },
            sources: Sources {
                ipv4: vec!["10.0.0.0/8".into(), "192.0.2.0/24".into()],
                ipv6: vec!["fd00::/8".into()],
            },
            ports: vec![port(Protocol::Tcp, 80, Some(30080)), port(Protocol::Udp, 53, None)],
            closed: None,
        }
    }

    #[test]
    fn the_digest_is_the_same_for_what_enforces_the_same_and_stays_so_across_versions() {
        assert_eq!(guard().digest(), "2cc040677632ce0e44b3691100685ba3");
        let mut other = guard();
        other.ports.reverse();
        other.sources.ipv4.reverse();
        other.service.uid = "u2".into();
        assert_eq!(other.digest(), guard().digest());
    }

    #[test]
    fn the_digest_differs_as_soon_as_anything_that_is_enforced_does() {
        let mut digests = vec![guard().digest()];
        let mut differs = |change: fn(&mut ServiceGuardSpec)| {
            let mut other = guard();
            change(&mut other);
            assert!(!digests.contains(&other.digest()), "{other:?}");
            digests.push(other.digest());
        };
        differs(|guard| guard.service.name = "api".into());
        differs(|guard| guard.sources.ipv4.truncate(1));
        differs(|guard| guard.sources.ipv6.clear());
        differs(|guard| guard.sources.ipv4[1] = "192.0.2.0/25".into());
        differs(|guard| guard.ports[0].node_port = None);
        differs(|guard| guard.ports[0].port = 81);
        differs(|guard| guard.ports[0].protocol = Protocol::Sctp);
        differs(|guard| guard.closed = Some(Closed::default()));
    }

    #[test]
    fn a_closed_guard_lets_nobody_in_whatever_it_lists() {
        let closed = ServiceGuardSpec { closed: Some(Closed::default()), ..guard() };
        assert_eq!(closed.admitted().count(), 0);
        assert_eq!(guard().admitted().count(), 3);
        let empty = ServiceGuardSpec { sources: Sources::default(), ..guard() };
        assert_eq!(closed.digest(), empty.digest());
    }

    #[test]
    fn a_guard_is_named_by_its_service() {
        let service = ClaimRef { namespace: "shop".into(), name: "web".into() };
        assert_eq!(service_guard_name(&service), "shop.web");
    }
}
