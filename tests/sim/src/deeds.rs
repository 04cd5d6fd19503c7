//! What a person or a fault does to the world. Each deed is told to the judge before it is done.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use landfall_speaker::drivers::picture::Picture;
use landfall_speaker::drivers::readiness::{Known, Readiness};
use landfall_speaker::drivers::speaker_status;
use landfall_speaker::fitness::Health;
use landfall_speaker::lan::{NodeName, Vip};
use landfall_speaker::mind::Event;
use landfall_speaker::seal::Keyring;

use crate::invariants::{Cause, Filter, ISLANDS, Nodes, Surroundings, Truth, bit, each};
use crate::lan::{Hearing, Port};
use crate::node::{Power, Scheduling};
use crate::process::{Input, unguarded};
use crate::world::{What, World};

impl World {
    fn disturb(&mut self, nodes: Nodes, cause: Cause) {
        self.judge.disturb(self.now, nodes, cause);
    }

    pub fn everybody(&self) -> Nodes {
        bit(self.nodes.len()) - 1
    }

    /// The API server knows of a node's speaker, as from before.
    pub(crate) fn introduce(&mut self, number: usize) {
        let network = self.nodes[number].network(self.families, self.lans());
        let readiness = Readiness {
            network: true,
            links: network.links.len(),
            sockets: Some(Vec::new()),
            vips: Known::FromApi,
            peers: Known::FromApi,
            ..unguarded()
        };
        let status = speaker_status::plan(None, &network, &Picture::default(), &readiness, self.wall());
        let mut speaker =
            landfall_crds::Speaker::new(&self.nodes[number].name, landfall_crds::SpeakerSpec {});
        speaker.status = status;
        self.api.store.put_speaker(speaker);
    }

    /// All nodes learn of each other.
    pub fn introduce_all(&mut self) {
        self.strangers.clear();
        for number in 0..self.nodes.len() {
            self.begin_watches(number, Duration::ZERO, true);
        }
    }

    /// From now on it is looked at who answers for the address.
    pub fn watch(&mut self, address: IpAddr) {
        self.watcher.watch(address);
        self.judge.watch(self.now, address);
        self.refresh_truth();
        for number in 0..self.nodes.len() {
            self.refresh_told(number);
            self.observe(number);
        }
    }

    // Processes.

    /// The process ends without a word.
    pub fn kill(&mut self, number: usize) {
        if self.nodes[number].process.is_some() {
            self.disturb(bit(number), Cause::Killed);
            self.end_process(number);
        }
    }

    /// The process is told to end.
    pub fn leave(&mut self, number: usize) {
        if self.nodes[number].process.is_some() {
            self.disturb(bit(number), Cause::Leaves);
            self.arrive(number, Input::Mind(Event::Leave));
            self.refresh();
        }
    }

    pub(crate) fn started(&mut self, number: usize) {
        self.disturb(bit(number), Cause::Other);
        self.refresh();
    }

    /// The process is not run for so long.
    pub fn freeze(&mut self, number: usize, duration: Duration) {
        self.disturb(bit(number), Cause::Stopped);
        let until = self.now + duration;
        self.nodes[number].scheduling = Scheduling::Stopped(until);
        self.schedule(until, What::Run(number));
        self.refresh();
    }

    pub(crate) fn goes_on(&mut self, number: usize) {
        self.disturb(bit(number), Cause::Other);
        self.refresh();
    }

    /// The process is run late from now on, by up to so much each time; or promptly again.
    pub fn starve(&mut self, number: usize, longest: Duration) {
        let scheduling =
            if longest == Duration::ZERO { Scheduling::Prompt } else { Scheduling::Late(longest) };
        self.nodes[number].scheduling = scheduling;
        self.refresh();
        if scheduling == Scheduling::Prompt {
            self.run_node(number);
        }
    }

    // Machines.

    /// The machine is paused with all that is on it. Its clock stands, or it notices.
    pub fn pause(&mut self, number: usize, clock_stops: bool) {
        self.disturb(bit(number), Cause::Unreachable);
        let node = &mut self.nodes[number];
        node.power = Power::Paused;
        node.paused_from = node.waiting.len();
        if clock_stops {
            node.clock.stop(self.now);
        }
        self.refresh();
    }

    pub fn resume(&mut self, number: usize) {
        self.disturb(bit(number), Cause::Other);
        let node = &mut self.nodes[number];
        node.power = Power::On;
        node.clock.go_on(self.now);
        let questions = std::mem::take(&mut node.kernel_waiting);
        // The kernel takes up now what has come in meanwhile.
        let local = node.clock.local(self.now);
        let from = node.paused_from.min(node.waiting.len());
        node.waiting[from..].iter_mut().for_each(|input| input.stamp(local));
        self.refresh();
        for (lan, question) in questions {
            self.ask_kernel(number, lan, question);
        }
        self.run_node(number);
    }

    /// The machine is switched off as it stands.
    pub fn power_off(&mut self, number: usize) {
        self.disturb(bit(number), Cause::Unreachable);
        self.nodes[number].power = Power::Off;
        self.nodes[number].kernel_waiting.clear();
        self.end_process(number);
        self.refresh();
    }

    /// The machine is switched on, and its speaker starts.
    pub fn power_on(&mut self, number: usize) {
        self.nodes[number].power = Power::On;
        self.nodes[number].clock.go_on(self.now);
        self.nodes[number].heir = None;
        if self.nodes[number].process.is_none() {
            self.start_node(number);
        }
    }

    // The LAN.

    /// Something changes at a node's port to the first LAN.
    pub fn change_port(&mut self, number: usize, change: impl FnOnce(&mut Port)) {
        let before = self.nodes[number].ports[0].clone();
        let mut after = before.clone();
        change(&mut after);
        let is_out = |port: &Port| port.dark || !port.carrier || port.loss_out >= 1.0;
        let loss = |port: &Port| (port.loss_in, port.loss_out);
        let cause = if is_out(&after) && !is_out(&before) || after.island != before.island {
            Some(Cause::Unreachable)
        } else if after.loss_in >= 1.0 && before.loss_in < 1.0 {
            Some(Cause::Deaf)
        } else if is_out(&before) || loss(&before) != loss(&after) {
            Some(Cause::Other)
        } else {
            None
        };
        if let Some(cause) = cause {
            self.disturb(bit(number), cause);
        }
        self.nodes[number].ports[0] = after;
        self.refresh();
    }

    /// Something changes at a node's port to the second LAN.
    pub fn change_backbone(&mut self, number: usize, change: impl FnOnce(&mut Port)) {
        change(&mut self.nodes[number].ports[1]);
        self.refresh();
    }

    /// The gateway answers no more, or does again.
    pub fn set_gateway(&mut self, there: bool) {
        self.disturb(self.everybody(), Cause::Other);
        self.has_gateway = there;
        self.refresh();
    }

    /// A firewall drops the speakers' datagrams.
    pub fn drop_datagrams(&mut self) {
        self.drops_datagrams = true;
        self.refresh();
    }

    /// Each node is on the island of that number from now on.
    pub fn divide(&mut self, islands: &[u8]) {
        self.disturb(self.everybody(), Cause::Other);
        for (node, island) in self.nodes.iter_mut().zip(islands) {
            node.ports[0].island = *island;
        }
        self.refresh();
    }

    /// All ports go dark, or come back.
    pub fn darken_all(&mut self, dark: bool) {
        self.disturb(self.everybody(), Cause::Other);
        for node in &mut self.nodes {
            node.ports[0].dark = dark;
        }
        self.refresh();
    }

    /// The second does not hear the first any more on the first LAN, or does again.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        self.disturb(bit(from) | bit(to), Cause::Other);
        if cut {
            self.cuts.insert((from, to));
        } else {
            self.cuts.remove(&(from, to));
        }
        self.refresh();
    }

    /// Two nodes do not hear each other any more on the first LAN, or do again.
    pub fn part(&mut self, a: usize, b: usize, parted: bool) {
        self.cut(a, b, parted);
        self.cut(b, a, parted);
    }

    /// The cable is pulled out, or put in.
    pub fn set_carrier(&mut self, number: usize, carrier: bool) {
        self.change_port(number, |port| port.carrier = carrier);
        let network = self.nodes[number].network(self.families, self.lans());
        self.arrive(number, Input::Network(network));
    }

    /// Speakers prove by other keys who they are: one node, from now on.
    pub fn set_keys(&mut self, number: usize, keys: Option<Arc<Keyring>>) {
        self.nodes[number].keys = keys.clone();
        self.arrive(number, Input::Mind(Event::Keys(keys)));
    }

    /// kube-proxy says something else of itself.
    pub fn set_proxy(&mut self, number: usize, health: Health) {
        self.nodes[number].proxy = health;
        self.arrive(number, Input::Proxy(health));
    }

    // Addresses.

    /// The API tells all nodes of an address, each a little later.
    pub fn set_vip(&mut self, vip: Vip) {
        self.told_at = self.now;
        self.write_vip(&vip);
    }

    /// An address as the API has it.
    pub fn vip(&self, address: IpAddr) -> Option<Vip> {
        landfall_speaker::drivers::books::vip(self.api.vip(address)?)
    }

    // What the judge is told.

    /// How things stand on the LAN.
    pub(crate) fn refresh(&mut self) {
        let count = self.nodes.len();
        let none = vec![0; count];
        let mut lan =
            Surroundings { hears: none.clone(), hears_elsewhere: none.clone(), ..Surroundings::default() };
        for (number, node) in self.nodes.iter().enumerate() {
            let is_run = node.process.is_some() || node.heir.is_some();
            let leaves = node.process.as_ref().is_some_and(|process| process.leaves);
            if is_run && node.is_served() {
                lan.served |= bit(number);
            }
            // Who knows of no other speaker does not speak yet.
            if node.runs_promptly() && is_run && !leaves && (node.speaks || count == 1) {
                lan.running |= bit(number);
            }
            let port = &node.ports[0];
            let is_open = !port.dark && port.carrier && port.loss_in < 1.0 && port.loss_out < 1.0;
            if is_open && node.power == Power::On {
                lan.islands[usize::from(port.island).min(ISLANDS - 1)] |= bit(number);
            }
            let is_cut = self.cuts.iter().any(|(a, b)| *a == number || *b == number);
            if is_open && port.loss_in + port.loss_out == 0.0 && port.delay == Duration::ZERO && !is_cut {
                lan.clean |= bit(number);
            }
        }
        for a in 0..count {
            for b in 0..a {
                let are_there = self.nodes[a].power == Power::On && self.nodes[b].power == Power::On;
                for number in 0..self.lans() {
                    let hears = |from, to| self.hearing(number, Some(from), Some(to)) == Hearing::Always;
                    if are_there && hears(a, b) && hears(b, a) {
                        let hears = if number == 0 { &mut lan.hears } else { &mut lan.hears_elsewhere };
                        hears[a] |= bit(b);
                        hears[b] |= bit(a);
                    }
                }
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            if node.version.is_witness() {
                lan.witnesses |= bit(number);
            }
        }
        lan.stations[0] = self.has_gateway;
        if self.drops_datagrams {
            // Frames alone tell too little for any bound.
            (lan.clean, lan.hears) = (0, none);
        }
        self.judge.surroundings(self.now, lan);
        self.observe_stations();
        for address in self.watcher.addresses() {
            self.note_answers(address);
        }
    }

    fn number(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    /// What the API says of the addresses.
    pub(crate) fn refresh_truth(&mut self) {
        for at in 0..self.judge.addresses.len() {
            let address = self.judge.addresses[at].address;
            // An address whose object is deleted by mistake is looked after as before.
            let Some(vip) = self.vip(address) else {
                self.judge.gone(self.now, at);
                continue;
            };
            let truth = Truth::of(&vip, |name| self.number(name));
            self.judge.truth(self.now, at, truth);
        }
    }

    /// What a node was told of the addresses and of other speakers.
    pub(crate) fn refresh_told(&mut self, number: usize) {
        let process = self.nodes[number].process.as_ref();
        let speaks = process.is_some_and(|process| !process.books.peers.is_empty());
        if speaks != self.nodes[number].speaks {
            self.disturb(bit(number), Cause::Other);
            self.nodes[number].speaks = speaks;
            self.refresh();
        }
        for at in 0..self.judge.addresses.len() {
            let node = &self.nodes[number];
            let address = self.judge.addresses[at].address;
            let known = node.process.as_ref().and_then(|process| process.books.vips.get(&address));
            let told = known.map_or_else(Truth::default, |vip| Truth::of(vip, |name| self.number(name)));
            self.judge.told(self.now, at, number, told);
        }
        self.judge.check_released(self.now);
    }

    /// For what a node's mind answers now.
    pub(crate) fn observe(&mut self, number: usize) {
        let mut mask = 0;
        if self.nodes[number].heir.is_some() {
            // What is asked meanwhile waits for a moment, and is answered.
            return;
        }
        if let Some(process) = &self.nodes[number].process {
            for (at, address) in self.judge.addresses.iter().enumerate() {
                mask |= u64::from(process.mind.answers(address.address)) << at;
            }
        }
        let before = self.judge.addresses.iter().enumerate();
        let before =
            before.fold(0, |mask, (at, address)| mask | u64::from(address.answers & bit(number) != 0) << at);
        let lacks = self.nodes[number].process.as_ref().map_or(0, |process| process.gates().count());
        self.judge.lacks(self.now, number, lacks);
        if mask != before {
            self.judge.answers(self.now, number, mask, &Filter::default());
            let changed = mask ^ before;
            let addresses = self.judge.addresses.iter().enumerate();
            let changed: Vec<IpAddr> = addresses
                .filter(|(at, _)| changed >> at & 1 == 1)
                .map(|(_, address)| address.address)
                .collect();
            changed.into_iter().for_each(|address| self.note_answers(address));
        }
    }

    fn note_answers(&mut self, address: IpAddr) {
        let answering = self.answering(address);
        self.watcher.answered(self.now, address, &answering);
    }

    /// Where the client's packets go.
    pub(crate) fn observe_stations(&mut self) {
        for address in self.watcher.addresses() {
            let mac = self.stations.cached(address);
            let to = mac.and_then(|mac| self.nodes.iter().position(|node| node.mac == mac));
            let is_served = to.is_some_and(|number| self.is_reachable(number));
            self.watcher.served(self.now, address, is_served);
        }
    }

    /// Looks whether anything has lasted for too long.
    pub(crate) fn judge_now(&mut self) {
        self.judge.check(self.now);
    }

    /// What each node that runs says of an address.
    pub fn describe(&self, address: IpAddr) -> String {
        let minds = self.nodes.iter().filter_map(|node| Some((&node.name, &node.process.as_ref()?.mind)));
        let explained = minds.map(|(name, mind)| match mind.explain(address) {
            Some(explanation) => format!("\n  {name}: {explanation}"),
            None => format!("\n  {name}: never heard of it"),
        });
        explained.collect()
    }

    /// The same of all addresses that are looked at.
    pub fn describe_all(&self) -> String {
        let addresses = self.judge.addresses.iter().map(|address| address.address);
        addresses.map(|address| format!("{address}{}", self.describe(address))).collect::<Vec<_>>().join("\n")
    }

    /// Which nodes' processes run, for those who want all of them.
    pub fn runs(&self) -> Nodes {
        let runs = |number: &usize| self.nodes[*number].process.is_some();
        (0..self.nodes.len()).filter(runs).fold(0, |mask, number| mask | bit(number))
    }

    /// The numbers of some nodes, for people.
    pub fn names(nodes: Nodes) -> String {
        each(nodes).map(|number| format!("n{}", number + 1)).collect::<Vec<_>>().join(", ")
    }
}
