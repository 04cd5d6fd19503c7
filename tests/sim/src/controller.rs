//! The process of a controller: its mind, and watches and writes on the pretend API server.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use landfall_controller::effects::{Effect, Outcome, Refusal};
use landfall_controller::mind::{Config, Event, Mind, Now};
use landfall_crds::IPPool;
use serde_json::{Value, json};

use crate::api::KINDS;
use crate::node::wall_at;
use crate::random::draw;
use crate::world::{What, World};

/// How long its watches take to bring a change, at most.
const LAG: Duration = Duration::from_millis(10);
/// How long a new one waits for the Lease of one that is gone.
pub const LEASE: Duration = Duration::from_secs(3);

/// A controller that leads.
pub struct Controller {
    pub mind: Mind,
    incarnation: u64,
    /// Up to where each log was followed; nothing before the first list.
    cursors: [Option<usize>; KINDS],
    generation: u32,
    due: Option<Instant>,
    woken: Option<Instant>,
    /// How many effects have no outcome yet.
    pub under_way: usize,
}

impl World {
    /// A controller starts and leads.
    pub fn start_controller(&mut self) {
        self.instances += 1;
        let controller = Controller {
            mind: Mind::new(Config::default()),
            incarnation: self.instances,
            cursors: [None; KINDS],
            generation: self.api.generation(),
            due: None,
            woken: None,
            under_way: 0,
        };
        self.controller = Some(controller);
        self.tell_controller(Event::Leading(true));
        self.controller_awaits_news();
    }

    pub fn stop_controller(&mut self) {
        self.controller = None;
    }

    /// Sees to it that the controller hears what is new.
    pub fn controller_awaits_news(&mut self) {
        let now = self.now;
        let Some(controller) = &mut self.controller else { return };
        if self.api.away || controller.due.is_some() {
            return;
        }
        let lags =
            |kind: usize| controller.cursors[kind].is_none_or(|at| at < self.api.store.logs[kind].len());
        if controller.generation != self.api.generation() || (0..KINDS).any(lags) {
            let chance = draw([self.seed, self.api.store.version, 77, (now - self.start).as_nanos() as u64]);
            let due = now + Duration::from_micros(500 + chance % LAG.as_micros() as u64);
            controller.due = Some(due);
            self.schedule(due, What::ControllerFollows);
        }
    }

    /// The controller hears what is new.
    pub fn controller_follows(&mut self) {
        let Some(controller) = &mut self.controller else { return };
        controller.due = None;
        if self.api.away {
            return;
        }
        if std::mem::replace(&mut controller.generation, self.api.generation()) != self.api.generation() {
            controller.cursors = [None; KINDS];
        }
        let mut events = Vec::new();
        for kind in 0..KINDS {
            let log = &self.api.store.logs[kind];
            match &mut controller.cursors[kind] {
                Some(at) => {
                    events.extend(log[*at..].iter().cloned());
                    *at = log.len();
                }
                cursor @ None => {
                    *cursor = Some(log.len());
                    events.push(self.api.store.list(kind));
                }
            }
        }
        for event in events {
            self.tell_controller(event);
        }
    }

    pub fn tell_controller(&mut self, event: Event) {
        let now = self.controller_now();
        let Some(controller) = &mut self.controller else { return };
        let mut effects = Vec::new();
        controller.mind.handle(now, event, &mut effects);
        let (incarnation, due) = (controller.incarnation, controller.mind.next_deadline());
        if let Some(due) = due {
            let at = due.max(self.now + Duration::from_micros(1));
            if controller.woken.is_none_or(|woken| woken > at || woken <= self.now) {
                controller.woken = Some(at);
                self.schedule(at, What::ControllerWakes);
            }
        }
        for effect in effects.into_iter().filter(|effect| !matches!(effect, Effect::Publish(_))) {
            let at = self.now + self.on_the_way();
            if let Some(controller) = &mut self.controller {
                controller.under_way += 1;
            }
            self.schedule(at, What::Effect(incarnation, Box::new(effect)));
        }
    }

    fn controller_now(&self) -> Now {
        Now { monotonic: self.now, wall: self.wall() }
    }

    /// The time as people read it.
    pub fn wall(&self) -> Timestamp {
        wall_at(self.elapsed(), 0)
    }

    pub fn controller_wakes(&mut self) {
        let now = self.now;
        let Some(controller) = &mut self.controller else { return };
        controller.woken.take_if(|woken| *woken <= now);
        if controller.mind.next_deadline().is_some_and(|due| due <= now) {
            self.tell_controller(Event::Deadline);
        }
    }

    /// An effect comes to the API server. What a controller sent before it died is done all the same.
    pub fn effect(&mut self, incarnation: u64, effect: Effect) {
        let outcome = if self.api.away {
            Outcome::Refused(Refusal::Unavailable("out of reach".into()))
        } else {
            self.api.store.now = self.wall().as_second();
            let outcome = self.api.store.apply(&effect);
            self.api_changed();
            outcome
        };
        let at = self.now + self.on_the_way();
        self.schedule(at, What::Outcome(incarnation, Box::new((effect, outcome))));
    }

    pub fn outcome(&mut self, incarnation: u64, effect: Effect, outcome: Outcome) {
        if let Some(controller) = self.controller.as_mut().filter(|known| known.incarnation == incarnation) {
            controller.under_way -= 1;
            self.tell_controller(Event::Done { effect, outcome });
        }
    }

    // What users do.

    /// All that a cluster has beside speakers: a namespace, Nodes, and a pool.
    pub fn furnish_cluster(&mut self, pool: &str) {
        self.api.store.now = self.wall().as_second();
        let namespace =
            json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}}});
        self.api.store.put_namespace(serde_json::from_value(namespace).unwrap());
        for number in 0..self.nodes.len() {
            self.write_node(number, false, false);
        }
        let pool: IPPool = serde_json::from_value(json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "lan"},
            "spec": {"addresses": [pool]},
        }))
        .unwrap();
        self.api.store.put_pool(pool);
        self.api_changed();
    }

    /// Writes the Node of a node.
    pub fn write_node(&mut self, number: usize, cordoned: bool, excluded: bool) {
        let addresses = self.nodes[number].addresses_on(0, self.families);
        let addresses: Vec<_> =
            addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let labels = match excluded {
            true => json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""}),
            false => json!({}),
        };
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": &*self.nodes[number].name, "labels": labels},
            "spec": {"unschedulable": cordoned}, "status": {"addresses": addresses},
        }))
        .unwrap();
        self.api.store.put_node(node);
        self.api_changed();
    }

    pub fn create_service(&mut self, name: &str) {
        if !self.api.store.services.contains_key(&format!("shop/{name}")) {
            self.write_service(name, &json!({}));
        }
    }

    /// Creates a Service, or replaces its spec by the usual one and these fields.
    pub fn write_service(&mut self, name: &str, more: &Value) {
        let family = if self.families == crate::node::Families::V6 { "IPv6" } else { "IPv4" };
        let mut spec = json!({"type": "LoadBalancer", "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
                              "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let known = self.api.store.services.get(&format!("shop/{name}"));
        let mut service = known.map_or_else(Service::default, |known| (**known).clone());
        service.metadata.namespace = Some("shop".into());
        service.metadata.name = Some(name.into());
        service.spec = Some(serde_json::from_value(spec).unwrap());
        self.api.store.now = self.wall().as_second();
        self.api.store.put_service(service);
        self.api_changed();
    }

    /// The pods behind a Service are on these nodes.
    pub fn set_endpoints(&mut self, service: &str, nodes: &[usize]) {
        let endpoints: Vec<_> = nodes
            .iter()
            .map(|node| {
                let conditions = json!({"ready": true, "serving": true, "terminating": false});
                json!({"addresses": ["10.1.0.1"], "nodeName": &*self.nodes[*node].name, "conditions": conditions})
            })
            .collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": format!("{service}-v4"),
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4", "endpoints": endpoints,
        }))
        .unwrap();
        self.api.store.now = self.wall().as_second();
        self.api.store.put_endpoint_slice(slice);
        self.api_changed();
    }

    pub fn delete_service(&mut self, name: &str) {
        self.api.store.now = self.wall().as_second();
        self.api.store.delete_service(&format!("shop/{name}"));
        self.api_changed();
    }
}
