//! `/metrics`, `/healthz` and `/readyz`.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::observe::KINDS;

/// Listens on `address` and returns the task that serves.
///
/// Everything here runs on the one thread that also runs the mind: an answer from `/healthz` says that it
/// turns. `/readyz` says yes as soon as a complete list of every kind has come, also on a process that
/// does not lead, because such a one could take over now.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    listed: watch::Receiver<usize>,
) -> std::io::Result<impl Future<Output = std::io::Result<()>>> {
    let listener = bind(address).await?;
    Ok(async move { axum::serve(listener, router(metrics, listed)).await })
}

/// Binds the address; on a kernel without IPv6, all IPv4 addresses stand in for all addresses.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

fn router(metrics: Metrics, listed: watch::Receiver<usize>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(readiness(*listed.borrow()))))
        .route("/metrics", get(move || std::future::ready(text(&metrics))))
}

fn readiness(listed: usize) -> (StatusCode, String) {
    if listed >= KINDS.len() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let missing = KINDS.len() - listed;
        (StatusCode::SERVICE_UNAVAILABLE, format!("{missing} of {} kinds are not listed yet\n", KINDS.len()))
    }
}

fn text(metrics: &Metrics) -> impl IntoResponse + use<> {
    match metrics.text() {
        Ok(text) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_kind_is_listed() {
        assert_eq!(readiness(0).0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(readiness(KINDS.len() - 1).1, "1 of 9 kinds are not listed yet\n");
        assert_eq!(readiness(KINDS.len()).0, StatusCode::OK);
    }
}
