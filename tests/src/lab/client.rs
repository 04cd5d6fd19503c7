//! A host on the LAN that is no member of the cluster.

use std::net::IpAddr;

use anyhow::Result;

use super::{
    namespace::{Namespace, host_sysctls},
    plan::{Addresses, Lan, Mac},
    switch::Switch,
};

/// A client on the LAN: `c1`, `c2`, … What it can measure: [`super::probe`].
#[derive(Clone, Debug)]
pub struct LanClient {
    namespace: Namespace,
    addresses: Addresses,
}

impl LanClient {
    pub(crate) fn create(number: u8, switch: &Switch) -> Result<Self> {
        let namespace = Namespace::create(&format!("c{number}"), host_sysctls)?;
        let addresses = Addresses::of_client(number);
        switch.plug(&namespace, &addresses)?;
        Ok(Self { namespace, addresses })
    }

    /// The interface that is measured from.
    pub fn interface(&self) -> &'static str {
        Lan::First.interface()
    }

    /// The client's name, as the switch's ports know it.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its addresses on the LAN.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The MAC address of its interface.
    pub fn mac(&self) -> Mac {
        self.addresses.mac()
    }

    /// Its namespace, to run things in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Gives the client one more address, off the LAN's subnet, and tells the
    /// LAN's router that it is on this link: `142.43.0.9`.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn add_address(&self, address: IpAddr) -> Result<()> {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        self.namespace.ip(&[format!(
            "addr replace {address}/{prefix} dev {} {}",
            self.interface(),
            nodad(address)
        )])?;
        Namespace::of_the_lab().ip(&[format!("route replace {address}/{prefix} dev br0")])
    }

    /// Tells the client that a destination off its subnets is on its link:
    /// `13.12.21.31`; it asks by ARP or NDP for it. `from` is the address it uses then.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn add_on_link_route(&self, destination: &str, from: Option<IpAddr>) -> Result<()> {
        let source = from.map(|address| format!(" src {address}")).unwrap_or_default();
        self.namespace.ip(&[format!("route replace {destination} dev {}{source}", self.interface())])
    }

    /// Gives the client a route by way of another host: `10.96.0.0/16` via a node.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn add_route(&self, destination: &str, via: IpAddr) -> Result<()> {
        self.namespace.ip(&[format!("route replace {destination} via {via}")])
    }
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "nodad" } else { "" }
}
