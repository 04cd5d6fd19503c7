//! Who may come in, kept by the kernel: a table of nftables that is ours alone.
//!
//! The mind is told what is asked for and what the kernel holds, and says what to change. It keeps invariant
//! `i3_fail_closed`: it says of an address that it is guarded only once the kernel has done all that its
//! VirtualIP asks for, and it keeps the barriers of an address that was released until this node has stopped
//! announcing it.
//!
//! | File | What |
//! |---|---|
//! | `frontend.rs`, `sources.rs` | what is asked for |
//! | `wanted.rs` | from what is asked for to the table that does it |
//! | `table.rs`, `shape.rs` | what the kernel holds |
//! | `plan.rs` | from one table to another by the smallest change, in an order that harms nobody |
//! | `set.rs`, `rule.rs`, `program.rs` | the sets and the rules |
//! | `install.rs`, `answers.rs` | what to do next about the kernel, and how often |
//! | `notices.rs`, `tally.rs` | who was refused, and how many came in |
//! | `explain.rs` | the same in words |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod answers;
pub mod explain;
pub mod frontend;
mod install;
mod notices;
pub mod plan;
pub mod program;
pub mod rule;
pub mod set;
pub mod shape;
pub mod sources;
pub mod table;
mod tally;
pub mod wanted;

#[cfg(test)]
mod tests;

pub use answers::{Failure, FailureKind, Health, Holds, Owner, TableId};
pub use explain::Explanation;
use frontend::{Frontend, Guard, ServiceName};
use install::Install;
use notices::Notices;
pub use notices::{Notice, Refused};
use plan::Scope;
use table::Transaction;
use tally::Tally;
pub use tally::{COUNTING, Count, Counter, Traffic, TrafficOf};
pub use wanted::Stations;
use wanted::Wanted;

/// How long the barriers of an address stay after it was released and this node has stopped announcing it. By then kube-proxy
/// leads nobody to its Service any more.
const LINGER: Duration = Duration::from_secs(10);
/// How often counts are read.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// What the mind is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// All addresses and what is asked for there.
    Frontends(Vec<(IpAddr, Arc<Frontend>)>),
    /// What is asked for at an address; nothing where it is gone.
    Frontend(IpAddr, Option<Arc<Frontend>>),
    /// All guards.
    Guards(Vec<(ServiceName, Arc<Guard>)>),
    /// The guard of a Service; nothing where it has none any more.
    Guard(ServiceName, Option<Arc<Guard>>),
    /// All addresses of these stations, which are no Service's.
    Stations(Stations, BTreeSet<IpAddr>),
    /// This node announces an address, or does no more.
    Announcing(IpAddr, bool),
    /// What the kernel holds: the answer to [`Action::Dump`].
    Dumped(Holds),
    /// The kernel has done it: the answer to [`Action::Commit`].
    Done,
    /// The kernel has not done it, or not told: another answer to either.
    Failed(Failure),
    /// Which table there is, if any: the answer to [`Action::Look`].
    Seen(Option<TableId>),
    /// What was counted: the answer to [`Action::Count`].
    Counted(Vec<Count>),
    /// A packet was refused.
    Refused(Refused),
    /// A ping came to an address: the packet.
    Ping(IpAddr, Vec<u8>),
    /// The time came that [`Filter::next_deadline`] told.
    Deadline,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask the kernel what it holds.
    Dump,
    /// Have the kernel do this.
    Commit(Transaction),
    /// See whether the table is still there.
    Look,
    /// Read what was counted, and remove counts that nobody asks for any more.
    Count {
        /// Elements of sets that the kernel filled, which are no more of use.
        stale: Vec<Counter>,
    },
    /// What each address is guarded by, if by anything: see [`Frontend::asks`].
    Guarded(Vec<(IpAddr, Option<Arc<str>>)>),
    /// How the filter fares.
    Health(Health),
    /// The table vanished; it is about to be there again.
    Vanished,
    /// Somebody was refused.
    Notice(Notice),
    /// So much more came, or was refused.
    Traffic(Vec<Traffic>),
    /// Answer a ping: the packet that came.
    AnswerPing(Vec<u8>),
}

/// The mind; see the module.
#[derive(Debug)]
pub struct Filter {
    wanted: Wanted,
    has_network: bool,
    has_frontends: bool,
    has_guards: bool,
    /// Addresses that were released, and when.
    released: BTreeMap<IpAddr, Instant>,
    install: Install,
    /// What each address was last said to be guarded by.
    told: BTreeMap<IpAddr, Arc<str>>,
    /// Addresses of which there may be something to say.
    unsettled: BTreeSet<IpAddr>,
    notices: Notices,
    tally: Tally,
    count_at: Option<Instant>,
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter {
    /// Knows nothing. It touches nothing before it knows all addresses and all guards.
    pub fn new() -> Self {
        let mut wanted = Wanted::default();
        wanted.set_log(true);
        Self {
            wanted,
            has_network: false,
            has_frontends: false,
            has_guards: false,
            released: BTreeMap::new(),
            install: Install::default(),
            told: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            notices: Notices::default(),
            tally: Tally::default(),
            count_at: None,
        }
    }

    /// Takes an event in at the time `now` and pushes what is to be done.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Frontends(frontends) => self.set_frontends(now, frontends),
            Event::Frontend(address, frontend) => self.set_frontend(now, address, frontend),
            Event::Guards(guards) => self.set_guards(guards),
            Event::Guard(service, guard) => self.set_guard(&service, guard),
            Event::Stations(whose, addresses) => {
                let changed = self.wanted.set_stations(whose, addresses, self.install.dirty());
                self.unsettled.extend(changed);
                self.has_network |= whose == Stations::Node;
            }
            Event::Announcing(address, is_announced) => {
                self.wanted.set_announced(address, is_announced, self.install.dirty());
                self.unsettled.insert(address);
                if !is_announced && let Some(since) = self.released.get_mut(&address) {
                    *since = now;
                }
            }
            Event::Dumped(holds) => self.install.dumped(now, holds, &self.wanted),
            Event::Done => {
                let settled = self.install.done(now, out);
                self.unsettle(settled);
            }
            Event::Failed(failure) => self.install.failed(now, failure, &mut self.wanted, out),
            Event::Seen(id) => {
                if self.install.seen(now, id, out) {
                    self.tally.start_anew();
                    self.retract(out);
                }
            }
            Event::Counted(counts) => {
                let traffic = self.tally.take(&counts, &self.wanted);
                out.extend((!traffic.is_empty()).then_some(Action::Traffic(traffic)));
            }
            Event::Refused(refused) => {
                out.extend(self.notices.take(now, &refused, &self.wanted).map(Action::Notice));
            }
            Event::Ping(address, packet) => {
                out.extend(self.wanted.is_announced(address).then_some(Action::AnswerPing(packet)));
            }
            Event::Deadline => {}
        }
        self.forget_released(now);
        if self.knows_enough() {
            let settled = self.install.go_on(now, &self.wanted, out);
            self.unsettle(settled);
        }
        self.count(now, out);
        self.tell(out);
    }

    /// When it wants to be told [`Event::Deadline`]. It may have passed already.
    pub fn next_deadline(&self) -> Option<Instant> {
        let released = self.released.iter().filter(|(address, _)| !self.wanted.is_announced(**address));
        let released = released.map(|(_, since)| *since + LINGER).min();
        let install = self.install.next_deadline().filter(|_| self.knows_enough());
        [released, install, self.count_at].into_iter().flatten().min()
    }

    /// Whether all has been told that the first change depends on.
    fn knows_enough(&self) -> bool {
        self.has_network && self.has_frontends && self.has_guards
    }

    /// What is asked for.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    fn set_frontends(&mut self, now: Instant, frontends: Vec<(IpAddr, Arc<Frontend>)>) {
        let listed: BTreeSet<IpAddr> = frontends.iter().map(|(address, _)| *address).collect();
        let gone: Vec<_> =
            self.wanted.frontends().keys().filter(|address| !listed.contains(*address)).copied().collect();
        for address in gone {
            self.set_frontend(now, address, None);
        }
        for (address, frontend) in frontends {
            self.set_frontend(now, address, Some(frontend));
        }
        self.has_frontends = true;
    }

    fn set_frontend(&mut self, now: Instant, address: IpAddr, frontend: Option<Arc<Frontend>>) {
        match frontend.filter(|frontend| !frontend.claims().is_empty()) {
            Some(frontend) => {
                self.released.remove(&address);
                self.wanted.set_frontend(address, Some(frontend), self.install.dirty());
                self.unsettled.insert(address);
            }
            None if self.wanted.frontend(address).is_some() => {
                self.released.entry(address).or_insert(now);
            }
            None => {}
        }
    }

    fn set_guards(&mut self, guards: Vec<(ServiceName, Arc<Guard>)>) {
        let listed: BTreeSet<&ServiceName> = guards.iter().map(|(service, _)| service).collect();
        let gone: Vec<_> =
            self.wanted.guards().keys().filter(|service| !listed.contains(*service)).cloned().collect();
        for service in gone {
            self.set_guard(&service, None);
        }
        for (service, guard) in guards {
            self.set_guard(&service, Some(guard));
        }
        self.has_guards = true;
    }

    fn set_guard(&mut self, service: &ServiceName, guard: Option<Arc<Guard>>) {
        self.wanted.set_guard(service, guard, self.install.dirty());
        self.unsettled.extend(self.wanted.claimed_by(service));
    }

    /// Lets go of addresses that were released long enough ago, and that this node does not announce.
    fn forget_released(&mut self, now: Instant) {
        let is_over = |(address, since): (&IpAddr, &Instant)| {
            (now >= *since + LINGER && !self.wanted.is_announced(*address)).then_some(*address)
        };
        let over: Vec<_> = self.released.iter().filter_map(is_over).collect();
        for address in over {
            self.released.remove(&address);
            self.wanted.set_frontend(address, None, self.install.dirty());
            self.unsettled.insert(address);
        }
    }

    fn count(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !self.install.is_up() {
            self.count_at = None;
        } else if self.count_at.is_none_or(|at| at <= now) {
            if self.count_at.is_some() {
                out.push(Action::Count { stale: self.tally.stale(&self.wanted) });
            }
            self.count_at = Some(now + COUNT_EVERY);
        }
    }

    fn unsettle(&mut self, scopes: BTreeSet<Scope>) {
        let addresses = scopes.into_iter().filter_map(|scope| match scope {
            Scope::Address(address) => Some(address),
            Scope::NodePort(_) => None,
        });
        self.unsettled.extend(addresses);
    }

    /// Nothing is guarded any more.
    fn retract(&mut self, out: &mut Vec<Action>) {
        let told = std::mem::take(&mut self.told);
        self.unsettled.extend(told.keys());
        out.extend(
            (!told.is_empty()).then(|| Action::Guarded(told.into_keys().map(|at| (at, None)).collect())),
        );
    }

    /// Says what addresses are guarded by, where that is something else than before.
    fn tell(&mut self, out: &mut Vec<Action>) {
        let mut news = Vec::new();
        for address in std::mem::take(&mut self.unsettled) {
            if self.wanted.is_spared(address) {
                news.extend(self.told.remove(&address).map(|_| (address, None)));
                continue;
            }
            let frontend = self.wanted.frontend(address).filter(|_| !self.released.contains_key(&address));
            let Some((frontend, asks)) = frontend.and_then(|it| Some((it, it.asks()?))) else {
                // It is not ours, or asks for nothing; until it is, what was said holds.
                if frontend.is_some() || self.wanted.frontend(address).is_none() {
                    news.extend(self.told.remove(&address).map(|_| (address, None)));
                }
                continue;
            };
            if self.told.get(&address) == Some(asks) {
                continue;
            }
            if !self.install.holds(Scope::Address(address)) {
                // The end of what is under way is an event.
                continue;
            }
            if self.wanted.has_what_is_asked(frontend) {
                self.told.insert(address, Arc::clone(asks));
                news.push((address, Some(Arc::clone(asks))));
            }
        }
        out.extend((!news.is_empty()).then_some(Action::Guarded(news)));
    }
}
