//! Random worlds, and random changes from one to another.

use std::net::IpAddr;

use ipnet::IpNet;
use landfall_crds::Protocol;
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::machine::Machine;
use super::model::{Fate, Packet, Ranges, World};
use crate::filter::frontend::{Port, ServiceName};
use crate::filter::plan::{all_scopes, plan};
use crate::filter::table::{Operation, Table};

const ADDRESSES: [&str; 4] = ["192.168.10.50", "192.168.10.51", "fd00::50", "fd00::51"];
const SERVICES: [&str; 4] = ["shop/web", "shop/api", "bank/web", "bank/api"];
const NETS: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/23",
    "10.1.2.3/32",
    "192.0.2.0/25", //
    "::/0",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1::/63",
    "fd00:1::1/128",
    "2001:db8::/30",
];
const CLIENTS: [&str; 10] = [
    "10.1.2.3",
    "10.1.3.9",
    "10.1.9.9",
    "10.200.0.1",
    "192.0.2.77",
    "192.0.2.200", //
    "fd00:1::1",
    "fd00:1:0:1::9",
    "fd77::1",
    "2001:db9::1",
];
const OWN: [&str; 4] = ["192.168.10.11", "127.0.0.1", "fd00::11", "::1"];

fn ports() -> Vec<Port> {
    let port = |protocol, number| Port { protocol, number };
    vec![
        port(Protocol::Tcp, 80),
        port(Protocol::Tcp, 443),
        port(Protocol::Udp, 80),
        port(Protocol::Sctp, 80),
        port(Protocol::Tcp, 30080),
    ]
}

fn node_ports() -> Vec<Port> {
    let port = |protocol, number| Port { protocol, number };
    vec![port(Protocol::Tcp, 30080), port(Protocol::Udp, 30080), port(Protocol::Tcp, 30081)]
}

fn any_ranges() -> impl Strategy<Value = Ranges> {
    (subsequence(NETS.to_vec(), 0..=4), subsequence(node_ports(), 0..=2)).prop_map(|(nets, node_ports)| {
        Ranges { nets: nets.iter().map(|net| net.parse::<IpNet>().unwrap()).collect(), node_ports }
    })
}

/// The Services that hold an address, each with its ports; no two serve the same.
fn any_claims() -> impl Strategy<Value = Vec<(ServiceName, Vec<Port>)>> {
    let owners = prop::collection::vec(0..SERVICES.len(), ports().len());
    (subsequence(SERVICES.to_vec(), 0..=3), owners).prop_map(|(services, owners)| {
        let claim = |(place, service): (usize, &&str)| {
            let own = owners.iter().zip(ports()).filter(|(owner, _)| **owner == place);
            (ServiceName::from(*service), own.map(|(_, port)| port).collect())
        };
        services.iter().enumerate().map(claim).collect()
    })
}

fn any_world() -> impl Strategy<Value = World> {
    let addresses = (subsequence(ADDRESSES.to_vec(), 0..=4), prop::collection::vec(any_claims(), 4));
    let guards = (subsequence(SERVICES.to_vec(), 0..=4), prop::collection::vec(any_ranges(), 4));
    (addresses, guards, subsequence(SERVICES.to_vec(), 0..=1)).prop_map(|(addresses, guards, awaited)| {
        World {
            addresses: addresses.0.iter().map(|at| at.parse().unwrap()).zip(addresses.1).collect(),
            guards: guards.0.iter().map(|name| ServiceName::from(*name)).zip(guards.1).collect(),
            awaited: awaited.into_iter().map(ServiceName::from).collect(),
        }
    })
}

/// Every packet that could make a difference.
fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    let own = OWN.iter().map(|at| (at, true));
    for (destination, is_own) in ADDRESSES.iter().map(|at| (at, false)).chain(own) {
        let destination: IpAddr = destination.parse().unwrap();
        for client in CLIENTS.iter().map(|at| at.parse::<IpAddr>().unwrap()) {
            if client.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            let numbers = ports().into_iter().chain(node_ports()).map(Some).chain([None]);
            for port in numbers {
                let packet = Packet { client, destination, port, is_own, is_reply: false };
                packets.push(packet);
                packets.extend(port.map(|_| Packet { is_reply: true, ..packet }));
            }
        }
    }
    packets
}

/// Whether a packet is let in, or on to the client.
fn goes_on(fate: Fate) -> bool {
    fate == Fate::Passes
}

/// Makes a change, one operation at a time, and looks at every packet after each: one that was let in before and
/// is afterwards is let in all the time, and one that is neither never is.
fn change(machine: &mut Machine, wanted: &Table, stop_after: usize) -> Result<(), TestCaseError> {
    let packets = packets();
    let known = machine.table();
    let before: Vec<bool> = packets.iter().map(|packet| goes_on(machine.fate(packet))).collect();
    let shape = wanted.needs().telling(wanted.shape.log);
    let target = Machine::new(&Table::from_elements(shape, wanted.elements()));
    let after: Vec<bool> = packets.iter().map(|packet| goes_on(target.fate(packet))).collect();
    let plan = plan(&known, wanted, &all_scopes(&known, wanted));
    let operations: Vec<Operation> = plan.transactions.into_iter().flatten().collect();
    for operation in operations.iter().take(stop_after) {
        machine.act(operation);
        for (place, packet) in packets.iter().enumerate() {
            if before[place] == after[place] {
                let now = goes_on(machine.fate(packet));
                prop_assert_eq!(now, before[place], "{:?} after {:?} of {:?}", packet, operation, operations);
            }
        }
    }
    if stop_after >= operations.len() {
        let (ended, needed) = (machine.table(), target.table());
        prop_assert!(ended.elements().eq(needed.elements()), "{:?} {:?}", ended, needed);
        prop_assert_eq!(&ended.shape, &plan.shape);
        prop_assert!(ended.shape.covers(&needed.shape) && needed.shape.covers(&ended.shape), "{:?}", ended);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn i3_fail_closed_the_table_does_what_the_model_says(world in any_world()) {
        let wanted = world.wanted();
        let machine = Machine::new(&Table::from_elements(wanted.table().needs(), wanted.table().elements()));
        for packet in packets() {
            prop_assert_eq!(machine.fate(&packet), world.fate(&packet), "{:?}", packet);
        }
    }

    #[test]
    fn what_is_compiled_step_by_step_is_what_is_compiled_at_once(worlds in prop::collection::vec(any_world(), 1..5)) {
        let mut wanted = crate::filter::wanted::Wanted::default();
        for world in &worlds {
            let before = wanted.table().clone();
            let dirty = world.tell(&mut wanted);
            let at_once = world.wanted();
            prop_assert_eq!(wanted.table(), at_once.table());
            for scope in all_scopes(&before, wanted.table()) {
                let is_same = match scope {
                    crate::filter::plan::Scope::Address(at) => before.address(at) == wanted.table().address(at),
                    crate::filter::plan::Scope::NodePort(at) => before.node_port(at) == wanted.table().node_port(at),
                };
                prop_assert!(is_same || dirty.contains(&scope), "{:?} changed and nobody was told", scope);
            }
        }
    }

    #[test]
    fn i3_fail_closed_no_change_lets_in_or_refuses_what_neither_end_does(worlds in prop::collection::vec(any_world(), 2..4)) {
        let mut machine = Machine::new(&Table::default());
        for world in &worlds {
            change(&mut machine, world.wanted().table(), usize::MAX)?;
        }
    }

    #[test]
    fn i3_fail_closed_nor_does_one_that_was_interrupted(
        from in any_world(), by in any_world(), to in any_world(), stop_after in 0..40_usize,
    ) {
        let mut machine = Machine::new(&Table::default());
        change(&mut machine, from.wanted().table(), usize::MAX)?;
        change(&mut machine, by.wanted().table(), stop_after)?;
        change(&mut machine, to.wanted().table(), usize::MAX)?;
    }
}
