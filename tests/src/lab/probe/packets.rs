//! Packets that a client makes without its kernel: datagrams and the first packet of a TCP connection, over
//! IPv4 (RFC 791) and IPv6 (RFC 8200), down to the Ethernet frame.

use std::net::{IpAddr, SocketAddr};

use super::frames::{ETHERTYPE_IPV6, checksum};
use crate::lab::plan::Mac;

const ETHERTYPE_IPV4: u16 = 0x0800;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// One end of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) mac: Mac,
    pub(super) address: SocketAddr,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A datagram.
    Datagram { from: SocketAddr, to: u16, payload: &'a [u8] },
    /// The other side accepts a connection whose first packet had this sequence number.
    Accepted { from: SocketAddr, to: u16, sequence: u32 },
    /// It refuses it.
    Refused { from: SocketAddr, to: u16, sequence: u32 },
}

/// A datagram in a frame; mixed families give none.
pub(super) fn datagram(from: End, to: End, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(8 + payload.len()).ok()?;
    let ports = ports(from, to);
    let segment = [&ports[..], &length.to_be_bytes(), &[0, 0], payload].concat();
    frame(from, to, UDP, segment, 6)
}

/// The first packet of a TCP connection, in a frame; mixed families give none.
pub(super) fn opening(from: End, to: End, sequence: u32) -> Option<Vec<u8>> {
    // A header of five words, no options, a window of 64 KiB.
    let rest = [0, 0, 0, 0, 5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0];
    let segment = [&ports(from, to)[..], &sequence.to_be_bytes(), &rest].concat();
    frame(from, to, TCP, segment, 16)
}

/// Reads a frame, if it holds what a client waits for.
pub(super) fn read(frame: &[u8]) -> Option<Heard<'_>> {
    let (protocol, source, segment) = match u16::from_be_bytes(array(frame, 12)?) {
        ETHERTYPE_IPV4 => {
            let header = usize::from(frame.get(14)? & 0x0f) * 4;
            // The frame may be padded beyond the packet's length.
            let length = usize::from(u16::from_be_bytes(array(frame, 16)?));
            let segment = frame.get(14 + header..14 + length)?;
            (*frame.get(23)?, IpAddr::from(array::<4>(frame, 26)?), segment)
        }
        ETHERTYPE_IPV6 => {
            let length = usize::from(u16::from_be_bytes(array(frame, 18)?));
            (*frame.get(20)?, IpAddr::from(array::<16>(frame, 22)?), frame.get(54..54 + length)?)
        }
        _ => return None,
    };
    let [from, to] = [0, 2].map(|at| array(segment, at).map(u16::from_be_bytes));
    let (from, to) = (SocketAddr::new(source, from?), to?);
    if protocol == UDP {
        return Some(Heard::Datagram { from, to, payload: segment.get(8..)? });
    }
    let flags = *segment.get(13)?;
    // It acknowledges the opening packet, which counts as one byte (RFC 9293, section 3.4).
    let sequence = u32::from_be_bytes(array(segment, 8)?).wrapping_sub(1);
    match (protocol, flags & (SYN | RST | ACK)) {
        (TCP, set) if set == SYN | ACK => Some(Heard::Accepted { from, to, sequence }),
        (TCP, set) if set & RST != 0 => Some(Heard::Refused { from, to, sequence }),
        _ => None,
    }
}

fn ports(from: End, to: End) -> [u8; 4] {
    let ([a, b], [c, d]) = (from.address.port().to_be_bytes(), to.address.port().to_be_bytes());
    [a, b, c, d]
}

/// Puts a segment whose checksum lies at `at` and is zero yet into a packet and a frame.
fn frame(from: End, to: End, protocol: u8, mut segment: Vec<u8>, at: usize) -> Option<Vec<u8>> {
    let length = u16::try_from(segment.len()).ok()?;
    let (source, destination) = (from.address.ip(), to.address.ip());
    let sum = checksum(source, destination, protocol, &segment);
    // For UDP zero would mean that there is none (RFC 768); for TCP it cannot matter.
    let sum = if sum == 0 { 0xffff } else { sum };
    segment.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
    let (ethertype, header) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = length.checked_add(20)?.to_be_bytes();
            let mut header =
                [&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0], &source.octets()[..]].concat();
            header.extend(destination.octets());
            let sum = super::frames::sum(&[&header]);
            header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
            (ETHERTYPE_IPV4, header)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = length.to_be_bytes();
            let start = [0x60, 0, 0, 0, high, low, protocol, 64];
            (ETHERTYPE_IPV6, [&start[..], &source.octets(), &destination.octets()].concat())
        }
        _ => return None,
    };
    Some([&to.mac.0[..], &from.mac.0, &ethertype.to_be_bytes(), &header, &segment].concat())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{End, Heard, datagram, opening, read};
    use crate::lab::{
        plan::Mac,
        probe::frames::{checksum, sum},
    };

    fn end(last: u8, address: &str) -> End {
        End { mac: Mac([2, 0, 0, 0, 1, last]), address: address.parse().unwrap() }
    }

    #[test]
    fn what_is_written_is_read_in_both_families() {
        for (from, to) in [("10.0.0.1:5", "10.0.0.2:80"), ("[fd10::1]:5", "[fd10::2]:80")] {
            let (from, to) = (end(1, from), end(2, to));
            let frame = datagram(from, to, b"17\n").unwrap();
            assert_eq!(
                read(&frame),
                Some(Heard::Datagram { from: from.address, to: 80, payload: b"17\n".as_slice() })
            );
            let segment = frame.len() - 11;
            assert_eq!(checksum(from.address.ip(), to.address.ip(), 17, &frame[segment..]), 0);
            if from.address.is_ipv4() {
                assert_eq!(sum(&[&frame[14..34]]), 0, "a sum over a right checksum is all ones");
            }
            let mut frame = opening(from, to, 9).unwrap();
            assert_eq!(read(&frame), None, "the opening itself is no answer");
            let segment = frame.len() - 20;
            // As the other side would answer: it acknowledges 9 + 1.
            frame[segment + 11] = 10;
            frame[segment + 13] = 0x12;
            assert_eq!(read(&frame), Some(Heard::Accepted { from: from.address, to: 80, sequence: 9 }));
            frame[segment + 13] = 0x14;
            assert_eq!(read(&frame), Some(Heard::Refused { from: from.address, to: 80, sequence: 9 }));
            for cut in 0..frame.len() {
                let _no_panic = read(&frame[..cut]);
            }
        }
    }

    #[test]
    fn padding_is_not_payload() {
        let mut frame = datagram(end(1, "10.0.0.1:5"), end(2, "10.0.0.2:80"), b"x").unwrap();
        frame.resize(60, 0);
        assert!(matches!(read(&frame), Some(Heard::Datagram { payload: b"x", .. })));
    }
}
