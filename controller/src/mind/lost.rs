//! VirtualIPs that vanished while they were claimed: deleted by mistake, or with their definition.
//!
//! Their addresses stay held for the Services that had them. Nobody else gets one before the API
//! server itself has said that the Service neither wants nor shows it: another controller may have
//! written it into the status a moment ago.

use std::net::IpAddr;

use landfall_crds::{ClaimRef, VirtualIP};

use super::{Mind, Now};
use crate::effects::Effect;
use crate::granting::book::Holder;
use crate::granting::plan::LostVirtualIp;
use crate::world::virtual_ips::key_of_claim;

impl Mind {
    /// Notes that the VirtualIP has vanished under its claims, if it had any.
    pub(super) fn lose(&mut self, address: IpAddr, was: &VirtualIP) {
        for claim in &was.spec.claims {
            let key = key_of_claim(claim);
            self.hold(address, Holder::Lost(key.clone()));
            let lost = LostVirtualIp { spec: was.spec.clone(), step: self.step };
            self.lost.entry(key).or_default().insert(address, lost);
        }
    }

    /// There is a VirtualIP for the address again.
    pub(super) fn find_lost(&mut self, address: IpAddr) {
        let holders: Vec<Holder> = self.book.holders(address).to_vec();
        for holder in holders {
            if let Holder::Lost(key) = &holder {
                self.forget_lost(key, address);
            }
        }
    }

    fn forget_lost(&mut self, key: &ClaimRef, address: IpAddr) {
        if let Some(addresses) = self.lost.get_mut(key) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.lost.remove(key);
            }
        }
        self.let_go(address, &Holder::Lost(key.clone()));
        self.settle_usage(address);
    }

    /// Forgets what the Service has lost and does not want back, once that is certain.
    pub(super) fn settle_lost(
        &mut self,
        now: Now,
        key: &ClaimRef,
        wants: impl Fn(IpAddr) -> bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(lost) = self.lost.get(key) else { return };
        let unwanted: Vec<(IpAddr, u64)> =
            lost.iter().filter(|(address, _)| !wants(**address)).map(|(at, lost)| (*at, lost.step)).collect();
        for (address, since) in unwanted {
            let certain = match self.services.known(key) {
                Some(known) => known.live >= since,
                None => self.gone.get(key).is_some_and(|asked| *asked >= since),
            };
            if !certain {
                return self.ask_for_service(now, key, None, out);
            }
            // If the status shows it all the same, that keeps it from others.
            self.forget_lost(key, address);
        }
    }
}
