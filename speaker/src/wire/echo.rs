//! ICMP echo (RFC 792, RFC 4443 section 4): pings and their answers. And from any packet: who sent it where.

use std::net::IpAddr;

use super::ethernet::u16_at;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// Type, code, checksum, identifier, sequence number.
const ECHO_LEN: usize = 8;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TTL: u8 = 64;

/// Why a packet is not understood, or not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EchoError {
    /// Not an IP packet.
    #[error("not an IP packet")]
    NotIp,
    /// Fewer bytes than the fields need, or than a length field promises.
    #[error("truncated")]
    Truncated,
    /// Not an ICMP echo request of a single station.
    #[error("not a ping")]
    NotAPing,
    /// A wrong checksum.
    #[error("wrong checksum")]
    Checksum,
}

/// The parts of an IP packet that concern us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// To whom it goes.
    pub destination: IpAddr,
    /// The protocol of what it carries.
    pub protocol: u8,
    /// What it carries, as far as it is there.
    pub payload: &'a [u8],
    /// Whether all of it is there.
    pub is_whole: bool,
}

impl<'a> IpPacket<'a> {
    /// Views `bytes` as a packet that may be cut short.
    ///
    /// # Errors
    /// It is no IP packet, or its header is cut. Extension headers of IPv6 are not looked behind.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, EchoError> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => {
                let header = bytes.first_chunk::<IPV4_LEN>().ok_or(EchoError::Truncated)?;
                let header_length = usize::from(header[0] & 0xf) * 4;
                let length = usize::from(u16_at(header, 2));
                if header_length < IPV4_LEN || length < header_length {
                    return Err(EchoError::Truncated);
                }
                let end = length.min(bytes.len());
                let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
                Ok(Self {
                    source: [s0, s1, s2, s3].into(),
                    destination: [d0, d1, d2, d3].into(),
                    protocol: header[9],
                    payload: bytes.get(header_length..end).ok_or(EchoError::Truncated)?,
                    is_whole: end == length,
                })
            }
            Some(6) => {
                let header = bytes.first_chunk::<IPV6_LEN>().ok_or(EchoError::Truncated)?;
                let length = IPV6_LEN + usize::from(u16_at(header, 4));
                let end = length.min(bytes.len());
                let mut addresses =
                    header[8..].as_chunks::<16>().0.iter().map(|octets| IpAddr::from(*octets));
                let mut next = || addresses.next().ok_or(EchoError::Truncated);
                Ok(Self {
                    source: next()?,
                    destination: next()?,
                    protocol: header[6],
                    payload: &bytes[IPV6_LEN..end],
                    is_whole: end == length,
                })
            }
            _ => Err(EchoError::NotIp),
        }
    }

    /// The port it goes to, where it carries TCP, UDP or SCTP.
    pub fn destination_port(&self) -> Option<u16> {
        let has_ports =
            [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_SCTP].contains(&self.protocol.into());
        self.payload.get(2..4).filter(|_| has_ports).map(|port| u16_at(port, 0))
    }
}

/// The answer to a ping: a whole packet, and to whom it goes.
///
/// # Errors
/// It is no ping, not whole, or its checksum is wrong.
pub fn answer(ping: &[u8]) -> Result<(IpAddr, Vec<u8>), EchoError> {
    let packet = IpPacket::new_checked(ping)?;
    let (from, to) = (packet.source, packet.destination);
    let (protocol, request, reply) = match from {
        IpAddr::V4(_) => (ICMP, 8, 0),
        IpAddr::V6(_) => (ICMPV6, 128, 129),
    };
    if packet.protocol != protocol || packet.payload.first() != Some(&request) {
        return Err(EchoError::NotAPing);
    }
    if !packet.is_whole || packet.payload.len() < ECHO_LEN {
        return Err(EchoError::Truncated);
    }
    if from.is_multicast() || from.is_unspecified() {
        return Err(EchoError::NotAPing);
    }
    let pseudo = |from: IpAddr, to: IpAddr| match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = (packet.payload.len() as u32).to_be_bytes();
            [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat()
        }
        _ => Vec::new(),
    };
    if checksum(&[&pseudo(from, to), packet.payload]) != 0 {
        return Err(EchoError::Checksum);
    }
    let mut message = packet.payload.to_vec();
    message[0] = reply;
    message[2..4].fill(0);
    let sum = checksum(&[&pseudo(to, from), &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut answer = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = ((IPV4_LEN + message.len()) as u16).to_be_bytes();
            let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, TTL, ICMP, 0, 0];
            header.extend(to.octets());
            header.extend(from.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = (message.len() as u16).to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], ICMPV6, TTL];
            header.extend(to.octets());
            header.extend(from.octets());
            header
        }
        _ => return Err(EchoError::NotAPing),
    };
    answer.append(&mut message);
    Ok((from, answer))
}

/// The Internet checksum (RFC 1071) of parts, each but the last of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words.fold(0_u32, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or_default()]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ping as Linux sends it, of 192.0.2.1 to 192.168.10.50.
    #[rustfmt::skip]
    const PING: [u8; 32] = [
        0x45, 0, 0, 32, 0x12, 0x34, 0x40, 0, 64, 1, 0x9a, 0xb4, 192, 0, 2, 1, 192, 168, 10, 50,
        8, 0, 0x32, 0x34, 0, 7, 0, 1, b'p', b'i', b'n', b'g',
    ];

    fn with_sum(mut packet: Vec<u8>) -> Vec<u8> {
        let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
        packet[start + 2..start + 4].fill(0);
        let length = (packet.len() - start) as u32;
        let pseudo = if start == 40 {
            [&packet[8..40], &length.to_be_bytes(), &[0, 0, 0, 58]].concat()
        } else {
            Vec::new()
        };
        let sum = checksum(&[&pseudo, &packet[start..]]);
        packet[start + 2..start + 4].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn ping_v6() -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 12, 58, 64];
        packet.extend("fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::50".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend([128, 0, 0, 0, 0, 7, 0, 1, b'p', b'i', b'n', b'g']);
        with_sum(packet)
    }

    #[test]
    fn an_answer_goes_back_with_the_same_data() {
        for ping in [with_sum(PING.to_vec()), ping_v6()] {
            let asked = IpPacket::new_checked(&ping).unwrap();
            let (to, bytes) = answer(&ping).unwrap();
            let answered = IpPacket::new_checked(&bytes).unwrap();
            assert_eq!(
                (to, answered.destination, answered.source),
                (asked.source, asked.source, asked.destination)
            );
            assert_eq!(answered.payload[4..], asked.payload[4..]);
            assert!([0, 129].contains(&answered.payload[0]) && answered.is_whole);
            if to.is_ipv4() {
                assert_eq!(checksum(&[&bytes[..20]]), 0);
            }
            assert_eq!(with_sum(bytes.clone()), bytes);
            assert_eq!(answer(&bytes), Err(EchoError::NotAPing), "an answer is not answered");
        }
    }

    #[test]
    fn what_is_no_whole_ping_is_not_answered() {
        let ping = with_sum(PING.to_vec());
        assert_eq!(answer(&ping[..31]), Err(EchoError::Truncated));
        let mut wrong = ping.clone();
        wrong[31] ^= 1;
        assert_eq!(answer(&wrong), Err(EchoError::Checksum));
        let mut udp = ping.clone();
        udp[9] = 17;
        assert_eq!(answer(&udp), Err(EchoError::NotAPing));
        let mut from_a_group = ping;
        from_a_group[12] = 224;
        assert_eq!(answer(&from_a_group), Err(EchoError::NotAPing));
        assert_eq!(answer(&[]), Err(EchoError::NotIp));
    }

    #[test]
    fn a_packet_that_is_cut_short_still_tells_where_it_goes() {
        let mut tcp = PING.to_vec();
        tcp[9] = 6;
        tcp[20..24].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        let packet = IpPacket::new_checked(&tcp[..24]).unwrap();
        assert_eq!((packet.destination_port(), packet.is_whole), (Some(80), false));
        assert_eq!(packet.source.to_string(), "192.0.2.1");
        assert_eq!(IpPacket::new_checked(&PING).unwrap().destination_port(), None);
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_makes_answering_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), version in 3..8_u8) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0xf;
            }
            let _ = answer(&bytes);
            if let Ok(packet) = IpPacket::new_checked(&bytes) {
                let _ = packet.destination_port();
            }
        }
    }
}
