//! When a node that announces an address goes on, and when it stops.

use super::claim::{Claim, Claimant};
use super::record::{Holding, Record};
use super::standing::{Desk, Owner, Position};
use super::{Action, HANDOVER, HOLD, OUTDONE, Sight};
use crate::mind::{Report, Withdrawal};

impl Desk<'_> {
    /// What becomes of a holding.
    pub(super) fn keep(
        &mut self,
        record: &mut Record,
        position: &Position,
        mut holding: Holding,
    ) -> Option<Holding> {
        if let Some(reason) = self.reason_to_stop(record, position, &mut holding) {
            self.stop(record, &holding, reason);
            return None;
        }
        if holding.leaving_since.is_none() {
            self.restamp(record, position, &mut holding);
        }
        holding.claim.unfit = record.has_any_check(self.unfit);
        holding.claim.reluctant = self.is_reluctant(record, position, &mut holding);
        self.end_isolation(record, position, &mut holding);
        if holding.links != position.links {
            holding.links.clone_from(&position.links);
            let links = holding.links.clone();
            let again = if holding.claim.probing { Action::Probe } else { Action::Announce };
            self.out.push(again(record.address(), links));
        }
        if let Some(at) = holding.retry_at {
            if at <= self.now {
                holding.retry_at = None;
                self.out.push(Action::Probe(record.address(), holding.links.clone()));
            } else {
                record.wake_at(at);
            }
        }
        self.report_announcing(record, &mut holding);
        Some(holding)
    }

    fn reason_to_stop(
        &mut self,
        record: &mut Record,
        position: &Position,
        holding: &mut Holding,
    ) -> Option<Withdrawal> {
        if !record.vip.claimed || record.gone_since.is_some_and(|since| since + HOLD <= self.now) {
            return Some(Withdrawal::Released);
        }
        if position.refusal.is_some() {
            return Some(Withdrawal::Refused);
        }
        if position.links.is_empty() {
            return Some(Withdrawal::NotEligible);
        }
        let handing_over = match (self.leaving_since, position.rank) {
            (Some(_), _) => Some(Withdrawal::Left),
            (None, None) => Some(Withdrawal::NotEligible),
            (None, Some(_)) => None,
        };
        let rival = self.owner(record, position);
        if let Some(rival) =
            rival.filter(|rival| rival.claimant().goes_before(&self.claimant(&holding.claim)))
        {
            record.last_owner = Some(rival.node);
            return Some(handing_over.unwrap_or(Withdrawal::Superseded));
        }
        let Some(reason) = handing_over else {
            holding.leaving_since = None;
            holding.claim.leaving = false;
            return None;
        };
        let since = *holding.leaving_since.get_or_insert(self.now);
        if holding.claim.probing || since + HANDOVER <= self.now || !self.has_successor(record, position) {
            return Some(reason);
        }
        holding.claim.leaving = true;
        record.wake_at(since + HANDOVER);
        None
    }

    /// Whether anybody could take the address over right now.
    fn has_successor(&self, record: &Record, position: &Position) -> bool {
        let mut others = position.ranking.iter().filter(|node| *node != self.own());
        others.any(|node| {
            self.is_alive(&position.links, node) && !self.is_passed_over(record, &position.links, node)
        })
    }

    /// Whether a candidate that could take the address over has lacked less for long enough. A Service without
    /// endpoints here is no affair of all nodes, and does not wait.
    fn is_reluctant(&self, record: &mut Record, position: &Position, holding: &mut Holding) -> bool {
        if !self.is_outdone(record, position) {
            holding.outdone_since = None;
            return false;
        }
        let due = *holding.outdone_since.get_or_insert(self.now) + OUTDONE;
        if due <= self.now || record.has_any_check(self.unfit) {
            return true;
        }
        record.wake_at(due);
        false
    }

    /// Whether this node lacks something that a candidate has who could take the address over.
    fn is_outdone(&self, record: &Record, position: &Position) -> bool {
        position.lacks > 0
            && position.better.iter().any(|node| {
                self.lacks(record.address(), node) < position.lacks
                    && self.is_alive(&position.links, node)
                    && self.books.is_in_step(node)
                    && !self.is_passed_over(record, &position.links, node)
            })
    }

    /// A newer epoch that ranks this node first makes the claim a newer one. One that ranks another first
    /// does not: that one is yet to claim.
    fn restamp(&self, record: &Record, position: &Position, holding: &mut Holding) {
        let Some(rank) = position.rank.map(|rank| u16::try_from(rank).unwrap_or(u16::MAX)) else { return };
        if record.vip.epoch == holding.claim.epoch || (record.vip.epoch > holding.claim.epoch && rank == 0) {
            holding.claim.epoch = record.vip.epoch;
            holding.claim.rank = rank;
        }
    }

    /// A claim made in isolation that nobody contests becomes one like any other as soon as a speaker is
    /// heard and all that it says is known.
    fn end_isolation(&self, record: &mut Record, position: &Position, holding: &mut Holding) {
        if holding.claim.isolated && !position.lan.is_hushed && position.lan.is_in_step {
            holding.claim.isolated = false;
            record.term = record.term.saturating_add(1);
            holding.claim.term = record.term;
        }
    }

    fn stop(&mut self, record: &mut Record, holding: &Holding, reason: Withdrawal) {
        let address = record.address();
        if matches!(reason, Withdrawal::NotEligible | Withdrawal::Refused) {
            // Not released: whoever can may announce it again, this node among them.
            record.last_owner = Some(self.own().clone());
        }
        self.out.push(Action::Withdraw(address));
        if record.conflict.take().is_some() {
            self.out.push(Action::Report(Report::AddressConflictOver { address }));
        }
        if !holding.claim.probing {
            self.out.push(Action::Report(Report::Withdrawn { address, reason }));
        }
    }

    fn claimant<'a>(&'a self, claim: &'a Claim) -> Claimant<'a> {
        Claimant { claim, mac: self.around.facts.own_mac(), node: self.own() }
    }

    /// A speaker was seen on the LAN to have the address. Where its claim is known all is settled; where
    /// it is not, and the speaker is not heard otherwise, it is taken to be like ours but for the rank.
    pub(super) fn seen_on_lan(&mut self, record: &mut Record, sight: &Sight<'_>) {
        let Sight { node, mac, gratuitous, .. } = *sight;
        record.seen = Some((node.clone(), self.now));
        let address = record.address();
        let Some(holding) = record.holding.as_ref().filter(|holding| gratuitous && !holding.claim.probing)
        else {
            return;
        };
        let position = self.position(record);
        let known = self.books.statement(node, address).claim().copied();
        if self.is_alive(&position.links, node) {
            match known {
                Some(_) => self.out.extend([Action::Correct(address), Action::Tell(vec![address])]),
                None => self.out.push(Action::Query(node.clone())),
            }
            return;
        }
        let rank = position.ranking.iter().position(|other| other == node);
        let assumed = Claim {
            rank: rank.map_or(u16::MAX, |rank| u16::try_from(rank).unwrap_or(u16::MAX)),
            isolated: false,
            ..holding.claim
        };
        let theirs = Owner { node: node.clone(), mac, claim: known.unwrap_or(assumed) };
        if theirs.claimant().goes_before(&self.claimant(&holding.claim)) {
            let holding = holding.clone();
            record.holding = None;
            record.last_owner = Some(node.clone());
            self.stop(record, &holding, Withdrawal::Superseded);
        } else {
            self.out.push(Action::Correct(address));
        }
    }
}
