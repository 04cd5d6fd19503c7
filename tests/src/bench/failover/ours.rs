//! Landfall: crashes of one node after the other, seen by clients that know the node, by clients that do not, on
//! the wire, and by the speakers themselves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    MEDIAN, Pace, WORST,
    crash::{Moments, crash},
    steps::{STEPS, Steps},
};
use crate::{
    bench::{Figure, World, world::Family},
    lab::{
        Node,
        probe::{ColdProber, ColdReport, Prober, Report, Seen},
        say,
    },
};

/// What clients missed in many crashes.
#[derive(Clone, Debug, Default)]
pub(super) struct Outages {
    /// Clients that knew the node, IPv4.
    pub(super) warm: Vec<Duration>,
    /// The same over IPv6.
    pub(super) warm_v6: Vec<Duration>,
    /// Clients that asked who has the address with every packet, IPv4.
    pub(super) cold: Vec<Duration>,
    /// The same over IPv6.
    pub(super) cold_v6: Vec<Duration>,
    /// From the dark port to the first frame that tells the LAN of the new node: one for each address of the dead.
    pub(super) told: Vec<Duration>,
    /// How many addresses nobody told the LAN of.
    pub(super) untold: u64,
    /// What was missed when the node came back, whoever missed it.
    pub(super) returns: Vec<Duration>,
    /// For how long two nodes answered, then or earlier.
    pub(super) splits: Vec<Duration>,
    /// The longest pause between two answers while all was well: the floor of all of this.
    pub(super) floor: Vec<Duration>,
    /// Means of the steps in each crash, in milliseconds since the last heartbeat.
    pub(super) steps: [Vec<f64>; 3],
}

/// Addresses of a node that is about to die: the measured ones, and all of them.
pub(in crate::bench) struct Stakes<'a> {
    pub(in crate::bench) victim: &'a Node,
    pub(in crate::bench) all: Vec<IpAddr>,
}

impl Stakes<'_> {
    /// One address of the family, another one each time.
    pub(in crate::bench) fn pick(&self, family: Family, turn: usize) -> Option<IpAddr> {
        let of_family: Vec<&IpAddr> =
            self.all.iter().filter(|address| Family::of(**address) == family).collect();
        of_family.get(turn % of_family.len().max(1)).map(|address| **address)
    }
}

/// The next node to die: those with speakers take turns, and each must have addresses to lose.
pub(in crate::bench) async fn next_victim<'a>(world: &World<'a>, turn: usize) -> Result<Stakes<'a>> {
    let speakers = world.speakers();
    let by_owner: BTreeMap<String, Vec<IpAddr>> = world.by_owner().await?;
    let turns = speakers.iter().cycle().skip(turn).take(speakers.len());
    let mut stakes = turns.filter_map(|node| {
        let all = by_owner.get(node.name())?.clone();
        Some(Stakes { victim: node, all })
    });
    stakes.next().context("no node announces anything")
}

pub(super) async fn measure(world: &World<'_>, crashes: u32, pace: Pace) -> Result<Outages> {
    let mut outages = Outages::default();
    for turn in 0..usize::try_from(crashes)? {
        outages.add(world, turn, pace).await?;
    }
    Ok(outages)
}

impl Outages {
    async fn add(&mut self, world: &World<'_>, turn: usize, pace: Pace) -> Result<()> {
        let stakes = next_victim(world, turn).await?;
        let victim = stakes.victim.name();
        let pick = |family, offset| stakes.pick(family, turn + offset);
        let (v4, cold_v4) =
            (pick(Family::V4, 0).context("no IPv4")?, pick(Family::V4, 1).context("no IPv4")?);
        world.answers("c1", v4).await?;
        let (warm, cold) = (world.lab.lan_client("c1")?, world.lab.lan_client("c2")?);
        let target = |address| SocketAddr::from((address, 80));
        let before = Steps::told(world, victim)?;
        let capture = world.lab.switch().capture()?;
        let warm_probers =
            [Some(v4), pick(Family::V6, 0)].map(|address| address.map(|address| warm.probe(target(address))));
        let cold_probers = [Some(cold_v4), pick(Family::V6, 1)]
            .map(|address| address.map(|address| cold.probe_cold(target(address))));
        let moments = crash(world, &[victim], pace).await?;
        let warm = warm_probers.map(|prober| prober.map(Prober::finish).transpose());
        let cold = cold_probers.map(|prober| prober.map(ColdProber::finish).transpose());
        let [warm, warm_v6] = warm;
        let [cold, cold_v6] = cold;
        let (warm, cold) = (warm?.context("no prober")?, cold?.context("no prober")?);
        ensure!(warm.answered > 0 && cold.packets.answered > 0, "nobody was answered: {warm}; {cold}");
        let steps = Steps::told(world, victim)?.since(&before);
        self.take_warm(&warm, &moments, Family::V4);
        self.take_cold(&cold, &moments, Family::V4);
        warm_v6?.iter().for_each(|report| self.take_warm(report, &moments, Family::V6));
        cold_v6?.iter().for_each(|report| self.take_cold(report, &moments, Family::V6));
        self.take_told(&capture.finish()?, &stakes, &moments);
        for (all, step) in self.steps.iter_mut().zip(steps) {
            all.extend(step);
        }
        let last = |times: &[Duration]| times.last().copied().unwrap_or_default();
        say(&format!(
            "{victim} with {} addresses: warm {:?}, cold {:?}, steps {steps:?} ms",
            stakes.all.len(),
            last(&self.warm),
            last(&self.cold)
        ));
        Ok(())
    }

    fn take_warm(&mut self, report: &Report, moments: &Moments, family: Family) {
        let outage = report.outage(moments.dark, moments.back);
        match family {
            Family::V4 => self.warm.push(outage),
            Family::V6 => self.warm_v6.push(outage),
        }
        self.returns.push(report.longest_gap_after(moments.back));
        self.floor.push(report.longest_pause(moments.quiet, moments.dark));
    }

    fn take_cold(&mut self, report: &ColdReport, moments: &Moments, family: Family) {
        let outage = report.packets.outage(moments.dark, moments.back);
        match family {
            Family::V4 => self.cold.push(outage),
            Family::V6 => self.cold_v6.push(outage),
        }
        self.returns.push(report.packets.longest_gap_after(moments.back));
        self.splits.push(report.seen.longest_split());
    }

    fn take_told(&mut self, seen: &[Seen], stakes: &Stakes<'_>, moments: &Moments) {
        for address in &stakes.all {
            let by_another = seen.iter().find(|seen| {
                seen.at > moments.dark && seen.tells(*address).is_some_and(|mac| mac != stakes.victim.mac())
            });
            match by_another {
                Some(seen) => self.told.push(seen.at - moments.dark),
                None => self.untold += 1,
            }
        }
    }

    /// All of it as figures, which say whose they are.
    pub(super) fn figures(&self, whose: &str) -> Vec<Figure> {
        let name = |what: &str| if whose.is_empty() { what.to_owned() } else { format!("{what}; {whose}") };
        let outage = |what: &str, times: &[Duration]| {
            Figure::spread(&name(what), times).median_goal(MEDIAN).worst_goal(WORST)
        };
        let mut figures = vec![
            outage("outage, a client that knew the node", &self.warm),
            outage("outage, a client that asks with every packet", &self.cold),
        ];
        if !self.warm_v6.is_empty() {
            figures.push(outage("outage over IPv6, a client that knew the node", &self.warm_v6));
            figures.push(outage("outage over IPv6, one that asks with every packet", &self.cold_v6));
        }
        for (step, means) in STEPS.iter().zip(&self.steps) {
            figures.push(Figure::of(&name(&format!("last heartbeat to {step}")), means, "ms", None));
        }
        let told: Vec<f64> = self.told.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        figures.extend([
            Figure::of(&name("dark port to the LAN being told, each address"), &told, "ms", None),
            Figure::at_most(&name("addresses that the LAN was not told of"), self.untold, 0),
            Figure::times(&name("outage when that node comes back"), &self.returns, 50.0, None)
                .worst_goal(50.0),
            Figure::times(&name("two nodes answer, then or before"), &self.splits, 50.0, None)
                .worst_goal(100.0),
            Figure::times(&name("longest pause while all was well (the floor)"), &self.floor, 50.0, None),
        ]);
        figures
    }
}
