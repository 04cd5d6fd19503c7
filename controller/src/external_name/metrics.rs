//! What a monitoring system may know of external names.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::answer::{Absence, Answer, FamilyAnswer};
use super::resolution::Standing;

/// Metrics of external names. Cloning gives another handle on the same ones.
#[derive(Clone)]
pub struct Metrics {
    answers: Family<AnswerLabels, Counter>,
    seconds: Histogram,
    names: Family<StandingLabels, Gauge>,
    /// For how long the name with the oldest good answer has had none, in seconds.
    pub oldest_answer: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    family: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StandingLabels {
    standing: &'static str,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        // From 1 ms to about 16 s.
        let metrics = Self {
            answers: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            names: Family::default(),
            oldest_answer: Gauge::default(),
        };
        registry.register(
            "dns_answers",
            "Answers of DNS to questions for external names, by family and what was said",
            metrics.answers.clone(),
        );
        registry.register(
            "dns_query_seconds",
            "Time until DNS had answered for both families of a name",
            metrics.seconds.clone(),
        );
        registry.register(
            "external_names",
            "Different names that ExternalName Services lead to, by what DNS says of them",
            metrics.names.clone(),
        );
        registry.register(
            "external_name_oldest_answer_seconds",
            "Age of the oldest good answer that is still used for a name",
            metrics.oldest_answer.clone(),
        );
        metrics
    }

    /// An answer has come, after so long.
    pub fn answered(&self, answer: &Answer, took: Duration) {
        for (family, answer) in [("IPv4", &answer.v4), ("IPv6", &answer.v6)] {
            let outcome = match answer {
                FamilyAnswer::Addresses { .. } => "Addresses",
                FamilyAnswer::Absent { absence: Absence::NoSuchName, .. } => "NoSuchName",
                FamilyAnswer::Absent { absence: Absence::NoAddress, .. } => "NoAddress",
                FamilyAnswer::Failed(failure) => failure.reason(),
            };
            self.answers.get_or_create(&AnswerLabels { family, outcome }).inc();
        }
        self.seconds.observe(took.as_secs_f64());
    }

    /// Sets how many names stand how.
    pub fn standings(&self, standings: impl Iterator<Item = Standing>) {
        let mut counts = [("Unknown", 0), ("Resolved", 0), ("Absent", 0), ("Failing", 0)];
        for standing in standings {
            let at = match standing {
                Standing::Unknown => 0,
                Standing::Resolved => 1,
                Standing::Absent { .. } => 2,
                Standing::Failing { .. } => 3,
            };
            counts[at].1 += 1;
        }
        for (standing, count) in counts {
            self.names.get_or_create(&StandingLabels { standing }).set(count);
        }
    }
}
