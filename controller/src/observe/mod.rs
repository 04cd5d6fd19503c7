//! Turns watches of the API server into events for the mind.
//!
//! Each kind has a watch of its own. Whatever goes wrong is said in a sentence, and tried again for ever:
//! a controller that starts before the API server, or before the custom resource definitions, waits.

pub(crate) mod strip;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use landfall_crds::{IPPool, Speaker, VirtualIP};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::mind::{Change, Event};
use crate::trouble::{Trouble, in_short, status_of};

/// The kinds that are watched and must be known before anything is decided. ServiceCIDRs are watched
/// besides, where the API server has them.
pub const KINDS: [&str; 7] =
    ["Service", "IPPool", "VirtualIP", "Speaker", "Node", "Namespace", "EndpointSlice"];

/// How long a kind that the API server does not have is left alone.
const ABSENT_KIND: Duration = Duration::from_secs(300);

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
    let all =
        Sink { events: events.clone(), metrics: metrics.clone(), listed: Some(listed.clone()), done: None };
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
        Sink { listed: None, ..all },
    ));
}

/// Where what is seen goes.
#[derive(Clone)]
struct Sink {
    events: mpsc::Sender<Event>,
    metrics: Metrics,
    /// Counts the kinds that are known; absent where the API server need not have the kind at all.
    listed: Option<watch::Sender<usize>>,
    /// Where else the first complete list of this kind is told.
    done: Option<watch::Sender<bool>>,
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
                    Change::Listed(std::mem::take(&mut coming))
                }
                Ok(watcher::Event::Apply(object)) => Change::Applied(stripped(object)),
                Ok(watcher::Event::Delete(object)) => Change::Deleted(stripped(object)),
                Err(error) if streaming && refuses_streaming(&error) => {
                    tracing::debug!("{subject}: the API server streams no lists; they are fetched in pages");
                    streaming = false;
                    break;
                }
                Err(error) if sink.listed.is_none() && is_absent(&error) => {
                    tracing::debug!("{subject}: the API server does not have this kind");
                    tokio::time::sleep(ABSENT_KIND).await;
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
                if let Some(listed) = &sink.listed {
                    listed.send_modify(|kinds| *kinds += 1);
                }
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

/// Whether the API server does not serve the kind.
fn is_absent(error: &watcher::Error) -> bool {
    status_of(error).is_some_and(|status| status.code == 404)
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
    use kube::core::Status;

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
