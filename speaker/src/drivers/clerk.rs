//! Keeps the [`Books`] by what the watches tell, and says what changed. Pure.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::runtime::watcher::Event as Watched;
use landfall_crds::{ServiceGuard, Speaker, VirtualIP};

use super::books::{self, Books};
use super::desk::Note;
use super::guards::Guards;
use super::holding::Holding;
use super::virtual_ip_status::Known;
use crate::filter;
use crate::filter::frontend::Frontend;
use crate::lan::NodeName;
use crate::mind::Event;
use crate::ownership::HOLD;

/// How long a peer is remembered whose Speaker is gone: its owner needs far less to re-create it.
const ONE_PEER: Duration = Duration::from_secs(10);
/// How long many of them are: time for a person to see the alarm and bring the definition back.
const MANY_PEERS: Duration = Duration::from_secs(300);

/// More than so many that vanish together are not remarked upon one by one.
const REMARKS: usize = 3;

/// What the clerk wants done.
#[derive(Debug)]
pub enum Word {
    /// The mind should know this.
    Mind(Event),
    /// The writer to the API should know this.
    Desk(Note),
    /// The packet filter should know this.
    Filter(filter::Event),
    /// The VirtualIPs are listed.
    VipsListed,
    /// The Speakers are listed.
    PeersListed,
    /// The ServiceGuards are listed.
    GuardsListed,
    /// A person should know this: something is badly wrong.
    Alarm(String),
    /// A person may want to know this.
    Remark(String),
}

/// Reads the watches of one node's speaker.
#[derive(Debug)]
pub struct Clerk {
    node: String,
    vip_list: Option<Vec<VirtualIP>>,
    peer_list: Option<Vec<Speaker>>,
    vips_listed: bool,
    peers_listed: bool,
    vips_held: Holding<IpAddr>,
    peers_held: Holding<NodeName>,
    guards: Guards,
}

impl Clerk {
    /// The clerk of `node`.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            vip_list: None,
            peer_list: None,
            vips_listed: false,
            peers_listed: false,
            vips_held: Holding::new(HOLD, HOLD),
            peers_held: Holding::new(ONE_PEER, MANY_PEERS),
            guards: Guards::default(),
        }
    }

    /// Something happened to a VirtualIP.
    pub fn vip(&mut self, now: Instant, event: Watched<VirtualIP>, books: &mut Books) -> Vec<Word> {
        match event {
            Watched::Init => {
                self.vip_list = Some(Vec::new());
                Vec::new()
            }
            Watched::InitApply(object) => {
                self.vip_list.get_or_insert_default().push(object);
                Vec::new()
            }
            Watched::InitDone => {
                let list = self.vip_list.take().unwrap_or_default();
                self.vips_are(now, &list, books)
            }
            Watched::Apply(object) => {
                let Some(vip) = books::vip(&object) else { return vec![unreadable(&object)] };
                let address = vip.address;
                let mut words =
                    vec![Word::Desk(Note::Vip(address, Box::new(Known::of(&object, &self.node))))];
                let was_held = self.vips_held.release(&address);
                if books.serve(address, Frontend::of(&object)) {
                    words.push(serves(address, books));
                    words.extend(self.guards.settle(now, books));
                }
                if books.write(vip) || was_held {
                    words.extend(books.vips.get(&address).map(|vip| Word::Mind(Event::Vip(vip.clone()))));
                }
                words
            }
            Watched::Delete(object) => {
                let Some(address) = object.address() else { return Vec::new() };
                let mut words = vec![Word::Desk(Note::VipGone(address)), Word::Mind(Event::VipGone(address))];
                if object.spec.claims.is_empty() {
                    books.strike(address);
                    words.push(serves(address, books));
                } else {
                    words.extend(self.hold_vip(now, address, books));
                }
                words
            }
        }
    }

    /// The VirtualIPs are listed completely.
    fn vips_are(&mut self, now: Instant, list: &[VirtualIP], books: &mut Books) -> Vec<Word> {
        let mut words = Vec::new();
        let mut known = Vec::new();
        for object in list {
            match books::vip(object) {
                Some(vip) => {
                    known.push((vip.address, Known::of(object, &self.node)));
                    self.vips_held.release(&vip.address);
                    books.serve(vip.address, Frontend::of(object));
                    books.write(vip);
                }
                None => words.push(unreadable(object)),
            }
        }
        let listed: HashSet<IpAddr> = known.iter().map(|(address, _)| *address).collect();
        let missing: Vec<IpAddr> =
            books.vips.keys().filter(|address| !listed.contains(*address)).copied().collect();
        for address in missing {
            // What only the file told may have been released long ago.
            let was_claimed = books.vips.get(&address).is_some_and(|vip| vip.claimed);
            if self.vips_listed && was_claimed {
                words.extend(self.hold_vip(now, address, books));
            } else {
                books.strike(address);
            }
        }
        self.vips_listed = true;
        words.push(Word::Filter(filter::Event::Frontends(books.frontends.clone().into_iter().collect())));
        words.extend(self.guards.settle(now, books));
        words.push(Word::Desk(Note::Vips(known)));
        let there = books.vips.values().filter(|vip| listed.contains(&vip.address));
        words.push(Word::Mind(Event::Vips(there.cloned().collect())));
        words.push(Word::VipsListed);
        words
    }

    /// The mind goes on with a claimed address whose object is gone; for as long it stays in the books,
    /// so that a restart changes nothing about that.
    fn hold_vip(&mut self, now: Instant, address: IpAddr, books: &Books) -> Option<Word> {
        let claimed = books.vips.values().filter(|vip| vip.claimed).count();
        if self.vips_held.holds(&address) {
            return None;
        }
        if self.vips_held.hold(now, address, claimed) {
            return Some(Word::Alarm(format!(
                "{} of {claimed} claimed addresses have lost their VirtualIP: was the definition deleted? They \
                 are announced for a while yet; bring it back with kubectl apply -f crds/",
                self.vips_held.len()
            )));
        }
        let remark = format!("the VirtualIP of {address} vanished while it is claimed; it is announced on");
        (self.vips_held.len() <= REMARKS).then_some(Word::Remark(remark))
    }

    /// Something happened to a ServiceGuard.
    pub fn guard(&mut self, now: Instant, event: Watched<ServiceGuard>, books: &mut Books) -> Vec<Word> {
        self.guards.take(now, event, books)
    }

    /// Something happened to a Speaker.
    pub fn speaker(&mut self, now: Instant, event: Watched<Speaker>, books: &mut Books) -> Vec<Word> {
        match event {
            Watched::Init => {
                self.peer_list = Some(Vec::new());
                Vec::new()
            }
            Watched::InitApply(object) => {
                self.peer_list.get_or_insert_default().push(object);
                Vec::new()
            }
            Watched::InitDone => {
                let list = self.peer_list.take().unwrap_or_default();
                self.speakers_are(now, list, books)
            }
            Watched::Apply(object) if object.name_any() == self.node => {
                vec![Word::Desk(Note::OwnSpeaker(Some(Box::new(object))))]
            }
            Watched::Apply(object) => {
                let Some(peer) = books::peer(&object) else { return Vec::new() };
                self.peers_held.release(&peer.node);
                let changed = books.peers.get(&peer.node) != Some(&peer);
                books.peers.insert(peer.node.clone(), peer);
                if changed { peers_are(books).into() } else { Vec::new() }
            }
            Watched::Delete(object) if object.name_any() == self.node => {
                vec![Word::Desk(Note::OwnSpeaker(None))]
            }
            Watched::Delete(object) => {
                self.hold_peer(now, object.name_any().into(), books).into_iter().collect()
            }
        }
    }

    /// The Speakers are listed completely.
    fn speakers_are(&mut self, now: Instant, list: Vec<Speaker>, books: &mut Books) -> Vec<Word> {
        let mut words = Vec::new();
        let mut own = None;
        let mut listed = BTreeMap::new();
        for object in list {
            if object.name_any() == self.node {
                own = Some(Box::new(object));
            } else if let Some(peer) = books::peer(&object) {
                self.peers_held.release(&peer.node);
                listed.insert(peer.node.clone(), peer);
            }
        }
        let missing: Vec<NodeName> =
            books.peers.keys().filter(|node| !listed.contains_key(*node)).cloned().collect();
        for node in missing {
            if self.peers_listed {
                words.extend(self.hold_peer(now, node, books));
            } else {
                books.peers.remove(&node);
            }
        }
        books.peers.append(&mut listed);
        self.peers_listed = true;
        words.push(Word::Desk(Note::OwnSpeaker(own)));
        words.extend(peers_are(books));
        words.push(Word::PeersListed);
        words
    }

    fn hold_peer(&mut self, now: Instant, node: NodeName, books: &Books) -> Option<Word> {
        if self.peers_held.holds(&node) || !books.peers.contains_key(&node) {
            return None;
        }
        let all = books.peers.len();
        Some(if self.peers_held.hold(now, node.clone(), all) {
            let held = self.peers_held.len();
            Word::Alarm(format!("{held} of {all} Speakers have vanished: was the definition deleted?"))
        } else {
            Word::Remark(format!("the Speaker of node {node} is gone; it is forgotten unless it comes back"))
        })
    }

    /// When something that is held must be let go.
    pub fn next_deadline(&self) -> Option<Instant> {
        let held =
            [self.vips_held.next_deadline(), self.peers_held.next_deadline(), self.guards.next_deadline()];
        held.into_iter().flatten().min()
    }

    /// Lets go of what has been held for long enough.
    pub fn deadline(&mut self, now: Instant, books: &mut Books) -> Vec<Word> {
        let mut words = Vec::new();
        for address in self.vips_held.take_due(now) {
            books.strike(address);
            words.push(serves(address, books));
        }
        words.extend(self.guards.settle(now, books));
        let gone = self.peers_held.take_due(now);
        if !gone.is_empty() {
            books.peers.retain(|node, _| !gone.contains(node));
            words.extend(peers_are(books));
        }
        words
    }
}

/// Who serves what at an address, if anybody does.
fn serves(address: IpAddr, books: &Books) -> Word {
    Word::Filter(filter::Event::Frontend(address, books.frontends.get(&address).cloned()))
}

fn peers_are(books: &Books) -> [Word; 3] {
    [
        Word::Filter(filter::Event::Stations(filter::Stations::Peers, books.addresses_of_peers())),
        Word::Desk(Note::Peers(books.peers.keys().cloned().collect())),
        Word::Mind(Event::Peers(books.peers.values().cloned().collect())),
    ]
}

fn unreadable(object: &VirtualIP) -> Word {
    Word::Remark(format!(
        "VirtualIP {} holds no address that can be announced: '{}'",
        object.name_any(),
        object.spec.address
    ))
}

#[cfg(test)]
#[path = "clerk_tests.rs"]
mod tests;
