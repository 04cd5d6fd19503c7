//! What Landfall does, shown on a real Kubernetes from the first pool to the last packet.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use landfall_crds::names::labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS;
use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::json;

use crate::{
    backend::{Backends, Service},
    lab::{Lab, LabOptions, eventually, isolation::Inside, landfall, probe::Request, seconds},
    services,
};

/// Backends run here, on a node that never announces: what is measured is the address, not kube-proxy's
/// choice of a backend on the node that dies.
const BYSTANDER: &str = "n4";

/// Shows it.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Print the figures as JSON to standard output when all is over
    #[arg(long)]
    json: bool,
    /// Write the figures as JSON to this file
    #[arg(long, env = "LANDFALL_DEMO_JSON", value_name = "FILE")]
    json_file: Option<PathBuf>,
}

/// What was measured. Times are in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// From the start until the cluster was up.
    pub cluster_up: u64,
    /// How long `kubectl apply` and the rollouts took.
    pub installed: u64,
    /// The address that the Service was granted.
    pub address: Option<IpAddr>,
    /// From the Service's creation to the address in its status.
    pub granted: u64,
    /// From the Service's creation to the first ARP answer, three probes for a duplicate included.
    pub first_arp_answer: u64,
    /// From the Service's creation to the first byte from a backend.
    pub first_byte: u64,
    /// How long the client was not answered after the owner's switch port went dark.
    pub crash_outage: u64,
    /// How long the client was not answered when that node came back.
    pub return_outage: u64,
    /// How long two nodes answered ARP for the address when that node came back.
    pub return_split: u64,
    /// Datagrams sent while the owner left on SIGTERM, and how many of them were lost.
    pub leave_sent: u64,
    #[allow(missing_docs)]
    pub leave_lost: u64,
    /// How long the client was not answered in that time.
    pub leave_outage: u64,
    /// Everything.
    pub total: u64,
}

/// Tells the story with times.
struct Teller(Instant);

impl Teller {
    fn say(&self, words: &str) {
        eprintln!("[{:6.2} s] {words}", self.0.elapsed().as_secs_f64());
    }

    fn show(&self, lab: &Lab, command: &str) -> Result<()> {
        eprintln!("\n    $ kubectl {command}");
        for line in lab.kubectl(&command.split(' ').collect::<Vec<_>>())?.lines() {
            eprintln!("    {line}");
        }
        eprintln!();
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Demo {
    /// Brings a lab up, shows everything, and prints the figures.
    ///
    /// # Errors
    /// When anything of what is shown does not work.
    pub async fn run(&self, inside: &Inside) -> Result<()> {
        let teller = Teller(Instant::now());
        let mut figures = Figures::default();
        teller.say("bringing up a LAN with 4 nodes and 2 clients, and a real Kubernetes on it");
        let lab = Lab::up(inside, LabOptions { nodes: 4, clients: 2, ..LabOptions::default() }).await?;
        figures.cluster_up = milliseconds(teller.0.elapsed());
        let shown = show(&lab, &teller, &mut figures).await;
        if shown.is_err() {
            lab.explain();
        }
        shown?;
        figures.total = milliseconds(teller.0.elapsed());
        let text = serde_json::to_string_pretty(&figures)?;
        if let Some(file) = &self.json_file {
            std::fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        if self.json {
            println!("{text}");
        }
        Ok(())
    }
}

async fn show(lab: &Lab, teller: &Teller, figures: &mut Figures) -> Result<()> {
    let start = Instant::now();
    lab.kubectl(&["label", "node", BYSTANDER, &format!("{EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS}=true")])?;
    landfall::install(lab).await?;
    figures.installed = milliseconds(start.elapsed());
    teller.say("Landfall is installed: kubectl apply -f crds/ && kubectl apply -k deploy/");
    Backends::new("web", 2).on(BYSTANDER).deploy(lab).await?;
    teller.show(lab, "-n landfall-system get pods -o wide")?;

    let (address, target) = grant(lab, teller, figures).await?;
    let owner = crash_and_return(lab, teller, figures, address, target).await?;
    leave(lab, teller, figures, address, target, &owner).await?;

    services::delete(lab, "web").await?;
    let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(300))?;
    ensure!(macs.is_empty(), "{address} is still answered by {macs:?}");
    teller.say(&format!("Service deleted: {address} is answered no more, and free again"));
    Ok(())
}

/// A pool, a Service, an address, an answer.
async fn grant(lab: &Lab, teller: &Teller, figures: &mut Figures) -> Result<(IpAddr, SocketAddr)> {
    services::pool(
        lab,
        "lan",
        &json!({"addresses": ["192.168.10.200-192.168.10.220", "fd10::200-fd10::220"]}),
    )
    .await?;
    eventually(seconds(15), "the pool is Ready", async || {
        let said = services::pool_condition(lab, "lan", "Ready").await?;
        ensure!(said.starts_with("True/"), "{said:?}");
        Ok(())
    })
    .await?;
    teller.say("IPPool lan applied: 192.168.10.200-192.168.10.220 and fd10::200-fd10::220");
    // The lowest free address of the pool is granted, so it can be watched before it is.
    let expected: IpAddr = "192.168.10.200".parse()?;
    let (client, bystander) = (lab.lan_client("c1")?, lab.lan_client("c2")?);
    let watch = bystander.watch(expected, Duration::from_millis(5));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let created = Instant::now();
    Service::new("web", "web").load_balancer().apply(lab).await?;
    let api = services::services(lab);
    let address = loop {
        if let Some(address) = services::addresses(&api.get("web").await?).first() {
            break *address;
        }
        ensure!(created.elapsed() < seconds(15), "no address after 15 s");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    figures.granted = milliseconds(created.elapsed());
    figures.address = Some(address);
    ensure!(address == expected, "granted {address}");
    teller.say(&format!("Service web has {address}, {} ms after it was created", figures.granted));
    let target = SocketAddr::from((address, 80));
    let answer = eventually(seconds(15), "a client is answered", async || {
        client.ask(Request::tcp(target).within(Duration::from_millis(200)))
    })
    .await?;
    figures.first_byte = milliseconds(created.elapsed());
    let seen = watch.finish()?;
    let first = seen.answers.iter().find(|sighting| sighting.at >= created).context("nobody answered ARP")?;
    figures.first_arp_answer = milliseconds(first.at - created);
    teller.say(&format!(
        "{} answers for it after {} ms; client c1 has the first byte after {} ms, from pod {}",
        first.mac, figures.first_arp_answer, figures.first_byte, answer.pod
    ));
    let owner = services::announcer(lab, address).await?;
    teller.show(lab, "get service web")?;
    teller.show(lab, "get ippools,virtualips,speakers")?;
    teller.say(&format!("node {} owns {address}", owner.name()));
    Ok((address, target))
}

/// The owner's port goes dark, another node takes over, the first comes back. Returns the new owner's name.
async fn crash_and_return(
    lab: &Lab,
    teller: &Teller,
    figures: &mut Figures,
    address: IpAddr,
    target: SocketAddr,
) -> Result<String> {
    let owner = services::announcer(lab, address).await?;
    let prober = lab.lan_client("c1")?.probe(target);
    let watch = lab.lan_client("c2")?.watch(address, Duration::from_millis(10));
    tokio::time::sleep(seconds(1)).await;
    teller.say(&format!(
        "the switch port of {} goes dark, while c1 sends 200 datagrams a second",
        owner.name()
    ));
    let dark = Instant::now();
    lab.switch().port_down(owner.name())?;
    tokio::time::sleep(seconds(3)).await;
    let back = Instant::now();
    lab.switch().port_up(owner.name())?;
    teller.say(&format!("the port of {} comes back", owner.name()));
    tokio::time::sleep(seconds(3)).await;
    let (report, seen) = (prober.finish()?, watch.finish()?);
    let during = report.gaps.iter().filter(|gap| gap.from < back && gap.from + gap.length > dark);
    figures.crash_outage = milliseconds(during.map(|gap| gap.length).max().unwrap_or_default());
    figures.return_outage = milliseconds(report.longest_gap_after(back));
    figures.return_split = milliseconds(seen.longest_split());
    ensure!(
        report.answered > 0 && figures.crash_outage < 2000,
        "the client was not answered again in time: {report}"
    );
    let new = services::announcer(lab, address).await?;
    ensure!(new.name() != owner.name(), "{} has taken {address} back", owner.name());
    ensure!(
        figures.return_split < 1000,
        "two nodes answered for {address} for {} ms when {} came back, and may for less than a second",
        figures.return_split,
        owner.name()
    );
    teller.say(&format!(
        "node {} took over: the client measured an outage of {} ms",
        new.name(),
        figures.crash_outage
    ));
    teller.say(&format!(
        "the return of {}: the client missed nothing for longer than {} ms, two nodes answered for {} ms",
        owner.name(),
        figures.return_outage,
        figures.return_split
    ));
    Ok(new.name().to_owned())
}

/// The owner's speaker is told to leave.
async fn leave(
    lab: &Lab,
    teller: &Teller,
    figures: &mut Figures,
    address: IpAddr,
    target: SocketAddr,
    owner: &str,
) -> Result<()> {
    let prober = lab.lan_client("c1")?.probe(target);
    tokio::time::sleep(seconds(1)).await;
    teller.say(&format!("the speaker of {owner} is told to end (SIGTERM)"));
    lab.node(owner)?.signal(landfall::SPEAKER, Signal::SIGTERM)?;
    tokio::time::sleep(seconds(3)).await;
    let report = prober.finish()?;
    figures.leave_sent = report.sent;
    figures.leave_lost = report.lost();
    figures.leave_outage = milliseconds(report.longest_gap);
    ensure!(
        report.answered > 0 && figures.leave_outage < 1000,
        "the client was not answered for {} ms while {owner} left, and may for less than a second: {report}",
        figures.leave_outage
    );
    let new = services::announcer(lab, address).await?;
    teller.say(&format!(
        "node {} announces {address} now: {} of {} datagrams were lost, longest gap {} ms",
        new.name(),
        figures.leave_lost,
        figures.leave_sent,
        figures.leave_outage
    ));
    Ok(())
}
