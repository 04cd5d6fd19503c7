//! The frames that ask who has an address, and those that answer: ARP (RFC 826)
//! and neighbour discovery (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::plan::Mac;

pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: Mac = Mac([0xff; 6]);
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The frame that asks the LAN who has `wanted`; mixed families give none.
pub(super) fn question(from: Mac, asker: IpAddr, wanted: IpAddr) -> Option<Vec<u8>> {
    match (asker, wanted) {
        (IpAddr::V4(asker), IpAddr::V4(wanted)) => Some(arp_request(from, asker, wanted)),
        (IpAddr::V6(asker), IpAddr::V6(wanted)) => Some(solicitation(from, asker, wanted)),
        _ => None,
    }
}

/// The MAC address that a frame claims for `wanted`, if it is such a frame.
pub(super) fn claim(frame: &[u8], wanted: IpAddr) -> Option<Mac> {
    match wanted {
        IpAddr::V4(wanted) => arp_claim(frame, wanted),
        IpAddr::V6(wanted) => advertisement(frame, wanted),
    }
}

fn arp_request(from: Mac, asker: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let [mac, asker, wanted] = [from.0.to_vec(), asker.octets().to_vec(), wanted.octets().to_vec()];
    let header = [0, 1, 8, 0, 6, 4, 0, 1];
    [&BROADCAST.0, &mac[..], &ETHERTYPE_ARP.to_be_bytes(), &header, &mac, &asker, &[0; 6], &wanted].concat()
}

/// Replies, and requests that announce: both name the sender's MAC address for the sender's address.
fn arp_claim(frame: &[u8], wanted: Ipv4Addr) -> Option<Mac> {
    let arp = frame.get(14..42)?;
    let is_arp = frame.get(12..14)? == ETHERTYPE_ARP.to_be_bytes() && arp.get(..6)? == [0, 1, 8, 0, 6, 4];
    (is_arp && arp.get(14..18)? == wanted.octets()).then(|| mac(arp.get(8..14)))?
}

fn solicitation(from: Mac, asker: Ipv6Addr, wanted: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = wanted.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
    let source_link_address = [&[1, 1], &from.0[..]].concat();
    let mut message =
        [&[NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &wanted.octets()[..], &source_link_address].concat();
    let checksum = checksum(asker, group, &message);
    message.splice(2..4, checksum.to_be_bytes());
    let ethernet = [&[0x33, 0x33, 0xff, x, y, z], &from.0[..], &ETHERTYPE_IPV6.to_be_bytes()].concat();
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [&[0x60, 0, 0, 0], &length[..], &[ICMPV6, 255], &asker.octets(), &group.octets()].concat();
    [ethernet, header, message].concat()
}

/// A neighbour advertisement for `wanted`: the target's link-layer address, else the frame's sender.
fn advertisement(frame: &[u8], wanted: Ipv6Addr) -> Option<Mac> {
    let is_icmp = frame.get(12..14)? == ETHERTYPE_IPV6.to_be_bytes() && *frame.get(20)? == ICMPV6;
    let message = frame.get(54..)?;
    if !is_icmp || *message.first()? != NEIGHBOUR_ADVERTISEMENT || message.get(8..24)? != wanted.octets() {
        return None;
    }
    let option = message.get(24..32).filter(|option| option.get(..2) == Some(&[2, 1]));
    option.map_or_else(|| mac(frame.get(6..12)), |option| mac(option.get(2..8)))
}

fn mac(bytes: Option<&[u8]>) -> Option<Mac> {
    bytes?.try_into().ok().map(Mac)
}

/// The ICMPv6 checksum over the pseudo-header and the message (RFC 4443, section 2.3).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let all = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6], message].concat();
    let word = |pair: &[u8]| {
        u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
    };
    let mut sum: u32 = all.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Mac, checksum, claim, question};

    const ASKER: Mac = Mac([2, 0, 0, 0, 2, 1]);

    #[test]
    fn an_arp_request_claims_its_senders_address_and_no_other() {
        let frame =
            question(ASKER, "192.168.10.101".parse().unwrap(), "192.168.10.150".parse().unwrap()).unwrap();
        assert_eq!(frame.len(), 42);
        assert_eq!(claim(&frame, "192.168.10.101".parse().unwrap()), Some(ASKER));
        assert_eq!(claim(&frame, "192.168.10.150".parse().unwrap()), None);
        assert_eq!(claim(&frame[..30], "192.168.10.101".parse().unwrap()), None, "cut off");
    }

    #[test]
    fn a_solicitation_checks_out_and_is_no_advertisement() {
        let [asker, wanted] = ["fd10::101", "fd10::150"].map(|text| text.parse().unwrap());
        let mut frame = question(ASKER, std::net::IpAddr::V6(asker), std::net::IpAddr::V6(wanted)).unwrap();
        let group = "ff02::1:ff00:150".parse().unwrap();
        assert_eq!(checksum(asker, group, &frame[54..]), 0, "a sum over a right checksum is all ones");
        assert_eq!(claim(&frame, wanted.into()), None);
        (frame[54], frame[78]) = (136, 2);
        assert_eq!(claim(&frame, wanted.into()), Some(ASKER));
        frame.truncate(78);
        assert_eq!(claim(&frame, wanted.into()), Some(ASKER), "without the option, the frame's sender");
    }
}
