//! The datagrams that speakers send to each other, version 1.
//!
//! A header tells who speaks and what it knows of itself, so that every message is a sign of life and shows
//! whether anything sent before was missed; what else there is to say follows.
//!
//! ```text
//!  0  magic "LFsp"                      16  hardware address
//!  4  version 1                         22  gates that do not pass
//!  5  kind                              24  instance of the sender
//!  6  flags: 1 isolated, 2 leaving      32  sequence of its statements
//!  7  length of the header / 8          40  digest of its statements
//!  8  length of the whole               48  digest of the addresses that it knows of
//! 10  number of entries                 56  what the kind has to say
//! 12  FNV-1a of the whole, itself zero
//!
//! kind  1 heartbeat   2 changes: entries   3 query   4 range: first and last address, entries   5 goodbye
//!       6 do you hear: address   7 heard: address, milliseconds
//!       8 do you know   9 known: 64 digests   10 who has: addresses   11 claimed: hardware address and entry,
//!       each
//! ```
//!
//! # Later versions
//! Nodes are upgraded one after the other, so a speaker hears what a later one says. What it does not know it
//! passes over: a longer header, further flags, other kinds, which still are a sign of life. A later version
//! says the same things in the same bytes; what is new has a new place, a new flag or a new kind.

use std::net::IpAddr;

use super::WireError;
use super::ethernet::{mac_at, u16_at, u64_at};
use crate::lan::MacAddr;
use crate::ownership::gates::Gates;
use crate::ownership::knowledge::{BUCKETS, Buckets};

mod entry;

pub use entry::{Entry, digest, digest_of, room_for};
use entry::{put_address, put_entry, take, take_address, take_entries, take_entry};

/// The longest payload that is sent: it fits every LAN without fragments.
pub const MAX_LEN: usize = 1200;
const MAGIC: [u8; 4] = *b"LFsp";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 56;

const FLAG_ISOLATED: u8 = 1;
const FLAG_LEAVING: u8 = 2;

/// What every message tells of its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The lowest hardware address of the sender's node, which settles claims that are otherwise equal.
    pub mac: MacAddr,
    /// What the sender's node lacks to serve what it announces.
    pub gates: Gates,
    /// A number that the sender's process drew when it started; another one means that it restarted.
    pub instance: u64,
    /// Counts the changes of its statements.
    pub sequence: u64,
    /// A digest of all its statements after that change.
    pub digest: u64,
    /// A digest of all addresses that it looks after, and of their epochs.
    pub knowledge: u64,
    /// It hears nobody on this link.
    pub isolated: bool,
    /// It is about to leave and claims nothing any more.
    pub leaving: bool,
}

/// A claim on an address that another speaker makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// The lowest hardware address of that speaker's node.
    pub mac: MacAddr,
    /// What it says.
    pub entry: Entry,
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
    /// Tell me which addresses you know of.
    DoYouKnow,
    /// The addresses that the sender knows of, by bucket.
    Know(Box<Buckets>),
    /// Who claims these addresses, of those that you hear?
    WhoHas(Vec<IpAddr>),
    /// Other speakers claim these addresses, as the sender hears from them.
    Claimed(Vec<Witnessed>),
    /// Something that only a later version says.
    Other,
}

/// A message as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeechRepr {
    /// Of its sender.
    pub header: Header,
    /// What it is for.
    pub body: Body,
}

/// So many addresses fit into one question of who has them.
pub const MOST_ADDRESSES: usize = (MAX_LEN - HEADER_LEN) / 17;
/// So many claims of others fit into one message.
pub const MOST_WITNESSED: usize = (MAX_LEN - HEADER_LEN) / (6 + 36);

/// A view of a message: magic, version, lengths and check are right.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    header_len: usize,
}

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
        let header_len = usize::from(bytes[7]) * 8;
        if header_len < HEADER_LEN || header_len > bytes.len() {
            return Err(WireError::InvalidSpeech);
        }
        if bytes[12..16] != check(bytes).to_be_bytes() {
            return Err(WireError::Checksum);
        }
        Ok(Self { bytes, header_len })
    }
}

impl SpeechRepr {
    /// Reads the value out of a view.
    ///
    /// # Errors
    /// A value has no meaning, or the entries are not as many as told.
    pub fn parse(packet: &Packet<'_>) -> Result<Self, WireError> {
        let Packet { bytes, header_len } = *packet;
        let flags = bytes[6];
        let header = Header {
            mac: mac_at(bytes, 16),
            gates: Gates::from_bits(u16_at(bytes, 22)),
            instance: u64_at(bytes, 24),
            sequence: u64_at(bytes, 32),
            digest: u64_at(bytes, 40),
            knowledge: u64_at(bytes, 48),
            isolated: flags & FLAG_ISOLATED != 0,
            leaving: flags & FLAG_LEAVING != 0,
        };
        let count = usize::from(u16_at(bytes, 10));
        let mut rest = &bytes[header_len..];
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
            8 => Body::DoYouKnow,
            9 => Body::Know(take_buckets(&mut rest)?),
            10 => Body::WhoHas(take_bounds(&mut rest, count)?),
            11 => Body::Claimed(take_witnessed(&mut rest, count)?),
            0 => return Err(WireError::InvalidSpeech),
            _ => return Ok(Self { header, body: Body::Other }),
        };
        let told = match &body {
            Body::Changes(entries) | Body::Range { entries, .. } => entries.len(),
            Body::WhoHas(addresses) => addresses.len(),
            Body::Claimed(witnessed) => witnessed.len(),
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
        let mut bytes = Vec::with_capacity(HEADER_LEN + 64);
        bytes.resize(HEADER_LEN, 0);
        let (kind, count) = put_body(&mut bytes, &self.body);
        let Header { mac, gates, instance, sequence, digest, knowledge, isolated, leaving } = self.header;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = kind;
        bytes[6] = flag(isolated, FLAG_ISOLATED) | flag(leaving, FLAG_LEAVING);
        bytes[7] = (HEADER_LEN / 8) as u8;
        let length = bytes.len() as u16;
        bytes[8..10].copy_from_slice(&length.to_be_bytes());
        bytes[10..12].copy_from_slice(&(count as u16).to_be_bytes());
        bytes[16..22].copy_from_slice(&mac.0);
        bytes[22..24].copy_from_slice(&gates.bits().to_be_bytes());
        bytes[24..32].copy_from_slice(&instance.to_be_bytes());
        bytes[32..40].copy_from_slice(&sequence.to_be_bytes());
        bytes[40..48].copy_from_slice(&digest.to_be_bytes());
        bytes[48..56].copy_from_slice(&knowledge.to_be_bytes());
        checked(bytes)
    }
}

/// Writes the check into a message that is complete but for that.
pub(super) fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let check = check(&bytes);
    bytes[12..16].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// Appends what the body has to say. Its kind, and the number of its entries.
fn put_body(bytes: &mut Vec<u8>, body: &Body) -> (u8, usize) {
    match body {
        Body::Heartbeat => (1, 0),
        Body::Changes(entries) => {
            entries.iter().for_each(|entry| put_entry(bytes, entry));
            (2, entries.len())
        }
        Body::Query => (3, 0),
        Body::Range { first, last, entries } => {
            put_bound(bytes, *first);
            put_bound(bytes, *last);
            entries.iter().for_each(|entry| put_entry(bytes, entry));
            (4, entries.len())
        }
        Body::Goodbye => (5, 0),
        Body::DoYouHear(address) => {
            put_bound(bytes, *address);
            (6, 0)
        }
        Body::Hear { address, ago } => {
            put_bound(bytes, *address);
            bytes.extend(ago.to_be_bytes());
            (7, 0)
        }
        Body::DoYouKnow => (8, 0),
        Body::Know(buckets) => {
            bytes.extend(buckets.iter().flat_map(|digest| digest.to_be_bytes()));
            (9, 0)
        }
        Body::WhoHas(addresses) => {
            addresses.iter().for_each(|address| put_bound(bytes, *address));
            (10, addresses.len())
        }
        Body::Claimed(witnessed) => {
            for Witnessed { mac, entry } in witnessed {
                bytes.extend(mac.0);
                put_entry(bytes, entry);
            }
            (11, witnessed.len())
        }
        // The last that this version does not know: so a test can play a later one.
        Body::Other => (u8::MAX, 0),
    }
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

fn put_bound(bytes: &mut Vec<u8>, address: IpAddr) {
    bytes.push(if address.is_ipv4() { 4 } else { 6 });
    put_address(bytes, address);
}

fn take_bound(rest: &mut &[u8]) -> Result<IpAddr, WireError> {
    let family = take(rest, 1)?[0];
    take_address(rest, family)
}

fn take_bounds(rest: &mut &[u8], count: usize) -> Result<Vec<IpAddr>, WireError> {
    // The count is the sender's word: do not reserve memory for it.
    let mut bounds = Vec::new();
    for _ in 0..count {
        bounds.push(take_bound(rest)?);
    }
    Ok(bounds)
}

fn take_u16(rest: &mut &[u8]) -> Result<u16, WireError> {
    take(rest, 2).map(|bytes| u16_at(bytes, 0))
}

fn take_buckets(rest: &mut &[u8]) -> Result<Box<Buckets>, WireError> {
    let mut buckets = Box::new([0; BUCKETS]);
    for digest in buckets.iter_mut() {
        *digest = take(rest, 8).map(|bytes| u64_at(bytes, 0))?;
    }
    Ok(buckets)
}

fn take_witnessed(rest: &mut &[u8], count: usize) -> Result<Vec<Witnessed>, WireError> {
    // The count is the sender's word: do not reserve memory for it.
    let mut witnessed = Vec::new();
    for _ in 0..count {
        let mac = take(rest, 6).map(|bytes| mac_at(bytes, 0))?;
        witnessed.push(Witnessed { mac, entry: take_entry(rest)? });
    }
    Ok(witnessed)
}
