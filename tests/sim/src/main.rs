//! Many random runs of the pretend world, or one of them told line by line.
//!
//! `LANDFALL_SIM_SEEDS` seeds from `LANDFALL_SIM_FIRST` on, or until there were `LANDFALL_SIM_FAULTS` faults;
//! `LANDFALL_SIM_SEED` tells one seed, `LANDFALL_SIM_REPLAY` a run from a file.

// These are for a person at a terminal; and a tool that cannot go on says so and ends.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;
use std::str::FromStr;

use landfall_sim::campaign::{MOST_FAILURES, Plan, run, tell, tell_failure};
use landfall_sim::script::Script;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    let value = text.parse().ok();
    if value.is_none() {
        eprintln!("{name}: '{text}' is not what is meant");
        std::process::exit(2);
    }
    value
}

fn main() -> ExitCode {
    let replay = variable::<String>("LANDFALL_SIM_REPLAY");
    let one = variable::<u64>("LANDFALL_SIM_SEED");
    let script = match (&replay, one) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).expect("the file with the run");
            Some(serde_json::from_str(&text).expect("a run as it was written"))
        }
        (None, Some(seed)) => Some(Script::draw(seed)),
        (None, None) => None,
    };
    if let Some(script) = script {
        return if tell(&script).is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let faults = variable("LANDFALL_SIM_FAULTS");
    let plan = Plan {
        first: variable("LANDFALL_SIM_FIRST").unwrap_or(0),
        seeds: variable("LANDFALL_SIM_SEEDS").unwrap_or(if faults.is_some() { u64::MAX } else { 2000 }),
        without: Vec::new(),
        faults,
        failures: variable("LANDFALL_SIM_FAILURES").unwrap_or(MOST_FAILURES),
        is_told: true,
    };
    let summary = run(&plan);
    summary.print();
    for (seed, broken) in &summary.failed {
        tell_failure(*seed, broken);
    }
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
