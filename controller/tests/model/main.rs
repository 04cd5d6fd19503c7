//! The mind against a pretended cluster: delays, crashes, twins, and what must hold all the same.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod api;
mod chaos;
mod cluster;
mod invariants;
mod objects;
mod random;
mod scale;
mod stories;
mod users;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use chaos::Chaos;

/// Runs seeds; `LANDFALL_SEED` picks one, `LANDFALL_SEEDS` their number.
fn run_seeds(controllers: usize, default: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("LANDFALL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LANDFALL_SEEDS").unwrap_or(default),
    };
    let mut reached: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds.clone() {
        let mut chaos = Chaos::new(seed, controllers);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..4 {
                chaos.round(250);
            }
        }));
        if let Err(panic) = outcome {
            for line in &chaos.log[chaos.log.len().saturating_sub(400)..] {
                println!("{line}");
            }
            chaos.tell_all();
            println!("seed {seed} with {controllers} controllers");
            resume_unwind(panic);
        }
        for (what, times) in chaos.reached {
            *reached.entry(what).or_default() += times;
        }
    }
    println!("{} seeds with {controllers} controllers reached {reached:#?}", seeds.count());
}

#[test]
fn i4_unique_and_i5_stable_with_one_controller() {
    run_seeds(1, 150);
}

#[test]
fn i4_unique_and_i5_stable_with_two_controllers_without_election() {
    run_seeds(2, 150);
}
