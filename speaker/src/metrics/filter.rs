//! What is counted of the packet filter.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::Register;
use crate::filter::FailureKind;

/// From half a millisecond, as a small change needs, to what a full table needs.
const COMMIT_SECONDS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];

/// What is counted of the packet filter. Clones count together.
#[derive(Clone, Debug)]
pub struct FilterMetrics {
    /// Whether the kernel does what is asked for: 1 or 0.
    pub ready: Gauge,
    /// Packets to what Services serve, by address and Service, let in or refused.
    pub packets: Family<TrafficLabels, Counter>,
    /// The same in bytes.
    pub bytes: Family<TrafficLabels, Counter>,
    /// Changes of the kernel's table by result.
    pub commits: Family<CommitLabels, Counter>,
    /// How long each took.
    pub commit_seconds: Histogram,
    /// How often the table vanished and was made again.
    pub vanished: Counter,
    /// Pings to announced addresses that were answered.
    pub pings_answered: Counter,
}

/// Of what packets are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TrafficLabels {
    /// The address, or `nodePort`.
    pub address: String,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name; empty where several share the address and none serves what was asked for.
    pub service: String,
    /// What became of them.
    pub verdict: Verdict,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Verdict {
    /// They were let in.
    Allowed,
    /// They came from outside the source ranges.
    Refused,
}

/// How a change of the kernel's table went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CommitLabels {
    /// `Done`, or what followed from its failure.
    pub result: CommitResult,
}

/// How a change of the kernel's table went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum CommitResult {
    /// It was made.
    Done,
    /// The kernel could not at the moment.
    Busy,
    /// The kernel did not hold what it was thought to hold.
    Mismatch,
    /// The kernel lacks a feature.
    Unsupported,
    /// A capability is missing, or another process owns the table.
    NotPermitted,
}

impl From<FailureKind> for CommitResult {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Busy => Self::Busy,
            FailureKind::Mismatch => Self::Mismatch,
            FailureKind::Unsupported | FailureKind::NoLog => Self::Unsupported,
            FailureKind::NotPermitted => Self::NotPermitted,
        }
    }
}

impl Default for FilterMetrics {
    fn default() -> Self {
        Self {
            ready: Gauge::default(),
            packets: Family::default(),
            bytes: Family::default(),
            commits: Family::default(),
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            vanished: Counter::default(),
            pings_answered: Counter::default(),
        }
    }
}

/// What adds a metric to the registry: its name, its help, itself.
type Add<'a> = dyn FnMut(&str, &str, Box<dyn Register>) + 'a;

impl FilterMetrics {
    pub(super) fn register(self, add: &mut Add<'_>) {
        let Self { ready, packets, bytes, commits, commit_seconds, vanished, pings_answered } = self;
        add("filter_ready", "Whether the kernel enforces all source ranges", Box::new(ready));
        add(
            "filter_packets",
            "Packets to what Services serve, by address and Service, allowed or refused by source ranges",
            Box::new(packets),
        );
        add(
            "filter_bytes",
            "Bytes to what Services serve, by address and Service, allowed or refused by source ranges",
            Box::new(bytes),
        );
        add("filter_commits", "Changes of the kernel's table by result", Box::new(commits));
        add(
            "filter_commit_seconds",
            "How long each change of the kernel's table took",
            Box::new(commit_seconds),
        );
        add(
            "filter_vanished",
            "Times that the kernel's table vanished and was made again",
            Box::new(vanished),
        );
        add("pings_answered", "Pings to announced addresses that were answered", Box::new(pings_answered));
    }
}
