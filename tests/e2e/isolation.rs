//! Two labs at once do not see each other, and a lab that is killed leaves nothing behind.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use landfall_tests::{
    lab::{Lab, Namespace, Process, cgroup_roots, eventually, seconds},
    story::Story,
};

pub(crate) fn stories() -> Vec<Story> {
    vec![Story::new("lab: two labs at once, and nothing left of the one that is killed", second_lab)]
}

async fn second_lab(lab: &Lab) -> Result<()> {
    let before = Traces::now()?;
    let mut command = Namespace::of_the_lab().command(env!("CARGO_BIN_EXE_landfall-lab"));
    command.args(["shell", "--bare", "--nodes=2", "--iptables"]);
    // Its logs are not to be mixed with ours.
    command.env_remove("LANDFALL_LAB_LOGS");
    let second = Process::start("second-lab", command)?;
    let init = eventually(seconds(60), "the second lab is up", async || {
        ensure!(second.ended().is_none(), "it has ended: {:?}", second.ended());
        let said = fs::read_to_string(second.log())?;
        let hint = said.lines().find_map(|line| line.split_once("nsenter --target ")).map(|(_, rest)| rest);
        let init = hint.and_then(|rest| rest.split(' ').next());
        init.map(str::to_owned).ok_or_else(|| anyhow!("so far: {}", said.lines().last().unwrap_or_default()))
    })
    .await?;

    // The same names and addresses, and yet each has its own cluster.
    let kubectl = lab.inside().programs().join("kubectl").to_string_lossy().into_owned();
    let in_second = |arguments: &[&str]| {
        let prefix = ["--target", &init, "--all", "--"];
        Namespace::of_the_lab().run("nsenter", &[&prefix[..], arguments].concat())
    };
    let kubeconfig = lab.kubeconfig().to_string_lossy().into_owned();
    let theirs = in_second(&[&kubectl, "--kubeconfig", &kubeconfig, "get", "nodes", "-o", "name"])?;
    let ours = lab.kubectl(&["get", "nodes", "-o", "name"])?;
    ensure!(
        (theirs.lines().count(), ours.lines().count()) == (2, lab.nodes().len()),
        "theirs: {theirs}, ours: {ours}"
    );
    eventually(seconds(20), "its kube-proxy works in iptables mode", async || {
        let rules = in_second(&["nsenter", "--net=/run/netns/n1", "iptables-save", "-t", "nat"])?;
        ensure!(rules.contains("KUBE-SERVICES"), "rules: {rules}");
        Ok(())
    })
    .await?;

    let during = Traces::now()?;
    ensure!(during.processes.len() > before.processes.len() + 10, "{during:?}");
    ensure!(during.cgroups.len() == before.cgroups.len() + 1, "{:?}", during.cgroups);
    second.kill()?;
    eventually(seconds(20), "nothing is left of the second lab", async || {
        let after = Traces::now()?;
        let left = after.without(&before);
        ensure!(left == Traces::default(), "left: {left:?}");
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    lab.nodes_ready().await
}

/// What a lab could leave behind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Traces {
    /// Those in PID namespaces below this one, and the programs of the lab itself.
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    networks: BTreeSet<String>,
    cgroups: BTreeSet<String>,
}

impl Traces {
    fn now() -> Result<Self> {
        let own_depth = depth("self").context("the depth of this process's PID namespace")?;
        let mut traces = Self { cgroups: cgroup_roots().into_iter().collect(), ..Self::default() };
        // The mounts of this namespace, without those that containers here come and go with.
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        traces.mounts.extend(mounts.lines().map(str::to_owned));
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().into_string() else { continue };
            if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            // One that ends meanwhile has left nothing.
            let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
            let below = depth(&pid).is_some_and(|depth| depth == own_depth + 1) && !in_container(&pid);
            if below || name.starts_with("landfall-lab") {
                traces.processes.insert(format!("{pid} {}", name.trim()));
                let network = fs::read_link(entry.path().join("ns/net")).unwrap_or_default();
                traces.networks.insert(network.to_string_lossy().into_owned());
            }
        }
        Ok(traces)
    }

    fn without(self, other: &Self) -> Self {
        let minus = |a: BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect();
        Self {
            processes: minus(self.processes, &other.processes),
            mounts: minus(self.mounts, &other.mounts),
            networks: minus(self.networks, &other.networks),
            cgroups: minus(self.cgroups, &other.cgroups),
        }
    }
}

/// How many PID namespaces a process is in, as seen from here.
fn depth(pid: &str) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:")).map(|ids| ids.split_whitespace().count())
}

/// Containers of this lab are in PID namespaces of their own, too.
fn in_container(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("/landfall-"))
}
