//! Who may speak: Meticulous Keyed SHA1 (RFC 5880 sections 4.4 and 6.7.4), or nobody is asked.
//!
//! Without keys a session sends and accepts packets without authentication only. With keys it accepts
//! packets that are signed with any one of them, and signs with the one that is chosen for that.
//!
//! # Changing keys without a flap
//! Sequence numbers go on whatever the key, so a new set may take effect at any time. In this order no
//! speaker ever receives what it cannot check; each step is done everywhere before the next begins:
//!
//! 1. Add the new key to every speaker's set; go on sending with the old one.
//! 2. Choose the new key for sending.
//! 3. Remove the old key.
//!
//! There is no such way from *no keys* to keys: a peer without authentication is refused where there are
//! keys. Sessions stay up only if all speakers get their first keys within the detection time.
//!
//! # What this does not do
//! The hash is SHA1 over the packet and the key, as the RFC wants it, and not an HMAC. It covers the packet
//! and not the trailer behind it.

use std::fmt;
use std::sync::Arc;

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::replay::{Replay, Stale};
use crate::wire::bfd::{ControlBytes, ControlRepr, HEADER_LEN, Packet};
use crate::wire::bfd_auth::AuthRepr;

const SHA1_LEN: usize = 20;
/// Where the hash is in a packet (RFC 5880 section 4.4).
const HASH_AT: usize = HEADER_LEN + 8;

/// A key that speakers share, padded with zeros to the length of a hash.
#[derive(Clone, Copy)]
pub struct Key([u8; SHA1_LEN]);

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// They are none, or more than 20.
    pub fn new(bytes: &[u8]) -> Result<Self, KeysError> {
        let mut key = [0; SHA1_LEN];
        let place = key.get_mut(..bytes.len()).filter(|place| !place.is_empty());
        place.ok_or(KeysError::KeyLength(bytes.len()))?.copy_from_slice(bytes);
        Ok(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Why keys are not a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A key has no bytes or too many.
    #[error("a key has 1 to 20 bytes, not {0}")]
    KeyLength(usize),
    /// Two keys have one ID.
    #[error("two keys have the ID {0}")]
    Duplicate(u8),
    /// No key has the ID that was chosen for sending.
    #[error("the key to send with has the ID {0}, which none of the keys has")]
    UnknownSender(u8),
}

/// The keys that are accepted, and which of them is sent with.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<(u8, Key)>,
    sending: (u8, Key),
}

impl Keys {
    /// A set of keys by their IDs, to send with the one whose ID is `sending`.
    ///
    /// # Errors
    /// An ID is there twice, or `sending` not at all.
    pub fn new(keys: impl IntoIterator<Item = (u8, Key)>, sending: u8) -> Result<Self, KeysError> {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_by_key(|(id, _)| *id);
        if let Some(pair) = keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(KeysError::Duplicate(pair[0].0));
        }
        let sender = keys.iter().find(|(id, _)| *id == sending).copied();
        Ok(Self { sending: sender.ok_or(KeysError::UnknownSender(sending))?, keys })
    }

    fn get(&self, id: u8) -> Option<&Key> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

/// Why a packet is not believed. Its fields were understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// Keys are set here and the packet has no authentication section.
    #[error("not authenticated")]
    Missing,
    /// No keys are set here and the packet has an authentication section.
    #[error("authenticated, and no key is set here")]
    Unexpected,
    /// Another type than Meticulous Keyed SHA1.
    #[error("not authenticated by Meticulous Keyed SHA1")]
    WrongType,
    /// No key here has its ID.
    #[error("an unknown key ID")]
    UnknownKey,
    /// Its sequence number was used before, or could have been.
    #[error("replayed")]
    Replayed,
    /// Its sequence number is too far ahead (RFC 5880 section 6.7.4).
    #[error("a sequence number too far ahead")]
    OutOfWindow,
    /// The hash is not that of the packet with the key.
    #[error("a wrong hash")]
    WrongHash,
}

/// What a session knows of authentication.
#[derive(Clone, Debug)]
pub(super) struct Authenticator {
    keys: Option<Arc<Keys>>,
    /// bfd.XmitAuthSeq: the number of the next packet.
    next_sequence: u32,
    replay: Replay,
}

impl Authenticator {
    pub(super) fn new(keys: Option<Arc<Keys>>, first_sequence: u32) -> Self {
        Self { keys, next_sequence: first_sequence, replay: Replay::default() }
    }

    pub(super) fn set_keys(&mut self, keys: Option<Arc<Keys>>) {
        self.keys = keys;
    }

    /// Goes on where a former process of this node stopped.
    pub(super) fn resume(keys: Option<Arc<Keys>>, next_sequence: u32, replay: Replay) -> Self {
        Self { keys, next_sequence, replay }
    }

    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.clone()
    }

    pub(super) fn replay(&self) -> &Replay {
        &self.replay
    }

    pub(super) fn next_sequence(&self) -> u32 {
        self.next_sequence
    }

    /// The bytes of a packet that is sent now, signed if there are keys.
    pub(super) fn seal(&mut self, repr: ControlRepr) -> ControlBytes {
        let Some(keys) = &self.keys else { return ControlRepr { auth: None, ..repr }.emit() };
        let (key_id, key) = keys.sending;
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        let signed = |hash| {
            let auth = AuthRepr::KeyedSha1 { meticulous: true, key_id, sequence, hash };
            ControlRepr { auth: Some(auth), ..repr }.emit()
        };
        // The hash is reckoned with the key in its own place.
        signed(Sha1::digest(signed(key.0)).into())
    }

    /// Whether a packet is believed; then its number is used up. `names_us` says that it carries our
    /// discriminator, `quiet` that nothing was heard for twice the detection time.
    pub(super) fn open(
        &mut self,
        packet: &Packet<'_>,
        repr: &ControlRepr,
        names_us: bool,
        quiet: bool,
    ) -> Result<(), AuthError> {
        let (keys, auth) = match (&self.keys, &repr.auth) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(AuthError::Unexpected),
            (Some(_), None) => return Err(AuthError::Missing),
            (Some(keys), Some(auth)) => (keys, auth),
        };
        let AuthRepr::KeyedSha1 { meticulous: true, key_id, sequence, hash } = auth else {
            return Err(AuthError::WrongType);
        };
        let key = keys.get(*key_id).ok_or(AuthError::UnknownKey)?;
        // Cheaper than the hash, so first. The number is remembered only once the hash is known to be right:
        // else anybody could shut the window in front of the true peer.
        let (sender, window) = (repr.my_discriminator, 3 * u32::from(repr.detect_mult.get()));
        self.replay.check(sender, *sequence, window, names_us, quiet).map_err(|stale| match stale {
            Stale::Replayed => AuthError::Replayed,
            Stale::OutOfWindow => AuthError::OutOfWindow,
        })?;
        let right = hash_with(packet.control(), key);
        if !bool::from(right.as_slice().ct_eq(hash)) {
            return Err(AuthError::WrongHash);
        }
        self.replay.accept(sender, *sequence, names_us, quiet);
        Ok(())
    }
}

/// The hash of a packet with a section of type 5, with the key where its hash is.
fn hash_with(control: &[u8], key: &Key) -> [u8; SHA1_LEN] {
    let (before, rest) = control.split_at(HASH_AT.min(control.len()));
    let mut sha1 = Sha1::new();
    sha1.update(before);
    sha1.update(key.0);
    sha1.update(rest.get(SHA1_LEN..).unwrap_or_default());
    sha1.finalize().into()
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
