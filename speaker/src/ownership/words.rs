//! The words between ownership and the rest of the mind.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::gates::Gates;
use crate::lan::{LinkIndex, MacAddr, NodeName, Vip};
use crate::liveness::{Death, Liveness, Verdict};
use crate::mind::Report;
use crate::mind::facts::Facts;
use crate::mind::hush::Hush;
use crate::succession::Holding;
use crate::wire::speech::{Body, Header, Witnessed};

/// What the decisions are made from, beside the books.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The node and its surroundings.
    pub facts: &'a Facts,
    /// Who is alive.
    pub liveness: &'a Liveness,
    /// Which links are hushed.
    pub hush: &'a Hush,
}

impl Around<'_> {
    /// What is known of a peer on any of these links, the best of it; elsewhere, where it is not watched on them.
    pub(super) fn verdict(&self, links: &[LinkIndex], node: &NodeName) -> Option<Verdict> {
        let best = |verdict: &Verdict| match verdict {
            Verdict::Alive => 0,
            Verdict::Deaf => 1,
            Verdict::Left => 2,
            Verdict::Dead => 3,
            Verdict::NeverHeard => 4,
        };
        let there = links.iter().filter_map(|link| self.liveness.verdict(*link, node)).min_by_key(best);
        there.or_else(|| self.liveness.verdicts(node).map(|(_, verdict)| verdict).min_by_key(best))
    }
}

/// A frame in which a speaker says that it has an address.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The address.
    pub address: IpAddr,
    /// The speaker's node.
    pub node: &'a NodeName,
    /// The hardware address that it told.
    pub mac: MacAddr,
    /// It told everybody, unasked.
    pub gratuitous: bool,
}

/// What happens to ownership.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// All addresses.
    Vips(Vec<Vip>),
    /// One address is new or changed.
    Vip(Vip),
    /// An address's object is gone.
    Gone(IpAddr),
    /// Facts, hush, or liveness of a whole link changed.
    Around,
    /// What is known of whether a peer lives changed.
    Peer(&'a NodeName),
    /// What this node lacks changed.
    Gates(Gates),
    /// At these ports kube-proxy says that there is no endpoint on this node.
    Unfit(BTreeSet<u16>),
    /// The kernel enforces these guards at these addresses, as [`Vip::guard`] names them; or none any more.
    Guarded(Vec<(IpAddr, Option<Arc<str>>)>),
    /// A peer that is alive said something.
    Said(&'a NodeName, &'a Header, &'a Body),
    /// All that a peer said is void: it left.
    Void(&'a NodeName),
    /// Probes for an address went unanswered.
    ProbeClear(IpAddr),
    /// A station uses the address that was probed for.
    ProbeConflict(IpAddr, MacAddr),
    /// A speaker says on the LAN that it has an address.
    SpeakerHas(Sight<'a>),
    /// A former process of this node announced these addresses, and had changed its mind so often.
    Inherit(&'a [Holding], u64),
    /// What belongs to connections of the address that are known elsewhere is sent on, if it is taken over now.
    ConnectionsKept(IpAddr),
    /// This speaker is to leave.
    Leave,
    /// The time that `next_deadline` named has come.
    Deadline,
}

/// What ownership wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Announce the address on exactly these links.
    Announce(IpAddr, Vec<LinkIndex>),
    /// Go on announcing it on exactly these links, as a former process of this node did.
    Resume(IpAddr, Vec<LinkIndex>),
    /// Announce it, or probe for it, no more.
    Withdraw(IpAddr),
    /// Find out whether a station uses the address.
    Probe(IpAddr, Vec<LinkIndex>),
    /// Ask the LAN once who answers for it.
    Ask(IpAddr, Vec<LinkIndex>),
    /// Tell the neighbours again, since another node announced it wrongly.
    Correct(IpAddr),
    /// Listen for solicitations on exactly these links.
    Listen(IpAddr, Vec<LinkIndex>),
    /// Tell all peers what is now said of these addresses.
    Tell(Vec<IpAddr>),
    /// Tell one peer everything.
    TellAll(NodeName),
    /// Ask a peer for everything.
    Query(NodeName),
    /// Ask a peer which addresses it knows of.
    AskKnowledge(NodeName),
    /// Tell a peer which addresses are known of here.
    TellKnowledge(NodeName),
    /// Ask all peers who claims these addresses.
    AskWhoHas(Vec<IpAddr>),
    /// Tell a peer who claims addresses, since it may not hear those itself.
    Testify(NodeName, Vec<Witnessed>),
    /// Tell the world.
    Report(Report),
    /// The address is about to be taken over from a node that lives: keep the connections that it knows.
    KeepConnections(IpAddr, NodeName, Vec<LinkIndex>),
    /// This node begins to answer for an address.
    Took(IpAddr),
    /// An address was claimed because the node that announced it was found dead like this.
    FailedOver(Death),
    /// Everything is handed over.
    Left,
}
