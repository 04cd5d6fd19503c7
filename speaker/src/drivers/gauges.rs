//! What the mind's reports mean for the metrics.

use crate::metrics::{AddressLabels, Metrics, PeerLabels, PeerState, ReasonLabels};
use crate::mind::Report;

use super::picture::{Answers, Conflict, Picture};

/// Counts a report; `before` is the picture without it.
pub fn count(metrics: &Metrics, report: &Report, before: &Picture) {
    match report {
        Report::Announcing { address, interface, .. } => {
            let view = before.addresses.get(address);
            if let Some(Answers::Now(old)) = view.map(|view| &view.answers) {
                if old.interface == *interface {
                    return;
                }
                metrics.announced.remove(&labels(*address, &old.interface));
            }
            metrics.announced.get_or_create(&labels(*address, interface)).set(1);
        }
        Report::Withdrawn { address, reason } => {
            metrics.withdrawals.get_or_create(&ReasonLabels { reason: format!("{reason:?}") }).inc();
            if let Some(Answers::Now(old)) = before.addresses.get(address).map(|view| &view.answers) {
                metrics.announced.remove(&labels(*address, &old.interface));
            }
        }
        _ => {}
    }
}

/// Has the gauges say what the picture says, save for single addresses, of which there are many.
pub fn follow(metrics: &Metrics, picture: &Picture) {
    metrics.refused.clear();
    let mut conflicts = 0;
    for view in picture.addresses.values() {
        if let Some((refusal, _)) = view.refused {
            metrics.refused.get_or_create(&ReasonLabels { reason: format!("{refusal:?}") }).inc();
        }
        conflicts += i64::from(matches!(view.conflict, Conflict::Now { .. }));
    }
    metrics.conflicts.set(conflicts);
    metrics.peers.clear();
    for ((_, interface), (alive, _)) in &picture.peers {
        let state = if *alive { PeerState::Alive } else { PeerState::Dead };
        metrics.peers.get_or_create(&PeerLabels { interface: interface.clone(), state }).inc();
    }
}

/// Has the gauge of single addresses say what the picture says.
pub fn announced(metrics: &Metrics, picture: &Picture) {
    metrics.announced.clear();
    for (address, view) in &picture.addresses {
        if let Answers::Now(announcing) = &view.answers {
            metrics.announced.get_or_create(&labels(*address, &announcing.interface)).set(1);
        }
    }
}

fn labels(address: std::net::IpAddr, interface: &str) -> AddressLabels {
    AddressLabels { address: address.to_string(), interface: interface.to_owned() }
}
