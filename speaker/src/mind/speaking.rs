//! What is said to peers, on every link where they are watched.

use super::{Action, Mind};
use crate::lan::{LinkIndex, NodeName};
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

    pub(super) fn say_to(&mut self, node: &NodeName, body: &Body, out: &mut Vec<Action>) {
        for (link, peers) in self.facts.sessions() {
            let Some(to) = peers.get(node) else { continue };
            let payload = SpeechRepr { header: self.header(*link), body: body.clone() }.emit();
            out.push(Action::SendDatagram { link: *link, to: *to, payload });
            self.counters.datagrams_sent += 1;
        }
    }
}
