#![allow(clippy::disallowed_methods)] // Points in time to count from; nothing waits.

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::external_name::answer::{Absence, Answer, Failure, FamilyAnswer};
use crate::external_name::name::read;
use crate::observe::strip;

const SECOND: Duration = Duration::from_secs(1);

/// The mind, an API server and a DNS.
struct Play {
    mind: Exposer,
    queries: mpsc::UnboundedReceiver<DnsName>,
    now: Instant,
    version: u64,
    services: BTreeMap<String, Service>,
    slices: BTreeMap<String, EndpointSlice>,
    /// What DNS says; of other names nothing in time.
    zone: BTreeMap<String, Answer>,
    refuse: Option<String>,
    deeds: Vec<&'static str>,
    told: Vec<&'static str>,
    /// When DNS was asked.
    asked: Vec<Instant>,
}

fn v4(addresses: &[&str]) -> Answer {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let v4 = FamilyAnswer::Addresses { addresses, ttl: 5 * SECOND };
    Answer { v4, v6: FamilyAnswer::Absent { absence: Absence::NoAddress, ttl: None } }
}

fn new_mind() -> (Exposer, mpsc::UnboundedReceiver<DnsName>) {
    let config = Config {
        domain: read("cluster.local").unwrap(),
        resolution: resolution::Config { last_good_for: 3600 * SECOND, ..resolution::Config::default() },
        default_deny: false,
    };
    let (queries, asked) = mpsc::unbounded_channel();
    (Exposer::new(config, queries, Metrics::register(&mut Registry::default())), asked)
}

fn pool(targets: &[&str]) -> Event {
    let spec = json!({"addresses": ["192.168.10.100/30"], "externalTargets": targets});
    let pool = json!({"apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "lan"}, "spec": spec});
    Event::Pool(Change::Applied(Arc::new(serde_json::from_value(pool).unwrap())))
}

impl Play {
    fn new() -> Self {
        let (mind, queries) = new_mind();
        let mut play = Self {
            mind,
            queries,
            now: Instant::now(),
            version: 0,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            zone: BTreeMap::new(),
            refuse: None,
            deeds: Vec::new(),
            told: Vec::new(),
            asked: Vec::new(),
        };
        play.begin();
        play.tell(pool(&["192.0.2.0/24", "198.51.100.7/32"]));
        play.pass(SECOND);
        play
    }

    /// What a new process sees first.
    fn begin(&mut self) {
        let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
        let node = json!({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.1.0.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.250"}]}});
        let services: Vec<Service> = self.services.values().cloned().collect();
        let slices: Vec<EndpointSlice> = self.slices.values().cloned().collect();
        for event in [
            Event::Pool(Change::Listed(vec![])),
            Event::Namespace(Change::Listed(vec![])),
            Event::Node(Change::Listed(vec![Arc::new(serde_json::from_value(node).unwrap())])),
            Event::Speaker(Change::Listed(vec![])),
            Event::VirtualIp(Change::Listed(vec![])),
            Event::ServiceCidr(Change::Listed(vec![Arc::new(serde_json::from_value(cidr).unwrap())])),
            Event::Service(Change::Listed(services.into_iter().map(Arc::new).collect())),
            Event::EndpointSlice(Change::Listed(slices.into_iter().map(Arc::new).collect())),
            Event::Leading(true),
        ] {
            self.tell(event);
        }
    }

    /// Another process takes over.
    fn restart(&mut self) {
        (self.mind, self.queries) = new_mind();
        self.begin();
        self.tell(pool(&["192.0.2.0/24", "198.51.100.7/32"]));
        self.pass(SECOND);
    }

    fn tell(&mut self, event: Event) {
        let mut out = Vec::new();
        self.mind.handle(Now { monotonic: self.now, wall: Timestamp::UNIX_EPOCH }, event, &mut out);
        for effect in out {
            let outcome = self.apply(&effect);
            self.tell(Event::Done { effect, outcome });
        }
        while let Ok(name) = self.queries.try_recv() {
            self.asked.push(self.now);
            let answer = self.zone.get(name.as_str()).cloned().unwrap_or(Failure::Timeout.into());
            self.tell(Event::Answered(name, answer));
        }
    }

    fn apply(&mut self, effect: &Effect) -> Outcome {
        match effect {
            Effect::Publish(note) => {
                self.told.push(note.reason);
                Outcome::Done
            }
            Effect::SetConditionsOf { service, conditions, .. } => {
                for condition in conditions {
                    assert!(reasons::ALL.contains(&condition.reason.as_str()), "{condition:?}");
                }
                let mut object = self.services[&service.name].clone();
                object.status.get_or_insert_default().conditions = Some(conditions.clone());
                Outcome::Service(self.keep(object))
            }
            Effect::Expose(deed) => {
                self.deeds.push(deed.name());
                if let Some(why) = &self.refuse {
                    return Outcome::Refused(Refusal::Invalid(why.clone()));
                }
                self.act(&deed.act)
            }
            other => panic!("{other:?}"),
        }
    }

    fn act(&mut self, act: &Act) -> Outcome {
        match act {
            Act::CreateCompanion(service) => {
                let mut service = (**service).clone();
                let name = service.metadata.name.clone().unwrap();
                if self.services.contains_key(&name) {
                    return Outcome::Refused(Refusal::AlreadyExists);
                }
                self.version += 1;
                service.metadata.uid = Some(format!("u{}", self.version));
                Outcome::Service(self.keep(service))
            }
            Act::MendCompanion(exactly, patch) => {
                let known = &self.services[&exactly.name];
                assert_eq!(known.metadata.resource_version.as_ref(), Some(&exactly.resource_version));
                let mut object = serde_json::to_value(known).unwrap();
                merge(&mut object, patch);
                Outcome::Service(self.keep(serde_json::from_value(object).unwrap()))
            }
            Act::DeleteCompanion(exactly) => {
                self.delete(&exactly.name);
                Outcome::Done
            }
            Act::ApplySlice(slice) => {
                let mut slice = (**slice).clone();
                self.version += 1;
                slice.metadata.resource_version = Some(self.version.to_string());
                slice.metadata.uid = Some("s".to_owned());
                strip::endpoint_slice(&mut slice);
                self.slices.insert(slice.metadata.name.clone().unwrap(), slice.clone());
                Outcome::Slice(Arc::new(slice))
            }
            Act::DeleteSlice(exactly) => {
                self.slices.remove(&exactly.name);
                Outcome::Gone
            }
        }
    }

    fn keep(&mut self, mut service: Service) -> Arc<Service> {
        self.version += 1;
        service.metadata.resource_version = Some(self.version.to_string());
        strip::service(&mut service);
        self.services.insert(service.metadata.name.clone().unwrap(), service.clone());
        Arc::new(service)
    }

    /// A Service is deleted, and with it what it owns.
    fn delete(&mut self, name: &str) {
        let was = self.services.remove(name).unwrap();
        let uid = was.metadata.uid.clone().unwrap();
        let owned = self.services.values().find(|other| companion::is_owned_by(&other.metadata, &uid));
        let owned = owned.and_then(|other| other.metadata.name.clone());
        self.slices.retain(|_, slice| !companion::is_owned_by(&slice.metadata, &uid));
        self.tell(Event::Service(Change::Deleted(Arc::new(was))));
        let left: Vec<Arc<EndpointSlice>> = self.slices.values().cloned().map(Arc::new).collect();
        self.tell(Event::EndpointSlice(Change::Listed(left)));
        if let Some(owned) = owned {
            self.delete(&owned);
        }
    }

    fn apply_db(&mut self, external_name: &str, annotations: Value) {
        self.apply_service("db", external_name, annotations);
    }

    /// A user writes an ExternalName Service; what its status says stays.
    fn apply_service(&mut self, name: &str, external_name: &str, annotations: Value) {
        let status = self.services.get(name).and_then(|service| service.status.clone());
        let object = json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "annotations": annotations},
            "spec": {"type": "ExternalName", "externalName": external_name}, "status": status});
        let service = self.keep(serde_json::from_value(object).unwrap());
        self.tell(Event::Service(Change::Applied(service)));
    }

    fn expose(&mut self, external_name: &str) {
        self.apply_db(external_name, json!({"landfall.dev/expose": "true", "landfall.dev/ports": "5432"}));
    }

    fn edit_companion(&mut self, edit: impl FnOnce(&mut Service)) {
        let mut companion = self.services["db-lan"].clone();
        edit(&mut companion);
        let companion = self.keep(companion);
        self.tell(Event::Service(Change::Applied(companion)));
    }

    fn has(&mut self, name: &str, addresses: &[&str]) {
        self.zone.insert(name.to_owned(), v4(addresses));
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

    /// Where connections to the companion go.
    fn leads_to(&self) -> String {
        let addresses = self.slices.values().flat_map(companion::addresses_of);
        addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(",")
    }

    fn says(&self) -> String {
        let said = conditions_of(&self.services["db"]).iter();
        said.map(|condition| format!("{}/{}: {}", condition.status, condition.reason, condition.message))
            .collect()
    }

    #[track_caller]
    fn is(&self, leads_to: &str, says: &str) {
        assert_eq!(self.leads_to(), leads_to, "{}", self.says());
        assert!(self.says().starts_with(says), "{}", self.says());
    }
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}

/// A Service that leads to 192.0.2.7.
fn exposed() -> Play {
    let mut play = Play::new();
    play.has("db.example.com", &["192.0.2.7"]);
    play.expose("db.example.com");
    play.pass(SECOND);
    play.is("192.0.2.7", "True/Exposed: Service db-lan leads to 192.0.2.7");
    play
}

#[test]
fn a_name_gets_a_companion_and_its_addresses_and_then_nothing_is_written() {
    let mut play = exposed();
    assert_eq!(play.deeds, ["CreateCompanion", "ApplySlice"]);
    assert_eq!(play.services["db-lan"].metadata.labels, None);
    let version = play.version;
    play.pass(600 * SECOND);
    assert_eq!((play.version, play.told.as_slice()), (version, &["Exposed"][..]));
}

#[test]
fn an_edit_of_the_name_moves_it_and_no_address_of_the_old_name_stays() {
    let mut play = exposed();
    play.has("new.example.com", &["192.0.2.8"]);
    play.expose("new.example.com");
    play.pass(SECOND);
    play.is("192.0.2.8", "True/Exposed");
    // To a name that nobody answers for: the old one for half a minute, then nothing.
    play.expose("silent.example.com");
    play.pass(29 * SECOND);
    assert_eq!(play.leads_to(), "192.0.2.8");
    play.pass(2 * SECOND);
    play.is("", "False/NoAddress");
}

#[test]
fn while_dns_is_silent_everything_goes_on_also_with_another_process() {
    let mut play = exposed();
    play.zone.clear();
    play.pass(600 * SECOND);
    play.is("192.0.2.7", "True/Exposed");
    play.restart();
    play.pass(600 * SECOND);
    play.is("192.0.2.7", "True/Exposed");
    play.pass(3600 * SECOND);
    play.is("", "False/NoAddress");
}

#[test]
fn a_name_that_is_deleted_loses_its_addresses_after_a_grace() {
    let mut play = exposed();
    let none = FamilyAnswer::Absent { absence: Absence::NoSuchName, ttl: None };
    play.zone.insert("db.example.com".to_owned(), Answer { v4: none.clone(), v6: none });
    play.pass(20 * SECOND);
    assert_eq!(play.leads_to(), "192.0.2.7");
    play.pass(40 * SECOND);
    play.is("", "False/NoAddress");
}

#[test]
fn dns_that_turns_to_a_metadata_address_is_refused_and_the_old_answer_stays() {
    let mut play = exposed();
    for (answer, why) in [
        ("169.254.169.254", "169.254.169.254 is a link-local address"),
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("10.96.0.1", "10.96.0.1 is an address of a Service"),
        ("10.1.0.9", "10.1.0.9 is an address of a pod"),
        ("192.0.2.250", "192.0.2.250 is an address of a node"),
        ("203.0.113.9", "203.0.113.9 is in externalTargets of no pool"),
    ] {
        play.has("db.example.com", &[answer]);
        play.pass(66 * SECOND);
        play.is("192.0.2.7", "False/TargetRefused");
        assert!(play.says().contains(why) && play.says().ends_with("192.0.2.7 as before"), "{}", play.says());
    }
    // Beside a good one it is left out.
    play.has("db.example.com", &["192.0.2.9", "127.0.0.1"]);
    play.pass(6 * SECOND);
    play.is("192.0.2.9", "True/Exposed: Service db-lan leads to 192.0.2.9; not used: 127.0.0.1");
}

#[test]
fn nothing_is_exposed_that_no_pool_lists() {
    let mut play = Play::new();
    play.tell(pool(&[]));
    play.has("db.example.com", &["192.0.2.7"]);
    play.expose("db.example.com");
    play.pass(10 * SECOND);
    play.is("", "False/NotAllowed");
    assert!(play.deeds.is_empty());
    play.tell(pool(&["192.0.2.0/29"]));
    play.pass(10 * SECOND);
    play.is("192.0.2.7", "True/Exposed");
    // And no longer than it is listed.
    play.tell(pool(&["198.51.100.0/24"]));
    play.pass(SECOND);
    play.is("", "False/TargetRefused");
}

#[test]
fn an_address_that_becomes_the_clusters_own_is_not_led_to_any_more() {
    let mut play = exposed();
    let vip = json!({"apiVersion": "landfall.dev/v1alpha1", "kind": "VirtualIP", "metadata": {"name": "192.0.2.7"},
        "spec": {"address": "192.0.2.7"}});
    play.tell(Event::VirtualIp(Change::Applied(Arc::new(serde_json::from_value(vip).unwrap()))));
    play.pass(SECOND);
    play.is("", "False/TargetRefused: the name leads where the Service must not: 192.0.2.7 is an address of a load balancer");
}

#[test]
fn a_pool_serves_only_the_namespaces_that_it_selects_and_only_those_who_do_not_name_another() {
    let mut play = exposed();
    let other =
        json!({"landfall.dev/expose": "true", "landfall.dev/ports": "5432", "landfall.dev/pool": "other"});
    play.apply_db("db.example.com", other);
    play.pass(SECOND);
    play.is("", "False/NotAllowed");
    let mut play = exposed();
    let spec = json!({"addresses": ["192.168.10.100/30"], "externalTargets": ["192.0.2.0/24"],
        "namespaceSelector": {"matchLabels": {"team": "a"}}});
    let pool = json!({"apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "lan"}, "spec": spec});
    play.tell(Event::Pool(Change::Applied(Arc::new(serde_json::from_value(pool).unwrap()))));
    play.pass(SECOND);
    play.is("", "False/NotAllowed");
}

#[test]
fn what_is_asked_for_no_more_goes_and_so_does_what_is_owned_by_what_is_deleted() {
    let mut play = exposed();
    play.apply_db("db.example.com", json!({}));
    play.pass(SECOND);
    assert!(!play.services.contains_key("db-lan") && play.slices.is_empty());
    assert_eq!(play.says(), "");
    play.expose("db.example.com");
    play.pass(10 * SECOND);
    play.is("192.0.2.7", "True/Exposed");
    play.delete("db");
    play.pass(10 * SECOND);
    assert!(play.services.is_empty() && play.slices.is_empty());
    assert!(play.mind.exposed.is_empty() && play.mind.users.is_empty());
}

#[test]
fn a_companion_that_others_edit_is_put_back_and_one_that_they_delete_comes_back() {
    let mut play = exposed();
    play.edit_companion(|companion| {
        companion
            .metadata
            .annotations
            .get_or_insert_default()
            .insert("landfall.dev/note".into(), "mine".into());
        companion.spec.as_mut().unwrap().selector = Some(BTreeMap::from([("app".into(), "evil".into())]));
    });
    play.pass(SECOND);
    let companion = &play.services["db-lan"];
    assert_eq!(companion.spec.as_ref().unwrap().selector, None);
    assert_eq!(companion.metadata.annotations.as_ref().unwrap()["landfall.dev/note"], "mine");
    play.delete("db-lan");
    play.pass(10 * SECOND);
    play.is("192.0.2.7", "True/Exposed");
    let companion = play.services["db-lan"].metadata.uid.clone().unwrap();
    assert!(play.slices.values().all(|slice| companion::is_owned_by(&slice.metadata, &companion)));
}

#[test]
fn a_service_of_somebody_else_with_the_companions_name_is_left_alone() {
    let mut play = Play::new();
    let theirs = json!({"metadata": {"name": "db-lan", "namespace": "shop", "uid": "x"}, "spec": {"type": "ClusterIP"}});
    let theirs = play.keep(serde_json::from_value(theirs).unwrap());
    play.tell(Event::Service(Change::Applied(theirs)));
    play.has("db.example.com", &["192.0.2.7"]);
    play.expose("db.example.com");
    play.pass(10 * SECOND);
    play.is("", "False/NameCollision");
    play.apply_db("db.example.com", json!({}));
    play.pass(10 * SECOND);
    assert!(play.deeds.is_empty() && play.services.contains_key("db-lan"));
}

#[test]
fn a_request_that_is_not_understood_is_told_and_what_is_there_stays_and_is_still_judged() {
    let mut play = exposed();
    play.apply_db("db.example.com", json!({"landfall.dev/expose": "true", "landfall.dev/ports": "postgres"}));
    play.pass(2 * SECOND);
    play.is("192.0.2.7", "False/PortsInvalid");
    play.has("db.example.com", &["192.0.2.8"]);
    play.pass(6 * SECOND);
    play.is("192.0.2.8", "False/PortsInvalid");
}

#[test]
fn names_of_the_cluster_are_not_exposed() {
    let mut play = Play::new();
    for name in ["other.shop.svc.cluster.local", "pod.other.shop.svc.cluster.local"] {
        play.expose(name);
        play.pass(5 * SECOND);
        play.is("", "False/NoTarget");
    }
    play.expose("10.0.0.1");
    play.pass(5 * SECOND);
    play.is("", "False/NoTarget");
    assert!(play.deeds.is_empty());
}

#[test]
fn what_the_api_server_refuses_is_told_and_tried_again() {
    let mut play = Play::new();
    play.refuse = Some("exceeded quota: services.loadbalancers".to_owned());
    play.has("db.example.com", &["192.0.2.7"]);
    play.expose("db.example.com");
    play.pass(10 * SECOND);
    play.is("", "False/WriteRefused: the API server refuses what is wanted: exceeded quota");
    play.refuse = None;
    play.pass(31 * SECOND);
    play.is("192.0.2.7", "True/Exposed");
}

#[test]
fn another_process_finds_all_as_it_should_be_and_writes_nothing() {
    let mut play = exposed();
    let version = play.version;
    play.restart();
    play.pass(60 * SECOND);
    assert_eq!(play.version, version);
}

#[test]
fn ten_thousand_services_over_two_thousand_names_ask_evenly_and_one_change_costs_what_it_changes() {
    let mut play = Play::new();
    for number in 0..2000 {
        play.zone.insert(format!("n{number}.example.com"), slow("192.0.2.7"));
    }
    let wishes = json!({"landfall.dev/expose": "true", "landfall.dev/ports": "5432"});
    for number in 0..10_000 {
        let name = format!("n{}.example.com", number % 2000);
        play.apply_service(&format!("s{number}"), &name, wishes.clone());
    }
    let begun = play.now;
    play.pass(30 * SECOND);
    assert_eq!(play.slices.len(), 10_000);
    let last = play.asked.last().unwrap().duration_since(begun);
    assert_eq!(play.asked.len(), 2000, "each name once");
    assert!((19 * SECOND..23 * SECOND).contains(&last), "two questions a name, 200 a second: {last:?}");
    // One name changes: five Services lead there, and five slices are written, at the time of its answer.
    let deeds = play.deeds.len();
    play.zone.insert("n7.example.com".to_owned(), slow("192.0.2.8"));
    play.pass(400 * SECOND);
    let moved =
        play.slices.values().flat_map(companion::addresses_of).filter(|at| at.to_string() == "192.0.2.8");
    assert_eq!((moved.count(), play.deeds.len() - deeds), (5, 5));
}

/// An answer that holds for five minutes.
fn slow(address: &str) -> Answer {
    let v4 = FamilyAnswer::Addresses { addresses: [address.parse().unwrap()].into(), ttl: 300 * SECOND };
    Answer { v4, v6: FamilyAnswer::Absent { absence: Absence::NoAddress, ttl: Some(300 * SECOND) } }
}
