//! Users, speakers, networks and murderers, at random.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use landfall_controller::effects::Effect;
use landfall_controller::mind::Event;
use landfall_crds::address::Family;
use landfall_crds::{Reservation, VirtualIP, VirtualIPSpec, virtual_ip_name};

use crate::api::{KINDS, SERVICES, as_strategy_has_it, name_of};
use crate::cluster::{Cluster, Way};
use crate::invariants::{self, Asked};
use crate::objects::{pool, service, speaker};
use crate::random::Random;

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const POOLS: [&str; 3] = ["red", "green", "blue"];
const NODES: [&str; 3] = ["n1", "n2", "n3"];

pub struct Chaos {
    pub cluster: Cluster,
    pub random: Random,
    asked: Asked,
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

    fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        let kind = what.split_whitespace().next().unwrap_or_default().to_owned();
        *self.reached.entry(kind).or_default() += 1;
        self.log.push(what);
    }

    fn which(&mut self) -> usize {
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
    }

    fn become_quiet(&mut self) {
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

    fn a_user_acts(&mut self) {
        let name = *self.random.pick(&NAMES);
        let key = format!("shop/{name}");
        let known = self.cluster.api.services.get(&key).map(|known| (**known).clone());
        match self.random.below(18) {
            0..=3 => match known {
                None => self.create(name),
                Some(_) => self.edit_request(&key),
            },
            4 => {
                self.cluster.api.delete_service(&key);
                self.note(format!("delete {key}"));
            }
            5 => self.flip_type(&key),
            6 => self.edit_request(&key),
            7 => self.edit(&key, "edit-ports", false, |service, random| {
                let spec = service.spec.as_mut().unwrap();
                spec.ports.as_mut().unwrap()[0].port = 80 + random.below(3) as i32;
            }),
            8 => self.edit(&key, "edit-families", true, |service, random| {
                let spec = service.spec.as_mut().unwrap();
                let dual = random.once_in(2);
                let both =
                    if dual { vec!["IPv4".to_owned(), "IPv6".to_owned()] } else { vec!["IPv4".to_owned()] };
                spec.ip_families = Some(both);
                let policies = ["PreferDualStack", "RequireDualStack"];
                let policy = if dual { *random.pick(&policies) } else { "SingleStack" };
                spec.ip_family_policy = Some(policy.to_owned());
            }),
            9 | 10 => self.edit_pools(),
            11 | 12 => {
                let names: Vec<String> = self.cluster.api.vips.keys().cloned().collect();
                if !names.is_empty() {
                    let vip = self.random.pick(&names).clone();
                    self.cluster.api.delete_vip(&vip);
                    self.note(format!("delete-vip {vip}"));
                }
            }
            13 => {
                for vip in self.cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
                    self.cluster.api.delete_vip(&vip);
                }
                self.note("delete-all-vips");
            }
            14 => self.restore(&key),
            15 => self.reserve(name),
            16 => {
                // By hand, and not on the way out: there it would end the Service at once. Together
                // with a VirtualIP that goes at the same moment, nothing would be left to tell that
                // the address is ours.
                self.become_quiet();
                self.edit(&key, "strip-finalizers", false, |service, _| {
                    service.metadata.finalizers = None;
                });
                self.become_quiet();
            }
            _ => self.lose_all_vips_when_quiet(),
        }
    }

    fn create(&mut self, name: &str) {
        let mut new = service(name);
        let spec = new.spec.as_mut().unwrap();
        if self.random.once_in(3) {
            spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
            let policies = ["PreferDualStack", "RequireDualStack"];
            spec.ip_family_policy = Some((*self.random.pick(&policies)).to_owned());
        }
        match self.random.below(8) {
            0 => spec.load_balancer_class = Some("example.com/other".into()),
            1 => spec.load_balancer_class = Some("landfall.dev/lan".into()),
            2 => {
                let ip = format!("192.0.2.{}", name.as_bytes()[0]);
                let entry = LoadBalancerIngress { ip: Some(ip), ..LoadBalancerIngress::default() };
                let balancer = LoadBalancerStatus { ingress: Some(vec![entry]) };
                new.status =
                    Some(ServiceStatus { load_balancer: Some(balancer), ..ServiceStatus::default() });
            }
            _ => {}
        }
        ask(&mut new, &mut self.random);
        self.cluster.api.put_service(new);
        self.note(format!("create {name}"));
    }

    fn edit(&mut self, key: &str, what: &str, asks: bool, change: impl FnOnce(&mut Service, &mut Random)) {
        let Some(known) = self.cluster.api.services.get(key) else { return };
        let mut service = (**known).clone();
        if service.metadata.deletion_timestamp.is_some() || invariants::is_anothers(&service) {
            return;
        }
        change(&mut service, &mut self.random);
        self.cluster.api.put_service(as_strategy_has_it(service));
        let asks_for =
            self.cluster.api.services.get(key).and_then(|known| known.metadata.annotations.clone());
        self.note(format!("{what} {key} {:?}", asks_for.unwrap_or_default()));
        if asks {
            for family in [Family::IPv4, Family::IPv6] {
                *self.asked.entry((key.to_owned(), family)).or_default() += 1;
            }
        }
    }

    fn edit_request(&mut self, key: &str) {
        self.edit(key, "edit-request", true, ask);
    }

    fn flip_type(&mut self, key: &str) {
        self.edit(key, "flip-type", true, |service, _| {
            let spec = service.spec.as_mut().unwrap();
            let is_balancer = spec.type_.as_deref() == Some("LoadBalancer");
            spec.type_ = Some(if is_balancer { "NodePort" } else { "LoadBalancer" }.to_owned());
        });
    }

    fn edit_pools(&mut self) {
        let name = *self.random.pick(&POOLS);
        if self.random.once_in(4) {
            self.cluster.api.delete_pool(name);
            return self.note(format!("delete-pool {name}"));
        }
        let ranges: [&[&str]; 5] = [
            &["10.0.0.16/30", "fd00::10-fd00::12"],
            &["10.0.0.18-10.0.0.22"],
            &["fd00::11-fd00::14"],
            &["10.0.0.24/31", "fd00::20/127"],
            &["10.0.0.0-10.0.0.3"],
        ];
        let mut new = pool(name, ranges[self.random.below(ranges.len())]);
        new.spec.auto_assign = !self.random.once_in(4);
        new.spec.priority = self.random.below(3) as i32;
        new.spec.require_source_ranges = self.random.once_in(6);
        new.status = self.cluster.api.pools.get(name).and_then(|known| known.status.clone());
        self.cluster.api.put_pool(new);
        self.note(format!("edit-pool {name}"));
    }

    /// As after a restore from a backup: the same manifest, another uid, no status.
    fn restore(&mut self, key: &str) {
        let Some(known) = self.cluster.api.services.get(key) else { return };
        let mut service = (**known).clone();
        if service.metadata.deletion_timestamp.is_some() || invariants::is_anothers(&service) {
            return;
        }
        let mut gone = service.clone();
        gone.metadata.finalizers = None;
        self.cluster.api.put_service(gone);
        self.cluster.api.delete_service(key);
        service.status = None;
        service.metadata.finalizers = None;
        self.cluster.api.put_service(service);
        self.note(format!("restore {key}"));
    }

    fn reserve(&mut self, name: &str) {
        let address = *self.random.pick(&["10.0.0.17", "10.0.0.20", "fd00::11"]);
        let vip = virtual_ip_name(address.parse().unwrap());
        match self.cluster.api.vips.get(&vip) {
            None => {
                let reservation = Reservation {
                    namespace: "shop".into(),
                    name: Some(name.into()),
                    ..Reservation::default()
                };
                let spec = VirtualIPSpec {
                    address: address.into(),
                    reservation: Some(reservation),
                    ..VirtualIPSpec::default()
                };
                self.cluster.api.put_vip(VirtualIP::new(&vip, spec));
                self.note(format!("reserve {address} for {name}"));
            }
            Some(known) if known.spec.reservation.is_some() => {
                let mut object = (**known).clone();
                object.spec.reservation = None;
                self.cluster.api.put_vip(object);
                self.note(format!("unreserve {address}"));
            }
            Some(_) => {}
        }
    }

    /// As when the CRDs are deleted: no finalizer holds. Everybody knows who had what by then.
    fn lose_all_vips_when_quiet(&mut self) {
        if !self.random.once_in(4) {
            return;
        }
        self.become_quiet();
        for name in self.cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
            let mut vip = (*self.cluster.api.vips[&name]).clone();
            if vip.spec.reservation.is_some() {
                continue;
            }
            vip.metadata.finalizers = None;
            self.cluster.api.put_vip(vip);
            self.cluster.api.delete_vip(&name);
        }
        self.note("lose-all-vips");
        if self.random.once_in(2) {
            let which = self.which();
            self.cluster.crash(which);
        }
    }
}

/// Asks for something, or for nothing.
fn ask(service: &mut Service, random: &mut Random) {
    let annotations = service.metadata.annotations.get_or_insert_default();
    annotations.clear();
    match random.below(8) {
        0 => {
            let ips =
                ["10.0.0.16", "10.0.0.17", "10.0.0.19", "fd00::10", "10.0.0.18,fd00::12", "10.9.9.9", "web"];
            annotations.insert("landfall.dev/ips".into(), (*random.pick(&ips)).into());
        }
        1 => {
            let pools = ["red", "green,blue", "none", "blue"];
            annotations.insert("landfall.dev/pool".into(), (*random.pick(&pools)).into());
        }
        _ => {}
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
