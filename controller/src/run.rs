//! The life of a controller: one task that owns the mind, everything else feeds it or serves it.
//!
//! ```text
//! watches ──▶ events ──▶ mind ──▶ effects ──▶ writer ──▶ API server
//!   Lease ──▶   ▲                               │
//!               └───────── outcomes ◀───────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::Options;
use crate::effects::{Effect, Outcome};
use crate::heap::Heap;
use crate::lease::{self, Tenure};
use crate::metrics::{GrantClock, Metrics};
use crate::mind::{Change, Event, Mind, Now};
use crate::writer::{Order, Told, Writer};
use crate::{clock, http, observe, sys};

/// How many events of watches may wait for the mind before the watches are held up.
const INBOX: usize = 1024;

/// How long giving the Lease back may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);

/// What decides: the mind, or a pretence of one in a test.
pub trait Decide {
    /// Takes an event and adds what it wants done to `out`.
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>);
    /// When it wants [`Event::Deadline`].
    fn next_deadline(&self) -> Option<Instant>;
    /// How many Services wait for an address.
    fn waiting(&self) -> usize {
        0
    }
    /// Whether the API server was found to hold an older state than it did: then nothing that is known is to be
    /// relied on.
    fn went_back(&self) -> bool {
        false
    }
}

impl Decide for Mind {
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        Self::handle(self, now, event, out);
    }

    fn next_deadline(&self) -> Option<Instant> {
        Self::next_deadline(self)
    }

    fn waiting(&self) -> usize {
        Self::waiting(self)
    }

    fn went_back(&self) -> bool {
        Self::went_back(self)
    }
}

/// Runs until SIGTERM or SIGINT and then leaves gracefully: the writes under way are finished, the Lease
/// is given back, at most eight seconds pass.
///
/// # Errors
/// A part of the process could not start, or ended although it never should.
pub async fn run(client: Client, options: &Options, mind: impl Decide) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let identity = lease::driver::identity();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;

    let (listed, complete) = watch::channel(0);
    let server = http::serve(options.listen, metrics.clone(), complete.clone()).await.with_context(|| {
        format!("cannot listen on {}; choose another address by --listen", options.listen)
    })?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %options.listen, identity, "starting");

    // Tasks that go on until the process ends.
    let mut servants = JoinSet::new();
    servants.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!("serving HTTP has ended: {error}");
        }
    });

    let (tenure, tenures) = watch::channel(Tenure::None);
    let (release, released) = oneshot::channel();
    let election = if options.leader_elect {
        let election = lease::driver::run(
            client.clone(),
            options.lease_namespace(),
            identity.clone(),
            options.timing()?,
            tenure,
            released,
        );
        tokio::spawn(election)
    } else {
        tracing::warn!("leader election is switched off: run one controller only");
        tenure.send_replace(Tenure::Always);
        tokio::spawn(async move {
            // Keeps the sender alive, so that the tenure lasts.
            let _ = released.await;
            drop(tenure);
        })
    };

    let (seen, events) = mpsc::channel(INBOX);
    let (told, outcomes) = mpsc::unbounded_channel();
    let (wanted, effects) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel();
    let term = Arc::new(AtomicU64::new(0));
    let (writer, slow_lane) =
        Writer::new(client.clone(), tenures.clone(), Arc::clone(&term), metrics.clone(), identity, options);
    servants.spawn(slow_lane);
    observe::start(&client, &seen, &metrics, &listed, &mut servants);
    let writing = tokio::spawn(writer.run(effects, told, stopped));

    let mind = Turning {
        mind,
        wanted,
        waiting: GrantClock::default(),
        metrics: metrics.clone(),
        leading: false,
        term,
        out: Vec::new(),
        heap: Heap::default(),
    };
    let ended = tokio::select! {
        why = mind.turn(events, outcomes, tenures) => why,
        _ = servants.join_next() => "a servant has ended although it never should",
        _ = terminated.recv() => "",
        _ = interrupted.recv() => "",
    };
    if ended.is_empty() {
        tracing::info!("asked to end: finishing what is under way");
    }
    let _ = stop.send(());
    let leave = async {
        let _ = writing.await;
        let _ = release.send(());
        let _ = tokio::time::timeout(RELEASE_LIMIT, election).await;
    };
    // A second signal ends the process at once.
    tokio::select! {
        () = leave => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    anyhow::ensure!(ended.is_empty(), "{ended}");
    tracing::info!("ended");
    Ok(())
}

/// Why the mind is asked no more, where nobody asked the process to end.
const NOBODY_HEARS: &str = "the mind has ended although it never should";
const WENT_BACK: &str = "the API server holds an older state than it did, as after a restore of etcd: starting anew \
                         with what it holds now";

/// The mind and those who hear from it.
struct Turning<M> {
    mind: M,
    wanted: mpsc::UnboundedSender<Order>,
    waiting: GrantClock,
    metrics: Metrics,
    leading: bool,
    /// Raised at each loss of the Lease, when the mind forgets what it wanted. Outcomes of what it wanted
    /// before are kept from it: it could take them for those of what it wants now.
    term: Arc<AtomicU64>,
    out: Vec<Effect>,
    heap: Heap,
}

impl<M: Decide> Turning<M> {
    /// Hands every event to the mind, and what the mind wants to the writer, until nobody hears or speaks
    /// any more, or the mind is not to be relied on any more. Says why it ended.
    async fn turn(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut outcomes: mpsc::UnboundedReceiver<Told>,
        mut tenures: watch::Receiver<Tenure>,
    ) -> &'static str {
        loop {
            let event = tokio::select! {
                // What has been done first, so that the mind decides on what is true by now.
                biased;
                Ok(()) = tenures.changed() => {
                    let leading = *tenures.borrow_and_update() != Tenure::None;
                    if leading == self.leading {
                        continue;
                    }
                    self.leading = leading;
                    self.metrics.leading.set(i64::from(leading));
                    if !leading {
                        self.term.fetch_add(1, Ordering::Relaxed);
                    }
                    Event::Leading(leading)
                }
                outcome = outcomes.recv() => match outcome {
                    Some(Told { term, .. }) if term != self.term.load(Ordering::Relaxed) => continue,
                    Some(Told { effect, outcome, .. }) => Event::Done { effect, outcome },
                    None => return NOBODY_HEARS,
                },
                event = events.recv() => match event {
                    Some(event) => event,
                    None => return NOBODY_HEARS,
                },
                () = clock::sleep_until(self.mind.next_deadline()) => Event::Deadline,
                () = clock::sleep_until(self.heap.due()) => {
                    sys::return_free_memory();
                    self.heap.returned();
                    continue;
                }
            };
            self.metrics.events_waiting.set(i64::try_from(events.len()).unwrap_or(i64::MAX));
            let now = clock::now();
            self.note(&now, &event);
            self.heap.handled(now.monotonic);
            self.mind.handle(now, event, &mut self.out);
            if self.mind.went_back() {
                return WENT_BACK;
            }
            self.metrics.services_waiting.set(i64::try_from(self.mind.waiting()).unwrap_or(i64::MAX));
            let term = self.term.load(Ordering::Relaxed);
            for effect in self.out.drain(..) {
                if self.wanted.send(Order { term, effect }).is_err() {
                    return NOBODY_HEARS;
                }
            }
        }
    }

    fn note(&mut self, now: &Now, event: &Event) {
        match event {
            Event::Service(Change::Applied(service)) => self.waiting.seen(now.monotonic, service),
            Event::Service(Change::Deleted(service)) => self.waiting.forget(service),
            Event::Done {
                effect: Effect::SetIngress { ingress, .. },
                outcome: Outcome::Service(service),
            } if !ingress.is_empty() => {
                if let Some(waited) = self.waiting.granted(now.monotonic, service) {
                    self.metrics.grant_seconds.observe(waited.as_secs_f64());
                }
            }
            Event::Pool(Change::Applied(pool)) => self.metrics.pool(pool),
            Event::Pool(Change::Deleted(pool)) => self.metrics.pool_gone(pool),
            Event::Pool(Change::Listed(pools)) => {
                self.metrics.pools_forgotten();
                for pool in pools {
                    self.metrics.pool(pool);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Remembers what it heard, wants one effect when it becomes the leader, and wakes once.
    #[derive(Clone, Default)]
    struct Pretence {
        heard: Arc<Mutex<Vec<String>>>,
        wake: Arc<Mutex<Option<Instant>>>,
    }

    impl Decide for Pretence {
        fn handle(&mut self, _: Now, event: Event, out: &mut Vec<Effect>) {
            if let Event::Leading(true) = event {
                out.push(Effect::GetVirtualIp { name: "192.0.2.1".to_owned() });
            }
            if let Event::Deadline = event {
                *self.wake.lock().unwrap() = None;
            }
            self.heard.lock().unwrap().push(format!("{event:?}"));
        }

        fn next_deadline(&self) -> Option<Instant> {
            *self.wake.lock().unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everything_that_happens_reaches_the_mind_and_what_it_wants_reaches_the_writer() {
        let pretence = Pretence::default();
        let start = clock::now().monotonic;
        *pretence.wake.lock().unwrap() = Some(start + Duration::from_secs(3));
        let (seen, events) = mpsc::channel(4);
        let (told, outcomes) = mpsc::unbounded_channel();
        let (wanted, mut effects) = mpsc::unbounded_channel();
        let (tenure, tenures) = watch::channel(Tenure::None);
        let metrics = Metrics::new();
        let turning = Turning {
            mind: pretence.clone(),
            wanted,
            waiting: GrantClock::default(),
            metrics: metrics.clone(),
            leading: false,
            term: Arc::default(),
            out: Vec::new(),
            heap: Heap::default(),
        };
        let task = tokio::spawn(turning.turn(events, outcomes, tenures));

        let until = |seconds| Tenure::Until {
            begin: start + Duration::from_secs(seconds),
            end: start + Duration::from_secs(seconds + 5),
        };
        tenure.send_replace(until(10));
        let Order { term, effect } = effects.recv().await.unwrap();
        assert_eq!(metrics.leading.get(), 1);
        // A renewal is no news.
        tenure.send_replace(until(12));
        let answer = Told { term, effect, outcome: Outcome::Gone };
        told.send(answer.clone()).unwrap();
        seen.send(Event::Node(Change::Listed(Vec::new()))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        tenure.send_replace(Tenure::None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(metrics.leading.get(), 0);
        tenure.send_replace(until(12));
        assert_eq!(effects.recv().await.unwrap().term, 1);
        // What was wanted before the lead was lost is not taken for what is wanted now.
        told.send(answer).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            *pretence.heard.lock().unwrap(),
            [
                "Leading(true)",
                "Done { effect: GetVirtualIp { name: \"192.0.2.1\" }, outcome: Gone }",
                "Node(Listed([]))",
                "Deadline",
                "Leading(false)",
                "Leading(true)",
            ]
        );

        drop((seen, told, tenure));
        task.await.unwrap();
    }
}
