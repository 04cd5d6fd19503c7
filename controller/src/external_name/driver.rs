//! Sets up who asks DNS for a mind, and what the mind is told once.

use std::hash::{BuildHasher, RandomState};

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::answer::Answer;
use super::metrics::Metrics;
use super::mind::Config;
use super::name::DnsName;
use super::options::ExternalNameOptions;
use super::resolution;
use super::resolv_conf::{self, ResolvConf};
use super::resolver::{Servers, serve};

/// What a mind is told once, and where it may send the names that it asks for; the answers go to `answers`.
///
/// # Errors
/// A DNS server cannot be used.
pub fn start<T: Send + 'static>(
    options: &ExternalNameOptions,
    answers: mpsc::Sender<T>,
    told: fn(DnsName, Answer) -> T,
    metrics: &Metrics,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Config, mpsc::UnboundedSender<DnsName>)> {
    let found = resolv_conf();
    let domain = options.domain(&found).map_err(anyhow::Error::msg)?;
    let addresses = options.servers(&found);
    if options.check_external_names && addresses.is_empty() {
        tracing::warn!("no DNS server is known, so no external name can be resolved: set --dns-servers");
    }
    let servers = Servers::new(&addresses, options.dns_timeout).context("see --dns-servers")?;
    let (queries, wanted) = mpsc::unbounded_channel();
    tasks.spawn(serve(servers, wanted, answers, told, metrics.clone()));
    let config = Config {
        enabled: options.check_external_names,
        resolution: resolution::Config {
            rate: options.dns_rate.get(),
            last_good_for: options.dns_last_good,
            // So that two processes that start at once do not ask at the same moments.
            seed: RandomState::new().hash_one(std::process::id()),
            ..resolution::Config::default()
        },
        ..Config::new(domain)
    };
    Ok((config, queries))
}

/// What the file says; nothing where there is none.
pub(crate) fn resolv_conf() -> ResolvConf {
    let text = std::fs::read_to_string(resolv_conf::PATH).unwrap_or_default();
    ResolvConf::parse(&text)
}
