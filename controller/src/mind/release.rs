//! The next missing step of a release: claim dropped, withdrawn from the LAN, finalizers, VirtualIP.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use landfall_crds::names::finalizers::LOAD_BALANCER_CLEANUP;
use landfall_crds::{ClaimRef, PastHolder, VirtualIP, VirtualIPStatus};

use super::subject::{Subject, exactly};
use super::telling::note;
use super::{Mind, Now};
use crate::conditions::whole_seconds;
use crate::effects::{Effect, Note};
use crate::granting::claim::without_claim;
use crate::granting::reservation::{after_claim, live, rests_until};
use crate::granting::verdict::{self, Verdict, has_finalizer, has_our_finalizer};
use crate::status::{OURS, conditions_of};
use crate::world::virtual_ips::{
    claim_of, concerns, has_finalizer as is_held_back, is_deleting, sharing_keys,
};

/// So many past holders are remembered.
const HISTORY: usize = 10;
/// A history entry of the same holder that is younger than this was written by the release under way.
const RECENT_SECONDS: i64 = 300;

impl Mind {
    /// A Service that is not there: what it claims is released, but only after the API server itself
    /// has said so, for a list may be older than a claim.
    pub(super) fn look_at_missing(&mut self, now: Now, key: &ClaimRef, out: &mut Vec<Effect>) {
        let claimed: Vec<IpAddr> = self.vips.claimed_by(key).collect();
        if claimed.is_empty() && !self.lost.contains_key(key) {
            return self.drop_guard(now, key, out);
        }
        let asked = self.gone.get(key).copied();
        let learned =
            claimed.iter().filter_map(|address| self.vips.known(*address)).map(|vip| vip.learned).max();
        if asked.is_none_or(|asked| asked < learned.unwrap_or(0)) {
            return self.ask_for_service(now, key, None, out);
        }
        self.settle_lost(now, key, |_| false, out);
        for address in claimed {
            self.drop_claim(now, address, key, true, Vec::new(), out);
        }
    }

    /// Asks the API server for a Service, for the sake of the VirtualIP of `address` if there is one.
    pub(super) fn ask_for_service(
        &mut self,
        now: Now,
        key: &ClaimRef,
        address: Option<IpAddr>,
        out: &mut Vec<Effect>,
    ) {
        let subject = Subject::Service(key.clone());
        let asker = address.map_or(subject.clone(), Subject::VirtualIp);
        if self.pending.may_act(&subject, &asker, now.monotonic) {
            let (namespace, name) = (key.namespace.clone(), key.name.clone());
            self.want(Effect::GetService { namespace, name }, Vec::new(), out);
        }
    }

    /// A Service that is there but not ours, or not any more. `in_status` says whether its status is
    /// still ours to empty.
    pub(super) fn release(
        &mut self,
        now: Now,
        key: &ClaimRef,
        service: &Arc<Service>,
        in_status: bool,
        out: &mut Vec<Effect>,
    ) {
        self.silent.remove(key);
        self.rush.forget(key);
        self.settle_lost(now, key, |_| false, out);
        if is_being_deleted(service) {
            // Until it is gone its nodePorts are served.
            self.keep_guard(now, key, service, out);
        } else {
            self.drop_guard(now, key, out);
        }
        let claimed: Vec<IpAddr> = self.vips.claimed_by(key).collect();
        for address in &claimed {
            let notes = vec![note(service, false, "DeletingLoadBalancer", "Deleting load balancer")];
            self.drop_claim(now, *address, key, true, notes, out);
        }
        if !claimed.is_empty() || self.claiming.contains_key(key) {
            return;
        }
        let subject = Subject::Service(key.clone());
        let says_ours =
            conditions_of(service).iter().any(|condition| OURS.contains(&condition.type_.as_str()));
        let shows = in_status && has_our_finalizer(service) && verdict::is_load_balancer(service);
        let exactly = exactly(&service.metadata);
        if shows && !verdict::ingress(service).is_empty() {
            if self.may_act_on(&subject, now) {
                let effect =
                    Effect::SetIngress { service: exactly, ingress: Vec::new(), conditions: Vec::new() };
                self.want(effect, Vec::new(), out);
            }
            return;
        }
        if says_ours && service.metadata.deletion_timestamp.is_none() {
            if self.may_act_on(&subject, now) {
                let effect = Effect::SetConditions { service: exactly, conditions: Vec::new() };
                self.want(effect, Vec::new(), out);
            }
            return;
        }
        if self.has_our_marks(service) && self.are_all_withdrawn(now, key) && self.may_act_on(&subject, now) {
            let notes = vec![note(service, false, "DeletedLoadBalancer", "Deleted load balancer")];
            self.want(Effect::RemoveFinalizers { service: exactly }, notes, out);
        }
    }

    /// Whether finalizers are on it that we put there. The standard one alone is taken for ours only
    /// where the class is: elsewhere it may be a cloud controller's.
    fn has_our_marks(&self, service: &Service) -> bool {
        let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
        has_our_finalizer(service)
            || class == Some(self.classes.name.as_str()) && has_finalizer(service, LOAD_BALANCER_CLEANUP)
    }

    /// Whether no node answers any more for what the Service held. If not, it is looked at again.
    pub(super) fn are_all_withdrawn(&mut self, now: Now, key: &ClaimRef) -> bool {
        let held: Vec<IpAddr> =
            self.vips.of_service(key).filter(|address| self.unclaimed.contains_key(address)).collect();
        let mut all = true;
        for address in held {
            all &= self.is_withdrawn(now, address, &Subject::Service(key.clone()));
        }
        all
    }

    /// Whether no node answers any more for an unclaimed address: its announcer has said so, is known
    /// to be dead, or has had its time. If not, `subject` is looked at again when the time is over.
    fn is_withdrawn(&mut self, now: Now, address: IpAddr, subject: &Subject) -> bool {
        let Some(unclaimed) = self.unclaimed.get(&address) else { return true };
        let announcer = self
            .vips
            .get(address)
            .and_then(|vip| vip.status.as_ref())
            .and_then(|status| status.announcer.as_ref());
        let Some(announcer) = announcer else { return true };
        if self.nodes.speaker(&announcer.node).is_none() || self.nodes.is_dead(&announcer.node) {
            return true;
        }
        let until = unclaimed.since + self.config.withdrawal_bound;
        if until <= now.monotonic {
            return true;
        }
        self.pending.wake(subject, until);
        false
    }

    /// Takes the Service's claim off a VirtualIP, after noting who held it. `gone` says that it holds
    /// nothing any more, rather than another address: then this one may be kept for it.
    pub(super) fn drop_claim(
        &mut self,
        now: Now,
        address: IpAddr,
        key: &ClaimRef,
        gone: bool,
        notes: Vec<Note>,
        out: &mut Vec<Effect>,
    ) {
        let Some(vip) = self.vips.get(address).map(Arc::clone) else { return };
        let Some(claim) = claim_of(&vip, key) else { return };
        if !self.may_act_at(address, key, now) {
            return;
        }
        if !self.knows_newer_than_claim(address, key) {
            return self.ask_for_service(now, key, Some(address), out);
        }
        let virtual_ip = exactly(&vip.metadata);
        if !self.without_history.contains(&address) && !has_history(&vip, &claim.uid, now) {
            let holder = PastHolder {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                uid: claim.uid.clone(),
                since: claim.since.clone(),
                until: Time(whole_seconds(now.wall)),
            };
            let before = vip.status.iter().flat_map(|status| status.last_holders.iter().cloned());
            let last_holders = std::iter::once(holder).chain(before).take(HISTORY).collect();
            let status = Box::new(VirtualIPStatus { last_holders, ..VirtualIPStatus::default() });
            return self.want(Effect::SetVirtualIpStatus { virtual_ip, status }, notes, out);
        }
        let mut spec = Box::new(without_claim(&vip.spec, key));
        let pool = vip.spec.pool.as_deref().and_then(|name| self.book.pool(name));
        let pool = pool.map(|pool| &*pool.object);
        spec.reservation = after_claim(vip.spec.reservation.as_ref(), key, gone, pool, now.wall);
        self.want(Effect::UpdateVirtualIp { virtual_ip, spec }, Vec::new(), out);
    }

    /// The reservation of a VirtualIP that is claimed ends by its time: then those on it, and those who wait
    /// to join them, are looked at.
    fn look_at_reservation(&mut self, now: Now, address: IpAddr, vip: &VirtualIP) {
        let reservation = vip.spec.reservation.as_ref();
        let Some(expires) = reservation.and_then(|reservation| reservation.expires.as_ref()) else { return };
        if expires.0 > now.wall {
            return self.pending.wake(&Subject::VirtualIp(address), at_wall(now, expires.0));
        }
        for key in self.waiting.for_address(address).into_iter().chain(concerns(vip)) {
            self.mark(Subject::Service(key));
        }
        for sharing_key in sharing_keys(vip) {
            self.wake_sharers(&sharing_key);
        }
    }

    /// Whether what is known of a Service is newer than its claim on the address. Where another
    /// controller has written that, a watch that lags may still tell of the time before.
    fn knows_newer_than_claim(&self, address: IpAddr, key: &ClaimRef) -> bool {
        let Some(known) = self.services.known(key) else { return true };
        let learned = self.vips.known(address).map_or(0, |vip| vip.learned);
        known.live >= learned || self.own_claims.contains(&(address, key.clone()))
    }

    /// The next step of a VirtualIP that nobody claims.
    pub(super) fn look_at_virtual_ip(&mut self, now: Now, address: IpAddr, out: &mut Vec<Effect>) {
        let Some(vip) = self.vips.get(address).map(Arc::clone) else { return };
        let Some(unclaimed) = self.unclaimed.get(&address).copied() else {
            return self.look_at_reservation(now, address, &vip);
        };
        let subject = Subject::VirtualIp(address);
        let reservation = live(&vip, now.wall, &self.namespaces);
        let stays = reservation.is_some() && !is_deleting(&vip);
        if let Some(expires) = reservation.and_then(|reservation| reservation.expires.as_ref()) {
            self.pending.wake(&subject, at_wall(now, expires.0));
        }
        if stays && !is_held_back(&vip) || is_deleting(&vip) && !is_held_back(&vip) {
            return;
        }
        if !stays && vip.spec.reservation.is_some() {
            // Whoever waits for the address is no longer kept from it by the reservation.
            for key in self.waiting.for_address(address) {
                self.mark(Subject::Service(key));
            }
        }
        // Noted while the release goes on, so that it takes no longer; also of one that stays, which a person may
        // delete at any time.
        let is_noted = self.is_in_history(address, &vip);
        if self.pending.in_flight(&subject) || !self.is_withdrawn(now, address, &subject) {
            return;
        }
        for holder in late_holders(&vip, now) {
            if !self.has_let_go(now, &holder, address, unclaimed.step, out) {
                return;
            }
        }
        if !stays && !is_deleting(&vip) {
            let pool = self.book.pool_of(address).and_then(|name| self.book.pool(name));
            if let Some(until) = rests_until(&vip, pool.map(|pool| &*pool.object)).filter(|at| *at > now.wall)
            {
                return self.pending.wake(&subject, at_wall(now, until));
            }
        }
        if !is_noted || !self.may_act_on(&subject, now) {
            return;
        }
        let virtual_ip = exactly(&vip.metadata);
        let effect = match stays {
            true => Effect::UnclaimVirtualIp { virtual_ip },
            false => Effect::DeleteVirtualIp { virtual_ip },
        };
        self.want(effect, Vec::new(), out);
    }

    /// Whether the last holder of an address has been seen without it, by the API server's own word,
    /// since the address was unclaimed.
    fn has_let_go(
        &mut self,
        now: Now,
        holder: &ClaimRef,
        address: IpAddr,
        unclaimed: u64,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(known) = self.services.known(holder) else {
            if self.gone.get(holder).is_some_and(|asked| *asked >= unclaimed) {
                return true;
            }
            self.ask_for_service(now, holder, Some(address), out);
            return false;
        };
        let (service, live) = (Arc::clone(&known.object), known.live);
        let is_ours = self.judge(&service, holder) == Verdict::Ours;
        let shows = verdict::addresses(&service).contains(&address);
        // Both are for the Service's own steps to change; it is looked at whenever it does.
        if is_ours && shows || !is_ours && has_our_finalizer(&service) {
            return false;
        }
        if live < unclaimed {
            self.ask_for_service(now, holder, Some(address), out);
            return false;
        }
        true
    }
}

/// Whether a load balancer of ours is on its way out.
fn is_being_deleted(service: &Service) -> bool {
    service.metadata.deletion_timestamp.is_some()
        && verdict::is_load_balancer(service)
        && has_our_finalizer(service)
}

/// Those who may still show the address: whoever held it last, and who shared it until lately.
fn late_holders(vip: &VirtualIP, now: Now) -> BTreeSet<ClaimRef> {
    let known = vip.status.iter().flat_map(|status| &status.last_holders);
    let age = |holder: &PastHolder| now.wall.as_second().saturating_sub(holder.until.0.as_second());
    let is_late = |(place, holder): &(usize, &PastHolder)| *place == 0 || age(holder) < RECENT_SECONDS;
    let late = known.enumerate().filter(is_late);
    late.map(|(_, holder)| ClaimRef { namespace: holder.namespace.clone(), name: holder.name.clone() })
        .collect()
}

/// The monotonic time of a moment by the wall clock, looked at again after an hour at most, since that
/// clock may be set.
fn at_wall(now: Now, moment: Timestamp) -> Instant {
    const LONGEST: Duration = Duration::from_secs(3600);
    let left = Duration::try_from(moment.duration_since(now.wall)).unwrap_or_default();
    now.monotonic + left.min(LONGEST)
}

/// Whether the release under way has been noted already.
fn has_history(vip: &VirtualIP, uid: &str, now: Now) -> bool {
    let last = vip.status.as_ref().and_then(|status| status.last_holders.first());
    last.is_some_and(|last| {
        last.uid == uid && now.wall.as_second().saturating_sub(last.until.0.as_second()) < RECENT_SECONDS
    })
}
