//! Who is in no range of a Service does not get in, whichever way he tries.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use landfall_crds::names::conditions::GRANTED;
use landfall_tests::{
    backend::{Backends, Service, node_port},
    lab::{
        Lab, Namespace, Node, eventually,
        landfall::{self as deployed, NAMESPACE, SPEAKER},
        probe::{Protocol, Request},
        seconds,
    },
    services::{announcer, condition, delete, delete_pool, granted, pool, services},
    story::Story,
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::landfall::{self, BYSTANDER};

/// How soon who is forbidden hears nothing any more, after the API server accepted the change: the controller, a
/// speaker and the kernel follow. The kernel alone has 100 ms in `speaker/tests/filter`.
const CUT: Duration = Duration::from_millis(500);
/// How long silence is waited for: an answer takes milliseconds.
const SILENCE: Duration = Duration::from_millis(500);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::within(
            seconds(300),
            "source ranges: the example of the book keeps out who is not listed, at the address and at the nodePort",
            example_v4,
        ),
        Story::within(seconds(300), "source ranges: and so does its counterpart over IPv6", example_v6),
        Story::new("source ranges: the nodePort is guarded while an address is awaited", awaited),
        Story::new(
            "source ranges: a stream that is forbidden ends at once, and 300 other changes harm none",
            cut,
        ),
        Story::new("source ranges: whoever flushes the rules or kills the speaker lets nobody in (I3)", kept),
    ]
}

async fn example_v4(lab: &Lab) -> Result<()> {
    example(
        lab,
        &Example {
            name: "ranges-v4",
            pool: "13.12.21.0/24",
            vip: "13.12.21.31".parse()?,
            range: "142.43.0.0/16",
            inside: "142.43.0.9".parse()?,
            pods: "10.245.0.0/16",
        },
    )
    .await
}

async fn example_v6(lab: &Lab) -> Result<()> {
    example(
        lab,
        &Example {
            name: "ranges-v6",
            pool: "2001:db8:13::/64",
            vip: "2001:db8:13::31".parse()?,
            range: "2001:db8:43::/48",
            inside: "2001:db8:43::9".parse()?,
            pods: "fd45::/48",
        },
    )
    .await
}

struct Example {
    name: &'static str,
    pool: &'static str,
    vip: IpAddr,
    range: &'static str,
    /// The address of a client in it.
    inside: IpAddr,
    pods: &'static str,
}

impl Example {
    fn service(&self) -> Service {
        let family = if self.vip.is_ipv4() { "IPv4" } else { "IPv6" };
        Service::new(self.name, "web")
            .load_balancer()
            .spec("ipFamilyPolicy", json!("SingleStack"))
            .spec("ipFamilies", json!([family]))
            .spec("loadBalancerIP", json!(self.vip.to_string()))
    }

    fn of_node(&self, node: &Node) -> IpAddr {
        if self.vip.is_ipv4() { node.addresses().v4.into() } else { node.addresses().v6.into() }
    }
}

async fn example(lab: &Lab, it: &Example) -> Result<()> {
    landfall::installed(lab).await?;
    let spec = json!({"addresses": [it.pool], "autoAssign": false, "announce": {"interfaces": ["eth0"]}});
    pool(lab, it.name, &spec).await?;
    let service = it.service().spec("loadBalancerSourceRanges", json!([it.range])).apply(lab).await?;
    let ports = [node_port(&service, "tcp")?, node_port(&service, "udp")?];
    ensure!(granted(lab, it.name, 1).await? == [it.vip], "the address asked for");
    announcer(lab, it.vip).await?;

    let (inside, outside) = (lab.lan_client("c1")?, lab.lan_client("c2")?);
    let prefix = if it.vip.is_ipv4() { 32 } else { 128 };
    inside.add_address(it.inside)?;
    inside.add_on_link_route(&format!("{}/{prefix}", it.vip), Some(it.inside))?;
    outside.add_on_link_route(&format!("{}/{prefix}", it.vip), None)?;
    let (near, far) = (lab.node("n1")?, lab.node(BYSTANDER)?);
    Backends::new("asker", 1).on(near.name()).deploy(lab).await?;
    let pod = pod_of(near)?;
    let at_address = [SocketAddr::from((it.vip, 80)); 2];
    let at = |node: &Node| ports.map(|port| SocketAddr::from((it.of_node(node), port)));

    for to in [at_address, at(near), at(far)] {
        lets_in(inside.namespace(), Some(it.inside), to).await?;
        for who in [outside.namespace(), near.namespace(), &pod] {
            keeps_out(who, to)?;
        }
    }
    // A node that serves itself is judged by its own address, and a pod by the pod's.
    let ranges = json!([it.range, it.pods, format!("{}/{prefix}", it.of_node(near))]);
    it.service().spec("loadBalancerSourceRanges", ranges).apply(lab).await?;
    for to in [at_address, at(near)] {
        for who in [near.namespace(), &pod] {
            lets_in(who, None, to).await?;
        }
        keeps_out(outside.namespace(), to)?;
    }
    // And without ranges it is open.
    it.service().apply(lab).await?;
    lets_in(outside.namespace(), None, at_address).await?;
    delete(lab, it.name).await?;
    delete_pool(lab, it.name).await
}

async fn awaited(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    let service = Service::new("awaits", "web")
        .load_balancer()
        .spec("loadBalancerIP", json!("192.168.77.7"))
        .spec("loadBalancerSourceRanges", json!(["192.168.10.101/32"]))
        .apply(lab)
        .await?;
    eventually(seconds(10), "it waits for an address", async || {
        let granted = condition(&services(lab).get("awaits").await?, GRANTED).context("no condition")?;
        ensure!(granted.status == "False", "{granted:?}");
        Ok(())
    })
    .await?;
    let ports = [node_port(&service, "tcp")?, node_port(&service, "udp")?];
    let (listed, unlisted) = (lab.lan_client("c1")?, lab.lan_client("c2")?);
    for node in ["n1", BYSTANDER] {
        let addresses = lab.node(node)?.addresses();
        let v4 = ports.map(|port| SocketAddr::from((addresses.v4, port)));
        lets_in(listed.namespace(), None, v4).await?;
        keeps_out(unlisted.namespace(), v4)?;
        // A list that holds no range of a family closes that one to everybody.
        let v6 = ports.map(|port| SocketAddr::from((addresses.v6, port)));
        keeps_out(listed.namespace(), v6)?;
    }
    delete(lab, "awaits").await
}

async fn cut(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    ranged("cut", &["192.168.10.0/24"]).apply(lab).await?;
    ranged("stays", &["192.168.10.0/24"]).apply(lab).await?;
    let targets = [granted(lab, "cut", 1).await?[0], granted(lab, "stays", 1).await?[0]];
    let [cut, stays] = targets.map(|address| SocketAddr::from((address, 80)));
    let client = lab.lan_client("c1")?;
    for target in [cut, stays] {
        lets_in(client.namespace(), None, [target; 2]).await?;
    }
    let (forbidden, unharmed) = (client.probe(cut), client.probe(stays));
    tokio::time::sleep(seconds(1)).await;
    let changed = Instant::now();
    change(lab, "cut", &["142.43.0.0/16"]).await?;
    let accepted = changed.elapsed();
    tokio::time::sleep(seconds(1)).await;
    let report = forbidden.finish()?;
    let gap = report.gaps.last().context("the stream was not cut")?;
    let after = gap.from.saturating_duration_since(changed);
    eprintln!(
        "source ranges: cut {after:?} after the change was sent (accepted after {accepted:?}): {report}"
    );
    ensure!(gap.length > Duration::from_millis(700), "it went on: {report}");
    ensure!(after < CUT + accepted, "{after:?}");

    let started = Instant::now();
    for number in 0..300 {
        change(lab, "cut", &[&format!("142.{}.0.0/16", number % 250)]).await?;
    }
    eprintln!("source ranges: 300 changes in {:?}", started.elapsed());
    tokio::time::sleep(seconds(1)).await;
    let report = unharmed.finish()?;
    eprintln!("source ranges: a stream beside 301 changes: {report}");
    ensure!(report.lost() == 0, "{report}");
    delete(lab, "cut").await?;
    delete(lab, "stays").await
}

async fn kept(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    ranged("kept", &["192.168.10.101/32"]).apply(lab).await?;
    let address = granted(lab, "kept", 1).await?[0];
    let target = SocketAddr::from((address, 80));
    let (listed, unlisted) = (lab.lan_client("c1")?, lab.lan_client("c2")?);
    lets_in(listed.namespace(), None, [target; 2]).await?;
    let owner = announcer(lab, address).await?;
    let intruder = unlisted.probe(target);
    let is_there = || owner.namespace().run("nft", &["list", "table", "inet", "landfall"]).map(drop);

    // The lab's own table, and kube-proxy's, go with the flush; both are needed again.
    let pods = owner.namespace().run("nft", &["list", "table", "inet", "lab_pods"])?;
    owner.namespace().run("nft", &["flush", "ruleset"])?;
    let flushed = Instant::now();
    eventually(seconds(1), "the table is there again", async || is_there()).await?;
    eprintln!("source ranges: the table is there {:?} after a flush", flushed.elapsed());
    load(owner, &pods)?;
    owner.kill("kube-proxy")?;
    owner.restart("kube-proxy")?;
    lets_in(listed.namespace(), None, [target; 2]).await?;

    owner.signal(SPEAKER, Signal::SIGKILL)?;
    is_there().context("the table stays when the speaker is killed")?;
    tokio::time::sleep(seconds(2)).await;
    deployed::rolled_out(lab)?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", &format!("daemonset/{SPEAKER}")])?;
    deployed::rolled_out(lab)?;
    is_there().context("the table stays over an upgrade")?;
    lets_in(listed.namespace(), None, [target; 2]).await?;
    let report = intruder.finish()?;
    eprintln!(
        "source ranges: an unlisted client meanwhile: {} sent, {} answered",
        report.sent, report.answered
    );
    ensure!(report.sent > 500 && report.answered == 0, "{report}");
    delete(lab, "kept").await
}

/// A Service with an IPv4 address and these ranges.
fn ranged(name: &str, ranges: &[&str]) -> Service {
    Service::new(name, "web")
        .load_balancer()
        .spec("ipFamilyPolicy", json!("SingleStack"))
        .spec("loadBalancerSourceRanges", json!(ranges))
}

async fn change(lab: &Lab, name: &str, ranges: &[&str]) -> Result<()> {
    let api: Api<ServiceObject> = services(lab);
    let patch = json!({"spec": {"loadBalancerSourceRanges": ranges}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Both answer in time: the first of `to` over TCP, the second over UDP.
async fn lets_in(who: &Namespace, from: Option<IpAddr>, to: [SocketAddr; 2]) -> Result<()> {
    for request in [Request::tcp(to[0]), Request::udp(to[1])] {
        let request = Request { from, ..request };
        eventually(seconds(10), &format!("{} is let in", who.name()), async || who.ask(request)).await?;
    }
    Ok(())
}

/// Neither answers, nor does anything else answer in their place.
fn keeps_out(who: &Namespace, to: [SocketAddr; 2]) -> Result<()> {
    for request in [Request::tcp(to[0]), Request::udp(to[1])] {
        let asked = Instant::now();
        let answer = who.ask(request.within(SILENCE));
        ensure!(answer.is_err(), "{} is let in to {} over {:?}", who.name(), request.to, request.protocol);
        // A wait counted in whole milliseconds ends up to one too early; a refusal comes within a few.
        let is_silent = request.protocol == Protocol::Udp || asked.elapsed() > SILENCE / 2;
        ensure!(is_silent, "{} is refused aloud at {}: {answer:?}", who.name(), request.to);
    }
    Ok(())
}

/// The network of a pod of the lab's backends on a node.
fn pod_of(node: &Node) -> Result<Namespace> {
    let is_backend = |command: &[String]| {
        command.first().is_some_and(|program| program.ends_with("landfall-backend"))
            && !command.iter().any(|word| word == "pause")
    };
    let found = node.processes().into_iter().find(|found| is_backend(&found.command));
    let pid = found.with_context(|| format!("no backend on {}", node.name()))?.pid;
    Ok(Namespace::of_process(&format!("a pod on {}", node.name()), pid))
}

/// Has a node's `nft` load tables.
fn load(node: &Node, tables: &str) -> Result<()> {
    let mut command = node.namespace().command("nft");
    let mut nft = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    nft.stdin.take().context("no way to nft")?.write_all(tables.as_bytes())?;
    let status = nft.wait()?;
    ensure!(status.success(), "nft cannot load what it listed: {status}");
    Ok(())
}
