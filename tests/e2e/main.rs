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
mod operations;
mod release;

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
        failover::stories(),
        release::stories(),
        operations::stories(),
    ];
    let stories: Vec<Story> = promises.into_iter().flatten().collect();
    run(LabOptions { nodes: 4, clients: 2, ..LabOptions::default() }, stories)
}
