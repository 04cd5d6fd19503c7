//! What Landfall promises to the API and asks of it, in a lab without kubelets: processes that can be
//! killed between any two writes, and an API server that remembers every request.

// Stories measure real time.
#![allow(clippy::disallowed_methods)]

mod crashes;
mod custom_resources;
mod faults;
mod granting;
mod guarding;
mod neighbours;
mod policies;
mod refusals;
mod steady;

use std::process::ExitCode;

use landfall_tests::{
    lab::{Lab, LabOptions, landfall, seconds},
    story::{Story, run},
};
use nix::sys::signal::Signal;

/// Ends what a story started by hand under this name. A controller gives its Lease back, so that the
/// next one need not wait for it to expire.
fn stop(lab: &Lab, name: &str) {
    for node in lab.nodes() {
        // Those that ended by themselves, or never ran here, are no news.
        let _told = node.signal_program(name, Signal::SIGTERM);
        let ended = node.wait_end(name, seconds(8));
        let _killed = ended.or_else(|_| node.kill(name));
    }
}

fn main() -> ExitCode {
    let custom_resources =
        Story::new("custom resources: the API server refuses bad objects with a sentence", async |lab| {
            landfall::apply_crds(lab)?;
            custom_resources::bad_objects_are_refused_with_a_sentence(lab.client()).await
        });
    let stories: Vec<Story> = [
        vec![custom_resources],
        policies::stories(),
        granting::stories(),
        guarding::stories(),
        neighbours::stories(),
        refusals::stories(),
        crashes::stories(),
        steady::stories(),
        faults::stories(),
    ]
    .into_iter()
    .flatten()
    .collect();
    run(LabOptions { nodes: 3, clients: 1, kubelets: false, ..LabOptions::default() }, stories)
}
