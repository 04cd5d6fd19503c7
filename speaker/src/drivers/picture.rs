//! What this node does on the LAN at the moment, put together from the mind's reports. Pure.
//!
//! The thread of the mind keeps one, so that nothing is lost when its reports come faster than they are
//! read: the whole picture is handed over instead. The writer to the API keeps the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use jiff::Timestamp;

use crate::lan::{MacAddr, NodeName};
use crate::mind::{Refusal, Report, Withdrawal};

/// A report and when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// What.
    pub report: Report,
}

/// Everything that was reported and still holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// What there is to say of each address.
    pub addresses: HashMap<IpAddr, View>,
    /// The peers by node and interface: whether each is alive, and since when.
    pub peers: BTreeMap<(NodeName, String), (bool, Timestamp)>,
}

/// What there is to say of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whether this node answers for it, did and stopped, or never did.
    pub answers: Answers,
    /// Why this node will not announce it, if so, and since when.
    pub refused: Option<(Refusal, Timestamp)>,
    /// The foreign station that uses the address.
    pub conflict: Conflict,
}

/// Whether this node answers for an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    /// It never did, as far as is known.
    #[default]
    Never,
    /// It does.
    Now(Announcing),
    /// It does no more.
    NoMore {
        /// Why.
        reason: Withdrawal,
        /// Since when.
        at: Timestamp,
    },
}

/// How this node answers for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcing {
    /// On which interface.
    pub interface: String,
    /// With which MAC address.
    pub mac: MacAddr,
    /// Under which term.
    pub term: u64,
    /// Under which epoch.
    pub epoch: i64,
    /// Since when.
    pub since: Timestamp,
}

/// Whether a foreign station uses an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflict {
    /// This node never noticed one.
    #[default]
    Never,
    /// It notices one.
    Now {
        /// The station.
        mac: MacAddr,
        /// Since when.
        at: Timestamp,
    },
    /// It noticed one and does no more.
    Over {
        /// Since when.
        at: Timestamp,
    },
}

impl Picture {
    /// Takes a report in.
    pub fn take(&mut self, Told { at, report }: &Told) {
        match report {
            Report::Announcing { address, interface, mac, term, epoch } => {
                self.view(*address).answers = Answers::Now(Announcing {
                    interface: interface.clone(),
                    mac: *mac,
                    term: *term,
                    epoch: *epoch,
                    since: *at,
                });
            }
            Report::Withdrawn { address, reason } => {
                self.view(*address).answers = Answers::NoMore { reason: *reason, at: *at };
            }
            Report::Refused { address, reason } => {
                self.view(*address).refused = Some((*reason, *at));
            }
            Report::NoLongerRefused { address } => self.view(*address).refused = None,
            Report::AddressConflict { address, mac } => {
                self.view(*address).conflict = Conflict::Now { mac: *mac, at: *at };
            }
            Report::AddressConflictOver { address } => {
                self.view(*address).conflict = Conflict::Over { at: *at };
            }
            Report::Peer { node, interface, alive } => {
                self.peers.insert((node.clone(), interface.clone()), (*alive, *at));
            }
        }
    }

    fn view(&mut self, address: IpAddr) -> &mut View {
        self.addresses.entry(address).or_default()
    }

    /// Forgets what was said of an address whose object is gone, unless this node still answers for it.
    pub fn forget(&mut self, address: IpAddr) {
        if self.addresses.get(&address).is_some_and(|view| !view.answers_now()) {
            self.addresses.remove(&address);
        }
    }

    /// Forgets all addresses whose objects are gone, as [`Self::forget`] does.
    pub fn keep(&mut self, known: &HashSet<IpAddr>) {
        self.addresses.retain(|address, view| view.answers_now() || known.contains(address));
    }

    /// Forgets peers that are no more.
    pub fn keep_peers(&mut self, known: impl Fn(&NodeName) -> bool) {
        self.peers.retain(|(node, _), _| known(node));
    }

    /// The addresses that this node refuses, in order.
    pub fn refused(&self) -> BTreeMap<IpAddr, Refusal> {
        self.addresses.iter().filter_map(|(address, view)| Some((*address, view.refused?.0))).collect()
    }
}

impl View {
    /// Whether this node answers for the address.
    pub fn answers_now(&self) -> bool {
        matches!(self.answers, Answers::Now(_))
    }
}

/// The address that a report is about, if it is about one.
pub fn address_of(report: &Report) -> Option<IpAddr> {
    match report {
        Report::Announcing { address, .. }
        | Report::Withdrawn { address, .. }
        | Report::Refused { address, .. }
        | Report::NoLongerRefused { address }
        | Report::AddressConflict { address, .. }
        | Report::AddressConflictOver { address } => Some(*address),
        Report::Peer { .. } => None,
    }
}

/// Why an address is refused, for people.
pub fn refusal_in_words(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::OwnAddress => "it is an address of this node itself",
        Refusal::PeerAddress => "it is an address of another node",
        Refusal::GatewayAddress => "it is a gateway of this node",
        Refusal::NotGuarded => "its source ranges are not in the kernel of this node",
        Refusal::SpecialAddress => {
            "it is unspecified, loopback, link-local, multicast or the broadcast address of a subnet"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(second: i64, report: Report) -> Told {
        Told { at: Timestamp::from_second(second).unwrap(), report }
    }

    #[test]
    fn the_latest_word_holds_and_an_answered_address_is_not_forgotten() {
        let address: IpAddr = "192.168.10.50".parse().unwrap();
        let announcing =
            Report::Announcing { address, interface: "eth0".into(), mac: MacAddr([2; 6]), term: 3, epoch: 7 };
        let mut picture = Picture::default();
        picture.take(&told(1, Report::Refused { address, reason: Refusal::OwnAddress }));
        assert_eq!(picture.refused().len(), 1);
        picture.take(&told(2, Report::NoLongerRefused { address }));
        picture.take(&told(3, announcing));
        picture.forget(address);
        picture.keep(&HashSet::new());
        assert!(picture.addresses[&address].answers_now());
        assert!(picture.refused().is_empty());
        picture.take(&told(4, Report::Withdrawn { address, reason: Withdrawal::Released }));
        picture.forget(address);
        assert_eq!(picture, Picture::default());
    }
}
