//! Puts all drivers together, from the start of the process to its end.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::books::Books;
use super::filter_thread::FilterThread;
use super::fitness::{self, Sources};
use super::following::{follow_api, follow_filter, follow_keys, follow_network, restore};
use super::http;
use super::keys::{KeysFolder, Unusable};
use super::lan_thread::{Gone, LanThread};
use super::readiness::Readiness;
use super::report::{self, End, Lines};
use super::state_file::StateFile;
use super::succession::{self, Door, Predecessor};
use super::watch::Listeners;
use crate::config::Options;
use crate::metrics::Metrics;
use crate::mind::{Event, Mind};
use crate::ownership::gates::Gates;
use crate::sys::scheduling;

/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(5);
/// How long the last words to the API may take after everything was handed over.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// How long a process that prepares to go on in the place of another one waits for what it needs to know.
const PREPARE: Duration = Duration::from_secs(15);
/// How long a process that is told to end waits for one that prepares to go on in its place.
const SUCCESSOR: Duration = Duration::from_secs(4);
/// How long the ports of a former process may be held.
const PORTS: Duration = Duration::from_secs(5);

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
    let predecessor = Predecessor::find(&options.state_dir, node).await;
    let (lan, said) = LanThread::start(mind, options.lan_port, metrics.clone()).map_err(Error::Lan)?;
    let (readiness, _) = watch::channel(Readiness::default());
    let (books, books_seen) = watch::channel(Books::default());
    let (notes, notes_seen) = mpsc::unbounded_channel();
    let (client, client_seen) = watch::channel(None);
    let (heard, api_heard) = watch::channel(None);
    let (addresses, own_addresses) = watch::channel(Vec::new());
    let checked_books = books.subscribe();
    let (inherit, inherited) = watch::channel(None);
    let (left, has_left) = oneshot::channel();
    let (cede, ceded) = oneshot::channel();
    let (begun, _) = watch::channel(false);
    let (expected, is_expected) = watch::channel(false);

    let lines = Lines {
        lan: said,
        filter: filter.clone(),
        notes: notes_seen,
        client: client_seen,
        readiness: readiness.clone(),
        books: books.clone(),
        left: Some(left),
        ceded: Some(cede),
    };
    let report = async {
        has_begun(&begun).await;
        report::run(node.to_owned(), lines, metrics.clone()).await
    };
    let mut report = pin!(report.fuse());
    let state_file = StateFile::new(&options.state_dir, node);
    let listeners = Listeners {
        lan: lan.clone(),
        filter,
        desk: notes.clone(),
        books: books.clone(),
        readiness: readiness.clone(),
        addresses: addresses.clone(),
    };
    let work = async {
        // Before anything is said to anybody.
        lan.send(Event::Keys(keys)).await?;
        let network = follow_network(options, &lan, &notes, &listeners);
        let knowledge = async {
            restore(&state_file, &listeners).await?;
            let keep = async {
                has_begun(&begun).await;
                state_file.clone().keep(books_seen, metrics.clone()).await;
            };
            let api = follow_api(node, heard, &client, &listeners);
            tokio::select! {
                () = keep => Err(Gone.into()),
                never = api => never,
            }
        };
        let serving = async {
            // The connection to it lasts as long as this process, so that the former one knows.
            let predecessor = begin(predecessor, &lan, &readiness, &inherit).await?;
            begun.send_replace(true);
            let patience = if predecessor.is_some() { PORTS } else { Duration::ZERO };
            let doors = open_doors(options.listen, patience).await?;
            let serve = http::serve(doors, registry, lan.pulse(), readiness.subscribe());
            let served = serve.await.map_err(Error::Http);
            drop(predecessor);
            served
        };
        let sources = Sources {
            node: node.into(),
            kube_proxy: options.kube_proxy_healthz(),
            api_heard,
            books: checked_books,
            addresses: own_addresses,
            inherited,
        };
        let filtering = follow_filter(filtered, &lan, &notes, &listeners);
        let fitness = async { fitness::follow(sources, &lan, &readiness).await.map_err(Error::from) };
        tokio::try_join!(network, knowledge, filtering, follow_keys(keys_folder, &lan), serving, fitness)
            .map(drop)
    };
    let mut work = Box::pin(work);
    let mut succession = pin!(async {
        has_begun(&begun).await;
        match Door::open(&options.state_dir, node) {
            Ok(door) => door.wait(&lan, ceded, &expected).await,
            Err(error) => {
                tracing::warn!(%error, folder = %options.state_dir.display(),
                    "an upgrade of this speaker will move its addresses: the next process cannot be let in");
                std::future::pending().await
            }
        }
    });

    let mut successor = None;
    tokio::select! {
        () = asked_to_end(&mut terminate, &mut interrupt) => {}
        result = &mut work => return result,
        () = is_gone(&mut report) => return Err(Gone.into()),
        connection = &mut succession => successor = Some(connection?),
    }
    if successor.is_none() && *is_expected.borrow() {
        tracing::info!("another process of this node prepares to go on");
        tokio::select! {
            connection = timeout(SUCCESSOR, &mut succession) => successor = connection.ok().transpose()?,
            result = &mut work => return result,
            () = is_gone(&mut report) => return Err(Gone.into()),
        }
    }
    if let Some(connection) = successor {
        // With it go the ports, and with the last handle of the filter's thread its hold on the table, which stays.
        drop(work);
        drop(listeners);
        tracing::info!("another process of this node goes on; this one waits to be ended");
        tokio::select! {
            () = asked_to_end(&mut terminate, &mut interrupt) => {}
            () = succession::is_gone(connection) => tracing::warn!("that process is gone: ending as well, to start anew"),
        }
        return Ok(());
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
            _ = &mut report => {}
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

/// Has the thread of the mind speak: at once, or in the place of another process as soon as all is known that a
/// speaker needs to know. Returns the connection to that one.
async fn begin(
    predecessor: Option<Predecessor>,
    lan: &LanThread,
    readiness: &watch::Sender<Readiness>,
    inherit: &watch::Sender<Option<Gates>>,
) -> Result<Option<Predecessor>, Gone> {
    let Some(mut predecessor) = predecessor else {
        lan.begin(None).await?;
        return Ok(None);
    };
    tracing::info!("another process speaks for this node: preparing to go on in its place");
    let mut known = readiness.subscribe();
    if timeout(PREPARE, known.wait_for(Readiness::may_begin)).await.is_err() {
        let missing = readiness.borrow().missing().join("; ");
        tracing::warn!(missing, "going on although not everything is known");
    }
    lan.drain().await?;
    match predecessor.take_over().await {
        Ok(left) => {
            tracing::info!(addresses = left.holdings.len(), peers = left.sessions.len(), "goes on");
            inherit.send_replace(Some(Gates::from_bits(left.gates)));
            lan.begin(Some(Box::new(left))).await?;
        }
        Err(error) => {
            tracing::warn!("begins anew: {error}");
            lan.begin(None).await?;
        }
    }
    Ok(Some(predecessor))
}

async fn has_begun(begun: &watch::Sender<bool>) {
    // Its sender lives as long as this future.
    let _ = begun.subscribe().wait_for(|begun| *begun).await;
}

/// Waits until nothing is reported any more for no good reason.
async fn is_gone(report: &mut (impl Future<Output = End> + Unpin)) {
    if report.await != End::Gone {
        std::future::pending().await
    }
}

/// Listens where `/metrics` and its like are served; where a former process held the port, as soon as it is free.
async fn open_doors(address: SocketAddr, patience: Duration) -> Result<TcpListener, Error> {
    let retry = async {
        loop {
            match http::bind(address).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    sleep(Duration::from_millis(20)).await
                }
                bound => return bound,
            }
        }
    };
    let bound = match patience {
        Duration::ZERO => http::bind(address).await,
        patience => timeout(patience, retry).await.unwrap_or(Err(io::ErrorKind::AddrInUse.into())),
    };
    bound.map_err(|error| Error::Listen(address, error))
}

async fn asked_to_end(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
