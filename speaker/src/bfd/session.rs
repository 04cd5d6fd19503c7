//! One session: this node and one peer on one link (RFC 5880, asynchronous mode; RFC 5881).
//!
//! # What its caller does
//! - It leads each datagram to its session: by your discriminator alone where that is not zero
//!   ([`Packet::your_discriminator`]), else by the link and the sender's address; in both cases the link
//!   and the address must be those of the session (RFC 5880 section 6.8.6, RFC 5881 section 4). It drops
//!   packets whose *sender* has one of its own discriminators ([`Discriminators::contains`]).
//! - It hands in the time at which the kernel received the datagram, and all that were received before
//!   a deadline before that deadline: silence is judged by arrival.
//! - It sends what it is told at once, with TTL 255 and from a source port of 49152 or above.
//!
//! # What counts as life
//! Every packet that is taken in is told as [`Action::Heard`], whatever states the two ends are in: a peer
//! that says Down lives. Speakers share their keys, so a right hash says that *some* speaker made the
//! packet; that it was this peer, and lately, is what `is_proven` says.
//!
//! # Where it departs from the RFC
//! - `steady_pace` does without the slow start of section 6.8.3, for peers that are known to be speakers.
//! - [`Event::Ask`] sends a packet out of turn, which section 6.5 forbids: once for each silence.
//! - Sequence numbers are remembered for longer, and for each discriminator of the peer; see `replay`.
//! - A packet with the discriminator of this very session as its sender's is refused.
//!
//! [`Discriminators::contains`]: super::discriminators::Discriminators::contains

use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auth::{Authenticator, Keys};
use super::discard::Discard;
use super::remote::Remote;
use super::replay::Replay;
use super::state;
use super::timing::{Intervals, Negotiation, Timing};
use crate::mind::rng::Rng;
use crate::succession::Bfd;
use crate::wire::bfd::{
    ControlBytes, ControlRepr, Diagnostic, Discriminator, Micros, Packet, Polling, State,
};

/// The only TTL or hop limit that is taken in, and the one to send with (RFC 5881 section 5).
pub const TTL: u8 = 255;

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// How fast it is to be.
    pub timing: Timing,
    /// It keeps its pace while it is not up, instead of one packet a second.
    pub steady_pace: bool,
    /// The keys, if packets are authenticated.
    pub keys: Option<Arc<Keys>>,
    /// Its discriminator: unique on this node, random.
    pub discriminator: Discriminator,
    /// The sequence number of its first packet: random, so that nobody can foresee it.
    pub first_sequence: u32,
}

/// What happens to a session.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A datagram was received that is for this session.
    Received {
        /// What it carries.
        payload: &'a [u8],
        /// Its TTL or hop limit.
        ttl: u8,
    },
    /// The time that `next_deadline` named has come.
    Deadline,
    /// The same, while other sessions of the link send: so does this one, if three quarters of its interval
    /// have passed. The time to its next packet is drawn from this, so that they go on together.
    Beat(Rng),
    /// Something is late: ask the peer to answer at once. Until something is heard this has an effect once.
    Ask,
    /// Switch it on, or off: then it tells the peer AdminDown. It is on at first. What is switched off
    /// stays so for a detection time at least, so that the peer surely hears of it.
    SetEnabled(bool),
    /// Be faster or slower.
    SetTiming(Timing),
    /// Use these keys from now on, or none.
    SetKeys(Option<Arc<Keys>>),
}

/// What a session wants done or known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to the peer. A trailer may be put behind it.
    Send(ControlBytes),
    /// A packet was taken in, whatever its state: the peer lives.
    Heard {
        /// The state that the peer tells.
        state: State,
        /// Whether it asks for an answer, or is one.
        polling: Polling,
        /// Only this peer's present process can have made it, after this session began: it names our
        /// discriminator, or has a sender's discriminator that did before. If not, it may be another
        /// speaker's, or a recording.
        is_proven: bool,
        /// How long the packet is; what follows it in the payload is the trailer.
        length: usize,
    },
    /// The state of the session changed.
    StateChanged {
        /// From this.
        from: State,
        /// To this.
        to: State,
        /// For this reason.
        diagnostic: Diagnostic,
    },
    /// A packet was refused, and changed nothing.
    Discarded(Discard),
}

/// What a packet tells, save for flags P and F. When it is new, it is told at once (RFC 5880 section 6.8.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct News {
    state: State,
    diagnostic: Diagnostic,
    intervals: Intervals,
    detect_mult: NonZeroU8,
    knows_peer: bool,
}

/// A session; see the module.
#[derive(Clone, Debug)]
pub struct Session {
    discriminator: Discriminator,
    state: State,
    diagnostic: Diagnostic,
    negotiation: Negotiation,
    remote: Remote,
    auth: Authenticator,
    rng: Rng,
    is_enabled: bool,
    /// AdminDown is told until then at least.
    held_until: Option<Instant>,
    has_asked: bool,
    /// What the last packet told.
    said: Option<News>,
    /// When the last packet was sent that was no answer.
    last_sent: Option<Instant>,
    /// The interval by which the next one was planned.
    pace: Option<Duration>,
    next_send: Option<Instant>,
}

impl Session {
    /// A session that is down. Its first packet is due now.
    pub fn new(now: Instant, config: Config, rng: Rng) -> Self {
        Self {
            discriminator: config.discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NoDiagnostic,
            negotiation: Negotiation::new(config.timing, config.steady_pace),
            remote: Remote::new(config.timing.detect_mult),
            auth: Authenticator::new(config.keys, config.first_sequence),
            rng,
            is_enabled: true,
            held_until: None,
            has_asked: false,
            said: None,
            last_sent: None,
            pace: None,
            next_send: Some(now),
        }
    }

    /// A session that goes on where one of a former process of this node stopped. The peer's intervals are learned
    /// with its next packet. Nothing where what was left is no session.
    pub fn resume(now: Instant, config: Config, rng: Rng, left: &Bfd) -> Option<Self> {
        let discriminator = Discriminator::new(left.discriminator)?;
        let mut session = Self::new(now, Config { discriminator, ..config }, rng);
        session.state = if left.is_up { State::Up } else { State::Down };
        session.remote.discriminator = left.remote.and_then(Discriminator::new);
        session.remote.proven = left.proven.and_then(Discriminator::new);
        session.remote.state = session.state;
        session.remote.heard = session.remote.discriminator.map(|_| now);
        let seen = left.seen.iter().filter_map(|(sender, last)| Some((Discriminator::new(*sender)?, *last)));
        session.auth = Authenticator::resume(session.auth.keys(), left.next_sequence, Replay::resume(seen));
        Some(session)
    }

    /// What the next process of this node needs to go on.
    pub fn leave(&self) -> Bfd {
        let number = |discriminator: Option<Discriminator>| discriminator.map(Discriminator::get);
        Bfd {
            discriminator: self.discriminator.get(),
            is_up: self.state == State::Up,
            next_sequence: self.auth.next_sequence(),
            remote: number(self.remote.discriminator),
            proven: number(self.remote.proven),
            seen: self.auth.replay().seen().map(|(sender, last)| (sender.get(), last)).collect(),
        }
    }

    /// Takes an event in and pushes what follows from it.
    pub fn handle(&mut self, now: Instant, event: Event<'_>, out: &mut Vec<Action>) {
        let (mut answers, mut asks, mut joins) = (false, false, false);
        match event {
            Event::Received { payload, ttl } => match self.receive(now, payload, ttl, out) {
                Ok(polling) => answers = polling == Polling::Poll,
                Err(discard) => return out.push(Action::Discarded(discard)),
            },
            Event::Deadline => self.expire(now, out),
            Event::Beat(rng) => {
                (self.rng, joins) = (rng, true);
                self.expire(now, out);
            }
            Event::Ask => {
                asks = !std::mem::replace(&mut self.has_asked, true);
                if asks {
                    self.negotiation.ask();
                }
            }
            Event::SetEnabled(is_enabled) => {
                self.is_enabled = is_enabled;
                self.administrate(now, out);
            }
            Event::SetTiming(timing) => self.negotiation.want(timing),
            Event::SetKeys(keys) => self.auth.set_keys(keys),
        }
        let joins = joins && self.may_send_since().is_some_and(|at| at <= now);
        self.speak(now, answers, asks || joins, out);
    }

    /// When it wants to be woken. It may be woken early.
    pub fn next_deadline(&self) -> Option<Instant> {
        let enables = self.held_until.filter(|_| self.is_enabled && self.state == State::AdminDown);
        [self.next_send, self.expires(), enables].into_iter().flatten().min()
    }

    /// When the next packet is due that nobody asked for.
    pub fn next_send(&self) -> Option<Instant> {
        self.next_send
    }

    /// From when on the next packet may be sent (RFC 5880 section 6.8.7).
    fn may_send_since(&self) -> Option<Instant> {
        Some(self.last_sent? + self.pace? * 3 / 4)
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its own discriminator.
    pub fn discriminator(&self) -> Discriminator {
        self.discriminator
    }

    /// The silence after which the peer is gone, as it is negotiated now; nothing before it was heard.
    pub fn detection_time(&self) -> Option<Duration> {
        self.remote.heard?;
        Some(self.negotiation.detection_time(self.remote.detect_mult, self.remote.desired_min_tx))
    }

    /// The longest time to the peer's next packet, and after how many of these it is gone, as they are
    /// negotiated now.
    pub fn expected(&self) -> (Duration, u32) {
        let multiplier = self.remote.detect_mult;
        let detection = self.negotiation.detection_time(multiplier, self.remote.desired_min_tx);
        (detection / u32::from(multiplier.get()), multiplier.get().into())
    }

    /// The time between two packets of its own before jitter, as it is negotiated now; nothing if the
    /// peer wants no periodic packets.
    pub fn transmit_interval(&self) -> Option<Duration> {
        let Remote { min_rx, demand, state, .. } = self.remote;
        // RFC 5880 section 6.8.7: demand mode is active only while both ends are up, and not for polls.
        let is_demanded = demand && self.state == State::Up && state == State::Up;
        let is_silent = min_rx == Micros(0) || is_demanded && !self.negotiation.is_polling();
        (!is_silent).then(|| self.negotiation.transmit_interval(min_rx))
    }

    /// When the last packet was taken in.
    pub fn heard_at(&self) -> Option<Instant> {
        self.remote.heard
    }

    /// What the peer told last: its state and why it changed.
    pub fn remote(&self) -> (State, Diagnostic) {
        (self.remote.state, self.remote.diagnostic)
    }

    /// Until when AdminDown is to be told: then the peer surely knows. Nothing while it is not AdminDown.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// RFC 5880 section 6.8.6. What the caller has to answer follows from the packet's part in a poll.
    fn receive(
        &mut self,
        now: Instant,
        payload: &[u8],
        ttl: u8,
        out: &mut Vec<Action>,
    ) -> Result<Polling, Discard> {
        if ttl != TTL {
            return Err(Discard::Ttl);
        }
        let packet = Packet::new_checked(payload)?;
        let repr = ControlRepr::parse(&packet)?;
        let names_us = repr.your_discriminator.is_some();
        if repr.your_discriminator.is_some_and(|named| named != self.discriminator) {
            return Err(Discard::OtherSession);
        }
        if repr.my_discriminator == self.discriminator {
            return Err(Discard::Reflected);
        }
        let silence = self.detection_time().zip(self.remote.heard);
        let is_quiet = silence.is_none_or(|(detection, heard)| heard + detection * 2 <= now);
        self.auth.open(&packet, &repr, names_us, is_quiet)?;

        self.has_asked = false;
        self.remote.learn(now, &repr);
        let is_proven = self.remote.proven == Some(repr.my_discriminator);
        let length = packet.control().len();
        out.push(Action::Heard { state: repr.state, polling: repr.polling, is_proven, length });
        self.negotiation.heard(repr.polling);
        let next = state::after(self.state, repr.state);
        let diagnostic = match next {
            State::Down => Diagnostic::NeighborSignaledSessionDown,
            // What made the former session fail is of interest until the next one is up.
            State::AdminDown | State::Init => self.diagnostic,
            State::Up => Diagnostic::NoDiagnostic,
        };
        self.change(next, diagnostic, out);
        Ok(repr.polling)
    }

    fn change(&mut self, to: State, diagnostic: Diagnostic, out: &mut Vec<Action>) {
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            self.diagnostic = diagnostic;
            out.push(Action::StateChanged { from, to, diagnostic });
        }
    }

    /// When the detection time is over.
    fn expires(&self) -> Option<Instant> {
        self.remote.discriminator?;
        Some(self.remote.heard? + self.detection_time()?)
    }

    fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.expires().is_some_and(|at| at <= now) {
            self.remote.discriminator = None;
            if matches!(self.state, State::Init | State::Up) {
                self.change(State::Down, Diagnostic::ControlDetectionTimeExpired, out);
            }
        }
        self.administrate(now, out);
    }

    /// RFC 5880 section 6.8.16.
    fn administrate(&mut self, now: Instant, out: &mut Vec<Action>) {
        match (self.is_enabled, self.state) {
            (false, State::Down | State::Init | State::Up) => {
                self.change(State::AdminDown, Diagnostic::AdministrativelyDown, out);
                self.negotiation.settle(false);
                let interval = self.negotiation.transmit_interval(self.remote.min_rx);
                self.held_until = Some(now + interval * u32::from(self.negotiation.detect_mult().get()));
            }
            (true, State::AdminDown) if self.held_until.is_none_or(|until| until <= now) => {
                self.held_until = None;
                self.change(State::Down, self.diagnostic, out);
            }
            _ => {}
        }
    }

    /// Sends what is to be sent now (RFC 5880 section 6.8.7).
    fn speak(&mut self, now: Instant, answers: bool, is_wanted: bool, out: &mut Vec<Action>) {
        self.negotiation.settle(self.state == State::Up);
        if answers {
            // Whatever the state, the schedule and the interval.
            self.send(Polling::Final, out);
        }
        let pace = self.transmit_interval();
        if pace != self.pace {
            // A new interval counts from the last packet, and is honoured at once (section 6.8.3).
            let next =
                |pace| self.last_sent.map(|last| last + self.negotiation.jittered(pace, &mut self.rng));
            self.next_send = pace.map(next).map(|next| next.unwrap_or(now));
            self.pace = pace;
        }
        let is_due = self.next_send.is_some_and(|at| at <= now);
        let has_news = self.said != Some(self.news());
        if self.remote.min_rx != Micros(0) && (is_due || has_news || is_wanted) {
            let polling = if self.negotiation.is_polling() { Polling::Poll } else { Polling::None };
            self.send(polling, out);
            self.last_sent = Some(now);
            self.next_send = pace.map(|pace| now + self.negotiation.jittered(pace, &mut self.rng));
        }
    }

    fn news(&self) -> News {
        News {
            state: self.state,
            diagnostic: self.diagnostic,
            intervals: self.negotiation.told(),
            detect_mult: self.negotiation.detect_mult(),
            knows_peer: self.remote.discriminator.is_some(),
        }
    }

    fn send(&mut self, polling: Polling, out: &mut Vec<Action>) {
        let news = self.news();
        let repr = ControlRepr {
            diagnostic: news.diagnostic,
            state: news.state,
            polling,
            // The process that talks to the LAN is the one that decides.
            control_plane_independent: false,
            demand: false,
            detect_mult: news.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: news.intervals.desired_min_tx.micros(),
            required_min_rx: news.intervals.required_min_rx.micros(),
            // No Echo packets are sent back.
            required_min_echo_rx: Micros(0),
            auth: None,
        };
        self.said = Some(news);
        self.negotiation.sent(polling);
        out.push(Action::Send(self.auth.seal(repr)));
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
