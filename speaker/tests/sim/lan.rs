//! How frames and datagrams get from station to station, if they do.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use landfall_speaker::lan::{LinkIndex, MacAddr};
use landfall_speaker::mind::Event;
use landfall_speaker::wire::arp::{ArpRepr, Operation};
use landfall_speaker::wire::ethernet::Frame;

use crate::world::{BACKBONE, LAN, Node, Port, What, World};

impl World {
    pub fn send_datagram(&mut self, number: usize, link: LinkIndex, to: IpAddr, payload: Vec<u8>) {
        if self.drops_datagrams {
            return;
        }
        let address = |node: &Node| if link == LAN { node.address } else { backbone_address(node.address) };
        let from = address(&self.nodes[number]);
        let receiver = self.nodes.iter().position(|node| address(node) == to).unwrap();
        let passes = if link == LAN {
            self.passes(Some(number), Some(receiver))
        } else {
            let dark = self.nodes[number].backbone_dark || self.nodes[receiver].backbone_dark;
            (!dark).then(|| self.now + Duration::from_micros(80 + self.random(400)))
        };
        let Some(at) = passes else { return };
        if self.nodes[receiver].mind.is_some() {
            let event = Event::Datagram { link, at, from, ttl: 255, payload };
            self.schedule(at, What::Deliver(receiver, event));
        } else if link == LAN
            && let Some(back) = self.passes(Some(receiver), Some(number))
        {
            // The kernel lives without the process, and says that nobody listens.
            let event = Event::NobodyListens { link, to };
            self.schedule(at + (back - self.now), What::Deliver(number, event));
        }
    }

    pub fn carry_from_station(&mut self, frame: &[u8]) {
        self.carry(None, frame);
    }

    /// Carries a frame to everybody who is to have it. Clients and gateway sit on ports that never fail.
    pub fn carry(&mut self, from: Option<usize>, frame: &[u8]) {
        let destination = MacAddr(frame[0..6].try_into().unwrap());
        let receivers: Vec<usize> = match self.macs.get(&destination) {
            Some(number) => vec![*number],
            None if destination.is_multicast() => (0..self.nodes.len()).collect(),
            None => Vec::new(),
        };
        for receiver in receivers.into_iter().filter(|receiver| Some(*receiver) != from) {
            if let Some(at) = self.passes(from, Some(receiver)) {
                self.schedule(
                    at,
                    What::Deliver(receiver, Event::Frame { link: LAN, at, frame: frame.to_vec() }),
                );
                self.ask_kernel(at, receiver, LAN, frame);
            }
        }
        if from.is_some()
            && !self.macs.contains_key(&destination)
            && let Some(at) = self.passes(from, None)
        {
            self.schedule(at, What::ToStation(frame.to_vec()));
        }
    }

    /// Carries a frame between two nodes on the second LAN, on which there is nobody else.
    pub fn carry_on_backbone(&mut self, from: usize, frame: &[u8]) {
        let destination = MacAddr(frame[0..6].try_into().unwrap());
        let receiver = self.nodes.iter().position(|node| backbone_mac(node.mac) == destination);
        let Some(receiver) = receiver else { return };
        if self.nodes[from].backbone_dark || self.nodes[receiver].backbone_dark {
            return;
        }
        let at = self.now + Duration::from_micros(80 + self.random(400));
        let event = Event::Frame { link: BACKBONE, at, frame: frame.to_vec() };
        self.schedule(at, What::Deliver(receiver, event));
        self.ask_kernel(at, receiver, BACKBONE, frame);
    }

    /// A question for the node's own address is answered by its kernel.
    fn ask_kernel(&mut self, at: Instant, receiver: usize, link: LinkIndex, frame: &[u8]) {
        let Ok(question) = Frame::new_checked(frame).and_then(|frame| ArpRepr::parse_frame(&frame)) else {
            return;
        };
        let own = self.nodes[receiver].address;
        let own = if link == LAN { own } else { backbone_address(own) };
        if question.operation == Operation::Request && IpAddr::V4(question.tpa) == own {
            self.schedule(at, What::Kernel(receiver, link, question));
        }
    }

    /// The kernel of a node answers a question for the node's own address.
    pub fn answer_as_kernel(&mut self, number: usize, link: LinkIndex, question: &ArpRepr) {
        let mac = self.nodes[number].mac;
        let sha = if link == LAN { mac } else { backbone_mac(mac) };
        let (spa, tha, tpa) = (question.tpa, question.sha, question.spa);
        let answer = ArpRepr { operation: Operation::Reply, sha, spa, tha, tpa }.emit_frame(tha);
        if link == LAN {
            self.carry(Some(number), &answer);
        } else {
            self.carry_on_backbone(number, &answer);
        }
    }

    /// When something sent now arrives, if it does. Stations that are no node are on the first island.
    pub fn passes(&mut self, from: Option<usize>, to: Option<usize>) -> Option<Instant> {
        let clean = Port { dark: false, island: 0, loss_in: 0.0, loss_out: 0.0 };
        let port = |node: Option<usize>| node.map_or(&clean, |number| &self.nodes[number].port).clone();
        let (out, into) = (port(from), port(to));
        let is_cut = |(a, b): &(usize, usize)| {
            (from, to) == (Some(*a), Some(*b)) || (from, to) == (Some(*b), Some(*a))
        };
        if self.cuts.iter().any(is_cut) {
            return None;
        }
        let carries = |node: Option<usize>| node.is_none_or(|number| self.nodes[number].carrier);
        if out.dark || into.dark || out.island != into.island || !carries(from) || !carries(to) {
            return None;
        }
        let mut is_lost = |share: f64| share > 0.0 && (self.random(1_000_000) as f64) < share * 1e6;
        if is_lost(out.loss_out) || is_lost(into.loss_in) {
            return None;
        }
        Some(self.now + Duration::from_micros(80 + self.random(400)))
    }
}

pub fn backbone_mac(MacAddr([a, b, c, d, _, last]): MacAddr) -> MacAddr {
    MacAddr([a, b, c, d, 7, last])
}

pub fn backbone_address(address: IpAddr) -> IpAddr {
    let IpAddr::V4(address) = address else { panic!("the pretend LAN speaks IPv4") };
    Ipv4Addr::from_bits(address.to_bits() | 0x0001_0000).into()
}
