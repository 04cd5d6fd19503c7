//! Gratuitous frames are spread: the first ones of a takeover so that no queue of the kernel's overflows and loses
//! them, their repeats so that a thousand addresses do not make a storm.

use std::time::{Duration, Instant};

/// A leaky bucket (the generic cell rate algorithm).
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    /// The time that one frame takes up.
    per_frame: Duration,
    /// So much may be sent in one go.
    burst: Duration,
    /// When all that was sent would have been sent at the even pace.
    spent_until: Option<Instant>,
}

impl Pacer {
    /// For first frames: those of a thousand IPv4 addresses at once, and 100,000 a second. A queue holds a thousand
    /// frames mostly, and a link of 100 Mbit/s takes about as many a second.
    pub(super) fn of_firsts() -> Self {
        Self { per_frame: Duration::from_micros(10), burst: Duration::from_millis(20), spent_until: None }
    }

    /// For repeats: 2,000 frames a second.
    pub(super) fn of_repeats() -> Self {
        Self { per_frame: Duration::from_micros(500), burst: Duration::from_millis(20), spent_until: None }
    }

    /// Whether something may be sent now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.spent_until.is_none_or(|until| until <= now + self.burst)
    }

    /// Notes that frames were sent.
    pub(super) fn sent(&mut self, now: Instant, frames: usize) {
        let from = self.spent_until.map_or(now, |until| until.max(now));
        self.spent_until = Some(from + self.per_frame * u32::try_from(frames).unwrap_or(u32::MAX));
    }

    /// When something that is due at `at` may be sent. A full bucket is let run down by half, so that one
    /// waking sends many.
    pub(super) fn earliest(&self, at: Instant) -> Instant {
        match self.spent_until {
            Some(until) if until > at + self.burst => until.checked_sub(self.burst / 2).unwrap_or(until),
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
        let (mut now, mut pacer, mut sent, mut wakings) = (start, Pacer::of_repeats(), 0, 0);
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
