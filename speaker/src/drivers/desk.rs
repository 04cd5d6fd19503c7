//! Decides what this node's speaker writes to the API, and when. Pure.
//!
//! It holds what the mind reported and what the objects say. Whenever the two may differ, the object
//! waits in the queue; when its turn comes, what to write is planned from the latest of both.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use landfall_crds::{Announcer, Speaker, SpeakerStatus, VirtualIPStatus};

use super::announcement::{self, Announcement};
use super::netlink::Network;
use super::picture::{Picture, Told, View, address_of};
use super::queue::{Pace, Queue};
use super::readiness::Readiness;
use super::speaker_status;
use super::virtual_ip_status::{self, Known, Speaking};
use crate::filter::Notice;
use crate::lan::NodeName;
use crate::mind::{Report, Withdrawal};

/// The pace of writes: fifty a second, a hundred at once after a rest.
const EVERY: Duration = Duration::from_millis(20);
const BURST: u32 = 100;
/// How long changes of the Speaker are gathered.
const GATHER: Duration = Duration::from_millis(50);
/// The shortest time between two writes of the Speaker.
const SPEAKER_PACE: Duration = Duration::from_millis(500);
/// How long a leaver waits before it clears the announcer: its successor's word comes first.
const LEAVE: Duration = Duration::from_millis(500);
/// How long one that was superseded waits for its successor's word. It does not come from one that announced before,
/// and whose claim in the object's terms does not go before: it writes when the announcer is cleared.
const SUPERSEDED: Duration = Duration::from_secs(5);
/// So long after it is warm a speaker has announced again what it announced when it last ended.
const SETTLE: Duration = Duration::from_secs(15);

/// What the other drivers tell.
#[derive(Debug)]
pub enum Note {
    /// A VirtualIP is new or changed.
    Vip(IpAddr, Box<Known>),
    /// A VirtualIP is gone.
    VipGone(IpAddr),
    /// All VirtualIPs.
    Vips(Vec<(IpAddr, Known)>),
    /// This node's own Speaker, or that there is none.
    OwnSpeaker(Option<Box<Speaker>>),
    /// The names of all other speakers.
    Peers(HashSet<NodeName>),
    /// The node's network.
    Network(Network),
    /// How ready the speaker is.
    Readiness(Readiness),
    /// Who is let in at an address, in words, where it has source ranges and the kernel enforces them.
    Guarded(IpAddr, Option<String>),
    /// The table of the packet filter vanished.
    FilterVanished,
    /// Somebody begins to be refused by the source ranges of a Service, whose guard has this uid.
    Refused(Notice, String),
}

/// Names an object that may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// This node's Speaker.
    Speaker,
    /// The VirtualIP of an address.
    VirtualIp(IpAddr),
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Create this node's Speaker.
    CreateSpeaker,
    /// Apply this status to it.
    SpeakerStatus(Box<SpeakerStatus>),
    /// Apply this status to a VirtualIP, if it still is as it was.
    VirtualIpStatus {
        /// The object that the status was planned for.
        known: Box<Known>,
        /// What speakers own of its status.
        status: Box<VirtualIPStatus>,
    },
}

/// What a write led to.
#[derive(Clone, Debug)]
pub enum Written {
    /// It was done, and the VirtualIP is now so.
    VirtualIp(Box<Known>),
    /// It was done, and the Speaker is now so.
    Speaker(Box<Speaker>),
    /// Somebody else wrote first; the VirtualIP is now so.
    Stale(Box<Known>),
    /// The object is gone.
    Gone,
    /// It failed.
    Failed,
}

/// The desk of one node's speaker.
#[derive(Debug)]
pub struct Desk {
    node: String,
    /// Since when nothing is missing, if it ever was so.
    warm_since: Option<Instant>,
    picture: Picture,
    objects: HashMap<IpAddr, Known>,
    replaces: HashMap<IpAddr, Announcer>,
    /// Addresses that were handed over, and when this node says so if nobody else has.
    leaving: HashMap<IpAddr, Instant>,
    /// Who is let in where, in words.
    guarded: HashMap<IpAddr, String>,
    speaker_listed: bool,
    speaker: Option<SpeakerStatus>,
    speaker_uid: Option<String>,
    network: Network,
    readiness: Readiness,
    queue: Queue<Key>,
    speaker_written: Option<Instant>,
}

impl Desk {
    /// The desk of `node`.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            warm_since: None,
            picture: Picture::default(),
            objects: HashMap::new(),
            replaces: HashMap::new(),
            leaving: HashMap::new(),
            guarded: HashMap::new(),
            speaker_listed: false,
            speaker: None,
            speaker_uid: None,
            network: Network::default(),
            readiness: Readiness::default(),
            queue: Queue::new(Pace::new(EVERY, BURST)),
            speaker_written: None,
        }
    }

    /// What was reported and still holds.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// The mind reports something. Returns the Event to write, if it is worth one.
    pub fn told(&mut self, now: Instant, told: &Told) -> Option<Announcement> {
        let before =
            address_of(&told.report).and_then(|address| self.picture.addresses.get(&address).cloned());
        self.picture.take(told);
        if let Some(address) = address_of(&told.report) {
            self.leaving.remove(&address);
        }
        match (&told.report, address_of(&told.report)) {
            (Report::Announcing { address, .. }, _) => {
                let standing = self.objects.get(address).and_then(|known| known.status.announcer.clone());
                match standing.filter(|standing| standing.node != self.node) {
                    Some(other) => self.replaces.insert(*address, other),
                    None => self.replaces.remove(address),
                };
                self.queue.push(Key::VirtualIp(*address), now);
            }
            (Report::Withdrawn { address, reason }, _) if waits(*reason).is_some() => {
                let at = now + waits(*reason).unwrap_or_default();
                self.leaving.insert(*address, at);
                self.queue.push(Key::VirtualIp(*address), at);
            }
            (Report::Refused { address, .. } | Report::NoLongerRefused { address }, _) => {
                self.queue.push(Key::VirtualIp(*address), now);
                self.push_speaker(now);
            }
            (_, Some(address)) => self.queue.push(Key::VirtualIp(address), now),
            (_, None) => self.push_speaker(now),
        }
        let known = self.objects.get(&address_of(&told.report)?)?;
        announcement::reported(&self.node, &told.report, known, before.as_ref())
    }

    /// Reports were lost; this is how things are.
    pub fn resync(&mut self, now: Instant, picture: Picture) {
        let addresses: HashSet<IpAddr> =
            picture.addresses.keys().chain(self.picture.addresses.keys()).copied().collect();
        self.picture = picture;
        addresses.into_iter().for_each(|address| self.queue.push(Key::VirtualIp(address), now));
        self.push_speaker(now);
    }

    /// Another driver tells something. Returns the Event to write, if it is worth one.
    pub fn note(&mut self, now: Instant, note: Note) -> Option<Announcement> {
        match note {
            Note::FilterVanished => {
                return Some(announcement::filter_vanished(&self.node, self.speaker_uid.as_deref()));
            }
            Note::Refused(notice, uid) => return Some(announcement::refused(&self.node, &notice, uid)),
            Note::Vip(address, known) => self.object(now, address, *known),
            Note::VipGone(address) => {
                self.objects.remove(&address);
                self.replaces.remove(&address);
                self.leaving.remove(&address);
                self.picture.forget(address);
            }
            Note::Vips(list) => {
                let listed: HashSet<IpAddr> = list.iter().map(|(address, _)| *address).collect();
                self.objects.retain(|address, _| listed.contains(address));
                self.replaces.retain(|address, _| listed.contains(address));
                self.leaving.retain(|address, _| listed.contains(address));
                self.picture.keep(&listed);
                list.into_iter().for_each(|(address, known)| self.object(now, address, known));
            }
            Note::Guarded(address, words) => {
                let before = match words.clone() {
                    Some(words) => self.guarded.insert(address, words),
                    None => self.guarded.remove(&address),
                };
                if before != words && self.picture.addresses.get(&address).is_some_and(View::answers_now) {
                    self.queue.push(Key::VirtualIp(address), now);
                }
            }
            Note::OwnSpeaker(speaker) => {
                self.speaker_listed = true;
                self.speaker_uid = speaker.as_ref().and_then(|speaker| speaker.metadata.uid.clone());
                self.speaker = speaker.map(|speaker| speaker.status.unwrap_or_default());
                self.push_speaker(now);
            }
            Note::Peers(peers) => {
                self.picture.keep_peers(|node| peers.contains(node));
                self.push_speaker(now);
            }
            Note::Network(network) => {
                self.network = network;
                self.push_speaker(now);
            }
            Note::Readiness(readiness) => {
                self.readiness = readiness;
                self.push_speaker(now);
                if self.warm_since.is_none() && self.readiness.missing().is_empty() {
                    self.warm_since = Some(now);
                    self.push_left_behind(now);
                }
            }
        }
        None
    }

    fn object(&mut self, now: Instant, address: IpAddr, known: Known) {
        if self.objects.get(&address).is_some_and(|old| !known.is_at_least(old)) {
            return;
        }
        if self.picture.addresses.contains_key(&address) {
            self.queue.push(Key::VirtualIp(address), now);
        } else if let Some(warm_since) = self.warm_since.filter(|_| self.is_announcer(&known)) {
            self.queue.push(Key::VirtualIp(address), now.max(warm_since + SETTLE));
        }
        self.objects.insert(address, known);
    }

    /// What this node announced when its speaker last ended is looked at again when it has settled.
    fn push_left_behind(&mut self, now: Instant) {
        let ours = self.objects.iter().filter(|(_, known)| self.is_announcer(known));
        let left_behind: Vec<IpAddr> = ours.map(|(address, _)| *address).collect();
        left_behind.into_iter().for_each(|address| self.queue.push(Key::VirtualIp(address), now + SETTLE));
    }

    fn is_announcer(&self, known: &Known) -> bool {
        known.status.announcer.as_ref().is_some_and(|announcer| announcer.node == self.node)
    }

    fn push_speaker(&mut self, now: Instant) {
        if self.speaker_listed {
            let paced = self.speaker_written.map_or(now, |written| written + SPEAKER_PACE);
            self.queue.push(Key::Speaker, paced.max(now + GATHER));
        }
    }

    /// When there may be something to write.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.queue.next_deadline(now)
    }

    /// What is to be written now. Each is answered by [`Self::written`].
    pub fn next(&mut self, now: Instant, wall: Timestamp) -> Option<(Key, Write)> {
        while let Some(key) = self.queue.pop(now) {
            if let Some(at) = self.not_before(key).filter(|at| now < *at) {
                self.queue.give_back(&key);
                self.queue.push(key, at);
                continue;
            }
            match self.plan(now, wall, key) {
                Some(write) => return Some((key, write)),
                None => self.queue.give_back(&key),
            }
        }
        None
    }

    fn not_before(&self, key: Key) -> Option<Instant> {
        match key {
            Key::VirtualIp(address) => self.leaving.get(&address).copied(),
            Key::Speaker => None,
        }
    }

    fn plan(&self, now: Instant, wall: Timestamp, key: Key) -> Option<Write> {
        let Key::VirtualIp(address) = key else { return self.plan_speaker(wall) };
        let known = self.objects.get(&address)?;
        let silent = View::default();
        let is_settled = self.warm_since.is_some_and(|since| now >= since + SETTLE);
        let speaking = Speaking {
            node: &self.node,
            view: self.picture.addresses.get(&address).unwrap_or(&silent),
            replaces: self.replaces.get(&address),
            guarded: self.guarded.get(&address).map(String::as_str),
            settled: is_settled.then_some(wall),
        };
        let status = virtual_ip_status::plan(known, speaking)?;
        Some(Write::VirtualIpStatus { known: Box::new(known.clone()), status: Box::new(status) })
    }

    fn plan_speaker(&self, wall: Timestamp) -> Option<Write> {
        if !self.speaker_listed || !self.readiness.network {
            return None;
        }
        let Some(known) = &self.speaker else { return Some(Write::CreateSpeaker) };
        let planned = speaker_status::plan(Some(known), &self.network, &self.picture, &self.readiness, wall);
        planned.map(|status| Write::SpeakerStatus(Box::new(status)))
    }

    /// A write has ended.
    pub fn written(&mut self, now: Instant, key: Key, written: Written) {
        match (key, written) {
            (Key::VirtualIp(address), Written::VirtualIp(known) | Written::Stale(known)) => {
                self.queue.done(&key);
                if self.is_announcer(&known) {
                    // It is replaced; should it come back, it is another announcement.
                    self.replaces.remove(&address);
                }
                self.object(now, address, *known);
            }
            (Key::Speaker, Written::Speaker(speaker)) => {
                self.queue.done(&key);
                let had_none = self.speaker.is_none();
                self.speaker_written = (!had_none).then_some(now);
                self.speaker = Some(speaker.status.unwrap_or_default());
                if had_none {
                    self.queue.push(key, now);
                }
            }
            (Key::Speaker, Written::Gone) => {
                self.queue.failed(&key, now);
                self.speaker = None;
            }
            (_, Written::Gone) => self.queue.done(&key),
            _ => self.queue.failed(&key, now),
        }
    }

    /// How many writes have not ended yet.
    pub fn writing(&self) -> usize {
        self.queue.writing()
    }

    /// Whether nothing waits to be written.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }
}

/// How long a successor's word is waited for.
fn waits(reason: Withdrawal) -> Option<Duration> {
    match reason {
        Withdrawal::Left => Some(LEAVE),
        Withdrawal::Superseded => Some(SUPERSEDED),
        _ => None,
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
