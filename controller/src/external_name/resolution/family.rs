//! What is known of a name in one family, and for how long that holds.

use std::time::{Duration, Instant};

use super::Config;
use super::rotation::Rotation;
use crate::external_name::answer::{Absence, Failure, FamilyAnswer};

/// So many answers in a row must say the same before a name that had addresses is believed to have none, or its
/// servers to fail.
pub(super) const CONFIRMED: u32 = 2;

/// Something that was said several times, and since when.
#[derive(Clone, Copy, Debug)]
struct Said<T> {
    what: T,
    since: Instant,
    times: u32,
}

impl<T> Said<T> {
    /// The same said once more, or something else for the first time.
    fn again(before: Option<Self>, what: T, now: Instant) -> Self {
        match before {
            Some(before) => Self { what, since: before.since, times: before.times.saturating_add(1) },
            None => Self { what, since: now, times: 1 },
        }
    }
}

/// One family of one name.
#[derive(Clone, Debug, Default)]
pub(super) struct FamilyState {
    rotation: Rotation,
    /// When addresses were named last.
    good: Option<Instant>,
    absent: Option<Said<Absence>>,
    failing: Option<Said<Failure>>,
}

/// How a family stands, by the latest answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyStanding {
    Unknown,
    Good,
    Absent { absence: Absence, confirmed: bool },
    Failing { failure: Failure, confirmed: bool },
}

impl FamilyState {
    pub(super) fn rotation(&self) -> &Rotation {
        &self.rotation
    }

    pub(super) fn good(&self) -> Option<Instant> {
        self.good
    }

    /// Since when the latest answers say no good.
    pub(super) fn since(&self) -> Option<Instant> {
        let failing = self.failing.map(|said| said.since);
        failing.or(self.absent.map(|said| said.since))
    }

    pub(super) fn standing(&self) -> FamilyStanding {
        if let Some(Said { what: failure, times, .. }) = self.failing {
            return FamilyStanding::Failing { failure, confirmed: times >= CONFIRMED };
        }
        match self.absent {
            Some(Said { what: absence, times, .. }) => {
                FamilyStanding::Absent { absence, confirmed: times >= CONFIRMED }
            }
            None if self.good.is_some() => FamilyStanding::Good,
            None => FamilyStanding::Unknown,
        }
    }

    /// Takes in an answer.
    pub(super) fn take(&mut self, now: Instant, answer: &FamilyAnswer) {
        match answer {
            FamilyAnswer::Addresses { addresses, .. } => {
                self.rotation.named(now, addresses);
                (self.good, self.absent, self.failing) = (Some(now), None, None);
            }
            FamilyAnswer::Absent { absence, .. } => {
                self.absent = Some(Said::again(self.absent, *absence, now));
                self.failing = None;
            }
            // That says nothing of the name: what is known of its absence stays.
            FamilyAnswer::Failed(failure) => {
                self.failing = Some(Said::again(self.failing, *failure, now));
            }
        }
    }

    /// When the addresses are to be dropped if nothing better is heard. Nothing if they are not in doubt, or
    /// there are none.
    pub(super) fn expiry(&self, config: &Config) -> Option<Instant> {
        let good = self.good.filter(|_| !self.rotation.is_empty())?;
        let bound = good + config.last_good_for;
        let gone =
            self.absent.filter(|said| said.times >= CONFIRMED).map(|said| said.since + config.gone_grace);
        Some(gone.map_or(bound, |gone| gone.min(bound)))
    }

    /// Drops the addresses if their time is over.
    pub(super) fn expire(&mut self, now: Instant, config: &Config) {
        if self.expiry(config).is_some_and(|at| at <= now) {
            self.rotation.clear();
            self.good = None;
        }
    }

    /// How long after this answer, taken in already, the next is wanted, for this family's own sake.
    /// `is_alone` says that the name has no address of the other family.
    pub(super) fn pause(&self, answer: &FamilyAnswer, is_alone: bool, config: &Config) -> Option<Duration> {
        let has_addresses = !self.rotation.is_empty();
        let clamp = |ttl: Duration, longest| ttl.clamp(config.shortest, longest);
        match answer {
            FamilyAnswer::Addresses { ttl, .. } => Some(clamp(*ttl, config.longest)),
            _ if !has_addresses && !is_alone => None,
            FamilyAnswer::Absent { ttl, .. } => {
                let confirmed = self.absent.is_some_and(|said| said.times >= CONFIRMED);
                let in_doubt = has_addresses || !confirmed;
                let ttl = ttl.unwrap_or(config.absent_for);
                Some(if in_doubt { config.shortest } else { clamp(ttl, config.longest_absent) })
            }
            FamilyAnswer::Failed(_) => {
                let times = self.failing.map_or(1, |said| said.times);
                let pause = config.shortest.saturating_mul(1 << times.saturating_sub(1).min(5));
                Some(pause.min(config.longest_absent))
            }
        }
    }
}
