//! Stories of links and peers.

#![allow(clippy::disallowed_methods)]

use proptest::prelude::*;

use super::*;

const LAN: LinkIndex = LinkIndex(2);

/// A machine with a clock that the story moves.
struct Story {
    liveness: Liveness,
    start: Instant,
    now: Instant,
}

fn name(text: &str) -> NodeName {
    text.into()
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Story {
    fn watching(peers: &[&str]) -> Self {
        let timing = Timing { interval: ms(100), multiplier: 3 };
        let start = Instant::now();
        let mut story = Self { liveness: Liveness::new(timing), start, now: start };
        story.watch(peers);
        story
    }

    fn watch(&mut self, peers: &[&str]) -> Vec<Action> {
        let wanted = BTreeMap::from([(LAN, peers.iter().map(|peer| name(peer)).collect())]);
        self.tell(Event::Watch(&wanted))
    }

    fn tell(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.liveness.handle(self.now, event, &mut out);
        out.retain(|action| !matches!(action, Action::Touched(_)));
        out
    }

    fn hear(&mut self, peer: &str, instance: u64) -> Vec<Action> {
        let node = &name(peer);
        let mut heard = self.tell(Event::Heard {
            link: LAN,
            at: self.now,
            node,
            instance,
            isolated: false,
            timing: None,
        });
        heard.retain(|action| !matches!(action, Action::Ask(..)));
        heard
    }

    fn station(&mut self) -> Vec<Action> {
        self.tell(Event::Station(LAN, self.now))
    }

    fn answered(&mut self, peer: &str) -> Vec<Action> {
        self.tell(Event::Answered(LAN, self.now, &name(peer)))
    }

    /// Lets time pass; what was done meanwhile, without questions.
    fn pass(&mut self, duration: Duration) -> Vec<Action> {
        let mut done = self.pass_with_questions(duration);
        let is_question = |action: &Action| {
            matches!(
                action,
                Action::Ask(..) | Action::AskLan(_) | Action::Probe(..) | Action::AskWitnesses(..)
            )
        };
        done.retain(|(_, action)| !is_question(action));
        done.into_iter().map(|(_, action)| action).collect()
    }

    fn pass_with_questions(&mut self, duration: Duration) -> Vec<(Duration, Action)> {
        let until = self.now + duration;
        let mut done = Vec::new();
        while let Some(due) = self.liveness.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let at = self.now - self.start;
            done.extend(self.tell(Event::Deadline).into_iter().map(|action| (at, action)));
        }
        self.now = until;
        done
    }

    fn verdict(&self, peer: &str) -> Option<Verdict> {
        self.liveness.verdict(LAN, &name(peer))
    }
}

#[test]
fn never_heard_is_not_dead() {
    let mut story = Story::watching(&["n2"]);
    assert_eq!(story.pass(ms(5000)), [Action::Isolated(LAN)]);
    assert_eq!(story.verdict("n2"), Some(Verdict::NeverHeard));
}

/// Two peers that were just heard.
fn both_heard() -> Story {
    let mut story = Story::watching(&["n2", "n3"]);
    assert_eq!(story.hear("n2", 1), [Action::Alive(LAN, name("n2"))]);
    assert_eq!(story.hear("n3", 1), [Action::Alive(LAN, name("n3"))]);
    story
}

#[test]
fn three_missed_heartbeats_are_death_and_the_next_one_is_life() {
    let mut story = both_heard();
    assert_eq!(story.pass(ms(299)), [], "nobody else is heard either");
    assert_eq!(
        story.pass(ms(1)),
        [Action::Dead(LAN, name("n2")), Action::Dead(LAN, name("n3")), Action::Isolated(LAN)]
    );
    let heard = story.hear("n2", 1);
    assert_eq!(heard, [Action::Alive(LAN, name("n2")), Action::Reached(LAN)]);
}

#[test]
fn who_is_late_is_asked_for_ten_times_in_fifty_milliseconds() {
    let mut story = both_heard();
    let done = story.pass_with_questions(ms(299));
    let at = |wanted: Action| {
        let of_it = done.iter().filter(|(_, action)| *action == wanted);
        of_it.map(|(at, _)| at.as_millis()).collect::<Vec<_>>()
    };
    let probes: Vec<u128> = (0..10).map(|number| 105 + 5 * number).collect();
    assert_eq!(at(Action::Probe(LAN, name("n2"))), probes);
    assert_eq!(at(Action::AskWitnesses(LAN, name("n2"))), [105, 130]);
    assert_eq!(at(Action::Ask(LAN, name("n2"))), [105], "it is polled as well");
    assert!(at(Action::AskLan(LAN)).starts_with(&[105, 105, 130, 130]), "for each that is late");
}

#[test]
fn who_gives_no_sign_while_another_peer_does_is_dead_when_all_probes_had_their_time() {
    let mut story = both_heard();
    story.pass(ms(110));
    assert_eq!(story.hear("n3", 1), []);
    assert_eq!(story.pass(ms(44)), []);
    assert_eq!(story.pass(ms(1)), [Action::Dead(LAN, name("n2"))], "after 155 ms");
}

#[test]
fn another_station_tells_as_well_that_the_lan_is_there() {
    let mut story = both_heard();
    story.pass(ms(110));
    assert_eq!(story.station(), []);
    assert_eq!(story.pass(ms(44)), []);
    assert_eq!(story.pass(ms(1)), [Action::Dead(LAN, name("n2")), Action::Dead(LAN, name("n3"))]);
}

#[test]
fn a_sign_from_before_the_suspicion_tells_nothing_of_the_switch() {
    let mut story = both_heard();
    story.pass(ms(90));
    story.hear("n3", 1);
    // All ports go dark now, for 200 ms.
    assert_eq!(story.pass(ms(200)), []);
    story.hear("n2", 1);
    story.hear("n3", 1);
    assert_eq!((story.verdict("n2"), story.verdict("n3")), (Some(Verdict::Alive), Some(Verdict::Alive)));
}

#[test]
fn silence_while_the_lan_was_away_is_not_counted_when_it_returns() {
    let mut story = both_heard();
    story.pass(ms(200));
    assert_eq!(story.hear("n3", 1), []);
    assert_eq!(story.pass(ms(10)), []);
    story.station();
    assert_eq!(story.pass(ms(39)), [], "it is asked anew");
    assert_eq!(story.pass(ms(1)), [Action::Dead(LAN, name("n2"))]);
}

/// Lets time pass, while the other peer is heard and this one's kernel answers; when it died.
fn answering_until(story: &mut Story, until: Duration) -> Option<Duration> {
    story.pass(ms(110));
    while story.now - story.start < ms(1500) {
        story.hear("n3", 1);
        if story.now - story.start < until {
            story.answered("n2");
        }
        if story.pass(ms(5)).contains(&Action::Dead(LAN, name("n2"))) {
            return Some(story.now - story.start);
        }
    }
    None
}

#[test]
fn who_goes_on_answering_for_its_own_address_has_a_second() {
    assert_eq!(answering_until(&mut both_heard(), ms(2000)), Some(ms(1000)));
    let ceased = answering_until(&mut both_heard(), ms(600)).unwrap();
    assert!((ms(670)..=ms(680)).contains(&ceased), "{ceased:?}: the last answers count for 75 ms");
    let once = answering_until(&mut both_heard(), ms(130));
    assert_eq!(once, Some(ms(300)), "less than the detection time it never is");
}

#[test]
fn who_answers_and_has_no_process_any_more_has_the_whole_detection_time() {
    let mut story = both_heard();
    story.tell(Event::Ended(LAN, &name("n2")));
    assert_eq!(answering_until(&mut story, ms(2000)), Some(ms(300)));
    // It says so later.
    let mut story = both_heard();
    story.pass(ms(120));
    for _ in 0..40 {
        story.hear("n3", 1);
        story.answered("n2");
        assert_eq!(story.pass(ms(10)), []);
    }
    assert_eq!(story.tell(Event::Ended(LAN, &name("n2"))).first(), Some(&Action::Dead(LAN, name("n2"))));
    // Another one listens there again.
    assert!(story.hear("n2", 2).contains(&Action::Alive(LAN, name("n2"))));
    story.start = story.now;
    assert_eq!(answering_until(&mut story, ms(2000)), Some(ms(1000)));
}

#[test]
fn whom_a_witness_heard_lately_is_not_dead() {
    let mut story = both_heard();
    for _ in 0..20 {
        story.pass(ms(60));
        story.hear("n3", 1);
        let node = &name("n2");
        assert_eq!(story.tell(Event::Vouched { link: LAN, node, ago: ms(10) }), []);
    }
    assert_eq!(story.verdict("n2"), Some(Verdict::Alive));
    let mut stale = both_heard();
    for _ in 0..4 {
        stale.pass(ms(60));
        stale.hear("n3", 1);
        let node = &name("n2");
        stale.tell(Event::Vouched { link: LAN, node, ago: ms(105) });
    }
    assert_eq!(stale.verdict("n2"), Some(Verdict::Dead), "that is as long as it is silent here");
}

/// What a peer and its surroundings do from the moment on from which it is not heard any more.
#[derive(Clone, Copy, Debug)]
struct Circumstances {
    /// Its kernel answers for the node's own address.
    kernel_answers: bool,
    /// Its kernel says that nobody listens at the port.
    has_ended: bool,
    /// A witness hears it.
    is_vouched_for: bool,
    /// Another speaker is heard.
    others_are_heard: bool,
}

/// When the peer is found dead, within two seconds.
fn death_under(circumstances: Circumstances) -> Option<Duration> {
    let Circumstances { kernel_answers, has_ended, is_vouched_for, others_are_heard } = circumstances;
    let mut story = both_heard();
    if has_ended {
        story.tell(Event::Ended(LAN, &name("n2")));
    }
    while story.now - story.start < ms(2000) {
        if others_are_heard {
            story.hear("n3", 1);
        }
        if kernel_answers {
            story.answered("n2");
        }
        if is_vouched_for {
            story.tell(Event::Vouched { link: LAN, node: &name("n2"), ago: ms(5) });
        }
        if story.pass(ms(5)).contains(&Action::Dead(LAN, name("n2"))) {
            return Some(story.now - story.start);
        }
    }
    None
}

#[test]
fn the_table_of_verdicts_cell_by_cell() {
    const FAST: Option<Duration> = Some(Duration::from_millis(155));
    const WHOLE: Option<Duration> = Some(Duration::from_millis(300));
    const LONGEST: Option<Duration> = Some(Duration::from_millis(1000));
    for (kernel_answers, has_ended, others_are_heard, without_witness) in [
        (false, false, true, FAST),
        (false, false, false, WHOLE),
        (false, true, true, FAST),
        (false, true, false, WHOLE),
        (true, false, true, LONGEST),
        (true, false, false, LONGEST),
        (true, true, true, WHOLE),
        (true, true, false, WHOLE),
    ] {
        for is_vouched_for in [false, true] {
            let cell = Circumstances { kernel_answers, has_ended, is_vouched_for, others_are_heard };
            let expected = without_witness.filter(|_| !is_vouched_for);
            assert_eq!(death_under(cell), expected, "{cell:?}");
        }
    }
}

#[test]
fn what_had_waited_for_this_process_says_when_it_was_heard_and_not_that_it_lives() {
    let mut story = both_heard();
    let heard = story.now;
    story.pass(ms(90));
    story.hear("n3", 1);
    // A heartbeat that came 20 ms after the last one is read only now.
    story.now += ms(50);
    let node = &name("n2");
    let late =
        Event::Heard { link: LAN, at: heard + ms(20), node, instance: 1, isolated: false, timing: None };
    story.tell(late.clone());
    assert_eq!(story.verdict("n2"), Some(Verdict::Alive));
    assert!(story.liveness.is_heard_since(LAN, node, heard + ms(20)));
    assert!(!story.liveness.is_heard_since(LAN, node, heard + ms(21)));
    let mut done = Vec::new();
    while story.verdict("n2") == Some(Verdict::Alive) {
        story.hear("n3", 1);
        done = story.pass(ms(5));
    }
    assert_eq!(done, [Action::Dead(LAN, name("n2"))]);
    assert_eq!(story.tell(late), [], "it does not bring a dead one back");
    assert_eq!(story.verdict("n2"), Some(Verdict::Dead));
    assert!(story.hear("n2", 1).contains(&Action::Alive(LAN, name("n2"))));
}

#[test]
fn a_kernels_answer_from_before_it_was_asked_proves_nothing() {
    let mut story = both_heard();
    let before = story.now;
    story.pass(ms(120));
    story.hear("n3", 1);
    story.tell(Event::Answered(LAN, before, &name("n2")));
    assert_eq!(story.pass(ms(35)), [Action::Dead(LAN, name("n2"))]);
}

#[test]
fn a_gap_of_ones_own_begins_the_verification_anew() {
    let mut story = both_heard();
    story.pass(ms(140));
    story.hear("n3", 1);
    story.now += ms(60);
    let asked = story.tell(Event::Gap { long: false });
    assert!(asked.contains(&Action::Probe(LAN, name("n2"))), "{asked:?}");
    story.pass(ms(10));
    story.hear("n3", 1);
    assert_eq!(story.pass(ms(39)), []);
    assert_eq!(story.pass(ms(1)), [Action::Dead(LAN, name("n2"))]);
}

#[test]
fn who_told_of_a_slower_pace_is_late_and_dead_later() {
    let mut story = both_heard();
    let timing = Some(Timing { interval: ms(200), multiplier: 4 });
    let node = &name("n2");
    story.tell(Event::Heard { link: LAN, at: story.now, node, instance: 1, isolated: false, timing });
    let late = |story: &mut Story, duration| {
        let done = story.pass_with_questions(duration);
        done.iter().any(|(_, action)| *action == Action::Probe(LAN, name("n2")))
    };
    assert!(!late(&mut story, ms(209)));
    assert!(late(&mut story, ms(1)));
    for _ in 0..5 {
        story.answered(node);
        story.hear("n3", 1);
        story.pass(ms(98));
    }
    assert_eq!(story.verdict("n2"), Some(Verdict::Alive), "after 700 ms");
    story.pass(ms(101));
    assert_eq!(story.verdict("n2"), Some(Verdict::Dead));
}

#[test]
fn a_link_that_hears_nobody_asks_the_lan_and_is_isolated_after_the_detection_time() {
    let mut story = Story::watching(&["n2"]);
    story.pass(ms(1000));
    let met = story.hear("n2", 1);
    assert_eq!(met, [Action::Alive(LAN, name("n2")), Action::Reached(LAN)]);
    let done = story.pass_with_questions(ms(299));
    let asks = done.iter().filter(|(_, action)| *action == Action::AskLan(LAN)).count();
    assert_eq!(asks, 4, "at 150 ms and at 250 ms, and twice for the peer that is late");
    assert!(!done.iter().any(|(_, action)| matches!(action, Action::Isolated(_))));
    assert_eq!(story.pass(ms(1)), [Action::Dead(LAN, name("n2")), Action::Isolated(LAN)]);
    assert!(story.liveness.isolated_since(LAN).is_some());
}

#[test]
fn another_station_keeps_a_lonely_link_from_being_isolated() {
    let mut story = Story::watching(&["n2"]);
    story.hear("n2", 1);
    for _ in 0..20 {
        story.pass(ms(100));
        story.station();
        assert_eq!(story.liveness.isolated_since(LAN), None);
    }
    assert_eq!(story.verdict("n2"), Some(Verdict::Dead));
}

#[test]
fn a_station_ends_isolation_with_caution_only_now_and_then() {
    let mut story = Story::watching(&["n2"]);
    story.pass(ms(1000));
    assert!(story.station().contains(&Action::Reached(LAN)));
    story.pass(ms(1000));
    assert!(!story.station().contains(&Action::Reached(LAN)), "it asks each second");
    story.pass(ms(31_000));
    assert!(story.station().contains(&Action::Reached(LAN)));
    story.pass(ms(1000));
    assert!(story.hear("n2", 1).contains(&Action::Reached(LAN)), "a speaker always does");
    story.pass(ms(1000));
    assert!(story.station().contains(&Action::Reached(LAN)), "and may be there again");
}

#[test]
fn another_instance_is_a_restart_and_the_former_is_believed_no_more() {
    let mut story = Story::watching(&["n2"]);
    story.hear("n2", 1);
    assert_eq!(story.hear("n2", 2), [Action::Restarted(name("n2"))]);
    assert!(!story.liveness.accepts(&name("n2"), 1));
    assert_eq!(story.hear("n2", 1), [], "a late datagram of the former");
}

#[test]
fn who_left_stays_away_until_it_starts_again() {
    let mut story = Story::watching(&["n2", "n3"]);
    story.hear("n2", 1);
    let left = story.tell(Event::Goodbye { node: &name("n2"), instance: 1 });
    assert_eq!(left, [Action::Left(name("n2"))]);
    assert_eq!(story.hear("n2", 1), [], "a late datagram");
    assert_eq!(story.verdict("n2"), Some(Verdict::Left));
    let again = story.hear("n2", 2);
    assert_eq!(again, [Action::Restarted(name("n2")), Action::Alive(LAN, name("n2"))]);
}

#[test]
fn a_peer_that_hears_nobody_for_a_detection_time_is_deaf() {
    let mut story = Story::watching(&["n2"]);
    let mut done = Vec::new();
    for _ in 0..4 {
        let node = &name("n2");
        done.extend(story.tell(Event::Heard {
            link: LAN,
            at: story.now,
            node,
            instance: 1,
            isolated: true,
            timing: None,
        }));
        done.extend(story.pass(ms(90)));
    }
    assert!(done.contains(&Action::Deaf(LAN, name("n2"))));
    assert_eq!(story.verdict("n2"), Some(Verdict::Deaf));
    story.hear("n2", 1);
    assert_eq!(story.verdict("n2"), Some(Verdict::Alive));
}

#[test]
fn a_link_is_listened_to_before_anything_is_claimed_there() {
    let story = Story::watching(&["n2"]);
    assert_eq!(story.liveness.settled_at(LAN), Some(story.start + ms(300)));
    let mut alone = Story::watching(&[]);
    assert_eq!(alone.liveness.settled_at(LAN), Some(alone.start), "nobody to listen for");
    alone.pass(ms(100));
    alone.watch(&["n2"]);
    assert_eq!(alone.liveness.settled_at(LAN), Some(alone.start), "settled before they came");
    alone.tell(Event::Watch(&BTreeMap::new()));
    alone.pass(ms(100));
    alone.watch(&["n2"]);
    assert_eq!(alone.liveness.settled_at(LAN), Some(alone.now + ms(300)), "the carrier was lost");
}

#[test]
fn a_peer_that_is_watched_no_more_is_gone() {
    let mut story = Story::watching(&["n2", "n3"]);
    story.hear("n2", 1);
    assert!(story.watch(&["n3"]).contains(&Action::Dead(LAN, name("n2"))));
    assert_eq!(story.verdict("n2"), None);
}

#[test]
fn a_gap_of_ones_own_gives_everybody_one_more_interval_but_only_once() {
    let mut story = Story::watching(&["n2"]);
    story.hear("n2", 1);
    story.now += ms(2000);
    assert!(story.tell(Event::Gap { long: true }).contains(&Action::Reached(LAN)));
    assert_eq!(story.verdict("n2"), Some(Verdict::Alive));
    story.now += ms(99);
    story.tell(Event::Gap { long: false });
    story.now += ms(1);
    assert!(story.tell(Event::Deadline).contains(&Action::Dead(LAN, name("n2"))), "no grace for ever");
}

proptest! {
    /// Whatever is heard and whenever: who was heard a moment ago is not dead, who was not for longer than
    /// the detection time is not alive, and deadlines come to rest.
    #[test]
    fn verdicts_follow_what_was_heard(ops in proptest::collection::vec((0_u8..5, 0_u64..400, 0_u64..2), 1..60)) {
        let mut story = Story::watching(&["n2", "n3"]);
        let mut heard: BTreeMap<&str, Instant> = BTreeMap::new();
        for (op, pause, instance) in ops {
            story.pass(ms(pause));
            match op {
                0 | 1 => {
                    let peer = if op == 0 { "n2" } else { "n3" };
                    if story.liveness.accepts(&name(peer), instance) {
                        heard.insert(peer, story.now);
                    }
                    story.hear(peer, instance);
                }
                2 => drop(story.station()),
                3 => drop(story.tell(Event::Deadline)),
                _ => drop(story.pass(ms(1))),
            }
            for (peer, at) in &heard {
                story.tell(Event::Deadline);
                let (verdict, silence) = (story.verdict(peer), story.now - *at);
                // In between it depends on who else is heard.
                if silence < ms(155) {
                    prop_assert_eq!(verdict, Some(Verdict::Alive), "{} at {:?}", peer, silence);
                } else if silence >= ms(405) {
                    prop_assert_eq!(verdict, Some(Verdict::Dead), "{} at {:?}", peer, silence);
                }
            }
            prop_assert!(story.liveness.next_deadline().is_none_or(|due| due > story.now));
        }
    }
}
