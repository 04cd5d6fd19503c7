//! Writing conditions of some types on Services, beside those of the mind that grants: when they may be written, and
//! what becomes of it. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use landfall_crds::ClaimRef;

use crate::conditions::{Wanted, already_said, find, with_times};
use crate::effects::{Effect, Note, Outcome, Refusal};
use crate::mind::Now;
use crate::mind::pending::Pending;
use crate::mind::subject::{Subject, exactly};
use crate::status::conditions_of;

/// How often one Service's conditions are written at most.
#[derive(Clone, Copy, Debug)]
pub struct Paces {
    /// The least time between two writes.
    pub news: Duration,
    /// The same where only the words change.
    pub words: Duration,
}

impl Default for Paces {
    fn default() -> Self {
        Self { news: Duration::from_secs(1), words: Duration::from_secs(60) }
    }
}

/// What came of wanting conditions.
#[derive(Debug)]
pub enum Told {
    /// The Service says so already.
    Already,
    /// It is not the time yet; [`Teller::due`] names the Service when it is.
    Later,
    /// This is to be done.
    Write(Effect),
}

/// The conditions of these types on all Services.
#[derive(Debug)]
pub struct Teller {
    types: &'static [&'static str],
    paces: Paces,
    pending: Pending,
    /// When the conditions of a Service were written last.
    written: BTreeMap<ClaimRef, Instant>,
}

impl Teller {
    /// Has written nothing yet.
    pub fn new(types: &'static [&'static str], paces: Paces) -> Self {
        Self { types, paces, pending: Pending::default(), written: BTreeMap::new() }
    }

    /// The Services whose time has come.
    pub fn due(&mut self, now: Instant) -> Vec<ClaimRef> {
        let due = self.pending.due(now).into_iter();
        due.filter_map(|subject| if let Subject::Service(key) = subject { Some(key) } else { None }).collect()
    }

    /// When [`Teller::due`] is worth asking.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.pending.next_deadline()
    }

    /// Has [`Teller::due`] name the Service at a time, or before.
    pub fn wake(&mut self, key: &ClaimRef, at: Instant) {
        self.pending.wake(&Subject::Service(key.clone()), at);
    }

    /// The Service is being looked at: an earlier wish to be woken for it is done with.
    pub fn is_looked_at(&mut self, key: &ClaimRef) {
        self.pending.is_looked_at(&Subject::Service(key.clone()));
    }

    /// The Service is gone.
    pub fn forget(&mut self, key: &ClaimRef) {
        self.written.remove(key);
    }

    /// Has the Service say this, and people told by `notes` once it does. `is_news` says that what it says now is
    /// about something else, so that other words are as urgent as another status.
    pub fn tell(
        &mut self,
        now: Now,
        (key, service): (&ClaimRef, &Service),
        wanted: &[Wanted],
        is_news: bool,
        notes: impl FnOnce() -> Vec<Note>,
    ) -> Told {
        let known = conditions_of(service);
        let generation = service.metadata.generation;
        if already_said(known, wanted, self.types, generation) {
            return Told::Already;
        }
        let only_words = !is_news && self.only_words_differ(known, wanted);
        let pace = if only_words { self.paces.words } else { self.paces.news };
        let next = self.written.get(key).map(|last| *last + pace);
        if let Some(next) = next.filter(|next| now.monotonic < *next) {
            self.wake(key, next);
            return Told::Later;
        }
        let subject = Subject::Service(key.clone());
        if !self.pending.may_act(&subject, &subject, now.monotonic) {
            return Told::Later;
        }
        self.written.insert(key.clone(), now.monotonic);
        self.pending.takes_off(subject, 0, notes());
        Told::Write(Effect::SetConditionsOf {
            types: self.types,
            service: exactly(&service.metadata),
            conditions: with_times(known, wanted, generation, now.wall),
        })
    }

    /// Takes in what became of an effect: nothing if it is none of ours, or the Service, to be looked at again, and
    /// what to tell people.
    pub fn done(&mut self, now: Now, effect: &Effect, outcome: &Outcome) -> Option<(ClaimRef, Vec<Note>)> {
        let Effect::SetConditionsOf { types, service, .. } = effect else { return None };
        if *types != self.types {
            return None;
        }
        let key = ClaimRef { namespace: service.namespace.clone(), name: service.name.clone() };
        let subject = Subject::Service(key.clone());
        let flight = self.pending.lands(&subject)?;
        let notes = match outcome {
            Outcome::Refused(refusal) => {
                match refusal {
                    Refusal::Busy { after, .. } => self.pending.put_off(&subject, now.monotonic, *after),
                    // After a conflict the watch brings what has changed; it is looked at then, or after the pause.
                    _ => self.pending.failed(&subject, now.monotonic),
                }
                Vec::new()
            }
            _ => {
                self.pending.succeeded(&subject);
                flight.notes
            }
        };
        Some((key, notes))
    }

    /// Whether what is wanted is said already, in other words.
    fn only_words_differ(&self, known: &[Condition], wanted: &[Wanted]) -> bool {
        let ours = known.iter().filter(|known| self.types.contains(&known.type_.as_str())).count();
        let is_said = |wanted: &Wanted| {
            find(known, wanted.type_)
                .is_some_and(|known| known.status == wanted.status && known.reason == wanted.reason)
        };
        ours == wanted.len() && wanted.iter().all(is_said)
    }
}

/// An Event about a Service with the words of a condition.
pub fn note(service: &Service, wanted: &Wanted, warning: bool) -> Note {
    let meta = &service.metadata;
    Note {
        kind: "Service",
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        warning,
        reason: wanted.reason,
        message: wanted.message.clone(),
    }
}
