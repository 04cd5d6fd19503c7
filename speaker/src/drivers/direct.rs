//! Datagrams straight to a station whose hardware address is known. Pure.
//!
//! The kernel asks for the hardware address of a neighbour before it sends to it, and when the first
//! question is lost, as happens when a switch port has just come up, it waits a second before the next.
//! So a node that comes back would hear the others and not be heard for that second. A peer's hardware
//! address is in its Speaker object: what is said to a peer that is not known to live for a while is
//! therefore sent twice, by the kernel and as a frame of our own.
//!
//! Not only the second way, since hardware addresses change and the kernel finds the new one. And to a
//! peer that is not alive at all only now and then, since switches send such frames to all ports.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::lan::{MacAddr, NodeName, PeerInfo};
use crate::mind::Report;
use crate::wire::ethernet::{ETHER_TYPE_IPV6, HEADER_LEN};

/// After this time the kernel has found the hardware address of a peer that lives.
const FOUND: Duration = Duration::from_secs(3);
/// How often a peer that is not alive is spoken to directly.
const KNOCK: Duration = Duration::from_millis(500);
/// The Ethernet type of IPv4.
const ETHER_TYPE_IPV4: u16 = 0x0800;
/// UDP, as an IP protocol number.
const UDP: u8 = 17;
/// Generalised TTL security (RFC 5082).
const TTL: u8 = 255;
/// Network control (RFC 4594 section 3.1).
const CLASS_NETWORK_CONTROL: u8 = 0xc0;

/// Which peers are to be spoken to directly.
#[derive(Debug, Default)]
pub struct Directory {
    stations: HashMap<IpAddr, (NodeName, MacAddr)>,
    alive: HashMap<(NodeName, String), Instant>,
    knocked: HashMap<IpAddr, Instant>,
}

impl Directory {
    /// All peers.
    pub fn set_peers(&mut self, peers: &[PeerInfo]) {
        let links = peers.iter().flat_map(|peer| peer.links.iter().map(move |link| (peer, link)));
        self.stations =
            links.filter_map(|(peer, link)| Some((link.address?, (peer.node.clone(), link.mac)))).collect();
        self.alive.retain(|(node, _), _| peers.iter().any(|peer| peer.node == *node));
        self.knocked.retain(|address, _| self.stations.contains_key(address));
    }

    /// Takes note of who lives.
    pub fn note(&mut self, now: Instant, report: &Report) {
        if let Report::Peer { node, interface, alive } = report {
            let key = (node.clone(), interface.clone());
            if *alive {
                self.alive.entry(key).or_insert(now);
            } else {
                self.alive.remove(&key);
            }
        }
    }

    /// A link came up: whoever is there is to be spoken to at once.
    pub fn came_up(&mut self) {
        self.knocked.clear();
    }

    /// The hardware address to which something must be sent directly, besides.
    pub fn direct(&mut self, now: Instant, interface: &str, to: IpAddr) -> Option<MacAddr> {
        let (node, mac) = self.stations.get(&to)?;
        let since = |since: &Instant| now.saturating_duration_since(*since);
        let must = match self.alive.get(&(node.clone(), interface.to_owned())) {
            Some(alive) => since(alive) < FOUND,
            None => self.knocked.get(&to).is_none_or(|knocked| since(knocked) >= KNOCK),
        };
        if must {
            self.knocked.insert(to, now);
        }
        must.then_some(*mac)
    }
}

/// An Ethernet frame with a UDP datagram between two stations of one link, from a port to a port.
/// Nothing where the addresses are of two families or the payload does not fit.
pub fn frame(
    source: (MacAddr, IpAddr),
    destination: (MacAddr, IpAddr),
    (source_port, port): (u16, u16),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let ether_type = if source.1.is_ipv4() { ETHER_TYPE_IPV4 } else { ETHER_TYPE_IPV6 };
    let mut frame = Vec::with_capacity(HEADER_LEN + 40 + 8 + payload.len());
    frame.extend_from_slice(&destination.0.0);
    frame.extend_from_slice(&source.0.0);
    frame.extend_from_slice(&ether_type.to_be_bytes());
    let length = u16::try_from(8 + payload.len()).ok()?;
    let pseudo = match (source.1, destination.1) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend_from_slice(&ipv4_header(from, to, length)?);
            sum(&from.octets()) + sum(&to.octets())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend_from_slice(&ipv6_header(from, to, length));
            sum(&from.octets()) + sum(&to.octets())
        }
        _ => return None,
    };
    let mut header = [0; 8];
    header[0..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[4..6].copy_from_slice(&length.to_be_bytes());
    let total = pseudo + u32::from(UDP) + u32::from(length) + sum(&header) + sum(payload);
    // A checksum of zero would mean that there is none (RFC 768).
    let checksum = match fold(total) {
        0 => u16::MAX,
        checksum => checksum,
    };
    header[6..8].copy_from_slice(&checksum.to_be_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(payload);
    Some(frame)
}

/// RFC 791. It must not be fragmented, so it needs no identification (RFC 6864).
fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, length: u16) -> Option<[u8; 20]> {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[1] = CLASS_NETWORK_CONTROL;
    header[2..4].copy_from_slice(&length.checked_add(20)?.to_be_bytes());
    header[6] = 0x40;
    header[8] = TTL;
    header[9] = UDP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let checksum = fold(sum(&header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some(header)
}

/// RFC 8200.
fn ipv6_header(from: Ipv6Addr, to: Ipv6Addr, length: u16) -> [u8; 40] {
    let mut header = [0; 40];
    header[0] = 0x60 | (CLASS_NETWORK_CONTROL >> 4);
    header[1] = CLASS_NETWORK_CONTROL << 4;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6] = UDP;
    header[7] = TTL;
    header[8..24].copy_from_slice(&from.octets());
    header[24..40].copy_from_slice(&to.octets());
    header
}

/// The sum of the 16-bit words of `bytes`, padded with a zero (RFC 1071). It cannot overflow: nothing
/// here is longer than 64 KiB.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(word).sum()
}

/// The checksum of a sum of words (RFC 1071).
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lan::PeerLink;

    const N1: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const N2: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_frame_is_what_the_kernel_would_send() {
        let frame =
            frame((N1, address("192.168.10.11")), (N2, address("192.168.10.12")), (49_152, 7931), b"alive")
                .unwrap();
        assert_eq!(frame[0..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(frame[14..24], [0x45, 0xc0, 0, 33, 0, 0, 0x40, 0, 255, 17]);
        assert_eq!(fold(sum(&frame[14..34])), 0, "the IPv4 checksum holds");
        assert_eq!(frame[34..40], [0xc0, 0, 0x1e, 0xfb, 0, 13]);
        assert_eq!(&frame[42..], b"alive");
        let pseudo = sum(&frame[26..34]) + 17 + 13;
        assert_eq!(fold(pseudo + sum(&frame[34..])), 0, "the UDP checksum holds");
    }

    #[test]
    fn ipv6_has_its_own_header() {
        let frame =
            frame((N1, address("fe80::1")), (N2, address("fe80::2")), (49_152, 7931), b"alive").unwrap();
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x6c, 0, 0, 0, 0, 13, 17, 255]);
        let pseudo = sum(&frame[22..54]) + 17 + 13;
        assert_eq!(fold(pseudo + sum(&frame[54..])), 0, "the UDP checksum holds");
    }

    #[test]
    fn what_cannot_be_a_datagram_is_none() {
        assert_eq!(frame((N1, address("192.168.10.11")), (N2, address("fe80::2")), (1, 1), b""), None);
        assert_eq!(frame((N1, address("10.0.0.1")), (N2, address("10.0.0.2")), (1, 1), &[0; 65_536]), None);
        assert_eq!(frame((N1, address("10.0.0.1")), (N2, address("10.0.0.2")), (1, 1), &[0; 65_520]), None);
    }

    #[test]
    fn a_peer_is_spoken_to_directly_until_it_has_lived_for_a_while() {
        let now = Instant::now();
        let link = PeerLink {
            mac: N2,
            subnets: Vec::new(),
            addresses: Vec::new(),
            address: Some(address("192.168.10.12")),
        };
        let alive = |alive| Report::Peer { node: "n2".into(), interface: "eth0".into(), alive };
        let mut directory = Directory::default();
        let direct = |directory: &mut Directory, at| directory.direct(at, "eth0", address("192.168.10.12"));
        assert_eq!(direct(&mut directory, now), None, "nobody knows where that is");
        directory.set_peers(&[PeerInfo { node: "n2".into(), links: vec![link] }]);
        assert_eq!(direct(&mut directory, now), Some(N2));
        assert_eq!(direct(&mut directory, now), None, "only now and then to one that is not alive");
        directory.came_up();
        assert_eq!(direct(&mut directory, now), Some(N2));
        assert_eq!(direct(&mut directory, now + KNOCK), Some(N2));
        directory.note(now, &alive(true));
        assert_eq!(direct(&mut directory, now), Some(N2));
        assert_eq!(direct(&mut directory, now), Some(N2));
        assert_eq!(direct(&mut directory, now + FOUND), None);
        directory.note(now + FOUND, &alive(false));
        assert_eq!(direct(&mut directory, now + FOUND), Some(N2));
    }
}
