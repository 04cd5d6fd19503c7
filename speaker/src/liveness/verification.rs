//! Whether a peer whose heartbeat is late is dead: asked at once, not waited for.
//!
//! The peer's kernel is asked for the node's own address, since it answers even where the speaker is
//! starved; other peers are asked whether they hear it; and the LAN is asked whether it is there at all. A
//! peer of whom there is no sign while others give one is dead as soon as all probes had their time. Any
//! doubt means to wait for the whole detection time: so no verdict is made that silence would not have made.
//! Only a kernel that goes on answering puts the verdict off beyond that, and at most to a second: its node
//! still forwards what clients send, and its speaker may only want for the processor.
//!
//! | The peer's kernel | A witness | Anybody else since | Then |
//! |---|---|---|---|
//! | silent | silent | heard | dead once all probes had their time |
//! | silent | silent | silent | the whole detection time: it may be the switch, or this node's own port; when the LAN is back, once more from the beginning |
//! | answers, and says that nobody listens | silent | any | the whole detection time: the process is gone, its node still forwards |
//! | answers | silent | any | as long as it goes on answering, at most a second in all; then the whole detection time is over |
//! | any | heard it lately | any | alive: the witness's word counts like a heartbeat, as old as it says |
//!
//! A process that was itself not run begins anew: what it did not hear meanwhile says nothing.

use std::time::{Duration, Instant};

/// So many probes are sent before silence is believed.
const PROBES: u32 = 10;
/// The least time between two probes, and from the last one to the verdict.
const PACE: Duration = Duration::from_millis(5);
/// A kernel that has answered is asked again so often.
const AGAIN: Duration = Duration::from_millis(25);
/// An answer counts for as long: two more may be lost.
const FRESH: Duration = Duration::from_millis(75);
/// No answer puts a verdict off for longer than this after the last sign of the speaker itself.
pub(super) const LONGEST: Duration = Duration::from_secs(1);
/// Witnesses are asked again at this probe, since the question or the answer may be lost.
const ASK_AGAIN_AT: u32 = PROBES / 2;

/// Probes that are under way.
#[derive(Clone, Debug)]
pub(super) struct Verification {
    /// When the peer became suspect.
    suspected: Instant,
    /// When it was begun for the last time. Only signs from then on count.
    since: Instant,
    sent: u32,
    next: Instant,
    answered: Option<Instant>,
    /// All probes had their time, and nobody else was heard either.
    is_void: bool,
}

/// Who is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The peer's kernel.
    Kernel,
    /// The other peers, and the stations of the LAN.
    Others,
}

/// What came of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The peer is dead.
    Dead,
    /// Nobody was heard while it was asked, and now somebody is. What it did not answer says nothing.
    LanIsBack,
    /// Nothing before this time, if at all.
    Open(Option<Instant>),
}

impl Verification {
    pub(super) fn begin(now: Instant) -> Self {
        Self { suspected: now, since: now, sent: 0, next: now, answered: None, is_void: false }
    }

    /// Asks everything once more.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        *self = Self { suspected: self.suspected, ..Self::begin(now) };
    }

    /// When the peer became suspect.
    pub(super) fn suspected(&self) -> Instant {
        self.suspected
    }

    /// The peer's kernel gave a sign of itself at that time. From before it was asked it proves nothing.
    pub(super) fn answered(&mut self, at: Instant) {
        if at >= self.since {
            self.answered = self.answered.max(Some(at));
        }
    }

    /// Whether the peer's kernel answers until now.
    pub(super) fn is_answered(&self, now: Instant) -> bool {
        self.answered.is_some_and(|at| now < at + FRESH)
    }

    /// Takes the next step: what is to be asked is pushed, what is found is returned. `heard` says when
    /// anybody was heard on the link.
    ///
    /// Probes keep their pace by this process's own clock, so that one that is run late sends as many as
    /// any other and waits for each as long.
    pub(super) fn step(&mut self, now: Instant, heard: Instant, ask: &mut impl FnMut(Ask)) -> Finding {
        if self.answered.is_some() {
            if self.next <= now {
                ask(Ask::Kernel);
                self.next = now + AGAIN;
            }
            return Finding::Open(Some(self.next));
        }
        if self.is_void && heard > self.since {
            return Finding::LanIsBack;
        }
        if now < self.next {
            return Finding::Open(Some(self.next));
        }
        if self.sent < PROBES {
            ask(Ask::Kernel);
            if self.sent == 0 || self.sent == ASK_AGAIN_AT {
                ask(Ask::Others);
            }
            self.sent += 1;
            self.next = now + PACE;
            return Finding::Open(Some(self.next));
        }
        if heard > self.since {
            return Finding::Dead;
        }
        self.is_void = true;
        Finding::Open(None)
    }
}
