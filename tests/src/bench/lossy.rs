//! A LAN that loses packets at random, on every node's port and both ways: no address may move at 2 %.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};

use super::{Figure, World, owners::Owners, starved::Counts};
use crate::lab::{Direction, say};

/// The shares that are lost, and how many moves they may cost.
const SHARES: [(f64, Option<f64>); 2] = [(0.02, Some(0.0)), (0.10, None)];

pub(super) async fn measure(world: &World<'_>, minutes: u32) -> Result<Vec<Figure>> {
    let lab = world.lab;
    let population = world.populate("lossy", 100, 0).await?;
    let addresses: Vec<IpAddr> = world.announcers().await?.into_keys().collect();
    let first = *addresses.first().context("no address")?;
    let ports: Vec<(&str, Direction)> = lab
        .nodes()
        .iter()
        .flat_map(|node| [(node.name(), Direction::FromHost), (node.name(), Direction::ToHost)])
        .collect();
    let mut figures = Vec::new();
    for (share, goal) in SHARES {
        world.answers("c1", first).await?;
        let before = Owners::seen(world, &addresses).await?;
        let counts = Counts::told(world).await?;
        say(&format!("losing {} % on each port, both ways, for {minutes} minutes", share * 100.0));
        let prober = lab.lan_client("c1")?.probe((first, 80).into());
        lab.switch().lose_each(&ports, share)?;
        tokio::time::sleep(Duration::from_secs(u64::from(minutes) * 60)).await;
        lab.switch().lose_each(&ports, 0.0)?;
        let report = prober.finish()?;
        let counted = Counts::told(world).await?.since(&counts);
        let moved = Owners::seen(world, &addresses).await?.differ(&before);
        say(&format!(
            "{} of {} datagrams lost, longest gap {:?}",
            report.lost(),
            report.sent,
            report.longest_gap
        ));
        let when = format!("{minutes} minutes that lose {} %", share * 100.0);
        let mut of_share = counted.figures(&when);
        if let Some(moves) = of_share.first_mut() {
            moves.goal = goal;
        }
        figures.extend(of_share);
        let after = Figure::at_most("addresses that another node answers for afterwards", moved, 0);
        figures.push(Figure { goal, ..after });
    }
    population.remove().await?;
    Ok(figures)
}
