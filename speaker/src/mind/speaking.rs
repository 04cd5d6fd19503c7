//! What is said to peers, on every link where they are watched.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, Mind};
use crate::bfd::sessions::{Key, Outcome};
use crate::lan::{LinkIndex, NodeName};
use crate::liveness;
use crate::seal::{Ends, Keyring};
use crate::wire::bfd::State;
use crate::wire::speech::{Body, Header, SpeechRepr};

impl Mind {
    fn header(&self, link: LinkIndex) -> Header {
        let book = self.ownership.own_book();
        Header {
            mac: self.facts.own_mac(),
            gates: self.ownership.gates(),
            instance: self.instance,
            sequence: book.sequence(),
            digest: book.digest(),
            knowledge: self.ownership.knowledge().total(),
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
        let Some(from) = self.facts.watched_at(link) else { return };
        let message = SpeechRepr { header: self.header(link), body: body.clone() }.emit();
        for to in peers.values().copied() {
            let mut payload = message.clone();
            self.sealer.seal(Ends { from, to }, &[], &mut payload);
            out.push(Action::SendDatagram { link, to, payload });
        }
        self.counters.datagrams_sent += peers.len() as u64;
    }

    /// Sends what the sessions with peers want sent, each with a message behind it.
    pub(super) fn beat(&mut self, outcomes: Vec<Outcome>, out: &mut Vec<Action>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Send(key, control) => {
                    out.extend(self.heartbeat_of(&key, control.as_ref(), &Body::Heartbeat));
                }
                Outcome::StateChanged(_, state) => {
                    self.counters.sessions_came_up += u64::from(state == State::Up);
                    self.counters.sessions_went_down += u64::from(state == State::Down);
                }
            }
        }
    }

    /// Tells every peer that this process ends. Nothing repeats it later, so it is said twice: whoever has
    /// heard the first takes the second for a replay.
    pub(super) fn say_goodbye(&mut self, now: Instant, out: &mut Vec<Action>) {
        let mut outcomes = Vec::new();
        self.sessions.end(now, &mut outcomes);
        for outcome in outcomes {
            let Outcome::Send(key, control) = outcome else { continue };
            let last = self.heartbeat_of(&key, control.as_ref(), &Body::Goodbye);
            out.extend(last.clone());
            out.extend(last);
        }
    }

    fn heartbeat_of(&mut self, key: &Key, control: &[u8], body: &Body) -> Option<Action> {
        let (link, node) = key;
        let to = self.facts.peer_address(*link, node)?;
        let from = self.facts.watched_at(*link)?;
        let mut message = SpeechRepr { header: self.header(*link), body: body.clone() }.emit();
        self.sealer.seal(Ends { from, to }, control, &mut message);
        self.counters.datagrams_sent += 1;
        let payload = [control, &message].concat();
        Some(Action::SendDatagram { link: *link, to, payload })
    }

    /// Proves from now on by these keys who speaks, and asks the same of peers.
    pub(super) fn set_keys(&mut self, now: Instant, keys: Option<Arc<Keyring>>, out: &mut Vec<Action>) {
        let mut outcomes = Vec::new();
        self.sessions.set_keys(now, keys.as_deref().map(Keyring::bfd), &mut outcomes);
        self.sealer.set_keys(keys);
        self.beat(outcomes, out);
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
            let (Some(to), Some(from)) = (peers.get(node).copied(), self.facts.watched_at(*link)) else {
                continue;
            };
            let mut payload = SpeechRepr { header: self.header(*link), body: body.clone() }.emit();
            self.sealer.seal(Ends { from, to }, &[], &mut payload);
            out.push(Action::SendDatagram { link: *link, to, payload });
            self.counters.datagrams_sent += 1;
        }
    }
}
