//! The same crashes with 3, 5 and 10 nodes.

use anyhow::Result;

use super::{Pace, ours};
use crate::{
    bench::{Figure, World},
    lab::{eventually, seconds},
};

const SIZES: [usize; 3] = [3, 5, 10];

pub(in crate::bench) async fn nodes(world: &World<'_>, crashes: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for size in SIZES {
        for node in world.lab.nodes().iter().take(size).skip(world.speakers().len()) {
            world.by_hand.start_speaker(world.lab, node, &[]).await?;
        }
        eventually(seconds(30), &format!("{size} speakers hear each other"), async || {
            for node in world.speakers() {
                let alive = node.speaker_metrics()?.sum("landfall_speaker_peers", &[("state", "Alive")]);
                // A count of at most ten.
                #[allow(clippy::cast_precision_loss)]
                let wanted = (size - 1) as f64;
                anyhow::ensure!(alive >= wanted, "{} hears {alive}", node.name());
            }
            Ok(())
        })
        .await?;
        let population = world.populate("crash", 100, 10).await?;
        figures.extend(ours::measure(world, crashes, Pace::FAST).await?.figures(&format!("{size} nodes")));
        population.remove().await?;
    }
    Ok(figures)
}
