//! What an observer of the API server remembers: states since the last quiet, who may move, who had what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use landfall_controller::granting::request::{has_sharing_key, read};
use landfall_controller::granting::verdict::addresses;
use landfall_controller::mind::{Change, Event};
use landfall_crds::address::Family;
use landfall_crds::{Claim, IPPool, ServiceGuard, VirtualIP, VirtualIPSpec};

use crate::api::{Api, GUARDS, KINDS, NAMESPACES, NODES, POOLS, SERVICE_CIDRS, SERVICES, VIPS, full_name};
use crate::sources::are_limited;

/// Who let an address go.
#[derive(Clone, Debug, PartialEq)]
pub struct Released {
    pub service: String,
    pub uid: String,
}

/// All that, kept up to date by [`Ledger::follow`].
#[derive(Default)]
pub struct Ledger {
    /// How often each Service may still change its address, by name and family: once for each time that
    /// its user asked for something else, and for each controller.
    pub moves: BTreeMap<(String, Family), u32>,
    /// The length of each log when everybody had seen everything.
    quiet_at: [usize; KINDS],
    /// How far the logs have been read.
    read_to: [usize; KINDS],
    /// States that somebody may still decide on: those of the last quiet and all since.
    pools: BTreeMap<String, Vec<Arc<IPPool>>>,
    services: BTreeMap<String, Vec<Arc<Service>>>,
    namespaces: BTreeMap<String, Vec<Arc<Namespace>>>,
    guards: BTreeMap<String, Vec<Arc<ServiceGuard>>>,
    /// Services that were gone at some time since the last quiet.
    gone: BTreeSet<String>,
    /// Pools that have been there since the last quiet.
    lasting: BTreeSet<String>,
    /// Addresses whose VirtualIPs have vanished under their claims since the last quiet.
    vanished: BTreeSet<IpAddr>,
    /// A claim of a controller that is no more has arrived late since the last quiet.
    pub came_late: bool,
    /// Who was on an address beside one that was edited since the last quiet.
    beside: BTreeSet<(String, IpAddr)>,
    /// Who showed or claimed which address, in these states.
    had: BTreeSet<(String, IpAddr)>,
    /// The uid and spec of every VirtualIP that is there or has vanished, latest last, in these states.
    specs: BTreeMap<IpAddr, Vec<Arc<VirtualIP>>>,
    /// Who let go of an address, latest last.
    released: BTreeMap<IpAddr, Vec<Released>>,
    /// The highest placement epoch that each address ever had.
    epochs: BTreeMap<IpAddr, i64>,
}

/// What of a Service's edit may change its address.
fn may_move(was: &Service, is: &Service) -> bool {
    let wish = |service: &Service| {
        let spec = service.spec.clone().unwrap_or_default();
        let request = read(service).map(|request| (request.addresses, request.pools, request.internal));
        let request = request.map_err(|wait| wait.message);
        (request, spec.type_, spec.load_balancer_class, spec.ip_families, spec.ip_family_policy)
    };
    let among_others = |service: &Service| {
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.unwrap_or_default();
        let ports: Vec<_> = ports.into_iter().map(|port| (port.protocol, port.port)).collect();
        let key = read(service).map(|request| request.sharing_key).map_err(|wait| wait.message);
        let sources = [Family::IPv4, Family::IPv6].map(|family| are_limited(service, family));
        (ports, key, spec.external_traffic_policy, spec.selector, sources)
    };
    let shares = has_sharing_key(was) || has_sharing_key(is);
    wish(was) != wish(is) || shares && among_others(was) != among_others(is)
}

impl Ledger {
    /// Notes what a user's edit of a Service allows. Each of several controllers that do not elect a leader may
    /// act on it once, whatever the others have done meanwhile.
    pub fn edited(&mut self, name: &str, was: &Service, is: &Service, controllers: usize) {
        if may_move(was, is) {
            let edited: Vec<IpAddr> =
                self.had.iter().filter(|(known, _)| known == name).map(|(_, address)| *address).collect();
            let beside = self.had.iter().filter(|(known, address)| known != name && edited.contains(address));
            self.beside.extend(beside.cloned());
            self.may_move(name, controllers);
        }
    }

    /// Notes that each controller may give a Service other addresses once.
    pub fn may_move(&mut self, name: &str, controllers: usize) {
        for family in [Family::IPv4, Family::IPv6] {
            *self.moves.entry((name.to_owned(), family)).or_default() += controllers as u32;
        }
    }

    /// Everybody has seen everything. Only those who wait may still get what they asked for.
    pub fn is_quiet(&mut self, api: &Api, waiting: &BTreeSet<String>) {
        self.follow(api, false);
        self.moves.retain(|(name, _), _| waiting.contains(name));
        self.quiet_at = self.read_to;
        self.lasting = api.pools.keys().cloned().collect();
        self.vanished.clear();
        for states in self.specs.values_mut() {
            states.drain(..states.len() - 1);
        }
        self.beside.clear();
        self.came_late = false;
        let one = |(name, object): (&String, &Arc<IPPool>)| (name.clone(), vec![Arc::clone(object)]);
        self.pools = api.pools.iter().map(one).collect();
        let one = |(name, object): (&String, &Arc<Service>)| (name.clone(), vec![Arc::clone(object)]);
        self.services = api.services.iter().map(one).collect();
        let one = |(name, object): (&String, &Arc<Namespace>)| (name.clone(), vec![Arc::clone(object)]);
        self.namespaces = api.namespaces.iter().map(one).collect();
        let one = |guard: &Arc<ServiceGuard>| (guarded(guard), vec![Arc::clone(guard)]);
        self.guards = api.guards.values().map(one).collect();
        self.gone.clear();
        let shown = api.services.iter().flat_map(|(name, service)| {
            addresses(service).into_iter().map(|address| (name.clone(), address))
        });
        self.had = shown.collect();
        for vip in api.vips.values() {
            let address = vip.address().unwrap();
            self.had.extend(vip.spec.claims.iter().map(|claim| (holder(claim), address)));
        }
    }

    /// Reads on in the logs. `by_hand` says that a person did what is new there.
    pub fn follow(&mut self, api: &Api, by_hand: bool) {
        for event in &api.logs[POOLS][self.read_to[POOLS]..] {
            match event {
                Event::Pool(Change::Applied(pool)) => {
                    let states = self.pools.entry(full_name(&pool.metadata)).or_default();
                    let is_edit = states
                        .last()
                        .is_none_or(|last| last.spec != pool.spec || last.metadata.uid != pool.metadata.uid);
                    if is_edit {
                        states.push(Arc::clone(pool));
                    }
                }
                Event::Pool(Change::Deleted(pool)) => {
                    self.lasting.remove(&full_name(&pool.metadata));
                    self.forget_what_is_only_in_pools(api);
                }
                _ => {}
            }
        }
        for event in &api.logs[SERVICES][self.read_to[SERVICES]..] {
            match event {
                Event::Service(Change::Applied(service)) => {
                    let name = full_name(&service.metadata);
                    self.had.extend(addresses(service).into_iter().map(|address| (name.clone(), address)));
                    self.services.entry(name).or_default().push(Arc::clone(service));
                }
                Event::Service(Change::Deleted(service)) => {
                    self.gone.insert(full_name(&service.metadata));
                }
                _ => {}
            }
        }
        for event in &api.logs[NAMESPACES][self.read_to[NAMESPACES]..] {
            if let Event::Namespace(Change::Applied(namespace)) = event {
                let name = full_name(&namespace.metadata);
                self.namespaces.entry(name).or_default().push(Arc::clone(namespace));
            }
        }
        for event in &api.logs[VIPS][self.read_to[VIPS]..] {
            match event {
                Event::VirtualIp(Change::Applied(vip)) => self.see(vip),
                Event::VirtualIp(Change::Deleted(vip)) => {
                    let address = vip.address().unwrap();
                    // What was to be noted of a pool that is gone is gone with it.
                    let has_pool = vip.spec.pool.as_ref().is_some_and(|name| self.lasting.contains(name));
                    let is_kept = vip.spec.claims.is_empty() && vip.spec.reservation.is_some();
                    if by_hand && !is_kept || !has_pool {
                        self.released.remove(&address);
                    } else if by_hand {
                        // All of that was noted before its finalizer came off, if in a pool that has gone since.
                        let pool = vip.spec.pool.as_ref().and_then(|name| api.pools.get(name));
                        let born = pool.and_then(|pool| pool.metadata.creation_timestamp.clone());
                        let holders = vip.status.iter().flat_map(|status| &status.last_holders);
                        let noted: Vec<&String> = holders
                            .filter(|holder| born.as_ref().is_some_and(|born| born.0 < holder.until.0))
                            .map(|holder| &holder.uid)
                            .collect();
                        let released = self.released.entry(address).or_default();
                        released.retain(|released| noted.contains(&&released.uid));
                    }
                    if !vip.spec.claims.is_empty() {
                        self.vanished.insert(address);
                    }
                }
                _ => {}
            }
        }
        for event in &api.logs[GUARDS][self.read_to[GUARDS]..] {
            if let Event::ServiceGuard(Change::Applied(guard)) = event {
                self.guards.entry(guarded(guard)).or_default().push(Arc::clone(guard));
            }
        }
        for kind in 0..KINDS {
            self.read_to[kind] = api.logs[kind].len();
        }
    }

    fn see(&mut self, vip: &Arc<VirtualIP>) {
        let address = vip.address().unwrap();
        let uid = &vip.metadata.uid;
        if let Some(placement) = &vip.spec.placement {
            let highest = self.epochs.entry(address).or_insert(placement.epoch);
            *highest = placement.epoch.max(*highest);
        }
        let states = self.specs.entry(address).or_default();
        let was = states.last().cloned();
        if was.as_ref().is_none_or(|was| was.spec != vip.spec || was.metadata.uid != *uid) {
            states.push(Arc::clone(vip));
        }
        self.had.extend(vip.spec.claims.iter().map(|claim| (holder(claim), address)));
        // What has vanished was not let go.
        for claim in was.iter().filter(|was| was.metadata.uid == *uid).flat_map(|was| &was.spec.claims) {
            if !vip.spec.claims.iter().any(|left| holder(left) == holder(claim)) {
                let released = Released { service: holder(claim), uid: claim.uid.clone() };
                self.released.entry(address).or_default().push(released);
            }
        }
    }

    /// With a pool goes what is noted there.
    fn forget_what_is_only_in_pools(&mut self, api: &Api) {
        for (address, released) in &mut self.released {
            let vip = api.vips.get(&landfall_crds::virtual_ip_name(*address));
            let holders = vip.and_then(|vip| vip.status.as_ref()).map(|status| &status.last_holders);
            let is_on_it = |uid: &str| holders.into_iter().flatten().any(|holder| holder.uid == uid);
            released.retain(|released| is_on_it(&released.uid));
        }
    }

    /// Whether the Service has shown or claimed the address since the last quiet, or did then.
    pub fn had(&self, service: &str, address: IpAddr) -> bool {
        self.had.contains(&(service.to_owned(), address))
    }

    /// Whether the VirtualIP of the address was away under its claims since the last quiet.
    pub fn was_away(&self, address: IpAddr) -> bool {
        self.vanished.contains(&address)
    }

    /// Whether one beside the Service on the address was edited while its VirtualIP went.
    pub fn is_undecided(&self, service: &str, address: IpAddr) -> bool {
        self.vanished.contains(&address) && self.beside.contains(&(service.to_owned(), address))
    }

    /// What an address's VirtualIP has said since the last quiet, latest last, even if it has vanished.
    pub fn specs(&self, address: IpAddr) -> impl DoubleEndedIterator<Item = &VirtualIPSpec> {
        self.specs.get(&address).into_iter().flatten().map(|vip| &vip.spec)
    }

    /// The highest placement epoch that the address ever had.
    pub fn highest_epoch(&self, address: IpAddr) -> Option<i64> {
        self.epochs.get(&address).copied()
    }

    /// Who let go of each address, latest last.
    pub fn released(&self) -> impl Iterator<Item = (IpAddr, &[Released])> {
        self.released.iter().map(|(address, released)| (*address, released.as_slice()))
    }

    /// The states of pools that a controller may decide on.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &IPPool)> {
        self.pools.iter().flat_map(|(name, states)| states.iter().map(|pool| (name.as_str(), &**pool)))
    }

    /// Whether the pool is as it was at the last quiet.
    pub fn pool_is_as_it_was(&self, name: &str, api: &Api) -> bool {
        self.pools.get(name).map_or(0, Vec::len) == usize::from(api.pools.contains_key(name))
    }

    /// The states of a Service that a controller may decide on.
    pub fn services(&self, name: &str) -> &[Arc<Service>] {
        self.services.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The states of a namespace that a controller may decide on.
    pub fn namespaces(&self, name: &str) -> &[Arc<Namespace>] {
        self.namespaces.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// What the guard of a Service has said since the last quiet.
    pub fn guards(&self, service: &str) -> impl Iterator<Item = &ServiceGuard> {
        self.guards.get(service).into_iter().flatten().map(|guard| &**guard)
    }

    /// Whether the Service was gone at some time since the last quiet.
    pub fn was_gone(&self, service: &str) -> bool {
        self.gone.contains(service)
    }

    /// Whether Nodes and ranges of the cluster are as they were at the last quiet.
    pub fn nodes_are_as_they_were(&self) -> bool {
        [NODES, SERVICE_CIDRS].iter().all(|kind| self.quiet_at[*kind] == self.read_to[*kind])
    }
}

/// The name of the Service that a guard is of.
fn guarded(guard: &ServiceGuard) -> String {
    format!("{}/{}", guard.spec.service.namespace, guard.spec.service.name)
}

/// The name of the Service that a claim is of.
pub fn holder(claim: &Claim) -> String {
    format!("{}/{}", claim.namespace, claim.name)
}
