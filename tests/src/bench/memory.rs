//! Memory of controller and speakers at 100 Services.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Figure;
use crate::{
    backend::Service,
    lab::{
        Lab, Node, eventually,
        landfall::{CONTROLLER, SPEAKER},
        seconds,
    },
    services,
};

const COUNT: usize = 100;

pub(super) async fn measure(lab: &Lab) -> Result<Vec<Figure>> {
    for number in 0..COUNT {
        let service = Service::new(&format!("memory-{number}"), "nobody").load_balancer();
        service.spec("ipFamilyPolicy", json!("SingleStack")).apply(lab).await?;
    }
    for number in 0..COUNT {
        services::granted(lab, &format!("memory-{number}"), 1).await?;
    }
    eventually(seconds(20), "all are announced", async || {
        let vips = services::virtual_ips(lab).list(&Default::default()).await?.items;
        let announced =
            vips.iter().filter(|vip| vip.status.as_ref().is_some_and(|status| status.announcer.is_some()));
        ensure!(announced.count() >= COUNT);
        Ok(())
    })
    .await?;
    tokio::time::sleep(seconds(5)).await;
    let speakers =
        lab.nodes().iter().take(3).map(|node| resident(node, SPEAKER)).collect::<Result<Vec<_>>>()?;
    let controller = resident(lab.node("n1")?, CONTROLLER)?;
    for number in 0..COUNT {
        services::delete(lab, &format!("memory-{number}")).await?;
    }
    Ok(vec![
        figure("memory of the controller at 100 Services", &[controller], 30.0),
        figure("memory of a speaker at 100 Services", &speakers, 20.0),
    ])
}

/// The worst of all counts.
fn figure(name: &str, values: &[f64], goal: f64) -> Figure {
    let figure = Figure::of(name, values, "MB", Some(goal));
    Figure { value: figure.worst, ..figure }
}

/// Resident memory of a program on a node, in megabytes (`VmRSS` of proc(5)).
fn resident(node: &Node, program: &str) -> Result<f64> {
    let found = node
        .processes()
        .into_iter()
        .find(|found| found.command.first().is_some_and(|path| path.ends_with(program)));
    let pid = found.with_context(|| format!("no {program} on {}", node.name()))?.pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
