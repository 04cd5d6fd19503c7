//! Puts all drivers together, from the start of the process to its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use kube::Client;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::books::Books;
use super::desk::Note;
use super::filter_thread::{FilterThread, FromFilter, Guarded};
use super::keys::{KeysFolder, Unusable};
use super::lan_thread::{Gone, LanThread};
use super::netlink::{self, Network};
use super::readiness::{Known, Readiness};
use super::report::{self, Lines};
use super::state_file::StateFile;
use super::watch::Listeners;
use super::{api, http};
use crate::config::Options;
use crate::filter;
use crate::metrics::Metrics;
use crate::mind::{Event, Mind};
use crate::sys::scheduling;

/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(5);
/// How long the last words to the API may take after everything was handed over.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// When a missing way to the API server is looked for again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a speaker cannot run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot start the thread that serves the LAN: {0}")]
    Lan(#[source] io::Error),
    #[error("cannot start the thread that keeps the packet filter: {0}")]
    Filter(#[source] io::Error),
    #[error("cannot listen on {0} (--listen, LANDFALL_LISTEN): {1}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("/metrics, /healthz and /readyz are served no more: {0}")]
    Http(#[source] io::Error),
    #[error(transparent)]
    Keys(#[from] Unusable),
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// Runs the speaker of `node` until it is told to end and has left.
///
/// # Errors
/// Something is wrong that waiting does not mend.
pub async fn run(
    options: &Options,
    node: &str,
    mind: Mind,
    metrics: Metrics,
    registry: Registry,
) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;

    let locked = scheduling::lock_memory();
    metrics.memory_locked.set(locked.is_ok().into());
    match locked {
        Ok(()) => tracing::info!("the memory is locked"),
        Err(error) => tracing::info!("the memory is not locked ({error}): it goes without IPC_LOCK"),
    }
    let (keys_folder, keys) = KeysFolder::open(&options.keys_dir)?;
    let (filter, filtered) = FilterThread::start(metrics.clone()).map_err(Error::Filter)?;
    let (lan, said) = LanThread::start(mind, options.lan_port, metrics.clone()).map_err(Error::Lan)?;
    let (readiness, _) = watch::channel(Readiness::default());
    let (books, books_seen) = watch::channel(Books::default());
    let (notes, notes_seen) = mpsc::unbounded_channel();
    let (client, client_seen) = watch::channel(None);
    let (left, has_left) = oneshot::channel();
    let serve = http::serve(options.listen, registry, lan.pulse(), readiness.subscribe());
    let serve = serve.await.map_err(|error| Error::Listen(options.listen, error))?;

    let lines = Lines {
        lan: said,
        filter: filter.clone(),
        notes: notes_seen,
        client: client_seen,
        readiness: readiness.clone(),
        books: books.clone(),
        left: Some(left),
    };
    let mut report = pin!(report::run(node.to_owned(), lines, metrics.clone()));
    let state_file = StateFile::new(&options.state_dir, node);
    let listeners = Listeners {
        lan: lan.clone(),
        filter,
        desk: notes.clone(),
        books: books.clone(),
        readiness: readiness.clone(),
    };
    let work = async {
        // Before anything is said to anybody.
        lan.send(Event::Keys(keys)).await?;
        let network = follow_network(options, &lan, &notes, &listeners);
        let knowledge = async {
            restore(&state_file, &listeners).await?;
            let keep = state_file.clone().keep(books_seen, metrics.clone());
            let api = follow_api(node, &client, &listeners);
            tokio::select! {
                () = keep => Err(Gone.into()),
                never = api => never,
            }
        };
        let serving = async { serve.await.map_err(Error::Http) };
        let filtering = follow_filter(filtered, &notes, &listeners);
        tokio::try_join!(network, knowledge, filtering, follow_keys(keys_folder, &lan), serving).map(drop)
    };
    let mut work = pin!(work);

    tokio::select! {
        () = asked_to_end(&mut terminate, &mut interrupt) => {}
        result = &mut work => return result,
        () = &mut report => return Err(Gone.into()),
    }
    tracing::info!("leaving: handing over what this node announces");
    let leave = async {
        lan.send(Event::Leave).await?;
        let end = async {
            let _ = has_left.await;
            if readiness.borrow().api.is_none() {
                sleep(LAST_WORDS).await;
            }
        };
        // Heartbeats, claims and answers go on meanwhile, and so do the watches: others claim.
        tokio::select! {
            () = end => {}
            () = &mut report => {}
            result = &mut work => return result,
        }
        Ok(())
    };
    tokio::select! {
        result = timeout(LEAVE, leave) => match result {
            Ok(result) => result?,
            Err(_) => tracing::warn!("not everything was handed over within {} s", LEAVE.as_secs()),
        },
        () = asked_to_end(&mut terminate, &mut interrupt) => tracing::warn!("asked twice: ending at once"),
    }
    tracing::info!("left");
    Ok(())
}

async fn asked_to_end(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Tells everybody of the node's network, for ever.
async fn follow_network(
    options: &Options,
    lan: &LanThread,
    notes: &mpsc::UnboundedSender<Note>,
    listeners: &Listeners,
) -> Result<Infallible, Error> {
    let (tell, mut told) = mpsc::unbounded_channel::<Network>();
    let (named, named_seen) = watch::channel(listeners.books.borrow().named_interfaces());
    let watching = netlink::watch(options.interfaces.clone(), named_seen, move |network| {
        // Its receiver lives as long as this future.
        let _ = tell.send(network);
    });
    let mut books = listeners.books.subscribe();
    let naming = async {
        while books.changed().await.is_ok() {
            let now_named = books.borrow_and_update().named_interfaces();
            named.send_if_modified(|named| std::mem::replace(named, now_named.clone()) != now_named);
        }
        std::future::pending::<()>().await;
    };
    let telling = async {
        while let Some(network) = told.recv().await {
            log_network(&network);
            lan.send(Event::OwnAddresses(network.addresses.clone())).await?;
            lan.send(Event::Gateways(network.gateways.clone())).await?;
            lan.send(Event::Links(network.links.clone())).await?;
            let links = network.links.len();
            // The receiver lives as long as the process, save at the very end.
            let _ = notes.send(Note::Network(network));
            listeners.readiness.send_if_modified(|readiness| {
                let is_new = !readiness.network || readiness.links != links;
                (readiness.network, readiness.links) = (true, links);
                is_new
            });
        }
        Err(Gone)
    };
    tokio::select! {
        () = watching => Err(Gone.into()),
        () = naming => Err(Gone.into()),
        result = telling => result.map_err(Into::into),
    }
}

/// Has the mind use other keys when the folder holds others, for ever.
async fn follow_keys(folder: KeysFolder, lan: &LanThread) -> Result<Infallible, Error> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let watching = folder.watch(move |keys| {
        // Its receiver lives as long as this future.
        let _ = tell.send(keys);
    });
    let telling = async {
        while let Some(keys) = told.recv().await {
            lan.send(Event::Keys(keys)).await?;
        }
        Err(Gone)
    };
    tokio::select! {
        () = watching => Err(Gone.into()),
        result = telling => result.map_err(Into::into),
    }
}

/// Tells everybody what the packet filter says, for ever.
async fn follow_filter(
    mut filtered: mpsc::UnboundedReceiver<FromFilter>,
    notes: &mpsc::UnboundedSender<Note>,
    listeners: &Listeners,
) -> Result<Infallible, Error> {
    // The receiver of notes lives as long as the process, save at the very end.
    while let Some(said) = filtered.recv().await {
        match said {
            FromFilter::Guarded(guarded) => {
                for Guarded { address, words, .. } in guarded {
                    let _ = notes.send(Note::Guarded(address, words));
                }
            }
            FromFilter::Health(health) => {
                match (&health.missing, &health.remark) {
                    (Some(missing), _) => {
                        tracing::error!("{missing}; no address with source ranges is announced")
                    }
                    (None, Some(remark)) => tracing::warn!("{remark}"),
                    (None, None) => tracing::info!("the packet filter is in the kernel"),
                }
                listeners.readiness.send_modify(|readiness| readiness.filter = Some(health));
            }
            FromFilter::Vanished => {
                tracing::error!(
                    "the table of the packet filter vanished and is being made again: something else flushes the node's \
                     rules"
                );
                let _ = notes.send(Note::FilterVanished);
            }
            FromFilter::Notice(notice) => {
                tracing::warn!("{notice}");
                let uid = listeners.books.borrow().guards.get(&notice.service).map(|guard| guard.uid.clone());
                let _ = notes.send(Note::Refused(notice, uid.unwrap_or_default()));
            }
        }
    }
    Err(Gone.into())
}

fn log_network(network: &Network) {
    for link in &network.links {
        let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(" ");
        tracing::info!(interface = link.name, mac = %link.mac, carrier = link.carrier, addresses, "can announce on");
    }
    if network.links.is_empty() {
        tracing::warn!("no interface to announce on; set --interfaces (LANDFALL_INTERFACES)");
    }
}

/// Has the mind know what the speaker knew when it last ran.
async fn restore(file: &StateFile, listeners: &Listeners) -> Result<(), Gone> {
    let Some(books) = file.restore() else { return Ok(()) };
    listeners.lan.send(Event::Peers(books.peers.values().cloned().collect())).await?;
    listeners.lan.send(Event::Vips(books.vips.values().cloned().collect())).await?;
    listeners.filter.tell(filter::Event::Frontends(books.frontends.clone().into_iter().collect()));
    listeners.filter.tell(filter::Event::Guards(books.guards.clone().into_iter().collect()));
    listeners.books.send_replace(books);
    listeners.readiness.send_modify(|readiness| {
        readiness.vips = Known::FromFile;
        readiness.peers = Known::FromFile;
        readiness.guards = Known::FromFile;
    });
    Ok(())
}

/// Finds the API server and watches there, for ever.
async fn follow_api(
    node: &str,
    client: &watch::Sender<Option<Client>>,
    listeners: &Listeners,
) -> Result<Infallible, Error> {
    loop {
        match api::client().await {
            Ok(found) => {
                client.send_replace(Some(found.clone()));
                return super::watch::run(found, node, listeners).await.map_err(Into::into);
            }
            Err(error) => {
                let text = error.to_string();
                listeners.readiness.send_if_modified(|readiness| {
                    let is_new = readiness.api.as_ref() != Some(&text);
                    if is_new {
                        tracing::warn!("{text}; looking again every {} s", RETRY.as_secs());
                    }
                    readiness.api = Some(text);
                    is_new
                });
                sleep(RETRY).await;
            }
        }
    }
}
