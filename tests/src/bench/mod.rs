//! The figures that the README states, measured again: one file per figure.
//!
//! It prints figures with goals, and ratios to the machine's own floor where there is one. Machines differ
//! and are noisy, so a grant is also divided by what the same machine needs, in the same run, to write an
//! address into a Service by hand.

mod failover;
mod grant;
mod grants;
mod memory;
mod usage;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::json;

use crate::{
    backend::Service,
    lab::{
        Lab, LabOptions,
        isolation::Inside,
        landfall::{ByHand, CONTROLLER},
        say, seconds,
    },
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
    /// Thousands of Services at once, beside a plain client that writes only what must be written
    Grants,
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
    /// How many Services to grant at once, for the subject grants: several numbers, of which 10000 may be one
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 4000], value_name = "COUNT")]
    services: Vec<usize>,
    /// How often each of these numbers is measured
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    rounds: usize,
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
    /// `ms`, `s`, `/s`, `MB`, `x` for a ratio; empty for a count.
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

    /// Of anything of which less is better.
    fn of(name: &str, values: &[f64], unit: &'static str, goal: Option<f64>) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Self {
            name: name.to_owned(),
            value: sorted.get(sorted.len() / 2).copied().unwrap_or_default(),
            worst: sorted.last().copied().unwrap_or_default(),
            unit,
            goal,
            ratio: None,
            count: values.len(),
        }
    }

    /// Of rates: the lowest is the worst.
    fn rates(name: &str, values: &[f64]) -> Self {
        let worst = values.iter().copied().fold(f64::INFINITY, f64::min);
        Self { worst, ..Self::of(name, values, "/s", None) }
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, value, worst, unit, goal, ratio, count } = self;
        let digits = if matches!(*unit, "ms" | "MB" | "/s") { 1 } else { 2 };
        let space = if unit.is_empty() { "" } else { " " };
        write!(f, "{name:<58} {value:>8.digits$}{space}{unit} (worst {worst:.digits$}, of {count})")?;
        if let Some(goal) = goal {
            let met = if value <= goal { "reached" } else { "NOT reached" };
            write!(f, "  goal {goal}{space}{unit}: {met}")?;
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
        // The fourth node has backends and no speaker.
        for node in lab.nodes().iter().take(3) {
            by_hand.start_speaker(&lab, node, &[]).await?;
        }
        let mut figures = Vec::new();
        if [Subject::Grant, Subject::Failover, Subject::Memory].into_iter().any(|subject| self.wants(subject))
        {
            figures.extend(self.one_by_one(&lab, &by_hand).await?);
        }
        if self.wants(Subject::Grants) {
            // The last, because it ends what the others need.
            say("measuring thousands of grants");
            let extent = grants::Extent { sizes: &self.services, rounds: self.rounds };
            figures.extend(grants::measure(&lab, &by_hand, &extent).await?);
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

    fn wants(&self, subject: Subject) -> bool {
        self.subjects.is_empty() || self.subjects.contains(&subject)
    }

    /// What is measured with a controller and speakers that run all the time.
    async fn one_by_one(&self, lab: &Lab, by_hand: &ByHand) -> Result<Vec<Figure>> {
        services::pool(lab, "lan", &json!({"addresses": ["192.168.10.128-192.168.10.250"]})).await?;
        let node = lab.node("n1")?;
        by_hand.start_controller(lab, node, &[]).await?;
        // Nothing is measured before the first Service shows that all is running.
        Service::new("warm", "nobody")
            .load_balancer()
            .spec("ipFamilyPolicy", json!("SingleStack"))
            .apply(lab)
            .await?;
        services::announcer(lab, services::granted(lab, "warm", 1).await?[0]).await?;
        services::delete(lab, "warm").await?;
        let mut figures = Vec::new();
        if self.wants(Subject::Grant) {
            say("measuring grants");
            figures.extend(grant::measure(lab).await?);
        }
        if self.wants(Subject::Failover) {
            say("measuring crashes");
            figures.extend(failover::measure(lab, self.crashes).await?);
        }
        if self.wants(Subject::Memory) {
            say("measuring memory");
            figures.extend(memory::measure(lab).await?);
        }
        node.signal_program(CONTROLLER, Signal::SIGTERM)?;
        node.wait_end(CONTROLLER, seconds(15))?;
        services::delete_pool(lab, "lan").await?;
        Ok(figures)
    }
}
