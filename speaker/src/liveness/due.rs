//! What time alone does: questions, deaths and isolation.

use std::time::Instant;

use super::state::LinkState;
use super::verification::{Ask, Finding, LONGEST, Verification};
use super::{Action, Death, Liveness, Timing, Verdict};

impl Liveness {
    pub(super) fn gap(&mut self, now: Instant, long: bool, out: &mut Vec<Action>) {
        // One interval of grace, in which whoever lives is heard.
        let grace = |heard: &mut Instant, has_grace: &mut bool, timing: Timing| {
            let (detection, interval) = (timing.detection(), timing.interval);
            if !std::mem::replace(has_grace, true) && *heard + detection < now + interval {
                *heard = now.checked_sub(detection - interval).unwrap_or(*heard);
            }
        };
        for session in self.sessions.values_mut().filter(|session| session.verdict.is_heard()) {
            grace(&mut session.heard, &mut session.has_grace, session.timing);
            session.verification = None;
        }
        for (link, state) in &mut self.links {
            grace(&mut state.speaker_heard, &mut state.has_grace, self.timing);
            let mut peers = self.sessions.keys().filter(|(on, _)| on == link).peekable();
            if long && peers.peek().is_some() {
                out.push(Action::Reached(*link));
            }
            out.extend(peers.map(|(link, node)| Action::Ask(*link, node.clone())));
        }
        self.due(now, out);
    }

    /// Does all that is due and finds out when the next thing will be.
    pub(super) fn due(&mut self, now: Instant, out: &mut Vec<Action>) {
        let (detection, interval, doubt) = (self.timing.detection(), self.timing.interval, self.doubt());
        let mut next: Option<Instant> = None;
        let mut wake = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for ((link, node), session) in &mut self.sessions {
            if !session.verdict.is_heard() {
                continue;
            }
            let (detection, late) = (session.timing.detection(), session.timing.late());
            let mut is_dead = session.heard + detection <= now && !session.is_put_off(now);
            if session.heard + late > now {
                wake(session.heard + late);
            } else if !is_dead {
                let verification = session.verification.get_or_insert_with(|| {
                    out.push(Action::Ask(*link, node.clone()));
                    Verification::begin(now)
                });
                let ask = &mut |ask| match ask {
                    Ask::Kernel => out.push(Action::Probe(*link, node.clone())),
                    Ask::Others => {
                        out.push(Action::AskWitnesses(*link, node.clone()));
                        out.push(Action::AskLan(*link));
                    }
                };
                let heard = self.links.get(link).map_or(session.heard, LinkState::heard);
                let mut finding = verification.step(now, heard, ask);
                if finding == Finding::LanIsBack && !std::mem::replace(&mut session.has_grace, true) {
                    // It may be back as well, and then its next heartbeat comes within an interval.
                    let grace = now.checked_sub(detection - late).unwrap_or(session.heard);
                    session.heard = session.heard.max(grace);
                    verification.begin_anew(now);
                    finding = verification.step(now, heard, ask);
                }
                match finding {
                    Finding::Dead | Finding::LanIsBack => is_dead = true,
                    Finding::Open(next) => next.into_iter().for_each(&mut wake),
                }
            }
            if is_dead {
                let suspected = session.verification.as_ref().map_or(now, Verification::suspected);
                let heard = session.truly_heard.unwrap_or(session.heard);
                let kernel_answers =
                    session.verification.as_ref().is_some_and(|asked| asked.is_answered(now));
                session.death = Some(Death { heard, suspected, verified: now, kernel_answers });
                session.verdict = Verdict::Dead;
                (session.isolated_since, session.verification) = (None, None);
                out.push(Action::Dead(*link, node.clone()));
                continue;
            }
            // Past that, its kernel is asked again and again.
            wake(
                session.heard
                    + if now < session.heard + detection { detection } else { LONGEST.max(detection) },
            );
            if let (Verdict::Alive, Some(since)) = (session.verdict, session.isolated_since) {
                if since + detection <= now {
                    session.verdict = Verdict::Deaf;
                    out.push(Action::Deaf(*link, node.clone()));
                } else {
                    wake(since + detection);
                }
            }
        }
        for (link, state) in &mut self.links {
            if !self.sessions.keys().any(|(on, _)| on == link) {
                continue;
            }
            let ask_from = state.speaker_heard + doubt;
            let ask_at = state.next_ask.max(ask_from);
            if ask_at <= now {
                out.push(Action::AskLan(*link));
                state.next_ask = now + interval;
                wake(state.next_ask);
            } else {
                wake(ask_at);
            }
            let heard = state.heard();
            if state.isolated_since.is_none() {
                if heard + detection <= now {
                    state.isolated_since = Some(now);
                    out.push(Action::Isolated(*link));
                } else {
                    wake(heard + detection);
                }
            }
        }
        self.deadline = next;
    }

    pub(super) fn wake_by(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }
}
