//! Which object is written next, and when. Pure.
//!
//! An object waits at most once: what is written is planned when its turn comes, so the latest wins.
//! After a failure it waits longer each time. All together keep to a pace, so that a failover of
//! thousands of addresses does not fall upon the API server at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The first wait after a failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// A steady pace with room for a burst.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    every: Duration,
    burst: u32,
    /// When the bucket would be full again: each take puts it off by `every`.
    full_at: Option<Instant>,
}

impl Pace {
    /// One per `every`, and `burst` at once after a rest.
    pub fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, full_at: None }
    }

    /// When the next one may be taken.
    pub fn next(&self, now: Instant) -> Instant {
        let room = self.every * self.burst.saturating_sub(1);
        self.full_at.map_or(now, |full| now.max(full.checked_sub(room).unwrap_or(now)))
    }

    /// Takes one, if it may be taken now.
    pub fn take(&mut self, now: Instant) -> bool {
        let may = self.next(now) <= now;
        if may {
            self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)) + self.every);
        }
        may
    }
}

/// The objects that wait.
#[derive(Debug)]
pub struct Queue<K> {
    pace: Pace,
    order: BTreeSet<(Instant, K)>,
    waiting: HashMap<K, Instant>,
    writing: HashSet<K>,
    again: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// Nothing waits.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            order: BTreeSet::new(),
            waiting: HashMap::new(),
            writing: HashSet::new(),
            again: HashMap::new(),
            failures: HashMap::new(),
        }
    }

    /// Has an object written at `at`, or earlier if it waits for an earlier time already. After a
    /// failure it is not written before its wait is over.
    pub fn push(&mut self, key: K, at: Instant) {
        if self.writing.contains(&key) {
            let again = self.again.entry(key).or_insert(at);
            *again = at.min(*again);
        } else if let Some(waiting) = self.waiting.get(&key) {
            if at < *waiting && !self.failures.contains_key(&key) {
                self.order.remove(&(*waiting, key.clone()));
                self.insert(key, at);
            }
        } else {
            self.insert(key, at);
        }
    }

    fn insert(&mut self, key: K, at: Instant) {
        self.waiting.insert(key.clone(), at);
        self.order.insert((at, key));
    }

    /// When the next object is to be written.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.order.first().map(|(at, _)| (*at).max(self.pace.next(now)))
    }

    /// The object whose turn it is. It is being written until [`Self::done`] or [`Self::failed`].
    /// If it turns out that there is nothing to write, [`Self::give_back`] it.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        if self.order.first().is_none_or(|(at, _)| *at > now) || !self.pace.take(now) {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.waiting.remove(&key);
        self.writing.insert(key.clone());
        Some(key)
    }

    /// There was nothing to write for the object that was popped last; it costs no pace.
    pub fn give_back(&mut self, key: &K) {
        if let Some(full) = self.pace.full_at.as_mut() {
            *full = full.checked_sub(self.pace.every).unwrap_or(*full);
        }
        self.done(key);
    }

    /// The object is written.
    pub fn done(&mut self, key: &K) {
        self.failures.remove(key);
        self.ended(key);
    }

    /// The object could not be written; it waits, each time longer.
    pub fn failed(&mut self, key: &K, now: Instant) {
        self.ended(key);
        let failures = self.failures.entry(key.clone()).or_default();
        let wait = FIRST_RETRY * 2_u32.saturating_pow(*failures);
        *failures = (*failures + 1).min(16);
        if let Some(waiting) = self.waiting.remove(key) {
            self.order.remove(&(waiting, key.clone()));
        }
        self.insert(key.clone(), now + wait.min(LAST_RETRY));
    }

    fn ended(&mut self, key: &K) {
        self.writing.remove(key);
        if let Some(at) = self.again.remove(key) {
            self.insert(key.clone(), at);
        }
    }

    /// How many are being written.
    pub fn writing(&self) -> usize {
        self.writing.len()
    }

    /// Whether nothing waits and nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.writing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue<&'static str> {
        Queue::new(Pace::new(Duration::from_millis(20), 100))
    }

    #[test]
    fn an_object_waits_once_and_for_the_earliest_time() {
        let (mut queue, start) = (queue(), Instant::now());
        let later = start + Duration::from_secs(1);
        queue.push("a", later);
        queue.push("a", start);
        queue.push("a", later);
        assert_eq!(queue.pop(start), Some("a"));
        assert_eq!(queue.pop(later), None);
        queue.done(&"a");
        assert!(queue.is_idle());
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_again() {
        let (mut queue, start) = (queue(), Instant::now());
        queue.push("a", start);
        assert_eq!(queue.pop(start), Some("a"));
        queue.push("a", start);
        assert_eq!(queue.pop(start), None, "never twice at the same time");
        queue.done(&"a");
        assert_eq!(queue.pop(start), Some("a"));
    }

    #[test]
    fn failures_wait_longer_each_time_whoever_pushes() {
        let (mut queue, mut now) = (queue(), Instant::now());
        queue.push("a", now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert_eq!(queue.pop(now), Some("a"));
            queue.failed(&"a", now);
            queue.push("a", now);
            let next = queue.next_deadline(now).unwrap();
            waits.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(queue.pop(now), Some("a"));
        queue.done(&"a");
        queue.push("a", now);
        assert_eq!(queue.next_deadline(now), Some(now), "a success forgets them");
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_a_pace() {
        let mut queue = Queue::new(Pace::new(Duration::from_millis(20), 100));
        let start = Instant::now();
        (0..200).for_each(|n| queue.push(n, start));
        let at_once = std::iter::from_fn(|| queue.pop(start)).count();
        assert_eq!(at_once, 100);
        assert_eq!(queue.next_deadline(start), Some(start + Duration::from_millis(20)));
        let second = start + Duration::from_secs(1);
        assert_eq!(std::iter::from_fn(|| queue.pop(second)).count(), 50);
    }

    #[test]
    fn what_needs_no_write_costs_no_pace() {
        let mut queue = Queue::new(Pace::new(Duration::from_secs(1), 1));
        let start = Instant::now();
        (0..50).for_each(|n| queue.push(n, start));
        while let Some(key) = queue.pop(start) {
            queue.give_back(&key);
        }
        assert!(queue.is_idle());
    }
}
