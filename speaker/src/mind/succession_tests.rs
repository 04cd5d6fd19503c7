//! Stories of two processes of one node.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use crate::mind::tests::{LAN, Story, beat, link, ms, peer, reports, said, vip, vip4};
use crate::mind::{Action, Config, Event, Mind, Report};
use crate::succession::Inheritance;
use crate::wire::speech::{Body, SpeechRepr};

/// A process that announces an address.
fn announcing() -> Story {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(vip4(), &["n2", "n1"])));
    story.pass(ms(200));
    story.hear(beat(1));
    assert!(story.mind.answers(vip4()));
    story
}

fn cede(story: &mut Story) -> Inheritance {
    let done = story.tell(Event::Cede);
    let [Action::Ceded(left)] = done.as_slice() else { panic!("{done:?}") };
    (**left).clone()
}

/// Another process of the node that knows the same, and goes on. What it does at once.
fn going_on(story: &Story, left: Inheritance) -> (Story, Vec<Action>) {
    let mut next = Story { mind: Mind::new(Config::new("n1".into(), 8)), now: story.now };
    next.tell(Event::Peers(vec![peer()]));
    next.tell(Event::Vips(vec![vip(vip4(), &["n2", "n1"])]));
    // As it goes from one process to the other.
    let left = serde_json::from_str(&serde_json::to_string(&left).unwrap()).unwrap();
    assert_eq!(next.tell(Event::Inherit(Box::new(left))), []);
    let done = next.tell(Event::Links(vec![link(true)]));
    (next, done)
}

fn header(action: &Action) -> Option<crate::wire::speech::Header> {
    let Action::SendDatagram { payload, .. } = action else { return None };
    let message = payload.get(usize::from(payload[3])..)?;
    SpeechRepr::parse_payload(message).ok().map(|repr| repr.header)
}

#[test]
fn who_has_ceded_does_nothing_any_more() {
    let mut story = announcing();
    cede(&mut story);
    assert_eq!(story.mind.next_deadline(), None);
    assert_eq!(story.hear(beat(1)), []);
    assert_eq!(story.tell(Event::Leave), []);
}

#[test]
fn the_next_process_goes_on_as_if_it_were_the_same() {
    let mut story = announcing();
    let before = story.pass(ms(100)).iter().find_map(header).unwrap();
    let left = cede(&mut story);
    let (mut next, done) = going_on(&story, left);
    assert!(next.mind.answers(vip4()));
    assert!(!done.iter().any(|action| matches!(action, Action::SendFrame { .. })), "clients need no word");
    let told = reports(&done);
    assert!(
        told.iter().any(|report| matches!(report, Report::Announcing { term: 2, epoch: 1, .. })),
        "{told:?}"
    );
    let after = done.iter().chain(&next.pass(ms(100))).find_map(header).unwrap();
    assert_eq!(
        (after.instance, after.digest, after.knowledge),
        (before.instance, before.digest, before.knowledge)
    );
    assert!(after.sequence >= before.sequence);
    // It believes the peer at once, and needs no time to listen.
    assert_eq!(reports(&next.hear(beat(1))), [], "it was alive all the time");
    let other = "10.0.0.51".parse().unwrap();
    next.tell(Event::Vip(vip(other, &["n1", "n2"])));
    assert!(next.mind.answers(other));
}

#[test]
fn a_peer_that_died_in_between_is_found_dead() {
    let mut story = announcing();
    let left = cede(&mut story);
    let (mut next, _) = going_on(&story, left);
    let done = reports(&next.pass(ms(400)));
    let dead = Report::Peer { node: "n2".into(), interface: "eth0".into(), alive: false };
    assert!(done.contains(&dead), "{done:?}");
}

#[test]
fn an_address_that_was_released_in_between_is_given_up() {
    let mut story = announcing();
    let left = cede(&mut story);
    let mut next = Story { mind: Mind::new(Config::new("n1".into(), 8)), now: story.now };
    next.tell(Event::Peers(vec![peer()]));
    next.tell(Event::Vips(Vec::new()));
    next.tell(Event::Inherit(Box::new(left)));
    next.tell(Event::Links(vec![link(true)]));
    assert!(!next.mind.answers(vip4()), "nobody knows of it");
    let mut last = Vec::new();
    for _ in 0..150 {
        next.hear(beat(1));
        last.extend(next.pass(ms(80)));
    }
    let took_back = |action: &Action| match action {
        Action::SendDatagram { payload, .. } => matches!(said(payload), Some(Body::Changes(_))),
        _ => false,
    };
    assert!(last.iter().any(took_back), "the peers are told");
}

#[test]
fn what_had_waited_for_the_next_process_is_not_answered_twice() {
    use crate::lan::MacAddr;
    use crate::wire::arp::{ArpRepr, Operation};
    let mut story = announcing();
    let left = cede(&mut story);
    let (mut next, _) = going_on(&story, left);
    let question = ArpRepr {
        operation: Operation::Request,
        sha: MacAddr([2, 0, 0, 0, 9, 9]),
        spa: [10, 0, 0, 9].into(),
        tha: MacAddr::ZERO,
        tpa: [10, 0, 0, 50].into(),
    };
    let frame = question.emit_frame(MacAddr::BROADCAST).to_vec();
    let asked = |at| Event::Frame { link: LAN, at, frame: frame.clone() };
    let now = next.now;
    assert_eq!(next.tell(asked(now - Duration::from_millis(60))), []);
    assert_eq!(next.tell(asked(now - Duration::from_millis(2))).len(), 1, "that one may have been lost");
}
