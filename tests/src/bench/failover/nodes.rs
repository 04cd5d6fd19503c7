//! The same crashes with 3, 5 and 10 nodes.

use anyhow::Result;

use super::{ADDRESSES, ADDRESSES_V6, Pace, ours};
use crate::bench::{Figure, World};

const SIZES: [usize; 3] = [3, 5, 10];

pub(in crate::bench) async fn nodes(world: &World<'_>, crashes: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for size in SIZES {
        for node in world.lab.nodes().iter().take(size).skip(world.speakers().len()) {
            world.by_hand.start_speaker(world.lab, node, &[]).await?;
        }
        world.hear_each_other().await?;
        let population = world.populate("crash", ADDRESSES, ADDRESSES_V6).await?;
        figures.extend(ours::measure(world, crashes, Pace::FAST).await?.figures(&format!("{size} nodes")));
        population.remove().await?;
    }
    Ok(figures)
}
