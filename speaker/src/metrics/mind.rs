//! What the mind counts, under `/metrics`.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::bfd::discard::Discard;
use crate::mind::counters::Counters;
use crate::mind::failovers::BOUNDS;
use crate::seal::SealError;

/// What the mind counts, as of its last turn but a second.
#[derive(Clone, Debug, Default)]
pub struct MindCounters(Arc<Mutex<Counters>>);

impl MindCounters {
    /// Takes the latest counts. Never waits: if they are being read, the next call brings them.
    pub fn publish(&self, counters: &Counters) {
        if let Ok(mut last) = self.0.try_lock() {
            last.clone_from(counters);
        }
    }
}

impl Collector for MindCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut plain = |name: &str, help: &str, count: u64| {
            let metric = ConstCounter::new(count);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        plain("frames_received", "Frames of ARP and neighbour discovery that came in", now.frames_received)?;
        plain("answers", "Answers to ARP requests and neighbour solicitations", now.answers_sent)?;
        plain("takeovers", "Times this node began to answer for an address", now.takeovers)?;
        plain("datagrams_received", "Datagrams from other speakers that came in", now.datagrams_received)?;
        plain("datagrams_sent", "Datagrams to other speakers", now.datagrams_sent)?;
        plain(
            "verification_probes",
            "Questions to the kernels of peers whose heartbeat was late",
            now.verification_probes,
        )?;
        plain(
            "witnesses_asked",
            "Questions to peers whether they hear another one whose heartbeat was late",
            now.witnesses_asked,
        )?;
        plain(
            "testimonies",
            "Words to a peer about claims of others, which it may not hear itself",
            now.testimonies,
        )?;
        plain("queries", "Questions to a peer because something it said was missed", now.queries_sent)?;
        plain("sessions_came_up", "Times that a BFD session with a peer came up", now.sessions_came_up)?;
        plain(
            "sessions_went_down",
            "Times that a BFD session with a peer went down",
            now.sessions_went_down,
        )?;
        plain("gaps", "Times that this process was not run for longer than the detection time", now.gaps)?;
        let pace = ConstGauge::new(now.heartbeat_interval.as_secs_f64());
        let help =
            "The interval at which each peer is sent a heartbeat; more than was asked for with many peers";
        let name = "heartbeat_interval_seconds";
        pace.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        let mut steps = encoder.encode_descriptor(
            "failover_seconds",
            "From the last heartbeat of a node that was found dead to each step of taking an address over from it",
            None,
            MetricType::Histogram,
        )?;
        for (step, histogram) in now.failovers.steps() {
            let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(histogram.buckets).collect();
            let (sum, count) = (histogram.sum.as_secs_f64(), histogram.count());
            let labels = [("step", step)];
            let mut family = steps.encode_family(&labels)?;
            family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        let mut by_reason = |name: &str, help: &str, counts: &[(&str, u64)]| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counts.iter().try_for_each(|(reason, count)| {
                ConstCounter::new(*count).encode(family.encode_family(&[("reason", *reason)])?)
            })
        };
        let frames = [
            ("Own", now.frames_own),
            ("NotForUs", now.frames_not_for_us),
            ("Truncated", now.frames_truncated),
            ("OtherProtocol", now.frames_other_protocol),
            ("BadChecksum", now.frames_bad_checksum),
            ("Routed", now.frames_routed),
            ("Invalid", now.frames_invalid),
        ];
        by_reason("frames_ignored", "Frames that were not looked into, by reason", &frames)?;
        let datagrams = [
            ("Routed", now.datagrams_routed),
            ("UnknownSender", now.datagrams_unknown_sender),
            ("Invalid", now.datagrams_invalid),
            ("Stale", now.datagrams_stale),
        ];
        by_reason("datagrams_ignored", "Datagrams that were not believed, by reason", &datagrams)?;
        let mut heartbeats = Discard::ALL
            .map(|discard| (discard.label(), count(&now.heartbeats_discarded, &discard)))
            .to_vec();
        heartbeats.push(("Unproven", now.heartbeats_unproven));
        by_reason("heartbeats_ignored", "Heartbeats that were not believed, by reason", &heartbeats)?;
        let seals = SealError::ALL.map(|error| (error.label(), count(&now.seals_refused, &error)));
        by_reason("messages_ignored", "Messages whose seal was not believed, by reason", &seals)
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, u64>, key: &K) -> u64 {
    counts.get(key).copied().unwrap_or_default()
}
