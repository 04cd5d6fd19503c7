//! One mind that is measured, and peers that are minds too but know of nobody else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_crds::{Announce, Candidate, Claim, Placement, Speaker, SpeakerSpec, VirtualIP, VirtualIPSpec};
use landfall_speaker::drivers::books::Books;
use landfall_speaker::drivers::clerk::{Clerk, Word};
use landfall_speaker::drivers::desk::Desk;
use landfall_speaker::lan::{Link, LinkIndex, MacAddr, NodeName, PeerInfo, PeerLink, Vip};
use landfall_speaker::mind::{Action, Config, Event, Mind, Report};
use landfall_speaker::seal::Keyring;

use crate::cost::Cost;

pub const LAN: LinkIndex = LinkIndex(2);
const WAY: Duration = Duration::from_micros(200);
/// A deadline is met no sooner than after as long, as by a timer of the kernel.
const TIMER: Duration = Duration::from_micros(1);

pub fn vip_address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_4000 + number).into()
}

fn name(node: usize) -> NodeName {
    format!("node-{node}").as_str().into()
}

fn address(node: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0001 + node as u32).into()
}

fn mac(node: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, (node >> 8) as u8, node as u8])
}

fn link(node: usize) -> Link {
    let addresses = vec![format!("{}/16", address(node)).parse().unwrap()];
    Link { index: LAN, name: "eth0".into(), mac: mac(node), carrier: true, addresses }
}

fn peer(node: usize) -> PeerInfo {
    let link = PeerLink {
        mac: mac(node),
        subnets: vec!["10.0.0.0/16".parse().unwrap()],
        addresses: vec![address(node)],
        address: Some(address(node)),
    };
    PeerInfo { node: name(node), links: vec![link] }
}

/// What the processor and the heap were asked for by one kind of event.
#[derive(Clone, Copy, Default)]
struct Kind {
    count: u64,
    cost: Cost,
}

/// The mind, number 0, and its peers.
pub struct Crowd {
    pub mind: Mind,
    pub now: Instant,
    peers: Vec<Mind>,
    is_silent: Vec<bool>,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    waiting: BTreeMap<u64, Event>,
    due: BTreeMap<usize, Instant>,
    sequence: u64,
    kinds: BTreeMap<&'static str, Kind>,
    total: Cost,
    books: Cost,
    claimed: Vec<Instant>,
    owners: Vec<usize>,
    /// Kept for what they take of the heap.
    _books: (Books, Desk, Clerk),
}

impl Crowd {
    /// Every node announces its part of the addresses; each peer knows only its own part and those of the mind.
    pub fn new(peers: usize, vips: u32, with_keys: bool) -> Self {
        let now = Instant::now();
        let keys =
            with_keys.then(|| Arc::new(Keyring::new([(1, b"sixteen bytes or more".to_vec())], 1).unwrap()));
        let owners: Vec<usize> = (0..vips as usize).map(|number| number % (peers + 1)).collect();
        let mut crowd = Self {
            mind: Mind::new(Config::new(name(0), 1)),
            now,
            peers: (1..=peers).map(|node| Mind::new(Config::new(name(node), 1 + node as u64))).collect(),
            is_silent: vec![false; peers + 1],
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            kinds: BTreeMap::new(),
            total: Cost::default(),
            books: Cost::default(),
            claimed: Vec::new(),
            owners,
            _books: (Books::default(), Desk::new("node-0"), Clerk::new("node-0")),
        };
        crowd.fill_books();
        for node in 0..=peers {
            crowd.tell(node, Event::Keys(keys.clone()));
            crowd.tell(node, Event::Links(vec![link(node)]));
            let others = if node == 0 { (1..=peers).map(peer).collect() } else { vec![peer(0)] };
            crowd.tell(node, Event::Peers(others));
        }
        crowd.tell_vips();
        crowd
    }

    fn vip(&self, number: u32) -> Vip {
        let owner = self.owners[number as usize];
        let second = if owner == 0 { 1 } else { 0 };
        let rest = (1..self.is_silent.len()).filter(|node| ![owner, second].contains(node)).take(1);
        Vip {
            address: vip_address(number),
            claimed: true,
            epoch: 1,
            candidates: [owner, second].into_iter().chain(rest).map(name).collect(),
            interfaces: Vec::new(),
            fallback: landfall_crds::Fallback::None,
            health_checks: Vec::new(),
            last_term: 1,
            guard: None,
            announced_before: true,
        }
    }

    fn tell_vips(&mut self) {
        let vips: Vec<Vip> = (0..self.owners.len() as u32).map(|number| self.vip(number)).collect();
        for node in 1..self.is_silent.len() {
            let own = vips.iter().filter(|vip| vip.candidates[0] == name(node)).cloned().collect();
            self.tell(node, Event::Vips(own));
        }
        self.tell(0, Event::Vips(vips));
    }

    /// What the drivers of the measured node keep of all objects.
    fn fill_books(&mut self) {
        use kube::runtime::watcher::Event as Watched;
        let now = self.now;
        let objects: Vec<VirtualIP> =
            (0..self.owners.len() as u32).map(|number| self.object(number)).collect();
        let speakers: Vec<Speaker> = (1..self.is_silent.len())
            .map(|node| {
                let mut speaker = Speaker::new(&name(node), SpeakerSpec {});
                let network = landfall_speaker::drivers::netlink::Network {
                    links: vec![link(node)],
                    ..Default::default()
                };
                speaker.status = landfall_speaker::drivers::speaker_status::plan(
                    None,
                    &network,
                    &Default::default(),
                    &Default::default(),
                    jiff::Timestamp::UNIX_EPOCH,
                );
                speaker
            })
            .collect();
        let mut cost = Cost::default();
        let region = cost.begin();
        let (mut books, mut desk, mut clerk) = (Books::default(), Desk::new("node-0"), Clerk::new("node-0"));
        let mut words = clerk.vip(now, Watched::Init, &mut books);
        for object in objects {
            words.extend(clerk.vip(now, Watched::InitApply(object), &mut books));
        }
        words.extend(clerk.vip(now, Watched::InitDone, &mut books));
        words.extend(clerk.speaker(now, Watched::Init, &mut books));
        for speaker in speakers {
            words.extend(clerk.speaker(now, Watched::InitApply(speaker), &mut books));
        }
        words.extend(clerk.speaker(now, Watched::InitDone, &mut books));
        for word in words {
            if let Word::Desk(note) = word {
                desk.note(now, note);
            }
        }
        cost.end(region, Duration::ZERO);
        self.books = cost;
        self._books = (books, desk, clerk);
    }

    fn object(&self, number: u32) -> VirtualIP {
        let vip = self.vip(number);
        let candidate = |node: &NodeName| Candidate { node: node.to_string() };
        let claim = Claim {
            namespace: format!("team-{}", number % 100),
            name: format!("service-{number}"),
            uid: format!("00000000-0000-0000-0000-{number:012}"),
            ..Claim::default()
        };
        let spec = VirtualIPSpec {
            address: vip.address.to_string(),
            pool: Some("lan".into()),
            claims: vec![claim],
            placement: Some(Placement {
                epoch: 1,
                candidates: vip.candidates.iter().map(candidate).collect(),
            }),
            announce: Some(Announce::default()),
            ..VirtualIPSpec::default()
        };
        let mut object = VirtualIP::new(&vip.address.to_string(), spec);
        object.metadata.uid = Some(format!("11111111-0000-0000-0000-{number:012}"));
        object.metadata.resource_version = Some(number.to_string());
        object
    }

    /// All addresses are announced by the mind.
    pub fn all_to_us(&mut self) {
        self.owners.fill(0);
        self.tell_vips();
    }

    /// The first thousand are announced by the first peer, the mind comes second.
    pub fn thousand_to_first_peer(&mut self) {
        for (number, owner) in self.owners.iter_mut().enumerate() {
            *owner = if number < 1000 { 1 } else { 2 + number % (self.is_silent.len() - 2) };
        }
        self.tell_vips();
    }

    pub fn silence_first_peer(&mut self) {
        self.is_silent[1] = true;
    }

    fn tell(&mut self, node: usize, event: Event) {
        let mut actions = Vec::new();
        if node == 0 {
            let kind = match &event {
                Event::Datagram { .. } => "datagram",
                Event::Frame { .. } => "frame",
                Event::Deadline => "deadline",
                _ => "told",
            };
            let (region, began) = (self.total.begin(), Instant::now());
            self.mind.handle(self.now, event, &mut actions);
            let due = self.mind.next_deadline();
            let took = began.elapsed();
            self.total.end(region, took);
            let of_kind = self.kinds.entry(kind).or_default();
            of_kind.count += 1;
            of_kind.cost.time += took;
            of_kind.cost.longest = of_kind.cost.longest.max(took);
            self.set_due(0, due);
        } else {
            self.peers[node - 1].handle(self.now, event, &mut actions);
            let due = self.peers[node - 1].next_deadline();
            self.set_due(node, due);
        }
        for action in actions {
            match action {
                Action::SendDatagram { to, payload, .. } => {
                    let IpAddr::V4(to) = to else { continue };
                    let to = (to.to_bits() - 0x0a00_0001) as usize;
                    if !self.is_silent[node] && !self.is_silent[to] {
                        self.send(
                            to,
                            Event::Datagram {
                                link: LAN,
                                at: self.now + WAY,
                                from: address(node),
                                ttl: 255,
                                payload,
                            },
                        );
                    }
                }
                // Frames of peers come to the mind; its own disturb nobody.
                Action::SendFrame { frame, .. } if node != 0 && !self.is_silent[node] => {
                    self.send(0, Event::Frame { link: LAN, at: self.now + WAY, frame: frame.to_vec() });
                }
                Action::Report(Report::Announcing { .. }) if node == 0 => self.claimed.push(self.now),
                _ => {}
            }
        }
    }

    fn set_due(&mut self, node: usize, due: Option<Instant>) {
        let due = due.map(|due| due.max(self.now + TIMER));
        match due {
            Some(at) if self.due.get(&node) != Some(&at) => {
                self.due.insert(node, at);
                self.queue.push(Reverse((at, u64::MAX, node)));
            }
            Some(_) => {}
            None => drop(self.due.remove(&node)),
        }
    }

    fn send(&mut self, to: usize, event: Event) {
        self.sequence += 1;
        self.waiting.insert(self.sequence, event);
        self.queue.push(Reverse((self.now + WAY, self.sequence, to)));
    }

    /// Lets time pass.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(Reverse((at, sequence, node))) =
            self.queue.peek().copied().filter(|due| due.0.0 <= until)
        {
            self.queue.pop();
            if let Some(event) = self.waiting.remove(&sequence) {
                self.now = self.now.max(at);
                self.tell(node, event);
            } else if self.due.get(&node) == Some(&at) {
                self.now = self.now.max(at);
                self.due.remove(&node);
                self.tell(node, Event::Deadline);
            }
        }
        self.now = until;
    }

    /// What comes is measured from now on.
    pub fn begin(&mut self) {
        self.kinds.clear();
        self.claimed.clear();
        self.total = Cost::default();
    }

    pub fn cost(&self) -> Cost {
        self.total
    }

    pub fn events(&self) -> u64 {
        self.kinds.values().map(|kind| kind.count).sum()
    }

    pub fn by_kind(&self) -> Vec<(&'static str, Duration, u64, Duration)> {
        let kinds = self.kinds.iter();
        kinds.map(|(name, kind)| (*name, kind.cost.time, kind.count, kind.cost.longest)).collect()
    }

    /// When the first and the last address were claimed.
    pub fn claimed(&self) -> Option<(Instant, Instant)> {
        Some((*self.claimed.first()?, *self.claimed.last()?))
    }

    /// What the mind has on the heap: as much as a copy of it takes.
    pub fn heap(&self) -> i64 {
        let mut cost = Cost::default();
        let region = cost.begin();
        let copy = self.mind.clone();
        cost.end(region, Duration::ZERO);
        drop(copy);
        cost.kept
    }

    pub fn heap_with_books(&self) -> i64 {
        self.heap() + self.books.kept
    }
}
