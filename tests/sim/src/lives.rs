//! How processes begin, end, and follow each other on a node.

use std::time::Duration;

use landfall_speaker::mind::{Config, Event};
use landfall_speaker::succession::Inheritance;

use crate::node::Scheduling;
use crate::process::{Input, Process};
use crate::random::draw;
use crate::world::{What, World, ms};

/// How long a process is prepared before it takes over from another, at most.
const PREPARE: Duration = Duration::from_millis(800);
/// Between the end of one process of a node and the beginning of the next.
const BETWEEN: Duration = Duration::from_millis(3);
/// The API server keeps a watch open for as long (`watch.rs`).
const TURN: Duration = Duration::from_secs(20);

impl World {
    /// A process starts, with what its state file tells.
    pub fn start_node(&mut self, number: usize) {
        let mut actions = self.make_process(number);
        self.perform(number, std::mem::take(&mut actions));
        self.set_keys(number, self.keys.clone());
        let network = self.nodes[number].network(self.families, self.lans());
        self.handle(number, Input::Network(network));
        self.begin_watches(number, ms(10), true);
        self.follow_fitness(number);
        self.refresh_told(number);
        self.started(number);
    }

    fn make_process(&mut self, number: usize) -> Vec<landfall_speaker::mind::Action> {
        self.instances += 1;
        let node = &mut self.nodes[number];
        let mut config = Config::new(node.name.clone(), self.instances * 1000 + number as u64);
        config.drain = self.drain;
        config.seed = draw([self.seed, number as u64, self.instances, 3]);
        let local = node.clock.local(self.now);
        let mut actions = Vec::new();
        let state = node.state.clone();
        node.process = Some(Process::start(local, config, state, &mut actions));
        node.started = self.now;
        node.woken = None;
        node.run_is_due = false;
        let is_new = node.heir.is_none();
        if is_new {
            node.waiting.clear();
        }
        if !matches!(node.scheduling, Scheduling::Late(_)) {
            node.scheduling = Scheduling::Prompt;
        }
        if is_new {
            self.watcher.restarted(number);
        }
        actions
    }

    /// What the node lacks is observed from now on.
    fn follow_fitness(&mut self, number: usize) {
        let Some(process) = &self.nodes[number].process else { return };
        let turn = What::Turn(number, process.incarnation);
        self.schedule(self.now + TURN, turn);
        let proxy = self.nodes[number].proxy;
        self.handle(number, Input::Proxy(proxy));
        if self.api.away {
            self.schedule(self.now + ms(5), What::Hear(number, Input::ApiAway(true)));
        }
    }

    /// A watch is ended by the API server and begun again.
    pub(crate) fn turn(&mut self, number: usize, incarnation: u64) {
        let process = self.nodes[number].process.as_ref();
        if process.is_some_and(|process| process.incarnation == incarnation) {
            self.schedule(self.now + TURN, What::Turn(number, incarnation));
            if self.reaches_api(number) {
                self.arrive(number, Input::ApiHeard);
            }
        }
    }

    /// The speaker of a node is replaced by another process, which is prepared beside it.
    pub fn upgrade(&mut self, number: usize) {
        let Some(process) = &self.nodes[number].process else { return };
        let incarnation = process.incarnation;
        let at = self.now + ms(20) + self.random.up_to(PREPARE);
        self.schedule(at, What::TakeOver(number, incarnation));
    }

    pub(crate) fn take_over(&mut self, number: usize, incarnation: u64) {
        let node = &self.nodes[number];
        let Some(process) = node.process.as_ref().filter(|process| process.incarnation == incarnation) else {
            return;
        };
        if process.leaves {
            return;
        }
        if node.runs_promptly() {
            self.handle(number, Input::Mind(Event::Cede));
        } else {
            // It answers when it is run.
            self.schedule(self.now + ms(50), What::TakeOver(number, incarnation));
        }
    }

    /// A process has fallen silent for good.
    pub(crate) fn ceded(&mut self, number: usize, left: Box<Inheritance>) {
        // As it goes through the socket between the two.
        let text = serde_json::to_vec(&left).unwrap();
        let node = &mut self.nodes[number];
        node.heir = Some(Box::new(serde_json::from_slice(&text).unwrap()));
        node.process = None;
        node.woken = None;
        self.schedule(self.now + BETWEEN, What::GoOn(number));
    }

    /// The other process goes on.
    pub(crate) fn go_on(&mut self, number: usize) {
        if self.nodes[number].heir.is_none() {
            return;
        }
        if !self.nodes[number].is_served() {
            self.schedule(self.now + ms(20), What::GoOn(number));
            return;
        }
        let mut actions = self.make_process(number);
        let waiting = self.nodes[number].take_waiting();
        let Some(left) = self.nodes[number].heir.take() else { return };
        self.nodes[number].version = self.nodes[number].next_version;
        let keys = self.keys.clone();
        self.nodes[number].keys = keys.clone();
        // It had listed everything before, where it could.
        let listed = self.list_all(number);
        let local = self.nodes[number].clock.local(self.now);
        let network = self.nodes[number].network(self.families, self.lans());
        let wall = crate::node::wall_at(local - self.start, self.nodes[number].wall_error);
        if let Some(process) = self.nodes[number].process.as_mut() {
            process.take(local, wall, Input::Mind(Event::Keys(keys)), &mut actions);
            for input in listed {
                process.take(local, wall, input, &mut actions);
            }
            process.inherit(local, left, &mut actions);
            process.take(local, wall, Input::Network(network), &mut actions);
        }
        self.judge.upgraded(self.now);
        self.perform(number, actions);
        self.follow_fitness(number);
        self.refresh_told(number);
        self.refresh();
        for input in waiting {
            self.handle(number, input);
        }
    }

    /// A process is no more.
    pub fn end_process(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.process = None;
        node.heir = None;
        node.waiting.clear();
        node.woken = None;
        self.watcher.restarted(number);
        self.observe(number);
        self.refresh();
    }
}
