//! ARP for IPv4 over Ethernet (RFC 826), with the uses that RFC 5227 and RFC 5944 make of it.

use std::net::Ipv4Addr;

use super::WireError;
use super::ethernet::{
    ETHER_TYPE_ARP, EmittedFrame, Frame, HEADER_LEN, MIN_FRAME_LEN, emit_header, mac_at, u16_at,
};
use crate::lan::MacAddr;

const HARDWARE_ETHERNET: u16 = 1;
const PROTOCOL_IPV4: u16 = 0x0800;
const PACKET_LEN: usize = 28;

/// What an ARP packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// A view of an ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a>(&'a [u8]);

impl<'a> Packet<'a> {
    /// Views `bytes`, which may end in padding, as an ARP packet.
    ///
    /// # Errors
    /// It is too short, or for other kinds of addresses.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < PACKET_LEN {
            return Err(WireError::Truncated);
        }
        let lengths = (bytes[4], bytes[5]);
        if u16_at(bytes, 0) != HARDWARE_ETHERNET || u16_at(bytes, 2) != PROTOCOL_IPV4 || lengths != (6, 4) {
            return Err(WireError::NotArp);
        }
        Ok(Self(bytes))
    }

    fn ipv4_at(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3])
    }
}

/// An ARP packet as a value. The fields have the names of RFC 826 and RFC 5227.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpRepr {
    /// Request or reply.
    pub operation: Operation,
    /// Sender hardware address.
    pub sha: MacAddr,
    /// Sender protocol address; unspecified in a probe (RFC 5227 section 1.1).
    pub spa: Ipv4Addr,
    /// Target hardware address.
    pub tha: MacAddr,
    /// Target protocol address.
    pub tpa: Ipv4Addr,
}

impl ArpRepr {
    /// Reads the value out of a view.
    ///
    /// # Errors
    /// The operation is neither request nor reply.
    pub fn parse(packet: &Packet<'_>) -> Result<Self, WireError> {
        let operation = match u16_at(packet.0, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(WireError::NotArp),
        };
        Ok(Self {
            operation,
            sha: mac_at(packet.0, 8),
            spa: packet.ipv4_at(14),
            tha: mac_at(packet.0, 18),
            tpa: packet.ipv4_at(24),
        })
    }

    /// Reads the value out of a whole frame.
    ///
    /// # Errors
    /// The frame is none of ARP, or not as it must be.
    pub fn parse_frame(frame: &Frame<'_>) -> Result<Self, WireError> {
        if frame.ether_type() != ETHER_TYPE_ARP {
            return Err(WireError::EtherType);
        }
        Self::parse(&Packet::new_checked(frame.payload())?)
    }

    /// A whole frame that carries the value from its sender to `destination`.
    pub fn emit_frame(&self, destination: MacAddr) -> EmittedFrame {
        let mut frame = EmittedFrame::zeroed(MIN_FRAME_LEN);
        emit_header(&mut frame, destination, self.sha, ETHER_TYPE_ARP);
        let packet = &mut frame[HEADER_LEN..];
        packet[0..2].copy_from_slice(&HARDWARE_ETHERNET.to_be_bytes());
        packet[2..4].copy_from_slice(&PROTOCOL_IPV4.to_be_bytes());
        packet[4..6].copy_from_slice(&[6, 4]);
        packet[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        packet[8..14].copy_from_slice(&self.sha.0);
        packet[14..18].copy_from_slice(&self.spa.octets());
        packet[18..24].copy_from_slice(&self.tha.0);
        packet[24..28].copy_from_slice(&self.tpa.octets());
        frame
    }

    /// Whether the sender asks, before it uses the target address, whether anybody else does.
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.spa.is_unspecified()
    }
}
