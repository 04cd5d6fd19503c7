//! While many addresses are granted at once, what only tells people how things are waits: each such write
//! would cost the API server as much as one that gives somebody an address.
//!
//! It is put off here and not in the writer's queue, so that nothing else about the Service waits for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use landfall_crds::ClaimRef;

use crate::world::store::Index;

/// So many writes that grant make a rush, if they come faster than [`DRAIN`].
const MANY: f64 = 30.0;
/// So many a second are no rush, however long it lasts.
const DRAIN: f64 = 20.0;
/// A rush is over so long after the last of many.
const LULL: f64 = 0.5;
/// Nothing is put off for longer, save for its turn.
const LONGEST: Duration = Duration::from_secs(30);
/// So many take their turn together, and the next so long after: thousands of writes that wait at once would
/// only take memory.
const TURN: (usize, Duration) = (100, Duration::from_secs(1));

/// Whether many addresses are being granted, and what waits for the end of that.
#[derive(Debug, Default)]
pub(super) struct Rush {
    /// Writes that grant, of which [`DRAIN`] a second are forgotten, as of `counted`.
    level: f64,
    counted: Option<Instant>,
    put_off: BTreeSet<(Instant, ClaimRef)>,
    since: Index<ClaimRef, Instant>,
    /// Nobody has a turn before that.
    next_turn: Option<Instant>,
}

impl Rush {
    /// Notes a write that grants.
    pub(super) fn granting(&mut self, now: Instant) {
        self.level = (self.level_at(now) + 1.0).min(MANY + DRAIN * LULL);
        self.counted = Some(now);
    }

    /// Whether the conditions of a Service may be written by themselves now. If not, it is to be looked at
    /// again when [`Rush::over`] names it.
    pub(super) fn may_tell(&mut self, service: &ClaimRef, now: Instant) -> bool {
        let since = *self.since.entry(service.clone()).or_insert(now);
        if self.ends_at().is_none_or(|end| end <= now) || since + LONGEST <= now {
            self.forget(service);
            return true;
        }
        self.put_off.insert((since, service.clone()));
        false
    }

    /// There is nothing to tell of the Service any more.
    pub(super) fn forget(&mut self, service: &ClaimRef) {
        if let Some(since) = self.since.remove(service) {
            self.put_off.remove(&(since, service.clone()));
        }
    }

    /// When somebody is to be looked at again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let (since, _) = self.put_off.first()?;
        let longest = *since + LONGEST;
        let due = self.ends_at().map_or(longest, |end| end.min(longest));
        Some(self.next_turn.map_or(due, |turn| turn.max(due)))
    }

    /// Who has waited for long enough, and has a turn.
    pub(super) fn over(&mut self, now: Instant) -> Vec<ClaimRef> {
        if self.next_turn.is_some_and(|turn| now < turn) {
            return Vec::new();
        }
        let is_over = self.ends_at().is_none_or(|end| end <= now);
        let mut over = Vec::new();
        let may = |since: Instant| is_over || since + LONGEST <= now;
        while over.len() < TURN.0 && self.put_off.first().is_some_and(|(since, _)| may(*since)) {
            // `since` stays, so that who is put off for longest is not put off anew.
            over.extend(self.put_off.pop_first().map(|(_, service)| service));
        }
        self.next_turn = (over.len() == TURN.0).then(|| now + TURN.1);
        over
    }

    fn level_at(&self, now: Instant) -> f64 {
        let passed = self.counted.map_or(Duration::ZERO, |counted| now.saturating_duration_since(counted));
        (self.level - passed.as_secs_f64() * DRAIN).max(0.0)
    }

    fn ends_at(&self) -> Option<Instant> {
        let left = (self.level - MANY) / DRAIN;
        (left > 0.0).then(|| self.counted.map(|counted| counted + Duration::from_secs_f64(left))).flatten()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A point in time to count from; nothing waits.
mod tests {
    use super::*;

    fn service(name: &str) -> ClaimRef {
        ClaimRef { namespace: "shop".into(), name: name.into() }
    }

    #[test]
    fn a_few_grants_put_nothing_off() {
        let (mut rush, mut now) = (Rush::default(), Instant::now());
        for _ in 0..1000 {
            now += Duration::from_millis(51);
            rush.granting(now);
            assert!(rush.may_tell(&service("a"), now));
        }
        for _ in 0..28 {
            rush.granting(now);
        }
        assert!(rush.may_tell(&service("a"), now));
        assert_eq!(rush.next_deadline(), None);
    }

    #[test]
    fn in_a_rush_who_is_to_be_told_waits_for_its_end_and_half_a_minute_at_most() {
        let (mut rush, start) = (Rush::default(), Instant::now());
        let mut now = start;
        for _ in 0..100 {
            rush.granting(now);
        }
        assert!(!rush.may_tell(&service("a"), now) && !rush.may_tell(&service("b"), now));
        rush.forget(&service("b"));
        let end = rush.next_deadline().unwrap();
        assert_eq!(end - now, Duration::from_millis(500));
        assert_eq!(rush.over(end), [service("a")]);
        assert!(rush.may_tell(&service("a"), end));
        assert!(rush.since.is_empty() && rush.put_off.is_empty());

        for _ in 0..100 {
            rush.granting(end);
        }
        for number in 0..250 {
            assert!(!rush.may_tell(&service(&format!("s-{number}")), end));
        }
        now = rush.next_deadline().unwrap();
        for turn in [100, 100, 50] {
            assert_eq!((rush.over(now).len(), rush.over(now).len()), (turn, 0));
            now += Duration::from_secs(1);
            assert!(rush.next_deadline().is_none_or(|next| next == now));
        }

        let began = now;
        for _ in 0..100 {
            rush.granting(now);
        }
        loop {
            rush.granting(now);
            if rush.may_tell(&service("a"), now) {
                break;
            }
            now += Duration::from_millis(5);
            assert!(now < began + Duration::from_secs(31));
        }
        assert!(now >= began + Duration::from_secs(30));
    }
}
