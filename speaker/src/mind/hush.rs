//! Links on which this node keeps silent for a moment: it was cut off and hears the LAN again, and first
//! has to learn who took over meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::lan::{LinkIndex, NodeName};
use crate::liveness::{Liveness, Verdict};
use crate::ownership::books::PeerBooks;

/// A speaker that lives is heard within that time.
const LISTEN: Duration = Duration::from_millis(120);
/// Longer than this nothing is waited for: rather two answers than none.
const LONGEST: Duration = Duration::from_millis(500);
/// What was waiting while this process was not run is handed in within that time, and is stale.
const DRAIN: Duration = Duration::from_millis(20);

/// The links that are hushed, and since when.
#[derive(Clone, Debug, Default)]
pub struct Hush {
    links: BTreeMap<LinkIndex, Instant>,
    /// Only what is heard from then on counts.
    drained_at: Option<Instant>,
}

impl Hush {
    /// Hushes a link. Whether that is new.
    pub fn begin(&mut self, now: Instant, link: LinkIndex) -> bool {
        let is_new = !self.links.contains_key(&link);
        self.links.entry(link).or_insert(now);
        is_new
    }

    /// What comes in now had waited for this process to be run: it does not end a hush.
    pub fn drain(&mut self, now: Instant) {
        self.drained_at = Some(now + DRAIN);
    }

    /// Whether a link is hushed.
    pub fn is_hushed(&self, link: LinkIndex) -> bool {
        self.links.contains_key(&link)
    }

    /// Ends what needs to last no longer: every speaker that is heard has told everything, and those that
    /// are not heard had their time. Tells which links may be spoken on again.
    pub fn end(&mut self, now: Instant, liveness: &Liveness, books: &PeerBooks) -> Vec<LinkIndex> {
        let drained_at = self.drained_at;
        let waits_for = |link: LinkIndex, since: Instant, node: &NodeName, verdict: Verdict| {
            let heard_from = drained_at.map_or(since, |at| at.max(since));
            if liveness.is_heard_since(link, node, heard_from) {
                !books.is_in_step(node)
            } else {
                verdict != Verdict::Left && now < since + LISTEN
            }
        };
        let is_over = |link: LinkIndex, since: Instant| {
            since + LONGEST <= now
                || !liveness.watched(link).any(|(node, verdict)| waits_for(link, since, node, verdict))
        };
        let over: Vec<_> = self
            .links
            .iter()
            .filter(|(link, since)| is_over(**link, **since))
            .map(|(link, _)| *link)
            .collect();
        self.links.retain(|link, _| !over.contains(link));
        over
    }

    /// When it wants to be asked again.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let due = |since: &Instant| {
            let listened = *since + LISTEN;
            if listened > now { listened } else { *since + LONGEST }
        };
        self.links.values().map(due).min()
    }
}
