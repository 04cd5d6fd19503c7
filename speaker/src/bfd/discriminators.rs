//! Local discriminators: unique among the sessions of a process, and random (RFC 5880 sections 6.8.1, 9).

use std::collections::BTreeSet;

use crate::mind::rng::Rng;
use crate::wire::bfd::Discriminator;

/// The discriminators that are in use here.
///
/// That they are hard to guess protects sessions without authentication from whoever does not hear them;
/// so the generator's seed comes from the operating system.
#[derive(Clone, Debug, Default)]
pub struct Discriminators(BTreeSet<Discriminator>);

impl Discriminators {
    /// Draws one for a new session.
    pub fn draw(&mut self, rng: &mut Rng) -> Discriminator {
        loop {
            // The upper half of the number is as good as the whole.
            if let Some(drawn) = Discriminator::new((rng.next_u64() >> 32) as u32)
                && self.0.insert(drawn)
            {
                return drawn;
            }
        }
    }

    /// Takes one that a former process of this node had. Whether it is free.
    pub fn take(&mut self, discriminator: Discriminator) -> bool {
        self.0.insert(discriminator)
    }

    /// Gives one back when its session is gone.
    pub fn release(&mut self, discriminator: Discriminator) {
        self.0.remove(&discriminator);
    }

    /// Whether a session here has it. A packet whose *sender* has it was reflected.
    pub fn contains(&self, discriminator: Discriminator) -> bool {
        self.0.contains(&discriminator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discriminators_are_unique_while_they_are_in_use() {
        let (mut discriminators, mut rng) = (Discriminators::default(), Rng::new(1));
        let drawn: BTreeSet<_> = (0..1000).map(|_| discriminators.draw(&mut rng)).collect();
        assert_eq!(drawn.len(), 1000);
        // The same numbers come again, and are passed over.
        let again: BTreeSet<_> = (0..1000).map(|_| discriminators.draw(&mut Rng::new(1))).collect();
        assert!(again.is_disjoint(&drawn));
        let first = Rng::new(1).next_u64() >> 32;
        let first = Discriminator::new(first as u32).unwrap();
        assert!(discriminators.contains(first));
        discriminators.release(first);
        assert!(!discriminators.contains(first));
        assert_eq!(discriminators.draw(&mut Rng::new(1)), first);
    }
}
