//! The minds of the controller behind one door: the one that grants addresses, the one that looks after ExternalName
//! Services, and the one that looks at what stands behind load balancers by hand. Each wants its own effects and hears
//! what became of them; what the API server answers is news for all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use landfall_crds::ClaimRef;
use tokio::sync::mpsc;

use crate::backing::mind::{self as backing, Backing};
use crate::effects::{Effect, Outcome};
use crate::external_name::metrics::Metrics;
use crate::external_name::mind::{self as external, Action, ExternalNames, Services};
use crate::external_name::name::DnsName;
use crate::mind::{Change, Event, Mind, Now};
use crate::run::Decide;
use crate::world::store::Store;

/// How often the names are counted for the metrics.
const COUNTING: Duration = Duration::from_secs(5);

/// All minds, and where names to ask DNS for go.
pub struct Minds {
    granting: Mind,
    external_names: ExternalNames,
    backing: Backing,
    queries: mpsc::UnboundedSender<DnsName>,
    metrics: Metrics,
    counted: Option<Instant>,
    actions: Vec<Action>,
}

impl Minds {
    /// `queries` leads to who asks DNS, and whose answers come back as [`Event::Answered`].
    pub fn new(
        granting: Mind,
        external_names: external::Config,
        queries: mpsc::UnboundedSender<DnsName>,
        metrics: Metrics,
    ) -> Self {
        Self {
            granting,
            external_names: ExternalNames::new(external_names),
            backing: Backing::default(),
            queries,
            metrics,
            counted: None,
            actions: Vec::new(),
        }
    }

    fn tell(&mut self, now: Now, event: external::Event<'_>, out: &mut Vec<Effect>) {
        self.external_names.handle(now, event, self.granting.services(), &mut self.actions);
        for action in self.actions.drain(..) {
            match action {
                Action::Effect(effect) => out.push(effect),
                // Nobody listens any more when the process ends.
                Action::Query(name) => drop(self.queries.send(name)),
            }
        }
    }

    fn tell_backing(&mut self, now: Now, event: backing::Event<'_>, out: &mut Vec<Effect>) {
        let granting = &self.granting;
        let is_cluster_ip = |address| granting.is_cluster_ip(address);
        self.backing.handle(now, event, granting.services(), is_cluster_ip, out);
    }

    fn count(&mut self, now: Instant) {
        if self.counted.is_some_and(|counted| now < counted + COUNTING) {
            return;
        }
        self.counted = Some(now);
        self.metrics.standings(self.external_names.explain().map(|(_, state, _)| state.standing));
        let ages = self.external_names.explain().filter(|(_, state, _)| !state.addresses.is_empty());
        let oldest = ages.filter_map(|(_, state, _)| state.good).min();
        let age = oldest.map_or(Duration::ZERO, |good| now.saturating_duration_since(good));
        self.metrics.oldest_answer.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    }
}

impl Decide for Minds {
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Service(change) => {
                self.granting.handle(now, Event::Service(change.clone()), out);
                self.tell(now, external::Event::Services(&change), out);
                self.tell_backing(now, backing::Event::Services(&change), out);
            }
            Event::EndpointSlice(change) => {
                self.tell_backing(now, backing::Event::Slices(&change), out);
                self.granting.handle(now, Event::EndpointSlice(change), out);
            }
            Event::Answered(name, answer) => self.tell(now, external::Event::Answered(name, answer), out),
            Event::Done { effect: effect @ Effect::SetConditionsOf { .. }, outcome } => {
                if let Outcome::Service(service) = &outcome {
                    let news = Change::Applied(Arc::clone(service));
                    self.granting.handle(now, Event::Service(news), out);
                }
                self.tell(now, external::Event::Done(&effect, &outcome), out);
                self.tell_backing(now, backing::Event::Done(&effect, &outcome), out);
            }
            Event::Leading(leading) => {
                self.granting.handle(now, Event::Leading(leading), out);
                self.tell(now, external::Event::Leading(leading), out);
                self.tell_backing(now, backing::Event::Leading(leading), out);
            }
            other => self.granting.handle(now, other, out),
        }
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now.monotonic);
        if is_due(self.external_names.next_deadline()) {
            self.tell(now, external::Event::Deadline, out);
        }
        if is_due(self.backing.next_deadline()) {
            self.tell_backing(now, backing::Event::Deadline, out);
        }
        self.count(now.monotonic);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let others = [self.external_names.next_deadline(), self.backing.next_deadline()];
        others.into_iter().chain([self.granting.next_deadline()]).flatten().min()
    }

    fn waiting(&self) -> usize {
        self.granting.waiting()
    }
}

impl Services for Store<ClaimRef, Service> {
    fn get(&self, key: &ClaimRef) -> Option<&Arc<Service>> {
        Self::get(self, key)
    }

    fn all(&self) -> impl Iterator<Item = (&ClaimRef, &Arc<Service>)> {
        self.iter()
    }

    fn is_listed(&self) -> bool {
        self.listed
    }
}
