//! Whatever the API says, a speaker does not announce what is not its to announce, and says so.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use kube::{Api, Client, api::PostParams, config::Kubeconfig};
use landfall_crds::{Speaker, VirtualIP, virtual_ip_name};
use landfall_tests::{
    lab::{
        Lab, eventually,
        landfall::{ByHand, CONTROLLER, SPEAKER, kubeconfig},
        seconds,
    },
    services::{in_words, virtual_ip, virtual_ips},
    story::Story,
};
use serde_json::json;

use crate::stop;

pub(crate) fn stories() -> Vec<Story> {
    vec![Story::new("refusals: a speaker announces no node's, gateway's or special address", refused)]
}

async fn refused(lab: &Lab) -> Result<()> {
    let by_hand = ByHand::prepare(lab)?;
    for node in lab.nodes() {
        by_hand.start_speaker(lab, node, &[]).await?;
    }
    // Written with the controller's rights, as a controller that has gone mad might.
    let config = Kubeconfig::read_from(kubeconfig(lab, CONTROLLER, None, "mad").await?)?;
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
    let api: Api<VirtualIP> = Api::all(Client::try_from(config)?);
    let (peer, gateway) = (lab.node("n2")?, IpAddr::from([192, 168, 10, 1]));
    let bad = [
        IpAddr::V4(peer.addresses().v4),
        IpAddr::V6(peer.addresses().v6),
        gateway,
        [192, 168, 10, 255].into(),
    ];
    let good = IpAddr::from([192, 168, 10, 177]);
    for address in bad.into_iter().chain([good]) {
        let object = serde_json::from_value(json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "VirtualIP", "metadata": {"name": virtual_ip_name(address)},
            "spec": {
                "address": address,
                "claims": [{"namespace": "default", "name": "mad", "uid": "1"}],
                "placement": {"epoch": 1, "candidates": [{"node": "n1"}, {"node": "n2"}, {"node": "n3"}]},
            },
        }))?;
        api.create(&PostParams::default(), &object).await?;
    }
    let client = lab.lan_client("c1")?;
    eventually(seconds(10), "what can be announced is", async || {
        let macs = client.who_has(good, Duration::from_millis(200))?;
        ensure!(macs.iter().eq([&lab.node("n1")?.mac()]), "{macs:?}");
        Ok(())
    })
    .await?;
    let speakers: Api<Speaker> = Api::all(lab.client());
    eventually(seconds(10), "the Speaker of n1 says what it refuses", async || {
        let status = speakers.get("n1").await?.status.unwrap_or_default();
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .map(in_words)
            .unwrap_or_default();
        ensure!(ready.starts_with("True/AddressRefused") && ready.contains(&gateway.to_string()), "{ready}");
        Ok(())
    })
    .await?;
    for address in bad {
        let object = virtual_ip(lab, address).await?.and_then(|object| object.status).unwrap_or_default();
        ensure!(object.announcer.is_none(), "{address}: {:?}", object.announcer);
        let macs = client.who_has(address, Duration::from_millis(200))?;
        let others =
            lab.nodes().iter().filter(|node| node.name() != peer.name()).map(landfall_tests::lab::Node::mac);
        ensure!(others.into_iter().all(|mac| !macs.contains(&mac)), "{address} is answered by {macs:?}");
    }
    stop(lab, SPEAKER);
    virtual_ips(lab).delete_collection(&Default::default(), &Default::default()).await?;
    Ok(())
}
