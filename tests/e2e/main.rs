//! What Landfall promises, seen on a real Kubernetes.
//!
//! One file per promise; each gives its stories, told in this order in one lab.

// Stories measure real time.
#![allow(clippy::disallowed_methods)]

mod address;
mod conflicts;
mod failover;
mod gates;
mod isolation;
mod lab;
mod landfall;
mod moves;
mod operations;
mod release;
mod resilience;
mod source_ranges;
mod upgrades;

use std::process::ExitCode;

use landfall_tests::{
    lab::LabOptions,
    story::{Story, run},
};

fn main() -> ExitCode {
    let promises = [
        lab::stories(),
        isolation::stories(),
        address::stories(),
        source_ranges::stories(),
        failover::stories(),
        moves::stories(),
        upgrades::stories(),
        gates::stories(),
        resilience::stories(),
        conflicts::stories(),
        release::stories(),
        operations::stories(),
    ];
    let stories: Vec<Story> = promises.into_iter().flatten().collect();
    run(LabOptions { nodes: 4, clients: 2, ..LabOptions::default() }, stories)
}
