#![allow(clippy::disallowed_methods)] // Points in time to count from; nothing waits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::external_name::name::read;

const SECOND: Duration = Duration::from_secs(1);
/// The most that a rounded timer comes late in these tests.
const TICK: Duration = Duration::from_millis(1);

fn name(text: &str) -> DnsName {
    read(text).unwrap()
}

fn numbered(number: usize) -> DnsName {
    name(&format!("n{number}.example.com"))
}

fn addresses(all: &[&str], ttl: u64) -> FamilyAnswer {
    let addresses = all.iter().map(|text| text.parse().unwrap()).collect();
    FamilyAnswer::Addresses { addresses, ttl: Duration::from_secs(ttl) }
}

fn absent(absence: Absence) -> FamilyAnswer {
    FamilyAnswer::Absent { absence, ttl: None }
}

/// An answer with IPv4 addresses alone.
fn v4(all: &[&str], ttl: u64) -> Answer {
    Answer { v4: addresses(all, ttl), v6: absent(Absence::NoAddress) }
}

fn no_such_name() -> Answer {
    Answer { v4: absent(Absence::NoSuchName), v6: absent(Absence::NoSuchName) }
}

/// What the answers to one name have said, to hold the resolution to.
#[derive(Default)]
struct Ledger {
    /// When each address was named last.
    named: BTreeMap<IpAddr, Instant>,
    /// Until when the name must not be asked for again.
    holds: Option<Instant>,
}

impl Ledger {
    fn heard(&mut self, now: Instant, answer: &Answer) {
        let mut ttls = Vec::new();
        for family in [&answer.v4, &answer.v6] {
            if let FamilyAnswer::Addresses { addresses, ttl } = family {
                self.named.extend(addresses.iter().map(|address| (*address, now)));
                ttls.push(*ttl);
            }
        }
        // Where one family has none, it may be in doubt and asked for before the other one's time.
        let ttl = if ttls.len() == 2 { ttls.into_iter().min() } else { None };
        self.holds = Some(now + ttl.unwrap_or_default().max(5 * SECOND));
    }
}

/// A resolution and the world around it: time, and a DNS that answers what it is told to, after a while.
struct Play {
    resolution: Resolution,
    config: Config,
    start: Instant,
    now: Instant,
    latency: Duration,
    /// What DNS says of a name; [`Failure::Timeout`] of others.
    zone: BTreeMap<DnsName, Answer>,
    coming: BTreeSet<(Instant, DnsName)>,
    ledgers: BTreeMap<DnsName, Ledger>,
    asked: Vec<(Instant, DnsName)>,
    changes: Vec<(Instant, DnsName)>,
}

impl Play {
    fn new(config: Config) -> Self {
        let start = Instant::now();
        Self {
            resolution: Resolution::new(config.clone()),
            config,
            start,
            now: start,
            latency: Duration::from_millis(3),
            zone: BTreeMap::new(),
            coming: BTreeSet::new(),
            ledgers: BTreeMap::new(),
            asked: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn says(&mut self, name: &DnsName, answer: Answer) {
        self.zone.insert(name.clone(), answer);
    }

    fn tell(&mut self, event: Event) {
        let mut out = Vec::new();
        self.resolution.handle(self.now, event, &mut out);
        for action in out {
            match action {
                Action::Query(name) => {
                    let busy = self.coming.iter().any(|(_, coming)| *coming == name);
                    assert!(!busy, "{name} is asked for while a query is in flight");
                    let holds = self.ledgers.get(&name).and_then(|ledger| ledger.holds);
                    assert!(holds.is_none_or(|holds| self.now >= holds), "{name} is asked for too early");
                    self.asked.push((self.now, name.clone()));
                    self.coming.insert((self.now + self.latency, name));
                    assert!(self.coming.len() <= self.config.in_flight);
                }
                Action::Changed(name) => self.changes.push((self.now, name)),
            }
        }
        for (name, ledger) in &mut self.ledgers {
            let Some(entry) = self.resolution.names.get(name) else {
                // Forgotten: whoever comes next asks anew.
                ledger.holds = None;
                continue;
            };
            let state = entry.state();
            let resolved = state.standing == Standing::Resolved;
            assert!(!resolved || !state.addresses.is_empty(), "{name}: {state:?}");
            for address in state.addresses.iter().filter(|_| entry.used) {
                let age = self.now.duration_since(ledger.named[address]);
                assert!(age <= self.config.last_good_for + TICK, "{address} of {name} is {age:?} old");
            }
        }
    }

    fn follow(&mut self, name: &DnsName) {
        self.tell(Event::Follow(name.clone()));
    }

    /// Lets time pass. Timers come up to a tick late.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let deadline = self.resolution.next_deadline().map(|at| at.max(self.now) + TICK);
            let answer = self.coming.first().map(|(at, _)| *at);
            let Some(next) = deadline.into_iter().chain(answer).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = next;
            match answer.filter(|at| *at == next) {
                Some(_) => {
                    let (_, name) = self.coming.pop_first().unwrap();
                    let answer = self.zone.get(&name).cloned().unwrap_or(Failure::Timeout.into());
                    self.ledgers.entry(name.clone()).or_default().heard(self.now, &answer);
                    self.tell(Event::Answered(name, answer));
                }
                None => self.tell(Event::Deadline),
            }
        }
        self.now = end;
    }

    fn state(&self, name: &DnsName) -> State {
        self.resolution.state(name).unwrap()
    }

    fn has(&self, name: &DnsName) -> Vec<String> {
        self.state(name).addresses.iter().map(ToString::to_string).collect()
    }

    /// When the name was asked for, in seconds since the start.
    fn times(&self, name: &DnsName) -> Vec<u64> {
        let of_name = self.asked.iter().filter(|(_, asked)| asked == name);
        of_name.map(|(at, _)| at.duration_since(self.start).as_secs()).collect()
    }
}

#[test]
fn a_name_is_asked_for_again_when_its_ttl_is_over_and_not_before() {
    let mut play = Play::new(Config::default());
    let db = name("db.example.com");
    play.says(&db, v4(&["192.0.2.1"], 60));
    play.follow(&db);
    play.pass(SECOND);
    assert_eq!(play.has(&db), ["192.0.2.1"]);
    assert_eq!(play.state(&db).standing, Standing::Resolved);
    play.pass(300 * SECOND);
    let times = play.times(&db);
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (60..=66).contains(gap)) && gaps.len() >= 4, "{times:?}");
    assert_eq!(play.changes.len(), 1, "what stays the same is no news");
}

#[test]
fn a_ttl_is_held_within_bounds() {
    for (ttl, least, most) in [(0, 5, 6), (1, 5, 6), (86_400, 3600, 3961)] {
        let mut play = Play::new(Config::default());
        let db = name("db.example.com");
        play.says(&db, v4(&["192.0.2.1"], ttl));
        play.follow(&db);
        play.pass(2 * 3960 * SECOND);
        let times = play.times(&db);
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
        assert!(!gaps.is_empty() && gaps.iter().all(|gap| (least..=most).contains(gap)), "{ttl}: {gaps:?}");
    }
}

#[test]
fn one_name_is_asked_for_once_however_many_follow_it() {
    let mut play = Play::new(Config::default());
    let db = name("db.example.com");
    play.says(&db, v4(&["192.0.2.1"], 60));
    for _ in 0..5 {
        play.follow(&db);
    }
    play.pass(30 * SECOND);
    assert_eq!(play.asked.len(), 1);
}

#[test]
fn both_families_are_kept_and_the_shorter_ttl_counts() {
    let mut play = Play::new(Config::default());
    let db = name("db.example.com");
    play.says(
        &db,
        Answer { v4: addresses(&["192.0.2.2", "192.0.2.1"], 300), v6: addresses(&["2001:db8::1"], 20) },
    );
    play.follow(&db);
    play.pass(23 * SECOND);
    assert_eq!(play.has(&db), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!(play.asked.len(), 2);
    // Servers that fail for one family alone are common; the other serves, and the pace stays.
    play.says(
        &db,
        Answer { v4: addresses(&["192.0.2.1"], 20), v6: FamilyAnswer::Failed(Failure::ServerFailure) },
    );
    play.pass(60 * SECOND);
    assert_eq!(play.state(&db).standing, Standing::Resolved);
    assert_eq!(play.has(&db), ["192.0.2.1", "2001:db8::1"], "the last good answer of IPv6");
}

#[test]
fn the_last_good_answer_serves_while_dns_fails_up_to_its_bound_and_then_no_longer() {
    let config = Config { last_good_for: 3600 * SECOND, ..Config::default() };
    let mut play = Play::new(config);
    let db = name("db.example.com");
    play.says(&db, v4(&["192.0.2.1"], 30));
    play.follow(&db);
    play.pass(10 * SECOND);
    play.zone.clear();
    play.pass(40 * SECOND);
    let failing = Standing::Failing { failure: Failure::Timeout, confirmed: true };
    assert_eq!(play.state(&db).standing, failing);
    play.pass(3500 * SECOND);
    assert_eq!(play.has(&db), ["192.0.2.1"]);
    play.pass(60 * SECOND);
    assert_eq!((play.has(&db), play.state(&db).standing), (vec![], failing));
    // Asked ever more slowly, and taken up again when it comes back.
    let last = play.times(&db);
    assert!(last.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap() <= 66, "{last:?}");
    play.says(&db, v4(&["192.0.2.1"], 30));
    play.pass(66 * SECOND);
    assert_eq!((play.has(&db), play.state(&db).standing), (vec!["192.0.2.1".to_owned()], Standing::Resolved));
}

#[test]
fn a_deleted_name_is_believed_when_said_twice_and_its_addresses_go_after_a_grace() {
    let mut play = Play::new(Config::default());
    let db = name("db.example.com");
    play.says(&db, v4(&["192.0.2.1"], 30));
    play.follow(&db);
    play.pass(25 * SECOND);
    play.says(&db, no_such_name());
    play.pass(9 * SECOND);
    let unconfirmed = Standing::Absent { absence: Absence::NoSuchName, confirmed: false };
    assert_eq!(play.state(&db).standing, unconfirmed, "once is not enough");
    play.pass(6 * SECOND);
    let confirmed = Standing::Absent { absence: Absence::NoSuchName, confirmed: true };
    assert_eq!((play.state(&db).standing, play.has(&db)), (confirmed, vec!["192.0.2.1".to_owned()]));
    play.pass(15 * SECOND);
    assert_eq!(play.has(&db), ["192.0.2.1"]);
    play.pass(11 * SECOND);
    assert_eq!(play.has(&db), Vec::<String>::new(), "half a minute after it was said first");
    // A failure in between neither confirms nor denies.
    play.says(&db, v4(&["192.0.2.1"], 5));
    play.pass(60 * SECOND);
    play.says(&db, no_such_name());
    play.pass(6 * SECOND);
    play.zone.clear();
    play.pass(100 * SECOND);
    assert_eq!(play.has(&db), ["192.0.2.1"]);
    play.says(&db, no_such_name());
    play.pass(66 * SECOND);
    assert_eq!(play.has(&db), Vec::<String>::new());
}

#[test]
fn a_blip_of_no_such_name_changes_nothing() {
    let mut play = Play::new(Config::default());
    let db = name("db.example.com");
    play.says(&db, v4(&["192.0.2.1"], 5));
    play.follow(&db);
    play.pass(SECOND);
    play.says(&db, no_such_name());
    while play.state(&db).standing == Standing::Resolved {
        play.pass(SECOND / 10);
    }
    play.says(&db, v4(&["192.0.2.1"], 5));
    play.pass(100 * SECOND);
    assert_eq!(play.has(&db), ["192.0.2.1"]);
}

#[test]
fn a_name_that_does_not_exist_yet_is_found_within_a_minute_of_its_birth() {
    let mut play = Play::new(Config::default());
    let db = name("db.example.com");
    let hour = Some(3600 * SECOND);
    let none = FamilyAnswer::Absent { absence: Absence::NoSuchName, ttl: hour };
    play.says(&db, Answer { v4: none.clone(), v6: none });
    play.follow(&db);
    play.pass(1000 * SECOND);
    assert!(play.asked.len() < 25, "{}", play.asked.len());
    play.says(&db, v4(&["192.0.2.1"], 5));
    play.pass(66 * SECOND);
    assert_eq!(play.has(&db), ["192.0.2.1"]);
}

#[test]
fn two_thousand_names_at_once_are_asked_for_evenly() {
    let mut play = Play::new(Config::default());
    for number in 0..2000 {
        play.says(&numbered(number), v4(&["192.0.2.1"], 300));
    }
    for number in 0..2000 {
        play.follow(&numbered(number));
    }
    play.pass(25 * SECOND);
    let asked: BTreeSet<_> = play.asked.iter().map(|(_, name)| name).collect();
    assert_eq!((asked.len(), play.asked.len()), (2000, 2000));
    let last = play.asked.last().unwrap().0.duration_since(play.start);
    assert!((19 * SECOND..23 * SECOND).contains(&last), "2,000 names are 4,000 questions: {last:?}");
    // Five minutes later they come again, as evenly.
    play.pass(340 * SECOND);
    assert_eq!(play.asked.len(), 4000);
    assert_no_herd(&play);
}

/// In no second are there more questions than the rate allows, and one name's more for a late timer.
fn assert_no_herd(play: &Play) {
    let most = (play.config.rate / QUESTIONS + 1) as usize;
    for pair in play.asked.windows(most + 1) {
        let took = pair[most].0.duration_since(pair[0].0);
        assert!(took >= SECOND, "{} names within {took:?}", most + 1);
    }
}

#[test]
fn names_that_are_due_get_their_share_while_thousands_of_new_ones_wait() {
    let mut play = Play::new(Config::default());
    let db = name("db.example.com");
    play.says(&db, v4(&["192.0.2.1"], 5));
    play.follow(&db);
    play.pass(SECOND);
    for number in 0..5000 {
        play.says(&numbered(number), v4(&["192.0.2.1"], 300));
        play.follow(&numbered(number));
    }
    play.pass(30 * SECOND);
    assert!(play.times(&db).len() >= 5, "{:?}", play.times(&db));
}

#[test]
fn an_edit_of_one_name_is_asked_for_at_once_beside_two_thousand_at_rest() {
    let mut play = Play::new(Config::default());
    for number in 0..2000 {
        play.says(&numbered(number), v4(&["192.0.2.1"], 5));
        play.follow(&numbered(number));
    }
    // More than can be asked for within their TTL.
    play.pass(60 * SECOND);
    let db = name("db.example.com");
    play.says(&db, v4(&["192.0.2.7"], 60));
    play.follow(&db);
    play.pass(SECOND / 4);
    assert_eq!(play.has(&db), ["192.0.2.7"]);
    assert_no_herd(&play);
}

#[test]
fn a_name_that_is_left_and_followed_again_is_not_asked_for_before_its_ttl_is_over() {
    let mut play = Play::new(Config::default());
    let db = name("db.example.com");
    play.says(&db, v4(&["192.0.2.1"], 300));
    play.follow(&db);
    play.tell(Event::Leave(db.clone()));
    play.follow(&db);
    play.pass(SECOND);
    play.tell(Event::Leave(db.clone()));
    assert_eq!(play.resolution.state(&db), None);
    play.pass(30 * SECOND);
    play.follow(&db);
    assert_eq!(play.has(&db), ["192.0.2.1"], "known at once");
    play.pass(200 * SECOND);
    assert_eq!(play.times(&db), [0]);
    play.tell(Event::Leave(db.clone()));
    play.pass(61 * SECOND);
    assert!(play.resolution.names.is_empty(), "and is forgotten in the end");
    assert_eq!(play.resolution.next_deadline(), None);
}

#[derive(Clone, Debug)]
enum Op {
    Follow(usize),
    Leave(usize),
    Says(usize, Answer),
    Latency(u64),
    Pass(u64),
}

const NAMES: usize = 4;

fn family() -> impl Strategy<Value = FamilyAnswer> {
    let some = (proptest::collection::btree_set(0_u8..6, 1..4), 0_u64..400).prop_map(|(numbers, ttl)| {
        let texts: Vec<String> = numbers.iter().map(|number| format!("192.0.2.{number}")).collect();
        addresses(&texts.iter().map(String::as_str).collect::<Vec<_>>(), ttl)
    });
    let absence = prop_oneof![Just(Absence::NoSuchName), Just(Absence::NoAddress)];
    let ttl = proptest::option::of((0_u64..400).prop_map(Duration::from_secs));
    let none = (absence, ttl).prop_map(|(absence, ttl)| FamilyAnswer::Absent { absence, ttl });
    let failed =
        prop_oneof![Just(Failure::Timeout), Just(Failure::ServerFailure)].prop_map(FamilyAnswer::Failed);
    prop_oneof![3 => some, 2 => none, 2 => failed]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let answer = (family(), family()).prop_map(|(v4, v6)| Answer { v4, v6 });
    let op = prop_oneof![
        3 => (0..NAMES).prop_map(Op::Follow),
        1 => (0..NAMES).prop_map(Op::Leave),
        4 => (0..NAMES, answer).prop_map(|(at, answer)| Op::Says(at, answer)),
        1 => (0_u64..8000).prop_map(Op::Latency),
        4 => (0_u64..90_000).prop_map(Op::Pass),
    ];
    proptest::collection::vec(op, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn ttls_are_honoured_one_query_is_in_flight_and_no_address_outlives_its_bound(ops in ops()) {
        // `Play` itself looks after each step.
        let last_good_for = 600 * SECOND;
        let mut play = Play::new(Config { last_good_for, in_flight: 3, rate: 20, ..Config::default() });
        for op in ops {
            match op {
                Op::Follow(at) => play.follow(&numbered(at)),
                Op::Leave(at) => play.tell(Event::Leave(numbered(at))),
                Op::Says(at, answer) => play.says(&numbered(at), answer),
                Op::Latency(milliseconds) => play.latency = Duration::from_millis(milliseconds),
                Op::Pass(milliseconds) => play.pass(Duration::from_millis(milliseconds)),
            }
        }
        let slot = SECOND * QUESTIONS / 20;
        for pair in play.asked.windows(11) {
            prop_assert!(pair[10].0.duration_since(pair[0].0) >= slot * 9, "questions come in a herd");
        }
        // Whatever happened, what is followed is asked for in the end.
        let followed: Vec<DnsName> = play.resolution.states().map(|(name, _)| name.clone()).collect();
        play.latency = TICK;
        for name in &followed {
            play.says(name, v4(&["192.0.2.200"], 5));
        }
        play.pass(500 * SECOND);
        for name in &followed {
            prop_assert!(play.has(name).contains(&"192.0.2.200".to_owned()), "{name}: {:?}", play.state(name));
        }
        prop_assert!(play.resolution.in_flight <= 1);
    }
}
