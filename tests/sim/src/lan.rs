//! How frames and datagrams get from station to station, if they do.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use landfall_speaker::lan::{LinkIndex, MacAddr};
use landfall_speaker::mind::Event;
use landfall_speaker::seal::Ends;
use landfall_speaker::wire::arp::{ArpRepr, Operation};
use landfall_speaker::wire::ethernet::{ETHER_TYPE_ARP, ETHER_TYPE_IPV6, Frame};
use landfall_speaker::wire::ndp::{Message, NdpRepr};

use crate::node::Power;
use crate::process::Input;
use crate::random::draw;
use crate::world::{What, World};

/// The LANs that there are at most.
pub const LANS: usize = 2;
/// The least and the most that anything is under way on a LAN where nothing is wrong.
const FASTEST: Duration = Duration::from_micros(80);
const JITTER: Duration = Duration::from_micros(400);
/// What comes in for a machine that is paused waits, as far as its network card has room.
const CARD_HOLDS: usize = 256;

/// A port of a switch, and all that can be wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Nothing passes, though the carrier stays.
    pub dark: bool,
    /// Whether the node sees that the cable is in.
    pub carrier: bool,
    /// Stations of different islands do not hear each other.
    pub island: u8,
    /// What share of frames to the station is lost.
    pub loss_in: f64,
    /// What share of frames from the station is lost.
    pub loss_out: f64,
    /// What share of frames to the station comes twice.
    pub twice: f64,
    /// Each frame from the station takes up to so much longer.
    pub delay: Duration,
}

impl Default for Port {
    fn default() -> Self {
        Self {
            dark: false,
            carrier: true,
            island: 0,
            loss_in: 0.0,
            loss_out: 0.0,
            twice: 0.0,
            delay: Duration::ZERO,
        }
    }
}

/// How well one station hears another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hearing {
    Never,
    /// Some of what is sent is lost, or comes late.
    Sometimes,
    Always,
}

/// A question to a node's kernel for the node's own address.
#[derive(Clone, Debug)]
pub enum Question {
    Arp(ArpRepr),
    Ndp(NdpRepr),
}

impl World {
    /// How well `to` hears `from`; a station that is no node is on a port of the first island that never fails.
    pub fn hearing(&self, lan: usize, from: Option<usize>, to: Option<usize>) -> Hearing {
        let port = |node: Option<usize>| node.map(|number| &self.nodes[number].ports[lan]);
        let (out, into) = (port(from), port(to));
        if lan == 0
            && let (Some(from), Some(to)) = (from, to)
            && self.cuts.contains(&(from, to))
        {
            return Hearing::Never;
        }
        let is_dead = |port: &Port| port.dark || !port.carrier;
        let island = |port: Option<&Port>| port.map_or(0, |port| port.island);
        if out.is_some_and(is_dead) || into.is_some_and(is_dead) || island(out) != island(into) {
            return Hearing::Never;
        }
        let (loss_out, loss_in) =
            (out.map_or(0.0, |port| port.loss_out), into.map_or(0.0, |port| port.loss_in));
        if loss_out >= 1.0 || loss_in >= 1.0 {
            Hearing::Never
        } else if loss_out + loss_in > 0.0 || out.is_some_and(|port| port.delay > Duration::ZERO) {
            Hearing::Sometimes
        } else {
            Hearing::Always
        }
    }

    /// When something sent now arrives, if it does.
    pub fn passes(&mut self, lan: usize, from: Option<usize>, to: Option<usize>) -> Option<Instant> {
        let hearing = self.hearing(lan, from, to);
        if hearing == Hearing::Never {
            return None;
        }
        self.sent += 1;
        self.together =
            if self.together.0 == self.now { (self.now, self.together.1 + 1) } else { (self.now, 0) };
        let number = |node: Option<usize>| node.map_or(99, |number| number as u64);
        let ends = number(from) << 16 | number(to) << 8 | lan as u64;
        let nanos = (self.now - self.start).as_nanos() as u64;
        let chance = draw([self.seed, ends, nanos, self.together.1]);
        let jitter = Duration::from_nanos(chance % JITTER.as_nanos() as u64);
        let mut at = self.now + FASTEST + jitter;
        if hearing == Hearing::Sometimes {
            let port = |node: Option<usize>| node.map(|number| &self.nodes[number].ports[lan]);
            let (out, into) = (port(from), port(to));
            let share = |bits: u64| (bits & 0xffff) as f64 / 65536.0;
            if out.is_some_and(|port| share(chance >> 16) < port.loss_out)
                || into.is_some_and(|port| share(chance >> 32) < port.loss_in)
            {
                self.lost += 1;
                return None;
            }
            let longest = out.map_or(Duration::ZERO, |port| port.delay);
            at += longest.mul_f64(share(chance >> 48));
        }
        Some(at)
    }

    /// Whether what arrives at a node comes twice.
    fn comes_twice(&self, lan: usize, to: usize) -> bool {
        let share = self.nodes[to].ports[lan].twice;
        let nanos = (self.now - self.start).as_nanos() as u64;
        share > 0.0
            && (draw([self.seed, nanos, self.together.1, to as u64]) & 0xffff) as f64 / 65536.0 < share
    }

    pub fn send_datagram(&mut self, number: usize, link: LinkIndex, to: IpAddr, payload: Vec<u8>) {
        if self.drops_datagrams {
            return;
        }
        let lan = lan_of(link);
        let families = self.families;
        let is_at =
            |node: usize, address: IpAddr| self.nodes[node].addresses_on(lan, families).contains(&address);
        let Some(receiver) = (0..self.nodes.len()).find(|node| is_at(*node, to)) else { return };
        let own = self.nodes[number].addresses_on(lan, families);
        let Some(from) = own.into_iter().find(|own| own.is_ipv4() == to.is_ipv4()) else { return };
        // A process seals with the keys that it was told of last.
        let keys = self.nodes[number].keys.clone();
        for payload in self.nodes[number].version.says(payload, Ends { from, to }, keys.as_ref()) {
            let Some(at) = self.passes(lan, Some(number), Some(receiver)) else { continue };
            let event = Event::Datagram { link, at, from, ttl: 255, payload };
            if self.comes_twice(lan, receiver) {
                self.schedule(at + JITTER, What::Deliver(receiver, event.clone(), number));
            }
            self.schedule(at, What::Deliver(receiver, event, number));
        }
    }

    /// Something of the LAN comes to a node.
    pub fn deliver(&mut self, number: usize, event: Event, from: usize) {
        let node = &mut self.nodes[number];
        if node.process.is_some() || node.heir.is_some() {
            match &event {
                Event::Datagram { payload, .. } if !node.version.hears(payload) => return,
                _ => {}
            }
            self.arrive(number, Input::Mind(event));
            return;
        }
        // The kernel lives without the process, and says that nobody listens.
        let Event::Datagram { link, from: back_to, .. } = event else { return };
        if node.power != Power::On || !node.tells_unreachable(self.now, from) {
            return;
        }
        let (lan, own) = (lan_of(link), node.addresses_on(lan_of(link), self.families));
        let Some(to) = own.into_iter().find(|own| own.is_ipv4() == back_to.is_ipv4()) else { return };
        if let Some(at) = self.passes(lan, Some(number), Some(from)) {
            self.schedule(at, What::Deliver(from, Event::NobodyListens { link, to }, number));
        }
    }

    /// Carries a frame to everybody who is to have it. On the second LAN there are only nodes.
    pub fn carry(&mut self, lan: usize, from: Option<usize>, frame: &[u8]) {
        let destination = MacAddr(frame[0..6].try_into().unwrap());
        let to = self.node_with(lan, destination);
        let question = self.question(frame);
        for receiver in 0..self.nodes.len() {
            let is_for = to.map_or(destination.is_multicast(), |to| to == receiver);
            if !is_for || Some(receiver) == from || self.nodes[receiver].power == Power::Off {
                continue;
            }
            let Some(at) = self.passes(lan, from, Some(receiver)) else { continue };
            let event = Event::Frame { link: link_of(lan), at, frame: frame.to_vec() };
            if self.comes_twice(lan, receiver) {
                self.schedule(
                    at + JITTER,
                    What::Deliver(receiver, event.clone(), from.unwrap_or(usize::MAX)),
                );
            }
            if self.nodes[receiver].process.is_some() || self.nodes[receiver].heir.is_some() {
                self.schedule(at, What::Deliver(receiver, event, from.unwrap_or(usize::MAX)));
            }
            if let Some((question, target)) = &question
                && self.nodes[receiver].addresses_on(lan, self.families).contains(target)
            {
                self.schedule(at, What::Kernel(receiver, lan, question.clone()));
            }
        }
        if lan == 0
            && from.is_some()
            && to.is_none()
            && let Some(at) = self.passes(lan, from, None)
        {
            self.schedule(at, What::ToStation(frame.to_vec()));
        }
    }

    fn node_with(&self, lan: usize, MacAddr([a, b, c, d, e, last]): MacAddr) -> Option<usize> {
        let is_node = [a, b, c, d, e] == [2, 0, 0, 0, if lan == 0 { 0 } else { 7 }];
        let number = usize::from(last).checked_sub(1).filter(|_| is_node)?;
        (number < self.nodes.len()).then_some(number)
    }

    /// The question for an address that a frame is, if it is one.
    fn question(&self, bytes: &[u8]) -> Option<(Question, IpAddr)> {
        let frame = Frame::new_checked(bytes).ok()?;
        match frame.ether_type() {
            ETHER_TYPE_ARP => {
                let packet = ArpRepr::parse_frame(&frame).ok()?;
                (packet.operation == Operation::Request && packet.spa != packet.tpa)
                    .then_some((Question::Arp(packet), packet.tpa.into()))
            }
            ETHER_TYPE_IPV6 => {
                let packet = NdpRepr::parse_frame(&frame).ok()?;
                match packet.message {
                    Message::Solicitation { target, source_mac: Some(_) } => {
                        Some((Question::Ndp(packet), target.into()))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// A question for the node's own address comes to its kernel, which answers whatever its speaker does.
    pub fn ask_kernel(&mut self, number: usize, lan: usize, question: Question) {
        match self.nodes[number].power {
            Power::Off => {}
            Power::Paused => {
                let waiting = &mut self.nodes[number].kernel_waiting;
                if waiting.len() < CARD_HOLDS {
                    waiting.push((lan, question));
                }
            }
            Power::On => {
                let own = self.nodes[number].mac_on(lan);
                let answer = match question {
                    Question::Arp(question) => {
                        let (spa, tha, tpa) = (question.tpa, question.sha, question.spa);
                        ArpRepr { operation: Operation::Reply, sha: own, spa, tha, tpa }
                            .emit_frame(tha)
                            .to_vec()
                    }
                    Question::Ndp(question) => {
                        let Message::Solicitation { target, source_mac: Some(asker) } = question.message
                        else {
                            return;
                        };
                        let message = Message::Advertisement {
                            target,
                            target_mac: Some(own),
                            router: false,
                            solicited: true,
                            overrides: true,
                        };
                        let answer = NdpRepr { source: target, destination: question.source, message };
                        answer.emit_frame(own, asker).to_vec()
                    }
                };
                self.carry(lan, Some(number), &answer);
            }
        }
    }
}

pub fn lan_of(link: LinkIndex) -> usize {
    link.0 as usize - 2
}

pub fn link_of(lan: usize) -> LinkIndex {
    LinkIndex(lan as u32 + 2)
}
