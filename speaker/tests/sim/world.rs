//! The LAN, the nodes on it, the API that tells them of addresses, and all that can go wrong.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_speaker::lan::{Link, LinkIndex, MacAddr, NodeName, PeerInfo, PeerLink, Vip};
use landfall_speaker::mind::{Action, Config, Event, Mind, Report};
use landfall_speaker::seal::Keyring;
use landfall_speaker::succession::Inheritance;
use landfall_speaker::wire::arp::ArpRepr;

use crate::client::Clients;
use crate::invariants::Watcher;
use crate::lan::{backbone_address, backbone_mac};

/// The LAN on which the clients are, and a second one that only joins the nodes.
pub const LAN: LinkIndex = LinkIndex(2);
pub const BACKBONE: LinkIndex = LinkIndex(3);
pub const GATEWAY: &str = "10.0.0.254";

/// Between the end of one process of a node and the beginning of the next.
const UPGRADE: Duration = Duration::from_millis(3);

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn keys() -> Arc<Keyring> {
    Arc::new(Keyring::new([(1, b"sixteen bytes or more".to_vec())], 1).unwrap())
}

pub fn vip_address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_1000 + number).into()
}

/// A port of the switch, and all that can be wrong with it.
#[derive(Clone, Debug)]
pub struct Port {
    /// Nothing passes, though the carrier stays.
    pub dark: bool,
    /// Stations of different islands do not hear each other.
    pub island: u8,
    /// What share of frames to the station is lost.
    pub loss_in: f64,
    /// What share of frames from the station is lost.
    pub loss_out: f64,
}

pub struct Node {
    pub name: NodeName,
    pub mac: MacAddr,
    pub address: IpAddr,
    pub port: Port,
    /// Whether the port to the second LAN is switched off, if there is one.
    pub backbone_dark: bool,
    pub mind: Option<Mind>,
    pub carrier: bool,
    /// The process does not run until then; what comes in waits for it.
    pub frozen_until: Option<Instant>,
    /// Since when the process runs and is not about to leave.
    pub runs_since: Option<Instant>,
    told_until: Instant,
    waiting: Vec<Event>,
    woken: Option<Instant>,
    /// What it was told of the API last, for a restart.
    pub api_cut: bool,
}

pub enum What {
    /// A question for a node's own address comes to its kernel, which answers whatever its speaker does.
    Kernel(usize, LinkIndex, ArpRepr),
    Deliver(usize, Event),
    Wake(usize),
    Api(usize, Event),
    /// A new process of a node goes on in the place of the old one.
    GoOn(usize, Box<Inheritance>),
    ToStation(Vec<u8>),
    Ask,
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub vips: BTreeMap<IpAddr, Vip>,
    pub clients: Clients,
    pub watcher: Watcher,
    pub reports: Vec<(Instant, usize, Report)>,
    pub left: Vec<(Instant, usize)>,
    pub frames_sent: u64,
    pub datagrams_sent: u64,
    pub has_gateway: bool,
    pub has_backbone: bool,
    /// Whether status flows back: who was announced before, and under which term.
    pub status_flows: bool,
    /// When the API last said anything new.
    told_at: Instant,
    /// The keys of every second world: the other half does without.
    keys: Option<Arc<Keyring>>,
    /// For how long connections are kept, in every third world.
    drain: Duration,
    /// A firewall keeps the speakers' datagrams from everybody.
    pub drops_datagrams: bool,
    /// Pairs of nodes that do not hear each other on the first LAN, though all others hear both.
    pub cuts: Vec<(usize, usize)>,
    /// The first node of each pair does not know of the second.
    pub strangers: Vec<(usize, usize)>,
    queue: BTreeMap<(Instant, u64), What>,
    sequence: u64,
    seed: u64,
    instances: u64,
    pub macs: HashMap<MacAddr, usize>,
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
        let start = Instant::now();
        let node = |number: usize| {
            let last = u8::try_from(number + 1).unwrap();
            Node {
                name: format!("n{last}").into(),
                mac: MacAddr([2, 0, 0, 0, 0, last]),
                address: Ipv4Addr::new(10, 0, 0, last).into(),
                port: Port { dark: false, island: 0, loss_in: 0.0, loss_out: 0.0 },
                backbone_dark: false,
                mind: None,
                carrier: true,
                frozen_until: None,
                runs_since: None,
                told_until: start,
                waiting: Vec::new(),
                woken: None,
                api_cut: false,
            }
        };
        let nodes: Vec<_> = (0..nodes).map(node).collect();
        let mut world = Self {
            start,
            now: start,
            vips: BTreeMap::new(),
            clients: Clients::default(),
            watcher: Watcher::default(),
            reports: Vec::new(),
            left: Vec::new(),
            frames_sent: 0,
            datagrams_sent: 0,
            has_gateway: true,
            has_backbone: false,
            status_flows: true,
            told_at: start,
            keys: (seed % 2 == 1).then(keys),
            drain: if seed % 3 == 1 { ms(120_000) } else { ms(0) },
            drops_datagrams: false,
            cuts: Vec::new(),
            strangers: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            instances: 0,
            macs: nodes.iter().enumerate().map(|(number, node)| (node.mac, number)).collect(),
            nodes,
        };
        world.schedule(start, What::Ask);
        world
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below.max(1)
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub fn schedule(&mut self, at: Instant, what: What) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), what);
    }

    // What a person or a fault does.

    fn new_mind(&mut self, number: usize) -> Mind {
        self.instances += 1;
        let mut config = Config::new(self.nodes[number].name.clone(), self.instances * 1000 + number as u64);
        config.seed = self.random(u64::MAX);
        config.drain = self.drain;
        Mind::new(config)
    }

    /// The speaker of a node is replaced by another process.
    pub fn upgrade(&mut self, number: usize) {
        self.handle(number, Event::Cede);
    }

    fn go_on(&mut self, number: usize, left: Box<Inheritance>) {
        if self.nodes[number].mind.is_none() {
            return;
        }
        self.nodes[number].mind = Some(self.new_mind(number));
        let known = [
            Event::Keys(self.keys.clone()),
            Event::Gateways(vec![GATEWAY.parse().unwrap()]),
            Event::Peers(self.peers_of(number)),
            Event::Vips(self.vips.values().cloned().collect()),
            Event::Inherit(left),
            Event::Links(self.links_of(number)),
        ];
        for event in known {
            self.handle(number, event);
        }
    }

    pub fn start_node(&mut self, number: usize) {
        self.nodes[number].mind = Some(self.new_mind(number));
        self.nodes[number].frozen_until = None;
        self.nodes[number].runs_since = Some(self.now);
        self.nodes[number].waiting.clear();
        let vips = self.vips.values().cloned().collect();
        let known = [
            Event::Keys(self.keys.clone()),
            Event::Links(self.links_of(number)),
            Event::Gateways(vec![GATEWAY.parse().unwrap()]),
            Event::Peers(self.peers_of(number)),
            Event::Vips(vips),
        ];
        for event in known {
            self.handle(number, event);
        }
    }

    pub fn kill(&mut self, number: usize) {
        self.nodes[number].mind = None;
        self.nodes[number].runs_since = None;
        self.observe();
    }

    pub fn set_carrier(&mut self, number: usize, carrier: bool) {
        self.nodes[number].carrier = carrier;
        let links = self.links_of(number);
        self.handle(number, Event::Links(links));
    }

    /// All nodes learn of each other.
    pub fn introduce_all(&mut self) {
        self.strangers.clear();
        for number in 0..self.nodes.len() {
            let peers = self.peers_of(number);
            self.handle(number, Event::Peers(peers));
        }
    }

    pub fn freeze(&mut self, number: usize, duration: Duration) {
        self.nodes[number].frozen_until = Some(self.now + duration);
        let at = self.now + duration;
        self.schedule(at, What::Wake(number));
    }

    pub fn change_port(&mut self, number: usize, change: impl FnOnce(&mut Port)) {
        change(&mut self.nodes[number].port);
        self.observe();
    }

    /// The API tells all nodes of an address, each a little later.
    pub fn set_vip(&mut self, vip: Vip) {
        self.vips.insert(vip.address, vip.clone());
        self.told_at = self.now;
        self.tell_all(&Event::Vip(vip));
    }

    pub fn delete_vip(&mut self, address: IpAddr) {
        self.vips.remove(&address);
        self.told_at = self.now;
        self.tell_all(&Event::VipGone(address));
    }

    pub fn tell_all(&mut self, event: &Event) {
        for number in 0..self.nodes.len() {
            let at = self.now + ms(2) + Duration::from_micros(self.random(20_000));
            // A watch keeps the order.
            let at = at.max(self.nodes[number].told_until + Duration::from_micros(1));
            self.nodes[number].told_until = at;
            self.schedule(at, What::Api(number, event.clone()));
        }
    }

    pub fn leave(&mut self, number: usize) {
        self.nodes[number].runs_since = None;
        self.handle(number, Event::Leave);
    }

    fn links_of(&self, number: usize) -> Vec<Link> {
        let node = &self.nodes[number];
        let lan = Link {
            index: LAN,
            name: "eth0".into(),
            mac: node.mac,
            carrier: node.carrier,
            addresses: vec![format!("{}/16", node.address).parse().unwrap()],
        };
        let backbone = Link {
            index: BACKBONE,
            name: "eth1".into(),
            mac: backbone_mac(node.mac),
            carrier: true,
            addresses: vec![format!("{}/16", backbone_address(node.address)).parse().unwrap()],
        };
        let links = [Some(lan), self.has_backbone.then_some(backbone)];
        links.into_iter().flatten().collect()
    }

    fn peers_of(&self, number: usize) -> Vec<PeerInfo> {
        let knows = |other: usize| other != number && !self.strangers.contains(&(number, other));
        let others = self.nodes.iter().enumerate().filter(|(other, _)| knows(*other));
        others
            .map(|(_, node)| {
                let link = |mac, address, subnet: &str| PeerLink {
                    mac,
                    subnets: vec![subnet.parse().unwrap()],
                    addresses: vec![address],
                    address: Some(address),
                };
                let backbone = backbone_address(node.address);
                let lan = link(node.mac, node.address, "10.0.0.0/16");
                let backbone = link(backbone_mac(node.mac), backbone, "10.1.0.0/16");
                let links = [Some(lan), self.has_backbone.then_some(backbone)];
                PeerInfo { node: node.name.clone(), links: links.into_iter().flatten().collect() }
            })
            .collect()
    }

    // How the world turns.

    /// Lets the world turn for so long.
    pub fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at, _), what) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(what);
        }
        self.now = until;
        self.observe();
    }

    /// Lets the world turn until something is so; how long that took.
    pub fn run_until(&mut self, limit: Duration, mut is_so: impl FnMut(&mut Self) -> bool) -> Duration {
        let from = self.now;
        while !is_so(self) {
            assert!(self.now - from < limit, "did not happen within {limit:?}");
            self.run(ms(1));
        }
        self.now - from
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver(number, event) => self.arrive(number, event),
            What::Kernel(number, link, question) => self.answer_as_kernel(number, link, &question),
            What::GoOn(number, left) => self.go_on(number, left),
            What::Api(number, event) => {
                if !self.nodes[number].api_cut {
                    self.arrive(number, event);
                }
            }
            What::Wake(number) => {
                if self.nodes[number].woken == Some(self.now) {
                    self.nodes[number].woken = None;
                }
                if self.thaw(number) && self.is_due(number) {
                    self.handle(number, Event::Deadline);
                }
            }
            What::ToStation(frame) => {
                let answers = self.clients.hear(self.now, &frame, self.has_gateway);
                for answer in answers {
                    self.carry_from_station(&answer);
                }
                self.observe();
            }
            What::Ask => {
                for question in self.clients.ask(self.now) {
                    self.carry_from_station(&question);
                }
                let again = self.now + ms(20) + Duration::from_micros(self.random(20_000));
                self.schedule(again, What::Ask);
            }
        }
    }

    fn is_due(&self, number: usize) -> bool {
        let mind = self.nodes[number].mind.as_ref();
        mind.and_then(Mind::next_deadline).is_some_and(|due| due <= self.now)
    }

    /// Whether the process runs; hands it what waited for it.
    fn thaw(&mut self, number: usize) -> bool {
        match self.nodes[number].frozen_until {
            Some(until) if until > self.now => return false,
            Some(_) => {
                self.nodes[number].frozen_until = None;
                for event in std::mem::take(&mut self.nodes[number].waiting) {
                    self.handle(number, event);
                }
            }
            None => {}
        }
        true
    }

    fn arrive(&mut self, number: usize, event: Event) {
        if self.thaw(number) {
            self.handle(number, event);
        } else if self.nodes[number].waiting.len() < 1000 {
            self.nodes[number].waiting.push(event);
        }
    }

    fn handle(&mut self, number: usize, event: Event) {
        let now = self.now;
        let Some(mind) = self.nodes[number].mind.as_mut() else { return };
        let mut actions = Vec::new();
        let is_deadline = matches!(event, Event::Deadline);
        mind.handle(now, event, &mut actions);
        // A heartbeat that is due, or that was heard, changes nothing that can be seen.
        let is_telling = |action: &Action| !matches!(action, Action::SendDatagram { .. });
        let is_seen = if is_deadline { actions.iter().any(is_telling) } else { !actions.is_empty() };
        let due = mind.next_deadline();
        self.perform(number, actions);
        if let Some(due) = due {
            let at = due.max(now + Duration::from_micros(1));
            let node = &mut self.nodes[number];
            if node.woken.is_none_or(|woken| woken > at || woken <= now) {
                node.woken = Some(at);
                self.schedule(at, What::Wake(number));
            }
        }
        if is_seen {
            self.observe();
        }
    }

    fn perform(&mut self, number: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SendFrame { link: LAN, frame } => {
                    self.frames_sent += 1;
                    self.carry(Some(number), &frame);
                }
                Action::SendFrame { frame, .. } => self.carry_on_backbone(number, &frame),
                Action::SendDatagram { link, to, payload } => {
                    self.datagrams_sent += 1;
                    self.send_datagram(number, link, to, payload);
                }
                Action::Report(report) => {
                    self.watcher.reported(self.now, number, &report);
                    if let Report::Announcing { address, term, .. } = &report
                        && self.status_flows
                        && let Some(vip) = self.vips.get_mut(address)
                    {
                        vip.announced_before = true;
                        vip.last_term = vip.last_term.max(*term);
                        let event = Event::Vip(vip.clone());
                        self.tell_all(&event);
                    }
                    self.reports.push((self.now, number, report));
                }
                Action::Left => {
                    self.left.push((self.now, number));
                    self.nodes[number].mind = None;
                    return;
                }
                Action::Ceded(left) => {
                    let at = self.now + UPGRADE;
                    self.schedule(at, What::GoOn(number, left));
                    return;
                }
                Action::KeepConnections(detour) => {
                    let at = self.now + Duration::from_micros(self.random(20_000));
                    let event = Event::ConnectionsKept(detour.address);
                    self.schedule(at, What::Deliver(number, event));
                }
                Action::DropConnections(_) | Action::JoinGroup { .. } | Action::LeaveGroup { .. } => {}
            }
        }
    }

    // What can be seen.
    /// Whether a station's frames reach the node.
    pub fn is_reachable(&self, number: usize) -> bool {
        let node = &self.nodes[number];
        let Port { dark, island, .. } = node.port;
        !dark && island == 0 && node.carrier
    }

    /// Who would answer a client for an address.
    pub fn answering(&self, address: IpAddr) -> Vec<usize> {
        let answers = |number: &usize| {
            let node = &self.nodes[*number];
            self.is_reachable(*number)
                && node.frozen_until.is_none()
                && node.mind.as_ref().is_some_and(|mind| mind.answers(address))
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

    /// Whether a node that runs for long enough is ranked for the address, which was told long enough ago.
    fn can_be_announced(&self, address: IpAddr) -> bool {
        let is_ready = |node: &Node| node.runs_since.is_some_and(|since| self.now > since + ms(700));
        let Some(vip) = self.vips.get(&address).filter(|vip| vip.claimed) else { return false };
        self.now > self.told_at + ms(100)
            && self.nodes.iter().any(|node| is_ready(node) && vip.candidates.contains(&node.name))
    }

    fn observe(&mut self) {
        let is_clean = |node: &Node| {
            let Port { dark, island, loss_in, loss_out } = node.port;
            !dark && island == 0 && loss_in + loss_out == 0.0 && node.carrier && node.frozen_until.is_none()
        };
        let whole = self.nodes.iter().all(is_clean);
        self.watcher.lan_is(self.now, whole);
        for address in self.watcher.addresses() {
            let answering = self.answering(address);
            let mac = self.clients.cached(address);
            let served =
                mac.and_then(|mac| self.macs.get(&mac)).is_some_and(|number| self.is_reachable(*number));
            let can_be = self.can_be_announced(address);
            self.watcher.observe(self.now, address, &answering, served, can_be);
        }
    }
}
