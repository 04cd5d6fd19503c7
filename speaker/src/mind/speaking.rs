//! What is said to peers, on every link where they are watched.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Action, Mind};
use crate::lan::{LinkIndex, NodeName};
use crate::liveness;
use crate::wire::speech::{Body, Header, SpeechRepr};

impl Mind {
    fn header(&self, link: LinkIndex) -> Header {
        let book = self.ownership.own_book();
        Header {
            mac: self.facts.own_mac(),
            instance: self.instance,
            sequence: book.sequence(),
            digest: book.digest(),
            isolated: self.liveness.isolated_since(link).is_some(),
            leaving: self.ownership.is_leaving(),
        }
    }

    /// Says something to every peer, on every link where it is watched.
    pub(super) fn say(&mut self, body: &Body, out: &mut Vec<Action>) {
        let links: Vec<_> = self.facts.sessions().keys().copied().collect();
        for link in links {
            self.say_on(link, body, out);
        }
    }

    pub(super) fn say_on(&mut self, link: LinkIndex, body: &Body, out: &mut Vec<Action>) {
        let Some(peers) = self.facts.sessions().get(&link).filter(|peers| !peers.is_empty()) else { return };
        let payload = SpeechRepr { header: self.header(link), body: body.clone() }.emit();
        let sent = peers.values().map(|to| Action::SendDatagram { link, to: *to, payload: payload.clone() });
        out.extend(sent);
        self.counters.datagrams_sent += peers.len() as u64;
    }

    /// Asks every other peer that is heard whether it hears this one, which is late on a link.
    pub(super) fn ask_witnesses(&mut self, link: LinkIndex, node: &NodeName, out: &mut Vec<Action>) {
        let Some(address) = self.facts.peer_address(link, node) else { return };
        let is_witness = |peer: &&NodeName| {
            *peer != node && self.liveness.verdicts(peer).any(|(_, verdict)| verdict.is_heard())
        };
        let witnesses: Vec<NodeName> = self.facts.peers().filter(is_witness).cloned().collect();
        for witness in witnesses {
            self.counters.witnesses_asked += 1;
            self.say_to(&witness, &Body::DoYouHear(address), out);
        }
    }

    /// Answers a peer that asks whether another one is heard here.
    pub(super) fn testify(&mut self, now: Instant, asker: &NodeName, address: IpAddr, out: &mut Vec<Action>) {
        // Only where it is watched at this very address: to hear it on another LAN says nothing of this one.
        let links = self.facts.sessions().keys();
        let heard =
            links.filter_map(|link| self.liveness.heard_ago(now, *link, self.facts.peer_at(*link, address)?));
        let Some(ago) = heard.min() else { return };
        let ago = u16::try_from(ago.as_millis()).unwrap_or(u16::MAX);
        self.say_to(asker, &Body::Hear { address, ago }, out);
    }

    /// A witness hears a peer.
    pub(super) fn witness(&mut self, now: Instant, address: IpAddr, ago: u16, out: &mut Vec<Action>) {
        let ago = Duration::from_millis(ago.into());
        let links: Vec<LinkIndex> = self.facts.sessions().keys().copied().collect();
        for link in links {
            let Some(node) = self.facts.peer_at(link, address).cloned() else { continue };
            self.watch(now, liveness::Event::Vouched { link, node: &node, ago }, out);
        }
    }

    pub(super) fn say_to(&mut self, node: &NodeName, body: &Body, out: &mut Vec<Action>) {
        for (link, peers) in self.facts.sessions() {
            let Some(to) = peers.get(node) else { continue };
            let payload = SpeechRepr { header: self.header(*link), body: body.clone() }.emit();
            out.push(Action::SendDatagram { link: *link, to: *to, payload });
            self.counters.datagrams_sent += 1;
        }
    }
}
