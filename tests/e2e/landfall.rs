//! Landfall as the stories find it: installed as a user would, with one pool and backends to reach.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use landfall_crds::names::labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS;
use landfall_tests::{
    backend::{Backends, Service},
    lab::{Lab, Node, eventually, landfall, probe::Request, seconds},
    services::{announcer, granted, pool},
};
use serde_json::json;

/// The node that never announces. Backends that are measured run there, so that what is measured is the
/// address and not kube-proxy's choice of a backend on the node that dies.
pub(crate) const BYSTANDER: &str = "n4";

/// Installs Landfall where it is not yet, with the pool `lan` and the backends `web` on the bystander.
pub(crate) async fn installed(lab: &Lab) -> Result<()> {
    lab.kubectl(&[
        "label",
        "--overwrite",
        "node",
        BYSTANDER,
        &format!("{EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS}=true"),
    ])?;
    landfall::install(lab).await?;
    let addresses = json!({"addresses": ["192.168.10.200-192.168.10.220", "fd10::200-fd10::220"]});
    pool(lab, "lan", &addresses).await?;
    Backends::new("web", 2).on(BYSTANDER).deploy(lab).await
}

/// A Service whose address answers, with its owner.
pub(crate) struct Reached<'a> {
    pub(crate) address: IpAddr,
    pub(crate) target: SocketAddr,
    pub(crate) owner: &'a Node,
}

/// Makes a Service of that name, and waits until a client is answered through its address of one family.
pub(crate) async fn reached<'a>(lab: &'a Lab, name: &str, v6: bool) -> Result<Reached<'a>> {
    installed(lab).await?;
    Service::new(name, "web").load_balancer().apply(lab).await?;
    let address = granted(lab, name, 2).await?[usize::from(v6)];
    let target = SocketAddr::from((address, 80));
    eventually(seconds(10), "it answers", async || lab.lan_client("c1")?.ask(Request::udp(target))).await?;
    let owner = announcer(lab, address).await?;
    // The first gratuitous frames are repeated for 4 s; a fault in that time measures a warm start.
    tokio::time::sleep(seconds(1)).await;
    Ok(Reached { address, target, owner })
}
