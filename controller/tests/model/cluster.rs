//! A pretended cluster: the API server and some minds, each with its own lag.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use landfall_controller::effects::{Effect, Outcome, Refusal};
use landfall_controller::mind::{Config, Event, Mind, Now};
use landfall_crds::{Announcer, VirtualIP, VirtualIPStatus};

use crate::api::{Api, KINDS, SERVICES, VIPS};
use crate::objects::namespace;

/// One controller: its mind, how far it has seen each kind, and what it wants done.
pub struct Controller {
    pub mind: Mind,
    /// How far it has followed each log; nothing before its first list.
    cursors: [Option<usize>; KINDS],
    pub wanted: VecDeque<Effect>,
    answers: VecDeque<Event>,
    pub published: Vec<Effect>,
}

/// What happens to an effect on its way.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Fine,
    /// The API server never sees it.
    LostBefore,
    /// It is done, but the answer is lost.
    LostAfter,
    /// The API server refuses it for good.
    Refused,
    /// The API server has too much to do for so many seconds.
    Busy(u64),
}

pub struct Cluster {
    pub api: Api,
    pub controllers: Vec<Controller>,
    start: Instant,
    pub elapsed: Duration,
    /// What each controller is started with.
    pub config: Config,
    /// Effects of controllers that are no more, or do not lead any more, on their way to the API server.
    pub strays: VecDeque<Effect>,
    /// How often the API server has refused something for good.
    pub refusals: usize,
}

impl Cluster {
    pub fn new(controllers: usize) -> Self {
        Self::with(controllers, Config::default())
    }

    // Time has to start somewhere; from there on it is pretended.
    #[allow(clippy::disallowed_methods)]
    pub fn with(controllers: usize, config: Config) -> Self {
        let mut cluster = Self {
            api: Api { now: 1_800_000_000, ..Api::default() },
            controllers: Vec::new(),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            config,
            strays: VecDeque::new(),
            refusals: 0,
        };
        for name in ["shop", "office"] {
            cluster.api.put_namespace(namespace(name));
        }
        for _ in 0..controllers {
            let controller = cluster.fresh();
            cluster.controllers.push(controller);
        }
        cluster
    }

    fn fresh(&self) -> Controller {
        let mut controller = Controller {
            mind: Mind::new(self.config.clone()),
            cursors: [None; KINDS],
            wanted: VecDeque::new(),
            answers: VecDeque::new(),
            published: Vec::new(),
        };
        controller.tell(self.now(), Event::Leading(true));
        controller
    }

    pub fn now(&self) -> Now {
        let milliseconds = self.api.now * 1000 + i64::from(self.elapsed.subsec_millis());
        Now { monotonic: self.start + self.elapsed, wall: Timestamp::from_millisecond(milliseconds).unwrap() }
    }

    pub fn pass(&mut self, time: Duration) {
        self.elapsed += time;
        self.api.now = 1_800_000_000 + self.elapsed.as_secs() as i64;
        let now = self.now();
        for controller in &mut self.controllers {
            if controller.mind.next_deadline().is_some_and(|at| at <= now.monotonic) {
                controller.tell(now, Event::Deadline);
            }
        }
    }

    /// Kills a controller with all it had in hand and starts another in its place.
    pub fn crash(&mut self, which: usize) {
        self.controllers[which] = self.fresh();
    }

    /// Whether a controller has still to see something of a kind.
    pub fn lags(&self, which: usize, kind: usize) -> bool {
        self.controllers[which].cursors[kind].is_none_or(|at| at < self.api.logs[kind].len())
    }

    /// Brings a controller the next change of one kind, or its first list. Returns whether there was one.
    ///
    /// A list of VirtualIPs never overtakes the watch of Services: what was created, shown and deleted
    /// in between could then be taken for never used.
    pub fn deliver(&mut self, which: usize, kind: usize) -> bool {
        if kind == VIPS && self.controllers[which].cursors[VIPS].is_none() {
            while self.deliver(which, SERVICES) {}
        }
        let now = self.now();
        let controller = &mut self.controllers[which];
        let log = &self.api.logs[kind];
        match controller.cursors[kind] {
            None => {
                controller.cursors[kind] = Some(log.len());
                controller.tell(now, self.api.list(kind));
            }
            Some(at) if at < log.len() => {
                controller.cursors[kind] = Some(at + 1);
                controller.tell(now, log[at].clone());
            }
            Some(_) => return false,
        }
        true
    }

    /// A watch breaks and begins anew with a list.
    pub fn relist(&mut self, which: usize, kind: usize) {
        self.controllers[which].cursors[kind] = None;
        self.deliver(which, kind);
    }

    /// Sends a wanted effect to the API server. Returns it, and whether the API server did it.
    pub fn write(&mut self, which: usize, nth: usize, way: Way) -> Option<(Effect, bool)> {
        let controller = &mut self.controllers[which];
        if controller.wanted.is_empty() {
            return None;
        }
        let nth = nth % controller.wanted.len();
        let effect = controller.wanted.remove(nth)?;
        let unavailable = || Outcome::Refused(Refusal::Unavailable("lost".into()));
        let outcome = match way {
            Way::LostBefore => unavailable(),
            Way::Fine => self.api.apply(&effect),
            Way::Refused => Outcome::Refused(Refusal::Invalid("refused once".into())),
            Way::Busy(seconds) => {
                let (message, after) = ("429 wait".to_owned(), Duration::from_secs(seconds));
                Outcome::Refused(Refusal::Busy { message, after })
            }
            Way::LostAfter => {
                self.api.apply(&effect);
                unavailable()
            }
        };
        self.refusals += usize::from(matches!(outcome, Outcome::Refused(Refusal::Invalid(_))));
        let done = !matches!(outcome, Outcome::Refused(_));
        controller.answers.push_back(Event::Done { effect: effect.clone(), outcome });
        Some((effect, done))
    }

    /// One of the effects that a controller wants.
    pub fn wanted(&self, which: usize, nth: usize) -> Option<&Effect> {
        let wanted = &self.controllers[which].wanted;
        (!wanted.is_empty()).then(|| &wanted[nth % wanted.len()])
    }

    /// A controller crashes or leads no more: it will not hear what becomes of what it wanted.
    pub fn forget_wanted(&mut self, which: usize) -> Vec<Effect> {
        let controller = &mut self.controllers[which];
        controller.answers.clear();
        controller.wanted.drain(..).collect()
    }

    /// Whether an answer of the API server is on its way to a controller.
    pub fn awaits_answer(&self, which: usize) -> bool {
        !self.controllers[which].answers.is_empty()
    }

    /// Brings a controller the next answer of the API server.
    pub fn answer(&mut self, which: usize) -> bool {
        let now = self.now();
        let controller = &mut self.controllers[which];
        let Some(event) = controller.answers.pop_front() else { return false };
        controller.tell(now, event);
        true
    }

    /// The best candidate of each claimed VirtualIP announces it.
    pub fn announce_all(&mut self) {
        for name in self.api.vips.keys().cloned().collect::<Vec<_>>() {
            let candidates = self.api.vips[&name].spec.placement.clone().unwrap_or_default().candidates;
            if let Some(best) = candidates.first() {
                self.announce(&name, Some(&best.node));
            }
        }
    }

    /// Writes who announces, as a speaker does.
    pub fn announce(&mut self, name: &str, node: Option<&str>) {
        let mut vip = (*self.api.vips[name]).clone();
        let epoch = vip.spec.placement.as_ref().map_or(0, |placement| placement.epoch);
        let status = vip.status.get_or_insert_with(VirtualIPStatus::default);
        let since = self.api.time();
        status.announcer = node.map(|node| Announcer {
            node: node.to_owned(),
            interface: "eth0".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            term: status.announcer.as_ref().map_or(1, |before| before.term + 1),
            epoch,
            since,
        });
        self.api.put_vip(vip);
    }

    /// Speakers do what a raised epoch asks for: the best candidate takes over.
    pub fn follow_epochs(&mut self) -> Vec<String> {
        let asked: Vec<String> =
            self.api.vips.iter().filter(|(_, vip)| is_asked(vip)).map(|(name, _)| name.clone()).collect();
        for name in &asked {
            let candidates = self.api.vips[name].spec.placement.clone().unwrap_or_default().candidates;
            self.announce(name, candidates.first().map(|best| best.node.as_str()));
        }
        asked
    }

    /// Everything that can happen without time passing or anybody doing anything new.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for which in 0..self.controllers.len() {
                for kind in 0..KINDS {
                    while self.deliver(which, kind) {
                        busy = true;
                    }
                }
                while self.write(which, 0, Way::Fine).is_some() {
                    busy = true;
                }
                while self.answer(which) {
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the cluster does not settle");
    }

    /// Settles, then waits for every deadline until nobody wants anything any more.
    pub fn quiet(&mut self) {
        for _ in 0..1000 {
            self.settle();
            let next = self.controllers.iter().filter_map(|controller| controller.mind.next_deadline()).min();
            let Some(next) = next else { return };
            let left = next.saturating_duration_since(self.start + self.elapsed);
            self.pass(left.max(Duration::from_millis(1)));
        }
        panic!("the cluster does not become quiet");
    }
}

/// Whether it is announced under an older epoch than it is placed under.
pub fn is_asked(vip: &VirtualIP) -> bool {
    let epoch = vip.spec.placement.as_ref().map_or(0, |placement| placement.epoch);
    let announcer = vip.status.as_ref().and_then(|status| status.announcer.as_ref());
    announcer.is_some_and(|announcer| announcer.epoch < epoch)
}

impl Controller {
    pub fn tell(&mut self, now: Now, event: Event) {
        let mut out = Vec::new();
        self.mind.handle(now, event, &mut out);
        for effect in out {
            match effect {
                Effect::Publish(_) => self.published.push(effect),
                _ => self.wanted.push_back(effect),
            }
        }
    }
}
