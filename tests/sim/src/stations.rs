//! Stations that are no speakers: a client with a warm cache, an observer that asks, and the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use landfall_speaker::lan::MacAddr;
use landfall_speaker::wire::arp::{ArpRepr, Operation};
use landfall_speaker::wire::ethernet::{ETHER_TYPE_ARP, ETHER_TYPE_IPV6, Frame};
use landfall_speaker::wire::ndp::{Message, NdpRepr, multicast_mac, solicited_node_group};

use crate::node::{GATEWAY, GATEWAY6};
use crate::world::ms;

const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 254]);

/// A station with both addresses.
struct Station {
    mac: MacAddr,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

const CLIENT: Station = Station {
    mac: MacAddr([2, 0, 0, 0, 1, 1]),
    v4: Ipv4Addr::new(10, 0, 200, 1),
    v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 200, 1),
};
const OBSERVER: Station = Station {
    mac: MacAddr([2, 0, 0, 0, 1, 2]),
    v4: Ipv4Addr::new(10, 0, 200, 2),
    v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 200, 2),
};

/// The stations.
#[derive(Default)]
pub struct Stations {
    /// The addresses that the client uses. Once it has an entry it never asks again, so that only
    /// gratuitous frames can correct it.
    pub used: BTreeSet<IpAddr>,
    cache: BTreeMap<IpAddr, MacAddr>,
    asked: BTreeMap<IpAddr, Instant>,
    /// Whether the observer asks all the time who has the addresses.
    pub observes: bool,
    question: BTreeMap<IpAddr, BTreeSet<MacAddr>>,
    /// When one question got answers from two nodes.
    pub double_answers: Vec<(Instant, IpAddr)>,
    pub answers: u64,
}

/// What a frame says of who has an address.
struct Says {
    address: IpAddr,
    mac: MacAddr,
    /// It answers the station that it is sent to.
    is_answer: bool,
    /// It is for everybody who knows the address, as Linux sees it.
    is_gratuitous: bool,
}

impl Stations {
    /// Where the client sends packets for an address to.
    pub fn cached(&self, address: IpAddr) -> Option<MacAddr> {
        self.cache.get(&address).copied()
    }

    /// What the stations ask now.
    pub fn ask(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for address in &self.used {
            let lately = self.asked.get(address).is_some_and(|at| now < *at + ms(1000));
            if !self.cache.contains_key(address) && !lately {
                self.asked.insert(*address, now);
                frames.push(request(&CLIENT, *address));
            }
        }
        if self.observes {
            self.question.clear();
            frames.extend(self.used.iter().map(|address| request(&OBSERVER, *address)));
        }
        frames
    }

    /// Takes in a frame; what the stations answer.
    pub fn hear(&mut self, now: Instant, bytes: &[u8], has_gateway: bool) -> Vec<Vec<u8>> {
        let frame = Frame::new_checked(bytes).unwrap();
        let is_for = |mac: MacAddr| frame.destination() == mac || frame.destination().is_multicast();
        if let Some(says) = says(&frame) {
            // As Linux: a known entry is updated by anything gratuitous, an asked one is made by its answer.
            if is_for(CLIENT.mac)
                && (says.is_answer && frame.destination() == CLIENT.mac
                    || says.is_gratuitous && self.cache.contains_key(&says.address))
            {
                self.cache.insert(says.address, says.mac);
            }
            if frame.destination() == OBSERVER.mac && says.is_answer {
                self.answers += 1;
                let from = self.question.entry(says.address).or_default();
                from.insert(says.mac);
                if from.len() > 1 {
                    self.double_answers.push((now, says.address));
                }
            }
        }
        if has_gateway && is_for(GATEWAY_MAC) { gateway(&frame).into_iter().collect() } else { Vec::new() }
    }
}

fn says(frame: &Frame<'_>) -> Option<Says> {
    match frame.ether_type() {
        ETHER_TYPE_ARP => {
            let packet = ArpRepr::parse_frame(frame).ok()?;
            let is_reply = packet.operation == Operation::Reply;
            let is_gratuitous = packet.spa == packet.tpa && (!is_reply || packet.tha == packet.sha);
            (!packet.spa.is_unspecified()).then_some(Says {
                address: packet.spa.into(),
                mac: packet.sha,
                is_answer: is_reply,
                is_gratuitous,
            })
        }
        ETHER_TYPE_IPV6 => {
            let packet = NdpRepr::parse_frame(frame).ok()?;
            let Message::Advertisement { target, target_mac, solicited, overrides, .. } = packet.message
            else {
                return None;
            };
            let mac = target_mac?;
            Some(Says { address: target.into(), mac, is_answer: solicited, is_gratuitous: overrides })
        }
        _ => None,
    }
}

/// What the gateway answers.
fn gateway(frame: &Frame<'_>) -> Option<Vec<u8>> {
    match frame.ether_type() {
        ETHER_TYPE_ARP => {
            let packet = ArpRepr::parse_frame(frame).ok()?;
            let asks = packet.operation == Operation::Request && packet.tpa == GATEWAY;
            let answer = ArpRepr {
                operation: Operation::Reply,
                sha: GATEWAY_MAC,
                spa: GATEWAY,
                tha: packet.sha,
                tpa: packet.spa,
            };
            asks.then(|| answer.emit_frame(packet.sha).to_vec())
        }
        ETHER_TYPE_IPV6 => {
            let packet = NdpRepr::parse_frame(frame).ok()?;
            let Message::Solicitation { target: GATEWAY6, source_mac: Some(asker) } = packet.message else {
                return None;
            };
            let message = Message::Advertisement {
                target: GATEWAY6,
                target_mac: Some(GATEWAY_MAC),
                router: true,
                solicited: true,
                overrides: true,
            };
            let answer = NdpRepr { source: GATEWAY6, destination: packet.source, message };
            Some(answer.emit_frame(GATEWAY_MAC, asker).to_vec())
        }
        _ => None,
    }
}

fn request(station: &Station, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(tpa) => {
            let (sha, spa) = (station.mac, station.v4);
            ArpRepr { operation: Operation::Request, sha, spa, tha: MacAddr::ZERO, tpa }
                .emit_frame(MacAddr::BROADCAST)
                .to_vec()
        }
        IpAddr::V6(target) => {
            let group = solicited_node_group(target);
            let message = Message::Solicitation { target, source_mac: Some(station.mac) };
            NdpRepr { source: station.v6, destination: group, message }
                .emit_frame(station.mac, multicast_mac(group))
                .to_vec()
        }
    }
}
