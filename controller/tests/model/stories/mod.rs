//! One thing at a time, told from beginning to end.

mod asking;
mod balancing;
mod granting;
mod others;
mod placing;
mod releasing;

use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use landfall_controller::effects::Effect;
use landfall_crds::{VirtualIP, virtual_ip_name};

use crate::api::{as_strategy_has_it, name_of};
use crate::cluster::{Cluster, Way};
use crate::objects::{pool, service, speaker};

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

impl Cluster {
    fn create(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut new = service(name);
        change(&mut new);
        self.api.put_service(new);
        self.quiet();
    }

    fn edit(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut object = self.get(name).clone();
        change(&mut object);
        self.api.put_service(as_strategy_has_it(object));
    }

    fn get(&self, name: &str) -> &Service {
        &self.api.services[&format!("shop/{name}")]
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
