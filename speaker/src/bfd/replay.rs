//! Which sequence numbers were seen, so that nothing is believed twice (RFC 5880 section 6.7.4).
//!
//! The RFC keeps one number for the peer, and forgets it after twice the detection time of silence. Whoever
//! recorded packets could then play them back and make a dead peer look alive; and a peer whose process has
//! just been started anew is refused until that silence is over. Here a number is kept for each discriminator
//! that the peer lately had: a process of ours draws a new one when it starts and counts on as long as it has
//! it, so under one discriminator numbers only ever grow.
//!
//! A discriminator that was never seen is taken from a packet that names none of ours, as the first ones of
//! a process do. Such a packet may be a recording from before our own start, and proves nothing (see
//! `Action::Heard`). A packet that does name us under an unknown discriminator is refused until the silence.

use std::collections::VecDeque;

use crate::wire::bfd::Discriminator;

/// So many discriminators of a peer are remembered.
const REMEMBERED: usize = 64;
/// A number is ahead of another if it is less than half a circle away (RFC 5880 treats them as circular).
const HALF_CIRCLE: u32 = 1 << 31;

/// Why a sequence number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stale {
    /// It was used before, or could have been.
    Replayed,
    /// It is ahead, but by more than may have been lost.
    OutOfWindow,
}

/// What is remembered of a peer's sequence numbers: the last of each discriminator, the latest in front.
#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    seen: VecDeque<(Discriminator, u32)>,
    /// A packet that named our discriminator was heard and no silence followed: bfd.AuthSeqKnown.
    is_known: bool,
}

impl Replay {
    /// Goes on from what a former process of this node had seen; the latest in front.
    pub(super) fn resume(seen: impl IntoIterator<Item = (Discriminator, u32)>) -> Self {
        Self { seen: seen.into_iter().take(REMEMBERED).collect(), is_known: true }
    }

    /// The last number of each discriminator, the latest in front.
    pub(super) fn seen(&self) -> impl Iterator<Item = (Discriminator, u32)> + '_ {
        self.seen.iter().copied()
    }

    /// Whether a packet may be new. `window` is three times its detect mult; `names_us` says that it carries
    /// our discriminator, `quiet` that nothing was heard for twice the detection time.
    pub(super) fn check(
        &self,
        sender: Discriminator,
        sequence: u32,
        window: u32,
        names_us: bool,
        quiet: bool,
    ) -> Result<(), Stale> {
        let Some((_, last)) = self.seen.iter().find(|(discriminator, _)| *discriminator == sender) else {
            let may_begin = quiet || !names_us || !self.is_known;
            return if may_begin { Ok(()) } else { Err(Stale::OutOfWindow) };
        };
        match sequence.wrapping_sub(*last) {
            0 | HALF_CIRCLE.. => Err(Stale::Replayed),
            ahead if ahead > window && !quiet => Err(Stale::OutOfWindow),
            _ => Ok(()),
        }
    }

    /// Remembers a packet that was checked and whose hash is right.
    pub(super) fn accept(&mut self, sender: Discriminator, sequence: u32, names_us: bool, quiet: bool) {
        self.is_known = names_us || self.is_known && !quiet;
        // A new one takes the place of the one that was heard longest ago.
        self.seen.retain(|(discriminator, _)| *discriminator != sender);
        self.seen.truncate(REMEMBERED - 1);
        self.seen.push_front((sender, sequence));
    }
}
