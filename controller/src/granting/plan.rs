//! What a Service should have in each of its families, seen from what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::VirtualIPSpec;
use landfall_crds::address::Family;

use super::ServiceKey;
use super::book::AddressBook;
use super::candidates::{candidates, is_contested};
use super::choice::{Chosen, choose};
use super::request::{Request, families, pools, read};
use super::verdict::addresses;
use super::wait::Wait;
use crate::world::virtual_ips::VirtualIps;

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
    /// All VirtualIPs.
    pub vips: &'a VirtualIps,
    /// Addresses for which a claim of a Service is being written.
    pub claiming: &'a BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    /// VirtualIPs that vanished.
    pub lost: &'a Lost,
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

/// Makes the plan for a Service that is ours.
pub fn plan(view: View<'_>, service: &Service, key: &ServiceKey) -> Plan {
    let request = read(service);
    let families = families(service);
    let mut plan = Plan::default();
    for family in &families {
        plan.families.push(in_family(view, service, key, &request, *family));
    }
    let spec = service.spec.as_ref();
    let both_or_none = spec.and_then(|spec| spec.ip_family_policy.as_deref()) == Some("RequireDualStack");
    let lacks_one = plan.families.iter().any(|family| family.slot == Slot::Empty);
    if both_or_none && lacks_one && addresses(service).is_empty() {
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
    plan.surplus = view.vips.claimed_by(key).filter(|address| !plan.wants(*address)).collect();
    plan
}

fn in_family(
    view: View<'_>,
    service: &Service,
    key: &ServiceKey,
    request: &Result<Request, Wait>,
    family: Family,
) -> FamilyPlan {
    let slot = |slot, wait| FamilyPlan { family, slot, wait };
    let under_way = view.claiming.get(key).into_iter().flatten();
    if let Some(address) = under_way.copied().find(|address| Family::of(*address) == family) {
        return slot(Slot::UnderWay(address), None);
    }
    let contested = addresses(service)
        .into_iter()
        .find(|address| Family::of(*address) == family && is_contested(view, service, key, *address));
    if let Some(address) = contested {
        return slot(Slot::UnderWay(address), None);
    }
    let mut candidates = candidates(view, service, key, request.as_ref().ok(), family);
    // Best first: what is asked for, what the status shows, what is claimed, the oldest, the lowest.
    candidates
        .sort_by_key(|known| (!known.fits, !known.in_status, !known.claimed, known.born, known.address));
    let best = candidates.first();
    let take = |address: IpAddr| Chosen { address, pool: origin(view, service, address) };
    let request = match request {
        Ok(request) => request,
        Err(wait) => {
            let in_hand = match best {
                None => Slot::Empty,
                Some(best) if best.claimed => Slot::Held(best.address),
                Some(best) => Slot::Take(take(best.address)),
            };
            return slot(in_hand, Some(wait.clone()));
        }
    };
    match best {
        // What has vanished is brought back first, whatever is asked for.
        Some(best) if !best.claimed => slot(Slot::Take(take(best.address)), None),
        Some(best) if best.fits => slot(Slot::Held(best.address), None),
        Some(best) => match choose(view.book, view.vips, key, request, family) {
            Ok(to) => slot(Slot::Switch { from: best.address, to }, None),
            Err(wait) => slot(Slot::Held(best.address), Some(wait)),
        },
        None => match choose(view.book, view.vips, key, request, family) {
            Ok(chosen) => slot(Slot::Take(chosen), None),
            Err(wait) => slot(Slot::Empty, Some(wait)),
        },
    }
}

/// The pool that an address is said to be taken from. A VirtualIP that names a pool keeps to it,
/// unless the Service has come to ask for the pool that the address lies in: from then on it is that
/// one, so that no later edit of a pool moves the Service.
pub fn pool_to_name(book: &AddressBook, service: &Service, address: IpAddr, named: &str) -> String {
    let asked = pools(service).unwrap_or_default();
    match book.pool_of(address) {
        Some(lies_in)
            if asked.iter().any(|name| name == lies_in) && !asked.iter().any(|name| name == named) =>
        {
            lies_in.to_owned()
        }
        _ => named.to_owned(),
    }
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
