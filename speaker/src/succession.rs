//! What a speaker leaves to the next process of its node, so that an upgrade moves nothing.
//!
//! The new process prepares beside the old one, and then the old one falls silent and hands this over. The new
//! one goes on as if it were the same: under the same instance, with the same sessions and numbers, answering
//! for the same addresses. Peers and clients notice nothing. What can be learned again within a moment is not
//! handed over: what peers say, and who is alive is heard with the next heartbeat.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lan::{LinkIndex, NodeName};
use crate::ownership::claim::Claim;

/// Raised when a process of an older version could not go on from this. Fields may be added without that.
pub const VERSION: u32 = 1;

/// Everything that is handed over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inheritance {
    /// [`VERSION`] of the process that wrote it.
    pub version: u32,
    /// The number by which peers know the process.
    pub instance: u64,
    /// The counter of the next seal.
    pub seal: u64,
    /// What the node lacked to serve what it announces, in the bits of `Gates`.
    pub gates: u16,
    /// How often what is said of addresses has changed.
    pub sequence: u64,
    /// The addresses that are announced.
    pub holdings: Vec<Holding>,
    /// The sessions with peers.
    pub sessions: Vec<Session>,
    /// The connections that are kept for a former announcer.
    #[serde(default)]
    pub detours: Vec<KeptConnections>,
}

/// An address that is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// The address.
    pub address: IpAddr,
    /// By what right.
    pub claim: Claim,
    /// The indices of the links on which it is.
    pub links: Vec<u32>,
}

/// Connections of an address that are sent on to the node that announced it before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptConnections {
    /// The address.
    pub address: IpAddr,
    /// That node.
    pub from: String,
    /// The index of the link to it.
    pub link: u32,
    /// Its address there.
    pub via: IpAddr,
    /// For how much longer.
    pub left: Duration,
}

/// A session with a peer on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The index of the link.
    pub link: u32,
    /// The peer.
    pub node: String,
    /// How long ago the peer was heard, if it is alive.
    pub heard_ago: Option<Duration>,
    /// The peer's process, as it named itself last, and the largest counter of its seals.
    pub process: Option<(u64, Option<u64>)>,
    /// What the session itself remembers.
    pub bfd: Bfd,
}

/// What a session of BFD remembers (RFC 5880 section 6.8.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bfd {
    /// bfd.LocalDiscr.
    pub discriminator: u32,
    /// bfd.SessionState is Up.
    pub is_up: bool,
    /// bfd.XmitAuthSeq.
    pub next_sequence: u32,
    /// bfd.RemoteDiscr.
    pub remote: Option<u32>,
    /// The peer's discriminator that is proven to be its own.
    pub proven: Option<u32>,
    /// The peer's latest sequence numbers, by its discriminators.
    pub seen: Vec<(u32, u32)>,
}

impl Session {
    /// By which a session is known.
    pub fn key(&self) -> (LinkIndex, NodeName) {
        (LinkIndex(self.link), self.node.as_str().into())
    }
}
