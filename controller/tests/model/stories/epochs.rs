//! Placement epochs: whoever announces an address by an older one gives way, so none is ever used again.

use super::lan;
use crate::cluster::Cluster;
use crate::objects::{pool, service};

const ADDRESS: &str = "10.0.0.50";

fn epoch(cluster: &Cluster) -> i64 {
    cluster.vip(ADDRESS).spec.placement.as_ref().unwrap().epoch
}

fn delete_web(cluster: &mut Cluster) {
    cluster.api.delete_service("shop/web");
    cluster.quiet();
}

#[test]
fn an_address_that_is_granted_anew_gets_a_higher_epoch() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let before = epoch(&cluster);
    delete_web(&mut cluster);
    assert!(cluster.api.vips.is_empty());
    cluster.create("web", |_| {});
    assert!(epoch(&cluster) > before, "{} after {before}", epoch(&cluster));
}

#[test]
fn so_it_does_when_a_restart_comes_between() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let before = epoch(&cluster);
    delete_web(&mut cluster);
    cluster.pass(std::time::Duration::from_secs(1));
    cluster.crash(0);
    cluster.create("web", |_| {});
    assert!(epoch(&cluster) > before, "{} after {before}, which nobody remembers", epoch(&cluster));
}

#[test]
fn so_it_does_when_the_clock_is_set_back() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let before = epoch(&cluster);
    delete_web(&mut cluster);
    cluster.api.now -= 3600;
    cluster.api.put_service(service("web"));
    cluster.settle();
    assert_eq!(cluster.addresses("web"), [ADDRESS]);
    assert!(epoch(&cluster) > before, "{} after {before}", epoch(&cluster));
}

#[test]
fn what_is_kept_for_a_service_keeps_its_epoch() {
    let mut cluster = lan();
    let mut keeping = pool("lan", &["10.0.0.50-10.0.0.53"]);
    keeping.spec.reservations = Some(landfall_crds::Reservations::default());
    cluster.api.put_pool(keeping);
    let wish = |service: &mut _| super::annotate(service, "reserve", "true");
    cluster.create("web", wish);
    let before = epoch(&cluster);
    cluster.api.delete_service("shop/web");
    cluster.settle();
    assert!(cluster.api.services.is_empty() && cluster.vip(ADDRESS).spec.claims.is_empty());
    assert_eq!(epoch(&cluster), before, "the epoch outlives the claim");
    cluster.create("web", wish);
    assert_eq!((cluster.addresses("web"), epoch(&cluster)), (vec![ADDRESS.to_owned()], before));
}
