//! A station that is no speaker uses an address that this node announces (RFC 5227 section 2.4): it is
//! told of, and the address is defended now and then, but never given up: clients depend on it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Action, Announcing, Due, frames};
use crate::lan::{LinkIndex, MacAddr};
use crate::mind::facts::Facts;

/// The shortest time between two defences (RFC 5227 `DEFEND_INTERVAL`).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// After so much silence the conflict is over.
const SILENCE: Duration = Duration::from_secs(30);

/// A station in conflict with us.
#[derive(Clone, Debug)]
pub(super) struct Conflict {
    mac: MacAddr,
    heard: Instant,
    defended: Instant,
}

impl Conflict {
    /// When it will be over, if nothing more is heard.
    pub(super) fn over_at(&self) -> Instant {
        self.heard + SILENCE
    }
}

impl Announcing {
    /// A station that is no speaker says on a link that it has an address.
    pub(super) fn foreign_has(
        &mut self,
        now: Instant,
        facts: &Facts,
        link: LinkIndex,
        address: IpAddr,
        mac: MacAddr,
        out: &mut Vec<Action>,
    ) {
        self.probe_answered(link, address, mac, out);
        let Some(entry) = self.table.get_mut(&address).filter(|entry| entry.links.contains(&link)) else {
            return;
        };
        let former = entry.conflict.take();
        if let Some(former) = &former {
            self.timers.remove(&(former.over_at(), Due::ConflictOver(address)));
        }
        if former.as_ref().is_none_or(|former| former.mac != mac) {
            out.push(Action::Conflict(address, mac));
        }
        let mut defended = former.as_ref().map(|former| former.defended);
        if defended.is_none_or(|at| at + DEFEND_INTERVAL <= now) && !self.hushed.contains(&link) {
            frames::gratuitous(facts, address, [link].iter(), out);
            defended = Some(now);
        }
        let conflict = Conflict { mac, heard: now, defended: defended.unwrap_or(now) };
        self.timers.insert((conflict.over_at(), Due::ConflictOver(address)));
        entry.conflict = Some(conflict);
    }

    pub(super) fn conflict_over(&mut self, address: IpAddr, out: &mut Vec<Action>) {
        if self.table.get_mut(&address).and_then(|entry| entry.conflict.take()).is_some() {
            out.push(Action::ConflictOver(address));
        }
    }
}
