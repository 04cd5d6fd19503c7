//! What users do, wisely or not.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use landfall_crds::address::Family;
use landfall_crds::{Reservation, VirtualIP, VirtualIPSpec, virtual_ip_name};

use crate::api::as_strategy_has_it;
use crate::chaos::Chaos;
use crate::invariants;
use crate::objects::{pool, service};
use crate::random::Random;

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const POOLS: [&str; 3] = ["red", "green", "blue"];

impl Chaos {
    pub fn a_user_acts(&mut self) {
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
