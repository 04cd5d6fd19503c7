//! Stories of one node, n2, among its peers n1 and n3, whose words the story writes.

#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use landfall_crds::Fallback;

use super::claim::Claim;
use super::*;
use crate::lan::{Link, LinkIndex, PeerInfo, PeerLink};
use crate::liveness;
use crate::liveness::{Death, Liveness};
use crate::mind::Report;
use crate::mind::facts::Facts;
use crate::mind::hush::Hush;
use crate::mind::{Refusal, Withdrawal};
use crate::wire::speech::{Entry, Witnessed, digest};

mod claiming;
mod fitness;
mod guarding;
mod keeping;
mod moves;
mod relief;
mod witnesses;

const LAN: LinkIndex = LinkIndex(2);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn name(text: &str) -> NodeName {
    text.into()
}

fn address() -> IpAddr {
    "10.0.0.50".parse().unwrap()
}

fn vip(candidates: &[&str]) -> Vip {
    Vip {
        address: address(),
        claimed: true,
        epoch: 1,
        candidates: candidates.iter().map(|node| name(node)).collect(),
        interfaces: Vec::new(),
        fallback: Fallback::None,
        health_checks: Vec::new(),
        guard: None,
        last_term: 0,
        announced_before: true,
    }
}

fn claim(epoch: i64, term: u64, rank: u16) -> Statement {
    Statement::Announcing(Claim { epoch, term, rank, ..Claim::default() })
}

fn with(statement: Statement, change: impl FnOnce(&mut Claim)) -> Statement {
    let mut claim = *statement.claim().unwrap();
    change(&mut claim);
    Statement::Announcing(claim)
}

struct Peer {
    speaks: bool,
    /// It hears nobody.
    deaf: bool,
    leaving: bool,
    gates: Gates,
    /// Under which epoch it knows of the address.
    knows: Option<i64>,
    sequence: u64,
    said: Statement,
}

impl Peer {
    fn knowledge(&self) -> Knowledge {
        let mut knowledge = Knowledge::default();
        knowledge.change(Instant::now(), address(), None, self.knows);
        knowledge
    }
}

struct Story {
    ownership: Ownership,
    facts: Facts,
    liveness: Liveness,
    hush: Hush,
    now: Instant,
    peers: BTreeMap<&'static str, Peer>,
    /// What was done, without messages to peers.
    done: Vec<Action>,
    /// The deaths because of which addresses were claimed.
    failovers: Vec<Death>,
    /// What others were told of whom they may not hear.
    testified: Vec<(NodeName, Vec<Witnessed>)>,
}

impl Story {
    /// n2 has listened and heard n1 and n3 say nothing.
    fn settled() -> Self {
        let mut story = Self::starting();
        story.pass(ms(400));
        story
    }

    fn starting() -> Self {
        Self::starting_with(false)
    }

    fn starting_with(keeps_connections: bool) -> Self {
        let timing = Timing { interval: ms(100), multiplier: 3 };
        let mut story = Self {
            ownership: Ownership::new(timing, keeps_connections),
            facts: Facts::new(name("n2")),
            liveness: Liveness::new(timing),
            hush: Hush::default(),
            now: Instant::now(),
            peers: BTreeMap::new(),
            done: Vec::new(),
            failovers: Vec::new(),
            testified: Vec::new(),
        };
        for peer in ["n1", "n3"] {
            let (gates, knows, said) = (Gates::NONE, Some(1), Statement::Nothing);
            let quiet = Peer { speaks: true, deaf: false, leaving: false, gates, knows, sequence: 0, said };
            story.peers.insert(peer, quiet);
        }
        story.facts.set_peers([1, 3].map(peer_info).to_vec());
        story.set_carrier(true);
        story
    }

    fn set_carrier(&mut self, carrier: bool) {
        let mac = MacAddr([2, 0, 0, 0, 0, 2]);
        let addresses = vec!["10.0.0.2/24".parse().unwrap()];
        self.facts.set_links(vec![Link { index: LAN, name: "eth0".into(), mac, carrier, addresses }]);
        self.watch_all();
    }

    fn watch_all(&mut self) {
        let sessions = self.facts.sessions().iter();
        let watched = sessions.map(|(link, peers)| (*link, peers.keys().cloned().collect())).collect();
        self.watch(liveness::Event::Watch(&watched));
        self.tell(Event::Around);
    }

    fn watch(&mut self, event: liveness::Event<'_>) {
        let mut out = Vec::new();
        self.liveness.handle(self.now, event, &mut out);
        for action in out {
            match action {
                liveness::Action::Ask(..)
                | liveness::Action::AskLan(_)
                | liveness::Action::Probe(..)
                | liveness::Action::AskWitnesses(..) => continue,
                liveness::Action::Left(node) => self.tell(Event::Void(&node)),
                liveness::Action::Alive(_, node)
                | liveness::Action::Dead(_, node)
                | liveness::Action::Deaf(_, node)
                | liveness::Action::Restarted(node) => {
                    self.tell(Event::Peer(&node));
                    continue;
                }
                _ => {}
            }
            self.tell(Event::Around);
        }
    }

    fn tell(&mut self, event: Event<'_>) {
        let around = Around { facts: &self.facts, liveness: &self.liveness, hush: &self.hush };
        let mut out = Vec::new();
        self.ownership.handle(self.now, around, event, &mut out);
        for action in out {
            match action {
                Action::Tell(_)
                | Action::TellAll(_)
                | Action::Query(_)
                | Action::Listen(..)
                | Action::TellKnowledge(_)
                | Action::AskWhoHas(_)
                | Action::Took(_) => {}
                Action::FailedOver(death) => self.failovers.push(death),
                Action::Testify(node, claims) => self.testified.push((node, claims)),
                Action::AskKnowledge(node) => self.answer(&node),
                action => self.done.push(action),
            }
        }
    }

    /// A peer that is asked what it knows of tells.
    fn answer(&mut self, node: &NodeName) {
        let (peer, state) = self.peers.iter().find(|(peer, _)| **peer == &**node).unwrap();
        if !state.speaks {
            return;
        }
        let peer = *peer;
        let body = Body::Know(Box::new(*self.peers[peer].knowledge().buckets()));
        self.say(peer, &body);
    }

    /// A peer speaks: its heartbeat, with all that it says.
    fn speak(&mut self, peer: &'static str) {
        let entry = Entry { address: address(), statement: self.peers[peer].said };
        self.say(peer, &Body::Changes(vec![entry]));
    }

    fn say(&mut self, peer: &'static str, body: &Body) {
        let state = &self.peers[peer];
        let entry = Entry { address: address(), statement: state.said };
        let header = Header {
            mac: MacAddr([2, 0, 0, 0, 0, peer.as_bytes()[1] - b'0']),
            instance: 1,
            sequence: state.sequence,
            digest: digest(&entry),
            gates: state.gates,
            knowledge: state.knowledge().total(),
            leaving: state.leaving,
            ..Header::default()
        };
        let node = name(peer);
        let isolated = state.deaf;
        self.watch(liveness::Event::Heard {
            link: LAN,
            at: self.now,
            node: &node,
            instance: 1,
            isolated,
            timing: None,
        });
        self.tell(Event::Said(&node, &header, body));
    }

    fn says(&mut self, peer: &'static str, statement: Statement) {
        let state = self.peers.get_mut(peer).unwrap();
        state.said = statement;
        state.sequence += 1;
        self.speak(peer);
    }

    fn falls_silent(&mut self, peer: &str) {
        self.peers.get_mut(peer).unwrap().speaks = false;
    }

    /// Lets time pass, in which every living peer speaks every 50 ms, and a station is heard.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut speak_at = self.now;
        loop {
            let due = [Some(speak_at), self.liveness.next_deadline(), self.ownership.next_deadline()];
            let Some(next) = due.into_iter().flatten().min().filter(|due| *due <= until) else { break };
            self.now = self.now.max(next);
            if speak_at <= self.now {
                let living: Vec<_> =
                    self.peers.iter().filter(|(_, peer)| peer.speaks).map(|(name, _)| *name).collect();
                living.into_iter().for_each(|peer| self.speak(peer));
                speak_at = self.now + ms(50);
            }
            self.watch(liveness::Event::Deadline);
            self.tell(Event::Deadline);
        }
        self.now = until;
    }

    fn done(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.done)
    }

    fn own_claim(&self) -> Option<Claim> {
        self.ownership.own_statement(address()).claim().copied()
    }

    #[track_caller]
    fn assert_announces(&mut self, term: u64, epoch: i64) {
        let claim = self.own_claim().expect("it announces");
        assert_eq!((claim.term, claim.epoch), (term, epoch));
        assert_eq!(self.done(), [Action::Announce(address(), vec![LAN]), announcing(term, epoch)]);
    }

    #[track_caller]
    fn assert_withdrew(&mut self, reason: Withdrawal) {
        let report = Report::Withdrawn { address: address(), reason };
        assert_eq!(self.done(), [Action::Withdraw(address()), Action::Report(report)]);
        assert_eq!(self.own_claim(), None);
    }

    #[track_caller]
    fn assert_waits(&mut self) {
        assert_eq!(self.done(), []);
        assert_eq!(self.own_claim(), None);
    }
}

fn peer_info(number: u8) -> PeerInfo {
    let address = format!("10.0.0.{number}").parse().unwrap();
    PeerInfo {
        node: name(&format!("n{number}")),
        links: vec![PeerLink {
            mac: MacAddr([2, 0, 0, 0, 0, number]),
            subnets: vec!["10.0.0.0/24".parse().unwrap()],
            addresses: vec![address],
            address: Some(address),
        }],
    }
}

fn announcing(term: u64, epoch: i64) -> Action {
    Action::Report(Report::Announcing {
        address: address(),
        interface: "eth0".into(),
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        term,
        epoch,
    })
}
