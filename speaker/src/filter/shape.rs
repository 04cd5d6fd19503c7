//! Which sets of sources there are, and so which rules.

use std::collections::BTreeMap;

use super::sources::Family;

/// What a barrier stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// An address.
    Address,
    /// A port of an address.
    Port,
    /// A port of the node.
    NodePort,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Address, Self::Port, Self::NodePort];
}

/// What the rules look for. Packets pay for every lookup, so there are none that cannot find anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The prefix lengths of sources that are looked for, in that order.
    lengths: BTreeMap<(Level, Family), Vec<u8>>,
    /// Whether there are barriers before single ports.
    pub ports: bool,
    /// Whether there are barriers before ports of the node.
    pub node_ports: bool,
    /// Whether packets are told of: pings, which the speaker answers, and refused ones.
    pub log: bool,
}

impl Shape {
    /// One that looks for no source yet.
    pub fn new(ports: bool, node_ports: bool) -> Self {
        Self { ports, node_ports, ..Self::default() }
    }

    /// The same, which tells of packets or does not.
    pub fn telling(mut self, log: bool) -> Self {
        self.log = log;
        self
    }

    /// The prefix lengths that are looked for, in order.
    pub fn lengths(&self, level: Level, family: Family) -> &[u8] {
        self.lengths.get(&(level, family)).map_or(&[], Vec::as_slice)
    }

    /// Looks for a length as well, after all others.
    pub fn look_for(&mut self, level: Level, family: Family, length: u8) {
        let lengths = self.lengths.entry((level, family)).or_default();
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }

    /// All sets of sources that are looked into.
    pub fn sets(&self) -> impl Iterator<Item = (Level, Family, u8)> {
        self.lengths
            .iter()
            .flat_map(|((level, family), lengths)| lengths.iter().map(|length| (*level, *family, *length)))
    }

    /// Whether a set of sources is looked into.
    pub fn has(&self, level: Level, family: Family, length: u8) -> bool {
        self.lengths(level, family).contains(&length)
    }

    /// One that finds whatever either finds, first what this one finds first.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        other.sets().for_each(|(level, family, length)| both.look_for(level, family, length));
        both.ports |= other.ports;
        both.node_ports |= other.node_ports;
        both
    }

    /// Whether it finds whatever the other finds.
    pub fn covers(&self, other: &Self) -> bool {
        (self.ports || !other.ports)
            && (self.node_ports || !other.node_ports)
            && other.sets().all(|(level, family, length)| self.has(level, family, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_covers_another_finds_all_that_the_other_finds() {
        let shape = |lengths: &[u8], node_ports| {
            let mut shape = Shape { node_ports, ..Shape::default() };
            lengths.iter().for_each(|length| shape.look_for(Level::Address, Family::V4, *length));
            shape
        };
        assert!(shape(&[24, 8], false).covers(&shape(&[8], false)));
        assert!(!shape(&[24], true).covers(&shape(&[8], false)));
        assert!(!shape(&[24], false).covers(&shape(&[24], true)));
        let both = shape(&[24], false).and(&shape(&[8, 24], true));
        assert!(both.covers(&shape(&[8, 24], true)));
        assert_eq!(both.lengths(Level::Address, Family::V4), [24, 8]);
        assert!(both.lengths(Level::Address, Family::V6).is_empty());
    }
}
