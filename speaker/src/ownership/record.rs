//! What is known of one address, and this node's part in it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Action;
use super::claim::Claim;
use super::witness::Witness;
use crate::lan::{LinkIndex, MacAddr, NodeName, Vip};
use crate::mind::{Refusal, Report};

/// After a conflict the LAN is probed again after as long, then after twice as long …
const CONFLICT_WAIT: Duration = Duration::from_secs(10);
/// … up to this.
const LONGEST_CONFLICT_WAIT: Duration = Duration::from_secs(60);

/// An address that this node announces or is about to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holding {
    pub(super) claim: Claim,
    pub(super) links: Vec<LinkIndex>,
    /// Since when a successor is waited for.
    pub(super) leaving_since: Option<Instant>,
    /// Since when a candidate who could take over lacks less.
    pub(super) outdone_since: Option<Instant>,
    /// A speaker that is not heard said by a frame that it has the address, and would go before this node; when the
    /// LAN was asked whether it answers for it.
    pub(super) contested: Option<(NodeName, Instant)>,
    /// A station uses the address: when to probe again.
    pub(super) retry_at: Option<Instant>,
    /// What was last reported of it.
    pub(super) reported: Option<Report>,
}

/// One address.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(super) vip: Vip,
    pub(super) gone_since: Option<Instant>,
    /// Whether anybody is known to have announced it, ever.
    pub(super) announced: bool,
    /// The highest term known of.
    pub(super) term: u64,
    pub(super) holding: Option<Holding>,
    /// Since when nobody is known to announce it, as far as this node waits to do so.
    pub(super) void_since: Option<Instant>,
    /// Since when the kernel does not enforce its source ranges.
    pub(super) unguarded_since: Option<Instant>,
    /// Since when its owner is known to stand under an older epoch than one that ranks it first.
    pub(super) behind_since: Option<Instant>,
    /// Who was last known to announce it.
    pub(super) last_owner: Option<NodeName>,
    /// When the LAN was last asked who answers for it.
    pub(super) asked: Option<Instant>,
    /// A speaker that was seen on the LAN to answer for it, and when.
    pub(super) seen: Option<(NodeName, Instant)>,
    /// Who claims it, as others tell, since that speaker is not heard here.
    pub(super) witnessed: Option<Witness>,
    /// From whom it is about to be taken over, since when, and whether its connections are kept.
    pub(super) keeping: Option<(NodeName, Instant, bool)>,
    /// The refusal that was reported.
    pub(super) refused: Option<Refusal>,
    /// The links on which its solicitations are listened for.
    pub(super) listening: Vec<LinkIndex>,
    pub(super) conflict: Option<(MacAddr, Duration)>,
    pub(super) wake: Option<Instant>,
}

impl Record {
    pub(super) fn new(vip: Vip) -> Self {
        Self {
            announced: vip.announced_before,
            term: vip.last_term,
            vip,
            gone_since: None,
            holding: None,
            void_since: None,
            unguarded_since: None,
            behind_since: None,
            last_owner: None,
            asked: None,
            seen: None,
            witnessed: None,
            keeping: None,
            refused: None,
            listening: Vec::new(),
            conflict: None,
            wake: None,
        }
    }

    /// The epoch under which it is looked after; nothing where nobody claims it or its object is gone.
    pub(super) fn known_epoch(&self) -> Option<i64> {
        (self.vip.claimed && self.gone_since.is_none()).then_some(self.vip.epoch)
    }

    pub(super) fn update(&mut self, vip: Vip) {
        self.announced |= vip.announced_before;
        self.term = self.term.max(vip.last_term);
        self.vip = vip;
        self.gone_since = None;
    }

    /// Whether this node would announce it if it only could.
    pub(super) fn is_waiting(&self) -> bool {
        self.void_since.is_some()
    }

    /// Whether what becomes of it may depend on any peer; `lacks` says that this node would hand it to a better one.
    pub(super) fn depends_on_others(&self, lacks: bool) -> bool {
        let held = self.holding.as_ref();
        let is_given_up = |held: &Holding| {
            let Claim { leaving, reluctant, unfit, isolated, .. } = held.claim;
            lacks || leaving || reluctant || unfit || isolated || held.leaving_since.is_some()
        };
        self.is_waiting()
            || self.behind_since.is_some()
            || self.witnessed.is_some()
            || held.is_some_and(is_given_up)
    }

    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    pub(crate) fn vip(&self) -> &Vip {
        &self.vip
    }

    pub(crate) fn has_conflict(&self) -> bool {
        self.conflict.is_some()
    }

    pub(crate) fn is_unguarded(&self) -> bool {
        self.unguarded_since.is_some()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.gone_since.is_some()
    }

    /// Whether any of these ports tells of what is behind it.
    pub(super) fn has_any_check(&self, ports: &BTreeSet<u16>) -> bool {
        self.vip.health_checks.iter().any(|port| ports.contains(port))
    }

    pub(super) fn address(&self) -> IpAddr {
        self.vip.address
    }

    pub(super) fn probe_clear(&mut self, out: &mut Vec<Action>) {
        let Some(holding) = self.holding.as_mut().filter(|holding| holding.claim.probing) else { return };
        holding.claim.probing = false;
        holding.retry_at = None;
        self.announced = true;
        if self.conflict.take().is_some() {
            out.push(Action::Report(Report::AddressConflictOver { address: self.vip.address }));
        }
        // The report follows when the address is decided, as the next thing.
        out.extend([
            Action::Announce(self.vip.address, holding.links.clone()),
            Action::Took(self.vip.address),
        ]);
    }

    pub(super) fn probe_conflict(&mut self, now: Instant, mac: MacAddr, out: &mut Vec<Action>) {
        let Some(holding) = self.holding.as_mut().filter(|holding| holding.claim.probing) else { return };
        let (known, wait) = match self.conflict {
            Some((known, wait)) => (Some(known), (wait * 2).min(LONGEST_CONFLICT_WAIT)),
            None => (None, CONFLICT_WAIT),
        };
        if known != Some(mac) {
            out.push(Action::Report(Report::AddressConflict { address: self.vip.address, mac }));
        }
        self.conflict = Some((mac, wait));
        holding.retry_at = Some(now + wait);
    }
}
