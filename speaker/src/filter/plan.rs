//! From what the kernel's table holds to what it should hold, by the smallest change.
//!
//! A change is made in steps, each of one or more transactions, so that at no time, between two of them or
//! while one comes true, a packet is let in that neither the old table nor the new one lets in, or one refused
//! that both let in:
//!
//! 1. *Prepare*: what lies behind barriers that are down, and the ports of addresses that are not ours yet. Nobody looks
//!    there.
//! 2. *Restrict*: barriers go up, and ports are served no more. Those whom the new table lets in pass already.
//! 3. *Permit at ports*: barriers of single ports that were up and stay up let in more. Whom they let in in the end
//!    the address does as well.
//! 4. *Forbid at ports*: they let in fewer. From now on they let in nobody whom they do not in the end.
//! 5. *Permit*: barriers of addresses and nodePorts that were up and stay up let in more.
//! 6. *Forbid*: they let in fewer.
//! 7. *Open*: barriers go down; ports are served.
//! 8. *Sweep*: what lies behind barriers that are down is removed.
//!
//! A change that broke off may have left an address that lets in fewer than one of its ports; so the ports come
//! before the address.
//!
//! Before the first step the rules learn to look into every set that is about to hold something, and after the last
//! one to leave out those that hold nothing any more. Each step is right whatever part of it has come true, so
//! a large one is cut into transactions of a bounded size, and after a failure one simply plans anew.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::frontend::Port;
use super::shape::Shape;
use super::table::{AddressEntry, Barrier, Element, Operation, Place, Table, Transaction};

/// The largest number of operations in one transaction: while one comes true, all others who change the
/// kernel's tables wait.
const LARGEST: usize = 4096;

/// What is looked after as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// An address with its ports.
    Address(IpAddr),
    /// A port of the node.
    NodePort(Port),
}

/// The operations of each step.
#[derive(Debug, Default)]
struct Steps {
    prepare: Transaction,
    restrict: Transaction,
    permit_at_ports: Transaction,
    forbid_at_ports: Transaction,
    permit: Transaction,
    forbid: Transaction,
    open: Transaction,
    sweep: Transaction,
}

/// A change from one table to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is to be done, in this order.
    pub transactions: Vec<Transaction>,
    /// How the rules are in the end.
    pub shape: Shape,
}

/// Leads from `known` to `wanted` within the scopes, and to the shape that is needed then. Both tables are the same
/// outside of them.
pub fn plan(known: &Table, wanted: &Table, scopes: &BTreeSet<Scope>) -> Plan {
    let mut steps = Steps::default();
    for scope in scopes {
        match *scope {
            Scope::Address(address) => {
                steps.address(address, known.address(address), wanted.address(address))
            }
            Scope::NodePort(port) => {
                steps.barrier(Place::NodePort(port), known.node_port(port), wanted.node_port(port));
            }
        }
    }
    let mut before = known.shape.clone().telling(wanted.shape.log);
    let needed = wanted.needs();
    if !before.covers(&needed) {
        before = before.and(&needed);
    }
    let after = if needed.covers(&before) { before.clone() } else { needed.telling(before.log) };
    let mut transactions = Vec::new();
    transactions.extend(reshape(&known.shape, &before));
    for step in steps {
        transactions.extend(step.chunks(LARGEST).map(<[Operation]>::to_vec));
    }
    transactions.extend(reshape(&before, &after));
    Plan { transactions, shape: after }
}

/// All scopes in which two tables may differ.
pub fn all_scopes(known: &Table, wanted: &Table) -> BTreeSet<Scope> {
    let addresses = known.addresses().chain(wanted.addresses());
    let node_ports = known.node_ports().chain(wanted.node_ports());
    addresses
        .map(|(address, _)| Scope::Address(address))
        .chain(node_ports.map(|(port, _)| Scope::NodePort(port)))
        .collect()
}

fn reshape(from: &Shape, to: &Shape) -> Option<Transaction> {
    (from != to).then(|| vec![Operation::Reshape { from: from.clone(), to: to.clone() }])
}

impl IntoIterator for Steps {
    type Item = Transaction;
    type IntoIter = std::array::IntoIter<Transaction, 8>;

    /// In their order.
    fn into_iter(self) -> Self::IntoIter {
        let Self { prepare, restrict, permit_at_ports, forbid_at_ports, permit, forbid, open, sweep } = self;
        [prepare, restrict, permit_at_ports, forbid_at_ports, permit, forbid, open, sweep].into_iter()
    }
}

impl Steps {
    fn address(&mut self, address: IpAddr, known: Option<&AddressEntry>, wanted: Option<&AddressEntry>) {
        let nothing = AddressEntry::default();
        let (known, wanted) = (known.unwrap_or(&nothing), wanted.unwrap_or(&nothing));
        if known == wanted {
            return;
        }
        let was_up = known.barrier.is_up;
        let ports: BTreeSet<Port> = known.guarded.keys().chain(wanted.guarded.keys()).copied().collect();
        for port in ports {
            let place = Place::Port(address, port);
            let (known, wanted) = (known.guarded.get(&port), wanted.guarded.get(&port));
            if was_up {
                self.barrier(place, known, wanted);
            } else {
                // Nobody comes as far as that.
                let mut hidden = Self::default();
                hidden.barrier(place, known, wanted);
                self.prepare.extend(hidden.into_iter().flatten());
            }
        }
        self.barrier(Place::Address(address), Some(&known.barrier), Some(&wanted.barrier));
        let (add, remove) = match (was_up, wanted.barrier.is_up) {
            (false, _) => (&mut self.prepare, None),
            (true, true) => (&mut self.open, Some(&mut self.restrict)),
            (true, false) => (&mut self.open, Some(&mut self.sweep)),
        };
        let served = |port: &Port| Element::Served(address, *port);
        let new = wanted.ports.iter().filter(|port| known.ports.binary_search(port).is_err());
        add.extend(new.map(|port| Operation::Add(served(port))));
        let old = known.ports.iter().filter(|port| wanted.ports.binary_search(port).is_err());
        remove.unwrap_or(&mut self.prepare).extend(old.map(|port| Operation::Remove(served(port))));
        // Who answers pings lets nobody in.
        match (known.is_announced, wanted.is_announced) {
            (false, true) => self.prepare.push(Operation::Add(Element::Announced(address))),
            (true, false) => self.prepare.push(Operation::Remove(Element::Announced(address))),
            _ => {}
        }
    }

    fn barrier(&mut self, place: Place, known: Option<&Barrier>, wanted: Option<&Barrier>) {
        let nothing = Barrier::default();
        let (known, wanted) = (known.unwrap_or(&nothing), wanted.unwrap_or(&nothing));
        let added =
            wanted.sources.without(&known.sources).map(|net| Operation::Add(Element::Source(place, net)));
        let removed =
            known.sources.without(&wanted.sources).map(|net| Operation::Remove(Element::Source(place, net)));
        match (known.is_up, wanted.is_up) {
            (false, will_be_up) => {
                self.prepare.extend(removed);
                self.prepare.extend(added);
                self.restrict.extend(will_be_up.then_some(Operation::Add(Element::Barrier(place))));
            }
            (true, true) => {
                let (permit, forbid) = match place {
                    Place::Port(..) => (&mut self.permit_at_ports, &mut self.forbid_at_ports),
                    Place::Address(_) | Place::NodePort(_) => (&mut self.permit, &mut self.forbid),
                };
                permit.extend(added);
                forbid.extend(removed);
            }
            (true, false) => {
                self.open.push(Operation::Remove(Element::Barrier(place)));
                self.sweep.extend(removed);
                self.sweep.extend(added);
            }
        }
    }
}
