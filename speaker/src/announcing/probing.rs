//! Before an address is announced for the first time ever: is it free? Three probes as of RFC 5227, at a
//! shortened pace, since this speaker and not a person at a console waits for it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Action, Announcing, Due, frames};
use crate::lan::{LinkIndex, MacAddr};
use crate::mind::facts::Facts;

/// How many probes are sent (RFC 5227 `PROBE_NUM`).
const PROBES: u32 = 3;
/// The time between them, and from the last one to the verdict.
const PROBE_PACE: Duration = Duration::from_millis(50);

/// Probes under way.
#[derive(Clone, Debug)]
pub(super) struct Probing {
    links: Vec<LinkIndex>,
    sent: u32,
    due: Instant,
}

impl Announcing {
    pub(super) fn probe(
        &mut self,
        now: Instant,
        facts: &Facts,
        address: IpAddr,
        links: Vec<LinkIndex>,
        out: &mut Vec<Action>,
    ) {
        self.stop_probing(address);
        frames::ask(facts, address, &links, out);
        let due = now + PROBE_PACE;
        self.probing.insert(address, Probing { links, sent: 1, due });
        self.timers.insert((due, Due::Probe(address)));
    }

    pub(super) fn continue_probing(
        &mut self,
        now: Instant,
        facts: &Facts,
        address: IpAddr,
        out: &mut Vec<Action>,
    ) {
        let Some(probing) = self.probing.get_mut(&address) else { return };
        if probing.sent >= PROBES {
            self.probing.remove(&address);
            out.push(Action::ProbeClear(address));
            return;
        }
        frames::ask(facts, address, &probing.links, out);
        probing.sent += 1;
        probing.due = now + PROBE_PACE;
        self.timers.insert((probing.due, Due::Probe(address)));
    }

    pub(super) fn stop_probing(&mut self, address: IpAddr) {
        if let Some(probing) = self.probing.remove(&address) {
            self.timers.remove(&(probing.due, Due::Probe(address)));
        }
    }

    /// A station that is no speaker has, or probes for, an address that is probed for on the link.
    pub(super) fn probe_answered(
        &mut self,
        link: LinkIndex,
        address: IpAddr,
        mac: MacAddr,
        out: &mut Vec<Action>,
    ) {
        if self.probing.get(&address).is_some_and(|probing| probing.links.contains(&link)) {
            self.stop_probing(address);
            out.push(Action::ProbeConflict(address, mac));
        }
    }
}
