//! Talk between speakers: what is told to whom, and what is repeated.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::lan::NodeName;
use crate::ownership::books::OwnBook;
use crate::wire::speech::{Body, Entry, room_for};

/// What is told is told again after as long, since a datagram may be lost.
const REPEAT_AFTER: Duration = Duration::from_millis(30);
/// A peer is asked for everything at most this often.
const QUERY_PACE: Duration = Duration::from_millis(20);

/// What is under way between this speaker and its peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchange {
    repeats: VecDeque<(Instant, Vec<IpAddr>)>,
    queried: HashMap<NodeName, Instant>,
}

impl Exchange {
    /// Tells of these addresses, now and once more.
    pub(super) fn tell(&mut self, now: Instant, book: &OwnBook, addresses: Vec<IpAddr>) -> Vec<Body> {
        let bodies = changes(book, &addresses);
        self.repeats.push_back((now + REPEAT_AFTER, addresses));
        bodies
    }

    /// What is due to be told once more.
    pub(super) fn repeat(&mut self, now: Instant, book: &OwnBook) -> Vec<Body> {
        let mut bodies = Vec::new();
        while let Some((_, addresses)) = self.repeats.pop_front_if(|(at, _)| *at <= now) {
            bodies.extend(changes(book, &addresses));
        }
        bodies
    }

    /// When something is due to be told once more.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.repeats.front().map(|(at, _)| *at)
    }

    /// Whether a peer may be asked for everything now.
    pub(super) fn may_query(&mut self, now: Instant, node: &NodeName) -> bool {
        if self.queried.get(node).is_some_and(|at| now < *at + QUERY_PACE) {
            return false;
        }
        self.queried.insert(node.clone(), now);
        true
    }

    /// Forgets peers that are no more.
    pub(super) fn retain(&mut self, keep: impl Fn(&NodeName) -> bool) {
        self.queried.retain(|node, _| keep(node));
    }
}

/// What is now said of these addresses, in as many messages as it takes.
fn changes(book: &OwnBook, addresses: &[IpAddr]) -> Vec<Body> {
    let entry = |address: &IpAddr| Entry { address: *address, statement: book.statement(*address) };
    let entries: Vec<_> = addresses.iter().map(entry).collect();
    let mut rest = entries.as_slice();
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let (part, left) = rest.split_at(room_for(rest).max(1));
        bodies.push(Body::Changes(part.to_vec()));
        rest = left;
    }
    bodies
}

/// Everything that is said, in ranges of addresses that leave no gap, so that each can be believed alone.
pub(super) fn everything(book: &OwnBook) -> Vec<Body> {
    let (lowest, highest) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::from(u128::MAX).into());
    let entries = book.entries();
    let mut rest = entries.as_slice();
    let mut bodies = Vec::new();
    let mut first = lowest;
    loop {
        let (part, left) = rest.split_at(room_for(rest));
        // Up to the last address before the next part begins; the space between belongs to this one.
        let last = left.first().map_or(highest, |next| before(next.address));
        bodies.push(Body::Range { first, last, entries: part.to_vec() });
        let Some(next) = left.first() else { return bodies };
        first = next.address;
        rest = left;
    }
}

/// The address before this one, in the order of addresses.
fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().saturating_sub(1)).into(),
        IpAddr::V6(address) => match address.to_bits().checked_sub(1) {
            Some(bits) => Ipv6Addr::from_bits(bits).into(),
            None => Ipv4Addr::BROADCAST.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::claim::Statement;

    #[test]
    fn everything_covers_every_address_exactly_once_and_fits_the_lan() {
        for count in [0_u32, 1, 31, 50, 1000] {
            let mut book = OwnBook::default();
            for number in 0..count {
                let v4 = Ipv4Addr::from_bits(0x0a00_0000 + number * 3);
                book.say(v4.into(), Statement::Refusing);
                book.say(Ipv6Addr::from_bits(u128::from(number) * 7).into(), Statement::Refusing);
            }
            let bodies = everything(&book);
            let mut told = Vec::new();
            let mut expected_first: IpAddr = Ipv4Addr::UNSPECIFIED.into();
            for body in &bodies {
                let Body::Range { first, last, entries } = body else { panic!("a range") };
                assert_eq!(*first, expected_first);
                assert!(entries.iter().all(|entry| (*first..=*last).contains(&entry.address)));
                told.extend(entries.iter().copied());
                expected_first = match last {
                    IpAddr::V4(v4) if v4.is_broadcast() => Ipv6Addr::UNSPECIFIED.into(),
                    IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() + 1).into(),
                    IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().wrapping_add(1)).into(),
                };
            }
            assert_eq!(expected_first, IpAddr::from(Ipv6Addr::UNSPECIFIED), "the last range ends at the end");
            assert_eq!(told, book.entries());
        }
    }
}
