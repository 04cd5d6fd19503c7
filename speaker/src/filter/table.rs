//! What the kernel's table holds, as a value: the elements of its sets, and the shape of its rules.
//!
//! A packet to an address of ours meets up to two barriers, that of the address and that of the port, and goes
//! on only to a port that is served; a packet to a nodePort meets one. A barrier that is up lets in the
//! sources that it holds and nobody else; one that is down, or is not there, restricts nobody. So every set
//! means the same at any time, whatever else changes, and each element can be added or removed by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::frontend::Port;
use super::shape::{Level, Shape};
use super::sources::{Family, Sources};

/// Where a barrier stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Before an address, with all its ports.
    Address(IpAddr),
    /// Before one port of an address, where not all ports let in the same.
    Port(IpAddr, Port),
    /// Before a port of the node, in both families.
    NodePort(Port),
}

impl Place {
    /// The level that it belongs to.
    pub fn level(self) -> Level {
        match self {
            Self::Address(_) => Level::Address,
            Self::Port(..) => Level::Port,
            Self::NodePort(_) => Level::NodePort,
        }
    }
}

/// One element of one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A barrier is up.
    Barrier(Place),
    /// A source that a barrier lets in, up or down.
    Source(Place, IpNet),
    /// A port of an address is served.
    Served(IpAddr, Port),
    /// This node announces an address.
    Announced(IpAddr),
}

/// A change of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Creates the table, with empty sets, and hooks it in.
    Create(Shape),
    /// Deletes the table with all that is in it.
    Delete,
    /// Replaces all rules, and creates and deletes the sets of sources that they look into.
    Reshape {
        /// How the rules are, as far as is known.
        from: Shape,
        /// How they are to be.
        to: Shape,
    },
    /// Adds an element.
    Add(Element),
    /// Removes an element.
    Remove(Element),
}

/// Operations that come true together or not at all.
pub type Transaction = Vec<Operation>;

/// Lets in its sources and, while it is up, nobody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Barrier {
    /// Whether it is up.
    pub is_up: bool,
    /// Who is let in.
    pub sources: Sources,
}

impl Barrier {
    /// One that is up.
    pub fn up(sources: Sources) -> Self {
        Self { is_up: true, sources }
    }

    fn is_nothing(&self) -> bool {
        !self.is_up && self.sources.is_empty()
    }
}

/// What there is for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressEntry {
    /// The barrier before the address. Once it is up the address is ours, and what is not served is refused.
    pub barrier: Barrier,
    /// The ports that are served, in order.
    pub ports: Vec<Port>,
    /// The barriers before single ports.
    pub guarded: BTreeMap<Port, Barrier>,
    /// Whether this node announces the address.
    pub is_announced: bool,
}

impl AddressEntry {
    fn is_nothing(&self) -> bool {
        self.barrier.is_nothing() && self.ports.is_empty() && self.guarded.is_empty() && !self.is_announced
    }
}

/// What the kernel's table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// How its rules are.
    pub shape: Shape,
    addresses: BTreeMap<IpAddr, AddressEntry>,
    node_ports: BTreeMap<Port, Barrier>,
    tally: Tally,
}

/// How often each prefix length occurs, and how many barriers there are that not every table has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    lengths: BTreeMap<(Level, Family, u8), usize>,
    guarded: usize,
}

impl Table {
    /// An empty one with rules of that shape.
    pub fn empty(shape: Shape) -> Self {
        Self { shape, ..Self::default() }
    }

    /// What there is for an address.
    pub fn address(&self, address: IpAddr) -> Option<&AddressEntry> {
        self.addresses.get(&address)
    }

    /// The barrier before a port of the node.
    pub fn node_port(&self, port: Port) -> Option<&Barrier> {
        self.node_ports.get(&port)
    }

    /// All addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &AddressEntry)> {
        self.addresses.iter().map(|(address, entry)| (*address, entry))
    }

    /// All ports of the node, in order.
    pub fn node_ports(&self) -> impl Iterator<Item = (Port, &Barrier)> {
        self.node_ports.iter().map(|(port, barrier)| (*port, barrier))
    }

    /// All elements.
    pub fn elements(&self) -> impl Iterator<Item = Element> {
        let barriers = self.addresses.iter().flat_map(|(address, entry)| {
            let guarded = entry.guarded.iter().map(|(port, barrier)| (Place::Port(*address, *port), barrier));
            [(Place::Address(*address), &entry.barrier)].into_iter().chain(guarded)
        });
        let node_ports = self.node_ports.iter().map(|(port, barrier)| (Place::NodePort(*port), barrier));
        let barriers = barriers.chain(node_ports).flat_map(|(place, barrier)| {
            let up = barrier.is_up.then_some(Element::Barrier(place));
            up.into_iter().chain(barrier.sources.nets().iter().map(move |net| Element::Source(place, *net)))
        });
        let served = self.addresses.iter().flat_map(|(address, entry)| {
            let announced = entry.is_announced.then_some(Element::Announced(*address));
            entry.ports.iter().map(|port| Element::Served(*address, *port)).chain(announced)
        });
        barriers.chain(served)
    }

    /// From the elements that the kernel tells of, in any order.
    pub fn from_elements(shape: Shape, elements: impl IntoIterator<Item = Element>) -> Self {
        let mut table = Self::empty(shape);
        let mut sources: BTreeMap<Place, Vec<IpNet>> = BTreeMap::new();
        for element in elements {
            match element {
                Element::Barrier(place) => table.barrier_mut(place).is_up = true,
                Element::Source(place, net) => sources.entry(place).or_default().push(net),
                Element::Served(address, port) => {
                    table.addresses.entry(address).or_default().ports.push(port);
                }
                Element::Announced(address) => {
                    table.addresses.entry(address).or_default().is_announced = true;
                }
            }
        }
        for (place, nets) in sources {
            table.barrier_mut(place).sources = Sources::as_held(nets);
        }
        for entry in table.addresses.values_mut() {
            entry.ports.sort_unstable();
            entry.ports.dedup();
        }
        let Self { addresses, node_ports, tally, .. } = &mut table;
        addresses.values().for_each(|entry| tally.count(entry, true));
        node_ports.values().for_each(|barrier| tally.count_sources(Level::NodePort, &barrier.sources, true));
        table
    }

    fn barrier_mut(&mut self, place: Place) -> &mut Barrier {
        match place {
            Place::Address(address) => &mut self.addresses.entry(address).or_default().barrier,
            Place::Port(address, port) => {
                self.addresses.entry(address).or_default().guarded.entry(port).or_default()
            }
            Place::NodePort(port) => self.node_ports.entry(port).or_default(),
        }
    }

    /// Has another entry for an address, or none.
    pub fn set_address(&mut self, address: IpAddr, entry: Option<AddressEntry>) {
        let entry = entry.filter(|entry| !entry.is_nothing());
        let before = match entry {
            Some(entry) => {
                self.tally.count(&entry, true);
                self.addresses.insert(address, entry)
            }
            None => self.addresses.remove(&address),
        };
        if let Some(before) = before {
            self.tally.count(&before, false);
        }
    }

    /// Has another barrier before a port of the node, or none.
    pub fn set_node_port(&mut self, port: Port, barrier: Option<Barrier>) {
        let barrier = barrier.filter(|barrier| !barrier.is_nothing());
        let before = match barrier {
            Some(barrier) => {
                self.tally.count_sources(Level::NodePort, &barrier.sources, true);
                self.node_ports.insert(port, barrier)
            }
            None => self.node_ports.remove(&port),
        };
        if let Some(before) = before {
            self.tally.count_sources(Level::NodePort, &before.sources, false);
        }
    }

    /// The shape that rules need to find all that is in here. Where they need it already, they may look into
    /// more sets than that.
    pub fn needs(&self) -> Shape {
        let mut shape = Shape::new(self.tally.guarded > 0, !self.node_ports.is_empty());
        let mut counted: Vec<_> = self.tally.lengths.iter().collect();
        // Those that occur most are looked for first.
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((level, family, length), _) in counted {
            shape.look_for(*level, *family, *length);
        }
        shape
    }
}

impl Tally {
    fn count(&mut self, entry: &AddressEntry, is_added: bool) {
        self.count_sources(Level::Address, &entry.barrier.sources, is_added);
        for barrier in entry.guarded.values() {
            self.count_sources(Level::Port, &barrier.sources, is_added);
        }
        let guarded = entry.guarded.len();
        self.guarded = if is_added { self.guarded + guarded } else { self.guarded.saturating_sub(guarded) };
    }

    fn count_sources(&mut self, level: Level, sources: &Sources, is_added: bool) {
        for net in sources.nets() {
            let key = (level, Family::of_net(net), net.prefix_len());
            let count = self.lengths.entry(key).or_default();
            *count = if is_added { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.lengths.remove(&key);
            }
        }
    }
}
