//! When which name is asked for, and what is held to be true of it meanwhile.
//!
//! - A name is asked for once, however many Services use it: A and AAAA at the same time, and never again before
//!   the answer is there. Questions go out evenly, no faster than [`Config::rate`].
//! - An answer holds for its TTL, within bounds, and up to a tenth longer.
//! - Addresses outlive DNS that fails, for [`Config::last_good_for`]. Where DNS says that there are none they are
//!   dropped after [`Config::gone_grace`], once that was said twice: the address of a name that a cloud has
//!   deleted belongs to its next tenant.
//! - What an answer does not name any more is gone, unless DNS tells another part each time ([`rotation`]).

mod family;
mod pace;
pub mod rotation;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::family::{FamilyStanding, FamilyState};
use self::pace::{Chance, Pace};
use super::answer::{Absence, Answer, Failure, FamilyAnswer};
use super::name::DnsName;

/// One name costs two questions, for A and for AAAA records.
const QUESTIONS: u32 = 2;
/// Of so many slots one goes to a name that is due again, also where new names wait.
const DUE_SHARE: u32 = 4;
/// For so long at most it is remembered of a name that nobody uses any more when it may be asked for again.
const UNUSED: Duration = Duration::from_secs(60);

/// How names are resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Questions per second at most; a name costs two.
    pub rate: u32,
    /// So many names may be asked for at once.
    pub in_flight: usize,
    /// The shortest time between two questions for a name, whatever its TTL.
    pub shortest: Duration,
    /// The longest, while it has addresses.
    pub longest: Duration,
    /// The longest while it has none, or DNS fails.
    pub longest_absent: Duration,
    /// The time until the next question for a name that does not exist, where DNS does not say how long that
    /// holds.
    pub absent_for: Duration,
    /// For so long the last good answer serves while DNS fails.
    pub last_good_for: Duration,
    /// For so long it serves once DNS says that there is no address.
    pub gone_grace: Duration,
    /// From which chance begins.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rate: 200,
            in_flight: 64,
            shortest: Duration::from_secs(5),
            longest: Duration::from_secs(3600),
            longest_absent: Duration::from_secs(60),
            absent_for: Duration::from_secs(30),
            last_good_for: Duration::from_secs(24 * 3600),
            gone_grace: Duration::from_secs(30),
            seed: 0,
        }
    }
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wants to know of the name from now on.
    Follow(DnsName),
    /// Nobody does any more.
    Leave(DnsName),
    /// The answer to [`Action::Query`]: each query gets one, also where nobody answered.
    Answered(DnsName, Answer),
    /// The time that `next_deadline` named has come.
    Deadline,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for the addresses of the name in both families.
    Query(DnsName),
    /// [`Resolution::state`] says something else of the name than before.
    Changed(DnsName),
}

/// How a name stands, by the latest answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not been asked for yet.
    Unknown,
    /// It has addresses.
    Resolved,
    /// There are none.
    Absent {
        /// Of what.
        absence: Absence,
        /// Whether that was said often enough to be believed of a name that had addresses.
        confirmed: bool,
    },
    /// There is no answer.
    Failing {
        /// Why.
        failure: Failure,
        /// Whether that happened often enough to be told.
        confirmed: bool,
    },
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How it stands.
    pub standing: Standing,
    /// The addresses to use, IPv4 first: those of the last good answer where it does not stand well.
    pub addresses: Vec<IpAddr>,
    /// When addresses were named last.
    pub good: Option<Instant>,
    /// Since when it does not stand well.
    pub since: Option<Instant>,
}

/// All names that somebody wants to know of.
#[derive(Debug)]
pub struct Resolution {
    config: Config,
    names: BTreeMap<DnsName, Entry>,
    /// Names that have never been asked for, in turn; and some that nobody follows any more.
    new: VecDeque<DnsName>,
    /// When which name is due again.
    due: BTreeSet<(Instant, DnsName)>,
    /// When addresses of which name are to be dropped.
    expiries: BTreeSet<(Instant, DnsName)>,
    pace: Pace,
    chance: Chance,
    slots: u32,
    in_flight: usize,
    /// The time of the latest event.
    now: Option<Instant>,
}

#[derive(Debug, Default)]
struct Entry {
    used: bool,
    in_flight: bool,
    v4: FamilyState,
    v6: FamilyState,
    /// Until when the latest answer holds.
    holds: Option<Instant>,
    /// When it is to be asked for again, or forgotten if nobody uses it.
    due: Option<Instant>,
    expiry: Option<Instant>,
}

impl Entry {
    fn standing(&self) -> Standing {
        use FamilyStanding::{Absent, Failing, Good, Unknown};
        match (self.v4.standing(), self.v6.standing()) {
            (Good, _) | (_, Good) => Standing::Resolved,
            (Failing { failure, confirmed }, Failing { confirmed: other, .. }) => {
                Standing::Failing { failure, confirmed: confirmed && other }
            }
            (Failing { failure, confirmed }, _) | (_, Failing { failure, confirmed }) => {
                Standing::Failing { failure, confirmed }
            }
            (Absent { absence, confirmed }, Absent { absence: other, confirmed: other_confirmed }) => {
                Standing::Absent { absence: absence.min(other), confirmed: confirmed && other_confirmed }
            }
            (Unknown, _) | (_, Unknown) => Standing::Unknown,
        }
    }

    fn state(&self) -> State {
        let families = [&self.v4, &self.v6];
        let standing = self.standing();
        let is_good = standing == Standing::Resolved;
        State {
            standing,
            addresses: families.iter().flat_map(|family| family.rotation().addresses()).collect(),
            good: families.iter().filter_map(|family| family.good()).max(),
            since: families.iter().filter_map(|family| family.since()).min().filter(|_| !is_good),
        }
    }

    /// What [`Action::Changed`] tells of. Times alone are no news.
    fn news(&self) -> (Standing, Vec<IpAddr>) {
        let State { standing, addresses, .. } = self.state();
        (standing, addresses)
    }
}

impl Resolution {
    /// Knows of no name.
    pub fn new(config: Config) -> Self {
        Self {
            names: BTreeMap::new(),
            new: VecDeque::new(),
            due: BTreeSet::new(),
            expiries: BTreeSet::new(),
            pace: Pace::new(QUESTIONS, config.rate),
            chance: Chance::new(config.seed),
            slots: 0,
            in_flight: 0,
            now: None,
            config,
        }
    }

    /// Takes in an event and appends what is to be done now.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        self.now = Some(now);
        match event {
            Event::Follow(name) => self.follow(name),
            Event::Leave(name) => self.leave(now, &name),
            Event::Answered(name, answer) => self.answered(now, &name, &answer, out),
            Event::Deadline => {}
        }
        self.expire(now, out);
        self.ask(now, out);
    }

    /// When [`Event::Deadline`] is wanted, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let now = self.now?;
        let next = match self.due.first() {
            _ if self.in_flight >= self.config.in_flight => None,
            _ if !self.new.is_empty() => Some(now),
            due => due.map(|(at, _)| *at),
        };
        let next = next.map(|at| self.pace.next(at));
        next.into_iter().chain(self.expiries.first().map(|(at, _)| *at)).min()
    }

    /// What is known of a name; nothing if nobody follows it.
    pub fn state(&self, name: &DnsName) -> Option<State> {
        self.names.get(name).filter(|entry| entry.used).map(Entry::state)
    }

    /// The names that are followed, and what is known of each.
    pub fn states(&self) -> impl Iterator<Item = (&DnsName, State)> {
        self.names.iter().filter(|(_, entry)| entry.used).map(|(name, entry)| (name, entry.state()))
    }

    fn follow(&mut self, name: DnsName) {
        let entry = self.names.entry(name.clone()).or_default();
        if std::mem::replace(&mut entry.used, true) || entry.in_flight {
            return;
        }
        match entry.holds {
            // It was used a moment ago, and the answer still serves.
            Some(holds) => {
                self.plan(&name, holds);
                self.plan_expiry(&name);
            }
            None => self.new.push_back(name),
        }
    }

    fn leave(&mut self, now: Instant, name: &DnsName) {
        let Some(entry) = self.names.get_mut(name) else { return };
        entry.used = false;
        if let Some(at) = entry.expiry.take() {
            self.expiries.remove(&(at, name.clone()));
        }
        match entry.due {
            Some(due) => self.plan(name, due.min(now + UNUSED)),
            None if entry.in_flight => {}
            None => {
                self.names.remove(name);
            }
        }
    }

    fn plan(&mut self, name: &DnsName, at: Instant) {
        let Some(entry) = self.names.get_mut(name) else { return };
        if let Some(before) = entry.due.replace(at) {
            self.due.remove(&(before, name.clone()));
        }
        self.due.insert((at, name.clone()));
    }

    fn answered(&mut self, now: Instant, name: &DnsName, answer: &Answer, out: &mut Vec<Action>) {
        let Some(entry) = self.names.get_mut(name).filter(|entry| entry.in_flight) else { return };
        entry.in_flight = false;
        self.in_flight -= 1;
        let before = entry.news();
        entry.v4.take(now, &answer.v4);
        entry.v6.take(now, &answer.v6);
        for family in [&mut entry.v4, &mut entry.v6] {
            family.expire(now, &self.config);
        }
        let has = |family: &FamilyState| !family.rotation().is_empty();
        let (v4, v6) = (has(&entry.v4), has(&entry.v6));
        let pauses =
            [entry.v4.pause(&answer.v4, !v6, &self.config), entry.v6.pause(&answer.v6, !v4, &self.config)];
        let pause = pauses.into_iter().flatten().min().unwrap_or(self.config.longest_absent);
        let holds = now + self.chance.spread(pause);
        entry.holds = Some(holds);
        let (is_used, changed) = (entry.used, entry.news() != before);
        if !is_used {
            // The answer serves whoever comes to use the name before it is forgotten.
            return self.plan(name, holds.min(now + UNUSED));
        }
        self.plan(name, holds);
        self.plan_expiry(name);
        if changed {
            out.push(Action::Changed(name.clone()));
        }
    }

    fn plan_expiry(&mut self, name: &DnsName) {
        let Some(entry) = self.names.get_mut(name) else { return };
        let families = [&entry.v4, &entry.v6];
        let expiry = families.iter().filter_map(|family| family.expiry(&self.config)).min();
        let before = std::mem::replace(&mut entry.expiry, expiry);
        if before != expiry {
            before.map(|at| self.expiries.remove(&(at, name.clone())));
            expiry.map(|at| self.expiries.insert((at, name.clone())));
        }
    }

    fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        while self.expiries.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.expiries.pop_first() else { return };
            let Some(entry) = self.names.get_mut(&name) else { continue };
            entry.expiry = None;
            let before = entry.news();
            entry.v4.expire(now, &self.config);
            entry.v6.expire(now, &self.config);
            if entry.news() != before {
                out.push(Action::Changed(name.clone()));
            }
            self.plan_expiry(&name);
        }
    }

    fn ask(&mut self, now: Instant, out: &mut Vec<Action>) {
        while self.in_flight < self.config.in_flight {
            let Some(name) = self.next_name(now) else { break };
            self.slots = self.slots.wrapping_add(1);
            if let Some(entry) = self.names.get_mut(&name) {
                entry.in_flight = true;
                self.in_flight += 1;
                out.push(Action::Query(name));
            }
        }
    }

    /// Takes the name whose turn it is off its queue, if a slot is free.
    fn next_name(&mut self, now: Instant) -> Option<DnsName> {
        self.drop_unused(now);
        let is_due = self.due.first().is_some_and(|(at, _)| *at <= now);
        if self.new.is_empty() && !is_due || !self.pace.take(now) {
            return None;
        }
        let is_turn_of_due = self.new.is_empty() || self.slots % DUE_SHARE == DUE_SHARE - 1;
        if !is_due || !is_turn_of_due {
            return self.new.pop_front();
        }
        let (_, name) = self.due.pop_first()?;
        if let Some(entry) = self.names.get_mut(&name) {
            entry.due = None;
        }
        Some(name)
    }

    /// Takes names off the heads of the queues that nobody uses, or that have been asked for since.
    fn drop_unused(&mut self, now: Instant) {
        let is_new = |entry: &Entry| entry.used && !entry.in_flight && entry.holds.is_none();
        while self.new.front().is_some_and(|name| !self.names.get(name).is_some_and(is_new)) {
            self.new.pop_front();
        }
        while let Some((_, name)) = self.due.first().filter(|(at, _)| *at <= now) {
            if self.names.get(name).is_some_and(|entry| entry.used) {
                break;
            }
            if let Some((_, name)) = self.due.pop_first() {
                self.names.remove(&name);
            }
        }
    }
}

/// Whether an answer says anything of the name.
pub(super) fn is_conclusive(standing: Standing) -> bool {
    match standing {
        Standing::Resolved => true,
        Standing::Absent { confirmed, .. } => confirmed,
        Standing::Unknown | Standing::Failing { .. } => false,
    }
}

/// The same answer for both families: where nobody answered at all.
impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        Self { v4: FamilyAnswer::Failed(failure), v6: FamilyAnswer::Failed(failure) }
    }
}
