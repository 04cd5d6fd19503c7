//! The datagrams that speakers send to each other, version 1.
//!
//! A header of 48 bytes tells who speaks and what it knows of itself, so that every message is a sign of
//! life and shows whether anything sent before was missed; entries of one address each may follow.
//!
//! ```text
//!  0  magic "LFsp"                      24  instance of the sender
//!  4  version 1                         32  sequence of its statements
//!  5  kind                              40  digest of its statements
//!  6  flags: 1 isolated, 2 leaving      48  kind 4: first and last address of the range
//!  7  zero                                  kinds 2 and 4: entries
//!  8  length of the whole
//! 10  number of entries                     kinds 6 and 7: an address; 7: milliseconds
//! 12  FNV-1a of the whole, itself zero
//! 16  hardware address, two bytes zero  entry:  family 4 or 6, what it says and flags, rank,
//!                                               epoch, term, address
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::WireError;
use super::ethernet::{mac_at, u16_at, u64_at};
use crate::lan::MacAddr;
use crate::ownership::claim::{Claim, Statement};

/// The longest payload that is sent: it fits every LAN without fragments.
pub const MAX_LEN: usize = 1200;
const MAGIC: [u8; 4] = *b"LFsp";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 48;
const ENTRY_HEAD_LEN: usize = 20;

const SAYS_REFUSING: u8 = 1;
const SAYS_ANNOUNCING: u8 = 2;
const CLAIM_ISOLATED: u8 = 0x10;
const CLAIM_LEAVING: u8 = 0x20;
const CLAIM_PROBING: u8 = 0x40;
const FLAG_ISOLATED: u8 = 1;
const FLAG_LEAVING: u8 = 2;

/// What every message tells of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The lowest hardware address of the sender's node, which settles claims that are otherwise equal.
    pub mac: MacAddr,
    /// A number that the sender's process drew when it started; another one means that it restarted.
    pub instance: u64,
    /// Counts the changes of its statements.
    pub sequence: u64,
    /// A digest of all its statements after that change.
    pub digest: u64,
    /// It hears nobody on this link.
    pub isolated: bool,
    /// It is about to leave and claims nothing any more.
    pub leaving: bool,
}

/// What a speaker says of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// What it says.
    pub statement: Statement,
}

/// What a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The sender lives.
    Heartbeat,
    /// These statements are new.
    Changes(Vec<Entry>),
    /// Tell me all your statements.
    Query,
    /// All statements on addresses from `first` to `last`; on those left out there is nothing to say.
    Range {
        /// The first address of the range.
        first: IpAddr,
        /// The last address of the range.
        last: IpAddr,
        /// The statements, in the order of their addresses.
        entries: Vec<Entry>,
    },
    /// The sender's process ends and answers for nothing any more.
    Goodbye,
    /// Do you hear the speaker that is watched at this address? It is late where the sender watches it.
    DoYouHear(IpAddr),
    /// The speaker at this address was heard.
    Hear {
        /// The address of the question.
        address: IpAddr,
        /// How long ago it was heard, in milliseconds.
        ago: u16,
    },
}

/// A message as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeechRepr {
    /// Of its sender.
    pub header: Header,
    /// What it is for.
    pub body: Body,
}

/// A view of a message: magic, version, length and check are right.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a>(&'a [u8]);

impl<'a> Packet<'a> {
    /// Views `bytes` as a message.
    ///
    /// # Errors
    /// It is none, of an unknown version, cut off or changed on the way.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        if bytes[0..4] != MAGIC || bytes[4] != VERSION {
            return Err(WireError::NotSpeech);
        }
        if usize::from(u16_at(bytes, 8)) != bytes.len() {
            return Err(WireError::Truncated);
        }
        if bytes[12..16] != check(bytes).to_be_bytes() {
            return Err(WireError::Checksum);
        }
        Ok(Self(bytes))
    }
}

impl SpeechRepr {
    /// Reads the value out of a view.
    ///
    /// # Errors
    /// A value has no meaning, or the entries are not as many as told.
    pub fn parse(packet: &Packet<'_>) -> Result<Self, WireError> {
        let bytes = packet.0;
        let flags = bytes[6];
        if flags & !(FLAG_ISOLATED | FLAG_LEAVING) != 0 || bytes[7] != 0 || u16_at(bytes, 22) != 0 {
            return Err(WireError::InvalidSpeech);
        }
        let header = Header {
            mac: mac_at(bytes, 16),
            instance: u64_at(bytes, 24),
            sequence: u64_at(bytes, 32),
            digest: u64_at(bytes, 40),
            isolated: flags & FLAG_ISOLATED != 0,
            leaving: flags & FLAG_LEAVING != 0,
        };
        let count = usize::from(u16_at(bytes, 10));
        let mut rest = &bytes[HEADER_LEN..];
        let body = match bytes[5] {
            1 => Body::Heartbeat,
            2 => Body::Changes(take_entries(&mut rest, count)?),
            3 => Body::Query,
            4 => Body::Range {
                first: take_bound(&mut rest)?,
                last: take_bound(&mut rest)?,
                entries: take_entries(&mut rest, count)?,
            },
            5 => Body::Goodbye,
            6 => Body::DoYouHear(take_bound(&mut rest)?),
            7 => Body::Hear { address: take_bound(&mut rest)?, ago: take_u16(&mut rest)? },
            _ => return Err(WireError::InvalidSpeech),
        };
        let told = match &body {
            Body::Changes(entries) | Body::Range { entries, .. } => entries.len(),
            _ => 0,
        };
        if rest.is_empty() && told == count {
            Ok(Self { header, body })
        } else {
            Err(WireError::InvalidSpeech)
        }
    }

    /// Reads the value out of a datagram's payload.
    ///
    /// # Errors
    /// As [`Packet::new_checked`] and [`SpeechRepr::parse`].
    pub fn parse_payload(payload: &[u8]) -> Result<Self, WireError> {
        Self::parse(&Packet::new_checked(payload)?)
    }

    /// The payload that carries the value. Its author keeps it within [`MAX_LEN`], see [`room_for`].
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let (kind, entries) = match &self.body {
            Body::Heartbeat => (1, [].as_slice()),
            Body::Changes(entries) => (2, entries.as_slice()),
            Body::Query => (3, [].as_slice()),
            Body::Range { first, last, entries } => {
                put_bound(&mut bytes, *first);
                put_bound(&mut bytes, *last);
                (4, entries.as_slice())
            }
            Body::Goodbye => (5, [].as_slice()),
            Body::DoYouHear(address) => {
                put_bound(&mut bytes, *address);
                (6, [].as_slice())
            }
            Body::Hear { address, ago } => {
                put_bound(&mut bytes, *address);
                bytes.extend(ago.to_be_bytes());
                (7, [].as_slice())
            }
        };
        for entry in entries {
            put_entry(&mut bytes, entry);
        }
        let header = &self.header;
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = kind;
        bytes[6] =
            if header.isolated { FLAG_ISOLATED } else { 0 } | if header.leaving { FLAG_LEAVING } else { 0 };
        let length = bytes.len() as u16;
        bytes[8..10].copy_from_slice(&length.to_be_bytes());
        bytes[10..12].copy_from_slice(&(entries.len() as u16).to_be_bytes());
        bytes[16..22].copy_from_slice(&header.mac.0);
        bytes[24..32].copy_from_slice(&header.instance.to_be_bytes());
        bytes[32..40].copy_from_slice(&header.sequence.to_be_bytes());
        bytes[40..48].copy_from_slice(&header.digest.to_be_bytes());
        let check = check(&bytes);
        bytes[12..16].copy_from_slice(&check.to_be_bytes());
        bytes
    }
}

/// How many of `entries`, from the first on, fit into one message.
pub fn room_for(entries: &[Entry]) -> usize {
    // Whatever the kind: a header and the bounds of a range.
    let mut left = MAX_LEN - HEADER_LEN - 2 * 17;
    let fits = |entry: &&Entry| {
        let length = ENTRY_HEAD_LEN + if entry.address.is_ipv4() { 4 } else { 16 };
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    };
    entries.iter().take_while(fits).count()
}

/// The part of a digest that one statement makes. The digest of a set is the wrapping sum of them, so
/// that it can be kept up to date, whatever the order. To have nothing to say adds nothing.
pub fn digest(entry: &Entry) -> u64 {
    if entry.statement == Statement::Nothing {
        return 0;
    }
    let mut bytes = Vec::with_capacity(ENTRY_HEAD_LEN + 16);
    put_entry(&mut bytes, entry);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    // FNV alone is too linear for its values to be added up: stir once more (splitmix64).
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// FNV-1a over the whole message with the check itself as zero. A change of any single byte changes it,
/// since every step maps states one to one.
fn check(bytes: &[u8]) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if (12..16).contains(&at) { 0 } else { *byte };
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

fn put_bound(bytes: &mut Vec<u8>, address: IpAddr) {
    bytes.push(if address.is_ipv4() { 4 } else { 6 });
    put_address(bytes, address);
}

fn put_entry(bytes: &mut Vec<u8>, entry: &Entry) {
    let nothing = Claim { epoch: 0, term: 0, rank: 0, isolated: false, leaving: false, probing: false };
    let (says, claim) = match &entry.statement {
        Statement::Nothing => (0, &nothing),
        Statement::Refusing => (SAYS_REFUSING, &nothing),
        Statement::Announcing(claim) => (SAYS_ANNOUNCING, claim),
    };
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = flag(claim.isolated, CLAIM_ISOLATED)
        | flag(claim.leaving, CLAIM_LEAVING)
        | flag(claim.probing, CLAIM_PROBING);
    bytes.push(if entry.address.is_ipv4() { 4 } else { 6 });
    bytes.push(says | flags);
    bytes.extend(claim.rank.to_be_bytes());
    bytes.extend(claim.epoch.to_be_bytes());
    bytes.extend(claim.term.to_be_bytes());
    put_address(bytes, entry.address);
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], WireError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(WireError::Truncated)?;
    *rest = left;
    Ok(taken)
}

fn take_address(rest: &mut &[u8], family: u8) -> Result<IpAddr, WireError> {
    let invalid = |_| WireError::InvalidSpeech;
    match family {
        4 => Ok(Ipv4Addr::from(<[u8; 4]>::try_from(take(rest, 4)?).map_err(invalid)?).into()),
        6 => Ok(Ipv6Addr::from(<[u8; 16]>::try_from(take(rest, 16)?).map_err(invalid)?).into()),
        _ => Err(WireError::InvalidSpeech),
    }
}

fn take_bound(rest: &mut &[u8]) -> Result<IpAddr, WireError> {
    let family = take(rest, 1)?[0];
    take_address(rest, family)
}

fn take_u16(rest: &mut &[u8]) -> Result<u16, WireError> {
    take(rest, 2).map(|bytes| u16_at(bytes, 0))
}

fn take_entries(rest: &mut &[u8], count: usize) -> Result<Vec<Entry>, WireError> {
    // The count is the sender's word: do not reserve memory for it.
    let mut entries = Vec::new();
    for _ in 0..count {
        let head = take(rest, ENTRY_HEAD_LEN)?;
        let says = head[1];
        let claim = Claim {
            rank: u16_at(head, 2),
            // The same eight bytes; the sign is in them.
            epoch: u64_at(head, 4) as i64,
            term: u64_at(head, 12),
            isolated: says & CLAIM_ISOLATED != 0,
            leaving: says & CLAIM_LEAVING != 0,
            probing: says & CLAIM_PROBING != 0,
        };
        let statement = match says & !(CLAIM_ISOLATED | CLAIM_LEAVING | CLAIM_PROBING) {
            SAYS_ANNOUNCING => Statement::Announcing(claim),
            0 if head[1..].iter().all(|byte| *byte == 0) => Statement::Nothing,
            SAYS_REFUSING if says == SAYS_REFUSING && head[2..].iter().all(|byte| *byte == 0) => {
                Statement::Refusing
            }
            _ => return Err(WireError::InvalidSpeech),
        };
        entries.push(Entry { address: take_address(rest, head[0])?, statement });
    }
    Ok(entries)
}
