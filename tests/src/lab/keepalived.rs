//! keepalived on the nodes: what many use for addresses that fail over, for comparison.
//!
//! One VRRP instance (RFC 9568) holds all addresses, as its documentation shows it for many: the first in the
//! adverts, the others excluded from them. No node takes the addresses back when it returns. The priorities are
//! the highest, with which VRRP is fastest: a backup waits three adverts and (256 - priority)/256 of one.

use std::{fmt::Write, fs, net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{isolation::RUN, node::Node};

const PROGRAM: &str = "/usr/sbin/keepalived";
/// What [`Node::kill`] and [`Node::signal_program`] know it as.
pub const NAME: &str = "keepalived";
/// The highest priority that is no owner's of an address is 254.
const HIGHEST: u8 = 254;

/// The version, in keepalived's words.
///
/// # Errors
/// When it is not installed.
pub fn version() -> Result<String> {
    ensure!(Path::new(PROGRAM).exists(), "keepalived is not installed: run tests/install.sh");
    let output = std::process::Command::new(PROGRAM).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(text.lines().next().context("keepalived tells no version")?.to_owned())
}

/// Starts it on a node, with these addresses.
///
/// # Errors
/// When it cannot be started.
pub fn start(node: &Node, addresses: &[Ipv4Addr], advert: Duration) -> Result<()> {
    let folder = Path::new(RUN).join("nodes").join(node.name()).join(NAME);
    fs::create_dir_all(&folder)?;
    let file = folder.join("keepalived.conf");
    fs::write(&file, configuration(node, addresses, advert)?)?;
    let pid = |part: &str| folder.join(part).display().to_string();
    node.start(
        NAME,
        Path::new(PROGRAM),
        vec![
            "--dont-fork".to_owned(),
            "--vrrp".to_owned(),
            "--log-console".to_owned(),
            format!("--use-file={}", file.display()),
            format!("--pid={}", pid("pid")),
            format!("--vrrp_pid={}", pid("vrrp.pid")),
        ],
    )
}

/// Ends it; it removes its addresses.
///
/// # Errors
/// When it does not end.
pub fn stop(node: &Node) -> Result<()> {
    node.signal_program(NAME, Signal::SIGTERM)?;
    node.wait_end(NAME, Duration::from_secs(10))
}

fn configuration(node: &Node, addresses: &[Ipv4Addr], advert: Duration) -> Result<String> {
    let (first, others) = addresses.split_first().context("keepalived without an address")?;
    let priority = HIGHEST - node.number();
    let mut text = format!(
        "global_defs {{\n  router_id {}\n  vrrp_version 3\n}}\n\
         vrrp_instance lab {{\n  interface eth0\n  virtual_router_id 77\n  state BACKUP\n  nopreempt\n  \
         priority {priority}\n  advert_int {}\n  virtual_ipaddress {{\n    {first}/32\n  }}\n  \
         virtual_ipaddress_excluded {{\n",
        node.name(),
        advert.as_secs_f64()
    );
    for address in others {
        let _infallible = writeln!(text, "    {address}/32");
    }
    text.push_str("  }\n}\n");
    Ok(text)
}
