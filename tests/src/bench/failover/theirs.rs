//! keepalived: the same crashes, clients, backend and number of addresses.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{ADDRESSES, Pace, crash::crash};
use crate::{
    backend::Backends,
    bench::{Figure, World, world::Family},
    lab::{Node, eventually, keepalived, say, seconds},
    services,
};

/// The first of its addresses; none of the pool's.
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 168, 11, 1);
/// Where clients look for them.
const ON_LINK: &str = "192.168.11.0/24";
/// A class of Services that Landfall leaves alone.
const CLASS: &str = "example.com/keepalived";

/// What its clients missed.
pub(super) struct Outages {
    pub(super) warm: Vec<Duration>,
    cold: Vec<Duration>,
    returns: Vec<Duration>,
}

impl Outages {
    pub(super) fn figures(&self, whose: &str) -> Vec<Figure> {
        vec![
            Figure::spread(&format!("{whose}: outage, a client that knew the node"), &self.warm),
            Figure::spread(&format!("{whose}: outage, one that asks each time"), &self.cold),
            Figure::spread(&format!("{whose}: when that node comes back"), &self.returns),
        ]
    }
}

pub(super) async fn measure(
    world: &World<'_>,
    advert: Duration,
    crashes: u32,
    pace: Pace,
) -> Result<Outages> {
    say(&format!("measuring crashes with {}, adverts every {advert:?}", keepalived::version()?));
    let lab = world.lab;
    let addresses: Vec<Ipv4Addr> =
        (0..u32::try_from(ADDRESSES)?).map(|number| Ipv4Addr::from(u32::from(FIRST) + number)).collect();
    Backends::new("kept", 1).on(world.bystander()?.name()).deploy(lab).await?;
    for address in &addresses {
        serve(world, *address).await?;
    }
    for client in lab.lan_clients() {
        client.add_on_link_route(ON_LINK, None)?;
    }
    let nodes: Vec<&Node> = world.speakers();
    for node in &nodes {
        keepalived::start(node, &addresses, advert)?;
    }
    let mut outages = Outages { warm: Vec::new(), cold: Vec::new(), returns: Vec::new() };
    for turn in 0..usize::try_from(crashes)? {
        let pick = |offset| addresses.get((turn + offset) % addresses.len()).copied().context("no address");
        outages.add(world, pick(0)?, pick(1)?, pace).await?;
    }
    nodes.iter().try_for_each(|node| keepalived::stop(node))?;
    for address in &addresses {
        services::delete(lab, &name(*address)).await?;
    }
    Backends::new("kept", 1).delete(lab).await?;
    Ok(outages)
}

fn name(address: Ipv4Addr) -> String {
    format!("kept-{}", address.to_string().replace('.', "-"))
}

/// Has kube-proxy lead an address to the backend, as it does for any load balancer's.
async fn serve(world: &World<'_>, address: Ipv4Addr) -> Result<()> {
    let service = world.service(&name(address), "kept", Family::V4).spec("loadBalancerClass", json!(CLASS));
    service.apply(world.lab).await?;
    let ingress = json!([{"ip": address.to_string(), "ipMode": "VIP"}]);
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    let api = services::services(world.lab);
    api.patch_status(&name(address), &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// The node that answers for an address, alone.
async fn owner<'a>(world: &World<'a>, address: IpAddr) -> Result<&'a Node> {
    eventually(seconds(20), &format!("one node answers for {address}"), async || {
        let macs = world.lab.lan_client("c2")?.who_has(address, Duration::from_millis(100))?;
        ensure!(macs.len() == 1, "{macs:?}");
        let node = world.lab.nodes().iter().find(|node| macs.contains(&node.mac()));
        node.with_context(|| format!("{macs:?} is no node"))
    })
    .await
}

impl Outages {
    async fn add(&mut self, world: &World<'_>, warm: Ipv4Addr, cold: Ipv4Addr, pace: Pace) -> Result<()> {
        let victim = owner(world, warm.into()).await?;
        world.answers("c1", warm.into()).await?;
        let target = |address| SocketAddr::from((address, 80));
        let warm = world.lab.lan_client("c1")?.probe(target(warm));
        let cold = world.lab.lan_client("c2")?.probe_cold(target(cold));
        let moments = crash(world, &[victim.name()], pace).await?;
        let (warm, cold) = (warm.finish()?, cold.finish()?);
        ensure!(warm.answered > 0 && cold.packets.answered > 0, "nobody was answered: {warm}; {cold}");
        let outage = warm.outage(moments.dark, moments.back);
        self.warm.push(outage);
        self.cold.push(cold.packets.outage(moments.dark, moments.back));
        let return_ = warm.longest_gap_after(moments.back).max(cold.packets.longest_gap_after(moments.back));
        self.returns.push(return_);
        say(&format!("{}: warm {outage:?}", victim.name()));
        Ok(())
    }
}
