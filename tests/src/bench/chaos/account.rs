//! What was seen in one episode, held against what its faults excuse: I1 (no void) and I2 (no split), from outside.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::menu::Fault;
use crate::lab::probe::{Roster, Sightings};

/// A roll is called every 40 ms, so less than three calls in a row prove nothing.
const PROVES_NOTHING: Duration = Duration::from_millis(120);

/// A fault that was played.
#[derive(Clone, Debug)]
pub(super) struct Played {
    pub(super) fault: Fault,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) invariant: &'static str,
    pub(super) address: IpAddr,
    pub(super) from: Instant,
    pub(super) length: Duration,
    pub(super) allowed: Duration,
}

/// The worst that was seen of the addresses, and what was not excused.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) silence: Duration,
    pub(super) split: Duration,
    pub(super) violations: Vec<Violation>,
}

impl Account {
    /// Judges what was seen of all addresses while these faults were played.
    pub(super) fn of(roster: &Roster, played: &[Played]) -> Self {
        let mut account = Self::default();
        for (address, seen) in roster.iter() {
            for (from, length) in silences(seen) {
                account.silence = account.silence.max(length);
                account.judge("I1 no void", address, (from, length), played);
            }
            for (from, length) in splits(seen) {
                account.split = account.split.max(length);
                account.judge("I2 no split", address, (from, length), played);
            }
        }
        account
    }

    fn judge(
        &mut self,
        invariant: &'static str,
        address: IpAddr,
        (from, length): (Instant, Duration),
        played: &[Played],
    ) {
        let allowed = allowed(invariant.starts_with("I1"), from, length, played);
        if length > allowed {
            self.violations.push(Violation { invariant, address, from, length, allowed });
        }
    }
}

/// What the faults that can have caused it excuse: those that were played while it lasted, or shortly before.
fn allowed(is_void: bool, from: Instant, length: Duration, played: &[Played]) -> Duration {
    let mut allowed = PROVES_NOTHING;
    for Played { fault, from: begun, until } in played {
        if *begun > from + length || *until + SETTLED < from {
            continue;
        }
        let excuse = fault.excuse();
        let (bound, itself) = if is_void {
            (excuse.silence, excuse.silent_itself)
        } else {
            (excuse.split, excuse.split_itself)
        };
        allowed += bound;
        if itself {
            allowed += *until - *begun;
        }
    }
    allowed
}

/// So long after its end a fault can still be the cause of something.
const SETTLED: Duration = Duration::from_millis(1500);

/// All times in which question after question had no answer.
fn silences(seen: &Sightings) -> Vec<(Instant, Duration)> {
    let (Some(first), Some(last)) = (seen.questions.first(), seen.questions.last()) else {
        return Vec::new();
    };
    let mut since = *first;
    let mut silences = Vec::new();
    for at in seen.answers.iter().map(|sighting| sighting.at).chain([*last]) {
        silences.push((since, at.saturating_duration_since(since)));
        since = since.max(at);
    }
    silences.retain(|(_, length)| *length > PROVES_NOTHING);
    silences
}

/// All times in which question after question was answered by more than one.
fn splits(seen: &Sightings) -> Vec<(Instant, Duration)> {
    let mut splits = Vec::new();
    let mut since = None;
    let mut answers = seen.answers.iter().peekable();
    for (index, asked) in seen.questions.iter().enumerate() {
        let until = seen.questions.get(index + 1).copied().unwrap_or(*asked);
        let mut macs = std::collections::BTreeSet::new();
        while let Some(sighting) = answers.next_if(|sighting| sighting.at < until) {
            macs.extend((sighting.at >= *asked).then_some(sighting.mac));
        }
        since = match (macs.len() > 1, since) {
            (true, since) => since.or(Some(*asked)),
            (false, Some(begun)) => {
                splits.push((begun, asked.saturating_duration_since(begun)));
                None
            }
            (false, None) => None,
        };
    }
    if let (Some(begun), Some(last)) = (since, seen.questions.last()) {
        splits.push((begun, last.saturating_duration_since(begun)));
    }
    splits
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Fault, Played, allowed, silences, splits};
    use crate::lab::{
        Mac,
        probe::{Sighting, Sightings},
    };

    fn seen(start: Instant, answers: &[(u64, u8)]) -> Sightings {
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        Sightings {
            questions: (0..20).map(|number| at(number * 40)).collect(),
            answers: answers
                .iter()
                .map(|(milliseconds, last)| Sighting {
                    at: at(*milliseconds),
                    mac: Mac([2, 0, 0, 0, 1, *last]),
                })
                .collect(),
        }
    }

    #[test]
    fn silence_and_double_answers_are_found_with_their_times() {
        let start = Instant::now();
        let regular: Vec<(u64, u8)> = (0..20).map(|number| (number * 40 + 1, 1)).collect();
        assert!(silences(&seen(start, &regular)).is_empty());
        let gap: Vec<_> = regular.iter().copied().filter(|(at, _)| !(200..600).contains(at)).collect();
        let found = silences(&seen(start, &gap));
        assert_eq!(found, [(start + Duration::from_millis(161), Duration::from_millis(440))]);
        let mut double = regular.clone();
        double.extend((5..8).map(|number| (number * 40 + 2, 2)));
        double.sort_unstable();
        let found = splits(&seen(start, &double));
        assert_eq!(found, [(start + Duration::from_millis(200), Duration::from_millis(120))]);
    }

    #[test]
    fn only_a_fault_that_can_be_the_cause_excuses() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let dark = Played { fault: Fault::Dark("n1".to_owned()), from: at(1000), until: at(2000) };
        let short = Duration::from_millis(100);
        let plain = allowed(true, at(0), short, &[]);
        assert_eq!(allowed(true, at(0), short, std::slice::from_ref(&dark)), plain, "it had not begun");
        assert_eq!(allowed(true, at(4000), short, std::slice::from_ref(&dark)), plain, "long over");
        assert!(allowed(true, at(1000), short, &[dark]) > plain);
        let blackout = Played { fault: Fault::Blackout, from: at(0), until: at(300) };
        assert!(allowed(true, at(0), short, &[blackout]) >= Duration::from_millis(800));
    }
}
