//! What a speaker says of an address, and whose claim goes before whose.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::lan::{MacAddr, NodeName};

/// A node's word that it answers for an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The placement's epoch under which it does.
    pub epoch: i64,
    /// Raised by one at every takeover by a node that is in touch with the LAN.
    pub term: u64,
    /// The node's place in the ranking, from zero.
    pub rank: u16,
    /// What is behind the address is not well on the node.
    pub unfit: bool,
    /// The node lacks something that another candidate has, and would rather have that one take over; it goes on
    /// for as long as nobody does.
    pub reluctant: bool,
    /// It was made by a node that heard nobody, and so yields to every other claim.
    pub isolated: bool,
    /// The node would rather have somebody else take over, and answers until it hears of one.
    pub leaving: bool,
    /// The node still asks the LAN whether the address is free, and does not answer yet.
    pub probing: bool,
}

/// All that a speaker may say of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Statement {
    /// It has nothing to say: it may be a candidate that waits.
    #[default]
    Nothing,
    /// It is a candidate and cannot or must not announce the address; whoever is next need not wait.
    Refusing,
    /// It is a candidate and waits, and what is behind the address is not well on its node.
    Unfit,
    /// It announces it.
    Announcing(Claim),
}

impl Statement {
    /// Whether what is behind the address is not well on the node that says this.
    pub fn is_unfit(&self) -> bool {
        matches!(self, Self::Unfit | Self::Announcing(Claim { unfit: true, .. }))
    }

    /// The claim, if it is one.
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Announcing(claim) => Some(claim),
            _ => None,
        }
    }
}

/// A claim with all that settles it against another one.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The claim.
    pub claim: &'a Claim,
    /// The lowest hardware address of the node.
    pub mac: MacAddr,
    /// The node.
    pub node: &'a NodeName,
}

impl Claimant<'_> {
    /// Orders two claims on one address; the lesser goes before. Both sides come to the same result: one
    /// that was not made in isolation, the higher epoch, the higher term, the better rank, the lower
    /// hardware address, the lower name.
    pub fn precedence(&self, other: &Claimant<'_>) -> Ordering {
        let (a, b) = (self.claim, other.claim);
        a.isolated
            .cmp(&b.isolated)
            .then(b.epoch.cmp(&a.epoch))
            .then(b.term.cmp(&a.term))
            .then(a.rank.cmp(&b.rank))
            .then(self.mac.cmp(&other.mac))
            .then(self.node.cmp(other.node))
    }

    /// Whether this claim goes before the other.
    pub fn goes_before(&self, other: &Claimant<'_>) -> bool {
        self.precedence(other) == Ordering::Less
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim { epoch: 5, term: 5, rank: 1, ..Claim::default() }
    }

    #[track_caller]
    fn wins(better: Claim, worse: Claim) {
        let (a, b) = (NodeName::from("a"), NodeName::from("b"));
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        for (better_node, worse_node) in [((&a, mac(1)), (&b, mac(2))), ((&b, mac(2)), (&a, mac(1)))] {
            let left = Claimant { claim: &better, mac: better_node.1, node: better_node.0 };
            let right = Claimant { claim: &worse, mac: worse_node.1, node: worse_node.0 };
            assert!(left.goes_before(&right) && !right.goes_before(&left));
        }
    }

    #[test]
    fn settlement_goes_by_isolation_then_epoch_then_term_then_rank() {
        wins(claim(), Claim { isolated: true, epoch: 9, term: 9, rank: 0, ..claim() });
        wins(Claim { epoch: 6, ..claim() }, Claim { term: 9, rank: 0, ..claim() });
        wins(Claim { term: 6, ..claim() }, Claim { rank: 0, ..claim() });
        wins(Claim { rank: 0, ..claim() }, claim());
    }

    #[test]
    fn equal_claims_are_settled_by_hardware_address_then_name() {
        let (a, b) = (NodeName::from("a"), NodeName::from("b"));
        let (low, high) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let claim = claim();
        let by_mac = Claimant { claim: &claim, mac: low, node: &b };
        assert!(by_mac.goes_before(&Claimant { claim: &claim, mac: high, node: &a }));
        let by_name = Claimant { claim: &claim, mac: low, node: &a };
        assert!(by_name.goes_before(&Claimant { claim: &claim, mac: low, node: &b }));
    }
}
