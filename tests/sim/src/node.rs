//! A node: its machine, its ports, its kernel's clock, its disk, and the process of its speaker.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use landfall_speaker::drivers::books::Books;
use landfall_speaker::drivers::netlink::Network;
use landfall_speaker::fitness::Health;
use landfall_speaker::lan::{Link, LinkIndex, MacAddr, NodeName};
use landfall_speaker::seal::Keyring;
use landfall_speaker::succession::Inheritance;

use crate::api::Way;
use crate::clock::Clock;
use crate::lan::{LANS, Port, Question};
use crate::process::{Input, Process};
use crate::version::Version;

/// The LAN on which the clients are, and a second one that only joins the nodes.
pub const LAN: LinkIndex = LinkIndex(2);
pub const BACKBONE: LinkIndex = LinkIndex(3);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xfe);
/// What waits for a process that is not run: as much as its sockets hold.
const SOCKETS_HOLD: usize = 1000;
/// An answer that nobody listens is sent to one asker at once so often, and then once a second (Linux
/// `icmp_ratelimit`).
const UNREACHABLE_BURST: u32 = 6;
const UNREACHABLE_EVERY: Duration = Duration::from_secs(1);

/// Which families the nodes have addresses of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Families {
    #[default]
    V4,
    V6,
    Both,
}

/// Whether the machine is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    On,
    /// The whole machine is paused, its kernel as well; what comes in waits.
    Paused,
    Off,
}

/// Whether the speaker's process is given the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    Prompt,
    /// Only after up to so long whenever it has something to do.
    Late(Duration),
    /// Not until then.
    Stopped(Instant),
}

/// One machine and all that belongs to it.
pub struct Node {
    pub name: NodeName,
    pub mac: MacAddr,
    pub number: usize,
    pub ports: [Port; LANS],
    pub clock: Clock,
    /// By how much its clock on the wall is wrong, in milliseconds.
    pub wall_error: i64,
    pub power: Power,
    pub scheduling: Scheduling,
    /// Its process, if it runs.
    pub process: Option<Process>,
    /// Whether its process knows of other speakers, and so speaks to them.
    pub speaks: bool,
    /// When the process has started.
    pub started: Instant,
    /// What its state file holds.
    pub state: Option<Books>,
    /// What it held before, latest last.
    pub former_states: VecDeque<Books>,
    /// What its speaker is.
    pub version: Version,
    /// What the next process of it is.
    pub next_version: Version,
    /// The keys that its process was told of last.
    pub keys: Option<Arc<Keyring>>,
    /// What its kube-proxy says of itself.
    pub proxy: Health,
    pub api: Way,
    /// What a process that ceded to another leaves to it, for the moment between the two.
    pub heir: Option<Box<Inheritance>>,
    /// What waits for the process to be run.
    pub waiting: Vec<Input>,
    /// From where on that came while the machine was paused.
    pub paused_from: usize,
    /// What waits for the machine to be run.
    pub kernel_waiting: Vec<(usize, Question)>,
    /// When the process wants to be woken.
    pub woken: Option<Instant>,
    /// Whether it is already decided when the process is run late.
    pub run_is_due: bool,
    /// For each asker what is left of its share of such answers, and when it was last looked at.
    unreachable: Vec<(usize, Duration, Instant)>,
}

impl Node {
    pub fn new(number: usize, start: Instant, clock: Clock) -> Self {
        let last = u8::try_from(number + 1).unwrap();
        Self {
            name: format!("n{last}").into(),
            mac: MacAddr([2, 0, 0, 0, 0, last]),
            number,
            ports: Default::default(),
            clock,
            wall_error: 0,
            power: Power::On,
            scheduling: Scheduling::Prompt,
            process: None,
            speaks: false,
            started: start,
            state: None,
            former_states: VecDeque::new(),
            version: Version::Present,
            next_version: Version::Present,
            keys: None,
            proxy: Health::Healthy,
            api: Way::default(),
            heir: None,
            waiting: Vec::new(),
            paused_from: 0,
            kernel_waiting: Vec::new(),
            woken: None,
            run_is_due: false,
            unreachable: Vec::new(),
        }
    }

    pub fn mac_on(&self, lan: usize) -> MacAddr {
        let MacAddr([a, b, c, d, e, last]) = self.mac;
        MacAddr([a, b, c, d, if lan == 0 { e } else { 7 }, last])
    }

    /// Its own addresses on a LAN.
    pub fn addresses_on(&self, lan: usize, families: Families) -> Vec<IpAddr> {
        let last = self.number as u8 + 1;
        let v4 = IpAddr::from([10, lan as u8, 0, last]);
        let v6 = IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, lan as u16, 0, 0, 0, last.into()));
        match families {
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
            Families::Both => vec![v4, v6],
        }
    }

    /// Its network, as its kernel tells.
    pub fn network(&self, families: Families, lans: usize) -> Network {
        let link = |lan: usize| Link {
            index: LinkIndex(2 + lan as u32),
            name: format!("eth{lan}"),
            mac: self.mac_on(lan),
            carrier: self.ports[lan].carrier,
            addresses: self
                .addresses_on(lan, families)
                .into_iter()
                .map(|address| {
                    let length = if address.is_ipv4() { 16 } else { 64 };
                    format!("{address}/{length}").parse().unwrap()
                })
                .collect(),
        };
        let all = (0..LANS).flat_map(|lan| self.addresses_on(lan, families));
        let gateways = match families {
            Families::V4 => vec![GATEWAY.into()],
            Families::V6 => vec![GATEWAY6.into()],
            Families::Both => vec![GATEWAY.into(), GATEWAY6.into()],
        };
        Network { links: (0..lans).map(link).collect(), addresses: all.collect(), gateways }
    }

    /// What the clock on its wall shows when its own clock shows `local`.
    pub fn wall(&self, local: Instant, start: Instant) -> Timestamp {
        wall_at(local - start, self.wall_error)
    }

    /// Whether the process is given the processor whenever it wants it.
    pub fn runs_promptly(&self) -> bool {
        self.power == Power::On && self.scheduling == Scheduling::Prompt
    }

    /// Whether its process answers what it is asked, sooner or later.
    pub fn is_served(&self) -> bool {
        self.power == Power::On && !matches!(self.scheduling, Scheduling::Stopped(_))
    }

    /// Something waits for the process, as far as there is room.
    pub fn wait(&mut self, input: Input) {
        if !input.is_from_lan() || self.waiting.len() < SOCKETS_HOLD {
            self.waiting.push(input);
        }
    }

    /// What waited, the sockets of the LAN first.
    pub fn take_waiting(&mut self) -> Vec<Input> {
        let (mut first, then): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(Input::is_from_lan);
        first.extend(then);
        first
    }

    /// Whether its kernel tells `asker` now that nobody listens (Linux `inet_peer_xrlim_allow`).
    pub fn tells_unreachable(&mut self, now: Instant, asker: usize) -> bool {
        let most = UNREACHABLE_EVERY * UNREACHABLE_BURST;
        let at = self.unreachable.iter().position(|(other, ..)| *other == asker);
        let at = at.unwrap_or_else(|| {
            self.unreachable.push((asker, most, now));
            self.unreachable.len() - 1
        });
        let (_, saved, last) = &mut self.unreachable[at];
        *saved = (*saved + now.saturating_duration_since(*last)).min(most);
        *last = now;
        let left = saved.checked_sub(UNREACHABLE_EVERY);
        *saved = left.unwrap_or(*saved);
        left.is_some()
    }
}

/// What a clock on the wall shows so long after the beginning, if it is wrong by so many milliseconds.
pub fn wall_at(elapsed: Duration, error: i64) -> Timestamp {
    const BEGINNING: i64 = 1_800_000_000_000;
    Timestamp::from_millisecond(BEGINNING + elapsed.as_millis() as i64 + error).unwrap()
}
