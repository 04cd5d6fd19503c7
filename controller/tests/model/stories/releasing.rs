//! How an address comes back.

use std::time::Duration;

use landfall_crds::{Peer, PeerState, Reservation};

use super::{annotate, lan};
use crate::cluster::Cluster;
use crate::objects::speaker;

/// How long a release may have to wait until who had the address is noted.
const HISTORY_PACE: Duration = Duration::from_millis(100);

fn announced() -> Cluster {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    cluster.announce_all();
    cluster.quiet();
    cluster
}

#[test]
fn a_deletion_withdraws_first_and_frees_last() {
    let mut cluster = announced();
    cluster.api.delete_service("shop/web");
    assert_eq!(cluster.steps(), ["SetVirtualIpStatus", "UpdateVirtualIp", "SetIngress"]);
    let vip = cluster.vip("10.0.0.50");
    assert!(vip.spec.claims.is_empty() && vip.spec.ports.is_empty());
    assert!(vip.spec.placement.is_some(), "the epoch outlives the claim");
    assert_eq!(vip.status.as_ref().unwrap().last_holders[0].name, "web");
    assert!(cluster.api.services.contains_key("shop/web"), "while a node still answers");
    cluster.announce("10.0.0.50", None);
    assert_eq!(cluster.steps(), ["RemoveFinalizers"]);
    assert_eq!(cluster.after(HISTORY_PACE), ["DeleteVirtualIp"], "once its pool's status tells who had it");
    let history = &cluster.api.pools["lan"].status.as_ref().unwrap().history;
    let told: Vec<_> = history.iter().map(|past| (past.address.as_str(), past.name.as_str())).collect();
    assert_eq!(told, [("10.0.0.50", "web")]);
    assert!(history[0].since.is_some());
    assert!(cluster.api.services.is_empty() && cluster.api.vips.is_empty());
    assert_eq!(
        cluster.told().iter().rev().take(2).rev().copied().collect::<Vec<_>>(),
        ["DeletingLoadBalancer", "DeletedLoadBalancer"]
    );
}

#[test]
fn a_service_that_is_no_load_balancer_any_more_keeps_nothing_of_ours() {
    let mut cluster = announced();
    cluster.edit("web", |service| service.spec.as_mut().unwrap().type_ = Some("NodePort".into()));
    cluster.steps();
    cluster.announce("10.0.0.50", None);
    cluster.quiet();
    let web = cluster.get("web");
    assert_eq!(web.metadata.finalizers.as_deref().unwrap_or_default(), [""; 0]);
    assert_eq!(cluster.condition("web", "Granted"), "absent");
    assert!(cluster.api.vips.is_empty());
    cluster.edit("web", |service| service.spec.as_mut().unwrap().type_ = Some("LoadBalancer".into()));
    cluster.quiet();
    assert_eq!(cluster.addresses("web"), ["10.0.0.50"]);
}

#[test]
fn an_announcer_that_says_nothing_is_waited_for_no_longer_than_the_bound() {
    let mut cluster = announced();
    cluster.api.delete_service("shop/web");
    cluster.steps();
    assert_eq!(cluster.after(Duration::from_millis(9900)), [""; 0]);
    assert_eq!(cluster.after(Duration::from_millis(100)), ["RemoveFinalizers", "DeleteVirtualIp"]);
}

#[test]
fn an_address_that_is_kept_for_another_waits_for_the_announcer_as_well_and_is_granted_anew() {
    let mut cluster = announced();
    let mut vip = cluster.vip("10.0.0.50").clone();
    let before = vip.spec.placement.as_ref().unwrap().epoch;
    let (namespace, name) = ("shop".to_owned(), Some("vault".to_owned()));
    vip.spec.reservation = Some(Reservation { namespace, name, ..Reservation::default() });
    cluster.api.put_vip(vip);
    cluster.api.delete_service("shop/web");
    cluster.steps();
    cluster.put("vault", |service| annotate(service, "ips", "10.0.0.50"));
    cluster.after(Duration::from_millis(9900));
    assert!(cluster.condition("vault", "Granted").starts_with("False/AddressTaken: 10.0.0.50 is asked for"));
    assert!(cluster.vip("10.0.0.50").spec.claims.is_empty(), "while a node still answers for web");
    cluster.after(Duration::from_millis(200));
    assert_eq!(cluster.addresses("vault"), ["10.0.0.50"]);
    // What the node announces has the old epoch, so that others can take it over.
    assert!(cluster.vip("10.0.0.50").spec.placement.as_ref().unwrap().epoch > before);
}

#[test]
fn an_announcer_that_most_peers_take_for_dead_is_not_waited_for() {
    let mut cluster = announced();
    let node = cluster.vip("10.0.0.50").status.as_ref().unwrap().announcer.as_ref().unwrap().node.clone();
    cluster.api.delete_service("shop/web");
    cluster.steps();
    for number in (1..=3_u8).filter(|number| format!("n{number}") != node) {
        let mut peer = speaker(&format!("n{number}"), number);
        let since = cluster.api.time();
        let dead = Peer { node: node.clone(), interface: "eth0".into(), state: PeerState::Dead, since };
        peer.status.as_mut().unwrap().peers = vec![dead];
        cluster.api.put_speaker(peer);
    }
    assert_eq!(cluster.steps(), ["RemoveFinalizers"]);
    assert_eq!(cluster.after(HISTORY_PACE), ["DeleteVirtualIp"]);
}

#[test]
fn an_announcer_without_a_speaker_is_not_waited_for() {
    let mut cluster = announced();
    let node = cluster.vip("10.0.0.50").status.as_ref().unwrap().announcer.as_ref().unwrap().node.clone();
    cluster.api.delete_service("shop/web");
    cluster.steps();
    cluster.api.delete_speaker(&node);
    assert_eq!(cluster.steps(), ["RemoveFinalizers"]);
    assert_eq!(cluster.after(HISTORY_PACE), ["DeleteVirtualIp"]);
}

#[test]
fn a_restart_in_the_middle_of_a_release_goes_on_with_it() {
    for steps in 0..5 {
        let mut cluster = announced();
        cluster.announce("10.0.0.50", None);
        cluster.quiet();
        cluster.api.delete_service("shop/web");
        cluster.deliver(0, crate::api::SERVICES);
        for _ in 0..steps {
            cluster.write(0, 0, crate::cluster::Way::Fine);
            cluster.answer(0);
        }
        cluster.crash(0);
        cluster.quiet();
        assert!(cluster.api.services.is_empty() && cluster.api.vips.is_empty(), "after {steps} steps");
    }
}

#[test]
fn what_a_missing_service_claims_is_released_after_asking_for_it() {
    let mut cluster = lan();
    cluster.create("web", |_| {});
    let mut stripped = cluster.get("web").clone();
    stripped.metadata.finalizers = None;
    cluster.api.put_service(stripped);
    cluster.api.delete_service("shop/web");
    cluster.crash(0);
    let steps = cluster.steps();
    assert_eq!(steps[0], "GetService");
    cluster.quiet();
    assert!(cluster.api.vips.is_empty());
}

#[test]
fn an_address_is_not_given_on_before_it_is_withdrawn() {
    let mut cluster = announced();
    cluster.api.delete_service("shop/web");
    cluster.steps();
    cluster.api.put_service(crate::objects::service("next"));
    cluster.steps();
    assert_eq!(cluster.addresses("next"), ["10.0.0.51"]);
}

#[test]
fn an_address_that_is_given_up_for_another_is_not_given_on_before_it_is_withdrawn() {
    let mut cluster = announced();
    cluster.edit("web", |service| super::annotate(service, "ips", "10.0.0.53"));
    cluster.steps();
    assert_eq!(cluster.addresses("web"), ["10.0.0.53"]);
    assert_eq!(cluster.after(HISTORY_PACE), [""; 0], "a node still answers for it");
    cluster.api.put_service(crate::objects::service("next"));
    cluster.steps();
    assert_eq!(cluster.addresses("next"), ["10.0.0.51"]);
    cluster.announce("10.0.0.50", None);
    cluster.quiet();
    assert!(!cluster.has_vip("10.0.0.50"));
}
