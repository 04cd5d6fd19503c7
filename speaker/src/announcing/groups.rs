//! Which multicast groups to listen to. Solicitations for an IPv6 address go to a group that it may
//! share with others, and a switch that snoops passes them on only to those who have joined.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::Action;
use crate::lan::LinkIndex;
use crate::mind::facts::Facts;
use crate::wire::ndp::solicited_node_group;

/// Memberships, counted by the addresses that need them.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    wanted: HashMap<Ipv6Addr, Vec<LinkIndex>>,
    members: HashMap<(LinkIndex, Ipv6Addr), usize>,
}

impl Groups {
    /// Listens for solicitations of `address` on exactly these links.
    pub(super) fn listen(
        &mut self,
        address: IpAddr,
        links: Vec<LinkIndex>,
        facts: &Facts,
        out: &mut Vec<Action>,
    ) {
        let IpAddr::V6(address) = address else { return };
        let group = solicited_node_group(address);
        let former = self.wanted.remove(&address).unwrap_or_default();
        for link in links.iter().filter(|link| !former.contains(link)) {
            let count = self.members.entry((*link, group)).or_default();
            *count += 1;
            if *count == 1 {
                out.push(Action::Join(*link, group));
            }
        }
        for link in former.iter().filter(|link| !links.contains(link)) {
            let Some(count) = self.members.get_mut(&(*link, group)) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.members.remove(&(*link, group));
                if facts.link(*link).is_some() {
                    out.push(Action::Leave(*link, group));
                }
            }
        }
        if !links.is_empty() {
            self.wanted.insert(address, links);
        }
    }

    /// Memberships end with the link; a new one of the same index must be joined anew.
    pub(super) fn prune(&mut self, facts: &Facts) {
        self.members.retain(|(link, _), _| facts.link(*link).is_some());
        for links in self.wanted.values_mut() {
            links.retain(|link| facts.link(*link).is_some());
        }
        self.wanted.retain(|_, links| !links.is_empty());
    }
}
