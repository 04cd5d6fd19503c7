//! Planned moves lose nothing, neither for clients that know the node nor for those that ask with every packet. Many
//! of each kind: `make bench BENCH_FLAGS=moves`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{EvictParams, ListParams},
};
use landfall_crds::names::{conditions::ADDRESS_CONFLICT, labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS};
use landfall_tests::{
    lab::{
        Lab, eventually,
        landfall::{self as deployed, NAMESPACE, SPEAKER},
        seconds,
    },
    pair::{Pair, Paired},
    services::{announcer, delete, virtual_ips},
    story::Story,
};

use crate::landfall::{Reached, reached};

/// How long two nodes may answer in a move.
const LONGEST_SPLIT: Duration = Duration::from_millis(50);
/// How long the old node forwards after a move, and a little more: what is sent there later is lost.
const AFTERWARDS: Duration = seconds(3);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new("moves: a node is drained, its speaker evicted as well, and nothing is lost", drained),
        Story::new("moves: a node is labelled as none of load balancers, and nothing is lost", labelled),
    ]
}

async fn drained(lab: &Lab) -> Result<()> {
    let Reached { address, owner, .. } = reached(lab, "drained", false).await?;
    let pair = Pair::begin(lab, address)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let minute = seconds(60);
    let drain = ["drain", owner.name(), "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=50s"];
    lab.kubectl_within(minute, &drain)?;
    // A drain leaves pods of DaemonSets alone; whoever shuts the node down does not.
    let pods: Api<Pod> = Api::namespaced(lab.client(), NAMESPACE);
    let of_node = ListParams::default()
        .labels(&format!("app.kubernetes.io/name={SPEAKER}"))
        .fields(&format!("spec.nodeName={}", owner.name()));
    let speaker = pods.list(&of_node).await?.items.into_iter().next().context("no speaker on the node")?;
    pods.evict(&speaker.metadata.name.context("a pod without a name")?, &EvictParams::default()).await?;
    let paired = moved(lab, pair, owner.name()).await?;
    lab.kubectl(&["uncordon", owner.name()])?;
    deployed::rolled_out(lab)?;
    lossless(lab, "a drain", &paired).await?;
    delete(lab, "drained").await
}

async fn labelled(lab: &Lab) -> Result<()> {
    let Reached { address, owner, .. } = reached(lab, "labelled", true).await?;
    let pair = Pair::begin(lab, address)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let label = EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS;
    lab.kubectl(&["label", "node", owner.name(), &format!("{label}=true")])?;
    let paired = moved(lab, pair, owner.name()).await?;
    lab.kubectl(&["label", "node", owner.name(), &format!("{label}-")])?;
    lossless(lab, "a label", &paired).await?;
    delete(lab, "labelled").await
}

/// Waits until another node announces, and the old one forwards no more.
async fn moved(lab: &Lab, pair: Pair, from: &str) -> Result<Paired> {
    let address = pair.address();
    eventually(seconds(20), &format!("another node than {from} announces"), async || {
        let owner = announcer(lab, address).await?.name();
        ensure!(owner != from, "{owner} does");
        Ok(())
    })
    .await?;
    tokio::time::sleep(AFTERWARDS).await;
    pair.finish()
}

/// Nothing was lost, two nodes answered but for a moment, and no speaker took another for a stranger.
async fn lossless(lab: &Lab, what: &str, paired: &Paired) -> Result<()> {
    eprintln!("moves: {what}: {paired}");
    ensure!(paired.lost() == 0, "{what}: {paired}");
    ensure!(paired.split() <= LONGEST_SPLIT, "{what}: two nodes answered for {:?}", paired.split());
    for vip in virtual_ips(lab).list(&ListParams::default()).await? {
        let conditions = vip.status.map(|status| status.conditions).unwrap_or_default();
        let strange = conditions.iter().find(|one| one.type_ == ADDRESS_CONFLICT && one.status == "True");
        ensure!(strange.is_none(), "{}: {strange:?}", vip.spec.address);
    }
    Ok(())
}
