//! How often each node stands first, and who stands second behind it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use landfall_crds::Placement;

use crate::world::store::Index;

/// The first two places of every address.
#[derive(Debug, Default)]
pub struct Loads {
    places: Index<IpAddr, (String, Option<String>)>,
    nodes: BTreeMap<String, Load>,
}

/// The places of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many addresses it stands first for.
    pub firsts: u32,
    /// How many addresses it stands second for.
    pub seconds: u32,
    /// Who stands second behind it, and for how many addresses.
    pub heirs: BTreeMap<String, u32>,
}

impl Loads {
    /// Notes the order of an address, or that it has none.
    pub fn set(&mut self, address: IpAddr, placement: Option<&Placement>) {
        let mut nodes = placement.into_iter().flat_map(|placement| &placement.candidates);
        let first = nodes.next().map(|first| first.node.as_str());
        let second = nodes.next().map(|second| second.node.as_str());
        let known = self.places.get(&address).map(|(first, second)| (first.as_str(), second.as_deref()));
        if known == first.map(|first| (first, second)) {
            return;
        }
        if let Some((first, second)) = self.places.remove(&address) {
            self.change(&first, |load| {
                load.firsts -= 1;
                if let Some(second) = &second {
                    load.loses_heir(second);
                }
            });
            if let Some(second) = second {
                self.change(&second, |load| load.seconds -= 1);
            }
        }
        if let Some(first) = first {
            self.change(first, |load| {
                load.firsts += 1;
                if let Some(second) = second {
                    *load.heirs.entry(second.to_owned()).or_default() += 1;
                }
            });
            if let Some(second) = second {
                self.change(second, |load| load.seconds += 1);
            }
            self.places.insert(address, (first.to_owned(), second.map(str::to_owned)));
        }
    }

    /// Makes room for so many addresses.
    pub(crate) fn reserve(&mut self, number: usize) {
        self.places.reserve(number.saturating_sub(self.places.len()));
    }

    /// Whether no address has a place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many addresses the node stands first for.
    pub fn firsts(&self, node: &str) -> u32 {
        self.of(node).map_or(0, |load| load.firsts)
    }

    /// How many addresses the node stands second for.
    pub fn seconds(&self, node: &str) -> u32 {
        self.of(node).map_or(0, |load| load.seconds)
    }

    /// How many of the addresses of `first` would go to `second`.
    pub fn pairs(&self, first: &str, second: &str) -> u32 {
        self.of(first).map_or(0, |load| load.inherited_by(second))
    }

    /// The load of a node; nothing where it has none.
    pub fn of(&self, node: &str) -> Option<&Load> {
        self.nodes.get(node)
    }

    fn change(&mut self, node: &str, change: impl FnOnce(&mut Load)) {
        if let Some(load) = self.nodes.get_mut(node) {
            change(load);
            if *load == Load::default() {
                self.nodes.remove(node);
            }
        } else {
            change(self.nodes.entry(node.to_owned()).or_default());
        }
    }
}

impl Load {
    /// How many addresses the node would inherit from this one.
    pub fn inherited_by(&self, node: &str) -> u32 {
        self.heirs.get(node).copied().unwrap_or(0)
    }

    fn loses_heir(&mut self, node: &str) {
        if let Some(count) = self.heirs.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                self.heirs.remove(node);
            }
        }
    }
}
