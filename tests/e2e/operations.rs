//! What an operator does on an ordinary day: restart, upgrade, uninstall.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use landfall_crds::names::finalizers;
use landfall_tests::{
    backend::Service,
    lab::{
        Lab, eventually,
        landfall::{self as deployed, CONTROLLER, NAMESPACE, SPEAKER},
        probe::Request,
        repository, seconds,
    },
    services::{addresses, delete, granted, services},
    story::Story,
};

use crate::landfall;

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new("operations: controllers and speakers restart one by one while traffic flows", rollout),
        // The last of all: after it Landfall is gone.
        Story::new(
            "operations: an uninstallation leaves Services as they are and nothing that hangs",
            uninstall,
        ),
    ]
}

async fn rollout(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    Service::new("rolled", "web").load_balancer().apply(lab).await?;
    let before = granted(lab, "rolled", 2).await?;
    let client = lab.lan_client("c1")?;
    let targets = [SocketAddr::from((before[0], 80)), SocketAddr::from((before[1], 80))];
    for target in targets {
        eventually(seconds(10), "it answers", async || client.ask(Request::udp(target))).await?;
    }
    let probers = targets.map(|target| client.probe(target));
    for workload in [format!("deployment/{CONTROLLER}"), format!("daemonset/{SPEAKER}")] {
        lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", &workload])?;
    }
    deployed::rolled_out(lab)?;
    tokio::time::sleep(seconds(1)).await;
    for prober in probers {
        let report = prober.finish()?;
        eprintln!("operations: restart of everything: {report}");
        // On a machine that does nothing else no datagram is lost; a starved one may drop some itself.
        ensure!(report.longest_gap < seconds(1), "{report}");
    }
    ensure!(granted(lab, "rolled", 2).await? == before);
    delete(lab, "rolled").await
}

async fn uninstall(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    lab.kubectl(&["create", "namespace", "tenant"])?;
    Service::new("left", "web").load_balancer().apply(lab).await?;
    let before = granted(lab, "left", 2).await?;
    Service::new("theirs", "web").namespace("tenant").load_balancer().apply(lab).await?;

    let folder = repository();
    let at = |part: &str| folder.join(part).to_string_lossy().into_owned();
    let minute = seconds(90);
    let kubectl = |arguments: &str| lab.kubectl_within(minute, &arguments.split(' ').collect::<Vec<_>>());
    // As deploy/README.md tells.
    kubectl(&format!("-n {NAMESPACE} scale deployment {CONTROLLER} --replicas=0"))?;
    kubectl(&format!(
        "-n {NAMESPACE} wait --for=delete pod -l app.kubernetes.io/name={CONTROLLER} --timeout=60s"
    ))?;
    kubectl(&format!("apply -k {}", at("deploy/uninstall")))?;
    kubectl(&format!("-n {NAMESPACE} wait --for=condition=Complete job/landfall-uninstall --timeout=60s"))?;
    kubectl(&format!("delete -k {} --timeout=60s", at("deploy")))?;
    kubectl(&format!("delete -f {} --timeout=60s", at("crds")))?;

    let service = services(lab).get("left").await?;
    ensure!(addresses(&service) == before, "the Service keeps its status: {:?}", addresses(&service));
    let has = service.metadata.finalizers.unwrap_or_default();
    let ours = [finalizers::SERVICE_ADDRESS, finalizers::LOAD_BALANCER_CLEANUP];
    ensure!(!has.iter().any(|name| ours.contains(&name.as_str())), "{has:?}");
    for address in before {
        let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(300))?;
        ensure!(macs.is_empty(), "{address} is still answered by {macs:?}");
    }
    // Namespaces end: ours, and one with a Service that was ours.
    kubectl("delete namespace tenant --timeout=60s")?;
    ensure!(
        lab.kubectl(&["get", "namespaces", "-o", "name"])?.lines().all(|name| !name.ends_with(NAMESPACE))
    );
    lab.kubectl(&["delete", "service", "left", "--timeout=20s"]).map(|_| ())
}
