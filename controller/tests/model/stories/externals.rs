//! `spec.externalIPs` and the addresses of others (CVE-2020-8554).

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::{annotate, lan, pools};
use crate::cluster::Cluster;

fn lists(service: &mut Service, ips: &[&str]) {
    let spec = service.spec.as_mut().unwrap();
    spec.external_ips = Some(ips.iter().map(ToString::to_string).collect());
}

/// A Service that is no load balancer and lists these.
fn outer(ips: &'static [&'static str]) -> impl Fn(&mut Service) {
    move |service| {
        service.spec.as_mut().unwrap().type_ = Some("ClusterIP".into());
        lists(service, ips);
    }
}

/// The Events of this kind about a Service.
fn conflicts(cluster: &Cluster, name: &str) -> Vec<String> {
    let all = cluster.events_of(name);
    all.into_iter().filter(|event| event.starts_with("ExternalIPConflict: ")).collect()
}

#[test]
fn who_holds_an_address_that_another_lists_says_so_until_that_is_mended() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.announce_all();
    cluster.quiet();
    assert_eq!(cluster.condition("web", "ExternalIPConflict"), "absent");
    cluster.create("office/sly", outer(&["10.0.0.50", "192.0.2.1"]));
    let said = cluster.condition("web", "ExternalIPConflict");
    assert!(
        said.starts_with("True/ExternalIPConflict: Service office/sly lists 10.0.0.50 in spec.externalIPs"),
        "{said}"
    );
    cluster.assert_has("web", &["10.0.0.50"]);
    assert!(cluster.condition("web", "Announced").starts_with("True/"));
    let (web, sly) = (conflicts(&cluster, "web"), conflicts(&cluster, "office/sly"));
    assert!(web.len() == 1 && web[0].contains("Service office/sly lists 10.0.0.50"), "{web:?}");
    assert!(sly.len() == 1 && sly[0].contains("is the load balancer address of Service shop/web"), "{sly:?}");

    // Nobody is told twice, whatever else happens.
    cluster.edit("web", |service| annotate(service, "other", "thing"));
    cluster.edit("office/sly", |service| annotate(service, "other", "thing"));
    cluster.quiet();
    for kind in 0..crate::api::KINDS {
        cluster.relist(0, kind);
    }
    cluster.quiet();
    assert_eq!((conflicts(&cluster, "web").len(), conflicts(&cluster, "office/sly").len()), (1, 1));

    cluster.edit("office/sly", |service| lists(service, &["192.0.2.1"]));
    cluster.quiet();
    assert_eq!(cluster.condition("web", "ExternalIPConflict"), "absent");
    cluster.assert_has("web", &["10.0.0.50"]);
    // A second time is news again.
    cluster.edit("office/sly", |service| lists(service, &["10.0.0.50"]));
    cluster.quiet();
    assert_eq!((conflicts(&cluster, "web").len(), conflicts(&cluster, "office/sly").len()), (2, 2));
    cluster.delete("office/sly");
    assert_eq!(cluster.condition("web", "ExternalIPConflict"), "absent");
}

#[test]
fn it_is_told_once_also_over_a_restart() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.create("sly", outer(&["10.0.0.50"]));
    let before = cluster.api.version;
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(cluster.api.version, before);
    assert_eq!(cluster.told(), [""; 0]);
}

#[test]
fn the_condition_goes_with_the_address() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.create("sly", outer(&["10.0.0.50"]));
    cluster.edit("web", |service| annotate(service, "ips", "10.0.0.51"));
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.51"]);
    assert_eq!(cluster.condition("web", "ExternalIPConflict"), "absent");
    cluster.edit("web", |service| service.spec.as_mut().unwrap().type_ = Some("NodePort".into()));
    cluster.quiet();
    assert_eq!(cluster.condition("web", "Granted"), "absent");
    assert_eq!(cluster.condition("web", "ExternalIPConflict"), "absent");
}

#[test]
fn a_listed_address_is_granted_to_nobody_else_and_comes_back_when_it_is_taken_out() {
    let mut cluster = pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.51", "fd00::50/128"]}))]);
    cluster.create("sly", outer(&["10.0.0.50", "fd00:0::50", " junk "]));
    cluster.create("web", |_| {});
    cluster.assert_has("web", &["10.0.0.51"]);
    cluster.create("six", |service| service.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".into()]));
    cluster.assert_waits("six", "PoolExhausted");
    cluster.create("asks", |service| annotate(service, "ips", "10.0.0.50"));
    cluster.assert_waits("asks", "AddressTaken");
    assert!(cluster.condition("asks", "Granted").contains("Service shop/sly has it in spec.externalIPs"));
    cluster.edit("sly", |service| lists(service, &[]));
    cluster.quiet();
    cluster.assert_has("asks", &["10.0.0.50"]);
    cluster.assert_has("six", &["fd00::50"]);
}

#[test]
fn ones_own_entry_is_no_conflict_and_no_obstacle() {
    let mut cluster = lan();
    cluster.create("web", |service| {
        annotate(service, "ips", "10.0.0.53");
        lists(service, &["10.0.0.53"]);
    });
    cluster.assert_has("web", &["10.0.0.53"]);
    assert_eq!(cluster.condition("web", "ExternalIPConflict"), "absent");
    assert_eq!(conflicts(&cluster, "web"), [""; 0]);
}

#[test]
fn a_load_balancer_of_another_class_that_lists_our_address_is_told_and_left_alone() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.create("theirs", |service| {
        service.spec.as_mut().unwrap().load_balancer_class = Some("example.com/other".into());
        lists(service, &["10.0.0.50"]);
    });
    assert!(cluster.condition("web", "ExternalIPConflict").starts_with("True/"));
    assert_eq!(conflicts(&cluster, "theirs").len(), 1);
    assert_eq!(cluster.get("theirs").status, None);
    assert_eq!(cluster.get("theirs").metadata.finalizers, None);
}

#[test]
fn every_offender_is_told() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.create("sly", outer(&["10.0.0.50"]));
    cluster.create("slier", outer(&["10.0.0.50"]));
    assert_eq!(conflicts(&cluster, "sly").len(), 1);
    assert_eq!(conflicts(&cluster, "slier").len(), 1);
    cluster.delete("sly");
    let said = cluster.condition("web", "ExternalIPConflict");
    assert!(said.contains("Service shop/slier lists"), "{said}");
}
