//! The next missing step of a Service that is ours: finalizers, VirtualIPs, status.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use landfall_crds::names::conditions::{GRANTED, SERVICE_ANNOUNCED};
use landfall_crds::{ClaimRef, Placement, VirtualIPSpec, virtual_ip_name};

use super::subject::{Subject, exactly};
use super::{Mind, Now};
use crate::conditions::{Wanted, already_said, find, with_times};
use crate::effects::{Effect, Note};
use crate::granting::book::Holder;
use crate::granting::choice::Chosen;
use crate::granting::claim;
use crate::granting::plan::{Plan, Slot, plan, pool_to_name};
use crate::granting::verdict::{self, Verdict, has_both_finalizers, judge};
use crate::granting::wait::{Until, some_of};
use crate::ranking::{Reach, eligible, order};
use crate::status::{self, Announcement, OURS};
use crate::world::virtual_ips::{claim_of, is_deleting};

impl Mind {
    pub(super) fn look_at_service(&mut self, now: Now, key: &ClaimRef, out: &mut Vec<Effect>) {
        self.waiting.remove(key);
        let Some(service) = self.services.get(key).map(Arc::clone) else {
            return self.look_at_missing(now, key, out);
        };
        match self.judge(&service, key) {
            Verdict::Ours => self.grant(now, key, &service, out),
            Verdict::NotOurs => self.release(now, key, &service, true, out),
            Verdict::HeldByAnother { advice } => {
                let uid = service.metadata.uid.clone().unwrap_or_default();
                if self.told.insert(uid) {
                    out.push(Effect::Publish(note(&service, true, "HeldByAnother", advice)));
                }
                self.release(now, key, &service, false, out);
            }
        }
    }

    pub(super) fn judge(&self, service: &Service, key: &ClaimRef) -> Verdict {
        let claims = |address: IpAddr| {
            self.vips.get(address).is_some_and(|vip| claim_of(vip, key).is_some())
                || self.lost.get(key).is_some_and(|lost| lost.contains_key(&address))
        };
        judge(service, key, &self.classes, &self.book, &self.vips, claims)
    }

    fn grant(&mut self, now: Now, key: &ClaimRef, service: &Arc<Service>, out: &mut Vec<Effect>) {
        let plan = plan(self.view(), service, key);
        self.settle_lost(now, key, |address| plan.wants(address), out);
        let waits = plan.waits().map(|wait| wait.until.clone());
        let until = waits.chain(plan.forgone.iter().copied().map(Until::Free)).collect();
        let goes_without = plan.goes_without();
        self.waiting.put(key, self.age(key), until, goes_without);

        let subject = Subject::Service(key.clone());
        if plan.has_any() && !has_both_finalizers(service) {
            if self.may_act_on(&subject, now) {
                let notes = vec![note(service, false, "EnsuringLoadBalancer", "Ensuring load balancer")];
                self.want(Effect::AddFinalizers { service: exactly(&service.metadata) }, notes, out);
            }
            return;
        }
        for family in &plan.families {
            match &family.slot {
                Slot::Held(address) => self.keep(now, *address, service, key, out),
                Slot::Take(chosen) => self.take(now, chosen, service, key, out),
                Slot::Switch { from, to } => {
                    self.keep(now, *from, service, key, out);
                    self.take(now, to, service, key, out);
                }
                Slot::UnderWay(_) | Slot::Empty => {}
            }
        }
        if !plan.is_unfinished() {
            self.show(now, key, service, &plan, out);
        }
    }

    /// Brings the VirtualIP of an address that the Service holds up to date.
    fn keep(&mut self, now: Now, address: IpAddr, service: &Service, key: &ClaimRef, out: &mut Vec<Effect>) {
        let Some(vip) = self.vips.get(address).map(Arc::clone) else { return };
        if !self.may_act_at(address, key, now) {
            return;
        }
        if is_deleting(&vip) && verdict::addresses(service).contains(&address) {
            // Deleted by mistake. The object cannot be brought back to life, so it makes room for its
            // successor; what it held is remembered when it goes. Only what the status shows is safe
            // meanwhile, so a grant under way is finished first.
            self.want(Effect::DeleteVirtualIp { virtual_ip: exactly(&vip.metadata) }, Vec::new(), out);
            return;
        }
        let spec = self.spec_of(now, Some(&vip.spec), address, None, service, key);
        if spec != vip.spec {
            self.loads.set(address, spec.placement.as_ref());
            let virtual_ip = exactly(&vip.metadata);
            self.want(Effect::UpdateVirtualIp { virtual_ip, spec: Box::new(spec) }, Vec::new(), out);
        }
    }

    /// Claims an address.
    fn take(&mut self, now: Now, chosen: &Chosen, service: &Service, key: &ClaimRef, out: &mut Vec<Effect>) {
        let address = chosen.address;
        if !self.may_act_at(address, key, now) {
            return;
        }
        let known = self.vips.get(address).map(Arc::clone);
        let lost = self.lost.get(key).and_then(|lost| lost.get(&address));
        let lost = lost.map(|lost| lost.spec.clone());
        let current = known.as_ref().map(|vip| vip.spec.clone()).or(lost);
        let spec =
            Box::new(self.spec_of(now, current.as_ref(), address, chosen.pool.as_deref(), service, key));
        self.loads.set(address, spec.placement.as_ref());
        self.claiming.entry(key.clone()).or_default().insert(address);
        self.claimant_of.insert(address, key.clone());
        let effect = match known {
            Some(vip) => Effect::UpdateVirtualIp { virtual_ip: exactly(&vip.metadata), spec },
            None => {
                self.hold(address, Holder::Busy);
                Effect::CreateVirtualIp { name: virtual_ip_name(address), spec }
            }
        };
        self.want(effect, Vec::new(), out);
    }

    /// The spec that the VirtualIP of an address should have while the Service claims it.
    fn spec_of(
        &mut self,
        now: Now,
        current: Option<&VirtualIPSpec>,
        address: IpAddr,
        pool: Option<&str>,
        service: &Service,
        key: &ClaimRef,
    ) -> VirtualIPSpec {
        let name = current
            .and_then(|spec| spec.pool.as_deref())
            .or(pool)
            .or_else(|| self.book.pool_of(address))
            .map(|name| pool_to_name(&self.book, service, address, name));
        let pool = name.as_deref().and_then(|name| self.book.pool(name)).map(|pool| Arc::clone(&pool.object));
        let announce = match &pool {
            Some(pool) => claim::announce(pool),
            None => current.and_then(|spec| spec.announce.clone()),
        };
        let is_local = claim::traffic_policy(service) == landfall_crds::TrafficPolicy::Local;
        let standing = current.and_then(|spec| spec.placement.as_ref());
        let family = landfall_crds::address::Family::of(address);
        let reach = Reach {
            address,
            interfaces: announce.as_ref().map(|announce| announce.interfaces.as_slice()).unwrap_or_default(),
            selector: pool
                .as_ref()
                .and_then(|pool| pool.spec.announce.as_ref())
                .and_then(|announce| announce.node_selector.as_ref()),
            local: is_local.then(|| self.endpoints.local_nodes(key, family)),
        };
        let mut nodes = eligible(&self.nodes, &reach);
        let before = standing.map(|placement| placement.candidates.as_slice()).unwrap_or_default();
        if pool.is_none() && nodes.iter().any(|node| before.iter().any(|known| known.node == node.node)) {
            // The pool's selector went with it: those that it selected stay, and no others join.
            for node in &mut nodes {
                node.may_join = false;
            }
        }
        let candidates = order(address, before, &nodes, &self.loads);
        let epoch = match standing {
            Some(placement) => placement.epoch,
            None => self.next_epoch(now.wall),
        };
        let placement = Placement { epoch, candidates };
        let mut spec = claim::with_claim(current, address, service, key, placement);
        spec.pool = name;
        spec.announce = announce;
        spec
    }

    /// An epoch above every other: by the clock, unless that has been set back.
    pub(super) fn next_epoch(&mut self, wall: Timestamp) -> i64 {
        self.last_epoch = (self.last_epoch + 1).max(wall.as_millisecond());
        self.last_epoch
    }

    /// Writes the status of a Service whose claims are all written, then lets go of what is not shown.
    fn show(&mut self, now: Now, key: &ClaimRef, service: &Service, plan: &Plan, out: &mut Vec<Effect>) {
        let held = plan.held();
        let ingress = status::ingress_of(&held);
        let is_shown = status::same_ingress(verdict::ingress(service), &ingress);
        if is_shown {
            for address in &plan.surplus {
                self.drop_claim(now, *address, key, Vec::new(), out);
            }
        }
        let wanted = self.conditions_of(now, key, service, plan);
        let generation = service.metadata.generation;
        let known = status::conditions_of(service);
        if is_shown && already_said(known, &wanted, &OURS, generation) {
            return;
        }
        let subject = Subject::Service(key.clone());
        if is_shown && let Some(last) = self.conditions_written.get(key) {
            // Another writer that sees things differently for a moment is not answered at once.
            let next = *last + self.config.conditions_pace;
            if now.monotonic < next {
                return self.pending.wake(&subject, next);
            }
        }
        if !self.may_act_on(&subject, now) {
            return;
        }
        let conditions = with_times(known, &wanted, generation, now.wall);
        let mut notes = notes_of(service, &wanted);
        let exactly = exactly(&service.metadata);
        if is_shown {
            self.conditions_written.insert(key.clone(), now.monotonic);
            return self.want(Effect::SetConditions { service: exactly, conditions }, notes, out);
        }
        if !self.is_confirmed(now, key, service, &held, out) {
            return;
        }
        if !held.is_empty() {
            let message = format!("Ensured load balancer: {}", some_of(&held, 2));
            notes.push(note(service, false, "EnsuredLoadBalancer", message));
        }
        self.want(Effect::SetIngress { service: exactly, ingress, conditions }, notes, out);
    }

    /// Whether the claims on all addresses that come into the status, or go because somebody else has
    /// them, were read or written after this state of the Service was learned. Asks for those that
    /// were not.
    fn is_confirmed(
        &mut self,
        now: Now,
        key: &ClaimRef,
        service: &Service,
        held: &[IpAddr],
        out: &mut Vec<Effect>,
    ) -> bool {
        let learned = self.services.known(key).map_or(u64::MAX, |known| known.learned);
        let shown = verdict::addresses(service);
        let coming = held.iter().copied().filter(|address| !shown.contains(address));
        let taken_away = shown.iter().copied().filter(|address| {
            let claims = self.vips.get(*address).is_some_and(|vip| claim_of(vip, key).is_some());
            !held.contains(address) && !claims && status::is_shown_by_us(service, *address)
        });
        let is_stale = |address: &IpAddr| {
            let live = match self.vips.known(*address) {
                Some(vip) => Some(vip.live),
                None => self.absent.get(address).copied(),
            };
            live.is_none_or(|live| live < learned)
        };
        let stale: Vec<IpAddr> = coming.chain(taken_away).filter(is_stale).collect();
        for address in &stale {
            if self.may_act_at(*address, key, now) {
                self.want(Effect::GetVirtualIp { name: virtual_ip_name(*address) }, Vec::new(), out);
            }
        }
        stale.is_empty()
    }

    fn conditions_of(&mut self, now: Now, key: &ClaimRef, service: &Service, plan: &Plan) -> Vec<Wanted> {
        let pool_of = |address| self.vips.get(address).and_then(|vip| vip.spec.pool.clone());
        let mut wanted = vec![status::granted(plan, service, &self.book, pool_of)];
        let held = plan.held();
        if held.is_empty() {
            self.unannounced.remove(key);
            return wanted;
        }
        let vips = held.iter().filter_map(|address| Some((*address, &**self.vips.get(*address)?)));
        let has_speakers = self.nodes.iter().next().is_some();
        let announcement = status::announcement(vips, claim::traffic_policy(service), has_speakers);
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
        wanted
    }
}

/// What to tell when the conditions change from what they say to what is wanted.
fn notes_of(service: &Service, wanted: &[Wanted]) -> Vec<Note> {
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
