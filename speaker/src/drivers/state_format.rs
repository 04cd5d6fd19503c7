//! The books as the state file holds them. What a newer speaker adds, an older one passes over; what an older one did
//! not write, a newer one takes for nothing.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use landfall_crds::{Fallback, Protocol};
use serde::{Deserialize, Serialize};

use super::books::Books;
use crate::filter::frontend::{Claim, Frontend, Guard, Port, ServiceName};
use crate::filter::sources::Sources;
use crate::lan::{PeerInfo, PeerLink, Vip};

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) node: String,
    /// Of the rest of the file, in hexadecimal digits. Versions that this one does not read may have another.
    #[serde(default)]
    pub(super) sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stored {
    vips: Vec<StoredVip>,
    peers: Vec<StoredPeer>,
    #[serde(default)]
    guards: Vec<StoredGuard>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredVip {
    address: IpAddr,
    claimed: bool,
    epoch: i64,
    candidates: Vec<String>,
    interfaces: Vec<String>,
    fallback: Fallback,
    last_term: u64,
    announced_before: bool,
    #[serde(default)]
    health_checks: Vec<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    claims: Vec<StoredClaim>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<StoredPort>,
}

#[derive(Serialize, Deserialize)]
struct StoredClaim {
    service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredPort {
    protocol: Protocol,
    number: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    service: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredGuard {
    service: String,
    uid: String,
    digest: String,
    former: Vec<String>,
    ranges: Vec<String>,
    node_ports: Vec<StoredPort>,
    closed: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredPeer {
    node: String,
    links: Vec<StoredLink>,
}

#[derive(Serialize, Deserialize)]
struct StoredLink {
    mac: String,
    subnets: Vec<String>,
    addresses: Vec<IpAddr>,
    address: Option<IpAddr>,
}

impl Stored {
    /// The books as they are stored.
    pub(super) fn of(books: &Books) -> Self {
        Self {
            vips: books.vips.values().map(|vip| StoredVip::of(vip, books)).collect(),
            guards: books.guards.iter().map(|(service, guard)| StoredGuard::of(service, guard)).collect(),
            peers: books.peers.values().map(Into::into).collect(),
        }
    }

    /// The books.
    pub(super) fn into_books(self) -> Books {
        Books {
            frontends: self.vips.iter().map(|vip| (vip.address, Arc::new(vip.frontend()))).collect(),
            guards: self.guards.into_iter().map(StoredGuard::guard).collect(),
            vips: self.vips.into_iter().map(|vip| (vip.address, vip.into())).collect(),
            peers: self.peers.into_iter().map(|peer| (peer.node.as_str().into(), peer.into())).collect(),
        }
    }
}

impl StoredVip {
    fn of(vip: &Vip, books: &Books) -> Self {
        let frontend = books.frontends.get(&vip.address);
        let claim = |claim: &Claim| StoredClaim {
            service: claim.service.to_string(),
            guard: claim.guard.as_deref().map(str::to_owned),
        };
        let ports = frontend.into_iter().flat_map(|frontend| frontend.ports());
        Self {
            claims: frontend.into_iter().flat_map(|frontend| frontend.claims()).map(claim).collect(),
            ports: ports.map(|(port, claim)| StoredPort::of(port, claim.service.to_string())).collect(),
            address: vip.address,
            claimed: vip.claimed,
            epoch: vip.epoch,
            candidates: vip.candidates.iter().map(ToString::to_string).collect(),
            interfaces: vip.interfaces.clone(),
            fallback: vip.fallback,
            last_term: vip.last_term,
            announced_before: vip.announced_before,
            health_checks: vip.health_checks.clone(),
        }
    }

    fn frontend(&self) -> Frontend {
        let claim = |claim: &StoredClaim| Claim {
            service: claim.service.as_str().into(),
            guard: claim.guard.as_deref().map(Into::into),
        };
        let ports = self.ports.iter().map(|port| (port.port(), port.service.as_str().into()));
        Frontend::new(self.claims.iter().map(claim).collect(), ports)
    }
}

impl StoredPort {
    fn of(Port { protocol, number }: Port, service: String) -> Self {
        Self { protocol, number, service }
    }

    fn port(&self) -> Port {
        Port { protocol: self.protocol, number: self.number }
    }
}

impl StoredGuard {
    fn of(service: &ServiceName, guard: &Guard) -> Self {
        Self {
            service: service.to_string(),
            uid: guard.uid.clone(),
            digest: guard.digest.clone(),
            former: guard.former.clone(),
            ranges: guard.ranges.clone(),
            node_ports: guard.node_ports.iter().map(|port| StoredPort::of(*port, String::new())).collect(),
            closed: guard.closed.clone(),
        }
    }

    fn guard(self) -> (ServiceName, Arc<Guard>) {
        let Self { service, uid, digest, former, ranges, node_ports, closed } = self;
        let ranges_read = Sources::parse(ranges.iter().map(String::as_str));
        let closed = closed.or_else(|| ranges_read.as_ref().err().map(ToString::to_string));
        let sources = ranges_read.ok().filter(|_| closed.is_none()).unwrap_or_default();
        let node_ports = node_ports.iter().map(StoredPort::port).collect();
        let guard = Guard { uid, digest, former, sources, ranges, node_ports, closed };
        (service.as_str().into(), Arc::new(guard))
    }
}

impl From<StoredVip> for Vip {
    fn from(vip: StoredVip) -> Self {
        Self {
            guard: vip.frontend().asks().cloned(),
            address: vip.address,
            claimed: vip.claimed,
            epoch: vip.epoch,
            candidates: vip.candidates.iter().map(|node| node.as_str().into()).collect(),
            interfaces: vip.interfaces,
            fallback: vip.fallback,
            last_term: vip.last_term,
            announced_before: vip.announced_before,
            health_checks: vip.health_checks,
        }
    }
}

impl From<&PeerInfo> for StoredPeer {
    fn from(peer: &PeerInfo) -> Self {
        let links = peer.links.iter().map(|link| StoredLink {
            mac: link.mac.to_string(),
            subnets: link.subnets.iter().map(ToString::to_string).collect(),
            addresses: link.addresses.clone(),
            address: link.address,
        });
        Self { node: peer.node.to_string(), links: links.collect() }
    }
}

impl From<StoredPeer> for PeerInfo {
    fn from(peer: StoredPeer) -> Self {
        let links = peer.links.into_iter().filter_map(|link| {
            Some(PeerLink {
                mac: link.mac.parse().ok()?,
                subnets: link.subnets.iter().filter_map(|text| text.parse::<IpNet>().ok()).collect(),
                addresses: link.addresses,
                address: link.address,
            })
        });
        Self { node: peer.node.as_str().into(), links: links.collect() }
    }
}
