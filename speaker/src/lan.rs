//! Values of the LAN that every mind and every driver of the speaker speaks of.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use landfall_crds::Fallback;

/// The name of a Node; cheap to clone, since it travels through every event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl std::ops::Deref for NodeName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The kernel's index of an interface (`ifindex`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

/// An Ethernet hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, "unknown" in an ARP request.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the address names a group of stations (IEEE 802: the lowest bit of the first byte).
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is not six groups of two hexadecimal digits joined by colons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a MAC address such as 02:00:5e:10:00:01")]
pub struct MacAddrError(String);

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<Self, MacAddrError> {
        let bad = || MacAddrError(text.to_owned());
        let mut bytes = [0; 6];
        let mut groups = text.split(':');
        for byte in &mut bytes {
            let group = groups.next().filter(|group| group.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(group, 16).map_err(|_| bad())?;
        }
        if groups.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

/// An interface of this node on which it could announce, as netlink tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: LinkIndex,
    /// The kernel's name, such as `eth0`.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Whether it is administratively up and has carrier (`IFF_UP` and `IFF_LOWER_UP`).
    pub carrier: bool,
    /// The node's own addresses on it, each with the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
}

impl Link {
    /// Whether `address` lies on one of the link's subnets. Link-local subnets do not count.
    pub fn has_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.contains(&address))
    }

    /// The broadcast addresses of the link's subnets. A /31 has none (RFC 3021), and a /32 is one address only.
    pub fn broadcasts(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter_map(|own| match own {
            IpNet::V4(own) if own.prefix_len() < 31 => Some(own.broadcast().into()),
            _ => None,
        })
    }

    /// The address at which the speakers of other nodes watch this link: the first global IPv4 address, or
    /// else a global IPv6 address, or else the link-local one.
    pub fn watched_at(&self) -> Option<IpAddr> {
        let own = || self.addresses.iter().map(IpNet::addr);
        let v4 = own().find(|address| address.is_ipv4() && is_global(*address));
        v4.or_else(|| own().find(|address| is_global(*address))).or_else(|| own().find(IpAddr::is_ipv6))
    }
}

/// Whether the address means something on one link alone (RFC 3927, RFC 4291 section 2.5.6).
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether the address can be no host's on a LAN: unspecified, loopback, link-local, multicast, reserved, or IPv4 in
/// an IPv6 form.
pub fn is_special(address: IpAddr) -> bool {
    let beyond = match address {
        // "This network" and everything from class E up, 255.255.255.255 among it (RFC 6890).
        IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 240,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    beyond
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || is_link_local(address)
}

/// Whether an address is neither loopback nor link-local.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// Another speaker, as its Speaker object tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its node.
    pub node: NodeName,
    /// Its interfaces.
    pub links: Vec<PeerLink>,
}

impl PeerInfo {
    /// Its node's own addresses, on all links.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.links.iter().flat_map(|link| link.addresses.iter().copied())
    }
}

/// An interface of another speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLink {
    /// Its hardware address.
    pub mac: MacAddr,
    /// The subnets on its link.
    pub subnets: Vec<IpNet>,
    /// Every address of its own on that link, which nobody may announce.
    pub addresses: Vec<IpAddr>,
    /// The address at which it is watched there, if it has one yet.
    pub address: Option<IpAddr>,
}

/// An address to look after, as its VirtualIP tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Whether a Service claims it; without a claim it is never announced.
    pub claimed: bool,
    /// The placement's epoch; zero where there is no placement.
    pub epoch: i64,
    /// The nodes that may announce, best first.
    pub candidates: Vec<NodeName>,
    /// Names or globs of interfaces to announce on; empty means those on the address's subnet.
    pub interfaces: Vec<String>,
    /// Who may announce when no candidate can.
    pub fallback: Fallback,
    /// The highest term that the object's status tells of; zero where nobody ever announced.
    pub last_term: u64,
    /// The ports at which kube-proxy tells whether the Services behind it have endpoints on this node
    /// (`spec.healthCheckNodePort`), where they serve with local endpoints only.
    pub health_checks: Vec<u16>,
    /// Names the guards that the kernel must enforce before it is announced; nothing where everybody may come in.
    pub guard: Option<Arc<str>>,
    /// Whether anybody announced it before. If not, the LAN is probed for a duplicate first.
    pub announced_before: bool,
}
