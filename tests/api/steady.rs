//! A steady cluster causes no writes.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{core::v1::Node, discovery::v1::EndpointSlice};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use landfall_crds::names::ports::CONTROLLER_HTTP;
use landfall_tests::{
    backend::Service,
    lab::{
        Lab,
        landfall::{ByHand, CONTROLLER, NAMESPACE, SPEAKER},
        seconds,
    },
    services::{announcer, granted, no_address_is_left, pool, services},
    story::Story,
};
use serde_json::json;

use crate::stop;

/// For how long nothing may be written: less than anybody would wait by default, and as long as
/// `LANDFALL_STEADY_SECONDS` says.
fn duration() -> Duration {
    let given = std::env::var("LANDFALL_STEADY_SECONDS").ok().and_then(|text| text.parse().ok());
    seconds(given.unwrap_or(60))
}

pub(crate) fn stories() -> Vec<Story> {
    vec![Story::within(
        duration() + seconds(120),
        "steady: nothing but Leases is written while Nodes and endpoints of others churn",
        nothing_is_written,
    )]
}

async fn nothing_is_written(lab: &Lab) -> Result<()> {
    let by_hand = ByHand::prepare(lab)?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.128-192.168.10.250", "fd10::1:0/112"]})).await?;
    for node in lab.nodes() {
        by_hand.start_speaker(lab, node, &[]).await?;
    }
    for node in ["n1", "n2"] {
        by_hand.start_controller(lab, lab.node(node)?, &[]).await?;
    }
    let names: Vec<String> = (0..12).map(|number| format!("steady-{number}")).collect();
    for name in &names {
        Service::new(name, "nobody").load_balancer().apply(lab).await?;
    }
    for name in &names {
        for address in granted(lab, name, 2).await? {
            announcer(lab, address).await?;
        }
    }
    // What was begun is finished: Events, conditions, the last gratuitous frame.
    tokio::time::sleep(seconds(6)).await;

    let mark = lab.control_plane().audit().mark()?;
    let (start, mut turn) = (Instant::now(), 0_u32);
    let lists_before = lists(lab)?;
    let mut restarted = false;
    while start.elapsed() < duration() {
        turn += 1;
        if !restarted && start.elapsed() > duration() / 2 {
            // All watches break, and those that the new API server cannot resume list anew.
            lab.control_plane().kill_api_server()?;
            lab.control_plane().start_api_server()?;
            lab.api_server_answers().await?;
            restarted = true;
        }
        churn(lab, turn).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let ours = format!("system:serviceaccount:{NAMESPACE}:");
    let writes = lab.control_plane().audit().writes_since(mark)?;
    let (leases, others): (Vec<_>, Vec<_>) = writes
        .into_iter()
        .filter(|write| write.user.starts_with(&ours))
        .partition(|write| write.resource == "leases");
    let relists = lists(lab)? - lists_before;
    eprintln!("steady: {relists} lists after the API server was restarted");
    ensure!(relists > 0, "nothing was listed anew");
    eprintln!(
        "steady: {:?}, {turn} turns of churn: {} Lease writes, {} others",
        start.elapsed(),
        leases.len(),
        others.len()
    );
    ensure!(!leases.is_empty(), "the leader renews its Lease, or the audit log tells nothing");
    ensure!(
        others.is_empty(),
        "written: {}",
        others.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    );

    for name in &names {
        services(lab).delete(name, &DeleteParams::default()).await?;
    }
    for name in &names {
        no_address_is_left(lab, name).await?;
    }
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    Ok(())
}

/// How many complete lists both controllers have read, by their metrics.
fn lists(lab: &Lab) -> Result<u64> {
    let mut sum = 0;
    for name in ["n1", "n2"] {
        sum += metric(lab, name, "landfall_controller_watch_lists_total")?;
    }
    ensure!(sum > 0, "the controllers count no lists");
    Ok(sum)
}

/// A metric of the controller on this node, summed over its labels.
pub(crate) fn metric(lab: &Lab, name: &str, metric: &str) -> Result<u64> {
    let target = (lab.node(name)?.addresses().v4, CONTROLLER_HTTP);
    let mut stream = TcpStream::connect(target).with_context(|| format!("metrics of {name}"))?;
    stream.set_read_timeout(Some(seconds(5)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let counts = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        series.starts_with(metric).then(|| value.parse::<u64>().ok())?
    });
    Ok(counts.sum())
}

/// Changes what does not concern us: a Node's labels and heartbeat, somebody else's endpoints and Services.
async fn churn(lab: &Lab, turn: u32) -> Result<()> {
    let nodes: Api<Node> = Api::all(lab.client());
    let name = format!("n{}", turn % 3 + 1);
    let label = json!({"metadata": {"labels": {"example.com/turn": turn.to_string()}}});
    nodes.patch(&name, &PatchParams::default(), &Patch::Merge(label)).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(lab.client(), "default");
    let slice: EndpointSlice = serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "others", "labels": {"kubernetes.io/service-name": "others"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [format!("10.245.1.{}", turn % 200 + 2)], "nodeName": name, "conditions": {"ready": turn.is_multiple_of(2)}}],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    }))?;
    slices.patch("others", &PatchParams::apply("churn").force(), &Patch::Apply(slice)).await?;
    if turn.is_multiple_of(10) {
        let plain: k8s_openapi::api::core::v1::Service = serde_json::from_value(json!({
            "metadata": {"name": format!("plain-{turn}")}, "spec": {"ports": [{"port": 80}]},
        }))?;
        services(lab).create(&PostParams::default(), &plain).await.context("a Service of somebody else's")?;
        services(lab).delete(&format!("plain-{turn}"), &DeleteParams::default()).await?;
    }
    Ok(())
}
