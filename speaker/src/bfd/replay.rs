//! Which sequence numbers were seen, so that nothing is believed twice (RFC 5880 section 6.7.4).
//!
//! The RFC keeps one number, and forgets it after twice the detection time of silence; whoever recorded
//! packets could then play them back and make a dead peer look alive. So two things are kept beyond it:
//!
//! - the last number of each discriminator that the peer lately had. A process of ours draws a new one
//!   when it starts and counts on as long as it has it, so under one discriminator numbers only ever grow.
//! - whether the last number is *anchored*: its packet named our own discriminator, which is random, so
//!   it was made after we were. A recording of a former time cannot be, and so cannot keep the window
//!   shut in front of the true peer.

use crate::wire::bfd::Discriminator;

/// So many discriminators of a peer are remembered.
const REMEMBERED: usize = 8;
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

/// What is remembered of a peer's sequence numbers. The latest is the first.
#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    seen: [Option<(Discriminator, u32)>; REMEMBERED],
    /// A packet that named our discriminator was heard and no silence followed: then the RFC's window
    /// holds for whatever discriminator the peer says it has.
    anchored: bool,
}

impl Replay {
    /// Whether a packet may be new. `window` is three times its detect mult; `quiet` says that nothing
    /// was heard for twice the detection time, as bfd.AuthSeqKnown says it.
    pub(super) fn check(
        &self,
        sender: Discriminator,
        sequence: u32,
        window: u32,
        quiet: bool,
    ) -> Result<(), Stale> {
        let latest = self.seen[0].filter(|_| self.anchored && !quiet);
        let same = self.seen.iter().flatten().find(|(discriminator, _)| *discriminator == sender);
        for (_, last) in same.into_iter().chain(&latest) {
            match sequence.wrapping_sub(*last) {
                0 | HALF_CIRCLE.. => return Err(Stale::Replayed),
                ahead if ahead > window && !quiet => return Err(Stale::OutOfWindow),
                _ => {}
            }
        }
        Ok(())
    }

    /// Remembers a packet that was checked and whose hash is right.
    pub(super) fn accept(&mut self, sender: Discriminator, sequence: u32, names_us: bool, quiet: bool) {
        self.anchored = names_us || self.anchored && !quiet;
        let is_sender =
            |entry: &Option<(Discriminator, u32)>| entry.is_some_and(|(known, _)| known == sender);
        // A new one takes the place of the one that was heard longest ago.
        let place = self.seen.iter().position(is_sender).unwrap_or(REMEMBERED - 1);
        self.seen[..=place].rotate_right(1);
        self.seen[0] = Some((sender, sequence));
    }
}
