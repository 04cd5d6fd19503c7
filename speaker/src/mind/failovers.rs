//! How long failovers took, as far as a speaker itself can know: not what clients saw.

use std::time::{Duration, Instant};

use crate::liveness::Death;

/// The upper bounds of all buckets but the last, which has none.
pub const BOUNDS: [Duration; 14] = {
    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
    [
        ms(25),
        ms(50),
        ms(75),
        ms(100),
        ms(125),
        ms(150),
        ms(200),
        ms(250),
        ms(300),
        ms(400),
        ms(600),
        ms(1000),
        ms(2000),
        ms(5000),
    ]
};

/// How many times lay between two bounds, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Each bucket holds what is longer than the bound before it and no longer than its own.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn note(&mut self, time: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < time);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum += time;
    }
}

/// The addresses that this node took over because their announcer was found dead, by how long after its
/// last heartbeat each step was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failovers {
    /// Until the announcer became suspect.
    pub suspected: Histogram,
    /// Until it was found dead.
    pub verified: Histogram,
    /// Until the address was claimed.
    pub claimed: Histogram,
}

impl Failovers {
    /// Takes in one address that was claimed after a death.
    pub(super) fn note(&mut self, death: &Death, claimed: Instant) {
        let since = |at: Instant| at.saturating_duration_since(death.heard);
        self.suspected.note(since(death.suspected));
        self.verified.note(since(death.verified));
        self.claimed.note(since(claimed));
    }

    /// Each step by its name.
    pub fn steps(&self) -> [(&'static str, &Histogram); 3] {
        [("suspected", &self.suspected), ("verified", &self.verified), ("claimed", &self.claimed)]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;

    #[test]
    fn each_step_is_counted_from_the_last_heartbeat_into_the_bucket_that_holds_it() {
        let heard = Instant::now();
        let after = |ms| heard + Duration::from_millis(ms);
        let mut failovers = Failovers::default();
        let death = |suspected, verified| Death {
            heard,
            suspected: after(suspected),
            verified: after(verified),
            kernel_answers: false,
        };
        failovers.note(&death(105, 150), after(151));
        failovers.note(&death(25, 26), after(9000));
        let filled = |histogram: &Histogram| -> Vec<(usize, u64)> {
            histogram.buckets.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(filled(&failovers.suspected), [(0, 1), (4, 1)], "a bound belongs to its own bucket");
        assert_eq!(filled(&failovers.verified), [(1, 1), (5, 1)]);
        assert_eq!(filled(&failovers.claimed), [(6, 1), (BOUNDS.len(), 1)]);
        assert_eq!(failovers.claimed.sum, Duration::from_millis(9151));
        assert_eq!(failovers.claimed.count(), 2);
    }
}
