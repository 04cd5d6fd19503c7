//! Events about Services and VirtualIPs: into the picture of the world, and what to look at anew for each.
//! What surrounds them is in `surroundings`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::parse_address;
use landfall_crds::{ClaimRef, VirtualIP};

use super::subject::{Subject, key};
use super::{Change, Mind, Now, Unclaimed};
use crate::granting::book::Holder;
use crate::granting::pool_status::pools_of;
use crate::granting::rules::quota;
use crate::granting::usage::UseChange;
use crate::granting::verdict;
use crate::world::store::{Offered, version};
use crate::world::virtual_ips::{SharingKey, claim_of, concerns, is_tenants, key_of_claim, sharing_keys};

impl Mind {
    pub(super) fn on_services(&mut self, change: Change<Service>) {
        match change {
            Change::Applied(service) => self.see_service(service, None),
            Change::Deleted(service) => {
                let key = key(&service.metadata);
                self.pending.void(&Subject::Service(key.clone()), version(&*service));
                if let Some(was) = self.services.deleted(&key, &service) {
                    self.service_changed(&key, Some(&was), None);
                }
            }
            Change::Listed(all) => {
                let listed: BTreeSet<ClaimRef> = all.iter().map(|service| key(&service.metadata)).collect();
                for key in self.services.missing_from(&listed) {
                    self.pending.void(&Subject::Service(key.clone()), None);
                    let was = self.services.remove(&key);
                    self.service_changed(&key, was.as_deref(), None);
                }
                for service in all {
                    self.see_service(service, None);
                }
            }
        }
    }

    /// Takes in a state of a Service; `live` is the step in which it was asked for, if it is the API
    /// server's answer.
    pub(super) fn see_service(&mut self, service: Arc<Service>, live: Option<u64>) {
        let key = key(&service.metadata);
        let offered = self.services.offer(&key, Arc::clone(&service), self.step, live);
        self.went_back |= matches!(offered, Offered::WentBack);
        if let Offered::New(was) = offered {
            self.gone.remove(&key);
            self.service_changed(&key, was.as_deref(), Some(&service));
        }
    }

    /// The API server says that there is no such Service, or not with this uid.
    pub(super) fn service_is_gone(&mut self, key: &ClaimRef, uid: Option<&str>, asked: u64) {
        let was = self.services.gone(key, uid, asked);
        if self.services.get(key).is_none() {
            self.gone.insert(key.clone(), asked);
            self.service_changed(key, was.as_deref(), None);
        }
    }

    fn service_changed(&mut self, key: &ClaimRef, was: Option<&Service>, is: Option<&Service>) {
        let before = was.map(|service| holds(service, key)).unwrap_or_default();
        let after = is.map(|service| holds(service, key)).unwrap_or_default();
        for (address, holder) in &after {
            self.hold(*address, holder.clone());
        }
        for (address, holder) in before.into_iter().filter(|held| !after.contains(held)) {
            self.let_go(address, &holder);
        }
        let wishes = |service: &Service| (service.spec.clone(), service.metadata.annotations.clone());
        if self.refused.knows(key) && was.map(wishes) != is.map(wishes) {
            self.refused.forget(key);
        }
        if is.is_none() {
            self.waiting.remove(key);
            self.silent.remove(key);
            self.rush.forget(key);
            self.refused.guard_is_written(key);
            self.conditions_written.remove(key);
            let uid = was.and_then(|service| service.metadata.uid.as_ref());
            if let Some(uid) = uid {
                self.told.remove(uid);
            }
        }
        if !self.was_acting {
            return;
        }
        self.mark(Subject::Service(key.clone()));
        for address in self.vips.of_service(key).collect::<Vec<_>>() {
            self.mark(Subject::VirtualIp(address));
            // Whether the pool would grant the address now may depend on the Service.
            if let Some(pool) = self.vips.get(address).and_then(|vip| vip.spec.pool.clone()) {
                self.tallies.changed(&pool, address);
                self.mark(Subject::Pool(pool));
            }
        }
    }

    pub(super) fn let_go(&mut self, address: IpAddr, holder: &Holder) {
        if self.book.let_go(address, holder) {
            self.waiting.freed();
        }
        self.holder_changed(address);
        // Somebody may share the address now who could not while that holder was in the way.
        for sharing_key in self.vips.get(address).map(|vip| sharing_keys(vip)).unwrap_or_default() {
            self.wake_sharers(&sharing_key);
        }
    }

    /// The Services whose status shows the address.
    fn shown_by(&self, address: IpAddr) -> Vec<ClaimRef> {
        let holders = self.book.holders(address).iter();
        holders
            .filter_map(|holder| match holder {
                Holder::Status(key) => Some(key.clone()),
                _ => None,
            })
            .collect()
    }

    /// Notes a holder, and asks those again who wait for the address.
    pub(super) fn hold(&mut self, address: IpAddr, holder: Holder) {
        self.book.hold(address, holder);
        self.holder_changed(address);
    }

    fn holder_changed(&mut self, address: IpAddr) {
        if !self.was_acting {
            return;
        }
        let shown_by: Vec<ClaimRef> = self.shown_by(address);
        let reserved = self.vips.get(address).filter(|vip| vip.spec.reservation.is_some());
        let reserved_for = reserved.map(|vip| concerns(vip)).unwrap_or_default();
        for key in self.waiting.for_address(address).into_iter().chain(reserved_for).chain(shown_by) {
            self.mark(Subject::Service(key));
        }
        if let Some(pool) = self.book.pool_of(address) {
            self.tallies.changed(pool, address);
            self.mark(Subject::Pool(pool.to_owned()));
        }
    }

    pub(super) fn on_virtual_ips(&mut self, now: Now, change: Change<VirtualIP>) {
        match change {
            Change::Applied(vip) => self.see_virtual_ip(now, vip, None),
            Change::Deleted(vip) => {
                let Some(address) = vip.address() else { return };
                self.pending.void(&Subject::VirtualIp(address), version(&*vip));
                if let Some(was) = self.vips.store.deleted(&address, &vip) {
                    self.virtual_ip_changed(now, address, Some(&was), None);
                }
            }
            Change::Listed(all) => {
                let listed: BTreeSet<IpAddr> = all.iter().filter_map(|vip| vip.address()).collect();
                for address in self.vips.store.missing_from(&listed) {
                    self.pending.void(&Subject::VirtualIp(address), None);
                    let was = self.vips.store.remove(&address);
                    self.virtual_ip_changed(now, address, was.as_deref(), None);
                }
                // To grow step by step costs more than to fill what is there.
                self.vips.reserve(listed.len());
                self.loads.reserve(listed.len());
                self.usage.reserve(listed.len());
                for vip in all {
                    self.see_virtual_ip(now, vip, None);
                }
            }
        }
    }

    pub(super) fn see_virtual_ip(&mut self, now: Now, vip: Arc<VirtualIP>, live: Option<u64>) {
        let Some(address) = vip.address() else { return };
        let offered = self.vips.store.offer(&address, Arc::clone(&vip), self.step, live);
        self.went_back |= matches!(offered, Offered::WentBack);
        if let Offered::New(was) = offered {
            self.virtual_ip_changed(now, address, was.as_deref(), Some(&vip));
        }
    }

    pub(super) fn virtual_ip_is_gone(&mut self, now: Now, address: IpAddr, uid: Option<&str>, asked: u64) {
        if let Some(was) = self.vips.store.gone(&address, uid, asked) {
            self.virtual_ip_changed(now, address, Some(&was), None);
        }
        if uid.is_none() && self.vips.get(address).is_none() {
            self.absent.insert(address, asked);
        }
    }

    fn virtual_ip_changed(
        &mut self,
        now: Now,
        address: IpAddr,
        was: Option<&VirtualIP>,
        is: Option<&VirtualIP>,
    ) {
        self.vips.reindex(address, was, is);
        for claim in was.iter().flat_map(|vip| &vip.spec.claims) {
            let key = key_of_claim(claim);
            if is.is_none_or(|vip| claim_of(vip, &key).is_none()) {
                self.own_claims.remove(&(address, key));
            }
        }
        match is {
            Some(vip) => {
                self.absent.remove(&address);
                self.book.hold(address, Holder::VirtualIp);
                self.try_again(address);
                let epoch = vip.spec.placement.as_ref().map_or(0, |placement| placement.epoch);
                self.last_epoch = self.last_epoch.max(epoch);
                self.find_lost(address);
                if vip.spec.claims.is_empty() {
                    let since = self.unclaimed.get(&address).map_or(now.monotonic, |known| known.since);
                    self.unclaimed.insert(address, Unclaimed { since, step: self.step });
                } else {
                    self.unclaimed.remove(&address);
                    self.history.forget(address);
                }
            }
            None => {
                self.unclaimed.remove(&address);
                self.without_history.remove(&address);
                self.history.forget(address);
                // Before it is let go, so that nobody else gets it in between.
                if let Some(was) = was {
                    self.lose(address, was);
                }
                self.let_go(address, &Holder::VirtualIp);
            }
        }
        self.settle_load(address);
        self.settle_usage(address);
        self.watch_balance(now, address, was, is);
        self.holder_changed(address);
        if !self.was_acting {
            // Nobody waits, and all is looked at when this process begins to lead.
            return;
        }
        for sharing_key in was.into_iter().chain(is).flat_map(sharing_keys) {
            self.wake_sharers(&sharing_key);
        }
        for key in was.into_iter().chain(is).flat_map(concerns) {
            self.mark(Subject::Service(key));
        }
        self.mark(Subject::VirtualIp(address));
        for vip in was.into_iter().chain(is) {
            if let Some(pool) = &vip.spec.pool {
                self.tallies.changed(pool, address);
            }
            for pool in pools_of(&self.book, address, vip.spec.pool.as_deref()) {
                self.mark(Subject::Pool(pool));
            }
        }
    }

    /// Counts the order of an address as it is known now.
    pub(super) fn settle_load(&mut self, address: IpAddr) {
        let claimed = self.vips.get(address).filter(|vip| !vip.spec.claims.is_empty());
        let placement = claimed.and_then(|vip| vip.spec.placement.as_ref());
        self.loads.set(address, placement);
    }

    /// Counts who uses an address: those who claim it or are about to, those for whom it is kept at their own
    /// wish, and whoever held it last while it rests, lest a namespace take a pool's addresses in turn.
    pub(super) fn settle_usage(&mut self, address: IpAddr) {
        let vip = self.vips.get(address);
        let lies_in = self.book.pool_of(address);
        let named = vip.and_then(|vip| vip.spec.pool.as_deref()).or(lies_in);
        let claims = vip.into_iter().flat_map(|vip| &vip.spec.claims).map(|claim| claim.namespace.as_str());
        let renaming = self.renaming.get(&address).map(String::as_str);
        let kept = vip.and_then(|vip| vip.spec.reservation.as_ref()).filter(|kept| is_tenants(kept));
        let rests = vip.filter(|vip| vip.spec.claims.is_empty() && vip.spec.reservation.is_none());
        let rests = rests.and_then(|vip| vip.status.as_ref()?.last_holders.first());
        let kept = kept.map(|kept| kept.namespace.as_str()).or(rests.map(|last| last.namespace.as_str()));
        let mut users: BTreeSet<(&str, &str)> =
            claims.clone().chain(kept).filter_map(|namespace| Some((named?, namespace))).collect();
        users.extend(claims.chain(kept).filter_map(|namespace| Some((renaming?, namespace))));
        let claimant = self.claimant_of.get(&address).map(|key| key.namespace.as_str());
        users.extend(claimant.and_then(|namespace| Some((named?, namespace))));
        // Those whose VirtualIP has vanished get it back, and use it meanwhile.
        for holder in self.book.holders(address) {
            let Holder::Lost(key) = holder else { continue };
            let lost = self.lost.get(key).and_then(|lost| lost.get(&address));
            let pool = lost.and_then(|lost| lost.spec.pool.as_deref()).or(lies_in);
            users.extend(pool.map(|pool| (pool, key.namespace.as_str())));
        }
        let changes = self.usage.set(address, &users);
        if changes.iter().any(|change| change.less) {
            self.waiting.freed();
        }
        for UseChange { pool, namespace, .. } in changes {
            let Some(most) = self.book.pool(&pool).and_then(quota) else { continue };
            if self.usage.count(&pool, &namespace) >= most - 2 {
                // Who waits in the namespace, for one address or for two, may be told something else of the
                // pool now.
                for key in self.waiting.in_namespace(&namespace) {
                    self.mark(Subject::Service(key));
                }
            }
        }
    }

    /// Looks again at those who wait to share by the key: in its namespace, and in those that may share with it.
    pub(super) fn wake_sharers(&mut self, sharing_key: &SharingKey) {
        let SharingKey { namespace, key } = sharing_key;
        let partners = self
            .book
            .partners(namespace)
            .map(|partner| SharingKey { namespace: partner.to_owned(), key: key.clone() });
        let keys = partners.chain([sharing_key.clone()]);
        for key in keys.flat_map(|key| self.waiting.for_sharing_key(&key)).collect::<Vec<_>>() {
            self.mark(Subject::Service(key));
        }
    }
}

/// The addresses that a Service keeps from others by what its spec and its status say.
fn holds(service: &Service, key: &ClaimRef) -> Vec<(IpAddr, Holder)> {
    let in_status =
        verdict::addresses(service).into_iter().map(|address| (address, Holder::Status(key.clone())));
    let external = service.spec.as_ref().and_then(|spec| spec.external_ips.as_deref()).unwrap_or_default();
    let external = external
        .iter()
        .filter_map(|text| parse_address(text).ok())
        .map(|address| (address, Holder::ExternalIp(key.clone())));
    in_status.chain(external).collect()
}
