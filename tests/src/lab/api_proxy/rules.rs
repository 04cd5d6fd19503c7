//! Which faults are played, and on how many of which requests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::asked::{Asked, Verb};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request reaches the API server later, by up to so much, whether or not anybody still waits.
    Delay(Duration),
    /// The request does not reach the API server; this status is answered (409, 410, 429, 500, 503, 504).
    Refuse(u16),
    /// The request is done, and this status is answered all the same. Not for watches.
    LoseAnswer(u16),
    /// The request is done, and the connection is closed without an answer. Not for watches.
    CutAnswer,
    /// A watch ends properly within this time. Those that are spared draw again when it is over; so with
    /// the next two.
    EndWatch(Duration),
    /// A watch ends within this time in the midst of its answer, as when a connection breaks.
    BreakWatch(Duration),
    /// A watch is told within this time that what it is at has been forgotten (410 in the stream).
    ExpireWatch(Duration),
    /// A watch tells everything so much later.
    Lag(Duration),
}

impl Fault {
    /// What the fault is counted as, without its times.
    pub fn name(&self) -> String {
        match self {
            Self::Delay(_) => "request delayed".to_owned(),
            Self::Refuse(status) => format!("refused by {status}"),
            Self::LoseAnswer(status) => format!("done and answered by {status}"),
            Self::CutAnswer => "done and cut".to_owned(),
            Self::EndWatch(_) => "watch ended".to_owned(),
            Self::BreakWatch(_) => "watch broken".to_owned(),
            Self::ExpireWatch(_) => "watch expired".to_owned(),
            Self::Lag(_) => "watch told late".to_owned(),
        }
    }

    /// Whether it happens to a request before anything is answered, and not to a watch that runs.
    fn is_of_request(&self) -> bool {
        matches!(self, Self::Delay(_) | Self::Refuse(_) | Self::LoseAnswer(_) | Self::CutAnswer)
    }

    fn ends_within(&self) -> Option<Duration> {
        match self {
            Self::EndWatch(within) | Self::BreakWatch(within) | Self::ExpireWatch(within) => Some(*within),
            _ => None,
        }
    }

    fn strikes(&self, verb: Verb) -> bool {
        match self {
            Self::Delay(_) | Self::Refuse(_) => true,
            Self::LoseAnswer(_) | Self::CutAnswer => verb != Verb::Watch,
            Self::EndWatch(_) | Self::BreakWatch(_) | Self::ExpireWatch(_) | Self::Lag(_) => {
                verb == Verb::Watch
            }
        }
    }
}

/// A fault, and the share of requests that it strikes.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    share: f64,
    verbs: Vec<Verb>,
    resources: Vec<String>,
}

impl Rule {
    /// A fault for this share (0 to 1) of all requests that it can happen to.
    pub fn new(fault: Fault, share: f64) -> Self {
        Self { fault, share, verbs: Vec::new(), resources: Vec::new() }
    }

    /// Only for these verbs.
    #[must_use]
    pub fn to(self, verbs: &[Verb]) -> Self {
        Self { verbs: verbs.to_vec(), ..self }
    }

    /// Only for these resources, by their plural, with the subresource after a slash.
    #[must_use]
    pub fn of(self, resources: &[&str]) -> Self {
        Self { resources: resources.iter().map(|name| (*name).to_owned()).collect(), ..self }
    }

    fn concerns(&self, asked: &Asked) -> bool {
        self.fault.strikes(asked.verb)
            && (self.verbs.is_empty() || self.verbs.contains(&asked.verb))
            && (self.resources.is_empty() || self.resources.contains(&asked.resource))
    }
}

/// What holds at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    rules: Arc<Vec<Rule>>,
    pub(super) swallows: bool,
    /// The next such request is swallowed, and everything from then on.
    swallows_from: Option<Asked>,
}

/// What happens to one watch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfWatch {
    pub(super) lag: Duration,
    /// How it ends, and after how long.
    pub(super) end: Option<(Fault, Duration)>,
    /// When it draws anew if it goes on that long.
    pub(super) again: Option<Duration>,
}

/// The rules that hold, the dice, and what has come of both.
#[derive(Debug)]
pub(super) struct Faults {
    present: watch::Sender<Present>,
    dice: Mutex<fastrand::Rng>,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            present: watch::Sender::default(),
            dice: Mutex::new(fastrand::Rng::with_seed(seed)),
            counts: Mutex::default(),
        }
    }

    pub(super) fn set(&self, rules: Vec<Rule>) {
        self.present.send_modify(|present| present.rules = Arc::new(rules));
    }

    pub(super) fn swallow(&self, everything: bool) {
        self.present.send_modify(|present| present.swallows = everything);
    }

    pub(super) fn swallow_from(&self, asked: Asked) {
        self.present.send_modify(|present| present.swallows_from = Some(asked));
    }

    /// Opens the hole if this is the request that was waited for.
    pub(super) fn comes(&self, asked: &Asked) {
        self.present.send_if_modified(|present| {
            let opens = present.swallows_from.as_ref() == Some(asked);
            if opens {
                present.swallows_from = None;
                present.swallows = true;
            }
            opens
        });
    }

    pub(super) fn swallows(&self) -> bool {
        self.present.borrow().swallows
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Present> {
        self.present.subscribe()
    }

    pub(super) fn count(&self, name: impl Into<String>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(name.into()).or_default() += 1;
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happens to a request: of the rules that concern it, the first whose die falls so.
    pub(super) fn of_request(&self, asked: &Asked) -> Option<Fault> {
        let mut struck = self.struck(asked, true);
        if let Some(Fault::Delay(longest)) = struck.first_mut() {
            *longest = self.part_of(*longest);
        }
        struck.first().copied()
    }

    /// What happens to a watch: all that its dice say.
    pub(super) fn of_watch(&self, asked: &Asked) -> OfWatch {
        let rules = Arc::clone(&self.present.borrow().rules);
        let ends =
            rules.iter().filter(|rule| rule.concerns(asked)).filter_map(|rule| rule.fault.ends_within());
        let mut all = OfWatch { again: ends.max(), ..OfWatch::default() };
        for fault in self.struck(asked, false) {
            if let Fault::Lag(lag) = fault {
                all.lag = all.lag.max(lag);
            }
            let after = fault.ends_within().map(|within| self.part_of(within));
            if let Some(after) = after
                && all.end.is_none_or(|(_, sooner)| after < sooner)
            {
                all.end = Some((fault, after));
            }
        }
        all
    }

    fn struck(&self, asked: &Asked, of_request: bool) -> Vec<Fault> {
        let rules = Arc::clone(&self.present.borrow().rules);
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned =
            rules.iter().filter(|rule| rule.fault.is_of_request() == of_request && rule.concerns(asked));
        concerned.filter(|rule| dice.f64() < rule.share).map(|rule| rule.fault).collect()
    }

    fn part_of(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.dice.lock().unwrap_or_else(PoisonError::into_inner).f64())
    }
}

/// Waits until nothing is swallowed, and says whether that took any time.
pub(super) async fn until_let_go(present: &mut watch::Receiver<Present>) -> bool {
    let waited = present.borrow().swallows;
    // Whoever could end the waiting lives as long as the proxy does.
    let _proxy_gone = present.wait_for(|present| !present.swallows).await.map(|_| ());
    waited
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Asked, Fault, Faults, Rule, Verb};

    fn asked(verb: Verb, resource: &str) -> Asked {
        Asked { verb, resource: resource.to_owned() }
    }

    #[test]
    fn a_rule_strikes_its_share_of_what_it_names_and_nothing_else() {
        let faults = Faults::new(7);
        faults.set(vec![Rule::new(Fault::Refuse(409), 0.2).to(&Verb::WRITES).of(&["services"])]);
        let patch = asked(Verb::Patch, "services");
        let struck = (0..1000).filter(|_| faults.of_request(&patch).is_some()).count();
        assert!((150..250).contains(&struck), "{struck} of 1000");
        for other in [asked(Verb::Get, "services"), asked(Verb::Patch, "services/status")] {
            assert!((0..1000).all(|_| faults.of_request(&other).is_none()), "{other:?}");
        }
        faults.set(Vec::new());
        assert!((0..1000).all(|_| faults.of_request(&patch).is_none()));
    }

    #[test]
    fn answers_of_watches_are_not_lost_and_only_watches_lag() {
        let faults = Faults::new(7);
        let lag = Duration::from_secs(5);
        faults.set(vec![Rule::new(Fault::CutAnswer, 1.0), Rule::new(Fault::Lag(lag), 1.0)]);
        let (watch, list) = (asked(Verb::Watch, "services"), asked(Verb::List, "services"));
        assert_eq!(faults.of_request(&watch), None);
        assert_eq!(faults.of_watch(&watch).lag, lag);
        assert_eq!(faults.of_request(&list), Some(Fault::CutAnswer));
        assert_eq!(faults.of_watch(&list).lag, Duration::ZERO);
    }

    #[test]
    fn equal_seeds_make_equal_faults() {
        let draw = |seed| {
            let faults = Faults::new(seed);
            faults.set(vec![Rule::new(Fault::Delay(Duration::from_secs(1)), 0.5)]);
            (0..50).map(|_| faults.of_request(&asked(Verb::Get, "nodes"))).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
