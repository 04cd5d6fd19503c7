//! Numbers that look random and are the same for the same seed (SplitMix64, Steele, Lea and Flood 2014).

use std::time::Duration;

/// A stream of such numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    // It never ends, and nobody iterates over it.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        stir(self.0)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// Whether something happens that happens in so many of a hundred cases.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_nanos(self.below(longest.as_nanos() as u64 + 1))
    }

    /// A length between the two, in such a way that each order of magnitude is as likely as any other.
    pub fn spread(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let share = self.below(1 << 20) as f64 / f64::from(1 << 20);
        let (low, high) = (shortest.as_secs_f64().ln(), longest.as_secs_f64().ln());
        Duration::from_secs_f64((low + (high - low) * share).exp())
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }
}

/// A number that depends on these alone, so that what one pair of nodes draws does not depend on what others
/// drew before: a story that is made shorter stays the same story.
pub fn draw(parts: [u64; 4]) -> u64 {
    parts
        .into_iter()
        .fold(0, |mixed, part| stir(mixed.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

fn stir(mut mixed: u64) -> u64 {
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
