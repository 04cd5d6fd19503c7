//! Neighbor Solicitation and Neighbor Advertisement (RFC 4861) in ICMPv6 in IPv6 in Ethernet.

use std::net::Ipv6Addr;

use super::WireError;
use super::ethernet::{ETHER_TYPE_IPV6, EmittedFrame, Frame, HEADER_LEN, emit_header, mac_at, u16_at};
use crate::lan::MacAddr;

const IPV6_LEN: usize = 40;
const NEXT_HEADER_ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Type, code, checksum, flags and target.
const MESSAGE_LEN: usize = 24;
/// A link-layer address option: type, length, six bytes.
const OPTION_LEN: usize = 8;
const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// All nodes of the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group to which solicitations for `address` go (RFC 4291 section 2.7.1).
pub fn solicited_node_group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 multicast group (RFC 2464 section 7).
pub fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// A view of an IPv6 packet that is ICMPv6 neighbour discovery, checksum and hop limit verified.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8],
    message: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Views `bytes`, which may end in padding, as a neighbour discovery packet.
    ///
    /// # Errors
    /// It is truncated, of another kind, came through a router, or its checksum is wrong.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < IPV6_LEN {
            return Err(WireError::Truncated);
        }
        let (header, rest) = bytes.split_at(IPV6_LEN);
        if header[0] >> 4 != 6 || header[6] != NEXT_HEADER_ICMPV6 {
            return Err(WireError::NotNeighborDiscovery);
        }
        let message = rest.get(..usize::from(u16_at(header, 4))).ok_or(WireError::Truncated)?;
        match message.first() {
            None => return Err(WireError::Truncated),
            Some(&(SOLICITATION | ADVERTISEMENT)) => {}
            Some(_) => return Err(WireError::NotNeighborDiscovery),
        }
        if message.len() < MESSAGE_LEN {
            return Err(WireError::Truncated);
        }
        if header[7] != HOP_LIMIT {
            return Err(WireError::HopLimit);
        }
        let packet = Self { header, message };
        if checksum(packet.source(), packet.destination(), message) != 0 {
            return Err(WireError::Checksum);
        }
        Ok(packet)
    }

    fn source(&self) -> Ipv6Addr {
        ipv6_at(self.header, 8)
    }

    fn destination(&self) -> Ipv6Addr {
        ipv6_at(self.header, 24)
    }

    /// The address in the first option of a kind, after all options were found to be well-formed.
    fn link_layer_option(&self, kind: u8) -> Result<Option<MacAddr>, WireError> {
        let mut rest = &self.message[MESSAGE_LEN..];
        let mut found = None;
        while !rest.is_empty() {
            let length = usize::from(*rest.get(1).ok_or(WireError::Truncated)?) * 8;
            if length == 0 {
                return Err(WireError::InvalidNeighborDiscovery);
            }
            let option = rest.get(..length).ok_or(WireError::Truncated)?;
            if option[0] == kind && length == OPTION_LEN && found.is_none() {
                found = Some(mac_at(option, 2));
            }
            rest = &rest[length..];
        }
        Ok(found)
    }
}

/// A message of neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has the target?
    Solicitation {
        /// The address that is asked for.
        target: Ipv6Addr,
        /// The asker's hardware address, if it says so. A probe for duplicates does not.
        source_mac: Option<MacAddr>,
    },
    /// The target is here.
    Advertisement {
        /// The address that is told of.
        target: Ipv6Addr,
        /// Its hardware address, if told.
        target_mac: Option<MacAddr>,
        /// The sender is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what the receiver has cached.
        overrides: bool,
    },
}

/// A neighbour discovery packet as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdpRepr {
    /// Who sends it; unspecified in a probe for duplicates (RFC 4862 section 5.4).
    pub source: Ipv6Addr,
    /// To whom it goes.
    pub destination: Ipv6Addr,
    /// What it says.
    pub message: Message,
}

impl NdpRepr {
    /// Reads the value out of a view.
    ///
    /// # Errors
    /// It breaks a rule of RFC 4861 sections 7.1.1 and 7.1.2.
    pub fn parse(packet: &Packet<'_>) -> Result<Self, WireError> {
        let (source, destination) = (packet.source(), packet.destination());
        let target = ipv6_at(packet.message, 8);
        let flags = packet.message[4];
        if packet.message[1] != 0 || target.is_multicast() || source.is_multicast() {
            return Err(WireError::InvalidNeighborDiscovery);
        }
        let message = if packet.message[0] == SOLICITATION {
            let source_mac = packet.link_layer_option(OPTION_SOURCE_MAC)?;
            let is_group = is_solicited_node_group(destination);
            if source.is_unspecified() && (!is_group || source_mac.is_some()) {
                return Err(WireError::InvalidNeighborDiscovery);
            }
            Message::Solicitation { target, source_mac }
        } else {
            let solicited = flags & FLAG_SOLICITED != 0;
            if source.is_unspecified() || (solicited && destination.is_multicast()) {
                return Err(WireError::InvalidNeighborDiscovery);
            }
            Message::Advertisement {
                target,
                target_mac: packet.link_layer_option(OPTION_TARGET_MAC)?,
                router: flags & FLAG_ROUTER != 0,
                solicited,
                overrides: flags & FLAG_OVERRIDE != 0,
            }
        };
        Ok(Self { source, destination, message })
    }

    /// Reads the value out of a whole frame.
    ///
    /// # Errors
    /// The frame is no neighbour discovery, or not as it must be.
    pub fn parse_frame(frame: &Frame<'_>) -> Result<Self, WireError> {
        if frame.ether_type() != ETHER_TYPE_IPV6 {
            return Err(WireError::EtherType);
        }
        Self::parse(&Packet::new_checked(frame.payload())?)
    }

    /// A whole frame that carries the value from the station `from` to the station `to`.
    pub fn emit_frame(&self, from: MacAddr, to: MacAddr) -> EmittedFrame {
        let (kind, flags, target, option) = match self.message {
            Message::Solicitation { target, source_mac } => {
                (SOLICITATION, 0, target, source_mac.map(|mac| (OPTION_SOURCE_MAC, mac)))
            }
            Message::Advertisement { target, target_mac, router, solicited, overrides } => {
                let flag = |set: bool, bit: u8| if set { bit } else { 0 };
                let flags = flag(router, FLAG_ROUTER)
                    | flag(solicited, FLAG_SOLICITED)
                    | flag(overrides, FLAG_OVERRIDE);
                (ADVERTISEMENT, flags, target, target_mac.map(|mac| (OPTION_TARGET_MAC, mac)))
            }
        };
        let length = MESSAGE_LEN + option.map_or(0, |_| OPTION_LEN);
        let mut frame = EmittedFrame::zeroed(HEADER_LEN + IPV6_LEN + length);
        emit_header(&mut frame, to, from, ETHER_TYPE_IPV6);
        let (header, message) = frame[HEADER_LEN..].split_at_mut(IPV6_LEN);
        header[0] = 6 << 4;
        // At most 32, so nothing is cut off.
        header[5] = length as u8;
        header[6] = NEXT_HEADER_ICMPV6;
        header[7] = HOP_LIMIT;
        header[8..24].copy_from_slice(&self.source.octets());
        header[24..40].copy_from_slice(&self.destination.octets());
        message[0] = kind;
        message[4] = flags;
        message[8..24].copy_from_slice(&target.octets());
        if let Some((kind, mac)) = option {
            message[24] = kind;
            message[25] = 1;
            message[26..32].copy_from_slice(&mac.0);
        }
        let sum = checksum(self.source, self.destination, message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

fn is_solicited_node_group(address: Ipv6Addr) -> bool {
    solicited_node_group(address) == address
}

fn ipv6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// The Internet checksum of an ICMPv6 message with its pseudo-header (RFC 8200 section 8.1): what has to
/// be written where the field is zero, and zero where the field is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| {
        let pairs = bytes.chunks(2);
        pairs.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low))).sum::<u32>()
    };
    // The length fits: it comes from a 16-bit field or from an emitted message.
    let mut sum = words(&source.octets()) + words(&destination.octets());
    sum += message.len() as u32 + u32::from(NEXT_HEADER_ICMPV6) + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
