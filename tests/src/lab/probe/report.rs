//! What a prober measured: what was answered, and for how long nothing was.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A gap this long is reported even when nothing was lost in it.
const NOTEWORTHY: Duration = Duration::from_millis(50);
/// Gaps that are longer than this are looked into: each look goes through all that was sent.
const SUSPICIOUS: Duration = Duration::from_millis(5);

/// What a prober measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began.
    pub started: Instant,
    /// How many questions were sent.
    pub sent: u64,
    /// How many of them were answered.
    pub answered: u64,
    /// The longest time without an answer.
    pub longest_gap: Duration,
    /// Every time without an answer in which a question was lost, or which was longer than 50 ms, in order.
    pub gaps: Vec<Gap>,
    /// How many answers each pod gave.
    pub pods: BTreeMap<String, u64>,
    /// When each answer came, in order.
    arrivals: Vec<Instant>,
    /// When each question that was never answered was sent, in order.
    lost: Vec<Instant>,
}

/// A time without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the last answer before it came.
    pub from: Instant,
    /// Until the next answer.
    pub length: Duration,
    /// How many questions that were sent in it were never answered.
    pub lost: u64,
}

/// An answer: the number of its question, when it came, and the pod that gave it.
pub(super) type Answered = (usize, Instant, String);

impl Report {
    /// How many questions were never answered.
    pub fn lost(&self) -> u64 {
        self.sent - self.answered
    }

    /// The longest gap that ended after `moment`: the outage that an event at that moment caused.
    pub fn longest_gap_after(&self, moment: Instant) -> Duration {
        let after = self.gaps.iter().filter(|gap| gap.from + gap.length > moment);
        after.map(|gap| gap.length).max().unwrap_or_default()
    }

    /// The longest gap that has a part between two moments.
    pub fn outage(&self, from: Instant, until: Instant) -> Duration {
        let during = self.gaps.iter().filter(|gap| gap.from < until && gap.from + gap.length > from);
        during.map(|gap| gap.length).max().unwrap_or_default()
    }

    /// How many questions that were sent between two moments were never answered.
    pub fn lost_between(&self, from: Instant, until: Instant) -> u64 {
        count(self.lost.iter().filter(|at| from <= **at && **at < until).count())
    }

    /// The longest time between two answers that both came between two moments, noteworthy or not. While
    /// nothing happens it is the floor of what can be measured.
    pub fn longest_pause(&self, from: Instant, until: Instant) -> Duration {
        let within: Vec<Instant> =
            self.arrivals.iter().copied().filter(|at| (from..until).contains(at)).collect();
        let pauses = within.iter().zip(within.iter().skip(1)).map(|(one, next)| *next - *one);
        pauses.max().unwrap_or_default()
    }

    /// When the first answer after `moment` came.
    pub fn first_answer_after(&self, moment: Instant) -> Option<Instant> {
        self.arrivals.iter().find(|at| **at > moment).copied()
    }

    pub(super) fn new(started: Instant, sent: &[Instant], answers: &[Answered]) -> Self {
        let mut answered = vec![false; sent.len()];
        let mut pods = BTreeMap::new();
        let mut arrivals = Vec::new();
        for (number, at, pod) in answers {
            // A second answer to the same question proves nothing new.
            if let Some(seen) = answered.get_mut(*number).filter(|seen| !**seen) {
                *seen = true;
                *pods.entry(pod.clone()).or_default() += 1;
                arrivals.push(*at);
            }
        }
        arrivals.sort_unstable();
        let unanswered = sent.iter().zip(&answered).filter(|(_, answered)| !**answered);
        let lost: Vec<Instant> = unanswered.map(|(at, _)| *at).collect();
        let end = sent.last().filter(|_| answered.last() == Some(&false));
        let mut gaps = Vec::new();
        let mut longest_gap = Duration::ZERO;
        let mut from = started;
        for to in arrivals.iter().chain(end).copied() {
            let length = to.saturating_duration_since(from);
            longest_gap = longest_gap.max(length);
            if length > SUSPICIOUS {
                let lost = count(lost.iter().filter(|at| from <= **at && **at <= to).count());
                if lost > 0 || length >= NOTEWORTHY {
                    gaps.push(Gap { from, length, lost });
                }
            }
            from = to;
        }
        let answered = count(arrivals.len());
        Self { started, sent: count(sent.len()), answered, longest_gap, gaps, pods, arrivals, lost }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sent, {} lost, longest gap {:?}", self.sent, self.lost(), self.longest_gap)?;
        for gap in self.gaps.iter().take(20) {
            let at = gap.from.saturating_duration_since(self.started);
            write!(f, "; at {at:?} for {:?}, {} lost", gap.length, gap.lost)?;
        }
        if self.gaps.len() > 20 {
            write!(f, "; and {} more gaps", self.gaps.len() - 20)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Gap, Report};

    #[test]
    fn a_gap_lasts_from_answer_to_answer_and_counts_what_was_lost_in_it() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let sent: Vec<Instant> = (0..6).map(|number| at(number * 5)).collect();
        let answer = |number: usize, milliseconds| (number, at(milliseconds), "a".to_owned());
        let report = Report::new(
            start,
            &sent,
            &[answer(0, 1), answer(1, 6), answer(4, 21), answer(4, 22), answer(5, 26)],
        );
        assert_eq!((report.sent, report.answered, report.lost()), (6, 4, 2));
        assert_eq!(report.gaps, [Gap { from: at(6), length: Duration::from_millis(15), lost: 2 }]);
        assert_eq!(report.longest_gap_after(at(20)), Duration::from_millis(15));
        assert_eq!(report.longest_gap_after(at(21)), Duration::ZERO);
        assert_eq!(report.outage(at(20), at(30)), Duration::from_millis(15));
        assert_eq!(report.outage(at(0), at(6)), Duration::ZERO);
        assert_eq!([report.lost_between(at(0), at(15)), report.lost_between(at(15), at(30))], [1, 1]);
        assert_eq!(report.longest_pause(at(0), at(21)), Duration::from_millis(5));
        assert_eq!(report.first_answer_after(at(6)), Some(at(21)));
        assert_eq!(report.pods["a"], 4);
    }

    #[test]
    fn silence_to_the_end_is_a_gap() {
        let start = Instant::now();
        let sent: Vec<Instant> = (0..101).map(|number| start + Duration::from_millis(number * 5)).collect();
        let silent = Report::new(start, &sent, &[]);
        assert_eq!((silent.longest_gap, silent.lost()), (Duration::from_millis(500), 101));
    }
}
