//! `/metrics`, `/healthz` and `/readyz`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::lan_thread::Pulse;
use super::readiness::Readiness;

/// The thread of the mind turns at least once a second. After this time without a turn it hangs.
const HUNG: Duration = Duration::from_secs(5);

/// Serves for ever.
///
/// `/healthz` fails only if the thread of the mind hangs: whatever else is wrong, ending this process
/// would move its addresses and mend nothing.
///
/// # Errors
/// The listener has failed.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    pulse: Arc<Pulse>,
    readiness: watch::Receiver<Readiness>,
) -> std::io::Result<()> {
    let registry = Arc::new(registry);
    let router = Router::new()
        .route("/healthz", get(move || std::future::ready(health(pulse.age()))))
        .route("/readyz", get(move || std::future::ready(ready(&readiness.borrow()))))
        .route("/metrics", get(move || std::future::ready(metrics(&registry))));
    axum::serve(listener, router).await
}

/// Listens on the address; on a kernel without IPv6, all IPv4 addresses stand in for all addresses.
///
/// # Errors
/// Another process listens there, or the node does not have the address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

fn health(age: Duration) -> (StatusCode, String) {
    if age <= HUNG {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let text = format!("the thread that serves the LAN has not turned for {} s\n", age.as_secs());
        (StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

fn ready(readiness: &Readiness) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        let remarks: String = readiness.remarks().iter().map(|remark| format!("{remark}\n")).collect();
        (StatusCode::OK, format!("ok\n{remarks}"))
    } else {
        let text = missing.iter().map(|what| format!("{what}\n")).collect();
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

fn metrics(registry: &Registry) -> impl IntoResponse + use<> {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::readiness::Known;

    #[test]
    fn only_a_thread_that_hangs_is_unhealthy() {
        assert_eq!(health(Duration::from_secs(1)).0, StatusCode::OK);
        assert_eq!(health(Duration::from_secs(6)).0, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn readiness_says_what_is_missing() {
        let (status, text) = ready(&Readiness::default());
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("no list of VirtualIPs yet"), "{text}");
        let warm = Readiness {
            links: 1,
            network: true,
            sockets: Some(Vec::new()),
            vips: Known::FromFile,
            peers: Known::FromFile,
            guards: Known::FromFile,
            filter: Some(crate::filter::Health::default()),
            ..Readiness::default()
        };
        let (status, text) = ready(&warm);
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("state file"), "{text}");
    }
}
