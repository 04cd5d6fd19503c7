//! When a node that does not announce an address claims it.

use std::time::{Duration, Instant};

use super::claim::{Claim, Statement};
use super::gates::Gates;
use super::record::{Holding, Record};
use super::standing::{Desk, Owner, Position};
use super::{Action, BEHIND, ISOLATED_WAIT};
use crate::lan::{LinkIndex, NodeName};
use crate::liveness::{Death, Verdict};

/// So long before a claim by backstop the LAN is asked whether anybody answers after all.
pub(super) const ASK_AHEAD: Duration = Duration::from_millis(50);
/// To keep connections may take as long; the move does not wait for longer.
const KEEPING: Duration = Duration::from_millis(150);
/// What was made ready to keep connections is there for as long.
const KEEPING_FRESH: Duration = Duration::from_secs(4);
/// An answer to that is taken for fresh for so long.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// So long may a speaker that is dead by its heartbeats, and yet answers, put off a claim.
const LONGEST_DOUBT: Duration = Duration::from_secs(1);

impl Desk<'_> {
    /// Goes on waiting, or claims.
    pub(super) fn wait(&mut self, record: &mut Record, position: &Position) {
        let Position { links, lan, rank, better, lacks, refusal, .. } = position;
        let behind_since = record.behind_since.take();
        let may =
            record.vip.claimed && refusal.is_none() && !links.is_empty() && self.leaving_since.is_none();
        let may = may && record.unguarded_since.is_none();
        let Some(rank) = rank.filter(|_| may) else {
            record.void_since = None;
            return;
        };
        let owner = self.owner(record, position);
        let mut is_meant = false;
        if let Some(owner) = &owner {
            record.last_owner = Some(owner.node.clone());
            let owner_lacks = self.lacks(record.address(), &owner.node);
            // A claim under an older epoch would not go before its own, which is not given up for that.
            let would_win = record.vip.epoch >= owner.claim.epoch;
            // It has not heard that it is ranked no more, so it knows of nobody to hand over to.
            let is_uninformed = !position.ranking.contains(&owner.node)
                && self.books.gates(&owner.node).contains(Gates::STALE)
                && !self.gates.contains(Gates::STALE);
            let is_open = owner.claim.leaving
                || self.books.is_leaving(&owner.node)
                || (would_win && owner.claim.reluctant && *lacks < owner_lacks)
                || (would_win && is_uninformed);
            if !is_open {
                record.void_since = None;
                record.asked = None;
                is_meant = rank == 0 && record.vip.epoch > owner.claim.epoch && *lacks <= owner_lacks;
                if !is_meant {
                    return self.overtake(record, position, rank, owner, behind_since);
                }
            }
        }
        let since = if is_meant { self.now } else { *record.void_since.get_or_insert(self.now) };
        if !self.may_act(record, position, is_meant) {
            return;
        }
        let start = lan.settled_at.map_or(since, |settled_at| settled_at.max(since));
        // A peer that is never heard may announce it, where nobody who is heard ever did.
        let may_be_a_strangers = lan.has_strangers && record.announced && record.last_owner.is_none();
        let is_doubtful = lan.is_among_strangers || may_be_a_strangers;
        let steps = self.timing.interval * u32::try_from(better.len()).unwrap_or(u32::MAX);
        match lan.isolated_since {
            Some(isolated) => {
                let due = start.max(isolated) + ISOLATED_WAIT + steps;
                if self.nobody_answers(record, position, due) {
                    self.claim(record, position, rank, true);
                }
            }
            // Nothing is heard for a moment: that will be over, or turn out to be isolation.
            None if !lan.is_in_touch => {}
            None if better.is_empty() && !is_meant && is_doubtful => {
                if self.nobody_answers(record, position, start) {
                    self.claim(record, position, rank, false);
                }
            }
            None if is_meant || better.iter().all(|node| self.is_passed_over(record, links, node)) => {
                if self.connections_are_kept(record, position, owner.as_ref()) {
                    self.claim(record, position, rank, false);
                }
            }
            None => {
                if self.nobody_answers(record, position, start + steps) {
                    self.claim(record, position, rank, false);
                }
            }
        }
    }

    /// Whether it may be taken over from a node that lives: either what belongs to the connections that one knows is
    /// sent on to it by now, or that has taken too long.
    fn connections_are_kept(
        &mut self,
        record: &mut Record,
        position: &Position,
        owner: Option<&Owner>,
    ) -> bool {
        let Some(owner) = owner.filter(|owner| self.keeps_connections && !owner.claim.probing) else {
            return true;
        };
        match &record.keeping {
            Some((from, since, is_done)) if *from == owner.node && self.now < *since + KEEPING_FRESH => {
                let due = *since + KEEPING;
                if !is_done && self.now < due {
                    record.wake_at(due);
                    return false;
                }
                true
            }
            _ => {
                record.keeping = Some((owner.node.clone(), self.now, false));
                let links = position.links.clone();
                self.out.push(Action::KeepConnections(record.address(), owner.node.clone(), links));
                record.wake_at(self.now + KEEPING);
                false
            }
        }
    }

    /// An owner that a newer epoch ranks first says so as soon as it knows of that epoch. One that does not
    /// say so is cut off from the API server, and may answer for a Service that has lost the address since.
    /// It yields to a claim of the newer epoch, so the next one makes that claim in its place.
    fn overtake(
        &mut self,
        record: &mut Record,
        position: &Position,
        rank: usize,
        owner: &Owner,
        behind_since: Option<Instant>,
    ) {
        let is_behind = record.vip.epoch > owner.claim.epoch && position.ranking.first() == Some(&owner.node);
        if !is_behind || !position.lan.is_in_touch {
            return;
        }
        let since = behind_since.unwrap_or(self.now);
        record.behind_since = Some(since);
        let due = since + BEHIND + self.timing.interval * u32::try_from(rank).unwrap_or(u32::MAX);
        if self.now < due {
            record.wake_at(due);
        } else if self.may_act(record, position, false) {
            self.claim(record, position, rank, false);
        }
    }

    /// Whether the links were listened to for long enough, no peer is about to say more, and an address
    /// whose object is gone was not simply released.
    fn may_act(&mut self, record: &mut Record, position: &Position, is_meant: bool) -> bool {
        let lan = &position.lan;
        let Some(settled_at) = lan.settled_at.filter(|_| !lan.is_hushed) else {
            // The end of either is an event.
            return false;
        };
        let wait_until = lan.wait_until.map_or(settled_at, |until| until.max(settled_at));
        if wait_until > self.now {
            record.wake_at(wait_until);
            return false;
        }
        let is_void = |owner: &NodeName| {
            owner == self.own()
                || self.books.is_leaving(owner)
                || self.books.statement(owner, record.address()) == Statement::Refusing
                || matches!(
                    self.verdict(&position.links, owner),
                    Some(Verdict::Dead | Verdict::Left | Verdict::Deaf)
                )
        };
        is_meant || record.gone_since.is_none() || record.last_owner.as_ref().is_some_and(is_void)
    }

    /// Whether `due` has come and nobody was seen to answer. The LAN is asked shortly before.
    fn nobody_answers(&mut self, record: &mut Record, position: &Position, due: Instant) -> bool {
        let ask_at = due.checked_sub(ASK_AHEAD).unwrap_or(due);
        if self.now < ask_at {
            record.wake_at(ask_at);
            return false;
        }
        let is_stale = record.asked.is_none_or(|asked| asked + ASK_AGAIN <= self.now);
        if is_stale {
            record.asked = Some(self.now);
            self.out.push(Action::Ask(record.address(), position.links.clone()));
            self.who_has.push(record.address());
        }
        let ready = record.asked.map_or(due, |asked| due.max(asked + ASK_AHEAD));
        let ready = self.doubt_until(record, position, due).map_or(ready, |until| ready.max(until));
        if self.now < ready {
            record.wake_at(ready);
            return false;
        }
        true
    }

    /// Until when a speaker that was seen to answer puts a claim off.
    fn doubt_until(&self, record: &Record, position: &Position, due: Instant) -> Option<Instant> {
        let (node, at) = record.seen.as_ref()?;
        let until = *at + self.timing.detection();
        let doubt = match self.verdict(&position.links, node) {
            // It was heard to say that it does not announce, or left.
            Some(Verdict::Alive) if self.books.is_in_step(node) => return None,
            Some(Verdict::Left) => return None,
            Some(Verdict::Dead) => until.min(due + LONGEST_DOUBT),
            _ => until,
        };
        Some(doubt)
    }

    /// How the last owner was found dead, if this node has waited for the address since that moment.
    fn death_of_owner(&self, record: &Record, position: &Position) -> Option<Death> {
        let (owner, waiting_since) = (record.last_owner.as_ref()?, record.void_since?);
        let on = |link: &LinkIndex| self.around.liveness.death(*link, owner);
        let death = position.links.iter().filter_map(on).max_by_key(|death| death.verified)?;
        (waiting_since <= death.verified).then_some(death)
    }

    fn claim(&mut self, record: &mut Record, position: &Position, rank: usize, isolated: bool) {
        self.out.extend(self.death_of_owner(record, position).map(Action::FailedOver));
        let raise = if isolated { 0 } else { 1 };
        record.term = record.term.saturating_add(raise);
        let claim = Claim {
            epoch: record.vip.epoch,
            term: record.term,
            rank: u16::try_from(rank).unwrap_or(u16::MAX),
            isolated,
            probing: !record.announced,
            ..Claim::default()
        };
        record.void_since = None;
        record.asked = None;
        record.behind_since = None;
        let links = position.links.clone();
        let mut holding = Holding { claim, links: links.clone(), ..Holding::default() };
        let begin = if claim.probing { Action::Probe } else { Action::Announce };
        self.out.push(begin(record.address(), links));
        if !claim.probing {
            self.out.push(Action::Took(record.address()));
        }
        self.report_announcing(record, &mut holding);
        record.holding = Some(holding);
    }
}
