//! What others say of a speaker that is not heard here: that it claims an address.
//!
//! Two nodes may be cut off from each other while a third hears both. Then each believes the third.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::claim::{Claimant, Statement};
use super::record::Record;
use super::standing::{Desk, Owner};
use super::{Action, Around, Ownership};
use crate::lan::NodeName;
use crate::liveness::Verdict;
use crate::mind::facts::Station;
use crate::wire::speech::{Entry, Witnessed};

/// What a witness said is believed for as long.
const BELIEF: Duration = Duration::from_millis(700);
/// After as long the others are asked whether it is still so.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// A claim that others told of.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    owner: Owner,
    told: Instant,
    asked: Instant,
}

impl Desk<'_> {
    /// Drops what is not believed any more, and asks anew for what is.
    pub(super) fn look_at_witness(&mut self, record: &mut Record) {
        let Some(mut witness) = record.witnessed.take() else { return };
        let node = &witness.owner.node;
        // What was found before the witness spoke, it may have known better.
        let died_since = |link| {
            let death = self.around.liveness.death(link, node);
            death.is_none_or(|death| death.verified > witness.told)
        };
        let is_gone = self.around.liveness.verdicts(node).any(|(link, verdict)| match verdict {
            Verdict::Left => true,
            Verdict::Dead => died_since(link),
            _ => false,
        });
        // Who is heard since and is in step has said so himself, or said that it is not so.
        let is_heard = |(link, _)| self.around.liveness.is_heard_since(link, node, witness.told);
        let speaks_for_itself =
            self.books.is_in_step(node) && self.around.liveness.verdicts(node).any(is_heard);
        if is_gone || speaks_for_itself || witness.told + BELIEF <= self.now {
            return;
        }
        if witness.asked + ASK_AGAIN <= self.now {
            witness.asked = self.now;
            self.who_has.push(record.address());
        }
        record.wake_at((witness.asked + ASK_AGAIN).min(witness.told + BELIEF));
        record.witnessed = Some(witness);
    }

    /// Who claims the address by the word of others.
    pub(super) fn witnessed_owner<'r>(&self, record: &'r Record) -> Option<&'r Owner> {
        record.witnessed.as_ref().map(|witness| &witness.owner)
    }
}

impl Ownership {
    /// A peer asks who claims these addresses: tells it what others say who are heard here.
    pub(super) fn testify(
        &self,
        around: Around<'_>,
        asker: &NodeName,
        addresses: &[IpAddr],
        out: &mut Vec<Action>,
    ) {
        let best = |address: &IpAddr| {
            let others = self.living_claims(around, *address).filter(|claimant| claimant.node != asker);
            others.min_by(|a, b| a.precedence(b)).map(|claimant| witnessed(*address, &claimant))
        };
        let known: Vec<_> = addresses.iter().filter_map(best).collect();
        if !known.is_empty() {
            out.push(Action::Testify(asker.clone(), known));
        }
    }

    /// Others tell who claims addresses.
    pub(super) fn hear_witness(&mut self, now: Instant, around: Around<'_>, claims: &[Witnessed]) {
        for Witnessed { mac, entry } in claims {
            let Station::Speaker(node) = around.facts.station(*mac) else { continue };
            let (Some(claim), Some(record)) = (entry.statement.claim(), self.records.get_mut(&entry.address))
            else {
                continue;
            };
            let owner = Owner { node, mac: *mac, claim: *claim };
            record.witnessed = Some(Witness { owner, told: now, asked: now });
            self.undecided.insert(entry.address);
        }
    }

    /// Tells those who claim an address that somebody else does, and goes before them, where both still go on.
    pub(super) fn settle_disputes(&mut self, now: Instant, around: Around<'_>, out: &mut Vec<Action>) {
        let mut told: BTreeMap<NodeName, Vec<Witnessed>> = BTreeMap::new();
        for address in self.disputes.take_due(now) {
            let mut claims: Vec<_> = self.living_claims(around, address).collect();
            claims.sort_by(|a, b| a.precedence(b));
            let Some((best, losers)) = claims.split_first().filter(|(_, losers)| !losers.is_empty()) else {
                continue;
            };
            for loser in losers {
                told.entry(loser.node.clone()).or_default().push(witnessed(address, best));
            }
            self.disputes.again(now, address);
        }
        out.extend(told.into_iter().map(|(node, claims)| Action::Testify(node, claims)));
    }

    /// The claims of peers that this node would believe itself: they are alive where the address is announced, and
    /// all that they say is known. Who is heard elsewhere only may not be reached there.
    fn living_claims<'a>(
        &'a self,
        around: Around<'a>,
        address: IpAddr,
    ) -> impl Iterator<Item = Claimant<'a>> {
        let links = self.records.get(&address).map(|record| around.facts.carrying(record.vip()));
        let links = links.unwrap_or_default();
        let claims = self.peers.claims(address).map(|(node, mac, claim)| Claimant { claim, mac, node });
        claims.filter(move |claimant| {
            self.peers.is_in_step(claimant.node)
                && around.verdict(&links, claimant.node) == Some(Verdict::Alive)
        })
    }
}

fn witnessed(address: IpAddr, claimant: &Claimant<'_>) -> Witnessed {
    let statement = Statement::Announcing(*claimant.claim);
    Witnessed { mac: claimant.mac, entry: Entry { address, statement } }
}
