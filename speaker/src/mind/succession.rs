//! One process of the node leaves, another goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Mind;
use crate::lan::LinkIndex;
use crate::ownership::{self, gates::Gates};
use crate::succession::{Inheritance, Session, VERSION};
use crate::wire::speech::Body;

/// What came in before the former process stopped was answered by that one. It stopped no longer ago than this.
const OVERLAP: Duration = Duration::from_millis(50);

impl Mind {
    /// Everything that the next process of this node needs.
    pub(super) fn leave_behind(&mut self, now: Instant) -> Inheritance {
        self.has_ceded = true;
        let sessions = self.sessions.leave().map(|((link, node), bfd)| Session {
            link: link.0,
            node: node.to_string(),
            heard_ago: self.liveness.heard_ago(now, *link, node),
            process: self.windows.newest(node),
            bfd,
        });
        Inheritance {
            version: VERSION,
            instance: self.instance,
            seal: self.sealer.next(),
            gates: self.ownership.gates().bits(),
            sequence: self.ownership.own_book().sequence(),
            sessions: sessions.collect(),
            holdings: self.ownership.leave_behind().collect(),
            detours: self.draining.leave_behind(now).collect(),
        }
    }

    /// Goes on where the former process stopped.
    pub(super) fn inherit(&mut self, now: Instant, left: Inheritance, out: &mut Vec<super::Action>) {
        self.instance = left.instance;
        // What has waited for this process was said while the former one still answered.
        self.gap_until = now.checked_sub(OVERLAP);
        self.sealer.resume(left.seal);
        for session in &left.sessions {
            let (link, node) = (LinkIndex(session.link), session.node.as_str().into());
            if let Some((instance, newest)) = session.process {
                self.windows.resume(&node, instance, newest);
            }
            if let Some(heard) = session.heard_ago.and_then(|ago| now.checked_sub(ago)) {
                self.liveness.inherit(link, &node, heard, session.process.map(|(instance, _)| instance));
            }
        }
        let processes = left.sessions.iter().filter(|session| session.heard_ago.is_some());
        let processes = processes.filter_map(|session| Some((session.key().1, session.process?.0)));
        let processes: BTreeMap<_, _> = processes.collect();
        self.ownership.expect(now, processes.iter().map(|(node, instance)| (node, *instance)));
        self.has_questions = true;
        let gates = Gates::from_bits(left.gates);
        self.own(now, ownership::Event::Gates(gates), out);
        self.own(now, ownership::Event::Inherit(&left.holdings, left.sequence), out);
        let mut kept = Vec::new();
        self.draining.inherit(now, left.detours, &mut kept);
        self.carry_out(kept, out);
        self.sessions.inherit(left.sessions.into_iter().map(|session| (session.key(), session.bfd)));
    }

    /// Asks the peers of the former process at once what they announce.
    pub(super) fn ask_what_was_known(&mut self, out: &mut Vec<super::Action>) {
        if std::mem::take(&mut self.has_questions) {
            self.say(&Body::Query, out);
        }
    }
}

#[cfg(test)]
#[path = "succession_tests.rs"]
mod tests;
