//! A new version of the speaker moves nothing. Thirty of them: `make bench BENCH_FLAGS=upgrades`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landfall_tests::{
    lab::{
        Lab, eventually,
        landfall::{self as deployed, NAMESPACE, SPEAKER},
        seconds,
    },
    pair::Pair,
    services::{delete, virtual_ip},
    story::Story,
};

use crate::landfall::{Reached, reached};

pub(crate) fn stories() -> Vec<Story> {
    vec![Story::new(
        "upgrades: all speakers are replaced, nothing moves or is lost, and a long download lives on",
        rolled,
    )]
}

async fn rolled(lab: &Lab) -> Result<()> {
    let Reached { address, target, owner } = reached(lab, "upgraded", false).await?;
    let announced = async || -> Result<(String, i64)> {
        let status = virtual_ip(lab, address).await?.and_then(|vip| vip.status).context("no status")?;
        let announcer = status.announcer.context("nobody announces it")?;
        Ok((announcer.node, announcer.term))
    };
    let before = eventually(seconds(10), "its status names the node", announced).await?;
    ensure!(before.0 == owner.name(), "{before:?}");
    let pair = Pair::begin(lab, address)?;
    let download = lab.lan_client("c1")?.download(target);
    tokio::time::sleep(Duration::from_millis(500)).await;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", &format!("daemonset/{SPEAKER}")])?;
    deployed::rolled_out(lab)?;
    // The old process forwards nothing: what would be lost is lost by now.
    tokio::time::sleep(seconds(2)).await;
    let (paired, downloaded) = (pair.finish()?, download.finish()?);
    eprintln!("upgrades: {paired}; {downloaded}");
    let after = announced().await?;
    ensure!(after == before, "announced by {before:?} before, and by {after:?} after");
    ensure!(paired.lost() == 0, "{paired}");
    ensure!(paired.split().is_zero(), "two answered for {:?}", paired.split());
    ensure!(downloaded.broken.is_none() && downloaded.lines > 100, "{downloaded}");
    delete(lab, "upgraded").await
}
