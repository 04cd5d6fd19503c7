//! How things stand on the links that carry an address. Addresses of one pool share them, so this is
//! found out once for all that are decided together.

use std::time::Instant;

use super::Around;
use super::books::PeerBooks;
use crate::lan::LinkIndex;
use crate::liveness::Verdict;

/// The links that carry an address, taken together.
#[derive(Clone, Debug)]
pub(super) struct Lan {
    /// When they were, or will be, listened to for long enough; nothing while liveness does not know them.
    pub(super) settled_at: Option<Instant>,
    /// On one of them this node keeps silent for now.
    pub(super) is_hushed: bool,
    /// Since when nothing at all is heard on any of them.
    pub(super) isolated_since: Option<Instant>,
    /// On one of them at least the silence of a peer means something.
    pub(super) is_in_touch: bool,
    /// No peer is heard on them, and one never was: it may announce and not know of this node yet, or
    /// its datagrams may be kept from us.
    pub(super) is_among_strangers: bool,
    /// A peer was never heard on them, so that nobody knows what it announces.
    pub(super) has_strangers: bool,
    /// A peer is heard on them and all that it says is known.
    pub(super) is_in_step: bool,
    /// A peer is heard on them of whom more is to be known, if it tells by then.
    pub(super) wait_until: Option<Instant>,
}

impl Lan {
    /// Looks at the links.
    pub(super) fn survey(now: Instant, around: Around<'_>, books: &PeerBooks, links: &[LinkIndex]) -> Self {
        let liveness = around.liveness;
        let is_watching = |link: &&LinkIndex| liveness.watched(**link).next().is_some();
        let settled = links.iter().map(|link| liveness.settled_at(*link));
        let isolated = links.iter().filter(is_watching).map(|link| liveness.isolated_since(*link));
        let peers: Vec<_> = links.iter().flat_map(|link| liveness.watched(*link)).collect();
        let alive: Vec<_> =
            peers.iter().filter(|(_, verdict)| *verdict == Verdict::Alive).map(|(node, _)| *node).collect();
        let has_strangers = peers.iter().any(|(_, verdict)| *verdict == Verdict::NeverHeard);
        Self {
            settled_at: settled.collect::<Option<Vec<_>>>().and_then(|at| at.into_iter().max()),
            is_hushed: links.iter().any(|link| around.hush.is_hushed(*link)),
            // Isolated only where no link is left that is not.
            isolated_since: isolated.collect::<Option<Vec<_>>>().and_then(|at| at.into_iter().max()),
            is_in_touch: links.iter().any(|link| liveness.is_in_touch(now, *link)),
            is_among_strangers: has_strangers && !peers.iter().any(|(_, verdict)| verdict.is_heard()),
            has_strangers,
            is_in_step: alive.iter().any(|node| books.is_in_step(node)),
            wait_until: alive.iter().filter_map(|node| books.wait_for(node)).max(),
        }
    }
}
