//! Speaker: what one node knows of itself and of its peers.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// One per node, named by the node and written by that node's speaker alone.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "Speaker",
    plural = "speakers",
    shortname = "spk",
    category = "landfall",
    status = "SpeakerStatus",
    derive = "PartialEq",
    doc = "Speaker is what the speaker of one node tells about itself and its peers; it is named by the node.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".status.interfaces[*].name"),
    printcolumn(
        name = "Subnets",
        type_ = "string",
        json_path = ".status.interfaces[*].subnets[*]",
        priority = 1
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerSpec {}

/// What a speaker tells.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatus {
    /// The interfaces that it could announce on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub interfaces: Vec<Interface>,
    /// Next hops of the node's default routes; they are never granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 45)))]
    pub gateways: Vec<String>,
    /// Whether everything that a takeover needs is at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Warm>,
    /// The other speakers as this one sees them, written when one of them changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub peers: Vec<Peer>,
    /// The version of the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// `Ready`: whether it can announce, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// An interface that a speaker could announce on.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name, such as `eth0`.
    #[schemars(length(min = 1, max = 15))]
    pub name: String,
    /// Its MAC address, six groups of two lower-case digits joined by colons.
    #[schemars(length(max = 17))]
    pub mac: String,
    /// The subnets that are on its link, as CIDRs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 49)))]
    pub subnets: Vec<String>,
    /// The node's own addresses on it; they are never granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 45)))]
    pub addresses: Vec<String>,
    /// Whether the link is up.
    #[serde(default)]
    pub carrier: Carrier,
    /// The address at which its peers watch it on this LAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub address: Option<String>,
}

/// Whether a link is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Carrier {
    #[default]
    /// It is not.
    Down,
    /// It is.
    Up,
}

/// Whether everything that a takeover needs is at hand.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Warm {
    /// Whether it is.
    pub state: WarmState,
    /// What is missing, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)))]
    pub missing: Vec<String>,
}

/// Whether a speaker is ready for a takeover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum WarmState {
    #[default]
    /// Something is still missing.
    Warming,
    /// Nothing is missing.
    Warm,
}

/// Another speaker as this one sees it on one LAN.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The other node's name.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The interface on which this speaker hears it.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
    /// Whether it is alive.
    pub state: PeerState,
    /// Since when it is so.
    pub since: Time,
}

/// Whether a peer is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PeerState {
    /// It is heard.
    Alive,
    /// It was heard and is no more.
    Dead,
}

impl Interface {
    /// Whether `address` lies on one of the interface's subnets.
    pub fn has_on_link(&self, address: IpAddr) -> bool {
        self.subnets
            .iter()
            .filter_map(|text| text.parse::<IpNet>().ok())
            .any(|subnet| subnet.contains(&address))
    }

    /// Whether one of `patterns`, names or globs with `*` and `?`, matches the interface's name.
    pub fn is_named_by(&self, patterns: &[String]) -> bool {
        patterns.iter().any(|pattern| glob_matches(pattern, &self.name))
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of characters and `?` for one.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after a star has swallowed one more byte.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, swallowed)) => {
                    p = after_star;
                    t = swallowed + 1;
                    retry = Some((after_star, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_a_shell_would() {
        for (pattern, text, matches) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth0", true),
            ("*", "anything", true),
            ("e*h?", "enp5h0", true),
            ("e*h?", "enp5h", false),
            ("*0*1", "en0p0s1", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob_matches(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn an_address_is_on_link_where_a_subnet_holds_it() {
        let interface =
            Interface { subnets: vec!["192.168.10.0/24".into(), "fd00::/64".into()], ..Interface::default() };
        assert!(interface.has_on_link("192.168.10.50".parse().unwrap()));
        assert!(interface.has_on_link("fd00::50".parse().unwrap()));
        assert!(!interface.has_on_link("13.12.21.31".parse().unwrap()));
    }
}
