//! I2 no split: in a connected LAN at most one node answers for an address, save a bounded handover during which
//! both forward. It is looked at for each two that hear each other without loss, or that a third hears.

use std::time::Instant;

use super::bounds::{AFTER_HEAL, HANDOVER, WITNESSED};
use super::{Address, Judge, bit, each};

impl Judge {
    /// When each two that answer for an address have done so for too long, since they hear each other or are heard
    /// by a third.
    pub(super) fn split_deadlines<'a>(
        &'a self,
        address: &'a Address,
    ) -> impl Iterator<Item = ((usize, usize), Instant)> + 'a {
        address.both_since.iter().filter_map(|(a, b, both)| {
            let joined = self.pair_since[*a][*b].map(|since| (since + AFTER_HEAL).max(*both + HANDOVER));
            let linked = self.linked_since[*a][*b].map(|since| since.max(*both) + WITNESSED);
            Some(((*a, *b), joined.into_iter().chain(linked).min()?))
        })
    }

    pub(super) fn look_for_splits(&mut self, now: Instant, at: usize) {
        let address = &mut self.addresses[at];
        let answers = address.answers & self.lan.served;
        let (pairs, closest) = (&self.pair_since, &mut self.closest);
        address.both_since.retain(|(a, b, both)| {
            let stays = answers & bit(*a) != 0 && answers & bit(*b) != 0;
            if let Some(joined) = pairs[*a][*b].filter(|_| !stays) {
                if joined > *both {
                    closest.note("after heal", now - joined, AFTER_HEAL);
                } else {
                    closest.note("handover", now - *both, HANDOVER);
                }
            }
            stays
        });
        if answers.count_ones() < 2 {
            return;
        }
        for a in each(answers) {
            for b in each(answers).filter(|b| *b < a) {
                if !address.both_since.iter().any(|(c, d, _)| (*c, *d) == (a, b)) {
                    address.both_since.push((a, b, now));
                }
            }
        }
    }

    /// I2.
    pub(super) fn i2_no_split(&mut self, now: Instant) {
        for at in 0..self.addresses.len() {
            let address = &self.addresses[at];
            let late = self.split_deadlines(address).find(|(_, over)| *over < now);
            let Some(((a, b), _)) = late else { continue };
            let both =
                address.both_since.iter().find(|(c, d, _)| (*c, *d) == (a, b)).map_or(now, |(_, _, at)| *at);
            let how = match (self.pair_since[a][b], self.linked_since[a][b]) {
                (Some(since), _) => format!("they hear each other since {:?}", since - self.start),
                (None, since) => {
                    format!(
                        "a third hears both and both hear it since {:?}",
                        since.unwrap_or(now) - self.start
                    )
                }
            };
            let what = format!(
                "n{} and n{} answer for {} since {:?}, although {how}",
                b + 1,
                a + 1,
                address.address,
                both - self.start,
            );
            self.breaks("i2_no_split", now, what);
        }
    }
}
