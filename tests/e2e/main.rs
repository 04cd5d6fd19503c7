//! What Landfall promises, seen on a real Kubernetes.
//!
//! One file per promise; each gives its stories, told in this order in one lab.

// Stories measure real time.
#![allow(clippy::disallowed_methods)]

mod address;
mod failover;
mod isolation;
mod lab;
mod landfall;

use std::process::ExitCode;

use landfall_tests::{
    lab::LabOptions,
    story::{Story, run},
};

fn main() -> ExitCode {
    let stories: Vec<Story> = [lab::stories(), isolation::stories(), address::stories(), failover::stories()]
        .into_iter()
        .flatten()
        .collect();
    run(LabOptions { nodes: 4, clients: 2, ..LabOptions::default() }, stories)
}
