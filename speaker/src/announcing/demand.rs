//! Which addresses were lately asked for: their neighbours wait for word of a takeover, so they are told first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many addresses are remembered. Whoever asks for very many has them all forgotten.
const MOST: usize = 1 << 14;
/// Who asked longer ago than this has asked again, or needs the address no more.
const FORGET: Duration = Duration::from_secs(10 * 60);

/// When each address was last asked for, by anybody on any link.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    asked: HashMap<IpAddr, Instant>,
}

impl Demand {
    /// A station asks who has the address.
    pub(super) fn note(&mut self, now: Instant, address: IpAddr) {
        if self.asked.len() >= MOST && !self.asked.contains_key(&address) {
            self.asked.retain(|_, at| *at + FORGET > now);
            if self.asked.len() >= MOST {
                self.asked.clear();
            }
        }
        self.asked.insert(address, now);
    }

    /// When it was last asked for.
    pub(super) fn of(&self, address: IpAddr) -> Option<Instant> {
        self.asked.get(&address).copied()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A point in time to count from; nothing waits.
mod tests {
    use super::*;

    #[test]
    fn no_flood_of_questions_takes_up_memory() {
        let (now, mut demand) = (Instant::now(), Demand::default());
        for number in 0..100_000_u32 {
            demand.note(now, std::net::Ipv4Addr::from_bits(number).into());
            assert!(demand.asked.len() <= MOST);
        }
        let last: IpAddr = std::net::Ipv4Addr::from_bits(99_999).into();
        assert_eq!(demand.of(last), Some(now));
        demand.note(now + FORGET, last);
        assert_eq!(demand.of(last), Some(now + FORGET));
    }
}
