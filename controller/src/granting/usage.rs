//! How many addresses of each pool each namespace uses, for quotas.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A pool and a namespace that uses an address of it.
type Use = (Arc<str>, Arc<str>);

/// Who uses which address, counted.
#[derive(Debug, Default)]
pub struct Usage {
    of_address: BTreeMap<IpAddr, Vec<Use>>,
    /// By pool, then by namespace.
    counts: BTreeMap<Arc<str>, BTreeMap<Arc<str>, i64>>,
    /// Every name once, since there are many addresses and few names.
    names: BTreeSet<Arc<str>>,
}

impl Usage {
    /// Notes who uses an address: pools and namespaces, each pair once. Returns whether somebody now
    /// uses less.
    pub fn set(&mut self, address: IpAddr, users: &BTreeSet<(&str, &str)>) -> bool {
        let known = self.of_address.get(&address).map(Vec::as_slice).unwrap_or_default();
        let is_same = known.len() == users.len()
            && known.iter().zip(users).all(|((pool, by), user)| (&**pool, &**by) == *user);
        if is_same {
            return false;
        }
        let before = self.of_address.remove(&address).unwrap_or_default();
        let after: Vec<Use> = users.iter().map(|(pool, by)| (self.name(pool), self.name(by))).collect();
        for (pool, by) in &after {
            *self.counts.entry(Arc::clone(pool)).or_default().entry(Arc::clone(by)).or_default() += 1;
        }
        let mut less = false;
        for (pool, by) in &before {
            less |= !after.contains(&(Arc::clone(pool), Arc::clone(by)));
            if let Some(of_pool) = self.counts.get_mut(pool)
                && let Some(count) = of_pool.get_mut(by)
            {
                *count -= 1;
                if *count == 0 {
                    of_pool.remove(by);
                }
            }
        }
        if !after.is_empty() {
            self.of_address.insert(address, after);
        }
        less
    }

    /// How many addresses of the pool the namespace uses.
    pub fn count(&self, pool: &str, namespace: &str) -> i64 {
        self.counts.get(pool).and_then(|of_pool| of_pool.get(namespace)).copied().unwrap_or(0)
    }

    /// Whether this address counts as the namespace's use of the pool already.
    pub fn counts(&self, address: IpAddr, pool: &str, namespace: &str) -> bool {
        let users = self.of_address.get(&address).map(Vec::as_slice).unwrap_or_default();
        users.iter().any(|(of, by)| &**of == pool && &**by == namespace)
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return Arc::clone(known);
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_every_change() {
        let mut usage = Usage::default();
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert!(!usage.set(a, &[("lan", "shop")].into()));
        assert!(!usage.set(b, &[("lan", "office"), ("lan", "shop")].into()), "two namespaces share it");
        assert_eq!((usage.count("lan", "shop"), usage.count("lan", "office")), (2, 1));
        assert!(usage.counts(b, "lan", "office") && !usage.counts(a, "lan", "office"));
        assert!(!usage.set(b, &[("lan", "office"), ("lan", "shop")].into()));
        assert!(usage.set(b, &[("lan", "office")].into()));
        assert!(usage.set(a, &BTreeSet::new()));
        assert_eq!((usage.count("lan", "shop"), usage.count("lan", "office")), (0, 1));
    }
}
