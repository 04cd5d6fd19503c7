//! Stations of the LAN that were lately heard, to be asked whether the LAN is still there when no other
//! speaker is heard: a LAN of two nodes of which one died is not a dark port.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::{Action, frames};
use crate::lan::{LinkIndex, MacAddr};
use crate::mind::facts::Facts;
use crate::wire::ndp::{Message, NdpRepr, multicast_mac, solicited_node_group};

/// So many stations are remembered on a link, and asked.
const MOST: usize = 3;

/// The last stations heard on each link.
#[derive(Clone, Debug, Default)]
pub(super) struct Stations {
    lately: HashMap<LinkIndex, Vec<(IpAddr, MacAddr)>>,
}

impl Stations {
    /// Remembers a station.
    pub(super) fn note(&mut self, link: LinkIndex, address: IpAddr, mac: MacAddr) {
        let lately = self.lately.entry(link).or_default();
        if lately.first() == Some(&(address, mac)) {
            return;
        }
        lately.retain(|(known, _)| *known != address);
        lately.insert(0, (address, mac));
        lately.truncate(MOST);
    }

    /// Forgets links that are gone.
    pub(super) fn prune(&mut self, facts: &Facts) {
        self.lately.retain(|link, _| facts.link(*link).is_some());
    }

    /// Asks the gateways and the stations last heard; those whose hardware address is known by unicast.
    pub(super) fn ask(&self, facts: &Facts, index: LinkIndex, out: &mut Vec<Action>) {
        let Some(link) = facts.link(index) else { return };
        let lately = self.lately.get(&index).map(Vec::as_slice).unwrap_or_default();
        let unheard = |gateway: &IpAddr| !lately.iter().any(|(address, _)| address == gateway);
        let gateways = facts.gateways_on(link).filter(unheard).map(|gateway| (gateway, None));
        for (target, mac) in gateways.chain(lately.iter().map(|(address, mac)| (*address, Some(*mac)))) {
            let Some(own) = link.addresses.iter().find(|own| own.contains(&target)) else { continue };
            let frame = match (own.addr(), target) {
                (IpAddr::V4(own), IpAddr::V4(target)) => {
                    frames::who_has(link.mac, own, target).emit_frame(mac.unwrap_or(MacAddr::BROADCAST))
                }
                (IpAddr::V6(own), IpAddr::V6(target)) => {
                    let group = solicited_node_group(target);
                    let message = Message::Solicitation { target, source_mac: Some(link.mac) };
                    let destination = if mac.is_some() { target } else { group };
                    NdpRepr { source: own, destination, message }
                        .emit_frame(link.mac, mac.unwrap_or(multicast_mac(group)))
                }
                _ => continue,
            };
            out.push(Action::Send(index, frame));
        }
    }
}

/// Whether an address can be that of a station to ask.
pub(super) fn is_askable(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast() && !address.is_loopback()
}
