//! A node dies that announces a third of 1,000 addresses.
//!
//! When the LAN is told of each address is seen on the wire, for all of them. What is missed is measured by a client
//! that talks to a sample: a real client with a thousand neighbours would first of all measure its own kernel, whose
//! neighbour table holds 1,024 entries of all the machine's namespaces together (`gc_thresh3`).

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{Pace, crash::crash, ours::next_victim};
use crate::{
    bench::{Figure, World, world::Family},
    lab::{probe::Prober, say},
};

const ADDRESSES: usize = 1000;
/// What 99 of 100 addresses must not exceed, in milliseconds.
const GOAL: f64 = 300.0;
/// How many addresses a client talks to.
const SAMPLE: usize = 20;

pub(in crate::bench) async fn many(world: &World<'_>, crashes: u32) -> Result<Vec<Figure>> {
    world.add_large_pool().await?;
    let population = world.populate("many", ADDRESSES, 0).await?;
    let (mut told, mut late, mut sampled) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..usize::try_from(crashes)? {
        let stakes = next_victim(world, turn).await?;
        let client = world.lab.lan_client("c1")?;
        let mut probers: Vec<Prober> = Vec::new();
        for number in 0..SAMPLE {
            let address = stakes.pick(Family::V4, turn + number * 17).context("no IPv4")?;
            world.answers("c1", address).await?;
            probers.push(client.probe_every(2 * super::clients::INTERVAL, SocketAddr::from((address, 80))));
        }
        let capture = world.lab.switch().capture()?;
        let moments = crash(world, &[stakes.victim.name()], Pace::FAST).await?;
        let seen = capture.finish()?;
        for prober in probers {
            sampled.push(prober.finish()?.outage(moments.dark, moments.back));
        }
        let own = stakes.victim.mac();
        let mut of_crash: Vec<f64> = Vec::new();
        for address in &stakes.all {
            let first = seen
                .iter()
                .find(|seen| seen.at > moments.dark && seen.tells(*address).is_some_and(|mac| mac != own));
            // An address that nobody told of counts as told at the end.
            let after = first.map_or(moments.back, |seen| seen.at) - moments.dark;
            of_crash.push(after.as_secs_f64() * 1000.0);
        }
        of_crash.sort_unstable_by(f64::total_cmp);
        let p99 = of_crash.get((of_crash.len() * 99).div_ceil(100).saturating_sub(1));
        let p99 = p99.copied().context("a crash of a node without addresses")?;
        let first = of_crash.first().copied().unwrap_or_default();
        say(&format!("{} addresses, first told after {first:.0} ms, 99 % after {p99:.0}", of_crash.len()));
        late.push(p99);
        told.extend(of_crash.iter().map(|after| after - first));
    }
    population.remove().await?;
    world.remove_large_pool().await?;
    Ok(vec![
        Figure::of("dark port to 99 % of the addresses told, each crash", &late, "ms", Some(GOAL))
            .worst_goal(GOAL),
        Figure::of("first address told to each other one told", &told, "ms", None).worst_goal(100.0),
        Figure::times("outage of a client, 20 addresses each crash", &sampled, GOAL, None).worst_goal(GOAL),
    ])
}
