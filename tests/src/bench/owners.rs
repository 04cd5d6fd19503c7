//! Who answers for each address, as the LAN tells; no API is asked.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};

use super::World;
use crate::lab::{Mac, Node, eventually, seconds};

/// Who answers for each address, as the LAN tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owners(BTreeMap<IpAddr, Mac>);

impl Owners {
    /// Asks until one node answers for each, alone.
    pub(super) async fn seen(world: &World<'_>, addresses: &[IpAddr]) -> Result<Self> {
        eventually(seconds(5), "one node answers for each address", async || {
            let macs = world.lab.lan_client("c2")?.who_has_each(addresses, Duration::from_millis(200))?;
            let one = |(address, macs): (IpAddr, std::collections::BTreeSet<Mac>)| {
                let mac = macs.first().copied().filter(|_| macs.len() == 1);
                mac.map(|mac| (address, mac)).with_context(|| format!("{address}: {macs:?}"))
            };
            macs.into_iter().map(one).collect::<Result<_>>().map(Self)
        })
        .await
    }

    /// Waits until the status of every VirtualIP names who answers for it on the LAN.
    pub(super) async fn are_told(world: &World<'_>, limit: Duration) -> Result<()> {
        let addresses: Vec<IpAddr> = world.announcers().await?.into_keys().collect();
        eventually(limit, "every VirtualIP names who answers", async || {
            let owners = Self::seen(world, &addresses).await?;
            for (address, node) in world.announcers().await? {
                let owner = owners.node_of(world, address)?.name();
                ensure!(
                    node.as_deref() == Some(owner),
                    "{address}: {owner} answers, the status says {node:?}"
                );
            }
            Ok(())
        })
        .await
    }

    /// How many addresses are answered by another node than before.
    pub(super) fn differ(&self, before: &Self) -> u64 {
        let moved = self.0.iter().filter(|(address, mac)| before.0.get(address) != Some(mac));
        u64::try_from(moved.count()).unwrap_or(u64::MAX)
    }

    /// The node that answers for an address.
    pub(super) fn node_of<'a>(&self, world: &World<'a>, address: IpAddr) -> Result<&'a Node> {
        let mac = self.0.get(&address).context("nobody answers")?;
        world.lab.nodes().iter().find(|node| node.mac() == *mac).context("no node")
    }
}
