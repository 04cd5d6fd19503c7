//! The desk at which one address is decided: where this node and the others stand about it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use super::books::PeerBooks;
use super::claim::{Claim, Claimant, Statement};
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
    pub(super) timing: Timing,
    pub(super) leaving_since: Option<Instant>,
    /// The links that were looked at for the decisions that are made together.
    pub(super) lans: &'a mut BTreeMap<Vec<LinkIndex>, Rc<Lan>>,
    pub(super) out: &'a mut Vec<Action>,
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
        let position = self.position(record);
        for (_, _, claim) in self.books.claims(record.address()) {
            record.term = record.term.max(claim.term);
            record.announced |= !claim.probing;
        }
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
            None if position.rank.is_some() && record.vip.claimed && cannot => Statement::Refusing,
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
        Position {
            links,
            lan,
            rank: ranking.iter().position(|node| node == self.own()),
            ranking,
            refusal: self.around.facts.refusal(record.address()),
        }
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

    /// What is known of a peer where the address is announced; elsewhere, where it is not watched there.
    pub(super) fn verdict(&self, links: &[LinkIndex], node: &NodeName) -> Option<Verdict> {
        let best = |verdict: &Verdict| match verdict {
            Verdict::Alive => 0,
            Verdict::Deaf => 1,
            Verdict::Left => 2,
            Verdict::Dead => 3,
            Verdict::NeverHeard => 4,
        };
        let there =
            links.iter().filter_map(|link| self.around.liveness.verdict(*link, node)).min_by_key(best);
        there.or_else(|| self.around.liveness.verdicts(node).map(|(_, verdict)| verdict).min_by_key(best))
    }

    pub(super) fn is_alive(&self, links: &[LinkIndex], node: &NodeName) -> bool {
        self.verdict(links, node) == Some(Verdict::Alive)
    }

    /// The best claim of a peer that is alive on the links, or anywhere if nothing is heard on the links:
    /// who is cut off there believes whoever it hears elsewhere.
    pub(super) fn owner(&self, record: &Record, position: &Position) -> Option<Owner> {
        let links = &position.links;
        let is_cut_off = position.lan.isolated_since.is_some();
        let is_alive = |node: &NodeName| {
            let anywhere =
                || self.around.liveness.verdicts(node).any(|(_, verdict)| verdict == Verdict::Alive);
            self.is_alive(links, node) || (is_cut_off && anywhere())
        };
        let claims = self.books.claims(record.address());
        let alive = claims.filter(|(node, _, _)| is_alive(node));
        let best = alive.min_by(|a, b| {
            let claimant =
                |(node, mac, claim): &(&NodeName, MacAddr, &Claim)| (*mac, **claim, (*node).clone());
            let (a, b) = (claimant(a), claimant(b));
            let a = Claimant { claim: &a.1, mac: a.0, node: &a.2 };
            a.precedence(&Claimant { claim: &b.1, mac: b.0, node: &b.2 })
        });
        best.map(|(node, mac, claim)| Owner { node: node.clone(), mac, claim: *claim })
    }

    /// Whether a candidate need not be waited for.
    pub(super) fn is_passed_over(&self, record: &Record, links: &[LinkIndex], node: &NodeName) -> bool {
        let said = self.books.statement(node, record.address());
        said == Statement::Refusing
            || said.claim().is_some_and(|claim| claim.leaving)
            || self.books.is_leaving(node)
            || matches!(self.verdict(links, node), Some(Verdict::Dead | Verdict::Left | Verdict::Deaf))
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
