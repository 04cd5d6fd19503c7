//! Which address a Service is given in one family.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::{AddressRange, Family};
use landfall_crds::names::annotations;
use landfall_crds::{Scope, VirtualIP};

use super::book::{Holder, Pool};
use super::plan::View;
use super::request::{Request, annotation, families, has_sharing_key};
use super::reservation::{is_for, live, rests_until};
use super::rules::{Asker, Refused, has_quota, names, serves, why_not_ready};
use super::sharing::{Party, fits};
use super::source_ranges::has_source_ranges;
use super::verdict::{addresses, has_our_finalizer};
use super::wait::{Until, Wait, quoted, reasons, some_of};
use super::{ServiceKey, named};
use crate::status::is_shown_by_us;
use crate::world::virtual_ips::{
    SharingKey, claim_of, has_finalizer, is_deleting, is_tenants, key_of_claim, last_holder,
};

/// At most so many pools are named in one message.
const MOST_NAMED: usize = 8;

/// An address that can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The address.
    pub address: IpAddr,
    /// The pool that it lies in.
    pub pool: Option<String>,
}

/// A Service that an address is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Seeker<'a> {
    /// What it is decided on.
    pub view: View<'a>,
    /// The Service.
    pub service: &'a Service,
    /// Its name.
    pub key: &'a ServiceKey,
    /// What it asks for.
    pub request: &'a Request,
    /// Pools from which it is being given an address in another family.
    pub given: &'a [String],
    /// The address that it gives up for the new one.
    pub instead_of: Option<IpAddr>,
}

impl Seeker<'_> {
    /// Whether the pool gives the Service an address of the family: this one, or any.
    ///
    /// # Errors
    /// It does not, for the reason given.
    pub(super) fn is_served_by(
        &self,
        name: &str,
        pool: &Pool,
        family: Family,
        address: Option<IpAddr>,
    ) -> Result<(), Refused> {
        if !pool.is_ready() {
            let text = format!("grants nothing ({})", why_not_ready(pool));
            return Err(Refused { reason: reasons::POOL_NOT_READY, text });
        }
        serves(pool, &self.asker(name, pool, family), self.view.default_deny)?;
        let namespace = &self.key.namespace;
        let uses = |address: IpAddr| self.view.usage.counts(address, name, namespace);
        if address.is_some_and(uses) {
            return Ok(());
        }
        let given = self.given.iter().filter(|from| *from == name).count();
        let goes = i64::from(self.instead_of.is_some_and(uses));
        has_quota(name, pool, namespace, self.view.usage, i64::try_from(given).unwrap_or(i64::MAX) - goes)
    }

    /// How the Service looks to the rules of a pool when it asks for an address of this family.
    pub(super) fn asker(&self, name: &str, pool: &Pool, family: Family) -> Asker<'_> {
        asker(self.view, self.service, self.key, self.request, name, pool, family)
    }
}

/// How a Service looks to the rules of a pool when it asks for an address of this family.
pub(super) fn asker<'a>(
    view: View<'a>,
    service: &'a Service,
    key: &'a ServiceKey,
    request: &Request,
    name: &str,
    pool: &Pool,
    family: Family,
) -> Asker<'a> {
    Asker {
        key,
        labels: service.metadata.labels.as_ref(),
        namespace: view.namespaces.get(&key.namespace),
        internal: request.internal,
        family,
        source_ranges: pool.object.spec.require_source_ranges && has_source_ranges(service, family),
        names_it: request.internal
            && pool.object.spec.scope == Scope::Any
            && names_by(request, name, pool).is_some(),
    }
}

/// By what the Service names the pool, if it does: its name, or an address of it.
pub fn names_by(request: &Request, name: &str, pool: &Pool) -> Option<String> {
    if request.pools.iter().flatten().any(|asked| asked == name) {
        return Some(name.to_owned());
    }
    let mut asked = request.addresses.iter();
    asked.find(|asked| pool.grantable.contains(**asked)).map(ToString::to_string)
}

/// Chooses an address of `family`: the one that is asked for; else one that the Service has held or that
/// is kept for it; else one that it can share; else the lowest free one of the best pool.
///
/// # Errors
/// There is none, for the reason given.
pub fn choose(seeker: &Seeker<'_>, family: Family) -> Result<Chosen, Wait> {
    if let Some(address) = seeker.request.address(family) {
        return asked(seeker, address);
    }
    if let Some(own) = own(seeker, family) {
        return Ok(own);
    }
    if let Some(shared) = shared(seeker, family) {
        return Ok(shared);
    }
    match &seeker.request.pools {
        Some(names) => from_named(seeker, names, family),
        None => from_any(seeker, family),
    }
}

/// The address that is asked for, if it can be had.
fn asked(seeker: &Seeker<'_>, address: IpAddr) -> Result<Chosen, Wait> {
    let book = seeker.view.book;
    let Some((name, pool)) = book.pool_of(address).and_then(|name| Some((name, book.pool(name)?))) else {
        return Err(in_no_pool(seeker, address));
    };
    if let Some(asked) = &seeker.request.pools
        && !asked.iter().any(|wanted| wanted == name)
    {
        let message = format!(
            "{address} is asked for, but it lies in pool {name} and not in {}: ask for an address of that \
             pool, or remove one of the two wishes",
            names(asked)
        );
        return Err(Wait::new(reasons::ADDRESS_NOT_IN_POOL, message, Until::Edited));
    }
    if let Err(Refused { reason, text }) = seeker.is_served_by(name, pool, Family::of(address), Some(address))
    {
        // Of an address that its namespace has come to use already the quota is not asked; those who wait for
        // the quota itself are asked again when it has room.
        let until = match reason {
            reasons::QUOTA_EXCEEDED => Until::Free(address),
            _ => Until::Edited,
        };
        return Err(Wait::new(reason, format!("{address} is asked for, but pool {name} {text}"), until));
    }
    let holder = Seeking { service: seeker.service, key: seeker.key, sharing_key: seeker.sharing_key() };
    match obstacle(seeker.view, &holder, address, false) {
        Some(wait) => Err(wait),
        None => Ok(Chosen { address, pool: Some(name.to_owned()) }),
    }
}

fn in_no_pool(seeker: &Seeker<'_>, address: IpAddr) -> Wait {
    let book = seeker.view.book;
    if let Some(by) = book.cluster_use(address) {
        let message = format!(
            "{address} is asked for, but it lies in the range of the cluster's own {} addresses: ask for another \
             address",
            by.name()
        );
        return Wait::new(reasons::CLUSTER_ADDRESS, message, Until::Edited);
    }
    let excluded = book.pools().find(|(_, pool)| is_excluded(pool, address));
    let why = match excluded {
        Some((name, _)) => format!("pool {name} excludes it"),
        None => "no IPPool holds it".to_owned(),
    };
    let message = format!("{address} is asked for, but {why}: ask for another address, or add it to a pool");
    Wait::new(reasons::ADDRESS_NOT_IN_POOL, message, Until::Edited)
}

impl<'a> Seeker<'a> {
    fn sharing_key(&self) -> Option<&'a str> {
        self.request.sharing_key.as_deref()
    }

    /// Its sharing key, as those write it who may share with it: in its own namespace, and in those with which
    /// some pool lets it.
    fn sharing_keys(&self) -> Vec<SharingKey> {
        let Some(key) = self.sharing_key() else { return Vec::new() };
        let own = self.key.namespace.as_str();
        let namespaces = std::iter::once(own).chain(self.view.book.partners(own));
        let of = |namespace: &str| SharingKey { namespace: namespace.to_owned(), key: key.to_owned() };
        namespaces.map(of).collect()
    }

    /// Whether the pool gives addresses to whoever names none, or the Service names pools.
    fn may_be_given_unasked(&self, pool: &Pool) -> bool {
        pool.object.spec.auto_assign || self.request.pools.is_some()
    }

    /// Whether the Service can have an address that is not free.
    fn can_have(&self, address: IpAddr) -> Option<Chosen> {
        let name = self.view.book.pool_of(address)?;
        let pool = self.view.book.pool(name)?;
        let holder = Seeking { service: self.service, key: self.key, sharing_key: self.sharing_key() };
        (self.request.accepts(address, Some(name))
            && self.is_served_by(name, pool, Family::of(address), Some(address)).is_ok()
            && obstacle(self.view, &holder, address, false).is_none())
        .then(|| Chosen { address, pool: Some(name.to_owned()) })
    }
}

/// An address that the Service held until now or that is reserved for it by name.
fn own(seeker: &Seeker<'_>, family: Family) -> Option<Chosen> {
    let known = seeker.view.vips.of_service(seeker.key);
    known.filter(|address| Family::of(*address) == family).find_map(|address| seeker.can_have(address))
}

/// An address that Services with the same sharing key have, and that this one can be beside them on. To offer
/// to share names no pool, so a pool that gives to nobody unasked gives nothing by it.
fn shared(seeker: &Seeker<'_>, family: Family) -> Option<Chosen> {
    let View { vips, sharing, .. } = seeker.view;
    let known: BTreeSet<IpAddr> =
        seeker.sharing_keys().iter().flat_map(|key| vips.with_sharing_key(key)).collect();
    let settled = |address: &IpAddr| Family::of(*address) == family && sharing.get(*address).is_none();
    known.into_iter().filter(settled).filter_map(|address| seeker.can_have(address)).find(|chosen| {
        let pool = chosen.pool.as_deref().and_then(|name| seeker.view.book.pool(name));
        pool.is_some_and(|pool| seeker.may_be_given_unasked(pool))
    })
}

/// An address that Services with the same sharing key are just being given, and on which this one could be
/// beside them then.
pub(super) fn about_to_be_shared(seeker: &Seeker<'_>, family: Family) -> Option<IpAddr> {
    let View { book, sharing, .. } = seeker.view;
    let known: BTreeSet<IpAddr> = seeker.sharing_keys().iter().flat_map(|key| sharing.with(key)).collect();
    let party = (!known.is_empty()).then(|| Party::of(seeker.service, seeker.key, seeker.sharing_key()))?;
    known.into_iter().filter(|address| Family::of(*address) == family).find(|address| {
        let lies_in = book.pool_of(*address);
        let found = lies_in.and_then(|name| Some((name, book.pool(name)?)));
        let Some((name, pool)) = found else { return false };
        seeker.request.accepts(*address, Some(name))
            && seeker.may_be_given_unasked(pool)
            && sharing.get(*address).is_some_and(|spec| fits(spec, &party, Some(pool)).is_ok())
            && seeker.is_served_by(name, pool, family, Some(*address)).is_ok()
    })
}

/// Who wants an address, as its present holders see it.
#[derive(Clone, Copy, Debug)]
pub struct Seeking<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its name.
    pub key: &'a ServiceKey,
    /// The key by which it would share.
    pub sharing_key: Option<&'a str>,
}

/// What keeps the Service from having the address, pools aside. One that shows the address already
/// gets it back whatever has been written about it meanwhile, unless somebody else claims it.
pub fn obstacle(view: View<'_>, seeking: &Seeking<'_>, address: IpAddr, shows_it: bool) -> Option<Wait> {
    let service = seeking.key;
    let taken = |by: String| {
        let message = format!("{address} is asked for, but {by}: ask for another address, or free this one");
        Some(Wait::new(reasons::ADDRESS_TAKEN, message, Until::Free(address)))
    };
    let is_beside = |by: &ServiceKey| {
        by == service || are_beside(view, address, service, by) || both_show(view, seeking, address, by)
    };
    // Who shows it without a mark of ours has it from somebody else, and takes it from nobody who has it from us.
    let is_strangers = |by: &ServiceKey| {
        let is_marked = |other: &Service| has_our_finalizer(other) || is_shown_by_us(other, address);
        shows_it && shows(seeking.service, address) && view.services.get(by).is_some_and(|it| !is_marked(it))
    };
    let may_await = || shows_it || seeking.sharing_key.is_some() && shows(seeking.service, address);
    view.book.holders(address).iter().find_map(|holder| match holder {
        Holder::VirtualIp => {
            let vip = view.vips.get(address)?;
            obstacle_of_virtual_ip(view, vip, seeking, address, shows_it)
        }
        Holder::Busy if !may_await() => taken("it is being granted or released just now".into()),
        Holder::Status(by) if is_strangers(by) => None,
        Holder::Status(by) | Holder::Lost(by) if !is_beside(by) => {
            taken(format!("Service {} has it", named(by)))
        }
        Holder::ExternalIp(by) if by != service && !shows_it => {
            taken(format!("Service {} has it in spec.externalIPs", named(by)))
        }
        Holder::Refused if !shows_it && !shows(seeking.service, address) => {
            let said = view.refused.of_address(address).unwrap_or_default();
            let message =
                format!("{address} is asked for, but the API server refuses to let it be claimed: {said}");
            Some(Wait::new(reasons::WRITE_REFUSED, message, Until::Free(address)))
        }
        Holder::Busy | Holder::Refused | Holder::Status(_) | Holder::Lost(_) | Holder::ExternalIp(_) => None,
        Holder::Node(_) | Holder::Gateway(_) | Holder::SubnetEdge(_) if shows_it => None,
        Holder::Node(node) => no_station(address, &format!("node {node}'s own")),
        Holder::Gateway(node) => no_station(address, &format!("node {node}'s gateway")),
        Holder::SubnetEdge(node) => {
            no_station(address, &format!("the network's own or broadcast address on a subnet of node {node}"))
        }
    })
}

/// Whether `by` is on the address beside the Service, or would be: it claims it, so that the claims say
/// whether both can be there; or both claimed it when its VirtualIP vanished.
pub(super) fn are_beside(view: View<'_>, address: IpAddr, service: &ServiceKey, by: &ServiceKey) -> bool {
    let claims = |vip: &VirtualIP| claim_of(vip, by).is_some();
    let lost_with = |loser: &ServiceKey, other: &ServiceKey| {
        let lost = view.lost.get(loser).and_then(|lost| lost.get(&address));
        lost.is_some_and(|lost| lost.spec.claims.iter().any(|claim| key_of_claim(claim) == *other))
    };
    view.vips.get(address).is_some_and(|vip| claims(vip)) || lost_with(service, by) || lost_with(by, service)
}

/// Whether `by` shows the address as the Service does, and both offer to share it: they were on it together
/// before its VirtualIP vanished, or by the doing of another implementation that both are taken over from.
/// Whether they can be, their claims will tell once the first has claimed it.
fn both_show(view: View<'_>, seeking: &Seeking<'_>, address: IpAddr, by: &ServiceKey) -> bool {
    let is_ours =
        |other: &Service| has_our_finalizer(other) || annotation(other, annotations::ADOPT) == Some("true");
    seeking.sharing_key.is_some()
        && shows(seeking.service, address)
        && view
            .services
            .get(by)
            .is_some_and(|other| has_sharing_key(other) && shows(other, address) && is_ours(other))
}

fn shows(service: &Service, address: IpAddr) -> bool {
    addresses(service).contains(&address)
}

/// An address that belongs to the network itself.
fn no_station(address: IpAddr, what: &str) -> Option<Wait> {
    let message = format!("{address} is asked for, but it is {what}: ask for another address");
    Some(Wait::new(reasons::NODE_ADDRESS, message, Until::Free(address)))
}

fn obstacle_of_virtual_ip(
    view: View<'_>,
    vip: &VirtualIP,
    seeking: &Seeking<'_>,
    address: IpAddr,
    shows_it: bool,
) -> Option<Wait> {
    let service = seeking.key;
    if claim_of(vip, service).is_some() {
        return None;
    }
    let until = Until::Free(address);
    let reservation = live(vip, view.now, view.namespaces);
    let is_reserved = reservation
        .is_some_and(|kept| !is_for(kept, service) && (vip.spec.claims.is_empty() || !is_tenants(kept)));
    let pool = view.book.pool_of(address).and_then(|name| view.book.pool(name));
    if !vip.spec.claims.is_empty() {
        let party = Party::of(seeking.service, service, seeking.sharing_key);
        // Edits of the pool move nobody who is there already.
        if let Err(clash) = fits(&vip.spec, &party, pool.filter(|_| !shows_it)) {
            let message = format!("{address} is asked for, but {}", clash.text);
            return Some(Wait::new(clash.reason, message, until));
        }
        if !is_reserved && !is_deleting(vip) {
            return None;
        }
    }
    if shows_it {
        return None;
    }
    if is_reserved {
        let message = format!(
            "{address} is asked for, but VirtualIP {address} keeps it for another: see its spec.reservation"
        );
        return Some(Wait::new(reasons::ADDRESS_RESERVED, message, until));
    }
    // Whoever had it may go on at once. For another the finalizer tells that a node may still answer for
    // the former holder.
    let may_take_over =
        last_holder(vip).as_ref() == Some(service) || reservation.is_some() && !has_finalizer(vip);
    if may_take_over && !is_deleting(vip) {
        return None;
    }
    let rests = rests_until(vip, pool.map(|pool| &*pool.object)).filter(|_| reservation.is_none());
    if let Some(at) = rests.filter(|at| *at > view.now) {
        let message = format!(
            "{address} is asked for, but it was released lately and rests until {at} (spec.releaseDelay of its \
             pool): wait, or ask for another address"
        );
        return Some(Wait::new(reasons::ADDRESS_RESTING, message, until));
    }
    let message = format!("{address} is asked for, but its last holder is still giving it up: wait a moment");
    Some(Wait::new(reasons::ADDRESS_TAKEN, message, until))
}

/// The lowest free address of the first of the named pools that has one. Those that do not exist are passed over,
/// as those are that refuse: a pool that goes takes nothing from who has named others beside it.
fn from_named(seeker: &Seeker<'_>, asked: &[String], family: Family) -> Result<Chosen, Wait> {
    let book = seeker.view.book;
    let (known, unknown): (Vec<String>, Vec<String>) =
        asked.iter().cloned().partition(|name| book.pool(name).is_some());
    if known.is_empty() {
        let message = format!(
            "the Service asks for pool {}, which does not exist: existing pools are {}",
            names(&unknown),
            if book.has_no_pools() {
                "none".to_owned()
            } else {
                some_of(book.pools().map(|(name, _)| name), MOST_NAMED)
            }
        );
        return Err(Wait::new(reasons::POOL_UNKNOWN, message, Until::Edited));
    }
    let pools = known.iter().filter_map(|name| Some((name.as_str(), book.pool(name)?)));
    let until = || Until::Any { family, pools: Some(asked.to_vec()) };
    lowest_of(seeker, pools, family, false).map_err(|mut refusals| {
        for name in &unknown {
            let text = "does not exist".to_owned();
            refusals.note(&quoted(name), Refused { reason: reasons::POOL_UNKNOWN, text });
        }
        refusals.into_wait(family, until())
    })
}

/// The lowest free address of the best pool that gives to everybody.
fn from_any(seeker: &Seeker<'_>, family: Family) -> Result<Chosen, Wait> {
    let book = seeker.view.book;
    let serves = |(name, pool, _): &(&str, &Pool, IpAddr)| {
        pool.object.spec.auto_assign && seeker.is_served_by(name, pool, family, None).is_ok()
    };
    if let Some((name, _, address)) = book.open_pools(family).find(serves) {
        return Ok(Chosen { address, pool: Some(name.to_owned()) });
    }
    let until = Until::Any { family, pools: None };
    if book.has_no_pools() {
        let message = "there is no IPPool: create one whose spec.addresses holds addresses of your LAN";
        return Err(Wait::new(reasons::NO_POOL, message, until));
    }
    lowest_of(seeker, book.pools(), family, true).map_err(|refusals| refusals.into_wait(family, until))
}

fn lowest_of<'a>(
    seeker: &Seeker<'_>,
    pools: impl Iterator<Item = (&'a str, &'a Pool)>,
    family: Family,
    only_automatic: bool,
) -> Result<Chosen, Refusals> {
    let mut refusals = Refusals::default();
    for (name, pool) in pools {
        if pool.own.first(family).is_none() {
            let text = format!("holds no {family} address of its own");
            refusals.note(name, Refused { reason: reasons::NO_POOL, text });
        } else if only_automatic && !pool.object.spec.auto_assign {
            let text = "gives only to Services that name it".to_owned();
            refusals.note(name, Refused { reason: reasons::NO_POOL, text });
        } else if let Err(refused) = seeker.is_served_by(name, pool, family, None) {
            refusals.note(name, refused);
        } else if let Some(address) = seeker.view.book.lowest_free(name, family) {
            return Ok(Chosen { address, pool: Some(name.to_owned()) });
        } else {
            let text = "is exhausted".to_owned();
            refusals.note(name, Refused { reason: reasons::POOL_EXHAUSTED, text });
        }
    }
    Err(refusals)
}

/// Whether some pool that the Service may use has a free address of the family now.
pub fn could_have(seeker: &Seeker<'_>, family: Family, pools: Option<&[String]>) -> bool {
    let book = seeker.view.book;
    let can = |name: &str, pool: &Pool| {
        book.lowest_free(name, family).is_some() && seeker.is_served_by(name, pool, family, None).is_ok()
    };
    match pools {
        Some(names) => names.iter().any(|name| book.pool(name).is_some_and(|pool| can(name, pool))),
        None => book.open_pools(family).any(|(name, pool, _)| {
            pool.object.spec.auto_assign && seeker.is_served_by(name, pool, family, None).is_ok()
        }),
    }
}

/// Whether the Service could be beside others with its sharing key in a family in which it has nothing.
pub fn could_share(seeker: &Seeker<'_>) -> bool {
    let has = |family| seeker.view.vips.claimed_by(seeker.key).any(|address| Family::of(address) == family);
    let mut lacking = families(seeker.service).into_iter().filter(|family| !has(*family));
    lacking.any(|family| seeker.request.address(family).is_none() && shared(seeker, family).is_some())
}

/// Reasons for which a pool refuses, with what to do: the nearer to success, the earlier.
const ADVICE: [(&str, &str); 9] = [
    (reasons::POOL_EXHAUSTED, "add addresses to a pool or release some"),
    (reasons::QUOTA_EXCEEDED, "release an address, or have the pool's spec.quota raised"),
    (reasons::POOL_NOT_READY, "see the conditions of the pool"),
    (reasons::POOL_UNKNOWN, "correct the names of the pools"),
    (reasons::SOURCE_RANGES_REQUIRED, "give the Service source ranges, or use another pool"),
    (reasons::SERVICE_NOT_SELECTED, "label the Service, or use another pool"),
    (reasons::NAMESPACE_NOT_SELECTED, "have a pool select the namespace"),
    (reasons::NO_INTERNAL_POOL, "create a pool of scope Internal, or remove the annotation"),
    (reasons::NO_POOL, "create a pool with such addresses"),
];

/// What was wrong with each pool, in the order of the pools.
#[derive(Default)]
struct Refusals {
    all: Vec<(String, Refused)>,
}

impl Refusals {
    fn note(&mut self, name: &str, refused: Refused) {
        self.all.push((name.to_owned(), refused));
    }

    fn into_wait(mut self, family: Family, until: Until) -> Wait {
        let rank = |reason: &str| ADVICE.iter().position(|(known, _)| *known == reason);
        self.all.sort_by_key(|(_, refused)| rank(refused.reason));
        let nearest = self.all.first().and_then(|(_, refused)| ADVICE.get(rank(refused.reason)?));
        let (reason, advice) = nearest.copied().unwrap_or((reasons::NO_POOL, "create a pool"));
        let all = self.all.iter().map(|(name, refused)| format!("{name} {}", refused.text));
        let message = format!("no {family} address can be had: {}: {advice}", some_of(all, MOST_NAMED));
        Wait::new(reason, message, until)
    }
}

/// Whether the pool would hold the address if it were not excluded.
fn is_excluded(pool: &Pool, address: IpAddr) -> bool {
    let mut ranges = pool.object.spec.addresses.iter().filter_map(|text| text.parse::<AddressRange>().ok());
    ranges.any(|range| range.contains(address)) && !pool.grantable.contains(address)
}
