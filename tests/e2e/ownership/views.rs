//! Nodes that see different things: of the API, or of each other.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use landfall_tests::{
    lab::{Lab, Node, eventually, seconds, steadily},
    pair::Pair,
    services::{announcer, delete, delete_pool, granted, pool, services, virtual_ip},
    story::Story,
};
use serde_json::json;

use crate::ready::{others, reached, ready, single, speakers};

/// How soon an address is announced although the best candidate knows nothing of it.
const DESPITE_IGNORANCE: Duration = seconds(2);
/// How long two nodes may answer once they hear each other again.
const LONGEST_SPLIT: Duration = Duration::from_millis(200);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new(
            "ownership: a better candidate that is alive but ignorant of a new address does not hold it up",
            ignorant,
        ),
        Story::new("ownership: an edit of source ranges after a failover moves nothing", edit_after_failover),
        Story::new("ownership: only the link between two nodes is cut, and nothing moves", link_cut),
        Story::new(
            "ownership: every node is isolated from every other, and one answers when they meet",
            isolated,
        ),
    ]
}

async fn ignorant(lab: &Lab) -> Result<()> {
    ready(lab).await?;
    let spec = json!({
        "addresses": ["192.168.10.190-192.168.10.191"],
        "priority": 9,
        "announce": {"nodeSelector": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1", "n2"]},
        ]}},
    });
    pool(lab, "of-two", &spec).await?;
    lab.switch().cut_from_api("n1")?;
    // Two addresses for two nodes: one of them ranks the ignorant one first.
    let mut behind_n1 = 0;
    for name in ["unheard-a", "unheard-b"] {
        let expected: IpAddr = format!("192.168.10.19{}", usize::from(name.ends_with('b'))).parse()?;
        let watch = lab.lan_client("c2")?.watch(expected, Duration::from_millis(5));
        let created = Instant::now();
        single(name).apply(lab).await?;
        let address = granted(lab, name, 1).await?[0];
        ensure!(address == expected, "{address}, but {expected} is watched");
        let candidates = virtual_ip(lab, address).await?.context("no VirtualIP")?.spec.placement;
        let first = candidates.and_then(|placement| placement.candidates.into_iter().next());
        let first = first.context("no candidates")?.node;
        tokio::time::sleep(DESPITE_IGNORANCE).await;
        let seen = watch.finish()?;
        let answer = seen
            .answers
            .first()
            .with_context(|| format!("nobody answers for {address}; {first} is first"))?;
        let after = answer.at.saturating_duration_since(created);
        eprintln!(
            "ownership: {address}, of which {first} ranks first, was answered {after:?} after its creation"
        );
        ensure!(after < DESPITE_IGNORANCE, "{after:?}");
        ensure!(seen.answerers().keys().eq([&lab.node("n2")?.mac()]), "{:?}", seen.answerers());
        behind_n1 += u32::from(first == "n1");
    }
    ensure!(behind_n1 > 0, "the ignorant node ranks first for neither: the story proves nothing");
    lab.switch().heal_way_to_api("n1")?;
    // It learns what it missed, and takes nothing.
    steadily(seconds(5), "n2 answers alone", async || {
        for last in [190, 191] {
            let address = format!("192.168.10.{last}").parse()?;
            let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(150))?;
            ensure!(macs.iter().eq([&lab.node("n2")?.mac()]), "{address}: {macs:?}");
        }
        Ok(())
    })
    .await?;
    delete(lab, "unheard-a").await?;
    delete(lab, "unheard-b").await?;
    delete_pool(lab, "of-two").await
}

async fn edit_after_failover(lab: &Lab) -> Result<()> {
    let (address, owner) = reached(lab, "edited").await?;
    lab.switch().port_down(owner.name())?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    lab.switch().port_up(owner.name())?;
    let heir = eventually(seconds(10), "another node announces", async || {
        let heir = announcer(lab, address).await?;
        ensure!(heir.name() != owner.name());
        Ok(heir)
    })
    .await?;
    tokio::time::sleep(seconds(1)).await;
    let pair = Pair::begin(lab, address)?;
    for ranges in [json!(["192.168.10.0/24", "10.0.0.0/8"]), json!(["192.168.0.0/16"]), json!(null)] {
        let patch = json!({"spec": {"loadBalancerSourceRanges": ranges}});
        services(lab).patch("edited", &PatchParams::default(), &Patch::Merge(patch)).await?;
        tokio::time::sleep(seconds(2)).await;
    }
    let paired = pair.finish()?;
    eprintln!("ownership: source ranges edited three times after a failover: {paired}");
    ensure!(paired.cold.seen.answerers().keys().eq([&heir.mac()]), "it moved: {paired}");
    delete(lab, "edited").await
}

async fn link_cut(lab: &Lab) -> Result<()> {
    let (address, owner) = reached(lab, "link").await?;
    for other in others(lab, owner) {
        let pair = Pair::begin(lab, address)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        lab.switch().cut(owner.name(), other.name())?;
        tokio::time::sleep(seconds(5)).await;
        lab.switch().heal_cuts()?;
        tokio::time::sleep(seconds(2)).await;
        let paired = pair.finish()?;
        eprintln!("ownership: {} and {} cut for 5 s: {paired}", owner.name(), other.name());
        ensure!(paired.cold.seen.answerers().keys().eq([&owner.mac()]), "it moved: {paired}");
        ensure!(paired.lost() == 0, "{paired}");
    }
    delete(lab, "link").await
}

async fn isolated(lab: &Lab) -> Result<()> {
    let (address, owner) = reached(lab, "apart").await?;
    let nodes: Vec<&str> = speakers(lab).map(Node::name).collect();
    let prober = lab.lan_client("c1")?.probe((address, 80).into());
    let watch = lab.lan_client("c2")?.watch(address, Duration::from_millis(10));
    tokio::time::sleep(Duration::from_millis(500)).await;
    lab.switch().isolate(&nodes)?;
    tokio::time::sleep(seconds(5)).await;
    let apart = watch.finish()?;
    let watch = lab.lan_client("c2")?.watch(address, Duration::from_millis(10));
    lab.switch().heal_cuts()?;
    tokio::time::sleep(seconds(4)).await;
    let (report, together) = (prober.finish()?, watch.finish()?);
    eprintln!(
        "ownership: {} announced; while all were apart {:?} answered, silence {:?}; together again {:?}, two of them \
         for {:?}; {report}",
        owner.name(),
        apart.answerers(),
        apart.longest_silence(),
        together.answerers(),
        together.longest_split()
    );
    ensure!(apart.longest_silence() < seconds(1), "nobody answered for {:?}", apart.longest_silence());
    ensure!(together.longest_split() <= LONGEST_SPLIT, "two answered for {:?}", together.longest_split());
    // Nobody is left who answers beside the one.
    let macs: BTreeSet<_> = lab.lan_client("c2")?.who_has(address, Duration::from_millis(300))?;
    ensure!(macs.len() == 1, "{macs:?}");
    delete(lab, "apart").await
}
