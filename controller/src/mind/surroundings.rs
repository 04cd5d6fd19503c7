//! Events about all that surrounds Services and their addresses: namespaces, the cluster's own ranges, pools,
//! speakers, nodes and endpoints. Each goes into the picture of the world, and what it may change is looked at
//! anew.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use landfall_crds::{ClaimRef, IPPool, Speaker};

use super::subject::Subject;
use super::{Change, Mind};
use crate::granting::book::{ClusterUse, Holder};
use crate::world::endpoints;
use crate::world::nodes::Changed;
use crate::world::virtual_ips::concerns;

impl Mind {
    pub(super) fn on_namespaces(&mut self, change: Change<Namespace>) {
        let name = |namespace: &Namespace| namespace.metadata.name.clone().unwrap_or_default();
        match change {
            Change::Applied(namespace) => {
                if self.namespaces.put(&namespace) {
                    self.namespace_changed(&name(&namespace));
                }
            }
            Change::Deleted(namespace) => {
                if self.namespaces.remove(&name(&namespace)) {
                    self.namespace_changed(&name(&namespace));
                }
            }
            Change::Listed(all) => {
                self.namespaces.listed = true;
                let listed: BTreeSet<String> = all.iter().map(|namespace| name(namespace)).collect();
                for gone in self.namespaces.names().difference(&listed) {
                    self.namespaces.remove(gone);
                    self.namespace_changed(gone);
                }
                for namespace in all {
                    if self.namespaces.put(&namespace) {
                        self.namespace_changed(&name(&namespace));
                    }
                }
            }
        }
    }

    /// Looks again at the Services of a namespace and at what is kept for it.
    fn namespace_changed(&mut self, name: &str) {
        self.mark_pools();
        let in_it = |key: &&ClaimRef| key.namespace == name;
        for key in self.services.keys().filter(in_it).cloned().collect::<Vec<_>>() {
            self.mark(Subject::Service(key));
        }
        let kept = self.unclaimed.keys().copied().filter(|address| {
            let vip = self.vips.get(*address);
            vip.is_some_and(|vip| vip.spec.reservation.as_ref().is_some_and(|kept| kept.namespace == name))
        });
        for address in kept.collect::<Vec<_>>() {
            self.mark(Subject::VirtualIp(address));
        }
    }

    pub(super) fn on_service_cidrs(&mut self, change: Change<ServiceCIDR>) {
        let name = |object: &ServiceCIDR| object.metadata.name.clone().unwrap_or_default();
        let mut changed = false;
        match change {
            Change::Applied(object) => changed = self.service_ranges.put(&object),
            Change::Deleted(object) => changed = self.service_ranges.remove(&name(&object)),
            Change::Listed(all) => {
                self.service_ranges.listed = true;
                let listed: BTreeSet<String> = all.iter().map(|object| name(object)).collect();
                for gone in self.service_ranges.names().difference(&listed) {
                    changed |= self.service_ranges.remove(gone);
                }
                for object in all {
                    changed |= self.service_ranges.put(&object);
                }
            }
        }
        if changed && self.book.set_cluster(ClusterUse::Services, self.service_ranges.all()) {
            self.history.reconsider(None);
            self.mark_services();
            self.mark_unclaimed();
            self.mark_pools();
        }
    }

    pub(super) fn on_pools(&mut self, change: Change<IPPool>) {
        match change {
            Change::Applied(pool) => self.see_pool(pool),
            Change::Deleted(pool) => self.pool_is_gone(&pool.metadata.name.clone().unwrap_or_default()),
            Change::Listed(all) => {
                self.pools_listed = true;
                let name = |pool: &Arc<IPPool>| pool.metadata.name.clone().unwrap_or_default();
                let listed: BTreeSet<String> = all.iter().map(name).collect();
                let known: Vec<String> = self.book.pools().map(|(name, _)| name.to_owned()).collect();
                for name in known.into_iter().filter(|name| !listed.contains(name)) {
                    self.pool_is_gone(&name);
                }
                for pool in all {
                    self.see_pool(pool);
                }
            }
        }
    }

    pub(super) fn see_pool(&mut self, pool: Arc<IPPool>) {
        let name = pool.metadata.name.clone().unwrap_or_default();
        let known = self.book.pool(&name).map(|known| known.object.metadata.resource_version.clone());
        let version = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<u64>().ok());
        if let Some(known) = known.as_ref().and_then(version)
            && let Some(offered) = version(&pool.metadata.resource_version)
            && offered <= known
        {
            return;
        }
        if self.book.put_pool(pool) {
            self.history.reconsider(None);
            self.mark_services();
            self.mark_pools();
            self.mark_unclaimed();
        } else {
            self.mark(Subject::Pool(name));
        }
    }

    fn pool_is_gone(&mut self, name: &str) {
        self.pending.void(&Subject::Pool(name.to_owned()), None);
        self.history.reconsider(Some(name));
        self.book.remove_pool(name);
        self.pool_counted.remove(name);
        self.mark_services();
        self.mark_pools();
        self.mark_unclaimed();
    }

    /// Something about an address that nobody claims has come to its end by time. If that was its reservation for
    /// another, those who had it before may have it back.
    pub(super) fn mark_former_holders(&mut self, address: IpAddr) {
        let vip = self.vips.get(address).filter(|_| self.unclaimed.contains_key(&address));
        for key in vip.map(|vip| concerns(vip)).unwrap_or_default() {
            self.mark(Subject::Service(key));
        }
    }

    /// Looks again at what nobody claims: how long it is kept or rests may have changed.
    fn mark_unclaimed(&mut self) {
        for address in self.unclaimed.keys().copied().collect::<Vec<_>>() {
            self.mark(Subject::VirtualIp(address));
        }
    }

    pub(super) fn on_speakers(&mut self, change: Change<Speaker>) {
        let name = |speaker: &Speaker| speaker.metadata.name.clone().unwrap_or_default();
        match change {
            Change::Applied(speaker) => {
                self.change_node(&name(&speaker), |mind| mind.nodes.put_speaker(&speaker));
            }
            Change::Deleted(speaker) => {
                let name = name(&speaker);
                self.change_node(&name, |mind| mind.nodes.remove_speaker(&name));
            }
            Change::Listed(all) => {
                self.nodes.speakers_listed = true;
                let listed: BTreeSet<String> = all.iter().map(|speaker| name(speaker)).collect();
                for name in self.nodes.speaker_names().difference(&listed) {
                    self.change_node(name, |mind| mind.nodes.remove_speaker(name));
                }
                for speaker in all {
                    self.change_node(&name(&speaker), |mind| mind.nodes.put_speaker(&speaker));
                }
            }
        }
    }

    pub(super) fn on_nodes(&mut self, change: Change<Node>) {
        let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
        match change {
            Change::Applied(node) => self.change_node(&name(&node), |mind| mind.nodes.put_node(&node)),
            Change::Deleted(node) => {
                let name = name(&node);
                self.change_node(&name, |mind| mind.nodes.remove_node(&name));
            }
            Change::Listed(all) => {
                self.nodes.nodes_listed = true;
                let listed: BTreeSet<String> = all.iter().map(|node| name(node)).collect();
                for name in self.nodes.node_names().difference(&listed) {
                    self.change_node(name, |mind| mind.nodes.remove_node(name));
                }
                for node in all {
                    self.change_node(&name(&node), |mind| mind.nodes.put_node(&node));
                }
            }
        }
    }

    fn change_node(&mut self, name: &str, change: impl FnOnce(&mut Self) -> Changed) {
        let addresses = self.nodes.own_addresses(name);
        let gateways = self.nodes.gateways(name);
        let edges = self.nodes.subnet_edges(name);
        match change(self) {
            Changed::Nothing => return,
            Changed::Peers => {
                self.mark_unclaimed();
                for key in self.services_in_release() {
                    self.mark(Subject::Service(key));
                }
                return;
            }
            Changed::Facts => {}
        }
        let node = Holder::Node(name.to_owned());
        let gateway = Holder::Gateway(name.to_owned());
        self.move_holds(&addresses, &self.nodes.own_addresses(name), &node);
        self.move_holds(&gateways, &self.nodes.gateways(name), &gateway);
        self.book.set_cluster(ClusterUse::Pods, self.nodes.pod_ranges());
        self.move_holds(&edges, &self.nodes.subnet_edges(name), &Holder::SubnetEdge(name.to_owned()));
        self.mark_services();
        self.mark_pools();
        self.mark_unclaimed();
    }

    fn move_holds(&mut self, was: &BTreeSet<IpAddr>, is: &BTreeSet<IpAddr>, holder: &Holder) {
        for address in is.difference(was) {
            self.hold(*address, holder.clone());
        }
        for address in was.difference(is) {
            self.let_go(*address, holder);
        }
    }

    /// Services whose claims are dropped already and that wait for the withdrawal.
    fn services_in_release(&self) -> BTreeSet<ClaimRef> {
        self.unclaimed
            .keys()
            .filter_map(|address| self.vips.get(*address))
            .flat_map(|vip| concerns(vip))
            .collect()
    }

    pub(super) fn on_endpoint_slices(&mut self, change: Change<EndpointSlice>) {
        let changed = match change {
            Change::Applied(slice) => self.endpoints.put(&slice),
            Change::Deleted(slice) => self.endpoints.remove(&endpoints::key(&slice)),
            Change::Listed(all) => {
                let listed: BTreeSet<ClaimRef> = all.iter().map(|slice| endpoints::key(slice)).collect();
                let missing = self.endpoints.missing_from(&listed);
                let mut changed: Vec<ClaimRef> =
                    missing.iter().flat_map(|key| self.endpoints.remove(key)).collect();
                changed.extend(all.iter().flat_map(|slice| self.endpoints.put(slice)));
                changed
            }
        };
        for key in changed {
            if self.vips.of_service(&key).next().is_some() {
                self.mark(Subject::Service(key));
            }
        }
    }
}
