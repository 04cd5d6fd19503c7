//! The keys of sets' elements: their parts one behind the other, each filled up to four bytes.

use std::net::IpAddr;

use ipnet::IpNet;
use landfall_crds::Protocol;

use crate::filter::Counter;
use crate::filter::frontend::Port;
use crate::filter::set::{Part, Set};
use crate::filter::shape::Level;
use crate::filter::sources::Family;
use crate::filter::table::{Element, Place};

/// The set that an element belongs to.
pub(crate) fn set(element: &Element) -> Set {
    match element {
        Element::Barrier(Place::Address(address)) => Set::Addresses(Family::of(*address)),
        Element::Barrier(Place::Port(address, _)) => Set::Guarded(Family::of(*address)),
        Element::Barrier(Place::NodePort(_)) => Set::NodePorts,
        Element::Source(place, net) => Set::Sources(place.level(), Family::of_net(net), net.prefix_len()),
        Element::Served(address, _) => Set::Ports(Family::of(*address)),
        Element::Announced(address) => Set::Announced(Family::of(*address)),
    }
}

/// The key of an element.
pub(crate) fn key(element: &Element) -> Vec<u8> {
    let mut key = Vec::new();
    let place = |key: &mut Vec<u8>, place: &Place| match place {
        Place::Address(address) => push_address(key, *address),
        Place::Port(address, port) => {
            push_address(key, *address);
            push_port(key, *port);
        }
        Place::NodePort(port) => push_port(key, *port),
    };
    match element {
        Element::Barrier(at) => place(&mut key, at),
        Element::Source(at, net) => {
            place(&mut key, at);
            push_address(&mut key, net.network());
        }
        Element::Served(address, port) => place(&mut key, &Place::Port(*address, *port)),
        Element::Announced(address) => push_address(&mut key, *address),
    }
    key
}

/// The key of an element that the kernel added and that counts.
pub(super) fn counter_key((_, address, port): &Counter) -> Vec<u8> {
    let mut key = Vec::new();
    address.iter().for_each(|address| push_address(&mut key, *address));
    port.iter().for_each(|port| push_port(&mut key, *port));
    key
}

fn push_address(key: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => key.extend(v4.octets()),
        IpAddr::V6(v6) => key.extend(v6.octets()),
    }
}

fn push_port(key: &mut Vec<u8>, port: Port) {
    key.extend([protocol_number(port.protocol), 0, 0, 0]);
    key.extend(port.number.to_be_bytes());
    key.extend([0; 2]);
}

fn protocol_number(protocol: Protocol) -> u8 {
    let number = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    };
    number as u8
}

/// The element that a key of a set stands for; nothing where it cannot be one.
pub(super) fn element(set: Set, key: &[u8]) -> Option<Element> {
    let (address, port, source) = parts(set, key)?;
    Some(match set {
        Set::Addresses(_) => Element::Barrier(Place::Address(address?)),
        Set::Announced(_) => Element::Announced(address?),
        Set::Ports(_) => Element::Served(address?, port?),
        Set::Guarded(_) => Element::Barrier(Place::Port(address?, port?)),
        Set::NodePorts => Element::Barrier(Place::NodePort(port?)),
        Set::Sources(level, _, length) => {
            let net = IpNet::new(source?, length).ok()?;
            let place = match level {
                Level::Address => Place::Address(address?),
                Level::Port => Place::Port(address?, port?),
                Level::NodePort => Place::NodePort(port?),
            };
            Element::Source(place, net)
        }
        Set::RefusedAddresses(_) | Set::RefusedPorts(_) | Set::RefusedNodePorts | Set::NodePortTraffic => {
            return None;
        }
    })
}

pub(super) type Parts = (Option<IpAddr>, Option<Port>, Option<IpAddr>);

/// The address, the port and the source in a key.
pub(super) fn parts(set: Set, mut key: &[u8]) -> Option<Parts> {
    let mut take = |length: usize| {
        let (part, rest) = key.split_at_checked(length)?;
        key = rest;
        Some(part)
    };
    let (mut addresses, mut protocol, mut port) = (Vec::new(), None, None);
    for part in set.key() {
        match part {
            Part::Address(Family::V4) => addresses.push(IpAddr::from(*take(4)?.first_chunk::<4>()?)),
            Part::Address(Family::V6) => addresses.push(IpAddr::from(*take(16)?.first_chunk::<16>()?)),
            Part::Protocol => {
                let number = i32::from(take(4)?[0]);
                let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
                protocol = all.into_iter().find(|each| i32::from(protocol_number(*each)) == number);
            }
            Part::Port => port = Some(u16::from_be_bytes(*take(4)?.first_chunk::<2>()?)),
        }
    }
    if !key.is_empty() {
        return None;
    }
    let port = match port {
        Some(number) => Some(Port { protocol: protocol?, number }),
        None => None,
    };
    let mut addresses = addresses.into_iter();
    Some(match set {
        Set::Sources(Level::NodePort, _, _) => (None, port, addresses.next()),
        _ => (addresses.next(), port, addresses.next()),
    })
}
