//! What a monitoring system may know: counts and times of what the drivers do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use landfall_crds::{Capacity, IPPool};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::external_name;

/// All metrics of the process. Cloning gives another handle on the same ones.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    effects: Family<EffectOutcome, Counter>,
    effect_seconds: Family<EffectName, Histogram, fn() -> Histogram>,
    /// Effects that wait for their turn.
    pub effects_waiting: Gauge,
    /// Effects that the API server has not answered yet.
    pub effects_under_way: Gauge,
    /// Events that wait for the mind.
    pub events_waiting: Gauge,
    /// Services that wait for an address.
    pub services_waiting: Gauge,
    /// 1 while this process writes.
    pub leading: Gauge,
    /// From the first sight of a Service until its addresses were in its status.
    pub grant_seconds: Histogram,
    pool_addresses: Family<PoolAddresses, Gauge>,
    lists: Family<WatchName, Counter>,
    watch_errors: Family<WatchName, Counter>,
    /// Of external names.
    pub external_names: external_name::metrics::Metrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EffectOutcome {
    effect: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EffectName {
    effect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchName {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolAddresses {
    pool: String,
    family: &'static str,
    state: &'static str,
}

impl Metrics {
    /// A fresh set, all at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("landfall_controller");
        let metrics = Self {
            registry: Arc::default(),
            effects: Family::default(),
            effect_seconds: Family::new_with_constructor(effect_histogram),
            effects_waiting: Gauge::default(),
            effects_under_way: Gauge::default(),
            events_waiting: Gauge::default(),
            services_waiting: Gauge::default(),
            leading: Gauge::default(),
            grant_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
            pool_addresses: Family::default(),
            lists: Family::default(),
            watch_errors: Family::default(),
            external_names: external_name::metrics::Metrics::register(&mut registry),
        };
        registry.register("effects", "What was tried at the API server, by outcome", metrics.effects.clone());
        registry.register(
            "effect_seconds",
            "How long the API server took to answer",
            metrics.effect_seconds.clone(),
        );
        registry.register(
            "effects_waiting",
            "Effects that wait for their turn",
            metrics.effects_waiting.clone(),
        );
        registry.register(
            "effects_under_way",
            "Effects that the API server has not answered yet",
            metrics.effects_under_way.clone(),
        );
        registry.register("events_waiting", "Events that wait to be handled", metrics.events_waiting.clone());
        registry.register(
            "services_waiting",
            "Services that wait for an address",
            metrics.services_waiting.clone(),
        );
        registry.register(
            "is_leader",
            "Whether this process writes (1) or only watches (0)",
            metrics.leading.clone(),
        );
        registry.register(
            "grant_seconds",
            "From the first sight of a Service until its addresses were in its status",
            metrics.grant_seconds.clone(),
        );
        registry.register(
            "pool_addresses",
            "Addresses of each pool by state",
            metrics.pool_addresses.clone(),
        );
        registry.register(
            "watch_lists",
            "Complete lists received, the first included",
            metrics.lists.clone(),
        );
        registry.register("watch_errors", "Failures of watches", metrics.watch_errors.clone());
        Self { registry: Arc::new(registry), ..metrics }
    }

    /// An effect was tried.
    pub fn effect(&self, effect: &'static str, outcome: &'static str) {
        self.effects.get_or_create(&EffectOutcome { effect, outcome }).inc();
    }

    /// The API server has answered an effect.
    pub fn effect_took(&self, effect: &'static str, seconds: f64) {
        self.effect_seconds.get_or_create(&EffectName { effect }).observe(seconds);
    }

    /// A complete list of a kind has come.
    pub fn listed(&self, kind: &'static str) {
        self.lists.get_or_create(&WatchName { kind }).inc();
    }

    /// A watch has failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&WatchName { kind }).inc();
    }

    /// A pool is as its status says.
    pub fn pool(&self, pool: &IPPool) {
        let status = pool.status.clone().unwrap_or_default();
        for (family, capacity) in [("IPv4", status.ipv4), ("IPv6", status.ipv6)] {
            for (state, count) in states(capacity.unwrap_or_default()) {
                let labels = PoolAddresses { pool: name_of(pool), family, state };
                if capacity.is_some() {
                    self.pool_addresses.get_or_create(&labels).set(count);
                } else {
                    self.pool_addresses.remove(&labels);
                }
            }
        }
    }

    /// A pool is gone.
    pub fn pool_gone(&self, pool: &IPPool) {
        for family in ["IPv4", "IPv6"] {
            for (state, _) in states(Capacity::default()) {
                self.pool_addresses.remove(&PoolAddresses { pool: name_of(pool), family, state });
            }
        }
    }

    /// No pool is known any more.
    pub fn pools_forgotten(&self) {
        self.pool_addresses.clear();
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// None in practice; the formatter's type has one.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn effect_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.002, 2.0, 12))
}

fn states(capacity: Capacity) -> [(&'static str, i64); 4] {
    [
        ("total", capacity.total),
        ("granted", capacity.granted),
        ("reserved", capacity.reserved),
        ("available", capacity.available),
    ]
}

fn name_of(pool: &IPPool) -> String {
    pool.metadata.name.clone().unwrap_or_default()
}

/// Since when Services wait for an address. Those that were there before us are not counted: nobody knows
/// how long they waited.
#[derive(Debug, Default)]
pub(crate) struct GrantClock {
    since: HashMap<String, Instant>,
}

impl GrantClock {
    /// A Service was seen.
    pub(crate) fn seen(&mut self, now: Instant, service: &Service) {
        let Some(uid) = &service.metadata.uid else { return };
        let is_load_balancer =
            service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
        let has_address = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref())
            .is_some_and(|ingress| !ingress.is_empty());
        if is_load_balancer && !has_address && service.metadata.deletion_timestamp.is_none() {
            self.since.entry(uid.clone()).or_insert(now);
        } else if !is_load_balancer {
            self.since.remove(uid);
        }
    }

    /// A Service has got addresses: how long it waited, if that is known.
    pub(crate) fn granted(&mut self, now: Instant, service: &Service) -> Option<Duration> {
        let since = self.since.remove(service.metadata.uid.as_ref()?)?;
        Some(now.saturating_duration_since(since))
    }

    /// A Service is gone.
    pub(crate) fn forget(&mut self, service: &Service) {
        if let Some(uid) = &service.metadata.uid {
            self.since.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use landfall_crds::{IPPoolSpec, IPPoolStatus};

    use super::*;

    #[test]
    fn metrics_are_named_as_the_documentation_says() {
        let metrics = Metrics::new();
        metrics.effect("SetIngress", "Done");
        metrics.effect_took("SetIngress", 0.004);
        metrics.listed("Service");
        metrics.leading.set(1);
        let mut pool = IPPool::new("lan", IPPoolSpec::default());
        let capacity = Capacity { total: 10, granted: 3, reserved: 0, available: 7 };
        pool.status = Some(IPPoolStatus { ipv4: Some(capacity), ..IPPoolStatus::default() });
        metrics.pool(&pool);
        let text = metrics.text().unwrap();
        for line in [
            r#"landfall_controller_effects_total{effect="SetIngress",outcome="Done"} 1"#,
            r#"landfall_controller_watch_lists_total{kind="Service"} 1"#,
            "landfall_controller_is_leader 1",
            r#"landfall_controller_pool_addresses{pool="lan",family="IPv4",state="available"} 7"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        metrics.pool_gone(&pool);
        assert!(!metrics.text().unwrap().contains("\"lan\""));
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // A point in time to count from; nothing waits.
    fn a_wait_is_counted_from_the_first_sight_to_the_address() {
        let service = |type_: &str| -> Service {
            serde_json::from_value(
                serde_json::json!({ "metadata": { "uid": "u" }, "spec": { "type": type_ } }),
            )
            .unwrap()
        };
        let (mut clock, start) = (GrantClock::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        clock.seen(after(0), &service("LoadBalancer"));
        clock.seen(after(1), &service("LoadBalancer"));
        assert_eq!(clock.granted(after(3), &service("LoadBalancer")), Some(Duration::from_secs(3)));
        assert_eq!(clock.granted(after(4), &service("LoadBalancer")), None, "once");
        clock.seen(after(5), &service("LoadBalancer"));
        clock.seen(after(6), &service("ClusterIP"));
        assert!(clock.since.is_empty(), "it waits no more");
    }
}
