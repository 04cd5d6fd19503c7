//! Where an address may be announced, by which nodes in which order, and under which epoch.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use landfall_crds::address::Family;
use landfall_crds::{Candidate, Placement, TrafficPolicy, VirtualIPSpec};

use super::Mind;
use crate::granting::book::Pool;
use crate::ranking::{Reach, eligible, order};
use crate::world::virtual_ips::key_of_claim;

impl Mind {
    /// The nodes that may announce an address, best first.
    pub(super) fn candidates_for<'a>(
        &self,
        address: IpAddr,
        spec: &VirtualIPSpec,
        standing: Option<&'a Placement>,
    ) -> Cow<'a, [Candidate]> {
        let mut nodes = eligible(&self.nodes, &self.reach_of(address, spec));
        let before = standing.map(|placement| placement.candidates.as_slice()).unwrap_or_default();
        if self.pool_named(spec).is_none()
            && nodes.iter().any(|node| before.iter().any(|known| known.node == node.node))
        {
            // The pool's selector went with it: those that it selected stay, and no others join.
            for node in &mut nodes {
                node.may_join = false;
            }
        }
        order(address, before, &nodes, &self.loads)
    }

    /// Where a claimed address may be announced, as its VirtualIP and its pool say: of everyone on it whose
    /// traffic policy is Local only the nodes with endpoints count.
    pub(super) fn reach_of<'a>(&'a self, address: IpAddr, spec: &'a VirtualIPSpec) -> Reach<'a> {
        let announce = self.pool_named(spec).and_then(|pool| pool.object.spec.announce.as_ref());
        let local = spec.claims.iter().filter(|claim| claim.traffic_policy == TrafficPolicy::Local);
        let nodes = local.map(|claim| self.endpoints.local_nodes(&key_of_claim(claim), Family::of(address)));
        Reach {
            address,
            interfaces: spec.announce.as_ref().map(|announce| &*announce.interfaces).unwrap_or_default(),
            selector: announce.and_then(|announce| announce.node_selector.as_ref()),
            local: nodes.reduce(|all, of_one| &all & &of_one),
        }
    }

    /// Whether some node could announce the address if it did not matter where endpoints are.
    pub(super) fn is_reached(&self, address: IpAddr, spec: &VirtualIPSpec) -> bool {
        let reach = Reach { local: None, ..self.reach_of(address, spec) };
        !eligible(&self.nodes, &reach).is_empty()
    }

    fn pool_named(&self, spec: &VirtualIPSpec) -> Option<&Pool> {
        self.book.pool(spec.pool.as_deref()?)
    }

    /// An epoch above every other: by the clock, unless that has been set back.
    pub(super) fn next_epoch(&mut self, wall: Timestamp) -> i64 {
        self.last_epoch = (self.last_epoch + 1).max(wall.as_millisecond());
        self.last_epoch
    }
}
