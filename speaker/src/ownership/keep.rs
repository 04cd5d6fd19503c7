//! When a node that announces an address goes on, and when it stops.

use std::time::Duration;

use super::claim::{Claim, Claimant};
use super::record::{Holding, Record};
use super::standing::{Desk, Owner, Position};
use super::wait::ASK_AHEAD;
use super::{Action, HANDOVER, HOLD, OUTDONE, Sight};
use crate::lan::NodeName;
use crate::mind::{Report, Withdrawal};

/// What is lacked for want of the API server makes an owner reluctant after as long. A speaker that hears nothing of
/// the API server knows so within the turn of its watches (20 s), and within 2 s that it is back.
const API_PATIENCE: Duration = Duration::from_secs(25);

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
        self.end_contest(record, &mut holding);
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
        // Who waits to be relieved stops for anybody, whatever the epochs: the others may not know of the newest.
        let relieves = |rival: &Owner| handing_over.is_some() && !rival.claim.isolated;
        let goes_before = |rival: &Owner| rival.claimant().goes_before(&self.claimant(&holding.claim));
        let rival = self.rival(record, position);
        if let Some(rival) = rival.filter(|rival| relieves(rival) || goes_before(rival)) {
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

    /// Whether a candidate that could take the address over has lacked less for long enough. What befalls all nodes is
    /// noticed by some before others, and for that nothing is to move; a Service without endpoints here is no affair
    /// of all nodes, and does not wait.
    fn is_reluctant(&self, record: &mut Record, position: &Position, holding: &mut Holding) -> bool {
        let could = |node: &&NodeName| {
            position.lacks > 0
                && self.lacks(record.address(), node) < position.lacks
                && self.is_alive(&position.links, node)
                && self.books.is_in_step(node)
                && !self.is_passed_over(record, &position.links, node)
        };
        let mut others = position.better.iter().filter(could).peekable();
        if others.peek().is_none() {
            holding.outdone_since = None;
            return false;
        }
        let since = *holding.outdone_since.get_or_insert(self.now);
        if record.has_any_check(self.unfit) {
            return true;
        }
        let own = self.lacks_here(record);
        let is_for_the_api_alone = !others.any(|node| self.lacks_there(record.address(), node) < own);
        let due = since + if is_for_the_api_alone { API_PATIENCE } else { OUTDONE };
        if due <= self.now {
            return true;
        }
        record.wake_at(due);
        false
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

    /// Who said that it has the address and does not answer for it hears nobody, neither this node nor those who ask.
    fn end_contest(&mut self, record: &mut Record, holding: &mut Holding) {
        let Some((_, asked)) = holding.contested else { return };
        if asked + ASK_AHEAD <= self.now {
            holding.contested = None;
            self.out.push(Action::Correct(record.address()));
        } else {
            record.wake_at(asked + ASK_AHEAD);
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
    /// it is not, and the speaker is not heard otherwise, it is taken to be like ours but for the rank. If it would
    /// go before this node, it is asked first: it may hear nothing, and then answers nobody.
    pub(super) fn seen_on_lan(&mut self, record: &mut Record, sight: &Sight<'_>) {
        let Sight { node, mac, gratuitous, .. } = *sight;
        record.seen = Some((node.clone(), self.now));
        let address = record.address();
        let Some(holding) = record.holding.as_ref().filter(|holding| !holding.claim.probing) else { return };
        let is_asked = holding.contested.as_ref().is_some_and(|(asked, _)| asked == node);
        if !gratuitous && !is_asked {
            return;
        }
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
        if !theirs.claimant().goes_before(&self.claimant(&holding.claim)) {
            self.out.push(Action::Correct(address));
        } else if gratuitous {
            if !is_asked && let Some(holding) = &mut record.holding {
                holding.contested = Some((node.clone(), self.now));
                self.out.push(Action::Ask(address, position.links));
            }
        } else {
            let holding = holding.clone();
            record.holding = None;
            record.last_owner = Some(node.clone());
            self.stop(record, &holding, Withdrawal::Superseded);
        }
    }
}
