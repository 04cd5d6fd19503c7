//! Users, speakers, networks and murderers, at random.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use landfall_controller::effects::Effect;
use landfall_controller::granting::verdict::addresses;
use landfall_controller::mind::Event;
use landfall_controller::status::{OURS, conditions_of};
use landfall_crds::VirtualIP;
use serde_json::json;

use crate::api::{KINDS, SERVICES};
use crate::cluster::{Cluster, Way, is_asked};
use crate::coverage::Coverage;
use crate::guards;
use crate::invariants;
use crate::ledger::{Ledger, holder};
use crate::objects::speaker;
use crate::random::Random;

pub const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// What an effect is about, as it was before.
struct Before {
    service_name: Option<String>,
    service: Option<Arc<Service>>,
    vip_name: Option<String>,
    vip: Option<Arc<VirtualIP>>,
}

/// No timer of a controller is longer, but for those that wait for a date.
const LONGEST_TIMER: Duration = Duration::from_secs(61);
/// A controller that waits for a date looks at the clock so often at least.
const LONGEST_WAIT: i64 = 3600;

pub struct Chaos {
    pub cluster: Cluster,
    pub random: Random,
    pub ledger: Ledger,
    /// Namespaces that go as soon as they are empty.
    pub ending: BTreeSet<String>,
    /// Whether speakers do as the VirtualIPs say, or are cut off.
    speakers_live: bool,
    /// Services that asked for an internal load balancer at the last quiet, and what they showed.
    internal: BTreeSet<(String, IpAddr)>,
    /// So many of the next VirtualIPs are not let in.
    refusals: usize,
    /// What was done, for the story of a failure.
    pub log: Vec<String>,
    pub coverage: Coverage,
}

impl Chaos {
    pub fn new(seed: u64, controllers: usize) -> Self {
        let mut cluster = Cluster::new(controllers);
        for (number, node) in NODES.iter().enumerate() {
            cluster.api.put_speaker(speaker(node, number as u8 + 1));
        }
        let mut chaos = Self {
            cluster,
            random: Random(seed),
            ledger: Ledger::default(),
            ending: BTreeSet::new(),
            speakers_live: true,
            internal: BTreeSet::new(),
            refusals: 0,
            log: Vec::new(),
            coverage: Coverage::default(),
        };
        chaos.create_pools();
        chaos.ledger.is_quiet(&chaos.cluster.api, &BTreeSet::new());
        chaos
    }

    /// Some time of disorder, then quiet, and what must hold then.
    pub fn round(&mut self, steps: usize) {
        self.speakers_live = !self.random.once_in(4);
        for _ in 0..steps {
            match self.random.below(20) {
                0..=3 => self.a_user_acts(),
                4 => self.something_breaks(),
                5 => self.a_speaker_acts(),
                _ => self.things_move_on(),
            }
        }
        self.become_quiet();
        if self.speakers_live {
            invariants::places_are_even(&self.cluster.api);
        }
        // What is kept for a little longer goes first, since a restart takes its time.
        self.dates_pass(300);
        self.nothing_more_is_wanted();
        if self.random.once_in(4) {
            self.dates_pass(i64::MAX);
            self.note("all dates have passed");
        }
    }

    /// For whoever has to find out what went wrong.
    pub fn tell_all(&self) {
        let api = &self.cluster.api;
        for (name, service) in &api.services {
            println!("= {name}: {}", json!(&**service));
            for controller in &self.cluster.controllers {
                let (namespace, name) = name.split_once('/').unwrap();
                let key = landfall_crds::ClaimRef { namespace: namespace.into(), name: name.into() };
                println!("=    {:?}", controller.mind.explain(&key));
            }
        }
        let others =
            api.vips.values().map(|vip| json!(&**vip)).chain(api.pools.values().map(|pool| json!(&**pool)));
        for object in others.chain([json!(api.namespaces.values().map(|it| &**it).collect::<Vec<_>>())]) {
            println!("= {object}");
        }
        let own = json!([
            api.nodes.values().map(|it| &**it).collect::<Vec<_>>(),
            api.service_cidrs.values().map(|it| &**it).collect::<Vec<_>>(),
        ]);
        println!("= {own}");
        for controller in &self.cluster.controllers {
            println!("= {:?}", controller.mind);
        }
        println!("= now {:?}", self.cluster.now());
    }

    pub fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        let kind = what.split_whitespace().next().unwrap_or_default();
        match self.coverage.reached.get_mut(kind) {
            Some(times) => *times += 1,
            None => drop(self.coverage.reached.insert(kind.to_owned(), 1)),
        }
        self.log.push(what);
    }

    /// Notes what somebody did other than a controller.
    pub fn was_done(&mut self, what: impl Into<String>) {
        self.coverage.operations += 1;
        self.note(what);
        self.ledger.follow(&self.cluster.api, true);
    }

    pub fn which(&mut self) -> usize {
        self.random.below(self.cluster.controllers.len())
    }

    /// The network, the API server and the clock do something; what cannot happen now gives way to what can.
    fn things_move_on(&mut self) {
        let which = self.which();
        let first = self.random.below(8);
        for way in first..first + 8 {
            let most = 1 + self.random.below(4);
            let done = match way % 8 {
                0 => u64::from(self.see_something(which)),
                // Watches mostly keep up.
                1 | 2 => (0..KINDS).map(|kind| self.see_all(which, kind)).sum(),
                3 | 4 => (0..most).map(|_| u64::from(self.cluster.answer(which))).sum(),
                5 if self.random.once_in(4) => u64::from(self.something_comes_late()),
                5 | 6 => (0..most).map(|_| u64::from(self.write(which, Way::Fine, true))).sum(),
                _ => {
                    self.time_passes();
                    1
                }
            };
            if done > 0 {
                self.coverage.operations += done;
                return;
            }
        }
    }

    fn see_all(&mut self, which: usize, kind: usize) -> u64 {
        let mut seen = 0;
        while self.cluster.deliver(which, kind) {
            seen += 1;
        }
        seen
    }

    fn time_passes(&mut self) {
        let times = [1, 1, 50, 50, 400, 400, 1500, 1500, 6000];
        let time = match self.random.below(1000) {
            0 => 4_000_000,
            1..40 => 40_000,
            _ => *self.random.pick(&times),
        };
        self.cluster.pass(Duration::from_millis(time));
    }

    /// One watch brings one change.
    fn see_something(&mut self, which: usize) -> bool {
        let first = self.random.below(KINDS);
        let mut kinds = (0..KINDS).map(|kind| (first + kind) % KINDS);
        let Some(kind) = kinds.find(|kind| self.cluster.lags(which, *kind)) else { return false };
        self.cluster.deliver(which, kind)
    }

    /// Sends an effect. Returns whether there was one.
    fn write(&mut self, which: usize, way: Way, may_crash: bool) -> bool {
        let nth = self.random.below(8);
        let Some(effect) = self.cluster.wanted(which, nth) else { return false };
        invariants::is_valid(effect);
        let kind = effect.name();
        if may_crash && self.random.once_in(survivals(kind).0) {
            self.crash(which, format!("before {kind}"));
            return true;
        }
        let Some(effect) = self.cluster.wanted(which, nth) else { return false };
        let before = self.before(effect);
        let is_refused = self.refusals > 0
            && matches!(effect, Effect::CreateVirtualIp { .. } | Effect::CreateServiceGuard { .. });
        let way = if is_refused { Way::Refused } else { way };
        self.refusals -= usize::from(is_refused);
        let Some((effect, done)) = self.cluster.write(which, nth, way) else { return false };
        guards::guard_last(&self.cluster.api, &self.ledger, &effect, !done);
        let fate = if done { "" } else { " refused" };
        self.note(format!("{kind}{fate} {} by {which}", about(&effect)));
        if let Some(vip) = before.vip_name.as_ref().and_then(|name| self.cluster.api.vips.get(name)) {
            // What comes late may well create a VirtualIP under an epoch of long ago.
            let controllers = self.cluster.controllers.len();
            invariants::epochs(&self.ledger, controllers, vip, before.vip.as_deref());
        }
        self.after(before);
        if may_crash && done && self.random.once_in(survivals(kind).1) {
            self.crash(which, format!("after {kind}"));
        }
        true
    }

    /// An effect arrives whose sender has crashed or been paused.
    fn something_comes_late(&mut self) -> bool {
        let Some(effect) = self.cluster.strays.pop_front() else { return false };
        let before = self.before(&effect);
        self.cluster.api.apply(&effect);
        self.ledger.came_late |= before.vip_name.is_some();
        self.note(format!("late {} {}", effect.name(), about(&effect)));
        self.after(before);
        true
    }

    /// What an effect is going to change.
    fn before(&self, effect: &Effect) -> Before {
        let api = &self.cluster.api;
        let (service_name, vip_name) = (service_of(effect), virtual_ip_of(effect).map(str::to_owned));
        let service = service_name.as_ref().and_then(|name| api.services.get(name)).map(Arc::clone);
        let vip = vip_name.as_ref().and_then(|name| api.vips.get(name)).map(Arc::clone);
        Before { service_name, service, vip_name, vip }
    }

    /// What must hold of each single change that a controller makes.
    fn after(&mut self, before: Before) {
        let api = &self.cluster.api;
        if let Some(name) = &before.service_name {
            let was = before.service.as_ref().map(|service| addresses(service)).unwrap_or_default();
            invariants::i4_unique(api, &self.ledger, name, &was);
            invariants::i5_stable(api, &mut self.ledger, name, &was);
        }
        let vip = before.vip_name.as_ref().and_then(|name| api.vips.get(name)).map(Arc::clone);
        if let Some(vip) = &vip {
            self.check_claims(vip, before.vip.as_deref());
            guards::guard_first(&self.ledger, vip, before.vip.as_deref());
        }
        self.ledger.follow(&self.cluster.api, false);
        if let Some(name) = &before.service_name {
            self.count_reason(name, before.service.as_deref());
        }
        if before.vip.is_some() && vip.is_none() {
            // While a VirtualIP is away, its name does not keep others out. Nobody's watch of Services
            // lags by as long as it takes to delete and to create again.
            for which in 0..self.cluster.controllers.len() {
                while self.cluster.deliver(which, SERVICES) {}
            }
        }
    }

    /// Whoever has come to claim the address may have it.
    fn check_claims(&self, vip: &VirtualIP, was: Option<&VirtualIP>) {
        let address = vip.address().unwrap();
        let counts = self.cluster.controllers.len() == 1 && !self.ledger.came_late;
        if counts && was.is_some_and(|was| was.spec.pool != vip.spec.pool) {
            for claim in &vip.spec.claims {
                invariants::quota(&self.cluster.api, &self.ledger, vip, was, claim);
            }
        }
        let before = was.map(|was| was.spec.claims.as_slice()).unwrap_or_default();
        for claim in &vip.spec.claims {
            let name = holder(claim);
            if before.iter().any(|known| holder(known) == name) || self.ledger.had(&name, address) {
                continue;
            }
            invariants::by_the_rules(&self.cluster.api, &self.ledger, vip, was, claim);
            if counts {
                invariants::quota(&self.cluster.api, &self.ledger, vip, was, claim);
            }
        }
    }

    /// Counts what a Service has just been told.
    fn count_reason(&mut self, name: &str, was: Option<&Service>) {
        let Some(is) = self.cluster.api.services.get(name) else { return };
        let told =
            |service: &Service| conditions_of(service).iter().find(|known| known.type_ == OURS[0]).cloned();
        if let Some(told_now) = told(is)
            && was.and_then(told).as_ref() != Some(&told_now)
        {
            *self.coverage.reasons.entry(told_now.reason).or_default() += 1;
        }
    }

    pub fn crash(&mut self, which: usize, point: String) {
        self.let_stray(which);
        self.cluster.crash(which);
        self.note(format!("crash of {which} {point}"));
        *self.coverage.crashes.entry(point).or_default() += 1;
    }

    /// Some of what the controller wants may be on its way already.
    fn let_stray(&mut self, which: usize) {
        for effect in self.cluster.forget_wanted(which) {
            if self.random.once_in(4) {
                self.cluster.strays.push_back(effect);
            }
        }
    }

    fn something_breaks(&mut self) {
        let which = self.which();
        let done = match self.random.below(18) {
            0 if self.cluster.wanted(which, 0).is_none() && !self.cluster.awaits_answer(which) => {
                self.crash(which, "between effects".to_owned());
                true
            }
            1..=3 => self.write(which, Way::LostBefore, true),
            4..=6 => self.write(which, Way::LostAfter, true),
            7 | 8 => {
                let kind = self.random.below(KINDS);
                self.cluster.relist(which, kind);
                self.note(format!("relist {kind} by {which}"));
                true
            }
            9 => {
                self.let_stray(which);
                let now = self.cluster.now();
                self.cluster.controllers[which].tell(now, Event::Leading(false));
                self.note(format!("paused {which}"));
                true
            }
            10 | 11 => {
                self.refusals = 1 + self.random.below(4);
                self.note("policy against VirtualIPs");
                true
            }
            16 | 17 => {
                let seconds = *self.random.pick(&[0, 1, 3, 40]);
                self.write(which, Way::Busy(seconds), true)
            }
            12.. => {
                let now = self.cluster.now();
                self.cluster.controllers[which].tell(now, Event::Leading(true));
                false
            }
            _ => false,
        };
        self.coverage.operations += u64::from(done);
    }

    fn a_speaker_acts(&mut self) {
        let names: Vec<String> = self.cluster.api.vips.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = self.random.pick(&names).clone();
        let before = self.cluster.api.version;
        self.speak(&name);
        self.coverage.operations += u64::from(self.cluster.api.version != before);
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

    /// Lets everything happen that can without anybody doing anything new, and looks at the result.
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
            let now = self.cluster.now().monotonic;
            let next = self.cluster.controllers.iter().filter_map(|it| it.mind.next_deadline()).min();
            let left = next.map(|at| at.saturating_duration_since(now));
            match left {
                _ if spoke => {}
                Some(left) if left <= LONGEST_TIMER => self.cluster.pass(left.max(Duration::from_millis(1))),
                _ => return self.check_quiet(),
            }
        }
        panic!("the cluster does not become quiet");
    }

    fn check_quiet(&mut self) {
        let api = &self.cluster.api;
        invariants::quiet(api, &self.ledger);
        self.internal = invariants::internal_ones(api, &self.ledger, &self.internal);
        self.ledger.is_quiet(api, &invariants::waiting(api));
        self.deadlines_are_dates(None);
    }

    /// `steady`: a controller wants to be woken by the time that the next date comes. One that has just
    /// started wants so for nothing else; others may have planned for a date that has been called off.
    fn deadlines_are_dates(&self, fresh: Option<usize>) {
        let api = &self.cluster.api;
        let next = invariants::dates(api).into_iter().min();
        let next = next.map(|date| (date - api.now).min(LONGEST_WAIT));
        for (which, controller) in self.cluster.controllers.iter().enumerate() {
            let now = self.cluster.now().monotonic;
            let deadline = controller.mind.next_deadline();
            let left = deadline.map(|at| at.saturating_duration_since(now).as_secs() as i64);
            let is_right = match (left, next) {
                (None, None) => true,
                (Some(left), Some(next)) => left <= next,
                (Some(_), None) => fresh != Some(which),
                (None, Some(_)) => false,
            };
            assert!(
                is_right,
                "steady: {which} wants to be woken in {left:?} s, the next date comes in {next:?} s"
            );
        }
    }

    /// Whatever is kept for so many seconds at most is free when they are over.
    fn dates_pass(&mut self, seconds: i64) {
        for _ in 0..100 {
            let now = self.cluster.api.now;
            let next = invariants::dates(&self.cluster.api).into_iter().min();
            let Some(next) = next.filter(|date| date - now <= seconds) else { return };
            // Controllers look at the clock once an hour, and speakers need no rest.
            self.cluster.pass(Duration::from_secs((next - now).max(1) as u64));
            self.become_quiet();
        }
        panic!("steady: what was kept is still kept: {:?}", invariants::dates(&self.cluster.api));
    }

    /// As the cluster settles, but under the eyes of the invariants.
    fn settle(&mut self) {
        while self.something_comes_late() {}
        for _ in 0..100_000 {
            let mut busy = false;
            for which in 0..self.cluster.controllers.len() {
                for kind in 0..KINDS {
                    while self.cluster.deliver(which, kind) {
                        busy = true;
                    }
                }
                while !self.cluster.controllers[which].wanted.is_empty() {
                    self.write(which, Way::Fine, false);
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

    /// `steady`: lists that bring nothing new want nothing, and a controller that starts anew writes
    /// nothing, though it may ask for what a list does not tell.
    fn nothing_more_is_wanted(&mut self) {
        let before = self.cluster.api.version;
        for which in 0..self.cluster.controllers.len() {
            for kind in 0..KINDS {
                self.cluster.relist(which, kind);
            }
            let wanted = &self.cluster.controllers[which].wanted;
            assert!(wanted.is_empty(), "steady: a list that brings nothing new makes it want {wanted:#?}");
        }
        let fresh = self.which();
        self.crash(fresh, "between effects".to_owned());
        for kind in 0..KINDS {
            self.cluster.relist(fresh, kind);
        }
        let wanted = &self.cluster.controllers[fresh].wanted;
        let asks =
            |effect: &Effect| matches!(effect, Effect::GetService { .. } | Effect::GetVirtualIp { .. });
        assert!(wanted.iter().all(asks), "steady: after a restart it wants {wanted:#?}");
        self.become_quiet();
        self.deadlines_are_dates(Some(fresh));
        assert_eq!(self.cluster.api.version, before, "steady: something was written");
    }
}

/// Of how many times that an effect of this kind is about to be sent, one is not, since its controller is
/// killed; and of how many times that it is done, one is its last act. The rarer the effect, the fewer, so
/// that all are seen.
fn survivals(kind: &str) -> (usize, usize) {
    match kind {
        "UnclaimVirtualIp" => (2, 1),
        "RemoveFinalizers" => (4, 3),
        "GetService" => (20, 20),
        "GetVirtualIp" | "SetVirtualIpStatus" => (6, 4),
        "AddFinalizers" | "CreateVirtualIp" | "SetIngress" => (7, 5),
        "DeleteVirtualIp" => (5, 4),
        "CreateServiceGuard" => (9, 4),
        "UpdateServiceGuard" | "DeleteServiceGuard" => (3, 2),
        "UpdateVirtualIp" => (14, 10),
        "SetConditions" => (30, 25),
        _ => (35, 25),
    }
}

/// The Service whose status or finalizers an effect writes.
fn service_of(effect: &Effect) -> Option<String> {
    match effect {
        Effect::AddFinalizers { service }
        | Effect::RemoveFinalizers { service }
        | Effect::SetIngress { service, .. }
        | Effect::SetConditions { service, .. } => Some(format!("{}/{}", service.namespace, service.name)),
        _ => None,
    }
}

/// The VirtualIP that an effect writes.
fn virtual_ip_of(effect: &Effect) -> Option<&str> {
    match effect {
        Effect::CreateVirtualIp { name, .. } => Some(name),
        Effect::UpdateVirtualIp { virtual_ip, .. }
        | Effect::SetVirtualIpStatus { virtual_ip, .. }
        | Effect::DeleteVirtualIp { virtual_ip }
        | Effect::UnclaimVirtualIp { virtual_ip } => Some(&virtual_ip.name),
        _ => None,
    }
}

fn about(effect: &Effect) -> String {
    match effect {
        Effect::AddFinalizers { service } | Effect::RemoveFinalizers { service } => {
            format!("{}/{}", service.namespace, service.name)
        }
        Effect::SetConditions { service, conditions } => {
            format!("{}/{} {}", service.namespace, service.name, told(conditions))
        }
        Effect::SetIngress { service, ingress, conditions } => {
            let ips: Vec<String> = ingress.iter().filter_map(|entry| entry.ip.clone()).collect();
            format!("{}/{} [{}] {}", service.namespace, service.name, ips.join(","), told(conditions))
        }
        Effect::CreateVirtualIp { name, spec } => {
            format!("{name} for {}", spec.claims.iter().map(holder).collect::<Vec<_>>().join(","))
        }
        Effect::UpdateVirtualIp { virtual_ip, spec } => {
            let claims: Vec<String> = spec.claims.iter().map(holder).collect();
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
        Effect::CreateServiceGuard { name, spec } => format!("{name} {:?}", spec.sources),
        Effect::UpdateServiceGuard { guard, spec } => format!("{} {:?}", guard.name, spec.sources),
        Effect::DeleteServiceGuard { guard } => guard.name.clone(),
        Effect::GetService { name, .. } | Effect::GetVirtualIp { name } => name.clone(),
        Effect::Publish(note) => note.reason.to_owned(),
    }
}

fn told(conditions: &[Condition]) -> &str {
    conditions.first().map_or("", |granted| &granted.reason)
}
