//! IPPool: addresses that may be granted, and to whom.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{AddressRange, AddressSet, RangeError};
use crate::schema;

/// Addresses that Services of type LoadBalancer may be given.
///
/// `addresses` alone is a working pool: its addresses are announced by every node that has an
/// interface on their subnet.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "IPPool",
    plural = "ippools",
    shortname = "ipp",
    category = "landfall",
    status = "IPPoolStatus",
    derive = "PartialEq",
    doc = "IPPool holds addresses that Services of type LoadBalancer may be given.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "IPv4 free", type_ = "integer", json_path = ".status.ipv4.available"),
    printcolumn(name = "IPv4 granted", type_ = "integer", json_path = ".status.ipv4.granted"),
    printcolumn(name = "IPv6 free", type_ = "integer", json_path = ".status.ipv6.available"),
    printcolumn(name = "IPv6 granted", type_ = "integer", json_path = ".status.ipv6.granted"),
    printcolumn(name = "Auto", type_ = "boolean", json_path = ".spec.autoAssign", priority = 1),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolSpec {
    /// Address ranges, each a CIDR or first-last; IPv4 and IPv6 may be mixed in the list.
    #[schemars(schema_with = "schema::some_ranges")]
    pub addresses: Vec<String>,
    /// Ranges within `addresses` that are never granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ranges")]
    pub exclude: Vec<String>,
    /// Whether a Service that names no address and no pool may get one from here.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Among several pools, the one with the higher priority is used first.
    #[serde(default)]
    pub priority: i32,
    /// Namespaces whose Services may use the pool, by their labels; absent means all, unless the
    /// controller runs with `--default-deny`. An address that is in use stays where it is when this
    /// changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Services that may use the pool, by their labels; absent means all. An address that is in use
    /// stays where it is when this changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// How much of the pool one tenant may hold; absent means as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// Leaves out the lowest and the highest address of each IPv4 CIDR in `addresses` (of prefix
    /// length 30 or less), which some equipment takes for the network's and the broadcast address.
    #[serde(default)]
    pub avoid_network_and_broadcast: bool,
    /// Which Services may use the pool, by whether one of the clouds' annotations asks for an internal
    /// load balancer.
    #[serde(default)]
    pub scope: Scope,
    /// Grants only to Services with source ranges of the address's family in
    /// `spec.loadBalancerSourceRanges`. Ranges that together hold about half of the family's
    /// addresses or more do not count. A Service that gives its ranges up keeps its address, but nobody
    /// announces it until it has ranges again.
    #[serde(default)]
    pub require_source_ranges: bool,
    /// How long a released address rests before another Service is given it, such as `30s` or `1h`;
    /// absent means not at all. Its last holder may have it back meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub release_delay: Option<String>,
    /// Who may share an address with whom beyond the Services of one namespace, which always may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// Whether Services may keep their address for the time when they are gone (annotation
    /// `landfall.dev/reserve`); absent means no. Addresses kept so count in the quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Reservations>,
    /// CIDRs that an exposed ExternalName may lead to; empty means none. Not enforced by this version:
    /// a pool that sets it is not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::cidrs")]
    pub external_targets: Vec<String>,
    /// Where the addresses are announced; absent means by every node that has an interface on the
    /// address's subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<PoolAnnounce>,
}

fn yes() -> bool {
    true
}

/// How much of a pool one tenant may hold.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// Addresses that the Services of one namespace may hold or keep together, both families counted.
    /// One that several of them share counts once. An address that is in use stays when this changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub per_namespace: Option<i32>,
}

/// How Services may keep an address that they do not hold.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservations {
    /// How long an address is kept after its Service has gone, such as `72h`; absent means 720h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub expire_after: Option<String>,
}

/// Who may share an address with whom.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sharing {
    /// Namespaces whose Services may share addresses with each other, if they name the same sharing
    /// key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
}

/// What cloud "internal load balancer" annotations select.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Scope {
    #[default]
    /// Every Service may use the pool; one that asks for an internal load balancer only if it also
    /// names the pool, or an address in it, for nothing says that the pool is not public.
    Any,
    /// Only Services that ask for an internal load balancer.
    Internal,
    /// Only Services that do not ask for an internal one.
    External,
}

/// Where a pool's addresses are announced.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolAnnounce {
    /// Nodes that may announce; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Interfaces to announce on, as names or globs such as `enp*`. An address off every node's
    /// subnet is announced only where this names an interface, and its clients need an on-link route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::interface_names")]
    pub interfaces: Vec<String>,
}

/// What has become of the pool's addresses, written by the controller.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// The `metadata.generation` that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Counts of IPv4 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Capacity>,
    /// Counts of IPv6 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Capacity>,
    /// Addresses that were granted from this pool and are in use, but that it would not grant now,
    /// since it was edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// Who held addresses of the pool before, latest first; the oldest are forgotten. What is on a
    /// VirtualIP that still exists is told there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<PastGrant>,
    /// `Ready`, `Exhausted`, `Conflicted` and `Unreachable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Counts of addresses of one family. Counts stop at 9223372036854775807.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Addresses of the pool that could ever be granted.
    pub total: i64,
    /// Addresses that Services hold.
    pub granted: i64,
    /// Addresses that nobody else is given though no Service holds them from here: kept for somebody,
    /// resting after a release, given by another implementation, or in some `spec.externalIPs`.
    pub reserved: i64,
    /// Addresses that the next Service could be given: the rest of the total, or none while the pool is not
    /// ready.
    pub available: i64,
}

/// Addresses in use that their pool would not grant now.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// How many there are.
    pub count: i64,
    /// The lowest of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 45)), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,
}

/// A Service that held an address of the pool once.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastGrant {
    /// The address.
    #[schemars(length(max = 45))]
    pub address: String,
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

impl IPPoolSpec {
    /// The addresses that the pool may grant: `addresses` without `exclude` and, where asked for,
    /// without network and broadcast addresses. Entries that do not parse are left out and returned
    /// beside the set, so that one bad entry does not take the pool away.
    pub fn grantable(&self) -> (AddressSet, Vec<RangeError>) {
        let mut set = AddressSet::new();
        let mut errors = Vec::new();
        let parse = |text: &String, errors: &mut Vec<RangeError>| match text.parse::<AddressRange>() {
            Ok(range) => Some(range),
            Err(error) => {
                errors.push(error);
                None
            }
        };
        for text in &self.addresses {
            if let Some(range) = parse(text, &mut errors) {
                set.insert(range);
            }
        }
        if self.avoid_network_and_broadcast {
            let networks = self.addresses.iter().filter_map(|text| text.parse::<ipnet::Ipv4Net>().ok());
            for network in networks.filter(|network| network.prefix_len() <= 30) {
                set.remove(AddressRange::single(network.network().into()));
                set.remove(AddressRange::single(network.broadcast().into()));
            }
        }
        for text in &self.exclude {
            if let Some(range) = parse(text, &mut errors) {
                set.remove(range);
            }
        }
        (set, errors)
    }

    /// The fields that are set and that this version does not enforce, as paths below `spec`.
    pub fn not_implemented(&self) -> Vec<&'static str> {
        let mut fields = Vec::new();
        let mut note = |set: bool, field| {
            if set {
                fields.push(field);
            }
        };
        note(!self.external_targets.is_empty(), "externalTargets");
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Family;

    fn pool(addresses: &[&str], exclude: &[&str]) -> IPPoolSpec {
        IPPoolSpec {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            exclude: exclude.iter().map(ToString::to_string).collect(),
            ..IPPoolSpec::default()
        }
    }

    #[test]
    fn excluded_addresses_are_not_grantable() {
        let (set, errors) = pool(&["10.0.0.0/24"], &["10.0.0.0-10.0.0.9"]).grantable();
        assert!(errors.is_empty());
        assert_eq!(set.count(Family::IPv4), 246);
        assert_eq!(set.first(Family::IPv4), Some("10.0.0.10".parse().unwrap()));
    }

    #[test]
    fn network_and_broadcast_are_left_out_of_cidrs_but_not_of_ranges() {
        let mut spec = pool(&["10.0.0.0/30", "10.0.1.0-10.0.1.3", "10.0.2.0/31", "fd00::/126"], &[]);
        spec.avoid_network_and_broadcast = true;
        let (set, _) = spec.grantable();
        assert_eq!(set.count(Family::IPv4), 2 + 4 + 2);
        assert_eq!(set.count(Family::IPv6), 4);
    }

    #[test]
    fn a_bad_entry_is_reported_and_the_rest_is_used() {
        let (set, errors) = pool(&["10.0.0.0/24", "10.0.9.9-10.0.9.1"], &[]).grantable();
        assert_eq!(set.count(Family::IPv4), 256);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn a_pool_of_addresses_alone_uses_nothing_that_is_not_enforced() {
        let spec: IPPoolSpec =
            serde_json::from_value(serde_json::json!({"addresses": ["10.0.0.0/24"]})).unwrap();
        assert!(spec.auto_assign);
        assert!(spec.not_implemented().is_empty());
    }
}
