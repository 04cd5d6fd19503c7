//! Two sessions on a pretended LAN that loses, delays, reorders and repeats.

#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::auth::{Key, Keys};
use super::session::{Action, Config, Event, Session, TTL};
use super::story::{ms, timing};
use super::timing::Timing;
use crate::mind::rng::Rng;
use crate::wire::bfd::{ControlRepr, Diagnostic, Polling, State};

/// What the LAN does to packets.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Of a hundred packets so many are lost.
    loss: u64,
    /// Of a hundred packets so many arrive twice.
    twice: u64,
    /// The longest way; the shortest takes no time at all. Different ways are what reorders.
    delay: Duration,
}

const FAIR: Weather = Weather { loss: 0, twice: 0, delay: Duration::ZERO };

struct Lan {
    ends: [Session; 2],
    now: Instant,
    weather: Weather,
    rng: Rng,
    /// Packets on their way, by arrival.
    flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    count: u64,
    is_signed: bool,
    /// What each end took in, where it is signed: each packet only once.
    taken: [BTreeSet<Vec<u8>>; 2],
    /// What each end took in last and when, and all timings that it ever had.
    heard: [Option<(Instant, ControlRepr)>; 2],
    timings: [Vec<Timing>; 2],
    /// When that was changed last.
    retimed: [Instant; 2],
    changes: Vec<(usize, State, State, Diagnostic)>,
    polls: usize,
}

impl Lan {
    fn new(timings: [Timing; 2], steady_pace: [bool; 2], keys: Option<Arc<Keys>>, seed: u64) -> Self {
        let now = Instant::now();
        let mut rng = Rng::new(seed);
        let mut end = |at: usize| {
            let discriminator = NonZeroU32::new(at as u32 + 1).unwrap();
            let (timing, steady_pace) = (timings[at], steady_pace[at]);
            let first_sequence = rng.next_u64() as u32;
            let config = Config { timing, steady_pace, keys: keys.clone(), discriminator, first_sequence };
            Session::new(now, config, Rng::new(rng.next_u64()))
        };
        Self {
            ends: [end(0), end(1)],
            now,
            weather: FAIR,
            rng,
            flying: BTreeMap::new(),
            count: 0,
            is_signed: keys.is_some(),
            taken: Default::default(),
            heard: [None, None],
            timings: timings.map(|timing| vec![timing]),
            retimed: [now; 2],
            changes: Vec::new(),
            polls: 0,
        }
    }

    fn tell(&mut self, end: usize, event: Event<'_>) {
        let payload = match &event {
            Event::Received { payload, .. } => payload.to_vec(),
            _ => Vec::new(),
        };
        if let Event::SetTiming(timing) = &event {
            self.timings[end].push(*timing);
            self.retimed[end] = self.now;
        }
        let mut out = Vec::new();
        self.ends[end].handle(self.now, event, &mut out);
        for action in out {
            match action {
                Action::Send(bytes) => self.fly(1 - end, bytes.as_ref()),
                Action::Heard { .. } => {
                    let repr = ControlRepr::parse_payload(&payload).unwrap();
                    self.heard[end] = Some((self.now, repr));
                    let is_first = self.taken[end].insert(payload.clone());
                    assert!(is_first || !self.is_signed, "taken in twice: {repr:?}");
                }
                Action::StateChanged { from, to, diagnostic } => {
                    self.changes.push((end, from, to, diagnostic));
                    if diagnostic == Diagnostic::ControlDetectionTimeExpired && to == State::Down {
                        self.check_detection(end);
                    }
                }
                Action::Discarded(_) => {}
            }
        }
    }

    /// Silence ends a session neither before nor after the time that was negotiated. Where the end wants
    /// other intervals than before it may still expect what it did: so by any of those that it had. One
    /// that is not up may find by a shorter one that it has waited for too long already.
    fn check_detection(&self, end: usize) {
        let (heard, repr) = self.heard[end].unwrap();
        let negotiated = |timing: &Timing| {
            let agreed = timing.required_min_rx.micros().max(repr.desired_min_tx).duration();
            agreed * u32::from(repr.detect_mult.get())
        };
        let silence = self.now - heard;
        let mut times = self.timings[end].iter().map(negotiated);
        let has_just_changed = self.retimed[end] == self.now;
        assert!(
            times.any(|time| time == silence || has_just_changed && time < silence),
            "{silence:?} after {repr:?} by {:?}",
            self.timings[end]
        );
    }

    fn fly(&mut self, to: usize, bytes: &[u8]) {
        assert_ne!(bytes[1] & 0x30, 0x30, "P and F together");
        let repr = ControlRepr::parse_payload(bytes).unwrap();
        assert_eq!(repr.auth.is_some(), self.is_signed);
        self.polls += usize::from(repr.polling == Polling::Poll);
        let copies = if self.rng.next_u64() % 100 < self.weather.twice { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.next_u64() % 100 >= self.weather.loss {
                let way = self.rng.between(Duration::ZERO, self.weather.delay);
                self.count += 1;
                self.flying.insert((self.now + way, self.count), (to, bytes.to_vec()));
            }
        }
    }

    /// Lets time pass. What arrives at the time of a deadline is handed in before it.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let deadlines = self.ends.iter().filter_map(Session::next_deadline);
            let deadline = deadlines.min().unwrap();
            let next = arrival.map_or(deadline, |at| at.min(deadline));
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (to, bytes)) = self.flying.pop_first().unwrap();
                self.tell(to, Event::Received { payload: &bytes, ttl: TTL });
            } else {
                for end in 0..2 {
                    self.tell(end, Event::Deadline);
                }
            }
        }
        self.now = end;
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    /// Everything that both ends agree on, in milliseconds: how fast each sends, and how long each waits.
    fn agreed(&self) -> [(u128, u128); 2] {
        [0, 1].map(|end| {
            let session = &self.ends[end];
            let transmit = session.transmit_interval().unwrap();
            (transmit.as_millis(), session.detection_time().unwrap().as_millis())
        })
    }
}

/// What both ends must come to agree on.
fn agreement(timings: [Timing; 2]) -> [(u128, u128); 2] {
    [(0, 1), (1, 0)].map(|(own, other)| {
        let (own, other) = (timings[own], timings[other]);
        let sends = own.desired_min_tx.max(other.required_min_rx).micros().duration();
        let waits = other.desired_min_tx.max(own.required_min_rx).micros().duration();
        (sends.as_millis(), (waits * u32::from(other.detect_mult.get())).as_millis())
    })
}

fn keys(of: &[(u8, &str)], sending: u8) -> Option<Arc<Keys>> {
    let keys = of.iter().map(|(id, text)| (*id, Key::new(text.as_bytes()).unwrap()));
    Some(Arc::new(Keys::new(keys, sending).unwrap()))
}

fn house_keys(is_signed: bool) -> Option<Arc<Keys>> {
    is_signed.then(|| keys(&[(7, "a key of the house")], 7)).flatten()
}

/// Longer than any silence, slow start or poll in these tests takes.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn two_speakers_are_up_within_a_breath() {
    for is_signed in [false, true] {
        let timings = [timing(100, 100, 3); 2];
        let mut lan = Lan::new(timings, [true; 2], house_keys(is_signed), 1);
        lan.pass(ms(0));
        assert_eq!(lan.states(), [State::Up; 2], "each word is answered by the next");
        lan.pass(LONG);
        assert_eq!(lan.agreed(), [(100, 300); 2]);
        assert_eq!((lan.changes.len(), lan.polls), (4, 0), "each by way of Init, and nothing to negotiate");
    }
}

#[test]
fn slow_starters_speed_up_by_a_poll_each() {
    let mut lan = Lan::new([timing(100, 100, 3); 2], [false; 2], house_keys(true), 1);
    lan.pass(LONG);
    assert_eq!((lan.states(), lan.agreed()), ([State::Up; 2], [(100, 300); 2]));
    assert!(lan.polls >= 2);
}

#[test]
fn a_death_is_seen_after_the_detection_time_and_a_return_at_the_first_word() {
    let mut lan = Lan::new([timing(100, 100, 3); 2], [true; 2], house_keys(true), 1);
    lan.pass(LONG);
    lan.weather.loss = 100;
    lan.pass(ms(199));
    assert_eq!(lan.states(), [State::Up; 2]);
    lan.pass(ms(101));
    assert_eq!(lan.states(), [State::Down; 2]);
    // Long enough for the window to open.
    lan.pass(ms(2000));
    lan.weather.loss = 0;
    lan.pass(ms(100));
    assert_eq!(lan.states(), [State::Up; 2]);
}

#[test]
fn an_end_that_is_switched_off_takes_the_other_down_at_once_and_is_heard_all_the_while() {
    let mut lan = Lan::new([timing(100, 100, 3); 2], [true; 2], house_keys(true), 1);
    lan.pass(LONG);
    lan.changes.clear();
    lan.tell(0, Event::SetEnabled(false));
    lan.pass(ms(1000));
    let down = Diagnostic::NeighborSignaledSessionDown;
    assert_eq!(lan.changes[1..], [(1, State::Up, State::Down, down)]);
    assert!(lan.now - lan.ends[1].heard_at().unwrap() <= ms(100));
    lan.tell(0, Event::SetEnabled(true));
    lan.pass(ms(100));
    assert_eq!(lan.states(), [State::Up; 2]);
}

fn any_timing() -> impl Strategy<Value = Timing> {
    (20_u64..500, 20_u64..500, 1_u8..6).prop_map(|(tx, rx, mult)| timing(tx, rx, mult))
}

fn any_weather() -> impl Strategy<Value = Weather> {
    let weather = (0_u64..=60, 0_u64..=50, 0_u64..400);
    weather.prop_map(|(loss, twice, delay)| Weather { loss, twice, delay: ms(delay) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// After any weather, with anything changed in it: once it is fair both are up and agree, and stay so.
    #[test]
    fn fair_weather_brings_both_up_and_keeps_them_so(
        first in any::<[bool; 3]>(),
        before in (any_timing(), any_timing()),
        storm in proptest::collection::vec((any_weather(), 0_u64..3000, 0_usize..2, any_timing()), 0..6),
        seed in any::<u64>(),
    ) {
        let [is_signed, steady_a, steady_b] = first;
        let mut timings = [before.0, before.1];
        let mut lan = Lan::new(timings, [steady_a, steady_b], house_keys(is_signed), seed);
        for (weather, time, end, timing) in storm {
            lan.weather = weather;
            lan.pass(ms(time));
            timings[end] = timing;
            lan.tell(end, Event::SetTiming(timing));
        }
        lan.weather = FAIR;
        lan.pass(LONG);
        prop_assert_eq!(lan.states(), [State::Up; 2]);
        prop_assert_eq!(lan.agreed(), agreement(timings));
        lan.changes.clear();
        lan.pass(LONG);
        prop_assert!(lan.changes.is_empty(), "{:?}", lan.changes);
        // Nothing is left to tell: only periodic packets are sent.
        lan.polls = 0;
        lan.pass(ms(3000));
        prop_assert_eq!(lan.polls, 0);
    }

    /// Nothing goes down while nothing is lost, whatever the ends want and how often they change it.
    #[test]
    fn renegotiation_never_flaps(
        is_signed in any::<bool>(),
        steady_pace in any::<[bool; 2]>(),
        changes in proptest::collection::vec((0_u64..1500, 0_usize..2, any_timing(), any::<bool>()), 1..20),
        seed in any::<u64>(),
    ) {
        let mut timings = [timing(100, 100, 3); 2];
        let mut lan = Lan::new(timings, steady_pace, house_keys(is_signed), seed);
        lan.pass(LONG);
        // Repeated packets are harmless where they are signed; a repeated Poll is answered twice.
        lan.weather = Weather { twice: if is_signed { 30 } else { 0 }, ..FAIR };
        lan.changes.clear();
        for (time, end, timing, asks) in changes {
            if asks {
                lan.tell(end, Event::Ask);
            }
            timings[end] = timing;
            lan.tell(end, Event::SetTiming(timing));
            lan.pass(ms(time));
        }
        lan.pass(LONG);
        prop_assert!(lan.changes.is_empty(), "{:?}", lan.changes);
        prop_assert_eq!(lan.agreed(), agreement(timings));
    }

    /// Both ends go through the steps of a rotation in whatever order, never more than one step apart.
    #[test]
    fn a_rotation_of_keys_never_flaps(order in any::<[bool; 3]>(), pauses in any::<[u8; 6]>(), seed in any::<u64>()) {
        let (old, new) = ((1, "old"), (2, "new"));
        let steps = [keys(&[old, new], 1), keys(&[old, new], 2), keys(&[new], 2)];
        let mut lan = Lan::new([timing(100, 100, 3); 2], [true; 2], keys(&[old], 1), seed);
        lan.pass(LONG);
        lan.changes.clear();
        let mut pauses = pauses.into_iter();
        for (step, b_first) in steps.into_iter().zip(order) {
            for end in if b_first { [1, 0] } else { [0, 1] } {
                lan.tell(end, Event::SetKeys(step.clone()));
                lan.pass(ms(u64::from(pauses.next().unwrap()) * 10));
            }
        }
        lan.pass(LONG);
        prop_assert!(lan.changes.is_empty(), "{:?}", lan.changes);
    }

    /// Another speaker of other keys shouts in between: nothing of it is taken in, nothing flaps.
    #[test]
    fn a_stranger_on_the_lan_changes_nothing(seed in any::<u64>()) {
        let timings = [timing(100, 100, 3); 2];
        let mut lan = Lan::new(timings, [true; 2], house_keys(true), seed);
        let mut strange = Lan::new(timings, [true; 2], keys(&[(7, "another key")], 7), seed);
        lan.pass(LONG);
        lan.changes.clear();
        let mut shouted = 0;
        for _ in 0..50 {
            strange.pass(ms(40));
            strange.tell(0, Event::Ask);
            for (_, (to, bytes)) in std::mem::take(&mut strange.flying) {
                let heard = lan.ends[to].heard_at();
                lan.tell(to, Event::Received { payload: &bytes, ttl: TTL });
                prop_assert_eq!(lan.ends[to].heard_at(), heard);
                shouted += 1;
            }
            lan.pass(ms(40));
        }
        prop_assert!(shouted > 20);
        prop_assert!(lan.changes.is_empty(), "{:?}", lan.changes);
    }
}
