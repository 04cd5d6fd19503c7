//! What is measured in: speakers and a controller that run, backends, and Services with addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use landfall_crds::VirtualIP;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    backend::{Backends, Service},
    lab::{
        Lab, Node, eventually,
        landfall::{ByHand, CONTROLLER, SPEAKER},
        probe::Request,
        seconds,
    },
    services,
};

/// The controller runs here, in the bench as in the lab's clusters: on a node that announces as well.
const CONTROLLERS_NODE: &str = "n1";

/// The addresses of the large pool, on no node's subnet, and its name.
const LARGE: &str = "10.9.0.0/16";
const LARGE_POOL: &str = "many";

/// A lab in which Landfall runs.
pub(super) struct World<'a> {
    pub(super) lab: &'a Lab,
    pub(super) by_hand: &'a ByHand,
}

/// Which family an address is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl<'a> World<'a> {
    /// Starts a controller, and shows by a first Service that all is running.
    pub(super) async fn begin(lab: &'a Lab, by_hand: &'a ByHand) -> Result<Self> {
        let world = Self { lab, by_hand };
        services::pool(
            lab,
            "lan",
            &json!({"addresses": ["192.168.10.128-192.168.10.250", "fd10::200-fd10::2ff"]}),
        )
        .await?;
        world.start_controller(&[]).await?;
        world.service("warm", "nobody", Family::V4).apply(lab).await?;
        services::announcer(lab, services::granted(lab, "warm", 1).await?[0]).await?;
        services::delete(lab, "warm").await?;
        Ok(world)
    }

    /// Ends the controller, and removes the pool.
    pub(super) async fn end(self) -> Result<()> {
        self.stop_controller()?;
        services::delete_pool(self.lab, "lan").await
    }

    pub(super) async fn start_controller(&self, environment: &[(&str, &str)]) -> Result<()> {
        self.by_hand.start_controller(self.lab, self.lab.node(CONTROLLERS_NODE)?, environment).await
    }

    pub(super) fn stop_controller(&self) -> Result<()> {
        let node = self.lab.node(CONTROLLERS_NODE)?;
        node.signal_program(CONTROLLER, Signal::SIGTERM)?;
        node.wait_end(CONTROLLER, seconds(15))
    }

    /// The node with the backends, which never announces: the last.
    pub(super) fn bystander(&self) -> Result<&'a Node> {
        self.lab.nodes().last().context("a lab without nodes")
    }

    /// The nodes with a speaker.
    pub(super) fn speakers(&self) -> Vec<&'a Node> {
        let runs = |node: &&Node| node.runs(SPEAKER);
        self.lab.nodes().iter().filter(runs).collect()
    }

    /// Waits until each speaker hears all others.
    pub(super) async fn hear_each_other(&self) -> Result<()> {
        let speakers = self.speakers();
        let wanted = f64::from(u32::try_from(speakers.len())?) - 1.0;
        eventually(seconds(30), &format!("{} speakers hear each other", speakers.len()), async || {
            for node in &speakers {
                let alive = node.speaker_metrics()?.sum("landfall_speaker_peers", &[("state", "Alive")]);
                ensure!(alive >= wanted, "{} hears {alive}", node.name());
            }
            Ok(())
        })
        .await
    }

    /// A pool from which a thousand addresses can be taken, called `many`, which clients find on the link.
    pub(super) async fn add_large_pool(&self) -> Result<()> {
        let spec = json!({"addresses": [LARGE], "announce": {"interfaces": ["eth0"]}, "priority": 9});
        services::pool(self.lab, LARGE_POOL, &spec).await?;
        self.lab.lan_clients().iter().try_for_each(|client| client.add_on_link_route(LARGE, None))
    }

    /// Removes it again.
    pub(super) async fn remove_large_pool(&self) -> Result<()> {
        services::delete_pool(self.lab, LARGE_POOL).await
    }

    pub(super) fn service(&self, name: &str, app: &str, family: Family) -> Service {
        Service::new(name, app)
            .load_balancer()
            .spec("ipFamilyPolicy", json!("SingleStack"))
            .spec("ipFamilies", json!([family.name()]))
    }

    /// Starts a backend on the bystander, and makes so many Services of each family in front of it.
    pub(super) async fn populate(&self, prefix: &str, v4: usize, v6: usize) -> Result<Population<'_>> {
        let bystander = self.bystander()?;
        Backends::new(prefix, 1).on(bystander.name()).deploy(self.lab).await?;
        let mut names = Vec::new();
        for (family, count) in [(Family::V4, v4), (Family::V6, v6)] {
            for number in 0..count {
                let name = format!("{prefix}-{}-{number}", family.name().to_lowercase());
                self.service(&name, prefix, family).apply(self.lab).await?;
                names.push(name);
            }
        }
        let population = Population { world: self, app: prefix.to_owned(), names };
        population.is_announced().await?;
        Ok(population)
    }

    /// Every VirtualIP with the node that says that it announces it.
    pub(super) async fn announcers(&self) -> Result<BTreeMap<IpAddr, Option<String>>> {
        let all = services::virtual_ips(self.lab).list(&Default::default()).await?.items;
        let announcer = |vip: &VirtualIP| Some(vip.status.as_ref()?.announcer.as_ref()?.node.clone());
        Ok(all.iter().filter_map(|vip| Some((vip.address()?, announcer(vip)))).collect())
    }

    /// The addresses that each node announces, of those that are announced.
    pub(super) async fn by_owner(&self) -> Result<BTreeMap<String, Vec<IpAddr>>> {
        let mut by_owner: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (address, node) in self.announcers().await? {
            if let Some(node) = node {
                by_owner.entry(node).or_default().push(address);
            }
        }
        Ok(by_owner)
    }

    /// Waits until a client is answered through an address.
    pub(super) async fn answers(&self, client: &str, address: IpAddr) -> Result<()> {
        let client = self.lab.lan_client(client)?;
        let request = Request::udp(SocketAddr::from((address, 80))).within(Duration::from_millis(300));
        eventually(seconds(30), &format!("{address} answers"), async || client.ask(request)).await.map(|_| ())
    }
}

/// Services with addresses, all in front of one backend.
pub(super) struct Population<'a> {
    world: &'a World<'a>,
    app: String,
    names: Vec<String>,
}

impl Population<'_> {
    /// Waits until all have addresses and all of these are announced.
    pub(super) async fn is_announced(&self) -> Result<()> {
        let wanted = self.names.len();
        let limit = seconds(60) + Duration::from_millis(50) * u32::try_from(wanted)?;
        eventually(limit, &format!("{wanted} addresses are announced"), async || {
            let all = services::virtual_ips(self.world.lab).list(&Default::default()).await?.items;
            let ours =
                all.iter().filter(|vip| vip.spec.claims.iter().any(|claim| self.names.contains(&claim.name)));
            let announced =
                ours.filter(|vip| vip.status.as_ref().is_some_and(|status| status.announcer.is_some()));
            let announced = announced.count();
            ensure!(announced == wanted, "{announced} are");
            Ok(())
        })
        .await
    }

    /// Deletes the Services and the backend.
    pub(super) async fn remove(self) -> Result<()> {
        let lab = self.world.lab;
        let api = services::services(lab);
        for name in &self.names {
            api.delete(name, &Default::default()).await?;
        }
        eventually(seconds(120), "no Service is left", async || {
            let left = api.list(&Default::default()).await?.items;
            let left = left.iter().filter_map(|service| service.metadata.name.as_ref());
            let left = left.filter(|name| self.names.contains(name)).count();
            ensure!(left == 0, "{left}");
            Ok(())
        })
        .await?;
        Backends::new(&self.app, 1).delete(lab).await
    }
}
