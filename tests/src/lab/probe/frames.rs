//! The frames that ask who has an address, and those that answer: ARP (RFC 826)
//! and neighbour discovery (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::plan::Mac;

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: Mac = Mac([0xff; 6]);
/// All nodes on the link, ff02::1.
const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// What a frame of ARP or neighbour discovery says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Somebody asks who has an address. Without an asker it is a probe for a duplicate (RFC 5227, RFC 4862).
    Asks {
        /// The address.
        wanted: IpAddr,
        /// Who asks.
        asker: Option<IpAddr>,
        /// Whence.
        mac: Mac,
    },
    /// Somebody says where an address is.
    Tells {
        /// The address.
        address: IpAddr,
        /// Where it is.
        mac: Mac,
        /// Whether all are told, as by a gratuitous ARP, and not only one who asked.
        to_all: bool,
    },
}

/// Reads a frame of ARP or neighbour discovery.
pub(super) fn read(frame: &[u8]) -> Option<Said> {
    let ethertype = frame.get(12..14)?;
    if ethertype == ETHERTYPE_ARP.to_be_bytes() {
        read_arp(frame)
    } else if ethertype == ETHERTYPE_IPV6.to_be_bytes() && *frame.get(20)? == ICMPV6 {
        read_discovery(frame)
    } else {
        None
    }
}

/// The MAC address that a frame tells for `wanted`, if it is such a frame.
pub(super) fn claim(frame: &[u8], wanted: IpAddr) -> Option<Mac> {
    match read(frame)? {
        Said::Tells { address, mac, .. } if address == wanted => Some(mac),
        // Who asks tells where he is himself.
        Said::Asks { asker: Some(asker), mac, .. } if asker == wanted => Some(mac),
        _ => None,
    }
}

/// The frame that asks the LAN who has `wanted`; mixed families give none.
pub(super) fn question(from: Mac, asker: IpAddr, wanted: IpAddr) -> Option<Vec<u8>> {
    match (asker, wanted) {
        (IpAddr::V4(asker), IpAddr::V4(wanted)) => {
            Some(arp(BROADCAST, REQUEST, (from, asker), (Mac([0; 6]), wanted)))
        }
        (IpAddr::V6(asker), IpAddr::V6(wanted)) => {
            let [.., x, y, z] = wanted.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
            let to = (Mac([0x33, 0x33, 0xff, x, y, z]), group);
            Some(discovery(to, (from, asker), NEIGHBOUR_SOLICITATION, 0, wanted, (1, from)))
        }
        _ => None,
    }
}

/// The frame that asks one station, by ARP, whether it has `wanted`.
pub(super) fn unicast_question(to: Mac, from: Mac, asker: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    arp(to, REQUEST, (from, asker), (Mac([0; 6]), wanted))
}

/// The frame that tells one who asked that `address` is at `mac`; mixed families give none.
pub(super) fn reply(mac: Mac, address: IpAddr, to: Mac, asker: IpAddr) -> Option<Vec<u8>> {
    match (address, asker) {
        (IpAddr::V4(address), IpAddr::V4(asker)) => Some(arp(to, REPLY, (mac, address), (to, asker))),
        (IpAddr::V6(address), IpAddr::V6(asker)) => {
            // Solicited, override (RFC 4861, section 4.4).
            Some(discovery((to, asker), (mac, address), NEIGHBOUR_ADVERTISEMENT, 0x60, address, (2, mac)))
        }
        _ => None,
    }
}

/// The frame that tells everybody that `address` is at `mac`: a gratuitous ARP request, or an unsolicited
/// neighbour advertisement.
pub(super) fn announcement(mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(BROADCAST, REQUEST, (mac, address), (Mac([0; 6]), address)),
        IpAddr::V6(address) => {
            let all = (ALL_NODES, Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
            discovery(all, (mac, address), NEIGHBOUR_ADVERTISEMENT, 0x20, address, (2, mac))
        }
    }
}

fn arp(to: Mac, operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let header = [0, 1, 8, 0, 6, 4, 0, operation];
    let [mine, theirs] = [sender, target].map(|(mac, address)| [&mac.0[..], &address.octets()].concat());
    [&to.0, &sender.0.0[..], &ETHERTYPE_ARP.to_be_bytes(), &header, &mine, &theirs].concat()
}

fn read_arp(frame: &[u8]) -> Option<Said> {
    let arp = frame.get(14..42)?;
    let [sender, target] = [14, 24].map(|at| arp.get(at..at + 4)?.try_into().ok().map(<[u8; 4]>::into));
    let (sender, target): (Ipv4Addr, Ipv4Addr) = (sender?, target?);
    let mac = mac(arp.get(8..14))?;
    let to_all = frame.get(..6)? == BROADCAST.0;
    match arp.get(..8)? {
        [0, 1, 8, 0, 6, 4, 0, REQUEST] if sender != target => {
            let asker = (!sender.is_unspecified()).then_some(IpAddr::V4(sender));
            Some(Said::Asks { wanted: target.into(), asker, mac })
        }
        [0, 1, 8, 0, 6, 4, 0, REQUEST | REPLY] => Some(Said::Tells { address: sender.into(), mac, to_all }),
        _ => None,
    }
}

/// A message of neighbour discovery with one option: a link-layer address of this type.
fn discovery(
    (to, destination): (Mac, Ipv6Addr),
    (from, source): (Mac, Ipv6Addr),
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    (option, link_address): (u8, Mac),
) -> Vec<u8> {
    let start = [kind, 0, 0, 0, flags, 0, 0, 0];
    let mut message = [&start[..], &target.octets(), &[option, 1], &link_address.0].concat();
    let checksum = checksum(source.into(), destination.into(), ICMPV6, &message);
    message.splice(2..4, checksum.to_be_bytes());
    let ethernet = [&to.0[..], &from.0, &ETHERTYPE_IPV6.to_be_bytes()].concat();
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let ends = [source.octets(), destination.octets()].concat();
    [&ethernet[..], &[0x60, 0, 0, 0], &length, &[ICMPV6, 255], &ends, &message].concat()
}

fn read_discovery(frame: &[u8]) -> Option<Said> {
    let message = frame.get(54..)?;
    let address = |at: usize| frame.get(at..at + 16)?.try_into().ok().map(<[u8; 16]>::into);
    let (source, target): (Ipv6Addr, Ipv6Addr) = (address(22)?, address(62)?);
    // The option's link-layer address, else the frame's sender.
    let option = message.get(24..32).filter(|option| matches!(option, [1 | 2, 1, ..]));
    let mac = mac(option.map_or_else(|| frame.get(6..12), |option| option.get(2..8)))?;
    match *message.first()? {
        NEIGHBOUR_SOLICITATION => {
            let asker = (!source.is_unspecified()).then_some(IpAddr::V6(source));
            Some(Said::Asks { wanted: target.into(), asker, mac })
        }
        NEIGHBOUR_ADVERTISEMENT => {
            let to_all = frame.get(..2)? == [0x33, 0x33];
            Some(Said::Tells { address: target.into(), mac, to_all })
        }
        _ => None,
    }
}

fn mac(bytes: Option<&[u8]>) -> Option<Mac> {
    bytes?.try_into().ok().map(Mac)
}

/// The checksum over the pseudo-header and the message of a protocol above IP (RFC 768, RFC 8200 section 8.1);
/// over a message that has its checksum it is zero.
pub(super) fn checksum(from: IpAddr, to: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    sum(&[&octets(from), &octets(to), &length, &[0, 0, 0, protocol], message])
}

/// The Internet checksum (RFC 1071); every part but the last has an even length.
pub(super) fn sum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| {
        u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
    };
    let mut sum: u32 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{ICMPV6, Mac, Said, announcement, checksum, claim, question, read, reply};

    const ASKER: Mac = Mac([2, 0, 0, 0, 2, 1]);
    const OWNER: Mac = Mac([2, 0, 0, 0, 1, 1]);

    fn pairs() -> [(IpAddr, IpAddr); 2] {
        [("192.168.10.101", "192.168.10.150"), ("fd10::101", "fd10::150")]
            .map(|(asker, wanted)| (asker.parse().unwrap(), wanted.parse().unwrap()))
    }

    #[test]
    fn a_question_claims_its_askers_address_and_no_other() {
        for (asker, wanted) in pairs() {
            let frame = question(ASKER, asker, wanted).unwrap();
            assert_eq!(read(&frame), Some(Said::Asks { wanted, asker: Some(asker), mac: ASKER }));
            assert_eq!(claim(&frame, asker), Some(ASKER));
            assert_eq!(claim(&frame, wanted), None);
            for cut in 0..frame.len() - 8 {
                assert!(claim(&frame[..cut], wanted).is_none());
            }
        }
    }

    #[test]
    fn an_answer_is_for_one_and_an_announcement_for_all() {
        for (asker, wanted) in pairs() {
            let answer = reply(OWNER, wanted, ASKER, asker).unwrap();
            assert_eq!(read(&answer), Some(Said::Tells { address: wanted, mac: OWNER, to_all: false }));
            let told = announcement(OWNER, wanted);
            assert_eq!(read(&told), Some(Said::Tells { address: wanted, mac: OWNER, to_all: true }));
            assert_eq!([claim(&answer, wanted), claim(&told, wanted)], [Some(OWNER); 2]);
        }
    }

    #[test]
    fn a_solicitation_checks_out() {
        let [_, (asker, wanted)] = pairs();
        let frame = question(ASKER, asker, wanted).unwrap();
        let group = "ff02::1:ff00:150".parse().unwrap();
        assert_eq!(
            checksum(asker, group, ICMPV6, &frame[54..]),
            0,
            "a sum over a right checksum is all ones"
        );
    }

    #[test]
    fn a_probe_for_a_duplicate_has_no_asker() {
        let [(_, wanted), (_, wanted_v6)] = pairs();
        for (unspecified, wanted) in [("0.0.0.0", wanted), ("::", wanted_v6)] {
            let frame = question(ASKER, unspecified.parse().unwrap(), wanted).unwrap();
            assert_eq!(read(&frame), Some(Said::Asks { wanted, asker: None, mac: ASKER }));
        }
    }

    #[test]
    fn without_an_option_an_advertisement_names_the_frames_sender() {
        let [_, (asker, wanted)] = pairs();
        let mut frame = reply(OWNER, wanted, ASKER, asker).unwrap();
        frame.truncate(78);
        assert_eq!(claim(&frame, wanted), Some(OWNER));
    }
}
