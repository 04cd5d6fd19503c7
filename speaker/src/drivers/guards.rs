//! What the watch of ServiceGuards tells, written into the [`Books`]. Pure.
//!
//! A guard whose object vanishes while a claim asks for it was not taken back: the controller changes the claims
//! first. It is kept for as long as one does. So is any guard for a while where many vanish together, since
//! then their definition was deleted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::runtime::watcher::Event as Watched;
use landfall_crds::ServiceGuard;

use super::books::Books;
use super::clerk::Word;
use super::holding::Holding;
use crate::filter::Event;
use crate::filter::frontend::{Guard, ServiceName};
use crate::ownership::HOLD;

/// How long one guard is kept whose object is gone and for which nobody asks: long enough to see whether many go.
const ONE: Duration = Duration::from_secs(1);

/// Reads the watch of ServiceGuards.
#[derive(Debug)]
pub struct Guards {
    list: Option<Vec<ServiceGuard>>,
    listed: bool,
    /// Those whose objects are gone and that are kept.
    gone: BTreeSet<ServiceName>,
    held: Holding<ServiceName>,
}

impl Default for Guards {
    fn default() -> Self {
        Self { list: None, listed: false, gone: BTreeSet::new(), held: Holding::new(ONE, HOLD) }
    }
}

impl Guards {
    /// Something happened to a ServiceGuard.
    pub fn take(&mut self, now: Instant, event: Watched<ServiceGuard>, books: &mut Books) -> Vec<Word> {
        match event {
            Watched::Init => {
                self.list = Some(Vec::new());
                Vec::new()
            }
            Watched::InitApply(object) => {
                self.list.get_or_insert_default().push(object);
                Vec::new()
            }
            Watched::InitDone => {
                let list = self.list.take().unwrap_or_default();
                self.are(now, &list, books)
            }
            Watched::Apply(object) => {
                let service = Guard::service(&object);
                let mut words = Vec::new();
                if self.write(&object, books, &mut words) {
                    let guard = books.guards.get(&service).cloned();
                    words.push(Word::Filter(Event::Guard(service, guard)));
                }
                words
            }
            Watched::Delete(object) => {
                let mut words =
                    self.lose(now, Guard::service(&object), books).into_iter().collect::<Vec<_>>();
                words.extend(self.settle(now, books));
                words
            }
        }
    }

    /// The ServiceGuards are listed completely.
    fn are(&mut self, now: Instant, list: &[ServiceGuard], books: &mut Books) -> Vec<Word> {
        let mut words = Vec::new();
        for object in list {
            self.write(object, books, &mut words);
        }
        let listed: BTreeSet<ServiceName> = list.iter().map(Guard::service).collect();
        let missing: Vec<_> =
            books.guards.keys().filter(|service| !listed.contains(*service)).cloned().collect();
        for service in missing {
            // What only the file told may have been taken back long ago.
            if self.listed || books.asks_for_guard_of(&service) {
                words.extend(self.lose(now, service, books));
            } else {
                books.guards.remove(&service);
            }
        }
        self.listed = true;
        words.push(Word::Filter(Event::Guards(books.guards.clone().into_iter().collect())));
        words.extend(self.settle(now, books));
        words.push(Word::GuardsListed);
        words
    }

    /// Writes an object in. True where it is news.
    fn write(&mut self, object: &ServiceGuard, books: &mut Books, words: &mut Vec<Word>) -> bool {
        let service = Guard::service(object);
        self.gone.remove(&service);
        self.held.release(&service);
        let guard = Guard::of(object);
        let why = guard.closed.clone();
        let is_news = books.guard(service.clone(), guard);
        if let Some(why) = why.filter(|_| is_news) {
            words.push(Word::Remark(format!("nobody may come in to {service}: {why}")));
        }
        is_news
    }

    /// The object of a guard is gone.
    fn lose(&mut self, now: Instant, service: ServiceName, books: &Books) -> Option<Word> {
        if !books.guards.contains_key(&service) || !self.gone.insert(service.clone()) {
            return None;
        }
        let all = books.guards.len();
        if self.held.hold(now, service.clone(), all) {
            return Some(Word::Alarm(format!(
                "{} of {all} ServiceGuards have vanished: was the definition deleted? Source ranges are enforced \
                 for a while yet; bring it back with kubectl apply -f crds/",
                self.held.len()
            )));
        }
        let is_asked_for = books.asks_for_guard_of(&service);
        is_asked_for.then(|| {
            Word::Remark(format!(
                "the ServiceGuard of {service} vanished while a claim asks for it; its ranges are enforced on"
            ))
        })
    }

    /// Lets go of those that have been kept for long enough and for which nobody asks.
    pub fn settle(&mut self, now: Instant, books: &mut Books) -> Vec<Word> {
        self.held.take_due(now);
        let is_over = |service: &&ServiceName| !self.held.holds(service) && !books.asks_for_guard_of(service);
        let over: Vec<_> = self.gone.iter().filter(is_over).cloned().collect();
        let let_go = |service: ServiceName| {
            self.gone.remove(&service);
            books.guards.remove(&service);
            Word::Filter(Event::Guard(service, None))
        };
        over.into_iter().map(let_go).collect()
    }

    /// When something that is held must be let go.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.held.next_deadline()
    }
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
