//! The desk at which one address is decided: where this node and the others stand about it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use super::books::PeerBooks;
use super::claim::{Claim, Claimant, Statement};
use super::gates::Gates;
use super::guarding::Guarding;
use super::knowledge::Knowledge;
use super::lan::Lan;
use super::record::{Holding, Record};
use super::{Action, Around};
use crate::lan::{LinkIndex, MacAddr, NodeName};
use crate::liveness::{Timing, Verdict};
use crate::mind::{Refusal, Report};

/// All that a decision is made from.
pub(super) struct Desk<'a> {
    pub(super) now: Instant,
    pub(super) around: Around<'a>,
    pub(super) books: &'a PeerBooks,
    pub(super) knowledge: &'a Knowledge,
    /// What this node lacks.
    pub(super) gates: Gates,
    /// Ports of checks that do not pass here.
    pub(super) unfit: &'a BTreeSet<u16>,
    /// What the kernel enforces.
    pub(super) guarding: &'a Guarding,
    /// Connections are kept across planned moves.
    pub(super) keeps_connections: bool,
    pub(super) timing: Timing,
    pub(super) leaving_since: Option<Instant>,
    /// The links that were looked at for the decisions that are made together.
    pub(super) lans: &'a mut BTreeMap<Vec<LinkIndex>, Rc<Lan>>,
    pub(super) out: &'a mut Vec<Action>,
    /// Addresses of which the peers are to be asked who claims them.
    pub(super) who_has: &'a mut Vec<IpAddr>,
}

/// What makes this node able, or unable, to announce an address.
pub(super) struct Position {
    /// The links with carrier that carry it.
    pub(super) links: Vec<LinkIndex>,
    /// How things stand on them.
    pub(super) lan: Rc<Lan>,
    /// All that may announce it, best first.
    pub(super) ranking: Vec<NodeName>,
    /// This node's place among them.
    pub(super) rank: Option<usize>,
    /// Those that go before this node if all could: the ones that lack less, and of those that lack as much the
    /// ones that are ranked before it.
    pub(super) better: Vec<NodeName>,
    /// How much this node lacks to serve it.
    pub(super) lacks: u32,
    pub(super) refusal: Option<Refusal>,
}

/// The best claim of a peer that is alive.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) node: NodeName,
    pub(super) mac: MacAddr,
    pub(super) claim: Claim,
}

impl Owner {
    pub(super) fn claimant(&self) -> Claimant<'_> {
        Claimant { claim: &self.claim, mac: self.mac, node: &self.node }
    }
}

impl Desk<'_> {
    /// Decides an address: what is said of it from now on, and whether it may be forgotten.
    pub(super) fn decide(&mut self, record: &mut Record) -> (Statement, bool) {
        self.look_at_guard(record);
        let position = self.position(record);
        for (_, _, claim) in self.books.claims(record.address()) {
            record.term = record.term.max(claim.term);
            record.announced |= !claim.probing;
        }
        self.look_at_witness(record);
        self.tell_refusal(record, &position);
        self.listen(record, &position);
        match record.holding.take() {
            Some(holding) => record.holding = self.keep(record, &position, holding),
            None => self.wait(record, &position),
        }
        let is_over =
            record.gone_since.is_some_and(|since| !record.vip.claimed || since + super::HOLD <= self.now);
        if is_over && record.holding.is_none() {
            self.tell_refusal_over(record);
            if !record.listening.is_empty() {
                self.out.push(Action::Listen(record.address(), Vec::new()));
            }
            record.wake = None;
            return (Statement::Nothing, true);
        }
        if let Some(since) = record.gone_since {
            record.wake_at(since + super::HOLD);
        }
        let cannot = position.refusal.is_some() || position.links.is_empty();
        let statement = match &record.holding {
            Some(holding) => Statement::Announcing(holding.claim),
            None if position.rank.is_none() || !record.vip.claimed => Statement::Nothing,
            None if cannot => Statement::Refusing,
            None if record.has_any_check(self.unfit) => Statement::Unfit,
            None => Statement::Nothing,
        };
        (statement, false)
    }

    pub(super) fn own(&self) -> &NodeName {
        self.around.facts.own()
    }

    pub(super) fn position(&mut self, record: &Record) -> Position {
        let ranking = self.around.facts.ranking(&record.vip);
        let links = self.around.facts.carrying(&record.vip);
        let lan = match self.lans.get(&links) {
            Some(lan) => Rc::clone(lan),
            None => {
                let lan = Rc::new(Lan::survey(self.now, self.around, self.books, &links));
                self.lans.insert(links.clone(), Rc::clone(&lan));
                lan
            }
        };
        let rank = ranking.iter().position(|node| node == self.own());
        let lacks = self.lacks_itself(record);
        Position {
            links,
            lan,
            better: rank.map(|rank| self.better(record, &ranking, (lacks, rank))).unwrap_or_default(),
            lacks,
            rank,
            ranking,
            refusal: self.around.facts.refusal(record.address()).or_else(|| self.refusal_unguarded(record)),
        }
    }

    fn better(&self, record: &Record, ranking: &[NodeName], own: (u32, usize)) -> Vec<NodeName> {
        let others = ranking.iter().enumerate().filter(|(at, _)| *at != own.1);
        let places = others.map(|(at, node)| ((self.lacks(record.address(), node), at), node));
        let mut better: Vec<_> = places.filter(|(place, _)| *place < own).collect();
        better.sort_by_key(|(place, _)| *place);
        better.into_iter().map(|(_, node)| node.clone()).collect()
    }

    /// How much another node lacks to serve an address, as it says.
    pub(super) fn lacks(&self, address: IpAddr, node: &NodeName) -> u32 {
        self.books.gates(node).count() + u32::from(self.books.statement(node, address).is_unfit())
    }

    fn lacks_itself(&self, record: &Record) -> u32 {
        self.gates.count() + u32::from(record.has_any_check(self.unfit))
    }

    /// How much another node lacks that has nothing to do with the API server.
    pub(super) fn lacks_there(&self, address: IpAddr, node: &NodeName) -> u32 {
        let gates = self.books.gates(node).without(Gates::API);
        gates.count() + u32::from(self.books.statement(node, address).is_unfit())
    }

    /// The same of this node.
    pub(super) fn lacks_here(&self, record: &Record) -> u32 {
        self.gates.without(Gates::API).count() + u32::from(record.has_any_check(self.unfit))
    }

    fn tell_refusal(&mut self, record: &mut Record, position: &Position) {
        let asked = position.rank.is_some() && record.vip.claimed;
        match position.refusal.filter(|_| asked) {
            Some(reason) if record.refused != Some(reason) => {
                record.refused = Some(reason);
                self.out.push(Action::Report(Report::Refused { address: record.address(), reason }));
            }
            Some(_) => {}
            None => self.tell_refusal_over(record),
        }
    }

    fn tell_refusal_over(&mut self, record: &mut Record) {
        if record.refused.take().is_some() {
            self.out.push(Action::Report(Report::NoLongerRefused { address: record.address() }));
        }
    }

    fn listen(&mut self, record: &mut Record, position: &Position) {
        let is_candidate = position.rank.is_some() && record.vip.claimed && position.refusal.is_none();
        let links = if is_candidate { position.links.clone() } else { Vec::new() };
        if record.address().is_ipv6() && links != record.listening {
            record.listening.clone_from(&links);
            self.out.push(Action::Listen(record.address(), links));
        }
    }

    /// What is known of a peer where the address is announced.
    pub(super) fn verdict(&self, links: &[LinkIndex], node: &NodeName) -> Option<Verdict> {
        self.around.verdict(links, node)
    }

    pub(super) fn is_alive(&self, links: &[LinkIndex], node: &NodeName) -> bool {
        self.verdict(links, node) == Some(Verdict::Alive)
    }

    /// The best claim of a peer that is alive on the links, or anywhere if nothing is heard on the links:
    /// who is cut off there believes whoever it hears elsewhere.
    pub(super) fn owner(&self, record: &Record, position: &Position) -> Option<Owner> {
        self.best_claim(record, position, |_| true)
    }

    /// The best claim of such a peer that does not wait to be relieved itself.
    pub(super) fn rival(&self, record: &Record, position: &Position) -> Option<Owner> {
        let stays =
            |claimant: &Claimant<'_>| !claimant.claim.leaving && !self.books.is_leaving(claimant.node);
        self.best_claim(record, position, stays)
    }

    fn best_claim(
        &self,
        record: &Record,
        position: &Position,
        counts: impl Fn(&Claimant<'_>) -> bool,
    ) -> Option<Owner> {
        let links = &position.links;
        let is_cut_off = position.lan.isolated_since.is_some();
        let is_alive = |node: &NodeName| {
            let anywhere =
                || self.around.liveness.verdicts(node).any(|(_, verdict)| verdict == Verdict::Alive);
            self.is_alive(links, node) || (is_cut_off && anywhere())
        };
        let claims = self.books.claims(record.address());
        let alive = claims.filter(|(node, _, _)| is_alive(node));
        let alive = alive.map(|(node, mac, claim)| Claimant { claim, mac, node });
        let witnessed = self.witnessed_owner(record).map(Owner::claimant);
        let best = alive.chain(witnessed).filter(counts).min_by(|a, b| a.precedence(b));
        best.map(|Claimant { claim, mac, node }| Owner { node: node.clone(), mac, claim: *claim })
    }

    /// Whether a candidate need not be waited for.
    pub(super) fn is_passed_over(&self, record: &Record, links: &[LinkIndex], node: &NodeName) -> bool {
        let said = self.books.statement(node, record.address());
        said == Statement::Refusing
            || said.claim().is_some_and(|claim| claim.leaving)
            || self.books.is_leaving(node)
            || self.is_ignorant(node, record.address())
            || matches!(self.verdict(links, node), Some(Verdict::Dead | Verdict::Left | Verdict::Deaf))
    }

    /// Whether a candidate has not acknowledged the address at its epoch. A node that has not heard of the API
    /// server itself for a while may be the one that knows too little.
    fn is_ignorant(&self, node: &NodeName, address: IpAddr) -> bool {
        !self.gates.contains(Gates::STALE) && self.knowledge.is_ignorant(node, address)
    }

    /// Reports that the address is announced, and how, whenever any of that changed.
    pub(super) fn report_announcing(&mut self, record: &Record, holding: &mut Holding) {
        let link = holding.links.first().and_then(|link| self.around.facts.link(*link));
        let Some(link) = link.filter(|_| !holding.claim.probing) else { return };
        let report = Report::Announcing {
            address: record.address(),
            interface: link.name.clone(),
            mac: link.mac,
            term: holding.claim.term,
            epoch: holding.claim.epoch,
        };
        if holding.reported.as_ref() != Some(&report) {
            holding.reported = Some(report.clone());
            self.out.push(Action::Report(report));
        }
    }
}
