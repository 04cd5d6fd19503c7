//! The books: what this speaker says of every address, and what each peer was heard to say.
//!
//! Every message tells a digest of its sender's statements. Where it differs from what is written here,
//! something was missed, and the peer is asked for everything.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::claim::{Claim, Statement};
use crate::lan::{MacAddr, NodeName};
use crate::ownership::gates::Gates;
use crate::wire::speech::{Body, Entry, Header, digest};

/// At most so many statements of a peer are written down; a peer that makes more is not in step.
const MAX_STATEMENTS: usize = 1 << 16;
/// Changes that are under way explain a difference for as long.
const PATIENCE: Duration = Duration::from_millis(40);
/// The shortest time between two queries to a peer.
const QUERY_PACE: Duration = Duration::from_millis(60);
/// The shortest time between two full answers to a peer.
const ANSWER_PACE: Duration = Duration::from_millis(20);
/// A peer that cannot be brought in step for as long holds nothing up any more.
const TRUST: Duration = Duration::from_millis(250);

/// What this speaker says.
#[derive(Clone, Debug, Default)]
pub struct OwnBook {
    statements: BTreeMap<IpAddr, Statement>,
    sequence: u64,
    digest: u64,
}

impl OwnBook {
    /// Says something of an address from now on. Whether that is new.
    pub fn say(&mut self, address: IpAddr, statement: Statement) -> bool {
        let former = match statement {
            Statement::Nothing => self.statements.remove(&address),
            _ => self.statements.insert(address, statement),
        };
        let former = former.unwrap_or_default();
        if former == statement {
            return false;
        }
        self.digest = self
            .digest
            .wrapping_sub(digest(&Entry { address, statement: former }))
            .wrapping_add(digest(&Entry { address, statement }));
        self.sequence += 1;
        true
    }

    /// Goes on counting where a former process of this node stopped.
    pub fn resume(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// What it says of an address.
    pub fn statement(&self, address: IpAddr) -> Statement {
        self.statements.get(&address).copied().unwrap_or_default()
    }

    /// All that it says, in the order of the addresses.
    pub fn entries(&self) -> Vec<Entry> {
        let entries = self.statements.iter();
        entries.map(|(address, statement)| Entry { address: *address, statement: *statement }).collect()
    }

    /// How often it changed.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The digest of all that it says.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

#[derive(Clone, Debug, Default)]
struct Book {
    /// The process that says all this.
    instance: u64,
    mac: MacAddr,
    /// The newest sequence heard, and the digest that came with it.
    told: Option<(u64, u64)>,
    leaving: bool,
    gates: Gates,
    /// Statements with the sequence at which they were made. One with nothing to say stays, so that a
    /// late copy of an older one does not come back.
    statements: BTreeMap<IpAddr, (Statement, u64)>,
    digest: u64,
    /// The peer was dead since it said what is no newer than this; as long as the books differ, it may
    /// have taken it back.
    doubted: Option<u64>,
    differs_since: Option<Instant>,
    queried: Option<Instant>,
    answered: Option<Instant>,
}

impl Book {
    fn in_step(&self) -> bool {
        self.told.is_some_and(|(_, digest)| digest == self.digest)
    }

    fn may_query(&self, now: Instant) -> bool {
        self.queried.is_none_or(|at| at + QUERY_PACE <= now)
    }
}

/// What follows from a message of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// On these addresses it says something new.
    pub changed: Vec<IpAddr>,
    /// It began or ceased to be about to leave, or its gates changed.
    pub standing_changed: bool,
    /// It came in step, or fell out of it.
    pub step_changed: bool,
    /// It is to be asked for everything.
    pub query: bool,
    /// It wants to be told everything.
    pub answer: bool,
}

/// What the peers said.
#[derive(Clone, Debug, Default)]
pub struct PeerBooks {
    books: BTreeMap<NodeName, Book>,
    /// Who says anything of an address, so that it costs the same however many peers there are.
    speaking: HashMap<IpAddr, Vec<NodeName>>,
}

impl PeerBooks {
    /// Writes down what a peer said.
    pub fn hear(&mut self, now: Instant, node: &NodeName, header: &Header, body: &Body) -> Heard {
        let mut heard = Heard::default();
        if self.books.get(node).is_some_and(|book| book.instance != header.instance) {
            // Another process speaks for the node; what the former one said is void.
            heard.standing_changed = self.is_leaving(node) || self.gates(node) != Gates::NONE;
            heard.changed = self.forget(node);
        }
        let book = self.books.entry(node.clone()).or_default();
        book.instance = header.instance;
        let was_in_step = book.in_step();
        let is_first = book.told.is_none();
        // Whoever is in step cannot learn from an older message.
        let is_late = was_in_step && book.told.is_some_and(|(sequence, _)| header.sequence < sequence);
        book.mac = header.mac;
        if book.told.is_none_or(|(sequence, _)| sequence <= header.sequence) {
            book.told = Some((header.sequence, header.digest));
            heard.standing_changed |= std::mem::replace(&mut book.leaving, header.leaving) != header.leaving;
            heard.standing_changed |= std::mem::replace(&mut book.gates, header.gates) != header.gates;
        }
        let mut writer = Writer { node, book, speaking: &mut self.speaking, changed: &mut heard.changed };
        match body {
            Body::Changes(entries) if !is_late => {
                for entry in entries {
                    writer.write(entry, header.sequence);
                }
            }
            Body::Range { first, last, entries } if first <= last && !is_late => {
                let told = |address: &IpAddr| entries.iter().any(|entry| entry.address == *address);
                let known = writer.book.statements.range(*first..=*last);
                let unsaid: Vec<_> =
                    known.map(|(address, _)| *address).filter(|address| !told(address)).collect();
                for address in unsaid {
                    writer.write(&Entry { address, statement: Statement::Nothing }, header.sequence);
                }
                for entry in entries.iter().filter(|entry| (*first..=*last).contains(&entry.address)) {
                    writer.write(entry, header.sequence);
                }
            }
            Body::Query => {
                heard.answer = book.answered.is_none_or(|at| at + ANSWER_PACE <= now);
                if heard.answer {
                    book.answered = Some(now);
                }
            }
            Body::Heartbeat
            | Body::Changes(_)
            | Body::Range { .. }
            | Body::Goodbye
            | Body::DoYouHear(_)
            | Body::Hear { .. }
            | Body::DoYouKnow
            | Body::Know(_)
            | Body::WhoHas(_)
            | Body::Claimed(_)
            | Body::Other => {}
        }
        let Some(book) = self.books.get_mut(node) else { return heard };
        if book.in_step() {
            book.differs_since = None;
            if book.doubted.take().is_some() {
                let said = book.statements.iter().filter(|(_, (said, _))| *said != Statement::Nothing);
                heard.changed.extend(said.map(|(address, _)| *address));
            }
        } else {
            let since = *book.differs_since.get_or_insert(now);
            let patient = !is_first && now < since + PATIENCE;
            heard.query = !patient && book.may_query(now);
            if heard.query {
                book.queried = Some(now);
            }
        }
        heard.step_changed = was_in_step != book.in_step();
        heard
    }

    /// A peer that a former process of this node heard has more to say than is written here, and is asked.
    pub fn expect(&mut self, now: Instant, node: &NodeName, instance: u64) {
        let book = self.books.entry(node.clone()).or_default();
        (book.instance, book.differs_since, book.queried) = (instance, Some(now), Some(now));
    }

    /// Whom to ask for everything now, because the difference lasts.
    pub fn overdue(&mut self, now: Instant) -> Vec<NodeName> {
        let overdue = self.books.iter_mut().filter(|(_, book)| {
            book.differs_since.is_some_and(|since| since + PATIENCE <= now) && book.may_query(now)
        });
        overdue
            .map(|(node, book)| {
                book.queried = Some(now);
                node.clone()
            })
            .collect()
    }

    /// When somebody will have to be asked for everything.
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = |book: &Book| {
            let asked = book.queried.map(|at| at + QUERY_PACE);
            book.differs_since
                .map(|since| asked.map_or(since + PATIENCE, |asked| asked.max(since + PATIENCE)))
        };
        self.books.values().filter_map(due).min()
    }

    /// A peer is dead and not there to be asked. What it said stays known, and is believed again when it
    /// returns and turns out to be in step.
    pub fn silence(&mut self, node: &NodeName) {
        if let Some(book) = self.books.get_mut(node) {
            book.differs_since = None;
            book.doubted = book.told.map(|(sequence, _)| sequence);
        }
    }

    /// All that a peer said is void. On which addresses it had said anything.
    pub fn forget(&mut self, node: &NodeName) -> Vec<IpAddr> {
        let Some(book) = self.books.remove(node) else { return Vec::new() };
        let spoken = book.statements.into_iter().filter(|(_, (said, _))| *said != Statement::Nothing);
        let spoken: Vec<_> = spoken.map(|(address, _)| address).collect();
        for address in &spoken {
            unlist(&mut self.speaking, *address, node);
        }
        spoken
    }

    /// Forgets all peers but those that `keep`.
    pub fn retain(&mut self, keep: impl Fn(&NodeName) -> bool) {
        let gone: Vec<_> = self.books.keys().filter(|node| !keep(node)).cloned().collect();
        for node in gone {
            self.forget(&node);
        }
    }

    /// Whether all that a peer says is written down.
    pub fn is_in_step(&self, node: &NodeName) -> bool {
        self.books.get(node).is_some_and(Book::in_step)
    }

    /// Until when to wait for a peer to come in step before deciding anything; nothing where no need is.
    pub fn wait_for(&self, node: &NodeName) -> Option<Instant> {
        let book = self.books.get(node)?;
        book.differs_since.filter(|_| !book.in_step()).map(|since| since + TRUST)
    }

    /// Whether a peer is about to leave.
    pub fn is_leaving(&self, node: &NodeName) -> bool {
        self.books.get(node).is_some_and(|book| book.leaving)
    }

    /// The addresses of which a peer says anything.
    pub fn spoken_of(&self, node: &NodeName) -> impl Iterator<Item = IpAddr> {
        let statements = self.books.get(node).into_iter().flat_map(|book| &book.statements);
        let says = statements.filter(|(_, (said, _))| *said != Statement::Nothing);
        says.map(|(address, _)| *address)
    }

    /// What a peer's node lacks.
    pub fn gates(&self, node: &NodeName) -> Gates {
        self.books.get(node).map(|book| book.gates).unwrap_or_default()
    }

    /// What a peer says of an address.
    pub fn statement(&self, node: &NodeName, address: IpAddr) -> Statement {
        let said = self.books.get(node).and_then(|book| book.statements.get(&address));
        said.map(|(statement, _)| *statement).unwrap_or_default()
    }

    /// All claims of peers on an address that are not in doubt, each with the peer's hardware address.
    pub fn claims(&self, address: IpAddr) -> impl Iterator<Item = (&NodeName, MacAddr, &Claim)> {
        let nodes = self.speaking.get(&address).into_iter().flatten();
        nodes.filter_map(move |node| {
            let book = self.books.get(node)?;
            let (statement, sequence) = book.statements.get(&address)?;
            let is_doubted = !book.in_step() && book.doubted.is_some_and(|doubted| *sequence <= doubted);
            Some((node, book.mac, statement.claim().filter(|_| !is_doubted)?))
        })
    }
}

struct Writer<'a> {
    node: &'a NodeName,
    book: &'a mut Book,
    speaking: &'a mut HashMap<IpAddr, Vec<NodeName>>,
    changed: &'a mut Vec<IpAddr>,
}

impl Writer<'_> {
    fn write(&mut self, entry: &Entry, sequence: u64) {
        let Entry { address, statement } = *entry;
        let former = self.book.statements.get(&address).copied();
        if former.is_some_and(|(_, at)| at > sequence)
            || (former.is_none() && self.book.statements.len() >= MAX_STATEMENTS)
        {
            return;
        }
        self.book.statements.insert(address, (statement, sequence));
        let former = former.map(|(statement, _)| statement).unwrap_or_default();
        if former == statement {
            return;
        }
        self.book.digest = self
            .book
            .digest
            .wrapping_sub(digest(&Entry { address, statement: former }))
            .wrapping_add(digest(&Entry { address, statement }));
        match (former, statement) {
            (Statement::Nothing, _) => {
                self.speaking.entry(address).or_default().push(self.node.clone());
            }
            (_, Statement::Nothing) => unlist(self.speaking, address, self.node),
            _ => {}
        }
        self.changed.push(address);
    }
}

fn unlist(speaking: &mut HashMap<IpAddr, Vec<NodeName>>, address: IpAddr, node: &NodeName) {
    if let Some(nodes) = speaking.get_mut(&address) {
        nodes.retain(|other| other != node);
        if nodes.is_empty() {
            speaking.remove(&address);
        }
    }
}

#[cfg(test)]
#[path = "books_tests.rs"]
mod tests;
