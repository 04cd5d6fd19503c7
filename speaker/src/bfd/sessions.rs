//! All sessions of this node, one for each peer on each link, and the pace that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auth::Keys;
use super::discard::Discard;
use super::discriminators::Discriminators;
use super::session::{Action, Config, Event, Session};
use super::timing::{Interval, Timing};
use crate::lan::{LinkIndex, NodeName};
use crate::mind::rng::Rng;
use crate::succession::Bfd;
use crate::wire::bfd::{ControlBytes, Packet, State};

/// A session is named by the link and the peer.
pub type Key = (LinkIndex, NodeName);

/// So many sessions run at the pace that was asked for. With more of them each is slower, so that a node
/// never sends, nor has to take in, more packets than these would make.
pub const FULL_PACE: u32 = 128;

/// What sessions want done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send this to the peer on the link, with what there is to say behind it.
    Send(Key, ControlBytes),
    /// The state of a session changed.
    StateChanged(Key, State),
}

/// What a packet that was taken in says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Only this peer's present process can have made it; see [`Action::Heard`].
    pub is_proven: bool,
    /// The longest time to the peer's next packet, as it is negotiated.
    pub interval: Duration,
    /// After so many intervals of silence it is gone.
    pub multiplier: u32,
    /// How long the packet is; what follows it in the payload is the trailer.
    pub length: usize,
}

/// The sessions; see the module.
#[derive(Clone, Debug)]
pub struct Sessions {
    interval: Duration,
    multiplier: NonZeroU8,
    keys: Option<Arc<Keys>>,
    rng: Rng,
    discriminators: Discriminators,
    sessions: BTreeMap<Key, Session>,
    /// What a former process of this node left, until its peer is followed.
    inherited: BTreeMap<Key, Bfd>,
    /// Never later than the true next deadline.
    deadline: Option<Instant>,
    /// What sessions said last; kept to spare an allocation.
    said: Vec<Action>,
}

impl Sessions {
    /// None yet. `interval` is what they are to send and receive at, if they are not too many.
    pub fn new(interval: Duration, multiplier: NonZeroU8, rng: Rng) -> Self {
        let (keys, discriminators, sessions, inherited) = Default::default();
        let (deadline, said) = (None, Vec::new());
        Self { interval, multiplier, keys, rng, discriminators, sessions, inherited, deadline, said }
    }

    /// Has a session with each of these peers and with nobody else.
    pub fn follow(&mut self, now: Instant, wanted: &BTreeSet<Key>, out: &mut Vec<Outcome>) {
        let former = self.pace();
        for (_, session) in self.sessions.extract_if(.., |key, _| !wanted.contains(key)) {
            self.discriminators.release(session.discriminator());
        }
        let missing: Vec<Key> =
            wanted.iter().filter(|key| !self.sessions.contains_key(*key)).cloned().collect();
        let timing = self.timing(self.sessions.len() + missing.len());
        for key in missing {
            let left = self.inherited.remove(&key);
            let config = Config {
                timing,
                steady_pace: true,
                keys: self.keys.clone(),
                discriminator: self.discriminators.draw(&mut self.rng),
                // The lower half of a number is as good as the whole.
                first_sequence: self.rng.next_u64() as u32,
            };
            let rng = Rng::new(self.rng.next_u64());
            let resumed = left.and_then(|left| self.resume(now, &config, &rng, &left));
            self.sessions.insert(key, resumed.unwrap_or_else(|| Session::new(now, config, rng)));
        }
        if self.pace() != former {
            self.tell_all(now, &Event::SetTiming(timing), out);
        }
        self.handle_deadline(now, out);
    }

    fn resume(&mut self, now: Instant, config: &Config, rng: &Rng, left: &Bfd) -> Option<Session> {
        let resumed = Session::resume(now, config.clone(), rng.clone(), left)?;
        if !self.discriminators.take(resumed.discriminator()) {
            return None;
        }
        self.discriminators.release(config.discriminator);
        Some(resumed)
    }

    /// Goes on with these sessions of a former process of this node, as soon as their peers are followed.
    pub fn inherit(&mut self, left: impl IntoIterator<Item = (Key, Bfd)>) {
        self.inherited.extend(left);
    }

    /// What the next process of this node needs to go on.
    pub fn leave(&self) -> impl Iterator<Item = (&Key, Bfd)> {
        self.sessions.iter().map(|(key, session)| (key, session.leave()))
    }

    /// Uses these keys from now on, or none.
    pub fn set_keys(&mut self, now: Instant, keys: Option<Arc<Keys>>, out: &mut Vec<Outcome>) {
        self.keys.clone_from(&keys);
        self.tell_all(now, &Event::SetKeys(keys), out);
    }

    /// Takes a packet in that came from the address of that peer on that link.
    ///
    /// # Errors
    /// It is not believed, and changed nothing.
    pub fn receive(
        &mut self,
        now: Instant,
        key: &Key,
        payload: &[u8],
        ttl: u8,
        out: &mut Vec<Outcome>,
    ) -> Result<Heard, Discard> {
        let sender = Packet::new_checked(payload)?.my_discriminator();
        if sender.is_some_and(|sender| self.discriminators.contains(sender)) {
            return Err(Discard::Reflected);
        }
        let received = self.step(now, key, Event::Received { payload, ttl }, out);
        received.unwrap_or(Err(Discard::OtherSession))
    }

    /// Asks a peer to answer at once; see [`Event::Ask`].
    pub fn ask(&mut self, now: Instant, key: &Key, out: &mut Vec<Outcome>) {
        self.step(now, key, Event::Ask, out);
    }

    /// Tells every peer AdminDown: the last that it hears of this process.
    pub fn end(&mut self, now: Instant, out: &mut Vec<Outcome>) {
        self.tell_all(now, &Event::SetEnabled(false), out);
    }

    /// The time that `next_deadline` named has come.
    ///
    /// The sessions of a link send together as far as each may. So a peer hears no later sign of life of this
    /// node than another one does, and what witnesses know puts no verdict off.
    pub fn handle_deadline(&mut self, now: Instant, out: &mut Vec<Outcome>) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let sends = |(_, session): &(&Key, &Session)| is_due(session.next_send());
        let links: BTreeSet<LinkIndex> =
            self.sessions.iter().filter(sends).map(|((link, _), _)| *link).collect();
        let beats: BTreeMap<LinkIndex, Rng> =
            links.into_iter().map(|link| (link, Rng::new(self.rng.next_u64()))).collect();
        let wakes = |(key, session): (&Key, &Session)| {
            let wakes = beats.contains_key(&key.0) || is_due(session.next_deadline());
            wakes.then(|| key.clone())
        };
        for key in self.sessions.iter().filter_map(wakes).collect::<Vec<_>>() {
            let event = beats.get(&key.0).map_or(Event::Deadline, |rng| Event::Beat(rng.clone()));
            self.step(now, &key, event, out);
        }
        self.deadline = self.sessions.values().filter_map(Session::next_deadline).min();
    }

    /// When it wants to be woken. It may be woken early.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The interval at which packets are sent to each peer that can keep up.
    pub fn pace(&self) -> Duration {
        self.timing(self.sessions.len()).desired_min_tx.micros().duration()
    }

    /// The number of sessions that are up.
    pub fn up(&self) -> usize {
        self.sessions.values().filter(|session| session.state() == State::Up).count()
    }

    fn timing(&self, sessions: usize) -> Timing {
        let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
        let stretched = self.interval.saturating_mul(sessions.max(FULL_PACE)) / FULL_PACE;
        // The interval that a person may ask for is far from both ends of what packets can carry.
        let interval = Interval::try_from(stretched).unwrap_or(Interval::SLOW);
        Timing { desired_min_tx: interval, required_min_rx: interval, detect_mult: self.multiplier }
    }

    fn tell_all(&mut self, now: Instant, event: &Event<'_>, out: &mut Vec<Outcome>) {
        for key in self.sessions.keys().cloned().collect::<Vec<_>>() {
            self.step(now, &key, event.clone(), out);
        }
    }

    /// Gives a session an event. If that was a packet, tells what came of it.
    fn step(
        &mut self,
        now: Instant,
        key: &Key,
        event: Event<'_>,
        out: &mut Vec<Outcome>,
    ) -> Option<Result<Heard, Discard>> {
        let session = self.sessions.get_mut(key)?;
        session.handle(now, event, &mut self.said);
        let mut received = None;
        for action in self.said.drain(..) {
            match action {
                Action::Send(control) => out.push(Outcome::Send(key.clone(), control)),
                Action::StateChanged { to, .. } => out.push(Outcome::StateChanged(key.clone(), to)),
                Action::Discarded(discard) => received = Some(Err(discard)),
                Action::Heard { is_proven, length, .. } => {
                    let (interval, multiplier) = session.expected();
                    received = Some(Ok(Heard { is_proven, interval, multiplier, length }));
                }
            }
        }
        if let Some(at) = session.next_deadline() {
            self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
        }
        received
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
