//! The process of a speaker: its mind, and around it the planners of its drivers, as the drivers themselves put
//! them together (`speaker/src/drivers`), without sockets, files or an API.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::watcher::Event as Watched;
use landfall_crds::{Speaker, VirtualIP};
use landfall_speaker::drivers::books::Books;
use landfall_speaker::drivers::clerk::{Clerk, Word};
use landfall_speaker::drivers::desk::{Desk, Key, Note, Write, Written};
use landfall_speaker::drivers::netlink::Network;
use landfall_speaker::drivers::picture::Told;
use landfall_speaker::drivers::readiness::{Known, Readiness};
use landfall_speaker::fitness::{Event as Observed, Fitness, Health};
use landfall_speaker::lan::Vip;
use landfall_speaker::mind::{Action, Config, Event, Mind, Report};
use landfall_speaker::ownership::gates::Gates;
use landfall_speaker::succession::Inheritance;

/// So many writes may be under way at once (`report.rs`).
const AT_ONCE: usize = 4;
/// Changes are written to the state file after as long (`state_file.rs`).
const STATE_SETTLE: Duration = Duration::from_secs(1);
/// So often kube-proxy is asked how it is (`fitness.rs`).
const ASK_PACE: Duration = Duration::from_secs(1);

/// What comes to the process.
#[derive(Clone, Debug)]
pub enum Input {
    /// To its mind.
    Mind(Event),
    /// The node's network is listed, or listed anew.
    Network(Network),
    Vip(Watched<VirtualIP>),
    Speaker(Watched<Speaker>),
    /// Whether the API server is out of reach, as far as a watch notices.
    ApiAway(bool),
    /// The API server answered something that is no news.
    ApiHeard,
    /// What kube-proxy says of itself when it is asked.
    Proxy(Health),
    Written(Key, Written),
}

impl Input {
    /// It comes to the kernel at that time.
    pub fn stamp(&mut self, now: Instant) {
        if let Self::Mind(Event::Frame { at, .. } | Event::Datagram { at, .. }) = self {
            *at = now;
        }
    }

    /// Whether it waits in a socket of the LAN, which is drained before anything else is looked at.
    pub fn is_from_lan(&self) -> bool {
        matches!(self, Self::Mind(Event::Frame { .. } | Event::Datagram { .. } | Event::NobodyListens { .. }))
    }
}

/// The process.
pub struct Process {
    pub mind: Mind,
    pub books: Books,
    /// Tells this process from those before it.
    pub incarnation: u64,
    /// It was told to end.
    pub leaves: bool,
    /// It has handed everything over.
    pub has_left: bool,
    clerk: Clerk,
    desk: Desk,
    readiness: Readiness,
    fitness: Fitness,
    told_gates: Gates,
    proxy: Health,
    ask_at: Instant,
    writing: usize,
    /// When the books are to be written to the state file.
    save_at: Option<Instant>,
}

/// The kernel of this world enforces the guards of addresses as soon as they are asked for.
fn guarded(event: &Event) -> Event {
    let guard = |vip: &Vip| (vip.address, vip.guard.clone());
    match event {
        Event::Vip(vip) => Event::Guarded(vec![guard(vip)]),
        Event::Vips(vips) => Event::Guarded(vips.iter().map(guard).collect()),
        _ => Event::Guarded(Vec::new()),
    }
}

/// Nothing is known but of the filter, which is in place.
pub fn unguarded() -> Readiness {
    Readiness { guards: Known::FromApi, filter: Some(Default::default()), ..Readiness::default() }
}

impl Process {
    /// A process that has just started, with what its state file told.
    pub fn start(now: Instant, config: Config, state: Option<Books>, out: &mut Vec<Action>) -> Self {
        let node = config.node.clone();
        let mut process = Self {
            incarnation: config.instance,
            mind: Mind::new(config),
            books: Books::default(),
            leaves: false,
            has_left: false,
            clerk: Clerk::new(&node),
            desk: Desk::new(&node),
            readiness: Readiness { sockets: Some(Vec::new()), ..unguarded() },
            fitness: Fitness::default(),
            told_gates: Gates::NONE,
            proxy: Health::Healthy,
            ask_at: now,
            writing: 0,
            save_at: None,
        };
        if let Some(books) = state {
            let peers = Event::Peers(books.peers.values().cloned().collect());
            let vips = Event::Vips(books.vips.values().cloned().collect());
            process.mind.handle(now, guarded(&vips), out);
            process.books = books;
            (process.readiness.vips, process.readiness.peers) = (Known::FromFile, Known::FromFile);
            process.mind.handle(now, peers, out);
            process.mind.handle(now, vips, out);
        }
        process.told_gates = process.fitness.gates();
        process.mind.handle(now, Event::Gates(process.told_gates), out);
        process
    }

    /// Goes on where a former process of the node stopped. The network is to be told next.
    pub fn inherit(&mut self, now: Instant, left: Box<Inheritance>, out: &mut Vec<Action>) {
        let gates = Gates::from_bits(left.gates);
        self.mind.handle(now, Event::Inherit(left), out);
        self.observe(now, Observed::Inherited(gates), out);
    }

    /// What the node lacks, as the mind was told.
    pub fn gates(&self) -> Gates {
        self.told_gates
    }

    fn observe(&mut self, now: Instant, event: Observed, out: &mut Vec<Action>) {
        let gates = self.fitness.handle(now, event);
        if gates != self.told_gates {
            self.told_gates = gates;
            self.readiness.gates = gates;
            self.tell_readiness(now);
            self.mind.handle(now, Event::Gates(gates), out);
        }
    }

    /// Takes in what came, and pushes what the mind wants done.
    pub fn take(&mut self, now: Instant, wall: Timestamp, input: Input, out: &mut Vec<Action>) {
        let from = out.len();
        match input {
            Input::Mind(event) => {
                self.leaves |= matches!(event, Event::Leave);
                self.mind.handle(now, event, out);
            }
            Input::Network(network) => {
                self.mind.handle(now, Event::OwnAddresses(network.addresses.clone()), out);
                self.mind.handle(now, Event::Gateways(network.gateways.clone()), out);
                self.mind.handle(now, Event::Links(network.links.clone()), out);
                (self.readiness.network, self.readiness.links) = (true, network.links.len());
                self.desk.note(now, Note::Network(network));
                self.tell_readiness(now);
            }
            Input::Vip(event) => {
                self.observe(now, Observed::ApiHeard, out);
                let words = self.clerk.vip(now, event, &mut self.books);
                self.say(now, words, out);
            }
            Input::Speaker(event) => {
                self.observe(now, Observed::ApiHeard, out);
                let words = self.clerk.speaker(now, event, &mut self.books);
                self.say(now, words, out);
            }
            Input::ApiAway(away) => {
                self.readiness.api = away.then(|| "out of reach".to_owned());
                self.tell_readiness(now);
            }
            Input::ApiHeard => self.observe(now, Observed::ApiHeard, out),
            Input::Proxy(health) => self.proxy = health,
            Input::Written(key, written) => {
                if !matches!(written, Written::Failed) {
                    self.observe(now, Observed::ApiHeard, out);
                }
                self.writing -= 1;
                self.desk.written(now, key, written);
            }
        }
        for action in &out[from..] {
            let Action::Report(report) = action else { continue };
            if let Report::Announcing { address, term, .. } = report
                && self.books.raise_term(*address, *term)
            {
                self.save_at.get_or_insert(now + STATE_SETTLE);
            }
            self.desk.told(now, &Told { at: wall, report: report.clone() });
        }
    }

    fn tell_readiness(&mut self, now: Instant) {
        self.desk.note(now, Note::Readiness(self.readiness.clone()));
    }

    fn say(&mut self, now: Instant, words: Vec<Word>, out: &mut Vec<Action>) {
        for word in words {
            match word {
                Word::Mind(event) => {
                    self.save_at.get_or_insert(now + STATE_SETTLE);
                    self.mind.handle(now, guarded(&event), out);
                    self.mind.handle(now, event, out);
                }
                Word::Desk(note) => {
                    self.desk.note(now, note);
                }
                Word::VipsListed => {
                    self.readiness.vips = Known::FromApi;
                    self.is_listed(now, out);
                }
                Word::PeersListed => {
                    self.readiness.peers = Known::FromApi;
                    self.is_listed(now, out);
                }
                // What is asked for is in the kernel at once, see `guarded`. Nobody reads Events here.
                Word::Filter(_) | Word::GuardsListed | Word::Alarm(_) | Word::Remark(_) => {}
            }
        }
    }

    fn is_listed(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.tell_readiness(now);
        if self.readiness.vips == Known::FromApi && self.readiness.peers == Known::FromApi {
            self.observe(now, Observed::Informed, out);
        }
    }

    /// Does what time alone brings. Tells what is to be written to the state file, if anything.
    pub fn deadline(&mut self, now: Instant, wall: Timestamp, out: &mut Vec<Action>) -> Option<Books> {
        if self.mind.next_deadline().is_some_and(|due| due <= now) {
            self.take(now, wall, Input::Mind(Event::Deadline), out);
        }
        if self.clerk.next_deadline().is_some_and(|due| due <= now) {
            let words = self.clerk.deadline(now, &mut self.books);
            self.say(now, words, out);
        }
        if self.ask_at <= now {
            self.ask_at = now + ASK_PACE;
            self.observe(now, Observed::Proxy(self.proxy), out);
        }
        if self.fitness.next_deadline().is_some_and(|due| due <= now) {
            self.observe(now, Observed::Deadline, out);
        }
        self.save_at.take_if(|at| *at <= now).map(|_| self.books.clone())
    }

    /// What is to be written to the API now.
    pub fn next_write(&mut self, now: Instant, wall: Timestamp) -> Option<(Key, Write)> {
        let write = (self.writing < AT_ONCE).then(|| self.desk.next(now, wall)).flatten();
        self.writing += usize::from(write.is_some());
        write
    }

    /// When it wants to be run again by its own will.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let writes = (self.writing < AT_ONCE).then(|| self.desk.next_deadline(now)).flatten();
        let deadlines = [
            self.mind.next_deadline(),
            self.clerk.next_deadline(),
            self.fitness.next_deadline(),
            Some(self.ask_at),
            writes,
            self.save_at,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Whether everything that it has to say to the API was written.
    pub fn has_written_all(&self) -> bool {
        self.desk.is_idle() && self.writing == 0
    }
}
