//! Watches VirtualIPs, ServiceGuards and Speakers, and nothing else.

use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use landfall_crds::{ServiceGuard, Speaker, VirtualIP};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::api;
use super::books::Books;
use super::clerk::{Clerk, Word};
use super::desk::Note;
use super::filter_thread::FilterThread;
use super::lan_thread::{Gone, LanThread};
use super::readiness::{Known, Readiness};

/// The first wait after a failed watch; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest wait after a failed watch: an API server that comes back is met soon.
const LAST_RETRY: Duration = Duration::from_secs(2);
/// How long the API server keeps a watch open, in seconds, before it is resumed where it was. A
/// connection that died without a word, as when the node's port was dark meanwhile, is noticed a little
/// later than that.
const TURN: u32 = 20;
/// After so long without a failure the next one is a first one.
const FORGIVE: Duration = Duration::from_secs(30);

/// Where the watches tell what they see.
#[derive(Debug)]
pub struct Listeners {
    /// The mind.
    pub lan: LanThread,
    /// The packet filter.
    pub filter: FilterThread,
    /// The writer to the API.
    pub desk: mpsc::UnboundedSender<Note>,
    /// What is known, for the state file and others.
    pub books: watch::Sender<Books>,
    /// What is missing.
    pub readiness: watch::Sender<Readiness>,
    /// The node's own addresses on its LANs.
    pub addresses: watch::Sender<Vec<IpAddr>>,
}

type Watched<K> = watcher::Result<Box<watcher::Event<K>>>;

enum Seen {
    Vip(Watched<VirtualIP>),
    Guard(Watched<ServiceGuard>),
    Speaker(Watched<Speaker>),
}

/// Watches for ever.
///
/// # Errors
/// The thread of the mind has ended.
pub async fn run(client: Client, node: &str, listeners: &Listeners) -> Result<Infallible, Gone> {
    let vips = watched::<VirtualIP>(&client).map(Seen::Vip);
    let guards = watched::<ServiceGuard>(&client).map(Seen::Guard);
    let speakers = watched::<Speaker>(&client).map(Seen::Speaker);
    let mut seen = stream::select(stream::select(vips, guards), speakers);
    let mut clerk = Clerk::new(node);
    let mut troubles = Troubles::default();
    loop {
        let deadline = clerk.next_deadline();
        let words = tokio::select! {
            Some(seen) = seen.next() => see(&mut clerk, &mut troubles, seen, listeners),
            () = sleep_until(deadline) => {
                let mut words = Vec::new();
                let now = Instant::now();
                listeners.books.send_modify(|books| words = clerk.deadline(now, books));
                words
            }
        };
        for word in words {
            say(word, listeners).await?;
        }
    }
}

fn watched<K>(client: &Client) -> impl stream::Stream<Item = Watched<K>> + Unpin + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher::watcher(Api::<K>::all(client.clone()), watcher::Config::default().timeout(TURN))
        .modify(|object| object.managed_fields_mut().clear())
        .backoff(Patience::default())
        .map(|event| event.map(Box::new))
        .boxed()
}

/// What is wrong with each watch.
#[derive(Debug, Default)]
struct Troubles {
    vips: Option<String>,
    guards: Option<String>,
    speakers: Option<String>,
}

fn see(clerk: &mut Clerk, troubles: &mut Troubles, seen: Seen, listeners: &Listeners) -> Vec<Word> {
    let mut words = Vec::new();
    let now = Instant::now();
    listeners.books.send_if_modified(|books| {
        match seen {
            Seen::Vip(Err(error)) => troubles.vips = Some(api::in_words(&error)),
            Seen::Guard(Err(error)) => troubles.guards = Some(api::in_words(&error)),
            Seen::Speaker(Err(error)) => troubles.speakers = Some(api::in_words(&error)),
            Seen::Vip(Ok(event)) => {
                // That a list is about to be asked for does not say that there will be an answer.
                troubles.vips = troubles.vips.take().filter(|_| matches!(*event, watcher::Event::Init));
                words = clerk.vip(now, *event, books);
            }
            Seen::Guard(Ok(event)) => {
                troubles.guards = troubles.guards.take().filter(|_| matches!(*event, watcher::Event::Init));
                words = clerk.guard(now, *event, books);
            }
            Seen::Speaker(Ok(event)) => {
                troubles.speakers =
                    troubles.speakers.take().filter(|_| matches!(*event, watcher::Event::Init));
                words = clerk.speaker(now, *event, books);
            }
        }
        words.iter().any(|word| matches!(word, Word::Mind(_) | Word::Filter(_)))
    });
    let named = [
        ("VirtualIPs", &troubles.vips),
        ("ServiceGuards", &troubles.guards),
        ("Speakers", &troubles.speakers),
    ];
    let trouble = named.iter().find_map(|(what, text)| Some(format!("{what}: {}", text.as_ref()?)));
    listeners.readiness.send_if_modified(|readiness| {
        let changed = readiness.api.is_some() != trouble.is_some();
        match (&readiness.api, &trouble) {
            (None, Some(trouble)) => {
                tracing::warn!("the API server is out of reach, going on with what is known: {trouble}");
            }
            (Some(_), None) => tracing::info!("the API server answers"),
            _ => {}
        }
        readiness.api = trouble;
        changed
    });
    words
}

async fn say(word: Word, listeners: &Listeners) -> Result<(), Gone> {
    match word {
        Word::Mind(event) => listeners.lan.send(event).await?,
        Word::Filter(event) => listeners.filter.tell(event),
        // Its receiver lives as long as the process, save at the very end.
        Word::Desk(note) => drop(listeners.desk.send(note)),
        Word::VipsListed => listeners.readiness.send_modify(|readiness| readiness.vips = Known::FromApi),
        Word::PeersListed => listeners.readiness.send_modify(|readiness| readiness.peers = Known::FromApi),
        Word::GuardsListed => listeners.readiness.send_modify(|readiness| readiness.guards = Known::FromApi),
        Word::Alarm(text) => tracing::error!("{text}"),
        Word::Remark(text) => tracing::warn!("{text}"),
    }
    Ok(())
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits longer after each failure, each speaker a little differently, so that they do not all come at
/// once when the API server is back.
///
/// The stream calls for a reset with everything it yields, even with the news that it is about to try
/// again; so only a while without failures counts.
#[derive(Debug, Default)]
struct Patience {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= FORGIVE) {
            self.failures = 0;
        }
        self.last = Some(now);
        let wait = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(LAST_RETRY);
        self.failures = (self.failures + 1).min(16);
        let chance = RandomState::new().build_hasher().finish() % 1000;
        Some(wait.mul_f64(0.75 + 0.25 * chance as f64 / 1000.0))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {}
}
