//! The decoders by themselves: they neither panic nor read what is not there, and what they take in means the
//! same when it is written again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU8, NonZeroU32};

use landfall_speaker::lan::MacAddr;
use landfall_speaker::ownership::claim::{Claim, Statement};
use landfall_speaker::ownership::gates::Gates;
use landfall_speaker::seal::{Ends, Sealer};
use landfall_speaker::wire::arp::{ArpRepr, Operation};
use landfall_speaker::wire::bfd::{self, ControlRepr, Diagnostic, Micros, Polling, State};
use landfall_speaker::wire::bfd_auth::AuthRepr;
use landfall_speaker::wire::ethernet::Frame;
use landfall_speaker::wire::ndp::{Message, NdpRepr};
use landfall_speaker::wire::speech::{Body, Entry, Header, SpeechRepr, Witnessed};

use crate::mutate::{Random, mutate};
use crate::trio::keys;
use crate::{Tally, fuzz};

fn any_mac(random: &mut Random) -> MacAddr {
    let bytes = random.next().to_be_bytes();
    *random.pick(&[
        MacAddr::BROADCAST,
        MacAddr::ZERO,
        MacAddr([2, 0, 0, 0, 0, bytes[7] % 4]),
        MacAddr(bytes[..6].try_into().unwrap()),
    ])
}

fn any_v4(random: &mut Random) -> Ipv4Addr {
    let number = random.next() as u32;
    *random.pick(&[
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(10, 0, 0, number as u8),
        Ipv4Addr::from_bits(number),
    ])
}

fn any_v6(random: &mut Random) -> Ipv6Addr {
    let number = random.next() as u16;
    *random.pick(&[
        Ipv6Addr::UNSPECIFIED,
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | number >> 8, number),
    ])
}

fn any_address(random: &mut Random) -> IpAddr {
    if random.once_in(2) { any_v4(random).into() } else { any_v6(random).into() }
}

fn any_entry(random: &mut Random) -> Entry {
    let claim = Claim {
        epoch: random.edge() as i64,
        term: random.edge(),
        rank: random.edge() as u16,
        isolated: random.once_in(2),
        leaving: random.once_in(2),
        probing: random.once_in(2),
        reluctant: random.once_in(2),
        unfit: random.once_in(2),
    };
    let statements =
        [Statement::Nothing, Statement::Refusing, Statement::Unfit, Statement::Announcing(claim)];
    let statement = *random.pick(&statements);
    Entry { address: any_address(random), statement }
}

pub fn any_speech(random: &mut Random) -> SpeechRepr {
    let header = Header {
        mac: any_mac(random),
        gates: Gates::from_bits(random.edge() as u16),
        instance: random.edge(),
        sequence: random.edge(),
        digest: random.edge(),
        knowledge: random.edge(),
        isolated: random.once_in(2),
        leaving: random.once_in(2),
    };
    let entries = (0..random.below(6)).map(|_| any_entry(random)).collect();
    let body = match random.below(12) {
        0 => Body::Heartbeat,
        1 => Body::Changes(entries),
        2 => Body::Query,
        3 => Body::Range { first: any_address(random), last: any_address(random), entries },
        4 => Body::Goodbye,
        5 => Body::DoYouHear(any_address(random)),
        6 => Body::DoYouKnow,
        7 => Body::Know(Box::new(std::array::from_fn(|_| random.edge()))),
        8 => Body::WhoHas((0..random.below(6)).map(|_| any_address(random)).collect()),
        9 => Body::Claimed(
            (0..random.below(4))
                .map(|_| Witnessed { mac: any_mac(random), entry: any_entry(random) })
                .collect(),
        ),
        10 => Body::Other,
        _ => Body::Hear { address: any_address(random), ago: random.edge() as u16 },
    };
    SpeechRepr { header, body }
}

pub fn any_control(random: &mut Random) -> ControlRepr {
    let number = |random: &mut Random| NonZeroU32::new(random.edge() as u32);
    ControlRepr {
        diagnostic: Diagnostic::from_code(random.next() as u8),
        state: *random.pick(&State::ALL),
        polling: *random.pick(&[Polling::None, Polling::Poll, Polling::Final]),
        control_plane_independent: random.once_in(2),
        demand: random.once_in(4),
        detect_mult: NonZeroU8::new(random.edge() as u8).unwrap_or(NonZeroU8::MIN),
        my_discriminator: number(random).unwrap_or(NonZeroU32::MIN),
        your_discriminator: number(random),
        desired_min_tx: Micros(random.edge() as u32),
        required_min_rx: Micros(random.edge() as u32),
        required_min_echo_rx: Micros(random.edge() as u32),
        auth: None,
    }
}

pub fn any_arp(random: &mut Random) -> Vec<u8> {
    let packet = ArpRepr {
        operation: *random.pick(&[Operation::Request, Operation::Reply]),
        sha: any_mac(random),
        spa: any_v4(random),
        tha: any_mac(random),
        tpa: any_v4(random),
    };
    packet.emit_frame(any_mac(random)).to_vec()
}

pub fn any_ndp(random: &mut Random) -> Vec<u8> {
    let mac = Some(any_mac(random)).filter(|_| !random.once_in(3));
    let message = if random.once_in(2) {
        Message::Solicitation { target: any_v6(random), source_mac: mac }
    } else {
        Message::Advertisement {
            target: any_v6(random),
            target_mac: mac,
            router: random.once_in(2),
            solicited: random.once_in(2),
            overrides: random.once_in(2),
        }
    };
    NdpRepr { source: any_v6(random), destination: any_v6(random), message }
        .emit_frame(any_mac(random), any_mac(random))
        .to_vec()
}

/// Makes a message look right again after it was changed: its length and its check.
pub fn mend_speech(message: &mut [u8]) {
    if message.len() < 56 {
        return;
    }
    let length = (message.len() as u16).to_be_bytes();
    message[8..10].copy_from_slice(&length);
    message[12..16].fill(0);
    let check = message
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    message[12..16].copy_from_slice(&check.to_be_bytes());
}

/// Makes a frame of neighbour discovery look right again: its lengths and its checksum.
pub fn mend_ndp(frame: &mut [u8]) {
    if frame.len() < 14 + 40 + 4 {
        return;
    }
    let length = ((frame.len() - 54) as u16).to_be_bytes();
    frame[18..20].copy_from_slice(&length);
    frame[56..58].fill(0);
    let words = |bytes: &[u8]| {
        let pairs = bytes.chunks(2);
        pairs.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum::<u32>()
    };
    let mut sum = words(&frame[22..54]) + words(&frame[54..]) + (frame.len() - 54) as u32 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Makes a Control packet as long as it says.
fn mend_bfd(payload: &mut [u8]) {
    if payload.len() >= 24 {
        payload[0] = 0x20 | payload[0] & 0x1f;
        payload[3] = payload.len().min(255) as u8;
    }
}

#[test]
fn arp() {
    let mut corpus_of = Random::new(1);
    let corpus: Vec<Vec<u8>> = (0..64).map(|_| any_arp(&mut corpus_of)).collect();
    let tally = fuzz("ARP", 1000, |random, tally| {
        for _ in 0..1000 {
            let mut frame = random.pick(&corpus).clone();
            mutate(random, &mut frame, &corpus);
            let Ok(view) = Frame::new_checked(&frame) else {
                tally.count("Truncated");
                continue;
            };
            match ArpRepr::parse_frame(&view) {
                Ok(packet) => {
                    let again = packet.emit_frame(view.destination());
                    assert_eq!(ArpRepr::parse_frame(&Frame::new_checked(&again).unwrap()), Ok(packet));
                    tally.count("taken in");
                }
                Err(error) => tally.count(&format!("{error:?}")),
            }
        }
    });
    assert!(["taken in", "Truncated", "NotArp", "EtherType"].iter().all(|what| tally.of(what) > 0));
}

#[test]
fn ndp() {
    let mut corpus_of = Random::new(2);
    let corpus: Vec<Vec<u8>> = (0..64).map(|_| any_ndp(&mut corpus_of)).collect();
    let tally = fuzz("NDP", 1000, |random, tally| {
        for _ in 0..1000 {
            let mut frame = random.pick(&corpus).clone();
            mutate(random, &mut frame, &corpus);
            if !random.once_in(4) {
                mend_ndp(&mut frame);
            }
            let Ok(view) = Frame::new_checked(&frame) else {
                tally.count("Truncated");
                continue;
            };
            match NdpRepr::parse_frame(&view) {
                Ok(packet) => {
                    let again = packet.emit_frame(view.source(), view.destination());
                    assert_eq!(NdpRepr::parse_frame(&Frame::new_checked(&again).unwrap()), Ok(packet));
                    tally.count("taken in");
                }
                Err(error) => tally.count(&format!("{error:?}")),
            }
        }
    });
    for what in ["taken in", "Truncated", "HopLimit", "Checksum", "InvalidNeighborDiscovery", "EtherType"] {
        assert!(tally.of(what) > 0, "{what}");
    }
}

#[test]
fn bfd_packets() {
    let mut corpus_of = Random::new(3);
    let corpus: Vec<Vec<u8>> = (0..64)
        .map(|number| {
            let mut control = any_control(&mut corpus_of);
            if control.your_discriminator.is_none() {
                control.state = State::Down;
            }
            let (key_id, sequence) = (corpus_of.next() as u8, corpus_of.next() as u32);
            control.auth = match number % 4 {
                0 => Some(AuthRepr::KeyedSha1 { meticulous: true, key_id, sequence, hash: [7; 20] }),
                1 => Some(AuthRepr::KeyedMd5 { meticulous: false, key_id, sequence, digest: [9; 16] }),
                _ => None,
            };
            [control.emit().as_ref(), &corpus_of.bytes(30)].concat()
        })
        .collect();
    let tally = fuzz("BFD", 1000, |random, tally| {
        for _ in 0..1000 {
            let mut payload = random.pick(&corpus).clone();
            mutate(random, &mut payload, &corpus);
            if random.once_in(2) {
                mend_bfd(&mut payload);
            }
            match ControlRepr::parse_payload(&payload) {
                Ok(control) => {
                    assert!(bfd::is_bfd(&payload));
                    let again = ControlRepr::parse_payload(control.emit().as_ref());
                    assert_eq!(again, Ok(control));
                    tally.count("taken in");
                }
                Err(error) => tally.count(&format!("{error:?}")),
            }
        }
    });
    for what in [
        "taken in",
        "Truncated",
        "Version",
        "Length",
        "LongerThanPayload",
        "DetectMult",
        "Multipoint",
        "PollAndFinal",
        "MyDiscriminator",
        "YourDiscriminator",
        "AuthType",
        "AuthLength",
    ] {
        assert!(tally.of(what) > 0, "{what}");
    }
}

fn speech_corpus() -> Vec<Vec<u8>> {
    let mut random = Random::new(4);
    (0..64).map(|_| any_speech(&mut random).emit()).collect()
}

#[test]
fn speech_without_keys() {
    let corpus = speech_corpus();
    let tally = fuzz("speech without keys", 1000, |random, tally| {
        for _ in 0..1000 {
            let mut message = random.pick(&corpus).clone();
            mutate(random, &mut message, &corpus);
            if !random.once_in(4) {
                mend_speech(&mut message);
            }
            read_speech(&message, tally);
        }
    });
    for what in ["taken in", "Truncated", "NotSpeech", "Checksum", "InvalidSpeech"] {
        assert!(tally.of(what) > 0, "{what}");
    }
}

fn read_speech(message: &[u8], tally: &mut Tally) {
    match SpeechRepr::parse_payload(message) {
        Ok(speech) => {
            assert_eq!(SpeechRepr::parse_payload(&speech.emit()), Ok(speech));
            tally.count("taken in");
        }
        Err(error) => tally.count(&format!("{error:?}")),
    }
}

#[test]
fn speech_with_keys() {
    let corpus = speech_corpus();
    let ends = Ends { from: Ipv4Addr::new(10, 0, 0, 2).into(), to: Ipv4Addr::new(10, 0, 0, 1).into() };
    let (mut ours, mut theirs) = (Sealer::new(1), Sealer::new(1));
    ours.set_keys(Some(keys("a secret that is shared by all")));
    theirs.set_keys(Some(keys("a secret that somebody guessed")));
    let tally = fuzz("speech with keys", 1000, |random, tally| {
        for _ in 0..1000 {
            let message = random.pick(&corpus).clone();
            let control = if random.once_in(2) { Vec::new() } else { random.bytes(60) };
            let is_ours = !random.once_in(4);
            let mut sealed = message.clone();
            let sealer = if is_ours { &mut ours } else { &mut theirs };
            sealer.seal(ends, &control, &mut sealed);
            let (mut at, mut behind, mut received) = (ends, control.clone(), sealed.clone());
            match random.below(4) {
                0 => {}
                1 => at.to = Ipv4Addr::new(10, 0, 0, 3).into(),
                2 => behind.push(0),
                _ => mutate(random, &mut received, &corpus),
            }
            let is_whole = (at, &behind, &received) == (ends, &control, &sealed);
            match ours.open(at, &behind, &received) {
                Ok(opened) => {
                    assert!(is_ours && is_whole, "a seal that was not made for this was believed");
                    assert_eq!(opened.message, message);
                    tally.count("taken in");
                }
                Err(error) => tally.count(&format!("{error:?}")),
            }
        }
    });
    for what in ["taken in", "Truncated", "Missing", "UnknownKey", "WrongMac"] {
        assert!(tally.of(what) > 0, "{what}");
    }
}
