//! Which messages of each peer were heard, so that none is believed twice.
//!
//! A message of ours could be recorded and played back, even long after the process that made it has ended.
//! So messages are believed only of the process that is proven to be its node's present one, and each counter
//! of it once, by a window as that of IPsec (RFC 4303 section 3.4.3).

use std::collections::BTreeMap;

use super::SealError;

/// How many counters, from the newest down, are told apart. A process counts what it says to all its peers
/// together, so one of them sees few of these.
const WIDTH: u64 = 1024;

/// Which counters of each peer's present process were seen; `K` names a peer.
#[derive(Clone, Debug)]
pub struct Windows<K: Ord>(BTreeMap<K, Window>);

#[derive(Clone, Debug)]
struct Window {
    /// The process that is proven.
    instance: u64,
    /// The first counter that was taken and the largest.
    span: Option<(u64, u64)>,
    /// A bit for each counter, by its remainder.
    seen: [u64; (WIDTH / 64) as usize],
}

impl<K: Ord> Default for Windows<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Windows<K> {
    /// This process of a peer is proven to be its present one, by a BFD packet that names our discriminator and
    /// was not replayed itself. Another one than before starts a new window.
    ///
    /// The message behind that very packet is to be checked next: what was sent before it may be a recording
    /// from before this process began, and is refused from then on.
    pub fn prove(&mut self, peer: &K, instance: u64) {
        match self.0.get_mut(peer) {
            Some(window) if window.instance == instance => {}
            Some(window) => *window = Window::new(instance),
            None => drop(self.0.insert(peer.clone(), Window::new(instance))),
        }
    }

    /// The process that is proven to be a peer's present one, and the largest counter that was taken from it.
    pub fn newest(&self, peer: &K) -> Option<(u64, Option<u64>)> {
        let window = self.0.get(peer)?;
        Some((window.instance, window.span.map(|(_, newest)| newest)))
    }

    /// Goes on where a former process of this node stopped: nothing is believed that came before it did.
    pub fn resume(&mut self, peer: &K, instance: u64, newest: Option<u64>) {
        let mut window = Window::new(instance);
        if let Some(newest) = newest {
            // It has no use but to be the first that is refused.
            let _ = window.take(newest);
        }
        self.0.insert(peer.clone(), window);
    }

    /// Whether a message is believed whose seal is right: then its counter is used up.
    ///
    /// # Errors
    /// [`SealError::OtherProcess`] where another instance is proven, or none; with a counter also
    /// [`SealError::Replayed`], and [`SealError::Stale`] where it is older than the window.
    pub fn check(&mut self, peer: &K, instance: u64, counter: Option<u64>) -> Result<(), SealError> {
        let window = self.0.get_mut(peer).filter(|window| window.instance == instance);
        let window = window.ok_or(SealError::OtherProcess)?;
        counter.map_or(Ok(()), |counter| window.take(counter))
    }

    /// Forgets all peers but those to keep.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.0.retain(|peer, _| keep(peer));
    }
}

impl Window {
    fn new(instance: u64) -> Self {
        Self { instance, span: None, seen: [0; _] }
    }

    fn take(&mut self, counter: u64) -> Result<(), SealError> {
        let (first, newest) = self.span.unwrap_or((counter, counter));
        if counter > newest {
            if counter - newest >= WIDTH {
                self.seen.fill(0);
            } else {
                // Their places still say what was seen of the counters WIDTH before them.
                for entered in newest + 1..=counter {
                    let (word, bit) = place(entered);
                    self.seen[word] &= !bit;
                }
            }
        } else if counter < first || newest - counter >= WIDTH {
            return Err(SealError::Stale);
        }
        let (word, bit) = place(counter);
        if self.seen[word] & bit != 0 {
            return Err(SealError::Replayed);
        }
        self.seen[word] |= bit;
        self.span = Some((first, newest.max(counter)));
        Ok(())
    }
}

/// The word and the bit of a counter.
fn place(counter: u64) -> (usize, u64) {
    let at = counter % WIDTH;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "n2";
    const PROCESS: u64 = 0xfeed;

    /// A window of a process that is proven and of which these were taken.
    fn taken(counters: &[u64]) -> Windows<&'static str> {
        let mut windows = Windows::default();
        windows.prove(&PEER, PROCESS);
        for counter in counters {
            assert_eq!(windows.check(&PEER, PROCESS, Some(*counter)), Ok(()), "{counter}");
        }
        windows
    }

    #[test]
    fn nobody_is_believed_who_is_not_proven() {
        let mut windows = taken(&[]);
        for counter in [None, Some(7)] {
            assert_eq!(windows.check(&"n3", PROCESS, counter), Err(SealError::OtherProcess));
            assert_eq!(windows.check(&PEER, PROCESS + 1, counter), Err(SealError::OtherProcess));
            assert_eq!(windows.check(&PEER, PROCESS, counter), Ok(()));
        }
    }

    #[test]
    fn where_there_are_no_keys_the_process_alone_is_checked() {
        let mut windows = taken(&[]);
        for _ in 0..3 {
            assert_eq!(windows.check(&PEER, PROCESS, None), Ok(()));
        }
    }

    #[test]
    fn to_prove_the_same_process_again_forgets_nothing() {
        let mut windows = taken(&[5, 7]);
        windows.prove(&PEER, PROCESS);
        assert_eq!(windows.check(&PEER, PROCESS, Some(7)), Err(SealError::Replayed));
        assert_eq!(windows.check(&PEER, PROCESS, Some(4)), Err(SealError::Stale));
        assert_eq!(windows.check(&PEER, PROCESS, Some(6)), Ok(()));
    }

    #[test]
    fn a_new_process_begins_anew_and_its_former_self_is_not_believed_any_more() {
        let mut windows = taken(&[1_000_000]);
        windows.prove(&PEER, PROCESS + 1);
        assert_eq!(windows.check(&PEER, PROCESS, Some(1_000_001)), Err(SealError::OtherProcess));
        assert_eq!(windows.check(&PEER, PROCESS + 1, Some(1)), Ok(()));
        assert_eq!(windows.check(&PEER, PROCESS + 1, Some(1)), Err(SealError::Replayed));
    }

    #[test]
    fn each_peer_has_a_window_of_its_own_until_it_is_forgotten() {
        let mut windows = taken(&[5]);
        windows.prove(&"n3", PROCESS);
        assert_eq!(windows.check(&"n3", PROCESS, Some(5)), Ok(()));
        windows.retain(|peer| *peer == PEER);
        assert_eq!(windows.check(&"n3", PROCESS, Some(6)), Err(SealError::OtherProcess));
        assert_eq!(windows.check(&PEER, PROCESS, Some(5)), Err(SealError::Replayed));
    }

    #[test]
    fn the_window_reaches_1024_counters_down() {
        let mut windows = taken(&[1, 1024]);
        assert_eq!(windows.check(&PEER, PROCESS, Some(1)), Err(SealError::Replayed));
        assert_eq!(windows.check(&PEER, PROCESS, Some(2)), Ok(()));
        assert_eq!(windows.check(&PEER, PROCESS, Some(1025)), Ok(()));
        assert_eq!(windows.check(&PEER, PROCESS, Some(1)), Err(SealError::Stale));
        assert_eq!(windows.check(&PEER, PROCESS, Some(2)), Err(SealError::Replayed));
        // As far as the window is wide: all that was seen is out of it.
        assert_eq!(windows.check(&PEER, PROCESS, Some(1025 + 1024)), Ok(()));
        assert_eq!(windows.check(&PEER, PROCESS, Some(1025)), Err(SealError::Stale));
        assert_eq!(windows.check(&PEER, PROCESS, Some(1026)), Ok(()));
    }

    #[test]
    fn the_largest_counter_is_one_like_any_other() {
        let mut windows = taken(&[0, u64::MAX]);
        assert_eq!(windows.check(&PEER, PROCESS, Some(u64::MAX)), Err(SealError::Replayed));
        assert_eq!(windows.check(&PEER, PROCESS, Some(u64::MAX - 1023)), Ok(()));
        assert_eq!(windows.check(&PEER, PROCESS, Some(u64::MAX - 1024)), Err(SealError::Stale));
        assert_eq!(windows.check(&PEER, PROCESS, Some(0)), Err(SealError::Stale));
    }

    #[test]
    fn what_was_sent_before_the_first_that_is_believed_is_refused() {
        let mut windows = taken(&[500]);
        assert_eq!(windows.check(&PEER, PROCESS, Some(499)), Err(SealError::Stale));
    }

    /// Steps that stay close, that reach the edges of the window, and that leave it.
    fn counters() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![4 => 0_u64..40, 2 => 1000_u64..1100, 1 => 0_u64..5000];
        proptest::collection::vec((step, any::<bool>()), 1..300).prop_map(|steps| {
            let mut at = 5000_u64;
            let walk = |(step, up): (u64, bool)| {
                at = if up { at + step } else { at.saturating_sub(step) };
                at
            };
            steps.into_iter().map(walk).collect()
        })
    }

    proptest! {
        #[test]
        fn in_any_order_each_counter_is_taken_once_while_the_window_remembers_it(counters in counters()) {
            let mut windows = taken(&[]);
            let (mut seen, mut newest) = (BTreeSet::new(), counters[0]);
            for counter in &counters {
                let expected = if *counter < counters[0] || counter + 1024 <= newest {
                    Err(SealError::Stale)
                } else if seen.contains(counter) {
                    Err(SealError::Replayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(windows.check(&PEER, PROCESS, Some(*counter)), expected);
                if expected.is_ok() {
                    seen.insert(*counter);
                    newest = newest.max(*counter);
                }
            }
        }

        #[test]
        fn nothing_is_taken_twice(counters in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut windows = taken(&[]);
            let mut seen = BTreeSet::new();
            for counter in counters.iter().chain(&counters) {
                if windows.check(&PEER, PROCESS, Some(*counter)).is_ok() {
                    prop_assert!(seen.insert(*counter));
                }
            }
        }
    }
}
