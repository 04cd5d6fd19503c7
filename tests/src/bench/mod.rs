//! The figures that the README states, measured again, and promises that take long to be seen: one file, or
//! folder, for each.
//!
//! It prints figures with goals, and ratios to the machine's own floor where there is one. Machines differ
//! and are noisy, so a grant is also divided by what the same machine needs, in the same run, to write an
//! address into a Service by hand; and an outage stands beside what keepalived needs for the same.
//!
//! Subjects that need the same lab share it; each lab is a process of its own (`batches.rs`).

mod batches;
mod chaos;
mod failover;
mod figure;
mod grant;
mod grants;
mod lossy;
mod memory;
mod moves;
mod offline;
mod owners;
mod starved;
mod storm;
mod subject;
mod upgrades;
mod usage;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

pub use self::{figure::Figure, subject::Subject};
use self::{figure::median, subject::Arena, world::World};
use crate::lab::{Lab, isolation::Inside, landfall::ByHand, say};

/// Measures.
#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// Measure only these; without any: grant, memory, failover and grants, in half an hour
    #[arg(value_enum)]
    subjects: Vec<Subject>,
    /// How many crashes to measure, of each kind
    #[arg(long, default_value_t = 30, value_name = "COUNT")]
    crashes: u32,
    /// How many planned moves or upgrades to measure, of each kind
    #[arg(long, default_value_t = 30, value_name = "COUNT")]
    moves: u32,
    /// For how long to wait for what must not happen: subjects offline, starved and lossy
    #[arg(long, default_value_t = 30, value_name = "MINUTES")]
    minutes: u32,
    /// How many faults to play: subject chaos
    #[arg(long, default_value_t = 500, value_name = "COUNT")]
    faults: u32,
    /// What decides which faults they are; printed, and random where absent
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
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

impl Bench {
    /// Measures what needs one lab in this process, and prints the figures.
    ///
    /// # Errors
    /// When something does not work; a goal that is not reached is no error.
    pub async fn run(&self, inside: &Inside) -> Result<()> {
        let subjects = self.wanted();
        let arena = subjects.first().context("nothing to measure")?.arena();
        let lab = Lab::up(inside, arena.lab()).await?;
        let measured = self.measure(&lab, arena, &subjects).await;
        if measured.is_err() {
            lab.explain();
        }
        let figures = measured?;
        for figure in &figures {
            println!("{figure}");
        }
        if let Some(file) = &self.json_file {
            std::fs::write(file, serde_json::to_string_pretty(&figures)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    async fn measure(&self, lab: &Lab, arena: Arena, subjects: &[Subject]) -> Result<Vec<Figure>> {
        if arena == Arena::Pods {
            return upgrades::measure(lab, self.moves).await;
        }
        let by_hand = ByHand::prepare(lab)?;
        // The last node has backends and no speaker.
        for node in lab.nodes().iter().take(arena.speakers()) {
            by_hand.start_speaker(lab, node, &[]).await?;
        }
        let mut figures = Vec::new();
        if subjects.iter().any(|subject| *subject != Subject::Grants) {
            figures.extend(self.one_by_one(lab, &by_hand, subjects).await?);
        }
        if subjects.contains(&Subject::Grants) {
            // The last, because it ends what the others need.
            say("measuring thousands of grants");
            let extent = grants::Extent { sizes: &self.services, rounds: self.rounds };
            figures.extend(grants::measure(lab, &by_hand, &extent).await?);
        }
        Ok(figures)
    }

    /// What is measured with a controller and speakers that run all the time.
    async fn one_by_one(&self, lab: &Lab, by_hand: &ByHand, subjects: &[Subject]) -> Result<Vec<Figure>> {
        let world = World::begin(lab, by_hand).await?;
        let mut figures = Vec::new();
        for subject in subjects.iter().filter(|subject| **subject != Subject::Grants) {
            say(&format!("measuring {}", batches::name_of(*subject)));
            figures.extend(match subject {
                Subject::Grant => grant::measure(lab).await?,
                Subject::Memory => memory::measure(lab).await?,
                Subject::Failover => failover::measure(&world, self.crashes).await?,
                Subject::FailoverClients => failover::clients(&world, self.crashes).await?,
                Subject::FailoverTwice => failover::twice(&world, self.crashes).await?,
                Subject::FailoverNodes => failover::nodes(&world, self.crashes).await?,
                Subject::FailoverMany => failover::many(&world, self.crashes).await?,
                Subject::FailoverLans => failover::lans(&world, self.crashes).await?,
                Subject::FailoverIptables => failover::iptables(&world, self.crashes).await?,
                Subject::Moves => moves::measure(&world, self.moves).await?,
                Subject::Offline => offline::measure(&world, self.minutes).await?,
                Subject::Starved => starved::measure(&world, self.minutes).await?,
                Subject::Lossy => lossy::measure(&world, self.minutes).await?,
                Subject::Storm => storm::measure(&world).await?,
                Subject::Chaos => chaos::measure(&world, self.faults, self.seed).await?,
                // Each has a lab of its own kind.
                Subject::Grants | Subject::Upgrades => Vec::new(),
            });
        }
        world.end().await?;
        Ok(figures)
    }
}
