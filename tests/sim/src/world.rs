//! The world: nodes, their LANs, the API server, the controller, and the time that passes for all of them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_controller::effects::{Effect, Outcome};
use landfall_speaker::drivers::desk::{Key, Write, Written};
use landfall_speaker::lan::LinkIndex;
use landfall_speaker::mind::{Action, Event, Mind, Report};
use landfall_speaker::seal::Keyring;

use crate::api::ApiServer;
use crate::clock::Clock;
use crate::controller::Controller;
use crate::invariants::Judge;
use crate::lan::{Question, lan_of};
use crate::node::{Families, Node, Power, Scheduling};
use crate::process::Input;
use crate::random::{Random, draw};
use crate::stations::Stations;
use crate::story::Story;
use crate::version::Version;
use crate::watcher::Watcher;

/// How long a process that has left goes on for what it has to say to the API (`process.rs`).
const LAST_WORDS: Duration = Duration::from_millis(1500);

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The keys that speakers have, up to the one with that ID, of which they send with `send`.
pub fn keys(ids: std::ops::RangeInclusive<u8>, send: u8) -> Arc<Keyring> {
    let key = |id: u8| (id, format!("sixteen bytes or more, of key {id}").into_bytes());
    Arc::new(Keyring::new(ids.map(key), send).unwrap())
}

/// The address of that number, off all that nodes have themselves.
pub fn vip_address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_1000 + number).into()
}

/// The same of the other family.
pub fn vip_address6(number: u32) -> IpAddr {
    Ipv6Addr::from_bits(0xfd00_0000_0000_0000_0000_0000_0001_0000 + u128::from(number)).into()
}

/// What a world is made with.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Setting {
    pub nodes: usize,
    pub seed: u64,
    /// Speakers prove by keys who they are.
    pub keys: bool,
    /// A second LAN joins the nodes.
    pub backbone: bool,
    /// The gateway answers for itself.
    pub gateway: bool,
    pub families: Families,
    /// Clocks differ by up to so many millionths.
    pub drift: i32,
    /// Connections are kept for so many seconds when an address moves.
    pub drain: u64,
    /// Which versions the nodes run, if not all the present one.
    pub versions: Vec<Version>,
}

impl Setting {
    /// The usual: every second world has keys.
    pub fn usual(nodes: usize, seed: u64) -> Self {
        Self {
            nodes,
            seed,
            keys: seed % 2 == 1,
            backbone: false,
            gateway: true,
            families: Families::V4,
            drift: 0,
            drain: if seed % 3 == 1 { 120 } else { 0 },
            versions: Vec::new(),
        }
    }
}

/// What happens when its time has come.
#[derive(Debug)]
pub enum What {
    /// Something of the LAN comes to a node, from another one.
    Deliver(usize, Event, usize),
    /// A question for a node's own address comes to its kernel.
    Kernel(usize, usize, Question),
    /// A process wanted to be woken.
    Wake(usize),
    /// A process that was kept from running is run.
    Run(usize),
    /// A node's watch brings what is due.
    Follow(usize, usize),
    /// A process is told something.
    Hear(usize, Input),
    NoticeCut(usize, u64),
    Request(usize, u64, Key, Box<Write>),
    Answer(usize, u64, Key, Written),
    /// A process that has left ends at the latest.
    End(usize, u64),
    /// A process that was prepared beside another one takes over from it.
    TakeOver(usize, u64),
    GoOn(usize),
    /// The API server ends a watch in its turn, and answers when it is begun again.
    Turn(usize, u64),
    ControllerFollows,
    ControllerWakes,
    Effect(u64, Box<Effect>),
    Outcome(u64, Box<(Effect, Outcome)>),
    ToStation(Vec<u8>),
    Ask,
    /// A speaker finds other keys in its folder; those that start find them from then on.
    Keys(usize, Arc<Keyring>),
    Folder(Arc<Keyring>),
}

#[derive(Debug)]
struct Due {
    at: Instant,
    sequence: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub seed: u64,
    pub nodes: Vec<Node>,
    pub families: Families,
    pub has_gateway: bool,
    pub has_backbone: bool,
    /// The first of each pair is not heard by the second on the first LAN.
    pub cuts: BTreeSet<(usize, usize)>,
    /// A firewall keeps the speakers' datagrams from everybody.
    pub drops_datagrams: bool,
    /// The first node of each pair does not know of the second.
    pub strangers: Vec<(usize, usize)>,
    pub keys: Option<Arc<Keyring>>,
    /// For how long connections are kept when an address moves.
    pub drain: Duration,
    pub newest_key: u8,
    pub keys_change_until: Instant,
    pub api: ApiServer,
    pub controller: Option<Controller>,
    /// Whether speakers write to the API.
    pub status_flows: bool,
    /// When the API last said anything new of an address.
    pub told_at: Instant,
    pub stations: Stations,
    pub watcher: Watcher,
    pub judge: Judge,
    pub story: Story,
    pub reports: Vec<(Instant, usize, Report)>,
    pub left: Vec<(Instant, usize)>,
    /// What was sent on the LANs, and what of it was lost.
    pub sent: u64,
    pub lost: u64,
    pub frames_sent: u64,
    pub datagrams_sent: u64,
    /// What happened.
    pub events: u64,
    /// What speakers asked the API server to write.
    pub writes: u64,
    pub instances: u64,
    pub random: Random,
    /// The last instant in which anything was sent, and how much before it in the same.
    pub together: (Instant, u64),
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    actions: Vec<Action>,
}

impl World {
    /// A LAN with so many nodes, all switched on, that know of each other and of no address yet.
    pub fn new(nodes: usize, seed: u64) -> Self {
        let mut world = Self::dark(nodes, seed);
        for node in 0..nodes {
            world.start_node(node);
        }
        world
    }

    /// The same with no process running yet.
    pub fn dark(nodes: usize, seed: u64) -> Self {
        Self::with(Setting::usual(nodes, seed))
    }

    /// A LAN with no process running yet; the API server knows all speakers from before.
    pub fn with(setting: Setting) -> Self {
        let start = Instant::now();
        let Setting { nodes, seed, keys: has_keys, backbone, gateway, families, drift, drain, versions } =
            setting;
        let node = |number: usize| {
            let chance = draw([seed, number as u64, 5, 0]);
            let drift = if drift == 0 { 0 } else { (chance % (2 * drift as u64 + 1)) as i32 - drift };
            let mut node = Node::new(number, start, Clock::new(start, drift));
            node.wall_error = (chance >> 32) as i64 % 2000;
            node.version = versions.get(number).copied().unwrap_or_default();
            node
        };
        let mut world = Self {
            start,
            now: start,
            seed,
            nodes: (0..nodes).map(node).collect(),
            families,
            has_gateway: gateway,
            has_backbone: backbone,
            cuts: BTreeSet::new(),
            drops_datagrams: false,
            strangers: Vec::new(),
            keys: has_keys.then(|| keys(1..=1, 1)),
            drain: Duration::from_secs(drain),
            newest_key: 1,
            keys_change_until: start,
            api: ApiServer::default(),
            controller: None,
            status_flows: true,
            told_at: start,
            stations: Stations::default(),
            watcher: Watcher::default(),
            judge: Judge::new(start, nodes),
            story: Story::default(),
            reports: Vec::new(),
            left: Vec::new(),
            sent: 0,
            lost: 0,
            frames_sent: 0,
            datagrams_sent: 0,
            events: 0,
            writes: 0,
            instances: 0,
            random: Random::new(seed),
            together: (start, 0),
            queue: BinaryHeap::new(),
            sequence: 0,
            actions: Vec::new(),
        };
        for number in 0..nodes {
            world.introduce(number);
        }
        world.api_changed();
        world.schedule(start, What::Ask);
        world.refresh();
        world
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn lans(&self) -> usize {
        if self.has_backbone { 2 } else { 1 }
    }

    pub fn schedule(&mut self, at: Instant, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at, sequence: self.sequence, what }));
    }

    // How the world turns.

    /// Lets the world turn for so long.
    pub fn run(&mut self, duration: Duration) {
        self.run_to(self.now + duration);
    }

    /// Lets the world turn until that time, or until an invariant is broken.
    pub fn run_to(&mut self, until: Instant) {
        while self.queue.peek().is_some_and(|due| due.0.at <= until) {
            let Some(Reverse(Due { at, what, .. })) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            self.events += 1;
            self.happen(what);
            self.judge_now();
            if self.judge.is_broken() {
                return self.stop_at_broken();
            }
        }
        self.now = self.now.max(until);
        self.judge_now();
        if self.judge.is_broken() {
            return self.stop_at_broken();
        }
        self.observe_stations();
    }

    /// A story ends with a panic where an invariant is broken; random runs look for themselves.
    fn stop_at_broken(&self) {
        let Some(broken) = self.judge.broken().filter(|_| self.judge.panics) else { return };
        let reports = self.reports.iter().rev().take(40).rev();
        let reports: Vec<String> = reports
            .map(|(at, node, report)| format!("  {:?} n{} {report:?}", *at - self.start, node + 1))
            .collect();
        panic!("{} at {:?}: {}\n{}", broken.invariant, broken.at, broken.what, reports.join("\n"));
    }

    /// Lets the world turn until something is so; how long that took.
    #[track_caller]
    pub fn run_until(&mut self, limit: Duration, mut is_so: impl FnMut(&mut Self) -> bool) -> Duration {
        let from = self.now;
        while !is_so(self) {
            assert!(self.now - from < limit, "did not happen within {limit:?}: {}", self.describe_all());
            self.run(ms(1));
        }
        self.now - from
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver(number, event, from) => self.deliver(number, event, from),
            What::Kernel(number, lan, question) => self.ask_kernel(number, lan, question),
            What::Wake(number) => {
                let node = &mut self.nodes[number];
                node.woken.take_if(|woken| *woken <= self.now);
                if node.runs_promptly() {
                    self.wake(number);
                } else {
                    self.run_late(number);
                }
            }
            What::Run(number) => self.run_node(number),
            What::Follow(number, watch) => self.follow(number, watch),
            What::Hear(number, input) => self.arrive(number, input),
            What::NoticeCut(number, cuts) => self.notice_cut(number, cuts),
            What::Request(number, incarnation, key, write) => self.request(number, incarnation, key, *write),
            What::Answer(number, incarnation, key, written) => self.answer(number, incarnation, key, written),
            What::End(number, incarnation) => {
                let process = self.nodes[number].process.as_ref();
                if process.is_some_and(|process| process.incarnation == incarnation) {
                    self.end_process(number);
                }
            }
            What::TakeOver(number, incarnation) => self.take_over(number, incarnation),
            What::GoOn(number) => self.go_on(number),
            What::Turn(number, incarnation) => self.turn(number, incarnation),
            What::ControllerFollows => self.controller_follows(),
            What::ControllerWakes => self.controller_wakes(),
            What::Effect(incarnation, effect) => self.effect(incarnation, *effect),
            What::Outcome(incarnation, outcome) => self.outcome(incarnation, outcome.0, outcome.1),
            What::Keys(number, keys) => self.set_keys(number, Some(keys)),
            What::Folder(keys) => self.keys = Some(keys),
            What::ToStation(frame) => {
                let answers = self.stations.hear(self.now, &frame, self.has_gateway);
                for answer in answers {
                    self.carry(0, None, &answer);
                }
                self.observe_stations();
            }
            What::Ask => {
                for question in self.stations.ask(self.now) {
                    self.carry(0, None, &question);
                }
                let again = self.now + ms(20) + self.random.up_to(ms(20));
                self.schedule(again, What::Ask);
            }
        }
    }

    /// Something comes for a process: now, or when it is run.
    pub fn arrive(&mut self, number: usize, mut input: Input) {
        let node = &mut self.nodes[number];
        input.stamp(node.clock.local(self.now));
        if node.heir.is_some() {
            return node.wait(input);
        }
        if node.process.is_none() {
            return;
        }
        if node.runs_promptly() {
            self.handle(number, input);
        } else {
            node.wait(input);
            self.run_late(number);
        }
    }

    /// A process that is not run promptly has something to do.
    fn run_late(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Scheduling::Late(longest) = node.scheduling else { return };
        if node.power == Power::On && !std::mem::replace(&mut node.run_is_due, true) {
            let at = self.now + self.random.up_to(longest);
            self.schedule(at, What::Run(number));
        }
    }

    /// A process is run after a while in which it was not: first it drains its sockets.
    pub fn run_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.run_is_due = false;
        if let Scheduling::Stopped(until) = node.scheduling
            && until <= self.now
        {
            node.scheduling = Scheduling::Prompt;
            self.goes_on(number);
        }
        let node = &mut self.nodes[number];
        if !node.is_served() {
            return;
        }
        for input in node.take_waiting() {
            self.handle(number, input);
        }
        self.wake(number);
    }

    pub(crate) fn handle(&mut self, number: usize, input: Input) {
        let (now, start) = (self.now, self.start);
        let node = &mut self.nodes[number];
        let Some(process) = node.process.as_mut() else { return };
        let local = node.clock.local(now);
        let wall = crate::node::wall_at(local - start, node.wall_error);
        let mut actions = std::mem::take(&mut self.actions);
        let tells_of_vips = matches!(input, Input::Vip(_) | Input::Speaker(_));
        if tells_of_vips {
            self.story.told(now, number, &input);
        }
        process.take(local, wall, input, &mut actions);
        self.perform(number, actions);
        if tells_of_vips {
            self.refresh_told(number);
        }
    }

    /// Does what time alone brings.
    fn wake(&mut self, number: usize) {
        let (now, start) = (self.now, self.start);
        let node = &mut self.nodes[number];
        let Some(process) = node.process.as_mut() else { return };
        let local = node.clock.local(now);
        if process.next_deadline(local).is_none_or(|due| due > local) {
            return self.sleep(number);
        }
        let wall = crate::node::wall_at(local - start, node.wall_error);
        let mut actions = std::mem::take(&mut self.actions);
        if let Some(books) = process.deadline(local, wall, &mut actions) {
            let former = node.state.replace(books);
            node.former_states.extend(former);
            if node.former_states.len() > 20 {
                node.former_states.pop_front();
            }
        }
        self.perform(number, actions);
    }

    /// Does what a mind wants done, and sees when its process wants to be run again.
    pub fn perform(&mut self, number: usize, mut actions: Vec<Action>) {
        for action in actions.drain(..) {
            match action {
                Action::SendFrame { link, frame } => {
                    self.frames_sent += 1;
                    self.carry(lan_of(link), Some(number), &frame);
                }
                Action::SendDatagram { link, to, payload } => {
                    self.datagrams_sent += 1;
                    self.send_datagram(number, link, to, payload);
                }
                Action::Report(report) => {
                    self.watcher.reported(number, &report);
                    self.story.report(self.now, number, &report);
                    if self.judge.panics {
                        self.reports.push((self.now, number, report));
                    }
                }
                Action::Left => {
                    self.left.push((self.now, number));
                    let last_words = if self.reaches_api(number) { LAST_WORDS } else { Duration::ZERO };
                    if let Some(process) = self.nodes[number].process.as_mut() {
                        process.has_left = true;
                        let end = What::End(number, process.incarnation);
                        self.schedule(self.now + last_words, end);
                    }
                }
                Action::Ceded(left) => self.ceded(number, left),
                Action::KeepConnections(detour) => {
                    let kept = Input::Mind(Event::ConnectionsKept(detour.address));
                    let at = self.now + self.random.up_to(ms(20));
                    self.schedule(at, What::Hear(number, kept));
                }
                Action::DropConnections(_) | Action::JoinGroup { .. } | Action::LeaveGroup { .. } => {}
            }
        }
        self.actions = actions;
        self.sleep(number);
        self.observe(number);
    }

    fn sleep(&mut self, number: usize) {
        self.send_writes(number);
        let now = self.now;
        let node = &mut self.nodes[number];
        let Some(process) = node.process.as_ref() else { return };
        if process.has_left && process.has_written_all() {
            let (incarnation, at) = (process.incarnation, now + ms(1));
            self.schedule(at, What::End(number, incarnation));
            return;
        }
        let local = node.clock.local(now);
        let Some(due) = process.next_deadline(local).and_then(|due| node.clock.world(due)) else { return };
        let at = due.max(now + Duration::from_micros(1));
        if node.woken.is_none_or(|woken| woken > at || woken <= now) {
            node.woken = Some(at);
            self.schedule(at, What::Wake(number));
        }
    }

    /// The mind of a node, if it runs.
    pub fn mind(&self, number: usize) -> Option<&Mind> {
        self.nodes[number].process.as_ref().map(|process| &process.mind)
    }

    /// Whether a station's frames reach the node and its own get out.
    pub fn is_reachable(&self, number: usize) -> bool {
        let port = &self.nodes[number].ports[0];
        let is_open = port.loss_in < 1.0 && port.loss_out < 1.0;
        !port.dark && port.island == 0 && port.carrier && is_open && self.nodes[number].power == Power::On
    }

    /// Who would answer a client for an address.
    pub fn answering(&self, address: IpAddr) -> Vec<usize> {
        let answers = |number: &usize| {
            self.is_reachable(*number)
                && self.nodes[*number].is_served()
                && match self.mind(*number) {
                    Some(mind) => mind.answers(address),
                    // Between two processes of the node: what is asked waits.
                    None => self.nodes[*number].heir.is_some() && self.judge.answered_by(address, *number),
                }
        };
        (0..self.nodes.len()).filter(answers).collect()
    }

    /// The only one who answers for an address.
    pub fn owner(&self, address: IpAddr) -> Option<usize> {
        match self.answering(address)[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The link of the first LAN.
    pub fn link(&self) -> LinkIndex {
        crate::node::LAN
    }
}
