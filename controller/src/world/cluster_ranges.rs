//! The addresses that the cluster gives to Services and pods inside, where they can be known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use landfall_crds::address::{AddressRange, AddressSet};

/// The ranges of ClusterIPs, by ServiceCIDR object (served from Kubernetes 1.33 on, KEP-1880).
#[derive(Debug, Default)]
pub struct ServiceRanges {
    known: BTreeMap<String, Vec<IpNet>>,
    pub(crate) listed: bool,
}

impl ServiceRanges {
    /// Takes in an object. Returns whether its ranges have changed.
    pub fn put(&mut self, object: &ServiceCIDR) -> bool {
        let name = object.metadata.name.clone().unwrap_or_default();
        let texts = object.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
        let ranges: Vec<IpNet> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        if self.known.get(&name) == Some(&ranges) {
            return false;
        }
        self.known.insert(name, ranges);
        true
    }

    /// Forgets an object. Returns whether it was known.
    pub fn remove(&mut self, name: &str) -> bool {
        self.known.remove(name).is_some()
    }

    /// The names of all objects.
    pub fn names(&self) -> BTreeSet<String> {
        self.known.keys().cloned().collect()
    }

    /// Whether the address lies in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.known.values().flatten().any(|range| range.contains(&address))
    }

    /// All ranges.
    pub fn all(&self) -> AddressSet {
        set_of(self.known.values().flatten())
    }
}

/// The addresses of some networks.
pub fn set_of<'a>(networks: impl IntoIterator<Item = &'a IpNet>) -> AddressSet {
    networks.into_iter().map(|network| AddressRange::from(network.trunc())).collect()
}
