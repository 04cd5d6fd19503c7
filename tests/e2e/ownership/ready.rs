//! Landfall as the stories find it: three speakers, a controller and backends on the bystander.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use landfall_tests::{
    backend::{Backends, Service},
    lab::{
        Lab, Node, eventually,
        landfall::{ByHand, CONTROLLER, SPEAKER},
        probe::Request,
        seconds,
    },
    services::{announcer, granted, pool},
};
use serde_json::json;
use tokio::sync::OnceCell;

/// The node without a speaker: controller and backends run there, so that no fault of the others touches them.
pub(crate) const BYSTANDER: &str = "n4";

/// Made for the first story.
static BY_HAND: OnceCell<ByHand> = OnceCell::const_new();

/// Waits until all of it runs; what an earlier story ended is started again.
pub(crate) async fn ready(lab: &Lab) -> Result<&'static ByHand> {
    let by_hand = BY_HAND
        .get_or_try_init(async || -> Result<ByHand> {
            let by_hand = ByHand::prepare(lab)?;
            pool(lab, "lan", &json!({"addresses": ["192.168.10.150-192.168.10.180"]})).await?;
            by_hand.start_controller(lab, lab.node(BYSTANDER)?, &[]).await?;
            Backends::new("web", 1).on(BYSTANDER).deploy(lab).await?;
            for node in speakers(lab) {
                by_hand.start_speaker(lab, node, &[]).await?;
            }
            Ok(by_hand)
        })
        .await?;
    for (node, program) in
        speakers(lab).map(|node| (node, SPEAKER)).chain([(lab.node(BYSTANDER)?, CONTROLLER)])
    {
        if !node.runs(program) {
            node.restart(program)?;
        }
    }
    for node in speakers(lab) {
        eventually(seconds(20), &format!("the speaker of {} hears two others", node.name()), async || {
            let alive = node.speaker_metrics()?.sum("landfall_speaker_peers", &[("state", "Alive")]);
            ensure!(alive >= 2.0, "{alive}");
            Ok(())
        })
        .await?;
    }
    Ok(by_hand)
}

/// The nodes with speakers.
pub(crate) fn speakers(lab: &Lab) -> impl Iterator<Item = &Node> {
    lab.nodes().iter().filter(|node| node.name() != BYSTANDER)
}

/// The others of them.
pub(crate) fn others<'a>(lab: &'a Lab, owner: &Node) -> Vec<&'a Node> {
    speakers(lab).filter(|node| node.name() != owner.name()).collect()
}

/// A Service of IPv4 alone in front of the backends.
pub(crate) fn single(name: &str) -> Service {
    Service::new(name, "web").load_balancer().spec("ipFamilyPolicy", json!("SingleStack"))
}

/// Makes a Service, waits until a client is answered through its address, and returns that with its owner.
pub(crate) async fn reached<'a>(lab: &'a Lab, name: &str) -> Result<(IpAddr, &'a Node)> {
    ready(lab).await?;
    single(name).apply(lab).await?;
    let address = granted(lab, name, 1).await?[0];
    let request = Request::udp((address, 80).into());
    eventually(seconds(10), "it answers", async || lab.lan_client("c1")?.ask(request)).await?;
    let owner = announcer(lab, address).await?;
    // A fault in the first second, while the claim is still being told, is another story.
    tokio::time::sleep(seconds(1)).await;
    Ok((address, owner))
}
