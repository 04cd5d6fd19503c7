//! Stations that are no speakers: a client with a warm cache, an observer that asks, and the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use landfall_speaker::lan::MacAddr;
use landfall_speaker::wire::arp::{ArpRepr, Operation};
use landfall_speaker::wire::ethernet::Frame;

use crate::world::{GATEWAY, ms};

const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 254]);
const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 200, 1);
const OBSERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
const OBSERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 200, 2);

/// The stations.
#[derive(Default)]
pub struct Clients {
    /// The addresses that the client uses. Once it has an entry it never asks again, so that only
    /// gratuitous frames can correct it.
    pub used: BTreeSet<IpAddr>,
    cache: BTreeMap<IpAddr, MacAddr>,
    asked: BTreeMap<IpAddr, Instant>,
    /// Whether the observer asks all the time who has the addresses.
    pub observes: bool,
    question: Option<(Instant, BTreeMap<IpAddr, BTreeSet<MacAddr>>)>,
    /// When one question got answers from two nodes.
    pub double_answers: Vec<(Instant, IpAddr)>,
    pub answers: u64,
}

impl Clients {
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
                frames.push(request(CLIENT_MAC, CLIENT, *address));
            }
        }
        if self.observes {
            self.question = Some((now, BTreeMap::new()));
            frames.extend(self.used.iter().map(|address| request(OBSERVER_MAC, OBSERVER, *address)));
        }
        frames
    }

    /// Takes in a frame; what the stations answer.
    pub fn hear(&mut self, now: Instant, bytes: &[u8], has_gateway: bool) -> Vec<Vec<u8>> {
        let frame = Frame::new_checked(bytes).unwrap();
        let Ok(packet) = ArpRepr::parse_frame(&frame) else { return Vec::new() };
        let is_for = |mac: MacAddr| frame.destination() == mac || frame.destination().is_multicast();
        let sender = IpAddr::V4(packet.spa);
        if is_for(CLIENT_MAC) && !packet.spa.is_unspecified() {
            // As Linux: a known entry is updated by anything gratuitous, an asked one is made by its answer.
            let is_gratuitous = packet.spa == packet.tpa
                && (packet.operation == Operation::Request || packet.tha == packet.sha);
            let is_answer = packet.operation == Operation::Reply && packet.tpa == CLIENT;
            if is_answer || (is_gratuitous && self.cache.contains_key(&sender)) {
                self.cache.insert(sender, packet.sha);
            }
        }
        if frame.destination() == OBSERVER_MAC && packet.operation == Operation::Reply {
            self.answers += 1;
            if let Some((_, answers)) = &mut self.question {
                let from = answers.entry(sender).or_default();
                from.insert(packet.sha);
                if from.len() > 1 {
                    self.double_answers.push((now, sender));
                }
            }
        }
        let gateway: Ipv4Addr = GATEWAY.parse().unwrap();
        if has_gateway
            && packet.operation == Operation::Request
            && packet.tpa == gateway
            && is_for(GATEWAY_MAC)
        {
            let answer = ArpRepr {
                operation: Operation::Reply,
                sha: GATEWAY_MAC,
                spa: gateway,
                tha: packet.sha,
                tpa: packet.spa,
            };
            return vec![answer.emit_frame(packet.sha).to_vec()];
        }
        Vec::new()
    }
}

fn request(mac: MacAddr, from: Ipv4Addr, address: IpAddr) -> Vec<u8> {
    let IpAddr::V4(tpa) = address else { panic!("the pretend LAN speaks IPv4") };
    let packet = ArpRepr { operation: Operation::Request, sha: mac, spa: from, tha: MacAddr::ZERO, tpa };
    packet.emit_frame(MacAddr::BROADCAST).to_vec()
}
