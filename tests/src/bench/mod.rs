//! The figures that the README states, measured again: one file per figure.
//!
//! It prints figures with goals, and ratios to the machine's own floor where there is one. Machines differ
//! and are noisy, so a grant is also divided by what the same machine needs, in the same run, to write an
//! address into a Service by hand.

mod failover;
mod grant;
mod memory;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use crate::{
    backend::Service,
    lab::{Lab, LabOptions, isolation::Inside, landfall::ByHand, say},
    services,
};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// From a Service's creation to its address, and to the first ARP answer
    Grant,
    /// Memory of controller and speakers at 100 Services
    Memory,
    /// The outage that a client measures when the owner's port goes dark
    Failover,
}

/// Measures.
#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// Measure only these
    #[arg(value_enum)]
    subjects: Vec<Subject>,
    /// How many crashes to measure
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    crashes: u32,
    /// Write the figures as JSON to this file
    #[arg(long, env = "LANDFALL_BENCH_JSON", value_name = "FILE")]
    json_file: Option<PathBuf>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The median, or the one value.
    pub value: f64,
    /// The worst of all.
    pub worst: f64,
    /// `ms` or `MB`.
    pub unit: &'static str,
    /// What it should be at most.
    pub goal: Option<f64>,
    /// The value divided by what the same machine needed for the same without Landfall, where that was measured.
    pub ratio: Option<f64>,
    /// How many values.
    pub count: usize,
}

impl Figure {
    /// Of times, in milliseconds.
    fn times(name: &str, times: &[Duration], goal: f64, floor: Option<Duration>) -> Self {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let value = milliseconds(median(&sorted));
        Self {
            name: name.to_owned(),
            value,
            worst: sorted.last().copied().map(milliseconds).unwrap_or_default(),
            unit: "ms",
            goal: Some(goal),
            ratio: floor.map(|floor| value / milliseconds(floor)),
            count: times.len(),
        }
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, value, worst, unit, goal, ratio, count } = self;
        write!(f, "{name:<58} {value:>8.1} {unit} (worst {worst:.1}, of {count})")?;
        if let Some(goal) = goal {
            write!(f, "  goal {goal} {unit}: {}", if value <= goal { "reached" } else { "NOT reached" })?;
        }
        if let Some(ratio) = ratio {
            write!(f, "  ratio {ratio:.2}")?;
        }
        Ok(())
    }
}

/// The median of sorted times.
fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Bench {
    /// Measures in a lab without kubelets, and prints the figures.
    ///
    /// # Errors
    /// When something does not work; a goal that is not reached is no error.
    pub async fn run(&self, inside: &Inside) -> Result<()> {
        let options = LabOptions { nodes: 4, clients: 2, kubelets: false, ..LabOptions::default() };
        let lab = Lab::up(inside, options).await?;
        let by_hand = ByHand::prepare(&lab)?;
        services::pool(&lab, "lan", &json!({"addresses": ["192.168.10.128-192.168.10.250"]})).await?;
        // The fourth node has backends and no speaker.
        for node in lab.nodes().iter().take(3) {
            by_hand.start_speaker(&lab, node, &[]).await?;
        }
        by_hand.start_controller(&lab, lab.node("n1")?, &[]).await?;
        // Nothing is measured before the first Service shows that all is running.
        Service::new("warm", "nobody")
            .load_balancer()
            .spec("ipFamilyPolicy", json!("SingleStack"))
            .apply(&lab)
            .await?;
        services::announcer(&lab, services::granted(&lab, "warm", 1).await?[0]).await?;
        services::delete(&lab, "warm").await?;
        let wanted = |subject| self.subjects.is_empty() || self.subjects.contains(&subject);
        let mut figures = Vec::new();
        if wanted(Subject::Grant) {
            say("measuring grants");
            figures.extend(grant::measure(&lab).await?);
        }
        if wanted(Subject::Failover) {
            say("measuring crashes");
            figures.extend(failover::measure(&lab, self.crashes).await?);
        }
        if wanted(Subject::Memory) {
            say("measuring memory");
            figures.extend(memory::measure(&lab).await?);
        }
        for figure in &figures {
            println!("{figure}");
        }
        if let Some(file) = &self.json_file {
            std::fs::write(file, serde_json::to_string_pretty(&figures)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}
