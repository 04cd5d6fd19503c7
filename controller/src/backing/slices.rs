//! Who made which EndpointSlice, and what matters of what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use landfall_crds::ClaimRef;
use landfall_crds::address::Family;
use landfall_crds::names::labels;

use crate::world::endpoints::key;

/// Who made a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Maker {
    /// Kubernetes, from the pods that the Service's selector selects (k8s.io/kubernetes
    /// pkg/controller/endpointslice).
    Selector,
    /// Kubernetes, from an Endpoints object that somebody wrote (pkg/controller/endpointslicemirroring).
    Mirroring,
    /// Somebody else.
    Hand,
}

impl Maker {
    /// By the label `endpointslice.kubernetes.io/managed-by`.
    pub fn of(slice: &EndpointSlice) -> Self {
        let labels = slice.metadata.labels.as_ref();
        match labels.and_then(|all| all.get(labels::MANAGED_BY)).map(String::as_str) {
            Some("endpointslice-controller.k8s.io") => Self::Selector,
            Some("endpointslicemirroring-controller.k8s.io") => Self::Mirroring,
            _ => Self::Hand,
        }
    }
}

/// What matters of a slice. Of one that Kubernetes makes from pods neither addresses nor ports do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The slice's name.
    pub name: String,
    /// The Service.
    pub service: ClaimRef,
    /// Who made it.
    pub maker: Maker,
    /// The family of its addresses.
    pub family: Family,
    /// The names of its ports; the empty name for a port without one.
    pub ports: BTreeSet<String>,
    /// The addresses of its endpoints, as far as they are kept.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether it has an endpoint.
    pub has_endpoint: bool,
    /// Whether an endpoint is ready.
    pub is_ready: bool,
    /// Whether an endpoint is on a node.
    pub is_on_a_node: bool,
}

/// The slices of all Services.
#[derive(Debug, Default)]
pub struct Slices {
    known: BTreeMap<ClaimRef, Facts>,
    by_service: BTreeMap<ClaimRef, BTreeSet<ClaimRef>>,
    /// Whether there has been a complete list.
    pub listed: bool,
}

impl Slices {
    /// Takes in a slice. Returns the Services for which something changed.
    pub fn put(&mut self, slice: &EndpointSlice) -> Vec<ClaimRef> {
        let key = key(slice);
        let new = facts(slice);
        if self.known.get(&key) == new.as_ref() {
            return Vec::new();
        }
        let mut changed = self.remove(&key);
        if let Some(facts) = new {
            if !changed.contains(&facts.service) {
                changed.push(facts.service.clone());
            }
            self.by_service.entry(facts.service.clone()).or_default().insert(key.clone());
            self.known.insert(key, facts);
        }
        changed
    }

    /// Forgets a slice. Returns the Services for which something changed.
    pub fn remove(&mut self, key: &ClaimRef) -> Vec<ClaimRef> {
        let Some(facts) = self.known.remove(key) else { return Vec::new() };
        if let Some(slices) = self.by_service.get_mut(&facts.service) {
            slices.remove(key);
            if slices.is_empty() {
                self.by_service.remove(&facts.service);
            }
        }
        vec![facts.service]
    }

    /// Takes in a complete list. Returns the Services for which something changed.
    pub fn list<'a>(&mut self, all: impl Iterator<Item = &'a EndpointSlice>) -> Vec<ClaimRef> {
        self.listed = true;
        let mut changed = Vec::new();
        let mut listed = BTreeSet::new();
        for slice in all {
            listed.insert(key(slice));
            changed.extend(self.put(slice));
        }
        let gone: Vec<ClaimRef> = self.known.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        changed.extend(gone.iter().flat_map(|key| self.remove(key)).collect::<Vec<_>>());
        changed
    }

    /// The slices of a Service, in the order of their names.
    pub fn of(&self, service: &ClaimRef) -> impl Iterator<Item = &Facts> {
        self.by_service.get(service).into_iter().flatten().filter_map(|key| self.known.get(key))
    }
}

/// Of a slice with names instead of addresses there is nothing to say: kube-proxy does not use it.
fn facts(slice: &EndpointSlice) -> Option<Facts> {
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::IPv4,
        "IPv6" => Family::IPv6,
        _ => return None,
    };
    let name = slice.metadata.labels.as_ref()?.get(labels::SERVICE_NAME)?.clone();
    let service = ClaimRef { namespace: slice.metadata.namespace.clone().unwrap_or_default(), name };
    let endpoints = &slice.endpoints;
    let is_ready = endpoints
        .iter()
        .any(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    let ports = slice.ports.iter().flatten().map(|port| port.name.clone().unwrap_or_default());
    let addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    Some(Facts {
        name: slice.metadata.name.clone().unwrap_or_default(),
        service,
        maker: Maker::of(slice),
        family,
        ports: ports.collect(),
        addresses: addresses.filter_map(|address| address.parse().ok()).collect(),
        has_endpoint: !endpoints.is_empty(),
        is_ready: is_ready && !endpoints.is_empty(),
        is_on_a_node: endpoints.iter().any(|endpoint| endpoint.node_name.is_some()),
    })
}
