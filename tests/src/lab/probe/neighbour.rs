//! A client's neighbour table: whom it takes for the owner of an address.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::lab::{LanClient, plan::Mac};

/// An entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The MAC address it has for it; none while it asks, or in vain.
    pub mac: Option<Mac>,
    /// The kernel's words: `REACHABLE`, `STALE`, `DELAY`, `PROBE`, `INCOMPLETE`, `FAILED`.
    pub state: String,
}

#[derive(Deserialize)]
struct Entry {
    lladdr: Option<String>,
    #[serde(default)]
    state: Vec<String>,
}

impl LanClient {
    /// The client's entry for an address.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn neighbour(&self, address: IpAddr) -> Result<Option<Neighbour>> {
        let shown = self
            .namespace()
            .run("ip", &["-j", "neigh", "show", "to", &address.to_string(), "dev", self.interface()])?;
        let entries: Vec<Entry> =
            if shown.trim().is_empty() { Vec::new() } else { serde_json::from_str(&shown)? };
        let Some(entry) = entries.into_iter().next() else { return Ok(None) };
        let mac = entry.lladdr.map(|text| text.parse()).transpose()?;
        Ok(Some(Neighbour { mac, state: entry.state.join(" ") }))
    }

    /// Makes the client forget an address, so that it has to ask again.
    ///
    /// # Errors
    /// When the entry is still there.
    pub fn forget(&self, address: IpAddr) -> Result<()> {
        let _was_absent =
            self.namespace().run("ip", &["neigh", "del", &address.to_string(), "dev", self.interface()]);
        let left = self.neighbour(address)?;
        // The kernel may keep an entry for as long as somebody waits for it, without an answer in it.
        ensure!(left.as_ref().is_none_or(|entry| entry.mac.is_none()), "{} still has {left:?}", self.name());
        Ok(())
    }
}
