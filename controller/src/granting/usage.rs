//! How many addresses of each pool each namespace uses, for quotas.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::world::store::Index;

/// A pool and a namespace that uses an address of it.
type Use = (Arc<str>, Arc<str>);

/// A namespace that uses one address of a pool more or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UseChange {
    /// The pool.
    pub pool: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// Whether it uses one less.
    pub less: bool,
}

/// Who uses which address, counted.
#[derive(Debug, Default)]
pub struct Usage {
    of_address: Index<IpAddr, Vec<Use>>,
    /// By pool, then by namespace.
    counts: BTreeMap<Arc<str>, BTreeMap<Arc<str>, i64>>,
    /// Every name once, since there are many addresses and few names.
    names: BTreeSet<Arc<str>>,
}

impl Usage {
    /// Makes room for so many addresses.
    pub(crate) fn reserve(&mut self, number: usize) {
        self.of_address.reserve(number.saturating_sub(self.of_address.len()));
    }

    /// Notes who uses an address: pools and namespaces, each pair once. Returns whose counts have changed.
    pub fn set(&mut self, address: IpAddr, users: &BTreeSet<(&str, &str)>) -> Vec<UseChange> {
        let known = self.of_address.get(&address).map(Vec::as_slice).unwrap_or_default();
        let is_same = known.len() == users.len()
            && known.iter().zip(users).all(|((pool, by), user)| (&**pool, &**by) == *user);
        if is_same {
            return Vec::new();
        }
        let before = self.of_address.remove(&address).unwrap_or_default();
        let after: Vec<Use> = users.iter().map(|(pool, by)| (self.name(pool), self.name(by))).collect();
        for (pool, by) in &after {
            *self.counts.entry(Arc::clone(pool)).or_default().entry(Arc::clone(by)).or_default() += 1;
        }
        for (pool, by) in &before {
            if let Some(of_pool) = self.counts.get_mut(pool)
                && let Some(count) = of_pool.get_mut(by)
            {
                *count -= 1;
                if *count == 0 {
                    of_pool.remove(by);
                }
            }
        }
        let change = |(pool, namespace): &Use, less: bool| UseChange {
            pool: Arc::clone(pool),
            namespace: Arc::clone(namespace),
            less,
        };
        let gone = before.iter().filter(|known| !after.contains(known)).map(|known| change(known, true));
        let come = after.iter().filter(|known| !before.contains(known)).map(|known| change(known, false));
        let changes = gone.chain(come).collect();
        if !after.is_empty() {
            self.of_address.insert(address, after);
        }
        changes
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
        let told = |changes: Vec<UseChange>| {
            let told = changes.iter().map(|change| format!("{} {}", change.namespace, change.less));
            told.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(told(usage.set(a, &[("lan", "shop")].into())), "shop false");
        // Two namespaces share it.
        let both = [("lan", "office"), ("lan", "shop")].into();
        assert_eq!(told(usage.set(b, &both)), "office false, shop false");
        assert_eq!((usage.count("lan", "shop"), usage.count("lan", "office")), (2, 1));
        assert!(usage.counts(b, "lan", "office") && !usage.counts(a, "lan", "office"));
        assert_eq!(told(usage.set(b, &both)), "");
        assert_eq!(told(usage.set(b, &[("lan", "office")].into())), "shop true");
        assert_eq!(told(usage.set(a, &BTreeSet::new())), "shop true");
        assert_eq!((usage.count("lan", "shop"), usage.count("lan", "office")), (0, 1));
    }
}
