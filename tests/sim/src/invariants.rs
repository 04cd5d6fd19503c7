//! What must hold, looked at after every event, by name and with its exact bound.
//!
//! A [`Judge`] keeps what is true of the world: who is well, who hears whom, what the API says of each address and
//! what of it each node was told, and who answers. Deeds and faults are told to it before they are done
//! ([`Judge::disturb`]), so that it knows what excuses what. Everything else it looks at by itself.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use landfall_speaker::lan::{NodeName, Vip};

pub mod bounds;
mod i1_no_void;
mod i2_no_split;
mod i3_fail_closed;
mod i6_static_stability;

pub use i3_fail_closed::Filter;

use bounds::{AT_HOME, RECOVERY, SETTLED};

/// How many islands there can be.
pub const ISLANDS: usize = 8;

/// Some nodes, one bit for each.
pub type Nodes = u32;

pub fn bit(number: usize) -> Nodes {
    1 << number
}

pub fn each(nodes: Nodes) -> impl Iterator<Item = usize> {
    (0..32).filter(move |number| nodes & bit(*number) != 0)
}

/// An invariant that was broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// Its name.
    pub invariant: &'static str,
    pub at: Duration,
    /// What was seen, in words.
    pub what: String,
}

/// What happens to nodes, as far as it excuses anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The node is not there for anybody: power, machine, port or cable.
    Unreachable,
    /// Its process is gone and its kernel is there.
    Killed,
    /// Its process is not run.
    Stopped,
    /// It hears nobody.
    Deaf,
    /// Its process is told to end: it hands over first.
    Leaves,
    /// Anything that is over, or that has no bound of its own.
    Other,
}

/// How things stand on the first LAN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Whose process runs whenever it wants to, and is not about to leave.
    pub running: Nodes,
    /// Whose process is run at all.
    pub served: Nodes,
    /// Whose port loses nothing and holds nothing up, and who is not cut off from any other node there.
    pub clean: Nodes,
    /// Who is on each island, with a port over which anything passes.
    pub islands: [Nodes; ISLANDS],
    /// Who tells others what it hears of a third, and believes the same of them.
    pub witnesses: Nodes,
    /// Which islands have other stations.
    pub stations: [bool; ISLANDS],
    /// For each node those that it hears and that hear it, without any loss.
    pub hears: Vec<Nodes>,
    /// The same on the second LAN.
    pub hears_elsewhere: Vec<Nodes>,
}

/// What the API says of an address, or what a node was told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    pub is_known: bool,
    pub claimed: bool,
    pub epoch: i64,
    pub candidates: Vec<usize>,
}

impl Truth {
    /// What is said of it.
    pub fn of(vip: &Vip, number: impl Fn(&NodeName) -> Option<usize>) -> Self {
        let candidates = vip.candidates.iter().filter_map(number).collect();
        Self { is_known: true, claimed: vip.claimed, epoch: vip.epoch, candidates }
    }

    /// Whether nobody claims what is known.
    fn is_released(&self) -> bool {
        self.is_known && !self.claimed
    }

    fn mask(&self) -> Nodes {
        self.candidates.iter().fold(0, |mask, node| mask | bit(*node))
    }
}

/// Where an address is at home.
#[derive(Clone, Copy, Debug)]
struct Home {
    node: usize,
    /// When anything happened last that may make it move.
    disturbed: Instant,
    /// The newest epoch that it is known to have taken in. A newer one may move it.
    epoch: i64,
}

/// One address.
#[derive(Clone, Debug)]
pub struct Address {
    pub address: IpAddr,
    pub truth: Truth,
    /// Since when its object is gone although it was claimed: it is looked after for a while.
    gone_since: Option<Instant>,
    /// For which nodes their own books say that it is claimed and that they may announce it.
    told: Nodes,
    /// For which nodes their own books say that nobody claims it.
    told_released: Nodes,
    /// Of which epoch each node was told.
    told_epoch: Vec<i64>,
    /// Of which candidates each node was told.
    told_candidates: Vec<Vec<usize>>,
    /// Whose mind answers for it.
    pub answers: Nodes,
    void_since: [Option<Instant>; ISLANDS],
    excused_until: Instant,
    both_since: Vec<(usize, usize, Instant)>,
    /// When somebody began to answer for it, lately.
    begun: VecDeque<Instant>,
    /// The only one that answers, since when, and the epoch at that time.
    sole_since: Option<(usize, Instant, i64)>,
    home: Option<Home>,
}

/// How close anything came to its bound.
#[derive(Clone, Debug, Default)]
pub struct Closest {
    pub entries: std::collections::BTreeMap<&'static str, (Duration, Duration, u64)>,
}

impl Closest {
    /// Something took so long of what it may.
    pub fn note(&mut self, what: &'static str, took: Duration, bound: Duration) {
        let (longest, of, count) = self.entries.entry(what).or_default();
        (*longest, *of, *count) = ((*longest).max(took), bound, *count + 1);
    }

    pub fn add(&mut self, other: &Self) {
        for (what, (took, bound, count)) in &other.entries {
            let (longest, of, all) = self.entries.entry(what).or_default();
            (*longest, *of, *all) = ((*longest).max(*took), *bound, *all + count);
        }
    }
}

/// Watches over all of it.
pub struct Judge {
    start: Instant,
    /// Whether a story is told, which ends where an invariant is broken and looks at all reports.
    pub panics: bool,
    pub addresses: Vec<Address>,
    lan: Surroundings,
    /// Since when each pair hears each other and runs.
    pair_since: Vec<Vec<Option<Instant>>>,
    /// Since when each pair runs and is heard by a third that runs, and hears it.
    linked_since: Vec<Vec<Option<Instant>>>,
    /// Since when each pair would hear each other.
    joined_since: Vec<Vec<Option<Instant>>>,
    /// How much each node lacks to serve what it announces, by its own word.
    lacks: Vec<u32>,
    /// When anything happened to a node last.
    disturbed: Vec<Instant>,
    /// When anything happened to anybody last.
    last: Instant,
    /// The time after which something is broken, unless it changes.
    deadline: Option<Instant>,
    broken: Option<Broken>,
    pub closest: Closest,
    /// What the bound was for, of the excuse that lasts longest, for each address.
    excuses: Vec<(&'static str, Instant, Duration)>,
}

impl Judge {
    pub fn new(start: Instant, nodes: usize) -> Self {
        Self {
            start,
            panics: true,
            addresses: Vec::new(),
            lan: Surroundings {
                hears: vec![0; nodes],
                hears_elsewhere: vec![0; nodes],
                ..Surroundings::default()
            },
            pair_since: vec![vec![None; nodes]; nodes],
            linked_since: vec![vec![None; nodes]; nodes],
            joined_since: vec![vec![None; nodes]; nodes],
            lacks: vec![0; nodes],
            disturbed: vec![start; nodes],
            last: start,
            deadline: None,
            broken: None,
            closest: Closest::default(),
            excuses: Vec::new(),
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// From now on this address is looked at.
    pub fn watch(&mut self, now: Instant, address: IpAddr) {
        if self.addresses.iter().any(|known| known.address == address) {
            return;
        }
        self.addresses.push(Address {
            address,
            truth: Truth::default(),
            gone_since: None,
            told: 0,
            told_released: 0,
            told_epoch: vec![0; self.disturbed.len()],
            told_candidates: vec![Vec::new(); self.disturbed.len()],
            answers: 0,
            void_since: [None; ISLANDS],
            excused_until: now + RECOVERY,
            both_since: Vec::new(),
            begun: VecDeque::new(),
            sole_since: None,
            home: None,
        });
        self.excuses.push(("recovery", now, RECOVERY));
    }

    /// Something is about to happen to these nodes.
    pub fn disturb(&mut self, now: Instant, nodes: Nodes, cause: Cause) {
        let was_quiet = self.last + SETTLED <= now;
        for at in 0..self.addresses.len() {
            self.settle_home(now, at);
            let is_well = self.is_settled(now, at);
            let address = &mut self.addresses[at];
            let hit = address.home.is_none_or(|home| nodes & bit(home.node) != 0);
            if is_well && !hit {
                // Who heard nobody and now hears somebody again listens before it goes on.
                if i1_no_void::is_alone(&self.lan, address) {
                    self.excuse(now, at, "hushed", bounds::HUSHED);
                }
                continue;
            }
            let (name, window) = match is_well && was_quiet {
                true => i1_no_void::window(&self.lan, address, cause),
                false => ("recovery", RECOVERY),
            };
            if address.excused_until < now + window {
                address.excused_until = now + window;
                self.excuses[at] = (name, now, window);
            }
            if hit && let Some(home) = &mut address.home {
                home.disturbed = now;
            }
        }
        each(nodes).for_each(|node| self.disturbed[node] = now);
        self.last = now;
    }

    /// How things stand now on the LAN.
    pub fn surroundings(&mut self, now: Instant, lan: Surroundings) {
        if lan == self.lan {
            return;
        }
        self.lan = lan;
        let runs = self.lan.running;
        for a in 0..self.pair_since.len() {
            for b in 0..a {
                let is_joined = self.lan.hears[a] & bit(b) != 0;
                let both_run = runs & bit(a) != 0 && runs & bit(b) != 0;
                let witnesses = self.lan.hears[a] & self.lan.hears[b] & runs & self.lan.witnesses;
                let both_believe = self.lan.witnesses & bit(a) != 0 && self.lan.witnesses & bit(b) != 0;
                for (since, is) in [
                    (&mut self.linked_since[a][b], witnesses != 0 && both_run && both_believe),
                    (&mut self.joined_since[a][b], is_joined),
                    (&mut self.pair_since[a][b], is_joined && both_run),
                ] {
                    *since = is.then(|| since.unwrap_or(now));
                }
            }
        }
        for at in 0..self.addresses.len() {
            self.look(now, at);
        }
        self.set_deadline();
    }

    /// The API says nothing of an address any more.
    pub fn gone(&mut self, now: Instant, at: usize) {
        self.addresses[at].gone_since.get_or_insert(now);
    }

    /// What the API says now of an address.
    pub fn truth(&mut self, now: Instant, at: usize, truth: Truth) {
        self.settle_home(now, at);
        self.addresses[at].gone_since = None;
        if self.addresses[at].truth == truth {
            return;
        }
        let is_answered = self.addresses[at].answers & self.lan.served != 0;
        let address = &mut self.addresses[at];
        address.truth = truth;
        if let Some(home) = &mut address.home {
            home.disturbed = now;
        }
        if !is_answered {
            self.excuse(now, at, "claimed", bounds::CLAIMED);
        }
        self.look(now, at);
        self.set_deadline();
    }

    /// What a node was told of an address; no candidates where it was not told of it.
    pub fn told(&mut self, now: Instant, at: usize, node: usize, told: Truth) {
        self.settle_home(now, at);
        let (may, is_released) = (told.claimed && told.mask() & bit(node) != 0, told.is_released());
        let (epoch, address) = (told.epoch, &mut self.addresses[at]);
        address.told_candidates[node] = told.candidates;
        if std::mem::replace(&mut address.told_epoch[node], epoch) != epoch
            && let Some(home) = address.home.as_mut().filter(|home| home.node == node)
        {
            home.disturbed = now;
        }
        let set = |mask: Nodes, is: bool| if is { mask | bit(node) } else { mask & !bit(node) };
        let (told, released) = (set(address.told, may), set(address.told_released, is_released));
        if (told, released) == (address.told, address.told_released) {
            return;
        }
        // Who was told of a release lets go of an address, though it may be claimed again by then.
        let is_new = told & !address.told != 0 || released & !address.told_released != 0;
        (address.told, address.told_released) = (told, released);
        if is_new && address.answers & self.lan.served == 0 {
            let quiet = self.last + SETTLED <= now;
            let window = if quiet { ("claimed", bounds::CLAIMED) } else { ("recovery", RECOVERY) };
            self.excuse(now, at, window.0, window.1);
        }
        self.look(now, at);
        self.set_deadline();
    }

    /// A process goes on in the place of a former one of its node.
    pub fn upgraded(&mut self, now: Instant) {
        for at in 0..self.addresses.len() {
            if self.addresses[at].void_since.iter().any(Option::is_some) {
                self.excuse(now, at, "upgraded", bounds::UPGRADED);
            }
        }
        self.set_deadline();
    }

    /// How much a node lacks now. Who lacks more than another may be relieved by it.
    pub fn lacks(&mut self, now: Instant, node: usize, lacks: u32) {
        if std::mem::replace(&mut self.lacks[node], lacks) == lacks {
            return;
        }
        for at in 0..self.addresses.len() {
            self.settle_home(now, at);
            if let Some(home) = &mut self.addresses[at].home
                && home.node == node
            {
                home.disturbed = now;
            }
        }
    }

    /// Whether a node was seen to answer for an address last.
    pub fn answered_by(&self, address: IpAddr, node: usize) -> bool {
        let known = self.addresses.iter().find(|known| known.address == address);
        known.is_some_and(|known| known.answers & bit(node) != 0)
    }

    fn excuse(&mut self, now: Instant, at: usize, name: &'static str, window: Duration) {
        let address = &mut self.addresses[at];
        if address.excused_until < now + window {
            address.excused_until = now + window;
            self.excuses[at] = (name, now, window);
        }
    }

    /// For which of the addresses a node's mind answers now; bit n is the n-th address.
    pub fn answers(&mut self, now: Instant, node: usize, mask: u64, filter: &Filter) {
        let mut is_changed = false;
        for at in 0..self.addresses.len() {
            let answers = mask >> at & 1 == 1;
            if (self.addresses[at].answers & bit(node) != 0) == answers {
                continue;
            }
            is_changed = true;
            self.settle_home(now, at);
            if answers {
                self.count_begun(now, at);
                self.i3_fail_closed(now, at, node, filter);
                self.i6_static_stability(now, at, node);
            }
            self.addresses[at].answers ^= bit(node);
            self.look(now, at);
        }
        if is_changed {
            self.set_deadline();
        }
    }

    /// An address does not go to and fro.
    fn count_begun(&mut self, now: Instant, at: usize) {
        let address = &mut self.addresses[at];
        address.begun.push_back(now);
        while address.begun.front().is_some_and(|begun| *begun + bounds::A_WHILE < now) {
            address.begun.pop_front();
        }
        if address.begun.len() > bounds::MOST_BEGUN {
            let what = format!(
                "{} times in {:?} somebody began to answer for {}",
                address.begun.len(),
                bounds::A_WHILE,
                address.address
            );
            self.breaks("i2_no_flapping", now, what);
        }
    }

    /// Looks at an address of which anything changed.
    fn look(&mut self, now: Instant, at: usize) {
        self.look_for_voids(now, at);
        self.look_for_splits(now, at);
        let address = &mut self.addresses[at];
        let answers = address.answers & self.lan.served;
        let sole = (answers.count_ones() == 1).then(|| answers.trailing_zeros() as usize);
        if address.sole_since.map(|(node, ..)| node) != sole {
            address.sole_since = sole.map(|node| (node, now, address.told_epoch[node]));
        }
    }

    /// Whoever was told that nobody claims an address does not answer for it any more.
    pub fn check_released(&mut self, now: Instant) {
        let is_late = |address: &&Address| address.answers & address.told_released != 0;
        if let Some(address) = self.addresses.iter().find(is_late) {
            let who: Vec<String> =
                each(address.answers & address.told_released).map(|node| format!("n{}", node + 1)).collect();
            let who = who.join(", ");
            let what =
                format!("{who} answers for {} though it was told that nobody claims it", address.address);
            self.breaks("released_is_silent", now, what);
        }
    }

    /// An address is at home where it has been for a while, if that is new.
    fn settle_home(&mut self, now: Instant, at: usize) {
        let address = &mut self.addresses[at];
        let Some((node, since, epoch)) = address.sole_since.filter(|(_, since, _)| *since + AT_HOME <= now)
        else {
            return;
        };
        if address.home.is_none_or(|home| home.node != node) {
            address.home = Some(Home { node, disturbed: since, epoch });
        }
        // An owner that a newer epoch ranks first takes it in as soon as it is told.
        if let Some(home) = &mut address.home
            && address.told_epoch[node] == address.truth.epoch
            && address.truth.candidates.first() == Some(&node)
        {
            home.epoch = home.epoch.max(address.truth.epoch);
        }
    }

    /// Whether what the API says may make an address move away from home: a newer epoch, or a ranking without it.
    fn is_to_move(&self, at: usize) -> bool {
        let address = &self.addresses[at];
        let is_left_out = |home: Home| {
            address.truth.epoch > home.epoch || address.truth.mask() & address.told & bit(home.node) == 0
        };
        address.home.is_some_and(is_left_out)
    }

    /// Whether the only one that answers for an address is at home there and well, and has been for a while.
    fn is_settled(&self, now: Instant, at: usize) -> bool {
        let address = &self.addresses[at];
        let Some(home) = address.home else { return false };
        let is_sole = address.sole_since.is_some_and(|(node, ..)| node == home.node);
        is_sole && self.is_well(now, home.node) && home.disturbed + SETTLED <= now
    }

    /// Whether nothing is wrong with a node, nor was for a while.
    fn is_well(&self, now: Instant, node: usize) -> bool {
        self.lan.running & self.lan.clean & bit(node) != 0 && self.disturbed[node] + SETTLED <= now
    }

    fn set_deadline(&mut self) {
        let voids = self.addresses.iter().filter_map(i1_no_void::deadline);
        let splits = self.addresses.iter().flat_map(|address| self.split_deadlines(address));
        self.deadline = voids.chain(splits.map(|(_, deadline)| deadline)).min();
    }

    /// Whether anything has lasted for too long.
    pub fn check(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline < now) && self.broken.is_none() {
            self.i1_no_void(now);
            self.i2_no_split(now);
        }
    }

    fn breaks(&mut self, invariant: &'static str, now: Instant, what: String) {
        if self.broken.is_none() {
            self.broken = Some(Broken { invariant, at: now - self.start, what });
        }
    }

    /// Something that is only looked at now and then does not hold.
    pub fn found(&mut self, invariant: &'static str, now: Instant, what: String) {
        self.breaks(invariant, now, what);
    }
}
