//! A mind that is told what happens, and the processor's time that it takes.
//!
//! Things happen in waves: the mind is told all that is new, then the API server does all that the mind wants,
//! and its answers and watches are the next wave. So the clock is read twice for a wave, and not for
//! each event, which would cost more than many an event does.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use landfall_controller::effects::{Effect, Outcome};
use landfall_controller::mind::{Change, Config, Event, Mind, Now};
use nix::time::{ClockId, clock_gettime};

use crate::api::{Api, Writes};
use crate::cluster::Cluster;

/// The time that one more Service takes in the pretended world: no API server is faster.
const APART: Duration = Duration::from_millis(1);
/// When it all begins, in seconds since the epoch.
const BEGINNING: i64 = 1_800_000_000;

/// Time inside the mind, by what for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// From the first sight of Services to the write of their status.
    pub(crate) granting: Duration,
    /// From the speakers' word that they announce to the condition that says so.
    pub(crate) announcing: Duration,
    /// When the time comes to count the pools, and to look at Services once more.
    pub(crate) waking: Duration,
}

impl Cost {
    pub(crate) fn sum(self) -> Duration {
        self.granting + self.announcing + self.waking
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.granting += other.granting;
        self.announcing += other.announcing;
        self.waking += other.waking;
    }
}

/// A mind, the API server that it writes to, and the time, which is pretended.
pub(crate) struct Replay {
    cluster: Cluster,
    api: Api,
    mind: Mind,
    wanted: Vec<Effect>,
    start: Instant,
    elapsed: Duration,
}

impl Replay {
    // Time has to start somewhere; from there on it is pretended.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn of(mut cluster: Cluster) -> Self {
        let mut api = Api::default();
        api.now = BEGINNING;
        for pool in std::mem::take(&mut cluster.pools) {
            api.create_pool(pool);
        }
        let mind = Mind::new(Config::default());
        let (start, elapsed) = (Instant::now(), Duration::ZERO);
        let mut replay = Self { cluster, api, mind, wanted: Vec::new(), start, elapsed };
        replay.tell(replay.all());
        replay.until_quiet();
        replay
    }

    /// Services are created and get their addresses, and then these are announced.
    pub(crate) fn grant(&mut self, services: Vec<Service>) -> Cost {
        self.pass_to(self.elapsed + APART * u32::try_from(services.len()).unwrap_or(u32::MAX));
        let waking = self.meet_deadline();
        let before = self.api.vips.len();
        let created = services.into_iter().map(|service| self.api.create_service(service));
        let events = created.map(|service| Event::Service(Change::Applied(service))).collect();
        let granting = self.tell(events);
        let new: Vec<String> = self.api.names[before..].to_vec();
        let announced = new.iter().map(|name| self.api.announce(name));
        let events = announced.map(|vip| Event::VirtualIp(Change::Applied(vip))).collect();
        Cost { granting, announcing: self.tell(events), waking }
    }

    /// Waits for every deadline until the mind wants nothing any more.
    pub(crate) fn until_quiet(&mut self) -> Duration {
        let mut waking = Duration::ZERO;
        while let Some(at) = self.mind.next_deadline() {
            self.pass_to(self.elapsed.max(at.saturating_duration_since(self.start)));
            waking += self.meet_deadline();
        }
        waking
    }

    fn pass_to(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
        self.api.now = BEGINNING + i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
    }

    fn meet_deadline(&mut self) -> Duration {
        if self.mind.next_deadline().is_none_or(|at| at > self.start + self.elapsed) {
            return Duration::ZERO;
        }
        self.tell(vec![Event::Deadline])
    }

    /// Another controller takes over and is told all there is.
    pub(crate) fn restart(&mut self) -> Duration {
        let before = self.api.writes;
        let restarted = std::thread::scope(|scope| {
            // A new process has its memory to itself, which a thread with a heap of its own comes near.
            let thread = scope.spawn(|| {
                self.mind = Mind::new(Config::default());
                self.tell(self.all()) + self.until_quiet()
            });
            thread.join()
        });
        assert_eq!(self.api.writes, before, "a restart writes nothing");
        restarted.expect("the thread ends well")
    }

    pub(crate) fn writes(&self) -> Writes {
        self.api.writes
    }

    pub(crate) fn assert_all_granted(&self, services: usize) {
        assert_eq!((self.api.services.len(), self.mind.waiting()), (services, 0));
        let Writes { services: of_services, vips, .. } = self.api.writes;
        assert!(vips >= services && vips == self.api.vips.len(), "a grant is not written twice");
        // An announcement may wait for the end of a rush, and then both families are told of at once.
        let written = 2 * services..=2 * services + vips;
        assert!(written.contains(&of_services), "{of_services}: finalizers, addresses, announcements");
    }

    /// Complete lists of everything, in the order of names as an API server gives them, and the word to lead.
    fn all(&self) -> Vec<Event> {
        fn listed<'a, K: Clone + 'a>(objects: impl IntoIterator<Item = &'a K>) -> Change<K> {
            Change::Listed(objects.into_iter().cloned().map(Arc::new).collect())
        }
        fn stored<Key: Ord, K: Clone>(objects: &HashMap<Key, Arc<K>>) -> Change<K> {
            let in_order: BTreeMap<&Key, &Arc<K>> = objects.iter().collect();
            listed(in_order.into_values().map(|object| &**object))
        }
        vec![
            Event::Node(listed(&self.cluster.nodes)),
            Event::Speaker(listed(&self.cluster.speakers)),
            Event::Namespace(listed(&self.cluster.namespaces)),
            Event::EndpointSlice(Change::Listed(Vec::new())),
            Event::ServiceCidr(Change::Listed(Vec::new())),
            Event::Pool(stored(&self.api.pools)),
            Event::ServiceGuard(stored(&self.api.guards)),
            Event::VirtualIp(stored(&self.api.vips)),
            Event::Service(stored(&self.api.services)),
            Event::Leading(true),
        ]
    }

    /// Tells the mind, and then all that follows. Returns the time inside the mind.
    fn tell(&mut self, mut events: Vec<Event>) -> Duration {
        let mut thought = Duration::ZERO;
        // Both are kept from wave to wave: to free so large a piece of memory has the allocator tidy up.
        let mut wanted = std::mem::take(&mut self.wanted);
        while !events.is_empty() {
            let wall = Timestamp::from_second(self.api.now).expect("a time");
            let now = Now { monotonic: self.start + self.elapsed, wall };
            let before = processor_time();
            for event in events.drain(..) {
                self.mind.handle(now, event, &mut wanted);
            }
            thought += processor_time() - before;
            wanted.retain(|effect| !matches!(effect, Effect::Publish(_)));
            for effect in wanted.drain(..) {
                events.extend(self.answers(effect));
            }
        }
        self.wanted = wanted;
        thought
    }

    /// The API server's answer to a wanted effect, and what the watch says besides.
    fn answers(&mut self, effect: Effect) -> [Event; 2] {
        let outcome = self.api.apply(&effect);
        let watched = match &outcome {
            Outcome::Service(service) => Event::Service(Change::Applied(Arc::clone(service))),
            Outcome::VirtualIp(vip) => Event::VirtualIp(Change::Applied(Arc::clone(vip))),
            Outcome::Pool(pool) => Event::Pool(Change::Applied(Arc::clone(pool))),
            Outcome::ServiceGuard(guard) => Event::ServiceGuard(Change::Applied(Arc::clone(guard))),
            other => unreachable!("every write leaves an object: {other:?}"),
        };
        [Event::Done { effect, outcome }, watched]
    }
}

/// What this thread has had of a processor: others that want it too do not count.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread's clock").into()
}
