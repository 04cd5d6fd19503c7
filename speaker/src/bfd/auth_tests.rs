//! Stories of two speakers, their keys, and what others play to them.

use std::num::{NonZeroU8, NonZeroU32};

use proptest::prelude::*;

use super::*;
use crate::wire::bfd::{Diagnostic, Micros, Polling, State};

fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

fn keys(of: &[(u8, &str)], sending: u8) -> Option<Arc<Keys>> {
    Some(Arc::new(Keys::new(of.iter().map(|(id, text)| (*id, key(text))), sending).unwrap()))
}

fn repr(my_discriminator: u32) -> ControlRepr {
    ControlRepr {
        diagnostic: Diagnostic::NoDiagnostic,
        state: State::Up,
        polling: Polling::None,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: NonZeroU32::new(my_discriminator).unwrap(),
        your_discriminator: NonZeroU32::new(0x0102_0304),
        desired_min_tx: Micros(100_000),
        required_min_rx: Micros(100_000),
        required_min_echo_rx: Micros(0),
        auth: None,
    }
}

const OURS: u32 = 0x0a0b_0c0d;

fn sealed(sender: &mut Authenticator, discriminator: u32) -> Vec<u8> {
    sender.seal(repr(discriminator)).as_ref().to_vec()
}

/// Opens a packet that names the receiver.
fn open(receiver: &mut Authenticator, bytes: &[u8], quiet: bool) -> Result<(), AuthError> {
    open_as(receiver, bytes, true, quiet)
}

fn open_as(receiver: &mut Authenticator, bytes: &[u8], names_us: bool, quiet: bool) -> Result<(), AuthError> {
    let packet = Packet::new_checked(bytes).unwrap();
    receiver.open(&packet, &ControlRepr::parse(&packet).unwrap(), names_us, quiet)
}

fn pair(first: u32) -> (Authenticator, Authenticator) {
    let keys = || keys(&[(7, "a key of the house")], 7);
    (Authenticator::new(keys(), first), Authenticator::new(keys(), 0))
}

#[test]
fn a_signed_packet_is_golden() {
    let (mut sender, mut receiver) = pair(0xffff_fffe);
    // Reckoned with another implementation of SHA1.
    let expected = [
        "20c403340a0b0c0d01020304000186a0000186a000000000",
        "051c0700fffffffe34c8714c64537e208f82039153f9a857b0ae05d9",
    ];
    let hex: String = sealed(&mut sender, OURS).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected.concat());
    let (mut sender, _) = pair(0xffff_fffe);
    assert_eq!(open(&mut receiver, &sealed(&mut sender, OURS), false), Ok(()));
}

#[test]
fn every_packet_has_a_number_of_its_own_and_the_circle_has_no_end() {
    let (mut sender, mut receiver) = pair(u32::MAX - 2);
    for _ in 0..6 {
        assert_eq!(open(&mut receiver, &sealed(&mut sender, OURS), false), Ok(()));
    }
    assert_eq!(sender.next_sequence(), 3);
}

#[test]
fn nothing_is_believed_twice_nor_after_what_was_sent_later() {
    let (mut sender, mut receiver) = pair(100);
    let packets: Vec<_> = (0..3).map(|_| sealed(&mut sender, OURS)).collect();
    assert_eq!(open(&mut receiver, &packets[1], false), Ok(()));
    for quiet in [false, true] {
        assert_eq!(open(&mut receiver, &packets[1], quiet), Err(AuthError::Replayed), "the same");
        assert_eq!(open(&mut receiver, &packets[0], quiet), Err(AuthError::Replayed), "a late one");
    }
    assert_eq!(open(&mut receiver, &packets[2], false), Ok(()));
}

#[test]
fn the_window_is_three_times_detect_mult_until_silence_opens_it() {
    let (mut sender, mut receiver) = pair(100);
    let packets: Vec<_> = (0..30).map(|_| sealed(&mut sender, OURS)).collect();
    assert_eq!(open(&mut receiver, &packets[0], false), Ok(()));
    assert_eq!(open(&mut receiver, &packets[10], false), Err(AuthError::OutOfWindow));
    assert_eq!(open(&mut receiver, &packets[9], false), Ok(()));
    assert_eq!(open(&mut receiver, &packets[29], false), Err(AuthError::OutOfWindow));
    assert_eq!(open(&mut receiver, &packets[29], true), Ok(()), "after twice the detection time");
}

#[test]
fn a_peer_that_starts_anew_is_believed_at_once_and_its_former_self_never_again() {
    let (mut former, mut receiver) = pair(1_000_000);
    let old: Vec<_> = (0..5).map(|_| sealed(&mut former, OURS)).collect();
    for packet in &old {
        assert_eq!(open(&mut receiver, packet, false), Ok(()));
    }
    let (mut anew, _) = pair(500);
    let first = open(&mut receiver, &sealed(&mut anew, 99), false);
    assert_eq!(first, Err(AuthError::OutOfWindow), "it cannot know our discriminator yet");
    assert_eq!(open_as(&mut receiver, &sealed(&mut anew, 99), false, false), Ok(()));
    assert_eq!(open(&mut receiver, &sealed(&mut anew, 99), false), Ok(()));
    for packet in &old {
        for quiet in [false, true] {
            assert_eq!(open(&mut receiver, packet, quiet), Err(AuthError::Replayed));
        }
    }
}

#[test]
fn after_the_silence_whoever_names_us_is_believed_under_whatever_discriminator() {
    let (mut former, mut receiver) = pair(1_000);
    assert_eq!(open(&mut receiver, &sealed(&mut former, OURS), false), Ok(()));
    let (mut next, _) = pair(7);
    assert_eq!(open(&mut receiver, &sealed(&mut next, 99), false), Err(AuthError::OutOfWindow));
    assert_eq!(open(&mut receiver, &sealed(&mut next, 99), true), Ok(()));
}

#[test]
fn a_recording_of_former_times_does_not_shut_the_window_before_the_true_peer() {
    let (mut former, mut receiver) = pair(2_000_000_000);
    let recorded: Vec<_> = (0..20).map(|_| sealed(&mut former, OURS)).collect();
    let (mut peer, _) = pair(5);
    for packet in &recorded {
        // The receiver was started later, so the recording cannot name it.
        assert_eq!(open_as(&mut receiver, packet, false, false), Ok(()));
        assert_eq!(open_as(&mut receiver, packet, false, false), Err(AuthError::Replayed));
    }
    assert_eq!(open_as(&mut receiver, &sealed(&mut peer, 99), false, false), Ok(()));
    assert_eq!(open(&mut receiver, &sealed(&mut peer, 99), false), Ok(()));
    for packet in &recorded {
        assert_eq!(open_as(&mut receiver, packet, false, true), Err(AuthError::Replayed));
    }
    assert_eq!(open(&mut receiver, &sealed(&mut peer, 99), false), Ok(()));
}

#[test]
fn whoever_has_no_keys_and_whoever_has_them_refuse_each_other() {
    let (mut with, _) = pair(1);
    let mut without = Authenticator::new(None, 1);
    let (signed, plain) = (sealed(&mut with, OURS), sealed(&mut without, OURS));
    assert_eq!(open(&mut without, &plain, false), Ok(()));
    assert_eq!(open(&mut without, &plain, false), Ok(()), "without keys nothing has a number");
    assert_eq!(open(&mut with, &plain, false), Err(AuthError::Missing));
    assert_eq!(open(&mut without, &signed, false), Err(AuthError::Unexpected));
}

#[test]
fn other_types_are_refused_even_with_a_right_hash() {
    let (_, mut receiver) = pair(1);
    let sign = |meticulous| {
        let with = |hash| {
            let auth = AuthRepr::KeyedSha1 { meticulous, key_id: 7, sequence: 5, hash };
            ControlRepr { auth: Some(auth), ..repr(OURS) }.emit()
        };
        with(Sha1::digest(with(key("a key of the house").0)).into()).as_ref().to_vec()
    };
    assert_eq!(open(&mut receiver, &sign(false), false), Err(AuthError::WrongType));
    assert_eq!(open(&mut receiver, &sign(true), false), Ok(()));
    let md5 = AuthRepr::KeyedMd5 { meticulous: true, key_id: 7, sequence: 6, digest: [0; 16] };
    let md5 = ControlRepr { auth: Some(md5), ..repr(OURS) }.emit();
    assert_eq!(open(&mut receiver, md5.as_ref(), false), Err(AuthError::WrongType));
}

#[test]
fn a_wrong_key_is_refused_and_moves_no_window() {
    let (mut sender, mut receiver) = pair(1);
    let mut forger = Authenticator::new(keys(&[(7, "not the key")], 7), 5);
    let mut stranger = Authenticator::new(keys(&[(8, "a key of the house")], 8), 5);
    assert_eq!(open(&mut receiver, &sealed(&mut forger, OURS), false), Err(AuthError::WrongHash));
    assert_eq!(open(&mut receiver, &sealed(&mut stranger, OURS), false), Err(AuthError::UnknownKey));
    for _ in 0..5 {
        assert_eq!(open(&mut receiver, &sealed(&mut sender, OURS), false), Ok(()));
        assert_eq!(open(&mut receiver, &sealed(&mut forger, OURS), true), Err(AuthError::WrongHash));
    }
}

#[test]
fn keys_are_rotated_without_a_packet_lost() {
    let (old, new) = ((1, "old"), (2, "new"));
    let steps = [keys(&[old], 1), keys(&[old, new], 1), keys(&[old, new], 2), keys(&[new], 2)];
    let (mut a, mut b) = (Authenticator::new(None, 10), Authenticator::new(None, 900));
    let former = steps.first().into_iter().chain(&steps);
    for (keys_of_b, former) in steps.iter().zip(former) {
        b.set_keys(keys_of_b.clone());
        // The other speaker is a step behind, then as far.
        for keys_of_a in [former, keys_of_b] {
            a.set_keys(keys_of_a.clone());
            assert_eq!(open(&mut a, &sealed(&mut b, 2), false), Ok(()), "{keys_of_b:?} to {keys_of_a:?}");
            assert_eq!(open(&mut b, &sealed(&mut a, 1), false), Ok(()), "{keys_of_a:?} to {keys_of_b:?}");
        }
    }
    let mut forgotten = Authenticator::new(keys(&[old], 1), a.next_sequence());
    assert_eq!(open(&mut b, &sealed(&mut forgotten, 1), false), Err(AuthError::UnknownKey));
}

#[test]
fn keys_and_sets_of_keys_are_checked() {
    assert_eq!(Key::new(b"").unwrap_err(), KeysError::KeyLength(0));
    assert_eq!(Key::new(&[1; 21]).unwrap_err(), KeysError::KeyLength(21));
    assert!(Key::new(&[1; 20]).is_ok());
    let twice = Keys::new([(1, key("a")), (2, key("b")), (1, key("c"))], 1);
    assert_eq!(twice.unwrap_err(), KeysError::Duplicate(1));
    assert_eq!(Keys::new([(1, key("a"))], 2).unwrap_err(), KeysError::UnknownSender(2));
    assert_eq!(Keys::new([], 0).unwrap_err(), KeysError::UnknownSender(0));
    assert!(!format!("{:?}", Keys::new([(1, key("secret"))], 1)).contains("115"), "nothing shows a key");
}

proptest! {
    /// No change of any byte of a signed packet goes unnoticed, save that of the reserved byte, which the
    /// hash covers too.
    #[test]
    fn any_change_is_noticed(at in 0_usize..52, change in 1_u8..) {
        let (mut sender, mut receiver) = pair(100);
        let mut bytes = sealed(&mut sender, OURS);
        bytes[at] ^= change;
        let opened = Packet::new_checked(&bytes).and_then(|packet| {
            Ok(receiver.open(&packet, &ControlRepr::parse(&packet)?, true, false))
        });
        prop_assert!(!matches!(opened, Ok(Ok(()))));
    }

    /// Against a model that remembers everything: whatever order packets arrive in and however often,
    /// each is believed at most once, and never after a later one.
    #[test]
    fn numbers_only_grow(
        first in any::<u32>(),
        order in proptest::collection::vec((0_usize..40, any::<bool>()), 1..120),
    ) {
        let (mut sender, mut receiver) = pair(first);
        let packets: Vec<_> = (0..40).map(|_| sealed(&mut sender, OURS)).collect();
        let mut latest = None;
        for (at, quiet) in order {
            let opened = open(&mut receiver, &packets[at], quiet);
            let is_new = latest.is_none_or(|latest| at > latest);
            let is_near = quiet || latest.is_none_or(|latest| at <= latest + 9);
            let expected = match (is_new, is_near) {
                (false, _) => Err(AuthError::Replayed),
                (true, false) => Err(AuthError::OutOfWindow),
                (true, true) => Ok(()),
            };
            prop_assert_eq!(opened, expected);
            if opened.is_ok() {
                latest = Some(at);
            }
        }
    }
}
