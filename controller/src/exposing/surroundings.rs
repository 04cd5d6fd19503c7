//! What exposing needs to know of the cluster: pools with what they list, whom they serve, and which addresses are the
//! cluster's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Resource;
use landfall_crds::address::{AddressSet, parse_address};
use landfall_crds::{IPPool, Speaker, VirtualIP};

use super::targets::Own;
use crate::mind::{Change, Event};
use crate::ranking::reach::selects;
use crate::world::cluster_ranges::ServiceRanges;
use crate::world::namespaces::Namespaces;
use crate::world::nodes::Nodes;

/// The picture.
#[derive(Debug, Default)]
pub struct Surroundings {
    pools: BTreeMap<String, Arc<IPPool>>,
    namespaces: Namespaces,
    services: ServiceRanges,
    nodes: Nodes,
    virtual_ips: BTreeSet<IpAddr>,
    pods: AddressSet,
    node_addresses: BTreeSet<IpAddr>,
    listed: BTreeSet<&'static str>,
}

/// Kinds of which there must have been a complete list. Of ServiceCIDRs it is enough to know that there are none.
const KINDS: [&str; 6] = ["IPPool", "Namespace", "Node", "ServiceCIDR", "Speaker", "VirtualIP"];

impl Surroundings {
    /// Whether enough is known to judge: what is unknown could be the cluster's own.
    pub fn is_complete(&self) -> bool {
        KINDS.iter().all(|kind| self.listed.contains(kind))
    }

    /// Takes in an event, and tells whether it was about the surroundings.
    pub fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Pool(change) => self.on_pools(change),
            Event::Namespace(change) => self.on_namespaces(change),
            Event::ServiceCidr(change) => self.on_service_cidrs(change),
            Event::Node(change) => self.on_nodes(change),
            Event::Speaker(change) => self.on_speakers(change),
            Event::VirtualIp(change) => self.on_virtual_ips(change),
            _ => return false,
        }
        true
    }

    /// What pools list for Services of a namespace; `named` are the pools that the Service names, where it names some.
    /// Nothing if no pool serves the namespace and lists anything.
    pub fn listed_for(&self, namespace: &str, named: Option<&str>, default_deny: bool) -> Vec<IpNet> {
        let named: Option<Vec<&str>> = named.map(|named| named.split(',').map(str::trim).collect());
        let unlabelled = BTreeMap::new();
        let labels = self.namespaces.get(namespace).map_or(&unlabelled, |facts| &facts.labels);
        let serves = |name: &str, pool: &IPPool| {
            let selector = pool.spec.namespace_selector.as_ref();
            pool.metadata.deletion_timestamp.is_none()
                && named.as_ref().is_none_or(|named| named.contains(&name))
                && selector.map_or(!default_deny, |selector| selects(selector, labels))
                // A companion has no labels.
                && pool.spec.service_selector.as_ref().is_none_or(|selector| selects(selector, &unlabelled))
        };
        let pools = self.pools.iter().filter(|(name, pool)| serves(name, pool));
        let texts = pools.flat_map(|(_, pool)| &pool.spec.external_targets);
        texts.filter_map(|text| text.parse().ok()).collect()
    }

    /// Whose an address is within the cluster.
    pub fn own(&self, address: IpAddr) -> Option<Own> {
        if self.services.contains(address) {
            Some(Own::Service)
        } else if self.virtual_ips.contains(&address) {
            Some(Own::VirtualIp)
        } else if self.node_addresses.contains(&address) {
            Some(Own::Node)
        } else if self.pods.contains(address) {
            Some(Own::Pod)
        } else {
            None
        }
    }

    fn on_pools(&mut self, change: &Change<IPPool>) {
        let name = name::<IPPool>;
        match change {
            Change::Applied(pool) => {
                self.pools.insert(name(pool), Arc::clone(pool));
            }
            Change::Deleted(pool) => {
                self.pools.remove(&name(pool));
            }
            Change::Listed(all) => {
                self.listed.insert("IPPool");
                self.pools = all.iter().map(|pool| (name(pool), Arc::clone(pool))).collect();
            }
        }
    }

    fn on_namespaces(&mut self, change: &Change<Namespace>) {
        match change {
            Change::Applied(namespace) => {
                self.namespaces.put(namespace);
            }
            Change::Deleted(namespace) => {
                self.namespaces.remove(&name::<Namespace>(namespace));
            }
            Change::Listed(all) => {
                self.listed.insert("Namespace");
                self.namespaces = Namespaces::default();
                for namespace in all {
                    self.namespaces.put(namespace);
                }
            }
        }
    }

    fn on_service_cidrs(&mut self, change: &Change<ServiceCIDR>) {
        match change {
            Change::Applied(object) => {
                self.services.put(object);
            }
            Change::Deleted(object) => {
                self.services.remove(&name::<ServiceCIDR>(object));
            }
            Change::Listed(all) => {
                self.listed.insert("ServiceCIDR");
                self.services = ServiceRanges::default();
                for object in all {
                    self.services.put(object);
                }
            }
        }
    }

    fn on_nodes(&mut self, change: &Change<Node>) {
        match change {
            Change::Applied(node) => {
                self.nodes.put_node(node);
            }
            Change::Deleted(node) => {
                self.nodes.remove_node(&name::<Node>(node));
            }
            Change::Listed(all) => {
                self.listed.insert("Node");
                let listed: BTreeSet<String> = all.iter().map(|node| name::<Node>(node)).collect();
                for gone in self.nodes.node_names().difference(&listed) {
                    self.nodes.remove_node(gone);
                }
                for node in all {
                    self.nodes.put_node(node);
                }
            }
        }
        self.count_nodes();
    }

    fn on_speakers(&mut self, change: &Change<Speaker>) {
        match change {
            Change::Applied(speaker) => {
                self.nodes.put_speaker(speaker);
            }
            Change::Deleted(speaker) => {
                self.nodes.remove_speaker(&name::<Speaker>(speaker));
            }
            Change::Listed(all) => {
                self.listed.insert("Speaker");
                let listed: BTreeSet<String> = all.iter().map(|speaker| name::<Speaker>(speaker)).collect();
                for gone in self.nodes.speaker_names().difference(&listed) {
                    self.nodes.remove_speaker(gone);
                }
                for speaker in all {
                    self.nodes.put_speaker(speaker);
                }
            }
        }
        self.count_nodes();
    }

    fn count_nodes(&mut self) {
        self.pods = self.nodes.pod_ranges();
        let names: BTreeSet<String> = &self.nodes.node_names() | &self.nodes.speaker_names();
        self.node_addresses = names.iter().flat_map(|name| self.nodes.own_addresses(name)).collect();
    }

    fn on_virtual_ips(&mut self, change: &Change<VirtualIP>) {
        let address = |vip: &VirtualIP| parse_address(&vip.spec.address).ok();
        match change {
            Change::Applied(vip) => self.virtual_ips.extend(address(vip)),
            Change::Deleted(vip) => {
                if let Some(address) = address(vip) {
                    self.virtual_ips.remove(&address);
                }
            }
            Change::Listed(all) => {
                self.listed.insert("VirtualIP");
                self.virtual_ips = all.iter().filter_map(|vip| address(vip)).collect();
            }
        }
    }
}

fn name<K: Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}
