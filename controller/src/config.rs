//! What a person may set: flags, each of them also an environment variable. Without any, all is right.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::external_name::options::ExternalNameOptions;
use crate::lease::Timing;
use crate::writer::fault::FaultPoint;

/// Grants addresses to Services of type LoadBalancer and ranks the nodes that may announce them.
#[derive(Debug, Parser)]
#[command(name = "landfall-controller", version, about)]
pub struct Cli {
    /// How the process runs.
    #[command(flatten)]
    pub options: Options,
    /// What to do; without it, run the controller.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the controller (the default).
    Run,
    /// Take our finalizers off all Services and VirtualIPs, so that they can be deleted without us. Keeps
    /// the objects and the addresses in Service status. Can be repeated; do it when no controller runs.
    Uninstall,
    /// Give ExternalName Services that ask for it a companion on the LAN; a process of its own beside the controller,
    /// with an account of its own.
    Expose,
    /// Check the names of ExternalName Services in manifests, without asking DNS or the cluster. Exits with 1 if
    /// there is something wrong.
    Lint {
        /// Files of YAML or JSON; `-` is the standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// How the process runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Whether Services without a loadBalancerClass are ours.
    #[arg(long, env = "LANDFALL_DEFAULT_CLASS", value_name = "BOOL", default_value_t = true, global = true,
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub default_class: bool,
    /// Whether an IPPool without spec.namespaceSelector serves no namespace instead of all, so that none may
    /// use a pool until it is selected.
    #[arg(long, env = "LANDFALL_DEFAULT_DENY", value_name = "BOOL", default_value_t = false, global = true,
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub default_deny: bool,
    /// Whether `landfall-controller expose` runs beside this, so that pools may set externalTargets; without it such a
    /// pool is not used, and says so.
    #[arg(long, env = "LANDFALL_EXPOSING", value_name = "BOOL", default_value_t = false, global = true,
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub exposing: bool,
    /// Whether to write only while holding the Lease, so that several replicas can run.
    #[arg(long, env = "LANDFALL_LEADER_ELECT", value_name = "BOOL", default_value_t = true, global = true,
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: bool,
    /// The namespace of the Lease; without it POD_NAMESPACE, or else landfall-system.
    #[arg(long, env = "LANDFALL_LEADER_ELECT_NAMESPACE", value_name = "NAMESPACE", global = true)]
    pub leader_elect_namespace: Option<String>,
    /// How long the others wait, after the last sign of life of the one that leads, before they take over.
    #[arg(long, env = "LANDFALL_LEADER_ELECT_LEASE_DURATION", value_name = "DURATION", default_value = "15s",
          value_parser = duration, global = true)]
    pub leader_elect_lease_duration: Duration,
    /// How long the one that leads goes on writing without having renewed its Lease.
    #[arg(long, env = "LANDFALL_LEADER_ELECT_RENEW_DEADLINE", value_name = "DURATION", default_value = "10s",
          value_parser = duration, global = true)]
    pub leader_elect_renew_deadline: Duration,
    /// How often the Lease is renewed and looked at.
    #[arg(long, env = "LANDFALL_LEADER_ELECT_RETRY_PERIOD", value_name = "DURATION", default_value = "2s",
          value_parser = duration, global = true)]
    pub leader_elect_retry_period: Duration,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "LANDFALL_LISTEN", value_name = "ADDRESS", default_value_t = default_listen(), global = true)]
    pub listen: SocketAddr,
    /// What is logged: error, warn, info, debug, trace, or a filter such as landfall_controller=debug,info.
    #[arg(long, env = "LANDFALL_LOG_LEVEL", value_name = "LEVEL", default_value = "info", global = true)]
    pub log_level: String,
    /// How it is logged.
    #[arg(long, env = "LANDFALL_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
    /// How long a release waits for the announcer to confirm that it stopped.
    #[arg(long, env = "LANDFALL_WITHDRAWAL_BOUND", value_name = "DURATION", default_value = "10s",
          value_parser = duration, global = true)]
    pub withdrawal_bound: Duration,
    /// How long to wait between two addresses that are moved to another node to spread them evenly; 0s
    /// switches that off.
    #[arg(long, env = "LANDFALL_REBALANCE_INTERVAL", value_name = "DURATION", default_value = "10s",
          value_parser = duration, global = true)]
    pub rebalance_interval: Duration,
    /// How long a node must have been well before addresses are moved to it.
    #[arg(long, env = "LANDFALL_REBALANCE_SETTLE", value_name = "DURATION", default_value = "60s",
          value_parser = duration, global = true)]
    pub rebalance_settle: Duration,
    /// How many requests that write are sent per second at most, in the long run.
    #[arg(
        long,
        env = "LANDFALL_WRITE_RATE",
        value_name = "PER_SECOND",
        default_value = "2000",
        global = true
    )]
    pub write_rate: NonZeroU32,
    /// How many of them may follow each other without a pause.
    #[arg(long, env = "LANDFALL_WRITE_BURST", value_name = "COUNT", default_value = "2000", global = true)]
    pub write_burst: NonZeroU32,
    /// How many of them may be under way at once, each for another object.
    #[arg(
        long,
        env = "LANDFALL_WRITE_CONCURRENCY",
        value_name = "COUNT",
        default_value = "16",
        global = true
    )]
    pub write_concurrency: NonZeroUsize,
    /// How ExternalName Services are looked after.
    #[command(flatten)]
    pub external_names: ExternalNameOptions,
    /// For tests: `before:CreateVirtualIp:2` kills the process with SIGKILL before the second such effect.
    #[arg(long, env = "LANDFALL_FAULT_POINT", hide = true, global = true)]
    pub fault_point: Option<FaultPoint>,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The paces of the election cannot work together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--leader-elect-retry-period ({retry_period:?}) must be shorter than --leader-elect-renew-deadline \
     ({renew_deadline:?}), and that shorter than --leader-elect-lease-duration ({lease_duration:?}), which is \
     at least 1s"
)]
pub struct TimingError {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl Options {
    /// The paces of the election.
    ///
    /// # Errors
    /// The leader could not renew in time, or could go on writing after another took over.
    pub fn timing(&self) -> Result<Timing, TimingError> {
        let (lease_duration, renew_deadline, retry_period) = (
            self.leader_elect_lease_duration,
            self.leader_elect_renew_deadline,
            self.leader_elect_retry_period,
        );
        let ordered = retry_period < renew_deadline && renew_deadline < lease_duration;
        if ordered && !retry_period.is_zero() && lease_duration >= Duration::from_secs(1) {
            Ok(Timing { lease_duration, renew_deadline, retry_period })
        } else {
            Err(TimingError { lease_duration, renew_deadline, retry_period })
        }
    }

    /// The namespace of the Lease.
    pub fn lease_namespace(&self) -> String {
        let pod_namespace = || std::env::var("POD_NAMESPACE").ok();
        let chosen = self.leader_elect_namespace.clone().or_else(pod_namespace);
        chosen.filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "landfall-system".to_owned())
    }
}

fn default_listen() -> SocketAddr {
    // Both families: kubelets probe a pod at its first address, which may be of either.
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, landfall_crds::names::ports::CONTROLLER_HTTP))
}

/// Reads `10s`, `1m30s`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let signed = SignedDuration::from_str(text)
        .map_err(|error| format!("write a duration such as 10s or 500ms: {error}"))?;
    Duration::try_from(signed).map_err(|_| "the duration must not be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["landfall-controller"], arguments].concat())
    }

    #[test]
    fn with_no_flag_at_all_it_does_the_right_thing() {
        let cli = parse(&[]).unwrap();
        assert_eq!(cli.command, None);
        assert!(cli.options.default_class && cli.options.leader_elect);
        assert_eq!(cli.options.listen.to_string(), "[::]:7933");
        assert_eq!(cli.options.withdrawal_bound, Duration::from_secs(10));
        assert_eq!(cli.options.rebalance_interval, Duration::from_secs(10));
        assert_eq!(cli.options.rebalance_settle, Duration::from_secs(60));
        assert_eq!(cli.options.fault_point, None);
    }

    #[test]
    fn switches_are_turned_off_by_a_word() {
        let cli = parse(&["--default-class=false", "--leader-elect=false"]).unwrap();
        assert!(!cli.options.default_class && !cli.options.leader_elect);
        assert!(parse(&["--leader-elect"]).unwrap().options.leader_elect);
    }

    #[test]
    fn paces_of_the_election_that_cannot_work_are_refused() {
        assert!(parse(&[]).unwrap().options.timing().is_ok());
        let options = |arguments| parse(arguments).unwrap().options;
        assert!(options(&["--leader-elect-renew-deadline", "15s"]).timing().is_err());
        assert!(options(&["--leader-elect-retry-period", "10s"]).timing().is_err());
        assert!(options(&["--leader-elect-retry-period", "0s"]).timing().is_err());
    }

    #[test]
    fn uninstall_is_a_command_of_its_own() {
        assert_eq!(parse(&["uninstall"]).unwrap().command, Some(Command::Uninstall));
    }

    #[test]
    fn manifests_are_linted_by_a_command_that_wants_files() {
        let lint = parse(&["lint", "a.yaml", "-"]).unwrap().command;
        assert_eq!(lint, Some(Command::Lint { files: vec!["a.yaml".into(), "-".into()] }));
        assert!(parse(&["lint"]).is_err());
    }

    #[test]
    fn durations_are_written_with_their_unit() {
        assert_eq!(
            parse(&["--withdrawal-bound", "2500ms"]).unwrap().options.withdrawal_bound,
            Duration::from_millis(2500)
        );
        assert!(parse(&["--rebalance-interval", "0s"]).unwrap().options.rebalance_interval.is_zero());
        for bad in ["10", "-1s", "soon"] {
            assert!(parse(&["--withdrawal-bound", bad]).is_err(), "{bad} is refused");
        }
    }

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        use clap::CommandFactory;
        for argument in Cli::command().get_arguments() {
            let Some(flag) = argument.get_long().filter(|flag| !["help", "version"].contains(flag)) else {
                continue;
            };
            let variable = format!("LANDFALL_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        }
    }
}
