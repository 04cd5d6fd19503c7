//! What the drivers told of the node, its links and the other speakers, and what plainly follows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use landfall_crds::{Fallback, glob_matches};

use super::Refusal;
use crate::lan::{Link, LinkIndex, MacAddr, NodeName, PeerInfo, Vip, is_link_local, is_special};

/// To whom a hardware address belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Station {
    /// To this node.
    Own,
    /// To another speaker's node.
    Speaker(NodeName),
    /// To anything else.
    Foreign,
}

/// The node's surroundings.
#[derive(Clone, Debug)]
pub struct Facts {
    own: NodeName,
    links: BTreeMap<LinkIndex, Link>,
    gateways: Vec<IpAddr>,
    peers: BTreeMap<NodeName, PeerInfo>,
    sessions: BTreeMap<LinkIndex, BTreeMap<NodeName, IpAddr>>,
    by_source: HashMap<(LinkIndex, IpAddr), NodeName>,
    by_mac: HashMap<MacAddr, NodeName>,
    own_addresses: HashSet<IpAddr>,
    addresses_elsewhere: HashSet<IpAddr>,
    peer_addresses: HashSet<IpAddr>,
    place: usize,
    has_links: bool,
    has_peers: bool,
}

impl Facts {
    /// Knows nothing but the node's name.
    pub fn new(own: NodeName) -> Self {
        Self {
            own,
            links: BTreeMap::new(),
            gateways: Vec::new(),
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_source: HashMap::new(),
            by_mac: HashMap::new(),
            own_addresses: HashSet::new(),
            addresses_elsewhere: HashSet::new(),
            peer_addresses: HashSet::new(),
            place: 0,
            has_links: false,
            has_peers: false,
        }
    }

    /// Takes in all links.
    pub fn set_links(&mut self, links: Vec<Link>) {
        self.own_addresses = links.iter().flat_map(|link| link.addresses.iter().map(IpNet::addr)).collect();
        self.links = links.into_iter().map(|link| (link.index, link)).collect();
        self.has_links = true;
        self.derive();
    }

    /// Takes in all addresses of the node, on whatever interface.
    pub fn set_own_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.addresses_elsewhere = addresses.into_iter().collect();
    }

    /// Takes in all next hops of default routes.
    pub fn set_gateways(&mut self, gateways: Vec<IpAddr>) {
        self.gateways = gateways;
    }

    /// Takes in all other speakers.
    pub fn set_peers(&mut self, peers: Vec<PeerInfo>) {
        let others = peers.into_iter().filter(|peer| peer.node != self.own);
        self.peers = others.map(|peer| (peer.node.clone(), peer)).collect();
        self.place = self.peers.keys().filter(|node| **node < self.own).count();
        let links = || self.peers.values().flat_map(|peer| peer.links.iter().map(move |link| (peer, link)));
        self.by_mac = links().map(|(peer, link)| (link.mac, peer.node.clone())).collect();
        self.peer_addresses = self.peers.values().flat_map(PeerInfo::addresses).collect();
        self.has_peers = true;
        self.derive();
    }

    /// Finds out on which link each peer can be watched at which address.
    fn derive(&mut self) {
        self.sessions = self
            .links
            .values()
            .filter(|link| link.carrier)
            .map(|link| (link.index, self.watchable(link)))
            .collect();
        let sources = self.sessions.iter().flat_map(|(link, peers)| {
            peers.iter().map(move |(node, address)| ((*link, *address), node.clone()))
        });
        self.by_source = sources.collect();
    }

    fn watchable(&self, link: &Link) -> BTreeMap<NodeName, IpAddr> {
        let shares = |subnet: &IpNet| {
            let own = link.addresses.iter().filter(|own| !is_link_local(own.addr()));
            own.into_iter().any(|own| own.contains(&subnet.network()) || subnet.contains(&own.network()))
        };
        let address = |peer: &PeerInfo| {
            let mut links = peer
                .links
                .iter()
                .filter(|on| on.subnets.iter().any(|subnet| !is_link_local(subnet.addr()) && shares(subnet)));
            links.find_map(|on| on.address)
        };
        self.peers.values().filter_map(|peer| Some((peer.node.clone(), address(peer)?))).collect()
    }

    /// Whether links and peers were told of; before, nothing may be decided.
    pub fn are_complete(&self) -> bool {
        self.has_links && self.has_peers
    }

    /// This node's place among all speakers, in the order of their names.
    pub fn place(&self) -> usize {
        self.place
    }

    /// This node's name.
    pub fn own(&self) -> &NodeName {
        &self.own
    }

    /// The lowest hardware address of the node, which settles claims that are otherwise equal.
    pub fn own_mac(&self) -> MacAddr {
        self.links.values().map(|link| link.mac).min().unwrap_or_default()
    }

    /// A link.
    pub fn link(&self, index: LinkIndex) -> Option<&Link> {
        self.links.get(&index)
    }

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// A link's name, for people.
    pub fn link_name(&self, index: LinkIndex) -> String {
        self.link(index).map(|link| link.name.clone()).unwrap_or_default()
    }

    /// The gateways on a link's subnets.
    pub fn gateways_on<'a>(&'a self, link: &'a Link) -> impl Iterator<Item = IpAddr> + 'a {
        self.gateways.iter().copied().filter(|gateway| link.has_on_link(*gateway))
    }

    /// The links with carrier, each with its peers and their addresses there.
    pub fn sessions(&self) -> &BTreeMap<LinkIndex, BTreeMap<NodeName, IpAddr>> {
        &self.sessions
    }

    /// The peer whose address on a link this is.
    pub fn peer_at(&self, link: LinkIndex, address: IpAddr) -> Option<&NodeName> {
        self.by_source.get(&(link, address))
    }

    /// The address at which a peer is watched on a link.
    pub fn peer_address(&self, link: LinkIndex, node: &NodeName) -> Option<IpAddr> {
        self.sessions.get(&link)?.get(node).copied()
    }

    /// The address of this node at which its peers watch it on a link.
    pub fn watched_at(&self, link: LinkIndex) -> Option<IpAddr> {
        self.link(link)?.watched_at()
    }

    /// An address of a peer on a link, of one family.
    pub fn address_of(&self, link: LinkIndex, node: &NodeName, is_v4: bool) -> Option<IpAddr> {
        let watched = self.peer_address(link, node)?;
        let mut links = self.peers.get(node)?.links.iter();
        let there = links.find(|there| there.address == Some(watched))?;
        there.addresses.iter().copied().find(|address| address.is_ipv4() == is_v4)
    }

    /// The hardware address behind an address of a peer.
    pub fn peer_mac(&self, node: &NodeName, address: IpAddr) -> Option<MacAddr> {
        let mut links = self.peers.get(node)?.links.iter();
        links.find(|link| link.address == Some(address)).map(|link| link.mac)
    }

    /// All other speakers' nodes.
    pub fn peers(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.keys()
    }

    /// Whether a speaker of that name is known.
    pub fn has_peer(&self, node: &NodeName) -> bool {
        self.peers.contains_key(node)
    }

    /// Whose hardware address this is.
    pub fn station(&self, mac: MacAddr) -> Station {
        if self.links.values().any(|link| link.mac == mac) {
            return Station::Own;
        }
        self.by_mac.get(&mac).map_or(Station::Foreign, |node| Station::Speaker(node.clone()))
    }

    /// The links with carrier on which the address is, or would be, announced: those that
    /// `vip.interfaces` names, or else those on whose subnet it lies. Of two links on one subnet only the
    /// first is taken: two hardware addresses that answer on one LAN would only confuse it.
    pub fn carrying(&self, vip: &Vip) -> Vec<LinkIndex> {
        let with_carrier = self.links.values().filter(|link| link.carrier);
        if !vip.interfaces.is_empty() {
            let is_named = |link: &&Link| vip.interfaces.iter().any(|named| glob_matches(named, &link.name));
            return with_carrier.filter(is_named).map(|link| link.index).collect();
        }
        let mut subnets = Vec::new();
        let mut links = Vec::new();
        for link in with_carrier {
            let Some(own) = link.addresses.iter().find(|own| own.contains(&vip.address)) else { continue };
            if !subnets.contains(&own.trunc()) {
                subnets.push(own.trunc());
                links.push(link.index);
            }
        }
        links
    }

    /// All that may announce the address, best first: the candidates, then what the fallback allows.
    pub fn ranking(&self, vip: &Vip) -> Vec<NodeName> {
        let mut ranking = vip.candidates.clone();
        if vip.fallback == Fallback::AnyOnSubnet && !vip.candidates.is_empty() {
            let on_subnet = |peer: &&PeerInfo| {
                let mut subnets = peer.links.iter().flat_map(|link| &link.subnets);
                subnets.any(|subnet| subnet.contains(&vip.address))
            };
            let mut others: Vec<_> =
                self.peers.values().filter(on_subnet).map(|peer| peer.node.clone()).collect();
            if self.links.values().any(|link| link.has_on_link(vip.address)) {
                others.push(self.own.clone());
            }
            others.sort();
            others.retain(|node| !vip.candidates.contains(node));
            ranking.extend(others);
        }
        ranking
    }

    /// Why the address must not be announced by this node, whatever the API says.
    pub fn refusal(&self, address: IpAddr) -> Option<Refusal> {
        if is_special(address)
            || self.links.values().flat_map(Link::broadcasts).any(|broadcast| broadcast == address)
        {
            Some(Refusal::SpecialAddress)
        } else if self.own_addresses.contains(&address) || self.addresses_elsewhere.contains(&address) {
            Some(Refusal::OwnAddress)
        } else if self.peer_addresses.contains(&address) {
            Some(Refusal::PeerAddress)
        } else if self.gateways.contains(&address) {
            Some(Refusal::GatewayAddress)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Facts {
        let mut facts = Facts::new("n1".into());
        facts.set_links(vec![Link {
            index: LinkIndex(2),
            name: "eth0".into(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            carrier: true,
            addresses: ["10.0.0.1/24", "fd00::1/64", "fe80::1/64"].map(|text| text.parse().unwrap()).to_vec(),
        }]);
        facts.set_gateways(vec!["10.0.0.254".parse().unwrap()]);
        facts.set_own_addresses(vec!["10.244.1.1".parse().unwrap()]);
        facts
    }

    #[test]
    fn what_must_not_be_announced_is_refused_with_its_reason() {
        let facts = node();
        for (address, refusal) in [
            ("10.0.0.50", None),
            ("fd00::50", None),
            ("10.0.0.1", Some(Refusal::OwnAddress)),
            ("fd00::1", Some(Refusal::OwnAddress)),
            ("10.244.1.1", Some(Refusal::OwnAddress)),
            ("10.0.0.254", Some(Refusal::GatewayAddress)),
            ("10.0.0.255", Some(Refusal::SpecialAddress)),
            ("255.255.255.255", Some(Refusal::SpecialAddress)),
            ("0.0.0.0", Some(Refusal::SpecialAddress)),
            ("0.0.0.7", Some(Refusal::SpecialAddress)),
            ("127.0.0.2", Some(Refusal::SpecialAddress)),
            ("169.254.1.1", Some(Refusal::SpecialAddress)),
            ("224.0.0.18", Some(Refusal::SpecialAddress)),
            ("240.0.0.1", Some(Refusal::SpecialAddress)),
            ("::", Some(Refusal::SpecialAddress)),
            ("::1", Some(Refusal::SpecialAddress)),
            ("fe80::9", Some(Refusal::SpecialAddress)),
            ("ff02::1", Some(Refusal::SpecialAddress)),
            ("::ffff:10.0.0.50", Some(Refusal::SpecialAddress)),
        ] {
            assert_eq!(facts.refusal(address.parse().unwrap()), refusal, "{address}");
        }
    }

    #[test]
    fn an_address_is_carried_by_the_links_named_or_by_one_on_its_subnet() {
        let mut facts = node();
        let link = |index, name: &str, carrier, address: &str| Link {
            index: LinkIndex(index),
            name: name.into(),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            carrier,
            addresses: vec![address.parse().unwrap()],
        };
        facts.set_links(vec![
            link(2, "eth0", false, "10.0.0.1/24"),
            link(3, "eth1", true, "10.0.0.2/24"),
            link(4, "eth2", true, "10.0.0.3/24"),
            link(5, "wan0", true, "192.0.2.1/24"),
        ]);
        let vip = |address: &str, interfaces: &[&str]| Vip {
            address: address.parse().unwrap(),
            claimed: true,
            epoch: 1,
            candidates: Vec::new(),
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            fallback: Fallback::None,
            health_checks: Vec::new(),
            guard: None,
            last_term: 0,
            announced_before: true,
        };
        let carrying = |vip: &Vip| facts.carrying(vip).into_iter().map(|link| link.0).collect::<Vec<_>>();
        assert_eq!(carrying(&vip("10.0.0.50", &[])), [3], "the first with carrier");
        assert_eq!(carrying(&vip("13.12.21.31", &[])), Vec::<u32>::new(), "off every subnet");
        assert_eq!(carrying(&vip("13.12.21.31", &["eth*"])), [3, 4], "all that are named");
        assert_eq!(carrying(&vip("10.0.0.50", &["wan0"])), [5]);
    }

    #[test]
    fn peers_are_watched_where_subnets_overlap_and_not_by_link_local_ones() {
        let mut facts = node();
        let peer = |name: &str, subnet: &str, address: &str| PeerInfo {
            node: name.into(),
            links: vec![crate::lan::PeerLink {
                mac: MacAddr([2, 0, 0, 0, 0, 9]),
                subnets: vec![subnet.parse().unwrap()],
                addresses: vec![address.parse().unwrap()],
                address: Some(address.parse().unwrap()),
            }],
        };
        facts.set_peers(vec![
            peer("n2", "10.0.0.0/24", "10.0.0.2"),
            peer("n3", "10.9.0.0/24", "10.9.0.3"),
            peer("n4", "fe80::/64", "fe80::4"),
            peer("n1", "10.0.0.0/24", "10.0.0.1"),
        ]);
        let watched: Vec<_> = facts.sessions()[&LinkIndex(2)].keys().map(|node| &**node).collect();
        assert_eq!(watched, ["n2"]);
        assert_eq!(facts.refusal("10.9.0.3".parse().unwrap()), Some(Refusal::PeerAddress));
        assert!(facts.peer_at(LinkIndex(2), "10.0.0.2".parse().unwrap()).is_some());
        assert!(facts.peer_at(LinkIndex(3), "10.0.0.2".parse().unwrap()).is_none());
    }
}
