//! Which address is to be announced elsewhere next, where places have become uneven.
//!
//! An order that stands is kept, so nodes that come stand last everywhere, and a node that returned
//! takes nothing back. What is uneven for that is made even here, one address at a time and with as few
//! moves as can be. Three kinds of step, in this order:
//!
//! 1. *Even*: a node stands first for more addresses than it should; one of them goes to the node with
//!    the fewest that can take it.
//! 2. *Return*: the first candidate is well and somebody else announces; it is asked to take over.
//! 3. *Second*: second places are uneven; nothing moves, but what the next failover moves will be even.
//!
//! What a node should stand first for is judged among the nodes that can take the very address: at most
//! 1.05 times their mean, or the mean rounded up where that is more. So equal nodes become equal, and
//! what few nodes can announce burdens those few.

use std::cmp::Reverse;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use landfall_crds::Candidate;

use super::loads::Loads;

/// How many first places a node may hold, in percent of the mean.
const FIRSTS: u64 = 105;
/// How many second places: more, since they matter in a failure only.
const SECONDS: u64 = 110;
/// Of fewer second places than these a node may hold one more: an order that is as good as new is not
/// written for that.
const FEW: u64 = 100;

/// An address that is claimed, as it is placed now.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The address.
    pub address: IpAddr,
    /// Its candidates, best first.
    pub candidates: &'a [Candidate],
    /// The node that announces it.
    pub announcer: Option<&'a str>,
    /// Another node than the first candidate has announced it for so long that the first may be asked to
    /// take over, and it has not been asked yet.
    pub may_return: bool,
    /// The nodes that can take the address right now and have been well for long enough, by name.
    pub able: Vec<&'a str>,
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The address.
    pub address: IpAddr,
    /// The node that announces it.
    pub from: Option<String>,
    /// Its candidates from now on, best first: the same nodes as before.
    pub candidates: Vec<Candidate>,
    /// Whether the announcer is meant to change, so that the epoch must be raised.
    pub raises_epoch: bool,
    /// Why.
    pub reason: Reason,
}

/// Why an order changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A node stands first too often.
    Even {
        /// That node.
        node: String,
        /// How often it does.
        held: u32,
        /// How often the one does that takes the place.
        has: u32,
    },
    /// The first candidate is well and another node announces.
    Return,
    /// A node stands second too often.
    Second,
}

/// What happens, for people.
impl Display for Move {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let to = self.candidates.first().map(|candidate| candidate.node.as_str()).unwrap_or_default();
        match &self.from {
            Some(from) if !self.raises_epoch => write!(f, "stays on node {from}: ")?,
            Some(from) => write!(f, "moves from node {from} to node {to}: ")?,
            None => write!(f, "moves to node {to}: ")?,
        }
        match &self.reason {
            Reason::Even { node, held, has } => {
                write!(f, "{node} ranked first for {held} addresses, {to} for {has}")
            }
            Reason::Return => write!(f, "{to} ranks first and is well"),
            Reason::Second => f.write_str("only the second place changes"),
        }
    }
}

/// The next step towards even places, or nothing where they are. The same places in the same order give
/// the same answer; taking its steps one after the other comes to an end.
pub fn next_move<'a>(loads: &Loads, places: impl IntoIterator<Item = Place<'a>>) -> Option<Move> {
    let mut best: Option<(Rank<'a>, Move)> = None;
    let mut counts = Counts::default();
    for place in places {
        // Who cannot take the address any more is in trouble with it, and neither helped by a change
        // of its order nor to be counted on.
        let Some(first) = place.candidates.first().map(|candidate| candidate.node.as_str()) else { continue };
        let Ok(at) = place.able.binary_search(&first) else { continue };
        if counts.able != place.able {
            counts = Counts::of(loads, &place.able);
        }
        let found = even(loads, &counts, &place, at)
            .or_else(|| returning(&place, first))
            .or_else(|| second(loads, &counts, &place, first));
        let Some((rank, step)) = found else { continue };
        if best.as_ref().is_none_or(|(known, _)| rank < *known) {
            best = Some((rank, step));
        }
    }
    best.map(|(_, step)| step)
}

/// How steps are ranked: the lowest is taken first.
type Rank<'a> = (u8, Reverse<u32>, Option<&'a str>, u8, u32, Reverse<u32>, u32, IpAddr);

/// The places of the nodes that can take an address. Most addresses have the same, so they are kept from
/// one to the next.
#[derive(Debug, Default)]
struct Counts<'a> {
    able: Vec<&'a str>,
    firsts: Vec<u32>,
    seconds: Vec<u32>,
    firsts_allowed: u32,
    seconds_allowed: u32,
}

impl<'a> Counts<'a> {
    fn of(loads: &Loads, able: &[&'a str]) -> Self {
        let firsts: Vec<u32> = able.iter().map(|node| loads.firsts(node)).collect();
        let seconds: Vec<u32> = able.iter().map(|node| loads.seconds(node)).collect();
        Self {
            able: able.to_vec(),
            firsts_allowed: allowed(&firsts, FIRSTS),
            seconds_allowed: seconds_allowed(&seconds),
            firsts,
            seconds,
        }
    }
}

/// What each of these may hold: some percent of the mean, but never less than the mean rounded up, for
/// no order can do better than that.
fn allowed(held: &[u32], percent: u64) -> u32 {
    let count = held.len().max(1) as u64;
    let sum: u64 = held.iter().copied().map(u64::from).sum();
    let most = (sum * percent / (100 * count)).max(sum.div_ceil(count));
    u32::try_from(most).unwrap_or(u32::MAX)
}

fn seconds_allowed(held: &[u32]) -> u32 {
    let are_few = held.iter().copied().map(u64::from).sum::<u64>() < FEW;
    allowed(held, SECONDS).saturating_add(u32::from(are_few))
}

/// Gives the first place, held by the node at `from`, to the node with the fewest first places.
fn even<'a>(loads: &Loads, counts: &Counts<'a>, place: &Place<'a>, from: usize) -> Option<(Rank<'a>, Move)> {
    let held = counts.firsts[from];
    if held <= counts.firsts_allowed {
        return None;
    }
    let from = place.able[from];
    let announces = |node: &str| place.announcer == Some(node);
    let is_candidate = |node: &str| place.candidates.iter().any(|candidate| candidate.node == node);
    let others = place.able.iter().zip(&counts.firsts).filter(|(node, _)| **node != from);
    let (to, has) = others
        .map(|(node, has)| (*node, *has))
        .filter(|(node, _)| is_candidate(node))
        .min_by_key(|(node, has)| (*has, !announces(node), loads.seconds(node), *node))?;
    if held < has + 2 {
        return None;
    }
    // Whoever would inherit the fewest addresses of the new first becomes the second.
    let second = place
        .candidates
        .iter()
        .map(|candidate| candidate.node.as_str())
        .filter(|node| *node != to && place.able.binary_search(node).is_ok())
        .min_by_key(|node| (loads.pairs(to, node), loads.seconds(node)))?;
    let old_second = place.candidates.get(1).map_or(0, |second| loads.pairs(from, &second.node));
    // What the taker announces already moves nowhere, and what its first does not announce would have to
    // move anyway.
    let felt = match place.announcer {
        Some(node) if node == to => 0,
        Some(node) if node == from => 2,
        _ => 1,
    };
    let rank = (
        0,
        Reverse(held),
        Some(from),
        felt,
        has,
        Reverse(old_second),
        loads.pairs(to, second),
        place.address,
    );
    let reason = Reason::Even { node: from.to_owned(), held, has };
    Some((rank, step(place, in_front(place.candidates, &[to, second]), !announces(to), reason)))
}

/// Asks the first candidate to take over.
fn returning<'a>(place: &Place<'a>, first: &str) -> Option<(Rank<'a>, Move)> {
    if !place.may_return || place.announcer.is_none_or(|node| node == first) {
        return None;
    }
    let rank = (1, Reverse(0), None, 0, 0, Reverse(0), 0, place.address);
    Some((rank, step(place, place.candidates.to_vec(), true, Reason::Return)))
}

/// Gives the second place to the node with the fewest second places. While somebody else than the first
/// announces, that is left alone.
fn second<'a>(
    loads: &Loads,
    counts: &Counts<'a>,
    place: &Place<'a>,
    first: &str,
) -> Option<(Rank<'a>, Move)> {
    if place.announcer.is_some_and(|node| node != first) {
        return None;
    }
    let from = place.candidates.get(1)?.node.as_str();
    let held = counts.seconds[place.able.binary_search(&from).ok()?];
    if held <= counts.seconds_allowed {
        return None;
    }
    let seconds_of = |node: &str| Some(counts.seconds[place.able.binary_search(&node).ok()?]);
    let (to, has) = place
        .candidates
        .iter()
        .skip(2)
        .filter_map(|candidate| Some((candidate.node.as_str(), seconds_of(&candidate.node)?)))
        .min_by_key(|(node, has)| (*has, loads.pairs(first, node), *node))?;
    if held < has + 2 {
        return None;
    }
    let (inherits, would) = (loads.pairs(first, from), loads.pairs(first, to));
    let rank = (2, Reverse(held), Some(from), 0, has, Reverse(inherits), would, place.address);
    Some((rank, step(place, in_front(place.candidates, &[first, to]), false, Reason::Second)))
}

fn step(place: &Place<'_>, candidates: Vec<Candidate>, raises_epoch: bool, reason: Reason) -> Move {
    let from = place.announcer.map(ToOwned::to_owned);
    Move { address: place.address, from, candidates, raises_epoch, reason }
}

/// The candidates with these in front, the others behind them as they stood.
fn in_front(candidates: &[Candidate], front: &[&str]) -> Vec<Candidate> {
    let others = candidates.iter().filter(|candidate| !front.contains(&candidate.node.as_str()));
    front.iter().map(|node| Candidate { node: (*node).to_owned() }).chain(others.cloned()).collect()
}

#[cfg(test)]
#[path = "rebalance_tests.rs"]
mod tests;
