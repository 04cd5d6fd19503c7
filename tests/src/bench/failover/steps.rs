//! The steps of a failover as the speakers' own metrics tell them, counted from the last heartbeat of the dead.

use anyhow::Result;

use crate::{bench::World, lab::Metrics};

const METRIC: &str = "landfall_speaker_failover_seconds";
/// In their order.
pub(super) const STEPS: [&str; 3] = ["suspected", "verified", "claimed"];

/// Sums and counts of each step, over the speakers that were asked.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::bench) struct Steps([(f64, f64); 3]);

impl Steps {
    /// What all speakers but one tell so far.
    pub(in crate::bench) fn told(world: &World<'_>, without: &str) -> Result<Self> {
        let mut steps = Self::default();
        for node in world.speakers().into_iter().filter(|node| node.name() != without) {
            let metrics = node.speaker_metrics()?;
            for (step, (sum, count)) in STEPS.iter().zip(&mut steps.0) {
                let of = |part: &str, metrics: &Metrics| {
                    metrics.sum(&format!("{METRIC}_{part}"), &[("step", *step)])
                };
                *sum += of("sum", &metrics);
                *count += of("count", &metrics);
            }
        }
        Ok(steps)
    }

    /// The mean of each step since an earlier telling, in milliseconds; none where it did not happen.
    pub(in crate::bench) fn since(&self, before: &Self) -> [Option<f64>; 3] {
        let mut means = [None; 3];
        for ((mean, now), then) in means.iter_mut().zip(self.0).zip(before.0) {
            let (sum, count) = (now.0 - then.0, now.1 - then.1);
            *mean = (count > 0.0).then(|| sum / count * 1000.0);
        }
        means
    }
}
