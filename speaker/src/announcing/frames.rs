//! The frames that are sent of one's own accord, each for IPv4 (ARP) and IPv6 (neighbour discovery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Action;
use crate::lan::{LinkIndex, MacAddr, NodeName};
use crate::mind::facts::Facts;
use crate::wire::arp::{ArpRepr, Operation};
use crate::wire::ethernet::EmittedFrame;
use crate::wire::ndp::{ALL_NODES, Message, NdpRepr, multicast_mac, solicited_node_group};

/// Tells everybody that the address is here.
///
/// For IPv4 these are a request and a reply, since some stations heed only one of them: to Linux a reply
/// is gratuitous only if its target hardware address is the sender's (RFC 5944 section 4.6), while in a
/// request that field means nothing. For IPv6 it is an advertisement to all nodes that overrides what
/// they cached (RFC 4861 section 7.2.6).
pub(super) fn gratuitous<'a>(
    facts: &Facts,
    address: IpAddr,
    links: impl Iterator<Item = &'a LinkIndex>,
    out: &mut Vec<Action>,
) {
    for link in links {
        let Some(mac) = facts.link(*link).map(|link| link.mac) else { continue };
        match address {
            IpAddr::V4(address) => {
                for (operation, tha) in [(Operation::Request, MacAddr::ZERO), (Operation::Reply, mac)] {
                    let packet = ArpRepr { operation, sha: mac, spa: address, tha, tpa: address };
                    out.push(Action::Send(*link, packet.emit_frame(MacAddr::BROADCAST)));
                }
            }
            IpAddr::V6(address) => {
                out.push(Action::Send(
                    *link,
                    advertisement(address, mac, ALL_NODES, false).emit_frame(mac, multicast_mac(ALL_NODES)),
                ));
            }
        }
    }
}

/// Asks whether any station uses the address, without saying that this one would (RFC 5227 section 1.1,
/// RFC 4862 section 5.4.2). A speaker that announces it answers, too.
pub(super) fn ask(facts: &Facts, address: IpAddr, links: &[LinkIndex], out: &mut Vec<Action>) {
    for link in links {
        let Some(mac) = facts.link(*link).map(|link| link.mac) else { continue };
        let frame = match address {
            IpAddr::V4(address) => {
                who_has(mac, Ipv4Addr::UNSPECIFIED, address).emit_frame(MacAddr::BROADCAST)
            }
            IpAddr::V6(address) => {
                let group = solicited_node_group(address);
                let message = Message::Solicitation { target: address, source_mac: None };
                NdpRepr { source: Ipv6Addr::UNSPECIFIED, destination: group, message }
                    .emit_frame(mac, multicast_mac(group))
            }
        };
        out.push(Action::Send(*link, frame));
    }
}

/// Asks a peer's kernel for the node's own address, by unicast to the hardware address that its speaker
/// told, so that nobody else is asked, and nobody but this host can answer (RFC 1122 section 2.3.2.1,
/// RFC 4861 section 7.3.3).
pub(super) fn ask_peer(facts: &Facts, index: LinkIndex, node: &NodeName, out: &mut Vec<Action>) {
    let Some(link) = facts.link(index) else { return };
    let Some(target) = facts.peer_address(index, node) else { return };
    let Some(mac) = facts.peer_mac(node, target) else { return };
    let Some(own) = link.addresses.iter().find(|own| own.contains(&target)) else { return };
    out.extend(who_is(link.mac, own.addr(), target, mac).map(|frame| Action::Send(index, frame)));
}

/// A question of the station `own` to a station whose hardware address is known.
pub(super) fn who_is(from: MacAddr, own: IpAddr, target: IpAddr, mac: MacAddr) -> Option<EmittedFrame> {
    match (own, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => Some(who_has(from, own, target).emit_frame(mac)),
        (IpAddr::V6(own), IpAddr::V6(target)) => {
            let message = Message::Solicitation { target, source_mac: Some(from) };
            Some(NdpRepr { source: own, destination: target, message }.emit_frame(from, mac))
        }
        _ => None,
    }
}

/// A request for the hardware address of `target`.
pub(super) fn who_has(mac: MacAddr, source: Ipv4Addr, target: Ipv4Addr) -> ArpRepr {
    ArpRepr { operation: Operation::Request, sha: mac, spa: source, tha: MacAddr::ZERO, tpa: target }
}

/// An advertisement of `address`, which overrides what its receivers cached.
pub(super) fn advertisement(address: Ipv6Addr, mac: MacAddr, to: Ipv6Addr, solicited: bool) -> NdpRepr {
    NdpRepr {
        source: address,
        destination: to,
        message: Message::Advertisement {
            target: address,
            target_mac: Some(mac),
            router: false,
            solicited,
            overrides: true,
        },
    }
}
