//! Golden bytes both ways, and what no bytes can do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::WireError;
use super::arp::{ArpRepr, Operation};
use super::ethernet::Frame;
use super::ndp::{ALL_NODES, Message, NdpRepr, multicast_mac, solicited_node_group};
use super::speech::{
    self, Body, Entry, Header, MOST_ADDRESSES, MOST_WITNESSED, SpeechRepr, Witnessed, digest, room_for,
};
use crate::lan::MacAddr;
use crate::ownership::claim::{Claim, Statement};
use crate::ownership::gates::Gates;
use crate::ownership::knowledge::BUCKETS;

const OURS: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x10, 0x00, 0x01]);
const THEIRS: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0xaa]);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 50);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x50);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn arp(bytes: &[u8]) -> Result<ArpRepr, WireError> {
    ArpRepr::parse_frame(&Frame::new_checked(bytes)?)
}

fn ndp(bytes: &[u8]) -> Result<NdpRepr, WireError> {
    NdpRepr::parse_frame(&Frame::new_checked(bytes)?)
}

/// A gratuitous request as it is on the wire, padded to the shortest frame.
const GRATUITOUS_REQUEST: &str = "ffffffffffff 02005e100001 0806
    0001 0800 06 04 0001 02005e100001 c0a80a32 000000000000 c0a80a32
    000000000000000000000000000000000000";
const GRATUITOUS_REPLY: &str = "ffffffffffff 02005e100001 0806
    0001 0800 06 04 0002 02005e100001 c0a80a32 02005e100001 c0a80a32
    000000000000000000000000000000000000";
const ADVERTISEMENT: &str = "333300000001 02005e100001 86dd
    6000000000203aff fd000000000000000000000000000050 ff020000000000000000000000000001
    8800fbec 20000000 fd000000000000000000000000000050 0201 02005e100001";
const SOLICITATION: &str = "3333ff000050 0200000000aa 86dd
    6000000000203aff fd000000000000000000000000000099 ff0200000000000000000001ff000050
    87007bba 00000000 fd000000000000000000000000000050 0101 0200000000aa";
const DUPLICATE_PROBE: &str = "3333ff000050 0200000000aa 86dd
    6000000000183aff 00000000000000000000000000000000 ff0200000000000000000001ff000050
    87007d07 00000000 fd000000000000000000000000000050";

#[test]
fn gratuitous_arp_is_golden() {
    let request =
        ArpRepr { operation: Operation::Request, sha: OURS, spa: VIP4, tha: MacAddr::ZERO, tpa: VIP4 };
    assert_eq!(request.emit_frame(MacAddr::BROADCAST).to_vec(), hex(GRATUITOUS_REQUEST));
    assert_eq!(arp(&hex(GRATUITOUS_REQUEST)), Ok(request));
    // Linux takes a reply for gratuitous only with the target hardware address of the sender.
    let reply = ArpRepr { operation: Operation::Reply, tha: OURS, ..request };
    assert_eq!(reply.emit_frame(MacAddr::BROADCAST).to_vec(), hex(GRATUITOUS_REPLY));
    assert_eq!(arp(&hex(GRATUITOUS_REPLY)), Ok(reply));
}

#[test]
fn neighbor_discovery_is_golden() {
    let message = Message::Advertisement {
        target: VIP6,
        target_mac: Some(OURS),
        router: false,
        solicited: false,
        overrides: true,
    };
    let unsolicited = NdpRepr { source: VIP6, destination: ALL_NODES, message };
    assert_eq!(unsolicited.emit_frame(OURS, multicast_mac(ALL_NODES)).to_vec(), hex(ADVERTISEMENT));
    assert_eq!(ndp(&hex(ADVERTISEMENT)), Ok(unsolicited));

    let group = solicited_node_group(VIP6);
    assert_eq!(group, "ff02::1:ff00:50".parse::<Ipv6Addr>().unwrap());
    let message = Message::Solicitation { target: VIP6, source_mac: Some(THEIRS) };
    let question = NdpRepr { source: "fd00::99".parse().unwrap(), destination: group, message };
    assert_eq!(question.emit_frame(THEIRS, multicast_mac(group)).to_vec(), hex(SOLICITATION));
    assert_eq!(ndp(&hex(SOLICITATION)), Ok(question));

    let message = Message::Solicitation { target: VIP6, source_mac: None };
    let probe = NdpRepr { source: Ipv6Addr::UNSPECIFIED, destination: group, message };
    assert_eq!(probe.emit_frame(THEIRS, multicast_mac(group)).to_vec(), hex(DUPLICATE_PROBE));
    assert_eq!(ndp(&hex(DUPLICATE_PROBE)), Ok(probe));
}

#[test]
fn arp_of_other_kinds_is_none_of_ours() {
    let changed = |at: usize, byte: u8| {
        let mut frame = hex(GRATUITOUS_REQUEST);
        frame[at] = byte;
        arp(&frame)
    };
    assert_eq!(changed(13, 0x05), Err(WireError::EtherType));
    assert_eq!(changed(15, 6), Err(WireError::NotArp), "hardware type of IEEE 802");
    assert_eq!(changed(17, 1), Err(WireError::NotArp), "another protocol");
    assert_eq!(changed(18, 8), Err(WireError::NotArp), "another hardware length");
    assert_eq!(changed(19, 16), Err(WireError::NotArp), "another protocol length");
    assert_eq!(changed(21, 3), Err(WireError::NotArp), "reverse ARP");
    let mut tagged = hex(GRATUITOUS_REQUEST);
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    assert_eq!(arp(&tagged), Err(WireError::EtherType), "a VLAN tag");
    for length in 0..42 {
        assert_eq!(arp(&hex(GRATUITOUS_REQUEST)[..length]), Err(WireError::Truncated), "{length}");
    }
    assert!(arp(&hex(GRATUITOUS_REQUEST)[..42]).is_ok(), "padding is not needed");
}

/// The golden solicitation with some bytes of the IPv6 packet changed and the checksum made right again.
fn forged(golden: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<NdpRepr, WireError> {
    let mut frame = hex(golden);
    change(&mut frame);
    frame[56..58].copy_from_slice(&[0, 0]);
    let length = u16::from_be_bytes([frame[18], frame[19]]);
    let mut bytes = frame[22..54].to_vec();
    bytes.extend([0, 0, length.to_be_bytes()[0], length.to_be_bytes()[1], 0, 0, 0, 58]);
    bytes.extend(&frame[54..54 + usize::from(length)]);
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    ndp(&frame)
}

#[test]
fn neighbor_discovery_that_breaks_a_rule_is_ignored() {
    use WireError::{Checksum, HopLimit, InvalidNeighborDiscovery, NotNeighborDiscovery, Truncated};
    assert!(forged(SOLICITATION, |_| {}).is_ok());
    let mut wrong = hex(SOLICITATION);
    wrong[57] ^= 1;
    assert_eq!(ndp(&wrong), Err(Checksum));
    assert_eq!(forged(SOLICITATION, |frame| frame[21] = 254), Err(HopLimit), "a router passed it on");
    assert_eq!(forged(SOLICITATION, |frame| frame[55] = 1), Err(InvalidNeighborDiscovery), "a code");
    assert_eq!(forged(SOLICITATION, |frame| frame[62] = 0xff), Err(InvalidNeighborDiscovery), "a group");
    assert_eq!(forged(SOLICITATION, |frame| frame[79] = 0), Err(InvalidNeighborDiscovery), "option length 0");
    assert_eq!(forged(SOLICITATION, |frame| frame[79] = 2), Err(Truncated), "an option longer than it is");
    assert_eq!(forged(SOLICITATION, |frame| frame[20] = 0), Err(NotNeighborDiscovery), "hop by hop first");
    assert_eq!(forged(SOLICITATION, |frame| frame[54] = 128), Err(NotNeighborDiscovery), "an echo request");
    assert_eq!(forged(SOLICITATION, |frame| frame[14] = 0x45), Err(NotNeighborDiscovery), "IPv4 inside");
    let unspecified = |frame: &mut Vec<u8>| frame[22..38].fill(0);
    assert_eq!(
        forged(SOLICITATION, unspecified),
        Err(InvalidNeighborDiscovery),
        "a probe for duplicates does not tell its hardware address"
    );
    let to_one = |frame: &mut Vec<u8>| frame[38..54].copy_from_slice(&VIP6.octets());
    assert_eq!(forged(DUPLICATE_PROBE, to_one), Err(InvalidNeighborDiscovery), "nor is it unicast");
    assert_eq!(
        forged(ADVERTISEMENT, |frame| frame[58] = 0x60),
        Err(InvalidNeighborDiscovery),
        "an answer to a question goes to its asker alone"
    );
    for length in 0..86 {
        assert!(ndp(&hex(SOLICITATION)[..length]).is_err(), "{length}");
    }
}

#[test]
fn unknown_options_are_passed_over() {
    let with_nonce = forged(DUPLICATE_PROBE, |frame| {
        frame[19] += 8;
        frame.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    });
    assert_eq!(with_nonce, ndp(&hex(DUPLICATE_PROBE)));
}

fn header() -> Header {
    Header {
        mac: OURS,
        gates: Gates::PROXY.with(Gates::STALE),
        instance: 0x0102_0304_0506_0708,
        sequence: 7,
        digest: 0x1112_1314_1516_1718,
        knowledge: 0x2122_2324_2526_2728,
        isolated: false,
        leaving: true,
    }
}

fn claim() -> Claim {
    Claim { epoch: -2, term: 9, rank: 3, isolated: true, probing: true, ..Claim::default() }
}

#[test]
fn speech_is_golden() {
    let heartbeat = SpeechRepr { header: header(), body: Body::Heartbeat };
    let golden = hex("4c467370 01 01 02 07 0038 0000 a30d1840 02005e100001 0005
        0102030405060708 0000000000000007 1112131415161718 2122232425262728");
    assert_eq!(heartbeat.emit(), golden);
    assert_eq!(SpeechRepr::parse_payload(&golden), Ok(heartbeat));

    let entries = vec![
        Entry { address: VIP4.into(), statement: Statement::Announcing(claim()) },
        Entry { address: VIP6.into(), statement: Statement::Refusing },
    ];
    let changes = SpeechRepr { header: header(), body: Body::Changes(entries) };
    let golden = hex("4c467370 01 02 02 07 0074 0002 92d48444 02005e100001 0005
        0102030405060708 0000000000000007 1112131415161718 2122232425262728
        04 52 0003 fffffffffffffffe 0000000000000009 c0a80a32
        06 01 0000 0000000000000000 0000000000000000 fd000000000000000000000000000050");
    assert_eq!(changes.emit(), golden);
    assert_eq!(SpeechRepr::parse_payload(&golden), Ok(changes));
}

#[test]
fn speech_of_another_version_or_protocol_is_ignored() {
    let heartbeat = SpeechRepr { header: header(), body: Body::Heartbeat }.emit();
    let mut newer = heartbeat.clone();
    newer[4] = 2;
    assert_eq!(SpeechRepr::parse_payload(&newer), Err(WireError::NotSpeech));
    let mut longer = heartbeat.clone();
    longer.push(0);
    assert_eq!(SpeechRepr::parse_payload(&longer), Err(WireError::Truncated));
    assert_eq!(SpeechRepr::parse_payload(b"GET / HTTP/1.1\r\n"), Err(WireError::Truncated));
    assert_eq!(SpeechRepr::parse_payload(&[b'x'; 80]), Err(WireError::NotSpeech));
}

#[test]
fn what_only_a_later_version_says_is_a_sign_of_life() {
    let heartbeat = SpeechRepr { header: header(), body: Body::Heartbeat };
    let mut later = heartbeat.emit();
    // A longer header, a flag more, a kind that is not known here and what belongs to it.
    later.splice(56..56, [7; 8]);
    later.extend([1, 2, 3]);
    (later[5], later[6], later[7]) = (99, later[6] | 0x80, 8);
    let length = u16::try_from(later.len()).unwrap();
    later[8..10].copy_from_slice(&length.to_be_bytes());
    let checked = speech::checked(later);
    let expected = SpeechRepr { header: header(), body: Body::Other };
    assert_eq!(SpeechRepr::parse_payload(&checked), Ok(expected));
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let claim = any::<(i64, u64, u16, [bool; 5])>().prop_map(
        |(epoch, term, rank, [unfit, reluctant, isolated, leaving, probing])| Claim {
            epoch,
            term,
            rank,
            unfit,
            reluctant,
            isolated,
            leaving,
            probing,
        },
    );
    let statement = prop_oneof![
        Just(Statement::Nothing),
        Just(Statement::Refusing),
        Just(Statement::Unfit),
        claim.prop_map(Statement::Announcing),
    ];
    (any_address(), statement).prop_map(|(address, statement)| Entry { address, statement })
}

fn any_speech() -> impl Strategy<Value = SpeechRepr> {
    let entries = || proptest::collection::vec(any_entry(), 0..30);
    let body = prop_oneof![
        Just(Body::Heartbeat),
        Just(Body::Query),
        Just(Body::Goodbye),
        any_address().prop_map(Body::DoYouHear),
        (any_address(), any::<u16>()).prop_map(|(address, ago)| Body::Hear { address, ago }),
        entries().prop_map(Body::Changes),
        (any_address(), any_address(), entries()).prop_map(|(first, last, entries)| Body::Range {
            first,
            last,
            entries
        }),
        Just(Body::DoYouKnow),
        any::<[u64; BUCKETS]>().prop_map(|buckets| Body::Know(Box::new(buckets))),
        proptest::collection::vec(any_address(), 0..MOST_ADDRESSES).prop_map(Body::WhoHas),
        proptest::collection::vec((any::<[u8; 6]>(), any_entry()), 0..MOST_WITNESSED).prop_map(|claims| {
            let witnessed = |(mac, entry)| Witnessed { mac: MacAddr(mac), entry };
            Body::Claimed(claims.into_iter().map(witnessed).collect())
        }),
        Just(Body::Other),
    ];
    let header = any::<([u8; 6], u16, u64, u64, u64, u64, bool, bool)>().prop_map(
        |(mac, gates, instance, sequence, digest, knowledge, isolated, leaving)| Header {
            mac: MacAddr(mac),
            gates: Gates::from_bits(gates),
            instance,
            sequence,
            digest,
            knowledge,
            isolated,
            leaving,
        },
    );
    (header, body).prop_map(|(header, body)| SpeechRepr { header, body })
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (arp(&bytes), ndp(&bytes), SpeechRepr::parse_payload(&bytes));
    }

    #[test]
    fn no_bytes_behind_a_right_beginning_make_a_parser_panic(
        golden in prop_oneof![Just(GRATUITOUS_REQUEST), Just(ADVERTISEMENT), Just(SOLICITATION)],
        keep in 12_usize..80,
        rest in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = hex(golden);
        bytes.truncate(keep);
        bytes.extend(rest);
        let _ = (arp(&bytes), ndp(&bytes));
    }

    #[test]
    fn arp_survives_the_wire(
        is_request: bool, sha: [u8; 6], spa: u32, tha: [u8; 6], tpa: u32, to: [u8; 6],
    ) {
        let packet = ArpRepr {
            operation: if is_request { Operation::Request } else { Operation::Reply },
            sha: MacAddr(sha),
            spa: Ipv4Addr::from_bits(spa),
            tha: MacAddr(tha),
            tpa: Ipv4Addr::from_bits(tpa),
        };
        prop_assert_eq!(arp(&packet.emit_frame(MacAddr(to))), Ok(packet));
    }

    #[test]
    fn neighbor_discovery_survives_the_wire(
        source in 1_u128..=u128::MAX >> 8, target in 0_u128..=u128::MAX >> 8, mac: Option<[u8; 6]>,
        is_question: bool, router: bool, solicited: bool, overrides: bool,
    ) {
        let (source, target) = (Ipv6Addr::from_bits(source), Ipv6Addr::from_bits(target));
        let mac = mac.map(MacAddr);
        let message = if is_question {
            Message::Solicitation { target, source_mac: mac }
        } else {
            Message::Advertisement { target, target_mac: mac, router, solicited, overrides }
        };
        let destination = if solicited { source } else { solicited_node_group(target) };
        let packet = NdpRepr { source, destination, message };
        let frame = packet.emit_frame(OURS, THEIRS);
        prop_assert_eq!(ndp(&frame), Ok(packet));
        for length in 14..frame.len() {
            prop_assert!(ndp(&frame[..length]).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_of_neighbor_discovery_is_noticed(at in 22_usize..86, bit in 0_u32..8) {
        let mut frame = hex(SOLICITATION);
        frame[at] ^= 1 << bit;
        prop_assert!(ndp(&frame).is_err());
    }

    #[test]
    fn speech_survives_the_wire(speech in any_speech()) {
        prop_assert_eq!(SpeechRepr::parse_payload(&speech.emit()), Ok(speech));
    }

    #[test]
    fn cut_or_flipped_speech_is_refused(speech in any_speech(), at: prop::sample::Index, bit in 0_u32..8) {
        let bytes = speech.emit();
        prop_assert!(SpeechRepr::parse_payload(&bytes[..at.index(bytes.len())]).is_err());
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= 1 << bit;
        prop_assert!(SpeechRepr::parse_payload(&flipped).is_err());
    }

    #[test]
    fn a_message_of_as_many_entries_as_there_is_room_for_fits_the_lan(
        entries in proptest::collection::vec(any_entry(), 0..120),
    ) {
        let count = room_for(&entries);
        prop_assert!(count == entries.len() || count >= 30);
        let (first, last) = (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from_bits(u128::MAX).into());
        let body = Body::Range { first, last, entries: entries[..count].to_vec() };
        let bytes = SpeechRepr { header: header(), body }.emit();
        prop_assert!(bytes.len() <= super::speech::MAX_LEN);
    }

    #[test]
    fn different_statements_have_different_digests(one in any_entry(), other in any_entry()) {
        prop_assert_eq!(one == other, digest(&one) == digest(&other)
            && !(one.statement == Statement::Nothing && one != other));
    }
}
