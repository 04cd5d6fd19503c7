//! Things that come back with what they knew long ago: an etcd from a backup, nodes with old state files.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use landfall_crds::names::labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS;
use landfall_tests::{
    lab::{Lab, Mac, Node, eventually, landfall::SPEAKER, probe::Request, seconds, steadily},
    pair::Pair,
    services::{announcer, delete, granted},
    story::Story,
};

use crate::ready::{others, reached, ready, single};

/// The speaker's state on its node.
const STATE: &str = "/var/lib/landfall/state.json";
/// How soon nodes that start without an API server announce what nobody else does.
const FROM_STATE: Duration = seconds(3);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new(
            "ownership: two nodes are powered on with old state files, and one of them announces",
            old_state_files,
        ),
        Story::long(
            seconds(240),
            "ownership: etcd comes back from a backup, and what it says goes, with one node answering",
            etcd_restored,
        ),
    ]
}

/// Who answers, alone.
fn alone(lab: &Lab, address: IpAddr) -> Result<Mac> {
    let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(150))?;
    ensure!(macs.len() == 1, "{macs:?} answer for {address}");
    macs.first().copied().context("nobody")
}

async fn another_announces<'a>(lab: &'a Lab, address: IpAddr, than: &Node) -> Result<&'a Node> {
    eventually(seconds(20), &format!("another node than {} announces", than.name()), async || {
        let node = announcer(lab, address).await?;
        ensure!(node.name() != than.name());
        Ok(node)
    })
    .await
}

async fn old_state_files(lab: &Lab) -> Result<()> {
    let (address, first) = reached(lab, "old").await?;
    tokio::time::sleep(seconds(2)).await;
    let old = fs::read(first.file(STATE)?).context("the state file")?;
    first.kill(SPEAKER)?;
    let second = another_announces(lab, address, first).await?;
    tokio::time::sleep(seconds(2)).await;
    // The power fails everywhere, and what comes back first are two nodes, one of which was off for long.
    lab.control_plane().kill_api_server()?;
    for node in others(lab, first) {
        node.kill(SPEAKER)?;
    }
    fs::write(first.file(STATE)?, &old)?;
    let call = lab.lan_client("c2")?.call_roll(&[address], Duration::from_millis(20));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = Instant::now();
    first.restart(SPEAKER)?;
    second.restart(SPEAKER)?;
    tokio::time::sleep(seconds(8)).await;
    let roster = call.finish()?;
    let seen = roster.of(address).context("nothing was called")?;
    let answer = seen.answers.iter().find(|sighting| sighting.at > started);
    let after = answer.context("nobody answers")?.at - started;
    eprintln!(
        "ownership: {} with an old file and {} with a newer one: answered after {after:?}, by {:?}, by two for {:?}",
        first.name(),
        second.name(),
        seen.answerers(),
        seen.longest_split()
    );
    ensure!(after < FROM_STATE, "{after:?}");
    ensure!(seen.longest_split() <= Duration::from_millis(300), "by two for {:?}", seen.longest_split());
    let now = alone(lab, address)?;
    lab.control_plane().start_api_server()?;
    lab.api_server_answers().await?;
    ready(lab).await?;
    steadily(seconds(3), "the same node answers alone", async || {
        ensure!(alone(lab, address)? == now);
        Ok(())
    })
    .await?;
    eventually(seconds(30), "the API tells who", async || {
        ensure!(announcer(lab, address).await?.mac() == now);
        Ok(())
    })
    .await?;
    delete(lab, "old").await
}

async fn etcd_restored(lab: &Lab) -> Result<()> {
    let (address, first) = reached(lab, "restored").await?;
    tokio::time::sleep(seconds(2)).await;
    let backup = lab.control_plane().back_up()?;
    // Since then the address has moved because the controller wanted it to, under a higher epoch.
    let label = EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS;
    lab.kubectl(&["label", "node", first.name(), &format!("{label}=true")])?;
    another_announces(lab, address, first).await?;
    tokio::time::sleep(seconds(4)).await;
    // After the API server of an earlier story was away, kube-proxy may take long to hear of the Service.
    let request = Request::udp((address, 80).into()).within(Duration::from_millis(300));
    eventually(seconds(30), "it answers", async || lab.lan_client("c1")?.ask(request)).await?;
    let pair = Pair::begin(lab, address)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    lab.control_plane().restore(&backup)?;
    lab.api_server_answers().await?;
    tokio::time::sleep(seconds(10)).await;
    let paired = pair.finish()?;
    eprintln!("ownership: etcd restored: {paired}");
    ensure!(paired.lost() == 0, "{paired}");
    ensure!(paired.split() <= Duration::from_millis(100), "two answered for {:?}", paired.split());
    // All follow the API again: a new Service gets an address, and is announced.
    let restored = Instant::now();
    single("afterwards").apply(lab).await?;
    let new =
        eventually(seconds(90), "a new Service has an address", async || granted(lab, "afterwards", 1).await)
            .await?[0];
    eventually(seconds(90), "it is announced", async || announcer(lab, new).await).await?;
    eprintln!(
        "ownership: a Service after the restoration was announced {:?} after its creation",
        restored.elapsed()
    );
    eventually(seconds(60), "the API tells who answers for the old one", async || {
        ensure!(announcer(lab, address).await?.mac() == alone(lab, address)?);
        Ok(())
    })
    .await?;
    delete(lab, "afterwards").await?;
    delete(lab, "restored").await
}
