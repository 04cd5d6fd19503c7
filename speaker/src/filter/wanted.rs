//! From what is asked for to the table that does it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::frontend::{Claim, Frontend, Guard, Port, ServiceName};
use super::plan::Scope;
use super::sources::{Family, Sources};
use super::table::{AddressEntry, Barrier, Table};
use crate::lan::is_special;

/// Whose addresses are never a Service's: the speaker refuses to announce them, whatever the API says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stations {
    /// This node's, and its gateways'.
    Node,
    /// The other speakers' nodes'.
    Peers,
}

/// What is asked for, and the table that does it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    frontends: BTreeMap<IpAddr, Arc<Frontend>>,
    guards: BTreeMap<ServiceName, Arc<Guard>>,
    /// The addresses that a Service claims.
    claimed: BTreeMap<ServiceName, BTreeSet<IpAddr>>,
    /// The Services whose guards name a port of the node.
    naming: BTreeMap<Port, BTreeSet<ServiceName>>,
    /// The addresses that this node announces.
    announced: BTreeSet<IpAddr>,
    stations: BTreeMap<Stations, BTreeSet<IpAddr>>,
    table: Table,
}

impl Wanted {
    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Whether rules tell of packets.
    pub fn set_log(&mut self, log: bool) {
        self.table.shape.log = log;
    }

    /// What is asked for at an address.
    pub fn frontend(&self, address: IpAddr) -> Option<&Arc<Frontend>> {
        self.frontends.get(&address)
    }

    /// Every address with what is asked for there.
    pub fn frontends(&self) -> &BTreeMap<IpAddr, Arc<Frontend>> {
        &self.frontends
    }

    /// Who may come in to a Service; nothing where it has no source ranges.
    pub fn guard(&self, service: &ServiceName) -> Option<&Arc<Guard>> {
        self.guards.get(service)
    }

    /// Every guard.
    pub fn guards(&self) -> &BTreeMap<ServiceName, Arc<Guard>> {
        &self.guards
    }

    /// The Service whose guard names a port of the node.
    pub fn node_port_of(&self, port: Port) -> Option<&ServiceName> {
        self.naming.get(&port)?.first()
    }

    /// Something else is asked for at an address, or nothing. Tells what the table has to change.
    pub fn set_frontend(
        &mut self,
        address: IpAddr,
        frontend: Option<Arc<Frontend>>,
        dirty: &mut BTreeSet<Scope>,
    ) {
        let before = match frontend {
            Some(frontend) => {
                for claim in frontend.claims() {
                    self.claimed.entry(claim.service.clone()).or_default().insert(address);
                }
                self.frontends.insert(address, frontend)
            }
            None => self.frontends.remove(&address),
        };
        if let Some(before) = before {
            let now = self.frontends.get(&address);
            for Claim { service, .. } in before.claims() {
                if now.is_some_and(|now| now.claims().iter().any(|claim| claim.service == *service)) {
                    continue;
                }
                if let Some(addresses) = self.claimed.get_mut(service) {
                    addresses.remove(&address);
                    if addresses.is_empty() {
                        self.claimed.remove(service);
                    }
                }
            }
        }
        self.compile_address(address, dirty);
    }

    /// A Service has another guard, or none. Tells what the table has to change.
    pub fn set_guard(
        &mut self,
        service: &ServiceName,
        guard: Option<Arc<Guard>>,
        dirty: &mut BTreeSet<Scope>,
    ) {
        let before = match guard.clone() {
            Some(guard) => self.guards.insert(service.clone(), guard),
            None => self.guards.remove(service),
        };
        let mut ports = BTreeSet::new();
        for port in before.iter().flat_map(|before| &before.node_ports) {
            if let Some(services) = self.naming.get_mut(port) {
                services.remove(service);
                if services.is_empty() {
                    self.naming.remove(port);
                }
            }
            ports.insert(*port);
        }
        for port in guard.iter().flat_map(|guard| &guard.node_ports) {
            self.naming.entry(*port).or_default().insert(service.clone());
            ports.insert(*port);
        }
        for port in ports {
            self.compile_node_port(port, dirty);
        }
        for address in self.claimed.get(service).cloned().unwrap_or_default() {
            self.compile_address(address, dirty);
        }
    }

    /// This node announces an address, or does no more. Tells what the table has to change.
    pub fn set_announced(&mut self, address: IpAddr, is_announced: bool, dirty: &mut BTreeSet<Scope>) {
        if is_announced {
            self.announced.insert(address);
        } else {
            self.announced.remove(&address);
        }
        self.compile_address(address, dirty);
    }

    /// Takes in all addresses of these stations. Tells which have become theirs, or are no more, and what the
    /// table has to change.
    pub fn set_stations(
        &mut self,
        whose: Stations,
        addresses: BTreeSet<IpAddr>,
        dirty: &mut BTreeSet<Scope>,
    ) -> Vec<IpAddr> {
        let before = self.stations.insert(whose, addresses).unwrap_or_default();
        let changed: Vec<IpAddr> = before.symmetric_difference(&self.stations[&whose]).copied().collect();
        for address in &changed {
            self.compile_address(*address, dirty);
        }
        changed
    }

    /// Whether the address is a station's or none that a host could have, so that to refuse what comes to it would cut the node off from its
    /// gateway or from another node. While this node announces it all the same it is guarded.
    pub fn is_spared(&self, address: IpAddr) -> bool {
        let is_theirs = || self.stations.values().any(|addresses| addresses.contains(&address));
        !self.announced.contains(&address) && (is_special(address) || is_theirs())
    }

    /// Whether this node announces an address.
    pub fn is_announced(&self, address: IpAddr) -> bool {
        self.announced.contains(&address)
    }

    /// The addresses that a Service claims.
    pub fn claimed_by(&self, service: &ServiceName) -> impl Iterator<Item = IpAddr> + use<'_> {
        self.claimed.get(service).into_iter().flatten().copied()
    }

    fn compile_address(&mut self, address: IpAddr, dirty: &mut BTreeSet<Scope>) {
        let entry = self.frontends.get(&address).and_then(|frontend| self.entry(address, frontend));
        if self.table.address(address) != entry.as_ref() {
            self.table.set_address(address, entry);
            dirty.insert(Scope::Address(address));
        }
    }

    fn compile_node_port(&mut self, port: Port, dirty: &mut BTreeSet<Scope>) {
        let barrier = self.naming.get(&port).map(|services| {
            let mut lists =
                services.iter().filter_map(|service| self.guards.get(service)).map(|guard| &guard.sources);
            let first = lists.next().cloned().unwrap_or_default();
            // A port moves from one Service to another, and who may come in is not known until it has.
            let is_settled = lists.all(|other| *other == first);
            Barrier::up(if is_settled { first } else { Sources::default() })
        });
        if self.table.node_port(port) != barrier.as_ref() {
            self.table.set_node_port(port, barrier);
            dirty.insert(Scope::NodePort(port));
        }
    }

    /// What there must be for an address; nothing where nobody claims it, or where it is a station's: it is not
    /// ours then.
    fn entry(&self, address: IpAddr, frontend: &Frontend) -> Option<AddressEntry> {
        if self.is_spared(address) {
            return None;
        }
        let family = Family::of(address);
        let admitted: Vec<Sources> =
            frontend.claims().iter().map(|claim| self.admitted(claim, family)).collect();
        let first = admitted.first()?;
        // The barrier before the address lets in whom any Service there lets in.
        let any = if admitted.iter().all(|sources| sources == first) {
            first.clone()
        } else {
            admitted.iter().flat_map(Sources::nets).copied().collect()
        };
        let guarded = frontend.ports().filter_map(|(port, claim)| {
            let sources = self.admitted(claim, family);
            (sources != any).then(|| (port, Barrier::up(sources)))
        });
        Some(AddressEntry {
            guarded: guarded.collect(),
            ports: frontend.ports().map(|(port, _)| port).collect(),
            barrier: Barrier::up(any),
            is_announced: self.announced.contains(&address),
        })
    }

    /// Whom a claim lets in: everybody where its Service has no guard and needs none, nobody while it needs one
    /// that is not known.
    pub fn admitted(&self, claim: &Claim, family: Family) -> Sources {
        match (self.guards.get(&claim.service), &claim.guard) {
            (Some(guard), _) => guard.sources.of(family),
            (None, Some(_)) => Sources::default(),
            (None, None) => Sources::everyone(family),
        }
    }

    /// Whether the guards that an address asks for are those that are known, or older ones.
    pub fn has_what_is_asked(&self, frontend: &Frontend) -> bool {
        frontend.claims().iter().all(|claim| match &claim.guard {
            Some(digest) => self.guards.get(&claim.service).is_some_and(|guard| guard.is_at_least(digest)),
            None => true,
        })
    }
}
