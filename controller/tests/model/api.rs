//! A pretended API server: uids, resourceVersions, conflicts, finalizers, and a log for watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerStatus, Namespace, Node, Service, ServiceStatus};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use landfall_controller::effects::{Effect, Exactly, Outcome, Refusal};
use landfall_controller::mind::{Change, Event};
use landfall_crds::names::finalizers::{LOAD_BALANCER_CLEANUP, SERVICE_ADDRESS, VIRTUAL_IP_CLAIMED};
use landfall_crds::{IPPool, ServiceGuard, Speaker, VirtualIP, VirtualIPSpec, VirtualIPStatus};

/// Kinds, as indices of the logs.
pub const SERVICES: usize = 0;
pub const POOLS: usize = 1;
pub const VIPS: usize = 2;
pub const SPEAKERS: usize = 3;
pub const NODES: usize = 4;
pub const NAMESPACES: usize = 5;
pub const SERVICE_CIDRS: usize = 6;
pub const ENDPOINT_SLICES: usize = 7;
pub const GUARDS: usize = 8;
pub const KINDS: usize = 9;

/// All objects, and everything that ever happened to them.
#[derive(Default)]
pub struct Api {
    pub version: u64,
    pub uids: u64,
    pub now: i64,
    pub services: BTreeMap<String, Arc<Service>>,
    pub pools: BTreeMap<String, Arc<IPPool>>,
    pub vips: BTreeMap<String, Arc<VirtualIP>>,
    pub guards: BTreeMap<String, Arc<ServiceGuard>>,
    pub speakers: BTreeMap<String, Arc<Speaker>>,
    pub nodes: BTreeMap<String, Arc<Node>>,
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    pub service_cidrs: BTreeMap<String, Arc<ServiceCIDR>>,
    pub endpoint_slices: BTreeMap<String, Arc<EndpointSlice>>,
    pub logs: [Vec<Event>; KINDS],
    /// Which VirtualIPs an administrator's policy admits, where there is one.
    pub policy: Option<fn(&VirtualIPSpec) -> bool>,
    /// Successful writes that changed something, by effect.
    pub writes: BTreeMap<&'static str, u64>,
}

/// What the API server does with the parts of all kinds that are alike.
macro_rules! kind {
    ($put:ident, $delete:ident, $store:ident, $type:ty, $event:ident, $kind:expr) => {
        impl Api {
            /// Creates or replaces; without a real change nothing happens.
            pub fn $put(&mut self, mut object: $type) -> Arc<$type> {
                let name = full_name(object.meta());
                match self.$store.get(&name) {
                    Some(known) => {
                        object.metadata.resource_version = known.metadata.resource_version.clone();
                        object.metadata.uid = known.metadata.uid.clone();
                        object.metadata.creation_timestamp = known.metadata.creation_timestamp.clone();
                        if object == **known {
                            return Arc::clone(known);
                        }
                    }
                    None => {
                        self.uids += 1;
                        object.metadata.uid = Some(format!("uid-{}", self.uids));
                        object.metadata.creation_timestamp = Some(self.time());
                    }
                }
                self.version += 1;
                object.metadata.resource_version = Some(self.version.to_string());
                let object = Arc::new(object);
                if object.metadata.deletion_timestamp.is_some()
                    && object.metadata.finalizers.iter().flatten().next().is_none()
                {
                    self.$store.remove(&name);
                    self.logs[$kind].push(Event::$event(Change::Deleted(Arc::clone(&object))));
                } else {
                    self.$store.insert(name, Arc::clone(&object));
                    self.logs[$kind].push(Event::$event(Change::Applied(Arc::clone(&object))));
                }
                object
            }

            /// Deletes, or marks for deletion where finalizers hold the object.
            #[allow(dead_code)] // Not every kind is deleted by a story.
            pub fn $delete(&mut self, name: &str) {
                let Some(known) = self.$store.get(name).map(Arc::clone) else { return };
                if known.metadata.deletion_timestamp.is_none() {
                    let mut object = (*known).clone();
                    object.metadata.deletion_timestamp = Some(self.time());
                    self.$put(object);
                }
            }
        }
    };
}

kind!(put_service, delete_service, services, Service, Service, SERVICES);
kind!(put_pool, delete_pool, pools, IPPool, Pool, POOLS);
kind!(put_vip, delete_vip, vips, VirtualIP, VirtualIp, VIPS);
kind!(put_guard, delete_guard, guards, ServiceGuard, ServiceGuard, GUARDS);
kind!(put_speaker, delete_speaker, speakers, Speaker, Speaker, SPEAKERS);
kind!(put_node, delete_node, nodes, Node, Node, NODES);
kind!(put_namespace, delete_namespace, namespaces, Namespace, Namespace, NAMESPACES);
kind!(put_service_cidr, delete_service_cidr, service_cidrs, ServiceCIDR, ServiceCidr, SERVICE_CIDRS);
kind!(
    put_endpoint_slice,
    delete_endpoint_slice,
    endpoint_slices,
    EndpointSlice,
    EndpointSlice,
    ENDPOINT_SLICES
);

pub fn full_name(meta: &ObjectMeta) -> String {
    let name = meta.name.clone().unwrap_or_default();
    meta.namespace.as_ref().map_or(name.clone(), |namespace| format!("{namespace}/{name}"))
}

/// What an update of a Service by a user does beyond what it says (k8s.io/kubernetes
/// pkg/registry/core/service/strategy.go): a type that is no LoadBalancer has no such status.
pub fn as_strategy_has_it(mut service: Service) -> Service {
    let is_balancer = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
    if !is_balancer {
        if let Some(spec) = &mut service.spec {
            spec.load_balancer_class = None;
        }
        if let Some(status) = &mut service.status {
            status.load_balancer = None;
        }
    }
    service
}

impl Api {
    pub fn time(&self) -> Time {
        Time(Timestamp::from_second(self.now).unwrap())
    }

    /// A complete list of one kind.
    pub fn list(&self, kind: usize) -> Event {
        match kind {
            SERVICES => Event::Service(Change::Listed(self.services.values().cloned().collect())),
            POOLS => Event::Pool(Change::Listed(self.pools.values().cloned().collect())),
            VIPS => Event::VirtualIp(Change::Listed(self.vips.values().cloned().collect())),
            SPEAKERS => Event::Speaker(Change::Listed(self.speakers.values().cloned().collect())),
            NAMESPACES => Event::Namespace(Change::Listed(self.namespaces.values().cloned().collect())),
            NODES => Event::Node(Change::Listed(self.nodes.values().cloned().collect())),
            SERVICE_CIDRS => {
                Event::ServiceCidr(Change::Listed(self.service_cidrs.values().cloned().collect()))
            }
            GUARDS => Event::ServiceGuard(Change::Listed(self.guards.values().cloned().collect())),
            _ => Event::EndpointSlice(Change::Listed(self.endpoint_slices.values().cloned().collect())),
        }
    }

    fn service(&self, exactly: &Exactly) -> Result<Service, Outcome> {
        let name = format!("{}/{}", exactly.namespace, exactly.name);
        checked(self.services.get(&name), exactly)
    }

    fn vip(&self, exactly: &Exactly) -> Result<VirtualIP, Outcome> {
        checked(self.vips.get(&exactly.name), exactly)
    }

    fn admits(&self, spec: &VirtualIPSpec) -> Result<(), Outcome> {
        if self.policy.is_some_and(|admits| !admits(spec)) {
            let message = format!("a policy refuses {}", spec.address);
            return Err(Outcome::Refused(Refusal::Invalid(message)));
        }
        is_valid(spec)
    }

    /// Does what the writer does with the real one.
    pub fn apply(&mut self, effect: &Effect) -> Outcome {
        let before = self.version;
        let outcome = self.try_apply(effect).unwrap_or_else(|refused| refused);
        if self.version > before {
            *self.writes.entry(name_of(effect)).or_default() += 1;
        }
        outcome
    }

    fn try_apply(&mut self, effect: &Effect) -> Result<Outcome, Outcome> {
        Ok(match effect {
            Effect::AddFinalizers { service } => {
                let mut object = self.service(service)?;
                let finalizers = object.metadata.finalizers.get_or_insert_default();
                if object.metadata.deletion_timestamp.is_some() {
                    return Err(Outcome::Refused(Refusal::Invalid("no new finalizers".into())));
                }
                for ours in [LOAD_BALANCER_CLEANUP, SERVICE_ADDRESS] {
                    if !finalizers.iter().any(|known| known == ours) {
                        finalizers.push(ours.into());
                    }
                }
                Outcome::Service(self.put_service(object))
            }
            Effect::RemoveFinalizers { service } => {
                let mut object = self.service(service)?;
                let finalizers = object.metadata.finalizers.get_or_insert_default();
                finalizers.retain(|known| known != LOAD_BALANCER_CLEANUP && known != SERVICE_ADDRESS);
                let left = self.put_service(object);
                match self.services.contains_key(&full_name(&left.metadata)) {
                    true => Outcome::Service(left),
                    false => Outcome::Gone,
                }
            }
            Effect::CreateVirtualIp { name, spec } => {
                if self.vips.contains_key(name) {
                    return Err(Outcome::Refused(Refusal::AlreadyExists));
                }
                self.admits(spec)?;
                let mut object = VirtualIP::new(name, (**spec).clone());
                object.metadata.finalizers = Some(vec![VIRTUAL_IP_CLAIMED.into()]);
                Outcome::VirtualIp(self.put_vip(object))
            }
            Effect::UpdateVirtualIp { virtual_ip, spec } => {
                let mut object = self.vip(virtual_ip)?;
                self.admits(spec)?;
                object.spec = (**spec).clone();
                let finalizers = object.metadata.finalizers.get_or_insert_default();
                let guarded = finalizers.iter().any(|known| known == VIRTUAL_IP_CLAIMED);
                if !object.spec.claims.is_empty() && !guarded && object.metadata.deletion_timestamp.is_none()
                {
                    finalizers.push(VIRTUAL_IP_CLAIMED.into());
                }
                Outcome::VirtualIp(self.put_vip(object))
            }
            Effect::SetVirtualIpStatus { virtual_ip, status } => {
                let mut object = self.vip(virtual_ip)?;
                let known = object.status.get_or_insert_with(VirtualIPStatus::default);
                known.last_holders = status.last_holders.clone();
                Outcome::VirtualIp(self.put_vip(object))
            }
            Effect::DeleteVirtualIp { virtual_ip } => {
                let mut object = self.vip(virtual_ip)?;
                object.metadata.deletion_timestamp.get_or_insert(self.time());
                object
                    .metadata
                    .finalizers
                    .get_or_insert_default()
                    .retain(|known| known != VIRTUAL_IP_CLAIMED);
                self.put_vip(object);
                Outcome::Gone
            }
            Effect::UnclaimVirtualIp { virtual_ip } => {
                let mut object = self.vip(virtual_ip)?;
                object
                    .metadata
                    .finalizers
                    .get_or_insert_default()
                    .retain(|known| known != VIRTUAL_IP_CLAIMED);
                Outcome::VirtualIp(self.put_vip(object))
            }
            Effect::CreateServiceGuard { name, spec } => {
                if self.guards.contains_key(name) {
                    return Err(Outcome::Refused(Refusal::AlreadyExists));
                }
                Outcome::ServiceGuard(self.put_guard(ServiceGuard::new(name, (**spec).clone())))
            }
            Effect::UpdateServiceGuard { guard, spec } => {
                let mut object = checked(self.guards.get(&guard.name), guard)?;
                object.spec = (**spec).clone();
                Outcome::ServiceGuard(self.put_guard(object))
            }
            Effect::DeleteServiceGuard { guard } => {
                checked(self.guards.get(&guard.name), guard)?;
                self.delete_guard(&guard.name);
                Outcome::Gone
            }
            Effect::SetIngress { service, ingress, conditions } => {
                let mut object = self.service(service)?;
                let is_balancer =
                    object.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
                if !is_balancer {
                    return Err(Outcome::Refused(Refusal::Invalid("only for type LoadBalancer".into())));
                }
                let status = object.status.get_or_insert_with(ServiceStatus::default);
                let ingress = (!ingress.is_empty()).then(|| ingress.clone());
                status.load_balancer = ingress.map(|ingress| LoadBalancerStatus { ingress: Some(ingress) });
                set_conditions(status, conditions);
                Outcome::Service(self.put_service(object))
            }
            Effect::SetConditions { service, conditions } => {
                let mut object = self.service(service)?;
                set_conditions(object.status.get_or_insert_with(ServiceStatus::default), conditions);
                Outcome::Service(self.put_service(object))
            }
            Effect::SetPoolStatus { pool, status } => {
                let mut object = checked(self.pools.get(&pool.name), pool)?;
                object.status = Some((**status).clone());
                Outcome::Pool(self.put_pool(object))
            }
            Effect::GetService { namespace, name } => self
                .services
                .get(&format!("{namespace}/{name}"))
                .map_or(Outcome::Gone, |service| Outcome::Service(Arc::clone(service))),
            Effect::GetVirtualIp { name } => {
                self.vips.get(name).map_or(Outcome::Gone, |vip| Outcome::VirtualIp(Arc::clone(vip)))
            }
            Effect::Publish(_) => Outcome::Done,
        })
    }
}

/// What the schema of a VirtualIP says of lists.
fn is_valid(spec: &VirtualIPSpec) -> Result<(), Outcome> {
    let ports: BTreeSet<_> = spec.ports.iter().map(|port| (port.protocol, port.port)).collect();
    if spec.claims.len() > 64 || spec.ports.len() > 256 || ports.len() < spec.ports.len() {
        let message = format!("VirtualIP {} is invalid: too many claims or ports", spec.address);
        return Err(Outcome::Refused(Refusal::Invalid(message)));
    }
    Ok(())
}

fn set_conditions(
    status: &mut ServiceStatus,
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
) {
    let known = status.conditions.get_or_insert_default();
    known.retain(|known| !known.type_.starts_with("landfall.dev/"));
    known.extend(conditions.iter().cloned());
    if known.is_empty() {
        status.conditions = None;
    }
}

fn checked<K: Resource + Clone>(known: Option<&Arc<K>>, exactly: &Exactly) -> Result<K, Outcome> {
    let Some(known) = known else { return Err(Outcome::Gone) };
    let meta = known.meta();
    // As with the real one, what is left empty is no precondition.
    let differs = |is: &Option<String>, wanted: &str| !wanted.is_empty() && is.as_deref() != Some(wanted);
    if differs(&meta.uid, &exactly.uid) || differs(&meta.resource_version, &exactly.resource_version) {
        return Err(Outcome::Refused(Refusal::Conflict));
    }
    Ok((**known).clone())
}

pub fn name_of(effect: &Effect) -> &'static str {
    effect.name()
}
