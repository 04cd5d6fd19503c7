//! Observes what the node needs to serve what it announces, and has the mind know what it lacks.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::books::Books;
use super::lan_thread::{Gone, LanThread};
use super::readiness::{Known, Readiness};
use crate::fitness::{Event, Fitness, Health};
use crate::lan::NodeName;
use crate::mind;
use crate::ownership::gates::Gates;

/// How often kube-proxy is asked how it is.
const ASK_PACE: Duration = Duration::from_secs(1);
/// Health checks of Services are spread over that time, and at least as far apart as the next.
const CHECK_PACE: Duration = Duration::from_secs(1);
const CHECK_SPACING: Duration = Duration::from_millis(20);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// What is observed, and by whom.
#[derive(Debug)]
pub struct Sources {
    /// This node.
    pub node: NodeName,
    /// Where kube-proxy says how it is; nothing where it is not to be asked, and then taken to be well.
    pub kube_proxy: Option<SocketAddr>,
    /// Changes whenever the API server answers anything.
    pub api_heard: watch::Receiver<Option<Instant>>,
    /// What there is to announce.
    pub books: watch::Receiver<Books>,
    /// The node's own addresses, at which kube-proxy may listen.
    pub addresses: watch::Receiver<Vec<IpAddr>>,
    /// What a former process of this node lacked, once this one goes on in its place.
    pub inherited: watch::Receiver<Option<Gates>>,
}

/// Has the mind know what the node lacks, for ever, and `readiness`, of which a part is observed.
///
/// # Errors
/// The thread of the mind has ended.
pub async fn follow(
    sources: Sources,
    lan: &LanThread,
    readiness: &watch::Sender<Readiness>,
) -> Result<Infallible, Gone> {
    let mut fitness = Fitness::default();
    let mut known = readiness.subscribe();
    let (answer, mut answered) = watch::channel(Health::Unreachable);
    let Sources { node, kube_proxy, mut api_heard, books, addresses, mut inherited } = sources;
    let (check, mut checked) = mpsc::channel(16);
    let checking = check_for_ever(&node, &books, &addresses, &check);
    let asking = ask_for_ever(kube_proxy, &answer);
    let observing = async {
        let (mut told, mut unfit) = (fitness.gates(), BTreeSet::new());
        readiness.send_modify(|readiness| readiness.gates = told);
        lan.send(mind::Event::Gates(told)).await?;
        loop {
            let wake = async {
                match fitness.next_deadline() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                Ok(()) = answered.changed() => Event::Proxy(*answered.borrow_and_update()),
                Ok(()) = api_heard.changed() => {
                    api_heard.mark_unchanged();
                    Event::ApiHeard
                }
                Ok(()) = known.changed() => {
                    if !is_informed(&known.borrow_and_update()) {
                        continue;
                    }
                    Event::Informed
                }
                Some(event) = checked.recv() => event,
                Ok(()) = inherited.changed() => match *inherited.borrow_and_update() {
                    Some(gates) => Event::Inherited(gates),
                    None => continue,
                },
                () = wake => Event::Deadline,
            };
            let now = fitness.handle(Instant::now(), event);
            if fitness.unfit() != unfit {
                unfit = fitness.unfit();
                tracing::info!(ports = ?unfit, "health checks of Services that find no endpoint on this node");
                lan.send(mind::Event::Unfit(unfit.clone())).await?;
            }
            if now != told {
                tell(told, now);
                told = now;
                readiness.send_modify(|readiness| readiness.gates = now);
                lan.send(mind::Event::Gates(now)).await?;
            }
        }
    };
    tokio::select! {
        never = asking => never,
        never = checking => never,
        result = observing => result,
    }
}

fn is_informed(readiness: &Readiness) -> bool {
    readiness.vips == Known::FromApi && readiness.peers == Known::FromApi
}

fn tell(was: Gates, is: Gates) {
    if is == Gates::NONE {
        tracing::info!("the node is fit to serve");
    } else {
        tracing::info!(%was, %is, "the node lacks something: candidates that do not go before it");
    }
}

async fn ask_for_ever(
    kube_proxy: Option<SocketAddr>,
    answer: &watch::Sender<Health>,
) -> Result<Infallible, Gone> {
    let Some(address) = kube_proxy else {
        answer.send_replace(Health::Healthy);
        return std::future::pending().await;
    };
    let mut pace = interval(ASK_PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        answer.send_replace(health(address).await);
    }
}

/// The ports of all health checks that concern this node.
fn checks(books: &Books, node: &NodeName) -> BTreeSet<u16> {
    let has_checks = books.vips.values().filter(|vip| vip.claimed && !vip.health_checks.is_empty());
    let concern = has_checks.filter(|vip| vip.candidates.contains(node));
    concern.flat_map(|vip| vip.health_checks.iter().copied()).collect()
}

async fn check_for_ever(
    node: &NodeName,
    books: &watch::Receiver<Books>,
    addresses: &watch::Receiver<Vec<IpAddr>>,
    tell: &mpsc::Sender<Event>,
) -> Result<Infallible, Gone> {
    let mut known = BTreeSet::new();
    loop {
        let ports = checks(&books.borrow(), node);
        if ports != known {
            known.clone_from(&ports);
            // Whoever it is sent to ends together with this.
            let _ = tell.send(Event::Checks(ports.clone())).await;
        }
        let number = u32::try_from(ports.len()).unwrap_or(u32::MAX).max(1);
        let spacing = (CHECK_PACE / number).max(CHECK_SPACING);
        if ports.is_empty() {
            tokio::time::sleep(spacing).await;
        }
        for port in ports {
            tokio::time::sleep(spacing).await;
            let own = addresses.borrow().clone();
            let health = check(port, &own).await;
            let _ = tell.send(Event::Check(port, health)).await;
        }
    }
}

/// What kube-proxy's health check at a port says, at whichever of the node's addresses it listens: on all of them, or
/// on the primary one only (--nodeport-addresses).
async fn check(port: u16, own: &[IpAddr]) -> Health {
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST)].into_iter().chain(own.iter().copied()) {
        match health(SocketAddr::new(address, port)).await {
            Health::Unreachable => {}
            heard => return heard,
        }
    }
    Health::Unreachable
}

async fn health(address: SocketAddr) -> Health {
    match timeout(ANSWER, ask(address)).await {
        Ok(Ok(StatusCode::OK)) => Health::Healthy,
        Ok(Ok(_)) => Health::Unhealthy,
        Ok(Err(_)) | Err(_) => Health::Unreachable,
    }
}

/// What a server on this node answers to `GET /healthz`.
async fn ask(address: SocketAddr) -> Result<StatusCode, Unanswered> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/healthz").header(header::HOST, address.to_string()).body(Body::empty())?;
    let answer = async {
        let status = sender.send_request(request).await?.status();
        // Ends the connection, which is read until then.
        drop(sender);
        Ok(status)
    };
    let (status, _) = tokio::join!(answer, connection);
    status
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Connection(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] axum::http::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;

    #[tokio::test]
    async fn a_server_is_asked_how_it_is() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (say, said) = watch::channel(StatusCode::OK);
        let router = Router::new().route("/healthz", get(move || std::future::ready(*said.borrow())));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(ask(address).await.unwrap(), StatusCode::OK);
        say.send_replace(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(address).await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(check(address.port(), &[]).await, Health::Unhealthy);
        serving.abort();
        let _ = serving.await;
        assert!(ask(address).await.is_err());
        assert_eq!(check(address.port(), &["::1".parse().unwrap()]).await, Health::Unreachable);
    }
}
