//! Proof that a message comes from a speaker that has the keys, and is meant for this one.
//!
//! What speakers say to each other (`wire/speech.rs`) is followed by a seal, if there are keys:
//!
//! ```text
//!  0  counter: each message of a process has one more than the last
//!  8  ID of the key
//!  9  the first 16 bytes of HMAC-SHA256 (RFC 2104) with that key, over:
//!     "landfall seal 1"
//!     the sender's address and the receiver's, each behind its family, 4 or 6
//!     the length of the BFD packet in 2 bytes, and the packet
//!     the message
//!     the counter and the ID of the key
//! ```
//!
//! A heartbeat is a BFD packet, a message and a seal; anything else a message and a seal. The seal covers the
//! BFD packet too, although that has a hash of its own, so that no message can be put behind another packet.
//! The addresses keep a message from being played back to whoever sent it, or to a third.
//!
//! # What this does not do
//! All speakers share the keys, so each of them could speak as any other. Nothing is kept secret: whoever
//! hears the LAN can read what is said.

use std::net::IpAddr;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

pub use self::keyring::{Keyring, KeyringError};
pub use self::windows::Windows;

mod keyring;
#[cfg(test)]
mod tests;
mod windows;

/// How many bytes a seal adds to a message.
pub const SEAL_LEN: usize = 8 + 1 + MAC_LEN;
/// Half of the hash, the least that RFC 2104 section 5 advises.
const MAC_LEN: usize = 16;
/// Where a message tells its own length.
const LENGTH_AT: usize = 8;
/// Tells these codes from all others that a key might ever be used for.
const DOMAIN: &[u8] = b"landfall seal 1";

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The sender's address.
    pub from: IpAddr,
    /// The receiver's address.
    pub to: IpAddr,
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SealError {
    /// It is not as long as a message says that it is, or what follows it is not as long as a seal.
    #[error("truncated")]
    Truncated,
    /// Keys are set here and the message has no seal.
    #[error("not sealed")]
    Missing,
    /// No keys are set here and something follows the message.
    #[error("sealed, and no key is set here")]
    Unexpected,
    /// No key here has its ID.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// The message, a BFD packet before it or one of the ends is not what was sealed, or the key is another.
    #[error("a wrong seal")]
    WrongMac,
    /// Its counter was seen before.
    #[error("replayed")]
    Replayed,
    /// Its counter is older than what is remembered, so it may have been seen before.
    #[error("too old to tell whether it is replayed")]
    Stale,
    /// It is not proven that the process which made it is its node's present one.
    #[error("of another process than its node's present one")]
    OtherProcess,
}

impl SealError {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Truncated,
        Self::Missing,
        Self::Unexpected,
        Self::UnknownKey,
        Self::WrongMac,
        Self::Replayed,
        Self::Stale,
        Self::OtherProcess,
    ];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated => "SealTruncated",
            Self::Missing => "SealMissing",
            Self::Unexpected => "SealUnexpected",
            Self::UnknownKey => "SealUnknownKey",
            Self::WrongMac => "SealWrongMac",
            Self::Replayed => "SealReplayed",
            Self::Stale => "SealStale",
            Self::OtherProcess => "SealOtherProcess",
        }
    }
}

/// A message whose seal is right, or that needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'p> {
    /// The message without its seal.
    pub message: &'p [u8],
    /// The counter of its seal, for [`Windows::check`]; none where there are no keys.
    pub counter: Option<u64>,
}

/// Seals and opens messages, with whatever keys there are.
#[derive(Clone, Debug)]
pub struct Sealer {
    keys: Option<Arc<Keyring>>,
    next: u64,
}

impl Sealer {
    /// A sealer without keys. Its first seal has the counter `first`. Receivers keep the counters of
    /// different processes apart, so every process may begin with the same; there is no way back to zero
    /// from the largest.
    pub fn new(first: u64) -> Self {
        Self { keys: None, next: first }
    }

    /// The counter of the next seal.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Goes on where a former process of this node stopped.
    pub fn resume(&mut self, next: u64) {
        self.next = next;
    }

    /// Uses these keys from now on, or none. The counter goes on.
    pub fn set_keys(&mut self, keys: Option<Arc<Keyring>>) {
        self.keys = keys;
    }

    /// Whether messages are sealed, and must be.
    pub fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Appends the seal to `message`: nothing where there are no keys. `control` is the BFD packet that goes
    /// before the message, or nothing; it is covered and not part of the message.
    pub fn seal(&mut self, ends: Ends, control: &[u8], message: &mut Vec<u8>) {
        let Some(keys) = &self.keys else { return };
        let counter = self.next;
        self.next = counter.wrapping_add(1);
        let (id, key) = keys.sending();
        let mac = mac(key, ends, control, message, counter, id);
        message.reserve(SEAL_LEN);
        message.extend_from_slice(&counter.to_be_bytes());
        message.push(id);
        message.extend_from_slice(&mac);
    }

    /// Splits what was received into message and seal, and checks the seal. `control` is the BFD packet that
    /// came before it in the datagram, or nothing. Whether it was heard before is for [`Windows`] to say.
    ///
    /// # Errors
    /// The lengths are wrong, or the seal is, or there is one and should be none or the other way round.
    pub fn open<'p>(&self, ends: Ends, control: &[u8], received: &'p [u8]) -> Result<Opened<'p>, SealError> {
        let length = received.get(LENGTH_AT..).and_then(<[u8]>::first_chunk).ok_or(SealError::Truncated)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (message, seal) = received.split_at_checked(length).ok_or(SealError::Truncated)?;
        let keys = match (&self.keys, seal.is_empty()) {
            (None, true) => return Ok(Opened { message, counter: None }),
            (None, false) => return Err(SealError::Unexpected),
            (Some(_), true) => return Err(SealError::Missing),
            (Some(keys), false) => keys,
        };
        let (counter, id, told) = parts(seal).ok_or(SealError::Truncated)?;
        let key = keys.get(id).ok_or(SealError::UnknownKey)?;
        let right = mac(key, ends, control, message, counter, id);
        if !bool::from(right.as_slice().ct_eq(told)) {
            return Err(SealError::WrongMac);
        }
        Ok(Opened { message, counter: Some(counter) })
    }
}

/// Counter, ID of the key and code of a seal, if it is as long as one.
fn parts(seal: &[u8]) -> Option<(u64, u8, &[u8])> {
    let (counter, rest) = seal.split_first_chunk()?;
    let (id, mac) = rest.split_first()?;
    (mac.len() == MAC_LEN).then_some((u64::from_be_bytes(*counter), *id, mac))
}

/// The code of a message. Every part but the message has a length that is fixed or told before it, so two
/// things that differ are never the same bytes to the code.
fn mac(
    key: &Hmac<Sha256>,
    ends: Ends,
    control: &[u8],
    message: &[u8],
    counter: u64,
    id: u8,
) -> [u8; MAC_LEN] {
    let mut mac = key.clone();
    mac.update(DOMAIN);
    for address in [ends.from, ends.to] {
        match address {
            IpAddr::V4(address) => {
                mac.update(&[4]);
                mac.update(&address.octets());
            }
            IpAddr::V6(address) => {
                mac.update(&[6]);
                mac.update(&address.octets());
            }
        }
    }
    // A BFD packet tells its length in one byte (RFC 5880 section 4.1).
    mac.update(&(control.len() as u16).to_be_bytes());
    mac.update(control);
    mac.update(message);
    mac.update(&counter.to_be_bytes());
    mac.update(&[id]);
    let whole: [u8; 32] = mac.finalize().into_bytes().into();
    let mut half = [0; MAC_LEN];
    half.copy_from_slice(&whole[..MAC_LEN]);
    half
}
