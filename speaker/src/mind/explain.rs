//! Why an address is announced here, or is not.

use std::fmt;
use std::net::IpAddr;

use super::{Mind, Refusal};
use crate::lan::NodeName;
use crate::liveness::Verdict;
use crate::ownership::claim::{Claim, Statement};
use crate::ownership::gates::Gates;

/// Who announces an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: NodeName,
    /// Its claim.
    pub claim: Claim,
}

/// What keeps this node from announcing an address, or from claiming it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// No Service claims it.
    NotClaimed,
    /// This node is not ranked for it.
    NotACandidate,
    /// The speaker refuses it.
    Refused(Refusal),
    /// Its source ranges are not in the kernel.
    NotGuarded,
    /// No link with carrier carries it.
    NoLink,
    /// This node listens before it claims anything.
    Settling,
    /// This node was cut off and learns who took over.
    Hushed,
    /// This node hears nobody.
    Isolated,
    /// The LAN is asked whether the address is free.
    Probing,
    /// A station that is no speaker uses it.
    Conflict,
    /// This speaker is about to leave.
    Leaving,
}

/// A node that may announce an address, and what is known of it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// The node.
    pub node: NodeName,
    /// Whether it is alive; nothing of this node itself, and of nodes that are not watched.
    pub verdict: Option<Verdict>,
    /// What it says of the address.
    pub said: Statement,
    /// What it lacks to serve what it announces.
    pub lacks: Gates,
    /// It has not heard of the address, or not of its epoch.
    pub is_ignorant: bool,
}

/// What is known of an address; see [`Mind::explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The address.
    pub address: IpAddr,
    /// The placement's epoch.
    pub epoch: i64,
    /// Who is known to announce it.
    pub owner: Option<Owner>,
    /// Whether this node answers for it right now.
    pub answers: bool,
    /// All that may announce it, best first.
    pub ranking: Vec<Ranked>,
    /// What stands in this node's way.
    pub gates: Vec<Gate>,
    /// Its object is gone and it is looked after nevertheless.
    pub is_held: bool,
}

impl Mind {
    /// Who announces an address and why, as this node sees it; nothing if it never heard of the address.
    pub fn explain(&self, address: IpAddr) -> Option<Explanation> {
        let record = self.ownership.record(address)?;
        let vip = record.vip();
        let links = self.facts.carrying(vip);
        let ranking = self.facts.ranking(vip);
        let own = self.facts.own();
        let books = self.ownership.peer_books();
        let statement = self.ownership.own_statement(address);
        let verdict = |node: &NodeName| {
            let there = links.iter().find_map(|link| self.liveness.verdict(*link, node));
            there.or_else(|| self.liveness.verdicts(node).next().map(|(_, verdict)| verdict))
        };
        let own_claim = statement.claim().map(|claim| Owner { node: own.clone(), claim: *claim });
        let others = books.claims(address).filter(|(node, _, _)| verdict(node) == Some(Verdict::Alive));
        let owner = own_claim
            .or_else(|| others.map(|(node, _, claim)| Owner { node: node.clone(), claim: *claim }).next());
        let any = |is: &dyn Fn(crate::lan::LinkIndex) -> bool| links.iter().any(|link| is(*link));
        let gates = [
            (!vip.claimed).then_some(Gate::NotClaimed),
            (!ranking.contains(own)).then_some(Gate::NotACandidate),
            self.facts.refusal(address).map(Gate::Refused),
            record.is_unguarded().then_some(Gate::NotGuarded),
            links.is_empty().then_some(Gate::NoLink),
            any(&|link| self.liveness.settled_at(link) > self.seen).then_some(Gate::Settling),
            any(&|link| self.hush.is_hushed(link)).then_some(Gate::Hushed),
            any(&|link| self.liveness.isolated_since(link).is_some()).then_some(Gate::Isolated),
            statement.claim().is_some_and(|claim| claim.probing).then_some(Gate::Probing),
            (record.has_conflict() || self.announcing.has_conflict(address)).then_some(Gate::Conflict),
            self.ownership.is_leaving().then_some(Gate::Leaving),
        ];
        let ranked = |node: NodeName| {
            let (said, lacks) = if node == *own {
                (statement, self.ownership.gates())
            } else {
                (books.statement(&node, address), books.gates(&node))
            };
            let is_ignorant = self.ownership.knowledge().is_ignorant(&node, address);
            Ranked { verdict: verdict(&node), said, lacks, is_ignorant, node }
        };
        Some(Explanation {
            address,
            epoch: vip.epoch,
            owner,
            answers: self.answers(address),
            ranking: ranking.into_iter().map(ranked).collect(),
            gates: gates.into_iter().flatten().collect(),
            is_held: record.is_held(),
        })
    }
}

impl fmt::Display for Ranked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.node)?;
        if let Some(verdict) = self.verdict {
            write!(f, " {verdict:?}")?;
        }
        if self.said == Statement::Refusing {
            write!(f, " refuses")?;
        }
        if self.said.is_unfit() {
            write!(f, " without endpoints")?;
        }
        if self.lacks != Gates::NONE {
            write!(f, " ({})", self.lacks)?;
        }
        if self.is_ignorant {
            write!(f, " does not know of it")?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(Owner { node, claim }) => {
                write!(
                    f,
                    "{} is announced by {node} (term {}, epoch {})",
                    self.address, claim.term, claim.epoch
                )?;
            }
            None => write!(f, "{} is announced by nobody (epoch {})", self.address, self.epoch)?,
        }
        for (place, ranked) in self.ranking.iter().enumerate() {
            write!(f, "; {}. {ranked}", place + 1)?;
        }
        if !self.gates.is_empty() {
            write!(f, "; here: {:?}", self.gates)?;
        }
        if self.is_held {
            write!(f, "; its object is gone")?;
        }
        Ok(())
    }
}
