//! Golden bytes both ways, each rule of reception by itself, and what no bytes can do.

use proptest::prelude::*;

use super::super::bfd_auth::Password;
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn discriminator(number: u32) -> Discriminator {
    NonZeroU32::new(number).unwrap()
}

fn up() -> ControlRepr {
    ControlRepr {
        diagnostic: Diagnostic::NoDiagnostic,
        state: State::Up,
        polling: Polling::None,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: discriminator(0x0a0b_0c0d),
        your_discriminator: Some(discriminator(0x0102_0304)),
        desired_min_tx: Micros(100_000),
        required_min_rx: Micros(100_000),
        required_min_echo_rx: Micros(0),
        auth: None,
    }
}

fn is_golden(repr: &ControlRepr, bytes: &str) {
    assert_eq!(repr.emit().as_ref(), hex(bytes), "{repr:?}");
    assert_eq!(ControlRepr::parse_payload(&hex(bytes)).as_ref(), Ok(repr));
}

#[test]
fn a_packet_without_authentication_is_golden() {
    is_golden(&up(), "20 c0 03 18 0a0b0c0d 01020304 000186a0 000186a0 00000000");
    let first = ControlRepr {
        diagnostic: Diagnostic::ControlDetectionTimeExpired,
        state: State::Down,
        polling: Polling::Poll,
        your_discriminator: None,
        desired_min_tx: Micros(1_000_000),
        ..up()
    };
    is_golden(&first, "21 60 03 18 0a0b0c0d 00000000 000f4240 000186a0 00000000");
    let answer = ControlRepr {
        diagnostic: Diagnostic::AdministrativelyDown,
        state: State::AdminDown,
        polling: Polling::Final,
        control_plane_independent: true,
        demand: true,
        required_min_echo_rx: Micros(50_000),
        ..up()
    };
    is_golden(&answer, "27 1a 03 18 0a0b0c0d 01020304 000186a0 000186a0 0000c350");
    let opening = ControlRepr { state: State::Init, diagnostic: Diagnostic::Other(31), ..up() };
    is_golden(&opening, "3f 80 03 18 0a0b0c0d 01020304 000186a0 000186a0 00000000");
}

#[test]
fn authentication_sections_are_golden() {
    let header = |length: &str| format!("20 c4 03 {length} 0a0b0c0d 01020304 000186a0 000186a0 00000000");
    let with = |auth| ControlRepr { auth: Some(auth), ..up() };
    let password = Password::new(b"open").unwrap();
    let simple = with(AuthRepr::SimplePassword { key_id: 9, password });
    is_golden(&simple, &format!("{} 01 07 09 6f70656e", header("1f")));
    for (meticulous, kind) in [(false, "02"), (true, "03")] {
        let md5 = with(AuthRepr::KeyedMd5 { meticulous, key_id: 7, sequence: 5, digest: [0xee; 16] });
        is_golden(&md5, &format!("{} {kind} 18 07 00 00000005 {}", header("30"), "ee".repeat(16)));
    }
    for (meticulous, kind) in [(false, "04"), (true, "05")] {
        let sequence = 0xffff_fffe;
        let sha1 = with(AuthRepr::KeyedSha1 { meticulous, key_id: 7, sequence, hash: [0xee; 20] });
        is_golden(&sha1, &format!("{} {kind} 1c 07 00 fffffffe {}", header("34"), "ee".repeat(20)));
    }
}

#[test]
fn the_reserved_byte_is_not_read() {
    let sha1 = AuthRepr::KeyedSha1 { meticulous: true, key_id: 7, sequence: 5, hash: [1; 20] };
    let repr = ControlRepr { auth: Some(sha1), ..up() };
    let mut bytes = repr.emit().as_ref().to_vec();
    bytes[27] = 0xff;
    assert_eq!(ControlRepr::parse_payload(&bytes), Ok(repr));
}

#[test]
fn bytes_behind_the_packet_are_a_trailer() {
    let mut payload = up().emit().as_ref().to_vec();
    assert!(Packet::new_checked(&payload).unwrap().trailer().is_empty());
    payload.extend(b"LFsp");
    let packet = Packet::new_checked(&payload).unwrap();
    assert_eq!((packet.control(), packet.trailer()), (&payload[..24], b"LFsp".as_slice()));
    assert_eq!(ControlRepr::parse(&packet), Ok(up()));
}

/// The packet with one byte changed.
fn with_byte(repr: &ControlRepr, at: usize, byte: u8) -> Result<ControlRepr, Malformed> {
    let mut bytes = repr.emit().as_ref().to_vec();
    bytes[at] = byte;
    ControlRepr::parse_payload(&bytes)
}

#[test]
fn each_rule_refuses_its_own_packet() {
    let plain = up().emit();
    assert_eq!(ControlRepr::parse_payload(&[]), Err(Malformed::Truncated));
    assert_eq!(ControlRepr::parse_payload(&plain.as_ref()[..23]), Err(Malformed::Truncated));
    for version in [0, 2, 7] {
        assert_eq!(with_byte(&up(), 0, version << 5), Err(Malformed::Version));
    }
    assert_eq!(with_byte(&up(), 3, 23), Err(Malformed::Length));
    assert_eq!(with_byte(&up(), 3, 0), Err(Malformed::Length));
    assert_eq!(with_byte(&up(), 3, 25), Err(Malformed::LongerThanPayload));
    assert_eq!(with_byte(&up(), 3, 255), Err(Malformed::LongerThanPayload));
    assert_eq!(with_byte(&up(), 2, 0), Err(Malformed::DetectMult));
    assert_eq!(with_byte(&up(), 1, 0xc1), Err(Malformed::Multipoint));
    assert_eq!(with_byte(&up(), 1, 0xf0), Err(Malformed::PollAndFinal));
}

#[test]
fn zero_discriminators_are_refused_where_they_mean_nothing() {
    let mut bytes = up().emit().as_ref().to_vec();
    bytes[4..8].fill(0);
    assert_eq!(ControlRepr::parse_payload(&bytes), Err(Malformed::MyDiscriminator));
    for state in State::ALL {
        let parsed = ControlRepr::parse_payload(
            ControlRepr { state, your_discriminator: None, ..up() }.emit().as_ref(),
        );
        match state {
            State::AdminDown | State::Down => assert_eq!(parsed.map(|repr| repr.state), Ok(state)),
            State::Init | State::Up => assert_eq!(parsed, Err(Malformed::YourDiscriminator)),
        }
    }
}

#[test]
fn authentication_sections_have_the_length_of_their_type() {
    // Flag A with the least length that is allowed, and nothing in the section.
    let bare = |length: u8, section: &[u8]| {
        let mut bytes = up().emit().as_ref().to_vec();
        bytes[1] |= 4;
        bytes[3] = length;
        bytes.extend(section);
        ControlRepr::parse_payload(&bytes)
    };
    assert_eq!(bare(24, &[5, 28]), Err(Malformed::Length));
    assert_eq!(bare(25, &[5, 28]), Err(Malformed::Length));
    assert_eq!(bare(26, &[5, 28]), Err(Malformed::AuthLength), "cut off by the packet's end");
    assert_eq!(bare(52, &[[5, 28].as_slice(), &[0; 25]].concat()), Err(Malformed::LongerThanPayload));
    for (kind, right) in [(1, 4..=19), (2, 24..=24), (3, 24..=24), (4, 28..=28), (5, 28..=28)] {
        for length in 0..=60 {
            let section = [[kind, length].as_slice(), &[1; 60]].concat();
            let parsed = bare(24 + 60, &section);
            if right.contains(&length) {
                assert!(parsed.is_ok(), "type {kind}, length {length}");
            } else {
                assert_eq!(parsed, Err(Malformed::AuthLength), "type {kind}, length {length}");
            }
        }
    }
    for kind in [0, 6, 255] {
        assert_eq!(bare(52, &[[kind, 28].as_slice(), &[0; 26]].concat()), Err(Malformed::AuthType));
    }
}

#[test]
fn codes_of_diagnostics_are_five_bits_and_come_back() {
    for code in 0..=255 {
        assert_eq!(Diagnostic::from_code(code).code(), code & 0x1f);
    }
    assert_eq!(Diagnostic::Other(0xff).code(), 0x1f);
}

fn any_auth() -> impl Strategy<Value = Option<AuthRepr>> {
    let sequences = (any::<bool>(), any::<u8>(), any::<u32>());
    prop_oneof![
        Just(None),
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 1..=16)).prop_map(|(key_id, password)| {
            Some(AuthRepr::SimplePassword { key_id, password: Password::new(&password).unwrap() })
        }),
        (sequences, any::<[u8; 16]>()).prop_map(|((meticulous, key_id, sequence), digest)| {
            Some(AuthRepr::KeyedMd5 { meticulous, key_id, sequence, digest })
        }),
        (sequences, any::<[u8; 20]>()).prop_map(|((meticulous, key_id, sequence), hash)| {
            Some(AuthRepr::KeyedSha1 { meticulous, key_id, sequence, hash })
        }),
    ]
}

fn any_repr() -> impl Strategy<Value = ControlRepr> {
    let polling = prop_oneof![Just(Polling::None), Just(Polling::Poll), Just(Polling::Final)];
    let state = proptest::sample::select(State::ALL.to_vec());
    let head = (any::<u8>(), state, polling, any::<(bool, bool)>(), 1_u8..);
    (head, any::<[u32; 3]>(), 1_u32.., 1_u32.., any_auth()).prop_map(
        |(
            (code, state, polling, (control_plane_independent, demand), mult),
            intervals,
            mine,
            yours,
            auth,
        )| {
            ControlRepr {
                diagnostic: Diagnostic::from_code(code),
                state,
                polling,
                control_plane_independent,
                demand,
                detect_mult: NonZeroU8::new(mult).unwrap(),
                my_discriminator: discriminator(mine),
                your_discriminator: Some(discriminator(yours)),
                desired_min_tx: Micros(intervals[0]),
                required_min_rx: Micros(intervals[1]),
                required_min_echo_rx: Micros(intervals[2]),
                auth,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_again(repr in any_repr(), trailer in proptest::collection::vec(any::<u8>(), 0..40)) {
        let bytes = repr.emit();
        prop_assert!(bytes.as_ref().len() <= MAX_LEN);
        let payload = [bytes.as_ref(), &trailer].concat();
        let packet = Packet::new_checked(&payload).unwrap();
        prop_assert_eq!(packet.trailer(), trailer.as_slice());
        prop_assert_eq!(ControlRepr::parse(&packet), Ok(repr));
    }

    /// Whatever bytes arrive: they are refused, or mean a value that means the same when it is sent.
    #[test]
    fn any_bytes_are_refused_or_have_one_meaning(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
        looks_right in any::<bool>(),
    ) {
        if looks_right && bytes.len() >= HEADER_LEN {
            bytes[0] = VERSION << 5 | bytes[0] & 0x1f;
            bytes[1] &= !MULTIPOINT;
            bytes[3] = bytes.len() as u8;
        }
        if let Ok(repr) = ControlRepr::parse_payload(&bytes) {
            prop_assert_eq!(ControlRepr::parse_payload(repr.emit().as_ref()), Ok(repr));
        }
    }

    /// A packet of ours with a few bytes changed, or cut off anywhere.
    #[test]
    fn damaged_packets_do_no_harm(
        repr in any_repr(),
        changes in proptest::collection::vec((0_usize..MAX_LEN, any::<u8>()), 0..4),
        keep in 0_usize..=MAX_LEN,
    ) {
        let mut bytes = repr.emit().as_ref().to_vec();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(keep);
        if let Ok(parsed) = ControlRepr::parse_payload(&bytes) {
            prop_assert_eq!(ControlRepr::parse_payload(parsed.emit().as_ref()), Ok(parsed));
        }
    }
}
