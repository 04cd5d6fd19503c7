//! Brings addresses back to where they belong, one at a time and not before things have calmed down.
//!
//! What is to be moved follows from the objects alone (`ranking::rebalance`), so a successor goes on where
//! its predecessor ended. What is remembered here only slows it down: since when each node is well, since
//! when another node than the first candidate announces an address, and the move that is under way.
//! Whatever changes of that kind asks for one look when it has settled; to look is to go through all
//! addresses. Where everything is as it should be there is no next look.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use landfall_crds::{Placement, VirtualIP};

use super::subject::{Subject, exactly};
use super::{Mind, Now};
use crate::effects::{Effect, Note};
use crate::ranking::eligible;
use crate::ranking::rebalance::{Move, Place, next_move};
use crate::world::nodes::Interface;
use crate::world::virtual_ips::is_deleting;

/// So long is a move waited for before the next one.
const LONGEST_MOVE: Duration = Duration::from_secs(30);

/// A node that may be given addresses.
#[derive(Debug)]
struct Well {
    /// Since when, as far as this process has seen.
    since: Instant,
    /// Its interfaces all the time: a link that comes or goes begins it anew.
    interfaces: Vec<Interface>,
}

/// An address that another node was asked to take over.
#[derive(Debug)]
struct UnderWay {
    address: IpAddr,
    /// The epoch that asks for it.
    epoch: i64,
    /// When it is waited for no longer.
    until: Instant,
}

/// What the mind remembers of its moves.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// The revision of the nodes that `well` was made from.
    revision: u64,
    well: BTreeMap<String, Well>,
    /// Addresses that are announced by another node than the first candidate, and since when.
    astray: BTreeMap<IpAddr, Instant>,
    under_way: Option<UnderWay>,
    /// When was looked last.
    looked: Option<Instant>,
    /// When to look next.
    look_at: Option<Instant>,
}

/// What of a VirtualIP decides whether anything is to be moved.
#[derive(PartialEq, Eq)]
struct Stand<'a> {
    placement: &'a Placement,
    announcer: Option<(&'a str, i64)>,
}

impl Balance {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.look_at
    }

    fn look_by(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |planned| planned.min(at)));
    }

    /// Since when each node is well, of those that are now.
    fn see_nodes<'a>(&mut self, now: Instant, well: impl Iterator<Item = (&'a str, &'a [Interface])>) {
        let mut before = std::mem::take(&mut self.well);
        for (name, interfaces) in well {
            let known = before.remove(name).filter(|known| known.interfaces == interfaces);
            let new = || Well { since: now, interfaces: interfaces.to_vec() };
            self.well.insert(name.to_owned(), known.unwrap_or_else(new));
        }
    }
}

impl<'a> Stand<'a> {
    /// Where a claimed address stands; others are not moved.
    fn of(vip: &'a VirtualIP) -> Option<Self> {
        let placement = vip.spec.placement.as_ref().filter(|_| !vip.spec.claims.is_empty())?;
        let announcer = vip.status.as_ref().and_then(|status| status.announcer.as_ref());
        let announcer = announcer.map(|announcer| (announcer.node.as_str(), announcer.epoch));
        Some(Self { placement, announcer })
    }

    fn first(&self) -> Option<&'a str> {
        self.placement.candidates.first().map(|candidate| candidate.node.as_str())
    }

    fn is_astray(&self) -> bool {
        self.announcer.is_some_and(|(node, _)| self.first() != Some(node))
    }

    /// Whether the first candidate announces because of the present epoch, or a later one.
    fn has_arrived(&self) -> bool {
        self.announcer.is_some() && !self.is_astray() && !self.is_asked()
    }

    /// Whether the announcer has its place under an older epoch, so that the first candidate has been
    /// asked to take over and will when it can: it need not be asked again.
    fn is_asked(&self) -> bool {
        self.announcer.is_some_and(|(_, epoch)| epoch < self.placement.epoch)
    }
}

impl Mind {
    fn balances(&self) -> bool {
        !self.config.rebalance_interval.is_zero()
    }

    /// This process has begun to lead: for all it knows everything has changed just now.
    pub(super) fn begin_balance(&mut self, now: Now) {
        if !self.balances() {
            return;
        }
        let now = now.monotonic;
        let mut balance = Balance { revision: self.nodes.revision(), ..Balance::default() };
        balance.see_nodes(now, self.nodes.well());
        for (address, vip) in self.vips.store.iter() {
            let Some(stand) = Stand::of(vip).filter(Stand::is_astray) else { continue };
            balance.astray.insert(*address, now);
            if stand.is_asked() {
                // A predecessor's move, most likely.
                let (epoch, until) = (stand.placement.epoch, now + LONGEST_MOVE);
                balance.under_way = Some(UnderWay { address: *address, epoch, until });
            }
        }
        self.balance = balance;
        self.look_when_settled(now);
    }

    /// Notes what has changed in where an address is announced.
    pub(super) fn watch_balance(
        &mut self,
        now: Now,
        address: IpAddr,
        was: Option<&VirtualIP>,
        is: Option<&VirtualIP>,
    ) {
        if !self.was_acting || !self.balances() {
            return;
        }
        let (before, after) = (was.and_then(Stand::of), is.and_then(Stand::of));
        if before == after {
            return;
        }
        if after.as_ref().is_some_and(Stand::is_astray) {
            self.balance.astray.insert(address, now.monotonic);
        } else {
            self.balance.astray.remove(&address);
        }
        self.look_when_settled(now.monotonic);
    }

    /// Something has changed: it is looked at when it has settled. Where no address is placed there is
    /// nothing to look at; the first that is will be such a change.
    fn look_when_settled(&mut self, now: Instant) {
        if !self.loads.is_empty() {
            self.balance.look_by(now + self.config.rebalance_settle);
        }
    }

    /// Takes the next step if it is time for one.
    pub(super) fn rebalance(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.balances() {
            return;
        }
        if self.balance.revision != self.nodes.revision() {
            self.balance.revision = self.nodes.revision();
            self.balance.see_nodes(now.monotonic, self.nodes.well());
            self.look_when_settled(now.monotonic);
        }
        let pause = self.config.rebalance_interval;
        if self.balance.under_way.as_ref().is_some_and(|under_way| self.is_over(under_way, now)) {
            self.balance.under_way = None;
            let next = self.balance.looked.map_or(now.monotonic, |looked| looked + pause);
            self.balance.look_by(next.max(now.monotonic));
        }
        if self.balance.look_at.is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.balance.look_at = None;
        if let Some(under_way) = &self.balance.under_way {
            let until = under_way.until;
            return self.balance.look_by(until);
        }
        let earliest = self.balance.looked.map(|looked| looked + pause);
        if let Some(earliest) = earliest.filter(|earliest| *earliest > now.monotonic) {
            return self.balance.look_by(earliest);
        }
        self.look_for_a_move(now, out);
    }

    fn look_for_a_move(&mut self, now: Now, out: &mut Vec<Effect>) {
        let (pause, settle) = (self.config.rebalance_interval, self.config.rebalance_settle);
        self.balance.looked = Some(now.monotonic);
        let since = self.balance.well.values().map(|well| well.since);
        let since = since.chain(self.balance.astray.values().copied());
        let ripe = since.map(|since| since + settle).filter(|at| *at > now.monotonic).min();
        if let Some(ripe) = ripe {
            self.balance.look_by(ripe);
        }
        let mut some_are_busy = false;
        let step = next_move(&self.loads, self.places(now, &mut some_are_busy));
        if step.is_some() || some_are_busy {
            self.balance.look_by(now.monotonic + pause);
        }
        if let Some(step) = step {
            self.take_step(now, step, out);
        }
    }

    /// Every address that could be moved now. Notes whether some are left out since they are busy.
    fn places<'a>(&'a self, now: Now, some_are_busy: &'a mut bool) -> impl Iterator<Item = Place<'a>> {
        let settle = self.config.rebalance_settle;
        let has_settled = move |since: &Instant| *since + settle <= now.monotonic;
        let is_well =
            move |node: &str| self.balance.well.get(node).is_some_and(|well| has_settled(&well.since));
        self.vips.store.iter().filter_map(move |(address, vip)| {
            let stand = Stand::of(vip).filter(|_| !is_deleting(vip))?;
            if !is_well(stand.first()?) {
                return None;
            }
            if !self.pending.is_free(&Subject::VirtualIp(*address), now.monotonic) {
                *some_are_busy = true;
                return None;
            }
            let able = eligible(&self.nodes, &self.reach_of(*address, &vip.spec)).into_iter();
            let able = able.filter(|node| node.may_join && is_well(node.node)).map(|node| node.node);
            let has_strayed = self.balance.astray.get(address).is_some_and(has_settled);
            Some(Place {
                address: *address,
                candidates: &stand.placement.candidates,
                announcer: stand.announcer.map(|(node, _)| node),
                may_return: has_strayed && !stand.is_asked(),
                able: able.collect(),
            })
        })
    }

    /// Whether a move is done, cannot be done any more, or has had its time.
    fn is_over(&self, under_way: &UnderWay, now: Now) -> bool {
        if under_way.until <= now.monotonic {
            return true;
        }
        if self.pending.in_flight(&Subject::VirtualIp(under_way.address)) {
            return false;
        }
        let stand = self.vips.get(under_way.address).and_then(|vip| Stand::of(vip));
        // With another epoch the write was refused, or somebody else has decided since.
        stand.is_none_or(|stand| stand.placement.epoch != under_way.epoch || stand.has_arrived())
    }

    fn take_step(&mut self, now: Now, step: Move, out: &mut Vec<Effect>) {
        let Some(vip) = self.vips.get(step.address).map(std::sync::Arc::clone) else { return };
        let Some(standing) = &vip.spec.placement else { return };
        let epoch = if step.raises_epoch { self.next_epoch(now.wall) } else { standing.epoch };
        let mut notes = Vec::new();
        if step.raises_epoch {
            let until = now.monotonic + LONGEST_MOVE;
            self.balance.under_way = Some(UnderWay { address: step.address, epoch, until });
            notes.push(Note {
                kind: "VirtualIP",
                namespace: String::new(),
                name: vip.metadata.name.clone().unwrap_or_default(),
                uid: vip.metadata.uid.clone().unwrap_or_default(),
                warning: false,
                reason: "Rebalanced",
                message: step.to_string(),
                standing: false,
            });
        }
        let mut spec = Box::new(vip.spec.clone());
        spec.placement = Some(Placement { epoch, candidates: step.candidates });
        self.loads.set(step.address, spec.placement.as_ref());
        self.want(Effect::UpdateVirtualIp { virtual_ip: exactly(&vip.metadata), spec }, notes, out);
    }
}
