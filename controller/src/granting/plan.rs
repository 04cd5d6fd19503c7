//! What a Service should have in each of its families, seen from what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::Family;
use landfall_crds::{Claim, IPPool, VirtualIP, VirtualIPSpec};

use super::ServiceKey;
use super::book::AddressBook;
use super::candidates::{Has, candidates, is_contested};
use super::choice::{Chosen, Seeker, about_to_be_shared, choose};
use super::claim::too_many_ports;
use super::refused::Refused;
use super::request::{Request, families, pools, read};
use super::reservation::is_own;
use super::rules::has_quota;
use super::sharers::Sharers;
use super::sharing::{Party, fits, who_stays};
use super::source_ranges::has_source_ranges;
use super::usage::Usage;
use super::verdict::{addresses, has_our_finalizer, is_load_balancer};
use super::wait::{Until, Wait, reasons};
use crate::world::namespaces::Namespaces;
use crate::world::store::Store;
use crate::world::virtual_ips::{VirtualIps, claim_of, is_tenants, key_of_claim};

/// A VirtualIP that vanished while it was claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct LostVirtualIp {
    /// What it held.
    pub spec: VirtualIPSpec,
    /// The mind's step in which it vanished.
    pub step: u64,
}

/// VirtualIPs that vanished while they were claimed, by the Services that claimed them.
pub type Lost = BTreeMap<ServiceKey, BTreeMap<IpAddr, LostVirtualIp>>;

/// What a plan is made on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Pools and holders.
    pub book: &'a AddressBook,
    /// All Services.
    pub(crate) services: &'a Store<ServiceKey, Service>,
    /// All VirtualIPs.
    pub vips: &'a VirtualIps,
    /// Addresses for which a claim of a Service is being written.
    pub claiming: &'a BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    /// VirtualIPs that vanished.
    pub lost: &'a Lost,
    /// Addresses on which Services that share are about to be.
    pub sharing: &'a Sharers,
    /// What the API server refused lately.
    pub refused: &'a Refused,
    /// All namespaces.
    pub namespaces: &'a Namespaces,
    /// Who uses how much of which pool.
    pub usage: &'a Usage,
    /// Whether a pool without a namespace selector serves nobody.
    pub default_deny: bool,
    /// The time, as people read it.
    pub now: Timestamp,
}

/// What happens in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// It has what it should have.
    Held(IpAddr),
    /// A claim is being written, or another Service is about to give one up; nothing else is done
    /// meanwhile.
    UnderWay(IpAddr),
    /// An address is to be claimed.
    Take(Chosen),
    /// Another address is to be claimed before the one in hand is given up.
    Switch {
        /// The address in hand.
        from: IpAddr,
        /// The one that was asked for.
        to: Chosen,
    },
    /// There is none.
    Empty,
}

/// One family of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyPlan {
    /// The family.
    pub family: Family,
    /// What happens.
    pub slot: Slot,
    /// Why it is not as was asked for.
    pub wait: Option<Wait>,
}

/// What a Service should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The families, the primary one first.
    pub families: Vec<FamilyPlan>,
    /// Addresses that it claims beyond that.
    pub surplus: Vec<IpAddr>,
    /// Addresses that it asks for and could have, but goes without since it lacks another family.
    pub forgone: Vec<IpAddr>,
}

impl Plan {
    /// The addresses that the status should show; only meaningful once nothing is under way.
    pub fn held(&self) -> Vec<IpAddr> {
        let held = |plan: &FamilyPlan| match plan.slot {
            Slot::Held(address) => Some(address),
            _ => None,
        };
        self.families.iter().filter_map(held).collect()
    }

    /// Whether the Service is to have the address, or to keep it for now.
    pub fn wants(&self, address: IpAddr) -> bool {
        self.families.iter().any(|family| match &family.slot {
            Slot::Held(held) | Slot::UnderWay(held) => *held == address,
            Slot::Take(chosen) => chosen.address == address,
            Slot::Switch { from, .. } => *from == address,
            Slot::Empty => false,
        })
    }

    /// Whether some claim has still to be written.
    pub fn is_unfinished(&self) -> bool {
        let unfinished =
            |plan: &FamilyPlan| matches!(plan.slot, Slot::UnderWay(_) | Slot::Take(_) | Slot::Switch { .. });
        self.families.iter().any(unfinished)
    }

    /// Whether every family holds what it should.
    pub fn has_all(&self) -> bool {
        self.families.iter().all(|plan| matches!(plan.slot, Slot::Held(_)) && plan.wait.is_none())
    }

    /// Whether one of the addresses that are shown is to be given up at once.
    pub fn has_left(&self, shown: Vec<IpAddr>) -> bool {
        self.families.iter().any(|plan| {
            plan.slot == Slot::Empty
                && shown
                    .iter()
                    .any(|address| Family::of(*address) == plan.family && self.surplus.contains(address))
        })
    }

    /// Whether there is anything to hold.
    pub fn has_any(&self) -> bool {
        self.families.iter().any(|plan| plan.slot != Slot::Empty)
    }

    /// Whether some family has nothing though it need not wait itself.
    pub fn goes_without(&self) -> bool {
        self.families.iter().any(|family| family.slot == Slot::Empty && family.wait.is_none())
    }

    /// Why the Service waits, if it does.
    pub fn waits(&self) -> impl Iterator<Item = &Wait> {
        self.families.iter().filter_map(|plan| plan.wait.as_ref())
    }
}

/// Makes the plan for a Service that is ours and asks for `request`.
pub fn plan(view: View<'_>, service: &Service, key: &ServiceKey, request: &Result<Request, Wait>) -> Plan {
    let mut plan = Plan::default();
    let mut given: Vec<String> = Vec::new();
    let claimed: Vec<IpAddr> = view.vips.claimed_by(key).collect();
    let shown = addresses(service);
    for family in families(service) {
        let has = Has { claimed: &claimed, shown: &shown, given: &given };
        let asking = Asking { view, service, key, request, has, family, given: &given };
        let family = asking.plan();
        if let Slot::Take(chosen) | Slot::Switch { to: chosen, .. } = &family.slot {
            given.extend(chosen.pool.clone());
        }
        plan.families.push(family);
    }
    let lacks_one = plan.families.iter().any(|family| family.slot == Slot::Empty);
    // What it had of old it keeps, as it keeps what its status shows.
    let had_one = plan.held().into_iter().any(|address| is_from_before(view.vips, service, key, address));
    if is_both_or_none(service) && lacks_one && shown.is_empty() && !had_one {
        for family in &mut plan.families {
            if let Slot::Take(chosen) = &family.slot {
                plan.forgone.extend(
                    request
                        .iter()
                        .flat_map(|request| &request.addresses)
                        .copied()
                        .filter(|asked| *asked == chosen.address),
                );
            }
            if !matches!(family.slot, Slot::UnderWay(_)) {
                family.slot = Slot::Empty;
            }
        }
    }
    plan.surplus = claimed.into_iter().filter(|address| !plan.wants(*address)).collect();
    plan
}

/// Whether the Service is given an address in both families or in none.
pub fn is_both_or_none(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.ip_family_policy.as_deref()) == Some("RequireDualStack")
}

/// Whether the claim on the address was made for a Service of this name with another uid: it has been
/// restored from a backup, or made anew by hand. A grant that was broken off leaves no such claim.
pub fn is_from_before(vips: &VirtualIps, service: &Service, key: &ServiceKey, address: IpAddr) -> bool {
    let claim = vips.get(address).and_then(|vip| claim_of(vip, key));
    claim.is_some_and(|claim| Some(&claim.uid) != service.metadata.uid.as_ref())
}

/// An address that nobody holds and that is kept for the Service at its own wish: that ends when it is given
/// another.
pub fn kept_for(vips: &VirtualIps, key: &ServiceKey, family: Family) -> Option<IpAddr> {
    let is_kept = |vip: &VirtualIP| {
        vip.spec.claims.is_empty() && vip.spec.reservation.as_ref().is_some_and(|kept| is_own(kept, key))
    };
    let mut known = vips.of_service(key).filter(|address| Family::of(*address) == family);
    known.find(|address| vips.get(*address).is_some_and(|vip| is_kept(vip)))
}

/// A Service that asks for an address in one family.
struct Asking<'a> {
    view: View<'a>,
    service: &'a Service,
    key: &'a ServiceKey,
    request: &'a Result<Request, Wait>,
    has: Has<'a>,
    family: Family,
    /// Pools from which it is being given an address in another family.
    given: &'a [String],
}

impl Asking<'_> {
    fn plan(&self) -> FamilyPlan {
        let (slot, wait) = self.slot();
        FamilyPlan { family: self.family, slot, wait }
    }

    fn slot(&self) -> (Slot, Option<Wait>) {
        let Self { view, service, key, has, family, .. } = *self;
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        let under_way = view.claiming.get(key).into_iter().flatten();
        if let Some(address) = under_way.copied().find(of_family) {
            return (Slot::UnderWay(address), None);
        }
        let mut shown = has.shown.iter().copied();
        let contested =
            shown.find(|address| of_family(address) && is_contested(view, service, key, *address));
        if let Some(address) = contested {
            return (Slot::UnderWay(address), None);
        }
        if let Some(wait) = self.must_leave() {
            return (Slot::Empty, Some(wait));
        }
        let mut candidates = candidates(view, service, key, self.request.as_ref().ok(), has, family);
        // Best first: what is asked for, what the status shows, what is claimed, the oldest, the lowest.
        candidates
            .sort_by_key(|known| (!known.fits, !known.in_status, !known.claimed, known.born, known.address));
        let best = candidates.first();
        let take = |address: IpAddr| Chosen { address, pool: origin(view, service, address) };
        let request = match self.request {
            Ok(request) => request,
            Err(wait) => {
                let in_hand = match best {
                    None => Slot::Empty,
                    Some(best) if best.claimed => Slot::Held(best.address),
                    Some(best) => Slot::Take(take(best.address)),
                };
                return (in_hand, Some(wait.clone()));
            }
        };
        match best {
            // What has vanished is brought back first, whatever is asked for.
            Some(best) if !best.claimed => (Slot::Take(take(best.address)), None),
            Some(best) if best.fits => (Slot::Held(best.address), too_many_ports(service)),
            Some(best) => match self.choose(request, Some(best.address)) {
                // The pool that it lies in now would give the same again, or another that it has already.
                Ok(to) if candidates.iter().any(|known| known.claimed && known.address == to.address) => {
                    (Slot::Held(to.address), None)
                }
                Ok(to) => (Slot::Switch { from: best.address, to }, None),
                Err(wait) if best.forbidden => (Slot::Empty, Some(wait)),
                Err(wait) => (Slot::Held(best.address), Some(wait)),
            },
            None => match self.about_to_be_shared(request) {
                Some(address) => (Slot::UnderWay(address), None),
                None => match self.choose(request, None) {
                    Ok(chosen) => (Slot::Take(chosen), None),
                    Err(wait) => (Slot::Empty, Some(wait)),
                },
            },
        }
    }

    fn seeker<'b>(&'b self, request: &'b Request, instead_of: Option<IpAddr>) -> Seeker<'b> {
        let Self { view, service, key, family, given, .. } = *self;
        let instead_of = instead_of.or_else(|| kept_for(view.vips, key, family));
        Seeker { view, service, key, request, given, instead_of }
    }

    /// Why the Service can be given no address at all now.
    fn is_barred(&self) -> Option<Wait> {
        too_many_ports(self.service).or_else(|| self.view.refused.of_service(self.key))
    }

    fn choose(&self, request: &Request, instead_of: Option<IpAddr>) -> Result<Chosen, Wait> {
        if let Some(wait) = self.is_barred() {
            return Err(wait);
        }
        choose(&self.seeker(request, instead_of), self.family).map_err(|wait| {
            // What it waits for may be just what was refused.
            let may_be = matches!(wait.reason, reasons::POOL_EXHAUSTED | reasons::WRITE_REFUSED);
            let refused = self.view.refused.instead_of(self.key).filter(|_| may_be);
            refused.map_or(wait.clone(), |refused| Wait { until: wait.until, ..refused.clone() })
        })
    }

    /// Why an address that is shared has to be given up at once: the Service was edited so that it
    /// collides with the others there, who keep it.
    fn must_leave(&self) -> Option<Wait> {
        let Self { view, service, key, request, has, family, .. } = *self;
        let mut held = has.claimed.iter().copied().filter(|address| Family::of(*address) == family);
        held.find_map(|address| {
            let vip = view.vips.get(address)?;
            if vip.spec.claims.len() < 2 {
                return None;
            }
            let mine = claim_of(vip, key)?;
            // A request that is not understood asks for nothing new.
            let sharing_key = match request {
                Ok(request) => request.sharing_key.as_deref(),
                Err(_) => mine.sharing.as_ref().map(|sharing| sharing.key.as_str()),
            };
            let party = Party::of(service, key, sharing_key);
            let pool = vip.spec.pool.as_deref().and_then(|name| view.book.pool(name));
            let clash = fits(&vip.spec, &party, None).err();
            let clash = clash.filter(|_| !who_stays(&vip.spec, parties(view, vip)).contains(key));
            if clash.is_none() && !pool.is_some_and(|pool| is_withheld(service, mine, &pool.object, family)) {
                return None;
            }
            let (reason, why) = match clash {
                Some(clash) => (clash.reason, clash.text),
                None => (
                    reasons::SOURCE_RANGES_REQUIRED,
                    format!(
                        "its pool requires source ranges that limit {family} of everyone on it: give the Service some"
                    ),
                ),
            };
            let message = format!("{address} is shared and cannot be kept after the last edit, for {why}");
            Some(Wait::new(reason, message, Until::Edited))
        })
    }

    /// An address that is awaited, since the Service may share it once others have been given it.
    fn about_to_be_shared(&self, request: &Request) -> Option<IpAddr> {
        if request.address(self.family).is_some() || self.is_barred().is_some() {
            return None;
        }
        about_to_be_shared(&self.seeker(request, None), self.family)
    }
}

/// What those on an address are like now; nothing of who is leaving it.
fn parties<'a>(view: View<'a>, vip: &'a VirtualIP) -> Vec<Party<'a>> {
    let party = |claim: &'a Claim| {
        let (key, service) = view.services.get_key_value(&key_of_claim(claim))?;
        let stays = is_load_balancer(service)
            && service.metadata.deletion_timestamp.is_none()
            && has_our_finalizer(service);
        let recorded = || claim.sharing.as_ref().map(|sharing| sharing.key.clone());
        let sharing_key = read(service).map_or_else(|_| recorded(), |request| request.sharing_key);
        stays.then(|| Party::of(service, key, sharing_key.as_deref()))
    };
    vip.spec.claims.iter().filter_map(party).collect()
}

/// Whether an address of this family is kept but not announced, since its pool requires source ranges and the
/// Service has given up those that it had. A pool that came to require them later withholds nothing.
pub fn is_withheld(service: &Service, claim: &Claim, pool: &IPPool, family: Family) -> bool {
    pool.spec.require_source_ranges
        && claim.terms.as_ref().is_some_and(|terms| terms.source_ranges)
        && !has_source_ranges(service, family)
}

/// The pool that an address is said to be taken from. A VirtualIP that names a pool keeps to it,
/// unless the Service has come to ask for the pool that the address lies in: from then on it is that
/// one, so that no later edit of a pool moves the Service. `known` is what stands of the address.
pub fn pool_to_name(
    view: View<'_>,
    service: &Service,
    key: &ServiceKey,
    address: IpAddr,
    known: Option<&VirtualIPSpec>,
    named: &str,
) -> String {
    let asked = pools(service).unwrap_or_default();
    match view.book.pool_of(address) {
        Some(lies_in)
            if asked.iter().any(|name| name == lies_in)
                && !asked.iter().any(|name| name == named)
                && may_count_under(view, lies_in, key, address, known) =>
        {
            lies_in.to_owned()
        }
        _ => named.to_owned(),
    }
}

/// Whether an address may come to be counted under a pool: the quota of every namespace that uses it there
/// has room, or counts it already.
pub(super) fn may_count_under(
    view: View<'_>,
    name: &str,
    key: &ServiceKey,
    address: IpAddr,
    known: Option<&VirtualIPSpec>,
) -> bool {
    let Some(pool) = view.book.pool(name) else { return false };
    let claims = known.into_iter().flat_map(|spec| &spec.claims).map(|claim| claim.namespace.as_str());
    let kept = known.and_then(|spec| spec.reservation.as_ref()).filter(|kept| is_tenants(kept));
    let mut users = claims.chain(kept.map(|kept| kept.namespace.as_str())).chain([key.namespace.as_str()]);
    users.all(|namespace| {
        view.usage.counts(address, name, namespace) || has_quota(name, pool, namespace, view.usage, 0).is_ok()
    })
}

/// The pool that an address was taken from, where its VirtualIP is not there to tell. What a Service
/// has was once what it asked for, even if pools were edited since.
fn origin(view: View<'_>, service: &Service, address: IpAddr) -> Option<String> {
    let lies_in = view.book.pool_of(address);
    match pools(service) {
        Some(names) if !names.iter().any(|name| Some(name.as_str()) == lies_in) => names.into_iter().next(),
        _ => lies_in.map(str::to_owned),
    }
}
