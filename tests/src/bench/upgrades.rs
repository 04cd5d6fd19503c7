//! Rolling upgrades of the speakers, on real pods: nothing moves, nothing is lost, and a long download lives on.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use landfall_crds::names::labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS;
use serde_json::json;

use super::Figure;
use crate::{
    backend::{Backends, Service},
    lab::{
        Lab, eventually,
        landfall::{self, NAMESPACE, SPEAKER},
        probe::Request,
        say, seconds,
    },
    pair::Pair,
    services,
};

/// Backends run here, on a node that never announces.
const BYSTANDER: &str = "n4";
/// Services of both families: with three nodes each announces some of them.
const SERVICES: usize = 3;
/// The longest that the rollout of one upgrade may take.
const ROLLOUT: Duration = seconds(180);

/// Who announces an address, and under which term.
type Announced = BTreeMap<IpAddr, (String, i64)>;

pub(super) async fn measure(lab: &Lab, upgrades: u32) -> Result<Vec<Figure>> {
    lab.kubectl(&["label", "node", BYSTANDER, &format!("{EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS}=true")])?;
    landfall::install(lab).await?;
    services::pool(
        lab,
        "lan",
        &json!({"addresses": ["192.168.10.200-192.168.10.220", "fd10::200-fd10::220"]}),
    )
    .await?;
    Backends::new("web", 1).on(BYSTANDER).deploy(lab).await?;
    let mut addresses = Vec::new();
    for number in 0..SERVICES {
        let name = format!("upgraded-{number}");
        Service::new(&name, "web").load_balancer().apply(lab).await?;
        addresses.extend(services::granted(lab, &name, 2).await?);
    }
    let client = lab.lan_client("c1")?;
    for address in &addresses {
        let request = Request::udp(SocketAddr::from((*address, 80)));
        eventually(seconds(15), &format!("{address} answers"), async || client.ask(request)).await?;
        services::announcer(lab, *address).await?;
    }
    let mut totals = Totals::default();
    for number in 0..upgrades {
        // One address of each family, another one each time.
        let turn = usize::try_from(number)? % SERVICES;
        let probed: Vec<IpAddr> = addresses.iter().copied().skip(2 * turn).take(2).collect();
        totals.one(lab, number, &probed).await?;
    }
    Ok(totals.figures(upgrades))
}

#[derive(Debug, Default)]
struct Totals {
    moved: u64,
    warm: u64,
    cold: u64,
    sent: u64,
    broken: u64,
    stalls: Vec<Duration>,
    pauses: Vec<Duration>,
    splits: Vec<Duration>,
}

impl Totals {
    async fn one(&mut self, lab: &Lab, number: u32, probed: &[IpAddr]) -> Result<()> {
        let before = announced(lab).await?;
        let pairs = probed.iter().map(|address| Pair::begin(lab, *address)).collect::<Result<Vec<_>>>()?;
        let first = *probed.first().context("no address")?;
        let download = lab.lan_client("c1")?.download(SocketAddr::from((first, 80)));
        tokio::time::sleep(Duration::from_millis(500)).await;
        roll(lab)?;
        tokio::time::sleep(seconds(3)).await;
        let downloaded = download.finish()?;
        let mut lost = 0;
        for pair in pairs {
            let pair = pair.finish()?;
            self.warm += pair.warm.lost();
            self.cold += pair.cold.packets.lost();
            self.sent += pair.sent();
            lost += pair.lost();
            self.pauses.push(pair.longest_gap());
            self.splits.push(pair.split());
            if pair.lost() > 0 {
                say(&format!("LOST: {pair}"));
            }
        }
        let after = announced(lab).await?;
        let moved: Vec<_> =
            before.iter().filter(|(address, was)| after.get(*address) != Some(*was)).collect();
        self.moved += u64::try_from(moved.len())?;
        self.broken += u64::from(downloaded.broken.is_some());
        self.stalls.push(downloaded.longest_stall);
        say(&format!("upgrade {}: moved {moved:?}, lost {lost}, {downloaded}", number + 1));
        Ok(())
    }

    fn figures(&self, upgrades: u32) -> Vec<Figure> {
        vec![
            Figure::at_most(
                &format!("addresses that moved, or began a new term, in {upgrades} upgrades"),
                self.moved,
                0,
            ),
            Figure::at_most("datagrams lost by who knew the node", self.warm, 0),
            Figure::at_most(&format!("packets lost by who did not, of {} in all", self.sent), self.cold, 0),
            Figure::at_most("downloads that broke", self.broken, 0),
            Figure::times("longest stall of a download", &self.stalls, 250.0, None),
            Figure::times("longest time without an answer", &self.pauses, 50.0, None),
            Figure::times("two nodes answer", &self.splits, 0.0, None),
        ]
    }
}

/// Replaces every speaker by a new one, and waits until that is done.
fn roll(lab: &Lab) -> Result<()> {
    let workload = format!("daemonset/{SPEAKER}");
    lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", &workload])?;
    let limit = format!("--timeout={}s", ROLLOUT.as_secs());
    lab.kubectl_within(ROLLOUT + seconds(5), &["-n", NAMESPACE, "rollout", "status", &workload, &limit])
        .map(|_| ())
}

/// Who announces each address, by the API.
async fn announced(lab: &Lab) -> Result<Announced> {
    let all = services::virtual_ips(lab).list(&Default::default()).await?.items;
    let mut announced = Announced::new();
    for vip in &all {
        let announcer = vip.status.as_ref().and_then(|status| status.announcer.as_ref());
        let announcer = announcer.with_context(|| format!("nobody announces {}", vip.spec.address))?;
        let address = vip.address().context("a VirtualIP without an address")?;
        announced.insert(address, (announcer.node.clone(), announcer.term));
    }
    ensure!(!announced.is_empty(), "nothing is announced");
    Ok(announced)
}
