//! The mind that says what is wrong with what stands behind load balancers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use landfall_crds::ClaimRef;

use super::judge::{OURS, judge};
use super::slices::{Facts, Maker, Slices};
use crate::conditions::{Wanted, find};
use crate::effects::{Effect, Note, Outcome};
use crate::external_name::mind::Services;
use crate::granting::verdict::has_our_finalizer;
use crate::mind::subject::key;
use crate::mind::{Change, Now};
use crate::status::conditions_of;
use crate::teller::{Paces, Teller, Told, note};
use crate::world::endpoints;

/// For so long something must be so before it is said: Services and slices are written one after the other.
const SETTLE: Duration = Duration::from_secs(2);

/// What happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// Services have changed; [`Services`] knows them already.
    Services(&'a Change<Service>),
    /// EndpointSlices have changed.
    Slices(&'a Change<EndpointSlice>),
    /// An effect has been tried; what the API server holds now is known to [`Services`].
    Done(&'a Effect, &'a Outcome),
    /// This process has become the one that writes, or is it no more.
    Leading(bool),
    /// Time has passed, or something else has happened.
    Deadline,
}

/// What stands behind all load balancers.
#[derive(Debug)]
pub struct Backing {
    slices: Slices,
    teller: Teller,
    /// What is about to be said of a Service, and since when it is so.
    settling: BTreeMap<ClaimRef, (Vec<Wanted>, Instant)>,
    dirty: BTreeSet<ClaimRef>,
    leading: bool,
    acting: bool,
}

impl Default for Backing {
    fn default() -> Self {
        Self {
            slices: Slices::default(),
            teller: Teller::new(&OURS, Paces::default()),
            settling: BTreeMap::new(),
            dirty: BTreeSet::new(),
            leading: false,
            acting: false,
        }
    }
}

impl Backing {
    /// Takes in an event and appends what is to be done now. `is_cluster_ip` says whether an address is one that the
    /// cluster gives to Services.
    pub fn handle(
        &mut self,
        now: Now,
        event: Event<'_>,
        services: &impl Services,
        is_cluster_ip: impl Fn(IpAddr) -> bool,
        out: &mut Vec<Effect>,
    ) {
        match event {
            Event::Services(Change::Listed(_)) => self.mark_all(services),
            Event::Services(Change::Applied(service) | Change::Deleted(service)) => {
                self.mark(key(&service.metadata), services);
            }
            Event::Slices(change) => {
                let changed = match change {
                    Change::Applied(slice) => self.slices.put(slice),
                    Change::Deleted(slice) => self.slices.remove(&endpoints::key(slice)),
                    Change::Listed(all) => self.slices.list(all.iter().map(|slice| &**slice)),
                };
                for key in changed {
                    self.mark(key, services);
                }
            }
            Event::Done(effect, outcome) => {
                if let Some((key, notes)) = self.teller.done(now, effect, outcome) {
                    out.extend(notes.into_iter().map(Effect::Publish));
                    self.dirty.insert(key);
                }
            }
            Event::Leading(leading) => self.leading = leading,
            Event::Deadline => {}
        }
        if !(self.leading && services.is_listed() && self.slices.listed) {
            if std::mem::replace(&mut self.acting, false) {
                self.stand_down();
            }
            self.dirty.clear();
            return;
        }
        if !std::mem::replace(&mut self.acting, true) {
            self.mark_all(services);
        }
        self.dirty.extend(self.teller.due(now.monotonic));
        while let Some(key) = self.dirty.pop_first() {
            self.look(now, &key, services, &is_cluster_ip, out);
        }
    }

    /// When [`Event::Deadline`] is wanted, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.teller.next_deadline().filter(|_| self.acting)
    }

    /// Looks at a Service if there may be something to say.
    fn mark(&mut self, key: ClaimRef, services: &impl Services) {
        let is_gone_or_concerns = services.get(&key).is_none_or(|service| self.concerns(&key, service));
        if is_gone_or_concerns {
            self.dirty.insert(key);
        }
    }

    fn mark_all(&mut self, services: &impl Services) {
        let concerned = services.all().filter(|(key, service)| self.concerns(key, service));
        let concerned: Vec<ClaimRef> = concerned.map(|(key, _)| key.clone()).collect();
        self.dirty.extend(concerned);
    }

    /// Whether a Service has no selector, or slices of others than Kubernetes, or something of ours was said of it
    /// or is about to be.
    fn concerns(&self, key: &ClaimRef, service: &Service) -> bool {
        let has_selector = service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
        let is_by_hand = has_our_finalizer(service)
            && (!has_selector || self.slices.of(key).any(|slice| slice.maker != Maker::Selector));
        let ours = |type_: &str| OURS.contains(&type_);
        is_by_hand
            || self.settling.contains_key(key)
            || conditions_of(service).iter().any(|condition| ours(&condition.type_))
    }

    /// Forgets what was about to be said; whoever leads now does it.
    fn stand_down(&mut self) {
        self.teller = Teller::new(&OURS, Paces::default());
        self.settling.clear();
    }

    fn look(
        &mut self,
        now: Now,
        key: &ClaimRef,
        services: &impl Services,
        is_cluster_ip: impl Fn(IpAddr) -> bool,
        out: &mut Vec<Effect>,
    ) {
        self.teller.is_looked_at(key);
        let Some(service) = services.get(key) else {
            self.settling.remove(key);
            return self.teller.forget(key);
        };
        let is_ours = is_load_balancer(service) && has_our_finalizer(service);
        let slices: Vec<&Facts> = self.slices.of(key).collect();
        let wanted = if is_ours { judge(service, &slices, is_cluster_ip) } else { Vec::new() };
        let since = match self.settling.get(key) {
            Some((before, since)) if *before == wanted => *since,
            _ => {
                self.settling.insert(key.clone(), (wanted.clone(), now.monotonic));
                now.monotonic
            }
        };
        // That it is none of ours any more need not be waited for.
        let until = since + SETTLE;
        if is_ours && now.monotonic < until {
            return self.teller.wake(key, until);
        }
        let known = conditions_of(service);
        let notes = || notes(service, &wanted);
        match self.teller.tell(now, (key, service), &wanted, false, notes) {
            Told::Already => {
                // Nothing is left to be remembered of those of whom nothing is said.
                if known.iter().all(|condition| !OURS.contains(&condition.type_.as_str())) {
                    self.settling.remove(key);
                }
            }
            Told::Later => {}
            Told::Write(effect) => out.push(effect),
        }
    }
}

fn is_load_balancer(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

/// One Event for each condition that begins to tell of trouble.
fn notes(service: &Service, wanted: &[Wanted]) -> Vec<Note> {
    let known = conditions_of(service);
    let is_trouble = |wanted: &&Wanted| {
        let before = find(known, wanted.type_);
        let is_news =
            before.is_none_or(|before| before.status != wanted.status || before.reason != wanted.reason);
        is_news && wanted.reason != super::judge::reasons::USABLE
    };
    wanted.iter().filter(is_trouble).map(|wanted| note(service, wanted, true)).collect()
}

#[cfg(test)]
#[path = "mind_tests.rs"]
mod tests;
