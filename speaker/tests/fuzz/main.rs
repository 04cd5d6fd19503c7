//! Inputs by the million for everything that reads what others wrote: decoders, the state file, and the whole mind.
//!
//! Inputs are not random bytes, which no decoder reads far into, but valid ones changed: truncated, spliced,
//! with bits flipped and fields set to their limits, and then often made to look right again, with length,
//! checksum and seal. All of it follows from a seed. `LANDFALL_FUZZ_INPUTS` says how many for each target,
//! `LANDFALL_FUZZ_SEED` from which seed on; a target that fails says after which input.

// A starting point for virtual time has to come from somewhere; the speed is measured by the clock.
#![allow(clippy::disallowed_methods)]
// This is a test as a whole, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]

mod decoders;
mod mind;
mod mutate;
mod state_file;
mod trio;

use std::collections::BTreeMap;
use std::time::Instant;

use mutate::Random;

/// So many inputs are tried by each target where the environment says nothing.
const USUALLY: u64 = 30_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// How often each thing happened.
#[derive(Default)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub fn count(&mut self, what: &str) {
        match self.0.get_mut(what) {
            Some(times) => *times += 1,
            None => drop(self.0.insert(what.to_owned(), 1)),
        }
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
}

/// Tries a target with as many inputs as are asked for and tells what came of them. `at_once` inputs share a
/// seed, by which they can be tried again.
pub fn fuzz(target: &str, at_once: u64, mut try_some: impl FnMut(&mut Random, &mut Tally)) -> Tally {
    let inputs = variable("LANDFALL_FUZZ_INPUTS").unwrap_or(USUALLY);
    let first = variable("LANDFALL_FUZZ_SEED").unwrap_or(0);
    let mut tally = Tally::default();
    let began = Instant::now();
    for seed in first..first + inputs.div_ceil(at_once) {
        let mut random = Random::new(seed);
        let tried =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| try_some(&mut random, &mut tally)));
        if let Err(panic) = tried {
            println!("{target}: again with LANDFALL_FUZZ_SEED={seed} LANDFALL_FUZZ_INPUTS={at_once}");
            std::panic::resume_unwind(panic);
        }
    }
    let took = began.elapsed().as_secs_f64();
    let tried = inputs.div_ceil(at_once) * at_once;
    let parts: Vec<String> = tally.0.iter().map(|(what, times)| format!("{what} {times}")).collect();
    println!("{target}: {tried} inputs, {:.0} a second: {}", tried as f64 / took, parts.join(", "));
    tally
}
