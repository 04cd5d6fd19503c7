//! What a person may set about external names: flags, each of them also an environment variable.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::ArgAction;

use super::name::{DnsName, read, read_leniently};
use super::resolv_conf::ResolvConf;
use super::resolver::ServerAddress;
use crate::config::duration;

/// The domain of a cluster that nothing else is known of.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// How ExternalName Services are looked after.
#[derive(Clone, Debug, clap::Args)]
pub struct ExternalNameOptions {
    /// Whether to check the names of ExternalName Services, resolve them, and say so in their conditions.
    #[arg(long, env = "LANDFALL_CHECK_EXTERNAL_NAMES", value_name = "BOOL", default_value_t = true, global = true,
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub check_external_names: bool,
    /// DNS servers to ask, separated by commas, each an address with or without a port; without it those of
    /// /etc/resolv.conf, in a pod the cluster DNS.
    #[arg(
        long,
        env = "LANDFALL_DNS_SERVERS",
        value_name = "ADDRESSES",
        value_delimiter = ',',
        global = true
    )]
    pub dns_servers: Vec<ServerAddress>,
    /// How long a DNS server may take to answer before the next one is asked.
    #[arg(long, env = "LANDFALL_DNS_TIMEOUT", value_name = "DURATION", default_value = "2s",
          value_parser = duration, global = true)]
    pub dns_timeout: Duration,
    /// How many questions DNS is asked per second at most; a name costs two.
    #[arg(long, env = "LANDFALL_DNS_RATE", value_name = "PER_SECOND", default_value = "200", global = true)]
    pub dns_rate: NonZeroU32,
    /// How long the last good answer for a name is held to while DNS fails.
    #[arg(long, env = "LANDFALL_DNS_LAST_GOOD", value_name = "DURATION", default_value = "24h",
          value_parser = duration, global = true)]
    pub dns_last_good: Duration,
    /// The domain of the cluster's own names; without it what /etc/resolv.conf says, or else cluster.local.
    #[arg(long, env = "LANDFALL_CLUSTER_DOMAIN", value_name = "DOMAIN", value_parser = domain, global = true)]
    pub cluster_domain: Option<DnsName>,
}

impl ExternalNameOptions {
    /// The servers to ask; `found` is what the process has in its `/etc/resolv.conf`.
    pub fn servers(&self, found: &ResolvConf) -> Vec<ServerAddress> {
        match self.dns_servers.is_empty() {
            false => self.dns_servers.clone(),
            true => found.servers.iter().map(|server| ServerAddress::at(*server)).collect(),
        }
    }

    /// The domain of the cluster's own names.
    ///
    /// # Errors
    /// Never with what is built in; a text that is no name is refused before.
    pub fn domain(&self, found: &ResolvConf) -> Result<DnsName, String> {
        let domain_found = || found.cluster_domain();
        self.cluster_domain.clone().or_else(domain_found).map_or_else(|| domain(CLUSTER_DOMAIN), Ok)
    }
}

fn domain(text: &str) -> Result<DnsName, String> {
    read(text).or_else(|_| read_leniently(text)).map_err(|fault| format!("{text} is no domain: {fault}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Cli;

    fn options(arguments: &[&str]) -> ExternalNameOptions {
        Cli::try_parse_from([&["landfall-controller"], arguments].concat()).unwrap().options.external_names
    }

    #[test]
    fn what_is_not_set_is_found_in_the_pods_own_file() {
        let found = ResolvConf::parse("search a.svc.k8s.example svc.k8s.example\nnameserver 10.96.0.10");
        let unset = options(&[]);
        assert_eq!(unset.servers(&found)[0].to_string(), "10.96.0.10:53");
        assert_eq!(unset.domain(&found).unwrap().as_str(), "k8s.example");
        assert_eq!(unset.domain(&ResolvConf::default()).unwrap().as_str(), "cluster.local");
        let set = options(&["--dns-servers", "192.0.2.1,[2001:db8::1]:5353", "--cluster-domain=internal."]);
        let servers: Vec<String> = set.servers(&found).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:5353"]);
        assert_eq!(set.domain(&found).unwrap().as_str(), "internal");
    }
}
