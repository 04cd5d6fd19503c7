//! What a speaker says of one address, in bytes, and the digest of it.
//!
//! ```text
//!  0  family 4 or 6         2  rank      12  term
//!  1  what it says, flags   4  epoch     20  address
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{HEADER_LEN, MAX_LEN};
use crate::ownership::claim::{Claim, Statement};
use crate::wire::WireError;
use crate::wire::ethernet::{u16_at, u64_at};

pub(super) const ENTRY_HEAD_LEN: usize = 20;

const SAYS_REFUSING: u8 = 1;
const SAYS_ANNOUNCING: u8 = 2;
const SAYS_UNFIT: u8 = 3;
const CLAIM_UNFIT: u8 = 0x04;
const CLAIM_RELUCTANT: u8 = 0x08;
const CLAIM_ISOLATED: u8 = 0x10;
const CLAIM_LEAVING: u8 = 0x20;
const CLAIM_PROBING: u8 = 0x40;
const CLAIM_FLAGS: u8 = CLAIM_UNFIT | CLAIM_RELUCTANT | CLAIM_ISOLATED | CLAIM_LEAVING | CLAIM_PROBING;

/// What a speaker says of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// What it says.
    pub statement: Statement,
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
    digest_of(&bytes)
}

/// A number that stands for these bytes and may be added up with others.
pub fn digest_of(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    // FNV alone is too linear for its values to be added up: stir once more (splitmix64).
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

pub(super) fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

pub(super) fn put_entry(bytes: &mut Vec<u8>, entry: &Entry) {
    let nothing = Claim::default();
    let (says, claim) = match &entry.statement {
        Statement::Nothing => (0, &nothing),
        Statement::Refusing => (SAYS_REFUSING, &nothing),
        Statement::Unfit => (SAYS_UNFIT, &nothing),
        Statement::Announcing(claim) => (SAYS_ANNOUNCING, claim),
    };
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = flag(claim.unfit, CLAIM_UNFIT)
        | flag(claim.reluctant, CLAIM_RELUCTANT)
        | flag(claim.isolated, CLAIM_ISOLATED)
        | flag(claim.leaving, CLAIM_LEAVING)
        | flag(claim.probing, CLAIM_PROBING);
    bytes.push(if entry.address.is_ipv4() { 4 } else { 6 });
    bytes.push(says | flags);
    bytes.extend(claim.rank.to_be_bytes());
    bytes.extend(claim.epoch.to_be_bytes());
    bytes.extend(claim.term.to_be_bytes());
    put_address(bytes, entry.address);
}

pub(super) fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], WireError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(WireError::Truncated)?;
    *rest = left;
    Ok(taken)
}

pub(super) fn take_address(rest: &mut &[u8], family: u8) -> Result<IpAddr, WireError> {
    let invalid = |_| WireError::InvalidSpeech;
    match family {
        4 => Ok(Ipv4Addr::from(<[u8; 4]>::try_from(take(rest, 4)?).map_err(invalid)?).into()),
        6 => Ok(Ipv6Addr::from(<[u8; 16]>::try_from(take(rest, 16)?).map_err(invalid)?).into()),
        _ => Err(WireError::InvalidSpeech),
    }
}

pub(super) fn take_entry(rest: &mut &[u8]) -> Result<Entry, WireError> {
    let head = take(rest, ENTRY_HEAD_LEN)?;
    let says = head[1];
    let claim = Claim {
        rank: u16_at(head, 2),
        // The same eight bytes; the sign is in them.
        epoch: u64_at(head, 4) as i64,
        term: u64_at(head, 12),
        unfit: says & CLAIM_UNFIT != 0,
        reluctant: says & CLAIM_RELUCTANT != 0,
        isolated: says & CLAIM_ISOLATED != 0,
        leaving: says & CLAIM_LEAVING != 0,
        probing: says & CLAIM_PROBING != 0,
    };
    let is_bare = head[2..].iter().all(|byte| *byte == 0);
    let statement = match says & !CLAIM_FLAGS {
        SAYS_ANNOUNCING => Statement::Announcing(claim),
        0 if says == 0 && is_bare => Statement::Nothing,
        SAYS_REFUSING if says == SAYS_REFUSING && is_bare => Statement::Refusing,
        SAYS_UNFIT if says == SAYS_UNFIT && is_bare => Statement::Unfit,
        _ => return Err(WireError::InvalidSpeech),
    };
    Ok(Entry { address: take_address(rest, head[0])?, statement })
}

pub(super) fn take_entries(rest: &mut &[u8], count: usize) -> Result<Vec<Entry>, WireError> {
    // The count is the sender's word: do not reserve memory for it.
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(take_entry(rest)?);
    }
    Ok(entries)
}
