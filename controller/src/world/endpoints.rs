//! Which nodes have endpoints of a Service, as kube-proxy sees it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use landfall_crds::ClaimRef;
use landfall_crds::address::Family;
use landfall_crds::names::labels;

/// What an endpoint can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It takes new connections.
    Ready,
    /// It is ending and still serves.
    ServingTerminating,
}

/// The part of a slice that matters here. The slices themselves are not kept: they are large and change often.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    service: ClaimRef,
    family: Family,
    nodes: BTreeSet<(String, State)>,
}

/// The endpoints of all Services.
#[derive(Debug, Default)]
pub struct Endpoints {
    slices: BTreeMap<ClaimRef, Facts>,
    by_service: BTreeMap<ClaimRef, BTreeSet<ClaimRef>>,
    pub(crate) listed: bool,
}

impl Endpoints {
    /// Takes in a slice. Returns the Services for which something changed.
    pub fn put(&mut self, slice: &EndpointSlice) -> Vec<ClaimRef> {
        let key = key(slice);
        match facts(slice) {
            Some(facts) if self.slices.get(&key) == Some(&facts) => Vec::new(),
            Some(facts) => {
                let mut changed = self.remove(&key);
                if !changed.contains(&facts.service) {
                    changed.push(facts.service.clone());
                }
                self.by_service.entry(facts.service.clone()).or_default().insert(key.clone());
                self.slices.insert(key, facts);
                changed
            }
            None => self.remove(&key),
        }
    }

    /// Forgets a slice. Returns the Services for which something changed.
    pub fn remove(&mut self, key: &ClaimRef) -> Vec<ClaimRef> {
        let Some(facts) = self.slices.remove(key) else { return Vec::new() };
        if let Some(slices) = self.by_service.get_mut(&facts.service) {
            slices.remove(key);
            if slices.is_empty() {
                self.by_service.remove(&facts.service);
            }
        }
        vec![facts.service]
    }

    /// The keys of slices that a complete list does not name.
    pub fn missing_from(&mut self, listed: &BTreeSet<ClaimRef>) -> Vec<ClaimRef> {
        self.listed = true;
        self.slices.keys().filter(|key| !listed.contains(*key)).cloned().collect()
    }

    /// The nodes that traffic of policy Local may be sent to: those with a ready endpoint, or if there
    /// is none anywhere, those with one that is ending and still serves (k8s.io/kubernetes
    /// pkg/proxy/topology.go, KEP-1669).
    pub fn local_nodes(&self, service: &ClaimRef, family: Family) -> BTreeSet<&str> {
        let nodes_in = |state| {
            self.by_service
                .get(service)
                .into_iter()
                .flatten()
                .filter_map(|key| self.slices.get(key))
                .filter(|facts| facts.family == family)
                .flat_map(|facts| &facts.nodes)
                .filter(move |(_, known)| *known == state)
                .map(|(node, _)| node.as_str())
                .collect::<BTreeSet<_>>()
        };
        let ready = nodes_in(State::Ready);
        if ready.is_empty() { nodes_in(State::ServingTerminating) } else { ready }
    }
}

/// Namespace and name of a slice.
pub fn key(slice: &EndpointSlice) -> ClaimRef {
    ClaimRef {
        namespace: slice.metadata.namespace.clone().unwrap_or_default(),
        name: slice.metadata.name.clone().unwrap_or_default(),
    }
}

/// A condition that is absent means ready and serving, not terminating (k8s.io/kubernetes
/// pkg/proxy/endpointslicecache.go).
fn facts(slice: &EndpointSlice) -> Option<Facts> {
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::IPv4,
        "IPv6" => Family::IPv6,
        _ => return None,
    };
    let name = slice.metadata.labels.as_ref()?.get(labels::SERVICE_NAME)?.clone();
    let service = ClaimRef { namespace: slice.metadata.namespace.clone().unwrap_or_default(), name };
    let nodes = slice
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let node = endpoint.node_name.clone()?;
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
            if ready {
                Some((node, State::Ready))
            } else {
                (serving && terminating).then_some((node, State::ServingTerminating))
            }
        })
        .collect();
    Some(Facts { service, family, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(name: &str, endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn local(endpoints: &Endpoints) -> Vec<&str> {
        let web = ClaimRef { namespace: "shop".into(), name: "web".into() };
        endpoints.local_nodes(&web, Family::IPv4).into_iter().collect()
    }

    #[test]
    fn ready_endpoints_count_and_ending_ones_only_where_none_is_ready() {
        let mut known = Endpoints::default();
        let ending = json!({"ready": false, "serving": true, "terminating": true});
        known.put(&slice("a", json!([{"addresses": ["10.1.0.1"], "nodeName": "n1", "conditions": ending}])));
        known.put(&slice(
            "b",
            json!([{"addresses": ["10.1.0.2"], "nodeName": "n2",
                                     "conditions": {"ready": false, "serving": false}}]),
        ));
        assert_eq!(local(&known), ["n1"]);
        let changed = known.put(&slice("b", json!([{"addresses": ["10.1.0.2"], "nodeName": "n2"}])));
        assert_eq!(changed.len(), 1);
        assert_eq!(local(&known), ["n2"]);
        known.remove(&key(&slice("b", json!([]))));
        assert_eq!(local(&known), ["n1"]);
    }

    #[test]
    fn a_change_that_does_not_matter_is_none() {
        let mut known = Endpoints::default();
        known.put(&slice("a", json!([{"addresses": ["10.1.0.1"], "nodeName": "n1"}])));
        let again = slice(
            "a",
            json!([{"addresses": ["10.1.0.9"], "nodeName": "n1"},
                                      {"addresses": ["192.0.2.1"]}]),
        );
        assert!(known.put(&again).is_empty());
    }
}
