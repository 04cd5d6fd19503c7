//! Who of several controllers may write: leader election by one Lease, as a mind without clock or client.
//!
//! It follows the rule of Kubernetes' client-go (tools/leaderelection): the times inside the record are
//! for people. A candidate takes the Lease over only after *it itself* has seen the record unchanged for
//! the whole lease duration on its own monotonic clock, and a leader counts its tenure from the moment at
//! which it *sent* its last successful renewal. So clocks that disagree do no harm, only clocks that run
//! at speeds more than `renew_deadline / lease_duration` apart would.

pub mod driver;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::mind::Now;

/// The paces of an election; the defaults are those of Kubernetes' own controllers.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long others wait after the last change that they saw.
    pub lease_duration: Duration,
    /// How long after the start of its last successful renewal a leader may begin a write.
    pub renew_deadline: Duration,
    /// How often a leader renews and a candidate looks.
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// What the Lease says (coordination.k8s.io/v1 LeaseSpec).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty if nobody does.
    pub holder: String,
    /// How long others must wait, in whole seconds.
    pub lease_duration: Duration,
    /// When the holder got it, by the holder's clock; for people.
    pub acquired: Option<Timestamp>,
    /// When the holder last renewed it, by the holder's clock; for people.
    pub renewed: Option<Timestamp>,
    /// How often the holder has changed.
    pub transitions: i32,
}

/// The Lease as the API server holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `spec`.
    pub record: Record,
}

/// What happens to a candidate.
#[derive(Clone, Debug)]
pub enum Event {
    /// The time that [`LeaderElection::next_deadline`] named has come.
    Deadline,
    /// The answer to [`Action::Get`]: the Lease, or that there is none.
    Got(Option<Held>),
    /// The answer to [`Action::Create`] or [`Action::Update`]: done.
    Written(Held),
    /// The last action was refused, or nobody answered it in time.
    Failed,
    /// A watch says that nobody holds the Lease. Only a hint: it makes the candidate look now.
    Vacant,
    /// This process is about to end and writes no more.
    Release,
}

/// What a candidate wants done. There is at most one action at a time; its answer is an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the Lease from the API server, past any cache.
    Get,
    /// Create it.
    Create(Record),
    /// Replace its record if it is still at `version`.
    Update {
        /// `metadata.resourceVersion` to be compared.
        version: String,
        /// The new record.
        record: Record,
    },
}

/// Until when this process may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tenure {
    /// It does not lead.
    #[default]
    None,
    /// It leads by the Lease.
    Until {
        /// No write may begin at or after this.
        begin: Instant,
        /// Every write must have been answered by this, or counts as not answered.
        end: Instant,
    },
    /// Leader election is switched off.
    Always,
}

impl Tenure {
    /// How long a write that begins now may take; nothing if none may begin.
    pub fn allows(&self, now: Instant) -> Option<Duration> {
        match *self {
            Self::None => None,
            Self::Until { begin, end } => (now < begin).then(|| end.saturating_duration_since(now)),
            Self::Always => Some(Duration::MAX),
        }
    }
}

/// The mind of one candidate.
#[derive(Debug)]
pub struct LeaderElection {
    identity: String,
    timing: Timing,
    /// The Lease as last read or written, and when we first knew of it being so.
    observed: Option<(Held, Instant)>,
    /// When the last successful renewal was sent; set exactly while we lead.
    renewed: Option<Instant>,
    /// When the action under way was asked for.
    under_way: Option<Instant>,
    /// Whether the Lease may have changed since it was observed, because a write of ours failed.
    stale: bool,
    /// When to look or to renew next; nothing before the first deadline.
    next: Option<Instant>,
    released: bool,
}

impl LeaderElection {
    /// A candidate that has seen nothing yet. `identity` must be unique to this process: a process that
    /// came back under a name that is in the Lease would believe the tenure of its predecessor.
    pub fn new(identity: String, timing: Timing) -> Self {
        Self {
            identity,
            timing,
            observed: None,
            renewed: None,
            under_way: None,
            stale: false,
            next: None,
            released: false,
        }
    }

    /// Takes an event and returns what to do about it.
    pub fn handle(&mut self, now: Now, event: Event) -> Option<Action> {
        if self.released {
            return None;
        }
        let instant = now.monotonic;
        let action = match event {
            Event::Deadline => self.wake(now),
            Event::Got(held) => {
                self.answered(instant);
                self.observe(instant, held);
                self.decide(now)
            }
            Event::Written(held) => {
                self.renewed = self.under_way;
                self.answered(instant);
                self.observed = Some((held, instant));
                None
            }
            Event::Failed => {
                // We still lead while our last renewal stands: nobody takes the Lease from a leader whose
                // renewal is younger than the lease duration. But a write that nobody answered may have
                // been done, and one that was refused says that somebody else has written.
                self.answered(instant);
                self.stale = true;
                None
            }
            Event::Vacant => self.vacant(instant).then_some(Action::Get),
            Event::Release => self.release(now),
        };
        if self.renewed.is_some_and(|renewed| instant >= renewed + self.timing.renew_deadline) {
            self.renewed = None;
        }
        if action.is_some() {
            self.under_way = Some(instant);
        }
        action
    }

    /// When it wants [`Event::Deadline`]; in the past if at once.
    pub fn next_deadline(&self, now: Now) -> Option<Instant> {
        if self.released {
            return None;
        }
        let look = if self.under_way.is_some() { None } else { Some(self.next.unwrap_or(now.monotonic)) };
        let resign = self.renewed.map(|renewed| renewed + self.timing.renew_deadline);
        look.into_iter().chain(resign).min()
    }

    /// Until when this process may write.
    pub fn tenure(&self, now: Instant) -> Tenure {
        match self
            .renewed
            .map(|renewed| (renewed + self.timing.renew_deadline, renewed + self.timing.lease_duration))
        {
            Some((begin, end)) if now < begin => Tenure::Until { begin, end },
            _ => Tenure::None,
        }
    }

    /// Who holds the Lease, as far as this candidate knows.
    pub fn holder(&self) -> Option<&str> {
        self.observed.as_ref().map(|(held, _)| held.record.holder.as_str())
    }

    fn wake(&self, now: Now) -> Option<Action> {
        if self.under_way.is_some() || self.next.is_some_and(|next| now.monotonic < next) {
            return None;
        }
        match &self.observed {
            // A leader knows its own record; a version that is no longer true makes the update fail.
            Some((held, _)) if self.renewed.is_some() && !self.stale => Some(self.renewal(now, held)),
            _ => Some(Action::Get),
        }
    }

    fn answered(&mut self, now: Instant) {
        // Counted from the question while leading, so that slow answers do not stretch the renewals.
        let from = self.under_way.take().filter(|_| self.renewed.is_some()).unwrap_or(now);
        self.next = Some(from + self.timing.retry_period);
    }

    fn observe(&mut self, now: Instant, held: Option<Held>) {
        self.stale = false;
        let Some(held) = held else {
            self.observed = None;
            self.renewed = None;
            return;
        };
        if held.record.holder != self.identity {
            self.renewed = None;
        }
        match &mut self.observed {
            // The version is compared too, so that a leader is alive even if its clock stands still.
            Some((known, _)) if *known == held => {}
            observed => *observed = Some((held, now)),
        }
    }

    /// What to do about the Lease that has just been read.
    fn decide(&self, now: Now) -> Option<Action> {
        let Some((held, since)) = &self.observed else {
            return Some(Action::Create(self.own_record(now, now.wall, 0)));
        };
        let record = &held.record;
        if record.holder == self.identity {
            return Some(self.renewal(now, held));
        }
        let vacant = record.holder.is_empty();
        let expired = now.monotonic >= *since + record.lease_duration.max(self.timing.lease_duration);
        (vacant || expired).then(|| Action::Update {
            version: held.version.clone(),
            record: self.own_record(now, now.wall, record.transitions.saturating_add(1)),
        })
    }

    fn vacant(&self, now: Instant) -> bool {
        self.under_way.is_none() && self.tenure(now) == Tenure::None
    }

    fn release(&mut self, now: Now) -> Option<Action> {
        let led = self.tenure(now.monotonic) != Tenure::None;
        self.released = true;
        self.renewed = None;
        let (held, _) =
            self.observed.as_ref().filter(|(held, _)| led && held.record.holder == self.identity)?;
        // As client-go does: an empty holder that nobody needs to wait for.
        let record = Record {
            holder: String::new(),
            lease_duration: Duration::from_secs(1),
            renewed: Some(now.wall),
            ..held.record.clone()
        };
        Some(Action::Update { version: held.version.clone(), record })
    }

    fn renewal(&self, now: Now, held: &Held) -> Action {
        let acquired = held.record.acquired.unwrap_or(now.wall);
        Action::Update {
            version: held.version.clone(),
            record: self.own_record(now, acquired, held.record.transitions),
        }
    }

    fn own_record(&self, now: Now, acquired: Timestamp, transitions: i32) -> Record {
        Record {
            holder: self.identity.clone(),
            lease_duration: self.timing.lease_duration,
            acquired: Some(acquired),
            renewed: Some(now.wall),
            transitions,
        }
    }
}
