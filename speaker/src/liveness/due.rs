//! What time alone does: beats, deaths and isolation.

use std::time::Instant;

use super::{Action, Liveness, Verdict};

impl Liveness {
    pub(super) fn gap(&mut self, now: Instant, long: bool, out: &mut Vec<Action>) {
        // One interval of grace, in which whoever lives is heard.
        let (detection, interval) = (self.timing.detection(), self.timing.interval);
        let grace = |heard: &mut Instant, has_grace: &mut bool| {
            if !std::mem::replace(has_grace, true) && *heard + detection < now + interval {
                *heard = now.checked_sub(detection - interval).unwrap_or(*heard);
            }
        };
        for session in self.sessions.values_mut().filter(|session| session.verdict.is_heard()) {
            grace(&mut session.heard, &mut session.has_grace);
        }
        for (link, state) in &mut self.links {
            grace(&mut state.speaker_heard, &mut state.has_grace);
            state.next_beat = now;
            if long && self.sessions.keys().any(|(on, _)| on == link) {
                out.push(Action::Reached(*link));
            }
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
            if session.heard + detection <= now {
                session.verdict = Verdict::Dead;
                session.isolated_since = None;
                out.push(Action::Dead(*link, node.clone()));
                continue;
            }
            wake(session.heard + detection);
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
            if state.next_beat <= now {
                out.push(Action::Beat(*link));
                state.next_beat = now + self.rng.between(interval * 3 / 4, interval);
            }
            wake(state.next_beat);
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
