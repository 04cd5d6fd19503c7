//! Repeats of gratuitous frames are spread, so that a thousand addresses do not make a storm of them.

use std::time::{Duration, Instant};

/// The time that one frame takes up: 2,000 frames a second.
const PER_FRAME: Duration = Duration::from_micros(500);
/// So much may be sent in one go.
const BURST: Duration = Duration::from_millis(20);

/// A leaky bucket (the generic cell rate algorithm).
#[derive(Clone, Debug, Default)]
pub(super) struct Pacer {
    /// When all that was sent would have been sent at the even pace.
    spent_until: Option<Instant>,
}

impl Pacer {
    /// Whether something may be sent now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.spent_until.is_none_or(|until| until <= now + BURST)
    }

    /// Notes that frames were sent.
    pub(super) fn sent(&mut self, now: Instant, frames: usize) {
        let from = self.spent_until.map_or(now, |until| until.max(now));
        self.spent_until = Some(from + PER_FRAME * u32::try_from(frames).unwrap_or(u32::MAX));
    }

    /// When something that is due at `at` may be sent. A full bucket is let run down by half, so that one
    /// waking sends many.
    pub(super) fn earliest(&self, at: Instant) -> Instant {
        match self.spent_until {
            Some(until) if until > at + BURST => until.checked_sub(BURST / 2).unwrap_or(until),
            _ => at,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn a_thousand_frames_take_about_half_a_second() {
        let start = Instant::now();
        let (mut now, mut pacer, mut sent, mut wakings) = (start, Pacer::default(), 0, 0);
        while sent < 1000 {
            while sent < 1000 && pacer.allows(now) {
                pacer.sent(now, 2);
                sent += 2;
            }
            now = pacer.earliest(now).max(now);
            wakings += 1;
        }
        let took = now - start;
        assert!(took > Duration::from_millis(450) && took < Duration::from_millis(550), "{took:?}");
        assert!(wakings < 60, "{wakings}");
    }
}
