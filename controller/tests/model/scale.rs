//! Many Services: what is written for each, and what is not. What a grant costs is for `make bench-core`.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::objects::{pool, service, speaker};

#[test]
fn each_of_thousands_is_granted_with_one_write_of_each_kind() {
    let mut cluster = Cluster::new(1);
    for number in 1..=20_u8 {
        cluster.api.put_speaker(speaker(&format!("node-{number}"), number));
    }
    cluster.api.put_pool(pool("lan", &["10.0.0.0/8", "fd00::/64"]));
    cluster.quiet();
    for number in 0..2000 {
        cluster.api.put_service(service(&format!("web-{number}")));
    }
    cluster.settle();
    let writes = &cluster.api.writes;
    for what in ["AddFinalizers", "CreateVirtualIp", "SetIngress"] {
        assert_eq!(writes[what], 2000, "one {what} for each Service");
    }
    assert!(!writes.contains_key("UpdateVirtualIp"), "a grant is not written twice");
}

/// Services of many namespaces that happen to name the same sharing key have nothing to do with each other: all
/// are given their addresses at once, and none is looked at more often because there are others.
#[test]
fn a_sharing_key_that_many_namespaces_name_costs_each_the_same() {
    let looks = |number: usize, shared: bool| {
        let mut cluster = Cluster::new(1);
        cluster.api.put_speaker(speaker("node-1", 1));
        let mut lan = pool("lan", &["10.0.0.0/8"]);
        if shared {
            lan.spec.sharing =
                Some(landfall_crds::Sharing { namespaces: vec!["team-1".into(), "team-2".into()] });
        }
        cluster.api.put_pool(lan);
        cluster.quiet();
        for number in 0..number {
            let namespace = format!("team-{number}");
            cluster.api.put_namespace(crate::objects::namespace(&namespace));
            let mut service = crate::objects::service_in(&namespace, "web");
            let annotations = service.metadata.annotations.get_or_insert_default();
            annotations.insert("metallb.universe.tf/allow-shared-ip".into(), "default".into());
            cluster.api.put_service(service);
        }
        for kind in 0..crate::api::KINDS {
            while cluster.deliver(0, kind) {}
        }
        while cluster.controllers[0].wanted.front().is_some_and(|effect| effect.name() == "AddFinalizers") {
            cluster.write(0, 0, crate::cluster::Way::Fine);
        }
        while cluster.answer(0) {}
        let at_once =
            cluster.controllers[0].wanted.iter().filter(|it| it.name() == "CreateVirtualIp").count();
        assert_eq!(at_once, number, "nobody waits for somebody else");
        cluster.quiet();
        assert_eq!(cluster.api.writes["SetIngress"], number as u64);
        cluster.controllers[0].mind.looks()
    };
    for shared in [false, true] {
        let (few, many) = (looks(200, shared), looks(800, shared));
        assert!(many <= 4 * few + 40, "{few} looks at 200 Services, {many} at four times as many");
    }
}

/// A node that fails and comes back, an unrelated change of a node, and a list write nothing. Only once it
/// has been well for the settle time is it asked to take over again what it ranks first for.
#[test]
fn steady() {
    let mut cluster = Cluster::new(1);
    for number in 1..=3_u8 {
        cluster.api.put_speaker(speaker(&format!("node-{number}"), number));
    }
    cluster.api.put_pool(pool("lan", &["10.0.0.0/24"]));
    for number in 0..100 {
        cluster.api.put_service(service(&format!("web-{number}")));
    }
    cluster.quiet();
    cluster.announce_all();
    cluster.quiet();
    let before = cluster.api.writes.clone();
    let lost: Vec<(String, String)> = cluster
        .api
        .vips
        .iter()
        .map(|(name, vip)| (name, &vip.spec.placement.as_ref().unwrap().candidates))
        .filter(|(_, candidates)| candidates[0].node == "node-1")
        .map(|(name, candidates)| (name.clone(), candidates[1].node.clone()))
        .collect();
    assert_eq!(lost.len(), 33);
    let mut dark = speaker("node-1", 1);
    dark.status.as_mut().unwrap().interfaces[0].carrier = landfall_crds::Carrier::Down;
    cluster.api.put_speaker(dark);
    cluster.settle();
    for (name, _) in &lost {
        cluster.announce(name, None);
    }
    cluster.settle();
    cluster.pass(Duration::from_millis(300));
    for (name, second) in &lost {
        cluster.announce(name, Some(second));
    }
    cluster.quiet();
    cluster.api.put_speaker(speaker("node-1", 1));
    cluster.settle();
    cluster.pass(Duration::from_millis(59_999));
    cluster.settle();
    assert_eq!(cluster.api.writes, before, "a failover and a return write nothing");
    cluster.pass(Duration::from_millis(1));
    cluster.settle();
    assert_eq!(cluster.api.writes["UpdateVirtualIp"], 1, "then the first is asked for");
}
