//! What a run has reached, so that it can say so and be held to it.

use std::collections::BTreeMap;

use landfall_controller::effects::Effect;
use landfall_controller::granting::wait::reasons;

/// Counts of one seed, or of many.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Everything that happened to the cluster at random: what users and speakers did, what a controller
    /// saw, was answered or wrote, crashes, and the passing of time. What happens while the cluster
    /// comes to rest is not counted.
    pub operations: u64,
    /// Conditions that were written with each reason of `landfall.dev/Granted`.
    pub reasons: BTreeMap<String, u64>,
    /// Crashes at each point of an effect's way.
    pub crashes: BTreeMap<String, u64>,
    /// Everything else, by its first word.
    pub reached: BTreeMap<String, u64>,
}

/// When a controller may be killed: before its next effect is sent, or after it is done and before the
/// answer has come; and with nothing under way.
pub fn crash_points() -> Vec<String> {
    // Nobody dies of telling people.
    let effects = Effect::NAMES.iter().filter(|name| **name != "Publish");
    let of_effects = effects.flat_map(|name| [format!("before {name}"), format!("after {name}")]);
    of_effects.chain(["between effects".to_owned()]).collect()
}

impl Coverage {
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        for (to, from) in [
            (&mut self.reasons, other.reasons),
            (&mut self.crashes, other.crashes),
            (&mut self.reached, other.reached),
        ] {
            for (what, times) in from {
                *to.entry(what).or_default() += times;
            }
        }
    }

    pub fn print(&self) {
        println!("{} operations", self.operations);
        for (title, counts) in
            [("reasons told", &self.reasons), ("crashes", &self.crashes), ("besides", &self.reached)]
        {
            println!("{title}:");
            for (what, times) in counts {
                println!("{times:>9} {what}");
            }
        }
    }

    /// Every reason and every crash point was reached so often, and nothing unheard of.
    pub fn assert_complete(&self, operations: u64, least: u64) {
        assert!(self.operations >= operations, "only {} operations", self.operations);
        let points = crash_points();
        let wanted: [(&BTreeMap<String, u64>, Vec<&str>); 2] = [
            (&self.reasons, reasons::ALL.to_vec()),
            (&self.crashes, points.iter().map(String::as_str).collect()),
        ];
        for (counts, all) in wanted {
            let unknown: Vec<_> = counts.keys().filter(|known| !all.contains(&known.as_str())).collect();
            assert!(unknown.is_empty(), "not in the list: {unknown:?}");
            let count = |what: &str| counts.get(what).copied().unwrap_or(0);
            let rare: Vec<_> =
                all.iter().map(|what| (count(what), *what)).filter(|(times, _)| *times < least).collect();
            assert!(rare.is_empty(), "reached less than {least} times: {rare:?}");
        }
    }
}
