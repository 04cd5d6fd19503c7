//! What a speaker of another version says and understands.
//!
//! There is one code base only, so such a speaker is one of today, and what it says and hears is changed on the way.
//! A former one neither says nor takes in what it did not know yet. A later one says more than is known today,
//! wherever the format has room for it: behind the header, in the flags, and in kinds of its own.

use std::sync::Arc;

use landfall_speaker::seal::{Ends, Keyring, SEAL_LEN, Sealer};
use landfall_speaker::wire::bfd;
use serde::{Deserialize, Serialize};

/// Which one a node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// It knew nothing of witnesses, nor of what others know.
    Former,
    #[default]
    Present,
    Later,
}

/// The kinds of messages (`wire/speech.rs`) that the former version knew: heartbeats, changes, queries, ranges,
/// goodbyes, and who hears whom.
const FORMER_KINDS: std::ops::RangeInclusive<u8> = 1..=7;
const KIND_AT: usize = 5;
const FLAGS_AT: usize = 6;
const HEADER_LENGTH_AT: usize = 7;
const LENGTH_AT: usize = 8;
const CHECK_AT: usize = 12;
/// A flag that has no meaning yet.
const LATER_FLAG: u8 = 0x40;
/// A kind that has no meaning yet.
const LATER_KIND: u8 = 77;

impl Version {
    /// The other version that takes part in an upgrade from or to this one.
    pub fn other(self) -> Self {
        match self {
            Self::Present => Self::Later,
            Self::Former | Self::Later => Self::Present,
        }
    }

    /// Whether it would take this in rather than pass it over.
    pub fn hears(self, payload: &[u8]) -> bool {
        self != Self::Former
            || message_of(payload).1.get(KIND_AT).is_none_or(|kind| FORMER_KINDS.contains(kind))
    }

    /// Whether it tells others what it hears of a third.
    pub fn is_witness(self) -> bool {
        self != Self::Former
    }

    /// What it says where the present version says this.
    pub fn says(self, payload: Vec<u8>, ends: Ends, keys: Option<&Arc<Keyring>>) -> Vec<Vec<u8>> {
        match self {
            Self::Present => vec![payload],
            Self::Former if self.hears(&payload) => vec![payload],
            Self::Former => Vec::new(),
            Self::Later => later(payload, ends, keys),
        }
    }
}

/// The BFD packet of a datagram, and what is behind it.
fn message_of(payload: &[u8]) -> (&[u8], &[u8]) {
    let length = if bfd::is_bfd(payload) { payload.get(3).copied().unwrap_or_default() } else { 0 };
    payload.split_at(usize::from(length).min(payload.len()))
}

/// The same with a longer header and a flag that is not known yet; sometimes a message of another kind follows.
fn later(payload: Vec<u8>, ends: Ends, keys: Option<&Arc<Keyring>>) -> Vec<Vec<u8>> {
    let (control, rest) = message_of(&payload);
    let Some(length) = rest.get(LENGTH_AT..LENGTH_AT + 2) else { return vec![payload] };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let Some((message, seal)) = rest.split_at_checked(length) else { return vec![payload] };
    let header = usize::from(message[HEADER_LENGTH_AT]) * 8;
    let mut longer = message[..header].to_vec();
    longer.extend([0xaa; 8]);
    longer.extend(&message[header..]);
    longer[HEADER_LENGTH_AT] += 1;
    longer[FLAGS_AT] |= LATER_FLAG;
    let counter =
        seal.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).filter(|_| seal.len() == SEAL_LEN);
    let dressed = finish(longer.clone(), control, ends, keys, counter);
    // What nobody knows yet is said in the place of what is only said again.
    let is_heartbeat = message[KIND_AT] == 1;
    if is_heartbeat || counter.is_some() {
        return vec![dressed];
    }
    longer.truncate(header + 8);
    longer[KIND_AT] = LATER_KIND;
    longer[10..12].fill(0);
    vec![dressed, finish(longer, &[], ends, keys, None)]
}

/// Writes length and check, seals the message again, and puts it behind its packet.
fn finish(
    mut message: Vec<u8>,
    control: &[u8],
    ends: Ends,
    keys: Option<&Arc<Keyring>>,
    counter: Option<u64>,
) -> Vec<u8> {
    let length = message.len() as u16;
    message[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&length.to_be_bytes());
    message[CHECK_AT..CHECK_AT + 4].fill(0);
    let check = message
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    message[CHECK_AT..CHECK_AT + 4].copy_from_slice(&check.to_be_bytes());
    if let Some(counter) = counter {
        let mut sealer = Sealer::new(counter);
        sealer.set_keys(keys.map(Arc::clone));
        sealer.seal(ends, control, &mut message);
    }
    [control, &message].concat()
}
