//! What is known of nodes: their Speakers, their labels, and what their peers think of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use landfall_crds::address::{AddressSet, parse_address};
use landfall_crds::names::{conditions, labels};
use landfall_crds::{Carrier, PeerState, Speaker, glob_matches};

use super::cluster_ranges::set_of;

/// An interface that a node can announce on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether its link is up.
    pub up: bool,
    /// The subnets on its link.
    pub subnets: Vec<IpNet>,
}

/// What a Speaker object says, read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerFacts {
    /// Interfaces that it could announce on.
    pub interfaces: Vec<Interface>,
    /// The node's own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Its gateways.
    pub gateways: BTreeSet<IpAddr>,
    /// Whether it can announce, by its own word; one that says nothing of it can.
    pub ready: bool,
    /// How it hears its peers.
    peers: BTreeMap<String, Heard>,
}

/// On how many of the LANs that they share a peer is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    somewhere: bool,
    everywhere: bool,
}

/// What a Node object says, read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`.
    pub cordoned: bool,
    /// Its addresses of type InternalIP and ExternalIP.
    pub addresses: BTreeSet<IpAddr>,
    /// The ranges of its pods, `spec.podCIDRs`.
    pub pod_ranges: Vec<IpNet>,
    /// Whether a label excludes it from announcing.
    pub excluded: bool,
}

impl SpeakerFacts {
    /// Whether all else is the same, so that no order changes.
    fn differs_in_state_only(&self, other: &Self) -> bool {
        self.interfaces == other.interfaces
            && self.addresses == other.addresses
            && self.gateways == other.gateways
    }
}

/// Whether a label excludes the node from announcing. A value that reads as false does not (the cloud
/// providers' rule: k8s.io/cloud-provider controllers/service/controller.go).
fn is_excluded(labels: &BTreeMap<String, String>) -> bool {
    labels
        .get(labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS)
        .is_some_and(|value| !matches!(value.as_str(), "0" | "f" | "F" | "false" | "FALSE" | "False"))
}

/// What has changed, so that no more is looked at anew than need be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing that matters.
    Nothing,
    /// Only who hears whom, and who can announce by its own word.
    Peers,
    /// Interfaces, addresses or labels.
    Facts,
}

/// All Speakers and Nodes, by node name.
#[derive(Debug, Default)]
pub struct Nodes {
    known: BTreeMap<String, Known>,
    /// Counts the changes.
    revision: u64,
    pub(crate) speakers_listed: bool,
    pub(crate) nodes_listed: bool,
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Known {
    speaker: Option<SpeakerFacts>,
    node: Option<NodeFacts>,
    /// Whether most peers take it for dead; kept, since it is asked for each address.
    dead: bool,
    /// Whether most peers do not hear it on some LAN.
    cut_off: bool,
}

impl Nodes {
    /// Takes in a Speaker.
    pub fn put_speaker(&mut self, speaker: &Speaker) -> Changed {
        let name = speaker.metadata.name.clone().unwrap_or_default();
        let is = speaker_facts(speaker);
        let known = self.known.entry(name).or_default();
        let changed = match &known.speaker {
            Some(was) if *was == is => return Changed::Nothing,
            Some(was) if was.differs_in_state_only(&is) => Changed::Peers,
            _ => Changed::Facts,
        };
        known.speaker = Some(is);
        self.revision += 1;
        self.count_opinions();
        changed
    }

    /// Forgets a Speaker.
    pub fn remove_speaker(&mut self, name: &str) -> Changed {
        if self.known.get_mut(name).and_then(|known| known.speaker.take()).is_none() {
            return Changed::Nothing;
        }
        self.forget_unknown();
        self.revision += 1;
        self.count_opinions();
        Changed::Facts
    }

    /// Takes in a Node. Of the many changes of a Node's status only its addresses matter.
    pub fn put_node(&mut self, node: &Node) -> Changed {
        let name = node.metadata.name.clone().unwrap_or_default();
        let is = Some(node_facts(node));
        let known = self.known.entry(name).or_default();
        if known.node == is {
            return Changed::Nothing;
        }
        known.node = is;
        self.revision += 1;
        Changed::Facts
    }

    /// Forgets a Node.
    pub fn remove_node(&mut self, name: &str) -> Changed {
        if self.known.get_mut(name).and_then(|known| known.node.take()).is_none() {
            return Changed::Nothing;
        }
        self.forget_unknown();
        self.revision += 1;
        Changed::Facts
    }

    fn forget_unknown(&mut self) {
        self.known.retain(|_, known| known.speaker.is_some() || known.node.is_some());
    }

    /// The names of known Speakers.
    pub fn speaker_names(&self) -> BTreeSet<String> {
        self.iter().map(|(name, ..)| name.to_owned()).collect()
    }

    /// The names of known Nodes.
    pub fn node_names(&self) -> BTreeSet<String> {
        self.known.iter().filter(|(_, known)| known.node.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// How many nodes are known, with or without a Speaker.
    pub(crate) fn number(&self) -> usize {
        self.known.len()
    }

    /// Every Speaker, with its Node where that is known, and whether most of the node's peers that have
    /// an opinion take it for dead.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SpeakerFacts, Option<&NodeFacts>, bool)> {
        self.known.iter().filter_map(|(name, known)| {
            Some((name.as_str(), known.speaker.as_ref()?, known.node.as_ref(), known.dead))
        })
    }

    /// A node's Speaker.
    pub fn speaker(&self, name: &str) -> Option<&SpeakerFacts> {
        self.known.get(name)?.speaker.as_ref()
    }

    /// What a node's Speaker and Node say of its own addresses.
    pub fn own_addresses(&self, name: &str) -> BTreeSet<IpAddr> {
        let from_speaker = self.speaker(name).map(|facts| &facts.addresses);
        let node = self.known.get(name).and_then(|known| known.node.as_ref());
        let from_node = node.map(|facts| &facts.addresses);
        from_speaker.into_iter().chain(from_node).flatten().copied().collect()
    }

    /// The addresses of a node's subnets that no station can have: the network's own, which for IPv6
    /// means every router (RFC 4291 section 2.6.1), and for IPv4 the broadcast address.
    pub fn subnet_edges(&self, name: &str) -> BTreeSet<IpAddr> {
        let interfaces = self.speaker(name).map(|facts| facts.interfaces.as_slice()).unwrap_or_default();
        let subnets = interfaces.iter().flat_map(|interface| &interface.subnets);
        subnets
            .filter(|subnet| subnet.prefix_len() + 2 <= subnet.max_prefix_len())
            .flat_map(|subnet| match subnet {
                IpNet::V4(v4) => vec![v4.network().into(), v4.broadcast().into()],
                IpNet::V6(v6) => vec![v6.network().into()],
            })
            .collect()
    }

    /// The gateways of a node.
    pub fn gateways(&self, name: &str) -> BTreeSet<IpAddr> {
        self.speaker(name).map(|facts| facts.gateways.clone()).unwrap_or_default()
    }

    /// The ranges of the pods of all nodes.
    pub fn pod_ranges(&self) -> AddressSet {
        set_of(self.known.values().flat_map(|known| &known.node).flat_map(|node| &node.pod_ranges))
    }

    /// Whether most of the node's peers that have an opinion take it for dead.
    pub fn is_dead(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|known| known.dead)
    }

    /// How often anything here has changed, so that one need not look for what has.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The nodes that may be given addresses they do not have yet, with their interfaces: ready, heard
    /// wherever they are watched, neither cordoned nor excluded, with a link that is up.
    pub fn well(&self) -> impl Iterator<Item = (&str, &[Interface])> {
        let heard = self.known.iter().filter(|(_, known)| !known.dead && !known.cut_off);
        heard.filter_map(|(name, known)| {
            let speaker = known.speaker.as_ref()?;
            let may = known.node.as_ref().is_none_or(|node| !node.cordoned && !node.excluded);
            let is_up = speaker.interfaces.iter().any(|interface| interface.up);
            (may && is_up && speaker.ready).then_some((name.as_str(), speaker.interfaces.as_slice()))
        })
    }

    fn count_opinions(&mut self) {
        let (dead, cut_off) =
            (self.most_miss(|heard| heard.somewhere), self.most_miss(|heard| heard.everywhere));
        for (name, known) in &mut self.known {
            known.dead = dead.contains(name);
            known.cut_off = cut_off.contains(name);
        }
    }

    /// The nodes of which most peers with an opinion say that this does not hold.
    fn most_miss(&self, holds: impl Fn(&Heard) -> bool) -> BTreeSet<String> {
        let mut votes: BTreeMap<&str, i64> = BTreeMap::new();
        for (voter, facts, ..) in self.iter() {
            for (peer, heard) in facts.peers.iter().filter(|(peer, _)| *peer != voter) {
                *votes.entry(peer).or_default() += if holds(heard) { -1 } else { 1 };
            }
        }
        votes.into_iter().filter(|(_, votes)| *votes > 0).map(|(name, _)| name.to_owned()).collect()
    }
}

impl Interface {
    /// Whether the address is on its link.
    pub fn has_on_link(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| match (subnet, address) {
            (IpNet::V4(subnet), IpAddr::V4(v4)) => {
                (subnet.addr().to_bits() ^ v4.to_bits()) & subnet.netmask().to_bits() == 0
            }
            (IpNet::V6(subnet), IpAddr::V6(v6)) => {
                (subnet.addr().to_bits() ^ v6.to_bits()) & subnet.netmask().to_bits() == 0
            }
            _ => false,
        })
    }

    /// Whether one of the names or globs means it.
    pub fn is_named_by(&self, patterns: &[String]) -> bool {
        patterns.iter().any(|pattern| glob_matches(pattern, &self.name))
    }
}

fn speaker_facts(speaker: &Speaker) -> SpeakerFacts {
    let Some(status) = &speaker.status else { return SpeakerFacts::default() };
    let mut peers = BTreeMap::new();
    for peer in &status.peers {
        let is_heard = peer.state == PeerState::Alive;
        let heard =
            peers.entry(peer.node.clone()).or_insert(Heard { somewhere: is_heard, everywhere: is_heard });
        heard.somewhere |= is_heard;
        heard.everywhere &= is_heard;
    }
    let ready = status.conditions.iter().find(|condition| condition.type_ == conditions::READY);
    let parse = |text: &String| parse_address(text).ok();
    SpeakerFacts {
        interfaces: status
            .interfaces
            .iter()
            .map(|interface| Interface {
                name: interface.name.clone(),
                up: interface.carrier == Carrier::Up,
                subnets: interface.subnets.iter().filter_map(|text| text.parse().ok()).collect(),
            })
            .collect(),
        addresses: status
            .interfaces
            .iter()
            .flat_map(|interface| interface.addresses.iter().chain(&interface.address))
            .filter_map(parse)
            .collect(),
        gateways: status.gateways.iter().filter_map(parse).collect(),
        ready: ready.is_none_or(|condition| condition.status == "True"),
        peers,
    }
}

fn node_facts(node: &Node) -> NodeFacts {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    NodeFacts {
        labels: node.metadata.labels.clone().unwrap_or_default(),
        cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        addresses: addresses
            .iter()
            .filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"))
            .filter_map(|address| parse_address(&address.address).ok())
            .collect(),
        pod_ranges: pod_ranges(node),
        excluded: node.metadata.labels.as_ref().is_some_and(is_excluded),
    }
}

fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let texts = spec.pod_cidrs.as_deref().unwrap_or_default().iter().chain(&spec.pod_cidr);
    let mut ranges: Vec<IpNet> = texts.filter_map(|text| text.parse().ok()).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn speaker(name: &str, peers: &[(&str, &str)]) -> Speaker {
        let peers: Vec<_> = peers
            .iter()
            .map(|(node, state)| json!({"node": node, "interface": "eth0", "state": state, "since": "2026-01-01T00:00:00Z"}))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "Speaker", "metadata": {"name": name}, "spec": {},
            "status": {"peers": peers},
        }))
        .unwrap()
    }

    #[test]
    fn most_peers_are_trusted_over_a_node_that_hears_nobody() {
        let mut nodes = Nodes::default();
        nodes.put_speaker(&speaker("n1", &[("n2", "Dead"), ("n3", "Dead")]));
        nodes.put_speaker(&speaker("n2", &[("n1", "Dead"), ("n3", "Alive")]));
        nodes.put_speaker(&speaker("n3", &[("n1", "Dead"), ("n2", "Alive")]));
        assert!(nodes.is_dead("n1"));
        assert!(!nodes.is_dead("n2"), "one of two does not make a majority");
        assert!(!nodes.is_dead("n9"), "never heard is not dead");
    }

    #[test]
    fn a_peer_that_is_heard_on_one_of_two_lans_is_alive() {
        let mut nodes = Nodes::default();
        nodes.put_speaker(&speaker("n1", &[("n2", "Dead"), ("n2", "Alive")]));
        assert!(!nodes.is_dead("n2"));
    }

    #[test]
    fn who_is_well_is_up_ready_heard_everywhere_and_wanted() {
        let able = |name: &str, carrier: &str, conditions: serde_json::Value| -> Speaker {
            let interface =
                json!({"name": "eth0", "mac": "", "carrier": carrier, "subnets": ["10.0.0.0/24"]});
            serde_json::from_value(json!({
                "apiVersion": "landfall.dev/v1alpha1", "kind": "Speaker", "metadata": {"name": name},
                "spec": {}, "status": {"interfaces": [interface], "conditions": conditions},
            }))
            .unwrap()
        };
        let says = |status: &str| {
            json!([{"type": "Ready", "status": status, "reason": "x", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        let node = |name: &str, spec: serde_json::Value, labels: serde_json::Value| -> Node {
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec}))
                .unwrap()
        };
        let mut nodes = Nodes::default();
        for (name, carrier, conditions) in [
            ("dark", "Down", json!([])),
            ("warming", "Up", says("False")),
            ("unknown", "Up", says("Unknown")),
            ("ready", "Up", says("True")),
            ("silent", "Up", json!([])),
            ("cordoned", "Up", json!([])),
            ("excluded", "Up", json!([])),
            ("dead", "Up", json!([])),
            ("cut-off", "Up", json!([])),
        ] {
            nodes.put_speaker(&able(name, carrier, conditions));
        }
        nodes.put_node(&node("cordoned", json!({"unschedulable": true}), json!({})));
        nodes.put_node(&node(
            "excluded",
            json!({}),
            json!({labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS: ""}),
        ));
        let before = nodes.revision();
        let opinions = [("dead", "Dead"), ("cut-off", "Dead"), ("cut-off", "Alive"), ("ready", "Alive")];
        nodes.put_speaker(&speaker("voter", &opinions));
        assert_eq!(nodes.revision(), before + 1);
        assert_eq!(nodes.well().map(|(name, _)| name).collect::<Vec<_>>(), ["ready", "silent"]);
        assert!(!nodes.is_dead("cut-off"), "and yet it may keep what it has");
    }

    #[test]
    fn opinions_about_peers_are_told_apart_from_other_changes() {
        let mut nodes = Nodes::default();
        assert_eq!(nodes.put_speaker(&speaker("n1", &[])), Changed::Facts);
        assert_eq!(nodes.put_speaker(&speaker("n1", &[("n2", "Dead")])), Changed::Peers);
        assert_eq!(nodes.put_speaker(&speaker("n1", &[("n2", "Dead")])), Changed::Nothing);
        assert_eq!(nodes.remove_speaker("n1"), Changed::Facts);
    }

    #[test]
    fn the_exclusion_label_means_what_it_means_to_clouds() {
        for (value, excluded) in
            [("", true), ("true", true), ("yes", true), ("false", false), ("False", false), ("0", false)]
        {
            let label = (labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS.to_owned(), value.to_owned());
            let mut node = Node::default();
            node.metadata.labels = Some([label].into());
            assert_eq!(node_facts(&node).excluded, excluded, "{value:?}");
        }
    }
}
