//! Who is alive: heartbeats between speakers on every LAN that two of them share.
//!
//! A pure machine. It knows nothing of what is announced, nor of packets: heartbeats are sent by
//! [`bfd`](crate::bfd), and it is told when one was heard and when the next is to be expected. The state of
//! a session is not asked for: whoever says Down lives.
//!
//! Beside each peer it watches the LAN itself. A link with peers on which none is heard is *alone*; one
//! on which no other station is heard either is *isolated*, and what is decided there counts for less.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::lan::{LinkIndex, NodeName};

mod due;
mod state;
#[cfg(test)]
mod tests;
mod verification;

use state::{LinkState, Process, Session};

/// How fast heartbeats come and how many may be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The longest time between two heartbeats.
    pub interval: Duration,
    /// After this many intervals of silence a peer is dead.
    pub multiplier: u32,
}

impl Timing {
    /// The silence after which a peer is dead.
    pub fn detection(&self) -> Duration {
        self.interval * self.multiplier
    }

    /// A heartbeat that did not come after as long is late: the longest interval and a little for the way.
    fn late(&self) -> Duration {
        self.interval + self.interval / 20
    }
}

/// What happens to liveness.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// These are all links with carrier and the peers to watch on each.
    Watch(&'a BTreeMap<LinkIndex, Vec<NodeName>>),
    /// Something of a peer came in on a link.
    Heard {
        /// The link.
        link: LinkIndex,
        /// When it came. It may have waited for this process to be run.
        at: Instant,
        /// The peer.
        node: &'a NodeName,
        /// The number that its process drew when it started.
        instance: u64,
        /// It says that it hears nobody there.
        isolated: bool,
        /// When the next is to be expected from now on, if it told.
        timing: Option<Timing>,
    },
    /// A frame of any other station came in on a link, when.
    Station(LinkIndex, Instant),
    /// The kernel of a peer answered for the node's own address, when.
    Answered(LinkIndex, Instant, &'a NodeName),
    /// The kernel of a peer says that nobody listens there: its process is gone.
    Ended(LinkIndex, &'a NodeName),
    /// A witness heard a peer, so long ago.
    Vouched {
        /// The link on which it was asked for the peer.
        link: LinkIndex,
        /// The peer.
        node: &'a NodeName,
        /// How long ago the witness heard it.
        ago: Duration,
    },
    /// A peer's process ended and said so.
    Goodbye {
        /// The peer.
        node: &'a NodeName,
        /// The number that its process drew when it started.
        instance: u64,
    },
    /// This process itself was not run for a while, so silence proves nothing.
    Gap {
        /// It was not for longer than the detection time: the world may have moved on.
        long: bool,
    },
    /// The time that `next_deadline` named has come.
    Deadline,
}

/// What liveness wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have a peer answer at once, and let it know at once how things are here.
    Ask(LinkIndex, NodeName),
    /// No peer is heard there: ask the gateway and other stations, to learn whether the LAN is.
    AskLan(LinkIndex),
    /// A peer is late: ask its kernel whether the node is there.
    Probe(LinkIndex, NodeName),
    /// A peer is late: ask the other peers whether they hear it.
    AskWitnesses(LinkIndex, NodeName),
    /// A peer is heard on a link, for the first time or again.
    Alive(LinkIndex, NodeName),
    /// A peer that was alive on a link is heard there no more, or not watched any more.
    Dead(LinkIndex, NodeName),
    /// A peer says for a whole detection time that it hears nobody on the link.
    Deaf(LinkIndex, NodeName),
    /// A peer's process is another one.
    Restarted(NodeName),
    /// A peer has left.
    Left(NodeName),
    /// Nothing at all is heard on a link with peers.
    Isolated(LinkIndex),
    /// A speaker, or at least another station, is heard again on a link that was alone or isolated.
    Reached(LinkIndex),
    /// Something is heard again on a link after a moment of silence, too short to mean anything.
    Touched(LinkIndex),
}

/// What is known of a peer on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was never heard there, which proves nothing.
    NeverHeard,
    /// It is heard.
    Alive,
    /// It is heard, and says for a detection time that it hears nobody.
    Deaf,
    /// It was heard and is no more.
    Dead,
    /// It said goodbye.
    Left,
}

/// The steps to a verdict of death, for people who ask why a failover took as long as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// When the peer was last heard.
    pub heard: Instant,
    /// When it became suspect: its heartbeat was late.
    pub suspected: Instant,
    /// When it was found dead.
    pub verified: Instant,
    /// Its kernel still answered: the node forwards, and its speaker alone is gone.
    pub kernel_answers: bool,
}

impl Verdict {
    /// Whether it is heard.
    pub fn is_heard(self) -> bool {
        matches!(self, Self::Alive | Self::Deaf)
    }
}

/// A station's frame ends isolation with caution at most this often, unless a speaker was heard meanwhile: else
/// a client that asks now and then on a LAN without other speakers would never be answered.
const STATION_CAUTION: Duration = Duration::from_secs(30);

/// The machine; see the module.
#[derive(Clone, Debug)]
pub struct Liveness {
    /// That of links, and of peers that were not heard yet.
    timing: Timing,
    links: BTreeMap<LinkIndex, LinkState>,
    sessions: BTreeMap<(LinkIndex, NodeName), Session>,
    processes: BTreeMap<NodeName, Process>,
    /// When a former process of this node heard these peers.
    inherited: BTreeMap<(LinkIndex, NodeName), Instant>,
    /// Never later than the true next deadline.
    deadline: Option<Instant>,
}

impl Liveness {
    /// Watches nobody yet.
    pub fn new(timing: Timing) -> Self {
        let (links, sessions, processes, inherited) = Default::default();
        Self { timing, links, sessions, processes, inherited, deadline: None }
    }

    /// Takes an event in and pushes what follows from it.
    pub fn handle(&mut self, now: Instant, event: Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::Watch(wanted) => self.watch(now, wanted, out),
            Event::Heard { link, at, node, instance, isolated, timing } => {
                self.heard(now, (link, at, node), (instance, isolated, timing), out);
            }
            Event::Station(link, at) => self.station(now, link, at, out),
            Event::Answered(link, at, node) => self.answered(link, at, node),
            Event::Ended(link, node) => self.ended(now, link, node, out),
            Event::Vouched { link, node, ago } => self.vouched(now, link, node, ago, out),
            Event::Goodbye { node, instance } => self.goodbye(node, instance, out),
            Event::Gap { long } => self.gap(now, long, out),
            Event::Deadline => self.due(now, out),
        }
    }

    /// A former process of this node heard a peer at that time. It counts as heard as soon as it is watched.
    pub fn inherit(&mut self, link: LinkIndex, node: &NodeName, heard: Instant, instance: Option<u64>) {
        self.inherited.insert((link, node.clone()), heard);
        if instance.is_some() {
            self.processes.entry(node.clone()).or_default().instance = instance;
        }
    }

    /// When it wants to be woken. It may be woken early.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What is known of a peer on a link; nothing where it is not watched.
    pub fn verdict(&self, link: LinkIndex, node: &NodeName) -> Option<Verdict> {
        self.sessions.get(&(link, node.clone())).map(|session| session.verdict)
    }

    /// How a peer was found dead on a link; nothing where it is not dead.
    pub fn death(&self, link: LinkIndex, node: &NodeName) -> Option<Death> {
        self.sessions.get(&(link, node.clone()))?.death
    }

    /// What is known of a peer on all links where it is watched.
    pub fn verdicts<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (LinkIndex, Verdict)> + 'a {
        let sessions = self.sessions.iter().filter(move |((_, peer), _)| peer == node);
        sessions.map(|((link, _), session)| (*link, session.verdict))
    }

    /// Whether a message of that process of a peer is to be believed: it neither left nor was replaced.
    pub fn accepts(&self, node: &NodeName, instance: u64) -> bool {
        self.processes.get(node).is_none_or(|process| {
            process.former != Some(instance) && !(process.left && process.instance == Some(instance))
        })
    }

    /// When the link was, or will be, listened to for long enough to claim anything there.
    pub fn settled_at(&self, link: LinkIndex) -> Option<Instant> {
        self.links.get(&link).map(|state| state.settled_at)
    }

    /// Since when nothing at all is heard on a link with peers.
    pub fn isolated_since(&self, link: LinkIndex) -> Option<Instant> {
        self.links.get(&link)?.isolated_since
    }

    /// Whether a peer was heard on a link at that time or later.
    pub fn is_heard_since(&self, link: LinkIndex, node: &NodeName, since: Instant) -> bool {
        let session = self.sessions.get(&(link, node.clone()));
        session.and_then(|session| session.truly_heard).is_some_and(|heard| heard >= since)
    }

    /// How long ago a peer was heard on a link; nothing if it is not heard there now.
    pub fn heard_ago(&self, now: Instant, link: LinkIndex, node: &NodeName) -> Option<Duration> {
        let session = self.sessions.get(&(link, node.clone()))?;
        let heard = session.truly_heard.filter(|_| session.verdict.is_heard())?;
        Some(now.saturating_duration_since(heard))
    }

    /// Whether anything was heard on a link so lately that the silence of one peer means something: a
    /// port that went dark a moment ago makes all peers silent, one after the other.
    pub fn is_in_touch(&self, now: Instant, link: LinkIndex) -> bool {
        let is_watching = self.sessions.keys().any(|(on, _)| *on == link);
        !is_watching || self.links.get(&link).is_some_and(|state| now < state.heard() + self.doubt())
    }

    /// A silence for longer than this is doubtful.
    fn doubt(&self) -> Duration {
        self.timing.interval * 3 / 2
    }

    /// The peers that are watched on a link.
    pub fn watched(&self, link: LinkIndex) -> impl Iterator<Item = (&NodeName, Verdict)> {
        let sessions = self.sessions.iter().filter(move |((on, _), _)| *on == link);
        sessions.map(|((_, node), session)| (node, session.verdict))
    }

    fn watch(&mut self, now: Instant, wanted: &BTreeMap<LinkIndex, Vec<NodeName>>, out: &mut Vec<Action>) {
        let is_wanted =
            |link: LinkIndex, node: &NodeName| wanted.get(&link).is_some_and(|on| on.contains(node));
        self.sessions.retain(|(link, node), session| {
            let keep = is_wanted(*link, node);
            if !keep && session.verdict.is_heard() {
                out.push(Action::Dead(*link, node.clone()));
            }
            keep
        });
        self.links.retain(|link, _| wanted.contains_key(link));
        let settling = self.timing.detection();
        for (link, nodes) in wanted {
            let is_new = !self.links.contains_key(link);
            let was_empty = !self.sessions.keys().any(|(on, _)| on == link);
            // Where nobody else may announce there is nothing to listen for, and a former process has listened.
            let is_settled = nodes.is_empty() || self.inherited.keys().any(|(on, _)| on == link);
            let state = self.links.entry(*link).or_insert_with(|| LinkState {
                settled_at: if is_settled { now } else { now + settling },
                next_ask: now,
                speaker_heard: now,
                has_grace: false,
                station_heard: None,
                isolated_since: None,
                reached_by_station: None,
            });
            if was_empty && !is_new {
                state.speaker_heard = now;
            }
            if nodes.is_empty() {
                state.isolated_since = None;
            }
            for node in nodes {
                let key = (*link, node.clone());
                let inherited = self.inherited.remove(&key);
                if inherited.is_some() {
                    out.push(Action::Alive(*link, node.clone()));
                }
                self.sessions.entry(key).or_insert_with(|| Session {
                    verdict: inherited.map_or(Verdict::NeverHeard, |_| Verdict::Alive),
                    timing: self.timing,
                    heard: inherited.unwrap_or(now),
                    truly_heard: inherited,
                    has_grace: false,
                    isolated_since: None,
                    has_ended: false,
                    verification: None,
                    death: None,
                });
            }
        }
        self.processes.retain(|node, _| wanted.values().any(|on| on.contains(node)));
        self.due(now, out);
    }

    fn heard(
        &mut self,
        now: Instant,
        (link, at, node): (LinkIndex, Instant, &NodeName),
        (instance, isolated, timing): (u64, bool, Option<Timing>),
        out: &mut Vec<Action>,
    ) {
        if !self.accepts(node, instance) || !self.sessions.contains_key(&(link, node.clone())) {
            return;
        }
        let process = self.processes.entry(node.clone()).or_default();
        if process.instance != Some(instance) {
            let restarted = process.instance.is_some();
            *process = Process { instance: Some(instance), former: process.instance, left: false };
            if restarted {
                out.push(Action::Restarted(node.clone()));
            }
        }
        let Some(session) = self.sessions.get_mut(&(link, node.clone())) else { return };
        let late = session.timing.late();
        // What waited for this process to be run says how things were, not how they are.
        let is_past = at + late <= now;
        if is_past && matches!(session.verdict, Verdict::Dead | Verdict::Left) {
            return;
        }
        session.truly_heard = session.truly_heard.max(Some(at));
        session.timing = timing.unwrap_or(session.timing);
        if is_past {
            session.heard = session.heard.max(at);
        } else {
            // Whatever grace there was is used up.
            (session.heard, session.has_grace) = (at, false);
            (session.verification, session.has_ended, session.death) = (None, false, None);
        }
        if isolated {
            session.isolated_since.get_or_insert(now);
        } else {
            session.isolated_since = None;
        }
        let verdict = match session.isolated_since {
            Some(since) if since + session.timing.detection() <= now => Verdict::Deaf,
            _ => Verdict::Alive,
        };
        let former = std::mem::replace(&mut session.verdict, verdict);
        match (former, verdict) {
            (Verdict::Alive, Verdict::Deaf) => out.push(Action::Deaf(link, node.clone())),
            (Verdict::Alive | Verdict::Deaf, _) if former == verdict => {}
            _ => out.push(Action::Alive(link, node.clone())),
        }
        self.wake_by(at + late);
        if is_past {
            return;
        }
        self.look_at_verifications(now, link);
        let doubt = self.doubt();
        let Some(state) = self.links.get_mut(&link) else { return };
        if state.heard() + doubt <= now {
            out.push(Action::Touched(link));
        }
        let was_alone =
            state.speaker_heard + self.timing.detection() <= now || state.isolated_since.is_some();
        (state.speaker_heard, state.has_grace) = (state.speaker_heard.max(at), false);
        state.isolated_since = None;
        if was_alone {
            // Let the peers know at once that this node hears again, and what it has to say.
            self.ask_all(link, out);
            out.push(Action::Reached(link));
            self.due(now, out);
        }
    }

    fn station(&mut self, now: Instant, link: LinkIndex, at: Instant, out: &mut Vec<Action>) {
        let (doubt, detection) = (self.doubt(), self.timing.detection());
        let Some(state) = self.links.get_mut(&link) else { return };
        let was_in_doubt = state.heard() + doubt <= now;
        state.station_heard = state.station_heard.max(Some(at));
        if at + detection <= now {
            return;
        }
        if was_in_doubt {
            out.push(Action::Touched(link));
        }
        let was_isolated = state.isolated_since.is_some();
        self.look_at_verifications(now, link);
        let Some(state) = self.links.get_mut(&link).filter(|_| was_isolated) else { return };
        if state.isolated_since.take().is_some() {
            let is_due = |last: Instant| last + STATION_CAUTION <= now || last < state.speaker_heard;
            if state.reached_by_station.is_none_or(is_due) {
                state.reached_by_station = Some(now);
                self.ask_all(link, out);
                out.push(Action::Reached(link));
            }
            self.due(now, out);
        }
    }

    fn answered(&mut self, link: LinkIndex, at: Instant, node: &NodeName) {
        let session = self.sessions.get_mut(&(link, node.clone()));
        if let Some(verification) = session.and_then(|session| session.verification.as_mut()) {
            verification.answered(at);
        }
    }

    fn ended(&mut self, now: Instant, link: LinkIndex, node: &NodeName, out: &mut Vec<Action>) {
        if let Some(session) = self.sessions.get_mut(&(link, node.clone()))
            && !std::mem::replace(&mut session.has_ended, true)
        {
            self.due(now, out);
        }
    }

    fn vouched(
        &mut self,
        now: Instant,
        link: LinkIndex,
        node: &NodeName,
        ago: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some(session) = self.sessions.get_mut(&(link, node.clone())) else { return };
        let late = session.timing.late();
        let Some(heard) = now.checked_sub(ago).filter(|heard| now < *heard + late) else { return };
        if session.verification.take().is_some() {
            session.heard = session.heard.max(heard);
            self.due(now, out);
        }
    }

    /// Others are heard on the link, which may be what a verification waited for.
    fn look_at_verifications(&mut self, now: Instant, link: LinkIndex) {
        if self.sessions.iter().any(|((on, _), session)| *on == link && session.verification.is_some()) {
            self.wake_by(now);
        }
    }

    fn ask_all(&self, link: LinkIndex, out: &mut Vec<Action>) {
        out.extend(self.watched(link).map(|(node, _)| Action::Ask(link, node.clone())));
    }

    fn goodbye(&mut self, node: &NodeName, instance: u64, out: &mut Vec<Action>) {
        if !self.accepts(node, instance) {
            return;
        }
        let process = self.processes.entry(node.clone()).or_default();
        *process = Process { instance: Some(instance), left: true, ..process.clone() };
        for ((_, peer), session) in &mut self.sessions {
            if peer == node {
                session.verdict = Verdict::Left;
                (session.isolated_since, session.death) = (None, None);
            }
        }
        out.push(Action::Left(node.clone()));
    }
}
