//! A machine that has no time: every processor is wanted by programs that never rest, and memory is short. No
//! address may move for that; and a node that really dies meanwhile must be found dead all the same.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Figure, World,
    failover::{Pace, Steps, crash},
    owners::Owners,
    world::Family,
};
use crate::lab::{Load, Metrics, eventually, say, seconds};

/// So many programs want each processor.
const HOGS: usize = 4;
/// How many deaths are measured.
const DEATHS: usize = 10;
/// From the last heartbeat to the verdict, in milliseconds.
const VERDICT: f64 = 500.0;

pub(super) async fn measure(world: &World<'_>, minutes: u32) -> Result<Vec<Figure>> {
    let lab = world.lab;
    let population = world.populate("starved", 100, 0).await?;
    let addresses: Vec<IpAddr> = world.announcers().await?.into_keys().collect();
    let first = *addresses.first().context("no address")?;
    world.answers("c1", first).await?;
    let before = Owners::seen(world, &addresses).await?;
    let counts = Counts::told(world).await?;
    let load = Load::on_processors(HOGS)?.and(Load::on_memory(lab)?);
    say(&format!("every processor is busy, for {minutes} minutes"));
    let prober = lab.lan_client("c1")?.probe(SocketAddr::from((first, 80)));
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(u64::from(minutes) * 60)).await;
    let report = prober.finish()?;
    let took = started.elapsed();
    say(&format!(
        "in {took:?}: {} of {} datagrams lost, longest gap {:?}",
        report.lost(),
        report.sent,
        report.longest_gap
    ));
    let counted = Counts::told(world).await?.since(&counts);
    let moved = Owners::seen(world, &addresses).await?.differ(&before);
    let (verdicts, outages) = deaths(world).await?;
    drop(load);
    population.remove().await?;
    let mut figures = counted.figures(&format!("{minutes} minutes with every processor busy"));
    figures.extend([
        Figure::at_most("addresses that another node answers for afterwards", moved, 0),
        Figure::at_most("datagrams that a client lost meanwhile", report.lost(), 0),
        Figure::of("a real death meanwhile: last heartbeat to verdict", &verdicts, "ms", Some(VERDICT))
            .worst_goal(VERDICT),
        Figure::spread("and what a client missed", &outages),
    ]);
    Ok(figures)
}

/// Nodes die while all processors are busy.
async fn deaths(world: &World<'_>) -> Result<(Vec<f64>, Vec<Duration>)> {
    let (mut verdicts, mut outages) = (Vec::new(), Vec::new());
    for turn in 0..DEATHS {
        let stakes = super::failover::next_victim(world, turn).await?;
        let address = stakes.pick(Family::V4, turn).context("no address")?;
        let victim = stakes.victim.name();
        let before = Steps::told(world, victim)?;
        let prober = world.lab.lan_client("c1")?.probe(SocketAddr::from((address, 80)));
        let moments = crash(world, &[victim], Pace::FAST).await?;
        let outage = prober.finish()?.outage(moments.dark, moments.back);
        let [_, verified, _] = Steps::told(world, victim)?.since(&before);
        say(&format!("{victim} died: verdict after {verified:?} ms, a client missed {outage:?}"));
        verdicts.extend(verified);
        outages.push(outage);
    }
    Ok((verdicts, outages))
}

/// What speakers count that should not happen while nobody dies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    takeovers: f64,
    sessions_down: f64,
    probes: f64,
    gaps: f64,
}

impl Counts {
    /// What all speakers tell so far.
    pub(super) async fn told(world: &World<'_>) -> Result<Self> {
        let mut counts = Self::default();
        for node in world.speakers() {
            let what = format!("the speaker of {} tells its counts", node.name());
            let metrics: Metrics = eventually(seconds(30), &what, async || node.speaker_metrics()).await?;
            let of = |name: &str| metrics.sum(&format!("landfall_speaker_{name}_total"), &[]);
            counts.takeovers += of("takeovers");
            counts.sessions_down += of("sessions_went_down");
            counts.probes += of("verification_probes");
            counts.gaps += of("gaps");
        }
        Ok(counts)
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            takeovers: self.takeovers - before.takeovers,
            sessions_down: self.sessions_down - before.sessions_down,
            probes: self.probes - before.probes,
            gaps: self.gaps - before.gaps,
        }
    }

    pub(super) fn takeovers(&self) -> f64 {
        self.takeovers
    }

    pub(super) fn probes(&self) -> f64 {
        self.probes
    }

    /// That nothing moved, and what it took not to move.
    pub(super) fn figures(&self, when: &str) -> Vec<Figure> {
        vec![
            Figure::of(&format!("moves in {when}"), &[self.takeovers], "", Some(0.0)),
            Figure::of("times a BFD session went down in them", &[self.sessions_down], "", None),
            Figure::of("questions to kernels of peers that were late", &[self.probes], "", None),
            Figure::of("times a speaker was not run for 300 ms", &[self.gaps], "", None),
        ]
    }
}
