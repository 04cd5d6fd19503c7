//! The election told as stories, and then played at random with clocks that disagree.
#![allow(clippy::disallowed_methods)] // Points in time to count from; nothing waits.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

struct Story {
    start: Now,
    candidate: LeaderElection,
}

impl Story {
    fn of(identity: &str) -> Self {
        let start = Now { monotonic: Instant::now(), wall: Timestamp::UNIX_EPOCH };
        Self { start, candidate: LeaderElection::new(identity.to_owned(), Timing::default()) }
    }

    fn at(&self, seconds: f64) -> Now {
        let passed = Duration::from_secs_f64(seconds);
        Now { monotonic: self.start.monotonic + passed, wall: self.start.wall + passed }
    }

    fn handle(&mut self, seconds: f64, event: Event) -> Option<Action> {
        self.candidate.handle(self.at(seconds), event)
    }

    fn leads(&self, seconds: f64) -> bool {
        self.candidate.tenure(self.at(seconds).monotonic) != Tenure::None
    }

    /// Takes the vacant Lease at second 0, as version 1.
    fn led_from_the_start(identity: &str) -> Self {
        let mut story = Self::of(identity);
        assert_eq!(story.handle(0.0, Event::Deadline), Some(Action::Get));
        let Some(Action::Create(record)) = story.handle(0.0, Event::Got(None)) else {
            panic!("an absent Lease is created")
        };
        assert!(!story.leads(0.0), "asking for it is not having it");
        story.handle(0.1, Event::Written(Held { version: "1".to_owned(), record }));
        assert!(story.leads(0.1));
        story
    }
}

fn held(version: u32, holder: &str) -> Held {
    Held {
        version: version.to_string(),
        record: Record {
            holder: holder.to_owned(),
            lease_duration: Duration::from_secs(15),
            acquired: None,
            renewed: None,
            transitions: 4,
        },
    }
}

#[test]
fn a_leader_renews_every_two_seconds_without_reading_first() {
    let mut story = Story::led_from_the_start("a");
    assert_eq!(story.candidate.next_deadline(story.at(0.1)), Some(story.at(2.0).monotonic));
    let Some(Action::Update { version, record }) = story.handle(2.0, Event::Deadline) else {
        panic!("a renewal")
    };
    assert_eq!((version.as_str(), record.holder.as_str(), record.transitions), ("1", "a", 0));
    assert_eq!(record.acquired, Some(Timestamp::UNIX_EPOCH), "held since the start");
    assert_eq!(record.renewed, Some(story.at(2.0).wall));
}

#[test]
fn a_leader_that_cannot_renew_stops_ten_seconds_after_it_sent_its_last_renewal() {
    let mut story = Story::led_from_the_start("a");
    assert!(matches!(story.handle(2.0, Event::Deadline), Some(Action::Update { .. })));
    story.handle(7.0, Event::Failed);
    assert_eq!(story.handle(7.0, Event::Deadline), Some(Action::Get), "it may have been done after all");
    assert_eq!(story.candidate.next_deadline(story.at(9.9)), Some(story.at(10.0).monotonic));
    assert!(story.leads(9.9));
    assert!(!story.leads(10.0), "ten seconds after the question, not after the answer");
    assert_eq!(story.handle(10.0, Event::Deadline), None);
}

#[test]
fn no_write_is_begun_that_could_outlive_the_lease() {
    let story = Story::led_from_the_start("a");
    let tenure = story.candidate.tenure(story.at(9.0).monotonic);
    assert_eq!(tenure.allows(story.at(9.0).monotonic), Some(Duration::from_secs(6)));
    assert_eq!(tenure.allows(story.at(10.0).monotonic), None);
    assert_eq!(tenure.allows(story.at(40.0).monotonic), None, "a process that slept finds its tenure over");
}

#[test]
fn a_candidate_waits_until_it_has_itself_seen_nothing_for_the_whole_duration() {
    let mut story = Story::of("b");
    assert_eq!(story.handle(0.0, Event::Deadline), Some(Action::Get));
    // The record says that it was last renewed in 1970; that is the other clock's affair.
    assert_eq!(story.handle(0.0, Event::Got(Some(held(7, "a")))), None);
    assert_eq!(story.handle(2.0, Event::Deadline), Some(Action::Get));
    assert_eq!(story.handle(2.0, Event::Got(Some(held(8, "a")))), None, "renewed: counted anew");
    for second in [4.0, 8.0, 12.0, 16.9] {
        assert_eq!(story.handle(second, Event::Deadline), Some(Action::Get));
        assert_eq!(story.handle(second, Event::Got(Some(held(8, "a")))), None);
    }
    story.handle(18.9, Event::Deadline);
    let Some(Action::Update { version, record }) = story.handle(18.9, Event::Got(Some(held(8, "a")))) else {
        panic!("it takes over")
    };
    assert_eq!((version.as_str(), record.holder.as_str(), record.transitions), ("8", "b", 5));
}

#[test]
fn a_candidate_that_slept_looks_before_it_judges() {
    let mut story = Story::of("b");
    story.handle(0.0, Event::Deadline);
    story.handle(0.0, Event::Got(Some(held(7, "a"))));
    assert_eq!(story.handle(60.0, Event::Deadline), Some(Action::Get));
    assert_eq!(story.handle(60.0, Event::Got(Some(held(31, "a")))), None);
}

#[test]
fn a_leader_that_slept_past_its_deadline_leads_no_more() {
    let mut story = Story::led_from_the_start("a");
    assert!(!story.leads(31.0));
    assert_eq!(
        story.handle(31.0, Event::Deadline),
        Some(Action::Update {
            version: "1".to_owned(),
            record: story.candidate.own_record(story.at(31.0), Timestamp::UNIX_EPOCH, 0)
        })
    );
    // The other has it: the version refuses.
    story.handle(31.1, Event::Failed);
    assert!(!story.leads(31.1));
    assert_eq!(story.handle(33.2, Event::Deadline), Some(Action::Get));
    assert_eq!(story.handle(33.2, Event::Got(Some(held(9, "b")))), None);
    assert_eq!(story.candidate.holder(), Some("b"));
}

#[test]
fn a_graceful_end_lets_the_successor_in_at_once() {
    let mut leader = Story::led_from_the_start("a");
    let Some(Action::Update { version, record }) = leader.handle(3.0, Event::Release) else {
        panic!("a release")
    };
    assert_eq!((version.as_str(), record.holder.as_str()), ("1", ""));
    assert!(!leader.leads(3.0));
    assert_eq!(leader.handle(3.1, Event::Deadline), None, "it does not stand again");

    let mut successor = Story::of("b");
    successor.handle(0.0, Event::Deadline);
    successor.handle(0.0, Event::Got(Some(held(1, "a"))));
    assert_eq!(successor.handle(0.5, Event::Vacant), Some(Action::Get));
    let update = successor.handle(0.5, Event::Got(Some(Held { version: "2".to_owned(), record })));
    assert!(matches!(update, Some(Action::Update { .. })), "it does not wait");
}

#[test]
fn a_candidate_releases_nothing_that_is_not_its_own() {
    let mut story = Story::of("b");
    story.handle(0.0, Event::Deadline);
    story.handle(0.0, Event::Got(Some(held(1, "a"))));
    assert_eq!(story.handle(1.0, Event::Release), None);
}

#[test]
fn a_stolen_lease_is_given_up_as_soon_as_it_is_seen() {
    let mut story = Story::led_from_the_start("a");
    story.handle(2.0, Event::Deadline);
    story.handle(2.1, Event::Failed);
    assert!(story.leads(2.1));
    assert_eq!(story.handle(4.1, Event::Deadline), Some(Action::Get));
    story.handle(4.2, Event::Got(Some(held(9, "b"))));
    assert!(!story.leads(4.2));
}

// ----- Two candidates, one API server, bad clocks and a bad network ---------------------------------------

/// One process in the pretend world. Times are true milliseconds.
struct Process {
    mind: LeaderElection,
    /// Its clock's speed in thousandths.
    speed: u64,
    /// Its wall clock's error in seconds.
    skew: i64,
    /// The action under way.
    request: Option<Request>,
}

struct Request {
    /// When the answer arrives, or the process gives up.
    answered_at: u64,
    /// Whether an answer would arrive before the process gives up.
    in_time: bool,
    answer: Option<Event>,
}

/// An action on its way to the API server, which may get it long after the process has given up.
struct Flight {
    action: Action,
    from: usize,
    served_at: u64,
    in_time: bool,
}

/// How long a process waits for an answer, in milliseconds.
const PATIENCE: u64 = 5_000;

/// Who, from which millisecond on, for how many milliseconds.
type Spell = (usize, u64, u64);

fn has(spells: &[Spell], index: usize, millisecond: u64) -> bool {
    spells.iter().any(|(who, at, lasts)| *who == index && (*at..at + lasts).contains(&millisecond))
}

/// What the network does with one request: milliseconds there and back; whether the answer is lost.
type Fate = (u64, u64, bool);

impl Process {
    fn now(&self, origin: Instant, millisecond: u64) -> Now {
        let own = Duration::from_micros(millisecond * self.speed);
        let wall = Timestamp::from_second(1_000_000 + self.skew).unwrap() + own;
        Now { monotonic: origin + own, wall }
    }
}

#[derive(Default)]
struct ApiServer {
    lease: Option<Held>,
    version: u32,
}

impl ApiServer {
    fn serve(&mut self, action: &Action) -> Event {
        let record = match (action, &self.lease) {
            (Action::Get, lease) => return Event::Got(lease.clone()),
            (Action::Create(record), None) => record,
            (Action::Update { version, record }, Some(lease)) if lease.version == *version => record,
            _ => return Event::Failed,
        };
        self.version += 1;
        let held = Held { version: self.version.to_string(), record: record.clone() };
        self.lease = Some(held.clone());
        Event::Written(held)
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    // Mostly quick; sometimes as slow as the driver waits, or beyond, and sometimes unanswered.
    prop_oneof![
        6 => (1u64..50, 1u64..50, Just(false)),
        1 => (1u64..9_000, 1u64..9_000, any::<bool>()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However the clocks are set, with speeds up to a tenth apart, whatever the network does and whoever
    /// sleeps or is cut off for how long: never may two processes begin a write at the same moment.
    #[test]
    fn never_two_leaders(
        speeds in proptest::array::uniform2(950u64..1_050),
        skews in proptest::array::uniform2(-100_000i64..100_000),
        fates in proptest::collection::vec(fate(), 200),
        sleeps in proptest::collection::vec((0usize..2, 0u64..120_000, 1u64..40_000), 0..4),
        cuts in proptest::collection::vec((0usize..2, 0u64..120_000, 1u64..40_000), 0..4),
        release in proptest::option::of((0usize..2, 0u64..120_000)),
    ) {
        let origin = Instant::now();
        let mut api = ApiServer::default();
        let mut fates: VecDeque<Fate> = fates.into();
        let mut processes = [0, 1].map(|index| Process {
            mind: LeaderElection::new(format!("process-{index}"), Timing::default()),
            speed: speeds[index],
            skew: skews[index],
            request: None,
        });
        let mut flights: Vec<Flight> = Vec::new();
        let mut ever_led = false;
        for millisecond in (0..120_000).step_by(10) {
            for (index, process) in processes.iter_mut().enumerate() {
                for flight in flights.extract_if(.., |flight| flight.from == index && millisecond >= flight.served_at) {
                    let answer = api.serve(&flight.action);
                    if let Some(request) = process.request.as_mut().filter(|request| flight.in_time && request.in_time) {
                        request.answer = Some(answer);
                    }
                }
                if has(&sleeps, index, millisecond) {
                    continue;
                }
                let now = process.now(origin, millisecond);
                let releases = release.is_some_and(|(who, at)| who == index && at / 10 == millisecond / 10);
                let event = match process.request.take_if(|request| millisecond >= request.answered_at) {
                    Some(request) => Some(request.answer.unwrap_or(Event::Failed)),
                    None if releases && process.request.is_none() => Some(Event::Release),
                    None => process.mind.next_deadline(now).filter(|at| *at <= now.monotonic).map(|_| Event::Deadline),
                };
                if let Some(action) = event.and_then(|event| process.mind.handle(now, event)) {
                    let (there, back, lost) = fates.pop_front().unwrap_or((5, 5, false));
                    let swallowed = has(&cuts, index, millisecond);
                    let in_time = !lost && !swallowed && there + back < PATIENCE;
                    if !swallowed {
                        flights.push(Flight { action, from: index, served_at: millisecond + there, in_time });
                    }
                    let answered_at = millisecond + if in_time { there + back } else { PATIENCE };
                    process.request = Some(Request { answered_at, in_time, answer: None });
                }
            }
            // A sleeper begins no write; its tenure is judged when it wakes.
            let leads = |(index, process): &(usize, &Process)| {
                let now = process.now(origin, millisecond).monotonic;
                !has(&sleeps, *index, millisecond) && process.mind.tenure(now) != Tenure::None
            };
            let leaders = processes.iter().enumerate().filter(leads).count();
            ever_led |= leaders == 1;
            prop_assert!(leaders <= 1, "two leaders at {millisecond} ms");
        }
        prop_assert!(ever_led, "somebody leads within two minutes");
    }
}
