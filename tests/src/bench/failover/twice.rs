//! A second crash 1 s after the first: the node that took over dies as well.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{MEDIAN, Pace, WORST, ours::next_victim};
use crate::{
    bench::{Figure, World, world::Family},
    lab::seconds,
};

pub(in crate::bench) async fn twice(world: &World<'_>, crashes: u32) -> Result<Vec<Figure>> {
    let population = world.populate("twice", 30, 0).await?;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for turn in 0..usize::try_from(crashes)? {
        let stakes = next_victim(world, turn).await?;
        let address = stakes.pick(Family::V4, turn).context("no IPv4")?;
        world.answers("c1", address).await?;
        let prober = world.lab.lan_client("c1")?.probe(SocketAddr::from((address, 80)));
        let switch = world.lab.switch();
        tokio::time::sleep(Pace::FAST.quiet).await;
        let dark = Instant::now();
        switch.port_down(stakes.victim.name())?;
        tokio::time::sleep(seconds(1)).await;
        let macs = world.lab.lan_client("c2")?.who_has(address, Duration::from_millis(30))?;
        let heir = world.speakers().into_iter().find(|node| macs.contains(&node.mac()));
        let heir = heir.with_context(|| format!("a second after the first crash {macs:?} answer"))?;
        let dark_again = Instant::now();
        switch.port_down(heir.name())?;
        tokio::time::sleep(Pace::FAST.dark).await;
        let back = Instant::now();
        switch.port_up(stakes.victim.name())?;
        switch.port_up(heir.name())?;
        tokio::time::sleep(Pace::FAST.light).await;
        let report = prober.finish()?;
        first.push(report.outage(dark, dark_again));
        second.push(report.outage(dark_again, back));
        // Two of three nodes have returned empty; the next round needs one with addresses and two to inherit them.
        world.hear_each_other().await?;
    }
    population.remove().await?;
    Ok(vec![
        Figure::spread("outage of the first crash", &first).median_goal(MEDIAN).worst_goal(WORST),
        Figure::spread("outage of a second crash, 1 s later, of the heir", &second)
            .median_goal(MEDIAN)
            .worst_goal(WORST),
    ])
}
