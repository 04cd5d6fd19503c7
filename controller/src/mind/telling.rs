//! What people are told of a Service: its conditions and Events.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::ClaimRef;
use landfall_crds::address::Family;
use landfall_crds::names::annotations;
use landfall_crds::names::conditions::{EXTERNAL_IP_CONFLICT, GRANTED, SERVICE_ANNOUNCED};

use super::service::Asked;
use super::subject::Subject;
use super::{Mind, Now};
use crate::conditions::{Wanted, find};
use crate::effects::Note;
use crate::granting::book::Holder;
use crate::granting::claim;
use crate::granting::named;
use crate::granting::outside::outside;
use crate::granting::plan::{Plan, View, is_withheld};
use crate::granting::reservation::why_not_reserved;
use crate::status::{self, ADDRESS_KEPT, Announcement};
use crate::world::virtual_ips::claim_of;

impl Mind {
    /// The conditions that the Service should have.
    pub(super) fn conditions_of(&mut self, now: Now, asked: Asked<'_>, plan: &Plan) -> Vec<Wanted> {
        let Asked { service, key, .. } = asked;
        let origin = |address| origin_of(self.view(), asked, address);
        let mut wanted = vec![status::granted(plan, service, origin)];
        let held = plan.held();
        if held.is_empty() {
            self.unannounced.remove(key);
            return wanted;
        }
        let vips = held.iter().filter_map(|address| Some((*address, &**self.vips.get(*address)?)));
        let has_speakers = self.nodes.iter().next().is_some();
        let withheld = held.iter().copied().find(|address| self.is_withheld_at(*address, asked));
        let announcement = match withheld {
            Some(address) => status::withheld(address),
            None => status::announcement(vips, claim::traffic_policy(service), has_speakers),
        };
        let known = status::conditions_of(service);
        let mut patient = false;
        if matches!(announcement, Announcement::Missing(_)) && !status::says_not_announced(known) {
            let since = *self.unannounced.entry(key.clone()).or_insert(now.monotonic);
            let until = since + self.config.announce_grace;
            patient = now.monotonic < until;
            if patient {
                self.pending.wake(&Subject::Service(key.clone()), until);
            }
        } else {
            self.unannounced.remove(key);
        }
        wanted.push(status::announced_condition(&announcement, known, patient));
        wanted.extend(status::external_ip_conflict(&self.listed_by_others(key, &held)));
        wanted
    }

    fn is_withheld_at(&self, address: IpAddr, asked: Asked<'_>) -> bool {
        let Some(vip) = self.vips.get(address) else { return false };
        let pool = vip.spec.pool.as_deref().and_then(|name| self.book.pool(name));
        claim_of(vip, asked.key).is_some_and(|claim| {
            pool.is_some_and(|pool| is_withheld(asked.service, claim, &pool.object, Family::of(address)))
        })
    }

    /// What to tell the owners of Services whose external IPs are in conflict, each once.
    pub(super) fn notes_to_offenders(&self, service: &Service, key: &ClaimRef, held: &[IpAddr]) -> Vec<Note> {
        let listed = self.listed_by_others(key, held);
        status::newly_listing(status::conditions_of(service), &listed)
            .filter_map(|(address, offender)| {
                let message = format!(
                    "{address} in spec.externalIPs is the load balancer address of Service {}: remove the entry",
                    named(key)
                );
                Some(note(self.services.get(offender)?, true, "ExternalIPConflict", message))
            })
            .collect()
    }

    /// The other Services that list one of the addresses in their `spec.externalIPs`: kube-proxy then leads
    /// its traffic astray inside the cluster (CVE-2020-8554).
    fn listed_by_others(&self, key: &ClaimRef, held: &[IpAddr]) -> Vec<(IpAddr, ClaimRef)> {
        let listed = held.iter().flat_map(|address| {
            self.book.holders(*address).iter().filter_map(move |holder| match holder {
                Holder::ExternalIp(by) if by != key => Some((*address, by.clone())),
                _ => None,
            })
        });
        listed.collect()
    }
}

/// Where an address that the Service holds comes from, in words; why its pool would not give it now; and
/// why it is not reserved although that was asked for.
fn origin_of(view: View<'_>, asked: Asked<'_>, address: IpAddr) -> String {
    let Some(vip) = view.vips.get(address) else { return address.to_string() };
    let named = vip.spec.pool.as_deref();
    let origin = match named {
        None => address.to_string(),
        Some(name) => match outside(view, asked.service, asked.key, asked.request, address, name) {
            None => format!("{address} from pool {name}"),
            Some(why) => format!("{address} ({why}{ADDRESS_KEPT}"),
        },
    };
    if !asked.request.is_some_and(|request| request.reserve) {
        return origin;
    }
    match why_not_reserved(view, vip, asked.key) {
        None => origin,
        Some(why) => format!("{origin}, not reserved ({} is set, but {why})", annotations::RESERVE),
    }
}

/// What to tell when the conditions change from what they say to what is wanted.
pub(super) fn notes_of(service: &Service, wanted: &[Wanted]) -> Vec<Note> {
    let known = status::conditions_of(service);
    let changed = |wanted: &&Wanted| {
        find(known, wanted.type_)
            .is_none_or(|known| known.status != wanted.status || known.reason != wanted.reason)
    };
    wanted
        .iter()
        .filter(changed)
        .filter_map(|wanted| match (wanted.type_, wanted.status, wanted.reason) {
            (GRANTED, "False", _) => {
                let message = format!("Error syncing load balancer: {}", wanted.message);
                Some(note(service, true, "SyncLoadBalancerFailed", message))
            }
            (SERVICE_ANNOUNCED, "False", _) => {
                Some(note(service, true, "UnAvailableLoadBalancer", wanted.message.clone()))
            }
            (EXTERNAL_IP_CONFLICT, "True", reason) => {
                Some(note(service, true, reason, wanted.message.clone()))
            }
            _ => None,
        })
        .collect()
}

/// An Event about a Service.
pub(super) fn note(
    service: &Service,
    warning: bool,
    reason: &'static str,
    message: impl Into<String>,
) -> Note {
    let meta = &service.metadata;
    Note {
        kind: "Service",
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        warning,
        reason,
        message: message.into(),
    }
}
