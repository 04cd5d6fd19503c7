//! The only one who writes: tries effects one by one at the API server and tells the mind what became of
//! each.
//!
//! Before every request that writes it looks at the tenure of this process, by its own monotonic clock; a
//! process that slept or was cut off therefore begins no write that it has no right to. What is already
//! on its way then is stopped by the uid, the resourceVersion or the name that every write carries.

mod apply;
mod body;
pub mod fault;
mod notes;
mod queue;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::{mpsc, oneshot, watch};

use self::fault::{FaultPoint, Moment};
pub use self::queue::Order;
use self::queue::{Pace, Queue};
use crate::clock;
use crate::config::Options;
use crate::effects::{Effect, Note, Outcome, Refusal};
use crate::lease::Tenure;
use crate::metrics::Metrics;

/// How long the API server may take to answer an effect.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What became of an order.
#[derive(Clone, Debug)]
pub struct Told {
    /// The term of the order.
    pub term: u64,
    /// What was wanted.
    pub effect: Effect,
    /// What became of it.
    pub outcome: Outcome,
}

/// Applies effects.
pub struct Writer {
    client: Client,
    tenure: watch::Receiver<Tenure>,
    term: Arc<AtomicU64>,
    metrics: Metrics,
    concurrency: usize,
    pace: Pace,
    fault_point: Mutex<Option<FaultPoint>>,
    notes: mpsc::Sender<notes::Dated>,
}

impl Writer {
    /// A writer and, for people to be told, the task of its slow lane, which must be polled beside it.
    /// `term` is the present term of the mind that orders.
    pub fn new(
        client: Client,
        tenure: watch::Receiver<Tenure>,
        term: Arc<AtomicU64>,
        metrics: Metrics,
        identity: String,
        options: &Options,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        if let Some(point) = &options.fault_point {
            tracing::error!(?point, "A FAULT POINT IS SET: this process will kill itself; for tests only");
        }
        let (notes, dated) = mpsc::channel(notes::CAPACITY);
        let slow_lane = notes::publish(client.clone(), tenure.clone(), metrics.clone(), identity, dated);
        let writer = Self {
            client,
            tenure,
            term,
            metrics,
            concurrency: options.write_concurrency.get(),
            pace: Pace::new(f64::from(options.write_rate.get()), f64::from(options.write_burst.get())),
            fault_point: Mutex::new(options.fault_point.clone()),
            notes,
        };
        (writer, slow_lane)
    }

    /// Tries effects as they come until `stop` is sent or dropped, or nobody gives any more. Then begins
    /// no other, waits for the answers to those under way (each at most [`TIMEOUT`]) and returns.
    pub async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        outcomes: mpsc::UnboundedSender<Told>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut pace = std::mem::replace(&mut self.pace, Pace::new(1.0, 1.0));
        let this = &self;
        let mut queue = Queue::default();
        let mut under_way = FuturesUnordered::new();
        loop {
            let mut pause = None;
            while queue.has_ready() && under_way.len() < this.concurrency {
                let now = clock::now().monotonic;
                // Refusing costs the API server nothing.
                let leads = this.tenure.borrow().allows(now).is_some();
                if let Err(wait) = pace.take(now)
                    && leads
                {
                    pause = Some(wait);
                    break;
                }
                let Some((target, order)) = queue.pop() else { break };
                under_way.push(async move {
                    let outcome = this.attempt(&order).await;
                    (target, order, outcome)
                });
            }
            this.metrics.effects_waiting.set(count(queue.len()));
            this.metrics.effects_under_way.set(count(under_way.len()));
            tokio::select! {
                // In this order: once asked to stop, nothing more is begun.
                biased;
                _ = &mut stop => break,
                order = orders.recv() => match order {
                    Some(Order { term, effect: Effect::Publish(note) }) => this.note(term, note, &outcomes),
                    Some(order) => queue.push(order),
                    None => break,
                },
                Some((target, order, outcome)) = under_way.next() => {
                    queue.done(target);
                    this.report(order, outcome, &outcomes);
                }
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
        if !under_way.is_empty() {
            tracing::info!("waiting for {} writes that are under way", under_way.len());
        }
        while let Some((_, order, outcome)) = under_way.next().await {
            this.report(order, outcome, &outcomes);
        }
    }

    async fn attempt(&self, order: &Order) -> Outcome {
        if order.term != self.term.load(Ordering::Relaxed) {
            return Outcome::Refused(Refusal::NotLeading);
        }
        let effect = &order.effect;
        let now = clock::now().monotonic;
        let allowed = if effect.only_reads() { Some(TIMEOUT) } else { self.tenure.borrow().allows(now) };
        let Some(allowed) = allowed else { return Outcome::Refused(Refusal::NotLeading) };
        let name = effect.name();
        self.pass(Moment::Before, name);
        let between = || {
            self.pass(Moment::Between, name);
            let allowed = self.tenure.borrow().allows(clock::now().monotonic);
            allowed.map(|_| ()).ok_or(Refusal::NotLeading)
        };
        let limit = allowed.min(TIMEOUT);
        let outcome = match tokio::time::timeout(limit, apply::apply(&self.client, effect, &between)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Refused(Refusal::Unavailable(format!("no answer in {} s", limit.as_secs()))),
        };
        self.metrics.effect_took(name, clock::now().monotonic.duration_since(now).as_secs_f64());
        if !matches!(outcome, Outcome::Refused(_)) {
            self.pass(Moment::After, name);
        }
        outcome
    }

    fn report(&self, order: Order, outcome: Outcome, outcomes: &mpsc::UnboundedSender<Told>) {
        let Order { term, effect } = order;
        self.metrics.effect(effect.name(), outcome.name());
        if let Outcome::Refused(refusal) = &outcome {
            tracing::debug!(?effect, "{refusal}");
        } else {
            tracing::debug!(?effect, "{}", outcome.name());
        }
        // Nobody listens any more when the process ends; then nobody needs to know.
        let _ = outcomes.send(Told { term, effect, outcome });
    }

    /// Hands a note to the slow lane. Telling people must never delay or fail a grant, so the mind hears
    /// at once that it is done.
    fn note(&self, term: u64, note: Note, outcomes: &mpsc::UnboundedSender<Told>) {
        let now = clock::now();
        let outcome = match self.tenure.borrow().allows(now.monotonic) {
            None => Outcome::Refused(Refusal::NotLeading),
            Some(_) => {
                if self.notes.try_send(notes::Dated { note: note.clone(), at: now.wall }).is_err() {
                    self.metrics.effect("Publish", "Dropped");
                }
                Outcome::Done
            }
        };
        let _ = outcomes.send(Told { term, effect: Effect::Publish(note), outcome });
    }

    fn pass(&self, moment: Moment, effect: &str) {
        let mut fault_point = self.fault_point.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(point) = fault_point.as_mut()
            && point.reached(moment, effect)
        {
            fault::die(effect, moment);
        }
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
