//! Who has which address in the lab.
//!
//! | | IPv4 | IPv6 |
//! |---|---|---|
//! | LAN | 192.168.10.0/24 | fd10::/64 |
//! | switch, gateway, API server | .1 | ::1 |
//! | node n1, n2, … | .11, .12, … | ::11, ::12, … |
//! | LAN client c1, c2, … | .101, .102, … | ::101, ::102, … |
//! | free for VIPs, for example | .150 to .250 | ::150 to ::250 |
//! | the same hosts on the second LAN, where a lab has one | 192.168.20.0/24 | fd20::/64 |
//! | pods of node N | 10.245.N.0/24 | fd45:0:0:N::/64 |
//! | Services | 10.96.0.0/16 | fd96::/108 |

use std::net::{Ipv4Addr, Ipv6Addr};

/// The switch: gateway of the LAN and address of the API server.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 1);
/// The switch's IPv6 address.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 1);
/// The MAC address of the switch.
pub const GATEWAY_MAC: &str = "02:00:00:00:00:01";
/// Where the API server answers.
pub const API_SERVER: &str = "https://192.168.10.1:6443";
/// The port in it.
pub const API_SERVER_PORT: u16 = 6443;
/// The first address of the Services' range: the Service `kubernetes`.
pub const SERVICE_OF_API: [&str; 2] = ["10.96.0.1", "fd96::1"];
/// The ranges of Services' cluster IPs.
pub const SERVICES: &str = "10.96.0.0/16,fd96::/108";
/// The ranges of all pods.
pub const PODS: &str = "10.245.0.0/16,fd45::/48";

/// The most nodes, and the most clients, that fit into the plan.
pub const MOST: u8 = 89;

/// One of the LANs of a lab; most labs have but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lan {
    /// Every host's `eth0`.
    First,
    /// A second interface of every host, `eth1`, on a LAN of its own.
    Second,
}

impl Lan {
    pub(crate) fn bridge(self) -> &'static str {
        match self {
            Self::First => "br0",
            Self::Second => "br1",
        }
    }

    pub(crate) fn interface(self) -> &'static str {
        match self {
            Self::First => "eth0",
            Self::Second => "eth1",
        }
    }

    /// The name of a host's port on this LAN, as [`super::Switch`] knows it.
    pub fn port_of(self, host: &str) -> String {
        match self {
            Self::First => host.to_owned(),
            Self::Second => format!("{host}@2"),
        }
    }
}

/// The addresses of one host on a LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// On 192.168.10.0/24, or 192.168.20.0/24.
    pub v4: Ipv4Addr,
    /// On fd10::/64, or fd20::/64.
    pub v6: Ipv6Addr,
    mac: [u8; 6],
}

impl Addresses {
    /// Those of the node with this number (from 1).
    pub fn of_node(number: u8) -> Self {
        Self::new(10 + number, 1, number)
    }

    /// Those of the LAN client with this number (from 1).
    pub fn of_client(number: u8) -> Self {
        Self::new(100 + number, 2, number)
    }

    fn new(last: u8, kind: u8, number: u8) -> Self {
        // The IPv6 address reads like the IPv4 one: 192.168.10.11 and fd10::11.
        let digits = u16::from(last / 100) << 8 | u16::from(last / 10 % 10) << 4 | u16::from(last % 10);
        Self {
            v4: Ipv4Addr::new(192, 168, 10, last),
            v6: Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, digits),
            mac: [2, 0, 0, 0, kind, number],
        }
    }

    /// The same host's addresses on a LAN of the lab.
    #[must_use]
    pub fn on(self, lan: Lan) -> Self {
        let Self { v4, v6, mac: [a, b, c, _, kind, number] } = self;
        let ([.., last], [.., digits]) = (v4.octets(), v6.segments());
        let (third, first, fourth) = match lan {
            Lan::First => (10, 0xfd10, 0),
            Lan::Second => (20, 0xfd20, 2),
        };
        Self {
            v4: Ipv4Addr::new(192, 168, third, last),
            v6: Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, digits),
            mac: [a, b, c, fourth, kind, number],
        }
    }

    /// The MAC address of the host's interface.
    pub fn mac(&self) -> Mac {
        Mac(self.mac)
    }
}

/// The range of the pods of a node, IPv4.
pub fn pods_v4(node: u8) -> String {
    format!("10.245.{node}.0/24")
}

/// The range of the pods of a node, IPv6.
pub fn pods_v6(node: u8) -> String {
    format!("fd45:0:0:{node}::/64")
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
        let bytes: [u8; 6] = bytes?.try_into().map_err(|_| anyhow::anyhow!("{text} is no MAC address"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::{Addresses, Lan, Mac};

    #[test]
    fn both_families_read_alike() {
        let node = Addresses::of_node(1);
        assert_eq!((node.v4.to_string(), node.v6.to_string()), ("192.168.10.11".into(), "fd10::11".into()));
        let client = Addresses::of_client(2);
        assert_eq!(
            (client.v4.to_string(), client.v6.to_string()),
            ("192.168.10.102".into(), "fd10::102".into())
        );
        assert_eq!("02:00:00:00:02:02".parse::<Mac>().unwrap(), client.mac());
    }

    #[test]
    fn a_host_has_other_addresses_on_the_second_lan() {
        let second = Addresses::of_node(3).on(Lan::Second);
        assert_eq!(
            (second.v4.to_string(), second.v6.to_string(), second.mac().to_string()),
            ("192.168.20.13".into(), "fd20::13".into(), "02:00:00:02:01:03".into())
        );
        assert_eq!(second.on(Lan::First), Addresses::of_node(3));
    }
}
