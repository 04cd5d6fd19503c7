//! Two LANs on each node. One of a node's ports goes dark: its addresses there move, those on the other LAN stay.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use super::{MEDIAN, Pace, WORST, crash::crash};
use crate::{
    bench::{Figure, World},
    lab::{Lan, probe::Prober},
    services,
};

pub(in crate::bench) async fn lans(world: &World<'_>, crashes: u32) -> Result<Vec<Figure>> {
    let population = world.populate("first", 30, 0).await?;
    services::pool(
        world.lab,
        "second",
        &serde_json::json!({"addresses": ["192.168.20.128-192.168.20.250"], "priority": 9}),
    )
    .await?;
    let on_second = world.populate("second", 30, 0).await?;
    let (mut failing, mut other, mut moved) = (Vec::new(), Vec::new(), 0_u64);
    let is_second = |address: &IpAddr| address.to_string().starts_with("192.168.20.");
    for turn in 0..usize::try_from(crashes)? {
        let by_owner = world.by_owner().await?;
        let owners = world.speakers();
        let victim = owners
            .iter()
            .cycle()
            .skip(turn)
            .take(owners.len())
            .find(|node| {
                let has = |second: bool| {
                    by_owner
                        .get(node.name())
                        .is_some_and(|all| all.iter().any(|address| is_second(address) == second))
                };
                has(true) && has(false)
            })
            .context("no node has addresses on both LANs")?;
        let all = by_owner.get(victim.name()).context("no addresses")?;
        let pick = |second: bool| {
            let of_lan: Vec<&IpAddr> = all.iter().filter(|address| is_second(address) == second).collect();
            of_lan.get(turn % of_lan.len().max(1)).map(|address| **address).context("no address")
        };
        let (stays, moves) = (pick(false)?, pick(true)?);
        for address in [stays, moves] {
            world.answers("c1", address).await?;
        }
        let client = world.lab.lan_client("c1")?;
        let probers = [moves, stays].map(|address| client.probe(SocketAddr::from((address, 80))));
        let port = Lan::Second.port_of(victim.name());
        let moments = crash(world, &[&port], Pace::FAST).await?;
        let [moves, stayed] = probers.map(Prober::finish);
        failing.push(moves?.outage(moments.dark, moments.back));
        other.push(stayed?.longest_gap_after(moments.dark));
        let now = world.by_owner().await?;
        let still = now.get(victim.name()).map(Vec::as_slice).unwrap_or_default();
        let left = all.iter().filter(|address| !is_second(address) && !still.contains(address)).count();
        moved += u64::try_from(left)?;
    }
    on_second.remove().await?;
    population.remove().await?;
    services::delete_pool(world.lab, "second").await?;
    Ok(vec![
        Figure::spread("outage on the LAN whose port went dark", &failing)
            .median_goal(MEDIAN)
            .worst_goal(WORST),
        Figure::times("outage on the node's other LAN", &other, 50.0, None).worst_goal(50.0),
        Figure::at_most("addresses that moved on the node's other LAN", moved, 0),
    ])
}
