//! What must hold, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::Endpoint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use landfall_controller::effects::Effect;
use landfall_controller::granting::request::{Request, families, read};
use landfall_controller::granting::verdict::{addresses, has_our_finalizer, ingress, is_load_balancer};
use landfall_controller::status::{OURS, conditions_of};
use landfall_controller::world::virtual_ips::{key_of_claim, last_holder};
use landfall_crds::address::Family;
use landfall_crds::duration::parse_duration;
use landfall_crds::names::annotations;
use landfall_crds::{
    Claim, IPPool, Reservation, Scope, TrafficPolicy, VirtualIP, VirtualIPSpec, virtual_ip_name,
};

use crate::api::Api;
use crate::guards;
use crate::ledger::{Ledger, holder};
use crate::sources::are_limited;

/// `i4_unique`: a controller's write never makes a Service show an address that another one shows, unless
/// both claim its VirtualIP and can be there beside each other.
pub fn i4_unique(api: &Api, ledger: &Ledger, name: &str, was: &[IpAddr]) {
    let Some(service) = api.services.get(name) else { return };
    for address in addresses(service).into_iter().filter(|address| !was.contains(address)) {
        for (other, _) in
            api.services.iter().filter(|(other, known)| *other != name && addresses(known).contains(&address))
        {
            // What another implementation writes at the same moment nobody can know of.
            if is_anothers(&api.services[other]) {
                continue;
            }
            if let Err(why) = are_rightly_beside(ledger, address, name, other) {
                panic!("i4_unique: {address} is shown by {other} and now by {name}: {why}");
            }
        }
    }
}

fn claim_of<'a>(spec: &'a VirtualIPSpec, name: &str) -> Option<&'a Claim> {
    spec.claims.iter().find(|claim| holder(claim) == name)
}

fn ports_of<'a>(
    spec: &'a VirtualIPSpec,
    name: &'a str,
) -> impl Iterator<Item = (landfall_crds::Protocol, i32)> + 'a {
    let mine =
        spec.ports.iter().filter(move |port| format!("{}/{}", port.claim.namespace, port.claim.name) == name);
    mine.map(|port| (port.protocol, port.port))
}

/// Whether two Services may be on one address, by what its VirtualIP records of them, or recorded before it
/// vanished or one of them began to leave.
fn are_rightly_beside(ledger: &Ledger, address: IpAddr, one: &str, other: &str) -> Result<(), String> {
    let mut verdict = Err("no VirtualIP".to_owned());
    for spec in ledger.specs(address).rev() {
        let of_this = fit(ledger, address, spec, one, other);
        if of_this.is_ok() {
            return of_this;
        }
        if verdict == Err("no VirtualIP".to_owned()) {
            verdict = of_this;
        }
    }
    verdict
}

/// Whether two Services may be on one address, by their claims.
fn fit(ledger: &Ledger, address: IpAddr, spec: &VirtualIPSpec, one: &str, other: &str) -> Result<(), String> {
    let (Some(mine), Some(theirs)) = (claim_of(spec, one), claim_of(spec, other)) else {
        return Err(format!("not both claim it: {:?}", spec.claims));
    };
    match (&mine.sharing, &theirs.sharing) {
        (Some(mine), Some(theirs)) if mine.key == theirs.key => {}
        (mine, theirs) => return Err(format!("the keys are {mine:?} and {theirs:?}")),
    }
    if mine.traffic_policy != theirs.traffic_policy {
        return Err("the traffic policies differ".into());
    }
    let selector = |claim: &Claim| claim.sharing.as_ref().and_then(|sharing| sharing.selector.clone());
    if mine.traffic_policy == TrafficPolicy::Local
        && (selector(mine).is_none()
            || selector(mine) != selector(theirs)
            || mine.namespace != theirs.namespace)
    {
        return Err("policy Local, and not the same pods".into());
    }
    if let Some(port) = ports_of(spec, one).find(|port| ports_of(spec, other).any(|taken| taken == *port)) {
        return Err(format!("both serve {port:?}"));
    }
    if mine.namespace != theirs.namespace {
        let allows = |pool: &IPPool| {
            let named =
                pool.spec.sharing.as_ref().map(|sharing| sharing.namespaces.as_slice()).unwrap_or_default();
            named.contains(&mine.namespace) && named.contains(&theirs.namespace)
        };
        // The claims may be older than the last quiet, which is when they were looked at.
        let is_new = !ledger.had(one, address) || !ledger.had(other, address);
        if is_new
            && !ledger.pools().any(|(_, pool)| pool.spec.grantable().0.contains(address) && allows(pool))
        {
            return Err("no pool lets these namespaces share".into());
        }
    }
    Ok(())
}

/// The API server would take what a controller writes: ports are unique (`x-kubernetes-list-map-keys`).
pub fn is_valid(effect: &Effect) {
    let (Effect::CreateVirtualIp { spec, .. } | Effect::UpdateVirtualIp { spec, .. }) = effect else {
        return;
    };
    let ports: BTreeSet<_> = spec.ports.iter().map(|port| (port.protocol, port.port)).collect();
    assert_eq!(ports.len(), spec.ports.len(), "the API server refuses {spec:?}");
    let names: BTreeSet<String> = spec.claims.iter().map(holder).collect();
    assert_eq!(names.len(), spec.claims.len(), "the API server refuses {spec:?}");
    assert!(names.len() <= 64 && ports.len() <= 256, "the API server refuses {spec:?}");
}

/// `i5_stable`: the address of a living Service changes only when its user asked. Of two that share an
/// address it is told from their claims who was edited; if the VirtualIP goes meanwhile, either may lose.
pub fn i5_stable(api: &Api, ledger: &mut Ledger, name: &str, was: &[IpAddr]) {
    let Some(service) = api.services.get(name) else { return };
    if service.metadata.deletion_timestamp.is_some() || !is_load_balancer(service) {
        return;
    }
    let is = addresses(service);
    for address in was.iter().filter(|address| !is.contains(address)) {
        if ledger.is_undecided(name, *address) {
            continue;
        }
        let left = ledger.moves.entry((name.to_owned(), Family::of(*address))).or_default();
        assert!(*left > 0, "i5_stable: {name} lost {address} and has {is:?}; nobody asked");
        *left -= 1;
    }
}

/// `epochs`: the placement epoch of an address never goes back, through all that its VirtualIP goes through:
/// while there is one it is raised only to have another node announce, or to grant anew what a node may still
/// announce for the former holder; and one that comes after it has a
/// higher epoch, unless the last vanished under its claims and is brought back as it was. Of several controllers
/// that do not elect a leader one may bring back what vanished before the last, which it has not seen.
pub fn epochs(ledger: &Ledger, controllers: usize, is: &VirtualIP, was: Option<&VirtualIP>) {
    let address = is.address().unwrap();
    let before = was.and_then(|was| was.spec.placement.as_ref());
    let Some(placement) = &is.spec.placement else {
        assert!(before.is_none(), "epochs: the placement of {address} is gone: {before:?}");
        return;
    };
    let epoch = placement.epoch;
    if let Some(before) = before {
        let announcer = was.and_then(|was| was.status.as_ref()).and_then(|status| status.announcer.as_ref());
        let announcer = announcer.map(|announcer| &announcer.node);
        let moves = announcer != placement.candidates.first().map(|first| &first.node);
        let last = was.and_then(last_holder);
        let is_anothers = is.spec.claims.iter().any(|claim| last.as_ref() != Some(&key_of_claim(claim)));
        let is_anew = was.is_some_and(|was| was.spec.claims.is_empty()) && is_anothers;
        assert!(
            epoch == before.epoch || epoch > before.epoch && (moves || is_anew && announcer.is_some()),
            "epochs: {address} goes from {before:?} to {placement:?}, announced by {announcer:?}"
        );
        return;
    }
    let Some(highest) = ledger.highest_epoch(address) else { return };
    let placed = || ledger.specs(address).rev().filter(|spec| spec.placement.is_some());
    let vanished = placed().next().is_some_and(|last| !last.claims.is_empty());
    let of_claimed = |spec: &VirtualIPSpec| {
        !spec.claims.is_empty() && spec.placement.as_ref().is_some_and(|placement| placement.epoch == epoch)
    };
    assert!(
        epoch > highest || vanished && (epoch == highest || controllers > 1 && placed().any(of_claimed)),
        "epochs: {address} comes with {epoch} after {highest}"
    );
}

/// `by_the_rules`: who comes to claim an address may have it by some state of its pool, its namespace and
/// itself that a controller may have decided on.
pub fn by_the_rules(api: &Api, ledger: &Ledger, is: &VirtualIP, was: Option<&VirtualIP>, claim: &Claim) {
    let (address, name) = (is.address().unwrap(), holder(claim));
    let pools: Vec<&IPPool> = ledger
        .pools()
        .map(|(_, pool)| pool)
        .filter(|pool| pool.spec.grantable().0.contains(address))
        .collect();
    let unlabelled = BTreeMap::new();
    let serves = |pool: &IPPool, service: &Service, namespace: &Namespace| {
        let Ok(request) = read(service) else { return false };
        let spec = &pool.spec;
        let names_pool =
            request.pools.iter().flatten().any(|wanted| Some(wanted) == pool.metadata.name.as_ref());
        let names_it = names_pool || request.addresses.contains(&address);
        let asked = request.address(Family::of(address));
        let is_asked_for =
            if asked.is_some() { asked == Some(address) } else { request.pools.is_none() || names_pool };
        // What another implementation gave is taken over as it is.
        let is_adopted = is_anothers(service) && addresses(service).contains(&address) && adopts(service);
        (is_asked_for || is_adopted)
            && spec.external_targets.is_empty()
            && (spec.auto_assign || names_it || is_adopted || was.is_some_and(|was| is_known_to(was, claim)))
            && selects(
                spec.namespace_selector.as_ref(),
                namespace.metadata.labels.as_ref().unwrap_or(&unlabelled),
            )
            && selects(
                spec.service_selector.as_ref(),
                service.metadata.labels.as_ref().unwrap_or(&unlabelled),
            )
            && in_scope(pool, &request)
            && (!spec.require_source_ranges || are_limited(service, Family::of(address)))
    };
    let services = ledger.services(&name);
    let namespaces = ledger.namespaces(&claim.namespace);
    let may = pools.iter().any(|pool| {
        services.iter().any(|service| namespaces.iter().any(|namespace| serves(pool, service, namespace)))
    });
    assert!(
        may,
        "by_the_rules: {name} is given {address}, which no pool would: {:?}",
        pools.iter().map(|pool| &pool.spec).collect::<Vec<_>>()
    );
    if ledger.nodes_are_as_they_were() {
        assert!(!is_the_clusters(api, address), "by_the_rules: {name} is given the cluster's own {address}");
    }
    let Some(was) = was.filter(|was| was.spec.claims.is_empty()) else { return };
    let last = was.status.iter().flat_map(|status| &status.last_holders).next();
    match was.spec.reservation.as_ref().filter(|kept| is_live(api, kept)) {
        Some(kept) => {
            let is_for = kept.namespace == claim.namespace
                && kept.name.as_ref().is_none_or(|name| *name == claim.name);
            assert!(is_for, "by_the_rules: {name} is given {address}, which is kept: {kept:?}");
        }
        None => {
            let is_own =
                last.is_some_and(|last| last.namespace == claim.namespace && last.name == claim.name);
            let may = is_own
                || pools.iter().any(|pool| rests_until(was, pool).is_none_or(|until| until <= api.now));
            assert!(may, "by_the_rules: {name} is given {address}, which rests");
        }
    }
}

/// Whether an address is kept for the Service by name, or nobody has it and the Service is one of those who had.
fn is_known_to(vip: &VirtualIP, claim: &Claim) -> bool {
    let kept = vip.spec.reservation.as_ref();
    let former = vip.status.iter().flat_map(|status| &status.last_holders);
    let mut former = former.filter(|_| vip.spec.claims.is_empty());
    kept.is_some_and(|kept| kept.namespace == claim.namespace && kept.name.as_ref() == Some(&claim.name))
        || former.any(|former| former.namespace == claim.namespace && former.name == claim.name)
}

/// `quota`: a namespace that comes to use one more address of a pool uses no more than it may by some
/// state of the pool that the controller may have decided on. Holds for a single controller, and as long as
/// no claim of a predecessor comes late: quotas are counted by who decides, not by the API server.
pub fn quota(api: &Api, ledger: &Ledger, is: &VirtualIP, was: Option<&VirtualIP>, claim: &Claim) {
    let Some(pool) = is.spec.pool.as_deref() else { return };
    let uses = |vip: &VirtualIP| {
        let kept = vip.spec.reservation.as_ref().filter(|kept| kept.namespace_uid.is_some());
        vip.spec.pool.as_deref() == Some(pool)
            && (vip.spec.claims.iter().any(|known| known.namespace == claim.namespace)
                || kept.is_some_and(|kept| kept.namespace == claim.namespace))
    };
    // What rests after the namespace had it last counts until it is free, so that to take it back is nothing more.
    let rests = |vip: &VirtualIP| {
        let last = vip.status.iter().flat_map(|status| &status.last_holders).next();
        vip.spec.pool.as_deref() == Some(pool)
            && vip.spec.claims.is_empty()
            && vip.spec.reservation.is_none()
            && last.is_some_and(|last| last.namespace == claim.namespace)
    };
    if was.is_some_and(|was| uses(was) || rests(was)) {
        return;
    }
    let address = is.address().unwrap();
    // What the Service gives up for the new one, or was kept for it until then, still counts.
    let is_kept = |vip: &VirtualIP| {
        let kept = vip.spec.reservation.as_ref().filter(|_| vip.spec.claims.is_empty());
        kept.is_some_and(|kept| kept.namespace == claim.namespace && kept.name.as_ref() == Some(&claim.name))
    };
    let goes = |vip: &VirtualIP| {
        let other = vip.address().unwrap();
        other != address
            && Family::of(other) == Family::of(address)
            && (claim_of(&vip.spec, &holder(claim)).is_some() || is_kept(vip))
    };
    let count = api.vips.values().filter(|vip| uses(vip) && !goes(vip)).count();
    let states = ledger.pools().filter(|(name, _)| *name == pool);
    let most = states.map(|(_, pool)| {
        pool.spec
            .quota
            .as_ref()
            .and_then(|quota| quota.per_namespace)
            .map_or(usize::MAX, |most| most as usize)
    });
    let most = most.max().unwrap_or(usize::MAX);
    assert!(count <= most, "quota: {} uses {count} of pool {pool}, which gives {most}", claim.namespace);
}

fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let wanted = selector.and_then(|selector| selector.match_labels.as_ref());
    wanted.into_iter().flatten().all(|(name, value)| labels.get(name) == Some(value))
}

/// Whether the pool's scope admits the Service, internal or not.
fn in_scope(pool: &IPPool, request: &Request) -> bool {
    let (addresses, _) = pool.spec.grantable();
    let is_named = |wanted: &String| Some(wanted) == pool.metadata.name.as_ref();
    let names_it = request.pools.iter().flatten().any(is_named)
        || request.addresses.iter().any(|asked| addresses.contains(*asked));
    match pool.spec.scope {
        Scope::Any => !request.internal || names_it,
        Scope::Internal => request.internal,
        Scope::External => !request.internal,
    }
}

/// Whether the address is a node's own, or lies where the cluster has its Services or pods.
fn is_the_clusters(api: &Api, address: IpAddr) -> bool {
    let contains =
        |text: &String| text.parse::<landfall_crds::address::AddressRange>().unwrap().contains(address);
    let pods =
        api.nodes.values().flat_map(|node| node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten()));
    let services = api
        .service_cidrs
        .values()
        .flat_map(|cidr| cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()));
    let of_nodes = api
        .nodes
        .values()
        .flat_map(|node| node.status.iter().flat_map(|status| status.addresses.iter().flatten()));
    let of_speakers =
        api.speakers.values().flat_map(|speaker| speaker.status.iter().flat_map(|status| &status.interfaces));
    let text = address.to_string();
    pods.chain(services).any(contains)
        || of_nodes.into_iter().any(|own| own.address == text)
        || of_speakers.into_iter().any(|interface| interface.addresses.contains(&text))
}

/// Whether a reservation has not ended, by its time or with its namespace.
fn is_live(api: &Api, kept: &Reservation) -> bool {
    let namespace = api.namespaces.get(&kept.namespace).and_then(|namespace| namespace.metadata.uid.as_ref());
    kept.expires.as_ref().is_none_or(|expires| expires.0.as_second() > api.now)
        && kept.namespace_uid.as_ref().is_none_or(|uid| Some(uid) == namespace)
}

/// Until when the pool has a released address rest, in seconds since the epoch.
fn rests_until(vip: &VirtualIP, pool: &IPPool) -> Option<i64> {
    let delay = parse_duration(pool.spec.release_delay.as_deref()?)?;
    let released = vip.status.as_ref()?.last_holders.first()?.until.0.as_second();
    Some(released + delay.as_secs() as i64)
}

/// The pool that an address lies in: the oldest that holds it, unless the cluster uses it inside.
fn pool_of(api: &Api, address: IpAddr) -> Option<&IPPool> {
    let contains =
        |text: &String| text.parse::<landfall_crds::address::AddressRange>().unwrap().contains(address);
    let pods =
        api.nodes.values().flat_map(|node| node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten()));
    let services = api
        .service_cidrs
        .values()
        .flat_map(|cidr| cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()));
    if pods.chain(services).any(contains) {
        return None;
    }
    let holding = api.pools.values().filter(|pool| pool.spec.grantable().0.contains(address));
    let age = |pool: &IPPool| pool.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    holding.min_by_key(|pool| (age(pool), pool.metadata.name.clone())).map(|pool| &**pool)
}

/// When something ends by itself: a reservation, or the rest of an address that nobody claims.
pub fn dates(api: &Api) -> Vec<i64> {
    api.vips.values().filter_map(|vip| date(api, vip)).collect()
}

fn date(api: &Api, vip: &VirtualIP) -> Option<i64> {
    match vip.spec.reservation.as_ref().filter(|kept| is_live(api, kept)) {
        Some(kept) => kept.expires.as_ref().map(|expires| expires.0.as_second()),
        None if !vip.spec.claims.is_empty() => None,
        None => rests_until(vip, pool_of(api, vip.address()?)?).filter(|until| *until > api.now),
    }
}

/// The names of Services that wait for something.
pub fn waiting(api: &Api) -> BTreeSet<String> {
    let waits = |service: &Service| {
        let is_told =
            conditions_of(service).iter().any(|known| known.type_ == OURS[0] && known.status != "True");
        is_told || is_anothers(service) && adopts(service)
    };
    api.services.iter().filter(|(_, service)| waits(service)).map(|(name, _)| name.clone()).collect()
}

pub fn is_ours(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
    is_load_balancer(service)
        && service.metadata.deletion_timestamp.is_none()
        && class.is_none_or(|class| class == "landfall.dev/lan")
        && !is_anothers(service)
}

/// Services of another implementation have addresses in this world, and no mark of ours.
pub fn is_anothers(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
    class.is_none() && !ingress(service).is_empty() && !has_our_finalizer(service)
}

fn adopts(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(annotations::ADOPT)).is_some_and(|value| value == "true")
}

/// Everything that holds once nobody wants anything any more.
pub fn quiet(api: &Api, ledger: &Ledger) {
    no_service_is_stuck(api);
    every_virtual_ip_is_claimed_reserved_or_resting(api);
    every_service_has_what_its_condition_says(api);
    every_claim_says_what_its_service_is_like(api, ledger);
    policy_local_is_announced_where_its_endpoints_are(api);
    who_gives_source_ranges_up_is_not_announced(api);
    every_address_of_a_pool_is_accounted_for(api);
    what_is_not_ours_bears_no_mark(api);
    history(api, ledger);
    guards::quiet(api);
}

/// Where all nodes are well and speakers do what they are asked, addresses are announced by their first
/// candidates, and none of these has more than its share.
pub fn places_are_even(api: &Api) {
    let mut firsts: BTreeMap<&str, usize> = api.speakers.keys().map(|node| (node.as_str(), 0)).collect();
    let is_placed = |vip: &VirtualIP| {
        let placement = vip.spec.placement.as_ref();
        !vip.spec.claims.is_empty() && placement.is_some_and(|placement| !placement.candidates.is_empty())
    };
    let claimed: Vec<_> = api.vips.values().filter(|vip| is_placed(vip)).collect();
    for vip in &claimed {
        let first = &vip.spec.placement.as_ref().unwrap().candidates[0].node;
        let announcer = vip.status.as_ref().and_then(|status| status.announcer.as_ref());
        let announcer = announcer.map(|announcer| &announcer.node);
        assert_eq!(announcer, Some(first), "{:?} is announced elsewhere", vip.metadata.name);
        *firsts.entry(first).or_default() += 1;
    }
    let share = claimed.len().div_ceil(firsts.len());
    // What only some nodes can announce is even among these.
    let is_local = |vip: &&&std::sync::Arc<VirtualIP>| {
        vip.spec.claims.iter().any(|claim| claim.traffic_policy == TrafficPolicy::Local)
    };
    let spared = claimed.iter().filter(is_local).count();
    assert!(firsts.values().all(|held| *held <= share + spared), "uneven: {firsts:?}");
}

/// Of everyone on an address whose traffic policy is Local, its candidates have ready endpoints; or where
/// none are ready, some that are ending (k8s.io/kubernetes pkg/proxy/topology.go).
fn policy_local_is_announced_where_its_endpoints_are(api: &Api) {
    for vip in api.vips.values() {
        let family = Family::of(vip.address().unwrap()).to_string();
        let candidates = vip.spec.placement.iter().flat_map(|placement| &placement.candidates);
        let candidates: BTreeSet<&str> = candidates.map(|candidate| candidate.node.as_str()).collect();
        for claim in vip.spec.claims.iter().filter(|claim| claim.traffic_policy == TrafficPolicy::Local) {
            let slice = format!("{}-{}", holder(claim), family.to_lowercase());
            let endpoints = api.endpoint_slices.get(&slice).map(|slice| slice.endpoints.as_slice());
            let endpoints = endpoints.unwrap_or_default();
            let is_ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(true);
            let some_are_ready = endpoints.iter().any(is_ready);
            let count = endpoints.iter().filter(|endpoint| is_ready(endpoint) == some_are_ready);
            let nodes: BTreeSet<&str> = count.filter_map(|endpoint| endpoint.node_name.as_deref()).collect();
            assert!(
                candidates.is_subset(&nodes),
                "local: {candidates:?} may announce {family} of {}, which has endpoints on {nodes:?}",
                holder(claim)
            );
        }
    }
}

/// Of an address whose pool requires source ranges, nobody is announced who had some and has none of its family
/// any more.
fn who_gives_source_ranges_up_is_not_announced(api: &Api) {
    for vip in api.vips.values() {
        let pool = vip.spec.pool.as_ref().and_then(|name| api.pools.get(name));
        if !pool.is_some_and(|pool| pool.spec.require_source_ranges) {
            continue;
        }
        let family = Family::of(vip.address().unwrap());
        let had = |claim: &&Claim| claim.terms.as_ref().is_some_and(|terms| terms.source_ranges);
        for claim in vip.spec.claims.iter().filter(had) {
            let candidates = vip.spec.placement.iter().flat_map(|placement| &placement.candidates).count();
            assert!(
                candidates == 0 || are_limited(&api.services[&holder(claim)], family),
                "ranges: {} is open to all of {family} at {:?}",
                holder(claim),
                vip.metadata.name
            );
        }
    }
}

/// What a pool could grant is granted, reserved or available, unless it grants nothing at all.
fn every_address_of_a_pool_is_accounted_for(api: &Api) {
    for (name, pool) in &api.pools {
        let Some(status) = &pool.status else { continue };
        for it in [status.ipv4, status.ipv6].into_iter().flatten() {
            let used = it.granted + it.reserved;
            let is_ready =
                pool.spec.not_implemented().is_empty() && pool.metadata.deletion_timestamp.is_none();
            let left = if is_ready { it.total - used } else { 0 };
            assert!(it.available == left && used <= it.total, "sums: {name} counts {it:?}");
        }
    }
}

fn no_service_is_stuck(api: &Api) {
    for (name, service) in &api.services {
        assert!(
            service.metadata.deletion_timestamp.is_none(),
            "{name} is stuck in deletion: {:?}",
            service.metadata.finalizers
        );
    }
}

fn every_virtual_ip_is_claimed_reserved_or_resting(api: &Api) {
    for (name, vip) in &api.vips {
        assert!(vip.metadata.deletion_timestamp.is_none(), "VirtualIP {name} is stuck in deletion");
        if vip.spec.claims.is_empty() {
            let is_kept = vip.spec.reservation.as_ref().is_some_and(|kept| is_live(api, kept));
            assert!(
                is_kept || date(api, vip).is_some(),
                "VirtualIP {name} is left behind by {:?}, kept by {:?}",
                vip.status.as_ref().map(|status| &status.last_holders),
                vip.spec.reservation
            );
        }
        for claim in &vip.spec.claims {
            let holder = holder(claim);
            let service = api.services.get(&holder);
            let service = service.unwrap_or_else(|| panic!("VirtualIP {name}: {holder} does not exist"));
            assert!(is_ours(service), "VirtualIP {name}: {holder} is not ours");
            assert_eq!(service.metadata.uid.as_deref(), Some(claim.uid.as_str()), "VirtualIP {name}");
            let address = vip.address().unwrap();
            assert!(addresses(service).contains(&address), "{holder} claims {name} but does not show it");
        }
    }
}

fn every_service_has_what_its_condition_says(api: &Api) {
    for (name, service) in api.services.iter().filter(|(_, service)| is_ours(service)) {
        let shown = addresses(service);
        let of: BTreeSet<Family> = shown.iter().map(|address| Family::of(*address)).collect();
        assert_eq!(of.len(), shown.len(), "{name} shows two addresses of one family: {shown:?}");
        for address in &shown {
            let vip = api.vips.get(&virtual_ip_name(*address));
            let claims = vip.is_some_and(|vip| claim_of(&vip.spec, name).is_some());
            assert!(claims, "{name} shows {address} without claiming it");
        }
        let granted = conditions_of(service).iter().find(|known| known.type_ == OURS[0]);
        let granted = granted.unwrap_or_else(|| panic!("{name} does not say whether it is granted"));
        let families = families(service);
        if granted.status == "True" {
            let prefers = service.spec.as_ref().and_then(|spec| spec.ip_family_policy.as_deref());
            assert!(
                of.len() == families.len() || prefers == Some("PreferDualStack") && !of.is_empty(),
                "{name} says that it is granted but shows {shown:?}"
            );
            let request = read(service).unwrap();
            for asked in &request.addresses {
                assert!(
                    shown.contains(asked),
                    "{name} asks for {asked}, shows {shown:?}: {}",
                    granted.message
                );
            }
        } else {
            assert!(
                !granted.reason.is_empty() && granted.message.len() > 10,
                "{name} waits without a reason"
            );
        }
        let has_announced = conditions_of(service).iter().any(|known| known.type_ == OURS[1]);
        assert_eq!(has_announced, !shown.is_empty(), "{name}");
        assert!(shown.is_empty() || has_our_finalizer(service), "{name} has an address and no finalizer");
    }
}

/// What is recorded of Services on one address is true, and they can be there beside each other.
fn every_claim_says_what_its_service_is_like(api: &Api, ledger: &Ledger) {
    let waiting = waiting(api);
    for vip in api.vips.values() {
        let address = vip.address().unwrap();
        for claim in &vip.spec.claims {
            let name = holder(claim);
            let service = &api.services[&name];
            let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            let ports: BTreeSet<(String, i32)> =
                ports.map(|port| (port.protocol.clone().unwrap_or("TCP".into()), port.port)).collect();
            let recorded: BTreeSet<(String, i32)> = ports_of(&vip.spec, &name)
                .map(|(protocol, port)| (format!("{protocol:?}").to_uppercase(), port))
                .collect();
            // More cannot be written down.
            assert!(
                ports == recorded || ports.len() > 256,
                "{name} has {ports:?}, {address} has {recorded:?}"
            );
            if let Ok(request) = read(service) {
                let recorded = claim.sharing.as_ref().map(|sharing| sharing.key.clone());
                assert_eq!(request.sharing_key, recorded, "the sharing key of {name} on {address}");
                // What it was given for stays on record while another one is sought in its place.
                let terms = claim.terms.as_ref().map(|terms| terms.internal);
                let is_content = !waiting.contains(&name);
                assert!(!is_content || terms == Some(request.internal), "the terms of {name} on {address}");
            }
        }
        let names: Vec<String> = vip.spec.claims.iter().map(holder).collect();
        for (at, one) in names.iter().enumerate() {
            for other in &names[..at] {
                if let Err(why) = fit(ledger, address, &vip.spec, one, other) {
                    panic!("i4_unique: {one} and {other} are both on {address}: {why}");
                }
            }
        }
    }
}

/// `internal`: Services that ask for an internal load balancer, or cannot be understood, and what they show. A pool that may not
/// give it to them must have been edited since, or have been named by the Service; `before` had it at the
/// last quiet, and were internal then. What a Service was like when it was given an address is noted on the
/// VirtualIP alone, and so goes with it.
pub fn internal_ones(
    api: &Api,
    ledger: &Ledger,
    before: &BTreeSet<(String, IpAddr)>,
) -> BTreeSet<(String, IpAddr)> {
    let mut all = BTreeSet::new();
    for (name, service) in api.services.iter().filter(|(_, service)| is_ours(service)) {
        let asks = read(service).map(|request| request.internal);
        for address in addresses(service).into_iter().filter(|_| asks != Ok(false)) {
            let from = api.vips[&virtual_ip_name(address)].spec.pool.clone().unwrap_or_default();
            let known = (name.clone(), address);
            // Who joins others on an address is served by the pool that it lies in.
            let pools = [api.pools.get(&from).map(|pool| &**pool), pool_of(api, address)];
            let may = |service: &Service| {
                let request = read(service).ok().filter(|request| request.internal);
                request.is_some_and(|request| pools.iter().flatten().any(|pool| in_scope(pool, &request)))
            };
            let is_given =
                before.contains(&known) || ledger.services(name).iter().any(|service| may(service));
            // While it is not understood what the Service asks for, it keeps what it has.
            assert!(
                is_given
                    || asks.is_err()
                    || !ledger.pool_is_as_it_was(&from, api)
                    || ledger.was_away(address),
                "internal: {name} asks for an internal load balancer and shows {address} of pool {from}"
            );
            all.insert(known);
        }
    }
    all
}

/// `history`: who let go of an address stands on its VirtualIP or in the history of a pool, until so many
/// others have come after it.
fn history(api: &Api, ledger: &Ledger) {
    for (address, released) in ledger.released() {
        let vip = api.vips.get(&virtual_ip_name(address));
        let on_it = vip.and_then(|vip| vip.status.as_ref()).map(|status| status.last_holders.as_slice());
        let text = address.to_string();
        let in_pools =
            || api.pools.values().flat_map(|pool| pool.status.iter().flat_map(|status| &status.history));
        for gone in released.iter().rev().take(10) {
            let stands = on_it.unwrap_or_default().iter().any(|holder| holder.uid == gone.uid)
                || in_pools().any(|past| past.address == text && past.uid == gone.uid);
            assert!(
                stands,
                "history: {} ({}) let go of {address} of pool {:?}, and nothing tells",
                gone.service,
                gone.uid,
                ledger.specs(address).last().and_then(|spec| spec.pool.clone())
            );
        }
    }
}

fn what_is_not_ours_bears_no_mark(api: &Api) {
    for (name, service) in api.services.iter().filter(|(_, service)| !is_ours(service)) {
        assert!(!has_our_finalizer(service), "{name} is not ours and has our finalizer");
        let says = conditions_of(service).iter().any(|known| OURS.contains(&known.type_.as_str()));
        assert!(!says, "{name} is not ours and has our conditions");
    }
}
