//! The two clients that measure what a move costs: one that knows the node, and one that never does.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;

use crate::lab::{
    Lab,
    probe::{ColdProber, ColdReport, Prober, Report},
};

/// Both at work, each with 200 packets a second to one address.
#[derive(Debug)]
pub struct Pair {
    address: IpAddr,
    warm: Prober,
    cold: ColdProber,
}

/// What both measured.
#[derive(Clone, Debug)]
pub struct Paired {
    /// The address.
    pub address: IpAddr,
    /// The client that knows the node: one flow of datagrams.
    pub warm: Report,
    /// The one that asks who has the address with every packet, and sends datagrams and opens TCP connections.
    pub cold: ColdReport,
}

impl Pair {
    /// Starts both: `c1` warm, `c2` cold.
    ///
    /// # Errors
    /// When the lab has not both.
    pub fn begin(lab: &Lab, address: IpAddr) -> Result<Self> {
        let target = (address, 80).into();
        let (warm, cold) = (lab.lan_client("c1")?.probe(target), lab.lan_client("c2")?.probe_cold(target));
        Ok(Self { address, warm, cold })
    }

    /// The address that both talk to.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Ends both.
    ///
    /// # Errors
    /// When one could not send at all.
    pub fn finish(self) -> Result<Paired> {
        Ok(Paired { address: self.address, warm: self.warm.finish()?, cold: self.cold.finish()? })
    }
}

impl Paired {
    /// How many packets neither got an answer to.
    pub fn lost(&self) -> u64 {
        self.warm.lost() + self.cold.packets.lost()
    }

    /// How many packets both sent.
    pub fn sent(&self) -> u64 {
        self.warm.sent + self.cold.packets.sent
    }

    /// For how long two nodes answered who has the address.
    pub fn split(&self) -> Duration {
        self.cold.seen.longest_split()
    }

    /// The longest time in which one of them had no answer.
    pub fn longest_gap(&self) -> Duration {
        self.warm.longest_gap.max(self.cold.packets.longest_gap)
    }
}

impl std::fmt::Display for Paired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: warm: {}; cold: {}", self.address, self.warm, self.cold)
    }
}
