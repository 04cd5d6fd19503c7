//! Stories of speakers with and without keys, and of whoever changes what they say.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sha1::{Digest, Sha1};

use super::*;
use crate::bfd::auth::KeysError;
use crate::bfd::session::{Action, Config, Event, Session};
use crate::bfd::timing::{Interval, Timing};
use crate::lan::MacAddr;
use crate::mind::rng::Rng;
use crate::wire::speech::{Body, Header, SpeechRepr};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "another secret of the house";
const CONTROL: &[u8] = b"a BFD packet";

fn ring(secrets: &[(u8, &str)], sending: u8) -> Result<Keyring, KeyringError> {
    Keyring::new(secrets.iter().map(|(id, secret)| (*id, secret.as_bytes().to_vec())), sending)
}

fn sealer(secrets: &[(u8, &str)], sending: u8) -> Sealer {
    let mut sealer = Sealer::new(0);
    sealer.set_keys(Some(Arc::new(ring(secrets, sending).unwrap())));
    sealer
}

fn ends(from: &str, to: &str) -> Ends {
    Ends { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

fn v4() -> Ends {
    ends("192.168.10.11", "192.168.10.12")
}

fn message() -> Vec<u8> {
    let header = Header {
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        instance: 0x0102_0304_0506_0708,
        sequence: 3,
        digest: 9,
        ..Header::default()
    };
    SpeechRepr { header, body: Body::Heartbeat }.emit()
}

/// A message as `sender` says it.
fn said(sender: &mut Sealer, ends: Ends, control: &[u8]) -> Vec<u8> {
    let mut bytes = message();
    sender.seal(ends, control, &mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_seal_is_golden() {
    let mut sender = sealer(&[(7, SECRET)], 7);
    sender.next = 0x0a0b_0c0d;
    // Reckoned with another implementation of HMAC-SHA256.
    let expected = ["000000000a0b0c0d", "07", "44d1d3752c8818bf0070b3173006a158"];
    assert_eq!(hex(&said(&mut sender, v4(), CONTROL)[56..]), expected.concat());
    let expected = ["000000000a0b0c0e", "07", "718cb7654b777232b87656462d4f6137"];
    let v6 = ends("fe80::1", "fe80::2");
    assert_eq!(hex(&said(&mut sender, v6, &[])[56..]), expected.concat());
}

#[test]
fn the_keys_of_bfd_are_derived_from_the_same_secrets() {
    let interval = Interval::try_from(Duration::from_millis(100)).unwrap();
    let detect_mult = NonZeroU8::new(3).unwrap();
    let config = Config {
        timing: Timing { desired_min_tx: interval, required_min_rx: interval, detect_mult },
        steady_pace: true,
        keys: Some(ring(&[(1, OTHER), (7, SECRET)], 7).unwrap().bfd()),
        discriminator: NonZeroU32::new(5).unwrap(),
        first_sequence: 1,
    };
    let now = Instant::now();
    let (mut session, mut actions) = (Session::new(now, config, Rng::new(0)), Vec::new());
    session.handle(now, Event::Deadline, &mut actions);
    let [Action::Send(bytes), ..] = &actions[..] else { panic!("nothing is sent: {actions:?}") };
    let mut packet = bytes.as_ref().to_vec();
    assert_eq!(packet[26], 7, "the ID of the key (RFC 5880 section 4.4)");
    let hash = packet.split_off(32);
    // The first 20 bytes of HMAC-SHA256(secret, "landfall bfd 1"), by another implementation.
    let key = "148f09450454a6d95f810e5a7f89f6805e494259";
    packet.extend((0..40).step_by(2).map(|at| u8::from_str_radix(&key[at..at + 2], 16).unwrap()));
    assert_eq!(hash, Sha1::digest(packet).to_vec());
}

#[test]
fn what_is_sealed_opens_with_a_counter_of_its_own() {
    for ends in [v4(), ends("fd00::11", "fd00::12")] {
        for control in [CONTROL, &[]] {
            let (mut sender, receiver) = (sealer(&[(1, SECRET)], 1), sealer(&[(1, SECRET)], 1));
            for counter in 0..3 {
                let bytes = said(&mut sender, ends, control);
                assert_eq!(bytes.len(), message().len() + SEAL_LEN);
                let opened = receiver.open(ends, control, &bytes).unwrap();
                assert_eq!(opened, Opened { message: &message(), counter: Some(counter) });
            }
        }
    }
}

#[test]
fn without_keys_nothing_is_appended_and_nothing_may_be() {
    let (mut bare, mut with_keys) = (Sealer::new(0), sealer(&[(1, SECRET)], 1));
    assert!(!bare.has_keys() && with_keys.has_keys());
    let plain = said(&mut bare, v4(), CONTROL);
    assert_eq!(plain, message());
    let opened = bare.open(v4(), CONTROL, &plain).unwrap();
    assert_eq!(opened, Opened { message: &message(), counter: None });
    assert_eq!(with_keys.open(v4(), CONTROL, &plain), Err(SealError::Missing));
    let sealed = said(&mut with_keys, v4(), CONTROL);
    assert_eq!(bare.open(v4(), CONTROL, &sealed), Err(SealError::Unexpected));
}

#[test]
fn the_counter_goes_on_whatever_the_keys() {
    let mut sender = Sealer::new(5);
    let first = Arc::new(ring(&[(1, SECRET)], 1).unwrap());
    let second = Arc::new(ring(&[(1, SECRET), (2, OTHER)], 2).unwrap());
    for (keys, counter) in [(Some(&first), Some(5)), (None, None), (Some(&second), Some(6)), (None, None)] {
        sender.set_keys(keys.map(Arc::clone));
        let bytes = said(&mut sender, v4(), CONTROL);
        assert_eq!(sender.open(v4(), CONTROL, &bytes).map(|opened| opened.counter), Ok(counter));
    }
}

#[test]
fn a_message_is_not_taken_back_by_whoever_said_it_nor_by_a_third() {
    let mut sender = sealer(&[(1, SECRET)], 1);
    let receiver = sender.clone();
    let bytes = said(&mut sender, v4(), CONTROL);
    for other in [
        Ends { from: v4().to, to: v4().from },
        ends("192.168.10.13", "192.168.10.12"),
        ends("192.168.10.11", "192.168.10.13"),
        ends("::ffff:192.168.10.11", "::ffff:192.168.10.12"),
    ] {
        assert_eq!(receiver.open(other, CONTROL, &bytes), Err(SealError::WrongMac), "{other:?}");
    }
    assert!(receiver.open(v4(), CONTROL, &bytes).is_ok());
}

#[test]
fn a_message_is_not_put_behind_another_packet_nor_alone() {
    let mut sender = sealer(&[(1, SECRET)], 1);
    let receiver = sender.clone();
    let bytes = said(&mut sender, v4(), CONTROL);
    for other in [&[][..], b"a BFD packe", b"a BFD packet ", b"b BFD packet"] {
        assert_eq!(receiver.open(v4(), other, &bytes), Err(SealError::WrongMac));
    }
    let alone = said(&mut sender, v4(), &[]);
    assert_eq!(receiver.open(v4(), CONTROL, &alone), Err(SealError::WrongMac));
}

#[test]
fn what_is_cut_or_longer_is_refused_by_its_length() {
    let mut sender = sealer(&[(1, SECRET)], 1);
    let receiver = sender.clone();
    let mut bytes = said(&mut sender, v4(), CONTROL);
    for length in 0..bytes.len() {
        let expected = if length == 56 { SealError::Missing } else { SealError::Truncated };
        assert_eq!(receiver.open(v4(), CONTROL, &bytes[..length]), Err(expected), "{length}");
    }
    bytes.push(0);
    assert_eq!(receiver.open(v4(), CONTROL, &bytes), Err(SealError::Truncated));
    let bare = Sealer::new(0);
    for length in 0..56 {
        assert_eq!(bare.open(v4(), &[], &message()[..length]), Err(SealError::Truncated), "{length}");
    }
}

#[test]
fn keys_are_changed_in_three_steps_and_everybody_understands_everybody() {
    let steps = [
        sealer(&[(1, SECRET)], 1),
        sealer(&[(1, SECRET), (2, OTHER)], 1),
        sealer(&[(1, SECRET), (2, OTHER)], 2),
        sealer(&[(2, OTHER)], 2),
    ];
    for pair in steps.windows(2) {
        for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let bytes = said(&mut pair[from].clone(), v4(), CONTROL);
            assert!(pair[to].open(v4(), CONTROL, &bytes).is_ok());
        }
    }
    let old = said(&mut steps[0].clone(), v4(), CONTROL);
    assert_eq!(steps[3].open(v4(), CONTROL, &old), Err(SealError::UnknownKey));
    let same_id = sealer(&[(1, OTHER)], 1);
    assert_eq!(same_id.open(v4(), CONTROL, &old), Err(SealError::WrongMac));
}

#[test]
fn secrets_of_any_length_from_16_bytes_on_are_keys_of_their_own() {
    let long = "x".repeat(100);
    let sealed = |secret: &str| said(&mut sealer(&[(1, secret)], 1), v4(), CONTROL);
    let all: BTreeSet<_> = (16..=100).map(|length| sealed(&long[..length])).collect();
    assert_eq!(all.len(), 85);
    // By another implementation: a key that is longer than a block of the hash.
    assert_eq!(hex(&sealed(&long)[65..]), "2a932f1e31eabd5c9c9a47831378bb11");
}

#[test]
fn a_keyring_without_sense_is_refused_with_what_to_do() {
    let unknown = KeysError::UnknownSender(2).into();
    for (secrets, sending, expected) in [
        (&[(0, SECRET)][..], 0, KeyringError::ZeroId),
        (&[(1, "fifteen bytes..")], 1, KeyringError::ShortSecret { id: 1, length: 15 }),
        (&[(1, SECRET), (2, "")], 1, KeyringError::ShortSecret { id: 2, length: 0 }),
        (&[(1, SECRET), (1, OTHER)], 1, KeysError::Duplicate(1).into()),
        (&[(1, SECRET)], 2, unknown),
        (&[], 2, unknown),
    ] {
        assert_eq!(ring(secrets, sending).unwrap_err(), expected);
    }
    assert!(ring(&[(255, "sixteen bytes...")], 255).is_ok());
    let short = KeyringError::ShortSecret { id: 1, length: 15 }.to_string();
    assert!(short.contains("key 1") && short.contains("`openssl rand -hex 32`"), "{short}");
}

#[test]
fn no_key_is_printed() {
    let keyring = ring(&[(1, SECRET), (200, OTHER)], 200).unwrap();
    assert_eq!(format!("{keyring:?}"), "Keyring { ids: [1, 200], sending: 200, .. }");
    let sealer = sealer(&[(1, SECRET)], 1);
    assert_eq!(format!("{sealer:?}"), "Sealer { keys: Some(Keyring { ids: [1], sending: 1, .. }), next: 0 }");
    let bfd = "Keys { keys: [(1, Key(…)), (200, Key(…))], sending: (200, Key(…)) }";
    assert_eq!(format!("{:?}", keyring.bfd()), bfd);
}

#[test]
fn every_reason_has_a_label_of_its_own() {
    let labels: BTreeSet<_> = SealError::ALL.iter().map(|error| error.label()).collect();
    assert_eq!(labels.len(), SealError::ALL.len());
}

proptest! {
    #[test]
    fn a_change_of_any_byte_is_refused(
        rest in proptest::collection::vec(any::<u8>(), 0..80),
        control in proptest::collection::vec(any::<u8>(), 0..60),
        flip in 1_u8..,
        at in any::<proptest::sample::Index>(),
    ) {
        let mut sender = sealer(&[(1, SECRET), (2, OTHER)], 2);
        let receiver = sender.clone();
        let mut datagram = control.clone();
        let mut bytes = [&[0; 10][..], &rest].concat();
        let length = bytes.len() as u16;
        bytes[8..10].copy_from_slice(&length.to_be_bytes());
        sender.seal(v4(), &control, &mut bytes);
        prop_assert!(receiver.open(v4(), &control, &bytes).is_ok());
        datagram.extend(bytes);
        let at = at.index(datagram.len());
        datagram[at] ^= flip;
        let (control, received) = datagram.split_at(control.len());
        prop_assert!(receiver.open(v4(), control, received).is_err());
    }

    #[test]
    fn a_change_of_any_byte_of_an_address_is_refused(at in 0_usize..32, flip in 1_u8..) {
        let mut sender = sealer(&[(1, SECRET)], 1);
        let addresses: [[u8; 16]; 2] = [[0xfd; 16], [0xfe; 16]];
        let ends = |pair: [[u8; 16]; 2]| Ends { from: pair[0].into(), to: pair[1].into() };
        let bytes = said(&mut sender, ends(addresses), &[]);
        let mut changed = addresses;
        changed[at / 16][at % 16] ^= flip;
        prop_assert_eq!(sender.open(ends(changed), &[], &bytes), Err(SealError::WrongMac));
        prop_assert!(sender.open(ends(addresses), &[], &bytes).is_ok());
    }

    #[test]
    fn no_bytes_do_harm(
        mut received in proptest::collection::vec(any::<u8>(), 0..120),
        control in proptest::collection::vec(any::<u8>(), 0..10),
        length in 0_u16..120,
    ) {
        if received.len() > 10 {
            received[8..10].copy_from_slice(&length.to_be_bytes());
        }
        prop_assert!(sealer(&[(1, SECRET)], 1).open(v4(), &control, &received).is_err());
        let bare = Sealer::new(0).open(v4(), &control, &received);
        prop_assert!(bare.is_err() || received.len() == usize::from(length));
    }
}
