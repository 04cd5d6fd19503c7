//! What comes from peers: who is believed, and which room is told.
//!
//! Two kinds of datagrams come to the speakers' port. A heartbeat is a BFD Control packet with a message
//! behind it; any other message stands alone. They are told apart by the first byte. Whoever sends either
//! must be a peer, at the address where it is watched on that link, and no router may have passed it on.

use std::net::IpAddr;
use std::time::Instant;

use super::{Action, Mind};
use crate::bfd::session::TTL;
use crate::lan::{LinkIndex, NodeName};
use crate::liveness::{self, Timing};
use crate::ownership;
use crate::seal::{Ends, Opened};
use crate::wire::bfd::{self, Packet};
use crate::wire::speech::{Body, Header, SpeechRepr};

/// A datagram as it came; see [`Event::Datagram`](super::Event::Datagram).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Letter<'a> {
    pub link: LinkIndex,
    pub at: Instant,
    pub from: IpAddr,
    pub ttl: u8,
    pub payload: &'a [u8],
}

/// Where and when something was said, and by whom.
#[derive(Clone, Copy)]
struct Scene<'a> {
    link: LinkIndex,
    at: Instant,
    node: &'a NodeName,
    ends: Ends,
}

impl Mind {
    pub(super) fn datagram(&mut self, now: Instant, letter: Letter<'_>, out: &mut Vec<Action>) {
        let Letter { link, at, from, ttl, payload } = letter;
        self.counters.datagrams_received += 1;
        if ttl != TTL {
            self.counters.datagrams_routed += 1;
            return;
        }
        let Some(node) = self.facts.peer_at(link, from).cloned() else {
            self.counters.datagrams_unknown_sender += 1;
            return;
        };
        let Some(ends) = self.facts.watched_at(link).map(|to| Ends { from, to }) else { return };
        let scene = Scene { link, at, node: &node, ends };
        if bfd::is_bfd(payload) {
            self.heartbeat(now, scene, ttl, payload, out);
        } else {
            self.message(now, scene, payload, out);
        }
    }

    /// A Control packet of the session with a peer, and what the peer has to say behind it. Neither is taken
    /// in without the other.
    fn heartbeat(&mut self, now: Instant, scene: Scene<'_>, ttl: u8, payload: &[u8], out: &mut Vec<Action>) {
        let Scene { link, node, ends, .. } = scene;
        let length = match Packet::new_checked(payload) {
            Ok(packet) => packet.control().len(),
            Err(error) => return self.counters.discard(error.into()),
        };
        let (control, trailer) = payload.split_at(length);
        let Some((counter, header, body)) = self.open(ends, control, trailer) else { return };
        if !self.liveness.accepts(node, header.instance) {
            self.counters.datagrams_stale += 1;
            return;
        }
        let mut outcomes = Vec::new();
        match self.sessions.receive(now, &(link, node.clone()), payload, ttl, &mut outcomes) {
            Err(discard) => self.counters.discard(discard),
            // Without keys nobody proves anything. With them, a packet that does not name this process may
            // be a recording, or another speaker's.
            Ok(heard) if !heard.is_proven && self.sealer.has_keys() => self.counters.heartbeats_unproven += 1,
            Ok(heard) => {
                self.windows.prove(node, header.instance);
                match self.windows.check(node, header.instance, counter) {
                    Ok(()) => {
                        let timing = Timing { interval: heard.interval, multiplier: heard.multiplier };
                        self.said(now, scene, (&header, &body), Some(timing), out);
                    }
                    Err(error) => self.counters.refuse(error),
                }
            }
        }
        // What is answered tells what was learned just now.
        self.beat(outcomes, out);
    }

    /// A message that stands alone. It is taken from the process only that was heard by its heartbeats.
    fn message(&mut self, now: Instant, scene: Scene<'_>, payload: &[u8], out: &mut Vec<Action>) {
        let Scene { node, ends, .. } = scene;
        let Some((counter, header, body)) = self.open(ends, &[], payload) else { return };
        if !self.liveness.accepts(node, header.instance) {
            self.counters.datagrams_stale += 1;
            return;
        }
        match self.windows.check(node, header.instance, counter) {
            Ok(()) => self.said(now, scene, (&header, &body), None, out),
            Err(error) => self.counters.refuse(error),
        }
    }

    /// Opens the seal and reads what is in it.
    fn open(&mut self, ends: Ends, control: &[u8], bytes: &[u8]) -> Option<(Option<u64>, Header, Body)> {
        let Opened { message, counter } = match self.sealer.open(ends, control, bytes) {
            Ok(opened) => opened,
            Err(error) => {
                self.counters.refuse(error);
                return None;
            }
        };
        let Ok(SpeechRepr { header, body }) = SpeechRepr::parse_payload(message) else {
            self.counters.datagrams_invalid += 1;
            return None;
        };
        Some((counter, header, body))
    }

    /// A peer said something that is believed.
    fn said(
        &mut self,
        now: Instant,
        scene: Scene<'_>,
        (header, body): (&Header, &Body),
        timing: Option<Timing>,
        out: &mut Vec<Action>,
    ) {
        let Scene { link, at, node, .. } = scene;
        let Header { instance, isolated, .. } = *header;
        if *body == Body::Goodbye {
            return self.watch(now, liveness::Event::Goodbye { node, instance }, out);
        }
        self.watch(now, liveness::Event::Heard { link, at, node, instance, isolated, timing }, out);
        self.own(now, ownership::Event::Said(node, header, body), out);
        match *body {
            Body::DoYouHear(address) => self.testify(now, node, address, out),
            Body::Hear { address, ago } => self.witness(now, address, ago, out),
            _ => {}
        }
    }
}
