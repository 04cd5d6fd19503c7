//! What looks like a death and is none moves nothing. For half an hour: `make bench BENCH_FLAGS="starved lossy"`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use landfall_tests::{
    lab::{Lab, landfall::SPEAKER, seconds},
    pair::{Pair, Paired},
    services::{announcer, delete},
    story::Story,
};
use nix::sys::signal::Signal;

use crate::landfall::{Reached, reached};

/// How long the switch is dark.
const BLIP: Duration = Duration::from_millis(200);
/// How soon an address is announced again after all nodes had lost their carrier: they listen to each other first.
const RELINKED: Duration = Duration::from_millis(1500);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new(
            "resilience: a speaker stands still for a second, its node forwards, nothing is lost",
            stopped,
        ),
        Story::new("resilience: the switch passes nothing for 200 ms, and nothing moves", blip),
        Story::new(
            "resilience: all nodes lose their carrier for 200 ms, and one answers again within 1.5 s",
            carriers_lost,
        ),
    ]
}

/// How often speakers began to answer for an address, all told.
fn takeovers(lab: &Lab) -> Result<f64> {
    let of_node = |node: &landfall_tests::lab::Node| {
        Ok(node.speaker_metrics()?.sum("landfall_speaker_takeovers_total", &[]))
    };
    lab.nodes().iter().map(of_node).sum::<Result<f64>>()
}

async fn stopped(lab: &Lab) -> Result<()> {
    let Reached { address, owner, .. } = reached(lab, "stopped", false).await?;
    let pair = Pair::begin(lab, address)?;
    tokio::time::sleep(seconds(1)).await;
    owner.signal(SPEAKER, Signal::SIGSTOP)?;
    tokio::time::sleep(seconds(1)).await;
    owner.signal(SPEAKER, Signal::SIGCONT)?;
    tokio::time::sleep(seconds(3)).await;
    let paired = pair.finish()?;
    eprintln!("resilience: a speaker stopped for 1 s: {paired}");
    ensure!(paired.warm.lost() == 0, "its node did not forward: {paired}");
    ensure!(paired.split() <= Duration::from_millis(200), "two answered for {:?}", paired.split());
    delete(lab, "stopped").await
}

/// As where another switch stands between: the ports keep their carrier.
async fn blip(lab: &Lab) -> Result<()> {
    let Reached { address, owner, .. } = reached(lab, "blip", false).await?;
    let before = takeovers(lab)?;
    let pair = Pair::begin(lab, address)?;
    tokio::time::sleep(seconds(1)).await;
    let dark = Instant::now();
    lab.switch().blackout(true)?;
    // To end it takes as long as to begin it did.
    tokio::time::sleep(BLIP.saturating_sub(dark.elapsed())).await;
    lab.switch().blackout(false)?;
    tokio::time::sleep(seconds(4)).await;
    let paired = pair.finish()?;
    let outage = outage(&paired, dark);
    let again = takeovers(lab)? - before;
    eprintln!("resilience: {BLIP:?} without a switch: outage {outage:?}, announced anew {again}; {paired}");
    ensure!(paired.cold.seen.answerers().keys().eq([&owner.mac()]), "it moved: {paired}");
    ensure!(again == 0.0, "addresses were announced anew {again} times");
    ensure!(outage < BLIP + Duration::from_millis(100), "{paired}");
    ensure!(announcer(lab, address).await?.name() == owner.name(), "it has moved");
    delete(lab, "blip").await
}

/// A node without carrier announces nothing, and listens first when it has one again.
async fn carriers_lost(lab: &Lab) -> Result<()> {
    let Reached { address, .. } = reached(lab, "unplugged", false).await?;
    let pair = Pair::begin(lab, address)?;
    tokio::time::sleep(seconds(1)).await;
    let dark = Instant::now();
    lab.switch().all_ports_down()?;
    tokio::time::sleep(BLIP).await;
    lab.switch().all_ports_up()?;
    tokio::time::sleep(seconds(4)).await;
    let paired = pair.finish()?;
    let outage = outage(&paired, dark);
    eprintln!("resilience: all carriers lost for {BLIP:?}: outage {outage:?}; {paired}");
    ensure!(outage < BLIP + RELINKED, "{paired}");
    ensure!(paired.split() <= Duration::from_millis(200), "two answered for {:?}", paired.split());
    delete(lab, "unplugged").await
}

/// The longest that either client had no answer because of what began then.
fn outage(paired: &Paired, from: Instant) -> Duration {
    let until = from + seconds(4);
    paired.warm.outage(from, until).max(paired.cold.packets.outage(from, until))
}
