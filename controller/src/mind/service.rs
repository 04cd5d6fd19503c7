//! The next missing step of a Service that is ours: finalizers, VirtualIPs, status.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::Family;
use landfall_crds::names::annotations;
use landfall_crds::{ClaimRef, VirtualIPSpec, virtual_ip_name};

use super::guarding::Guard;
use super::subject::{Subject, exactly};
use super::telling::{note, notes_of};
use super::{Mind, Now};
use crate::conditions::{already_said, with_times};
use crate::effects::{Effect, Note};
use crate::granting::book::{Holder, Pool};
use crate::granting::choice::{Chosen, names_by};
use crate::granting::claim::{self, Claiming, Draft};
use crate::granting::plan::{Plan, Slot, is_both_or_none, is_from_before, is_withheld, plan, pool_to_name};
use crate::granting::request::{Request, annotation, read};
use crate::granting::reservation::{is_own, while_claimed};
use crate::granting::verdict::{self, Verdict, has_both_finalizers, has_our_finalizer, judge};
use crate::granting::wait::Until;
use crate::status::{self, OURS};
use crate::world::virtual_ips::{SharingKey, claim_in, claim_of, is_deleting, last_holder};

impl Mind {
    pub(super) fn look_at_service(&mut self, now: Now, key: &ClaimRef, out: &mut Vec<Effect>) {
        self.looks += 1;
        self.waiting.remove(key);
        self.pending.is_looked_at(&Subject::Service(key.clone()));
        if let Some(until) = self.refused.end_pause(key, now.monotonic) {
            self.pending.wake(&Subject::Service(key.clone()), until);
        }
        let Some(service) = self.services.get(key).map(Arc::clone) else {
            return self.look_at_missing(now, key, out);
        };
        match self.judge(&service, key) {
            // Who may come in to its nodePorts does not depend on its namespace.
            Verdict::Ours if self.awaits_namespace(&service, key) => {
                self.keep_guard(now, key, &service, out);
            }
            Verdict::HeldByAnother { .. } if self.awaits_namespace(&service, key) => {}
            Verdict::Ours => self.grant(now, key, &service, out),
            Verdict::NotOurs => self.release(now, key, &service, true, out),
            Verdict::HeldByAnother { advice } => {
                let uid = service.metadata.uid.clone().unwrap_or_default();
                // Once, and again when there is something else to say, as why it cannot be adopted.
                if self.told.insert(uid, advice.clone()).as_ref() != Some(&advice) {
                    let note = note(&service, true, "HeldByAnother", advice);
                    out.push(Effect::Publish(Note { standing: true, ..note }));
                }
                if annotation(&service, annotations::ADOPT) == Some("true") {
                    // Who is to be taken over is looked at again when what is in the way may have gone.
                    let until = verdict::addresses(&service).into_iter().map(Until::Free).collect();
                    self.waiting.put(key, self.age(key), until, false);
                }
                self.release(now, key, &service, false, out);
            }
        }
    }

    /// Whether a Service that has nothing of ours yet is seen before its namespace, by whose labels pools are
    /// selected: then nothing is decided, nor said, until that comes. If it never does, the Service goes.
    pub(super) fn awaits_namespace(&self, service: &Service, key: &ClaimRef) -> bool {
        self.namespaces.get(&key.namespace).is_none()
            && !has_our_finalizer(service)
            && self.vips.claimed_by(key).next().is_none()
            && !self.claiming.contains_key(key)
            && !self.lost.contains_key(key)
    }

    pub(super) fn judge(&self, service: &Service, key: &ClaimRef) -> Verdict {
        let claims = |address: IpAddr| {
            self.vips.get(address).is_some_and(|vip| claim_of(vip, key).is_some())
                || self.claiming.get(key).is_some_and(|under_way| under_way.contains(&address))
                || self.lost.get(key).is_some_and(|lost| lost.contains_key(&address))
        };
        judge(service, key, &self.classes, self.view(), claims)
    }

    fn grant(&mut self, now: Now, key: &ClaimRef, service: &Arc<Service>, out: &mut Vec<Effect>) {
        let guard = self.keep_guard(now, key, service, out);
        let request = read(service);
        let plan = plan(self.view(), service, key, &request);
        self.settle_lost(now, key, |address| plan.wants(address), out);
        let waits = plan.waits().map(|wait| wait.until.clone());
        let sharing_key = request.as_ref().ok().and_then(|request| request.sharing_key.clone());
        let namespace = key.namespace.clone();
        let sharers = sharing_key.filter(|_| !plan.has_all());
        let sharers = sharers.map(|key| Until::Shared(SharingKey { namespace, key }));
        let until = waits.chain(plan.forgone.iter().copied().map(Until::Free)).chain(sharers).collect();
        let goes_without = plan.goes_without();
        self.waiting.put(key, self.age(key), until, goes_without);

        let subject = Subject::Service(key.clone());
        if plan.has_any() && !has_both_finalizers(service) {
            if self.may_act_on(&subject, now) {
                self.rush.granting(now.monotonic);
                // No Event yet: the one that tells of the address comes within the same second.
                self.want(Effect::AddFinalizers { service: exactly(&service.metadata) }, Vec::new(), out);
            }
            return;
        }
        let asked = Asked { service, key, request: request.as_ref().ok(), guard: &guard, settled: false };
        for family in &plan.families {
            match &family.slot {
                Slot::Held(address) => self.keep(now, *address, family.wait.is_none(), asked, out),
                Slot::Take(chosen) => self.take(now, chosen, asked, out),
                Slot::Switch { from, to } => {
                    self.keep(now, *from, false, asked, out);
                    self.take(now, to, asked, out);
                }
                Slot::UnderWay(_) | Slot::Empty => {}
            }
        }
        // What collides with others is given up at once, whatever else is still to be claimed.
        let is_guarded = !matches!(guard, Guard::Awaited(_)) || self.refused.of_guard(key).is_some();
        if is_guarded && !plan.is_unfinished() || plan.has_left(verdict::addresses(service)) {
            self.show(now, asked, &plan, out);
        }
    }

    /// Brings the VirtualIP of an address that the Service holds up to date. `settled` says that it is
    /// what the Service asks for, not only what it has until then.
    fn keep(&mut self, now: Now, address: IpAddr, settled: bool, asked: Asked<'_>, out: &mut Vec<Effect>) {
        let Asked { service, key, .. } = asked;
        let Some(vip) = self.vips.get(address).map(Arc::clone) else { return };
        if !self.may_act_at(address, key, now) {
            return;
        }
        if is_deleting(&vip) && verdict::addresses(service).contains(&address) {
            // Deleted by mistake. The object cannot be brought back to life, so it makes room for its
            // successor; what it held is remembered when it goes. Only what the status shows is safe
            // meanwhile, so a grant under way is finished first. Who had it before is noted elsewhere.
            if !self.is_in_history(address, &vip) {
                return;
            }
            self.want(Effect::DeleteVirtualIp { virtual_ip: exactly(&vip.metadata) }, Vec::new(), out);
            return;
        }
        if matches!(asked.guard, Guard::Awaited(_)) {
            return;
        }
        if is_both_or_none(service)
            && !verdict::addresses(service).contains(&address)
            && is_from_before(&self.vips, service, key, address)
        {
            // By the uid on record it is known that a Service which lacks the other family had this one, so
            // that stays until the status says it.
            return;
        }
        let draft = self.draft(now, Some(&vip.spec), address, None, Asked { settled, ..asked });
        if !draft.is(&vip.spec) {
            let spec = draft.into_spec();
            if claim::has_a_port_twice(&spec) {
                // Another one was edited too and gives the port up: that is written first.
                return;
            }
            self.loads.set(address, spec.placement.as_ref());
            if let Some(pool) = spec.pool.clone().filter(|_| spec.pool != vip.spec.pool) {
                self.renaming.insert(address, pool);
                self.settle_usage(address);
            }
            let virtual_ip = exactly(&vip.metadata);
            self.want(Effect::UpdateVirtualIp { virtual_ip, spec: Box::new(spec) }, Vec::new(), out);
        }
    }

    /// Claims an address.
    fn take(&mut self, now: Now, chosen: &Chosen, asked: Asked<'_>, out: &mut Vec<Effect>) {
        let Asked { key, guard, .. } = asked;
        let address = chosen.address;
        if matches!(guard, Guard::Awaited(_)) || !self.may_act_at(address, key, now) {
            return;
        }
        let known = self.vips.get(address).map(Arc::clone);
        let lost = self.lost.get(key).and_then(|lost| lost.get(&address));
        let lost = lost.map(|lost| lost.spec.clone());
        let mut current = known.as_ref().map(|vip| vip.spec.clone()).or(lost);
        // The announcer has not said that it stopped, and may answer for the former holder under the old
        // epoch. A new one is above that, so that the other speakers can take the address over.
        if let (Some(vip), Some(spec)) = (&known, &mut current)
            && spec.claims.is_empty()
            && vip.status.as_ref().is_some_and(|status| status.announcer.is_some())
            && last_holder(vip).is_some_and(|former| former != *key)
        {
            spec.placement = None;
        }
        let draft = self.draft(now, current.as_ref(), address, chosen.pool.as_deref(), asked);
        let spec = Box::new(draft.into_spec());
        self.loads.set(address, spec.placement.as_ref());
        let claim = claim_in(&spec.claims, key);
        if claim.is_some_and(|claim| claim.sharing.is_some()) {
            self.sharing.put(address, &spec);
        }
        self.claiming.entry(key.clone()).or_default().insert(address);
        self.claimant_of.insert(address, key.clone());
        self.settle_usage(address);
        self.rush.granting(now.monotonic);
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
    fn draft<'a>(
        &mut self,
        now: Now,
        current: Option<&'a VirtualIPSpec>,
        address: IpAddr,
        pool: Option<&str>,
        asked: Asked<'_>,
    ) -> Draft<'a> {
        let Asked { service, key, request, guard, settled } = asked;
        // What nobody holds is granted anew, from the pool that it lies in now.
        let held = current.filter(|spec| !spec.claims.is_empty());
        let name = held
            .and_then(|spec| spec.pool.as_deref())
            .or(pool)
            .or_else(|| self.book.pool_of(address))
            .map(|name| pool_to_name(self.view(), service, key, address, held, name));
        let pool = name.as_deref().and_then(|name| Some((name, self.book.pool(name)?)));
        let lies_in = self.book.pool_of(address).and_then(|name| Some((name, self.book.pool(name)?)));
        let named = |(name, pool): (&str, &Pool)| names_by(request?, name, pool);
        let named = pool.and_then(named).or_else(|| lies_in.and_then(named));
        let pool = pool.map(|(_, pool)| Arc::clone(&pool.object));
        let requires_ranges = pool.as_ref().is_some_and(|pool| pool.spec.require_source_ranges);
        let family = Family::of(address);
        let claiming = Claiming {
            service,
            key,
            request,
            family,
            requires_ranges,
            named: named.as_deref(),
            guard: guard.digest(),
            settled,
            now: now.wall,
        };
        let mut spec = claim::with_claim(current, address, &claiming);
        spec.announce = match &pool {
            Some(pool) => claim::announce(pool),
            None => current.and_then(|spec| spec.announce.clone()),
        };
        spec.pool = name;
        spec.reservation = while_claimed(
            current.and_then(|spec| spec.reservation.as_ref()),
            key,
            request.is_some_and(|request| request.reserve),
            pool.as_deref(),
            &self.namespaces,
            now.wall,
        );
        let standing = current.and_then(|spec| spec.placement.as_ref());
        let withheld = match (claim_in(&spec.claims, key), &pool) {
            (Some(claim), Some(pool)) => is_withheld(service, claim, pool, family),
            _ => false,
        };
        let candidates =
            if withheld { Cow::default() } else { self.candidates_for(address, &spec, standing) };
        let epoch = match standing {
            Some(placement) => placement.epoch,
            None => self.next_epoch(now.wall),
        };
        Draft { spec, epoch, candidates }
    }

    /// Writes the status of a Service whose claims are all written, then lets go of what is not shown.
    fn show(&mut self, now: Now, asked: Asked<'_>, plan: &Plan, out: &mut Vec<Effect>) {
        let Asked { service, key, .. } = asked;
        let held = plan.held();
        let ingress = status::ingress_of(&held);
        let is_shown = status::same_ingress(verdict::ingress(service), &ingress);
        if is_shown {
            for address in &plan.surplus {
                self.drop_claim(now, *address, key, false, Vec::new(), out);
            }
            if plan.has_all() {
                self.end_reservations(now, key, out);
            }
        }
        let wanted = self.conditions_of(now, asked, plan);
        if is_shown {
            self.tell_of_silence(now, service, key, &wanted, out);
        }
        let generation = service.metadata.generation;
        let known = status::conditions_of(service);
        if is_shown && already_said(known, &wanted, &OURS, generation) {
            return self.rush.forget(key);
        }
        let subject = Subject::Service(key.clone());
        if is_shown && let Some(last) = self.conditions_written.get(key) {
            // Another writer that sees things differently for a moment is not answered at once.
            let next = *last + self.config.conditions_pace;
            if now.monotonic < next {
                return self.pending.wake(&subject, next);
            }
        }
        if is_shown && !self.rush.may_tell(key, now.monotonic) || !self.may_act_on(&subject, now) {
            return;
        }
        let conditions = with_times(known, &wanted, generation, now.wall);
        let mut notes = notes_of(service, &held, is_shown, &wanted);
        notes.extend(self.notes_to_offenders(service, key, &held));
        let exactly = exactly(&service.metadata);
        if is_shown {
            self.conditions_written.insert(key.clone(), now.monotonic);
            return self.want(Effect::SetConditions { service: exactly, conditions }, notes, out);
        }
        if !self.is_confirmed(now, key, service, &held, out) {
            return;
        }
        self.rush.granting(now.monotonic);
        self.want(Effect::SetIngress { service: exactly, ingress, conditions }, notes, out);
    }

    /// Keeps nothing more for a Service that has come back and been given what it asks for instead.
    fn end_reservations(&mut self, now: Now, key: &ClaimRef, out: &mut Vec<Effect>) {
        for address in self.vips.of_service(key).collect::<Vec<_>>() {
            let Some(vip) = self.vips.get(address).map(Arc::clone) else { continue };
            let is_kept = vip.spec.reservation.as_ref().is_some_and(|kept| is_own(kept, key));
            if is_kept && claim_of(&vip, key).is_none() && self.may_act_at(address, key, now) {
                let spec = Box::new(VirtualIPSpec { reservation: None, ..vip.spec.clone() });
                let virtual_ip = exactly(&vip.metadata);
                self.want(Effect::UpdateVirtualIp { virtual_ip, spec }, Vec::new(), out);
            }
        }
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
}

/// A Service that is ours, and what it asks for, where that is understood.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) service: &'a Service,
    pub(super) key: &'a ClaimRef,
    pub(super) request: Option<&'a Request>,
    /// What its claims may say of its guard.
    pub(super) guard: &'a Guard,
    /// Whether the address in question is what it asks for.
    pub(super) settled: bool,
}
