//! What a speaker writes into a VirtualIP's status. Pure.
//!
//! All speakers write under one manager, by server-side apply, and each apply holds everything that
//! speakers own: announcer, last announcers and both conditions. So each starts from what the object
//! says, changes what this node knows better, and carries the object's revision: if another node wrote
//! in between, the write fails and is planned anew.
//!
//! A node never overwrites an announcement of another that goes before its own: the one with the higher
//! epoch, then the higher term, then the better rank, as in the settlement between speakers. Only one
//! that the object named when this node began to announce is overwritten by its equal: an isolated node
//! announces without raising the term.

use std::cmp::Reverse;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use landfall_crds::names::conditions::{ADDRESS_CONFLICT, ADDRESS_GUARDED, ANNOUNCED};
use landfall_crds::{Announcer, PastAnnouncer, VirtualIP, VirtualIPStatus};

use super::conditions::{Says, condition, find};
use super::picture::{Announcing, Answers, Conflict, View, refusal_in_words};
use crate::mind::Withdrawal;

/// How many past announcers are kept.
const PAST: usize = 10;

/// A VirtualIP as far as its status is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The object's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its revision.
    pub resource_version: String,
    /// What its status says.
    pub status: VirtualIPStatus,
    /// The place of the announcer in the ranking, if it has one.
    pub announcers_rank: Option<usize>,
    /// The place of this node in it.
    pub own_rank: Option<usize>,
}

impl Known {
    /// From the object, for the speaker of `node`.
    pub fn of(object: &VirtualIP, node: &str) -> Self {
        let candidates = || object.spec.placement.iter().flat_map(|placement| &placement.candidates);
        let rank = |node: &str| candidates().position(|candidate| candidate.node == node);
        let announcer = object.status.as_ref().and_then(|status| status.announcer.as_ref());
        Self {
            announcers_rank: announcer.and_then(|announcer| rank(&announcer.node)),
            own_rank: rank(node),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version().unwrap_or_default(),
            status: object.status.clone().unwrap_or_default(),
        }
    }

    /// Whether it is at least as new as another. Revisions are compared as numbers, as the API promises
    /// for one resource (KEP-5504); where they are none, the latest word counts as newer.
    pub fn is_at_least(&self, other: &Self) -> bool {
        let number = |known: &Self| known.resource_version.parse::<u128>().ok();
        match (number(self), number(other)) {
            (Some(this), Some(that)) if self.uid == other.uid => this >= that,
            _ => true,
        }
    }
}

/// What this node may say of an address.
#[derive(Clone, Copy, Debug)]
pub struct Speaking<'a> {
    /// This node.
    pub node: &'a str,
    /// What its mind reported.
    pub view: &'a View,
    /// Who the object named as announcer when this node began to announce.
    pub replaces: Option<&'a Announcer>,
    /// Who is let in there, in words, where the address has source ranges and the kernel of this node enforces
    /// them.
    pub guarded: Option<&'a str>,
    /// Since when this speaker has run for long enough that it would announce by now what it still
    /// announced when it ended the last time.
    pub settled: Option<Timestamp>,
}

/// The status to write, without what is not a speaker's; nothing where the object says it already.
pub fn plan(known: &Known, speaking: Speaking<'_>) -> Option<VirtualIPStatus> {
    let before = owned(&known.status);
    let mut wanted = before.clone();
    announcer(&mut wanted, known, speaking);
    guarded(&mut wanted, speaking);
    conflict(&mut wanted, speaking);
    (wanted != before).then_some(wanted)
}

/// The part of a status that speakers own.
fn owned(status: &VirtualIPStatus) -> VirtualIPStatus {
    let ours = |condition: &&Condition| {
        [ANNOUNCED, ADDRESS_GUARDED, ADDRESS_CONFLICT].contains(&condition.type_.as_str())
    };
    VirtualIPStatus {
        announcer: status.announcer.clone(),
        last_announcers: status.last_announcers.clone(),
        last_holders: Vec::new(),
        conditions: status.conditions.iter().filter(ours).cloned().collect(),
    }
}

fn announcer(wanted: &mut VirtualIPStatus, known: &Known, speaking: Speaking<'_>) {
    let current = known.status.announcer.as_ref();
    let is_ours = current.is_some_and(|current| current.node == speaking.node);
    let view = speaking.view;
    match &view.answers {
        Answers::Now(ours) => {
            if is_ours || current.is_none_or(|current| goes_before(known, ours, current, speaking.replaces)) {
                announce(wanted, current, ours, speaking.node);
            }
        }
        Answers::NoMore { reason, at } if is_ours => {
            let says = no_more(*reason, view, speaking.node);
            withdraw(wanted, current, says, *at);
        }
        Answers::Never if is_ours => {
            if let Some(at) = speaking.settled {
                let message =
                    format!("node {} has not announced it since its speaker started", speaking.node);
                let says = Says { status: false, reason: "NotEligible", message };
                withdraw(wanted, current, says, at);
            }
        }
        Answers::NoMore { .. } | Answers::Never => {}
    }
    if wanted.announcer.is_none() {
        refuse(wanted, speaking);
    }
}

/// Whether our announcement goes before the one in the object.
fn goes_before(known: &Known, ours: &Announcing, current: &Announcer, replaces: Option<&Announcer>) -> bool {
    let last = usize::MAX;
    let rank = |rank: Option<usize>| Reverse(rank.unwrap_or(last));
    let own = (ours.epoch, number(ours.term), rank(known.own_rank));
    let standing = (current.epoch, current.term, rank(known.announcers_rank));
    own > standing || ((own.0, own.1) == (standing.0, standing.1) && replaces == Some(current))
}

fn announce(wanted: &mut VirtualIPStatus, current: Option<&Announcer>, ours: &Announcing, node: &str) {
    let mut since = Time(ours.since);
    match current {
        // The same announcement goes on, even if its speaker has been started anew.
        Some(current) if current.node == node && current.term == number(ours.term) => {
            since = current.since.clone();
        }
        Some(current) if current.node == node => {}
        Some(current) => past(wanted, current, ours.since),
        None => {}
    }
    wanted.announcer = Some(Announcer {
        node: node.to_owned(),
        interface: ours.interface.clone(),
        mac: ours.mac.to_string(),
        term: number(ours.term),
        epoch: ours.epoch,
        since,
    });
    let message = format!("node {node} answers for it on {}", ours.interface);
    set(wanted, ANNOUNCED, Says { status: true, reason: "Announcing", message }, ours.since);
}

fn withdraw(wanted: &mut VirtualIPStatus, current: Option<&Announcer>, says: Says, at: Timestamp) {
    if let Some(current) = current {
        past(wanted, current, at);
    }
    wanted.announcer = None;
    set(wanted, ANNOUNCED, says, at);
}

/// Where nobody announces and this node refuses to, it says why, unless another one has said so.
fn refuse(wanted: &mut VirtualIPStatus, speaking: Speaking<'_>) {
    let Some((refusal, at)) = speaking.view.refused else { return };
    let said = find(&wanted.conditions, ANNOUNCED).is_some_and(|said| said.reason == "AddressRefused");
    if !said {
        let message = format!("node {} refuses it: {}", speaking.node, refusal_in_words(refusal));
        set(wanted, ANNOUNCED, Says { status: false, reason: "AddressRefused", message }, at);
    }
}

/// The node that announces says who may come in; one that does not leaves that alone. Where there are no source
/// ranges there is no condition.
fn guarded(wanted: &mut VirtualIPStatus, speaking: Speaking<'_>) {
    let Answers::Now(announcing) = &speaking.view.answers else { return };
    if wanted.announcer.as_ref().is_none_or(|announcer| announcer.node != speaking.node) {
        return;
    }
    match speaking.guarded {
        Some(words) => {
            let says = Says { status: true, reason: "SourceRangesEnforced", message: words.to_owned() };
            set(wanted, ADDRESS_GUARDED, says, announcing.since);
        }
        None => wanted.conditions.retain(|condition| condition.type_ != ADDRESS_GUARDED),
    }
}

fn conflict(wanted: &mut VirtualIPStatus, speaking: Speaking<'_>) {
    let is_set = find(&wanted.conditions, ADDRESS_CONFLICT).is_some_and(|set| set.status == "True");
    let none = || Says {
        status: false,
        reason: "NoConflict",
        message: "no station other than a speaker uses the address".to_owned(),
    };
    match speaking.view.conflict {
        Conflict::Now { mac, at } => {
            let message = format!(
                "the station {mac}, which is no speaker, uses the address as well: take the address away from \
                 it, or take it out of the pool"
            );
            set(wanted, ADDRESS_CONFLICT, Says { status: true, reason: "ForeignStation", message }, at);
        }
        Conflict::Over { at } if is_set => set(wanted, ADDRESS_CONFLICT, none(), at),
        // A conflict that an earlier announcer saw: the one that announces now does not see it.
        Conflict::Never if is_set => {
            if let Answers::Now(ours) = &speaking.view.answers {
                set(wanted, ADDRESS_CONFLICT, none(), ours.since);
            }
        }
        Conflict::Over { .. } | Conflict::Never => {}
    }
}

fn past(wanted: &mut VirtualIPStatus, current: &Announcer, until: Timestamp) {
    let past = PastAnnouncer { node: current.node.clone(), since: current.since.clone(), until: Time(until) };
    wanted.last_announcers.insert(0, past);
    wanted.last_announcers.truncate(PAST);
}

fn set(wanted: &mut VirtualIPStatus, type_: &str, says: Says, at: Timestamp) {
    let new = condition(type_, says, &wanted.conditions, at);
    match wanted.conditions.iter_mut().find(|old| old.type_ == type_) {
        Some(old) => *old = new,
        None => wanted.conditions.push(new),
    }
}

fn no_more(reason: Withdrawal, view: &View, node: &str) -> Says {
    let (reason, message) = match reason {
        Withdrawal::Released => ("Released", "no Service claims it any more".to_owned()),
        Withdrawal::Superseded => ("Superseded", "another node announces it".to_owned()),
        Withdrawal::Left => ("Left", format!("the speaker of node {node} has left")),
        Withdrawal::NotEligible => {
            ("NotEligible", format!("node {node} may not or can not announce it any more"))
        }
        Withdrawal::Refused => {
            let why = view.refused.map_or("it must not be announced", |(why, _)| refusal_in_words(why));
            ("AddressRefused", format!("node {node} refuses it: {why}"))
        }
    };
    Says { status: false, reason, message }
}

/// A term as the API holds it.
fn number(term: u64) -> i64 {
    i64::try_from(term).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "virtual_ip_status_tests.rs"]
mod tests;
