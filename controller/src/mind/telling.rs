//! What people are told of a Service: its conditions and Events.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::Family;
use landfall_crds::names::annotations;
use landfall_crds::names::conditions::{EXTERNAL_IP_CONFLICT, GRANTED, GUARDED, SERVICE_ANNOUNCED};
use landfall_crds::{ClaimRef, VirtualIP};

use super::service::Asked;
use super::subject::Subject;
use super::{Mind, Now};
use crate::conditions::{Wanted, find};
use crate::effects::{Effect, Note};
use crate::granting::book::Holder;
use crate::granting::claim;
use crate::granting::guard::{guarded, reasons::FAMILY_CLOSED};
use crate::granting::named;
use crate::granting::outside::outside;
use crate::granting::plan::{Plan, View, is_withheld};
use crate::granting::reservation::why_not_reserved;
use crate::granting::verdict;
use crate::granting::wait::some_of;
use crate::status::announced::NOT_YET_ANNOUNCED;
use crate::status::{self, ADDRESS_KEPT, Announcement};
use crate::world::virtual_ips::claim_of;

/// A Service some of whose addresses no node answers for though nodes could.
#[derive(Debug)]
pub(super) struct Silence {
    since: Instant,
    /// Its owner knows already.
    is_told: bool,
}

impl Mind {
    /// The conditions that the Service should have.
    pub(super) fn conditions_of(&mut self, now: Now, asked: Asked<'_>, plan: &Plan) -> Vec<Wanted> {
        let Asked { service, key, guard, .. } = asked;
        let origin = |address| origin_of(self.view(), asked, address);
        let mut wanted = vec![status::granted(plan, service, origin)];
        let refused = self.refused.of_guard(key);
        wanted.extend(guard.wanted().map(|guard| guarded(service, guard, refused)));
        let held = plan.held();
        if held.is_empty() {
            self.silent.remove(key);
            return wanted;
        }
        let vips = held.iter().filter_map(|address| Some((*address, &**self.vips.get(*address)?)));
        let has_speakers = self.nodes.iter().next().is_some();
        let withheld = held.iter().copied().find(|address| self.is_withheld_at(*address, asked));
        let announcement = match withheld {
            Some(address) => status::withheld(address),
            None => {
                let is_reached = |address, vip: &VirtualIP| self.is_reached(address, &vip.spec);
                status::announcement(vips, claim::traffic_policy(service), has_speakers, is_reached)
            }
        };
        let patient = self.is_silent_for_a_moment(now, service, key, &announcement);
        wanted.push(status::announced_condition(&announcement, patient));
        wanted.extend(status::external_ip_conflict(&self.listed_by_others(key, &held)));
        wanted
    }

    /// Whether an address that its Service shows as announced is taken to be between two nodes. How long some
    /// address has not been answered for is counted from here on.
    fn is_silent_for_a_moment(
        &mut self,
        now: Now,
        service: &Service,
        key: &ClaimRef,
        announcement: &Announcement,
    ) -> bool {
        let Announcement::Missing(address) = announcement else {
            self.silent.remove(key);
            return false;
        };
        let known = status::conditions_of(service);
        let grace = self.config.announce_grace;
        let silence = self.silent.entry(key.clone()).or_insert_with(|| {
            // What was said longer ago was told then, if by a predecessor.
            let age = status::not_announced_since(known).map(|since| now.wall.duration_since(since));
            let is_told = age.and_then(|age| Duration::try_from(age).ok()).is_some_and(|age| age > grace);
            Silence { since: now.monotonic, is_told }
        });
        let until = silence.since + grace;
        if until <= now.monotonic {
            return false;
        }
        if !silence.is_told {
            self.pending.wake(&Subject::Service(key.clone()), until);
        }
        status::says_announced(known) && verdict::addresses(service).contains(address)
    }

    /// Tells the owner, once, of an address that was granted and is not answered for after some seconds. Its
    /// condition has said so from the beginning, so that nothing else is to be written.
    pub(super) fn tell_of_silence(
        &mut self,
        now: Now,
        service: &Service,
        key: &ClaimRef,
        wanted: &[Wanted],
        out: &mut Vec<Effect>,
    ) {
        let says = |wanted: &&Wanted| wanted.reason == NOT_YET_ANNOUNCED;
        let (Some(silence), Some(wanted)) = (self.silent.get_mut(key), wanted.iter().find(says)) else {
            return;
        };
        if !silence.is_told && silence.since + self.config.announce_grace <= now.monotonic {
            silence.is_told = true;
            // Where it was answered for until lately, the write of the condition tells.
            if !status::says_announced(status::conditions_of(service)) {
                let message = wanted.message.clone();
                out.push(Effect::Publish(note(service, true, "UnAvailableLoadBalancer", message)));
            }
        }
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

/// What to tell when the conditions change from what they say to what is wanted; `is_shown` says that the addresses
/// in hand are those of the status. Of a grant it is told when they are answered for, or that they are not.
pub(super) fn notes_of(service: &Service, held: &[IpAddr], is_shown: bool, wanted: &[Wanted]) -> Vec<Note> {
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
            (SERVICE_ANNOUNCED, "True", _) => Some(ensured(service, held)),
            (SERVICE_ANNOUNCED, "False", NOT_YET_ANNOUNCED)
                if !is_shown || !status::says_announced(known) =>
            {
                None
            }
            (SERVICE_ANNOUNCED, "False", _) => {
                Some(note(service, true, "UnAvailableLoadBalancer", wanted.message.clone()))
            }
            (GUARDED, "False", reason) | (GUARDED, _, reason @ FAMILY_CLOSED) => {
                Some(note(service, true, reason, wanted.message.clone()))
            }
            (EXTERNAL_IP_CONFLICT, "True", reason) => {
                Some(note(service, true, reason, wanted.message.clone()))
            }
            _ => None,
        })
        .collect()
}

/// That the Service can be reached at its addresses.
fn ensured(service: &Service, held: &[IpAddr]) -> Note {
    note(service, false, "EnsuredLoadBalancer", format!("Ensured load balancer: {}", some_of(held, 2)))
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
        standing: false,
    }
}
