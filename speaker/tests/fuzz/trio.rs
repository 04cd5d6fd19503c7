//! Three minds that talk to each other on a LAN where nothing is lost, and a listener who writes all of it down.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_crds::Fallback;
use landfall_speaker::lan::{Link, LinkIndex, MacAddr, PeerInfo, PeerLink, Vip};
use landfall_speaker::mind::{Action, Config, Event, Mind};
use landfall_speaker::seal::Keyring;

pub const LAN: LinkIndex = LinkIndex(2);

/// How long anything is under way.
const WAY: Duration = Duration::from_micros(200);

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub fn address(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, node as u8 + 1).into()
}

pub fn mac(node: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, node as u8 + 1])
}

/// Address n is announced by node n modulo three, of either family.
pub fn vip_address(number: usize) -> IpAddr {
    if number.is_multiple_of(2) {
        Ipv4Addr::new(10, 0, 0, 100 + number as u8).into()
    } else {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100 + number as u16).into()
    }
}

pub const VIPS: usize = 9;

pub fn keys(secret: &str) -> Arc<Keyring> {
    Arc::new(Keyring::new([(1, secret.as_bytes().to_vec())], 1).unwrap())
}

/// A datagram that was sent.
#[derive(Clone, Debug)]
pub struct Heard {
    pub from: usize,
    pub to: usize,
    pub payload: Vec<u8>,
}

#[derive(Clone)]
pub struct Trio {
    pub minds: Vec<Mind>,
    pub now: Instant,
    /// Every datagram that was sent and delivered.
    pub datagrams: Vec<Heard>,
    /// Every frame.
    pub frames: Vec<Vec<u8>>,
    queue: BTreeMap<(Instant, u64), (usize, Event)>,
    sequence: u64,
}

impl Trio {
    /// All of them well, each announcing every third address.
    pub fn settled(keys: Option<Arc<Keyring>>, seed: u64) -> Self {
        let minds = (0..3).map(|node| {
            let mut config = Config::new(format!("n{}", node + 1).as_str().into(), 100 + node as u64);
            config.seed ^= seed << 8;
            Mind::new(config)
        });
        let mut trio = Self {
            minds: minds.collect(),
            now: Instant::now(),
            datagrams: Vec::new(),
            frames: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
        };
        for node in 0..3 {
            let others = (0..3).filter(|other| *other != node);
            let vips = (0..VIPS).map(vip).collect();
            for event in [
                Event::Keys(keys.clone()),
                Event::Links(vec![link(node)]),
                Event::Gateways(vec![Ipv4Addr::new(10, 0, 0, 254).into()]),
                Event::Peers(others.map(peer).collect()),
                Event::Vips(vips),
            ] {
                trio.tell(node, event);
            }
        }
        trio.pass(ms(3000));
        for number in 0..VIPS {
            assert!(trio.minds[number % 3].answers(vip_address(number)), "{number}");
        }
        trio
    }

    /// Hands an event to a mind and carries what it sends.
    pub fn tell(&mut self, node: usize, event: Event) {
        let mut actions = Vec::new();
        self.minds[node].handle(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::SendDatagram { to, payload, .. } => {
                    let Some(to) = (0..3).find(|other| address(*other) == to) else { continue };
                    self.datagrams.push(Heard { from: node, to, payload: payload.clone() });
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
                Action::SendFrame { frame, .. } => {
                    let frame = frame.to_vec();
                    self.frames.push(frame.clone());
                    for to in (0..3).filter(|other| *other != node) {
                        self.send(to, Event::Frame { link: LAN, at: self.now + WAY, frame: frame.clone() });
                    }
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, to: usize, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + WAY, self.sequence), (to, event));
    }

    /// Lets time pass in which nothing is wrong.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let sent = self.queue.first_key_value().map(|((at, _), (to, _))| (*at, *to, false));
            let due = (0..3).filter_map(|node| Some((self.minds[node].next_deadline()?, node, true)));
            let next = sent.into_iter().chain(due).min_by_key(|(at, _, is_due)| (*at, *is_due));
            let Some((at, node, is_due)) = next.filter(|(at, _, _)| *at <= until) else { break };
            self.now = self.now.max(at);
            if is_due {
                self.tell(node, Event::Deadline);
            } else if let Some((_, (to, event))) = self.queue.pop_first() {
                self.tell(to, event);
            }
        }
        self.now = until;
    }
}

pub fn vip(number: usize) -> Vip {
    Vip {
        address: vip_address(number),
        claimed: true,
        epoch: 5,
        candidates: (0..3).map(|place| format!("n{}", (number + place) % 3 + 1).as_str().into()).collect(),
        interfaces: Vec::new(),
        fallback: Fallback::None,
        health_checks: Vec::new(),
        last_term: 3,
        guard: None,
        announced_before: true,
    }
}

fn link(node: usize) -> Link {
    let addresses = vec![
        format!("{}/24", address(node)).parse().unwrap(),
        format!("fd00::{}/64", node + 1).parse().unwrap(),
    ];
    Link { index: LAN, name: "eth0".into(), mac: mac(node), carrier: true, addresses }
}

fn peer(node: usize) -> PeerInfo {
    let on = PeerLink {
        mac: mac(node),
        subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        addresses: vec![address(node), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, node as u16 + 1).into()],
        address: Some(address(node)),
    };
    PeerInfo { node: format!("n{}", node + 1).as_str().into(), links: vec![on] }
}
