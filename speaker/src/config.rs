//! What a person may set: flags, each of them also an environment variable. Without any, all is right.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use landfall_crds::names::ports;

/// Announces the addresses of LoadBalancer Services on the LAN of its node.
#[derive(Clone, Debug, Parser)]
#[command(name = "landfall-speaker", version, about)]
pub struct Options {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The name of the Node that this speaker runs on.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Where the speaker keeps what it knows, so that it can restart while the API server is away.
    #[arg(long, env = "LANDFALL_STATE_DIR", value_name = "FOLDER", default_value = "/var/lib/landfall")]
    pub state_dir: PathBuf,
    /// Where the keys are by which speakers know each other, as a Secret is mounted. Without any, nobody is asked
    /// who he is.
    #[arg(long, env = "LANDFALL_KEYS_DIR", value_name = "FOLDER", default_value = "/etc/landfall/keys")]
    pub keys_dir: PathBuf,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "LANDFALL_LISTEN", value_name = "ADDRESS", default_value_t = default_listen())]
    pub listen: SocketAddr,
    /// The UDP port on which speakers talk to each other; the same on all nodes.
    #[arg(long, env = "LANDFALL_LAN_PORT", value_name = "PORT", default_value_t = ports::SPEAKER_LAN)]
    pub lan_port: u16,
    /// Names or globs of the interfaces to announce on, comma separated. Without it: those that carry a
    /// default route, and all others with a subnet of their own that are no bridge, tunnel or overlay. A
    /// pool's announce.interfaces may add to either.
    #[arg(long, env = "LANDFALL_INTERFACES", value_name = "NAMES", value_delimiter = ',')]
    pub interfaces: Vec<String>,
    /// Where kube-proxy on this node says how it is; `none` where there is no kube-proxy. A node whose kube-proxy
    /// is not well announces only what no better node can.
    #[arg(long, env = "LANDFALL_KUBE_PROXY_HEALTHZ", value_name = "ADDRESS", default_value = "127.0.0.1:10256",
          value_parser = address_or_none)]
    kube_proxy_healthz: AddressOrNone,
    /// How often speakers tell each other that they live.
    #[arg(long, env = "LANDFALL_HEARTBEAT_INTERVAL", value_name = "DURATION", default_value = "100ms",
          value_parser = heartbeat_interval)]
    pub heartbeat_interval: Duration,
    /// After how many heartbeats that do not come a speaker is dead.
    #[arg(long, env = "LANDFALL_DETECT_MULTIPLIER", value_name = "COUNT", default_value = "3")]
    pub detect_multiplier: NonZeroU8,
    /// What is logged: error, warn, info, debug, trace, or a filter such as landfall_speaker=debug,info.
    #[arg(long, env = "LANDFALL_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// How it is logged.
    #[arg(long, env = "LANDFALL_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// What to do instead of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Remove what the speaker of this node leaves in its kernel when it ends: the table of the packet filter.
    /// From then on Services with source ranges are open to all.
    Cleanup,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// The speaker was not told where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "NODE_NAME is not set: a speaker must know the name of its Node. In a pod take it from the downward API \
     (fieldPath: spec.nodeName), by hand pass --node-name"
)]
pub struct NoNodeName;

/// An address, or the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AddressOrNone(Option<SocketAddr>);

impl Options {
    /// Where kube-proxy says how it is, if it is to be asked.
    pub fn kube_proxy_healthz(&self) -> Option<SocketAddr> {
        self.kube_proxy_healthz.0
    }

    /// The name of the Node that this speaker runs on.
    ///
    /// # Errors
    /// Nobody said it.
    pub fn node_name(&self) -> Result<&str, NoNodeName> {
        self.node_name.as_deref().map(str::trim).filter(|name| !name.is_empty()).ok_or(NoNodeName)
    }
}

fn default_listen() -> SocketAddr {
    // Both families: kubelets probe a pod at its first address, which may be of either.
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, ports::SPEAKER_HTTP))
}

fn address_or_none(text: &str) -> Result<AddressOrNone, String> {
    if text == "none" {
        return Ok(AddressOrNone(None));
    }
    let address =
        text.parse().map_err(|_| "must be an address and a port, such as 127.0.0.1:10256, or none")?;
    Ok(AddressOrNone(Some(address)))
}

/// A duration between 10 ms and 10 s, such as `100ms` or `1s`.
fn heartbeat_interval(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_millis(10)..=Duration::from_secs(10);
    let read = SignedDuration::from_str(text).map_err(|error| error.to_string())?;
    let read = Duration::try_from(read).map_err(|error| error.to_string())?;
    if allowed.contains(&read) { Ok(read) } else { Err("must lie between 10ms and 10s".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("landfall-speaker").chain(arguments.iter().copied()))
    }

    #[test]
    fn without_a_flag_all_is_right() {
        let options = options(&[]).unwrap();
        assert_eq!(options.listen.to_string(), "[::]:7932");
        assert_eq!(options.lan_port, 7931);
        assert_eq!(options.heartbeat_interval, Duration::from_millis(100));
        assert_eq!(options.detect_multiplier.get(), 3);
        assert!(options.interfaces.is_empty());
        assert_eq!(options.kube_proxy_healthz().unwrap().to_string(), "127.0.0.1:10256");
    }

    #[test]
    fn every_flag_is_an_environment_variable() {
        for argument in Options::command().get_arguments() {
            let env = argument.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
            let own = format!("LANDFALL_{}", argument.get_id().as_str().to_uppercase());
            let id = argument.get_id().as_str();
            assert!(env == own || id == "help" || id == "version" || env == "NODE_NAME", "{id}: {env}");
        }
    }

    #[test]
    fn a_node_without_a_name_is_told_how_to_get_one() {
        for arguments in [&[][..], &["--node-name", ""], &["--node-name", "  "]] {
            let error = options(arguments).unwrap().node_name().unwrap_err().to_string();
            assert!(error.contains("spec.nodeName"), "{error}");
        }
        assert_eq!(options(&["--node-name", "n1"]).unwrap().node_name(), Ok("n1"));
    }

    #[test]
    fn cleaning_up_needs_no_node_name() {
        assert_eq!(options(&["cleanup"]).unwrap().command, Some(Command::Cleanup));
        assert_eq!(options(&[]).unwrap().command, None);
        assert!(options(&["clean"]).is_err());
    }

    #[test]
    fn lists_and_durations_are_read_as_people_write_them() {
        let options = options(&["--interfaces", "eth0,bond*", "--heartbeat-interval", "1s"]).unwrap();
        assert_eq!(options.interfaces, ["eth0", "bond*"]);
        assert_eq!(options.heartbeat_interval, Duration::from_secs(1));
        assert_eq!(self::options(&["--kube-proxy-healthz", "none"]).unwrap().kube_proxy_healthz(), None);
        assert!(self::options(&["--kube-proxy-healthz", "localhost"]).is_err());
        for wrong in ["1", "1ms", "-1s", "1h"] {
            assert!(self::options(&["--heartbeat-interval", wrong]).is_err(), "{wrong}");
        }
    }
}
