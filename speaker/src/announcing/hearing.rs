//! What comes in from the LAN: questions that are answered, and words of others that bear on us.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::{Action, Announcing, Heard, frames, stations};
use crate::lan::{LinkIndex, MacAddr};
use crate::mind::counters::Counters;
use crate::mind::facts::{Facts, Station};
use crate::wire::WireError;
use crate::wire::arp::{ArpRepr, Operation};
use crate::wire::ethernet::{ETHER_TYPE_ARP, ETHER_TYPE_IPV6, Frame};
use crate::wire::ndp::{ALL_NODES, Message, NdpRepr, multicast_mac};

/// The circumstances of a frame.
#[derive(Clone, Copy)]
struct Scene<'a> {
    now: Instant,
    facts: &'a Facts,
    link: LinkIndex,
    /// It is too late to answer.
    is_stale: bool,
    /// This node's hardware address there.
    own: MacAddr,
    /// The frame's source.
    from: MacAddr,
}

impl Announcing {
    pub(super) fn hear(
        &mut self,
        now: Instant,
        facts: &Facts,
        heard: Heard<'_>,
        counters: &mut Counters,
        out: &mut Vec<Action>,
    ) {
        let Heard { link, at, is_stale, frame: bytes } = heard;
        counters.frames_received += 1;
        let Some(own) = facts.link(link).map(|link| link.mac) else { return };
        let heard = Frame::new_checked(bytes).and_then(|frame| {
            let (source, destination) = (frame.source(), frame.destination());
            if source.is_multicast() || facts.station(source) == Station::Own {
                counters.frames_own += 1;
                return Ok(());
            }
            if let Station::Speaker(node) = facts.station(source) {
                out.push(Action::PeerSeen(link, at, node));
            }
            out.push(Action::Station(link, at));
            if !destination.is_multicast() && destination != own {
                // It is somebody else's, seen because the interface is promiscuous.
                counters.frames_not_for_us += 1;
                return Ok(());
            }
            let scene = Scene { now, facts, link, is_stale, own, from: source };
            match frame.ether_type() {
                ETHER_TYPE_ARP => {
                    self.hear_arp(scene, &ArpRepr::parse_frame(&frame)?, counters, out);
                }
                ETHER_TYPE_IPV6 => {
                    let packet = NdpRepr::parse_frame(&frame)?;
                    self.hear_ndp(scene, &packet, counters, out);
                }
                _ => return Err(WireError::EtherType),
            }
            Ok(())
        });
        if let Err(error) = heard {
            counters.frame_ignored(error);
        }
    }

    fn hear_arp(
        &mut self,
        scene: Scene<'_>,
        packet: &ArpRepr,
        counters: &mut Counters,
        out: &mut Vec<Action>,
    ) {
        let Scene { facts, link, own, .. } = scene;
        let asker = packet.sha;
        if asker.is_multicast() || asker == MacAddr::ZERO || facts.station(asker) == Station::Own {
            counters.frames_own += 1;
            return;
        }
        let target = IpAddr::V4(packet.tpa);
        if packet.is_probe() {
            if facts.station(asker) == Station::Foreign {
                self.probe_answered(link, target, asker, out);
            }
        } else {
            if stations::is_askable(packet.spa) && facts.station(asker) == Station::Foreign {
                self.stations.note(link, packet.spa.into(), asker);
            }
            let gratuitous = packet.spa == packet.tpa;
            self.somebody_has(scene, packet.spa.into(), asker, gratuitous, out);
        }
        let asks = packet.operation == Operation::Request && packet.spa != packet.tpa;
        if asks {
            self.demand.note(scene.now, target);
        }
        if asks && self.answers_in(scene, target) {
            let answer = ArpRepr {
                operation: Operation::Reply,
                sha: own,
                spa: packet.tpa,
                tha: asker,
                tpa: packet.spa,
            };
            counters.answers_sent += 1;
            out.push(Action::Send(link, answer.emit_frame(asker)));
        }
    }

    fn hear_ndp(
        &mut self,
        scene: Scene<'_>,
        packet: &NdpRepr,
        counters: &mut Counters,
        out: &mut Vec<Action>,
    ) {
        let Scene { facts, link, own, from, .. } = scene;
        match packet.message {
            Message::Solicitation { target, .. } if packet.source.is_unspecified() => {
                if facts.station(from) == Station::Foreign {
                    self.probe_answered(link, target.into(), from, out);
                }
                if self.answers_in(scene, target.into()) {
                    counters.answers_sent += 1;
                    let answer = frames::advertisement(target, own, ALL_NODES, false);
                    out.push(Action::Send(link, answer.emit_frame(own, multicast_mac(ALL_NODES))));
                }
            }
            Message::Solicitation { target, source_mac } => {
                let asker = source_mac.filter(|mac| !mac.is_multicast()).unwrap_or(from);
                if facts.station(asker) == Station::Foreign {
                    self.stations.note(link, packet.source.into(), asker);
                }
                self.demand.note(scene.now, target.into());
                self.somebody_has(scene, packet.source.into(), asker, false, out);
                if self.answers_in(scene, target.into()) && !is_ours(packet.source, facts) {
                    counters.answers_sent += 1;
                    let answer = frames::advertisement(target, own, packet.source, true);
                    out.push(Action::Send(link, answer.emit_frame(own, asker)));
                }
            }
            Message::Advertisement { target, target_mac, solicited, .. } => {
                let mac = target_mac.unwrap_or(from);
                self.somebody_has(scene, target.into(), mac, !solicited, out);
            }
        }
    }

    fn answers_in(&self, scene: Scene<'_>, address: IpAddr) -> bool {
        let link = scene.link;
        !scene.is_stale
            && !self.hushed.contains(&link)
            && self.table.get(&address).is_some_and(|entry| entry.links.contains(&link))
    }

    fn somebody_has(
        &mut self,
        scene: Scene<'_>,
        address: IpAddr,
        mac: MacAddr,
        gratuitous: bool,
        out: &mut Vec<Action>,
    ) {
        match scene.facts.station(mac) {
            Station::Own => {}
            Station::Speaker(node) => out.push(Action::SpeakerHas { address, node, mac, gratuitous }),
            Station::Foreign => self.foreign_has(scene.now, scene.facts, scene.link, address, mac, out),
        }
    }
}

/// A source address that is this node's own, in a frame that did not come from it, is nothing to answer.
fn is_ours(source: Ipv6Addr, facts: &Facts) -> bool {
    facts.refusal(source.into()) == Some(crate::mind::Refusal::OwnAddress)
}
