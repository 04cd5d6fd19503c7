//! The switch: a bridge in the lab's own network namespace, and what can go wrong with its ports.

mod faults;

use std::{
    net::Ipv6Addr,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result};

use self::faults::Faults;
use super::{
    namespace::{Namespace, host_sysctls, router_sysctls},
    plan::{Addresses, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Lan},
    process,
};

/// The LAN's switch, gateway and home of the control plane.
///
/// A port is named by the host that is plugged into it: `n1`, `c1`; a port of the second LAN, which some labs
/// have, `n1@2`.
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

    /// Adds a second LAN beside the first, which is reached by no router.
    pub(crate) fn add_second_lan(&self) -> Result<()> {
        self.lab
            .ip(&[
                "link add br1 type bridge stp_state 0 forward_delay 0 mcast_snooping 0".to_owned(),
                "link set br1 up".to_owned(),
            ])
            .context("making the second LAN")
    }

    /// Plugs a host in: gives its namespace an `eth0` with these addresses and a default route via the switch.
    pub(crate) fn plug(&self, host: &Namespace, addresses: &Addresses) -> Result<()> {
        self.wire(host, addresses, Lan::First)?;
        host.ip(&[format!("route add default via {GATEWAY_V4}"), format!("route add ::/0 via {GATEWAY_V6}")])
    }

    /// Plugs a host into a LAN: `eth0` on the first, `eth1` on the second.
    pub(crate) fn wire(&self, host: &Namespace, addresses: &Addresses, lan: Lan) -> Result<()> {
        let (name, bridge, interface) = (host.name(), lan.bridge(), lan.interface());
        let on_switch = port(&lan.port_of(name));
        self.lab.ip(&[
            format!(
                "link add {on_switch} type veth peer name {interface} address {} netns {name}",
                addresses.mac()
            ),
            format!("link set {on_switch} addrgenmode none"),
            format!("link set {on_switch} master {bridge} up"),
        ])?;
        host.ip(&[
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev {interface}", addresses.v4),
            format!("addr add {}/64 dev {interface} nodad", addresses.v6),
            format!("link set {interface} up"),
        ])
    }

    /// Pulls the host's plug: its port goes dark, and its interface loses carrier.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn port_down(&self, host: &str) -> Result<()> {
        self.ports(&[host], "down")
    }

    /// Plugs the host in again.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn port_up(&self, host: &str) -> Result<()> {
        self.ports(&[host], "up")
    }

    /// Pulls all plugs of the first LAN at once.
    ///
    /// # Errors
    /// When the switch refuses it.
    pub fn all_ports_down(&self) -> Result<()> {
        self.all_ports("br0", "down")
    }

    /// Plugs all hosts of the first LAN in again.
    ///
    /// # Errors
    /// When the switch refuses it.
    pub fn all_ports_up(&self) -> Result<()> {
        self.all_ports("br0", "up")
    }

    fn ports(&self, hosts: &[&str], how: &str) -> Result<()> {
        let lines = hosts.iter().map(|host| format!("link set {} {how}", port(host)));
        self.lab.ip(&lines.collect::<Vec<_>>())
    }

    fn all_ports(&self, bridge: &str, how: &str) -> Result<()> {
        let shown = self.lab.run("ip", &["-o", "link", "show", "master", bridge])?;
        let hosts: Vec<String> = shown
            .lines()
            .filter_map(|line| host_of_port(line.split(": ").nth(1)?.split('@').next()?))
            .collect();
        self.ports(&hosts.iter().map(String::as_str).collect::<Vec<_>>(), how)
    }

    /// Lets nothing at all through, on any LAN, while every port keeps its carrier; or everything again.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn blackout(&self, dark: bool) -> Result<()> {
        self.change(|faults| faults.blackout = dark)
    }

    /// Loses this share (0.0 to 1.0) of the packets on a host's port, at random, one way; carrier stays.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn lose(&self, host: &str, direction: Direction, share: f64) -> Result<()> {
        self.lose_each(&[(host, direction)], share)
    }

    /// Loses this share of the packets on a host's port, both ways.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn lose_both_ways(&self, host: &str, share: f64) -> Result<()> {
        self.lose_each(&[(host, Direction::FromHost), (host, Direction::ToHost)], share)
    }

    /// Loses this share of the packets in each of these directions, from one moment on.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn lose_each(&self, ways: &[(&str, Direction)], share: f64) -> Result<()> {
        // The clamp keeps the value in 0..=10000.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let of_ten_thousand = (share.clamp(0.0, 1.0) * 10_000.0).round() as u32;
        self.change(|faults| {
            for (host, direction) in ways {
                faults.loss.insert(((*host).to_owned(), *direction), of_ten_thousand);
            }
            faults.loss.retain(|_, lost| *lost > 0);
        })
    }

    /// Lets two hosts no longer hear each other, while both hear everybody else.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn cut(&self, one: &str, other: &str) -> Result<()> {
        self.part(&[one], &[other])
    }

    /// Lets each of these hosts hear none of the others of them, while all hear everybody else.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn isolate(&self, hosts: &[&str]) -> Result<()> {
        self.change(|faults| {
            let pairs = hosts.iter().flat_map(|one| hosts.iter().map(move |other| (one, other)));
            let pairs = pairs.filter(|(one, other)| one != other);
            faults.cuts.extend(pairs.map(|(one, other)| ((*one).to_owned(), (*other).to_owned())));
        })
    }

    /// Lets no host of one side and no host of the other hear each other.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn part(&self, one_side: &[&str], other_side: &[&str]) -> Result<()> {
        self.change(|faults| {
            for (one, other) in
                one_side.iter().flat_map(|one| other_side.iter().map(move |other| (one, other)))
            {
                faults.cuts.insert(((*one).to_owned(), (*other).to_owned()));
                faults.cuts.insert(((*other).to_owned(), (*one).to_owned()));
            }
        })
    }

    /// Cuts hosts off from the gateway, which is also the API server, and from nothing else.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn cut_from_gateway(&self, hosts: &[&str]) -> Result<()> {
        self.change(|faults| faults.without_gateway.extend(hosts.iter().map(|host| (*host).to_owned())))
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

    /// Ends what [`Switch::cut`], [`Switch::part`], [`Switch::isolate`] and [`Switch::cut_from_gateway`] began.
    ///
    /// # Errors
    /// When nftables refuses it.
    pub fn heal_cuts(&self) -> Result<()> {
        self.change(|faults| {
            faults.cuts.clear();
            faults.without_gateway.clear();
        })
    }

    /// Lets the switch send a multicast only where somebody has asked for it (MLD snooping, RFC 4541), and asks
    /// all hosts what they want as a querier does; or lets every port get every multicast again.
    ///
    /// # Errors
    /// When the switch refuses it.
    pub fn snoop(&self, snooping: bool) -> Result<()> {
        let on = u8::from(snooping);
        // In hundredths of a second: it asks at once and often, so that a test need not wait for minutes.
        let pace =
            "mcast_query_interval 200 mcast_query_response_interval 50 mcast_startup_query_interval 100";
        self.lab.ip(&[format!(
            "link set br0 type bridge mcast_snooping {on} mcast_querier {on} mcast_mld_version 2 {pace}"
        )])
    }

    /// The IPv6 groups that hosts have asked for while the switch snoops, with the host on the port.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn groups(&self) -> Result<Vec<(String, Ipv6Addr)>> {
        let shown = self.lab.run("bridge", &["mdb", "show", "dev", "br0"])?;
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let mut after = |name: &str| words.find(|word| *word == name).and_then(|_| words.next());
            let host = host_of_port(after("port")?)?;
            Some((host, after("grp")?.parse().ok()?))
        };
        Ok(shown.lines().filter_map(entry).collect())
    }

    /// Ends all loss and all cuts, brings every port up, and lets every port get every multicast.
    ///
    /// # Errors
    /// When the switch refuses it.
    pub fn mend(&self) -> Result<()> {
        self.change(|faults| *faults = Faults::default())?;
        self.snoop(false)?;
        self.all_ports("br0", "up")?;
        self.all_ports("br1", "up").or_else(|_| Ok(()))
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) -> Result<()> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut faults);
        let mut nft = self.lab.command("nft");
        nft.args(["-f", "-"]);
        process::output(nft, Some(&faults.rules())).map(|_| ())
    }
}

/// The switch's side of a host's cable.
fn port(host: &str) -> String {
    match host.split_once('@') {
        Some((host, _second)) => format!("q-{host}"),
        None => format!("p-{host}"),
    }
}

/// The host on a port of the switch, if it is one.
pub(super) fn host_of_port(port: &str) -> Option<String> {
    let second = |host| format!("{host}@2");
    port.strip_prefix("p-").map(str::to_owned).or_else(|| port.strip_prefix("q-").map(second))
}

#[cfg(test)]
mod tests {
    use super::{host_of_port, port};

    #[test]
    fn a_port_is_named_by_its_host() {
        for host in ["n1", "c12", "n3@2"] {
            assert_eq!(host_of_port(&port(host)).as_deref(), Some(host));
        }
        assert_eq!(host_of_port("br0"), None);
    }
}
