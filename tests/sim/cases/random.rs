//! Anything that can go wrong, at random.

use std::time::Duration;

use landfall_sim::campaign::{MOST_FAILURES, Plan, run, tell_failure};

/// Where the environment does not say how many seeds there are to be, these are run, as far as they get …
const SEEDS: u64 = 400;
/// … in so long.
const SLICE: Duration = Duration::from_secs(45);
/// Seeds that are known to fail; each has its test below, with the reason.
const KNOWN: [u64; 0] = [];

#[test]
fn whatever_goes_wrong_the_invariants_hold_after_every_event() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = number("LANDFALL_SIM_SEEDS");
    let plan = Plan {
        first: number("LANDFALL_SIM_FIRST").unwrap_or(0),
        seeds: seeds.unwrap_or(SEEDS),
        without: KNOWN.to_vec(),
        limit: seeds.is_none().then_some(SLICE),
        faults: None,
        failures: MOST_FAILURES,
        is_told: false,
    };
    let summary = run(&plan);
    summary.print();
    for (seed, broken) in &summary.failed {
        tell_failure(*seed, broken);
    }
    assert!(summary.failed.is_empty(), "{} seeds failed", summary.failed.len());
    assert!(summary.all_faults() > 1000);
}
