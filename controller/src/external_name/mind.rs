//! The mind that looks after Services of type ExternalName: what happens and time in, queries and effects out.
//!
//! It writes nothing but two conditions on these Services, and leaves the rest to others. It holds no picture of
//! the Services of its own; whoever drives it has one, and tells what has changed there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use landfall_crds::ClaimRef;
use landfall_crds::names::annotations::CHECK_NAME;
use landfall_crds::names::conditions::RESOLVED;

use super::answer::Answer;
use super::cluster::{Route, Way, external_name, way};
use super::name::DnsName;
use super::resolution::{self, Resolution, State};
use super::telling::{self, OURS};
use crate::conditions::{Wanted, find};
use crate::effects::{Effect, Outcome};
use crate::mind::subject::key;
use crate::mind::{Change, Now};
use crate::status::conditions_of;
use crate::teller::{Paces, Teller, Told};

/// What the mind is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether anything is looked after at all; if not, what was said before is taken back.
    pub enabled: bool,
    /// The domain of the cluster's own names.
    pub domain: DnsName,
    /// How names are resolved.
    pub resolution: resolution::Config,
    /// For so long the first answer is waited for before it is said that there is none yet.
    pub patience: Duration,
    /// How often one Service's conditions are written; only their words change where DNS gives other addresses.
    pub paces: Paces,
}

impl Config {
    /// The usual paces.
    pub fn new(domain: DnsName) -> Self {
        Self {
            enabled: true,
            domain,
            resolution: resolution::Config::default(),
            patience: Duration::from_secs(2),
            paces: Paces::default(),
        }
    }
}

/// The Services of the cluster as they are known.
pub trait Services {
    /// The newest known state.
    fn get(&self, key: &ClaimRef) -> Option<&Arc<Service>>;
    /// All of them, in any order.
    fn all(&self) -> impl Iterator<Item = (&ClaimRef, &Arc<Service>)>;
    /// Whether there has been a complete list.
    fn is_listed(&self) -> bool;
}

/// What happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// Services have changed; [`Services`] knows them already.
    Services(&'a Change<Service>),
    /// DNS has answered a query.
    Answered(DnsName, Answer),
    /// An effect that this mind wanted has been tried; what the API server holds now is known to [`Services`].
    Done(&'a Effect, &'a Outcome),
    /// This process has become the one that writes, or is it no more.
    Leading(bool),
    /// Time has passed, or something else has happened.
    Deadline,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask DNS for the addresses of this name in both families; [`Event::Answered`] must follow.
    Query(DnsName),
    /// Something for the writer; [`Event::Done`] must follow.
    Effect(Effect),
}

/// One Service that is looked after.
#[derive(Debug)]
struct Subscriber {
    text: String,
    way: Way,
    /// Since when the first answer is waited for.
    since: Instant,
    /// Whether what the Service says of itself is about another name, or nothing.
    is_news: bool,
}

impl Subscriber {
    fn asks_for(&self) -> Option<&DnsName> {
        match &self.way.route {
            Route::Dns(name) => Some(name),
            _ => None,
        }
    }
}

/// All Services of type ExternalName, and the names that they lead to.
#[derive(Debug)]
pub struct ExternalNames {
    config: Config,
    resolution: Resolution,
    subscribers: BTreeMap<ClaimRef, Subscriber>,
    /// Who leads to a name.
    users: BTreeMap<DnsName, BTreeSet<ClaimRef>>,
    /// Who leads to or through a Service.
    dependents: BTreeMap<ClaimRef, BTreeSet<ClaimRef>>,
    teller: Teller,
    dirty: BTreeSet<ClaimRef>,
    leading: bool,
    acting: bool,
}

impl ExternalNames {
    /// Knows of no Service yet.
    pub fn new(config: Config) -> Self {
        Self {
            resolution: Resolution::new(config.resolution.clone()),
            teller: Teller::new(&OURS, config.paces),
            config,
            subscribers: BTreeMap::new(),
            users: BTreeMap::new(),
            dependents: BTreeMap::new(),
            dirty: BTreeSet::new(),
            leading: false,
            acting: false,
        }
    }

    /// Takes in an event and appends what is to be done now.
    pub fn handle(&mut self, now: Now, event: Event<'_>, services: &impl Services, out: &mut Vec<Action>) {
        match event {
            Event::Services(Change::Listed(_)) => self.mark_all(services),
            Event::Services(Change::Applied(service) | Change::Deleted(service)) => self.mark(service),
            Event::Answered(name, answer) => self.tell(now, resolution::Event::Answered(name, answer), out),
            Event::Done(effect, outcome) => self.on_done(now, effect, outcome, out),
            Event::Leading(leading) => self.leading = leading,
            Event::Deadline => {}
        }
        let acting = self.leading && services.is_listed();
        if !acting {
            if std::mem::replace(&mut self.acting, false) {
                self.stand_down();
            }
            self.dirty.clear();
            return;
        }
        if !std::mem::replace(&mut self.acting, true) {
            self.mark_all(services);
        }
        self.tell(now, resolution::Event::Deadline, out);
        self.dirty.extend(self.teller.due(now.monotonic));
        while let Some(key) = self.dirty.pop_first() {
            self.look(now, &key, services, out);
        }
    }

    /// When [`Event::Deadline`] is wanted, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [self.teller.next_deadline(), self.resolution.next_deadline()];
        if self.acting { deadlines.into_iter().flatten().min() } else { None }
    }

    /// What is known of each name, and how many Services lead to it.
    pub fn explain(&self) -> impl Iterator<Item = (&DnsName, State, usize)> {
        let users = |name| self.users.get(name).map_or(0, BTreeSet::len);
        self.resolution.states().map(move |(name, state)| (name, state, users(name)))
    }

    /// Looks at a Service that has changed, and at those that lead there.
    fn mark(&mut self, service: &Service) {
        let key = key(&service.metadata);
        self.dirty.extend(self.dependents.get(&key).into_iter().flatten().cloned());
        if self.subscribers.contains_key(&key) || concerns(service) {
            self.dirty.insert(key);
        }
    }

    fn mark_all(&mut self, services: &impl Services) {
        self.dirty.extend(self.subscribers.keys().cloned());
        let ours = services.all().filter(|(_, service)| concerns(service));
        self.dirty.extend(ours.map(|(key, _)| key.clone()));
    }

    /// Forgets everything; whoever leads now does it.
    fn stand_down(&mut self) {
        *self = Self { leading: self.leading, ..Self::new(self.config.clone()) };
    }

    fn tell(&mut self, now: Now, event: resolution::Event, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        self.resolution.handle(now.monotonic, event, &mut actions);
        for action in actions {
            match action {
                resolution::Action::Query(name) => out.push(Action::Query(name)),
                resolution::Action::Changed(name) => {
                    self.dirty.extend(self.users.get(&name).into_iter().flatten().cloned());
                }
            }
        }
    }

    fn look(&mut self, now: Now, key: &ClaimRef, services: &impl Services, out: &mut Vec<Action>) {
        self.teller.is_looked_at(key);
        let service = services.get(key);
        let text = service.filter(|service| self.config.enabled && !is_excepted(service));
        let text = text.and_then(|service| external_name(service));
        self.subscribe(now, key, text, services, out);
        let Some(service) = service else { return self.teller.forget(key) };
        let Some(wanted) = self.wanted(now, key, conditions_of(service)) else { return };
        let is_news = self.subscribers.get(key).is_some_and(|subscriber| subscriber.is_news);
        let notes = || telling::notes(service, &wanted);
        match self.teller.tell(now, (key, service), &wanted, is_news, notes) {
            Told::Already => self.is_told(key),
            Told::Later => {}
            Told::Write(effect) => out.push(Action::Effect(effect)),
        }
    }

    fn is_told(&mut self, key: &ClaimRef) {
        if let Some(subscriber) = self.subscribers.get_mut(key) {
            subscriber.is_news = false;
        }
    }

    /// Notes where a Service leads now, and follows the name there; without a text it is not looked after.
    fn subscribe(
        &mut self,
        now: Now,
        key: &ClaimRef,
        text: Option<&str>,
        services: &impl Services,
        out: &mut Vec<Action>,
    ) {
        let found = |key: &ClaimRef| services.get(key).map(|service| &**service);
        let new = text.map(|text| (text, way(key, text, &self.config.domain, found)));
        let before = self.subscribers.get(key);
        if before.map(|before| (before.text.as_str(), &before.way))
            == new.as_ref().map(|(text, way)| (*text, way))
        {
            return;
        }
        let is_edit = before.is_some();
        let new = new.map(|(text, way)| Subscriber {
            text: text.to_owned(),
            way,
            since: now.monotonic,
            is_news: is_edit,
        });
        if let Some(name) = new.as_ref().and_then(Subscriber::asks_for) {
            let users = self.users.entry(name.clone()).or_default();
            let is_first = users.is_empty();
            users.insert(key.clone());
            if is_first {
                let name = name.clone();
                self.tell(now, resolution::Event::Follow(name), out);
            }
        }
        let asks_for = new.as_ref().and_then(Subscriber::asks_for).cloned();
        for by in new.iter().flat_map(|new| &new.way.through) {
            self.dependents.entry(by.clone()).or_default().insert(key.clone());
        }
        let before = match new {
            Some(new) => self.subscribers.insert(key.clone(), new),
            None => self.subscribers.remove(key),
        };
        let Some(before) = before else { return };
        let through = self.subscribers.get(key).map(|now| now.way.through.clone()).unwrap_or_default();
        for by in before.way.through.iter().filter(|by| !through.contains(by)) {
            take_out(&mut self.dependents, by, key);
        }
        let left = before.asks_for().filter(|name| asks_for.as_ref() != Some(name));
        if let Some(name) = left.filter(|name| take_out(&mut self.users, name, key)) {
            self.tell(now, resolution::Event::Leave(name.clone()), out);
        }
    }

    /// The conditions that the Service should have; nothing while it should keep those that it has.
    fn wanted(&mut self, now: Now, key: &ClaimRef, known: &[Condition]) -> Option<Vec<Wanted>> {
        let Some(Subscriber { text, way, since, is_news }) = self.subscribers.get(key) else {
            return Some(Vec::new());
        };
        let said = find(known, RESOLVED).filter(|_| !is_news);
        let was_resolved = said.is_some_and(|said| said.status == "True");
        let by_dns = |name: &DnsName| {
            let state = self.resolution.state(name)?;
            telling::by_dns(text, name.as_str(), &state, was_resolved)
        };
        let resolved = match &way.route {
            Route::Dns(name) => by_dns(name),
            _ => telling::without_dns(text, way),
        };
        let until = *since + self.config.patience;
        let resolved = match resolved {
            Some(resolved) => resolved,
            None if said.is_some() => return None,
            None if now.monotonic < until => {
                self.teller.wake(key, until);
                return None;
            }
            None => telling::resolving(text),
        };
        Some(vec![telling::name_valid(text, way), resolved])
    }

    fn on_done(&mut self, now: Now, effect: &Effect, outcome: &Outcome, out: &mut Vec<Action>) {
        let Some((key, notes)) = self.teller.done(now, effect, outcome) else { return };
        out.extend(notes.into_iter().map(|note| Action::Effect(Effect::Publish(note))));
        self.dirty.insert(key);
    }
}

/// Whether a Service is of our kind, or carries conditions from when it was.
fn concerns(service: &Service) -> bool {
    external_name(service).is_some()
        || conditions_of(service).iter().any(|condition| OURS.contains(&condition.type_.as_str()))
}

/// Whether its owner wants nothing said about its name.
fn is_excepted(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(CHECK_NAME)).is_some_and(|value| value.trim() == "false")
}

/// Takes a Service out of the set of a key, and tells whether that was the last one.
pub(crate) fn take_out<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<ClaimRef>>, of: &K, key: &ClaimRef) -> bool {
    let Some(set) = sets.get_mut(of) else { return false };
    set.remove(key);
    let is_empty = set.is_empty();
    if is_empty {
        sets.remove(of);
    }
    is_empty
}

#[cfg(test)]
#[path = "mind_tests.rs"]
mod tests;
