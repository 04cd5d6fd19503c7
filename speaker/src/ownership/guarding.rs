//! Whether the kernel keeps out of an address whom its Services do not let in: invariant `i3_fail_closed`, as far as
//! announcing goes.
//!
//! Nobody claims an address before its source ranges are in the kernel. A holder whose ranges have changed, or were
//! flushed by others, keeps the address while they are brought there, which takes milliseconds; where they do not come,
//! it stops. To keep everybody out who is not let in goes before serving those who are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::record::Record;
use super::standing::Desk;
use crate::lan::Vip;
use crate::mind::Refusal;

/// The kernel has so long to enforce what is asked for anew: ten thousand Services take two seconds. After that the
/// address is refused, so that others do not wait for this node, and a holder stops.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What the kernel enforces at each address.
#[derive(Clone, Debug, Default)]
pub(super) struct Guarding(HashMap<IpAddr, Arc<str>>);

impl Guarding {
    /// The kernel enforces this at an address, or nothing any more. True where that is news.
    pub(super) fn set(&mut self, address: IpAddr, by: Option<Arc<str>>) -> bool {
        match by {
            Some(by) => self.0.insert(address, Arc::clone(&by)) != Some(by),
            None => self.0.remove(&address).is_some(),
        }
    }

    /// Whether it enforces all that an address asks for.
    pub(super) fn is_guarded(&self, vip: &Vip) -> bool {
        vip.guard.as_ref().is_none_or(|guard| self.0.get(&vip.address) == Some(guard))
    }
}

impl Desk<'_> {
    /// Notes since when the kernel does not enforce what is asked for.
    pub(super) fn look_at_guard(&self, record: &mut Record) {
        if self.guarding.is_guarded(&record.vip) {
            record.unguarded_since = None;
            return;
        }
        let since = *record.unguarded_since.get_or_insert(self.now);
        if self.now < since + PATIENCE {
            record.wake_at(since + PATIENCE);
        }
    }

    /// The refusal of an address whose source ranges do not come to be enforced.
    pub(super) fn refusal_unguarded(&self, record: &Record) -> Option<Refusal> {
        let since = record.unguarded_since?;
        (since + PATIENCE <= self.now).then_some(Refusal::NotGuarded)
    }
}
