//! The sets of the table: their names and what their elements consist of.

use std::fmt;

use super::shape::Level;
use super::sources::Family;

/// A set of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// The addresses whose barriers are up.
    Addresses(Family),
    /// The ports of addresses that are served; each counts what was let in.
    Ports(Family),
    /// The ports of addresses that have barriers of their own.
    Guarded(Family),
    /// The addresses that this node announces: it answers pings to them.
    Announced(Family),
    /// The ports of the node whose barriers are up.
    NodePorts,
    /// The sources of one prefix length that barriers of one level let in.
    Sources(Level, Family, u8),
    /// What was refused before addresses. The kernel adds to this set and to the following ones.
    RefusedAddresses(Family),
    /// What was refused before single ports of addresses.
    RefusedPorts(Family),
    /// What was refused before ports of the node.
    RefusedNodePorts,
    /// What was let in to ports of the node.
    NodePortTraffic,
}

impl Set {
    /// Those that every table has.
    pub const FIXED: [Self; 15] = [
        Self::Addresses(Family::V4),
        Self::Addresses(Family::V6),
        Self::Announced(Family::V4),
        Self::Announced(Family::V6),
        Self::Ports(Family::V4),
        Self::Ports(Family::V6),
        Self::Guarded(Family::V4),
        Self::Guarded(Family::V6),
        Self::NodePorts,
        Self::RefusedAddresses(Family::V4),
        Self::RefusedAddresses(Family::V6),
        Self::RefusedPorts(Family::V4),
        Self::RefusedPorts(Family::V6),
        Self::RefusedNodePorts,
        Self::NodePortTraffic,
    ];

    /// Whether the kernel itself adds the elements, which count.
    pub fn is_dynamic(self) -> bool {
        matches!(
            self,
            Self::RefusedAddresses(_)
                | Self::RefusedPorts(_)
                | Self::RefusedNodePorts
                | Self::NodePortTraffic
        )
    }

    /// Whether every element counts from its beginning.
    pub fn counts(self) -> bool {
        matches!(self, Self::Ports(_))
    }

    /// What its elements consist of.
    pub fn key(self) -> Vec<Part> {
        match self {
            Self::Addresses(family) | Self::Announced(family) | Self::RefusedAddresses(family) => {
                vec![Part::Address(family)]
            }
            Self::Ports(family) | Self::Guarded(family) | Self::RefusedPorts(family) => {
                vec![Part::Address(family), Part::Protocol, Part::Port]
            }
            Self::NodePorts | Self::RefusedNodePorts | Self::NodePortTraffic => {
                vec![Part::Protocol, Part::Port]
            }
            Self::Sources(level, family, _) => {
                let mut parts = match level {
                    Level::Address => vec![Part::Address(family)],
                    Level::Port => vec![Part::Address(family), Part::Protocol, Part::Port],
                    Level::NodePort => vec![Part::Protocol, Part::Port],
                };
                parts.push(Part::Address(family));
                parts
            }
        }
    }

    /// The set of that name.
    pub fn named(name: &str) -> Option<Self> {
        if let Some(fixed) = Self::FIXED.into_iter().find(|set| set.to_string() == name) {
            return Some(fixed);
        }
        let (stem, length) = name.split_once('/')?;
        let length = length.parse().ok()?;
        let all = Level::ALL.into_iter().flat_map(|level| Family::BOTH.map(|family| (level, family)));
        let set = all.map(|(level, family)| Self::Sources(level, family, length));
        set.into_iter().find(|set| set.to_string() == format!("{stem}/{length}"))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |family: &Family| match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        match self {
            Self::Addresses(family) => write!(f, "addresses{}", number(family)),
            Self::Announced(family) => write!(f, "announced{}", number(family)),
            Self::Ports(family) => write!(f, "ports{}", number(family)),
            Self::Guarded(family) => write!(f, "guarded{}", number(family)),
            Self::NodePorts => write!(f, "nodeports"),
            Self::Sources(level, family, length) => {
                let stem = match level {
                    Level::Address => "",
                    Level::Port => "port_",
                    Level::NodePort => "nodeport_",
                };
                write!(f, "{stem}sources{}/{length}", number(family))
            }
            Self::RefusedAddresses(family) => write!(f, "refused{}", number(family)),
            Self::RefusedPorts(family) => write!(f, "refused_ports{}", number(family)),
            Self::RefusedNodePorts => write!(f, "refused_nodeports"),
            Self::NodePortTraffic => write!(f, "nodeport_traffic"),
        }
    }
}

/// A part of a set's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An address.
    Address(Family),
    /// A transport protocol's number.
    Protocol,
    /// A port.
    Port,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_found_by_its_name() {
        let mut names = std::collections::BTreeSet::new();
        let lengths = (0..=128).step_by(4);
        let sources = lengths.flat_map(|length| {
            Level::ALL.map(|level| Family::BOTH.map(|family| Set::Sources(level, family, length)))
        });
        for set in Set::FIXED.into_iter().chain(sources.flatten()) {
            assert_eq!(Set::named(&set.to_string()), Some(set));
            assert!(names.insert(set.to_string()), "{set} twice");
        }
        for stranger in ["", "sources4", "sources4/x", "sources5/8", "addresses", "nodeport_sources4/"] {
            assert_eq!(Set::named(stranger), None, "{stranger}");
        }
    }
}
