//! Tells a person when somebody begins to be refused, and not of every packet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::frontend::{Port, ServiceName};
use super::wanted::Wanted;

/// A Service is told of again after so long.
const QUIET: Duration = Duration::from_secs(60);
/// In that time no more Services than this are told of.
const SERVICES: usize = 20;

/// A packet that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it came from.
    pub source: IpAddr,
    /// Where it went.
    pub destination: IpAddr,
    /// The port, where it had one.
    pub port: Option<Port>,
}

/// Somebody is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whose source ranges do not hold the source.
    pub service: ServiceName,
    /// Who is refused, the first one.
    pub source: IpAddr,
    /// The address that was asked for; a node's own for a port of the node.
    pub destination: IpAddr,
    /// The port, where the packet had one.
    pub port: Option<Port>,
    /// Whether that is a port of the node.
    pub is_node_port: bool,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, source, destination, port, is_node_port } = self;
        write!(f, "{source} is refused at ")?;
        match port {
            Some(port) if *is_node_port => write!(f, "nodePort {port} of {destination}")?,
            Some(port) => write!(f, "{port} of {destination}")?,
            None => write!(f, "{destination}")?,
        }
        write!(f, ": the source ranges of {service} do not hold it")
    }
}

#[derive(Debug, Default)]
pub(super) struct Notices {
    told: BTreeMap<ServiceName, Instant>,
}

impl Notices {
    /// What to tell of a packet, if anything.
    pub(super) fn take(&mut self, now: Instant, refused: &Refused, wanted: &Wanted) -> Option<Notice> {
        let Refused { source, destination, port } = *refused;
        let (service, is_node_port) = match wanted.frontend(destination) {
            Some(frontend) => {
                let server = port.and_then(|port| frontend.server(port));
                (server.or_else(|| frontend.claims().first())?.service.clone(), false)
            }
            None => (wanted.node_port_of(port?)?.clone(), true),
        };
        self.told.retain(|_, at| now < *at + QUIET);
        if self.told.contains_key(&service) || self.told.len() >= SERVICES {
            return None;
        }
        self.told.insert(service.clone(), now);
        Some(Notice { service, source, destination, port, is_node_port })
    }
}
