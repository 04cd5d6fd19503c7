//! When the memory that a rush of events needed is given back. Pure.

use std::time::{Duration, Instant};

/// So many events leave something behind that is worth to be looked for.
const RUSH: u32 = 1_000;
/// A rush is over when nothing has happened for so long. Looking through the heap takes some milliseconds,
/// which nobody is to wait for.
const REST: Duration = Duration::from_secs(2);

/// Counts events until there is something to give back.
#[derive(Clone, Debug, Default)]
pub struct Heap {
    handled: u32,
    due: Option<Instant>,
}

impl Heap {
    /// An event was handled.
    pub fn handled(&mut self, now: Instant) {
        self.handled = self.handled.saturating_add(1);
        if self.handled >= RUSH {
            self.due = Some(now + REST);
        }
    }

    /// When the memory is to be given back, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It was given back.
    pub fn returned(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_a_rush_when_it_is_over() {
        let start = crate::clock::now().monotonic;
        let mut heap = Heap::default();
        for _ in 1..RUSH {
            heap.handled(start);
        }
        assert_eq!(heap.due(), None, "too little to look for");
        heap.handled(start);
        let later = start + Duration::from_secs(1);
        heap.handled(later);
        assert_eq!(heap.due(), Some(later + REST), "not while it goes on");
        heap.returned();
        heap.handled(later);
        assert_eq!(heap.due(), None);
    }
}
