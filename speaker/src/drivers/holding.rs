//! Remembers for a while what has vanished from the API in a way that nobody meant. Pure.
//!
//! An address whose object vanishes while Services claim it was not released: the controller drops the
//! claims first. A Speaker that vanishes may be re-created at once by its owner, and a peer that is
//! forgotten is a peer that nobody yields to. When many vanish together, their definition was deleted.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// From how many on they are many, if they are also half of all.
const FEW: usize = 3;

/// Those that are held.
#[derive(Debug)]
pub struct Holding<K> {
    one: Duration,
    all: Duration,
    since: HashMap<K, Instant>,
    many: bool,
}

impl<K: Clone + Eq + Hash> Holding<K> {
    /// Holds each for `one`, or for `all` while they are many.
    pub fn new(one: Duration, all: Duration) -> Self {
        Self { one, all, since: HashMap::new(), many: false }
    }

    /// One has lost its object. `all` counts all that should have one, this one and all that are held
    /// included. True where this makes them many: time for an alarm.
    pub fn hold(&mut self, now: Instant, key: K, all: usize) -> bool {
        self.since.entry(key).or_insert(now);
        let were_many = self.many;
        self.many |= self.since.len() >= FEW && self.since.len() * 2 >= all;
        self.many && !were_many
    }

    /// It has an object again. True where it was held.
    pub fn release(&mut self, key: &K) -> bool {
        let was_held = self.since.remove(key).is_some();
        self.many &= !self.since.is_empty();
        was_held
    }

    /// Whether it is held.
    pub fn holds(&self, key: &K) -> bool {
        self.since.contains_key(key)
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.since.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// Takes those that have been held for long enough.
    pub fn take_due(&mut self, now: Instant) -> Vec<K> {
        let bound = self.bound();
        let due: Vec<K> = self
            .since
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) >= bound)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &due {
            self.release(key);
        }
        due
    }

    /// When the next one has been held for long enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + self.bound())
    }

    fn bound(&self) -> Duration {
        if self.many { self.all } else { self.one }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    const ONE: Duration = Duration::from_secs(10);
    const MANY: Duration = Duration::from_secs(300);

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn one_that_vanishes_is_held_until_it_is_back_or_time_is_up() {
        let start = Instant::now();
        let mut holding = Holding::new(ONE, MANY);
        assert!(!holding.hold(start, address(1), 1));
        holding.release(&address(1));
        assert_eq!(holding.next_deadline(), None);
        holding.hold(start, address(2), 2);
        assert_eq!(holding.next_deadline(), Some(start + ONE));
        assert!(holding.take_due(start + ONE - Duration::from_millis(1)).is_empty());
        assert_eq!(holding.take_due(start + ONE), [address(2)]);
        assert!(holding.is_empty());
    }

    #[test]
    fn many_that_vanish_are_held_for_long_and_raise_one_alarm() {
        let start = Instant::now();
        let mut holding = Holding::new(ONE, MANY);
        let alarms = (0..10).filter(|n| holding.hold(start, address(*n), 10)).count();
        assert_eq!(alarms, 1);
        assert!(holding.take_due(start + ONE).is_empty());
        assert_eq!(holding.take_due(start + MANY).len(), 10);
    }

    #[test]
    fn a_few_of_many_are_no_alarm() {
        let start = Instant::now();
        let mut holding = Holding::new(ONE, MANY);
        assert!((0..10).all(|n| !holding.hold(start, address(n), 1000)));
        assert_eq!(holding.take_due(start + ONE).len(), 10);
    }
}
