//! Intervals: what is wanted, what the peer was told, and what holds (RFC 5880 sections 6.8.2 to 6.8.4).
//!
//! A change is told to the peer by a Poll Sequence: packets carry flag P until one with flag F answers.
//! Two changes wait for that answer while the session is up, so that neither end ever expects more than
//! the other sends: to send more slowly, and to expect the peer to send faster.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use crate::mind::rng::Rng;
use crate::wire::bfd::{Micros, Polling};

/// An interval that this end chooses: from a microsecond to 71 minutes. Zero is none: to receive nothing
/// would mean to detect nothing (RFC 5880 section 6.8.1 leaves that to systems that only wish to be seen).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interval(NonZeroU32);

/// A duration that is no [`Interval`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an interval of 1 µs to 4294 s")]
pub struct IntervalError(Duration);

impl Interval {
    /// No faster than this while a session is not up (RFC 5880 section 6.8.3).
    pub const SLOW: Self = match NonZeroU32::new(1_000_000) {
        Some(micros) => Self(micros),
        None => Self(NonZeroU32::MIN),
    };

    /// As packets carry it.
    pub fn micros(self) -> Micros {
        Micros(self.0.get())
    }
}

impl TryFrom<Duration> for Interval {
    type Error = IntervalError;

    fn try_from(duration: Duration) -> Result<Self, IntervalError> {
        let micros = u32::try_from(duration.as_micros()).ok().and_then(NonZeroU32::new);
        micros.map(Self).ok_or(IntervalError(duration))
    }
}

/// What this end wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Send no faster than this.
    pub desired_min_tx: Interval,
    /// The peer is to send no faster than this.
    pub required_min_rx: Interval,
    /// The peer may miss so many packets in a row, less one.
    pub detect_mult: NonZeroU8,
}

/// The two intervals that are negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intervals {
    pub(super) desired_min_tx: Interval,
    pub(super) required_min_rx: Interval,
}

/// Where a Poll Sequence is (RFC 5880 section 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequence {
    None,
    /// The next packet begins it.
    Due,
    /// A packet with flag P was sent, none with flag F was heard.
    Sent,
    /// It is over. Another change waits for a packet without flag F, so that a late answer is not taken
    /// for its answer (RFC 5880 section 6.8.3, the third of the three choices).
    Settling,
}

/// What is wanted, told and valid.
#[derive(Clone, Debug)]
pub(super) struct Negotiation {
    wanted: Timing,
    steady_pace: bool,
    /// bfd.DesiredMinTxInterval and bfd.RequiredMinRxInterval, which packets carry.
    told: Intervals,
    /// What holds: the same, save for what waits for the end of a Poll Sequence.
    valid: Intervals,
    sequence: Sequence,
}

impl Negotiation {
    pub(super) fn new(wanted: Timing, steady_pace: bool) -> Self {
        let told = target(&wanted, steady_pace, false);
        Self { wanted, steady_pace, told, valid: told, sequence: Sequence::None }
    }

    /// Something else is wanted from now on.
    pub(super) fn want(&mut self, wanted: Timing) {
        self.wanted = wanted;
    }

    /// Asks the peer to answer, without a change.
    pub(super) fn ask(&mut self) {
        if self.sequence != Sequence::Sent {
            self.sequence = Sequence::Due;
        }
    }

    /// Makes what is wanted in this state known and valid as far as the rules let it.
    pub(super) fn settle(&mut self, is_up: bool) {
        let target = target(&self.wanted, self.steady_pace, is_up);
        if !is_up {
            // Nothing waits: nobody counts on anything while the session is not up.
            self.valid = target;
            if self.told != target {
                (self.told, self.sequence) = (target, Sequence::Due);
            }
        } else if self.told != target && matches!(self.sequence, Sequence::None | Sequence::Due) {
            self.told = target;
            self.valid.desired_min_tx = self.valid.desired_min_tx.min(target.desired_min_tx);
            self.valid.required_min_rx = self.valid.required_min_rx.max(target.required_min_rx);
            self.sequence = Sequence::Due;
        }
    }

    /// A packet was sent that plays this part.
    pub(super) fn sent(&mut self, polling: Polling) {
        if polling == Polling::Poll {
            self.sequence = Sequence::Sent;
        }
    }

    /// A packet was taken in that plays this part.
    pub(super) fn heard(&mut self, polling: Polling) {
        match (self.sequence, polling) {
            (Sequence::Sent, Polling::Final) => (self.valid, self.sequence) = (self.told, Sequence::Settling),
            (Sequence::Settling, Polling::None | Polling::Poll) => self.sequence = Sequence::None,
            _ => {}
        }
    }

    /// Whether packets carry flag P.
    pub(super) fn is_polling(&self) -> bool {
        matches!(self.sequence, Sequence::Due | Sequence::Sent)
    }

    pub(super) fn detect_mult(&self) -> NonZeroU8 {
        self.wanted.detect_mult
    }

    /// What packets carry.
    pub(super) fn told(&self) -> Intervals {
        self.told
    }

    /// The time between two packets before jitter (RFC 5880 section 6.8.2).
    pub(super) fn transmit_interval(&self, remote_min_rx: Micros) -> Duration {
        self.valid.desired_min_tx.micros().max(remote_min_rx).duration()
    }

    /// The silence after which the peer is gone (RFC 5880 section 6.8.4).
    pub(super) fn detection_time(&self, remote_mult: NonZeroU8, remote_desired_min_tx: Micros) -> Duration {
        let agreed = self.valid.required_min_rx.micros().max(remote_desired_min_tx);
        agreed.duration() * u32::from(remote_mult.get())
    }

    /// The time to the next packet: 75 to 100 % of the interval, at most 90 % where the peer may not miss
    /// a single one (RFC 5880 section 6.8.7).
    pub(super) fn jittered(&self, interval: Duration, rng: &mut Rng) -> Duration {
        let most = if self.wanted.detect_mult == NonZeroU8::MIN { interval * 9 / 10 } else { interval };
        rng.between(interval * 3 / 4, most)
    }
}

fn target(wanted: &Timing, steady_pace: bool, is_up: bool) -> Intervals {
    let Timing { desired_min_tx, required_min_rx, .. } = *wanted;
    let slow = if is_up || steady_pace { desired_min_tx } else { desired_min_tx.max(Interval::SLOW) };
    Intervals { desired_min_tx: slow, required_min_rx }
}

#[cfg(test)]
#[path = "timing_tests.rs"]
mod tests;
