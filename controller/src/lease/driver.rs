//! Tells the API server what the election wants, and everybody here how the election stands.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::{Pin, pin};
use std::time::Duration;

use futures::{Stream, StreamExt, future};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};

use super::{Action, Event, Held, LeaderElection, Record, Tenure, Timing};
use crate::clock;
use crate::trouble::{Trouble, in_short, is_forbidden};

/// The name of the Lease of those who grant.
pub const NAME: &str = "landfall-controller";

/// How long a request about the Lease may take at most.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A name that no other process has, of another pod or of this pod in an earlier life.
pub fn identity() -> String {
    let host = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
    });
    format!("{host}_{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Stands for election until `release` is sent or dropped; then gives the Lease back and returns.
///
/// `name` is that of the Lease. `tenure` always says until when this process may write.
pub async fn run(
    client: Client,
    name: &'static str,
    namespace: String,
    identity: String,
    timing: Timing,
    tenure: watch::Sender<Tenure>,
    release: oneshot::Receiver<()>,
) {
    let mut mind = LeaderElection::new(identity, timing);
    // Half of the deadline, so that one lost answer does not cost the lead.
    let timeout = TIMEOUT.min(timing.renew_deadline / 2);
    let mut desk = Desk::new(Api::namespaced(client, &namespace), name, namespace, timeout);
    let mut vacancies = pin!(vacancies(desk.api.clone(), name));
    let mut release = pin!(release);
    // What is under way: at most one request, as the mind has it.
    let mut request: Option<Request> = None;
    loop {
        let deadline = mind.next_deadline(clock::now());
        let event = tokio::select! {
            answer = answered(&mut request) => desk.read(answer),
            () = clock::sleep_until(deadline) => Event::Deadline,
            Some(()) = vacancies.next() => Event::Vacant,
            _ = &mut release => break,
        };
        if let Some(action) = mind.handle(clock::now(), event) {
            request = Some(desk.send(action));
        }
        tell(&mind, &tenure);
    }
    // The answer under way first, because it says what there is to give back.
    if let Some(request) = request.take() {
        let event = desk.read(request.await);
        mind.handle(clock::now(), event);
    }
    let last = mind.handle(clock::now(), Event::Release);
    tenure.send_replace(Tenure::None);
    if let Some(action) = last {
        match desk.send(action).await {
            Ok(_) => tracing::info!("gave the Lease back"),
            Err(error) => {
                tracing::warn!("could not give the Lease back: {error}; others wait until it expires")
            }
        }
    }
}

fn tell(mind: &LeaderElection, tenure: &watch::Sender<Tenure>) {
    let new = mind.tenure(clock::now().monotonic);
    let old = tenure.send_replace(new);
    match (old == Tenure::None, new == Tenure::None) {
        (true, false) => tracing::info!("leading: this process writes"),
        (false, true) => tracing::warn!(
            holder = mind.holder().unwrap_or("nobody"),
            "leading no more: this process only watches"
        ),
        _ => {}
    }
}

type Answer = Result<Told, Error>;

/// What the API server told.
enum Told {
    Read(Option<Lease>),
    Wrote(Lease),
}

type Request = Pin<Box<dyn Future<Output = Answer> + Send>>;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer from the API server in {} s", .0.as_secs_f32())]
    Silence(Duration),
    #[error("{}", in_short(.0))]
    Api(#[from] kube::Error),
}

async fn answered(request: &mut Option<Request>) -> Answer {
    let Some(under_way) = request else { return future::pending().await };
    let answer = under_way.await;
    *request = None;
    answer
}

/// Where requests about the Lease are written and their answers read.
struct Desk {
    api: Api<Lease>,
    name: &'static str,
    namespace: String,
    timeout: Duration,
    /// Labels and the like that others may have put there, to be written back as they were read.
    metadata: ObjectMeta,
    trouble: Trouble,
}

impl Desk {
    fn new(api: Api<Lease>, name: &'static str, namespace: String, timeout: Duration) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        Self { api, name, namespace, timeout, metadata, trouble: Trouble::default() }
    }

    fn send(&self, action: Action) -> Request {
        let api = self.api.clone();
        let name = self.name;
        let mut metadata = self.metadata.clone();
        let request = async move {
            match action {
                Action::Get => api.get_opt(name).await.map(Told::Read),
                Action::Create(record) => {
                    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
                    let lease = Lease { metadata, spec: Some(spec_of(record)) };
                    api.create(&PostParams::default(), &lease).await.map(Told::Wrote)
                }
                Action::Update { version, record } => {
                    metadata.resource_version = Some(version);
                    let lease = Lease { metadata, spec: Some(spec_of(record)) };
                    api.replace(name, &PostParams::default(), &lease).await.map(Told::Wrote)
                }
            }
        };
        let timeout = self.timeout;
        Box::pin(async move {
            let answer = tokio::time::timeout(timeout, request).await;
            answer.map_err(|_| Error::Silence(timeout))?.map_err(Error::Api)
        })
    }

    fn read(&mut self, answer: Answer) -> Event {
        let told = match answer {
            Ok(told) => told,
            Err(error) => {
                if let Some(advice) = self.advice(&error) {
                    self.trouble.warn("the Lease", &advice);
                }
                return Event::Failed;
            }
        };
        let (Told::Read(Some(lease)) | Told::Wrote(lease)) = &told else {
            // Not yet all right: creating it may be what fails.
            return Event::Got(None);
        };
        self.trouble.over("the Lease");
        let held = self.keep(lease.clone());
        if matches!(told, Told::Wrote(_)) { Event::Written(held) } else { Event::Got(Some(held)) }
    }

    fn keep(&mut self, lease: Lease) -> Held {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        self.metadata = ObjectMeta { managed_fields: None, ..lease.metadata };
        Held { version, record: record_of(lease.spec.unwrap_or_default()) }
    }

    /// What a person should know about a failure; nothing where it is part of the game.
    fn advice(&self, error: &Error) -> Option<String> {
        let namespace = &self.namespace;
        let Error::Api(kube::Error::Api(status)) = error else { return Some(error.to_string()) };
        match status.code {
            409 => None,
            403 => Some(format!(
                "{}; the account needs get, create and update of leases in namespace {namespace}, which \
                 deploy/ grants, or run a single controller with --leader-elect=false",
                status.message
            )),
            404 => Some(format!(
                "{}; create namespace {namespace} or name another by --leader-elect-namespace",
                status.message
            )),
            _ => Some(error.to_string()),
        }
    }
}

fn spec_of(record: Record) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(record.holder),
        lease_duration_seconds: Some(i32::try_from(record.lease_duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..LeaseSpec::default()
    }
}

fn record_of(spec: LeaseSpec) -> Record {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lease_duration: Duration::from_secs(seconds),
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

/// Tells when nobody holds the Lease any more, so that a successor need not wait for its next look.
/// It ends where watching is not allowed; looking every now and then is enough.
fn vacancies(api: Api<Lease>, name: &'static str) -> impl Stream<Item = ()> {
    let only_ours = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(api, only_ours)
        .take_while(|event| future::ready(!matches!(event, Err(error) if is_forbidden(error))))
        .default_backoff()
        .applied_objects()
        .filter_map(|lease| {
            let vacant = lease.is_ok_and(|lease| record_of(lease.spec.unwrap_or_default()).holder.is_empty());
            future::ready(vacant.then_some(()))
        })
        .fuse()
}
