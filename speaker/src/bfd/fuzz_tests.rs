//! Whatever arrives: a session neither panics nor changes by a packet that it refuses.

use proptest::prelude::*;

use super::session::{Action, Event, TTL};
use super::story::{Story, keys, ms, sent, signed_pair, told, word};
use crate::wire::bfd::{ControlRepr, Polling, State};

/// All that a session knows, to be compared.
fn everything(story: &Story) -> String {
    format!("{:?}", story.session)
}

/// Hands a datagram in and checks what is true of any.
fn throw(story: &mut Story, payload: &[u8], ttl: u8) -> Result<bool, TestCaseError> {
    let before = everything(story);
    let actions = story.tell(Event::Received { payload, ttl });
    match actions[..] {
        [Action::Discarded(_)] => prop_assert_eq!(everything(story), before),
        [Action::Heard { length, .. }, ..] => prop_assert!(ttl == TTL && length <= payload.len()),
        _ => prop_assert!(false, "neither refused nor taken in: {:?}", actions),
    }
    prop_assert!(sent(&actions).len() <= 2, "at most an answer and what is new");
    prop_assert!(
        sent(&actions).iter().all(|repr| repr.polling != Polling::Final || repr == &sent(&actions)[0])
    );
    story.tell(Event::Deadline);
    prop_assert!(story.session.next_deadline().is_none_or(|at| at > story.now), "deadlines come to rest");
    Ok(matches!(actions[0], Action::Heard { .. }))
}

fn states() -> impl Strategy<Value = State> {
    proptest::sample::select(State::ALL.to_vec())
}

proptest! {
    #[test]
    fn no_bytes_harm_a_session(
        state in states(),
        datagrams in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..80), any::<bool>(), 0_u64..200), 1..20),
    ) {
        let mut story = Story::in_state(state);
        for (mut payload, looks_right, pause) in datagrams {
            if looks_right && payload.len() >= 24 {
                // Far enough through the checks to reach the machine.
                payload[0] = 0x20 | payload[0] & 0x1f;
                payload[1] &= 0xea;
                payload[3] = 24;
                payload[8..12].fill(0);
            }
            throw(&mut story, &payload, 255)?;
            story.pass(ms(pause));
        }
    }

    #[test]
    fn any_packet_that_keeps_the_rules_leads_where_the_table_says(
        state in states(),
        words in proptest::collection::vec((states(), 0_u8..3, any::<[u32; 2]>(), 1_u8.., any::<bool>()), 1..20),
    ) {
        let mut story = Story::in_state(state);
        for (state, polling, intervals, mult, demand) in words {
            let polling = [Polling::None, Polling::Poll, Polling::Final][usize::from(polling)];
            let repr = ControlRepr {
                polling,
                demand,
                detect_mult: mult.try_into().unwrap(),
                desired_min_tx: crate::wire::bfd::Micros(intervals[0]),
                required_min_rx: crate::wire::bfd::Micros(intervals[1]),
                ..told(state)
            };
            let expected = super::state::after(story.session.state(), state);
            let payload = repr.emit();
            let before = story.session.clone();
            let actions = story.hear(repr);
            let answers = sent(&actions).iter().filter(|repr| repr.polling == Polling::Final).count();
            prop_assert_eq!(answers, usize::from(polling == Polling::Poll));
            prop_assert_eq!(story.session.state(), expected);
            story.session = before;
            throw(&mut story, payload.as_ref(), 255)?;
        }
    }

    /// Of what another sends who has no key, and of what was changed on the way, nothing is believed.
    #[test]
    fn nothing_that_was_changed_is_believed(
        changes in proptest::collection::vec((0_usize..52, 1_u8..), 1..4),
        keep in 0_usize..=52,
        ttl in 250_u8..,
    ) {
        let (mut ours, mut theirs) = signed_pair(keys("a key of the house"));
        let right = word(&mut theirs);
        let mut wrong = right.clone();
        for (at, change) in changes {
            wrong[at] ^= change;
        }
        wrong.truncate(keep);
        let is_changed = wrong != right;
        ours.now = theirs.now;
        prop_assert_eq!(throw(&mut ours, &wrong, ttl)?, !is_changed && ttl == 255);
        // The true one is believed all the same, and once.
        prop_assert_eq!(throw(&mut ours, &right, 255)?, is_changed || ttl != 255);
        prop_assert!(!throw(&mut ours, &right, 255)?);
        prop_assert_eq!(ours.session.state(), State::Up);
    }

    #[test]
    fn nothing_signed_with_another_key_is_believed(guess in "[a-z]{1,20}", pauses in 0_u64..2000) {
        prop_assume!(guess != "secret");
        let (mut ours, _) = signed_pair(keys("secret"));
        let (_, mut forger) = signed_pair(keys(&guess));
        let heard = ours.session.heard_at();
        for _ in 0..4 {
            prop_assert!(!throw(&mut ours, &word(&mut forger), 255)?);
            ours.pass(ms(pauses));
        }
        prop_assert_eq!(ours.session.heard_at(), heard);
    }

    /// Whoever recorded a session can play it back whenever and in whatever order: nothing is believed
    /// that was believed before, however long it was silent meanwhile.
    #[test]
    fn no_recording_makes_a_dead_peer_look_alive(
        order in proptest::collection::vec((0_usize..30, 0_u64..2000), 1..40),
    ) {
        let (mut ours, mut theirs) = signed_pair(keys("a key of the house"));
        let mut recording = Vec::new();
        for _ in 0..30 {
            let packet = word(&mut theirs);
            ours.now = theirs.now;
            prop_assert!(throw(&mut ours, &packet, 255)?);
            recording.push(packet);
        }
        for (at, pause) in order {
            ours.pass(ms(pause));
            prop_assert!(!throw(&mut ours, &recording[at], 255)?);
        }
        ours.pass(ms(300));
        prop_assert_eq!(ours.session.state(), State::Down);
    }
}
