//! What is under way, what is put off, and when to look again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::subject::Subject;
use crate::effects::Note;
use crate::world::store::Index;

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An effect whose outcome has not come yet.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The mind's step in which it was wanted.
    pub(crate) step: u64,
    /// What to tell people once it is done.
    pub(crate) notes: Vec<Note>,
    /// A watch has said since that the object is gone, so an answer that shows it in a version up to
    /// this one is out of date.
    pub(crate) void_up_to: u64,
    /// Who wants to do something to the same object next.
    pub(crate) askers: BTreeSet<Subject>,
}

#[derive(Debug)]
struct Backoff {
    failures: u32,
    until: Instant,
}

/// Flights, pauses and timers of all subjects.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    flights: Index<Subject, Flight>,
    backoffs: Index<Subject, Backoff>,
    timers: BTreeSet<(Instant, Subject)>,
    /// The timer of each subject: only the earliest is kept, since to look at a subject sets it anew.
    timer_of: Index<Subject, Instant>,
}

/// The pause after one more failure than so many in a row.
pub(crate) fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(5)).min(LONGEST_PAUSE)
}

impl Pending {
    /// Whether nothing is under way for `subject` and no pause is running. Otherwise `asker` is looked
    /// at again when that is over.
    pub(crate) fn may_act(&mut self, subject: &Subject, asker: &Subject, now: Instant) -> bool {
        if let Some(flight) = self.flights.get_mut(subject) {
            flight.askers.insert(asker.clone());
            return false;
        }
        match self.backoffs.get(subject) {
            Some(backoff) if backoff.until > now => {
                let until = backoff.until;
                self.wake(asker, until);
                false
            }
            _ => true,
        }
    }

    /// Whether nothing is under way for `subject` and no pause is running, without asking to be told when
    /// that is over.
    pub(crate) fn is_free(&self, subject: &Subject, now: Instant) -> bool {
        !self.in_flight(subject) && self.backoffs.get(subject).is_none_or(|backoff| backoff.until <= now)
    }

    pub(crate) fn in_flight(&self, subject: &Subject) -> bool {
        self.flights.contains_key(subject)
    }

    pub(crate) fn takes_off(&mut self, subject: Subject, step: u64, notes: Vec<Note>) {
        self.flights.insert(subject, Flight { step, notes, void_up_to: 0, askers: BTreeSet::new() });
    }

    /// The object of a flight is gone, as of a version where that is known.
    pub(crate) fn void(&mut self, subject: &Subject, version: Option<u64>) {
        if let Some(flight) = self.flights.get_mut(subject) {
            flight.void_up_to = flight.void_up_to.max(version.unwrap_or(u64::MAX));
        }
    }

    pub(crate) fn lands(&mut self, subject: &Subject) -> Option<Flight> {
        self.flights.remove(subject)
    }

    pub(crate) fn succeeded(&mut self, subject: &Subject) {
        self.backoffs.remove(subject);
    }

    /// Puts `subject` off; each failure in a row doubles the pause.
    pub(crate) fn failed(&mut self, subject: &Subject, now: Instant) {
        let failures = self.backoffs.get(subject).map_or(0, |backoff| backoff.failures);
        let until = now + pause_after(failures);
        self.backoffs.insert(subject.clone(), Backoff { failures: failures + 1, until });
        self.wake(subject, until);
    }

    /// Puts `subject` off for as long as the API server asks, within reason.
    pub(crate) fn put_off(&mut self, subject: &Subject, now: Instant, pause: Duration) {
        let failures = self.backoffs.get(subject).map_or(0, |backoff| backoff.failures);
        let until = now + pause.clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.backoffs.insert(subject.clone(), Backoff { failures, until });
        self.wake(subject, until);
    }

    /// Looks at `subject` again at `at`, or earlier if that is already planned.
    pub(crate) fn wake(&mut self, subject: &Subject, at: Instant) {
        if let Some(&planned) = self.timer_of.get(subject) {
            if planned <= at {
                return;
            }
            self.timers.remove(&(planned, subject.clone()));
        }
        self.timers.insert((at, subject.clone()));
        self.timer_of.insert(subject.clone(), at);
    }

    /// `subject` is being looked at, which plans anew when to do so again. The end of its pause stays
    /// planned, since others may count on it.
    pub(crate) fn is_looked_at(&mut self, subject: &Subject) {
        if !self.backoffs.contains_key(subject)
            && let Some(planned) = self.timer_of.remove(subject)
        {
            self.timers.remove(&(planned, subject.clone()));
        }
    }

    /// The subjects whose time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Subject> {
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, subject)) = self.timers.pop_first() else { break };
            self.timer_of.remove(&subject);
            due.push(subject);
        }
        due
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A test needs some instant to count from.
    #[allow(clippy::disallowed_methods)]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_end_with_a_success() {
        let (mut pending, subject, mut now) = (Pending::default(), Subject::Pool("a".into()), start());
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            pending.failed(&subject, now);
            let early = now + Duration::from_millis(seconds * 1000 - 1);
            assert!(!pending.may_act(&subject, &subject, early) && !pending.is_free(&subject, early));
            now += Duration::from_secs(seconds);
            assert_eq!(pending.next_deadline(), Some(now));
            assert_eq!(pending.due(now), std::slice::from_ref(&subject));
            assert!(pending.may_act(&subject, &subject, now));
        }
        pending.succeeded(&subject);
        pending.failed(&subject, now);
        assert_eq!(pending.next_deadline(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_busy_api_server_says_itself_how_long_it_is_left_alone() {
        let (mut pending, subject, mut now) = (Pending::default(), Subject::Pool("a".into()), start());
        for (asked, seconds) in [(7, 7), (7, 7), (3600, 30), (0, 1)] {
            pending.put_off(&subject, now, Duration::from_secs(asked));
            assert!(!pending.is_free(&subject, now + Duration::from_millis(seconds * 1000 - 1)));
            now += Duration::from_secs(seconds);
            assert_eq!(pending.next_deadline(), Some(now));
            assert_eq!(pending.due(now).len(), 1);
            assert!(pending.may_act(&subject, &subject, now));
        }
        pending.failed(&subject, now);
        assert_eq!(pending.next_deadline(), Some(now + Duration::from_secs(1)), "that was no failure");
    }

    #[test]
    fn a_look_ends_a_timer_but_not_a_pause() {
        let (mut pending, subject, now) = (Pending::default(), Subject::Pool("a".into()), start());
        let second = Duration::from_secs(1);
        pending.wake(&subject, now + 3 * second);
        pending.is_looked_at(&subject);
        assert_eq!(pending.next_deadline(), None);
        pending.failed(&subject, now);
        pending.is_looked_at(&subject);
        assert_eq!(pending.next_deadline(), Some(now + second));
    }

    #[test]
    fn the_earliest_of_several_timers_counts() {
        let (mut pending, subject, now) = (Pending::default(), Subject::Pool("a".into()), start());
        let second = Duration::from_secs(1);
        pending.wake(&subject, now + 3 * second);
        pending.wake(&subject, now + second);
        pending.wake(&subject, now + 2 * second);
        assert_eq!(pending.next_deadline(), Some(now + second));
        assert_eq!(pending.due(now + 3 * second).len(), 1);
        assert_eq!(pending.next_deadline(), None);
    }
}
