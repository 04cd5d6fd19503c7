#![allow(clippy::disallowed_methods)] // Points in time to count from; nothing waits.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::world::store::Store;

/// The mind and an API server that does what it wants at once.
struct Play {
    mind: Backing,
    services: Store<ClaimRef, Service>,
    now: Instant,
    version: u64,
    writes: usize,
    told: Vec<&'static str>,
}

fn db() -> ClaimRef {
    ClaimRef { namespace: "shop".to_owned(), name: "db".to_owned() }
}

fn slice(name: &str, maker: &str) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "labels":
            {"kubernetes.io/service-name": "db", "endpointslice.kubernetes.io/managed-by": maker}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 5432}], "endpoints": [{"addresses": ["192.0.2.7"]}],
    }))
    .unwrap()
}

const PODS: &str = "endpointslice-controller.k8s.io";

impl Play {
    fn new() -> Self {
        let mut services = Store::default();
        services.listed = true;
        let mut play = Self {
            mind: Backing::default(),
            services,
            now: Instant::now(),
            version: 0,
            writes: 0,
            told: vec![],
        };
        play.tell(Event::Leading(true));
        play.tell(Event::Slices(&Change::Listed(vec![])));
        play
    }

    fn tell(&mut self, event: Event<'_>) {
        let mut out = Vec::new();
        let now = Now { monotonic: self.now, wall: Timestamp::UNIX_EPOCH };
        self.mind.handle(now, event, &self.services, |_| false, &mut out);
        for effect in out {
            match &effect {
                Effect::Publish(note) => self.told.push(note.reason),
                Effect::SetConditionsOf { types, conditions, .. } => {
                    assert_eq!(*types, OURS);
                    self.writes += 1;
                    let mut service = Service::clone(self.services.get(&db()).unwrap());
                    service.status.get_or_insert_default().conditions = Some(conditions.clone());
                    let service = self.store(service);
                    self.tell(Event::Done(&effect, &Outcome::Service(service)));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn store(&mut self, mut service: Service) -> Arc<Service> {
        self.version += 1;
        service.metadata.resource_version = Some(self.version.to_string());
        let service = Arc::new(service);
        self.services.offer(&db(), Arc::clone(&service), 1, None);
        service
    }

    /// A user writes the Service; what its status says stays.
    fn apply(&mut self, spec: Value) {
        let status = self.services.get(&db()).and_then(|service| service.status.clone());
        let finalizers = ["landfall.dev/address"];
        let metadata = json!({"name": "db", "namespace": "shop", "uid": "u", "finalizers": finalizers});
        let service = json!({"metadata": metadata, "spec": spec, "status": status});
        let service = self.store(serde_json::from_value(service).unwrap());
        self.tell(Event::Services(&Change::Applied(service)));
    }

    fn slice(&mut self, slice: EndpointSlice) {
        self.tell(Event::Slices(&Change::Applied(Arc::new(slice))));
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(next) = self.mind.next_deadline().filter(|next| *next <= end) {
            self.now = next;
            self.tell(Event::Deadline);
        }
        self.now = end;
    }

    fn says(&self) -> String {
        let conditions = conditions_of(self.services.get(&db()).unwrap()).iter();
        let words = conditions.map(|condition| format!("{}/{}", condition.status, condition.reason));
        words.collect::<Vec<_>>().join(" ")
    }
}

fn ports() -> Value {
    json!([{"port": 5432}])
}

#[test]
fn a_database_moves_from_outside_into_the_cluster_and_back_and_each_half_done_step_is_told() {
    let mut play = Play::new();
    let outside = json!({"type": "LoadBalancer", "ports": ports()});
    let inside = json!({"type": "LoadBalancer", "selector": {}, "ports": ports()});
    play.apply(outside.clone());
    play.pass(1);
    assert_eq!(play.says(), "", "its slice may come in a moment");
    play.slice(slice("db-1", "people"));
    play.pass(10);
    assert_eq!((play.says().as_str(), play.writes), ("True/Usable", 1));

    play.apply(inside);
    play.slice(slice("db-x7f", PODS));
    play.pass(10);
    assert_eq!(play.says(), "True/MixedEndpoints");
    play.tell(Event::Slices(&Change::Deleted(Arc::new(slice("db-1", "people")))));
    play.pass(10);
    assert_eq!(play.says(), "", "of an ordinary Service nothing is said");

    play.apply(outside);
    play.pass(10);
    assert_eq!(play.says(), "False/LeftOver");
    play.slice(slice("db-1", "people"));
    play.pass(10);
    assert_eq!(play.says(), "True/MixedEndpoints True/Usable");
    play.tell(Event::Slices(&Change::Deleted(Arc::new(slice("db-x7f", PODS)))));
    play.pass(10);
    assert_eq!(play.says(), "True/Usable");
    assert_eq!(play.told, ["MixedEndpoints", "LeftOver", "MixedEndpoints"]);
}

#[test]
fn what_is_true_for_a_moment_is_not_told() {
    let mut play = Play::new();
    play.apply(json!({"type": "LoadBalancer", "selector": {}, "ports": ports()}));
    play.slice(slice("db-x7f", PODS));
    play.slice(slice("db-1", "people"));
    play.pass(1);
    play.tell(Event::Slices(&Change::Deleted(Arc::new(slice("db-1", "people")))));
    play.pass(60);
    assert_eq!((play.says().as_str(), play.writes, play.mind.settling.len()), ("", 0, 0));
}

#[test]
fn a_service_that_is_no_load_balancer_any_more_loses_what_was_said() {
    let mut play = Play::new();
    play.apply(json!({"type": "LoadBalancer", "ports": ports()}));
    play.pass(10);
    assert_eq!(play.says(), "False/NoSlice");
    play.apply(json!({"type": "ClusterIP"}));
    play.pass(10);
    assert_eq!(play.says(), "");
}

#[test]
fn a_successor_writes_nothing_anew() {
    let mut play = Play::new();
    play.apply(json!({"type": "LoadBalancer", "ports": ports()}));
    play.pass(10);
    assert_eq!(play.writes, 1);
    play.tell(Event::Leading(false));
    play.tell(Event::Leading(true));
    play.pass(60);
    assert_eq!((play.writes, play.told.as_slice()), (1, &["NoSlice"][..]));
}
