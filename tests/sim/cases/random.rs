//! Anything that can go wrong, at random.

use landfall_sim::campaign::{MOST_FAILURES, Plan, run, tell_failure};

/// So many seeds are run where the environment says nothing.
const SEEDS: u64 = 180;
/// Seeds that are known to fail; each has its test below, with the reason.
const KNOWN: [u64; 0] = [];

#[test]
fn whatever_goes_wrong_the_invariants_hold_after_every_event() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let plan = Plan {
        first: number("LANDFALL_SIM_FIRST").unwrap_or(0),
        seeds: number("LANDFALL_SIM_SEEDS").unwrap_or(SEEDS),
        without: KNOWN.to_vec(),
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
