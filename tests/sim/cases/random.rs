//! Anything that can go wrong, at random.

use std::time::Duration;

use landfall_sim::campaign::{MOST_FAILURES, Plan, run, tell_failure};

/// So long random runs go on where the environment does not say how many.
const SLICE: Duration = Duration::from_secs(45);

#[test]
fn whatever_goes_wrong_the_invariants_hold_after_every_event() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = number("LANDFALL_SIM_SEEDS");
    let plan = Plan {
        first: number("LANDFALL_SIM_FIRST").unwrap_or(0),
        seeds: seeds.unwrap_or(u64::MAX),
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
