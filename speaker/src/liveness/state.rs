//! What liveness remembers.

use std::time::Instant;

use super::verification::{LONGEST, Verification};
use super::{Timing, Verdict};

/// A peer on a link.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) verdict: Verdict,
    /// As the peer told it last.
    pub(super) timing: Timing,
    /// When it was heard, or the grace that it was given.
    pub(super) heard: Instant,
    pub(super) truly_heard: Option<Instant>,
    /// Grace is given once for a silence, lest a slow node never find anybody dead.
    pub(super) has_grace: bool,
    pub(super) isolated_since: Option<Instant>,
    /// Its node said, since it was heard, that nobody listens there.
    pub(super) has_ended: bool,
    /// The questions that are under way since it is late.
    pub(super) verification: Option<Verification>,
}

impl Session {
    /// Whether its silence means nothing yet, because its kernel goes on answering.
    pub(super) fn is_put_off(&self, now: Instant) -> bool {
        let answers = self.verification.as_ref().is_some_and(|asked| asked.is_answered(now));
        answers && !self.has_ended && now < self.heard + LONGEST
    }
}

/// A link with carrier.
#[derive(Clone, Debug)]
pub(super) struct LinkState {
    pub(super) settled_at: Instant,
    pub(super) next_ask: Instant,
    pub(super) speaker_heard: Instant,
    pub(super) has_grace: bool,
    pub(super) station_heard: Option<Instant>,
    /// Since when no speaker and no station is heard.
    pub(super) isolated_since: Option<Instant>,
    pub(super) reached_by_station: Option<Instant>,
}

impl LinkState {
    /// When anything was heard.
    pub(super) fn heard(&self) -> Instant {
        self.station_heard.map_or(self.speaker_heard, |at| at.max(self.speaker_heard))
    }
}

/// The process that speaks for a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) instance: Option<u64>,
    pub(super) former: Option<u64>,
    pub(super) left: bool,
}
