//! Ethernet II frames without a VLAN tag.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::WireError;
use crate::lan::MacAddr;

/// The Ethernet type of ARP.
pub const ETHER_TYPE_ARP: u16 = 0x0806;
/// The Ethernet type of IPv6.
pub const ETHER_TYPE_IPV6: u16 = 0x86dd;
/// The length of an Ethernet header.
pub const HEADER_LEN: usize = 14;
/// The shortest frame, without its checksum (IEEE 802.3). Shorter ones are padded with zeros.
pub const MIN_FRAME_LEN: usize = 60;

/// A view of a frame that is at least a whole header.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a>(&'a [u8]);

impl<'a> Frame<'a> {
    /// Views `bytes` as a frame.
    ///
    /// # Errors
    /// The bytes end within the header.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Self(bytes)) }
    }

    /// To whom it goes.
    pub fn destination(&self) -> MacAddr {
        mac_at(self.0, 0)
    }

    /// Who sent it.
    pub fn source(&self) -> MacAddr {
        mac_at(self.0, 6)
    }

    /// What its payload is. A VLAN tag shows as a type that is not ours.
    pub fn ether_type(&self) -> u16 {
        u16_at(self.0, 12)
    }

    /// What it carries, padding included.
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER_LEN..]
    }
}

/// The longest frame that is emitted: neighbour discovery with a link-layer address.
const MAX_EMITTED_LEN: usize = HEADER_LEN + 40 + 24 + 8;

/// A whole frame that is to be sent. It is held in place, so that an answer allocates nothing.
#[derive(Clone, Copy)]
pub struct EmittedFrame {
    bytes: [u8; MAX_EMITTED_LEN],
    length: u8,
}

impl EmittedFrame {
    /// A frame of zeros. It is no longer than any that is emitted.
    pub(super) fn zeroed(length: usize) -> Self {
        Self { bytes: [0; MAX_EMITTED_LEN], length: length.min(MAX_EMITTED_LEN) as u8 }
    }
}

impl Deref for EmittedFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl DerefMut for EmittedFrame {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.length)]
    }
}

impl PartialEq for EmittedFrame {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for EmittedFrame {}

impl fmt::Debug for EmittedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Writes a header to the first [`HEADER_LEN`] bytes of a buffer that is at least that long.
pub(super) fn emit_header(buffer: &mut [u8], destination: MacAddr, source: MacAddr, ether_type: u16) {
    buffer[0..6].copy_from_slice(&destination.0);
    buffer[6..12].copy_from_slice(&source.0);
    buffer[12..14].copy_from_slice(&ether_type.to_be_bytes());
}

/// Six bytes from `at` on, of a buffer that is known to have them.
pub(super) fn mac_at(bytes: &[u8], at: usize) -> MacAddr {
    let mut mac = [0; 6];
    mac.copy_from_slice(&bytes[at..at + 6]);
    MacAddr(mac)
}

/// A big-endian number from `at` on, of a buffer that is known to have it.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A big-endian number from `at` on, of a buffer that is known to have it.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(number)
}
