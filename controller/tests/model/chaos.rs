//! Users, speakers, networks and murderers, at random.

use std::collections::BTreeMap;
use std::time::Duration;

use landfall_controller::effects::Effect;
use landfall_controller::mind::Event;

use crate::api::{KINDS, SERVICES, name_of};
use crate::cluster::{Cluster, Way, is_asked};
use crate::invariants::{self, Asked};
use crate::objects::{pool, speaker};
use crate::random::Random;

const NODES: [&str; 3] = ["n1", "n2", "n3"];

pub struct Chaos {
    pub cluster: Cluster,
    pub random: Random,
    pub asked: Asked,
    /// Whether speakers do as the VirtualIPs say, or are cut off.
    speakers_live: bool,
    /// What was done, for the story of a failure and for the count of what was reached.
    pub log: Vec<String>,
    pub reached: BTreeMap<String, u64>,
}

impl Chaos {
    pub fn new(seed: u64, controllers: usize) -> Self {
        let mut cluster = Cluster::new(controllers);
        for (number, node) in NODES.iter().enumerate() {
            cluster.api.put_speaker(speaker(node, number as u8 + 1));
        }
        cluster.api.put_pool(pool("red", &["10.0.0.16/30", "fd00::10-fd00::12"]));
        Self {
            cluster,
            random: Random(seed),
            asked: Asked::new(),
            speakers_live: true,
            log: Vec::new(),
            reached: BTreeMap::new(),
        }
    }

    /// Some time of disorder, then quiet, and what must hold then.
    pub fn round(&mut self, steps: usize) {
        self.speakers_live = !self.random.once_in(4);
        for _ in 0..steps {
            match self.random.below(10) {
                0 => self.a_user_acts(),
                1 => self.something_breaks(),
                2 => self.a_speaker_acts(),
                _ => self.things_move_on(),
            }
        }
        self.become_quiet();
        invariants::quiet(&self.cluster.api);
        if self.speakers_live {
            invariants::places_are_even(&self.cluster.api);
        }
        // Who still waits for what it asked for may get it any time.
        let waits = invariants::waiting(&self.cluster.api);
        self.asked.retain(|(name, _), _| waits.contains(name));
        self.nothing_more_is_wanted();
    }

    /// For whoever has to find out what went wrong.
    pub fn tell_all(&self) {
        for (name, service) in &self.cluster.api.services {
            println!("{name}: {:?} {:?}", service.metadata, service.spec);
            println!("    {:?}", service.status);
            for controller in &self.cluster.controllers {
                let (namespace, name) = name.split_once('/').unwrap();
                let key = landfall_crds::ClaimRef { namespace: namespace.into(), name: name.into() };
                println!("    {:?}", controller.mind.explain(&key));
            }
        }
        for (name, vip) in &self.cluster.api.vips {
            println!("{name}: {:?} {:?}", vip.spec, vip.status);
        }
        for (name, pool) in &self.cluster.api.pools {
            println!("{name}: {:?} {:?}", pool.spec, pool.status);
        }
    }

    pub fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        let kind = what.split_whitespace().next().unwrap_or_default().to_owned();
        *self.reached.entry(kind).or_default() += 1;
        self.log.push(what);
    }

    pub fn which(&mut self) -> usize {
        self.random.below(self.cluster.controllers.len())
    }

    fn things_move_on(&mut self) {
        let which = self.which();
        match self.random.below(8) {
            0 | 1 => {
                let kind = self.random.below(KINDS);
                self.cluster.deliver(which, kind);
            }
            2 => {
                // Watches mostly keep up.
                for kind in 0..KINDS {
                    self.cluster.deliver(which, kind);
                }
            }
            3 | 4 => {
                self.cluster.answer(which);
            }
            5 | 6 => self.write(which, Way::Fine),
            _ => {
                let time = *self.random.pick(&[1, 50, 400, 1500, 6000]);
                self.cluster.pass(Duration::from_millis(time));
            }
        }
    }

    fn write(&mut self, which: usize, way: Way) {
        let nth = self.random.below(8);
        let before = invariants::shown(&self.cluster.api);
        let vips = self.cluster.api.vips.len();
        let Some((effect, done)) = self.cluster.write(which, nth, way) else { return };
        if matches!(effect, Effect::DeleteVirtualIp { .. }) && self.cluster.api.vips.len() < vips {
            // While a VirtualIP is away, its name does not keep others out. Nobody's watch of Services
            // lags by as long as it takes to delete and to create again.
            for which in 0..self.cluster.controllers.len() {
                while self.cluster.deliver(which, SERVICES) {}
            }
        }
        let (kind, about) = (name_of(&effect), about(&effect));
        let fate = if done { "" } else { " refused" };
        self.note(format!("{kind}{fate} {about} by {which}"));
        invariants::i4_unique(&self.cluster.api);
        invariants::i5_stable(&before, &self.cluster.api, &mut self.asked);
    }

    fn something_breaks(&mut self) {
        let which = self.which();
        match self.random.below(8) {
            0 => {
                let last = self.log.iter().rev().find(|line| line.ends_with(&format!("by {which}")));
                let after =
                    last.and_then(|line| line.split_whitespace().next()).unwrap_or("start").to_owned();
                self.cluster.crash(which);
                self.note(format!("crash-after-{after} of {which}"));
            }
            1 | 2 => self.write(which, Way::LostBefore),
            3 | 4 => self.write(which, Way::LostAfter),
            5 => {
                let kind = self.random.below(KINDS);
                self.cluster.relist(which, kind);
                self.note(format!("relist {kind} by {which}"));
            }
            6 => {
                let now = self.cluster.now();
                self.cluster.controllers[which].tell(now, Event::Leading(false));
                self.note(format!("paused {which}"));
            }
            _ => {
                let now = self.cluster.now();
                self.cluster.controllers[which].tell(now, Event::Leading(true));
            }
        }
    }

    fn a_speaker_acts(&mut self) {
        let names: Vec<String> = self.cluster.api.vips.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = self.random.pick(&names).clone();
        self.speak(&name);
    }

    /// The speakers' answer to what a VirtualIP says.
    fn speak(&mut self, name: &str) {
        if !self.speakers_live {
            return;
        }
        let vip = &self.cluster.api.vips[name];
        let placed = vip.spec.placement.iter().flat_map(|placement| &placement.candidates);
        let candidates: Vec<String> = placed.map(|candidate| candidate.node.clone()).collect();
        let may = !vip.spec.claims.is_empty() && !candidates.is_empty();
        let does = vip.status.as_ref().is_some_and(|status| status.announcer.is_some());
        if may && !does {
            let node = self.random.pick(&candidates).clone();
            self.cluster.announce(name, Some(&node));
        }
        if does && !may {
            self.cluster.announce(name, None);
        }
        if does && may && is_asked(&self.cluster.api.vips[name]) {
            self.cluster.announce(name, Some(&candidates[0]));
            self.note("take-over by a raised epoch");
        }
    }

    pub fn become_quiet(&mut self) {
        let now = self.cluster.now();
        for controller in &mut self.cluster.controllers {
            controller.tell(now, Event::Leading(true));
        }
        for _ in 0..1000 {
            self.settle();
            let before = self.cluster.api.version;
            for name in self.cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
                self.speak(&name);
            }
            let spoke = self.cluster.api.version != before;
            let next = self.cluster.controllers.iter().filter_map(|it| it.mind.next_deadline()).min();
            match next {
                _ if spoke => {}
                None => return,
                Some(at) => {
                    let left = at.saturating_duration_since(self.cluster.now().monotonic);
                    self.cluster.pass(left.max(Duration::from_millis(1)));
                }
            }
        }
        panic!("the cluster does not become quiet");
    }

    /// As the cluster settles, but under the eyes of the invariants.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = false;
            for which in 0..self.cluster.controllers.len() {
                for kind in 0..KINDS {
                    while self.cluster.deliver(which, kind) {
                        busy = true;
                    }
                }
                while !self.cluster.controllers[which].wanted.is_empty() {
                    self.write(which, Way::Fine);
                    busy = true;
                }
                while self.cluster.answer(which) {
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the cluster does not settle");
    }

    /// `steady`: lists that bring nothing new want nothing, and nor does a controller that starts anew.
    fn nothing_more_is_wanted(&mut self) {
        let before = self.cluster.api.version;
        for which in 0..self.cluster.controllers.len() {
            for kind in 0..KINDS {
                self.cluster.relist(which, kind);
            }
            let wanted = &self.cluster.controllers[which].wanted;
            assert!(wanted.is_empty(), "steady: a list that brings nothing new makes it want {wanted:#?}");
            assert_eq!(self.cluster.controllers[which].mind.next_deadline(), None, "steady");
        }
        let fresh = self.which();
        self.cluster.crash(fresh);
        self.note("restart when quiet");
        for kind in 0..KINDS {
            self.cluster.relist(fresh, kind);
        }
        let wanted = &self.cluster.controllers[fresh].wanted;
        assert!(wanted.is_empty(), "steady: after a restart it wants {wanted:#?}");
        self.become_quiet();
        assert_eq!(self.cluster.api.version, before, "steady: something was written");
    }
}

fn about(effect: &Effect) -> String {
    match effect {
        Effect::AddFinalizers { service }
        | Effect::RemoveFinalizers { service }
        | Effect::SetConditions { service, .. } => service.name.clone(),
        Effect::SetIngress { service, ingress, .. } => {
            let ips: Vec<String> = ingress.iter().filter_map(|entry| entry.ip.clone()).collect();
            format!("{} {}", service.name, ips.join(","))
        }
        Effect::CreateVirtualIp { name, spec } => format!("{name} for {}", spec.claims[0].name),
        Effect::UpdateVirtualIp { virtual_ip, spec } => {
            let claims: Vec<&str> = spec.claims.iter().map(|claim| claim.name.as_str()).collect();
            format!("{} claims [{}]", virtual_ip.name, claims.join(","))
        }
        Effect::SetVirtualIpStatus { virtual_ip, .. }
        | Effect::DeleteVirtualIp { virtual_ip }
        | Effect::UnclaimVirtualIp { virtual_ip } => virtual_ip.name.clone(),
        Effect::SetPoolStatus { pool, status } => {
            let counts = |count: Option<landfall_crds::Capacity>| {
                count.map_or("-".to_owned(), |it| {
                    format!("{}/{}/{}/{}", it.total, it.granted, it.reserved, it.available)
                })
            };
            format!("{} v4 {} v6 {}", pool.name, counts(status.ipv4), counts(status.ipv6))
        }
        Effect::GetService { name, .. } | Effect::GetVirtualIp { name } => name.clone(),
        Effect::Publish(note) => note.reason.to_owned(),
    }
}
