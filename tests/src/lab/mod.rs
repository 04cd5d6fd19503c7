//! A real Kubernetes on one machine.

mod audit;
mod cgroups;
mod client;
mod control_plane;
mod explain;
pub mod image;
pub mod isolation;
#[allow(clippy::module_inception)]
mod lab;
mod namespace;
mod node;
mod pki;
pub mod plan;
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
