//! What a Service's status says: the addresses and our conditions.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use landfall_crds::address::{Family, parse_address};
use landfall_crds::names::conditions::{
    ADDRESS_CONFLICT, EXTERNAL_IP_CONFLICT, GRANTED, GUARDED, SERVICE_ANNOUNCED,
};
use landfall_crds::{TrafficPolicy, VirtualIP};

use crate::conditions::{Wanted, find};
use crate::granting::plan::{FamilyPlan, Plan, Slot};
use crate::granting::wait::{reasons, some_of};
use crate::granting::{ServiceKey, named};

/// The condition types that are ours on a Service.
pub const OURS: [&str; 4] = [GRANTED, SERVICE_ANNOUNCED, GUARDED, EXTERNAL_IP_CONFLICT];

/// So many of those who list an address of the Service in `spec.externalIPs` are named and told.
const MOST_LISTING: usize = 8;
/// What follows them in the message.
const IN_EXTERNAL_IPS: &str = " in spec.externalIPs";

/// What follows the addresses in hand of a Service that waits for others.
const STAYS: &str = " stays until then";
/// What ends the words about an address that its pool would not give any more.
pub(crate) const ADDRESS_KEPT: &str = "; address kept)";

/// Reasons of the condition `landfall.dev/Announced`.
pub mod announced {
    /// A node answers for every address.
    pub const ANNOUNCED: &str = "Announced";
    /// No node answers yet for some address.
    pub const NOT_YET_ANNOUNCED: &str = "NotYetAnnounced";
    /// No node may announce some address.
    pub const NO_CANDIDATES: &str = "NoCandidates";
    /// The traffic policy is Local and no node has an endpoint.
    pub const NO_ENDPOINT: &str = "NoEndpoint";
    /// The pool requires source ranges, and the Service has given up those that it had.
    pub const SOURCE_RANGES_REQUIRED: &str = "SourceRangesRequired";
    /// Another station of the LAN uses some address.
    pub const ADDRESS_CONFLICT: &str = "AddressConflict";

    /// All of them.
    pub const ALL: [&str; 6] =
        [ANNOUNCED, NOT_YET_ANNOUNCED, NO_CANDIDATES, NO_ENDPOINT, SOURCE_RANGES_REQUIRED, ADDRESS_CONFLICT];
}

/// `status.loadBalancer.ingress` for these addresses, in this order. Canonical texts and an explicit
/// mode, as the API server wants them (KEP-4858, KEP-1860).
pub fn ingress_of(addresses: &[IpAddr]) -> Vec<LoadBalancerIngress> {
    addresses
        .iter()
        .map(|address| LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        })
        .collect()
}

/// The conditions of a Service as they stand.
pub fn conditions_of(service: &Service) -> &[Condition] {
    service.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// `landfall.dev/Granted`. `origin` tells where an address comes from, in words: the address first, and no other
/// one after a comma.
pub fn granted(plan: &Plan, service: &Service, origin: impl Fn(IpAddr) -> String) -> Wanted {
    let held = plan.held();
    let prefers = service.spec.as_ref().and_then(|spec| spec.ip_family_policy.as_deref());
    let is_bonus = |family: &FamilyPlan| {
        family.wait.as_ref().is_none_or(|wait| family.slot == Slot::Empty && wait.is_shortage())
    };
    let has_what_can_be_had =
        !held.is_empty() && prefers == Some("PreferDualStack") && plan.families.iter().all(is_bonus);
    let origins = held.iter().map(|address| origin(*address));
    if let Some(wait) = plan.waits().next() {
        // Each family has its own reason, unless both have the same.
        let other = plan.waits().nth(1).filter(|other| other.message != wait.message);
        let why = match other {
            None => wait.message.clone(),
            Some(other) if other.reason == wait.reason => format!("{}; {}", wait.message, other.message),
            Some(other) => format!("{}; {}: {}", wait.message, other.reason, other.message),
        };
        if has_what_can_be_had {
            let message = format!("{}; {why}", some_of(origins, 2));
            return Wanted::new(GRANTED, true, reasons::GRANTED, message);
        }
        let message = if held.is_empty() { why } else { format!("{why}; {}{STAYS}", some_of(&held, 2)) };
        return Wanted::new(GRANTED, false, wait.reason, message);
    }
    Wanted::new(GRANTED, true, reasons::GRANTED, some_of(origins, 2))
}

/// Whether the address in the status was written by us: it is written together with both conditions,
/// and `landfall.dev/Granted` says that the Service holds it. Another controller may overwrite the address,
/// but does not know of the condition.
pub fn is_shown_by_us(service: &Service, address: IpAddr) -> bool {
    let known = conditions_of(service);
    find(known, SERVICE_ANNOUNCED).is_some()
        && find(known, GRANTED).is_some_and(|granted| held_by(granted).contains(&address))
}

/// The addresses that a Service holds by what its condition says; [`granted`] read backwards. They stand
/// where that puts them and nowhere else: what a message says of an address that is asked for, or of another
/// pool, whose name may look like an address, tells of none.
fn held_by(granted: &Condition) -> Vec<IpAddr> {
    let message = granted.message.as_str();
    let held = if granted.status == "True" {
        let end = message.match_indices("; ").find(|(at, _)| !message[*at..].starts_with(ADDRESS_KEPT));
        end.map_or(message, |(at, _)| &message[..at])
    } else {
        let kept = message.strip_suffix(STAYS).and_then(|message| message.rsplit_once("; "));
        kept.map_or("", |(_, held)| held)
    };
    held.split(", ").filter_map(|origin| parse_address(origin.split(' ').next()?).ok()).collect()
}

/// What is known of the announcement of a Service's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// Every address is answered for.
    Announced,
    /// Some address is not answered for though nodes could; it may be a moment between two of them.
    Missing(IpAddr),
    /// Some address cannot be answered for.
    Impossible {
        /// One of [`announced`].
        reason: &'static str,
        /// What to do.
        message: String,
    },
}

/// Looks at the VirtualIPs of the addresses that a Service holds. `is_reached` says whether some node could announce
/// one if it did not matter where endpoints are.
pub fn announcement<'a>(
    vips: impl Iterator<Item = (IpAddr, &'a VirtualIP)>,
    policy: TrafficPolicy,
    has_speakers: bool,
    is_reached: impl Fn(IpAddr, &VirtualIP) -> bool,
) -> Announcement {
    let mut missing = None;
    for (address, vip) in vips {
        let status = vip.status.as_ref();
        let known = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        if let Some(conflict) = find(known, ADDRESS_CONFLICT).filter(|known| known.status == "True") {
            let message = format!(
                "another station of the LAN uses {address}: {}: find it and give it another address, or exclude the address from its pool",
                conflict.message
            );
            return Announcement::Impossible { reason: announced::ADDRESS_CONFLICT, message };
        }
        let candidates = vip.spec.placement.as_ref().map_or(0, |placement| placement.candidates.len());
        if candidates == 0 {
            let lacks_endpoints = policy == TrafficPolicy::Local && is_reached(address, vip);
            return impossible(address, lacks_endpoints, has_speakers);
        }
        if status.and_then(|status| status.announcer.as_ref()).is_none() {
            missing.get_or_insert(address);
        }
    }
    missing.map_or(Announcement::Announced, Announcement::Missing)
}

/// An address that is kept but not announced, for want of source ranges.
pub fn withheld(address: IpAddr) -> Announcement {
    Announcement::Impossible {
        reason: announced::SOURCE_RANGES_REQUIRED,
        message: format!(
            "{address} is kept but not announced, since its pool requires source ranges and the Service has none that \
             limit {} any more: set spec.loadBalancerSourceRanges",
            Family::of(address)
        ),
    }
}

/// `landfall.dev/ExternalIPConflict`, true, reason of the same name: who lists which of the Service's
/// addresses. Nothing if nobody does.
pub fn external_ip_conflict(listed: &[(IpAddr, ServiceKey)]) -> Option<Wanted> {
    if listed.is_empty() {
        return None;
    }
    let who = listed.iter().map(|(address, by)| lists(*address, by));
    let message = format!(
        "{}{IN_EXTERNAL_IPS}, so traffic to it from inside the cluster may go there: have the entry removed",
        some_of(who, MOST_LISTING)
    );
    Some(Wanted::new(EXTERNAL_IP_CONFLICT, true, "ExternalIPConflict", message))
}

/// Those who list an address and whom the condition does not name so far, so that each is told once.
pub fn newly_listing<'a>(
    known: &'a [Condition],
    listed: &'a [(IpAddr, ServiceKey)],
) -> impl Iterator<Item = &'a (IpAddr, ServiceKey)> {
    let message = find(known, EXTERNAL_IP_CONFLICT).map_or("", |known| known.message.as_str());
    let named = message.split(IN_EXTERNAL_IPS).next().and_then(|list| list.split(" and ").next());
    let named = named.unwrap_or_default();
    let is_named = move |text: String| named.split(", ").any(|known| known == text);
    listed.iter().take(MOST_LISTING).filter(move |(address, by)| !is_named(lists(*address, by)))
}

fn lists(address: IpAddr, by: &ServiceKey) -> String {
    format!("Service {} lists {address}", named(by))
}

fn impossible(address: IpAddr, lacks_endpoints: bool, has_speakers: bool) -> Announcement {
    let (reason, message) = if !has_speakers {
        (
            announced::NO_CANDIDATES,
            format!(
                "no node can announce {address}, since no speaker runs: look at the DaemonSet landfall-speaker"
            ),
        )
    } else if lacks_endpoints {
        (
            announced::NO_ENDPOINT,
            format!(
                "externalTrafficPolicy is Local and no node that can announce {address} has a ready endpoint: \
                 look at the Service's pods"
            ),
        )
    } else {
        (
            announced::NO_CANDIDATES,
            format!(
                "no node can announce {address}: none has an interface on its {} subnet with the link up; see the \
                 conditions of its pool and kubectl get speakers",
                Family::of(address)
            ),
        )
    };
    Announcement::Impossible { reason, message }
}

/// `landfall.dev/Announced`. `patient` says that a missing announcement is taken for a moment between two
/// nodes. What it says of an address that no node answers for yet is true from the first moment and stays so, so
/// that it is written once: with the address.
pub fn announced_condition(announcement: &Announcement, patient: bool) -> Wanted {
    match announcement {
        Announcement::Impossible { reason, message } => {
            Wanted::new(SERVICE_ANNOUNCED, false, reason, message.clone())
        }
        Announcement::Missing(address) if !patient => Wanted::new(
            SERVICE_ANNOUNCED,
            false,
            announced::NOT_YET_ANNOUNCED,
            format!(
                "no node answers for {address}: if that lasts for more than some seconds, look at VirtualIP \
                 {address} and kubectl get speakers"
            ),
        ),
        Announcement::Announced | Announcement::Missing(_) => Wanted::new(
            SERVICE_ANNOUNCED,
            true,
            announced::ANNOUNCED,
            "every address is answered for on the LAN",
        ),
    }
}

/// Whether the status says that every address is announced.
pub fn says_announced(known: &[Condition]) -> bool {
    find(known, SERVICE_ANNOUNCED).is_some_and(|known| known.status == "True")
}

/// Since when the status says that no node answers for some address, if it does.
pub fn not_announced_since(known: &[Condition]) -> Option<Timestamp> {
    find(known, SERVICE_ANNOUNCED)
        .filter(|known| known.status == "False" && known.reason == announced::NOT_YET_ANNOUNCED)
        .map(|known| known.last_transition_time.0)
}

/// Whether two lists of entries say the same.
pub fn same_ingress(known: &[LoadBalancerIngress], wanted: &[LoadBalancerIngress]) -> bool {
    let same = |(known, wanted): (&LoadBalancerIngress, &LoadBalancerIngress)| {
        known.ip == wanted.ip
            && known.ip_mode == wanted.ip_mode
            && known.hostname == wanted.hostname
            && known.ports.as_deref().unwrap_or_default() == wanted.ports.as_deref().unwrap_or_default()
    };
    known.len() == wanted.len() && known.iter().zip(wanted).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::granting::wait::{Until, Wait};
    use serde_json::json;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_condition_says_that_a_service_holds_is_read_back_and_nothing_else() {
        let asks =
            "192.0.2.7 is asked for, but no IPPool holds it: ask for another address, or add it to a pool";
        let quotes = "landfall.dev/pool says 'x; 192.0.2.7 stays until then', and 'y; 192.0.2.8': correct it";
        let spent = "no IPv6 address can be had: lan is exhausted, 192.0.2.7 is exhausted: add addresses";
        let edited = |address: IpAddr| format!("{address} (pool 192.0.2.7 is gone{ADDRESS_KEPT}");
        let unreserved = |address: IpAddr| {
            format!(
                "{address} from pool lan, not reserved (landfall.dev/reserve is set, but pool 192.0.2.7 is gone)"
            )
        };
        let plain = |address: IpAddr| format!("{address} from pool 192.0.2.7");
        let origins: [&dyn Fn(IpAddr) -> String; 4] =
            [&|address| address.to_string(), &plain, &edited, &unreserved];
        let any = Until::Any { family: Family::IPv6, pools: None };
        let waits = [(asks, Until::Edited), (quotes, Until::Edited), (spent, any)];
        let waits = waits.map(|(message, until)| Some(Wait::new(reasons::POOL_EXHAUSTED, message, until)));
        for (held, origin, wait, policy) in
            [&[][..], &["10.0.0.50"], &["fd00::50"], &["10.0.0.50", "fd00::50"]]
                .iter()
                .flat_map(|held| origins.iter().map(move |origin| (held, origin)))
                .flat_map(|(held, origin)| waits.iter().chain([&None]).map(move |wait| (held, origin, wait)))
                .flat_map(|(held, origin, wait)| {
                    ["SingleStack", "PreferDualStack"].map(|policy| (held, origin, wait, policy))
                })
        {
            let held: Vec<IpAddr> = held.iter().map(|text| ip(text)).collect();
            let family = |address: &IpAddr| Slot::Held(*address);
            let mut slots: Vec<Slot> = held.iter().map(family).collect();
            slots.extend((slots.len() < 2).then_some(Slot::Empty));
            let last = slots.len() - 1;
            let families = slots.into_iter().enumerate().map(|(at, slot)| FamilyPlan {
                family: Family::IPv4,
                slot,
                wait: wait.clone().filter(|_| at == last),
            });
            let plan = Plan { families: families.collect(), ..Plan::default() };
            let service = serde_json::from_value(json!({"spec": {"ipFamilyPolicy": policy}})).unwrap();
            let said = granted(&plan, &service, origin);
            let said = crate::conditions::with_times(&[], &[said], None, Timestamp::UNIX_EPOCH).remove(0);
            assert_eq!(held_by(&said), held, "{}: {}", said.status, said.message);
        }
    }
}
