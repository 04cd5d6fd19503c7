//! Every client of a LAN at once: the outage that each one saw.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};

use super::{MEDIAN, Pace, WORST, crash::crash, ours::next_victim};
use crate::{
    bench::{Figure, World, world::Family},
    lab::probe::Prober,
};

/// Each asks a hundred times a second: a thousand packets a second and more for all.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);

pub(in crate::bench) async fn clients(world: &World<'_>, crashes: u32) -> Result<Vec<Figure>> {
    let population = world.populate("crowd", 60, 0).await?;
    let (mut each, mut worst) = (Vec::new(), Vec::new());
    for turn in 0..usize::try_from(crashes)? {
        let stakes = next_victim(world, turn).await?;
        let mut probers: Vec<Prober> = Vec::new();
        for (number, client) in world.lab.lan_clients().iter().enumerate() {
            let address = stakes.pick(Family::V4, turn + number).context("no IPv4")?;
            world.answers(client.name(), address).await?;
            probers.push(client.probe_every(INTERVAL, SocketAddr::from((address, 80))));
        }
        let moments = crash(world, &[stakes.victim.name()], Pace::FAST).await?;
        let reports = probers.into_iter().map(Prober::finish).collect::<Result<Vec<_>>>()?;
        let outages: Vec<Duration> =
            reports.iter().map(|report| report.outage(moments.dark, moments.back)).collect();
        worst.extend(outages.iter().max());
        each.extend(outages);
    }
    population.remove().await?;
    let number = world.lab.lan_clients().len();
    Ok(vec![
        Figure::times(&format!("outage of each of {number} clients, all at once"), &each, MEDIAN, None)
            .worst_goal(WORST),
        Figure::spread("outage of the client that missed most, in each crash", &worst)
            .median_goal(WORST)
            .worst_goal(WORST),
    ])
}
