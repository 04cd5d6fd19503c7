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

impl Mind {
    pub(super) fn datagram(
        &mut self,
        now: Instant,
        link: LinkIndex,
        from: IpAddr,
        ttl: u8,
        payload: &[u8],
        out: &mut Vec<Action>,
    ) {
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
        if bfd::is_bfd(payload) {
            self.heartbeat(now, (link, node), ends, ttl, payload, out);
        } else {
            self.message(now, link, &node, ends, payload, out);
        }
    }

    /// A Control packet of the session with a peer, and what the peer has to say behind it. Neither is taken
    /// in without the other.
    fn heartbeat(
        &mut self,
        now: Instant,
        key: (LinkIndex, NodeName),
        ends: Ends,
        ttl: u8,
        payload: &[u8],
        out: &mut Vec<Action>,
    ) {
        let length = match Packet::new_checked(payload) {
            Ok(packet) => packet.control().len(),
            Err(error) => return self.counters.discard(error.into()),
        };
        let (control, trailer) = payload.split_at(length);
        let (link, node) = &key;
        let Some((counter, header, body)) = self.open(ends, control, trailer) else { return };
        if !self.liveness.accepts(node, header.instance) {
            self.counters.datagrams_stale += 1;
            return;
        }
        let mut outcomes = Vec::new();
        match self.sessions.receive(now, &key, payload, ttl, &mut outcomes) {
            Err(discard) => self.counters.discard(discard),
            // Without keys nobody proves anything. With them, a packet that does not name this process may
            // be a recording, or another speaker's.
            Ok(heard) if !heard.is_proven && self.sealer.has_keys() => self.counters.heartbeats_unproven += 1,
            Ok(heard) => {
                self.windows.prove(node, header.instance);
                match self.windows.check(node, header.instance, counter) {
                    Ok(()) => {
                        let timing = Timing { interval: heard.interval, multiplier: heard.multiplier };
                        self.said(now, *link, node, (&header, &body), Some(timing), out);
                    }
                    Err(error) => self.counters.refuse(error),
                }
            }
        }
        // What is answered tells what was learned just now.
        self.beat(outcomes, out);
    }

    /// A message that stands alone. It is taken from the process only that was heard by its heartbeats.
    fn message(
        &mut self,
        now: Instant,
        link: LinkIndex,
        node: &NodeName,
        ends: Ends,
        payload: &[u8],
        out: &mut Vec<Action>,
    ) {
        let Some((counter, header, body)) = self.open(ends, &[], payload) else { return };
        if !self.liveness.accepts(node, header.instance) {
            self.counters.datagrams_stale += 1;
            return;
        }
        match self.windows.check(node, header.instance, counter) {
            Ok(()) => self.said(now, link, node, (&header, &body), None, out),
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
        link: LinkIndex,
        node: &NodeName,
        (header, body): (&Header, &Body),
        timing: Option<Timing>,
        out: &mut Vec<Action>,
    ) {
        let Header { instance, isolated, .. } = *header;
        if *body == Body::Goodbye {
            return self.watch(now, liveness::Event::Goodbye { node, instance }, out);
        }
        self.watch(now, liveness::Event::Heard { link, node, instance, isolated, timing }, out);
        self.own(now, ownership::Event::Said(node, header, body), out);
        match *body {
            Body::DoYouHear(address) => self.testify(now, node, address, out),
            Body::Hear { address, ago } => self.witness(now, address, ago, out),
            _ => {}
        }
    }
}
