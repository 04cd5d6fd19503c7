#![allow(clippy::disallowed_methods)] // Points in time to count from; nothing waits.

use jiff::Timestamp;
use serde_json::json;

use super::super::answer::{Absence, Failure, FamilyAnswer};
use super::super::name::read;
use super::super::telling::reasons;
use super::*;
use crate::effects::Refusal;
use crate::world::store::Store;

const SECOND: Duration = Duration::from_secs(1);

/// The mind, an API server, and a DNS.
struct Play {
    mind: ExternalNames,
    services: Store<ClaimRef, Service>,
    now: Instant,
    start: Instant,
    version: u64,
    /// What DNS says; of other names that they do not exist.
    zone: BTreeMap<DnsName, Answer>,
    silent: bool,
    asked: Vec<DnsName>,
    unanswered: Vec<DnsName>,
    /// Writes, as the Service's name and what its conditions say now.
    writes: Vec<(String, String)>,
    /// Events, as the Service's name, the kind and the reason.
    told: Vec<String>,
    refuse: Option<Refusal>,
}

fn v4(address: &str) -> Answer {
    let v4 =
        FamilyAnswer::Addresses { addresses: [address.parse().unwrap()].into(), ttl: Duration::from_secs(5) };
    Answer { v4, v6: FamilyAnswer::Absent { absence: Absence::NoAddress, ttl: None } }
}

fn named(name: &str) -> ClaimRef {
    ClaimRef { namespace: "shop".to_owned(), name: name.to_owned() }
}

impl Play {
    fn with(config: Config) -> Self {
        let start = Instant::now();
        let mut services = Store::default();
        services.listed = true;
        let mut play = Self {
            mind: ExternalNames::new(config),
            services,
            now: start,
            start,
            version: 1,
            zone: BTreeMap::new(),
            silent: false,
            asked: Vec::new(),
            unanswered: Vec::new(),
            writes: Vec::new(),
            told: Vec::new(),
            refuse: None,
        };
        play.tell(Event::Leading(true));
        play
    }

    fn new() -> Self {
        Self::with(Config::new(read("cluster.local").unwrap()))
    }

    fn now(&self) -> Now {
        let passed = self.now.duration_since(self.start).as_secs();
        let wall = Timestamp::from_second(i64::try_from(passed).unwrap()).unwrap();
        Now { monotonic: self.now, wall }
    }

    fn tell(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.mind.handle(self.now(), event, &self.services, &mut actions);
        for action in actions {
            match action {
                Action::Query(name) => {
                    self.asked.push(name.clone());
                    self.unanswered.push(name);
                }
                Action::Effect(Effect::Publish(note)) => {
                    let kind = if note.warning { "Warning" } else { "Normal" };
                    self.told.push(format!("{} {kind} {}", note.name, note.reason));
                }
                Action::Effect(effect) => self.write(effect),
            }
        }
        if !self.silent {
            for name in std::mem::take(&mut self.unanswered) {
                let none = FamilyAnswer::Absent { absence: Absence::NoSuchName, ttl: None };
                let none = Answer { v4: none.clone(), v6: none };
                let answer = self.zone.get(&name).cloned().unwrap_or(none);
                self.tell(Event::Answered(name, answer));
            }
        }
    }

    fn write(&mut self, effect: Effect) {
        let Effect::SetConditionsOf { service, conditions, .. } = &effect else { panic!("{effect:?}") };
        let outcome = match &self.refuse {
            Some(refusal) => Outcome::Refused(refusal.clone()),
            None => {
                let mut object = Service::clone(self.services.get(&named(&service.name)).unwrap());
                assert_eq!(object.metadata.resource_version.as_ref(), Some(&service.resource_version));
                let all = object.status.get_or_insert_default().conditions.get_or_insert_default();
                all.retain(|condition| !OURS.contains(&condition.type_.as_str()));
                all.extend(conditions.iter().cloned());
                for condition in conditions {
                    let documented = match condition.type_.as_str() {
                        RESOLVED => &reasons::OF_RESOLVED[..],
                        _ => &reasons::OF_NAME_VALID,
                    };
                    assert!(documented.contains(&condition.reason.as_str()), "{condition:?}");
                }
                self.writes.push((service.name.clone(), says(&object)));
                Outcome::Service(self.store(object))
            }
        };
        self.tell(Event::Done(&effect, &outcome));
    }

    fn store(&mut self, mut object: Service) -> Arc<Service> {
        self.version += 1;
        object.metadata.resource_version = Some(self.version.to_string());
        let object = Arc::new(object);
        self.services.offer(&key(&object.metadata), Arc::clone(&object), 1, None);
        object
    }

    /// A user creates or replaces a Service; what its status says stays.
    fn apply(&mut self, name: &str, spec: serde_json::Value, annotations: serde_json::Value) {
        let status = self.services.get(&named(name)).and_then(|service| service.status.clone());
        let object = json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "annotations": annotations},
            "spec": spec, "status": status});
        let object = self.store(serde_json::from_value(object).unwrap());
        self.tell(Event::Services(&Change::Applied(object)));
    }

    fn leads_to(&mut self, name: &str, external_name: &str) {
        self.apply(name, json!({"type": "ExternalName", "externalName": external_name}), json!({}));
    }

    fn delete(&mut self, name: &str) {
        let last = self.services.remove(&named(name)).unwrap();
        self.tell(Event::Services(&Change::Deleted(last)));
    }

    fn has(&mut self, name: &str, address: &str) {
        self.zone.insert(read(name).unwrap(), v4(address));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.mind.next_deadline().filter(|next| *next <= end) {
            self.now = next.max(self.now + Duration::from_millis(1));
            self.tell(Event::Deadline);
        }
        self.now = end;
        self.tell(Event::Deadline);
    }

    fn says(&self, name: &str) -> String {
        says(self.services.get(&named(name)).unwrap())
    }

    fn message(&self, name: &str, type_: &str) -> String {
        let service = self.services.get(&named(name)).unwrap();
        find(conditions_of(service), type_).unwrap().message.clone()
    }
}

/// Our conditions of a Service, without their words.
fn says(service: &Service) -> String {
    let word = |condition: &Condition| format!("{}/{}", condition.status, condition.reason);
    conditions_of(service).iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_good_name_is_told_in_one_write_and_nothing_is_made_of_it() {
    let mut play = Play::new();
    play.has("db.example.com", "192.0.2.7");
    play.leads_to("db", "db.example.com");
    assert_eq!(play.says("db"), "True/Valid True/Resolved");
    assert_eq!(play.message("db", RESOLVED), "db.example.com has 192.0.2.7");
    play.pass(3600 * SECOND);
    assert_eq!((play.writes.len(), play.told.len()), (1, 0));
    assert!(play.asked.len() > 600, "{}", play.asked.len());
}

#[test]
fn a_name_that_does_not_exist_is_told_once_and_so_is_its_birth() {
    let mut play = Play::new();
    play.leads_to("db", "db.exmaple.com");
    assert_eq!(play.says("db"), "True/Valid False/NoSuchName");
    assert!(play.message("db", RESOLVED).contains("db.exmaple.com does not exist"));
    play.pass(600 * SECOND);
    assert_eq!(play.told, ["db Warning NoSuchName"]);
    play.has("db.exmaple.com", "192.0.2.7");
    play.pass(66 * SECOND);
    assert_eq!(play.says("db"), "True/Valid True/Resolved");
    assert_eq!(play.told, ["db Warning NoSuchName", "db Normal Resolved"]);
    assert_eq!(play.writes.len(), 2);
}

#[test]
fn an_address_in_place_of_a_name_is_told_with_what_to_do_and_dns_is_not_asked() {
    let mut play = Play::new();
    play.leads_to("db", "10.0.0.1");
    assert_eq!(play.says("db"), "False/IpAddress False/NameInvalid");
    let message = play.message("db", "landfall.dev/NameValid");
    assert!(
        message.starts_with("10.0.0.1 is no name that pods can use") && message.contains("EndpointSlice"),
        "{message}"
    );
    play.pass(60 * SECOND);
    assert_eq!((play.asked.len(), play.told.as_slice()), (0, &["db Warning IpAddress".to_owned()][..]));
}

#[test]
fn a_single_label_is_no_good_but_asked_for_all_the_same() {
    let mut play = Play::new();
    play.zone.insert(super::super::name::read_leniently("mongodb").unwrap(), v4("192.0.2.7"));
    play.leads_to("db", "mongodb");
    assert_eq!(play.says("db"), "False/SingleLabel True/Resolved");
    assert!(play.message("db", "landfall.dev/NameValid").contains("write mongodb.shop.svc.cluster.local"));
}

#[test]
fn a_name_of_the_cluster_is_looked_up_in_the_api() {
    let mut play = Play::new();
    play.leads_to("db", "real.shop.svc.cluster.local");
    assert_eq!(play.says("db"), "True/InClusterName False/ServiceNotFound");
    play.pass(SECOND);
    play.apply("real", json!({"type": "ClusterIP"}), json!({}));
    assert_eq!(play.says("db"), "True/InClusterName True/InClusterName");
    play.pass(SECOND);
    // The Service becomes an ExternalName of its own: followed to its end.
    play.has("db.example.com", "192.0.2.7");
    play.leads_to("real", "db.example.com");
    assert_eq!(play.says("db"), "True/InClusterName True/Resolved");
    assert_eq!(play.message("db", RESOLVED), "real.shop.svc.cluster.local (by db.example.com) has 192.0.2.7");
    play.pass(SECOND);
    play.delete("real");
    assert_eq!(play.says("db"), "True/InClusterName False/ServiceNotFound");
    assert_eq!(play.asked.len(), 1, "once for both");
}

#[test]
fn a_circle_is_told_on_each_service_in_it_until_it_is_broken() {
    let mut play = Play::new();
    play.leads_to("self", "self.shop.svc.cluster.local");
    assert_eq!(play.says("self"), "False/SelfReference False/NameInvalid");
    play.leads_to("a", "b.shop.svc.cluster.local");
    play.pass(SECOND);
    play.leads_to("b", "a.shop.svc.cluster.local");
    assert_eq!(play.says("a"), "False/Circle False/NameInvalid");
    assert_eq!(play.says("b"), "False/Circle False/NameInvalid");
    assert!(play.message("a", "landfall.dev/NameValid").contains("shop/a, shop/b, shop/a"));
    play.pass(SECOND);
    play.has("db.example.com", "192.0.2.7");
    play.leads_to("b", "db.example.com");
    assert_eq!(play.says("a"), "True/InClusterName True/Resolved");
    assert_eq!(play.says("b"), "True/Valid True/Resolved");
}

#[test]
fn a_service_that_leads_to_one_with_a_bad_name_is_told_which() {
    let mut play = Play::new();
    play.leads_to("a", "b.shop.svc.cluster.local");
    play.pass(SECOND);
    play.leads_to("b", "10.0.0.1");
    assert_eq!(play.says("a"), "True/InClusterName False/LeadsNowhere");
    assert!(play.message("a", RESOLVED).contains("Service shop/b, whose own name is no good"));
}

#[test]
fn conditions_go_with_the_type_with_the_annotation_and_with_the_flag() {
    let mut play = Play::new();
    play.has("db.example.com", "192.0.2.7");
    play.leads_to("db", "db.example.com");
    play.pass(SECOND);
    // As the API server keeps the name after a change of the type.
    play.apply("db", json!({"type": "ClusterIP", "externalName": "db.example.com"}), json!({}));
    assert_eq!(play.says("db"), "");
    play.pass(SECOND);
    play.leads_to("db", "db.example.com");
    play.pass(SECOND);
    assert_eq!(play.says("db"), "True/Valid True/Resolved");
    let excepted = json!({"landfall.dev/check-name": "false"});
    play.apply("db", json!({"type": "ExternalName", "externalName": "db.example.com"}), excepted);
    assert_eq!(play.says("db"), "");
    play.pass(61 * SECOND);
    assert_eq!(play.mind.explain().count(), 0, "and nobody asks for the name any more");
    play.leads_to("db", "db.example.com");
    play.pass(SECOND);

    let mut off = Play::with(Config { enabled: false, ..Config::new(read("cluster.local").unwrap()) });
    off.version = play.version;
    let told = play.services.get(&named("db")).unwrap().clone();
    off.services.offer(&named("db"), told, 1, None);
    off.tell(Event::Services(&Change::Listed(Vec::new())));
    assert_eq!(off.says("db"), "");
    off.leads_to("other", "db.example.com");
    assert_eq!((off.says("other").as_str(), off.asked.len()), ("", 0));
}

#[test]
fn while_dns_is_slow_it_is_said_that_there_is_no_answer_yet() {
    let mut play = Play::new();
    play.silent = true;
    play.leads_to("db", "db.example.com");
    play.pass(SECOND);
    assert_eq!(play.says("db"), "");
    play.pass(SECOND);
    assert_eq!(play.says("db"), "True/Valid Unknown/Resolving");
    play.pass(20 * SECOND);
    assert_eq!(play.asked.len(), 1, "one query in flight");
    play.silent = false;
    play.has("db.example.com", "192.0.2.7");
    play.tell(Event::Deadline);
    assert_eq!((play.says("db").as_str(), play.told.len()), ("True/Valid True/Resolved", 0));
}

#[test]
fn one_answer_that_fails_is_no_news_and_two_are() {
    let mut play = Play::new();
    play.has("db.example.com", "192.0.2.7");
    play.leads_to("db", "db.example.com");
    play.pass(SECOND);
    play.zone.insert(read("db.example.com").unwrap(), Failure::ServerFailure.into());
    play.pass(6 * SECOND);
    assert_eq!(play.says("db"), "True/Valid True/Resolved");
    play.pass(6 * SECOND);
    assert_eq!(play.says("db"), "True/Valid False/ServerFailure");
    assert!(play.message("db", RESOLVED).ends_with("; the last answer was 192.0.2.7"));
    play.has("db.example.com", "192.0.2.7");
    play.pass(66 * SECOND);
    assert_eq!(play.says("db"), "True/Valid True/Resolved");
    assert_eq!(play.told, ["db Warning ServerFailure", "db Normal Resolved"]);
}

#[test]
fn each_failure_has_its_place_among_the_reasons() {
    assert!(Failure::ALL.iter().all(|failure| reasons::OF_RESOLVED.contains(&failure.reason())));
}

#[test]
fn a_successor_finds_all_told_and_writes_nothing() {
    let mut play = Play::new();
    play.has("db.example.com", "192.0.2.7");
    for (name, to) in [
        ("db", "db.example.com"),
        ("gone", "gone.example.com"),
        ("ip", "10.0.0.1"),
        ("self", "self.shop.svc.cluster.local"),
    ] {
        play.leads_to(name, to);
    }
    play.pass(10 * SECOND);
    let mut next = Play::new();
    next.zone = play.zone.clone();
    let all: Vec<Arc<Service>> = play.services.iter().map(|(_, service)| Arc::clone(service)).collect();
    for service in &all {
        next.services.offer(&key(&service.metadata), Arc::clone(service), 1, None);
    }
    // It takes DNS a while to answer, and its first word is a failure.
    next.silent = true;
    next.tell(Event::Services(&Change::Listed(all)));
    next.pass(10 * SECOND);
    for name in std::mem::take(&mut next.unanswered) {
        next.tell(Event::Answered(name, Failure::Timeout.into()));
    }
    next.pass(10 * SECOND);
    next.silent = false;
    next.tell(Event::Deadline);
    next.pass(60 * SECOND);
    assert_eq!((next.writes.len(), next.told.len()), (0, 0), "{:?}", next.writes);
}

#[test]
fn an_edit_is_told_at_once() {
    let mut play = Play::new();
    play.has("a.example.com", "192.0.2.1");
    play.has("b.example.com", "192.0.2.2");
    play.leads_to("db", "a.example.com");
    play.pass(SECOND);
    play.leads_to("db", "b.example.com");
    assert_eq!(play.message("db", RESOLVED), "b.example.com has 192.0.2.2");
    assert_eq!(play.says("db"), "True/Valid True/Resolved");
    play.pass(SECOND);
    play.leads_to("db", "c.example.com");
    assert_eq!(play.says("db"), "True/Valid False/NoSuchName");
}

#[test]
fn addresses_that_change_all_the_time_are_told_once_a_minute() {
    let mut play = Play::new();
    play.has("db.example.com", "192.0.2.1");
    play.leads_to("db", "db.example.com");
    for number in 2..60 {
        play.has("db.example.com", &format!("192.0.2.{number}"));
        play.pass(6 * SECOND);
    }
    assert!((5..=7).contains(&play.writes.len()), "{}", play.writes.len());
}

#[test]
fn one_name_is_asked_for_once_for_all_who_lead_there() {
    let mut play = Play::new();
    play.has("db.example.com", "192.0.2.7");
    for number in 0..50 {
        play.leads_to(&format!("db{number}"), "db.example.com");
    }
    play.pass(SECOND);
    assert_eq!((play.asked.len(), play.writes.len()), (1, 50));
    for number in 0..50 {
        play.delete(&format!("db{number}"));
    }
    play.pass(61 * SECOND);
    assert_eq!(play.mind.next_deadline(), None, "nothing is left to do");
}

#[test]
fn what_the_api_server_refuses_is_tried_again_ever_more_slowly() {
    let mut play = Play::new();
    play.has("db.example.com", "192.0.2.7");
    play.refuse = Some(Refusal::Unavailable("down".to_owned()));
    play.leads_to("db", "db.example.com");
    play.pass(60 * SECOND);
    assert_eq!(play.says("db"), "");
    play.refuse = None;
    play.pass(31 * SECOND);
    assert_eq!((play.says("db").as_str(), play.writes.len()), ("True/Valid True/Resolved", 1));
}

#[test]
fn who_does_not_lead_asks_nothing_and_writes_nothing() {
    let mut play = Play::new();
    play.has("db.example.com", "192.0.2.7");
    play.tell(Event::Leading(false));
    play.leads_to("db", "db.example.com");
    play.pass(60 * SECOND);
    assert_eq!((play.asked.len(), play.writes.len(), play.mind.next_deadline()), (0, 0, None));
    play.tell(Event::Leading(true));
    assert_eq!(play.says("db"), "True/Valid True/Resolved");
}
