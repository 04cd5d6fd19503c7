//! A pretended API server that does what it is asked at once and never fails.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerStatus, Service, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use landfall_controller::effects::{Effect, Exactly, Outcome};
use landfall_crds::names::finalizers::{LOAD_BALANCER_CLEANUP, SERVICE_ADDRESS, VIRTUAL_IP_CLAIMED};
use landfall_crds::{Announcer, IPPool, ServiceGuard, VirtualIP, VirtualIPStatus};

/// All objects that are ever written, and how many writes there were.
#[derive(Default)]
pub(crate) struct Api {
    pub(crate) services: HashMap<(String, String), Arc<Service>>,
    pub(crate) vips: HashMap<String, Arc<VirtualIP>>,
    pub(crate) pools: HashMap<String, Arc<IPPool>>,
    pub(crate) guards: HashMap<String, Arc<ServiceGuard>>,
    /// The names of all VirtualIPs, in the order of their creation.
    pub(crate) names: Vec<String>,
    version: u64,
    /// The time, in seconds since the epoch.
    pub(crate) now: i64,
    pub(crate) writes: Writes,
}

/// Writes that the mind wanted, by what they are about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Writes {
    pub(crate) services: usize,
    pub(crate) vips: usize,
    pub(crate) pools: usize,
    pub(crate) guards: usize,
}

impl Api {
    pub(crate) fn create_service(&mut self, mut service: Service) -> Arc<Service> {
        self.stamp(&mut service);
        self.put_service(service)
    }

    pub(crate) fn create_pool(&mut self, mut pool: IPPool) -> Arc<IPPool> {
        self.stamp(&mut pool);
        self.put_pool(pool)
    }

    /// Gives a new object what the API server gives it.
    pub(crate) fn stamp<K: Resource>(&mut self, object: &mut K) {
        let meta = object.meta_mut();
        meta.uid = Some(format!("00000000-0000-4000-8000-{:012x}", self.version));
        meta.creation_timestamp = Timestamp::from_second(self.now).ok().map(Time);
    }

    fn put_service(&mut self, mut service: Service) -> Arc<Service> {
        self.new_version(&mut service.metadata);
        let key = (text(&service.metadata.namespace), text(&service.metadata.name));
        let service = Arc::new(service);
        self.services.insert(key, Arc::clone(&service));
        service
    }

    fn put_vip(&mut self, mut vip: VirtualIP) -> Arc<VirtualIP> {
        self.new_version(&mut vip.metadata);
        let (name, vip) = (text(&vip.metadata.name), Arc::new(vip));
        self.vips.insert(name, Arc::clone(&vip));
        vip
    }

    fn put_pool(&mut self, mut pool: IPPool) -> Arc<IPPool> {
        self.new_version(&mut pool.metadata);
        let (name, pool) = (text(&pool.metadata.name), Arc::new(pool));
        self.pools.insert(name, Arc::clone(&pool));
        pool
    }

    fn put_guard(&mut self, mut guard: ServiceGuard) -> Arc<ServiceGuard> {
        self.new_version(&mut guard.metadata);
        let (name, guard) = (text(&guard.metadata.name), Arc::new(guard));
        self.guards.insert(name, Arc::clone(&guard));
        guard
    }

    fn new_version(&mut self, meta: &mut ObjectMeta) {
        self.version += 1;
        meta.resource_version = Some(self.version.to_string());
    }

    /// The first of a VirtualIP's candidates announces it.
    pub(crate) fn announce(&mut self, name: &str) -> Arc<VirtualIP> {
        let mut vip = (*self.vips[name]).clone();
        let placement = vip.spec.placement.clone().expect("a placement");
        let status = vip.status.get_or_insert_with(VirtualIPStatus::default);
        status.announcer = Some(Announcer {
            node: placement.candidates.first().expect("a candidate").node.clone(),
            interface: "eth0".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            term: 1,
            epoch: placement.epoch,
            since: Time(Timestamp::from_second(self.now).expect("a time")),
        });
        self.put_vip(vip)
    }

    /// Does what the writer does with the real one.
    pub(crate) fn apply(&mut self, effect: &Effect) -> Outcome {
        match effect {
            Effect::AddFinalizers { service } => self.edit_service(service, |service| {
                let finalizers = service.metadata.finalizers.get_or_insert_default();
                finalizers.extend([LOAD_BALANCER_CLEANUP.to_owned(), SERVICE_ADDRESS.to_owned()]);
            }),
            Effect::SetIngress { service, ingress, conditions } => self.edit_service(service, |service| {
                let status = service.status.get_or_insert_with(ServiceStatus::default);
                status.load_balancer = Some(LoadBalancerStatus { ingress: Some(ingress.clone()) });
                status.conditions = said(conditions);
            }),
            Effect::SetConditions { service, conditions } => self.edit_service(service, |service| {
                service.status.get_or_insert_with(ServiceStatus::default).conditions = said(conditions);
            }),
            Effect::CreateVirtualIp { name, spec } => {
                let mut vip = VirtualIP::new(name, (**spec).clone());
                vip.metadata.finalizers = Some(vec![VIRTUAL_IP_CLAIMED.to_owned()]);
                self.stamp(&mut vip);
                self.writes.vips += 1;
                self.names.push(name.clone());
                Outcome::VirtualIp(self.put_vip(vip))
            }
            Effect::CreateServiceGuard { name, spec } => {
                let mut guard = ServiceGuard::new(name, (**spec).clone());
                self.stamp(&mut guard);
                self.writes.guards += 1;
                Outcome::ServiceGuard(self.put_guard(guard))
            }
            Effect::SetPoolStatus { pool, status } => {
                let mut object = (*self.pools[&pool.name]).clone();
                object.status = Some((**status).clone());
                self.writes.pools += 1;
                Outcome::Pool(self.put_pool(object))
            }
            other => unreachable!("nobody edits anything, so this is not to be wanted: {other:?}"),
        }
    }

    fn edit_service(&mut self, exactly: &Exactly, edit: impl FnOnce(&mut Service)) -> Outcome {
        let known = &self.services[&(exactly.namespace.clone(), exactly.name.clone())];
        assert_eq!(known.metadata.resource_version.as_ref(), Some(&exactly.resource_version));
        let mut service = (**known).clone();
        edit(&mut service);
        self.writes.services += 1;
        Outcome::Service(self.put_service(service))
    }
}

fn said(conditions: &[Condition]) -> Option<Vec<Condition>> {
    Some(conditions.to_vec())
}

fn text(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}
