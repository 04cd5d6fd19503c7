//! The one mind of a speaker, as its driver and the simulator see it: events and time in, actions out.
//!
//! It reads no clock, no socket, no file and no API. What it decides is spread over the rooms that it
//! is made of: [`liveness`](crate::liveness) (who is alive), [`ownership`](crate::ownership) (which
//! addresses are mine) and [`announcing`](crate::announcing) (what is sent and answered on the LAN).
//! Here is only who tells whom.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use crate::announcing::{self, Announcing};
use crate::bfd::sessions::Sessions;
use crate::draining::{self, Draining};
use crate::lan::{LinkIndex, NodeName};
use crate::liveness::{self, Liveness, Timing};
use crate::ownership::{self, Ownership};
use crate::seal::{Sealer, Windows};

pub mod counters;
mod dispatch;
mod exchange;
mod explain;
pub mod facts;
pub mod failovers;
mod hearing;
pub mod hush;
pub mod rng;
mod speaking;
mod succession;
#[cfg(test)]
mod tests;
mod words;

use counters::Counters;
use exchange::Exchange;
pub use explain::{Explanation, Gate, Owner, Ranked};
use facts::Facts;
pub use hearing::Letter;
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
    pub multiplier: NonZeroU8,
    /// For how long connections are kept when an address is taken over from a node that lives; zero for not at all.
    pub drain: Duration,
    /// What all jitter comes from, and numbers that strangers must not guess: it comes from the operating
    /// system.
    pub seed: u64,
}

impl Config {
    /// The usual pace: 100 ms, three times. No connections are kept.
    pub fn new(node: NodeName, instance: u64) -> Self {
        const THREE: NonZeroU8 = NonZeroU8::MIN.saturating_add(2);
        let (interval, drain) = (Duration::from_millis(100), Duration::ZERO);
        Self { node, instance, interval, multiplier: THREE, drain, seed: instance }
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
    sessions: Sessions,
    sealer: Sealer,
    windows: Windows<NodeName>,
    liveness: Liveness,
    ownership: Ownership,
    announcing: Announcing,
    draining: Draining,
    exchange: Exchange,
    hush: Hush,
    isolated: HashSet<LinkIndex>,
    /// Peers that were reported alive, with the interface's name.
    reported: HashMap<(LinkIndex, NodeName), String>,
    counters: Counters,
    /// The time of the last event; deadlines are never before it.
    seen: Option<Instant>,
    /// Until then this process was not run.
    gap_until: Option<Instant>,
    /// A former process of this node knew what its peers say, and this one is to ask them.
    has_questions: bool,
    /// Another process of this node goes on.
    has_ceded: bool,
    scratch: Scratch,
}

/// Room for what the rooms want done, kept so that no event needs an allocation.
#[derive(Clone, Debug, Default)]
struct Scratch {
    watched: Vec<liveness::Action>,
    owned: Vec<ownership::Action>,
    announced: Vec<announcing::Action>,
}

impl Mind {
    /// Knows nothing yet and announces nothing.
    ///
    /// It decides nothing before it was told of links and of peers, even if there are none.
    pub fn new(config: Config) -> Self {
        let Config { interval, multiplier, .. } = config;
        let timing = Timing { interval, multiplier: multiplier.get().into() };
        let mut rng = Rng::new(config.seed);
        Self {
            instance: config.instance,
            detection: timing.detection(),
            facts: Facts::new(config.node),
            sessions: Sessions::new(interval, multiplier, Rng::new(rng.next_u64())),
            sealer: Sealer::new(1),
            windows: Windows::default(),
            liveness: Liveness::new(timing),
            ownership: Ownership::new(timing, !config.drain.is_zero()),
            draining: Draining::new(config.drain),
            announcing: Announcing::new(Rng::new(rng.next_u64())),
            exchange: Exchange::default(),
            hush: Hush::default(),
            isolated: HashSet::new(),
            reported: HashMap::new(),
            counters: Counters::default(),
            seen: None,
            gap_until: None,
            has_questions: false,
            has_ceded: false,
            scratch: Scratch::default(),
        }
    }

    /// Takes an event in at the time `now` and pushes what is to be done.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Frame { link, at, frame } => return self.hear_frame(now, (link, at), &frame, out),
            Event::Datagram { link, at, from, ttl, payload } => {
                return self.hear_datagram(now, Letter { link, at, from, ttl, payload: &payload }, out);
            }
            _ => {}
        }
        if self.has_ceded {
            return;
        }
        self.begin(now, out);
        match event {
            Event::Links(links) => {
                self.facts.set_links(links);
                self.facts_changed(now, out);
            }
            Event::OwnAddresses(addresses) => {
                self.facts.set_own_addresses(addresses);
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
            // Taken in above, for the driver has them in a buffer of its own.
            Event::Frame { .. } | Event::Datagram { .. } => {}
            Event::NobodyListens { link, to } => {
                if let Some(node) = self.facts.peer_at(link, to).cloned() {
                    self.watch(now, liveness::Event::Ended(link, &node), out);
                }
            }
            Event::Gates(gates) => self.own(now, ownership::Event::Gates(gates), out),
            Event::Unfit(ports) => self.own(now, ownership::Event::Unfit(ports), out),
            Event::Guarded(guarded) => self.own(now, ownership::Event::Guarded(guarded), out),
            Event::Keys(keys) => self.set_keys(now, keys, out),
            Event::Deadline => self.deadline(now, out),
            Event::Inherit(left) => self.inherit(now, *left, out),
            Event::Cede => {
                let left = self.leave_behind(now);
                return out.push(Action::Ceded(Box::new(left)));
            }
            Event::ConnectionsKept(address) => {
                self.own(now, ownership::Event::ConnectionsKept(address), out);
            }
            Event::Leave => self.own(now, ownership::Event::Leave, out),
        }
        self.settle(now, out);
    }

    /// Takes in [`Event::Frame`] without owning the frame: where it came in, and when.
    pub fn hear_frame(
        &mut self,
        now: Instant,
        (link, at): (LinkIndex, Instant),
        frame: &[u8],
        out: &mut Vec<Action>,
    ) {
        if self.has_ceded {
            return;
        }
        self.begin(now, out);
        let is_stale = self.gap_until.is_some_and(|until| at < until);
        let heard = announcing::Heard { link, at: at.min(now), is_stale, frame };
        self.announce(now, announcing::Event::Frame(heard), out);
        self.settle(now, out);
    }

    /// Takes in [`Event::Datagram`] without owning its payload.
    pub fn hear_datagram(&mut self, now: Instant, letter: Letter<'_>, out: &mut Vec<Action>) {
        if self.has_ceded {
            return;
        }
        self.begin(now, out);
        self.datagram(now, Letter { at: letter.at.min(now), ..letter }, out);
        self.settle(now, out);
    }

    fn begin(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.notice_gap(now, out);
        self.seen = Some(now);
    }

    /// When it wants to be told [`Event::Deadline`]. It may have passed already.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.has_ceded {
            return None;
        }
        [
            self.sessions.next_deadline(),
            self.liveness.next_deadline(),
            self.ownership.next_deadline(),
            self.announcing.next_deadline(),
            self.draining.next_deadline(),
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
        let due = self.sessions.next_deadline().into_iter().chain(self.liveness.next_deadline()).min();
        // Who took something in after that was run then: what is late is judged from there. Else every datagram of a
        // busy moment would count as a gap, and begin a verification that makes the moment busier.
        let since = due.map(|due| self.seen.map_or(due, |seen| due.max(seen)));
        let Some(late) = since.and_then(|since| now.checked_duration_since(since)) else { return };
        if late >= self.detection {
            self.counters.gaps += 1;
        }
        if late >= LATE {
            self.gap_until = Some(now);
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
            let with = |(link, peers): (&LinkIndex, &Vec<NodeName>)| {
                peers.iter().map(|node| (*link, node.clone())).collect::<Vec<_>>()
            };
            let wanted: BTreeSet<_> = watched.iter().flat_map(with).collect();
            let mut outcomes = Vec::new();
            self.sessions.follow(now, &wanted, &mut outcomes);
            self.counters.heartbeat_interval = self.sessions.pace();
            self.beat(outcomes, out);
            self.ask_what_was_known(out);
        }
        self.exchange.retain(|node| self.facts.has_peer(node));
        self.windows.retain(|node| self.facts.has_peer(node));
        self.own(now, ownership::Event::Around, out);
    }

    fn deadline(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.sessions.next_deadline().is_some_and(|due| due <= now) {
            let mut outcomes = Vec::new();
            self.sessions.handle_deadline(now, &mut outcomes);
            self.beat(outcomes, out);
        }
        if self.liveness.next_deadline().is_some_and(|due| due <= now) {
            self.watch(now, liveness::Event::Deadline, out);
        }
        if self.ownership.next_deadline().is_some_and(|due| due <= now) {
            self.own(now, ownership::Event::Deadline, out);
        }
        if self.announcing.next_deadline().is_some_and(|due| due <= now) {
            self.announce(now, announcing::Event::Deadline, out);
        }
        if self.draining.next_deadline().is_some_and(|due| due <= now) {
            self.drain(now, draining::Event::Deadline, out);
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
        while let Some(link) = self.changed_isolation() {
            let is_isolated = self.liveness.isolated_since(link).is_some();
            if is_isolated {
                self.isolated.insert(link);
            } else {
                self.isolated.remove(&link);
            }
            self.announce(now, announcing::Event::Isolated(link, is_isolated), out);
            self.own(now, ownership::Event::Around, out);
        }
    }

    /// A link that began or ceased to be isolated.
    fn changed_isolation(&self) -> Option<LinkIndex> {
        let mut links = self.facts.sessions().keys().copied();
        links.find(|link| self.liveness.isolated_since(*link).is_some() != self.isolated.contains(link))
    }
}
