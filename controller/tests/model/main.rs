//! The mind against a pretended cluster: delays, crashes, twins, and what must hold all the same.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod api;
mod chaos;
mod cluster;
mod coverage;
mod guards;
mod invariants;
mod ledger;
mod objects;
mod operators;
mod random;
mod scale;
mod sources;
mod stories;
mod users;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chaos::Chaos;
use coverage::Coverage;

/// So many seeds are run, half of them with two controllers.
const SEEDS: u64 = 1300;
/// Each of these is four times some disorder, and quiet after it.
const ROUNDS: usize = 4;
const STEPS: usize = 400;
/// So many operations they are together, at least.
const OPERATIONS: u64 = 1_000_000;
/// So often each refusal is given and each crash point is hit, at least.
const LEAST: u64 = 1000;
/// Enough stories for one day.
const MOST_FAILURES: usize = 5;
/// Seeds are run on so many threads.
const WORKERS: usize = 2;

/// Runs one seed. Prints its story if it fails.
fn run(seed: u64, controllers: usize) -> Option<Coverage> {
    let mut chaos = Chaos::new(seed, controllers);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..ROUNDS {
            chaos.round(STEPS);
        }
    }));
    if outcome.is_ok() {
        return Some(chaos.coverage);
    }
    for line in &chaos.log[chaos.log.len().saturating_sub(400)..] {
        println!("{line}");
    }
    chaos.tell_all();
    println!("LANDFALL_SEED={seed} with {controllers} controllers");
    None
}

/// `i4_unique`, `i5_stable` and the other invariants, over a million random operations on one controller
/// and on two that do not elect a leader. `LANDFALL_SEED` picks one seed, `LANDFALL_SEEDS` their number.
#[test]
fn i4_unique_and_i5_stable_with_one_controller_and_with_two_without_election() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("LANDFALL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LANDFALL_SEEDS").unwrap_or(SEEDS / 2),
    };
    let is_full = number("LANDFALL_SEED").is_none() && number("LANDFALL_SEEDS").is_none();
    let runs: Vec<(u64, usize)> = seeds.flat_map(|seed| [(seed, 1), (seed, 2)]).collect();
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Coverage::default());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((seed, controllers)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match run(*seed, *controllers) {
                        Some(coverage) => all.lock().unwrap().add(coverage),
                        None => failed.lock().unwrap().push((*seed, *controllers)),
                    }
                    if failed.lock().unwrap().len() >= MOST_FAILURES {
                        return;
                    }
                }
            });
        }
    });
    let (all, failed) = (all.into_inner().unwrap(), failed.into_inner().unwrap());
    assert!(failed.is_empty(), "(seed, controllers): {failed:?}");
    println!("{} runs of {} rounds:", runs.len(), ROUNDS);
    all.print();
    if is_full {
        all.assert_complete(OPERATIONS, LEAST);
    }
}
