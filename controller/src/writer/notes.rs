//! Telling people: Events of events.k8s.io/v1, slowly and without promise.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use landfall_crds::names::{GROUP, VERSION, managers};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::TIMEOUT;
use super::queue::Pace;
use crate::clock;
use crate::effects::Note;
use crate::lease::Tenure;
use crate::metrics::Metrics;
use crate::trouble::in_short;

/// How many notes may wait; what comes then is dropped and counted.
pub(super) const CAPACITY: usize = 4096;

/// How many are published per second in the long run, and at once.
const PACE: (f64, f64) = (20.0, 50.0);

/// For so long at most a note is held back while there is anything else to write: people can wait, grants
/// should not.
const HELD_BACK: SignedDuration = SignedDuration::from_secs(30);

/// How often is looked whether there still is.
const LOOK: Duration = Duration::from_millis(50);

/// In so many looks in a row there must be nothing: between two writes of a rush there is a moment without.
const IDLE_LOOKS: u32 = 4;

/// A note that was published within this time is counted up instead of published again, as client-go does.
const SERIES: Duration = Duration::from_secs(6 * 60);

/// How many published notes are remembered.
const REMEMBERED: usize = 2048;

/// The longest `note` of an Event (k8s.io/kubernetes pkg/apis/core/validation, NoteLengthLimit).
const MESSAGE_LIMIT: usize = 1024;

/// A note and when it became true.
#[derive(Debug)]
pub(super) struct Dated {
    pub(super) note: Note,
    pub(super) at: Timestamp,
}

/// A published note.
#[derive(Debug)]
struct Published {
    name: String,
    count: i32,
    last: Instant,
}

/// Publishes what comes until nothing more can come.
pub(super) async fn publish(
    client: Client,
    tenure: watch::Receiver<Tenure>,
    metrics: Metrics,
    identity: String,
    mut notes: mpsc::Receiver<Dated>,
) {
    let mut published: HashMap<Note, Published> = HashMap::new();
    let mut pace = Pace::new(PACE.0, PACE.1);
    let mut idle_looks = 0_u32;
    while let Some(dated) = notes.recv().await {
        let held_until = dated.at.checked_add(HELD_BACK).unwrap_or(dated.at);
        while clock::now().wall < held_until {
            let is_idle = metrics.effects_waiting.get() == 0 && metrics.effects_under_way.get() == 0;
            idle_looks = if is_idle { idle_looks.saturating_add(1) } else { 0 };
            if idle_looks >= IDLE_LOOKS {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        while let Err(wait) = pace.take(clock::now().monotonic) {
            tokio::time::sleep(wait).await;
        }
        let now = clock::now().monotonic;
        if tenure.borrow().allows(now).is_none() {
            metrics.effect("Publish", "NotLeading");
            continue;
        }
        if published.len() >= REMEMBERED {
            published.retain(|_, event| now.duration_since(event.last) < SERIES);
        }
        if published.len() >= REMEMBERED {
            published.clear();
        }
        let told = tokio::time::timeout(TIMEOUT, tell(&client, &identity, &dated, &mut published, now)).await;
        let outcome = match told {
            Ok(Ok(())) => "Done",
            Ok(Err(error)) => {
                tracing::debug!(note = ?dated.note, "could not publish: {}", in_short(&error));
                "Failed"
            }
            Err(_) => "Failed",
        };
        metrics.effect("Publish", outcome);
    }
}

async fn tell(
    client: &Client,
    identity: &str,
    dated: &Dated,
    published: &mut HashMap<Note, Published>,
    now: Instant,
) -> Result<(), kube::Error> {
    let Dated { note, at } = dated;
    let namespace = if note.namespace.is_empty() { "default" } else { &note.namespace };
    let api = Api::<Event>::namespaced(client.clone(), namespace);
    if let Some(event) = published.get_mut(note).filter(|event| now.duration_since(event.last) < SERIES) {
        let series = json!({ "series": { "count": event.count + 1, "lastObservedTime": MicroTime(*at) } });
        match api.patch(&event.name, &PatchParams::default(), &Patch::Merge(series)).await {
            Ok(_) => {
                event.count += 1;
                event.last = now;
                return Ok(());
            }
            // The API server keeps Events for an hour only, or somebody has deleted it.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let name = match note.standing {
        true => format!("{}.{:016x}", note.name, fingerprint(note)),
        false => format!("{}.{:x}", note.name, at.as_nanosecond()),
    };
    match api.create(&PostParams::default(), &event(&name, namespace, identity, dated)).await {
        // A predecessor has told it.
        Err(kube::Error::Api(status)) if note.standing && status.code == 409 => {}
        answer => drop(answer?),
    }
    published.insert(note.clone(), Published { name, count: 1, last: now });
    Ok(())
}

/// The same for the same note, whoever publishes it.
fn fingerprint(note: &Note) -> u64 {
    let mut hasher = DefaultHasher::new();
    note.hash(&mut hasher);
    hasher.finish()
}

fn event(name: &str, namespace: &str, identity: &str, dated: &Dated) -> Event {
    let Dated { note, at } = dated;
    let api_version = if note.kind == "Service" { "v1".to_owned() } else { format!("{GROUP}/{VERSION}") };
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some(note.reason.to_owned()),
        event_time: Some(MicroTime(*at)),
        note: Some(shortened(&note.message).to_owned()),
        reason: Some(note.reason.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version),
            kind: Some(note.kind.to_owned()),
            name: Some(note.name.clone()),
            namespace: Some(note.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: Some(note.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(managers::CONTROLLER.to_owned()),
        reporting_instance: Some(shortened(identity).chars().take(128).collect()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MESSAGE_LIMIT)]
}
