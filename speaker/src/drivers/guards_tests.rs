use super::*;
use crate::filter::frontend::{Claim, Frontend};
use landfall_crds::{Closed, ClosedReason, GuardedService, ServiceGuardSpec, Sources};

fn object(name: &str, ranges: &[&str]) -> ServiceGuard {
    let spec = ServiceGuardSpec {
        service: GuardedService { namespace: "shop".into(), name: name.into(), uid: "u".into() },
        sources: Sources { ipv4: ranges.iter().map(|range| (*range).to_owned()).collect(), ipv6: Vec::new() },
        ..ServiceGuardSpec::default()
    };
    ServiceGuard::new(&format!("shop.{name}"), spec)
}

fn service(name: &str) -> ServiceName {
    ServiceName::new("shop", name)
}

/// What the filter is told, in short.
fn to_filter(words: &[Word]) -> Vec<String> {
    let short = |word: &Word| match word {
        Word::Filter(Event::Guards(guards)) => Some(format!("guards {}", guards.len())),
        Word::Filter(Event::Guard(service, Some(guard))) => {
            Some(format!("{service} {}", guard.ranges.join(" ")))
        }
        Word::Filter(Event::Guard(service, None)) => Some(format!("{service} gone")),
        _ => None,
    };
    words.iter().filter_map(short).collect()
}

struct Story {
    guards: Guards,
    books: Books,
    now: Instant,
}

impl Story {
    fn begins() -> Self {
        Self { guards: Guards::default(), books: Books::default(), now: Instant::now() }
    }

    fn take(&mut self, event: Watched<ServiceGuard>) -> Vec<Word> {
        self.guards.take(self.now, event, &mut self.books)
    }

    fn list(&mut self, objects: Vec<ServiceGuard>) -> Vec<Word> {
        self.take(Watched::Init);
        for object in objects {
            assert!(self.take(Watched::InitApply(object)).is_empty(), "nothing is said of half a list");
        }
        self.take(Watched::InitDone)
    }

    fn claims(&mut self, name: &str, guard: Option<&str>) {
        let claim = Claim { service: service(name), guard: guard.map(Into::into) };
        self.books.serve("192.168.10.50".parse().unwrap(), Frontend::new(vec![claim], []));
    }

    fn seconds_later(&mut self, seconds: u64) -> Vec<Word> {
        self.now += Duration::from_secs(seconds);
        self.guards.settle(self.now, &mut self.books)
    }
}

#[test]
fn a_list_is_told_whole_and_a_change_alone() {
    let mut story = Story::begins();
    let words = story.list(vec![object("web", &["10.0.0.0/8"]), object("api", &[])]);
    assert_eq!(to_filter(&words), ["guards 2"]);
    assert!(words.iter().any(|word| matches!(word, Word::GuardsListed)));
    assert_eq!(
        to_filter(&story.take(Watched::Apply(object("web", &["10.0.0.0/8"])))),
        [""; 0],
        "nothing new"
    );
    let words = story.take(Watched::Apply(object("web", &["192.0.2.0/24"])));
    assert_eq!(to_filter(&words), ["shop/web 192.0.2.0/24"]);
}

#[test]
fn a_guard_that_is_taken_back_goes_soon() {
    let mut story = Story::begins();
    story.list(vec![object("web", &["10.0.0.0/8"])]);
    assert_eq!(to_filter(&story.take(Watched::Delete(object("web", &[])))), [""; 0]);
    assert!(story.guards.next_deadline().is_some());
    assert_eq!(to_filter(&story.seconds_later(1)), ["shop/web gone"]);
    assert!(story.books.guards.is_empty());
}

#[test]
fn i3_fail_closed_a_guard_that_vanishes_while_a_claim_asks_for_it_is_kept() {
    let mut story = Story::begins();
    story.list(vec![object("web", &["10.0.0.0/8"])]);
    story.claims("web", Some("d"));
    let words = story.take(Watched::Delete(object("web", &[])));
    assert!(words.iter().any(|word| matches!(word, Word::Remark(text) if text.contains("shop/web"))));
    assert_eq!(to_filter(&story.seconds_later(3600)), [""; 0]);
    assert_eq!(story.books.guards.len(), 1, "also for the next start");
    story.claims("web", None);
    assert_eq!(to_filter(&story.seconds_later(0)), ["shop/web gone"]);
}

#[test]
fn i3_fail_closed_many_that_vanish_together_are_kept_for_long_and_alarm_once() {
    let mut story = Story::begins();
    let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    story.list(names.iter().map(|name| object(name, &["10.0.0.0/8"])).collect());
    let mut alarms = 0;
    for name in &names {
        let words = story.take(Watched::Delete(object(name, &[])));
        assert_eq!(to_filter(&words), [""; 0]);
        alarms += words.iter().filter(|word| matches!(word, Word::Alarm(_))).count();
    }
    assert_eq!(alarms, 1);
    assert_eq!(to_filter(&story.seconds_later(299)), [""; 0]);
    let words = story.take(Watched::Apply(object("s0", &["10.0.0.0/8"])));
    assert_eq!(to_filter(&words), [""; 0], "it is back, and as it was");
    assert_eq!(to_filter(&story.seconds_later(2)).len(), 9);
    assert_eq!(story.books.guards.len(), 1);
}

#[test]
fn what_only_the_file_told_goes_with_the_first_list_unless_a_claim_asks_for_it() {
    let mut story = Story::begins();
    for name in ["web", "api"] {
        story.books.guard(service(name), Guard::of(&object(name, &["10.0.0.0/8"])));
    }
    story.claims("web", Some("d"));
    assert_eq!(to_filter(&story.list(Vec::new())), ["guards 1"]);
    assert!(story.books.guards.contains_key(&service("web")));
}

#[test]
fn that_nobody_may_come_in_is_said_once_with_the_reason() {
    let mut story = Story::begins();
    story.list(Vec::new());
    let mut closed = object("web", &[]);
    closed.spec.closed =
        Some(Closed { reason: ClosedReason::TooManySourceRanges, message: "1001 ranges".into() });
    let words = story.take(Watched::Apply(closed.clone()));
    assert!(matches!(&words[0], Word::Remark(text) if text == "nobody may come in to shop/web: 1001 ranges"));
    assert!(story.take(Watched::Apply(closed)).is_empty());
}
