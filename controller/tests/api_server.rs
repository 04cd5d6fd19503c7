//! The writer against a real API server, whose patches and preconditions no pretence can vouch for.
//!
//! Runs where LANDFALL_TEST_KUBECONFIG names a throw-away cluster that has the custom resource
//! definitions; it makes a namespace of its own there and leaves it behind.

#![allow(clippy::unwrap_used, clippy::panic)] // A test; the lint knows only those in `#[test]` functions.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use landfall_controller::config::Cli;
use landfall_controller::effects::{Effect, Exactly, Outcome, Refusal};
use landfall_controller::lease::Tenure;
use landfall_controller::metrics::Metrics;
use landfall_controller::writer::{Order, Told, Writer};
use landfall_crds::{
    Announce, Candidate, Capacity, Claim, ClaimRef, Closed, ClosedReason, GuardedPort, GuardedService,
    IPPool, IPPoolSpec, IPPoolStatus, Outside, PastGrant, PastHolder, Placement, Port, Protocol,
    ServiceGuard, ServiceGuardSpec, Sources, VirtualIP, VirtualIPSpec, VirtualIPStatus, service_guard_name,
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

struct Bench {
    client: Client,
    orders: mpsc::UnboundedSender<Order>,
    outcomes: mpsc::UnboundedReceiver<Told>,
    _tenure: watch::Sender<Tenure>,
    _stop: oneshot::Sender<()>,
}

impl Bench {
    async fn set_up() -> Option<Self> {
        let Ok(path) = std::env::var("LANDFALL_TEST_KUBECONFIG") else {
            eprintln!("SKIPPED: LANDFALL_TEST_KUBECONFIG names no throw-away cluster");
            return None;
        };
        let kubeconfig = Kubeconfig::read_from(path).unwrap();
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let (tenure, tenures) = watch::channel(Tenure::Always);
        let (orders, wanted) = mpsc::unbounded_channel();
        let (told, outcomes) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let options = Cli::parse_from(["landfall-controller"]).options;
        let (writer, slow_lane) =
            Writer::new(client.clone(), tenures, Arc::default(), Metrics::new(), "test".to_owned(), &options);
        tokio::spawn(slow_lane);
        tokio::spawn(writer.run(wanted, told, stopped));
        Some(Self { client, orders, outcomes, _tenure: tenure, _stop: stop })
    }

    async fn tries(&mut self, effect: Effect) -> Outcome {
        self.orders.send(Order { term: 0, effect }).unwrap();
        match tokio::time::timeout(Duration::from_secs(10), self.outcomes.recv()).await.unwrap() {
            Some(Told { outcome, .. }) => outcome,
            other => panic!("{other:?}"),
        }
    }

    async fn service(&mut self, effect: Effect) -> Arc<Service> {
        match self.tries(effect.clone()).await {
            Outcome::Service(service) => service,
            other => panic!("{effect:?}: {other:?}"),
        }
    }

    async fn virtual_ip(&mut self, effect: Effect) -> Arc<VirtualIP> {
        match self.tries(effect.clone()).await {
            Outcome::VirtualIp(virtual_ip) => virtual_ip,
            other => panic!("{effect:?}: {other:?}"),
        }
    }

    async fn guard(&mut self, effect: Effect) -> Arc<ServiceGuard> {
        match self.tries(effect.clone()).await {
            Outcome::ServiceGuard(guard) => guard,
            other => panic!("{effect:?}: {other:?}"),
        }
    }

    async fn conflicts(&mut self, effect: Effect) {
        let outcome = self.tries(effect.clone()).await;
        assert!(matches!(outcome, Outcome::Refused(Refusal::Conflict)), "{effect:?}: {outcome:?}");
    }
}

fn exactly<K: Resource>(object: &K) -> Exactly {
    Exactly {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap(),
        resource_version: object.resource_version().unwrap(),
    }
}

fn condition(type_: &str, status: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: "Because".to_owned(),
        message: "Why.".to_owned(),
        last_transition_time: Time("2026-01-02T03:04:05Z".parse().unwrap()),
        observed_generation: None,
    }
}

fn condition_types(service: &Service) -> Vec<&str> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_deref());
    let mut types: Vec<_> =
        conditions.unwrap_or_default().iter().map(|condition| condition.type_.as_str()).collect();
    types.sort_unstable();
    types
}

fn addresses(service: &Service) -> Vec<&str> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref());
    ingress.unwrap_or_default().iter().filter_map(|ingress| ingress.ip.as_deref()).collect()
}

/// The name of a namespace, or the last part of an address, that no other run has.
fn unique() -> u32 {
    std::process::id() % 250 + 1
}

async fn a_service(client: &Client, namespace: &str) -> Service {
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace_object = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
    let _ = namespaces.create(&PostParams::default(), &namespace_object).await;
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    let web = json!({ "metadata": { "name": "web", "finalizers": ["example.com/other"] },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }], "selector": { "app": "web" } } });
    services.create(&PostParams::default(), &serde_json::from_value(web).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_service_is_granted_and_released_beside_others_who_write_it() {
    let Some(mut bench) = Bench::set_up().await else { return };
    let namespace = format!("writer-{}", unique());
    let created = a_service(&bench.client, &namespace).await;
    let services = Api::<Service>::namespaced(bench.client.clone(), &namespace);

    let guarded = bench.service(Effect::AddFinalizers { service: exactly(&created) }).await;
    let all = ["example.com/other", "service.kubernetes.io/load-balancer-cleanup", "landfall.dev/address"];
    assert!(all.iter().all(|name| guarded.finalizers().iter().any(|finalizer| finalizer == name)));
    assert_eq!(guarded.finalizers().len(), all.len());
    bench.conflicts(Effect::AddFinalizers { service: exactly(&created) }).await;
    let other = Exactly { uid: "11111111-2222-3333-4444-555555555555".to_owned(), ..exactly(&*guarded) };
    let outcome = bench.tries(Effect::AddFinalizers { service: other }).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "another uid: {outcome:?}");

    // Somebody else has a condition of their own there, applied server-side.
    let theirs = json!({ "apiVersion": "v1", "kind": "Service", "status": { "conditions": [condition("example.com/Theirs", "True")] } });
    let shared =
        services.patch_status("web", &PatchParams::apply("somebody"), &Patch::Apply(theirs)).await.unwrap();

    let ingress = LoadBalancerIngress {
        ip: Some("192.0.2.1".to_owned()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    let granted = condition("landfall.dev/Granted", "True");
    let announced = |status| condition("landfall.dev/Announced", status);
    let set =
        |service: &Service, addresses: &[LoadBalancerIngress], conditions: &[Condition]| Effect::SetIngress {
            service: exactly(service),
            ingress: addresses.to_vec(),
            conditions: conditions.to_vec(),
        };
    bench.conflicts(set(&guarded, std::slice::from_ref(&ingress), &[])).await;
    let both = [granted.clone(), announced("False")];
    let held = bench.service(set(&shared, std::slice::from_ref(&ingress), &both)).await;
    assert_eq!(addresses(&held), ["192.0.2.1"]);
    assert_eq!(
        condition_types(&held),
        ["example.com/Theirs", "landfall.dev/Announced", "landfall.dev/Granted"]
    );

    let again = bench.service(set(&held, std::slice::from_ref(&ingress), &both)).await;
    assert_eq!(again.resource_version(), held.resource_version(), "writing the same changes nothing");

    let conditions = vec![granted, announced("True")];
    let held = bench.service(Effect::SetConditions { service: exactly(&*held), conditions }).await;
    assert_eq!(addresses(&held), ["192.0.2.1"], "conditions alone leave the address");
    let conditions = held.status.as_ref().unwrap().conditions.as_ref().unwrap();
    assert!(conditions.iter().all(|condition| condition.status == "True"));
    bench.conflicts(Effect::SetConditions { service: exactly(&*again), conditions: vec![] }).await;

    services.delete("web", &kube::api::DeleteParams::default()).await.unwrap();
    let dying = services.get("web").await.unwrap();
    let bare = bench.service(set(&dying, &[], &[])).await;
    assert!(addresses(&bare).is_empty());
    assert_eq!(condition_types(&bare), ["example.com/Theirs"], "ours are gone, theirs stay");
    let left = bench.service(Effect::RemoveFinalizers { service: exactly(&*bare) }).await;
    assert_eq!(left.finalizers(), ["example.com/other"]);

    let none = json!({ "metadata": { "finalizers": null } });
    services.patch("web", &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
    for effect in [
        Effect::RemoveFinalizers { service: exactly(&*left) },
        Effect::SetConditions { service: exactly(&*left), conditions: vec![] },
        Effect::GetService { namespace, name: "web".to_owned() },
    ] {
        let outcome = bench.tries(effect.clone()).await;
        assert!(matches!(outcome, Outcome::Gone), "{effect:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn the_last_finalizer_ends_a_deleted_service() {
    let Some(mut bench) = Bench::set_up().await else { return };
    let namespace = format!("writer-last-{}", unique());
    let created = a_service(&bench.client, &namespace).await;
    let services = Api::<Service>::namespaced(bench.client.clone(), &namespace);
    bench.service(Effect::AddFinalizers { service: exactly(&created) }).await;
    let ours = json!({ "metadata": { "finalizers": ["landfall.dev/address", "service.kubernetes.io/load-balancer-cleanup"] } });
    services.patch("web", &PatchParams::default(), &Patch::Merge(ours)).await.unwrap();
    services.delete("web", &kube::api::DeleteParams::default()).await.unwrap();
    let dying = services.get("web").await.unwrap();
    let outcome = bench.tries(Effect::RemoveFinalizers { service: exactly(&dying) }).await;
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    assert!(services.get_opt("web").await.unwrap().is_none());
}

fn spec(address: &str, claims: Vec<Claim>) -> Box<VirtualIPSpec> {
    let port = |claim: &Claim| Port {
        protocol: landfall_crds::Protocol::Tcp,
        port: 80,
        claim: ClaimRef { namespace: claim.namespace.clone(), name: claim.name.clone() },
        node_port: Some(30080),
    };
    let announce = Announce { interfaces: vec!["eth*".to_owned()], ..Announce::default() };
    Box::new(VirtualIPSpec {
        address: address.to_owned(),
        pool: Some("lan".to_owned()),
        ports: claims.iter().map(port).collect(),
        claims,
        placement: Some(Placement { epoch: 1, candidates: vec![Candidate { node: "n1".to_owned() }] }),
        announce: Some(announce),
        reservation: None,
    })
}

#[tokio::test]
async fn an_address_is_claimed_released_and_ended() {
    let Some(mut bench) = Bench::set_up().await else { return };
    let address = format!("198.51.100.{}", unique());
    let api = Api::<VirtualIP>::all(bench.client.clone());
    let claim = Claim {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "u".to_owned(),
        ..Claim::default()
    };
    let create =
        || Effect::CreateVirtualIp { name: address.clone(), spec: spec(&address, vec![claim.clone()]) };
    let created = bench.virtual_ip(create()).await;
    assert_eq!(created.finalizers(), ["landfall.dev/claimed"]);
    let outcome = bench.tries(create()).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::AlreadyExists)), "{outcome:?}");

    let mut wrong = spec(&address, vec![claim.clone()]);
    wrong.address = "198.51.100.255".to_owned();
    let outcome = bench.tries(Effect::UpdateVirtualIp { virtual_ip: exactly(&*created), spec: wrong }).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Invalid(_))), "{outcome:?}");

    // A person reserves it meanwhile.
    let reservation = json!({ "spec": { "reservation": { "namespace": "shop" } } });
    let reserved = api.patch(&address, &PatchParams::default(), &Patch::Merge(reservation)).await.unwrap();
    bench
        .conflicts(Effect::UpdateVirtualIp { virtual_ip: exactly(&*created), spec: spec(&address, vec![]) })
        .await;

    // All that can be emptied is emptied; the reservation is written as it was read.
    let mut tombstone = spec(&address, vec![]);
    tombstone.reservation = reserved.spec.reservation.clone();
    assert!(tombstone.reservation.is_some());
    tombstone.placement = Some(Placement { epoch: 9, candidates: vec![] });
    tombstone.announce = Some(Announce::default());
    tombstone.pool = None;
    let released = bench
        .virtual_ip(Effect::UpdateVirtualIp { virtual_ip: exactly(&reserved), spec: tombstone.clone() })
        .await;
    assert_eq!(released.spec, *tombstone);

    let holder = PastHolder {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "u".to_owned(),
        since: None,
        until: Time("2026-01-02T03:04:05Z".parse().unwrap()),
    };
    // A speaker's part is beside ours and stays.
    let theirs = json!({ "apiVersion": "landfall.dev/v1alpha1", "kind": "VirtualIP", "status": { "conditions": [condition("Announced", "False")] } });
    let spoken = api
        .patch_status(&address, &PatchParams::apply("landfall-speaker"), &Patch::Apply(theirs))
        .await
        .unwrap();
    let status = Box::new(VirtualIPStatus { last_holders: vec![holder], ..VirtualIPStatus::default() });
    bench
        .conflicts(Effect::SetVirtualIpStatus { virtual_ip: exactly(&*released), status: status.clone() })
        .await;
    let told = bench.virtual_ip(Effect::SetVirtualIpStatus { virtual_ip: exactly(&spoken), status }).await;
    let status = told.status.as_ref().unwrap();
    assert_eq!((status.last_holders.len(), status.conditions.len()), (1, 1));
    let told = bench
        .virtual_ip(Effect::SetVirtualIpStatus { virtual_ip: exactly(&*told), status: Box::default() })
        .await;
    let status = told.status.as_ref().unwrap();
    assert_eq!((status.last_holders.len(), status.conditions.len()), (0, 1));

    let unclaimed = bench.virtual_ip(Effect::UnclaimVirtualIp { virtual_ip: exactly(&*told) }).await;
    assert!(unclaimed.finalizers().is_empty());
    let claimed = bench
        .virtual_ip(Effect::UpdateVirtualIp {
            virtual_ip: exactly(&*unclaimed),
            spec: spec(&address, vec![claim]),
        })
        .await;
    assert_eq!(claimed.finalizers(), ["landfall.dev/claimed"]);
    assert!(claimed.spec.reservation.is_none(), "a reservation that is left out has ended");

    bench.conflicts(Effect::DeleteVirtualIp { virtual_ip: exactly(&*unclaimed) }).await;
    let outcome = bench.tries(Effect::DeleteVirtualIp { virtual_ip: exactly(&*claimed) }).await;
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    assert!(api.get_opt(&address).await.unwrap().is_none());
    let outcome = bench.tries(Effect::DeleteVirtualIp { virtual_ip: exactly(&*claimed) }).await;
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
}

#[tokio::test]
async fn an_address_that_is_being_deleted_is_let_go() {
    let Some(mut bench) = Bench::set_up().await else { return };
    let address = format!("203.0.113.{}", unique());
    let api = Api::<VirtualIP>::all(bench.client.clone());
    bench.virtual_ip(Effect::CreateVirtualIp { name: address.clone(), spec: spec(&address, vec![]) }).await;
    api.delete(&address, &kube::api::DeleteParams::default()).await.unwrap();
    let dying = api.get(&address).await.unwrap();
    assert!(dying.metadata.deletion_timestamp.is_some());
    let outcome = bench.tries(Effect::DeleteVirtualIp { virtual_ip: exactly(&dying) }).await;
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    assert!(api.get_opt(&address).await.unwrap().is_none());
}

#[tokio::test]
async fn a_pool_is_told_what_became_of_it() {
    let Some(mut bench) = Bench::set_up().await else { return };
    let name = format!("pool-{}", unique());
    let api = Api::<IPPool>::all(bench.client.clone());
    let spec =
        IPPoolSpec { addresses: vec!["192.0.2.0/28".to_owned()], auto_assign: true, ..IPPoolSpec::default() };
    let _ = api.delete(&name, &kube::api::DeleteParams::default()).await;
    let pool = api.create(&PostParams::default(), &IPPool::new(&name, spec)).await.unwrap();
    let capacity = Capacity { total: 16, granted: 1, reserved: 0, available: 15 };
    let full = IPPoolStatus {
        observed_generation: Some(1),
        ipv4: Some(capacity),
        ipv6: Some(capacity),
        outside: Some(Outside { count: 1, addresses: vec!["192.0.2.99".to_owned()] }),
        history: vec![PastGrant {
            address: "192.0.2.1".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "u1".to_owned(),
            since: None,
            until: Time("2026-01-02T03:04:05Z".parse().unwrap()),
        }],
        conditions: vec![condition("Ready", "True")],
    };
    let set = |pool: &IPPool, status: &IPPoolStatus| Effect::SetPoolStatus {
        pool: exactly(pool),
        status: Box::new(status.clone()),
    };
    let Outcome::Pool(told) = bench.tries(set(&pool, &full)).await else { panic!("the pool") };
    assert_eq!(told.status.as_ref(), Some(&full));
    bench.conflicts(set(&pool, &full)).await;
    let less = IPPoolStatus { ipv6: None, outside: None, history: vec![], conditions: vec![], ..full };
    let Outcome::Pool(told) = bench.tries(set(&told, &less)).await else { panic!("the pool") };
    assert_eq!(told.status.as_ref(), Some(&less));
}

/// A guard as large as one may be is kept as it was written, and nothing about it is written or removed that was
/// decided on another state.
#[tokio::test]
async fn a_guard_is_written_changed_closed_and_removed_exactly() {
    let Some(mut bench) = Bench::set_up().await else { return };
    let service = ClaimRef { namespace: format!("writer-{}", unique()), name: "guarded".to_owned() };
    let name = service_guard_name(&service);
    let port = |port, node_port| GuardedPort { protocol: Protocol::Tcp, port, node_port };
    let first = ServiceGuardSpec {
        service: GuardedService {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            uid: "5f0e7b3a-0000-4000-8000-000000000000".to_owned(),
        },
        sources: Sources {
            ipv4: (0..500).map(|n| format!("10.{}.{}.0/25", n / 250, n % 250)).collect(),
            ipv6: (0..500).map(|n| format!("fd00:0:0:{n:x}::/64")).collect(),
        },
        ports: (1..=256).map(|number| port(number, Some(30_000 + number))).collect(),
        closed: None,
    };
    let create = |spec: &ServiceGuardSpec| Effect::CreateServiceGuard {
        name: name.clone(),
        spec: Box::new(spec.clone()),
    };
    let update = |guard: Exactly, spec: &ServiceGuardSpec| Effect::UpdateServiceGuard {
        guard,
        spec: Box::new(spec.clone()),
    };
    let created = bench.guard(create(&first)).await;
    assert_eq!(created.spec, first);
    let again = bench.tries(create(&first)).await;
    assert!(matches!(again, Outcome::Refused(Refusal::AlreadyExists)), "{again:?}");

    // Everything that can be left out is left out.
    let message = "x".repeat(1024);
    let closed = ServiceGuardSpec {
        sources: Sources::default(),
        ports: vec![port(80, None)],
        closed: Some(Closed { reason: ClosedReason::InvalidSourceRange, message }),
        ..first.clone()
    };
    let changed = bench.guard(update(exactly(&*created), &closed)).await;
    assert_eq!(changed.spec, closed);
    bench.conflicts(update(exactly(&*created), &first)).await;
    bench.conflicts(Effect::DeleteServiceGuard { guard: exactly(&*created) }).await;
    let opened = bench.guard(update(exactly(&*changed), &first)).await;
    assert_eq!(opened.spec, first);
    let read = Api::<ServiceGuard>::all(bench.client.clone()).get(&name).await.unwrap();
    assert_eq!(read.spec, first);

    let gone = bench.tries(Effect::DeleteServiceGuard { guard: exactly(&*opened) }).await;
    assert!(matches!(gone, Outcome::Gone), "{gone:?}");
    for effect in [Effect::DeleteServiceGuard { guard: exactly(&*opened) }, update(exactly(&*opened), &first)]
    {
        let outcome = bench.tries(effect.clone()).await;
        assert!(matches!(outcome, Outcome::Gone), "{effect:?}: {outcome:?}");
    }
}
