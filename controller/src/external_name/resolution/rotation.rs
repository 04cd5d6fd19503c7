//! The addresses of a name in one family, kept steady where DNS gives another part of them each time.
//!
//! Mostly an answer is the whole truth: what it does not name is gone at once, so that a failover in DNS is
//! followed. But there are names with more addresses than one answer has room for, or wishes to tell. They are
//! known by addresses that come back again and again; then an address stays until it has not been named for a
//! while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So often must an address have come back that an answer before did not name ...
pub const RETURNS: usize = 3;
/// ... within so long, for the name to be taken for one that gives a part of its addresses each time.
pub const WITHIN: Duration = Duration::from_secs(600);
/// For so long an address of such a name stays without having been named.
pub const HOLD: Duration = Duration::from_secs(300);
/// So many addresses of one family are kept; of more, those named last, and among these the lowest.
pub const MOST: usize = 64;

/// Addresses, and when each was named last.
#[derive(Clone, Debug, Default)]
pub(super) struct Rotation {
    in_use: BTreeMap<IpAddr, Instant>,
    /// Addresses that an answer did not name, and when they were named last; also those that are in use for
    /// another while.
    missed: BTreeMap<IpAddr, Instant>,
    /// When addresses came back lately.
    returns: VecDeque<Instant>,
}

impl Rotation {
    /// The addresses, in their order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.in_use.keys().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_use.is_empty()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether an answer is only a part of the truth.
    pub(super) fn is_partial(&self) -> bool {
        self.returns.len() >= RETURNS
    }

    /// Takes in an answer.
    pub(super) fn named(&mut self, now: Instant, named: &BTreeSet<IpAddr>) {
        let recent = |at: Instant| now.saturating_duration_since(at) < WITHIN;
        self.missed.retain(|_, at| recent(*at));
        self.returns.retain(|at| recent(*at));
        for address in named {
            if self.missed.remove(address).is_some() {
                self.returns.push_back(now);
            }
            self.in_use.insert(*address, now);
        }
        while self.returns.len() > RETURNS {
            self.returns.pop_front();
        }
        let is_partial = self.is_partial();
        let missed = &mut self.missed;
        self.in_use.retain(|address, at| {
            if !named.contains(address) {
                missed.insert(*address, *at);
            }
            named.contains(address) || is_partial && now.saturating_duration_since(*at) < HOLD
        });
        while self.in_use.len() > MOST {
            let oldest = self.in_use.iter().min_by_key(|(address, at)| (**at, std::cmp::Reverse(**address)));
            let Some((&address, _)) = oldest else { break };
            self.in_use.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn set(numbers: &[u8]) -> BTreeSet<IpAddr> {
        numbers.iter().map(|number| IpAddr::from(Ipv4Addr::new(192, 0, 2, *number))).collect()
    }

    /// Gives these answers, so many seconds apart, and tells what is in use after each.
    #[allow(clippy::disallowed_methods)] // A point in time to count from.
    fn play(seconds: u64, answers: &[&[u8]]) -> Vec<Vec<u8>> {
        let start = Instant::now();
        let mut rotation = Rotation::default();
        let last = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        let mut take = |(number, answer): (usize, &&[u8])| {
            rotation.named(start + Duration::from_secs(seconds * number as u64), &set(answer));
            rotation.addresses().map(last).collect()
        };
        answers.iter().enumerate().map(|answer| take(answer)).collect()
    }

    #[test]
    fn a_failover_in_dns_is_followed_at_once_there_and_back() {
        assert_eq!(play(30, &[&[1], &[2], &[1]]), [vec![1], vec![2], vec![1]]);
        assert_eq!(play(30, &[&[1, 2, 3], &[1, 3], &[1, 2, 3]])[1], [1, 3]);
    }

    #[test]
    fn where_dns_gives_another_part_each_time_addresses_come_to_rest() {
        let answers: Vec<&[u8]> = [&[1, 2][..], &[2, 3], &[3, 1]].into_iter().cycle().take(30).collect();
        let seen = play(5, &answers);
        assert!(seen[8..].iter().all(|seen| *seen == [1, 2, 3]), "{seen:?}");
        let one_by_one: Vec<&[u8]> = [&[1][..], &[2], &[3]].into_iter().cycle().take(30).collect();
        assert!(play(5, &one_by_one)[8..].iter().all(|seen| *seen == [1, 2, 3]));
    }

    #[test]
    fn an_address_that_is_not_named_any_more_leaves_a_name_at_rest_too() {
        let mut answers: Vec<&[u8]> = [&[1, 2][..], &[2, 3], &[3, 1]].into_iter().cycle().take(12).collect();
        answers.extend([&[2, 3][..]; 62]);
        let seen = play(5, &answers);
        assert_eq!(seen[12], [1, 2, 3]);
        let gone = seen.iter().skip(12).position(|seen| *seen == [2, 3]).unwrap();
        assert_eq!(gone as u64 * 5, HOLD.as_secs() - 5, "since it was named last, an answer before");
    }

    #[test]
    fn there_is_a_limit_to_how_many_are_kept() {
        let all: Vec<u8> = (0..200).collect();
        let seen = play(5, &[&all]);
        assert_eq!(seen[0], (0..64).collect::<Vec<u8>>());
    }
}
