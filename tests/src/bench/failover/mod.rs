//! What clients miss when a node dies: its switch port goes dark, and comes back.

mod clients;
mod crash;
mod lans;
mod many;
mod nodes;
mod ours;
mod steps;
mod theirs;
mod twice;

pub(super) use self::{
    clients::clients,
    crash::{Pace, crash},
    lans::lans,
    many::many,
    nodes::nodes,
    ours::next_victim,
    steps::Steps,
    twice::twice,
};

use std::time::Duration;

use anyhow::Result;

use self::ours::Outages;
use super::{Figure, World};

/// The median outage should be at most this, in milliseconds.
pub(super) const MEDIAN: f64 = 120.0;
/// And the worst of 30 at most this.
pub(super) const WORST: f64 = 200.0;
/// Addresses of each side, IPv4.
const ADDRESSES: usize = 100;
/// And so many of IPv6, to see that it is as fast.
const ADDRESSES_V6: usize = 10;

/// Landfall and keepalived, one after the other, in the same lab with the same clients.
pub(super) async fn measure(world: &World<'_>, crashes: u32) -> Result<Vec<Figure>> {
    let population = world.populate("crash", ADDRESSES, ADDRESSES_V6).await?;
    let ours = ours::measure(world, crashes, Pace::FAST).await?;
    population.remove().await?;
    let mut figures = ours.figures("");
    let Outages { warm, .. } = &ours;
    // With the slow adverts of its default a crash takes twice as long, and outages are all alike.
    for (name, advert, pace, crashes) in [
        ("100 ms", Duration::from_millis(100), Pace::FAST, crashes),
        ("1 s, its default", Duration::from_secs(1), Pace::SLOW, crashes.div_ceil(3)),
    ] {
        let theirs = theirs::measure(world, advert, crashes, pace).await?;
        figures.extend(theirs.figures(&format!("keepalived, adverts every {name}")));
        let ratio = median(warm) / median(&theirs.warm);
        let figure = Figure::of(&format!("our median over keepalived's, {name}"), &[ratio], "x", Some(0.5));
        figures.push(figure);
    }
    Ok(figures)
}

/// As [`measure`], without keepalived.
pub(super) async fn iptables(world: &World<'_>, crashes: u32) -> Result<Vec<Figure>> {
    let population = world.populate("crash", ADDRESSES, ADDRESSES_V6).await?;
    let figures = ours::measure(world, crashes, Pace::FAST).await?.figures("kube-proxy with iptables");
    population.remove().await?;
    Ok(figures)
}

fn median(times: &[Duration]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    super::median(&sorted).as_secs_f64()
}
