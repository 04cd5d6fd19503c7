//! All ServiceGuards, by the Services that they guard.

use std::sync::Arc;

use landfall_crds::{ClaimRef, ServiceGuard};

use super::store::{Index, Known, Offered, Store};

/// All ServiceGuards. There is one per Service at most, since it is named by it.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    pub(crate) store: Store<ClaimRef, ServiceGuard>,
    /// What claims name each by.
    digests: Index<ClaimRef, String>,
}

impl Guards {
    /// The guard of a Service, and what claims name it by.
    pub(crate) fn get(&self, service: &ClaimRef) -> Option<(&Arc<ServiceGuard>, &str)> {
        Some((self.store.get(service)?, self.digests.get(service)?))
    }

    pub(crate) fn known(&self, service: &ClaimRef) -> Option<&Known<ServiceGuard>> {
        self.store.known(service)
    }

    /// As [`Store::offer`]. Returns whether anything is new.
    pub(crate) fn offer(
        &mut self,
        service: &ClaimRef,
        guard: Arc<ServiceGuard>,
        step: u64,
        live: Option<u64>,
    ) -> bool {
        let digest = guard.spec.digest();
        let is_new = matches!(self.store.offer(service, guard, step, live), Offered::New(_));
        if is_new {
            self.digests.insert(service.clone(), digest);
        }
        is_new
    }

    /// As [`Store::deleted`].
    pub(crate) fn deleted(&mut self, service: &ClaimRef, last: &ServiceGuard) -> bool {
        let was = self.store.deleted(service, last).is_some();
        self.forget_digest(service, was)
    }

    /// As [`Store::gone`].
    pub(crate) fn gone(&mut self, service: &ClaimRef, uid: Option<&str>, asked: u64) -> bool {
        let was = self.store.gone(service, uid, asked).is_some();
        self.forget_digest(service, was)
    }

    /// As [`Store::remove`].
    pub(crate) fn remove(&mut self, service: &ClaimRef) -> bool {
        let was = self.store.remove(service).is_some();
        self.forget_digest(service, was)
    }

    fn forget_digest(&mut self, service: &ClaimRef, is_gone: bool) -> bool {
        if is_gone {
            self.digests.remove(service);
        }
        is_gone
    }
}
