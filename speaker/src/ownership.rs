//! Which addresses are mine: who claims what and when, how claims are settled, how addresses are handed
//! over.
//!
//! A pure machine over the books of what every speaker says. Its rules, in the words of the design: an
//! incumbent keeps an address until it fails, leaves, or a higher epoch ranks another first and that
//! one's claim is heard; a candidate claims when every better one is dead, has left or refuses, and as a
//! backstop when nobody answers for the address; who returns takes nothing back by itself; an owner that is
//! ranked first by a higher epoch and does not know of it is overtaken.
//!
//! Three invariants live here. I1 no void (`i1_no_void`): while an eligible node lives, somebody announces,
//! save the detection window after an unplanned death; `wait` sees to it. I2 no split (`i2_no_split`): in
//! a connected LAN at most one answers, save a bounded handover; the order of [`claim`]s and the
//! [`hush`](crate::mind::hush) after a time alone see to it. The pretend world in `tests/sim` checks both.
//! I3 fail closed (`i3_fail_closed`): nobody announces an address before its source ranges are in the kernel; `guarding`
//! sees to it, and [`filter`](crate::filter) to the rest of it.

use std::collections::hash_map::Entry as Entered;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::lan::{MacAddr, NodeName, Vip};
use crate::liveness::Timing;
use crate::wire::speech::{Body, Header};

pub mod books;
pub mod claim;
mod disputes;
pub mod gates;
mod guarding;
mod inherit;
mod keep;
pub mod knowledge;
mod lan;
mod record;
mod standing;
#[cfg(test)]
mod tests;
mod wait;
mod witness;
mod words;

use books::{Heard, OwnBook, PeerBooks};
use claim::Statement;
use disputes::Disputes;
use gates::Gates;
use guarding::Guarding;
use inherit::Inherited;
use knowledge::Knowledge;
use record::Record;
use standing::Desk;
pub use words::{Action, Around, Event, Sight};

/// An address whose object is gone although it was claimed is looked after for as long: somebody deleted
/// it by mistake, and the controller makes it again.
pub const HOLD: Duration = Duration::from_secs(5 * 60);
/// Who leaves, or is no candidate any more, waits for a successor for at most as long.
pub const HANDOVER: Duration = Duration::from_secs(3);
/// An address is handed to a node that lacks less once it has lacked less for as long: what befalls all nodes at
/// once, as a restart of every kube-proxy, is noticed by each at another moment within it.
const OUTDONE: Duration = Duration::from_secs(2);
/// An owner has so long to learn of an epoch that ranks it first: a watch that broke is resumed by then.
const BEHIND: Duration = Duration::from_secs(2);
/// A node that hears nobody claims only after as long.
const ISOLATED_WAIT: Duration = Duration::from_secs(1);

/// The machine; see the module.
#[derive(Clone, Debug)]
pub struct Ownership {
    timing: Timing,
    records: HashMap<IpAddr, Record>,
    own: OwnBook,
    peers: PeerBooks,
    knowledge: Knowledge,
    disputes: Disputes,
    /// Connections are kept across planned moves.
    keeps_connections: bool,
    gates: Gates,
    unfit: BTreeSet<u16>,
    guarding: Guarding,
    inherited: Inherited,
    timers: BTreeSet<(Instant, IpAddr)>,
    undecided: BTreeSet<IpAddr>,
    leaving_since: Option<Instant>,
    has_left: bool,
}

impl Ownership {
    /// Looks after nothing yet. `keeps_connections` says whether to wait until connections are kept before an
    /// address is taken over from a node that lives.
    pub fn new(timing: Timing, keeps_connections: bool) -> Self {
        Self {
            timing,
            records: HashMap::new(),
            own: OwnBook::default(),
            peers: PeerBooks::default(),
            knowledge: Knowledge::default(),
            disputes: Disputes::default(),
            keeps_connections,
            gates: Gates::default(),
            unfit: BTreeSet::new(),
            guarding: Guarding::default(),
            inherited: Inherited::default(),
            timers: BTreeSet::new(),
            undecided: BTreeSet::new(),
            leaving_since: None,
            has_left: false,
        }
    }

    /// Takes an event in and pushes what follows from it.
    pub fn handle(&mut self, now: Instant, around: Around<'_>, event: Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::Vips(vips) => self.list(now, vips),
            Event::Vip(vip) => self.upsert(now, vip),
            Event::Gone(address) => self.gone(now, address),
            Event::Around => {
                self.peers.retain(|node| around.facts.has_peer(node));
                self.knowledge.retain(|node| around.facts.has_peer(node));
                self.undecided.extend(self.records.keys());
            }
            Event::Peer(node) => self.undecide_for(node),
            Event::Said(node, header, body) => self.said(now, around, node, header, body, out),
            Event::Gates(gates) => {
                if std::mem::replace(&mut self.gates, gates) != gates {
                    self.undecided.extend(self.records.keys());
                }
            }
            Event::Unfit(ports) => {
                let changed = ports.symmetric_difference(&self.unfit).copied().collect();
                let is_concerned = |record: &&Record| record.has_any_check(&changed);
                self.undecided.extend(self.records.values().filter(is_concerned).map(Record::address));
                self.unfit = ports;
            }
            Event::Guarded(guarded) => {
                for (address, by) in guarded {
                    if self.guarding.set(address, by) {
                        self.undecided.insert(address);
                    }
                }
            }
            Event::Void(node) => {
                self.knowledge.forget(node);
                self.undecided.extend(self.peers.forget(node));
                self.undecide_waiting();
            }
            Event::ProbeClear(address) => self.probe_clear(address, out),
            Event::ProbeConflict(address, mac) => self.probe_conflict(now, address, mac, out),
            Event::SpeakerHas(sight) => self.speaker_has(now, around, &sight, out),
            Event::Inherit(holdings, sequence) => self.inherit(now, holdings, sequence),
            Event::ConnectionsKept(address) => {
                if let Some(keeping) = self.records.get_mut(&address).and_then(|known| known.keeping.as_mut())
                {
                    keeping.2 = true;
                    self.undecided.insert(address);
                }
            }
            Event::Leave => {
                self.leaving_since.get_or_insert(now);
                self.undecided.extend(self.records.keys());
            }
            Event::Deadline => self.wake(now, around, out),
        }
        if around.facts.are_complete() {
            self.decide(now, around, out);
        }
        if self.leaving_since.is_some() && !self.has_left && self.holdings() == 0 {
            self.has_left = true;
            out.push(Action::Left);
        }
    }

    /// When it wants to be woken.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let others = [
            self.peers.next_deadline(),
            self.knowledge.next_deadline(),
            self.disputes.next_deadline(),
            self.inherited.next_deadline(),
        ];
        others.into_iter().chain([timer]).flatten().min()
    }

    /// What this speaker says.
    pub fn own_book(&self) -> &OwnBook {
        &self.own
    }

    /// What the peers said.
    pub fn peer_books(&self) -> &PeerBooks {
        &self.peers
    }

    /// Which addresses are known of, here and elsewhere.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// What this node lacks.
    pub fn gates(&self) -> Gates {
        self.gates
    }

    /// Whether this speaker is about to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving_since.is_some()
    }

    /// A peer is dead: it is not to be asked for what was missed.
    pub fn silence(&mut self, node: &NodeName) {
        self.peers.silence(node);
    }

    pub(crate) fn record(&self, address: IpAddr) -> Option<&Record> {
        self.records.get(&address)
    }

    fn holdings(&self) -> usize {
        self.records.values().filter(|record| record.holding.is_some()).count()
    }

    fn list(&mut self, now: Instant, vips: Vec<Vip>) {
        let listed: BTreeSet<_> = vips.iter().map(|vip| vip.address).collect();
        let missing: Vec<_> = self.records.keys().filter(|known| !listed.contains(known)).copied().collect();
        for address in missing {
            self.gone(now, address);
        }
        for vip in vips {
            self.upsert(now, vip);
        }
    }

    fn upsert(&mut self, now: Instant, vip: Vip) {
        let address = vip.address;
        self.undecided.insert(address);
        let was = self.records.get(&address).and_then(Record::known_epoch);
        let record = match self.records.entry(address) {
            Entered::Occupied(known) => {
                let record = known.into_mut();
                record.update(vip);
                record
            }
            Entered::Vacant(place) => place.insert(Record::new(vip)),
        };
        self.knowledge.change(now, address, was, record.known_epoch());
    }

    fn gone(&mut self, now: Instant, address: IpAddr) {
        if let Some(record) = self.records.get_mut(&address) {
            let was = record.known_epoch();
            record.gone_since.get_or_insert(now);
            self.knowledge.change(now, address, was, None);
            self.undecided.insert(address);
        }
    }

    fn said(
        &mut self,
        now: Instant,
        around: Around<'_>,
        node: &NodeName,
        header: &Header,
        body: &Body,
        out: &mut Vec<Action>,
    ) {
        let Heard { changed, standing_changed, step_changed, query, answer } =
            self.peers.hear(now, node, header, body);
        if answer {
            out.push(Action::TellAll(node.clone()));
        }
        if query {
            out.push(Action::Query(node.clone()));
        }
        if standing_changed {
            self.undecided.extend(self.records.keys());
        } else if step_changed {
            self.undecide_waiting();
        }
        self.knowledge.hear(now, node, header.knowledge);
        match body {
            Body::DoYouKnow => out.push(Action::TellKnowledge(node.clone())),
            Body::Know(buckets) => {
                self.knowledge.told(now, node, buckets);
                self.undecide_waiting();
            }
            Body::WhoHas(addresses) => self.testify(around, node, addresses, out),
            Body::Claimed(witnessed) => self.hear_witness(now, around, witnessed),
            _ => {}
        }
        for address in changed.iter().filter(|address| self.peers.claims(**address).nth(1).is_some()) {
            self.disputes.note(now, *address, around.facts.place());
        }
        // A claim against one of ours that does not go before it: let the neighbours and the peer know.
        let is_contest = |own: &OwnBook, address: &IpAddr| {
            own.statement(*address).claim().is_some()
                && self.peers.statement(node, *address).claim().is_some()
        };
        let mut contested: Vec<_> =
            changed.iter().filter(|address| is_contest(&self.own, address)).copied().collect();
        self.undecided.extend(changed);
        self.decide(now, around, out);
        contested.retain(|address| self.own.statement(*address).claim().is_some());
        if !contested.is_empty() {
            out.extend(contested.iter().map(|address| Action::Correct(*address)));
            out.push(Action::Tell(contested));
        }
    }

    /// Decides anew what may depend on whether a peer lives: what it speaks of, and what waits for somebody. All
    /// else stays as it is, however many addresses there are.
    fn undecide_for(&mut self, node: &NodeName) {
        self.undecided.extend(self.peers.spoken_of(node));
        let lacks = self.gates != Gates::NONE;
        let depends = |record: &&Record| record.depends_on_others(lacks);
        self.undecided.extend(self.records.values().filter(depends).map(Record::address));
    }

    fn undecide_waiting(&mut self) {
        let waiting = self.records.iter().filter(|(_, record)| record.is_waiting());
        self.undecided.extend(waiting.map(|(address, _)| *address));
    }

    fn wake(&mut self, now: Instant, around: Around<'_>, out: &mut Vec<Action>) {
        out.extend(self.peers.overdue(now).into_iter().map(Action::Query));
        out.extend(self.knowledge.overdue(now).map(Action::AskKnowledge));
        self.settle_disputes(now, around, out);
        self.forget_inherited(now, out);
        while let Some((at, address)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, address));
            self.undecided.insert(address);
        }
    }

    /// Decides every address about which anything changed.
    fn decide(&mut self, now: Instant, around: Around<'_>, out: &mut Vec<Action>) {
        let mut told = Vec::new();
        let mut lans = BTreeMap::new();
        let mut who_has = Vec::new();
        for address in std::mem::take(&mut self.undecided) {
            let Some(record) = self.records.get_mut(&address) else { continue };
            if let Some(wake) = record.wake.take() {
                self.timers.remove(&(wake, address));
            }
            self.inherited.resume(record, out);
            let mut desk = Desk {
                now,
                around,
                books: &self.peers,
                knowledge: &self.knowledge,
                gates: self.gates,
                unfit: &self.unfit,
                guarding: &self.guarding,
                keeps_connections: self.keeps_connections,
                timing: self.timing,
                leaving_since: self.leaving_since,
                lans: &mut lans,
                out,
                who_has: &mut who_has,
            };
            let (statement, forget) = desk.decide(record);
            if let Some(wake) = record.wake {
                self.timers.insert((wake, address));
            }
            if forget {
                self.records.remove(&address);
            }
            if self.own.say(address, statement) {
                told.push(address);
            }
        }
        if !told.is_empty() {
            out.push(Action::Tell(told));
        }
        if !who_has.is_empty() {
            out.push(Action::AskWhoHas(who_has));
        }
    }

    fn probe_clear(&mut self, address: IpAddr, out: &mut Vec<Action>) {
        if let Some(record) = self.records.get_mut(&address) {
            record.probe_clear(out);
            self.undecided.insert(address);
        }
    }

    fn probe_conflict(&mut self, now: Instant, address: IpAddr, mac: MacAddr, out: &mut Vec<Action>) {
        if let Some(record) = self.records.get_mut(&address) {
            record.probe_conflict(now, mac, out);
            self.undecided.insert(address);
        }
    }

    fn speaker_has(&mut self, now: Instant, around: Around<'_>, sight: &Sight<'_>, out: &mut Vec<Action>) {
        let Some(record) = self.records.get_mut(&sight.address) else { return };
        let mut desk = Desk {
            now,
            around,
            books: &self.peers,
            knowledge: &self.knowledge,
            gates: self.gates,
            unfit: &self.unfit,
            guarding: &self.guarding,
            keeps_connections: self.keeps_connections,
            timing: self.timing,
            leaving_since: self.leaving_since,
            lans: &mut BTreeMap::new(),
            out,
            who_has: &mut Vec::new(),
        };
        desk.seen_on_lan(record, sight);
        self.undecided.insert(sight.address);
    }

    /// What is said of an address, for the explanation.
    pub(crate) fn own_statement(&self, address: IpAddr) -> Statement {
        self.own.statement(address)
    }
}
