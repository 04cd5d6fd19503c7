//! Many grants at once, beside the floor: the writes that no implementation can do without, issued blindly
//! by a plain client.
//!
//! Floor and controller take turns on the same API server, each in a fresh namespace, with the same eight
//! writers, the same watch that sees the addresses come, and the same bodies: what the controller wrote for
//! one Service is what the floor writes for all. The Services are the same too, class included, since the
//! policies of `deploy/` let the controller's account write no others; so no controller runs meanwhile.
//!
//! The speakers have told of their interfaces and are gone, and so is kube-proxy: what they would do with so
//! many addresses is not measured here.

mod clients;
mod report;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube::Api;
use landfall_crds::{Speaker, names::ports::CONTROLLER_HTTP};
use nix::sys::signal::Signal;
use serde_json::json;

use self::{
    clients::{Clients, Grant, all_granted, watch},
    report::{Rest, Run, Size, figures, single_reads},
};
use super::{
    Figure,
    usage::{Usage, between, label, reads},
};
use crate::{
    lab::{
        Lab, Mark, eventually,
        landfall::{ByHand, CONTROLLER, NAMESPACE, SPEAKER, kubeconfig},
        say, seconds,
    },
    services,
};

/// What the pool holds: four million addresses, off every node's subnet and beside the lab's own ranges.
const RANGE: &str = "10.0.0.0/10";
const POOL: &str = "ample";

/// What is granted before anything is measured.
const WARM_UP: usize = 100;

/// For how long the API server and etcd are left alone between two runs.
const SETTLE: Duration = seconds(3);

/// A controller that has written nothing for so long has finished what it had begun. It waits for 5 s
/// before it says that an address is not announced.
const QUIET: Duration = seconds(6);

/// How long that may take.
const QUIET_LIMIT: Duration = seconds(300);

/// For how long nothing may be written once nothing changes.
const IDLE: Duration = seconds(30);

/// How often, and with how many Services.
pub(super) struct Extent<'a> {
    pub(super) sizes: &'a [usize],
    pub(super) rounds: usize,
}

/// Measures; the speakers must run, and neither they nor kube-proxy do afterwards.
pub(super) async fn measure(lab: &Lab, by_hand: &ByHand, extent: &Extent<'_>) -> Result<Vec<Figure>> {
    ensure!(extent.sizes.iter().all(|size| (1..=20_000).contains(size)), "from 1 to 20000 Services");
    ensure!((1..=20).contains(&extent.rounds), "from 1 to 20 rounds");
    leave_alone(lab).await?;
    let pool = json!({"addresses": [RANGE], "announce": {"interfaces": ["eth0"]}});
    services::pool(lab, POOL, &pool).await?;
    let account = kubeconfig(lab, CONTROLLER, None, "floor").await?;
    let arena = Arena { lab, by_hand, clients: Clients::new(lab, &account).await? };
    let grant = arena.learn().await?;
    arena.floor(&grant, WARM_UP, "warm-up").await?;
    let mut sizes = Vec::new();
    for &size in extent.sizes {
        let mut measured = Size { size, floors: Vec::new(), ours: Vec::new(), rest: None };
        for round in 1..=extent.rounds {
            let floor = arena.floor(&grant, size, &format!("floor-{size}-{round}")).await?;
            let last = round == extent.rounds;
            let (ours, rest) = arena.ours(size, &format!("ours-{size}-{round}"), last).await?;
            say(&format!("{size} Services, round {round}: {:.2} x floor", ours.seconds / floor.seconds));
            say(&format!("  floor: {floor}"));
            say(&format!("  ours:  {ours}"));
            measured.floors.push(floor);
            measured.ours.push(ours);
            measured.rest = rest;
        }
        sizes.push(measured);
    }
    services::delete_pool(lab, POOL).await?;
    Ok(figures(&sizes))
}

/// Ends what would react to Services besides the controller.
async fn leave_alone(lab: &Lab) -> Result<()> {
    let speakers: Api<Speaker> = Api::all(lab.client());
    eventually(seconds(20), "three speakers have told of their interfaces", async || {
        let told = speakers.list(&Default::default()).await?.items;
        let told = told.iter().filter_map(|speaker| speaker.status.as_ref());
        let told = told.filter(|status| !status.interfaces.is_empty()).count();
        ensure!(told == 3, "{told}");
        Ok(())
    })
    .await?;
    let nodes = || lab.nodes().iter();
    // Without a word, so that their Speakers stay; and all at once, before one tells that another is dead.
    nodes().take(3).try_for_each(|node| node.kill(SPEAKER))?;
    nodes().try_for_each(|node| node.kill("kube-proxy"))
}

/// Where both compete.
struct Arena<'a> {
    lab: &'a Lab,
    by_hand: &'a ByHand,
    clients: Clients,
}

impl Arena<'_> {
    /// What the controller writes for one Service.
    async fn learn(&self) -> Result<Grant> {
        let namespace = "grants-model";
        self.clients.fresh_namespace(namespace).await?;
        self.start(namespace).await?;
        let grant = Grant::learn(&self.clients.users, namespace).await?;
        self.stop()?;
        self.clients.clean(namespace).await?;
        let candidates = grant.candidates()?;
        ensure!(candidates == 3, "{candidates} candidates of three: nothing would be ranked");
        Ok(grant)
    }

    /// One run of the plain client.
    async fn floor(&self, grant: &Grant, count: usize, namespace: &str) -> Result<Run> {
        self.clients.fresh_namespace(namespace).await?;
        tokio::time::sleep(SETTLE).await;
        let work = self.clients.grant_blindly(grant, namespace, count);
        let run = self.run(count, namespace, work, &["kube-apiserver", "etcd"]).await?;
        self.clients.clean(namespace).await?;
        Ok(run)
    }

    /// One run of the controller; `thorough`, until it has finished and was idle.
    async fn ours(&self, count: usize, namespace: &str, thorough: bool) -> Result<(Run, Option<Rest>)> {
        self.clients.fresh_namespace(namespace).await?;
        self.start(namespace).await?;
        tokio::time::sleep(SETTLE).await;
        let (mark, before) = (self.lab.control_plane().audit().mark()?, Usage::of_program(CONTROLLER)?);
        let work = self.clients.create_all(namespace, count);
        let programs = ["kube-apiserver", "etcd", CONTROLLER];
        let mut run = self.run(count, namespace, work, &programs).await?;
        run.effects = self.effects()?;
        let rest = if thorough { Some(self.rest(mark, before.cpu).await?) } else { None };
        self.stop()?;
        self.clients.clean(namespace).await?;
        Ok((run, rest))
    }

    /// Runs `work`, which creates `count` Services, until the watch has seen an address of each.
    async fn run(
        &self,
        count: usize,
        namespace: &str,
        work: impl Future<Output = Result<()>>,
        programs: &[&'static str],
    ) -> Result<Run> {
        let seen = all_granted(watch(&self.clients.users, namespace).await?, count);
        let costs = || -> Result<BTreeMap<&'static str, f64>> {
            let mut costs = BTreeMap::from([("this client", Usage::of_myself()?.cpu)]);
            for name in programs {
                costs.insert(name, Usage::of_program(name)?.cpu);
            }
            Ok(costs)
        };
        let (before, read, mark) =
            (costs()?, reads(self.lab).await?, self.lab.control_plane().audit().mark()?);
        let limit = seconds(60) + Duration::from_millis(60) * u32::try_from(count)?;
        let start = Instant::now();
        let work = async { work.await.map(|()| start.elapsed().as_secs_f64()) };
        let both = async { tokio::try_join!(work, seen) };
        let (creating, end) = tokio::time::timeout(limit, both)
            .await
            .with_context(|| format!("{count} Services had no address within {limit:?}"))??;
        let cpu = costs()?.into_iter().map(|(name, after)| (name, after - before[name])).collect();
        Ok(Run {
            seconds: (end - start).as_secs_f64(),
            creating,
            count,
            cpu,
            writes: self.writes(mark)?,
            reads: between(&read, &reads(self.lab).await?),
            effects: Vec::new(),
        })
    }

    /// Writes since `mark` of the users, the plain client and the controller; what the parts of the control
    /// plane write among themselves is the same for all. Leases have a pace of their own.
    fn writes(&self, mark: Mark) -> Result<BTreeMap<String, f64>> {
        let account = format!("system:serviceaccount:{NAMESPACE}:{CONTROLLER}");
        let mut counts = BTreeMap::new();
        for write in self.lab.control_plane().audit().writes_since(mark)? {
            let concerned = write.user == account || !write.user.starts_with("system:");
            if concerned && write.resource != "leases" {
                let refused = if write.code < 300 { String::new() } else { format!(" -> {}", write.code) };
                *counts.entry(format!("{} {}{refused}", write.verb, write.resource)).or_default() += 1.0;
            }
        }
        Ok(counts)
    }

    /// Waits until the controller has finished what it had begun, and then watches it doing nothing.
    async fn rest(&self, start: Mark, cpu_before: f64) -> Result<Rest> {
        let began = Instant::now();
        let mut quiet_after = None;
        while began.elapsed() < QUIET_LIMIT {
            let (mark, since) = (self.lab.control_plane().audit().mark()?, began.elapsed());
            tokio::time::sleep(QUIET).await;
            if self.writes(mark)?.is_empty() {
                quiet_after = Some(since.as_secs_f64());
                break;
            }
        }
        let (writes, memory) = (self.writes(start)?, Usage::of_program(CONTROLLER)?);
        let (mark, read) = (self.lab.control_plane().audit().mark()?, reads(self.lab).await?);
        tokio::time::sleep(IDLE).await;
        let read = between(&read, &reads(self.lab).await?);
        Ok(Rest {
            quiet_after,
            cpu: memory.cpu - cpu_before,
            writes,
            memory,
            idle_cpu: Usage::of_program(CONTROLLER)?.cpu - memory.cpu,
            idle_writes: self.writes(mark)?.values().fold(0.0, |sum, count| sum + count),
            idle_reads: single_reads(&read),
        })
    }

    /// Starts the controller and waits until it has granted the first Service of the namespace.
    async fn start(&self, namespace: &str) -> Result<()> {
        self.by_hand.start_controller(self.lab, self.lab.node("n1")?, &[]).await?;
        let api = Api::namespaced(self.clients.users.clone(), namespace);
        eventually(seconds(30), "the first Service has an address", async || {
            let service = api.get(clients::FIRST).await?;
            ensure!(!services::addresses(&service).is_empty(), "{:?}", service.status);
            Ok(())
        })
        .await
    }

    /// Ends the controller, which gives its Lease back, so that the next need not wait for it.
    fn stop(&self) -> Result<()> {
        let node = self.lab.node("n1")?;
        node.signal_program(CONTROLLER, Signal::SIGTERM)?;
        node.wait_end(CONTROLLER, seconds(15))
    }

    /// How often the controller did what, and how long the API server took for it on average.
    fn effects(&self) -> Result<Vec<String>> {
        let target = (self.lab.node("n1")?.addresses().v4, CONTROLLER_HTTP);
        let mut stream = TcpStream::connect(target).context("the controller's metrics")?;
        stream.set_read_timeout(Some(seconds(5)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let named = |name: &str| {
            let start = format!("landfall_controller_{name}{{");
            let lines = text.lines().filter(move |line| line.starts_with(&start));
            lines.filter_map(|line| line.rsplit_once(' ')).collect::<Vec<_>>()
        };
        let sums = named("effect_seconds_sum");
        let times = named("effect_seconds_count").into_iter().filter_map(|(series, count)| {
            let effect = label(series, "effect");
            let (_, sum) = sums.iter().find(|(series, _)| label(series, "effect") == effect)?;
            let mean = sum.parse::<f64>().ok()? / count.parse::<f64>().ok()?;
            Some(format!("{count} {effect} of {:.1} ms", mean * 1000.0))
        });
        let others = named("effects_total").into_iter().filter_map(|(series, count)| {
            let outcome = label(series, "outcome");
            (outcome != "Done").then(|| format!("{count} {} {outcome}", label(series, "effect")))
        });
        Ok(times.chain(others).collect())
    }
}
