//! What a speaker writes into its own Speaker object. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use landfall_crds::names::conditions::{FIT, READY};
use landfall_crds::{Carrier, Interface, Peer, PeerState, SpeakerStatus, Warm, WarmState};

use super::conditions::{Says, condition};
use super::interfaces::is_subnet;
use super::netlink::Network;
use super::picture::{Picture, refusal_in_words};
use super::readiness::Readiness;
use crate::lan::{Link, is_global};
use crate::ownership::gates::Gates;

/// How much of each list the object holds; see the definition.
const INTERFACES: usize = 64;
const ADDRESSES: usize = 64;
const GATEWAYS: usize = 16;
const PEERS: usize = 1024;
const MISSING: usize = 16;
const MISSING_LENGTH: usize = 256;
/// How many refused addresses are named in the condition.
const NAMED: usize = 10;

/// The status to write, whole; nothing where the object says it already.
pub fn plan(
    known: Option<&SpeakerStatus>,
    network: &Network,
    picture: &Picture,
    readiness: &Readiness,
    now: Timestamp,
) -> Option<SpeakerStatus> {
    let before = known.cloned().unwrap_or_default();
    let missing = readiness.missing();
    let wanted = SpeakerStatus {
        interfaces: network.links.iter().take(INTERFACES).map(interface).collect(),
        gateways: network.gateways.iter().take(GATEWAYS).map(ToString::to_string).collect(),
        warm: Some(Warm {
            state: if missing.is_empty() { WarmState::Warm } else { WarmState::Warming },
            missing: missing.iter().take(MISSING).map(|text| cut(text, MISSING_LENGTH)).collect(),
        }),
        peers: peers(picture, &before.peers),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        conditions: vec![
            condition(READY, ready(network, picture, readiness), &before.conditions, now),
            condition(FIT, fit(readiness.gates), &before.conditions, now),
        ],
    };
    (known != Some(&wanted)).then_some(wanted)
}

fn interface(link: &Link) -> Interface {
    let mut subnets: Vec<String> =
        link.addresses.iter().filter(|net| is_subnet(net)).map(|net| net.trunc().to_string()).collect();
    let mut addresses: Vec<IpAddr> =
        link.addresses.iter().map(ipnet::IpNet::addr).filter(|address| is_global(*address)).collect();
    subnets.sort();
    subnets.dedup();
    addresses.sort();
    addresses.dedup();
    Interface {
        name: link.name.clone(),
        mac: link.mac.to_string(),
        subnets: subnets.into_iter().take(ADDRESSES).collect(),
        addresses: addresses.iter().take(ADDRESSES).map(ToString::to_string).collect(),
        carrier: if link.carrier { Carrier::Up } else { Carrier::Down },
        address: link.watched_at().map(|address| address.to_string()),
    }
}

/// The peers, each with the time of its last transition. A restart of this speaker is none, so a peer
/// that the object knows in the same state keeps its time.
fn peers(picture: &Picture, before: &[Peer]) -> Vec<Peer> {
    let peer =
        |((node, interface), (alive, since)): (&(crate::lan::NodeName, String), &(bool, Timestamp))| {
            let state = if *alive { PeerState::Alive } else { PeerState::Dead };
            let new =
                Peer { node: node.to_string(), interface: interface.clone(), state, since: Time(*since) };
            let same = |old: &&Peer| {
                old.node == new.node && old.interface == new.interface && old.state == new.state
            };
            before.iter().find(same).cloned().unwrap_or(new)
        };
    picture.peers.iter().take(PEERS).map(peer).collect()
}

fn ready(network: &Network, picture: &Picture, readiness: &Readiness) -> Says {
    let missing = readiness.missing();
    let failed: Vec<&str> =
        readiness.sockets.iter().flatten().map(|problem| problem.message.as_str()).collect();
    let refused = picture.refused();
    let works =
        |link: &&Link| !readiness.sockets.iter().flatten().any(|problem| problem.interface == link.name);
    let (status, reason, message) = if !readiness.network {
        (false, "Warming", missing.join("; "))
    } else if network.links.is_empty() {
        let message = "no interface with a subnet of its own leads to a LAN; set --interfaces \
                       (LANDFALL_INTERFACES) to the names of those to announce on"
            .to_owned();
        (false, "NoInterface", message)
    } else if !network.links.iter().any(|link| works(&link)) {
        (false, "SocketsFailed", failed.join("; "))
    } else if !network.links.iter().any(|link| link.carrier) {
        (false, "NoCarrier", format!("no carrier on {}: is the cable in, is the port up?", names(network)))
    } else if !missing.is_empty() {
        (false, "Warming", missing.join("; "))
    } else if !failed.is_empty() {
        (true, "SomeInterfacesFailed", failed.join("; "))
    } else if refused.is_empty() {
        (true, "CanAnnounce", format!("can announce on {}", names(network)))
    } else {
        let named = refused.iter().take(NAMED);
        let named: Vec<String> =
            named.map(|(address, why)| format!("{address}: {}", refusal_in_words(*why))).collect();
        let more = match refused.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        (true, "AddressRefused", format!("refuses to announce {}{more}", named.join("; ")))
    };
    Says { status, reason, message }
}

/// Whether the node has what it needs to serve what it announces.
fn fit(gates: Gates) -> Says {
    let Some(first) = gates.names().next() else {
        let message = "what comes in for the addresses that it announces is served".to_owned();
        return Says { status: true, reason: "AllGatesPass", message };
    };
    let mut lacks: Vec<&str> = Vec::new();
    for (gate, what) in [
        (
            Gates::PROXY,
            "kube-proxy on this node does not say that it is well (--kube-proxy-healthz, LANDFALL_KUBE_PROXY_HEALTHZ): \
             look at its pod; where there is no kube-proxy, set none",
        ),
        (Gates::COLD, "there is no complete list yet of what is to be announced"),
        (Gates::STALE, "the API server was not heard for a while, so that what is known may be outdated"),
    ] {
        if gates.contains(gate) {
            lacks.push(what);
        }
    }
    let message = format!("announces only what no better node can: {}", lacks.join("; "));
    Says { status: false, reason: first, message }
}

fn names(network: &Network) -> String {
    network.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn cut(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::picture::View;
    use crate::drivers::readiness::Known;
    use crate::drivers::sockets::Problem;
    use crate::lan::{LinkIndex, MacAddr};
    use crate::mind::Refusal;

    fn second(n: i64) -> Timestamp {
        Timestamp::from_second(n).unwrap()
    }

    fn network() -> Network {
        let link = |index, name: &str, addresses: &[&str]| Link {
            index: LinkIndex(index),
            name: name.into(),
            mac: MacAddr([2, 0, 0, 0, 0, index as u8]),
            carrier: true,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        Network {
            links: vec![
                link(2, "eth0", &["192.168.10.11/24", "192.168.10.12/24", "fe80::1/64", "fd00::11/64"]),
                link(3, "eth1", &["203.0.113.7/32"]),
            ],
            addresses: Vec::new(),
            gateways: vec!["192.168.10.1".parse().unwrap()],
        }
    }

    fn warm() -> Readiness {
        Readiness {
            links: 2,
            network: true,
            sockets: Some(Vec::new()),
            vips: Known::FromApi,
            peers: Known::FromApi,
            guards: Known::FromApi,
            filter: Some(crate::filter::Health::default()),
            ..Readiness::default()
        }
    }

    fn reason(network: &Network, picture: &Picture, readiness: &Readiness) -> (bool, &'static str, String) {
        let says = ready(network, picture, readiness);
        (says.status, says.reason, says.message)
    }

    #[test]
    fn interfaces_are_told_with_the_subnets_on_their_link() {
        let status = plan(None, &network(), &Picture::default(), &warm(), second(1)).unwrap();
        let [eth0, eth1] = status.interfaces.as_slice() else { panic!() };
        assert_eq!(eth0.subnets, ["192.168.10.0/24", "fd00::/64"]);
        assert_eq!(eth0.addresses, ["192.168.10.11", "192.168.10.12", "fd00::11"]);
        assert_eq!(eth0.address.as_deref(), Some("192.168.10.11"));
        assert_eq!((eth0.mac.as_str(), eth0.carrier), ("02:00:00:00:00:02", Carrier::Up));
        assert!(eth1.subnets.is_empty(), "a host address has no subnet");
        assert_eq!(status.gateways, ["192.168.10.1"]);
        assert_eq!(status.warm.unwrap().state, WarmState::Warm);
    }

    #[test]
    fn the_same_is_not_written_twice_and_a_restart_is_no_transition() {
        let mut picture = Picture::default();
        picture.peers.insert(("n2".into(), "eth0".into()), (true, second(5)));
        let status = plan(None, &network(), &picture, &warm(), second(10)).unwrap();
        assert_eq!(plan(Some(&status), &network(), &picture, &warm(), second(20)), None);
        picture.peers.insert(("n2".into(), "eth0".into()), (true, second(30)));
        assert_eq!(plan(Some(&status), &network(), &picture, &warm(), second(40)), None);
        picture.peers.insert(("n2".into(), "eth0".into()), (false, second(50)));
        let dead = plan(Some(&status), &network(), &picture, &warm(), second(60)).unwrap();
        assert_eq!((dead.peers[0].state, dead.peers[0].since.0), (PeerState::Dead, second(50)));
        assert_eq!(dead.conditions, status.conditions);
    }

    #[test]
    fn a_node_that_lacks_something_says_what() {
        let says = fit(Gates::NONE);
        assert_eq!((says.status, says.reason), (true, "AllGatesPass"));
        let says = fit(Gates::PROXY.with(Gates::STALE));
        assert_eq!((says.status, says.reason), (false, "ProxyNotHealthy"));
        assert!(says.message.contains("no better node") && says.message.contains("API server"), "{says:?}");
    }

    #[test]
    fn a_speaker_that_cannot_announce_says_why() {
        let none = Picture::default();
        let problem = |interface: &str| Problem {
            interface: interface.into(),
            message: format!("cannot open a raw socket on {interface}: Operation not permitted"),
        };
        let (status, word, message) = reason(&Network::default(), &none, &warm());
        assert_eq!((status, word), (false, "NoInterface"));
        assert!(message.contains("--interfaces"), "{message}");
        let (status, word, _) = reason(&Network::default(), &none, &Readiness::default());
        assert_eq!((status, word), (false, "Warming"), "no verdict before the network is known");
        let all = Readiness { sockets: Some(vec![problem("eth0"), problem("eth1")]), ..warm() };
        assert_eq!(reason(&network(), &none, &all).1, "SocketsFailed");
        let one = Readiness { sockets: Some(vec![problem("eth1")]), ..warm() };
        let (status, word, message) = reason(&network(), &none, &one);
        assert_eq!((status, word), (true, "SomeInterfacesFailed"));
        assert!(message.contains("eth1"), "{message}");
        let mut dark = network();
        dark.links.iter_mut().for_each(|link| link.carrier = false);
        assert_eq!(reason(&dark, &none, &warm()).1, "NoCarrier");
        let waiting = Readiness { vips: Known::NotYet, ..warm() };
        assert_eq!(reason(&network(), &none, &waiting).1, "Warming");
        assert_eq!(
            reason(&network(), &none, &warm()),
            (true, "CanAnnounce", "can announce on eth0, eth1".into())
        );
    }

    #[test]
    fn refused_addresses_are_named() {
        let mut picture = Picture::default();
        let view = View { refused: Some((Refusal::GatewayAddress, second(1))), ..View::default() };
        picture.addresses.insert("192.168.10.1".parse().unwrap(), view);
        let (status, word, message) = reason(&network(), &picture, &warm());
        assert_eq!((status, word), (true, "AddressRefused"));
        assert_eq!(message, "refuses to announce 192.168.10.1: it is a gateway of this node");
    }
}
