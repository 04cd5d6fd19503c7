//! One thing at a time, told from beginning to end.

mod adopting;
mod asking;
mod balancing;
mod cloud;
mod epochs;
mod externals;
mod families;
mod granting;
mod guarding;
mod internal;
mod junk;
mod keeping;
mod lagging;
mod others;
mod placing;
mod pool_edits;
mod pools;
mod recovery;
mod refused;
mod releasing;
mod resting;
mod rules;
mod sharing;
mod sharing_upset;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service, ServiceStatus};
use landfall_controller::effects::{Effect, Note};
use landfall_controller::mind::{Change, Event};
use landfall_crds::{VirtualIP, virtual_ip_name};
use serde_json::{Value, json};

use crate::api::{as_strategy_has_it, name_of};
use crate::cluster::{Cluster, Way};
use crate::objects::{namespace, pool, service, speaker};

/// Three nodes, a pool of four addresses and as many of IPv6.
fn lan() -> Cluster {
    let mut cluster = Cluster::new(1);
    for number in 1..=3_u8 {
        cluster.api.put_speaker(speaker(&format!("n{number}"), number));
    }
    cluster.api.put_pool(pool("lan", &["10.0.0.50-10.0.0.53", "fd00::50-fd00::53"]));
    cluster.quiet();
    cluster
}

/// Three nodes, and these pools.
fn pools(all: &[(&str, Value)]) -> Cluster {
    let mut cluster = Cluster::new(1);
    for number in 1..=3_u8 {
        cluster.api.put_speaker(speaker(&format!("n{number}"), number));
    }
    for (name, spec) in all {
        cluster.put_pool(name, spec.clone());
    }
    cluster.quiet();
    cluster
}

/// The full name of a Service: in namespace `shop` unless another is named before a slash.
fn full(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("shop/{name}") }
}

impl Cluster {
    /// Creates a Service, in namespace `shop` unless another is named before a slash.
    fn create(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        self.put(name, change);
        self.quiet();
    }

    /// As `create`, and nothing else happens yet.
    fn put(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let full = full(name);
        let (in_namespace, name) = full.split_once('/').unwrap();
        let mut new = service(name);
        new.metadata.namespace = Some(in_namespace.to_owned());
        change(&mut new);
        self.api.put_service(new);
    }

    /// Creates or edits a pool.
    fn put_pool(&mut self, name: &str, spec: Value) {
        let mut object = pool(name, &[]);
        object.spec = serde_json::from_value(spec).unwrap();
        object.status = self.api.pools.get(name).and_then(|known| known.status.clone());
        self.api.put_pool(object);
    }

    /// Changes some fields of a pool's spec; `null` takes one away.
    fn edit_pool(&mut self, name: &str, fields: Value) {
        let mut spec = serde_json::to_value(&self.api.pools[name].spec).unwrap();
        for (field, value) in fields.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let all = spec.as_object_mut().unwrap();
        all.retain(|_, value| !value.is_null());
        self.put_pool(name, spec);
    }

    /// Creates or relabels a namespace.
    fn label_namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let mut object = namespace(name);
        let all = object.metadata.labels.get_or_insert_default();
        all.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.api.put_namespace(object);
    }

    /// Deletes a Service and lets everything happen that follows.
    fn delete(&mut self, name: &str) {
        self.api.delete_service(&full(name));
        self.quiet();
    }

    /// Lets time pass, and everything happen that happens meanwhile.
    fn wait(&mut self, time: Duration) {
        let end = self.elapsed + time;
        loop {
            self.settle();
            let now = self.now().monotonic;
            let next = self.controllers.iter().filter_map(|one| one.mind.next_deadline()).min();
            let left = next.map(|next| next.saturating_duration_since(now).max(Duration::from_millis(1)));
            match left.filter(|left| self.elapsed + *left <= end) {
                Some(left) => self.pass(left),
                None => break,
            }
        }
        self.pass(end.saturating_sub(self.elapsed));
        self.settle();
    }

    /// Tells the controller of something that the pretended API server does not hold.
    fn tell(&mut self, event: Event) {
        let now = self.now();
        self.controllers[0].tell(now, event);
        self.quiet();
    }

    /// All Events about a Service, oldest first, as `Reason: message`.
    fn events_of(&self, name: &str) -> Vec<String> {
        let full = full(name);
        let about =
            |note: &&Note| note.kind == "Service" && format!("{}/{}", note.namespace, note.name) == full;
        let told = self.controllers[0].published.iter().filter_map(|effect| match effect {
            Effect::Publish(note) => Some(note),
            _ => None,
        });
        told.filter(about).map(|note| format!("{}: {}", note.reason, note.message)).collect()
    }

    /// How often the owner of a Service was told that it waits.
    fn failures_of(&self, name: &str) -> usize {
        self.events_of(name).iter().filter(|event| event.starts_with("SyncLoadBalancerFailed: ")).count()
    }

    /// Whether a Service waits for this reason, has nothing, and its owner was told exactly once.
    #[track_caller]
    fn assert_waits(&self, name: &str, reason: &str) {
        let said = self.condition(name, "Granted");
        assert!(said.starts_with(&format!("False/{reason}: ")), "{name}: {said}");
        assert_eq!(self.addresses(name), [""; 0], "{name}: {said}");
        assert_eq!(self.failures_of(name), 1, "{name}: {:?}", self.events_of(name));
    }

    /// Whether a Service has exactly these addresses and says so.
    #[track_caller]
    fn assert_has(&self, name: &str, addresses: &[&str]) {
        let said = self.condition(name, "Granted");
        assert_eq!(self.addresses(name), addresses, "{name}: {said}");
        assert!(said.starts_with("True/Granted: "), "{name}: {said}");
        for address in addresses {
            let claims = &self.vip(address).spec.claims;
            assert!(claims.iter().any(|claim| format!("{}/{}", claim.namespace, claim.name) == full(name)));
        }
    }

    fn edit(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut object = self.get(name).clone();
        change(&mut object);
        self.api.put_service(as_strategy_has_it(object));
    }

    fn get(&self, name: &str) -> &Service {
        &self.api.services[&full(name)]
    }

    fn vip(&self, address: &str) -> &VirtualIP {
        &self.api.vips[&virtual_ip_name(address.parse().unwrap())]
    }

    fn has_vip(&self, address: &str) -> bool {
        self.api.vips.contains_key(&virtual_ip_name(address.parse().unwrap()))
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let entries = landfall_controller::granting::verdict::ingress(self.get(name));
        entries.iter().filter_map(|entry| entry.ip.clone()).collect()
    }

    /// `status/reason: message` of a condition.
    fn condition(&self, name: &str, type_: &str) -> String {
        let known = landfall_controller::status::conditions_of(self.get(name));
        let type_ = format!("landfall.dev/{type_}");
        known.iter().find(|known| known.type_ == type_).map_or("absent".to_owned(), |known| {
            format!("{}/{}: {}", known.status, known.reason, known.message)
        })
    }

    fn pool_condition(&self, name: &str, type_: &str) -> String {
        let status = self.api.pools[name].status.as_ref().unwrap();
        let known = status.conditions.iter().find(|known| known.type_ == type_).unwrap();
        format!("{}/{}: {}", known.status, known.reason, known.message)
    }

    /// The reasons of all Events so far.
    fn told(&self) -> Vec<&'static str> {
        let reason = |effect: &Effect| match effect {
            Effect::Publish(note) => Some(note.reason),
            _ => None,
        };
        self.controllers[0].published.iter().filter_map(reason).collect()
    }

    /// Does one wanted effect after the other and returns their names, until nothing is wanted.
    fn steps(&mut self) -> Vec<String> {
        let mut steps = Vec::new();
        loop {
            for kind in 0..crate::api::KINDS {
                while self.deliver(0, kind) {}
            }
            match self.write(0, 0, Way::Fine) {
                Some((effect, _)) if name_of(&effect) == "SetPoolStatus" => {}
                Some((effect, _)) => steps.push(name_of(&effect).to_owned()),
                None if self.answer(0) => {}
                None => return steps,
            }
            while self.answer(0) {}
        }
    }

    fn after(&mut self, time: Duration) -> Vec<String> {
        self.pass(time);
        self.steps()
    }
}

/// A Node as the kubelet and an administrator leave it.
fn node(name: &str, labels: Value, cordoned: bool) -> Event {
    let node: Node = serde_json::from_value(
        json!({"metadata": {"name": name, "labels": labels}, "spec": {"unschedulable": cordoned}}),
    )
    .unwrap();
    Event::Node(Change::Applied(Arc::new(node)))
}

/// An annotation by its whole name.
fn annotate_as(service: &mut Service, name: &str, value: &str) {
    service.metadata.annotations.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}

fn label(service: &mut Service, name: &str, value: &str) {
    service.metadata.labels.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}

fn annotate(service: &mut Service, name: &str, value: &str) {
    let annotations = service.metadata.annotations.get_or_insert_default();
    annotations.insert(format!("landfall.dev/{name}"), value.to_owned());
}

fn dual(service: &mut Service, policy: &str) {
    let spec = service.spec.as_mut().unwrap();
    spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
    spec.ip_family_policy = Some(policy.into());
}

fn given_by_another(service: &mut Service, ip: &str) {
    let entry = LoadBalancerIngress { ip: Some(ip.to_owned()), ..LoadBalancerIngress::default() };
    let balancer = LoadBalancerStatus { ingress: Some(vec![entry]) };
    service.status = Some(ServiceStatus { load_balancer: Some(balancer), ..ServiceStatus::default() });
}
