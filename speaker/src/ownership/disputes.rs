//! Addresses that two peers claim at once. Each of them stops or goes on as soon as it hears of the other, so
//! where both go on, one does not hear the other. Whoever hears both tells the one whose claim does not go before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Two claims of a handover are over by then.
const GRACE: Duration = Duration::from_millis(25);
/// Witnesses speak up one after the other, so that one is enough where all hear both.
const STEP: Duration = Duration::from_millis(4);
/// With very many nodes the last of them wait no longer than this.
const LONGEST: Duration = Duration::from_millis(400);
/// As long as both go on it is told again.
const AGAIN: Duration = Duration::from_millis(100);

/// When each of them is to be looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Disputes {
    due: BTreeMap<IpAddr, Instant>,
    order: BTreeSet<(Instant, IpAddr)>,
}

impl Disputes {
    /// Two peers claim the address. `place` is this node's among all.
    pub(super) fn note(&mut self, now: Instant, address: IpAddr, place: usize) {
        if !self.due.contains_key(&address) {
            let turn = STEP.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
            self.put(address, now + GRACE + turn.min(LONGEST));
        }
    }

    /// It is to be looked at once more.
    pub(super) fn again(&mut self, now: Instant, address: IpAddr) {
        self.put(address, now + AGAIN);
    }

    /// Those that are to be looked at now; they are forgotten.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut due = Vec::new();
        while let Some((at, address)) = self.order.first().copied().filter(|(at, _)| *at <= now) {
            self.order.remove(&(at, address));
            self.due.remove(&address);
            due.push(address);
        }
        due
    }

    /// When one is to be looked at.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    fn put(&mut self, address: IpAddr, at: Instant) {
        if let Some(former) = self.due.insert(address, at) {
            self.order.remove(&(former, address));
        }
        self.order.insert((at, address));
    }
}
