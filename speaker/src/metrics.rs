//! What the speaker counts, under `/metrics`.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

mod mind;

pub use mind::MindCounters;

pub mod filter;

use filter::FilterMetrics;

/// Everything that the drivers count. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Whether this node answers for an address: 1, or absent. Summed over the nodes, 0 is a void and
    /// more than 1 is a split.
    pub announced: Family<AddressLabels, Gauge>,
    /// How often it ceased to, by reason.
    pub withdrawals: Family<ReasonLabels, Counter>,
    /// Addresses that it refuses at the moment, by reason.
    pub refused: Family<ReasonLabels, Gauge>,
    /// Addresses that a foreign station uses at the moment.
    pub conflicts: Gauge,
    /// Peers by interface and state.
    pub peers: Family<PeerLabels, Gauge>,
    /// Frames and datagrams by direction.
    pub traffic: Family<TrafficLabels, Counter>,
    /// How the thread that serves the LAN is scheduled: 1 for what holds.
    pub scheduling: Family<SchedulingLabels, Gauge>,
    /// Whether the speaker's memory is kept from being paged out: 1 or 0.
    pub memory_locked: Gauge,
    /// Multicast groups that are joined.
    pub groups: Gauge,
    /// Groups that could not be joined.
    pub group_errors: Counter,
    /// Reports that did not fit into the queue; a whole picture follows them.
    pub dropped_reports: Counter,
    /// Writes to the API by kind and result.
    pub writes: Family<WriteLabels, Counter>,
    /// Kubernetes Events that were not written because there were too many.
    pub dropped_events: Counter,
    /// What the mind counts.
    pub mind: MindCounters,
    /// Whether the state file could be written.
    pub state_writes: Family<ResultLabels, Counter>,
    /// What is counted of the packet filter.
    pub filter: FilterMetrics,
}

/// An address and where it is announced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AddressLabels {
    /// The address.
    pub address: String,
    /// The interface.
    pub interface: String,
}

/// A reason: the name of a variant of `Withdrawal` or `Refusal`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// The reason.
    pub reason: String,
}

/// How a thread is scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SchedulingLabels {
    /// What the kernel granted: the name of a variant of `Scheduling`.
    pub scheduling: String,
}

/// An interface and a state of peers on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabels {
    /// The interface.
    pub interface: String,
    /// Their state.
    pub state: PeerState,
}

/// Whether a peer is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum PeerState {
    /// It is heard.
    Alive,
    /// It was heard and is no more.
    Dead,
}

/// What went over the LAN and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TrafficLabels {
    /// What.
    pub what: Traffic,
    /// How it went.
    pub result: TrafficResult,
}

/// What goes over the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Traffic {
    /// Frames of ARP or neighbour discovery.
    Frame,
    /// Datagrams between speakers.
    Datagram,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum TrafficResult {
    /// It was sent.
    Sent,
    /// It could not be sent.
    Failed,
    /// It came in.
    Received,
}

/// A write to the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// The kind of object.
    pub kind: WriteKind,
    /// How it went.
    pub result: WriteResult,
}

/// What is written to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum WriteKind {
    /// This node's Speaker.
    Speaker,
    /// A VirtualIP's status.
    VirtualIP,
    /// An Event.
    Event,
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum WriteResult {
    /// It was done.
    Done,
    /// Somebody else wrote first; it is planned anew.
    Conflict,
    /// The object is gone.
    Gone,
    /// The API server forbids it or finds it invalid.
    Refused,
    /// It failed or took too long; it is tried again.
    Failed,
}

/// Whether something worked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    /// `Done` or `Failed`.
    pub result: WriteResult,
}

impl Metrics {
    /// Counters at zero and the registry that prints them.
    pub fn new() -> (Self, Registry) {
        let metrics = Self::default();
        let mut registry = Registry::with_prefix("landfall_speaker");
        let mut add =
            |name: &str, help: &str, metric: Box<dyn Register>| metric.register(&mut registry, name, help);
        add("build", "The version that runs", Box::new(Info::new([("version", env!("CARGO_PKG_VERSION"))])));
        let Self {
            announced,
            withdrawals,
            refused,
            conflicts,
            peers,
            traffic,
            scheduling,
            memory_locked,
            groups,
            group_errors,
            dropped_reports,
            writes,
            dropped_events,
            state_writes,
            filter,
            mind,
        } = metrics.clone();
        add("announced", "Addresses that this node answers for", Box::new(announced));
        add(
            "withdrawals",
            "Times this node ceased to answer for an address, by reason",
            Box::new(withdrawals),
        );
        add(
            "refused_addresses",
            "Addresses that this node refuses to announce, by reason",
            Box::new(refused),
        );
        add("address_conflicts", "Addresses that a station other than a speaker uses", Box::new(conflicts));
        add("peers", "Other speakers by interface and state", Box::new(peers));
        add("lan", "Frames and datagrams on the LAN", Box::new(traffic));
        add("lan_thread", "How the thread that serves the LAN is scheduled", Box::new(scheduling));
        add("memory_locked", "Whether the memory is kept from being paged out", Box::new(memory_locked));
        add("multicast_groups", "IPv6 multicast groups that are joined", Box::new(groups));
        add("multicast_group_errors", "Multicast groups that could not be joined", Box::new(group_errors));
        add(
            "dropped_reports",
            "Reports that came too fast; the whole picture follows",
            Box::new(dropped_reports),
        );
        add("api_writes", "Writes to the API server by kind and result", Box::new(writes));
        add("dropped_events", "Events that were too many to write", Box::new(dropped_events));
        add("state_file_writes", "Writes of the state file by result", Box::new(state_writes));
        filter.register(&mut add);
        registry.register_collector(Box::new(mind));
        (metrics, registry)
    }

    /// Counts something that went over the LAN.
    pub fn count_traffic(&self, what: Traffic, result: TrafficResult) {
        self.traffic.get_or_create(&TrafficLabels { what, result }).inc();
    }

    /// Counts a write to the API.
    pub fn count_write(&self, kind: WriteKind, result: WriteResult) {
        self.writes.get_or_create(&WriteLabels { kind, result }).inc();
    }
}

/// Lets metrics of different types pass through one closure.
trait Register {
    fn register(self: Box<Self>, registry: &mut Registry, name: &str, help: &str);
}

impl<M: prometheus_client::registry::Metric> Register for M {
    fn register(self: Box<Self>, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, *self);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use crate::bfd::discard::Discard;
    use crate::mind::counters::Counters;
    use crate::mind::failovers::{BOUNDS, Failovers};

    use super::*;

    #[test]
    fn what_is_counted_is_printed() {
        let (metrics, registry) = Metrics::new();
        let labels = AddressLabels { address: "192.168.10.50".into(), interface: "eth0".into() };
        metrics.announced.get_or_create(&labels).set(1);
        metrics.count_traffic(Traffic::Frame, TrafficResult::Sent);
        metrics.count_write(WriteKind::VirtualIP, WriteResult::Done);
        let wrong = Discard::Auth(crate::bfd::auth::AuthError::WrongHash);
        let mut failovers = Failovers::default();
        failovers.claimed.buckets[6] = 2;
        failovers.claimed.buckets[BOUNDS.len()] = 1;
        failovers.claimed.sum = Duration::from_millis(9310);
        metrics.mind.publish(&Counters {
            answers_sent: 3,
            takeovers: 1,
            datagrams_stale: 2,
            heartbeats_discarded: HashMap::from([(wrong, 4)]),
            heartbeat_interval: Duration::from_millis(200),
            failovers,
            ..Counters::default()
        });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "landfall_speaker_takeovers_total 1",
            "landfall_speaker_answers_total 3",
            r#"landfall_speaker_datagrams_ignored_total{reason="Stale"} 2"#,
            r#"landfall_speaker_heartbeats_ignored_total{reason="AuthWrongHash"} 4"#,
            "landfall_speaker_heartbeat_interval_seconds 0.2",
            r#"landfall_speaker_failover_seconds_bucket{le="0.15",step="claimed"} 0"#,
            r#"landfall_speaker_failover_seconds_bucket{le="0.2",step="claimed"} 2"#,
            r#"landfall_speaker_failover_seconds_bucket{le="+Inf",step="claimed"} 3"#,
            r#"landfall_speaker_failover_seconds_sum{step="claimed"} 9.31"#,
            r#"landfall_speaker_failover_seconds_count{step="claimed"} 3"#,
            r#"landfall_speaker_failover_seconds_count{step="verified"} 0"#,
            r#"landfall_speaker_announced{address="192.168.10.50",interface="eth0"} 1"#,
            r#"landfall_speaker_lan_total{what="Frame",result="Sent"} 1"#,
            r#"landfall_speaker_api_writes_total{kind="VirtualIP",result="Done"} 1"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
