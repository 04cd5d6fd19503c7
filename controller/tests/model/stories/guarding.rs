//! Who may come in: the ServiceGuards of Services with source ranges, which come first and go last.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::names::annotations;
use landfall_crds::{ServiceGuardSpec, Sources};
use serde_json::json;

use super::{annotate, annotate_as, dual, given_by_another, lan, pools};
use crate::cluster::{Cluster, Way};

const MOMENT: Duration = Duration::from_millis(100);

/// States source ranges in the field; none takes them away.
fn ranges(list: &'static [&'static str]) -> impl Fn(&mut Service) {
    move |service| {
        let list = list.iter().map(ToString::to_string).collect();
        service.spec.as_mut().unwrap().load_balancer_source_ranges = Some(list);
    }
}

fn retype(service: &mut Service, type_: &str) {
    let spec = service.spec.as_mut().unwrap();
    spec.type_ = Some(type_.to_owned());
    spec.load_balancer_source_ranges = None;
    if type_ == "ClusterIP" {
        spec.ports.as_mut().unwrap()[0].node_port = None;
    }
}

impl Cluster {
    fn guard(&self, name: &str) -> &ServiceGuardSpec {
        &self.api.guards[&format!("shop.{name}")].spec
    }

    fn has_guard(&self, name: &str) -> bool {
        self.api.guards.contains_key(&format!("shop.{name}"))
    }

    /// The digest that the Service's claim on the address names.
    fn named(&self, name: &str, address: &str) -> Option<String> {
        self.vip(address).spec.claims.iter().find(|claim| claim.name == name)?.guard.clone()
    }
}

/// A Service that is granted and announced.
fn announced(change: impl FnOnce(&mut Service)) -> Cluster {
    let mut cluster = lan();
    cluster.put("web", change);
    cluster.settle();
    cluster.announce_all();
    cluster.quiet();
    cluster
}

fn sources(ipv4: &[&str], ipv6: &[&str]) -> Sources {
    let all = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    Sources { ipv4: all(ipv4), ipv6: all(ipv6) }
}

#[test]
fn a_service_is_guarded_before_it_is_given_an_address() {
    let mut cluster = lan();
    cluster.put("web", ranges(&["192.0.2.7/24", "10.0.0.0/8"]));
    assert_eq!(cluster.steps(), ["CreateServiceGuard", "AddFinalizers", "CreateVirtualIp", "SetIngress"]);
    let guard = cluster.guard("web");
    assert_eq!(guard.sources, sources(&["10.0.0.0/8", "192.0.2.0/24"], &[]));
    assert_eq!(
        guard.ports.iter().map(|port| (port.port, port.node_port)).collect::<Vec<_>>(),
        [(80, Some(30080))]
    );
    assert_eq!(guard.closed, None);
    assert_eq!(Some(&guard.service.uid), cluster.get("web").metadata.uid.as_ref());
    assert_eq!(cluster.named("web", "10.0.0.50"), Some(guard.digest()));
    let said = cluster.condition("web", "Guarded");
    let allowed = "True/Guarded: only 10.0.0.0/8, 192.0.2.0/24 may connect, to the nodePorts too";
    assert!(said.starts_with(allowed), "{said}");
    cluster.create("open", |_| {});
    assert!(!cluster.has_guard("open"));
    assert_eq!(cluster.named("open", "10.0.0.51"), None);
    assert_eq!(cluster.condition("open", "Guarded"), "absent");
}

#[test]
fn nothing_is_claimed_while_the_guard_is_on_its_way() {
    let mut cluster = lan();
    cluster.put("web", ranges(&["10.0.0.0/8"]));
    cluster.deliver(0, crate::api::SERVICES);
    // The finalizers are faster.
    cluster.write(0, 1, Way::Fine);
    cluster.answer(0);
    assert_eq!(cluster.controllers[0].wanted.len(), 1, "but the guard is awaited");
    assert_eq!(
        cluster.steps()[..3],
        ["CreateServiceGuard".to_owned(), "CreateVirtualIp".to_owned(), "SetIngress".to_owned()]
    );
}

#[test]
fn who_waits_for_an_address_is_guarded_all_the_same() {
    let mut cluster = pools(&[]);
    cluster.create("web", ranges(&["10.0.0.0/8"]));
    cluster.assert_waits("web", "NoPool");
    assert_eq!(cluster.guard("web").sources, sources(&["10.0.0.0/8"], &[]));
    assert!(cluster.condition("web", "Guarded").starts_with("True/Guarded: only 10.0.0.0/8 may connect"));
    // Even one whose namespace is not known yet.
    cluster.put("later/web", ranges(&["10.0.0.0/8"]));
    assert_eq!(cluster.steps(), ["CreateServiceGuard"]);
    assert!(cluster.api.guards.contains_key("later.web"));
}

#[test]
fn a_change_of_ranges_is_written_into_the_guard_first_and_then_into_the_claims() {
    let mut cluster = announced(|service| {
        dual(service, "RequireDualStack");
        ranges(&["10.0.0.0/8", "fd00::/8"])(service);
    });
    let before = cluster.guard("web").digest();
    cluster.edit("web", ranges(&["10.0.0.0/9", "fd00::/8"]));
    assert_eq!(
        cluster.steps(),
        ["UpdateServiceGuard", "UpdateVirtualIp", "UpdateVirtualIp", "SetConditions"]
    );
    let after = cluster.guard("web").digest();
    assert_ne!(before, after);
    for address in ["10.0.0.50", "fd00::50"] {
        assert_eq!(cluster.named("web", address).as_ref(), Some(&after));
        assert!(cluster.vip(address).status.as_ref().unwrap().announcer.is_some());
    }
    // New ports are not served before they are guarded.
    cluster.edit("web", |service| service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 81);
    assert_eq!(cluster.steps()[..2], ["UpdateServiceGuard".to_owned(), "UpdateVirtualIp".to_owned()]);
    // What means the same is not written again.
    cluster.edit("web", ranges(&["fd00::/8", " 10.0.0.0/10", "10.64.0.1/10 "]));
    assert_eq!(cluster.steps(), [""; 0]);
}

#[test]
fn a_service_that_gives_its_ranges_up_is_guarded_until_no_claim_says_so() {
    let mut cluster = announced(ranges(&["10.0.0.0/8"]));
    cluster.edit("web", ranges(&[]));
    let steps = cluster.steps();
    let at = |step: &str| steps.iter().position(|known| known == step).unwrap();
    assert!(at("UpdateVirtualIp") < at("DeleteServiceGuard"), "{steps:?}");
    // The answer to that is the API server's own word that the Service needs it no more.
    assert!(at("SetConditions") < at("DeleteServiceGuard"), "{steps:?}");
    assert!(!cluster.has_guard("web"));
    assert_eq!(cluster.named("web", "10.0.0.50"), None);
    assert_eq!(cluster.condition("web", "Guarded"), "absent");
    cluster.assert_has("web", &["10.0.0.50"]);
}

/// I3: no filter is removed before its announcement has ended, nor before the nodePorts are gone.
#[test]
fn a_guard_outlasts_its_service_until_nobody_answers_and_the_node_ports_are_gone() {
    for gone in ["deleted", "stripped", "ClusterIP", "NodePort"] {
        let mut cluster = announced(ranges(&["10.0.0.0/8"]));
        match gone {
            "deleted" => cluster.api.delete_service("shop/web"),
            "stripped" => {
                let mut service = cluster.get("web").clone();
                service.metadata.finalizers = None;
                cluster.api.put_service(service);
                cluster.api.delete_service("shop/web");
            }
            type_ => cluster.edit("web", |service| retype(service, type_)),
        }
        cluster.steps();
        cluster.after(Duration::from_secs(9));
        assert!(cluster.has_guard("web"), "{gone}: a node still answers");
        cluster.announce("10.0.0.50", None);
        cluster.steps();
        let is_gone = !cluster.api.services.contains_key("shop/web");
        assert_eq!(is_gone, ["deleted", "stripped"].contains(&gone), "{gone}");
        cluster.after(MOMENT);
        assert!(cluster.has_guard("web"), "{gone}: kube-proxy may still serve its nodePorts");
        cluster.quiet();
        assert!(!cluster.has_guard("web"), "{gone}");
        assert!(cluster.api.vips.is_empty(), "{gone}");
    }
}

#[test]
fn a_guard_that_is_deleted_or_was_never_written_comes_back_while_its_service_is_being_deleted() {
    let mut cluster = announced(ranges(&["10.0.0.0/8"]));
    cluster.api.delete_service("shop/web");
    cluster.steps();
    cluster.api.delete_guard("shop.web");
    assert_eq!(cluster.steps(), ["CreateServiceGuard"]);
    cluster.quiet();
    cluster.wait(Duration::from_secs(20));
    assert!(cluster.api.services.is_empty() && cluster.api.guards.is_empty());
}

#[test]
fn what_is_no_range_closes_that_service_and_says_so() {
    let many: &'static [String] =
        Vec::leak((0..1001).map(|n| format!("10.0.{}.{}/32", n / 256, n % 256)).collect());
    let many: &'static [&'static str] = Vec::leak(many.iter().map(String::as_str).collect());
    for (list, reason, said) in [
        (&["10.0.0.0/8", "10.0.0.1"][..], "InvalidSourceRange", "states '10.0.0.1', which is no range"),
        (&["::ffff:10.0.0.0/104"][..], "InvalidSourceRange", "IPv4 in an IPv6 form"),
        (many, "TooManySourceRanges", "states 1001 ranges"),
    ] {
        let mut cluster = lan();
        cluster.create("other", ranges(&["10.0.0.0/8"]));
        let other = cluster.guard("other").clone();
        cluster.create("web", ranges(list));
        cluster.assert_has("web", &["10.0.0.51"]);
        let guard = cluster.guard("web");
        assert_eq!(guard.sources, Sources::default(), "{list:.2?}");
        assert!(guard.closed.as_ref().unwrap().message.contains(said));
        let condition = cluster.condition("web", "Guarded");
        assert!(
            condition.starts_with(&format!("False/{reason}: ")) && condition.contains(said),
            "{condition}"
        );
        assert!(condition.contains("nobody may connect"), "{condition}");
        let told = |cluster: &Cluster| {
            let events = cluster.events_of("web");
            events.iter().filter(|event| event.starts_with(reason)).count()
        };
        assert_eq!(told(&cluster), 1, "{reason} is told once");
        cluster.crash(0);
        cluster.quiet();
        assert_eq!(told(&cluster), 0);
        assert_eq!(*cluster.guard("other"), other, "nothing else is touched");
        cluster.edit("web", ranges(&["10.0.0.0/8"]));
        cluster.quiet();
        assert!(cluster.condition("web", "Guarded").starts_with("True/"));
        assert_eq!(cluster.guard("web").closed, None);
    }
}

#[test]
fn a_family_without_a_range_is_closed_and_that_is_said() {
    let mut cluster = lan();
    cluster.create("web", |service| {
        dual(service, "RequireDualStack");
        ranges(&["10.0.0.0/8"])(service);
    });
    cluster.assert_has("web", &["10.0.0.50", "fd00::50"]);
    let said = cluster.condition("web", "Guarded");
    let closed = "True/FamilyClosed: only 10.0.0.0/8 may connect, to the nodePorts too; nobody over IPv6, of which there \
                  is no range: add some if that is not meant, ::/0 for everybody";
    assert!(said.starts_with(closed), "{said}");
    assert!(cluster.events_of("web").iter().any(|event| event.starts_with("FamilyClosed: ")));
    cluster.edit("web", ranges(&["10.0.0.0/8", "::/0"]));
    cluster.quiet();
    assert_eq!(cluster.guard("web").sources, sources(&["10.0.0.0/8"], &["::/0"]));
    assert!(cluster.condition("web", "Guarded").starts_with("True/Guarded"));
    // Of a Service that has but one family the other is nothing to speak of.
    cluster.create("single", ranges(&["10.0.0.0/8"]));
    assert!(cluster.condition("single", "Guarded").starts_with("True/Guarded"));
}

#[test]
fn node_ports_are_guarded_unless_their_owner_does_not_want_it() {
    for (value, guarded, said) in [
        (None, true, "True/Guarded"),
        (Some("true"), true, "True/Guarded"),
        (Some("false"), false, "True/Guarded: only 10.0.0.0/8 may connect, but everybody to the nodePorts"),
        (Some("no"), true, "False/AnnotationInvalid: landfall.dev/guard-node-ports says 'no': write 'true'"),
    ] {
        let mut cluster = lan();
        cluster.create("web", |service| {
            ranges(&["10.0.0.0/8"])(service);
            if let Some(value) = value {
                annotate(service, "guard-node-ports", value);
            }
        });
        assert_eq!(cluster.guard("web").ports[0].node_port.is_some(), guarded, "{value:?}");
        let condition = cluster.condition("web", "Guarded");
        assert!(condition.starts_with(said), "{condition}");
        cluster.assert_has("web", &["10.0.0.50"]);
    }
}

#[test]
fn the_annotation_of_clouds_counts_where_the_field_is_empty() {
    let mut cluster =
        pools(&[("lan", json!({"addresses": ["10.0.0.50-10.0.0.59"], "requireSourceRanges": true}))]);
    let by_annotation =
        |service: &mut Service| annotate_as(service, annotations::SOURCE_RANGES, "10.0.0.0/8");
    cluster.create("web", by_annotation);
    cluster.assert_has("web", &["10.0.0.50"]);
    assert_eq!(cluster.guard("web").sources, sources(&["10.0.0.0/8"], &[]));
    cluster.edit("web", ranges(&["192.0.2.0/24"]));
    cluster.quiet();
    assert_eq!(cluster.guard("web").sources, sources(&["192.0.2.0/24"], &[]));
    cluster.create("everybody", |service| annotate_as(service, annotations::SOURCE_RANGES, "0.0.0.0/0"));
    cluster.assert_waits("everybody", "SourceRangesRequired");
    assert!(cluster.has_guard("everybody"));
}

#[test]
fn a_guard_that_the_api_server_refuses_holds_its_service_up_and_nobody_else() {
    let mut cluster = lan();
    cluster.put("web", ranges(&["10.0.0.0/8"]));
    cluster.deliver(0, crate::api::SERVICES);
    cluster.write(0, 0, Way::Refused);
    cluster.answer(0);
    cluster.settle();
    cluster.assert_waits("web", "WriteRefused");
    let said = cluster.condition("web", "Guarded");
    assert!(said.starts_with("False/WriteRefused: ") && said.contains("refused once"), "{said}");
    cluster.create("other", |_| {});
    cluster.assert_has("other", &["10.0.0.50"]);
    // It is tried again.
    cluster.quiet();
    cluster.assert_has("web", &["10.0.0.51"]);
    assert!(cluster.condition("web", "Guarded").starts_with("True/"));
}

#[test]
fn a_guard_that_somebody_deletes_comes_back_and_its_claims_stand() {
    let mut cluster = announced(ranges(&["10.0.0.0/8"]));
    let before = (cluster.guard("web").clone(), cluster.vip("10.0.0.50").clone());
    cluster.api.delete_guard("shop.web");
    assert_eq!(cluster.steps(), ["CreateServiceGuard"]);
    assert_eq!((cluster.guard("web").clone(), cluster.vip("10.0.0.50").clone()), before);
}

#[test]
fn guards_of_services_that_went_while_nobody_looked_are_cleared_away() {
    let mut cluster = announced(ranges(&["10.0.0.0/8"]));
    cluster.create("waits", |service| {
        ranges(&["10.0.0.0/8"])(service);
        annotate(service, "pool", "none");
    });
    let mut service = cluster.get("web").clone();
    service.metadata.finalizers = None;
    cluster.api.put_service(service);
    cluster.crash(0);
    for name in ["web", "waits"] {
        cluster.api.delete_service(&format!("shop/{name}"));
    }
    cluster.quiet();
    assert!(cluster.api.guards.is_empty() && cluster.api.vips.is_empty());
    assert!(cluster.api.services.is_empty());
}

/// A list may be older than a guard: a Service that another controller has seen is asked for.
#[test]
fn a_guard_of_a_service_that_is_only_not_known_yet_stays() {
    let mut cluster = Cluster::new(2);
    cluster.api.put_speaker(crate::objects::speaker("n1", 1));
    cluster.quiet();
    cluster.put("web", ranges(&["10.0.0.0/8"]));
    // The second one alone sees the Service.
    cluster.deliver(1, crate::api::SERVICES);
    while cluster.write(1, 0, Way::Fine).is_some() {}
    while cluster.answer(1) {}
    for kind in (0..crate::api::KINDS).filter(|kind| *kind != crate::api::SERVICES) {
        while cluster.deliver(0, kind) {}
    }
    cluster.pass(Duration::from_secs(20));
    while cluster.write(0, 0, Way::Fine).is_some() {
        cluster.answer(0);
    }
    assert!(cluster.has_guard("web"));
    cluster.quiet();
    assert!(cluster.has_guard("web"));
}

#[test]
fn a_service_that_is_recreated_has_its_guard_from_the_first_moment() {
    let mut cluster = announced(ranges(&["10.0.0.0/8"]));
    let mut service = cluster.get("web").clone();
    service.metadata.finalizers = None;
    cluster.api.put_service(service);
    cluster.api.delete_service("shop/web");
    cluster.put("web", ranges(&["10.0.0.0/8"]));
    let digest = cluster.guard("web").digest();
    cluster.quiet();
    assert_eq!(cluster.guard("web").digest(), digest);
    assert_eq!(Some(&cluster.guard("web").service.uid), cluster.get("web").metadata.uid.as_ref());
    // Without ranges it is open as soon as that is certain.
    let mut service = cluster.get("web").clone();
    service.metadata.finalizers = None;
    cluster.api.put_service(service);
    cluster.api.delete_service("shop/web");
    cluster.put("web", |_| {});
    cluster.settle();
    assert!(!cluster.has_guard("web"));
}

#[test]
fn each_of_those_who_share_an_address_names_its_own_guard() {
    let mut cluster = lan();
    for (name, port, list) in
        [("web", 80, &["10.0.0.0/8"][..]), ("api", 81, &["192.0.2.0/24"]), ("all", 82, &[])]
    {
        cluster.create(name, |service| {
            annotate(service, "sharing-key", "k");
            service.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = port;
            ranges(list)(service);
        });
        cluster.assert_has(name, &["10.0.0.50"]);
    }
    for name in ["web", "api"] {
        assert_eq!(cluster.named(name, "10.0.0.50"), Some(cluster.guard(name).digest()));
    }
    assert_eq!(cluster.named("all", "10.0.0.50"), None);
}

#[test]
fn what_is_not_ours_is_not_guarded() {
    let mut cluster = lan();
    cluster.create("foreign", |service| {
        ranges(&["10.0.0.0/8"])(service);
        service.spec.as_mut().unwrap().load_balancer_class = Some("example.com/other".into());
    });
    cluster.create("theirs", |service| {
        ranges(&["10.0.0.0/8"])(service);
        given_by_another(service, "10.0.0.52");
    });
    assert!(cluster.api.guards.is_empty());
    cluster.edit("theirs", |service| annotate(service, "adopt", "true"));
    assert_eq!(cluster.steps()[0], "CreateServiceGuard");
    cluster.quiet();
    cluster.assert_has("theirs", &["10.0.0.52"]);
}

/// Killed before or after any write, the next controller finds what is there and goes on: no claim ever names a
/// guard that is not there, and in the end everything is as it should be.
#[test]
fn a_crash_between_any_two_writes_leaves_nothing_open_and_nothing_behind() {
    type Story = fn(&mut Cluster);
    let stories: [(&str, Story, bool); 4] = [
        ("comes", |cluster| cluster.put("web", ranges(&["10.0.0.0/8"])), true),
        ("changes", |cluster| cluster.edit("web", ranges(&["10.0.0.0/9"])), true),
        ("opens", |cluster| cluster.edit("web", ranges(&[])), false),
        ("goes", |cluster| cluster.api.delete_service("shop/web"), false),
    ];
    for (what, story, is_guarded) in stories {
        for writes in 0..12 {
            for is_done in [false, true] {
                let mut cluster = if what == "comes" { lan() } else { announced(ranges(&["10.0.0.0/8"])) };
                story(&mut cluster);
                let mut left = writes;
                while left > 0 {
                    for kind in 0..crate::api::KINDS {
                        while cluster.deliver(0, kind) {}
                    }
                    if cluster.write(0, 0, Way::Fine).is_none() {
                        cluster.announce_all();
                        for name in cluster.api.vips.keys().cloned().collect::<Vec<_>>() {
                            if cluster.api.vips[&name].spec.claims.is_empty() {
                                cluster.announce(&name, None);
                            }
                        }
                        cluster.pass(Duration::from_secs(6));
                        left -= 1;
                        continue;
                    }
                    left -= 1;
                    if left > 0 || !is_done {
                        cluster.answer(0);
                    }
                    for claim in cluster.api.vips.values().flat_map(|vip| &vip.spec.claims) {
                        let Some(digest) = &claim.guard else { continue };
                        let guard = cluster.api.guards.get("shop.web").map(|guard| guard.spec.digest());
                        assert!(
                            guard.as_ref() == Some(digest) || guard.is_some() && what == "changes",
                            "{what} {writes}: a claim names what is not there"
                        );
                    }
                }
                cluster.crash(0);
                cluster.wait(Duration::from_secs(60));
                assert_eq!(cluster.has_guard("web"), is_guarded, "{what} {writes}");
                if is_guarded {
                    assert_eq!(cluster.named("web", "10.0.0.50"), Some(cluster.guard("web").digest()));
                }
            }
        }
    }
}
