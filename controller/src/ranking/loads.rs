//! How often each node stands first, and who stands second behind it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use landfall_crds::Placement;

/// The first two places of every address.
#[derive(Debug, Default)]
pub struct Loads {
    places: BTreeMap<IpAddr, (String, Option<String>)>,
    firsts: BTreeMap<String, u32>,
    seconds: BTreeMap<String, u32>,
    /// By first, then by second.
    pairs: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Loads {
    /// Notes the order of an address, or that it has none.
    pub fn set(&mut self, address: IpAddr, placement: Option<&Placement>) {
        let mut nodes = placement.into_iter().flat_map(|placement| &placement.candidates);
        let places =
            nodes.next().map(|first| (first.node.clone(), nodes.next().map(|node| node.node.clone())));
        if self.places.get(&address) == places.as_ref() {
            return;
        }
        if let Some((first, second)) = self.places.remove(&address) {
            decrease(&mut self.firsts, &first);
            if let Some(second) = second {
                decrease(&mut self.seconds, &second);
                if let Some(of_first) = self.pairs.get_mut(&first) {
                    decrease(of_first, &second);
                }
            }
        }
        if let Some((first, second)) = &places {
            *self.firsts.entry(first.clone()).or_default() += 1;
            if let Some(second) = second {
                *self.seconds.entry(second.clone()).or_default() += 1;
                *self.pairs.entry(first.clone()).or_default().entry(second.clone()).or_default() += 1;
            }
        }
        if let Some(places) = places {
            self.places.insert(address, places);
        }
    }

    /// Whether no address has a place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many addresses the node stands first for.
    pub fn firsts(&self, node: &str) -> u32 {
        self.firsts.get(node).copied().unwrap_or(0)
    }

    /// How many addresses the node stands second for.
    pub fn seconds(&self, node: &str) -> u32 {
        self.seconds.get(node).copied().unwrap_or(0)
    }

    /// How many of the addresses of `first` would go to `second`.
    pub fn pairs(&self, first: &str, second: &str) -> u32 {
        self.pairs.get(first).and_then(|of_first| of_first.get(second)).copied().unwrap_or(0)
    }
}

fn decrease(counts: &mut BTreeMap<String, u32>, node: &str) {
    if let Some(count) = counts.get_mut(node) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(node);
        }
    }
}
