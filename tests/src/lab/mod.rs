//! A real Kubernetes on one machine.
//!
//! A switch, clients on its LAN, and nodes, each a network namespace; a real
//! etcd, API server, controller-manager and scheduler; on each node a real
//! kubelet, containerd and kube-proxy. Up in a few seconds, dual stack, and
//! gone with the process that made it, however that ends ([`isolation`]). Who
//! has which address: [`plan`].
//!
//! A test is a [`Story`](crate::story::Story), told in a lab that is shared by
//! all stories of a test binary:
//!
//! ```no_run
//! use std::{process::ExitCode, time::{Duration, Instant}};
//! use anyhow::ensure;
//! use landfall_tests::{
//!     backend::{Backends, Service, node_port},
//!     lab::{LabOptions, eventually, probe::Request, seconds},
//!     story::{Story, run},
//! };
//!
//! fn main() -> ExitCode {
//!     run(LabOptions { nodes: 3, clients: 2, ..LabOptions::default() }, vec![
//!         Story::new("a node port survives a flicker of the switch", async |lab| {
//!             // Two pods on n2, and a Service in front of them.
//!             Backends::new("web", 2).on("n2").deploy(lab).await?;
//!             let service = Service::new("web", "web").node_port().apply(lab).await?;
//!             let n1 = lab.node("n1")?;
//!             let target = (n1.addresses().v4, node_port(&service, "udp")?).into();
//!
//!             // A client on the LAN asks once, and gets the pod's words.
//!             let c1 = lab.lan_client("c1")?;
//!             let answer = eventually(seconds(10), "it answers", async || c1.ask(Request::udp(target))).await?;
//!             ensure!(answer.pod.starts_with("web-"));
//!
//!             // 200 datagrams a second while the switch port goes dark and comes back.
//!             let prober = c1.probe(target);
//!             let dark = Instant::now();
//!             lab.switch().port_down("n1")?;
//!             tokio::time::sleep(Duration::from_millis(300)).await;
//!             lab.switch().port_up("n1")?;
//!             tokio::time::sleep(seconds(2)).await;
//!             let report = prober.finish()?;
//!             ensure!(report.longest_gap_after(dark) < seconds(2), "{report}");
//!
//!             // Another client sees who answers ARP (or NDP) for an address, and whether two do.
//!             let seen = lab.lan_client("c2")?.watch("192.168.10.11".parse()?, Duration::from_millis(50));
//!             tokio::time::sleep(seconds(1)).await;
//!             ensure!(seen.finish()?.longest_split().is_zero());
//!
//!             // The API, as kubectl, as a client, and what was written to it.
//!             lab.kubectl(&["get", "services"])?;
//!             let mark = lab.control_plane().audit().mark()?;
//!             lab.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
//!             ensure!(!lab.control_plane().audit().writes_since(mark)?.is_empty());
//!             Ok(())
//!         }),
//!     ])
//! }
//! ```
//!
//! Faults: [`Switch::port_down`], [`Switch::lose`], [`Switch::cut`],
//! [`Switch::cut_from_api`], [`Node::freeze`], [`Node::signal`] (by program name, in pods too),
//! [`Node::kill`] and [`Node::restart`] (kubelet, containerd, kube-proxy),
//! [`ControlPlane::kill_api_server`], and an [`api_proxy`] for one program's way
//! to the API server. After each story all of them are mended.

pub mod api_proxy;
mod audit;
mod cgroups;
mod client;
mod control_plane;
pub mod dns;
mod explain;
pub mod image;
pub mod isolation;
#[allow(clippy::module_inception)]
mod lab;
pub mod landfall;
mod namespace;
mod node;
mod pki;
pub mod plan;
pub(crate) mod pods;
pub mod probe;
mod process;
mod programs;
mod runtime;
mod switch;
mod waiting;

pub use audit::{AuditLog, Mark, Write};
pub use cgroups::roots as cgroup_roots;
pub use client::LanClient;
pub use control_plane::ControlPlane;
pub use lab::{Lab, LabOptions};
pub use namespace::Namespace;
pub use node::{Found, Node};
pub use plan::{Addresses, Mac};
pub use process::Process;
pub use programs::{ours as our_binary, repository};
pub use runtime::ProxyMode;
pub use switch::{Direction, Switch};
pub use waiting::{eventually, eventually_blocking, seconds, steadily};

/// Tells the person who watches what the lab does.
pub(crate) fn say(words: &str) {
    eprintln!("lab: {words}");
}
