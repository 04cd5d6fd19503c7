//! The lab without kubelets: many nodes, pods as plain processes, and the same
//! library. kube-proxy is as real as in the other one.

// Stories measure real time.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;

use anyhow::{Result, ensure};
use landfall_tests::{
    backend::{Backends, Service, node_port},
    lab::{Lab, LabOptions, ProxyMode, eventually, probe::Request, seconds},
    story::{Story, run},
};

fn main() -> ExitCode {
    let options = LabOptions { nodes: 8, clients: 1, kubelets: false, proxy: ProxyMode::Iptables };
    run(options, vec![Story::new("lab: pods written by hand answer through every node", pods_answer)])
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
