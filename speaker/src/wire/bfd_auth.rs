//! Authentication sections of BFD Control packets (RFC 5880 sections 4.2 to 4.4).
//!
//! Here they are only bytes and values; `bfd::auth` says which of them is believed.

use super::bfd::Malformed;

const SIMPLE_PASSWORD: u8 = 1;
const KEYED_MD5: u8 = 2;
const METICULOUS_KEYED_MD5: u8 = 3;
const KEYED_SHA1: u8 = 4;
const METICULOUS_KEYED_SHA1: u8 = 5;

const PASSWORD_AT: usize = 3;
const DIGEST_AT: usize = 8;
const MD5_LEN: usize = 16;
const SHA1_LEN: usize = 20;

/// An authentication section as a value. The reserved byte is sent as zero and not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRepr {
    /// Type 1.
    SimplePassword {
        /// Which password it is.
        key_id: u8,
        /// The password.
        password: Password,
    },
    /// Types 2 and 3.
    KeyedMd5 {
        /// Type 3: the sequence number grows with every packet, not only now and then.
        meticulous: bool,
        /// Which key it is.
        key_id: u8,
        /// The sequence number.
        sequence: u32,
        /// The digest, or the key while the digest is reckoned.
        digest: [u8; MD5_LEN],
    },
    /// Types 4 and 5.
    KeyedSha1 {
        /// Type 5: the sequence number grows with every packet, not only now and then.
        meticulous: bool,
        /// Which key it is.
        key_id: u8,
        /// The sequence number.
        sequence: u32,
        /// The hash, or the key while the hash is reckoned.
        hash: [u8; SHA1_LEN],
    },
}

impl AuthRepr {
    /// Reads the value from the start of the bytes behind a packet's header.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let [kind, length, ..] = *bytes else { return Err(Malformed::AuthLength) };
        let section = bytes.get(..usize::from(length)).ok_or(Malformed::AuthLength)?;
        match kind {
            SIMPLE_PASSWORD => {
                let password = section.get(PASSWORD_AT..).and_then(Password::new);
                let password = password.ok_or(Malformed::AuthLength)?;
                Ok(Self::SimplePassword { key_id: section[2], password })
            }
            KEYED_MD5 | METICULOUS_KEYED_MD5 => {
                let (key_id, sequence, digest) = take_digest(section)?;
                Ok(Self::KeyedMd5 { meticulous: kind == METICULOUS_KEYED_MD5, key_id, sequence, digest })
            }
            KEYED_SHA1 | METICULOUS_KEYED_SHA1 => {
                let (key_id, sequence, hash) = take_digest(section)?;
                Ok(Self::KeyedSha1 { meticulous: kind == METICULOUS_KEYED_SHA1, key_id, sequence, hash })
            }
            _ => Err(Malformed::AuthType),
        }
    }

    /// Writes the value to the start of a buffer of at least 28 zeros and says how long it is.
    pub(super) fn emit(&self, buffer: &mut [u8]) -> usize {
        match self {
            Self::SimplePassword { key_id, password } => {
                let password = password.as_bytes();
                let length = PASSWORD_AT + password.len();
                buffer[0..3].copy_from_slice(&[SIMPLE_PASSWORD, length as u8, *key_id]);
                buffer[PASSWORD_AT..length].copy_from_slice(password);
                length
            }
            Self::KeyedMd5 { meticulous, key_id, sequence, digest } => {
                let kind = if *meticulous { METICULOUS_KEYED_MD5 } else { KEYED_MD5 };
                put_digest(buffer, kind, *key_id, *sequence, digest)
            }
            Self::KeyedSha1 { meticulous, key_id, sequence, hash } => {
                let kind = if *meticulous { METICULOUS_KEYED_SHA1 } else { KEYED_SHA1 };
                put_digest(buffer, kind, *key_id, *sequence, hash)
            }
        }
    }
}

fn take_digest<const LEN: usize>(section: &[u8]) -> Result<(u8, u32, [u8; LEN]), Malformed> {
    let (head, digest) = section.split_at_checked(DIGEST_AT).ok_or(Malformed::AuthLength)?;
    let digest = digest.try_into().map_err(|_| Malformed::AuthLength)?;
    Ok((head[2], u32::from_be_bytes([head[4], head[5], head[6], head[7]]), digest))
}

fn put_digest(buffer: &mut [u8], kind: u8, key_id: u8, sequence: u32, digest: &[u8]) -> usize {
    let length = DIGEST_AT + digest.len();
    buffer[0..4].copy_from_slice(&[kind, length as u8, key_id, 0]);
    buffer[4..DIGEST_AT].copy_from_slice(&sequence.to_be_bytes());
    buffer[DIGEST_AT..length].copy_from_slice(digest);
    length
}

/// A simple password: 1 to 16 bytes (RFC 5880 section 4.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password {
    bytes: [u8; 16],
    length: u8,
}

impl Password {
    /// A password of these bytes, if they are neither too few nor too many.
    pub fn new(password: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        bytes.get_mut(..password.len())?.copy_from_slice(password);
        (!password.is_empty()).then_some(Self { bytes, length: password.len() as u8 })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}
