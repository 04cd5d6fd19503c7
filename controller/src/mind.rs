//! The one mind of the controller, as its drivers and the tests see it: events and time in, effects out.
//!
//! It is level-triggered: every event updates a picture of the world, and for each Service that the
//! event touches the mind asks what is still missing. It wants at most one effect per object at a time
//! and takes the next step when it sees the outcome of the last, so it can be stopped between any two
//! writes and started again, or run twice, without harm.
//!
//! Two rules keep an address from serving two Services even where two controllers write at once on
//! caches of different age. They rest on the order in which the API server does things, not on time:
//!
//! - An address is put into a Service's status only if its claim was read from the API server, or
//!   written, after the state of the Service was learned that the write is tied to.
//! - A VirtualIP is deleted only if its last holder was read from the API server, or written, after
//!   the claim was seen to be dropped, and did not show the address any more.
//!
//! One gap is left, and only without leader election: a VirtualIP that was deleted by mistake is away
//! for the moment between its deletion and its re-creation, and a second controller whose watch of
//! Services lags by more than that moment may claim the name for another Service. The Service that
//! shows the address then keeps it, and the other claim is given up.

mod absorb;
mod balance;
mod explain;
mod guarding;
mod history;
mod lost;
mod outcome;
pub(crate) mod pending;
mod placing;
mod pool;
mod release;
mod rush;
mod service;
pub(crate) mod subject;
mod surroundings;
mod telling;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use landfall_crds::{ClaimRef, IPPool, ServiceGuard, Speaker, VirtualIP, names};

use crate::effects::{Effect, Note, Outcome};
use crate::granting::book::AddressBook;
use crate::granting::plan::{Lost, View};
use crate::granting::refused::Refused;
use crate::granting::sharers::Sharers;
use crate::granting::tally::Tallies;
use crate::granting::usage::Usage;
use crate::granting::verdict::Classes;
use crate::ranking::Loads;
use crate::world::cluster_ranges::ServiceRanges;
use crate::world::endpoints::Endpoints;
use crate::world::guards::Guards;
use crate::world::namespaces::Namespaces;
use crate::world::nodes::Nodes;
use crate::world::store::{Index, Store};
use crate::world::virtual_ips::VirtualIps;
use balance::Balance;
pub use explain::Explanation;
use history::History;
use pending::Pending;
use rush::Rush;
use subject::Subject;
use telling::Silence;
use waiting::Waiting;

/// One change of one object.
#[derive(Clone, Debug)]
pub enum Change<K: Clone> {
    /// The object is new or changed.
    Applied(Arc<K>),
    /// The object is gone; this is its last known state.
    Deleted(Arc<K>),
    /// A complete list: what is missing here is gone.
    Listed(Vec<Arc<K>>),
}

/// What happens to a controller.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Event {
    Service(Change<Service>),
    Pool(Change<IPPool>),
    VirtualIp(Change<VirtualIP>),
    ServiceGuard(Change<ServiceGuard>),
    Speaker(Change<Speaker>),
    Node(Change<Node>),
    Namespace(Change<Namespace>),
    ServiceCidr(Change<ServiceCIDR>),
    EndpointSlice(Change<EndpointSlice>),
    /// The writer has tried an effect. A success carries the object as the API server now holds it,
    /// so that the next step need not wait for the watch. Every effect that was wanted while leading
    /// needs its outcome, or `Leading(false)`: until then nothing else is done to its object.
    Done {
        effect: Effect,
        outcome: Outcome,
    },
    /// This process has become the one that writes, or is it no more. Effects are only wanted while
    /// it is, and only once there has been a complete list of every kind.
    Leading(bool),
    /// The time that `next_deadline` named has come.
    Deadline,
}

/// Names a Service.
pub type ServiceRef = ClaimRef;

/// The time, as the drivers read it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and pacing; never goes back.
    pub monotonic: Instant,
    /// For what people read, and for epochs; may jump.
    pub wall: Timestamp,
}

/// What the mind is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The load balancer class that is ours by name.
    pub class: String,
    /// Whether Services without a class are ours.
    pub default_class: bool,
    /// Whether a pool without a namespace selector serves no namespace instead of all.
    pub default_deny: bool,
    /// How long a release waits for the announcer to confirm that it stopped.
    pub withdrawal_bound: Duration,
    /// How long an address may be unanswered before its Service says so. Longer than any failover, so
    /// that one writes no Service.
    pub announce_grace: Duration,
    /// The least time between two writes of one Service's conditions alone.
    pub conditions_pace: Duration,
    /// The least time between two looks at one pool's status.
    pub pool_status_pace: Duration,
    /// The least time between two addresses that are moved to spread them evenly; zero switches that off.
    pub rebalance_interval: Duration,
    /// How long a node must have been well without a break before it is given addresses of others, and
    /// how long nothing is moved after anything of that kind has changed or this process has begun to lead.
    pub rebalance_settle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            class: names::LOAD_BALANCER_CLASS.to_owned(),
            default_class: true,
            default_deny: false,
            withdrawal_bound: Duration::from_secs(10),
            announce_grace: Duration::from_secs(5),
            conditions_pace: Duration::from_secs(1),
            pool_status_pace: Duration::from_secs(1),
            rebalance_interval: Duration::from_secs(10),
            rebalance_settle: Duration::from_secs(60),
        }
    }
}

/// A VirtualIP that nobody claims.
#[derive(Clone, Copy, Debug)]
struct Unclaimed {
    /// Since when this is known.
    since: Instant,
    /// The step in which its present state was learned: who held it may have claimed it for a moment
    /// since it was seen unclaimed first.
    step: u64,
}

/// Everything that the controller knows and wants.
#[derive(Debug)]
pub struct Mind {
    config: Config,
    classes: Classes,
    /// Counts the events, so that "before" and "after" mean something without a clock.
    step: u64,
    /// The time of the latest event, as people read it.
    wall: Timestamp,
    leading: bool,
    was_acting: bool,

    services: Store<ClaimRef, Service>,
    vips: VirtualIps,
    guards: Guards,
    nodes: Nodes,
    endpoints: Endpoints,
    namespaces: Namespaces,
    service_ranges: ServiceRanges,
    pools_listed: bool,
    /// Services that the API server said are gone, and the step in which it was asked.
    gone: BTreeMap<ClaimRef, u64>,

    /// VirtualIPs that the API server said are not there, and the step in which it was asked.
    absent: BTreeMap<IpAddr, u64>,

    book: AddressBook,
    usage: Usage,
    loads: Loads,
    tallies: Tallies,
    lost: Lost,
    /// Claims that are being written, both ways.
    claiming: BTreeMap<ClaimRef, BTreeSet<IpAddr>>,
    claimant_of: BTreeMap<IpAddr, ClaimRef>,
    /// Claims that this process has written itself: whatever it has seen of their Services since is newer.
    own_claims: BTreeSet<(IpAddr, ClaimRef)>,
    /// Pools that addresses are about to be counted under instead of others.
    renaming: BTreeMap<IpAddr, String>,
    /// What is being written of those who share addresses.
    sharing: Sharers,
    /// What the API server refused lately.
    refused: Refused,
    unclaimed: BTreeMap<IpAddr, Unclaimed>,
    /// The highest placement epoch that was ever seen or given.
    last_epoch: i64,
    /// How often some Service was looked at.
    looks: u64,

    pending: Pending,
    /// What to look at: VirtualIPs, then Services by age, then pools.
    dirty: BTreeSet<(u8, i64, Subject)>,
    waiting: Waiting,
    /// What the book counted when those who go without were last asked.
    exhaustions: u64,
    /// Services whose addresses are not all answered for.
    silent: Index<ClaimRef, Silence>,
    /// Since when Services that need no guard any more are gone, or are no load balancers.
    unguarded: Index<ClaimRef, Instant>,
    /// When the conditions of a Service were last written by themselves.
    conditions_written: Index<ClaimRef, Instant>,
    /// Whether the API server was found to hold an older state than it did.
    went_back: bool,
    /// What the owners of others' Services (by uid) have been told of them.
    told: BTreeMap<String, String>,
    /// When each pool's addresses were last counted.
    pool_counted: BTreeMap<String, Instant>,
    /// What is to be noted of past holders.
    history: History,
    /// Releases that go on without a history, because it was refused.
    rush: Rush,
    without_history: BTreeSet<IpAddr>,
    balance: Balance,
}

impl Mind {
    /// A mind that knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            classes: Classes { name: config.class.clone(), default: config.default_class },
            config,
            step: 0,
            wall: Timestamp::UNIX_EPOCH,
            leading: false,
            was_acting: false,
            services: Store::default(),
            vips: VirtualIps::default(),
            guards: Guards::default(),
            nodes: Nodes::default(),
            endpoints: Endpoints::default(),
            namespaces: Namespaces::default(),
            service_ranges: ServiceRanges::default(),
            pools_listed: false,
            gone: BTreeMap::new(),
            absent: BTreeMap::new(),
            book: AddressBook::default(),
            usage: Usage::default(),
            loads: Loads::default(),
            tallies: Tallies::default(),
            lost: Lost::new(),
            claiming: BTreeMap::new(),
            claimant_of: BTreeMap::new(),
            own_claims: BTreeSet::new(),
            renaming: BTreeMap::new(),
            sharing: Sharers::default(),
            refused: Refused::default(),
            unclaimed: BTreeMap::new(),
            last_epoch: 0,
            looks: 0,
            pending: Pending::default(),
            dirty: BTreeSet::new(),
            waiting: Waiting::default(),
            exhaustions: 0,
            silent: Index::default(),
            unguarded: Index::default(),
            conditions_written: Index::default(),
            went_back: false,
            told: BTreeMap::new(),
            pool_counted: BTreeMap::new(),
            history: History::default(),
            rush: Rush::default(),
            without_history: BTreeSet::new(),
            balance: Balance::default(),
        }
    }

    /// Takes in an event and appends what is to be done now.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.step += 1;
        self.wall = now.wall;
        match event {
            Event::Service(change) => self.on_services(change),
            Event::Pool(change) => self.on_pools(change),
            Event::VirtualIp(change) => self.on_virtual_ips(now, change),
            Event::ServiceGuard(change) => self.on_service_guards(change),
            Event::Speaker(change) => self.on_speakers(change),
            Event::Node(change) => self.on_nodes(change),
            Event::Namespace(change) => self.on_namespaces(change),
            Event::ServiceCidr(change) => self.on_service_cidrs(change),
            Event::EndpointSlice(change) => self.on_endpoint_slices(change),
            Event::Done { effect, outcome } => self.on_done(now, &effect, outcome, out),
            Event::Leading(leading) => self.leading = leading,
            Event::Deadline => {}
        }
        self.act(now, out);
    }

    /// When [`Event::Deadline`] is wanted, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines =
            [self.pending.next_deadline(), self.balance.next_deadline(), self.rush.next_deadline()];
        if self.is_acting() { deadlines.into_iter().flatten().min() } else { None }
    }

    /// Whether every kind has had its first complete list.
    pub fn is_informed(&self) -> bool {
        self.services.listed
            && self.vips.store.listed
            && self.guards.store.listed
            && self.pools_listed
            && self.nodes.speakers_listed
            && self.nodes.nodes_listed
            && self.namespaces.listed
            && self.service_ranges.listed
            && self.endpoints.listed
    }

    fn is_acting(&self) -> bool {
        self.leading && self.is_informed()
    }

    fn act(&mut self, now: Now, out: &mut Vec<Effect>) {
        let acting = self.is_acting();
        if acting && !self.was_acting {
            self.mark_all();
            self.begin_balance(now);
        }
        if !acting && self.was_acting {
            self.stand_down();
        }
        self.was_acting = acting;
        if !acting {
            return;
        }
        for subject in self.pending.due(now.monotonic) {
            if let Subject::VirtualIp(address) = &subject {
                self.try_again_after_pause(now, *address);
                self.mark_former_holders(*address);
            }
            self.mark(subject);
        }
        for key in self.rush.over(now.monotonic) {
            self.mark(Subject::Service(key));
        }
        loop {
            while let Some((_, _, subject)) = self.dirty.pop_first() {
                match subject {
                    Subject::VirtualIp(address) => self.look_at_virtual_ip(now, address, out),
                    Subject::Service(key) => self.look_at_service(now, &key, out),
                    Subject::Guard(key) => self.mark(Subject::Service(key)),
                    Subject::Pool(name) => self.look_at_pool(now, &name, out),
                }
            }
            if self.book.exhaustions() != self.exhaustions {
                self.exhaustions = self.book.exhaustions();
                for key in self.waiting.going_without() {
                    self.mark(Subject::Service(key));
                }
                continue;
            }
            match self.next_to_wake() {
                Some(key) => self.mark(Subject::Service(key)),
                None => break,
            }
        }
        self.rebalance(now, out);
    }

    /// Forgets what was under way; whoever leads now does it.
    fn stand_down(&mut self) {
        self.pending = Pending::default();
        self.dirty.clear();
        self.waiting = Waiting::default();
        self.history = History::default();
        self.rush = Rush::default();
        self.own_claims.clear();
        self.balance = Balance::default();
        for address in self.refused.addresses().collect::<Vec<_>>() {
            self.try_again(address);
        }
        self.refused = Refused::default();
        for address in self.claimant_of.keys().chain(self.renaming.keys()).copied().collect::<Vec<_>>() {
            self.forget_claiming(address);
        }
        // Places were counted as they were to be written.
        for address in self.vips.store.keys().copied().collect::<Vec<_>>() {
            self.settle_load(address);
        }
    }

    fn mark(&mut self, subject: Subject) {
        if !self.was_acting {
            return;
        }
        let turn = self.in_turn(subject);
        self.dirty.insert(turn);
    }

    /// A subject, after what says when its turn comes.
    fn in_turn(&self, subject: Subject) -> (u8, i64, Subject) {
        let (rank, age) = match &subject {
            Subject::VirtualIp(_) | Subject::Guard(_) => (0, 0),
            Subject::Service(key) => (1, self.age(key)),
            Subject::Pool(_) => (2, 0),
        };
        (rank, age, subject)
    }

    fn mark_all(&mut self) {
        self.was_acting = true;
        self.mark_services();
        let are_kept = self.vips.store.iter().filter(|(_, vip)| vip.spec.reservation.is_some());
        let are_kept = are_kept.map(|(address, _)| *address);
        for address in self.unclaimed.keys().copied().chain(are_kept).collect::<BTreeSet<_>>() {
            self.mark(Subject::VirtualIp(address));
        }
        self.mark_pools();
    }

    /// All Services, and those that are missing but claim something or did.
    fn mark_services(&mut self) {
        if !self.was_acting {
            return;
        }
        let known = self.services.keys().cloned();
        let named = self.vips.services().chain(self.guards.store.keys());
        let missing = named.filter(|key| self.services.get(key).is_none()).cloned();
        let all = known.chain(missing).chain(self.lost.keys().cloned());
        // All at once: to sort many costs less than to put each in its place.
        let mut all = all.map(|key| self.in_turn(Subject::Service(key))).collect();
        self.dirty.append(&mut all);
    }

    /// All pools, of whose addresses nothing is known to be as it was.
    fn mark_pools(&mut self) {
        self.tallies.forget();
        for name in self.book.pools().map(|(name, _)| name.to_owned()).collect::<Vec<_>>() {
            self.mark(Subject::Pool(name));
        }
    }

    /// When the Service was created: the older is served first.
    fn age(&self, key: &ClaimRef) -> i64 {
        let service = self.services.get(key);
        let created = service.and_then(|service| service.metadata.creation_timestamp.as_ref());
        created.map_or(i64::MAX, |time| time.0.as_second())
    }

    fn view(&self) -> View<'_> {
        View {
            book: &self.book,
            services: &self.services,
            vips: &self.vips,
            claiming: &self.claiming,
            lost: &self.lost,
            sharing: &self.sharing,
            refused: &self.refused,
            namespaces: &self.namespaces,
            usage: &self.usage,
            default_deny: self.config.default_deny,
            now: self.wall,
        }
    }

    /// Wants an effect, and the notes once it is done.
    fn want(&mut self, effect: Effect, notes: Vec<Note>, out: &mut Vec<Effect>) {
        if let Some(subject) = subject::of(&effect) {
            self.pending.takes_off(subject, self.step, notes);
        }
        out.push(effect);
    }

    fn may_act_on(&mut self, subject: &Subject, now: Now) -> bool {
        self.pending.may_act(subject, subject, now.monotonic)
    }

    /// Whether a step of the Service may be taken at one of its addresses.
    fn may_act_at(&mut self, address: IpAddr, key: &ClaimRef, now: Now) -> bool {
        let asker = Subject::Service(key.clone());
        self.pending.may_act(&Subject::VirtualIp(address), &asker, now.monotonic)
    }
}
