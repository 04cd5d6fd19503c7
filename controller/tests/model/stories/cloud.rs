//! What a cloud's own service controller does, done the same here.

use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use landfall_controller::mind::{Config, Event};
use landfall_crds::TrafficPolicy;
use landfall_crds::names::finalizers::{LOAD_BALANCER_CLEANUP, SERVICE_ADDRESS};
use serde_json::json;

use super::{annotate, lan, node};
use crate::cluster::Cluster;

fn spec(service: &mut Service) -> &mut ServiceSpec {
    service.spec.as_mut().unwrap()
}

fn retype(cluster: &mut Cluster, name: &str, type_: &str) {
    cluster.edit(name, |service| spec(service).type_ = Some(type_.to_owned()));
}

fn finalizers(cluster: &Cluster, name: &str) -> Vec<String> {
    cluster.get(name).metadata.finalizers.clone().unwrap_or_default()
}

fn reasons(cluster: &Cluster, name: &str) -> Vec<String> {
    cluster.events_of(name).iter().map(|event| event.split(':').next().unwrap().to_owned()).collect()
}

fn announced(change: impl FnOnce(&mut Service)) -> Cluster {
    let mut cluster = lan();
    cluster.put("web", change);
    cluster.settle();
    cluster.announce_all();
    cluster.quiet();
    cluster
}

#[test]
fn a_load_balancer_needs_no_node_ports_and_gets_them_back_in_place() {
    let mut cluster = announced(|service| {
        spec(service).allocate_load_balancer_node_ports = Some(false);
        spec(service).ports.as_mut().unwrap()[0].node_port = None;
    });
    cluster.assert_has("web", &["10.0.0.50"]);
    let before = cluster.vip("10.0.0.50").metadata.uid.clone();
    assert_eq!(cluster.vip("10.0.0.50").spec.ports[0].node_port, None);
    for (allocate, node_port) in
        [(true, Some(30080)), (false, Some(30080)), (false, None), (true, Some(31000))]
    {
        cluster.edit("web", |service| {
            spec(service).allocate_load_balancer_node_ports = Some(allocate);
            spec(service).ports.as_mut().unwrap()[0].node_port = node_port;
        });
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        let vip = cluster.vip("10.0.0.50");
        assert_eq!((vip.spec.ports[0].node_port, &vip.metadata.uid), (node_port, &before));
    }
    assert_eq!(reasons(&cluster, "web"), ["EnsuredLoadBalancer"]);
}

#[test]
fn a_class_decides_whose_a_service_is() {
    for (class, default_class, ours) in [
        (None, true, true),
        (None, false, false),
        (Some("landfall.dev/lan"), true, true),
        (Some("landfall.dev/lan"), false, true),
        (Some("example.com/other"), true, false),
        (Some("landfall.dev/LAN"), true, false),
    ] {
        let mut cluster = lan();
        cluster.config = Config { default_class, ..Config::default() };
        cluster.crash(0);
        let is = |service: &mut Service| spec(service).load_balancer_class = class.map(str::to_owned);
        cluster.create("web", is);
        assert_eq!(cluster.addresses("web").is_empty(), !ours, "{class:?} {default_class}");
        assert_eq!(finalizers(&cluster, "web").is_empty(), !ours);
        assert_eq!(cluster.events_of("web").is_empty(), !ours);
        // The class is set with the type, and goes with it.
        retype(&mut cluster, "web", "ClusterIP");
        cluster.quiet();
        assert_eq!(cluster.get("web").spec.as_ref().unwrap().load_balancer_class, None);
        assert!(cluster.api.vips.is_empty() && finalizers(&cluster, "web").is_empty());
        cluster.edit("web", |service| {
            spec(service).type_ = Some("LoadBalancer".into());
            is(service);
        });
        cluster.quiet();
        assert_eq!(cluster.addresses("web").is_empty(), !ours, "{class:?} {default_class}");
    }
}

#[test]
fn a_type_flips_away_and_back() {
    for away in ["ClusterIP", "NodePort", "ExternalName"] {
        let mut cluster = announced(|_| {});
        retype(&mut cluster, "web", away);
        assert_eq!(cluster.steps(), ["SetVirtualIpStatus", "UpdateVirtualIp", "SetConditions"], "{away}");
        assert_eq!(finalizers(&cluster, "web").len(), 2, "while a node answers");
        cluster.announce("10.0.0.50", None);
        cluster.quiet();
        assert!(cluster.api.vips.is_empty() && finalizers(&cluster, "web").is_empty(), "{away}");
        assert_eq!(cluster.condition("web", "Granted"), "absent");
        assert_eq!(cluster.condition("web", "Announced"), "absent");
        retype(&mut cluster, "web", "LoadBalancer");
        cluster.settle();
        cluster.announce_all();
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        assert_eq!(
            reasons(&cluster, "web"),
            ["EnsuredLoadBalancer", "DeletingLoadBalancer", "DeletedLoadBalancer", "EnsuredLoadBalancer"]
        );
    }
}

#[test]
fn a_type_that_flips_back_before_the_address_is_gone_keeps_it() {
    for steps in 0..4 {
        let mut cluster = announced(|_| {});
        let before = cluster.vip("10.0.0.50").spec.placement.clone();
        retype(&mut cluster, "web", "ClusterIP");
        cluster.deliver(0, crate::api::SERVICES);
        for _ in 0..steps {
            cluster.write(0, 0, crate::cluster::Way::Fine);
            cluster.answer(0);
        }
        cluster.put("new", |_| {});
        retype(&mut cluster, "web", "LoadBalancer");
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.assert_has("new", &["10.0.0.51"]);
        assert_eq!(cluster.vip("10.0.0.50").spec.placement, before, "after {steps} steps");
    }
}

#[test]
fn our_finalizer_protects_where_another_controller_strips_the_standard_one() {
    let mut cluster = announced(|_| {});
    cluster.api.delete_service("shop/web");
    // A cloud controller that takes every deleted Service with the standard finalizer for its own.
    cluster.edit("web", |service| {
        service.metadata.finalizers.as_mut().unwrap().retain(|name| name != LOAD_BALANCER_CLEANUP);
        service.status.as_mut().unwrap().load_balancer = None;
    });
    cluster.steps();
    assert_eq!(finalizers(&cluster, "web"), [SERVICE_ADDRESS], "nothing is put back on the way out");
    assert!(cluster.vip("10.0.0.50").spec.claims.is_empty());
    cluster.put("next", |_| {});
    cluster.steps();
    assert_eq!(cluster.addresses("next"), ["10.0.0.51"]);
    cluster.announce("10.0.0.50", None);
    cluster.quiet();
    assert!(!cluster.api.services.contains_key("shop/web"));
}

#[test]
fn finalizers_that_vanish_from_a_living_service_are_put_back() {
    for gone in [&[LOAD_BALANCER_CLEANUP][..], &[SERVICE_ADDRESS], &[LOAD_BALANCER_CLEANUP, SERVICE_ADDRESS]]
    {
        let mut cluster = announced(|service| {
            service.metadata.finalizers = Some(vec!["example.com/theirs".into()]);
        });
        cluster.edit("web", |service| {
            service.metadata.finalizers.as_mut().unwrap().retain(|name| !gone.contains(&name.as_str()));
        });
        cluster.quiet();
        let mut has = finalizers(&cluster, "web");
        has.sort_unstable();
        assert_eq!(has, ["example.com/theirs", SERVICE_ADDRESS, LOAD_BALANCER_CLEANUP]);
        cluster.assert_has("web", &["10.0.0.50"]);
        cluster.api.delete_service("shop/web");
        cluster.steps();
        cluster.announce("10.0.0.50", None);
        cluster.quiet();
        assert_eq!(finalizers(&cluster, "web"), ["example.com/theirs"], "and only ours are taken off");
        assert!(cluster.api.vips.is_empty());
    }
}

#[test]
fn a_status_that_somebody_empties_is_written_again() {
    let mut cluster = announced(|_| {});
    cluster.edit("web", |service| service.status.as_mut().unwrap().load_balancer = None);
    assert_eq!(cluster.steps(), ["GetVirtualIp", "SetIngress"], "once the claim is seen to be there still");
    cluster.assert_has("web", &["10.0.0.50"]);
    cluster.edit("web", |service| service.status = None);
    assert_eq!(cluster.steps(), ["GetVirtualIp", "SetIngress"]);
    cluster.assert_has("web", &["10.0.0.50"]);
    // A mode that is not ours is put right, too.
    cluster.edit("web", |service| {
        let entry = LoadBalancerIngress {
            ip: Some("10.0.0.50".into()),
            ip_mode: Some("Proxy".into()),
            ..LoadBalancerIngress::default()
        };
        let balancer = LoadBalancerStatus { ingress: Some(vec![entry]) };
        service.status.as_mut().unwrap().load_balancer = Some(balancer);
    });
    cluster.quiet();
    let entry = &landfall_controller::granting::verdict::ingress(cluster.get("web"))[0];
    assert_eq!(entry.ip_mode.as_deref(), Some("VIP"));
}

#[test]
fn no_change_of_the_spec_costs_the_status_and_nothing_of_the_spec_is_ours_to_change() {
    type Change = fn(&mut Service);
    let changes: [Change; 9] = [
        |service| spec(service).external_traffic_policy = Some("Local".into()),
        |service| spec(service).health_check_node_port = Some(32_100),
        |service| spec(service).internal_traffic_policy = Some("Local".into()),
        |service| spec(service).session_affinity = Some("ClientIP".into()),
        |service| spec(service).load_balancer_source_ranges = Some(vec!["10.0.0.0/8".into()]),
        |service| spec(service).publish_not_ready_addresses = Some(true),
        |service| spec(service).selector = Some([("app".to_owned(), "web".to_owned())].into()),
        |service| spec(service).ports.as_mut().unwrap()[0].port = 8443,
        |service| {
            spec(service).external_traffic_policy = Some("Cluster".into());
            spec(service).health_check_node_port = None;
        },
    ];
    let mut cluster = announced(|_| {});
    let before = cluster.vip("10.0.0.50").clone();
    for change in changes {
        cluster.edit("web", change);
        let written = cluster.get("web").clone();
        cluster.quiet();
        cluster.assert_has("web", &["10.0.0.50"]);
        let now = cluster.get("web");
        assert_eq!(now.spec, written.spec);
        assert_eq!(now.metadata.annotations, written.metadata.annotations);
        assert_eq!(now.metadata.labels, written.metadata.labels);
        let vip = cluster.vip("10.0.0.50");
        assert_eq!(vip.metadata.uid, before.metadata.uid);
        let epoch = |vip: &landfall_crds::VirtualIP| vip.spec.placement.as_ref().unwrap().epoch;
        assert_eq!(epoch(vip), epoch(&before));
    }
    assert_eq!(cluster.failures_of("web"), 0);
}

#[test]
fn the_policy_and_its_port_are_told_on_both_ways() {
    let mut cluster = announced(|_| {});
    let claim = |cluster: &Cluster| {
        let claim = &cluster.vip("10.0.0.50").spec.claims[0];
        (claim.traffic_policy, claim.health_check_node_port)
    };
    assert_eq!(claim(&cluster), (TrafficPolicy::Cluster, None));
    cluster.edit("web", |service| {
        spec(service).external_traffic_policy = Some("Local".into());
        spec(service).health_check_node_port = Some(32_100);
    });
    cluster.quiet();
    assert_eq!(claim(&cluster), (TrafficPolicy::Local, Some(32_100)));
    assert!(cluster.condition("web", "Announced").starts_with("False/NoEndpoint"));
    cluster.edit("web", |service| {
        spec(service).external_traffic_policy = Some("Cluster".into());
        spec(service).health_check_node_port = Some(0);
    });
    cluster.quiet();
    assert_eq!(claim(&cluster), (TrafficPolicy::Cluster, None));
    assert!(cluster.condition("web", "Announced").starts_with("True/Announced"));
}

#[test]
fn conditions_say_which_generation_they_are_about() {
    let mut cluster = lan();
    cluster.create("web", |service| service.metadata.generation = Some(1));
    let generations = |cluster: &Cluster| {
        let known = landfall_controller::status::conditions_of(cluster.get("web"));
        known.iter().map(|known| known.observed_generation).collect::<Vec<_>>()
    };
    assert_eq!(generations(&cluster), [Some(1), Some(1)]);
    let times = |cluster: &Cluster| {
        let known = landfall_controller::status::conditions_of(cluster.get("web"));
        known.iter().map(|known| known.last_transition_time.clone()).collect::<Vec<_>>()
    };
    let before = times(&cluster);
    cluster.pass(Duration::from_secs(30));
    cluster.edit("web", |service| {
        service.metadata.generation = Some(2);
        spec(service).ports.as_mut().unwrap()[0].port = 81;
    });
    cluster.quiet();
    assert_eq!(generations(&cluster), [Some(2), Some(2)]);
    assert_eq!(times(&cluster), before, "what has not changed keeps its time");
    cluster.edit("web", |service| {
        service.metadata.generation = Some(3);
        annotate(service, "ips", "junk");
    });
    cluster.quiet();
    assert_eq!(generations(&cluster), [Some(3), Some(3)]);
    assert_ne!(times(&cluster)[0], before[0]);
}

#[test]
fn conditions_of_others_stay() {
    let mut cluster = lan();
    let theirs: Condition = serde_json::from_value(json!({
        "type": "LoadBalancerPortsError", "status": "True", "reason": "X", "message": "theirs",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }))
    .unwrap();
    cluster.create("web", |service| {
        service.status.get_or_insert_default().conditions = Some(vec![theirs.clone()]);
    });
    retype(&mut cluster, "web", "ClusterIP");
    cluster.quiet();
    assert_eq!(cluster.get("web").status.as_ref().unwrap().conditions, Some(vec![theirs]));
}

#[test]
fn a_deletion_is_told_as_clouds_tell_it() {
    let mut cluster = announced(|_| {});
    cluster.api.delete_service("shop/web");
    cluster.steps();
    cluster.announce("10.0.0.50", None);
    cluster.quiet();
    assert_eq!(
        cluster.events_of("web"),
        [
            "EnsuredLoadBalancer: Ensured load balancer: 10.0.0.50",
            "DeletingLoadBalancer: Deleting load balancer",
            "DeletedLoadBalancer: Deleted load balancer",
        ]
    );
}

#[test]
fn nodes_are_excluded_by_their_label_as_clouds_read_it() {
    let candidates = |cluster: &Cluster| {
        let placement = cluster.vip("10.0.0.50").spec.placement.clone().unwrap();
        let mut nodes: Vec<String> = placement.candidates.into_iter().map(|one| one.node).collect();
        nodes.sort_unstable();
        nodes
    };
    for (value, excluded) in [
        ("", true),
        ("true", true),
        ("yes", true),
        ("junk", true),
        ("false", false),
        ("False", false),
        ("0", false),
        ("f", false),
    ] {
        let mut cluster = announced(|_| {});
        let label = json!({"node.kubernetes.io/exclude-from-external-load-balancers": value});
        cluster.tell(node("n2", label, false));
        let expected = if excluded { &["n1", "n3"][..] } else { &["n1", "n2", "n3"] };
        assert_eq!(candidates(&cluster), expected, "{value:?}");
        cluster.tell(node("n2", json!({}), false));
        assert_eq!(candidates(&cluster), ["n1", "n2", "n3"]);
    }
    let mut cluster = announced(|_| {});
    for name in ["n1", "n2", "n3"] {
        let event: Event =
            node(name, json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""}), false);
        cluster.tell(event);
    }
    assert!(cluster.condition("web", "Announced").starts_with("False/NoCandidates"));
    cluster.assert_has("web", &["10.0.0.50"]);
}

#[test]
fn a_service_that_is_recreated_under_its_name_is_another_one() {
    let mut cluster = announced(|_| {});
    cluster.api.delete_service("shop/web");
    cluster.steps();
    cluster.announce("10.0.0.50", None);
    cluster.quiet();
    cluster.create("other", |_| {});
    cluster.assert_has("other", &["10.0.0.50"]);
    cluster.create("web", |_| {});
    cluster.assert_has("web", &["10.0.0.51"]);
}
