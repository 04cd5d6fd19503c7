//! What the mind is told of the node, its keys and the API, from the start of the process to its end.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::api;
use super::desk::Note;
use super::filter_thread::{FromFilter, Guarded};
use super::keys::KeysFolder;
use super::lan_thread::{Gone, LanThread};
use super::netlink::{self, Network};
use super::process::Error;
use super::readiness::Known;
use super::state_file::StateFile;
use super::watch::Listeners;
use crate::config::Options;
use crate::filter::{self, Stations};
use crate::lan::Link;
use crate::mind::Event;

/// When a missing way to the API server is looked for again.
const RETRY: Duration = Duration::from_secs(5);

/// Tells everybody of the node's network, for ever.
pub(super) async fn follow_network(
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
            listeners.filter.tell(filter::Event::Stations(Stations::Node, network.stations()));
            lan.send(Event::OwnAddresses(network.addresses.clone())).await?;
            lan.send(Event::Gateways(network.gateways.clone())).await?;
            lan.send(Event::Links(network.links.clone())).await?;
            let watched = network.links.iter().filter_map(Link::watched_at).collect();
            listeners.addresses.send_replace(watched);
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
pub(super) async fn follow_keys(folder: KeysFolder, lan: &LanThread) -> Result<Infallible, Error> {
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
pub(super) async fn follow_filter(
    mut filtered: mpsc::UnboundedReceiver<FromFilter>,
    lan: &LanThread,
    notes: &mpsc::UnboundedSender<Note>,
    listeners: &Listeners,
) -> Result<Infallible, Error> {
    // The receiver of notes lives as long as the process, save at the very end.
    while let Some(said) = filtered.recv().await {
        match said {
            FromFilter::Guarded(guarded) => {
                let by = guarded.iter().map(|guarded| (guarded.address, guarded.by.clone())).collect();
                lan.send(Event::Guarded(by)).await?;
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
pub(super) async fn restore(file: &StateFile, listeners: &Listeners) -> Result<(), Gone> {
    let Some(books) = file.restore() else { return Ok(()) };
    listeners.filter.tell(filter::Event::Stations(Stations::Peers, books.addresses_of_peers()));
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
pub(super) async fn follow_api(
    node: &str,
    heard: watch::Sender<Option<Instant>>,
    client: &watch::Sender<Option<Client>>,
    listeners: &Listeners,
) -> Result<Infallible, Error> {
    loop {
        match api::client(heard.clone()).await {
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
