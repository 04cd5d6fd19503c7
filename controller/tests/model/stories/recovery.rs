//! After a disaster.

use std::time::Duration;

use serde_json::json;

use super::{annotate, dual, pools};
use crate::api::{KINDS, SERVICES};
use crate::cluster::{Cluster, Way};

fn lan() -> Cluster {
    pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.69", "fd00::50/124"], "reservations": {}}))])
}

/// Services of every kind, whose addresses are not those that they would be given in another order.
fn a_full_house() -> Cluster {
    let mut cluster = lan();
    for name in ["gone1", "single", "gone2"] {
        cluster.create(name, |_| {});
    }
    cluster.create("dual", |service| dual(service, "RequireDualStack"));
    cluster.create("asked", |service| annotate(service, "ips", "10.0.0.60"));
    cluster.create("kept", |service| annotate(service, "reserve", "true"));
    for (name, port) in [("web", 80), ("tls", 443)] {
        cluster.create(name, |service| {
            annotate(service, "sharing-key", "k");
            service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = port;
        });
    }
    cluster.create("office/other", |_| {});
    cluster.delete("gone1");
    cluster.delete("gone2");
    cluster
}

fn all_addresses(cluster: &Cluster) -> Vec<(String, Vec<String>)> {
    cluster.api.services.keys().map(|name| (name.clone(), cluster.addresses(name))).collect()
}

impl Cluster {
    /// Sees everything and takes so many steps.
    fn settle_for(&mut self, steps: usize) {
        for kind in 0..KINDS {
            while self.deliver(0, kind) {}
        }
        for _ in 0..steps {
            self.write(0, 0, Way::Fine);
            self.answer(0);
        }
    }
}

/// What a backup tool brings back of the objects.
#[derive(Clone, Copy, Debug)]
struct Backup {
    /// The status of Services.
    status: bool,
    /// Finalizers of all.
    finalizers: bool,
    /// The VirtualIPs, and their status.
    virtual_ips: Option<bool>,
    /// The namespaces are made anew, too.
    namespaces: bool,
}

/// With the controller down everything is lost and restored under new uids.
fn restored(mut cluster: Cluster, backup: Backup) -> Cluster {
    let services = std::mem::take(&mut cluster.api.services);
    let vips = std::mem::take(&mut cluster.api.vips);
    if backup.namespaces {
        for name in std::mem::take(&mut cluster.api.namespaces).into_keys() {
            cluster.label_namespace(&name, &[]);
        }
    }
    // In another order than they were created in.
    for (_, service) in services.into_iter().rev() {
        let mut service = (*service).clone();
        if !backup.status {
            service.status = None;
        }
        if !backup.finalizers {
            service.metadata.finalizers = None;
        }
        cluster.api.put_service(service);
        cluster.pass(Duration::from_secs(1));
    }
    for (_, vip) in vips.into_iter().rev().filter(|_| backup.virtual_ips.is_some()) {
        let mut vip = (*vip).clone();
        if backup.virtual_ips == Some(false) {
            vip.status = None;
        }
        if !backup.finalizers {
            vip.metadata.finalizers = None;
        }
        cluster.api.put_vip(vip);
    }
    cluster.crash(0);
    cluster
}

#[test]
fn a_restore_with_new_uids_changes_no_address() {
    for status in [true, false] {
        for finalizers in [true, false] {
            for vips_status in [true, false] {
                for namespaces in [true, false] {
                    let virtual_ips = Some(vips_status);
                    let backup = Backup { status, finalizers, virtual_ips, namespaces };
                    let cluster = a_full_house();
                    let before = all_addresses(&cluster);
                    let specs: Vec<_> = cluster.api.vips.keys().cloned().collect();
                    let mut cluster = restored(cluster, backup);
                    cluster.put("new", |_| {});
                    cluster.settle();
                    cluster.wait(Duration::from_secs(30));
                    let mut after = all_addresses(&cluster);
                    after.retain(|(name, _)| name != "shop/new");
                    assert_eq!(after, before, "{backup:?}");
                    for name in specs {
                        let vip = &cluster.api.vips[&name];
                        assert!(vip.metadata.finalizers.iter().flatten().next().is_some(), "{backup:?}");
                        for claim in &vip.spec.claims {
                            let uid = cluster.api.services[&format!("{}/{}", claim.namespace, claim.name)]
                                .metadata
                                .uid
                                .as_ref();
                            assert_eq!(Some(&claim.uid), uid, "{backup:?}");
                        }
                    }
                    let kept = cluster.addresses("kept");
                    let reservation = cluster.vip(&kept[0]).spec.reservation.as_ref().unwrap();
                    assert_eq!(reservation.namespace_uid, cluster.api.namespaces["shop"].metadata.uid);
                }
            }
        }
    }
}

#[test]
fn the_status_alone_brings_every_address_back() {
    let backup = Backup { status: true, finalizers: true, virtual_ips: None, namespaces: false };
    let cluster = a_full_house();
    let before = all_addresses(&cluster);
    let mut cluster = restored(cluster, backup);
    cluster.quiet();
    assert_eq!(all_addresses(&cluster), before);
    assert_eq!(cluster.api.vips.len(), 7);
}

#[test]
fn required_that_had_one_family_after_an_edit_keeps_it_through_a_restore_and_crashes() {
    for vips_status in [true, false] {
        for steps in 0..8 {
            let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.53"]}))]);
            cluster.create("first", |_| {});
            cluster.create("web", |_| {});
            cluster.delete("first");
            cluster.edit("web", |service| dual(service, "RequireDualStack"));
            cluster.quiet();
            assert_eq!(cluster.addresses("web"), ["10.0.0.51"]);
            let backup = Backup {
                status: false,
                finalizers: false,
                virtual_ips: Some(vips_status),
                namespaces: false,
            };
            let mut cluster = restored(cluster, backup);
            cluster.settle_for(steps);
            cluster.crash(0);
            cluster.quiet();
            assert_eq!(cluster.addresses("web"), ["10.0.0.51"], "{steps}");
            let said = cluster.condition("web", "Granted");
            assert!(said.starts_with("False/NoPool: no IPv6 address"), "{said}");
            let claims = &cluster.vip("10.0.0.51").spec.claims;
            assert_eq!(Some(&claims[0].uid), cluster.get("web").metadata.uid.as_ref());
            cluster.edit_pool("lan", json!({"addresses": ["10.0.0.50-10.0.0.53", "fd00::50/127"]}));
            cluster.quiet();
            cluster.assert_has("web", &["10.0.0.51", "fd00::50"]);
        }
    }
}

#[test]
fn required_of_whose_two_families_one_is_not_in_the_backup_keeps_the_other() {
    for steps in 0..8 {
        let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.53", "fd00::50/128"]}))]);
        cluster.create("web", |service| dual(service, "RequireDualStack"));
        cluster.assert_has("web", &["10.0.0.50", "fd00::50"]);
        let lost = landfall_crds::virtual_ip_name("fd00::50".parse().unwrap());
        cluster.api.vips.remove(&lost).unwrap();
        let backup = Backup { status: false, finalizers: true, virtual_ips: Some(true), namespaces: false };
        let mut cluster = restored(cluster, backup);
        // Somebody else has it when the controller comes back.
        cluster.put("other", |service| {
            service.spec.as_mut().unwrap().external_ips = Some(vec!["fd00::50".into()]);
        });
        cluster.settle_for(steps);
        cluster.crash(0);
        cluster.quiet();
        assert_eq!(cluster.addresses("web"), ["10.0.0.50"], "{steps}");
    }
}

#[test]
fn virtual_ips_that_are_restored_before_their_services_wait_for_them() {
    // The controller is down until both are there, or starts in between: then it asks for each Service
    // and finds none, so what is restored under its eyes is released. It has to be stopped meanwhile.
    let cluster = a_full_house();
    let before = all_addresses(&cluster);
    let services = cluster.api.services.clone();
    let backup = Backup { status: false, finalizers: false, virtual_ips: Some(false), namespaces: false };
    let mut cluster = restored(cluster, backup);
    cluster.api.services.clear();
    cluster.crash(0);
    for (_, service) in services {
        let mut service = (*service).clone();
        service.status = None;
        service.metadata.finalizers = None;
        cluster.api.put_service(service);
    }
    cluster.quiet();
    assert_eq!(all_addresses(&cluster), before);
}

#[test]
fn an_etcd_that_went_back_under_a_running_controller_is_noticed_at_the_first_conflict() {
    let mut cluster = a_full_house();
    let before = cluster.api.vips.clone();
    let edit = |cluster: &mut Cluster, port| {
        cluster
            .edit("single", |service| service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = port);
    };
    edit(&mut cluster, 81);
    cluster.quiet();
    assert!(cluster.api.vips != before && !cluster.controllers[0].mind.went_back());
    // What the watch brings of it lies behind what it has brought, and is passed over.
    cluster.api.vips = before;
    edit(&mut cluster, 82);
    // It would ask again and again, had the process not ended by then.
    cluster.settle_for(20);
    assert!(cluster.controllers[0].mind.went_back());
    let all = all_addresses(&cluster);
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(all_addresses(&cluster), all);
    let single = cluster.addresses("single").remove(0);
    let ports = |cluster: &Cluster| cluster.api.vips[&single].spec.ports[0].port;
    assert_eq!(ports(&cluster), 82);
}

#[test]
fn the_same_etcd_again_is_no_event_at_all() {
    let mut cluster = a_full_house();
    cluster.wait(Duration::from_secs(10));
    let before = cluster.api.version;
    for _ in 0..3 {
        cluster.crash(0);
        cluster.quiet();
    }
    assert_eq!(cluster.api.version, before);
}

#[test]
fn a_namespace_that_is_removed_with_the_controller_down_leaves_nothing_behind() {
    for stripped in [true, false] {
        let mut cluster = a_full_house();
        let others = cluster.addresses("office/other");
        let all: Vec<String> =
            cluster.api.services.keys().filter(|name| name.starts_with("shop/")).cloned().collect();
        for name in &all {
            if stripped {
                let mut service = (*cluster.api.services[name]).clone();
                service.metadata.finalizers = None;
                cluster.api.put_service(service);
            }
            cluster.api.delete_service(name);
        }
        cluster.api.delete_namespace("shop");
        cluster.crash(0);
        cluster.quiet();
        assert_eq!(cluster.api.services.keys().collect::<Vec<_>>(), ["office/other"], "{stripped}");
        assert_eq!(cluster.api.vips.keys().cloned().collect::<Vec<_>>(), others, "{stripped}");
        let four = cluster.api.pools["lan"].status.as_ref().unwrap().ipv4.unwrap();
        assert_eq!((four.granted, four.reserved, four.available), (1, 0, 19));
    }
}

#[test]
fn finalizers_that_are_patched_away_by_hand_leave_nothing_behind() {
    for deleted_first in [true, false] {
        for steps in 0..7 {
            let mut cluster = lan();
            cluster.create("web", |service| dual(service, "RequireDualStack"));
            cluster.announce_all();
            cluster.quiet();
            if deleted_first {
                cluster.api.delete_service("shop/web");
                while cluster.deliver(0, SERVICES) {}
            }
            for _ in 0..steps {
                cluster.write(0, 0, Way::Fine);
                cluster.answer(0);
            }
            if let Some(service) = cluster.api.services.get("shop/web") {
                let mut stripped = (**service).clone();
                stripped.metadata.finalizers = None;
                cluster.api.put_service(stripped);
                cluster.api.delete_service("shop/web");
            }
            cluster.put("next", |_| {});
            cluster.settle();
            assert_ne!(cluster.addresses("next"), ["10.0.0.50"], "a node answers still");
            for name in cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
                cluster.announce(&name, None);
            }
            cluster.quiet();
            assert_eq!(cluster.api.services.len(), 1, "{deleted_first} {steps}");
            assert_eq!(cluster.api.vips.len(), 1, "{deleted_first} {steps}");
        }
    }
}

#[test]
fn a_service_deleted_in_any_gap_of_its_grant_leaves_nothing_behind() {
    for crash in [true, false] {
        for strip in [true, false] {
            for steps in 0..6 {
                let mut cluster = lan();
                cluster.put("web", |service| dual(service, "RequireDualStack"));
                cluster.deliver(0, SERVICES);
                for _ in 0..steps {
                    cluster.write(0, 0, Way::Fine);
                    cluster.answer(0);
                }
                if strip {
                    cluster.edit("web", |service| service.metadata.finalizers = None);
                }
                cluster.api.delete_service("shop/web");
                if crash {
                    cluster.crash(0);
                }
                cluster.quiet();
                assert!(cluster.api.services.is_empty(), "{crash} {strip} {steps}");
                assert!(cluster.api.vips.is_empty(), "{crash} {strip} {steps}");
            }
        }
    }
}
