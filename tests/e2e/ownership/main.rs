//! Who announces an address, in the situations that are hard to get right.
//!
//! In a lab without kubelets, where speakers are processes that can be killed and started with any state. What each
//! situation means for the deciding code alone, the simulator shows (`tests/sim`).

// Stories measure real time.
#![allow(clippy::disallowed_methods)]

mod ready;
mod restarts;
mod views;

use std::process::ExitCode;

use landfall_tests::{
    lab::LabOptions,
    story::{Story, run},
};

fn main() -> ExitCode {
    let stories: Vec<Story> = [views::stories(), restarts::stories()].into_iter().flatten().collect();
    run(LabOptions { nodes: 4, clients: 2, kubelets: false, ..LabOptions::default() }, stories)
}
