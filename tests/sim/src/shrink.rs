//! Makes a run that breaks an invariant as short as it can be: fewer faults, shorter ones, fewer nodes and
//! addresses, and nothing in the setting that does not matter.

use crate::node::Families;
use crate::play::play;
use crate::script::Script;

/// So many shorter runs are tried, and each with so many chances.
const ATTEMPTS: usize = 6000;
const CHANCES: u64 = 3;

struct Shrinker {
    script: Script,
    invariant: &'static str,
    attempts: usize,
}

/// The shortest run that was found to break the same invariant.
pub fn shrink(script: &Script, invariant: &'static str) -> Script {
    let mut shrinker = Shrinker { script: script.clone(), invariant, attempts: 0 };
    shrinker.drop_the_rest();
    loop {
        let before = shrinker.script.clone();
        shrinker.drop_steps();
        shrinker.simplify_setting();
        shrinker.drop_nodes_and_addresses();
        shrinker.shorten();
        if shrinker.script == before || shrinker.attempts >= ATTEMPTS {
            return shrinker.script;
        }
    }
}

impl Shrinker {
    /// Takes another script if it breaks the same.
    fn take(&mut self, script: Script) -> bool {
        if script == self.script || self.attempts >= ATTEMPTS {
            return false;
        }
        // With something left out, what chance decides is decided otherwise: it may break with another chance.
        for chance in 0..CHANCES {
            self.attempts += 1;
            let mut script = script.clone();
            script.setting.seed = script.setting.seed.wrapping_add(chance * 1_000_003);
            let broken = play(&script, false).broken;
            if broken.is_some_and(|broken| broken.invariant == self.invariant) {
                self.script = script;
                return true;
            }
        }
        false
    }

    fn take_changed(&mut self, change: impl FnOnce(&mut Script)) -> bool {
        let mut script = self.script.clone();
        change(&mut script);
        self.take(script)
    }

    /// Drops what had not begun when the invariant was broken.
    fn drop_the_rest(&mut self) {
        let mut kept = self.script.steps.len();
        let mut half = kept / 2;
        while half > 0 {
            if kept > half && self.take_changed(|script| script.steps.truncate(kept - half)) {
                kept -= half;
            } else {
                half /= 2;
            }
        }
    }

    /// Drops steps, many at once as long as that works (Zeller's delta debugging).
    fn drop_steps(&mut self) {
        let mut size = (self.script.steps.len() / 2).max(1);
        loop {
            let mut at = 0;
            while at < self.script.steps.len() {
                let end = (at + size).min(self.script.steps.len());
                if !self.take_changed(|script| drop(script.steps.drain(at..end))) {
                    at += size;
                }
            }
            if size == 1 {
                return;
            }
            size = (size / 2).max(1);
        }
    }

    fn simplify_setting(&mut self) {
        self.take_changed(|script| script.setting.versions.clear());
        self.take_changed(|script| script.setting.drift = 0);
        self.take_changed(|script| script.setting.drain = 0);
        self.take_changed(|script| script.setting.backbone = false);
        self.take_changed(|script| script.setting.keys = false);
        self.take_changed(|script| script.setting.families = Families::V4);
        self.take_changed(|script| script.setting.gateway = true);
        if self.script.steps.iter().all(|step| step.fault.wants_controller().is_none()) {
            self.take_changed(|script| script.controller = false);
        }
    }

    fn drop_nodes_and_addresses(&mut self) {
        while self.script.vips > 1 && self.take_changed(|script| script.vips -= 1) {}
        while self.script.setting.nodes > 2
            && self.take_changed(|script| {
                script.setting.nodes -= 1;
                let nodes = script.setting.nodes;
                script.steps.retain(|step| step.fault.nodes().iter().all(|node| *node < nodes));
            })
        {}
    }

    /// Makes faults, and the time between them, shorter.
    fn shorten(&mut self) {
        for number in 0..self.script.steps.len() {
            while self.take_changed(|script| script.steps[number].lasts /= 2) {}
            for round in [1000, 100, 10] {
                self.take_changed(|script| script.steps[number].lasts -= script.steps[number].lasts % round);
            }
        }
        for number in 0..self.script.steps.len() {
            loop {
                let before = number.checked_sub(1).map_or(0, |before| self.script.steps[before].at);
                let gap = self.script.steps[number].at.saturating_sub(before);
                let earlier = |script: &mut Script, by: u64| {
                    script.steps[number..].iter_mut().for_each(|step| step.at = step.at.saturating_sub(by));
                };
                if gap == 0
                    || !(self.take_changed(|script| earlier(script, gap))
                        || self.take_changed(|script| earlier(script, gap / 2)))
                {
                    break;
                }
            }
            for round in [100, 10] {
                self.take_changed(|script| {
                    let by = script.steps[number].at % round;
                    script.steps[number..].iter_mut().for_each(|step| step.at = step.at.saturating_sub(by));
                });
            }
        }
    }
}
