//! What happens to addresses whose objects vanish while Services claim them, and to peers whose objects
//! vanish. Pure.
//!
//! That is never how an address is released: the controller drops the claims first. Either one object
//! was deleted by mistake, past its finalizer, and is re-created at once; or many are gone because the
//! definition was deleted. Traffic goes on for a while in both cases. A peer that is forgotten would be a
//! peer that nobody yields to, so the same goes for Speaker objects, which their owners re-create.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long one address is held: the controller needs far less to re-create its object.
const ONE: Duration = Duration::from_secs(10);
/// How long many are held: time for a person to see the alarm and bring the definition back.
const MANY: Duration = Duration::from_secs(300);
/// From how many on they are many, if they are also half of all that are claimed.
const FEW: usize = 3;

/// Those that are held.
#[derive(Debug)]
pub struct Holding<K> {
    since: HashMap<K, Instant>,
    many: bool,
}

impl<K> Default for Holding<K> {
    fn default() -> Self {
        Self { since: HashMap::new(), many: false }
    }
}

impl<K: Clone + Eq + Hash> Holding<K> {
    /// One has lost its object. `all` counts all that should have one, this one and all that are held
    /// included. True where this makes them many: time for an alarm.
    pub fn hold(&mut self, now: Instant, key: K, all: usize) -> bool {
        self.since.entry(key).or_insert(now);
        let were_many = self.many;
        self.many |= self.since.len() >= FEW && self.since.len() * 2 >= all;
        self.many && !were_many
    }

    /// It has an object again.
    pub fn release(&mut self, key: &K) {
        self.since.remove(key);
        self.many &= !self.since.is_empty();
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
        due.iter().for_each(|key| self.release(key));
        due
    }

    /// When the next one has been held for long enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + self.bound())
    }

    fn bound(&self) -> Duration {
        if self.many { MANY } else { ONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn one_that_vanishes_is_held_until_it_is_back_or_time_is_up() {
        let start = Instant::now();
        let mut holding = Holding::default();
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
        let mut holding = Holding::default();
        let alarms = (0..10).filter(|n| holding.hold(start, address(*n), 10)).count();
        assert_eq!(alarms, 1);
        assert!(holding.take_due(start + ONE).is_empty());
        assert_eq!(holding.take_due(start + MANY).len(), 10);
    }

    #[test]
    fn a_few_of_many_are_no_alarm() {
        let start = Instant::now();
        let mut holding = Holding::default();
        assert!((0..10).all(|n| !holding.hold(start, address(n), 1000)));
        assert_eq!(holding.take_due(start + ONE).len(), 10);
    }
}
