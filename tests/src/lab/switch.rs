//! The switch: a bridge in the lab's own network namespace, and what can go wrong with its ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result};

use super::{
    namespace::{Namespace, host_sysctls, router_sysctls},
    plan::{API_SERVER_PORT, Addresses, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6},
    process,
};

/// The LAN's switch, gateway and home of the control plane.
///
/// A port is named by the host that is plugged into it: `n1`, `c1`.
#[derive(Debug)]
pub struct Switch {
    lab: Namespace,
    faults: Mutex<Faults>,
}

/// Which way packets go, as seen from the host on the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What the host sends.
    FromHost,
    /// What the host would receive.
    ToHost,
}

#[derive(Debug, Default)]
struct Faults {
    /// Per port and direction, how many of 10,000 packets are lost.
    loss: BTreeMap<(String, Direction), u32>,
    /// Pairs of hosts that do not hear each other.
    cuts: BTreeSet<(String, String)>,
    /// Hosts that do not reach the API server.
    without_api: BTreeSet<String>,
}

impl Switch {
    pub(crate) fn create() -> Result<Self> {
        let lab = Namespace::of_the_lab();
        host_sysctls()?;
        router_sysctls()?;
        lab.ip(&[
            "link set lo up".to_owned(),
            // STP off: a port that comes up forwards at once. Snooping off: every port gets every multicast.
            format!(
                "link add br0 address {GATEWAY_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            ),
            format!("addr add {GATEWAY_V4}/24 dev br0"),
            format!("addr add {GATEWAY_V6}/64 dev br0 nodad"),
            "link set br0 up".to_owned(),
        ])
        .context("making the switch")?;
        Ok(Self { lab, faults: Mutex::default() })
    }

    /// Plugs a host in: gives its namespace an `eth0` with these addresses and a default route via the switch.
    pub(crate) fn plug(&self, host: &Namespace, addresses: &Addresses) -> Result<()> {
        let name = host.name();
        self.lab.ip(&[
            format!(
                "link add {} type veth peer name eth0 address {} netns {name}",
                port(name),
                addresses.mac()
            ),
            format!("link set {} addrgenmode none", port(name)),
            format!("link set {} master br0 up", port(name)),
        ])?;
        host.ip(&[
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev eth0", addresses.v4),
            format!("addr add {}/64 dev eth0 nodad", addresses.v6),
            "link set eth0 up".to_owned(),
            format!("route add default via {GATEWAY_V4}"),
            format!("route add ::/0 via {GATEWAY_V6}"),
        ])
    }

    /// Pulls the host's plug: its port goes dark, and its `eth0` loses carrier.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn port_down(&self, host: &str) -> Result<()> {
        self.lab.ip(&[format!("link set {} down", port(host))])
    }

    /// Plugs the host in again.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn port_up(&self, host: &str) -> Result<()> {
        self.lab.ip(&[format!("link set {} up", port(host))])
    }

    /// Loses this share (0.0 to 1.0) of the packets on a host's port, at random, one way; carrier stays.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn lose(&self, host: &str, direction: Direction, share: f64) -> Result<()> {
        // The clamp keeps the value in 0..=10000.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let of_ten_thousand = (share.clamp(0.0, 1.0) * 10_000.0).round() as u32;
        self.change(|faults| {
            faults.loss.insert((host.to_owned(), direction), of_ten_thousand);
            faults.loss.retain(|_, lost| *lost > 0);
        })
    }

    /// Loses this share of the packets on a host's port, both ways.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn lose_both_ways(&self, host: &str, share: f64) -> Result<()> {
        self.lose(host, Direction::FromHost, share)?;
        self.lose(host, Direction::ToHost, share)
    }

    /// Lets two hosts no longer hear each other, while both hear everybody else.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn cut(&self, one: &str, other: &str) -> Result<()> {
        self.change(|faults| {
            faults.cuts.insert((one.to_owned(), other.to_owned()));
        })
    }

    /// Cuts a host off from the API server, and from nothing else: what it sends there is dropped, as is
    /// what would come from there, on connections that are open as on new ones. The host learns nothing.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn cut_from_api(&self, host: &str) -> Result<()> {
        self.change(|faults| {
            faults.without_api.insert(host.to_owned());
        })
    }

    /// Lets a host reach the API server again.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn heal_way_to_api(&self, host: &str) -> Result<()> {
        self.change(|faults| {
            faults.without_api.remove(host);
        })
    }

    /// Ends all loss and all cuts, and brings every port up.
    ///
    /// # Errors
    /// When the switch refuses it.
    pub fn mend(&self) -> Result<()> {
        self.change(|faults| *faults = Faults::default())?;
        let ports = self.lab.run("ip", &["-o", "link", "show", "master", "br0"])?;
        let names = ports.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
        self.lab.ip(&names.map(|name| format!("link set {name} up")).collect::<Vec<_>>())
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) -> Result<()> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut faults);
        let mut nft = self.lab.command("nft");
        nft.args(["-f", "-"]);
        process::output(nft, Some(&faults.rules())).map(|_| ())
    }
}

impl Faults {
    /// The rules of all faults, to replace whatever rules were there.
    fn rules(&self) -> String {
        let mut rules = String::new();
        for table in ["netdev lab_faults", "bridge lab_faults"] {
            // Added first, so that it can be deleted whether it was there or not.
            let _infallible = write!(rules, "table {table} {{}}\ndelete table {table}\n");
        }
        rules.push_str("table netdev lab_faults {\n");
        for ((host, direction), lost) in &self.loss {
            let (hook, chain) = match direction {
                Direction::FromHost => ("ingress", "from"),
                Direction::ToHost => ("egress", "to"),
            };
            let device = port(host);
            let _infallible = write!(
                rules,
                "chain {chain}_{host} {{\ntype filter hook {hook} device \"{device}\" priority 0\n\
                 numgen random mod 10000 < {lost} counter drop\n}}\n"
            );
        }
        rules
            .push_str("}\ntable bridge lab_faults {\nchain forward {\ntype filter hook forward priority 0\n");
        for (one, other) in &self.cuts {
            let (one, other) = (port(one), port(other));
            let _infallible = write!(
                rules,
                "iifname \"{one}\" oifname \"{other}\" drop\niifname \"{other}\" oifname \"{one}\" drop\n"
            );
        }
        // The API server answers on the switch's own address, so its packets are not forwarded.
        for (chain, device, side) in [("input", "iifname", "dport"), ("output", "oifname", "sport")] {
            let _infallible = write!(rules, "}}\nchain {chain} {{\ntype filter hook {chain} priority 0\n");
            for host in &self.without_api {
                let _infallible = writeln!(
                    rules,
                    "{device} \"{}\" meta l4proto tcp th {side} {API_SERVER_PORT} drop",
                    port(host)
                );
            }
        }
        rules.push_str("}\n}\n");
        rules
    }
}

fn port(host: &str) -> String {
    format!("p-{host}")
}
