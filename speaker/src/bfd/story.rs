//! What the tests of sessions tell their stories with.

#![allow(clippy::disallowed_methods)]

use std::num::{NonZeroU8, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auth::{Key, Keys};
use super::session::{Action, Config, Event, Session, TTL};
use super::timing::{Interval, Timing};
use crate::mind::rng::Rng;
use crate::wire::bfd::{ControlRepr, Diagnostic, Micros, Polling, State};

pub(super) const OURS: u32 = 0x0a0b_0c0d;
const THEIRS: u32 = 0x0102_0304;

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn timing(tx: u64, rx: u64, mult: u8) -> Timing {
    Timing {
        desired_min_tx: Interval::try_from(ms(tx)).unwrap(),
        required_min_rx: Interval::try_from(ms(rx)).unwrap(),
        detect_mult: NonZeroU8::new(mult).unwrap(),
    }
}

pub(super) fn keys(text: &str) -> Option<Arc<Keys>> {
    let key = Key::new(text.as_bytes()).unwrap();
    Some(Arc::new(Keys::new([(7, key)], 7).unwrap()))
}

/// A packet as a peer of the same timing sends it.
pub(super) fn told(state: State) -> ControlRepr {
    ControlRepr {
        diagnostic: Diagnostic::NoDiagnostic,
        state,
        polling: Polling::None,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: NonZeroU32::new(THEIRS).unwrap(),
        your_discriminator: NonZeroU32::new(OURS),
        desired_min_tx: Micros(100_000),
        required_min_rx: Micros(100_000),
        required_min_echo_rx: Micros(0),
        auth: None,
    }
}

/// A session with a clock that the story moves.
pub(super) struct Story {
    pub(super) session: Session,
    pub(super) now: Instant,
}

impl Story {
    pub(super) fn of(timing: Timing, steady_pace: bool, keys: Option<Arc<Keys>>) -> Self {
        Self::with(OURS, timing, steady_pace, keys)
    }

    /// The other end of a session.
    pub(super) fn peer(timing: Timing, steady_pace: bool, keys: Option<Arc<Keys>>) -> Self {
        Self::with(THEIRS, timing, steady_pace, keys)
    }

    fn with(number: u32, timing: Timing, steady_pace: bool, keys: Option<Arc<Keys>>) -> Self {
        let discriminator = NonZeroU32::new(number).unwrap();
        let config = Config { timing, steady_pace, keys, discriminator, first_sequence: 1 };
        let now = Instant::now();
        Self { session: Session::new(now, config, Rng::new(7)), now }
    }

    pub(super) fn steady() -> Self {
        Self::of(timing(100, 100, 3), true, None)
    }

    /// A session in that state, with nothing left to send.
    pub(super) fn in_state(state: State) -> Self {
        let mut story = Self::steady();
        match state {
            State::AdminDown => drop(story.tell(Event::SetEnabled(false))),
            State::Down => drop(story.tell(Event::Deadline)),
            State::Init => drop(story.hear(told(State::Down))),
            State::Up => drop(story.hear(told(State::Init))),
        }
        assert_eq!(story.session.state(), state);
        story
    }

    pub(super) fn tell(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.handle(self.now, event, &mut out);
        out
    }

    pub(super) fn hear(&mut self, repr: ControlRepr) -> Vec<Action> {
        self.tell(Event::Received { payload: repr.emit().as_ref(), ttl: TTL })
    }

    /// Takes in what another session sent.
    pub(super) fn receive(&mut self, action: &Action) -> Vec<Action> {
        match action {
            Action::Send(bytes) => self.tell(Event::Received { payload: bytes.as_ref(), ttl: TTL }),
            _ => Vec::new(),
        }
    }

    /// Lets time pass, waking the session when it wants to be, and tells what it did when.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<(Duration, Action)> {
        let (start, end) = (self.now, self.now + time);
        let mut done = Vec::new();
        while let Some(at) = self.session.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let at = self.now - start;
            done.extend(self.tell(Event::Deadline).into_iter().map(|action| (at, action)));
            assert!(
                self.session.next_deadline().is_none_or(|next| next > self.now),
                "deadlines come to rest"
            );
        }
        self.now = end;
        done
    }
}

pub(super) fn sent(actions: &[Action]) -> Vec<ControlRepr> {
    let repr = |action: &Action| match action {
        Action::Send(bytes) => Some(ControlRepr::parse_payload(bytes.as_ref()).unwrap()),
        _ => None,
    };
    actions.iter().filter_map(repr).collect()
}

pub(super) fn sent_later(done: &[(Duration, Action)]) -> Vec<ControlRepr> {
    sent(&done.iter().map(|(_, action)| *action).collect::<Vec<_>>())
}

/// A session that is up with a peer that signs, and that peer.
pub(super) fn signed_pair(keys: Option<Arc<Keys>>) -> (Story, Story) {
    let mut ours = Story::of(timing(100, 100, 3), true, keys.clone());
    let mut theirs = Story::peer(timing(100, 100, 3), true, keys);
    let mut words = ours.tell(Event::Deadline);
    for round in 0..6 {
        let (from, to) = if round % 2 == 0 { (&ours, &mut theirs) } else { (&theirs, &mut ours) };
        to.now = from.now;
        words = words.iter().flat_map(|action| to.receive(action)).collect();
        words.extend(to.tell(Event::Deadline));
    }
    assert_eq!((ours.session.state(), theirs.session.state()), (State::Up, State::Up));
    (ours, theirs)
}

/// Makes a peer say something and returns the bytes.
pub(super) fn word(peer: &mut Story) -> Vec<u8> {
    peer.pass(ms(100)).iter().find_map(|(_, action)| bytes(action)).unwrap()
}

fn bytes(action: &Action) -> Option<Vec<u8>> {
    match action {
        Action::Send(bytes) => Some(bytes.as_ref().to_vec()),
        _ => None,
    }
}
