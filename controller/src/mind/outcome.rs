//! What became of effects.

use std::net::IpAddr;

use landfall_crds::{ClaimRef, VirtualIP, virtual_ip_name};

use super::pending::pause_after;
use super::subject::{self, Subject};
use super::{Mind, Now};
use crate::effects::{Effect, Note, Outcome, Refusal};
use crate::granting::book::Holder;
use crate::world::store::version;

impl Mind {
    pub(super) fn on_done(&mut self, now: Now, effect: &Effect, outcome: Outcome, out: &mut Vec<Effect>) {
        let Some(subject) = subject::of(effect) else { return };
        // An outcome may come after `Leading(false)`. Then it confirms nothing, and it is only news of
        // an object that is still there.
        let flight = self.pending.lands(&subject);
        let asked = flight.as_ref().map(|flight| flight.step);
        let void_up_to = flight.as_ref().map_or(0, |flight| flight.void_up_to);
        let version = match &outcome {
            Outcome::Service(service) => version(&**service),
            Outcome::VirtualIp(vip) => version(&**vip),
            Outcome::ServiceGuard(guard) => version(&**guard),
            Outcome::Pool(pool) => version(&**pool),
            _ => None,
        };
        let is_void = void_up_to > 0 && version.is_none_or(|version| version <= void_up_to)
            || asked.is_none() && !self.knows(&subject);
        let (notes, askers) = flight.map(|flight| (flight.notes, flight.askers)).unwrap_or_default();
        for asker in askers {
            self.mark(asker);
        }
        match outcome {
            Outcome::Service(_) | Outcome::VirtualIp(_) | Outcome::ServiceGuard(_) | Outcome::Pool(_)
                if is_void => {}
            Outcome::Service(service) => self.see_service(service, asked),
            Outcome::VirtualIp(vip) => {
                self.note_own_claims(effect, &vip);
                self.see_virtual_ip(now, vip, asked);
            }
            Outcome::ServiceGuard(guard) => {
                self.refused.guard_is_written(&guard.spec.claim());
                self.see_guard(guard, asked);
            }
            Outcome::Pool(pool) => self.see_pool(pool),
            Outcome::Gone => {
                let uid = subject::exactly_of(effect).map(|object| object.uid.as_str());
                match &subject {
                    Subject::Service(key) => self.service_is_gone(key, uid, asked.unwrap_or(0)),
                    Subject::VirtualIp(address) => {
                        self.virtual_ip_is_gone(now, *address, uid, asked.unwrap_or(0));
                    }
                    Subject::Guard(key) => self.guard_is_gone(key, uid, asked.unwrap_or(0)),
                    Subject::Pool(_) => {}
                }
            }
            Outcome::Done => {}
            Outcome::Refused(refusal) => return self.on_refusal(now, effect, subject, &refusal, out),
        }
        if let Subject::Pool(name) = &subject {
            self.history_has_landed(name);
        }
        self.pending.succeeded(&subject);
        self.publish(notes, out);
        self.has_landed(effect, subject);
    }

    fn on_refusal(
        &mut self,
        now: Now,
        effect: &Effect,
        subject: Subject,
        refusal: &Refusal,
        out: &mut Vec<Effect>,
    ) {
        match refusal {
            Refusal::Conflict | Refusal::AlreadyExists => {
                if self.was_acting && !self.knows_more_than(effect, &subject) {
                    if let Some(question) = question(&subject) {
                        // The claim that failed is still under way: it is not tried elsewhere before
                        // it is known who has the address.
                        return self.want(question, Vec::new(), out);
                    }
                    self.pending.failed(&subject, now.monotonic);
                }
            }
            Refusal::Invalid(message) => {
                self.pending.failed(&subject, now.monotonic);
                if let Subject::Pool(name) = &subject {
                    // A history is no reason to hold a release up.
                    self.history_has_landed(name);
                }
                if let (Effect::SetVirtualIpStatus { .. }, Subject::VirtualIp(address)) = (effect, &subject) {
                    // A history is no reason to hold a release up.
                    self.without_history.insert(*address);
                    self.pending.succeeded(&subject);
                } else if let Subject::Guard(key) = &subject {
                    // Its condition says so.
                    self.refused.put_guard(key, message);
                } else {
                    let is_told_otherwise = self.is_refused(now, effect, &subject, message);
                    let note = self.failure_note(effect, message).filter(|_| !is_told_otherwise);
                    self.publish(note.into_iter().collect(), out);
                }
            }
            Refusal::Busy { after, .. } => self.pending.put_off(&subject, now.monotonic, *after),
            // `Leading(false)` is on its way, or the writer knows better than to say so.
            Refusal::NotLeading | Refusal::Unavailable(_) => self.pending.failed(&subject, now.monotonic),
        }
        self.has_landed(effect, subject);
    }

    /// Notes whose claims this process has written itself.
    fn note_own_claims(&mut self, effect: &Effect, vip: &VirtualIP) {
        let (Effect::CreateVirtualIp { .. } | Effect::UpdateVirtualIp { .. }) = effect else { return };
        let Some(address) = vip.address() else { return };
        if let Some(key) = self.claimant_of.get(&address) {
            self.refused.forget(key);
            self.own_claims.insert((address, key.clone()));
        }
    }

    /// A claim was refused for good. The address is put aside, and so is the Service unless this is the first
    /// time in a row; then its condition says so. So it does at once where the Service is refused its finalizers.
    fn is_refused(&mut self, now: Now, effect: &Effect, subject: &Subject, said: &str) -> bool {
        if let (Effect::AddFinalizers { .. }, Subject::Service(key)) = (effect, subject) {
            let number = self.refused.put_service(key, said);
            let until = now.monotonic + 2 * pause_after(number - 1);
            self.refused.pause(key, until);
            // That pause is of the finalizers alone: the condition is written to the same object now.
            self.pending.succeeded(subject);
            self.pending.wake(subject, until);
            return true;
        }
        let (Effect::CreateVirtualIp { .. } | Effect::UpdateVirtualIp { .. }, Subject::VirtualIp(address)) =
            (effect, subject)
        else {
            return false;
        };
        let Some(key) = self.claimant_of.get(address).filter(|_| self.was_acting).cloned() else {
            return false;
        };
        let number = self.refused.put(*address, &key, said);
        self.hold(*address, Holder::Refused);
        if number < 2 {
            return false;
        }
        // Longer than the address is put aside, so that others come first when that is over.
        let until = now.monotonic + 2 * pause_after(number - 2);
        self.refused.pause(&key, until);
        self.pending.wake(&Subject::Service(key), until);
        true
    }

    /// The address may be given again if its pause is over.
    pub(super) fn try_again_after_pause(&mut self, now: Now, address: IpAddr) {
        let subject = Subject::VirtualIp(address);
        if self.refused.is_aside(address) && self.pending.may_act(&subject, &subject, now.monotonic) {
            self.try_again(address);
        }
    }

    /// The address may be given again.
    pub(super) fn try_again(&mut self, address: IpAddr) {
        if self.refused.end(address) {
            self.let_go(address, &Holder::Refused);
            // Whether or not they get it, they are not told of it any more.
            for key in self.refused.services().cloned().collect::<Vec<_>>() {
                self.mark(Subject::Service(key));
            }
        }
    }

    fn knows(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Service(key) => self.services.get(key).is_some(),
            Subject::VirtualIp(address) => self.vips.get(*address).is_some(),
            Subject::Guard(key) => self.guards.known(key).is_some(),
            Subject::Pool(name) => self.book.pool(name).is_some(),
        }
    }

    /// Whether the object is known in another state than the one that the effect was decided on.
    fn knows_more_than(&self, effect: &Effect, subject: &Subject) -> bool {
        let known = match subject {
            Subject::Service(key) => self.services.get(key).map(|service| &service.metadata),
            Subject::VirtualIp(address) => self.vips.get(*address).map(|vip| &vip.metadata),
            Subject::Guard(key) => self.guards.known(key).map(|guard| &guard.object.metadata),
            Subject::Pool(name) => self.book.pool(name).map(|pool| &pool.object.metadata),
        };
        let known = known.and_then(|meta| meta.resource_version.as_deref());
        known.is_some() && known != subject::exactly_of(effect).map(|object| object.resource_version.as_str())
    }

    /// Nothing is under way for the subject any more: look at it, and at who waits for it.
    fn has_landed(&mut self, effect: &Effect, subject: Subject) {
        if let Subject::Service(key) = &subject {
            for address in self.vips.of_service(key).collect::<Vec<_>>() {
                self.mark(Subject::VirtualIp(address));
            }
        }
        if let Subject::VirtualIp(address) = subject {
            self.forget_claiming(address);
            let mut concerned: Vec<ClaimRef> = self
                .vips
                .get(address)
                .map(|vip| crate::world::virtual_ips::concerns(vip))
                .unwrap_or_default();
            if let Effect::CreateVirtualIp { spec, .. } | Effect::UpdateVirtualIp { spec, .. } = effect {
                concerned.extend(spec.claims.iter().map(crate::world::virtual_ips::key_of_claim));
            }
            for key in concerned {
                self.mark(Subject::Service(key));
            }
        }
        self.mark(subject);
    }

    /// No claim is being written for the address any more.
    pub(super) fn forget_claiming(&mut self, address: IpAddr) {
        if let Some(key) = self.claimant_of.remove(&address) {
            if let Some(addresses) = self.claiming.get_mut(&key) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.claiming.remove(&key);
                }
            }
            self.mark(Subject::Service(key));
        }
        for sharing_key in self.sharing.remove(address) {
            self.wake_sharers(&sharing_key);
        }
        self.renaming.remove(&address);
        self.let_go(address, &Holder::Busy);
        self.settle_load(address);
        self.settle_usage(address);
    }

    fn publish(&mut self, notes: Vec<Note>, out: &mut Vec<Effect>) {
        if self.was_acting {
            out.extend(notes.into_iter().map(Effect::Publish));
        }
    }

    /// What to tell the owner of the Service that an effect was for.
    fn failure_note(&self, effect: &Effect, message: &str) -> Option<Note> {
        let key = match effect {
            Effect::CreateVirtualIp { spec, .. } | Effect::UpdateVirtualIp { spec, .. } => {
                // The one that is being given the address, where several share it.
                let address = subject::of(effect).and_then(|subject| match subject {
                    Subject::VirtualIp(address) => self.claimant_of.get(&address).cloned(),
                    _ => None,
                });
                address.or_else(|| spec.claims.first().map(crate::world::virtual_ips::key_of_claim))
            }
            _ => match subject::of(effect) {
                Some(Subject::Service(key)) => Some(key),
                _ => None,
            },
        }?;
        let service = self.services.get(&key)?;
        let message = format!("Error syncing load balancer: the API server refuses a write: {message}");
        Some(super::telling::note(service, true, "SyncLoadBalancerFailed", message))
    }
}

/// How to learn the present state of a subject.
fn question(subject: &Subject) -> Option<Effect> {
    match subject {
        Subject::Service(key) => {
            Some(Effect::GetService { namespace: key.namespace.clone(), name: key.name.clone() })
        }
        Subject::VirtualIp(address) => Some(Effect::GetVirtualIp { name: virtual_ip_name(*address) }),
        // What the watch brings is soon enough.
        Subject::Guard(_) | Subject::Pool(_) => None,
    }
}
