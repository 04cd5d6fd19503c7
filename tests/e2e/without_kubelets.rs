//! The lab without kubelets: many nodes, pods as plain processes, and the same
//! library. kube-proxy is as real as in the other one.

// Stories measure real time.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;

use anyhow::{Result, anyhow, ensure};
use landfall_tests::{
    backend::{Backends, Service, node_port},
    lab::{
        Found, Lab, LabOptions, Node, ProxyMode, eventually,
        isolation::RUN,
        landfall::{self, ByHand, CONTROLLER, SPEAKER},
        probe::Request,
        repository, seconds,
    },
    story::{Story, run},
};

fn main() -> ExitCode {
    let options = LabOptions {
        nodes: 8,
        clients: 1,
        kubelets: false,
        proxy: ProxyMode::Iptables,
        ..LabOptions::default()
    };
    let stories = vec![
        Story::new("lab: pods written by hand answer through every node", pods_answer),
        Story::new("precedence: a speaker that may goes before other work, and says so", precedence),
        Story::new("lab: Landfall run by hand has the rights that deploy/ gives it, and no others", rights),
    ];
    run(options, stories)
}

async fn pods_answer(lab: &Lab) -> Result<()> {
    let backends = Backends::new("echo", 3);
    backends.deploy(lab).await?;
    let pods = backends.pods(lab).await?;
    ensure!(pods.values().map(String::as_str).eq(["n1", "n2", "n3"]), "{pods:?}");
    let service = Service::new("echo", "echo").node_port().apply(lab).await?;
    let (tcp, udp) = (node_port(&service, "tcp")?, node_port(&service, "udp")?);
    let client = lab.lan_client("c1")?;
    for node in lab.nodes() {
        let addresses = node.addresses();
        let requests = [
            Request::tcp((addresses.v4, tcp).into()),
            Request::udp((addresses.v4, udp).into()),
            Request::tcp((addresses.v6, tcp).into()),
            Request::udp((addresses.v6, udp).into()),
        ];
        for request in requests {
            let what = format!("{:?} {} answers", request.protocol, request.to);
            let answer = eventually(seconds(10), &what, async || client.ask(request)).await?;
            ensure!(pods.contains_key(&answer.pod), "{answer:?}");
        }
    }
    backends.delete(lab).await?;
    ensure!(backends.pods(lab).await?.is_empty(), "deleted pods are gone at once");
    Ok(())
}

async fn rights(lab: &Lab) -> Result<()> {
    let by_hand = ByHand::prepare(lab)?;
    let (n2, n3) = (lab.node("n2")?, lab.node("n3")?);
    by_hand.start_speaker(lab, n2, &[]).await?;
    by_hand.start_controller(lab, n3, &[]).await?;
    // NET_ADMIN is capability 12 and NET_RAW 13.
    let expected = [(n2, SPEAKER, "0", "0000000000003000"), (n3, CONTROLLER, "65532", "0000000000000000")];
    for (node, program, user, capabilities) in expected {
        let status = eventually(seconds(5), &format!("{program} runs"), async || {
            let is_it = |found: &Found| found.command.first().is_some_and(|first| first.ends_with(program));
            let found =
                node.processes().into_iter().find(is_it).ok_or_else(|| anyhow!("{:?}", node.processes()))?;
            Ok(std::fs::read_to_string(format!("/proc/{}/status", found.pid))?)
        })
        .await?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        ensure!(field("CapEff:") == capabilities && field("CapBnd:") == capabilities, "{program}: {status}");
        ensure!(field("Uid:").split_whitespace().all(|id| id == user), "{program}: {status}");
        ensure!(field("NoNewPrivs:") == "1", "{program}: {status}");
    }
    // The token names its node, as a pod's does, so that the policies can hold the speaker to it.
    let kubeconfig = landfall::kubeconfig(lab, SPEAKER, Some("n2"), "asks").await?;
    let myself = landfall::kubectl_as(lab, &kubeconfig, &["auth", "whoami", "-o", "json"], None)?;
    let myself: serde_json::Value = serde_json::from_str(&myself)?;
    let node_name = &myself["status"]["userInfo"]["extra"]["authentication.kubernetes.io/node-name"];
    ensure!(*node_name == serde_json::json!(["n2"]), "{myself}");
    let services = landfall::kubectl_as(lab, &kubeconfig, &["get", "services", "-A"], None);
    ensure!(
        services.is_err_and(|error| error.to_string().contains("forbidden")),
        "a speaker may not read Services"
    );
    n2.kill(SPEAKER)?;
    n3.kill(CONTROLLER)
}

async fn precedence(lab: &Lab) -> Result<()> {
    let by_hand = ByHand::prepare(lab)?;
    let (n2, n3) = (lab.node("n2")?, lab.node("n3")?);
    by_hand.start_speaker(lab, n2, &[]).await?;
    by_hand.start_speaker_with(lab, n3, &[], &capabilities_with_precedence(lab)?).await?;
    let said = async |node: &Node| {
        let url = format!("http://{}:7932/metrics", node.addresses().v4);
        let what = format!("the speaker of {} says how its thread is scheduled", node.name());
        eventually(seconds(5), &what, async || {
            let metrics = node.namespace().run("curl", &["-sS", "--max-time", "2", &url])?;
            ensure!(metrics.contains("landfall_speaker_lan_thread{"), "{metrics}");
            Ok(metrics)
        })
        .await
    };
    let (without, with) = (said(n2).await?, said(n3).await?);
    ensure!(without.contains("landfall_speaker_lan_thread{scheduling=\"Ordinary\"} 1"), "{without}");
    // Where the kernel schedules real-time threads by cgroups, a cgroup without a budget has none.
    let is_preferred = ["RealTime", "Favoured"]
        .iter()
        .any(|how| with.contains(&format!("landfall_speaker_lan_thread{{scheduling=\"{how}\"}} 1")));
    ensure!(is_preferred && with.contains("landfall_speaker_memory_locked 1"), "{with}");
    n2.kill(SPEAKER)?;
    n3.kill(SPEAKER)
}

/// What the container may do with `deploy/speaker/precedence`, in the words of `setpriv`.
fn capabilities_with_precedence(lab: &Lab) -> Result<String> {
    let overlay = std::path::Path::new(RUN).join("precedence/overlay");
    std::fs::create_dir_all(&overlay)?;
    // The folders of a kustomization are relative to it.
    let deploy = overlay.with_file_name("deploy");
    std::os::unix::fs::symlink(repository().join("deploy"), &deploy)?;
    std::fs::write(
        overlay.join("kustomization.yaml"),
        "resources: [../deploy]\ncomponents: [../deploy/speaker/precedence]\n",
    )?;
    let manifests = lab.kubectl(&["kustomize", &overlay.to_string_lossy()])?;
    let daemon_set = manifests.split("\n---\n").find(|manifest| manifest.contains("kind: DaemonSet"));
    let daemon_set = daemon_set.ok_or_else(|| anyhow!("no DaemonSet in {manifests}"))?;
    let lines = daemon_set.lines().map(str::trim).skip_while(|line| *line != "add:").skip(1);
    let added: Vec<String> = lines.map_while(|line| line.strip_prefix("- ")).map(str::to_lowercase).collect();
    ensure!(added == ["net_admin", "net_raw", "sys_nice", "ipc_lock"], "{daemon_set}");
    Ok(added.join(","))
}
