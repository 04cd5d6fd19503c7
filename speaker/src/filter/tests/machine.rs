//! A small machine that does to a packet what the kernel does by the rules and the sets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use landfall_crds::Protocol;

use super::model::{Fate, Packet};
use crate::filter::program::chains;
use crate::filter::rule::{Chain, Expression, Field, Hook, Rule, Verdict};
use crate::filter::set::{Part, Set};
use crate::filter::shape::Shape;
use crate::filter::sources::Family;
use crate::filter::table::{Element, Operation, Table};
use crate::wire::nftables::keys::{key, set};

/// The kernel's table.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    shape: Shape,
    chains: Vec<Chain>,
    sets: BTreeMap<Set, BTreeSet<Vec<u8>>>,
    elements: BTreeSet<Element>,
}

impl Machine {
    pub(crate) fn new(table: &Table) -> Self {
        let mut machine = Self {
            shape: table.shape.clone(),
            chains: chains(&table.shape),
            sets: BTreeMap::new(),
            elements: BTreeSet::new(),
        };
        table.elements().for_each(|element| machine.act(&Operation::Add(element)));
        machine
    }

    /// What it holds, as a dump would tell.
    pub(crate) fn table(&self) -> Table {
        Table::from_elements(self.shape.clone(), self.elements.iter().copied())
    }

    /// Does what the kernel does, and refuses what it refuses.
    pub(crate) fn act(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(shape) => *self = Self::new(&Table::empty(shape.clone())),
            Operation::Delete => *self = Self::new(&Table::default()),
            Operation::Reshape { from, to } => {
                assert_eq!(*from, self.shape, "the rules are not as they were thought to be");
                self.shape = to.clone();
                self.chains = chains(to);
                for element in &self.elements {
                    self.check(element);
                }
            }
            Operation::Add(element) => {
                self.check(element);
                assert!(self.elements.insert(*element), "{element:?} is there already");
                self.sets.entry(set(element)).or_default().insert(key(element));
            }
            Operation::Remove(element) => {
                assert!(self.elements.remove(element), "{element:?} is not there");
                self.sets.entry(set(element)).or_default().remove(&key(element));
            }
        }
    }

    /// There is a set for the element.
    fn check(&self, element: &Element) {
        if let Set::Sources(level, family, length) = set(element) {
            assert!(self.shape.has(level, family, length), "no set for {element:?}");
        }
    }

    /// What becomes of a packet on its way through the node, all hooks in their order.
    pub(crate) fn fate(&self, packet: &Packet) -> Fate {
        let hooks: &[Hook] = match (packet.is_reply, packet.is_own) {
            (true, _) => &[Hook::Prerouting, Hook::Postrouting],
            (false, true) => &[Hook::Prerouting],
            (false, false) => &[Hook::Prerouting, Hook::Forward],
        };
        let mut translated = false;
        for hook in hooks {
            // kube-proxy stands between: what is served goes on to a pod.
            if *hook == Hook::Forward {
                translated = self.is_served(packet);
            }
            if *hook == Hook::Forward && translated {
                continue;
            }
            let is_hooked = |chain: &&Chain| chain.hook.is_some_and(|(of, _)| of == *hook);
            for chain in self.chains.iter().filter(is_hooked) {
                match self.run(chain, packet, *hook) {
                    Fate::Passes => {}
                    fate => return fate,
                }
            }
        }
        Fate::Passes
    }

    fn is_served(&self, packet: &Packet) -> bool {
        packet.port.is_some_and(|port| self.elements.contains(&Element::Served(packet.destination, port)))
    }

    fn run(&self, chain: &Chain, packet: &Packet, hook: Hook) -> Fate {
        for Rule(expressions) in &chain.rules {
            let mut registers = [0_u8; 128];
            let mut verdict = None;
            for expression in expressions {
                let at = |register: &u8| usize::from(*register) * 4;
                let goes_on = match expression {
                    Expression::Load(field, to) => {
                        let value = load(*field, packet, hook);
                        if let Some(value) = &value {
                            let length = value.len().next_multiple_of(4);
                            registers[at(to)..at(to) + length].fill(0);
                            registers[at(to)..at(to) + value.len()].copy_from_slice(value);
                        }
                        value.is_some()
                    }
                    Expression::Mask(register, mask) => {
                        let start = at(register);
                        for (byte, mask) in registers[start..].iter_mut().zip(mask) {
                            *byte &= mask;
                        }
                        true
                    }
                    Expression::Compare { register, equal, value } => {
                        (registers[at(register)..].starts_with(value)) == *equal
                    }
                    Expression::Lookup { set, register, found } => {
                        let length: usize = set.key().iter().map(|part| length(*part)).sum();
                        let key = &registers[at(register)..at(register) + length];
                        self.sets.get(set).is_some_and(|keys| keys.contains(key)) == *found
                    }
                    Expression::Count { .. }
                    | Expression::Counter
                    | Expression::Limit(_)
                    | Expression::Log { .. } => true,
                    Expression::Reset | Expression::Unreachable => {
                        verdict = Some(Fate::Rejected);
                        true
                    }
                    Expression::Verdict(Verdict::Accept) => {
                        verdict = Some(Fate::Passes);
                        true
                    }
                    Expression::Verdict(Verdict::Drop) => {
                        verdict = Some(Fate::Dropped);
                        true
                    }
                    Expression::Verdict(Verdict::Goto(name)) => {
                        let next = self.chains.iter().find(|chain| chain.name == *name).unwrap();
                        verdict = Some(self.run(next, packet, hook));
                        true
                    }
                };
                if !goes_on {
                    verdict = None;
                    break;
                }
            }
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
        Fate::Passes
    }
}

fn length(part: Part) -> usize {
    match part {
        Part::Address(family) => usize::from(family.bits() / 8),
        _ => 4,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// What a field of a packet holds at a hook; nothing where it has no such field.
fn load(field: Field, packet: &Packet, hook: Hook) -> Option<Vec<u8>> {
    let Packet { client, destination, port, is_own, is_reply } = *packet;
    let family = Family::of(destination);
    let (source, target) = if is_reply { (destination, client) } else { (client, destination) };
    let native = |number: u32| Some(number.to_ne_bytes().to_vec());
    let number = |number: u16| Some(number.to_be_bytes().to_vec());
    let client_port = 50_000;
    let local = |is_local: bool| native(if is_local { 2 } else { 1 });
    match field {
        Field::Family => Some(vec![if family == Family::V4 { 2 } else { 10 }]),
        Field::Protocol => Some(vec![match (port.map(|port| port.protocol), family) {
            (Some(Protocol::Tcp), _) => 6,
            (Some(Protocol::Udp), _) => 17,
            (Some(Protocol::Sctp), _) => 132,
            (None, Family::V4) => 1,
            (None, Family::V6) => 58,
        }]),
        Field::Source(of) => (of == family).then(|| octets(source)),
        Field::Destination(of) => (of == family).then(|| octets(target)),
        // Of a ping: its kind and code, and its checksum.
        Field::SourcePort => number(match port {
            Some(port) if is_reply => port.number,
            Some(_) => client_port,
            None => 0x0800,
        }),
        Field::DestinationPort => number(match port {
            Some(_) if is_reply => client_port,
            Some(port) => port.number,
            None => 0,
        }),
        Field::IcmpType => Some(vec![if family == Family::V4 { 8 } else { 128 }]),
        Field::Direction => Some(vec![is_reply.into()]),
        // New on its way in, and else established.
        Field::State => native(if is_reply { 2 } else { 8 }),
        Field::Status => native(if is_reply { 1 << 5 } else { 0 }),
        Field::HasRoute => native(1),
        Field::SourceType => local(is_own && hook == Hook::Postrouting),
        Field::DestinationType => local(is_own && hook == Hook::Prerouting && !is_reply),
    }
}
