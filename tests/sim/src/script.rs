//! A run as a value: the world that it is made with and what goes wrong in it, all drawn from one seed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::{Disk, Fault};
use crate::node::Families;
use crate::random::Random;
use crate::version::Version;
use crate::world::{Setting, ms};

/// A fault with its time. It lasts at least until it began, and ends whatever happens meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When it begins, in milliseconds from the first moment at which anything goes wrong.
    pub at: u64,
    /// For how long it lasts, in milliseconds.
    pub lasts: u64,
    pub fault: Fault,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Script {
    pub setting: Setting,
    /// How many addresses there are.
    pub vips: u32,
    /// A controller grants and ranks the addresses; without it they are written by hand.
    pub controller: bool,
    pub steps: Vec<Step>,
}

/// How fast things go wrong.
#[derive(Clone, Copy)]
struct Pace {
    /// The longest time from one fault to the next.
    gap: Duration,
    longest: Duration,
    steps: u64,
}

/// From one thing at a time, each over before the next, to everything at once.
const PACES: [Pace; 5] = [
    Pace { gap: ms_const(9000), longest: ms_const(3000), steps: 24 },
    Pace { gap: ms_const(5000), longest: ms_const(6000), steps: 40 },
    Pace { gap: ms_const(2000), longest: ms_const(4000), steps: 100 },
    Pace { gap: ms_const(600), longest: ms_const(3000), steps: 200 },
    Pace { gap: ms_const(150), longest: ms_const(1500), steps: 300 },
];

const fn ms_const(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Script {
    /// Draws a run from a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x51_6d);
        let nodes = *random.pick(&[2, 3, 3, 3, 3, 4, 4, 5]);
        let families =
            *random.pick(&[Families::V4, Families::V4, Families::V4, Families::V6, Families::Both]);
        let mut setting = Setting {
            nodes,
            seed,
            keys: random.percent(50),
            backbone: random.percent(25),
            gateway: !random.percent(10),
            families,
            drift: if random.percent(50) { 0 } else { 1 + random.below(500) as i32 },
            drain: if random.percent(30) { 120 } else { 0 },
            versions: Vec::new(),
        };
        if random.percent(20) {
            let other = *random.pick(&[Version::Former, Version::Later, Version::Later]);
            setting.versions =
                (0..nodes).map(|_| if random.percent(50) { other } else { Version::Present }).collect();
        }
        let controller = random.percent(35);
        let vips = 1 + random.below(4) as u32;
        let pace = *random.pick(&PACES);
        let mut menu = Menu { random, nodes, vips, controller, keys: setting.keys };
        let mut at = Duration::ZERO;
        let mut steps = Vec::new();
        for _ in 0..pace.steps {
            let fault = menu.fault();
            let lasts = menu.lasts(&fault, pace.longest);
            steps.push(Step { at: at.as_millis() as u64, lasts: lasts.as_millis() as u64, fault });
            at += menu.random.up_to(pace.gap);
        }
        Self { setting, vips, controller, steps }
    }

    /// When the last of its faults is over.
    pub fn ends(&self) -> Duration {
        ms(self.steps.iter().map(|step| step.at + step.lasts).max().unwrap_or_default())
    }
}

/// From what is chosen.
struct Menu {
    random: Random,
    nodes: usize,
    vips: u32,
    controller: bool,
    keys: bool,
}

impl Menu {
    fn node(&mut self) -> usize {
        self.random.index(self.nodes)
    }

    fn two(&mut self) -> (usize, usize) {
        let a = self.node();
        let b = (a + 1 + self.random.index(self.nodes - 1)) % self.nodes;
        (a, b)
    }

    fn fault(&mut self) -> Fault {
        let node = self.node();
        match self.random.below(100) {
            0..9 => Fault::Dark { node },
            9..12 => Fault::Deaf { node },
            12..15 => Fault::Mute { node },
            15..18 => {
                let percent = *self.random.pick(&[1, 2, 2, 5, 10, 20, 40]);
                Fault::Loss { node, percent }
            }
            18..20 => Fault::Delay { node, longest: 1 + self.random.below(15) as u16 },
            20..22 => Fault::Twice { percent: 1 + self.random.below(50) as u8 },
            22..25 => Fault::Cable { node },
            25..29 => {
                let (a, b) = self.two();
                Fault::Cut { a, b }
            }
            29..31 => {
                let (from, to) = self.two();
                Fault::HalfCut { from, to }
            }
            31..34 => {
                let nodes: Vec<usize> = (0..self.nodes).filter(|_| self.random.percent(50)).collect();
                Fault::Island { nodes }
            }
            34 => Fault::Scatter,
            35..37 => Fault::AllDark,
            37..39 => Fault::BackboneDark { node },
            39..46 => Fault::Kill { node },
            46..50 => Fault::Leave { node },
            50..52 => Fault::Upgrade { node },
            82 => Fault::Proxy { node },
            83 => Fault::Proxies,
            52..57 => Fault::Stop { node },
            57..60 => Fault::Starve { node, longest: 1 + self.random.below(150) as u16 },
            60..64 => Fault::Pause { node, clock_stands: self.random.percent(50) },
            64..69 => {
                let disk = *self.random.pick(&[Disk::Kept, Disk::Kept, Disk::Old, Disk::Lost]);
                Fault::PowerOff { node, disk }
            }
            69..72 => Fault::ApiAway,
            72..76 => Fault::ApiCut { node },
            76..78 => Fault::Lag { node, longest: 50 + self.random.below(4000) as u16 },
            78..80 => Fault::Relist { node },
            80 => Fault::Restore,
            81 if self.keys => Fault::Keys,
            _ => self.edit(),
        }
    }

    fn edit(&mut self) -> Fault {
        let (vip, node) = (1 + self.random.below(self.vips.into()) as u32, self.node());
        if self.controller {
            let number = self.random.below(u64::from(self.vips)) as u8;
            return match self.random.below(8) {
                0..2 => Fault::Service { number },
                2..4 => Fault::NoService { number },
                4 => Fault::Cordon { node },
                5 => Fault::Label { node },
                _ => Fault::NoController,
            };
        }
        match self.random.below(8) {
            0..3 => Fault::Move { vip, first: node },
            3..5 => Fault::Rank { vip, first: node },
            5 => Fault::Exclude { vip, node },
            6 => Fault::Release { vip },
            _ => Fault::Delete { vip },
        }
    }

    fn lasts(&mut self, fault: &Fault, longest: Duration) -> Duration {
        let shortest = match fault {
            Fault::Keys => ms(1500),
            _ => ms(20),
        };
        let longest = match fault {
            // These matter only after a while.
            Fault::ApiAway | Fault::ApiCut { .. } | Fault::Proxy { .. } => longest * 8,
            Fault::Proxies => longest.min(ms(4000)),
            _ => longest,
        };
        self.random.spread(shortest, longest.max(shortest))
    }
}
