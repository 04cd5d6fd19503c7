//! Two nodes with a session on each of two links, and what many sessions cost.

#![allow(clippy::disallowed_methods)]

use super::*;
use crate::bfd::session::TTL;
use crate::wire::bfd::ControlRepr;

const LAN: LinkIndex = LinkIndex(2);
const OTHER_LAN: LinkIndex = LinkIndex(3);
const THREE: NonZeroU8 = NonZeroU8::MIN.saturating_add(2);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn sessions(seed: u64) -> Sessions {
    Sessions::new(ms(100), THREE, Rng::new(seed))
}

fn key(link: LinkIndex, peer: &str) -> Key {
    (link, peer.into())
}

fn sent(outcomes: &[Outcome]) -> Vec<(Key, ControlBytes)> {
    let sent = |outcome: &Outcome| match outcome {
        Outcome::Send(key, control) => Some((key.clone(), *control)),
        Outcome::StateChanged(..) => None,
    };
    outcomes.iter().filter_map(sent).collect()
}

/// Hands everything that one end sends to the other, and back, until both are quiet.
fn exchange(now: Instant, ends: &mut [(&str, Sessions); 2], mut from: usize, first: Vec<Outcome>) {
    let mut outcomes = first;
    for _ in 0..20 {
        let to = 1 - from;
        let sender = ends[from].0.to_owned();
        let mut answers = Vec::new();
        for ((link, _), control) in sent(&outcomes) {
            ends[to].1.receive(now, &key(link, &sender), control.as_ref(), TTL, &mut answers).unwrap();
        }
        (outcomes, from) = (answers, to);
    }
    assert!(sent(&outcomes).is_empty(), "they never come to rest");
}

fn two_nodes(now: Instant) -> [(&'static str, Sessions); 2] {
    let mut ends = [("n1", sessions(1)), ("n2", sessions(2))];
    let wanted = |peer| BTreeSet::from([key(LAN, peer), key(OTHER_LAN, peer)]);
    ends[1].1.follow(now, &wanted("n1"), &mut Vec::new());
    let mut out = Vec::new();
    ends[0].1.follow(now, &wanted("n2"), &mut out);
    exchange(now, &mut ends, 0, out);
    ends
}

#[test]
fn sessions_come_up_on_every_link_within_one_exchange() {
    let ends = two_nodes(Instant::now());
    assert_eq!((ends[0].1.up(), ends[1].1.up()), (2, 2));
}

#[test]
fn packets_go_out_at_three_quarters_to_a_whole_of_the_interval() {
    let (mut ours, start) = (sessions(1), Instant::now());
    let mut out = Vec::new();
    ours.follow(start, &BTreeSet::from([key(LAN, "n2")]), &mut out);
    let mut times = vec![start];
    while times.len() < 100 {
        let now = ours.next_deadline().unwrap();
        out.clear();
        ours.handle_deadline(now, &mut out);
        times.extend(sent(&out).iter().map(|_| now));
    }
    let pauses: BTreeSet<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| (ms(75)..=ms(100)).contains(pause)), "{pauses:?}");
    assert!(pauses.len() > 50, "they differ");
}

#[test]
fn the_sessions_of_a_link_come_to_send_at_the_same_times() {
    let (mut ours, mut now) = (sessions(1), Instant::now());
    let mut wanted = BTreeSet::new();
    for peer in ["n2", "n3", "n4", "n5"] {
        wanted.insert(key(LAN, peer));
        ours.follow(now, &wanted, &mut Vec::new());
        now += ms(33);
    }
    let mut alone = 0;
    let start = now;
    while now < start + Duration::from_secs(20) {
        let mut out = Vec::new();
        ours.handle_deadline(now, &mut out);
        let packets = sent(&out).len();
        alone += usize::from(packets < 4 && now > start + Duration::from_secs(10));
        now = ours.next_deadline().unwrap();
    }
    assert_eq!(alone, 0, "times at which only some of them sent, in the second ten seconds");
}

#[test]
fn a_packet_of_the_other_link_or_of_ones_own_is_refused() {
    let now = Instant::now();
    let mut ends = two_nodes(now);
    let mut out = Vec::new();
    ends[1].1.ask(now, &key(LAN, "n1"), &mut out);
    let (_, control) = sent(&out)[0];
    let ours = &mut ends[0].1;
    let mut receive = |on: &Key, payload: &[u8]| ours.receive(now, on, payload, TTL, &mut Vec::new());
    assert_eq!(receive(&key(OTHER_LAN, "n2"), control.as_ref()), Err(Discard::OtherSession));
    assert_eq!(
        receive(&key(LAN, "n3"), control.as_ref()),
        Err(Discard::OtherSession),
        "nobody is watched so"
    );
    out.clear();
    ours.ask(now, &key(OTHER_LAN, "n2"), &mut out);
    let (_, own) = sent(&out)[0];
    let reflected = ours.receive(now, &key(LAN, "n2"), own.as_ref(), TTL, &mut Vec::new());
    assert_eq!(reflected, Err(Discard::Reflected));
}

#[test]
fn what_is_heard_tells_when_the_next_is_to_be_expected() {
    let now = Instant::now();
    let mut ends = [("n1", sessions(1)), ("n2", Sessions::new(ms(300), THREE, Rng::new(2)))];
    ends[1].1.follow(now, &BTreeSet::from([key(LAN, "n1")]), &mut Vec::new());
    let mut out = Vec::new();
    ends[0].1.follow(now, &BTreeSet::from([key(LAN, "n2")]), &mut out);
    exchange(now, &mut ends, 0, out);
    let mut out = Vec::new();
    ends[1].1.ask(now, &key(LAN, "n1"), &mut out);
    let (_, control) = sent(&out)[0];
    let heard = ends[0].1.receive(now, &key(LAN, "n2"), control.as_ref(), TTL, &mut Vec::new()).unwrap();
    assert!(heard.is_proven);
    assert_eq!((heard.interval, heard.multiplier), (ms(300), 3), "the slower end sets the pace");
}

#[test]
fn more_peers_than_the_budget_allows_are_watched_more_slowly() {
    let (mut ours, start) = (sessions(1), Instant::now());
    let peers = |count: u32| -> BTreeSet<Key> { (0..count).map(|n| key(LAN, &format!("n{n}"))).collect() };
    let mut rate = |count: u32| {
        let mut now = start;
        ours.follow(now, &peers(count), &mut Vec::new());
        let mut packets = 0;
        while now < start + Duration::from_secs(10) {
            let mut out = Vec::new();
            ours.handle_deadline(now, &mut out);
            packets += sent(&out).len();
            now = ours.next_deadline().unwrap();
        }
        // Ten seconds, and jitter that makes them a seventh more.
        packets as f64 / 10.0 / (8.0 / 7.0)
    };
    let full = rate(FULL_PACE);
    assert!((1200.0..1330.0).contains(&full), "{full}");
    for count in [FULL_PACE * 2, FULL_PACE * 4] {
        let stretched = rate(count);
        assert!((full * 0.9..full * 1.1).contains(&stretched), "{stretched} for {count} peers, not {full}");
    }
    assert_eq!(ours.pace(), ms(400));
    let mut out = Vec::new();
    ours.follow(start + Duration::from_secs(10), &peers(1), &mut out);
    assert_eq!(ours.pace(), ms(100));
}

#[test]
fn the_last_packet_of_a_process_says_that_it_was_switched_off() {
    let now = Instant::now();
    let mut ends = two_nodes(now);
    let mut out = Vec::new();
    ends[0].1.end(now, &mut out);
    let last: Vec<_> = sent(&out);
    assert_eq!(last.len(), 2);
    for (_, control) in &last {
        assert_eq!(ControlRepr::parse_payload(control.as_ref()).unwrap().state, State::AdminDown);
    }
    exchange(now, &mut ends, 0, out);
    assert_eq!(ends[1].1.up(), 0);
}
