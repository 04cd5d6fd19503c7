//! The Kubernetes Events that a speaker writes. Pure.

use landfall_crds::{ClaimRef, service_guard_name};

use super::picture::{View, refusal_in_words};
use super::virtual_ip_status::Known;
use crate::filter::Notice;
use crate::mind::Report;

/// What an Event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regarding {
    /// A VirtualIP.
    VirtualIp,
    /// A ServiceGuard.
    ServiceGuard,
    /// This node's Speaker.
    Speaker,
}

/// A Kubernetes Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What it is about.
    pub regarding: Regarding,
    /// The object's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether a person should look.
    pub warning: bool,
    /// One word, as `kubectl describe` shows.
    pub reason: &'static str,
    /// What was done, as one word.
    pub action: &'static str,
    /// The sentence.
    pub note: String,
}

/// The Event about a report on a VirtualIP, if it is worth one; `before` is what was said of the address before.
pub fn reported(node: &str, report: &Report, known: &Known, before: Option<&View>) -> Option<Announcement> {
    let (warning, reason, action, note) = match report {
        Report::Announcing { interface, .. } => {
            if before.is_some_and(View::answers_now) {
                return None;
            }
            (false, "nodeAssigned", "Announce", format!("announcing from node \"{node}\" on {interface}"))
        }
        Report::AddressConflict { mac, .. } => {
            let note = format!("the station {mac}, which is no speaker, uses the address as well");
            (true, "AddressConflict", "Announce", note)
        }
        Report::Refused { reason, .. } => {
            let note = format!("node \"{node}\" refuses to announce it: {}", refusal_in_words(*reason));
            (true, "AddressRefused", "Refuse", note)
        }
        _ => return None,
    };
    let (name, uid) = (known.name.clone(), known.uid.clone());
    Some(Announcement { regarding: Regarding::VirtualIp, name, uid, warning, reason, action, note })
}

/// The Event that somebody begins to be refused by the source ranges of a Service, whose guard has this uid.
pub fn refused(node: &str, notice: &Notice, uid: String) -> Announcement {
    let (namespace, name) = notice.service.parts();
    let service = ClaimRef { namespace: namespace.to_owned(), name: name.to_owned() };
    Announcement {
        regarding: Regarding::ServiceGuard,
        name: service_guard_name(&service),
        uid,
        warning: true,
        reason: "SourceRefused",
        action: "Enforce",
        note: format!("{notice} (node \"{node}\")"),
    }
}

/// The Event that the table of the packet filter vanished, on the node's Speaker, which has this uid.
pub fn filter_vanished(node: &str, uid: Option<&str>) -> Announcement {
    Announcement {
        regarding: Regarding::Speaker,
        name: node.to_owned(),
        uid: uid.unwrap_or_default().to_owned(),
        warning: true,
        reason: "FilterVanished",
        action: "Enforce",
        note: format!(
            "the table of the packet filter that enforces source ranges vanished on node \"{node}\" and is being \
             made again: something else flushes the node's rules"
        ),
    }
}
