//! Operations on our table as messages of nftables (linux/netfilter/nf_tables.h), and the kernel's own
//! messages about it as values.

use std::collections::BTreeMap;
use std::fmt;

use super::netlink::{ACK, APPEND, Attributes, CREATE, DUMP, REQUEST, Writer};
use crate::filter::Counter;
use crate::filter::program::{LAYOUT, TABLE, chains};
use crate::filter::rule::{Chain, Expression, Hook, Rule};
use crate::filter::set::{Part, Set};
use crate::filter::shape::Shape;
use crate::filter::sources::Family;
use crate::filter::table::Operation;

pub mod expression;
pub(crate) mod keys;
pub mod read;

use keys::{counter_key, key, set};

/// `NFNL_SUBSYS_NFTABLES`, as the upper byte of a message's kind.
const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFNETLINK_V0: u8 = 0;

/// `NFT_MSG_*`.
mod kind {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const GET_CHAIN: u16 = 4;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const DELETE_RULE: u16 = 8;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const GET_SET: u16 = 10;
    pub(super) const DELETE_SET: u16 = 11;
    pub(super) const NEW_ELEMENT: u16 = 12;
    pub(super) const GET_ELEMENT: u16 = 13;
    pub(super) const DELETE_ELEMENT: u16 = 14;
}

/// `NFT_TABLE_F_OWNER`: nobody else may change the table while the socket that made it is open.
pub const OWNED: u32 = 0x2;
/// `NFT_TABLE_F_PERSIST`: it stays when that socket is closed, and another may take it over.
pub const PERSISTENT: u32 = 0x4;

/// How many bytes of elements one message holds: the length of an attribute is a number of 16 bits.
const ELEMENTS: usize = 32 * 1024;
/// The most that the kernel adds to a set of counts.
const MOST_COUNTS: u32 = 65_536;
/// The kind of the part of an object's user data that `nft` shows as its comment.
const COMMENT: u8 = 0;
/// `NF_ACCEPT`, the policy of our chains.
const ACCEPT: u32 = 1;

/// What a message is about, so that one knows what the kernel refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// All of them together.
    Batch,
    /// The table.
    Table,
    /// A chain.
    Chain(&'static str),
    /// A rule of a chain.
    Rule {
        /// The chain.
        chain: &'static str,
        /// Its place in it.
        place: usize,
        /// Whether it tells a listener of packets.
        logs: bool,
    },
    /// A set.
    Set(Set),
    /// Elements of a set.
    Elements(Set),
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => write!(f, "the change as a whole"),
            Self::Table => write!(f, "the table"),
            Self::Chain(name) => write!(f, "the chain {name}"),
            Self::Rule { chain, place, .. } => write!(f, "rule {} of the chain {chain}", place + 1),
            Self::Set(set) => write!(f, "the set {set}"),
            Self::Elements(set) => write!(f, "elements of the set {set}"),
        }
    }
}

/// Messages that come true together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    writer: Writer,
    about: Vec<About>,
}

impl Batch {
    /// A transaction that is not empty; `flags` are those of the table.
    pub fn new(transaction: &[Operation], flags: u32) -> Self {
        let mut batch = Self { writer: Writer::default(), about: Vec::new() };
        batch.begin_or_end(BATCH_BEGIN);
        let mut removed: BTreeMap<Set, Vec<Vec<u8>>> = BTreeMap::new();
        let mut added: BTreeMap<Set, Vec<Vec<u8>>> = BTreeMap::new();
        for operation in transaction {
            match operation {
                Operation::Create(shape) => batch.create(shape, flags),
                Operation::Delete => {
                    batch.message(kind::DELETE_TABLE, 0, About::Table, |body| body.text(1, TABLE));
                }
                Operation::Reshape { from, to } => batch.reshape(from, to, flags),
                Operation::Add(element) => added.entry(set(element)).or_default().push(key(element)),
                Operation::Remove(element) => removed.entry(set(element)).or_default().push(key(element)),
            }
        }
        for (set, keys) in removed {
            batch.elements(kind::DELETE_ELEMENT, 0, set, &keys);
        }
        for (set, keys) in added {
            batch.elements(kind::NEW_ELEMENT, CREATE, set, &keys);
        }
        batch.end();
        batch
    }

    /// Removes elements that the kernel added itself.
    pub fn forget(counters: &[Counter]) -> Self {
        let mut batch = Self { writer: Writer::default(), about: Vec::new() };
        batch.begin_or_end(BATCH_BEGIN);
        let mut removed: BTreeMap<Set, Vec<Vec<u8>>> = BTreeMap::new();
        for counter in counters {
            removed.entry(counter.0).or_default().push(counter_key(counter));
        }
        for (set, keys) in removed {
            batch.elements(kind::DELETE_ELEMENT, 0, set, &keys);
        }
        batch.end();
        batch
    }

    /// Deletes the table.
    pub fn delete() -> Self {
        Self::new(&[Operation::Delete], 0)
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// The number of the message that is answered even if all is well: the last one before the end.
    pub fn acknowledged(&self) -> u32 {
        self.about.len() as u32 - 2
    }

    /// What a message is about.
    pub fn about(&self, sequence: u32) -> About {
        self.about.get(sequence as usize).copied().unwrap_or(About::Batch)
    }

    fn begin_or_end(&mut self, kind: u16) {
        let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
        let sequence = self.about.len() as u32;
        self.writer.message(
            kind,
            REQUEST,
            sequence,
            [libc::AF_UNSPEC as u8, NFNETLINK_V0, high, low],
            |_| {},
        );
        self.about.push(About::Batch);
    }

    /// The last message asks for an answer.
    fn end(&mut self) {
        self.writer.flag_last(ACK);
        self.begin_or_end(BATCH_END);
    }

    fn message(&mut self, kind: u16, flags: u16, about: About, body: impl FnOnce(&mut Attributes<'_>)) {
        let sequence = self.about.len() as u32;
        self.writer.message(SUBSYSTEM | kind, REQUEST | flags, sequence, inet(), body);
        self.about.push(about);
    }

    fn table(&mut self, flags: u32) {
        self.message(kind::NEW_TABLE, CREATE, About::Table, |body| {
            body.text(1, TABLE);
            body.number(2, flags);
            body.bytes(6, &comment(LAYOUT));
        });
    }

    fn create(&mut self, shape: &Shape, flags: u32) {
        self.table(flags);
        let sources = shape.sets().map(|(level, family, length)| Set::Sources(level, family, length));
        for set in Set::FIXED.into_iter().chain(sources) {
            self.set(set);
        }
        let chains = chains(shape);
        for chain in &chains {
            self.chain(chain);
        }
        self.rules(&chains);
    }

    fn reshape(&mut self, from: &Shape, to: &Shape, flags: u32) {
        // Takes the table over from a process that has ended; changes nothing otherwise.
        self.table(flags);
        for (level, family, length) in
            to.sets().filter(|(level, family, length)| !from.has(*level, *family, *length))
        {
            self.set(Set::Sources(level, family, length));
        }
        let chains = chains(to);
        for chain in &chains {
            self.message(kind::DELETE_RULE, 0, About::Chain(chain.name), |body| {
                body.text(1, TABLE);
                body.text(2, chain.name);
            });
        }
        self.rules(&chains);
        for (level, family, length) in
            from.sets().filter(|(level, family, length)| !to.has(*level, *family, *length))
        {
            let set = Set::Sources(level, family, length);
            self.message(kind::DELETE_SET, 0, About::Set(set), |body| {
                body.text(1, TABLE);
                body.text(2, &set.to_string());
            });
        }
    }

    fn chain(&mut self, chain: &Chain) {
        self.message(kind::NEW_CHAIN, CREATE, About::Chain(chain.name), |body| {
            body.text(1, TABLE);
            body.text(3, chain.name);
            if let Some((hook, priority)) = chain.hook {
                body.nest(4, |body| {
                    body.number(1, hook_number(hook));
                    body.bytes(2, &priority.to_be_bytes());
                });
                body.number(5, ACCEPT);
                body.text(7, "filter");
            }
        });
    }

    fn rules(&mut self, chains: &[Chain]) {
        for chain in chains {
            for (place, Rule(expressions)) in chain.rules.iter().enumerate() {
                let logs = expressions.iter().any(|expression| matches!(expression, Expression::Log { .. }));
                let about = About::Rule { chain: chain.name, place, logs };
                self.message(kind::NEW_RULE, CREATE | APPEND, about, |body| {
                    body.text(1, TABLE);
                    body.text(2, chain.name);
                    body.nest(4, |body| expressions.iter().for_each(|each| expression::write(each, body)));
                });
            }
        }
    }

    fn set(&mut self, set: Set) {
        /// `NFT_SET_EVAL`: the kernel adds elements.
        const DYNAMIC: u32 = 0x20;
        let (types, length) = set.key().into_iter().fold((0, 0), |(types, length), part| {
            let (number, bytes) = match part {
                Part::Address(Family::V4) => (7, 4),
                Part::Address(Family::V6) => (8, 16),
                Part::Protocol => (12, 4),
                Part::Port => (13, 4),
            };
            // How nft writes a key of several parts, and how it knows what to show.
            (types << 6 | number, length + bytes)
        });
        // The kernel tells sets of one batch apart by it.
        let id = self.about.len() as u32;
        self.message(kind::NEW_SET, CREATE, About::Set(set), |body| {
            body.text(1, TABLE);
            body.text(2, &set.to_string());
            body.number(3, if set.is_dynamic() { DYNAMIC } else { 0 });
            body.number(4, types);
            body.number(5, length);
            if set.is_dynamic() {
                body.nest(9, |body| body.number(1, MOST_COUNTS));
            }
            body.number(10, id);
            if set.counts() {
                body.nest(17, |body| body.text(1, "counter"));
            }
        });
    }

    fn elements(&mut self, kind: u16, flags: u16, set: Set, keys: &[Vec<u8>]) {
        let mut rest = keys.iter().peekable();
        while rest.peek().is_some() {
            self.message(kind, flags, About::Elements(set), |body| {
                body.text(1, TABLE);
                body.text(2, &set.to_string());
                body.nest(3, |body| {
                    let start = body.written();
                    while body.written() - start < ELEMENTS
                        && let Some(key) = rest.next()
                    {
                        body.nest(1, |body| body.nest(1, |body| body.bytes(1, key)));
                    }
                });
            });
        }
    }
}

/// A request that asks for something about our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The table itself.
    Table,
    /// All chains of its family.
    Chains,
    /// All its sets.
    Sets,
    /// All elements of a set.
    Elements(Set),
}

impl Question {
    /// Whether many messages answer it, and then the word that it was all.
    pub fn is_dump(self) -> bool {
        self != Self::Table
    }

    /// Its bytes.
    pub fn bytes(self, sequence: u32) -> Vec<u8> {
        let (kind, flags) = match self {
            Self::Table => (kind::GET_TABLE, 0),
            Self::Chains => (kind::GET_CHAIN, DUMP),
            Self::Sets => (kind::GET_SET, DUMP),
            Self::Elements(_) => (kind::GET_ELEMENT, DUMP),
        };
        let mut writer = Writer::default();
        writer.message(SUBSYSTEM | kind, REQUEST | flags, sequence, inet(), |body| match self {
            Self::Chains => {}
            Self::Table | Self::Sets => body.text(1, TABLE),
            Self::Elements(set) => {
                body.text(1, TABLE);
                body.text(2, &set.to_string());
            }
        });
        writer.bytes().to_vec()
    }
}

fn inet() -> [u8; 4] {
    [libc::NFPROTO_INET as u8, NFNETLINK_V0, 0, 0]
}

fn comment(text: &str) -> Vec<u8> {
    let length = (text.len() + 1) as u8;
    [&[COMMENT, length], text.as_bytes(), &[0]].concat()
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

#[cfg(test)]
#[path = "nftables_tests.rs"]
mod tests;
