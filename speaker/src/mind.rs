//! The one mind of a speaker, as its driver and the simulator see it: events and time in, actions out.
//!
//! It reads no clock, no socket, no file and no API. What it decides is spread over the rooms that it
//! is made of: [`liveness`](crate::liveness) (who is alive), [`ownership`](crate::ownership) (which
//! addresses are mine) and [`announcing`](crate::announcing) (what is sent and answered on the LAN).
//! Here is only who tells whom.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::announcing::{self, Announcing};
use crate::lan::{LinkIndex, NodeName};
use crate::liveness::{self, Liveness, Timing};
use crate::ownership::{self, Around, Ownership};
use crate::wire::speech::{Body, Header, SpeechRepr};

pub mod counters;
mod exchange;
mod explain;
pub mod facts;
pub mod hush;
pub(crate) mod rng;
mod words;

use counters::Counters;
use exchange::{Exchange, everything};
pub use explain::{Explanation, Gate, Owner};
use facts::Facts;
use hush::Hush;
use rng::Rng;
pub use words::{Action, Event, Refusal, Report, Withdrawal};

/// A waking that is later than this was held up by this process itself, not by the LAN.
const LATE: Duration = Duration::from_millis(50);

/// What a mind is told when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node that it speaks for.
    pub node: NodeName,
    /// A number that no earlier process of this node is likely to have had. Peers tell a restart by it.
    pub instance: u64,
    /// The longest time between two heartbeats.
    pub interval: Duration,
    /// After so many intervals of silence a peer is dead.
    pub multiplier: u32,
    /// What all jitter comes from.
    pub seed: u64,
}

impl Config {
    /// The usual pace: 100 ms, three times.
    pub fn new(node: NodeName, instance: u64) -> Self {
        Self { node, instance, interval: Duration::from_millis(100), multiplier: 3, seed: instance }
    }
}

/// The mind; see the module.
///
/// Whoever drives it hands in what came from the sockets before it tells that a deadline has come, so
/// that a busy moment of its own is not taken for the silence of others.
#[derive(Clone, Debug)]
pub struct Mind {
    instance: u64,
    detection: Duration,
    facts: Facts,
    liveness: Liveness,
    ownership: Ownership,
    announcing: Announcing,
    exchange: Exchange,
    hush: Hush,
    isolated: HashSet<LinkIndex>,
    /// Peers that were reported alive, with the interface's name.
    reported: HashMap<(LinkIndex, NodeName), String>,
    counters: Counters,
    /// The time of the last event; deadlines are never before it.
    seen: Option<Instant>,
}

impl Mind {
    /// Knows nothing yet and announces nothing.
    ///
    /// It decides nothing before it was told of links and of peers, even if there are none.
    pub fn new(config: Config) -> Self {
        let timing = Timing { interval: config.interval, multiplier: config.multiplier };
        let mut rng = Rng::new(config.seed);
        Self {
            instance: config.instance,
            detection: timing.detection(),
            facts: Facts::new(config.node),
            liveness: Liveness::new(timing, Rng::new(rng.next_u64())),
            ownership: Ownership::new(timing),
            announcing: Announcing::new(Rng::new(rng.next_u64())),
            exchange: Exchange::default(),
            hush: Hush::default(),
            isolated: HashSet::new(),
            reported: HashMap::new(),
            counters: Counters::default(),
            seen: None,
        }
    }

    /// Takes an event in at the time `now` and pushes what is to be done.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        self.notice_gap(now, out);
        self.seen = Some(now);
        match event {
            Event::Links(links) => {
                self.facts.set_links(links);
                self.facts_changed(now, out);
            }
            Event::Gateways(gateways) => {
                self.facts.set_gateways(gateways);
                self.facts_changed(now, out);
            }
            Event::Peers(peers) => {
                self.facts.set_peers(peers);
                self.facts_changed(now, out);
            }
            Event::Vips(vips) => self.own(now, ownership::Event::Vips(vips), out),
            Event::Vip(vip) => self.own(now, ownership::Event::Vip(vip), out),
            Event::VipGone(address) => self.own(now, ownership::Event::Gone(address), out),
            Event::Frame { link, frame } => self.announce(now, announcing::Event::Frame(link, &frame), out),
            Event::Datagram { link, from, ttl, payload } => {
                self.datagram(now, link, from, ttl, &payload, out)
            }
            Event::Deadline => self.deadline(now, out),
            Event::Leave => {
                self.own(now, ownership::Event::Leave, out);
                let links: Vec<_> = self.facts.sessions().keys().copied().collect();
                for link in links {
                    self.say_on(link, &Body::Heartbeat, out);
                }
            }
        }
        self.settle(now, out);
    }

    /// When it wants to be told [`Event::Deadline`]. It may have passed already.
    pub fn next_deadline(&self) -> Option<Instant> {
        [
            self.liveness.next_deadline(),
            self.ownership.next_deadline(),
            self.announcing.next_deadline(),
            self.exchange.next_deadline(),
            self.seen.and_then(|seen| self.hush.next_deadline(seen)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Counts for metrics.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether this node answers for an address right now.
    pub fn answers(&self, address: IpAddr) -> bool {
        self.announcing.answers(address)
    }

    /// For how many addresses this node answers.
    pub fn announced(&self) -> usize {
        self.announcing.len()
    }

    /// Silence proves nothing when this process itself was not run.
    fn notice_gap(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(late) = self.liveness.next_deadline().and_then(|due| now.checked_duration_since(due)) else {
            return;
        };
        if late >= self.detection {
            self.counters.gaps += 1;
        }
        if late >= LATE {
            let long = late >= self.detection;
            if long {
                self.hush.drain(now);
            }
            self.watch(now, liveness::Event::Gap { long }, out);
        }
    }

    fn facts_changed(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.announce(now, announcing::Event::Facts, out);
        if self.facts.are_complete() {
            let sessions = self.facts.sessions().iter();
            let watched: BTreeMap<_, Vec<_>> =
                sessions.map(|(link, peers)| (*link, peers.keys().cloned().collect())).collect();
            self.watch(now, liveness::Event::Watch(&watched), out);
        }
        self.exchange.retain(|node| self.facts.has_peer(node));
        self.own(now, ownership::Event::Around, out);
    }

    fn datagram(
        &mut self,
        now: Instant,
        link: LinkIndex,
        from: IpAddr,
        ttl: u8,
        payload: &[u8],
        out: &mut Vec<Action>,
    ) {
        self.counters.datagrams_received += 1;
        if ttl != 255 {
            self.counters.datagrams_routed += 1;
            return;
        }
        let Some(node) = self.facts.peer_at(link, from).cloned() else {
            self.counters.datagrams_unknown_sender += 1;
            return;
        };
        let Ok(SpeechRepr { header, body }) = SpeechRepr::parse_payload(payload) else {
            self.counters.datagrams_invalid += 1;
            return;
        };
        let Header { instance, isolated, .. } = header;
        if !self.liveness.accepts(&node, instance) {
            self.counters.datagrams_stale += 1;
            return;
        }
        if body == Body::Goodbye {
            self.watch(now, liveness::Event::Goodbye { node: &node, instance }, out);
        } else {
            self.watch(now, liveness::Event::Heard { link, node: &node, instance, isolated }, out);
            self.own(now, ownership::Event::Said(&node, &header, &body), out);
        }
    }

    fn deadline(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.liveness.next_deadline().is_some_and(|due| due <= now) {
            self.watch(now, liveness::Event::Deadline, out);
        }
        if self.ownership.next_deadline().is_some_and(|due| due <= now) {
            self.own(now, ownership::Event::Deadline, out);
        }
        if self.announcing.next_deadline().is_some_and(|due| due <= now) {
            self.announce(now, announcing::Event::Deadline, out);
        }
        for body in self.exchange.repeat(now, self.ownership.own_book()) {
            self.say(&body, out);
        }
    }

    /// What follows from any event: hushes end, and isolation is known to the announcer.
    fn settle(&mut self, now: Instant, out: &mut Vec<Action>) {
        let over = self.hush.end(now, &self.liveness, self.ownership.peer_books());
        if !over.is_empty() {
            // First decide what is still this node's, then speak.
            self.own(now, ownership::Event::Around, out);
            for link in over {
                self.announce(now, announcing::Event::Unhush(link), out);
            }
        }
        let links: Vec<_> = self.facts.sessions().keys().copied().collect();
        for link in links {
            let is_isolated = self.liveness.isolated_since(link).is_some();
            if is_isolated != self.isolated.contains(&link) {
                if is_isolated {
                    self.isolated.insert(link);
                } else {
                    self.isolated.remove(&link);
                }
                self.announce(now, announcing::Event::Isolated(link, is_isolated), out);
                self.own(now, ownership::Event::Around, out);
            }
        }
    }

    fn watch(&mut self, now: Instant, event: liveness::Event<'_>, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        self.liveness.handle(now, event, &mut actions);
        let mut is_changed = false;
        for action in actions {
            match action {
                liveness::Action::Beat(link) => {
                    self.say_on(link, &Body::Heartbeat, out);
                    continue;
                }
                liveness::Action::AskLan(link) => {
                    self.announce(now, announcing::Event::AskLan(link), out);
                    continue;
                }
                liveness::Action::Alive(link, node) => self.report_peer(link, node, true, out),
                liveness::Action::Dead(link, node) => {
                    if self.liveness.verdicts(&node).all(|(_, verdict)| !verdict.is_heard()) {
                        self.ownership.silence(&node);
                    }
                    self.report_peer(link, node, false, out);
                }
                liveness::Action::Left(node) => {
                    let on = self.reported.keys().filter(|(_, known)| *known == node);
                    for (link, node) in on.cloned().collect::<Vec<_>>() {
                        self.report_peer(link, node, false, out);
                    }
                    self.own(now, ownership::Event::Void(&node), out);
                }
                liveness::Action::Reached(link) => self.reached(now, link, out),
                liveness::Action::Restarted(_)
                | liveness::Action::Deaf(..)
                | liveness::Action::Isolated(_)
                | liveness::Action::Touched(_) => {}
            }
            is_changed = true;
        }
        if is_changed {
            self.own(now, ownership::Event::Around, out);
        }
    }

    /// The LAN is heard again: keep silent until it is known who took over meanwhile.
    fn reached(&mut self, now: Instant, link: LinkIndex, out: &mut Vec<Action>) {
        if self.hush.begin(now, link) {
            self.announce(now, announcing::Event::Hush(link), out);
            self.say_on(link, &Body::Query, out);
        }
    }

    fn report_peer(&mut self, link: LinkIndex, node: NodeName, alive: bool, out: &mut Vec<Action>) {
        let key = (link, node);
        let interface = if alive {
            let name = self.facts.link_name(link);
            match self.reported.insert(key.clone(), name.clone()) {
                None => name,
                Some(_) => return,
            }
        } else {
            match self.reported.remove(&key) {
                Some(name) => name,
                None => return,
            }
        };
        out.push(Action::Report(Report::Peer { node: key.1, interface, alive }));
    }

    fn own(&mut self, now: Instant, event: ownership::Event<'_>, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        let around = Around { facts: &self.facts, liveness: &self.liveness, hush: &self.hush };
        self.ownership.handle(now, around, event, &mut actions);
        for action in actions {
            match action {
                ownership::Action::Announce(address, links) => {
                    self.announce(now, announcing::Event::Announce(address, links), out);
                }
                ownership::Action::Withdraw(address) => {
                    self.announce(now, announcing::Event::Withdraw(address), out);
                }
                ownership::Action::Probe(address, links) => {
                    self.announce(now, announcing::Event::Probe(address, links), out);
                }
                ownership::Action::Ask(address, links) => {
                    self.announce(now, announcing::Event::Ask(address, links), out);
                }
                ownership::Action::Correct(address) => {
                    self.announce(now, announcing::Event::Correct(address), out);
                }
                ownership::Action::Listen(address, links) => {
                    self.announce(now, announcing::Event::Listen(address, links), out);
                }
                ownership::Action::Tell(addresses) => {
                    for body in self.exchange.tell(now, self.ownership.own_book(), addresses) {
                        self.say(&body, out);
                    }
                }
                ownership::Action::TellAll(node) => {
                    for body in everything(self.ownership.own_book()) {
                        self.say_to(&node, &body, out);
                    }
                }
                ownership::Action::Query(node) => {
                    if self.exchange.may_query(now, &node) {
                        self.counters.queries_sent += 1;
                        self.say_to(&node, &Body::Query, out);
                    }
                }
                ownership::Action::Report(report) => out.push(Action::Report(report)),
                ownership::Action::Left => {
                    // Nothing repeats it later, so say it twice.
                    self.say(&Body::Goodbye, out);
                    self.say(&Body::Goodbye, out);
                    out.push(Action::Left);
                }
            }
        }
    }

    fn announce(&mut self, now: Instant, event: announcing::Event<'_>, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        self.announcing.handle(now, &self.facts, event, &mut self.counters, &mut actions);
        for action in actions {
            match action {
                announcing::Action::Send(link, frame) => out.push(Action::SendFrame { link, frame }),
                announcing::Action::Join(link, group) => out.push(Action::JoinGroup { link, group }),
                announcing::Action::Leave(link, group) => out.push(Action::LeaveGroup { link, group }),
                announcing::Action::ProbeClear(address) => {
                    self.own(now, ownership::Event::ProbeClear(address), out);
                }
                announcing::Action::ProbeConflict(address, mac) => {
                    self.own(now, ownership::Event::ProbeConflict(address, mac), out);
                }
                announcing::Action::Conflict(address, mac) => {
                    out.push(Action::Report(Report::AddressConflict { address, mac }));
                }
                announcing::Action::ConflictOver(address) => {
                    out.push(Action::Report(Report::AddressConflictOver { address }));
                }
                announcing::Action::SpeakerHas { address, node, mac, gratuitous } => {
                    let sight = ownership::Sight { address, node: &node, mac, gratuitous };
                    self.own(now, ownership::Event::SpeakerHas(sight), out);
                }
                announcing::Action::Station(link) => self.watch(now, liveness::Event::Station(link), out),
            }
        }
    }

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
    fn say(&mut self, body: &Body, out: &mut Vec<Action>) {
        let links: Vec<_> = self.facts.sessions().keys().copied().collect();
        for link in links {
            self.say_on(link, body, out);
        }
    }

    fn say_on(&mut self, link: LinkIndex, body: &Body, out: &mut Vec<Action>) {
        let Some(peers) = self.facts.sessions().get(&link).filter(|peers| !peers.is_empty()) else { return };
        let payload = SpeechRepr { header: self.header(link), body: body.clone() }.emit();
        let sent = peers.values().map(|to| Action::SendDatagram { link, to: *to, payload: payload.clone() });
        out.extend(sent);
        self.counters.datagrams_sent += peers.len() as u64;
    }

    fn say_to(&mut self, node: &NodeName, body: &Body, out: &mut Vec<Action>) {
        for (link, peers) in self.facts.sessions() {
            let Some(to) = peers.get(node) else { continue };
            let payload = SpeechRepr { header: self.header(*link), body: body.clone() }.emit();
            out.push(Action::SendDatagram { link: *link, to: *to, payload });
            self.counters.datagrams_sent += 1;
        }
    }
}
