//! How many questions are asked per second, and chance that can be played again.

use std::time::{Duration, Instant};

/// Slots of equal length, so that whatever comes at once goes out evenly.
#[derive(Debug)]
pub(super) struct Pace {
    slot: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// Slots of which each takes `cost` of `rate` per second.
    pub(super) fn new(cost: u32, rate: u32) -> Self {
        Self { slot: Duration::from_secs(1) * cost / rate.max(1), next: None }
    }

    /// When the next slot begins.
    pub(super) fn next(&self, now: Instant) -> Instant {
        self.next.map_or(now, |next| next.max(now))
    }

    /// Takes a slot, if one has begun. Who wakes late may make up for one slot, not for more.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let next = self.next.unwrap_or(now);
        if next > now {
            return false;
        }
        let begun = now.checked_sub(self.slot).map_or(next, |earliest| next.max(earliest));
        self.next = Some(begun + self.slot);
        true
    }
}

/// Random numbers by splitmix64 (Steele, Lea, Flood 2014): not for secrets, and the same in every run.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `pause`, and up to a tenth of it more, so that what was asked together is asked apart later.
    pub(super) fn spread(&mut self, pause: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let part = u32::try_from(mixed >> 48).unwrap_or(0);
        pause + pause / 10 * part / (1 << 16)
    }
}
