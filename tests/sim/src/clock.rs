//! A node's own clock: it runs a little faster or slower than the world, and stands still while its machine is
//! paused in such a way that it does not notice.

use std::time::{Duration, Instant};

const MILLION: i128 = 1_000_000;

/// What the node takes for the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    world: Instant,
    local: Instant,
    /// By how many millionths it runs too fast.
    drift: i128,
    stands: bool,
}

impl Clock {
    pub fn new(start: Instant, drift: i32) -> Self {
        Self { world: start, local: start, drift: drift.into(), stands: false }
    }

    /// The node's time at a time of the world.
    pub fn local(&self, now: Instant) -> Instant {
        if self.stands {
            return self.local;
        }
        self.local + scaled(now - self.world, MILLION + self.drift, MILLION)
    }

    /// The time of the world at a time of the node, rounded up; nothing while the clock stands.
    pub fn world(&self, local: Instant) -> Option<Instant> {
        if self.stands {
            return None;
        }
        if self.drift == 0 {
            return Some(self.world + local.saturating_duration_since(self.local));
        }
        let passed = scaled(local.saturating_duration_since(self.local), MILLION, MILLION + self.drift);
        Some(self.world + passed + Duration::from_nanos(1))
    }

    pub fn stop(&mut self, now: Instant) {
        self.local = self.local(now);
        self.world = now;
        self.stands = true;
    }

    pub fn go_on(&mut self, now: Instant) {
        if std::mem::replace(&mut self.stands, false) {
            self.world = now;
        }
    }
}

fn scaled(duration: Duration, numerator: i128, denominator: i128) -> Duration {
    if numerator == denominator {
        return duration;
    }
    Duration::from_nanos((duration.as_nanos() as i128 * numerator / denominator) as u64)
}
