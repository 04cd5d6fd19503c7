//! What can go wrong, as values: each with its beginning, its end, and its words for people.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use landfall_speaker::fitness::Health;
use landfall_speaker::lan::{NodeName, Vip};
use serde::{Deserialize, Serialize};

use crate::node::{Power, Scheduling};
use crate::world::{World, keys, ms};

/// What a speaker finds on its disk when its machine is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disk {
    /// The state file as it was.
    Kept,
    /// One from long before, as of a machine that was restored from an image.
    Old,
    /// None, or one that is damaged and so set aside.
    Lost,
}

/// Something that goes wrong for a while, or that somebody does. Nodes are numbered from zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// A port passes nothing, though the carrier stays.
    Dark { node: usize },
    /// Nothing gets to the node.
    Deaf { node: usize },
    /// Nothing comes from the node.
    Mute { node: usize },
    /// So many of a hundred frames are lost on a port, each way.
    Loss { node: usize, percent: u8 },
    /// Frames from the node take up to so many milliseconds longer.
    Delay { node: usize, longest: u16 },
    /// So many of a hundred frames come twice to all nodes.
    Twice { percent: u8 },
    /// The cable is out, and the node sees it.
    Cable { node: usize },
    /// Two nodes do not hear each other.
    Cut { a: usize, b: usize },
    /// One node does not hear another, which hears it.
    HalfCut { from: usize, to: usize },
    /// These nodes are cut off from all others and from the clients.
    Island { nodes: Vec<usize> },
    /// Every port is cut off from every other.
    Scatter,
    /// All ports are dark at once.
    AllDark,
    /// A port to the second LAN is dark.
    BackboneDark { node: usize },
    /// The speaker's process is killed; it is started again at the end.
    Kill { node: usize },
    /// The speaker is told to leave; it is started again when it has left and the end has come.
    Leave { node: usize },
    /// The speaker is replaced by another process, of the other version.
    Upgrade { node: usize },
    /// The kube-proxy of a node says that it is not well.
    Proxy { node: usize },
    /// All of them say nothing, as when they are restarted together.
    Proxies,
    /// The process is stopped (SIGSTOP).
    Stop { node: usize },
    /// The process is run late, by up to so many milliseconds each time.
    Starve { node: usize, longest: u16 },
    /// The whole machine is paused; its clock stands, or it notices.
    Pause { node: usize, clock_stands: bool },
    /// The machine is switched off, and on again at the end.
    PowerOff { node: usize, disk: Disk },
    /// The API server answers nobody.
    ApiAway,
    /// A node's way to the API server is cut, and nothing says so.
    ApiCut { node: usize },
    /// News of the API come so many milliseconds late to a node.
    Lag { node: usize, longest: u16 },
    /// A node's watches begin anew with a list.
    Relist { node: usize },
    /// At the end the API server is restored from a backup of the beginning.
    Restore,
    /// The controller is gone.
    NoController,
    /// The keys are changed for new ones, step by step.
    Keys,
    /// An address is to move: a higher epoch ranks this node first.
    Move { vip: u32, first: usize },
    /// The ranking of an address is edited, and nothing is to move.
    Rank { vip: u32, first: usize },
    /// A node may not announce an address for a while.
    Exclude { vip: u32, node: usize },
    /// An address is released, and claimed again at the end, under a new epoch.
    Release { vip: u32 },
    /// The object of an address is deleted by mistake, and made again at the end.
    Delete { vip: u32 },
    /// A Service is there for a while.
    Service { number: u8 },
    /// A Service is away for a while.
    NoService { number: u8 },
    /// A node is cordoned.
    Cordon { node: usize },
    /// A node is excluded by its label.
    Label { node: usize },
}

impl Fault {
    /// The nodes of which it speaks.
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Dark { node }
            | Self::Deaf { node }
            | Self::Mute { node }
            | Self::Loss { node, .. }
            | Self::Delay { node, .. }
            | Self::Cable { node }
            | Self::BackboneDark { node }
            | Self::Kill { node }
            | Self::Leave { node }
            | Self::Upgrade { node }
            | Self::Proxy { node }
            | Self::Stop { node }
            | Self::Starve { node, .. }
            | Self::Pause { node, .. }
            | Self::PowerOff { node, .. }
            | Self::ApiCut { node }
            | Self::Lag { node, .. }
            | Self::Relist { node }
            | Self::Exclude { node, .. }
            | Self::Cordon { node }
            | Self::Label { node } => vec![*node],
            Self::Cut { a, b } => vec![*a, *b],
            Self::HalfCut { from, to } => vec![*from, *to],
            Self::Island { nodes } => nodes.clone(),
            Self::Move { first, .. } | Self::Rank { first, .. } => vec![*first],
            _ => Vec::new(),
        }
    }

    /// The number of the address of which it speaks.
    pub fn vip(&self) -> Option<u32> {
        match self {
            Self::Move { vip, .. }
            | Self::Rank { vip, .. }
            | Self::Exclude { vip, .. }
            | Self::Release { vip }
            | Self::Delete { vip } => Some(*vip),
            _ => None,
        }
    }

    /// Whether it needs a controller that runs, or one that does not.
    pub fn wants_controller(&self) -> Option<bool> {
        match self {
            Self::NoController
            | Self::Service { .. }
            | Self::NoService { .. }
            | Self::Cordon { .. }
            | Self::Label { .. } => Some(true),
            _ => self.vip().map(|_| false),
        }
    }

    /// Its name in figures.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = |node: &usize| format!("n{}", node + 1);
        let address = |vip: &u32| crate::world::vip_address(*vip).to_string();
        match self {
            Self::Dark { node } => write!(f, "the port of {} is dark", n(node)),
            Self::Deaf { node } => write!(f, "nothing gets to {}", n(node)),
            Self::Mute { node } => write!(f, "nothing comes from {}", n(node)),
            Self::Loss { node, percent } => write!(f, "the port of {} loses {percent} % each way", n(node)),
            Self::Delay { node, longest } => {
                write!(f, "what {} sends takes up to {longest} ms longer", n(node))
            }
            Self::Twice { percent } => write!(f, "{percent} % of all frames come twice"),
            Self::Cable { node } => write!(f, "the cable of {} is out", n(node)),
            Self::Cut { a, b } => write!(f, "{} and {} do not hear each other", n(a), n(b)),
            Self::HalfCut { from, to } => write!(f, "{} does not hear {}", n(to), n(from)),
            Self::Island { nodes } => {
                let names: Vec<_> = nodes.iter().map(n).collect();
                write!(f, "{} on an island of their own", names.join(", "))
            }
            Self::Scatter => write!(f, "every port is cut off from every other"),
            Self::AllDark => write!(f, "all ports are dark"),
            Self::BackboneDark { node } => write!(f, "the port of {} to the second LAN is dark", n(node)),
            Self::Kill { node } => write!(f, "the speaker of {} is killed", n(node)),
            Self::Leave { node } => write!(f, "the speaker of {} is told to leave", n(node)),
            Self::Upgrade { node } => write!(f, "the speaker of {} is replaced by another version", n(node)),
            Self::Proxy { node } => write!(f, "the kube-proxy of {} is not well", n(node)),
            Self::Proxies => write!(f, "all kube-proxies are restarted"),
            Self::Stop { node } => write!(f, "the speaker of {} is stopped", n(node)),
            Self::Starve { node, longest } => {
                write!(f, "the speaker of {} is run up to {longest} ms late", n(node))
            }
            Self::Pause { node, clock_stands: true } => {
                write!(f, "the machine {} is paused and its clock with it", n(node))
            }
            Self::Pause { node, .. } => write!(f, "the machine {} is paused", n(node)),
            Self::PowerOff { node, disk } => {
                let disk = match disk {
                    Disk::Kept => "its state file",
                    Disk::Old => "an old state file",
                    Disk::Lost => "no state file",
                };
                write!(f, "{} is switched off, to come back with {disk}", n(node))
            }
            Self::ApiAway => write!(f, "the API server is away"),
            Self::ApiCut { node } => write!(f, "{} is cut off from the API server", n(node)),
            Self::Lag { node, longest } => write!(f, "the API's news come {longest} ms late to {}", n(node)),
            Self::Relist { node } => write!(f, "the watches of {} begin anew", n(node)),
            Self::Restore => write!(f, "a backup of the API server is made, to be restored"),
            Self::NoController => write!(f, "the controller is gone"),
            Self::Keys => write!(f, "the keys are changed"),
            Self::Move { vip, first } => write!(f, "{} is to move to {}", address(vip), n(first)),
            Self::Rank { vip, first } => {
                write!(f, "{} ranks {} first and is not to move", address(vip), n(first))
            }
            Self::Exclude { vip, node } => write!(f, "{} may not announce {}", n(node), address(vip)),
            Self::Release { vip } => write!(f, "{} is released", address(vip)),
            Self::Delete { vip } => write!(f, "the object of {} is deleted by mistake", address(vip)),
            Self::Service { number } => write!(f, "there is a Service s{number}"),
            Self::NoService { number } => write!(f, "there is no Service s{number}"),
            Self::Cordon { node } => write!(f, "{} is cordoned", n(node)),
            Self::Label { node } => write!(f, "{} is excluded by its label", n(node)),
        }
    }
}

/// What is to be undone when a fault ends.
#[derive(Default)]
pub struct Undo {
    snapshot: Option<crate::api::Snapshot>,
    vip: Option<Vip>,
}

impl World {
    fn ranked(&self, vip: u32, first: usize, raise: i64) -> Option<Vip> {
        let known =
            self.vip(crate::world::vip_address(vip)).or_else(|| self.vip(crate::world::vip_address6(vip)))?;
        let nodes = self.nodes.len();
        let candidates = (0..nodes).map(|place| self.nodes[(first + place) % nodes].name.clone()).collect();
        Some(Vip { epoch: known.epoch + raise, candidates, ..known })
    }

    /// Begins a fault. Nothing where it does not apply as things are.
    pub fn begin(&mut self, fault: &Fault, lasts: Duration) -> Option<Undo> {
        let count = self.nodes.len();
        if fault.nodes().iter().any(|node| *node >= count) {
            return None;
        }
        let port = |world: &Self, node: usize| world.nodes[node].ports[0].clone();
        let is_on = |world: &Self, node: usize| world.nodes[node].power == Power::On;
        let runs = |world: &Self, node: usize| {
            is_on(world, node) && world.nodes[node].process.as_ref().is_some_and(|process| !process.leaves)
        };
        let mut undo = Undo::default();
        match fault {
            Fault::Dark { node } if !port(self, *node).dark => {
                self.change_port(*node, |port| port.dark = true)
            }
            Fault::Deaf { node } if port(self, *node).loss_in == 0.0 => {
                self.change_port(*node, |port| port.loss_in = 1.0);
            }
            Fault::Mute { node } if port(self, *node).loss_out == 0.0 => {
                self.change_port(*node, |port| port.loss_out = 1.0);
            }
            Fault::Loss { node, percent }
                if port(self, *node).loss_in + port(self, *node).loss_out == 0.0 =>
            {
                let share = f64::from(*percent) / 100.0;
                self.change_port(*node, |port| (port.loss_in, port.loss_out) = (share, share));
            }
            Fault::Delay { node, longest } if port(self, *node).delay == Duration::ZERO => {
                self.change_port(*node, |port| port.delay = ms((*longest).into()));
            }
            Fault::Twice { percent } if self.nodes.iter().all(|node| node.ports[0].twice == 0.0) => {
                self.nodes.iter_mut().for_each(|node| node.ports[0].twice = f64::from(*percent) / 100.0);
            }
            Fault::Cable { node } if port(self, *node).carrier => self.set_carrier(*node, false),
            Fault::Cut { a, b }
                if a != b && !self.cuts.contains(&(*a, *b)) && !self.cuts.contains(&(*b, *a)) =>
            {
                self.part(*a, *b, true);
            }
            Fault::HalfCut { from, to } if from != to && !self.cuts.contains(&(*from, *to)) => {
                self.cut(*from, *to, true);
            }
            Fault::Island { .. } | Fault::Scatter
                if self.nodes.iter().all(|node| node.ports[0].island == 0) =>
            {
                let island = |number: usize| match fault {
                    Fault::Island { nodes } => u8::from(nodes.contains(&number)),
                    _ => number as u8 + 1,
                };
                self.divide(&(0..count).map(island).collect::<Vec<_>>());
            }
            Fault::AllDark if self.nodes.iter().all(|node| !node.ports[0].dark) => self.darken_all(true),
            Fault::BackboneDark { node } if self.has_backbone && !self.nodes[*node].ports[1].dark => {
                self.change_backbone(*node, |port| port.dark = true);
            }
            Fault::Kill { node } if runs(self, *node) => self.kill(*node),
            Fault::Leave { node } if runs(self, *node) => self.leave(*node),
            Fault::Upgrade { node } if runs(self, *node) => {
                self.nodes[*node].next_version = self.nodes[*node].version.other();
                self.upgrade(*node);
            }
            Fault::Proxy { node } if self.nodes[*node].proxy == Health::Healthy => {
                self.set_proxy(*node, Health::Unhealthy);
            }
            Fault::Proxies => (0..count).for_each(|node| self.set_proxy(node, Health::Unreachable)),
            Fault::Stop { node }
                if runs(self, *node) && self.nodes[*node].scheduling == Scheduling::Prompt =>
            {
                self.freeze(*node, lasts);
            }
            Fault::Starve { node, longest }
                if runs(self, *node) && self.nodes[*node].scheduling == Scheduling::Prompt =>
            {
                self.starve(*node, ms((*longest).into()));
            }
            Fault::Pause { node, clock_stands } if is_on(self, *node) => self.pause(*node, *clock_stands),
            Fault::PowerOff { node, disk } if is_on(self, *node) => {
                self.power_off(*node);
                let node = &mut self.nodes[*node];
                match disk {
                    Disk::Kept => {}
                    Disk::Old => node.state = node.former_states.front().cloned().or(node.state.take()),
                    Disk::Lost => node.state = None,
                }
            }
            Fault::ApiAway if !self.api.away => self.set_api_away(true),
            Fault::ApiCut { node } if !self.nodes[*node].api.cut => self.set_api_cut(*node, true),
            Fault::Lag { node, longest } if self.nodes[*node].api.lag == Duration::ZERO => {
                self.nodes[*node].api.lag = ms((*longest).into());
            }
            Fault::Relist { node } if !self.api.away && !self.nodes[*node].api.cut => {
                self.begin_watches(*node, ms(500), true);
            }
            Fault::Restore if !self.api.away => undo.snapshot = Some(self.api.snapshot()),
            Fault::NoController if self.controller.is_some() => self.stop_controller(),
            Fault::Keys if self.keys.is_some() && self.keys_change_until <= self.now => {
                self.change_keys(lasts)
            }
            Fault::Move { vip, first } => self.set_vip(self.ranked(*vip, *first, 1)?),
            Fault::Rank { vip, first } => self.set_vip(self.ranked(*vip, *first, 0)?),
            Fault::Exclude { vip, node } => {
                let known = self.ranked(*vip, *node, 0)?;
                let name: NodeName = self.nodes[*node].name.clone();
                let candidates = known.candidates.iter().filter(|other| **other != name).cloned().collect();
                self.set_vip(Vip { candidates, epoch: known.epoch + 1, ..known });
            }
            Fault::Release { vip } => {
                let known = self.ranked(*vip, 0, 0).filter(|known| known.claimed)?;
                self.set_vip(Vip { claimed: false, ..known });
            }
            Fault::Delete { vip } => {
                let known = self.ranked(*vip, 0, 0).filter(|known| known.claimed)?;
                self.delete_vip(known.address);
                undo.vip = Some(known);
            }
            Fault::Service { number } if !self.has_service(*number) => {
                self.create_service(&format!("s{number}"))
            }
            Fault::NoService { number } if self.has_service(*number) => {
                self.delete_service(&format!("s{number}"));
            }
            Fault::Cordon { node } => self.write_node(*node, true, false),
            Fault::Label { node } => self.write_node(*node, false, true),
            _ => return None,
        }
        self.story.tell(self.now, || format!("{fault}, for {} ms", lasts.as_millis()));
        Some(undo)
    }

    fn has_service(&self, number: u8) -> bool {
        self.api.store.services.contains_key(&format!("shop/s{number}"))
    }

    /// Ends a fault that was begun. False where it has to be asked again a little later.
    pub fn end(&mut self, fault: &Fault, undo: &mut Undo) -> bool {
        match fault {
            Fault::Dark { node } => self.change_port(*node, |port| port.dark = false),
            Fault::Deaf { node } => self.change_port(*node, |port| port.loss_in = 0.0),
            Fault::Mute { node } => self.change_port(*node, |port| port.loss_out = 0.0),
            Fault::Loss { node, .. } => {
                self.change_port(*node, |port| (port.loss_in, port.loss_out) = (0.0, 0.0));
            }
            Fault::Delay { node, .. } => self.change_port(*node, |port| port.delay = Duration::ZERO),
            Fault::Twice { .. } => self.nodes.iter_mut().for_each(|node| node.ports[0].twice = 0.0),
            Fault::Cable { node } => self.set_carrier(*node, true),
            Fault::Cut { a, b } => self.part(*a, *b, false),
            Fault::HalfCut { from, to } => self.cut(*from, *to, false),
            Fault::Island { .. } | Fault::Scatter => self.divide(&vec![0; self.nodes.len()]),
            Fault::AllDark => self.darken_all(false),
            Fault::BackboneDark { node } => self.change_backbone(*node, |port| port.dark = false),
            Fault::Kill { node } => self.start_if_down(*node),
            Fault::Leave { node } => {
                if self.nodes[*node].process.as_ref().is_some_and(|process| process.leaves) {
                    return false;
                }
                self.start_if_down(*node);
            }
            Fault::Proxy { node } => self.set_proxy(*node, Health::Healthy),
            Fault::Proxies => (0..self.nodes.len()).for_each(|node| self.set_proxy(node, Health::Healthy)),
            Fault::Stop { .. } => {}
            Fault::Starve { node, .. } => self.starve(*node, Duration::ZERO),
            Fault::Pause { node, .. } if self.nodes[*node].power == Power::Paused => self.resume(*node),
            Fault::PowerOff { node, .. } => self.power_on(*node),
            Fault::ApiAway => self.set_api_away(false),
            Fault::ApiCut { node } => self.set_api_cut(*node, false),
            Fault::Lag { node, .. } => self.nodes[*node].api.lag = Duration::ZERO,
            Fault::Restore => {
                if let Some(snapshot) = undo.snapshot.take() {
                    self.restore_api(snapshot);
                }
            }
            Fault::NoController => self.start_controller(),
            Fault::Exclude { vip, .. } => {
                if let Some(known) = self.ranked(*vip, 0, 0) {
                    self.set_vip(known);
                }
            }
            Fault::Release { vip } => {
                if let Some(known) = self.ranked(*vip, 0, 1) {
                    self.set_vip(Vip { claimed: true, ..known });
                }
            }
            Fault::Delete { .. } => {
                if let Some(vip) = undo.vip.take() {
                    self.set_vip(vip);
                }
            }
            Fault::Service { number } => self.delete_service(&format!("s{number}")),
            Fault::NoService { number } => self.create_service(&format!("s{number}")),
            Fault::Cordon { node } | Fault::Label { node } => self.write_node(*node, false, false),
            _ => {}
        }
        self.story.tell(self.now, || format!("no more: {fault}"));
        true
    }

    fn start_if_down(&mut self, node: usize) {
        let node_is = &self.nodes[node];
        if node_is.power == Power::On && node_is.process.is_none() && node_is.heir.is_none() {
            self.start_node(node);
        }
    }

    /// Changes the keys as docs/operations.md says: a new one is added, sent with, and the old one removed. Each
    /// step reaches every node before the next is taken.
    fn change_keys(&mut self, lasts: Duration) {
        let new = self.newest_key + 1;
        self.newest_key = new;
        self.keys_change_until = self.now + lasts;
        let steps = [keys(new - 1..=new, new - 1), keys(new - 1..=new, new), keys(new..=new, new)];
        let third = lasts / 3;
        for (step, keys) in (0_u32..).zip(steps) {
            let begins = self.now + third * step;
            for number in 0..self.nodes.len() {
                let at = begins + self.random.up_to(third);
                self.schedule(at, crate::world::What::Keys(number, Arc::clone(&keys)));
            }
            // A process that starts meanwhile finds them in its folder.
            self.schedule(begins, crate::world::What::Folder(keys));
        }
    }
}
