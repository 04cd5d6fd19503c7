//! I1 no void: while an eligible node lives, an address has an owner, save the detection window after an unplanned
//! death. It is looked at on each island by itself: whoever is there has a right to be answered. A node that is all
//! alone on its island, and hears the announcer on another LAN, leaves nobody without an answer when it keeps silent.

use std::time::{Duration, Instant};

use landfall_speaker::ownership::HOLD;

use super::bounds::{ALONE, DEAF, NOTHING, RANK, RECOVERY, SILENT, STARVED, VERIFIED};
use super::{Address, Cause, ISLANDS, Judge, Surroundings, bit, each};

/// How long nobody may answer for an address after this happened to its announcer, and nothing else for a while.
pub(super) fn window(lan: &Surroundings, address: &Address, cause: Cause) -> (&'static str, Duration) {
    let Some(home) = address.home else { return ("recovery", RECOVERY) };
    // Who is left there to hear anybody.
    let island = (0..ISLANDS).find(|island| lan.islands[*island] & bit(home.node) != 0);
    let is_alone = island.is_none_or(|island| {
        let others = lan.islands[island] & lan.running & !bit(home.node);
        others.count_ones() < 2 && !lan.stations[island]
    });
    let (name, window) = match cause {
        Cause::Unreachable if is_alone => ("alone", ALONE),
        Cause::Unreachable => ("verified", VERIFIED),
        Cause::Killed => ("silent", SILENT),
        Cause::Stopped => ("starved", STARVED),
        Cause::Deaf => ("deaf", DEAF),
        Cause::Leaves => ("leaves", NOTHING),
        Cause::Other => ("recovery", RECOVERY),
    };
    // Those that nobody ever heard are not known to be dead.
    let absent = address.truth.mask() & !lan.running & !bit(home.node);
    // Where books differ each may take the other for better.
    let is_behind = |node: &usize| address.told_candidates[*node] != address.truth.candidates;
    let behind = each(address.told & lan.running).filter(is_behind).count();
    let waits = if behind > 0 { address.truth.candidates.len() as u32 } else { absent.count_ones() };
    if waits == 0 { (name, window) } else { ("ranked", window + RANK * (waits + 1)) }
}

/// Whether an address is at home with a node that hears no other speaker.
pub(super) fn is_alone(lan: &Surroundings, address: &Address) -> bool {
    address.home.is_some_and(|home| lan.hears[home.node] & lan.running == 0)
}

/// When a void of an address has lasted for too long.
pub(super) fn deadline(address: &Address) -> Option<Instant> {
    let since = address.void_since.iter().flatten().min()?;
    Some((*since + NOTHING).max(address.excused_until))
}

impl Judge {
    pub(super) fn look_for_voids(&mut self, now: Instant, at: usize) {
        let address = &mut self.addresses[at];
        let able = self.lan.running & self.lan.clean & address.told & address.truth.mask();
        let answers = address.answers & self.lan.served;
        for island in 0..ISLANDS {
            let there = self.lan.islands[island];
            let is_over = address.gone_since.is_some_and(|since| since + HOLD <= now);
            let is_claimed = address.truth.claimed && !is_over;
            let is_alone = there.count_ones() == 1 && !self.lan.stations[island];
            let knows_better = is_alone
                && each(there).any(|node| self.lan.hears_elsewhere[node] & self.lan.running & answers != 0);
            let is_void = is_claimed && able & there != 0 && answers & there == 0 && !knows_better;
            let since = &mut address.void_since[island];
            match (is_void, *since) {
                (true, None) => *since = Some(now),
                (false, Some(began)) => {
                    *since = None;
                    if now > began && now <= address.excused_until {
                        let (name, from, window) = self.excuses[at];
                        self.closest.note(name, now - from.min(now), window);
                    }
                }
                _ => {}
            }
        }
    }

    /// I1.
    pub(super) fn i1_no_void(&mut self, now: Instant) {
        for at in 0..self.addresses.len() {
            let address = &self.addresses[at];
            let Some(over) = deadline(address).filter(|over| *over < now) else { continue };
            let began = address.void_since.iter().flatten().min().copied().unwrap_or(now);
            let able = self.lan.running & self.lan.clean & address.told & address.truth.mask();
            let able: Vec<String> = each(able).map(|node| format!("n{}", node + 1)).collect();
            let (name, from, window) = self.excuses[at];
            let what = format!(
                "nobody answers for {} since {:?} although {} could; the last excuse, \"{name}\" from {:?} on, was good \
                 for {window:?} and was over at {:?}",
                address.address,
                began - self.start,
                able.join(", "),
                from - self.start,
                over - self.start,
            );
            self.breaks("i1_no_void", now, what);
        }
    }
}
