//! Which interfaces of a node the speaker announces on. Pure: what netlink told goes in, links come out.
//!
//! Every link that is chosen speaks Ethernet and ARP and is no part of something larger: loopback,
//! tunnels without Ethernet header, links with `IFF_NOARP` and ports of a bridge, bond or team are never
//! chosen, whoever names them. Of the rest, without `--interfaces`:
//!
//! 1. a link that carries a default route: whatever its kind, it leads to where clients are;
//! 2. a link with a global address and more than itself on its subnet (no /32, no /128), unless it is a
//!    bridge or of a kind that leads to pods or to other nodes rather than to a LAN (see [`OVERLAY`]).
//!
//! With `--interfaces`: those whose name matches one of its names or globs, and no others. In both
//! cases a link that a VirtualIP's `announce.interfaces` names is chosen as well, with or without an
//! address of its own. A glob, as it may match by accident what CNI plugins make for pods, leaves out
//! bridges and links of [`OVERLAY`] that carry no default route, and veths without a global address; to
//! announce on one of those, write its name in full.

use std::collections::BTreeSet;

use ipnet::IpNet;
use landfall_crds::glob_matches;

use crate::lan::{Link, LinkIndex, MacAddr, is_global};

/// Kinds of links (`IFLA_INFO_KIND`) that lead to pods or to other nodes, not to a LAN. A dummy leads
/// nowhere.
const OVERLAY: [&str; 10] =
    ["dummy", "geneve", "gretap", "ifb", "ip6gretap", "ipvlan", "netkit", "openvswitch", "tun", "vxlan"];

/// An interface as netlink tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawLink {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, where it has one of six bytes.
    pub mac: Option<MacAddr>,
    /// `IFLA_INFO_KIND`; hardware has none.
    pub kind: Option<String>,
    /// Whether frames on it have an Ethernet header (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// `IFF_NOARP`.
    pub no_arp: bool,
    /// `IFF_UP` and `IFF_LOWER_UP`.
    pub carrier: bool,
    /// The index of the link that it is a part of: a bridge, a bond, a VRF.
    pub master: Option<u32>,
    /// Its addresses that are usable: neither tentative nor found to be a duplicate.
    pub addresses: Vec<IpNet>,
    /// Whether a default route leaves through it.
    pub default_route: bool,
}

/// Chooses the links to announce on.
///
/// `flag` holds what `--interfaces` says, empty where it is not given; `named` holds what the
/// VirtualIPs name.
pub fn choose(links: &[RawLink], flag: &[String], named: &BTreeSet<String>) -> Vec<Link> {
    let mut chosen: Vec<Link> = links
        .iter()
        .filter(|link| {
            let by_rule = if flag.is_empty() { by_default(link) } else { by_name(link, flag.iter()) };
            is_station(link, links) && (by_rule || by_name(link, named.iter()))
        })
        .filter_map(|link| {
            Some(Link {
                index: LinkIndex(link.index),
                name: link.name.clone(),
                mac: link.mac?,
                carrier: link.carrier,
                addresses: link.addresses.clone(),
            })
        })
        .collect();
    chosen.sort_by_key(|link| link.index);
    chosen
}

/// Whether there can be other stations on the subnet of an address.
pub fn is_subnet(net: &IpNet) -> bool {
    is_global(net.addr()) && net.prefix_len() < net.max_prefix_len()
}

/// Whether the link is a station of an Ethernet of its own.
fn is_station(link: &RawLink, links: &[RawLink]) -> bool {
    let master = link.master.and_then(|index| links.iter().find(|other| other.index == index));
    // A link in a VRF is still a station of its own; in a bridge or a bond it is a port.
    let is_port = link.master.is_some() && master.is_none_or(|m| m.kind.as_deref() != Some("vrf"));
    link.ethernet
        && !link.loopback
        && !link.no_arp
        && !is_port
        && link.mac.is_some_and(|m| m != MacAddr::ZERO)
}

fn by_default(link: &RawLink) -> bool {
    link.default_route || (!leads_inwards(link) && link.addresses.iter().any(is_subnet))
}

fn by_name<'p>(link: &RawLink, mut patterns: impl Iterator<Item = &'p String>) -> bool {
    let from_cni = || {
        let anonymous =
            link.kind.as_deref() == Some("veth") && !link.addresses.iter().any(|own| is_global(own.addr()));
        !link.default_route && (leads_inwards(link) || anonymous)
    };
    patterns.any(|pattern| *pattern == link.name || (glob_matches(pattern, &link.name) && !from_cni()))
}

fn leads_inwards(link: &RawLink) -> bool {
    link.kind.as_deref().is_some_and(|kind| kind == "bridge" || OVERLAY.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>, addresses: &[&str]) -> RawLink {
        RawLink {
            index,
            name: name.into(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, index as u8])),
            kind: kind.map(Into::into),
            ethernet: true,
            carrier: true,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..RawLink::default()
        }
    }

    /// A node as one meets them: a LAN card, a storage card, and what CNI plugins and kube-proxy make.
    fn node() -> Vec<RawLink> {
        vec![
            RawLink { loopback: true, ethernet: false, ..link(1, "lo", None, &["127.0.0.1/8", "::1/128"]) },
            RawLink {
                default_route: true,
                ..link(2, "eth0", Some("veth"), &["192.168.10.11/24", "fd00::11/64", "fe80::1/64"])
            },
            link(3, "eth1", None, &["10.9.0.11/16"]),
            link(4, "eth2", None, &["fe80::4/64"]),
            link(5, "cni0", Some("bridge"), &["10.244.1.1/24"]),
            RawLink { master: Some(5), ..link(6, "veth1234", Some("veth"), &["fe80::6/64"]) },
            link(7, "cali99", Some("veth"), &["fe80::ecee/64"]),
            link(8, "flannel.1", Some("vxlan"), &["10.244.1.0/32"]),
            RawLink { no_arp: true, ..link(9, "kube-ipvs0", Some("dummy"), &["10.96.0.1/32"]) },
            RawLink { ethernet: false, mac: None, ..link(10, "wg0", Some("wireguard"), &["10.99.0.1/24"]) },
            link(11, "docker0", Some("bridge"), &["172.17.0.1/16"]),
        ]
    }

    fn names(flag: &[&str], named: &[&str], links: &[RawLink]) -> Vec<String> {
        let flag: Vec<String> = flag.iter().map(|text| (*text).into()).collect();
        let named = named.iter().map(|text| (*text).into()).collect();
        choose(links, &flag, &named).into_iter().map(|link| link.name).collect()
    }

    #[test]
    fn with_no_word_from_anybody_it_is_the_lans() {
        assert_eq!(names(&[], &[], &node()), ["eth0", "eth1"]);
    }

    #[test]
    fn a_flag_says_which_and_no_others() {
        assert_eq!(names(&["eth0"], &[], &node()), ["eth0"]);
        assert_eq!(names(&["eth[12]"], &[], &node()), [""; 0], "globs know only * and ?");
        assert_eq!(names(&["nothing"], &[], &node()), [""; 0]);
    }

    #[test]
    fn a_link_without_a_subnet_is_chosen_when_named() {
        assert_eq!(names(&["eth2"], &[], &node()), ["eth2"]);
        assert_eq!(names(&[], &["eth2"], &node()), ["eth0", "eth1", "eth2"]);
        assert_eq!(names(&["eth0"], &["eth?"], &node()), ["eth0", "eth1", "eth2"]);
    }

    #[test]
    fn a_glob_does_not_reach_into_the_pods() {
        assert_eq!(names(&["*"], &[], &node()), ["eth0", "eth1", "eth2"]);
        assert_eq!(names(&["cni0", "cali99"], &[], &node()), ["cni0", "cali99"], "a full name does");
        assert_eq!(names(&["veth1234", "lo", "kube-ipvs0", "wg0"], &[], &node()), [""; 0], "these never");
    }

    #[test]
    fn a_bridge_that_leads_to_the_gateway_is_the_lan() {
        let mut links = node();
        links[1].default_route = false;
        links[1].addresses.clear();
        links[1].master = Some(12);
        links.push(RawLink { default_route: true, ..link(12, "br0", Some("bridge"), &["192.168.10.11/24"]) });
        assert_eq!(names(&[], &[], &links), ["eth1", "br0"]);
    }

    #[test]
    fn a_link_in_a_vrf_is_a_station_and_one_in_a_bond_is_not() {
        let mut links = node();
        links.push(link(20, "red", Some("vrf"), &[]));
        links.push(link(21, "bond0", Some("bond"), &["10.1.0.2/24"]));
        links[2].master = Some(20);
        links[3].master = Some(21);
        links[3].addresses = vec!["10.2.0.2/24".parse().unwrap()];
        assert_eq!(names(&[], &[], &links), ["eth0", "eth1", "bond0"]);
    }

    #[test]
    fn a_cloud_node_with_a_host_address_and_an_onlink_route_has_a_lan() {
        let links = [RawLink { default_route: true, ..link(2, "ens3", None, &["203.0.113.7/32"]) }];
        assert_eq!(names(&[], &[], &links), ["ens3"]);
    }

    #[test]
    fn a_link_is_watched_at_its_ipv4_address_if_it_has_one() {
        for (addresses, expected) in [
            (vec!["fe80::1/64", "fd00::1/64", "192.168.10.11/24"], Some("192.168.10.11")),
            (vec!["169.254.3.3/16", "fe80::1/64", "fd00::1/64"], Some("fd00::1")),
            (vec!["fe80::1/64"], Some("fe80::1")),
            (vec![], None),
        ] {
            let link = choose(&[link(1, "eth0", None, &addresses)], &["eth0".into()], &BTreeSet::new());
            assert_eq!(link[0].watched_at(), expected.map(|text| text.parse().unwrap()), "{addresses:?}");
        }
    }
}
