//! Turns watches of the API server into events for the mind.
//!
//! Each kind has a watch of its own. Whatever goes wrong is said in a sentence, and tried again for ever:
//! a controller that starts before the API server, or before the custom resource definitions, waits.

pub(crate) mod strip;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use landfall_crds::{IPPool, ServiceGuard, Speaker, VirtualIP};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::metrics::Metrics;
use crate::mind::{Change, Event};
use crate::trouble::{Trouble, in_short, status_of};

/// The kinds that are watched and must be known before anything is decided. Of ServiceCIDRs it is enough
/// to know that the API server has none to tell of.
pub const KINDS: [&str; 9] = [
    "Service",
    "IPPool",
    "VirtualIP",
    "ServiceGuard",
    "Speaker",
    "Node",
    "Namespace",
    "EndpointSlice",
    "ServiceCIDR",
];

/// How long a kind that can be done without is left alone after the API server has refused it.
const REFUSED_KIND: Duration = Duration::from_secs(300);

/// How long the API server must have forbidden a kind before that is believed: one that has just started
/// may not know our rights yet.
const FORBIDDEN_FOR: Duration = Duration::from_secs(5);

/// Starts all watches. They end with the set.
///
/// `listed` counts the kinds of which a complete list has come.
pub fn start(
    client: &Client,
    events: &mpsc::Sender<Event>,
    metrics: &Metrics,
    listed: &watch::Sender<usize>,
    tasks: &mut JoinSet<()>,
) {
    let (done, mut virtual_ips_listed) = watch::channel(false);
    let all = Sink {
        events: events.clone(),
        metrics: metrics.clone(),
        listed: listed.clone(),
        done: None,
        is_optional: false,
    };
    // The mind's first picture of VirtualIPs must not be newer than that of Services: an address could
    // seem to belong to nobody, or to somebody else, whose Service is only not known yet.
    let services = follow::<Service>(client.clone(), "Service", strip::service, Event::Service, all.clone());
    tasks.spawn(async move {
        if virtual_ips_listed.wait_for(|listed| *listed).await.is_ok() {
            services.await;
        }
    });
    tasks.spawn(follow::<IPPool>(client.clone(), "IPPool", strip::metadata, Event::Pool, all.clone()));
    tasks.spawn(follow::<VirtualIP>(
        client.clone(),
        "VirtualIP",
        strip::metadata,
        Event::VirtualIp,
        Sink { done: Some(done), ..all.clone() },
    ));
    tasks.spawn(follow::<ServiceGuard>(
        client.clone(),
        "ServiceGuard",
        strip::metadata,
        Event::ServiceGuard,
        all.clone(),
    ));
    tasks.spawn(follow::<Speaker>(client.clone(), "Speaker", strip::metadata, Event::Speaker, all.clone()));
    tasks.spawn(follow::<Node>(client.clone(), "Node", strip::node, Event::Node, all.clone()));
    tasks.spawn(follow::<Namespace>(
        client.clone(),
        "Namespace",
        strip::namespace,
        Event::Namespace,
        all.clone(),
    ));
    tasks.spawn(follow::<EndpointSlice>(
        client.clone(),
        "EndpointSlice",
        strip::endpoint_slice,
        Event::EndpointSlice,
        all.clone(),
    ));
    tasks.spawn(follow::<ServiceCIDR>(
        client.clone(),
        "ServiceCIDR",
        strip::metadata,
        Event::ServiceCidr,
        Sink { is_optional: true, ..all },
    ));
}

/// Where what is seen goes.
#[derive(Clone)]
struct Sink {
    events: mpsc::Sender<Event>,
    metrics: Metrics,
    /// Counts the kinds that are known.
    listed: watch::Sender<usize>,
    /// Where else the first complete list of this kind is told.
    done: Option<watch::Sender<bool>>,
    /// Whether an API server that does not serve the kind, or does not let us see it, is taken at its word
    /// that there is nothing to know. Any other trouble is waited out as with all kinds, however slowly the
    /// API server answers.
    is_optional: bool,
}

async fn follow<K>(
    client: Client,
    kind: &'static str,
    strip: fn(&mut K),
    event: fn(Change<K>) -> Event,
    sink: Sink,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let subject = format!("watching {}.{}", K::plural(&()), K::group(&())).trim_end_matches('.').to_owned();
    let mut trouble = Trouble::default();
    let mut first = true;
    let mut streaming = true;
    let mut forbidden_since = None;
    // The list that is coming in, stripped object by object so that the whole of it is never held.
    let mut coming: Vec<Arc<K>> = Vec::new();
    loop {
        let config = watcher::Config::default();
        let config = if streaming { config.streaming_lists() } else { config };
        let mut stream =
            watcher(Api::<K>::all(client.clone()), config).backoff(Patience::default()).into_stream().boxed();
        while let Some(next) = stream.next().await {
            let stripped = |mut object: K| {
                strip(&mut object);
                Arc::new(object)
            };
            let change = match next {
                Ok(watcher::Event::Init) => {
                    coming.clear();
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    coming.push(stripped(object));
                    continue;
                }
                Ok(watcher::Event::InitDone) => {
                    sink.metrics.listed(kind);
                    forbidden_since = None;
                    Change::Listed(std::mem::take(&mut coming))
                }
                Ok(watcher::Event::Apply(object)) => Change::Applied(stripped(object)),
                Ok(watcher::Event::Delete(object)) => Change::Deleted(stripped(object)),
                Err(error) if streaming && refuses_streaming(&error) => {
                    tracing::debug!("{subject}: the API server streams no lists; they are fetched in pages");
                    streaming = false;
                    break;
                }
                Err(error) if sink.is_optional && is_refused(&error, &mut forbidden_since) => {
                    if std::mem::take(&mut first) {
                        let why = status_of(&error).map_or_else(String::new, |status| status.message.clone());
                        tracing::warn!("{subject}: {why}; going on without");
                        if sink.events.send(event(Change::Listed(Vec::new()))).await.is_err() {
                            return;
                        }
                        sink.listed.send_modify(|kinds| *kinds += 1);
                    }
                    tokio::time::sleep(REFUSED_KIND).await;
                    break;
                }
                Err(error) => {
                    sink.metrics.watch_failed(kind);
                    if let Some(advice) = advice::<K>(&error) {
                        trouble.warn(&subject, &advice);
                    }
                    continue;
                }
            };
            trouble.over(&subject);
            let complete = matches!(change, Change::Listed(_));
            if sink.events.send(event(change)).await.is_err() {
                return;
            }
            if complete && std::mem::take(&mut first) {
                sink.listed.send_modify(|kinds| *kinds += 1);
                if let Some(done) = &sink.done {
                    done.send_replace(true);
                }
            }
        }
    }
}

/// Whether the API server is too old for streaming lists, or has them switched off: it then says that
/// `sendInitialEvents` is not allowed.
fn refuses_streaming(error: &watcher::Error) -> bool {
    status_of(error).is_some_and(|status| {
        matches!(status.code, 400 | 422) && status.message.to_lowercase().contains("sendinitialevents")
    })
}

/// Whether the API server does not serve the kind, or has forbidden it for some time.
fn is_refused(error: &watcher::Error, forbidden_since: &mut Option<Instant>) -> bool {
    let code = status_of(error).map_or(0, |status| status.code);
    let now = clock::now().monotonic;
    code == 404 || code == 403 && now >= *forbidden_since.get_or_insert(now) + FORBIDDEN_FOR
}

/// What a person should know and do about a failed watch; nothing where it is part of the game.
fn advice<K: Resource<DynamicType = ()>>(error: &watcher::Error) -> Option<String> {
    let of_ours = K::group(&()) == landfall_crds::names::GROUP;
    let Some(status) = status_of(error) else {
        return Some(format!("cannot reach the API server, trying on: {}", in_short(error)));
    };
    match status.code {
        404 if of_ours => {
            Some(format!("the API server does not know {} yet: kubectl apply -f crds/", K::plural(&())))
        }
        403 => Some(format!("{}; kubectl apply -k deploy/ grants it", status.message)),
        401 => Some("the API server does not accept the credentials of this process".to_owned()),
        // The API server has forgotten where we were; the watch lists anew.
        410 => None,
        _ => Some(format!("{} ({})", status.message, status.code)),
    }
}

/// Waits 0.2 s, then twice as long each time, up to 2 s: an API server that comes back is met soon, and
/// six watches that ask every two seconds do it no harm.
#[derive(Debug, Default)]
struct Patience {
    failures: u32,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(200) * 2_u32.pow(self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        Some(wait.min(Duration::from_secs(2)))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use kube::core::Status;
    use serde_json::json;
    use tower_test::mock;

    use super::*;

    fn refused(code: u16, message: &str) -> watcher::Error {
        let status = Status { code, message: message.to_owned(), ..Status::failure("", "") };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn missing_definitions_are_told_apart_from_a_missing_api_server() {
        let missing = advice::<IPPool>(&refused(404, "404 page not found")).unwrap();
        assert!(missing.contains("kubectl apply -f crds/"), "{missing}");
        let foreign = advice::<Service>(&refused(404, "404 page not found")).unwrap();
        assert!(!foreign.contains("crds/"), "{foreign}");
        let forbidden = advice::<Node>(&refused(403, "nodes is forbidden")).unwrap();
        assert!(forbidden.contains("deploy/"), "{forbidden}");
        assert_eq!(advice::<Node>(&refused(410, "too old resource version")), None);
    }

    /// Follows ServiceCIDRs of an API server that answers so after so long, until a complete list comes.
    /// Returns how long that took and how many objects it has.
    async fn first_list(answers: &[(u64, u16, &str)]) -> (Duration, usize) {
        let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
        let mut answers: Vec<_> =
            answers.iter().map(|(wait, code, text)| (*wait, *code, (*text).to_owned())).collect();
        answers.reverse();
        let server = tokio::spawn(async move {
            while let Some((_, send)) = handle.next_request().await {
                // The last answer stands.
                let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
                let (wait, code, text) = answer.unwrap();
                tokio::time::sleep(Duration::from_secs(wait)).await;
                let text = match code {
                    200 => text,
                    _ => json!({"kind": "Status", "code": code, "message": text, "status": "Failure"})
                        .to_string(),
                };
                let response = Response::builder().status(code);
                send.send_response(response.body(Body::from(text.into_bytes())).unwrap());
            }
        });
        let (events, mut seen) = mpsc::channel(8);
        let (listed, mut count) = watch::channel(0);
        let sink = Sink { events, metrics: Metrics::new(), listed, done: None, is_optional: true };
        let client = Client::new(service, "default");
        let task = tokio::spawn(follow::<ServiceCIDR>(
            client,
            "ServiceCIDR",
            strip::metadata,
            Event::ServiceCidr,
            sink,
        ));
        let start = clock::now().monotonic;
        let Some(Event::ServiceCidr(Change::Listed(all))) = seen.recv().await else { panic!("no list") };
        count.wait_for(|listed| *listed == 1).await.unwrap();
        // Nothing is told twice.
        let more = tokio::time::timeout(Duration::from_secs(3600), seen.recv()).await;
        assert!(more.is_err(), "{more:?}");
        task.abort();
        server.abort();
        (clock::now().monotonic - start - Duration::from_secs(3600), all.len())
    }

    #[tokio::test(start_paused = true)]
    async fn of_service_cidrs_it_is_enough_to_know_that_none_can_be_seen() {
        let (took, number) = first_list(&[(0, 404, "404 page not found")]).await;
        assert_eq!((took.as_secs(), number), (0, 0), "the API server does not have the kind");
        let (took, number) = first_list(&[(0, 403, "servicecidrs is forbidden")]).await;
        assert!((5..7).contains(&took.as_secs()) && number == 0, "{took:?}: forbidden for good");
    }

    #[tokio::test(start_paused = true)]
    async fn service_cidrs_are_waited_for_while_the_api_server_is_slow_or_ill() {
        let old = "sendInitialEvents is forbidden for watch";
        let list = json!({"kind": "ServiceCIDRList", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"resourceVersion": "7"}, "items": [
            {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}},
        ]})
        .to_string();
        // A right that is granted a moment later counts.
        let ill = [
            (0, 422, old),
            (0, 403, "no"),
            (1, 403, "no"),
            (1, 500, "ill"),
            (90, 429, "wait"),
            (40, 200, &list),
        ];
        let (took, number) = first_list(&ill).await;
        assert!((132..140).contains(&took.as_secs()) && number == 1, "{took:?}, {number}");
    }

    #[test]
    fn an_old_api_server_is_recognised() {
        let text = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        assert!(refuses_streaming(&refused(422, text)));
        assert!(!refuses_streaming(&refused(422, "something else")));
        assert!(!refuses_streaming(&refused(404, "404 page not found")));
    }

    #[test]
    fn patience_ends_at_two_seconds_and_starts_anew_after_success() {
        let mut patience = Patience::default();
        let waits: Vec<_> = patience.by_ref().take(7).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 2000, 2000, 2000]);
        patience.reset();
        assert_eq!(patience.next(), Some(Duration::from_millis(200)));
    }
}
