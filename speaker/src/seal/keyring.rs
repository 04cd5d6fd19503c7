//! The secrets that all speakers share, and the keys that are derived from them.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::bfd::auth::{Key, Keys, KeysError};

/// What is shorter could be guessed.
const SHORTEST_SECRET: usize = 16;
/// A block of SHA-256 in bytes.
const BLOCK_LEN: usize = 64;
/// The longest key of Meticulous Keyed SHA1 (RFC 5880 section 4.4).
const BFD_KEY_LEN: usize = 20;
const FOR_SPEECH: &[u8] = b"landfall speech 1";
const FOR_BFD: &[u8] = b"landfall bfd 1";

/// The keys of all secrets, by their IDs, one for each use, so that no code made for one use is right for
/// another. The secrets themselves are not kept.
///
/// They change without a flap by the three steps that [`crate::bfd::auth`] tells.
#[derive(Clone)]
pub struct Keyring {
    speech: Vec<(u8, Hmac<Sha256>)>,
    sending: (u8, Hmac<Sha256>),
    bfd: Arc<Keys>,
}

/// Why secrets are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The ID of a key is 0.
    #[error("a key has the ID 0; use one of 1 to 255")]
    ZeroId,
    /// A secret is too short.
    #[error(
        "the secret of key {id} has {length} bytes and needs at least {SHORTEST_SECRET}; make one with \
         `openssl rand -hex 32`"
    )]
    ShortSecret {
        /// The ID of the key.
        id: u8,
        /// How many bytes it has.
        length: usize,
    },
    /// An ID is there twice, or the one to send with not at all.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Keyring {
    /// The keys of these secrets by their IDs, 1 to 255, to seal with the one whose ID is `sending`.
    ///
    /// # Errors
    /// An ID is 0 or there twice, a secret has less than 16 bytes, or no secret has the ID `sending`.
    pub fn new(secrets: impl IntoIterator<Item = (u8, Vec<u8>)>, sending: u8) -> Result<Self, KeyringError> {
        let (mut speech, mut bfd) = (Vec::new(), Vec::new());
        for (id, secret) in secrets {
            if id == 0 {
                return Err(KeyringError::ZeroId);
            }
            if secret.len() < SHORTEST_SECRET {
                return Err(KeyringError::ShortSecret { id, length: secret.len() });
            }
            speech.push((id, keyed(&derived(&secret, FOR_SPEECH))));
            bfd.push((id, Key::new(&derived(&secret, FOR_BFD)[..BFD_KEY_LEN])?));
        }
        speech.sort_by_key(|(id, _)| *id);
        let bfd = Arc::new(Keys::new(bfd, sending)?);
        let sender = speech.iter().find(|(id, _)| *id == sending).cloned();
        Ok(Self { sending: sender.ok_or(KeysError::UnknownSender(sending))?, speech, bfd })
    }

    /// The keys for BFD, derived from the same secrets, with the same IDs and the same one to send with.
    pub fn bfd(&self) -> Arc<Keys> {
        Arc::clone(&self.bfd)
    }

    /// The ID of the key to seal with, and its code before the first byte.
    pub(super) fn sending(&self) -> (u8, &Hmac<Sha256>) {
        (self.sending.0, &self.sending.1)
    }

    /// The code of a key before the first byte.
    pub(super) fn get(&self, id: u8) -> Option<&Hmac<Sha256>> {
        self.speech.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u8> = self.speech.iter().map(|(id, _)| *id).collect();
        f.debug_struct("Keyring").field("ids", &ids).field("sending", &self.sending.0).finish_non_exhaustive()
    }
}

/// HMAC-SHA256 with a key, before the first byte.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // RFC 2104 section 2: a key that is longer than a block is hashed first, then zeros fill the block up.
    let hashed: [u8; 32];
    let key = if key.len() > BLOCK_LEN {
        hashed = Sha256::digest(key).into();
        &hashed
    } else {
        key
    };
    let mut block = [0; BLOCK_LEN];
    block[..key.len()].copy_from_slice(key);
    Hmac::new(&block.into())
}

fn derived(secret: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut mac = keyed(secret);
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}
