//! ServiceGuards: who may come in, for every Service of ours that has source ranges.
//!
//! A guard comes before all that it guards, and goes after it. It is written as soon as the Service is seen,
//! whether or not it is given an address, and no claim names it, or is made at all, before the API server has it.
//! It goes when no claim names it any more, no node answers any more for what the Service held, and its nodePorts
//! are gone.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::{ClaimRef, ServiceGuard, ServiceGuardSpec, service_guard_name};

use super::subject::{Subject, exactly};
use super::{Change, Mind, Now};
use crate::effects::Effect;
use crate::granting::guard::guard_of;
use crate::granting::verdict;
use crate::world::store::version;
use crate::world::virtual_ips::claim_of;

/// A Service's nodePorts go on being served for so long after it has gone, until the kube-proxies have heard of it.
const NODE_PORTS_LINGER: Duration = Duration::from_secs(5);

/// What the claims of a Service may say of its guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// It needs none.
    None,
    /// It is written as it should be; claims name this digest.
    Written { spec: ServiceGuardSpec, digest: String },
    /// It is not, so that no claim is written.
    Awaited(ServiceGuardSpec),
}

impl Guard {
    /// The guard that the Service has to have.
    pub(super) fn wanted(&self) -> Option<&ServiceGuardSpec> {
        match self {
            Self::None => None,
            Self::Written { spec, .. } | Self::Awaited(spec) => Some(spec),
        }
    }

    /// What a claim names.
    pub(super) fn digest(&self) -> Option<&str> {
        match self {
            Self::Written { digest, .. } => Some(digest),
            Self::None | Self::Awaited(_) => None,
        }
    }
}

impl Mind {
    pub(super) fn on_service_guards(&mut self, change: Change<ServiceGuard>) {
        match change {
            Change::Applied(guard) => self.see_guard(guard, None),
            Change::Deleted(guard) => {
                let key = guard.spec.claim();
                self.pending.void(&Subject::Guard(key.clone()), version(&*guard));
                if self.guards.deleted(&key, &guard) {
                    self.mark(Subject::Service(key));
                }
            }
            Change::Listed(all) => {
                let listed = all.iter().map(|guard| guard.spec.claim()).collect();
                for key in self.guards.store.missing_from(&listed) {
                    self.pending.void(&Subject::Guard(key.clone()), None);
                    self.guards.remove(&key);
                    self.mark(Subject::Service(key));
                }
                for guard in all {
                    self.see_guard(guard, None);
                }
            }
        }
    }

    pub(super) fn see_guard(&mut self, guard: Arc<ServiceGuard>, live: Option<u64>) {
        let key = guard.spec.claim();
        if self.guards.offer(&key, guard, self.step, live) {
            self.mark(Subject::Service(key));
        }
    }

    pub(super) fn guard_is_gone(&mut self, key: &ClaimRef, uid: Option<&str>, asked: u64) {
        if self.guards.gone(key, uid, asked) {
            self.mark(Subject::Service(key.clone()));
        }
    }

    /// Sees to it that a Service that is ours, or was until it came to be deleted, has the guard that it needs.
    pub(super) fn keep_guard(
        &mut self,
        now: Now,
        key: &ClaimRef,
        service: &Service,
        out: &mut Vec<Effect>,
    ) -> Guard {
        let Some(wanted) = guard_of(service, key) else {
            self.refused.guard_is_written(key);
            self.drop_guard(now, key, out);
            return Guard::None;
        };
        self.unguarded.remove(key);
        let spec = || Box::new(wanted.clone());
        let effect = match self.guards.get(key) {
            Some((guard, digest)) if guard.spec == wanted && !is_deleting(guard) => {
                let digest = digest.to_owned();
                self.refused.guard_is_written(key);
                return Guard::Written { spec: wanted, digest };
            }
            // It makes room first.
            Some((guard, _)) if is_deleting(guard) => return Guard::Awaited(wanted),
            Some((guard, _)) => Effect::UpdateServiceGuard { guard: exactly(&guard.metadata), spec: spec() },
            None => Effect::CreateServiceGuard { name: service_guard_name(key), spec: spec() },
        };
        if self.may_write_guard(now, key) {
            self.want(effect, Vec::new(), out);
        }
        Guard::Awaited(wanted)
    }

    /// Removes the guard of a Service that needs none, once that is safe.
    pub(super) fn drop_guard(&mut self, now: Now, key: &ClaimRef, out: &mut Vec<Effect>) {
        let Some(known) = self.guards.known(key).filter(|known| !is_deleting(&known.object)) else {
            self.unguarded.remove(key);
            return;
        };
        let (guard, learned) = (Arc::clone(&known.object), known.learned);
        let is_claimed = self.claiming.contains_key(key)
            || self.vips.claimed_by(key).any(|address| {
                let claim = self.vips.get(address).and_then(|vip| claim_of(vip, key));
                claim.is_some_and(|claim| claim.guard.is_some())
            });
        if is_claimed || !self.are_all_withdrawn(now, key) || self.are_node_ports_left(now, key) {
            return;
        }
        // Another controller may have written it for a Service that this one has not seen yet.
        let is_certain = match self.services.known(key) {
            Some(service) => service.live >= learned,
            None => self.gone.get(key).is_some_and(|asked| *asked >= learned),
        };
        if !is_certain {
            return self.ask_for_service(now, key, None, out);
        }
        if self.may_write_guard(now, key) {
            self.want(Effect::DeleteServiceGuard { guard: exactly(&guard.metadata) }, Vec::new(), out);
        }
    }

    /// Whether the kube-proxies may still serve nodePorts of a Service that is gone, or is no load balancer any
    /// more. If so, it is looked at again.
    fn are_node_ports_left(&mut self, now: Now, key: &ClaimRef) -> bool {
        if self.services.get(key).is_some_and(|service| verdict::is_load_balancer(service)) {
            self.unguarded.remove(key);
            return false;
        }
        let since = *self.unguarded.entry(key.clone()).or_insert(now.monotonic);
        let until = since + NODE_PORTS_LINGER;
        if until > now.monotonic {
            self.pending.wake(&Subject::Service(key.clone()), until);
        }
        until > now.monotonic
    }

    fn may_write_guard(&mut self, now: Now, key: &ClaimRef) -> bool {
        let (guard, service) = (Subject::Guard(key.clone()), Subject::Service(key.clone()));
        self.pending.may_act(&guard, &service, now.monotonic)
    }
}

fn is_deleting(guard: &ServiceGuard) -> bool {
    guard.metadata.deletion_timestamp.is_some()
}
