//! Addresses that Services with sharing keys are just being given. Others with the same key wait until that is
//! done, since they may then be there too; but only those who could.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use landfall_crds::VirtualIPSpec;

use crate::world::virtual_ips::{SharingKey, sharing_keys_in};

/// What is being written about addresses on which others may come to be.
#[derive(Debug, Default)]
pub struct Sharers {
    specs: BTreeMap<IpAddr, VirtualIPSpec>,
    by_key: BTreeMap<SharingKey, BTreeSet<IpAddr>>,
}

impl Sharers {
    /// Notes what the VirtualIP of an address is about to say, if somebody on it shares.
    pub(crate) fn put(&mut self, address: IpAddr, spec: &VirtualIPSpec) {
        self.remove(address);
        let keys = sharing_keys_in(spec);
        if keys.is_empty() {
            return;
        }
        for key in keys {
            self.by_key.entry(key).or_default().insert(address);
        }
        self.specs.insert(address, spec.clone());
    }

    /// It has been written, or never will be. Returns by which keys others may have waited for that.
    pub(crate) fn remove(&mut self, address: IpAddr) -> Vec<SharingKey> {
        let Some(spec) = self.specs.remove(&address) else { return Vec::new() };
        let keys = sharing_keys_in(&spec);
        for key in &keys {
            if let Some(addresses) = self.by_key.get_mut(key) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        keys
    }

    /// What the VirtualIP of an address is about to say.
    pub fn get(&self, address: IpAddr) -> Option<&VirtualIPSpec> {
        self.specs.get(&address)
    }

    /// The addresses that Services of a namespace are being given by the key.
    pub fn with(&self, key: &SharingKey) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_key.get(key).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_crds::{Claim, ClaimSharing};

    #[test]
    fn an_address_is_found_by_the_key_of_each_namespace_on_it_until_it_is_written() {
        let claim = |namespace: &str, key: Option<&str>| Claim {
            namespace: namespace.into(),
            sharing: key.map(|key| ClaimSharing { key: key.into(), selector: None }),
            ..Claim::default()
        };
        let spec = |claims: Vec<Claim>| VirtualIPSpec { claims, ..VirtualIPSpec::default() };
        let key = |namespace: &str, key: &str| SharingKey { namespace: namespace.into(), key: key.into() };
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut sharers = Sharers::default();
        let both = [claim("shop", Some("k")), claim("office", Some("k")), claim("shop", Some("k"))];
        sharers.put(a, &spec(both.to_vec()));
        sharers.put(b, &spec(vec![claim("shop", None)]));
        for namespace in ["shop", "office"] {
            assert_eq!(sharers.with(&key(namespace, "k")).collect::<Vec<_>>(), [a]);
        }
        assert_eq!(sharers.with(&key("lab", "k")).count() + sharers.with(&key("shop", "l")).count(), 0);
        assert!(sharers.get(a).is_some() && sharers.get(b).is_none(), "nobody can come to be there");
        assert_eq!(sharers.remove(a), [key("office", "k"), key("shop", "k")]);
        assert_eq!(sharers.with(&key("shop", "k")).count(), 0);
        assert!(sharers.remove(a).is_empty());
    }
}
