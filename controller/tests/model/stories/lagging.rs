//! Two controllers at once: writes and answers that come late, and watches that lag.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use landfall_controller::granting::verdict::addresses;
use landfall_crds::names::finalizers::VIRTUAL_IP_CLAIMED;
use landfall_crds::{Reservation, VirtualIP, VirtualIPSpec};

use super::annotate;
use crate::api::{KINDS, POOLS, SERVICES, VIPS, name_of};
use crate::cluster::{Cluster, Way};
use crate::objects::{pool, service, speaker};

/// Two controllers that both write, without election.
fn twins() -> Cluster {
    let mut cluster = Cluster::new(2);
    for number in 1..=3_u8 {
        cluster.api.put_speaker(speaker(&format!("n{number}"), number));
    }
    cluster.api.put_pool(pool("lan", &["10.0.0.50-10.0.0.53"]));
    cluster.quiet();
    cluster
}

impl Cluster {
    /// One controller works on until it wants such an effect, which then lies before the API server.
    fn work_until(&mut self, which: usize, effect: &str) {
        for _ in 0..1000 {
            for kind in 0..KINDS {
                while self.deliver(which, kind) {}
            }
            if self.wants(which, effect) {
                return;
            }
            if self.write(which, 0, Way::Fine).is_none() {
                let next = self.controllers[which].mind.next_deadline();
                let next = next.unwrap_or_else(|| panic!("{which} never wants {effect}"));
                self.pass(next.saturating_duration_since(self.now().monotonic));
            }
            while self.answer(which) {}
        }
        panic!("{which} does not come to want {effect}");
    }

    /// One controller works on until it wants nothing more for now.
    fn work(&mut self, which: usize) {
        for _ in 0..1000 {
            let mut busy = false;
            for kind in 0..KINDS {
                while self.deliver(which, kind) {
                    busy = true;
                }
            }
            busy |= self.write(which, 0, Way::Fine).is_some();
            while self.answer(which) {
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("{which} does not come to an end");
    }

    /// All that there is of these kinds, in this order.
    fn see(&mut self, which: usize, kinds: &[usize]) {
        for kind in kinds {
            while self.deliver(which, *kind) {}
        }
    }

    fn wants(&self, which: usize, effect: &str) -> bool {
        self.controllers[which].wanted.iter().any(|wanted| name_of(wanted) == effect)
    }

    /// Sends what lies before the API server by that name. Returns whether it was done.
    fn send(&mut self, which: usize, effect: &str) -> bool {
        let wanted = &self.controllers[which].wanted;
        let nth = wanted.iter().position(|wanted| name_of(wanted) == effect).unwrap();
        self.write(which, nth, Way::Fine).unwrap().1
    }

    /// `i4_unique`: no address stands in the status of two Services.
    fn is_unique(&self) {
        let mut shown = BTreeMap::new();
        for (name, service) in &self.api.services {
            for address in addresses(service) {
                let other = shown.insert(address, name);
                assert_eq!(other, None, "i4_unique: {address} is shown by {name} and by another");
            }
        }
    }

    fn ask(&mut self, name: &str, ips: &str) {
        self.edit(name, |service| annotate(service, "ips", ips));
    }

    fn claimed_by(&self, address: &str) -> Vec<&str> {
        self.vip(address).spec.claims.iter().map(|claim| claim.name.as_str()).collect()
    }

    /// As when its definition goes: no finalizer holds the VirtualIP.
    fn lose_vip(&mut self, name: &str) {
        let mut vip = self.vip(name).clone();
        vip.metadata.finalizers = None;
        self.api.put_vip(vip);
        self.api.delete_vip(name);
    }
}

#[test]
fn a_claim_that_comes_late_does_not_push_another_out() {
    let mut cluster = twins();
    let reservation = Reservation { namespace: "shop".into(), ..Reservation::default() };
    let spec = VirtualIPSpec {
        address: "10.0.0.50".into(),
        reservation: Some(reservation),
        ..VirtualIPSpec::default()
    };
    cluster.api.put_vip(VirtualIP::new("10.0.0.50", spec));
    cluster.quiet();
    let mut first = service("first");
    annotate(&mut first, "ips", "10.0.0.50");
    cluster.api.put_service(first);
    cluster.work_until(0, "UpdateVirtualIp");
    // Before that is written the user changes their mind, and another Service gets the address.
    cluster.ask("first", "10.0.0.51");
    let mut second = service("second");
    annotate(&mut second, "ips", "10.0.0.50");
    cluster.api.put_service(second);
    cluster.work(1);
    // It waits until the past of the address is noted.
    cluster.pass(Duration::from_secs(1));
    cluster.work(1);
    assert_eq!(cluster.claimed_by("10.0.0.50"), ["second"]);
    assert!(!cluster.send(0, "UpdateVirtualIp"), "it was decided on another state");
    assert_eq!(cluster.claimed_by("10.0.0.50"), ["second"]);
    cluster.quiet();
    assert_eq!(cluster.addresses("first"), ["10.0.0.51"]);
    assert_eq!(cluster.addresses("second"), ["10.0.0.50"]);
}

#[test]
fn a_deletion_that_comes_late_does_not_take_what_is_in_use_again() {
    let mut cluster = twins();
    cluster.create("web", |_| {});
    cluster.ask("web", "10.0.0.53");
    cluster.work_until(0, "DeleteVirtualIp");
    let uid = cluster.vip("10.0.0.50").metadata.uid.clone();
    cluster.ask("web", "10.0.0.50");
    cluster.work(1);
    assert_eq!(cluster.claimed_by("10.0.0.50"), ["web"]);
    assert!(!cluster.send(0, "DeleteVirtualIp"), "it was decided on another state");
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    assert_eq!(cluster.vip("10.0.0.50").metadata.uid, uid, "it was never away");
}

#[test]
fn a_removal_that_comes_late_does_not_take_a_guard_that_is_needed_again() {
    let ranges = |list: &'static [&'static str]| {
        move |service: &mut Service| {
            let list = list.iter().map(ToString::to_string).collect();
            service.spec.as_mut().unwrap().load_balancer_source_ranges = Some(list);
        }
    };
    let mut cluster = twins();
    cluster.create("web", ranges(&["10.0.0.0/8"]));
    cluster.edit("web", ranges(&[]));
    cluster.work_until(0, "DeleteServiceGuard");
    cluster.edit("web", ranges(&["192.0.2.0/24"]));
    cluster.work(1);
    assert_eq!(cluster.api.guards["shop.web"].spec.sources.ipv4, ["192.0.2.0/24"]);
    assert!(!cluster.send(0, "DeleteServiceGuard"), "it was decided on another state");
    cluster.quiet();
    assert_eq!(cluster.api.guards["shop.web"].spec.sources.ipv4, ["192.0.2.0/24"]);
}

#[test]
fn an_answer_that_comes_after_the_end_brings_nothing_back() {
    let mut cluster = twins();
    cluster.api.put_service(service("web"));
    cluster.see(0, &[SERVICES]);
    assert!(cluster.send(0, "AddFinalizers"));
    let mut stripped = cluster.get("web").clone();
    stripped.metadata.finalizers = None;
    cluster.api.put_service(stripped);
    cluster.api.delete_service("shop/web");
    cluster.relist(0, SERVICES);
    cluster.answer(0);
    let wanted: Vec<_> = cluster.controllers[0].wanted.iter().map(name_of).collect();
    assert_eq!(wanted, [""; 0], "for a Service that is gone");
}

/// The first rule of the mind: a claim that is known from a watch may be long gone.
#[test]
fn an_address_is_not_shown_on_the_word_of_a_watch_that_lags() {
    let mut cluster = twins();
    cluster.create("web", |_| {});
    // The first controller's watch of VirtualIPs hangs from here on.
    cluster.ask("web", "10.0.0.53");
    cluster.work_until(1, "DeleteVirtualIp");
    cluster.work(1);
    assert!(!cluster.has_vip("10.0.0.50"));
    let mut next = service("next");
    annotate(&mut next, "ips", "10.0.0.50");
    cluster.api.put_service(next);
    cluster.work_until(1, "SetIngress");
    cluster.ask("web", "10.0.0.50");
    cluster.see(0, &[SERVICES]);
    assert!(cluster.send(1, "SetIngress"));
    assert_eq!(cluster.addresses("next"), ["10.0.0.50"]);
    for _ in 0..100 {
        cluster.write(0, 0, Way::Fine);
        cluster.answer(0);
        cluster.is_unique();
    }
    cluster.quiet();
    assert_eq!(cluster.addresses("next"), ["10.0.0.50"]);
    assert_eq!(cluster.addresses("web"), ["10.0.0.53"], "until it can have what it asks for");
}

/// What is shown is in use: who has claimed it in the gap while its VirtualIP was away gives way.
#[test]
fn a_claim_from_the_gap_gives_way_to_who_shows_the_address() {
    let mut cluster = twins();
    cluster.create("web", |_| {});
    let mut taken = cluster.vip("10.0.0.50").clone();
    cluster.lose_vip("10.0.0.50");
    cluster.api.put_service(service("other"));
    let uid = cluster.get("other").metadata.uid.clone().unwrap();
    for (claim, port) in taken.spec.claims.iter_mut().zip(&mut taken.spec.ports) {
        (claim.name, claim.uid, port.claim.name) = ("other".into(), uid.clone(), "other".into());
    }
    taken.metadata.finalizers = Some(vec![VIRTUAL_IP_CLAIMED.into()]);
    cluster.api.put_vip(VirtualIP { status: None, ..taken });
    for which in 0..2 {
        cluster.see(which, &[VIPS, SERVICES]);
    }
    for _ in 0..200 {
        for which in 0..2 {
            cluster.see(which, &[SERVICES, VIPS]);
            cluster.write(which, 0, Way::Fine);
            cluster.answer(which);
            cluster.is_unique();
        }
    }
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
    assert_eq!(cluster.claimed_by("10.0.0.50"), ["web"]);
    assert_eq!(cluster.addresses("other"), ["10.0.0.51"]);
}

#[test]
fn what_vanishes_before_it_is_shown_goes_to_nobody_who_waits_for_it() {
    let mut cluster = twins();
    cluster.create("eager", |_| {});
    cluster.api.put_service(service("web"));
    cluster.work_until(0, "SetIngress");
    cluster.ask("eager", "10.0.0.51");
    cluster.see(0, &[SERVICES]);
    cluster.write(0, 0, Way::LostBefore);
    cluster.answer(0);
    cluster.lose_vip("10.0.0.51");
    cluster.work(0);
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.51"]);
    assert_eq!(cluster.addresses("eager"), ["10.0.0.50"], "though it is as old and comes first by name");
}

/// Another controller may have written it into the status a moment ago.
#[test]
fn what_has_vanished_and_is_not_wanted_back_may_be_in_use_all_the_same() {
    let mut cluster = twins();
    cluster.api.put_service(service("first"));
    let mut next = service("next");
    annotate(&mut next, "ips", "10.0.0.50");
    cluster.api.put_service(next);
    cluster.work_until(0, "SetIngress");
    cluster.work(1);
    assert_eq!(cluster.addresses("first"), ["10.0.0.50"], "which the first controller does not see");
    cluster.api.put_pool(pool("lan", &["10.0.0.51-10.0.0.53"]));
    cluster.see(0, &[POOLS]);
    cluster.lose_vip("10.0.0.50");
    cluster.see(0, &[VIPS]);
    cluster.api.put_pool(pool("another", &["10.0.0.50/32"]));
    cluster.see(0, &[POOLS]);
    for _ in 0..100 {
        // What it wants for the first Service hangs.
        let mut wanted = cluster.controllers[0].wanted.iter();
        if let Some(nth) = wanted.position(|effect| !format!("{effect:?}").contains("first")) {
            cluster.write(0, nth, Way::Fine);
        }
        cluster.answer(0);
        cluster.is_unique();
    }
    cluster.quiet();
    assert_eq!(cluster.addresses("first"), ["10.0.0.50"]);
    assert_eq!(cluster.addresses("next"), [""; 0]);
}
