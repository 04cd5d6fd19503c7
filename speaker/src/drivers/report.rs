//! The one writer to the API: what the desk wants written is written here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};
use landfall_crds::names::managers;
use landfall_crds::{ServiceGuard, Speaker, SpeakerSpec, VirtualIP};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::announcement::{Announcement, Regarding};
use super::api;
use super::books::Books;
use super::desk::{Desk, Key, Note, Write, Written};
use super::filter_thread::FilterThread;
use super::gauges;
use super::lan_thread::FromLan;
use super::queue::Pace;
use super::readiness::Readiness;
use super::virtual_ip_status::Known;
use crate::filter::Event as FilterEvent;
use crate::metrics::{Metrics, WriteKind, WriteResult};
use crate::mind::Report;
use crate::succession::Inheritance;

/// How long one write may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How many writes may be under way at once, each for another object.
const AT_ONCE: usize = 4;
/// How old the gauges may be that count over all addresses.
const GAUGES: Duration = Duration::from_millis(500);
/// Events: one a second, so many at once after a rest; and so many may wait.
const EVENT_EVERY: Duration = Duration::from_secs(1);
const EVENT_BURST: u32 = 25;
const EVENTS_WAITING: usize = 64;

/// What the writer listens to and tells.
#[allow(missing_debug_implementations)]
pub struct Lines {
    /// The thread of the mind.
    pub lan: mpsc::Receiver<FromLan>,
    /// The packet filter, which is told what this node announces.
    pub filter: FilterThread,
    /// The other drivers.
    pub notes: mpsc::UnboundedReceiver<Note>,
    /// The way to the API, once there is one.
    pub client: watch::Receiver<Option<Client>>,
    /// What is missing; the sockets are told of here.
    pub readiness: watch::Sender<Readiness>,
    /// What is known; terms are told of here.
    pub books: watch::Sender<Books>,
    /// Told when the mind has handed everything over to other nodes.
    pub left: Option<oneshot::Sender<()>>,
    /// Told what the mind leaves to the next process of this node.
    pub ceded: Option<oneshot::Sender<Box<Inheritance>>>,
}

struct Ended {
    key: Key,
    written: Written,
    trouble: Option<String>,
}

/// Why nothing is written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The mind has left, and all that it said is written.
    AllIsWritten,
    /// Another process of this node goes on, and tells everything anew.
    Ceded,
    /// The thread of the mind has ended.
    Gone,
}

/// Writes until there is a reason to end.
pub async fn run(node: String, mut lines: Lines, metrics: Metrics) -> End {
    let mut desk = Desk::new(&node);
    let mut writes = FuturesUnordered::new();
    let mut events = Events::new(&node);
    let mut readiness = lines.readiness.subscribe();
    readiness.mark_changed();
    let mut leaving = false;
    let mut trouble = Trouble::default();
    let mut gauges_at = None;
    loop {
        let now = Instant::now();
        if gauges_at.is_some_and(|at| at <= now) {
            gauges_at = None;
            gauges::follow(&metrics, desk.picture());
        }
        let client = lines.client.borrow_and_update().clone();
        if let Some(client) = &client {
            while writes.len() < AT_ONCE
                && let Some((key, write)) = desk.next(now, Timestamp::now())
            {
                writes.push(execute(client.clone(), node.clone(), key, write, metrics.clone()));
            }
            events.start(now, client, &metrics);
        }
        if leaving && desk.is_idle() {
            return End::AllIsWritten;
        }
        let may_write = client.is_some() && writes.len() < AT_ONCE;
        let deadlines = [desk.next_deadline(now), events.next_deadline(now)];
        let deadline = deadlines.into_iter().flatten().min().filter(|_| may_write);
        let deadline = [deadline, gauges_at].into_iter().flatten().min();
        tokio::select! {
            said = lines.lan.recv() => match said {
                Some(FromLan::Left) => {
                    leaving = true;
                    lines.left.take().map(|left| left.send(()));
                }
                Some(FromLan::Ceded(left)) => {
                    lines.ceded.take().map(|ceded| ceded.send(left));
                    return End::Ceded;
                }
                Some(said) => {
                    hear(said, &mut desk, &mut events, &lines, &metrics);
                    gauges_at.get_or_insert(now + GAUGES);
                }
                None => return End::Gone,
            },
            Some(note) = lines.notes.recv() => {
                if let Some(announcement) = desk.note(Instant::now(), note) {
                    events.push(announcement, &metrics);
                }
                gauges_at.get_or_insert(now + GAUGES);
            }
            Some(Ended { key, written, trouble: why }) = writes.next() => {
                desk.written(Instant::now(), key, written);
                trouble.take(why);
            }
            Some(()) = events.under_way.next() => {}
            Ok(()) = readiness.changed() => {
                let readiness = readiness.borrow_and_update().clone();
                desk.note(Instant::now(), Note::Readiness(readiness));
            }
            Ok(()) = lines.client.changed() => {}
            () = sleep_until(deadline) => {}
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Takes in what the thread of the mind says.
fn hear(said: FromLan, desk: &mut Desk, events: &mut Events, lines: &Lines, metrics: &Metrics) {
    let now = Instant::now();
    match said {
        FromLan::Told(told) => {
            log(&told.report);
            gauges::count(metrics, &told.report, desk.picture());
            if let Report::Announcing { address, term, .. } = told.report {
                lines.books.send_if_modified(|books| books.raise_term(address, term));
            }
            match told.report {
                Report::Announcing { address, .. } => {
                    lines.filter.tell(FilterEvent::Announcing(address, true))
                }
                Report::Withdrawn { address, .. } => {
                    lines.filter.tell(FilterEvent::Announcing(address, false))
                }
                _ => {}
            }
            if let Some(announcement) = desk.told(now, &told) {
                events.push(announcement, metrics);
            }
        }
        FromLan::Resync(picture) => {
            tracing::warn!("reports came too fast; how things are is compared anew");
            for (address, view) in &picture.addresses {
                lines.filter.tell(FilterEvent::Announcing(*address, view.answers_now()));
            }
            desk.resync(now, *picture);
            gauges::announced(metrics, desk.picture());
        }
        FromLan::Sockets(problems) => {
            lines.readiness.send_if_modified(|readiness| {
                let is_new = readiness.sockets.as_ref() != Some(&problems);
                if is_new {
                    problems.iter().for_each(|problem| tracing::warn!("{}", problem.message));
                }
                readiness.sockets = Some(problems);
                is_new
            });
        }
        FromLan::Left | FromLan::Ceded(_) => {}
    }
}

fn log(report: &Report) {
    match report {
        Report::Announcing { address, interface, mac, term, epoch } => {
            tracing::info!(%address, interface, %mac, term, epoch, "announcing");
        }
        Report::Withdrawn { address, reason } => tracing::info!(%address, ?reason, "withdrawn"),
        Report::Refused { address, reason } => tracing::warn!(%address, ?reason, "refused"),
        Report::NoLongerRefused { address } => tracing::info!(%address, "no longer refused"),
        Report::AddressConflict { address, mac } => {
            tracing::warn!(%address, %mac, "a station that is no speaker uses the address");
        }
        Report::AddressConflictOver { address } => tracing::info!(%address, "no such station any more"),
        Report::Peer { node, interface, alive } => tracing::info!(%node, interface, alive, "peer"),
    }
}

/// Says what is wrong with writing: once, and again only if it changes.
#[derive(Debug, Default)]
struct Trouble {
    said: Option<String>,
}

impl Trouble {
    fn take(&mut self, now: Option<String>) {
        match &now {
            Some(text) if self.said != now => tracing::warn!("a write failed and is tried again: {text}"),
            Some(text) => tracing::debug!("a write failed again: {text}"),
            None if self.said.is_some() => tracing::info!("writing works again"),
            None => {}
        }
        self.said = now;
    }
}

async fn execute(client: Client, node: String, key: Key, write: Write, metrics: Metrics) -> Ended {
    let kind = match key {
        Key::Speaker => WriteKind::Speaker,
        Key::VirtualIp(_) => WriteKind::VirtualIP,
    };
    let mut trouble = None;
    let (written, result) = match timeout(LIMIT, perform(&client, &node, &write)).await {
        Ok(Ok(written)) => (written, WriteResult::Done),
        Ok(Err(error)) => {
            let after = after_failure(&client, &node, &write, &error).await;
            trouble = matches!(after.0, Written::Failed).then(|| api::in_words(&error));
            after
        }
        Err(_) => {
            trouble = Some(format!("it took longer than {} s", LIMIT.as_secs()));
            (Written::Failed, WriteResult::Failed)
        }
    };
    metrics.count_write(kind, result);
    Ended { key, written, trouble }
}

async fn perform(client: &Client, node: &str, write: &Write) -> kube::Result<Written> {
    let params = PatchParams::apply(managers::SPEAKER).force();
    match write {
        Write::CreateSpeaker => {
            let mut speaker = Speaker::new(node, SpeakerSpec {});
            match api::node_owner(client, node).await {
                Ok(owner) => speaker.metadata.owner_references = Some(vec![owner]),
                Err(error) => tracing::warn!(
                    "the Speaker of this node will not go when the node does, since the Node cannot be read: {}",
                    api::in_words(&error)
                ),
            }
            let created = Api::all(client.clone()).create(&PostParams::default(), &speaker).await?;
            Ok(Written::Speaker(Box::new(created)))
        }
        Write::SpeakerStatus(status) => {
            let patch = json!({
                "apiVersion": Speaker::api_version(&()),
                "kind": Speaker::kind(&()),
                "metadata": { "name": node },
                "status": status,
            });
            let api = Api::<Speaker>::all(client.clone());
            api.patch_status(node, &params, &Patch::Apply(patch))
                .await
                .map(|new| Written::Speaker(Box::new(new)))
        }
        Write::VirtualIpStatus { known, status } => {
            let patch = json!({
                "apiVersion": VirtualIP::api_version(&()),
                "kind": VirtualIP::kind(&()),
                "metadata": {
                    "name": known.name,
                    "uid": known.uid,
                    "resourceVersion": known.resource_version,
                },
                "status": status,
            });
            let api = Api::<VirtualIP>::all(client.clone());
            let new = api.patch_status(&known.name, &params, &Patch::Apply(patch)).await?;
            Ok(Written::VirtualIp(Box::new(Known::of(&new, node))))
        }
    }
}

/// What a failure means: where somebody else was faster, the object as it is now.
async fn after_failure(
    client: &Client,
    node: &str,
    write: &Write,
    error: &kube::Error,
) -> (Written, WriteResult) {
    let kube::Error::Api(status) = error else { return (Written::Failed, WriteResult::Failed) };
    if status.is_not_found() {
        return (Written::Gone, WriteResult::Gone);
    }
    if !status.is_conflict() && !status.is_already_exists() {
        return (Written::Failed, WriteResult::Refused);
    }
    let now = match write {
        Write::VirtualIpStatus { known, .. } => {
            let get = Api::<VirtualIP>::all(client.clone());
            match timeout(LIMIT, get.get_opt(&known.name)).await {
                Ok(Ok(Some(object))) => Written::Stale(Box::new(Known::of(&object, node))),
                Ok(Ok(None)) => Written::Gone,
                _ => Written::Failed,
            }
        }
        // The watch tells of the one that is there.
        Write::CreateSpeaker | Write::SpeakerStatus(_) => Written::Failed,
    };
    (now, WriteResult::Conflict)
}

/// The Kubernetes Events that wait, paced and bounded: they are for people.
struct Events {
    node: String,
    recorder: Option<Recorder>,
    waiting: VecDeque<Announcement>,
    pace: Pace,
    under_way: FuturesUnordered<futures::future::BoxFuture<'static, ()>>,
}

impl Events {
    fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            recorder: None,
            waiting: VecDeque::new(),
            pace: Pace::new(EVENT_EVERY, EVENT_BURST),
            under_way: FuturesUnordered::new(),
        }
    }

    fn push(&mut self, announcement: Announcement, metrics: &Metrics) {
        if self.waiting.len() < EVENTS_WAITING {
            self.waiting.push_back(announcement);
        } else {
            metrics.dropped_events.inc();
        }
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty() && self.under_way.is_empty()).then(|| self.pace.next(now))
    }

    fn start(&mut self, now: Instant, client: &Client, metrics: &Metrics) {
        if self.waiting.is_empty() || !self.under_way.is_empty() || !self.pace.take(now) {
            return;
        }
        let reporter =
            || Reporter { controller: managers::SPEAKER.to_owned(), instance: Some(self.node.clone()) };
        let recorder = self.recorder.get_or_insert_with(|| Recorder::new(client.clone(), reporter())).clone();
        let Some(announcement) = self.waiting.pop_front() else { return };
        let metrics = metrics.clone();
        self.under_way.push(Box::pin(async move {
            let result = match timeout(LIMIT, publish(&recorder, announcement)).await {
                Ok(Ok(())) => WriteResult::Done,
                Ok(Err(error)) => {
                    tracing::debug!("an Event was not written: {}", api::in_words(&error));
                    WriteResult::Failed
                }
                Err(_) => WriteResult::Failed,
            };
            metrics.count_write(WriteKind::Event, result);
        }));
    }
}

async fn publish(recorder: &Recorder, announcement: Announcement) -> kube::Result<()> {
    let kind = match announcement.regarding {
        Regarding::VirtualIp => VirtualIP::kind(&()),
        Regarding::ServiceGuard => ServiceGuard::kind(&()),
        Regarding::Speaker => Speaker::kind(&()),
    };
    let regarding = ObjectReference {
        // All of them are of one version.
        api_version: Some(VirtualIP::api_version(&()).into_owned()),
        kind: Some(kind.into_owned()),
        name: Some(announcement.name),
        uid: Some(announcement.uid),
        ..ObjectReference::default()
    };
    let event = KubeEvent {
        type_: if announcement.warning { EventType::Warning } else { EventType::Normal },
        reason: announcement.reason.to_owned(),
        note: Some(announcement.note),
        action: announcement.action.to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &regarding).await
}
