//! Who knows of which addresses: a candidate that has not heard of an address, or of its present epoch, cannot be
//! waited for.
//!
//! Every message tells a digest of the addresses that its sender looks after, with their epochs. Where that
//! differs from what is known here, and goes on to differ, the peer is asked for the digests of 64 buckets, over
//! which the addresses are spread. What it says of a bucket counts only if nothing in that bucket has changed here
//! for a while: news reach one speaker before the other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::lan::NodeName;
use crate::wire::speech::digest_of;

/// Over so many buckets addresses are spread.
pub const BUCKETS: usize = 64;
/// A digest for each bucket.
pub type Buckets = [u64; BUCKETS];

/// News have reached every speaker that is well within that time.
const SPREAD: Duration = Duration::from_millis(500);
/// A difference that is over sooner is not looked into.
const PATIENCE: Duration = Duration::from_millis(200);
/// A peer is asked at most this often.
const ASK_PACE: Duration = Duration::from_millis(500);
/// Somebody is asked at most this often.
const ASK_SPACING: Duration = Duration::from_millis(20);

/// What is known here, and by whom else.
#[derive(Clone, Debug)]
pub struct Knowledge {
    buckets: Box<Buckets>,
    /// The sum of all.
    total: u64,
    changed: Box<[Option<Instant>; BUCKETS]>,
    peers: BTreeMap<NodeName, Peer>,
    asked: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    differs_since: Option<Instant>,
    asked: Option<Instant>,
    told: Option<(Instant, Box<Buckets>)>,
}

impl Default for Knowledge {
    fn default() -> Self {
        let (total, peers, asked) = Default::default();
        Self { buckets: Box::new([0; BUCKETS]), total, changed: Box::new([None; BUCKETS]), peers, asked }
    }
}

impl Knowledge {
    /// An address that was known under one epoch is known under another; nothing where it is not looked after.
    pub fn change(&mut self, now: Instant, address: IpAddr, was: Option<i64>, is: Option<i64>) {
        if was == is {
            return;
        }
        let at = bucket_of(address);
        let part = |epoch: Option<i64>| epoch.map_or(0, |epoch| digest(address, epoch));
        let difference = part(is).wrapping_sub(part(was));
        self.total = self.total.wrapping_add(difference);
        self.buckets[at] = self.buckets[at].wrapping_add(difference);
        self.changed[at] = Some(now);
    }

    /// The digest of all that is known.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The digests of the buckets.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// A peer tells the digest of all that it knows.
    pub fn hear(&mut self, now: Instant, node: &NodeName, total: u64) {
        let is_same = total == self.total;
        if !is_same {
            self.peers.entry(node.clone()).or_default().differs_since.get_or_insert(now);
        } else if let Some(peer) = self.peers.get_mut(node) {
            (peer.differs_since, peer.told) = (None, None);
        }
    }

    /// A peer tells the digests of its buckets.
    pub fn told(&mut self, now: Instant, node: &NodeName, buckets: &Buckets) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.differs_since.is_some()) {
            peer.told = Some((now, Box::new(*buckets)));
        }
    }

    /// Whether a peer does not know of an address, or not of its epoch, although all have had time to learn.
    pub fn is_ignorant(&self, node: &NodeName, address: IpAddr) -> bool {
        let at = bucket_of(address);
        let Some((told, buckets)) = self.peers.get(node).and_then(|peer| peer.told.as_ref()) else {
            return false;
        };
        let is_old_news = self.changed[at].is_none_or(|changed| changed + SPREAD <= *told);
        is_old_news && buckets[at] != self.buckets[at]
    }

    /// Whom to ask now for what he knows.
    pub fn overdue(&mut self, now: Instant) -> Option<NodeName> {
        if self.next_deadline().is_none_or(|at| now < at) {
            return None;
        }
        let due = self.peers.iter_mut().filter_map(|(node, peer)| Some((peer.due()?, node, peer)));
        let (_, node, peer) = due.min_by_key(|(at, ..)| *at)?;
        (self.asked, peer.asked) = (Some(now), Some(now));
        Some(node.clone())
    }

    /// When somebody is to be asked.
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = self.peers.values().filter_map(Peer::due).min()?;
        Some(self.asked.map_or(due, |asked| due.max(asked + ASK_SPACING)))
    }

    /// What a peer said is void.
    pub fn forget(&mut self, node: &NodeName) {
        self.peers.remove(node);
    }

    /// Forgets all peers but those that `keep`.
    pub fn retain(&mut self, keep: impl Fn(&NodeName) -> bool) {
        self.peers.retain(|node, _| keep(node));
    }
}

impl Peer {
    fn due(&self) -> Option<Instant> {
        let since = self.differs_since? + PATIENCE;
        Some(self.asked.map_or(since, |asked| since.max(asked + ASK_PACE)))
    }
}

fn digest(address: IpAddr, epoch: i64) -> u64 {
    let mut bytes = [0; 25];
    let family = put(address, &mut bytes[1..17]);
    bytes[0] = family;
    bytes[17..].copy_from_slice(&epoch.to_be_bytes());
    digest_of(&bytes)
}

fn bucket_of(address: IpAddr) -> usize {
    let mut bytes = [0; 17];
    bytes[0] = put(address, &mut bytes[1..]);
    (digest_of(&bytes) % BUCKETS as u64) as usize
}

/// Writes the address. Its family.
fn put(address: IpAddr, bytes: &mut [u8]) -> u8 {
    match address {
        IpAddr::V4(address) => {
            bytes[..4].copy_from_slice(&address.octets());
            4
        }
        IpAddr::V6(address) => {
            bytes.copy_from_slice(&address.octets());
            6
        }
    }
}

#[cfg(test)]
#[path = "knowledge_tests.rs"]
mod tests;
