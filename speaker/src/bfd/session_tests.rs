//! Stories of one session and a peer whose packets are written by hand.

use std::num::NonZeroU32;

use super::*;
use crate::bfd::auth::AuthError;
use crate::bfd::story::{OURS, Story, keys, ms, sent, sent_later, signed_pair, timing, told, word};
use crate::wire::bfd::Malformed;

/// The pauses before each packet that was sent.
fn pauses(done: &[(Duration, Action)]) -> Vec<Duration> {
    let sends = done.iter().filter(|(_, action)| matches!(action, Action::Send(_)));
    let times: Vec<_> = sends.map(|(at, _)| *at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn micros(duration: Duration) -> u32 {
    duration.as_micros() as u32
}

#[test]
fn every_state_follows_every_packet_and_every_packet_is_a_sign_of_life() {
    use State::{AdminDown, Down, Init, Up};
    let table = [
        (AdminDown, [AdminDown, AdminDown, AdminDown, AdminDown]),
        (Down, [Down, Init, Up, Down]),
        (Init, [Down, Init, Up, Up]),
        (Up, [Down, Down, Up, Up]),
    ];
    for (own, expected) in table {
        for (heard, next) in State::ALL.into_iter().zip(expected) {
            let mut story = Story::in_state(own);
            let actions = story.hear(told(heard));
            let life = Action::Heard { state: heard, polling: Polling::None, is_proven: true, length: 24 };
            assert_eq!(actions[0], life, "{own:?} hears {heard:?}");
            assert_eq!(story.session.state(), next, "{own:?} hears {heard:?}");
            let diagnostic = match next {
                Down => Diagnostic::NeighborSignaledSessionDown,
                _ => Diagnostic::NoDiagnostic,
            };
            let change = Action::StateChanged { from: own, to: next, diagnostic };
            assert_eq!(actions.contains(&change), own != next, "{own:?} hears {heard:?}: {actions:?}");
            if own != next {
                assert_eq!(sent(&actions)[0].state, next, "a new state is told at once");
            }
        }
    }
}

#[test]
fn a_peer_that_is_never_heard_is_asked_for_once_a_second() {
    let mut story = Story::of(timing(100, 100, 3), false, None);
    let done = story.pass(ms(60_000));
    let first = ControlRepr {
        my_discriminator: NonZeroU32::new(OURS).unwrap(),
        your_discriminator: None,
        desired_min_tx: Micros(1_000_000),
        ..told(State::Down)
    };
    assert!(sent_later(&done).iter().all(|repr| *repr == first));
    let pauses = pauses(&done);
    assert!(pauses.iter().all(|pause| (ms(750)..=ms(1000)).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause < ms(800)) && pauses.iter().any(|pause| *pause > ms(950)));
}

#[test]
fn between_speakers_the_pace_is_steady_whatever_the_state() {
    for state in State::ALL {
        let mut story = Story::in_state(state);
        let done = story.pass(ms(200));
        let pauses = pauses(&done);
        assert!(!pauses.is_empty() && pauses.iter().all(|pause| (ms(75)..=ms(100)).contains(pause)));
        assert!(sent_later(&done).iter().all(|repr| repr.desired_min_tx == Micros(100_000)));
        assert!(sent_later(&done).iter().all(|repr| repr.polling == Polling::None), "no change to tell");
    }
}

#[test]
fn a_peer_that_may_miss_no_packet_gets_it_after_nine_tenths_of_the_interval() {
    let mut story = Story::of(timing(100, 100, 1), true, None);
    let pauses = pauses(&story.pass(ms(20_000)));
    assert!(pauses.iter().all(|pause| (ms(75)..=ms(90)).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause > ms(88)));
}

#[test]
fn silence_is_counted_by_the_peers_multiplier_and_the_slower_of_two_intervals() {
    let mult = |mult| NonZeroU8::new(mult).unwrap();
    for (remote_mult, remote_tx, expected) in [(3, 100, 300), (5, 20, 500), (2, 400, 800), (1, 100, 100)] {
        let mut story = Story::in_state(State::Up);
        let desired_min_tx = Micros(remote_tx * 1000);
        story.hear(ControlRepr { detect_mult: mult(remote_mult), desired_min_tx, ..told(State::Up) });
        assert_eq!(story.session.detection_time(), Some(ms(expected)));
        story.pass(ms(expected) - Duration::from_nanos(1));
        assert_eq!(story.session.state(), State::Up);
        let done = story.pass(Duration::from_nanos(1));
        let diagnostic = Diagnostic::ControlDetectionTimeExpired;
        let down = Action::StateChanged { from: State::Up, to: State::Down, diagnostic };
        assert_eq!(done[0].1, down);
        let word = sent_later(&done)[0];
        assert_eq!((word.state, word.diagnostic, word.your_discriminator), (State::Down, diagnostic, None));
    }
}

#[test]
fn a_silent_peer_is_forgotten_in_every_state() {
    for state in State::ALL {
        let mut story = Story::in_state(state);
        story.hear(told(State::AdminDown));
        let before = story.session.state();
        assert!(story.session.remote.discriminator.is_some());
        story.pass(ms(300));
        assert_eq!((story.session.state(), story.session.remote.discriminator), (before, None));
    }
}

#[test]
fn a_poll_is_answered_at_once_in_every_state_and_out_of_turn() {
    for state in State::ALL {
        for quiet_peer in [false, true] {
            let mut story = Story::in_state(state);
            let next = story.session.next_deadline();
            // What the peer tells changes nothing, so that the answer is all there is to send.
            let heard = match state {
                State::AdminDown | State::Down => State::AdminDown,
                State::Init => State::Down,
                State::Up => State::Up,
            };
            story.hear(told(heard));
            story.now += ms(1);
            let required_min_rx = Micros(if quiet_peer { 0 } else { 100_000 });
            let poll = ControlRepr { polling: Polling::Poll, required_min_rx, ..told(heard) };
            let answers = sent(&story.hear(poll));
            assert_eq!(answers.len(), 1, "{state:?}");
            assert_eq!((answers[0].polling, answers[0].state), (Polling::Final, story.session.state()));
            if !quiet_peer && state == State::Up {
                assert!(story.session.next_deadline() >= next, "the schedule is not moved");
            }
            assert!(sent(&story.hear(told(heard))).iter().all(|repr| repr.polling == Polling::None));
        }
    }
}

#[test]
fn a_peer_that_wants_nothing_gets_nothing_until_it_does() {
    let mut story = Story::in_state(State::Up);
    let quiet = ControlRepr { required_min_rx: Micros(0), ..told(State::Up) };
    for _ in 0..20 {
        assert!(sent(&story.hear(quiet)).is_empty());
        assert!(sent_later(&story.pass(ms(100))).is_empty());
    }
    assert!(sent_later(&story.pass(ms(5000))).is_empty(), "not even that it is gone");
    assert_eq!(story.session.state(), State::Down);
    assert_eq!(sent(&story.hear(told(State::Down))).len(), 1);
}

#[test]
fn a_shorter_interval_of_the_peer_is_honoured_at_once() {
    let mut story = Story::in_state(State::Up);
    story.hear(ControlRepr { required_min_rx: Micros(3_000_000), ..told(State::Up) });
    assert_eq!(story.session.transmit_interval(), Some(ms(3000)));
    story.now += ms(200);
    assert_eq!(sent(&story.hear(told(State::Up))).len(), 1, "more than 100 ms ago the last one was sent");
    story.hear(ControlRepr { required_min_rx: Micros(3_000_000), ..told(State::Up) });
    story.now += ms(10);
    assert!(sent(&story.hear(told(State::Up))).is_empty());
    assert_eq!(sent_later(&story.pass(ms(90))).len(), 1, "counted from the last packet");
}

#[test]
fn a_peer_in_demand_mode_is_left_in_peace_while_both_are_up() {
    let mut story = Story::in_state(State::Up);
    let demand = ControlRepr { demand: true, ..told(State::Up) };
    for _ in 0..5 {
        story.hear(demand);
        assert!(story.pass(ms(100)).is_empty());
    }
    let words = sent(&story.tell(Event::SetTiming(timing(200, 100, 3))));
    assert_eq!(words[0].polling, Polling::Poll);
    story.hear(demand);
    assert!(!sent_later(&story.pass(ms(150))).is_empty(), "a poll is sent all the same");
    story.hear(ControlRepr { polling: Polling::Final, ..demand });
    assert!(story.pass(ms(250)).is_empty());
    story.hear(ControlRepr { demand: true, ..told(State::Init) });
    assert!(!story.pass(ms(250)).is_empty());
}

#[test]
fn only_a_ttl_of_255_comes_from_this_link() {
    for ttl in 0..255 {
        let mut story = Story::in_state(State::Up);
        let payload = told(State::Down).emit();
        let actions = story.tell(Event::Received { payload: payload.as_ref(), ttl });
        assert_eq!(actions, [Action::Discarded(Discard::Ttl)]);
        assert_eq!(story.session.state(), State::Up);
    }
}

#[test]
fn packets_for_others_and_reflections_are_refused() {
    let mut story = Story::in_state(State::Up);
    let other = ControlRepr { your_discriminator: NonZeroU32::new(5), ..told(State::Down) };
    assert_eq!(story.hear(other), [Action::Discarded(Discard::OtherSession)]);
    let mirror = ControlRepr { my_discriminator: NonZeroU32::new(OURS).unwrap(), ..told(State::Up) };
    assert_eq!(story.hear(mirror), [Action::Discarded(Discard::Reflected)]);
    let broken = &told(State::Down).emit().as_ref()[..20].to_vec();
    let actions = story.tell(Event::Received { payload: broken, ttl: TTL });
    assert_eq!(actions, [Action::Discarded(Discard::Malformed(Malformed::Truncated))]);
    assert_eq!(story.session.state(), State::Up);
}

#[test]
fn only_a_packet_of_the_peers_present_process_is_proof() {
    let mut story = Story::steady();
    let proven = |actions: Vec<Action>| {
        actions.iter().find_map(|action| match action {
            Action::Heard { is_proven, .. } => Some(*is_proven),
            _ => None,
        })
    };
    let anonymous = ControlRepr { your_discriminator: None, ..told(State::Down) };
    assert_eq!(proven(story.hear(anonymous)), Some(false), "it may be a recording");
    assert_eq!(proven(story.hear(told(State::Init))), Some(true));
    assert_eq!(proven(story.hear(anonymous)), Some(true), "it no longer hears us and lives");
    let restarted = ControlRepr { my_discriminator: NonZeroU32::new(99).unwrap(), ..anonymous };
    assert_eq!(proven(story.hear(restarted)), Some(false));
}

#[test]
fn what_is_switched_off_says_so_for_a_detection_time_and_only_then_comes_back() {
    for (steady_pace, detection) in [(true, 300), (false, 3000)] {
        let mut story = Story::of(timing(100, 100, 3), steady_pace, None);
        story.hear(told(State::Init));
        story.hear(ControlRepr { polling: Polling::Final, ..told(State::Up) });
        let actions = story.tell(Event::SetEnabled(false));
        let diagnostic = Diagnostic::AdministrativelyDown;
        assert_eq!(actions[0], Action::StateChanged { from: State::Up, to: State::AdminDown, diagnostic });
        assert_eq!((sent(&actions)[0].state, sent(&actions)[0].diagnostic), (State::AdminDown, diagnostic));
        assert_eq!(story.session.held_until(), Some(story.now + ms(detection)));
        assert!(sent(&story.tell(Event::SetEnabled(true))).is_empty());
        let done = story.pass(ms(detection) - Duration::from_nanos(1));
        assert!(sent_later(&done).iter().all(|repr| repr.state == State::AdminDown));
        assert!(sent_later(&done).len() >= 2, "with the first one as many as the peer may miss");
        let done = story.pass(Duration::from_nanos(1));
        assert_eq!(done[0].1, Action::StateChanged { from: State::AdminDown, to: State::Down, diagnostic });
        assert_eq!(story.session.held_until(), None);
    }
}

#[test]
fn what_stays_switched_off_goes_on_saying_so() {
    let mut story = Story::in_state(State::AdminDown);
    story.tell(Event::SetEnabled(true));
    story.tell(Event::SetEnabled(false));
    let done = story.pass(ms(10_000));
    assert!(done.len() >= 100 && sent_later(&done).iter().all(|repr| repr.state == State::AdminDown));
    story.tell(Event::SetEnabled(true));
    assert_eq!(story.session.state(), State::Down, "the peer knew for long");
}

#[test]
fn asking_gets_one_poll_out_of_turn_for_each_silence() {
    let mut story = Story::in_state(State::Up);
    let asked = sent(&story.tell(Event::Ask));
    assert_eq!(asked.iter().map(|repr| repr.polling).collect::<Vec<_>>(), [Polling::Poll]);
    assert!(story.tell(Event::Ask).is_empty());
    assert_eq!(sent_later(&story.pass(ms(100)))[0].polling, Polling::Poll, "the next one asks again");
    story.hear(ControlRepr { polling: Polling::Final, ..told(State::Up) });
    assert_eq!(sent_later(&story.pass(ms(100)))[0].polling, Polling::None);
    assert_eq!(sent(&story.tell(Event::Ask)).len(), 1);
}

#[test]
fn new_keys_hold_from_the_next_packet_on() {
    let mut story = Story::in_state(State::Up);
    story.tell(Event::SetKeys(keys("first")));
    assert_eq!(story.hear(told(State::Up)), [Action::Discarded(Discard::Auth(AuthError::Missing))]);
    assert!(sent_later(&story.pass(ms(100))).iter().all(|repr| repr.auth.is_some()));
    story.tell(Event::SetKeys(None));
    assert!(matches!(story.hear(told(State::Up))[..], [Action::Heard { .. }]));
    assert!(sent_later(&story.pass(ms(100))).iter().all(|repr| repr.auth.is_none()));
    assert_eq!(story.session.auth.next_sequence(), 2, "only what is signed has a number");
}

#[test]
fn the_window_of_sequence_numbers_opens_after_twice_the_detection_time() {
    for (silence, expected) in [(599, Some(Discard::Auth(AuthError::OutOfWindow))), (600, None)] {
        let (mut ours, mut theirs) = signed_pair(keys("a key of the house"));
        let heard = ours.session.heard_at().unwrap();
        // The peer says more than may be lost, in whatever time.
        let last = (0..30).map(|_| word(&mut theirs)).last().unwrap();
        let done = ours.pass(heard + ms(silence) - ours.now);
        assert!(done.iter().any(|(at, _)| *at >= ms(300)) && ours.session.state() == State::Down);
        let actions = ours.tell(Event::Received { payload: &last, ttl: TTL });
        match expected {
            Some(discard) => assert_eq!(actions, [Action::Discarded(discard)]),
            None => assert!(matches!(actions[0], Action::Heard { .. }), "{actions:?}"),
        }
    }
}

#[test]
fn why_the_last_session_failed_is_told_until_the_next_is_up() {
    let mut story = Story::in_state(State::Up);
    story.pass(ms(300));
    let expired = Diagnostic::ControlDetectionTimeExpired;
    let told_in = |actions: Vec<Action>| (sent(&actions)[0].state, sent(&actions)[0].diagnostic);
    assert_eq!(told_in(story.hear(told(State::Down))), (State::Init, expired));
    assert_eq!(told_in(story.hear(told(State::Init))), (State::Up, Diagnostic::NoDiagnostic));
}

#[test]
fn a_trailer_is_pointed_at() {
    let mut story = Story::in_state(State::Up);
    let payload = [told(State::Up).emit().as_ref(), b"more"].concat();
    let actions = story.tell(Event::Received { payload: &payload, ttl: TTL });
    let Action::Heard { length, .. } = actions[0] else { panic!("{actions:?}") };
    assert_eq!(&payload[length..], b"more");
}

#[test]
fn a_change_of_the_multiplier_needs_no_poll() {
    let mut story = Story::in_state(State::Up);
    let words = sent(&story.tell(Event::SetTiming(timing(100, 100, 5))));
    assert_eq!((words[0].detect_mult.get(), words[0].polling), (5, Polling::None));
    assert_eq!(micros(ms(100)), words[0].desired_min_tx.0);
}
