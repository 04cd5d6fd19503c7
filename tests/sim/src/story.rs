//! What happened, in words that a person can read.

use std::time::{Duration, Instant};

use kube::runtime::watcher::Event as Watched;
use landfall_crds::VirtualIP;
use landfall_speaker::mind::Report;

use crate::process::Input;

/// The lines of a story, if anybody wants to read it.
#[derive(Default)]
pub struct Story {
    lines: Option<Vec<(Instant, String)>>,
}

impl Story {
    /// From now on everything is written down.
    pub fn begin(&mut self) {
        self.lines = Some(Vec::new());
    }

    pub fn is_told(&self) -> bool {
        self.lines.is_some()
    }

    pub fn tell(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push((now, line()));
        }
    }

    pub fn report(&mut self, now: Instant, node: usize, report: &Report) {
        self.tell(now, || {
            let n = format!("    n{}", node + 1);
            match report {
                Report::Announcing { address, term, epoch, .. } => {
                    format!("{n} announces {address} (term {term}, epoch {epoch})")
                }
                Report::Withdrawn { address, reason } => format!("{n} withdraws {address}: {reason:?}"),
                Report::Refused { address, reason } => format!("{n} refuses {address}: {reason:?}"),
                Report::NoLongerRefused { address } => format!("{n} refuses {address} no longer"),
                Report::AddressConflict { address, mac } => format!("{n} sees {mac} use {address}"),
                Report::AddressConflictOver { address } => format!("{n} sees {address} used by nobody else"),
                Report::Peer { node, interface, alive: true } => format!("{n} hears {node} on {interface}"),
                Report::Peer { node, interface, alive: false } => {
                    format!("{n} takes {node} for dead on {interface}")
                }
            }
        });
    }

    /// A node is told of addresses.
    pub fn told(&mut self, now: Instant, node: usize, input: &Input) {
        let n = format!("    n{}", node + 1);
        match input {
            Input::Vip(Watched::Apply(object)) => {
                self.tell(now, || format!("{n} is told of {}", in_words(object)))
            }
            Input::Vip(Watched::InitApply(object)) => {
                self.tell(now, || format!("{n} lists {}", in_words(object)));
            }
            Input::Vip(Watched::Delete(object)) => {
                self.tell(now, || format!("{n} is told that the object of {} is gone", object.spec.address));
            }
            _ => {}
        }
    }

    /// The story, line by line, with the time since the beginning.
    pub fn lines(&self, start: Instant) -> Vec<String> {
        let lines = self.lines.iter().flatten();
        lines.map(|(at, line)| format!("{:>9} {line}", seconds(*at - start))).collect()
    }
}

fn in_words(object: &VirtualIP) -> String {
    let spec = &object.spec;
    let placement = spec.placement.clone().unwrap_or_default();
    let candidates: Vec<String> = placement.candidates.into_iter().map(|candidate| candidate.node).collect();
    let claimed = if spec.claims.is_empty() { "claimed by nobody" } else { "claimed" };
    format!("{}: {claimed}, epoch {}, [{}]", spec.address, placement.epoch, candidates.join(", "))
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}
