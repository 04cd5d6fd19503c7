//! I6 static stability: with the API server gone, all that is announced stays, failover works, a speaker may
//! restart.
//!
//! That failover works and a speaker may restart is what I1 says, which asks nowhere whether there is an API server.
//! That all stays is looked at here, with an API server and without: nobody takes an address from a node that is
//! well, unless the placement says so, or the node lacks more than the other to serve it.

use std::time::Instant;

use super::bounds::{AFTER_HEAL, SETTLED};
use super::{Judge, bit};

impl Judge {
    /// I6, when a node begins to answer for an address.
    pub(super) fn i6_static_stability(&mut self, now: Instant, at: usize, node: usize) {
        let address = &self.addresses[at];
        let Some(home) = address.home.filter(|home| home.node != node) else { return };
        let stays = address.answers & bit(home.node) != 0 && home.disturbed + SETTLED <= now;
        // What it claimed while it was away is settled with I2.
        let joined = self.joined_since[node.max(home.node)][node.min(home.node)];
        let are_joined = joined.is_some_and(|since| since + AFTER_HEAL <= now);
        let lacks_more = self.lacks[home.node] > self.lacks[node];
        if stays && are_joined && self.is_well(now, home.node) && !self.is_to_move(at) && !lacks_more {
            let what = format!(
                "n{} takes {} from n{}, to which nothing happened since {:?}",
                node + 1,
                address.address,
                home.node + 1,
                home.disturbed - self.start,
            );
            self.breaks("i6_static_stability", now, what);
        }
    }
}
