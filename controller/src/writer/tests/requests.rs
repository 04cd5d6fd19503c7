//! What each effect says to the API server, and what each answer means.

use super::*;

const FINALIZERS: [&str; 2] = ["service.kubernetes.io/load-balancer-cleanup", "landfall.dev/address"];
const SERVICE: &str = "PATCH /api/v1/namespaces/shop/services/web?&fieldManager=landfall-controller";
const SERVICE_STATUS: &str =
    "PATCH /api/v1/namespaces/shop/services/web/status?&fieldManager=landfall-controller";
const VIRTUAL_IP: &str =
    "PATCH /apis/landfall.dev/v1alpha1/virtualips/192.0.2.1?&fieldManager=landfall-controller";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";

#[tokio::test]
async fn finalizers_are_added_to_what_is_there() {
    let (outcome, seen) =
        told(Effect::AddFinalizers { service: web() }, vec![(200, service(json!({})))]).await;
    assert_eq!(
        seen,
        [Seen {
            line: SERVICE.to_owned(),
            content_type: STRATEGIC.to_owned(),
            body: json!({ "metadata": { "name": "web", "uid": "u1", "resourceVersion": "41", "finalizers": FINALIZERS } }),
        }]
    );
    assert!(
        matches!(outcome, Outcome::Service(service) if service.metadata.resource_version.as_deref() == Some("42"))
    );
}

#[tokio::test]
async fn finalizers_are_removed_and_no_others() {
    let effect = Effect::RemoveFinalizers { service: web() };
    let (outcome, seen) = told(effect.clone(), vec![(200, service(json!({})))]).await;
    assert_eq!(
        seen,
        [Seen {
            line: SERVICE.to_owned(),
            content_type: STRATEGIC.to_owned(),
            body: json!({ "metadata": { "name": "web", "uid": "u1", "resourceVersion": "41", "$deleteFromPrimitiveList/finalizers": FINALIZERS } }),
        }]
    );
    assert!(matches!(outcome, Outcome::Service(_)));

    let deleted = json!({ "deletionTimestamp": "2026-01-02T03:04:05Z" });
    let (outcome, _) = told(effect.clone(), vec![(200, service(deleted))]).await;
    assert!(matches!(outcome, Outcome::Gone), "the last finalizer of a deleted Service: {outcome:?}");

    let held = json!({ "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["foregroundDeletion"] });
    let (outcome, _) = told(effect, vec![(200, service(held))]).await;
    assert!(matches!(outcome, Outcome::Service(_)), "somebody else holds it: {outcome:?}");
}

#[tokio::test]
async fn an_address_is_created_with_its_finalizer() {
    let spec =
        VirtualIPSpec { address: "192.0.2.1".to_owned(), claims: vec![claim()], ..VirtualIPSpec::default() };
    let effect = Effect::CreateVirtualIp { name: "192.0.2.1".to_owned(), spec: Box::new(spec) };
    let (outcome, seen) = told(effect, vec![(201, virtual_ip(json!({}), claims()))]).await;
    assert_eq!(seen[0].line, "POST /apis/landfall.dev/v1alpha1/virtualips?&fieldManager=landfall-controller");
    assert_eq!(
        seen[0].body["metadata"],
        json!({ "name": "192.0.2.1", "finalizers": ["landfall.dev/claimed"] })
    );
    assert_eq!(seen[0].body["spec"], json!({ "address": "192.0.2.1", "claims": claims() }));
    assert!(matches!(outcome, Outcome::VirtualIp(_)));
}

#[tokio::test]
async fn an_update_names_every_field() {
    let spec = VirtualIPSpec {
        address: "192.0.2.1".to_owned(),
        claims: vec![claim()],
        placement: Some(Placement { epoch: 7, candidates: vec![] }),
        announce: Some(Announce::default()),
        reservation: Some(Reservation { namespace: "shop".to_owned(), ..Reservation::default() }),
        ..VirtualIPSpec::default()
    };
    let effect = Effect::UpdateVirtualIp { virtual_ip: address(), spec: Box::new(spec) };
    let guarded = virtual_ip(json!({ "finalizers": ["landfall.dev/claimed"] }), claims());
    let (outcome, seen) = told(effect, vec![(200, guarded)]).await;
    assert_eq!(
        seen,
        [Seen {
            line: VIRTUAL_IP.to_owned(),
            content_type: MERGE.to_owned(),
            body: json!({
                "metadata": { "name": "192.0.2.1", "uid": "v1", "resourceVersion": "17" },
                "spec": {
                    "address": "192.0.2.1",
                    "pool": null,
                    "claims": claims(),
                    "ports": null,
                    "placement": { "epoch": 7, "candidates": null },
                    "announce": { "interfaces": null, "fallback": "None" },
                    "reservation":
                        { "namespace": "shop", "name": null, "expires": null, "namespaceUid": null, "note": null },
                },
            }),
        }]
    );
    assert!(matches!(outcome, Outcome::VirtualIp(_)));
}

#[tokio::test]
async fn a_reserved_address_that_is_claimed_gets_the_finalizer_it_never_had() {
    let spec = VirtualIPSpec { claims: vec![claim()], ..VirtualIPSpec::default() };
    let effect = Effect::UpdateVirtualIp { virtual_ip: address(), spec: Box::new(spec) };
    let bare = virtual_ip(json!({ "finalizers": ["x/y"] }), claims());
    let guarded = virtual_ip(
        json!({ "resourceVersion": "19", "finalizers": ["x/y", "landfall.dev/claimed"] }),
        claims(),
    );
    let (outcome, seen) = told(effect, vec![(200, bare), (200, guarded)]).await;
    assert_eq!(
        seen[1].body,
        json!({ "metadata": { "name": "192.0.2.1", "uid": "v1", "resourceVersion": "18", "finalizers": ["x/y", "landfall.dev/claimed"] } })
    );
    assert!(
        matches!(outcome, Outcome::VirtualIp(it) if it.metadata.resource_version.as_deref() == Some("19"))
    );
}

#[tokio::test]
async fn a_tombstone_is_given_no_finalizer() {
    let effect = Effect::UpdateVirtualIp { virtual_ip: address(), spec: Box::default() };
    let (outcome, seen) = told(effect, vec![(200, virtual_ip(json!({}), json!([])))]).await;
    assert_eq!(seen.len(), 1);
    assert!(matches!(outcome, Outcome::VirtualIp(_)));
}

#[tokio::test]
async fn only_the_controllers_part_of_a_status_is_applied() {
    let holder = PastHolder {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "u1".to_owned(),
        since: None,
        until: Time("2026-01-02T03:04:05Z".parse().unwrap()),
    };
    let status = VirtualIPStatus {
        last_holders: vec![holder.clone()],
        conditions: vec![condition("Announced")],
        ..VirtualIPStatus::default()
    };
    let effect = Effect::SetVirtualIpStatus { virtual_ip: address(), status: Box::new(status) };
    let (outcome, seen) = told(effect, vec![(200, virtual_ip(json!({}), json!([])))]).await;
    assert_eq!(
        seen,
        [Seen {
            line: "PATCH /apis/landfall.dev/v1alpha1/virtualips/192.0.2.1/status?&force=true&fieldManager=landfall-controller".to_owned(),
            content_type: "application/apply-patch+yaml".to_owned(),
            body: json!({
                "apiVersion": "landfall.dev/v1alpha1",
                "kind": "VirtualIP",
                "metadata": { "name": "192.0.2.1", "uid": "v1", "resourceVersion": "17" },
                "status": { "lastHolders": [holder] },
            }),
        }]
    );
    assert!(matches!(outcome, Outcome::VirtualIp(_)));
}

#[tokio::test]
async fn an_address_is_deleted_first_and_then_let_go() {
    let effect = Effect::DeleteVirtualIp { virtual_ip: address() };
    let ending = |finalizers: Value| {
        virtual_ip(
            json!({ "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": finalizers }),
            json!([]),
        )
    };
    let answers = vec![(200, ending(json!(["landfall.dev/claimed"]))), (200, ending(json!([])))];
    let (outcome, seen) = told(effect.clone(), answers).await;
    assert_eq!(seen[0].line, "DELETE /apis/landfall.dev/v1alpha1/virtualips/192.0.2.1?");
    assert_eq!(seen[0].body["preconditions"], json!({ "uid": "v1", "resourceVersion": "17" }));
    assert_eq!(seen[1].line, VIRTUAL_IP);
    assert_eq!(
        seen[1].body,
        json!({ "metadata": { "name": "192.0.2.1", "uid": "v1", "resourceVersion": "18", "finalizers": null } })
    );
    assert!(matches!(outcome, Outcome::Gone));

    let success = json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" });
    let (outcome, seen) = told(effect.clone(), vec![(200, success)]).await;
    assert!(matches!(outcome, Outcome::Gone) && seen.len() == 1, "there was no finalizer: {outcome:?}");

    let both = ending(json!(["x/y", "landfall.dev/claimed"]));
    let (outcome, seen) = told(effect, vec![(200, both), (200, ending(json!(["x/y"])))]).await;
    assert_eq!(seen[1].body["metadata"]["finalizers"], json!(["x/y"]));
    assert!(matches!(outcome, Outcome::VirtualIp(_)), "somebody else holds it: {outcome:?}");
}

#[tokio::test]
async fn a_reservation_that_stays_loses_the_finalizer_only() {
    let effect = Effect::UnclaimVirtualIp { virtual_ip: address() };
    let read = virtual_ip(
        json!({ "resourceVersion": "17", "finalizers": ["landfall.dev/claimed", "x/y"] }),
        json!([]),
    );
    let (outcome, seen) = told(
        effect.clone(),
        vec![(200, read), (200, virtual_ip(json!({ "finalizers": ["x/y"] }), json!([])))],
    )
    .await;
    assert_eq!(seen[0].line, "GET /apis/landfall.dev/v1alpha1/virtualips/192.0.2.1");
    assert_eq!(
        seen[1].body,
        json!({ "metadata": { "name": "192.0.2.1", "uid": "v1", "resourceVersion": "17", "finalizers": ["x/y"] } })
    );
    assert!(matches!(outcome, Outcome::VirtualIp(_)));

    let changed =
        virtual_ip(json!({ "resourceVersion": "18", "finalizers": ["landfall.dev/claimed"] }), json!([]));
    let (outcome, _) = told(effect.clone(), vec![(200, changed)]).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Conflict)));

    let off_already = virtual_ip(json!({ "resourceVersion": "17" }), json!([]));
    let (outcome, seen) = told(effect, vec![(200, off_already)]).await;
    assert!(matches!(outcome, Outcome::VirtualIp(_)) && seen.len() == 1, "compared before written");
}

/// A condition of ours that is to be absent.
fn gone(type_: &str) -> serde_json::Value {
    json!({ "type": type_, "$patch": "delete" })
}

#[tokio::test]
async fn addresses_and_conditions_are_one_write() {
    let ingress = LoadBalancerIngress {
        ip: Some("192.0.2.1".to_owned()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    let effect = Effect::SetIngress {
        service: web(),
        ingress: vec![ingress],
        conditions: vec![condition("landfall.dev/Granted"), condition("landfall.dev/Announced")],
    };
    let (outcome, seen) = told(effect, vec![(200, service(json!({})))]).await;
    assert_eq!(
        seen,
        [Seen {
            line: SERVICE_STATUS.to_owned(),
            content_type: STRATEGIC.to_owned(),
            body: json!({
                "metadata": { "name": "web", "uid": "u1", "resourceVersion": "41" },
                "status": {
                    "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "VIP" }] },
                    "conditions": [
                        condition("landfall.dev/Granted"),
                        condition("landfall.dev/Announced"),
                        gone("landfall.dev/Guarded"),
                        gone("landfall.dev/ExternalIPConflict"),
                    ],
                },
            }),
        }]
    );
    assert!(matches!(outcome, Outcome::Service(_)));
}

#[tokio::test]
async fn addresses_and_conditions_that_are_no_more_are_taken_away() {
    let effect = Effect::SetIngress {
        service: web(),
        ingress: vec![],
        conditions: vec![condition("landfall.dev/Granted")],
    };
    let (_, seen) = told(effect, vec![(200, service(json!({})))]).await;
    assert_eq!(
        seen[0].body["status"],
        json!({
            "loadBalancer": { "ingress": null },
            "conditions": [
                condition("landfall.dev/Granted"),
                gone("landfall.dev/Announced"),
                gone("landfall.dev/Guarded"),
                gone("landfall.dev/ExternalIPConflict"),
            ],
        })
    );

    let effect = Effect::SetConditions { service: web(), conditions: vec![] };
    let (_, seen) = told(effect, vec![(200, service(json!({})))]).await;
    assert_eq!(
        seen[0].body["status"],
        json!({ "conditions": [
            gone("landfall.dev/Granted"),
            gone("landfall.dev/Announced"),
            gone("landfall.dev/Guarded"),
            gone("landfall.dev/ExternalIPConflict"),
        ] }),
        "the addresses are not named and stay"
    );
}

#[tokio::test]
async fn the_whole_status_of_a_pool_is_written() {
    let pool = Exactly {
        namespace: String::new(),
        name: "lan".to_owned(),
        uid: "p1".to_owned(),
        resource_version: "5".to_owned(),
    };
    let capacity = Capacity { total: 10, granted: 1, reserved: 0, available: 9 };
    let status =
        IPPoolStatus { observed_generation: Some(3), ipv4: Some(capacity), ..IPPoolStatus::default() };
    let effect = Effect::SetPoolStatus { pool, status: Box::new(status) };
    let answer = json!({ "apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": { "name": "lan" }, "spec": { "addresses": ["192.0.2.0/28"] } });
    let (outcome, seen) = told(effect, vec![(200, answer)]).await;
    assert_eq!(
        seen,
        [Seen {
            line: "PATCH /apis/landfall.dev/v1alpha1/ippools/lan/status?&fieldManager=landfall-controller"
                .to_owned(),
            content_type: MERGE.to_owned(),
            body: json!({
                "metadata": { "name": "lan", "uid": "p1", "resourceVersion": "5" },
                "status": { "observedGeneration": 3, "ipv4": capacity, "ipv6": null, "outside": null, "history": null, "conditions": null },
            }),
        }]
    );
    assert!(matches!(outcome, Outcome::Pool(_)));
}

#[tokio::test]
async fn reading_goes_past_every_cache() {
    let effect = Effect::GetService { namespace: "shop".to_owned(), name: "web".to_owned() };
    let (outcome, seen) = told(effect, vec![(200, service(json!({})))]).await;
    // Without a resourceVersion the API server answers with what is true now.
    assert_eq!(seen[0].line, "GET /api/v1/namespaces/shop/services/web");
    assert!(matches!(outcome, Outcome::Service(_)));

    let effect = Effect::GetVirtualIp { name: "192.0.2.1".to_owned() };
    let (outcome, seen) = told(effect.clone(), vec![(200, virtual_ip(json!({}), claims()))]).await;
    assert_eq!(seen[0].line, "GET /apis/landfall.dev/v1alpha1/virtualips/192.0.2.1");
    assert!(matches!(outcome, Outcome::VirtualIp(_)));

    let (outcome, _) = told(effect, vec![(404, refused(404, "NotFound"))]).await;
    assert!(matches!(outcome, Outcome::Gone));
}

#[tokio::test]
async fn every_refusal_is_told_by_its_kind() {
    let create = || Effect::CreateVirtualIp { name: "192.0.2.1".to_owned(), spec: Box::default() };
    let update = || Effect::AddFinalizers { service: web() };
    for (effect, code, reason, expected) in [
        (create(), 409, "AlreadyExists", "AlreadyExists"),
        (update(), 409, "Conflict", "Conflict"),
        (update(), 404, "NotFound", "Gone"),
        (create(), 404, "NotFound", "Unavailable"),
        (update(), 400, "BadRequest", "Invalid"),
        (update(), 403, "Forbidden", "Invalid"),
        (create(), 422, "Invalid", "Invalid"),
        (update(), 401, "Unauthorized", "Unavailable"),
        (update(), 429, "TooManyRequests", "Unavailable"),
        (update(), 500, "InternalError", "Unavailable"),
        (update(), 503, "ServiceUnavailable", "Unavailable"),
        (update(), 504, "Timeout", "Unavailable"),
    ] {
        let name = effect.name();
        let (outcome, _) = told(effect, vec![(code, refused(code, reason))]).await;
        assert_eq!(outcome.name(), expected, "{name} answered with {code} {reason}");
        if let Outcome::Refused(Refusal::Invalid(message)) = outcome {
            assert_eq!(message, "because");
        }
    }
}

#[tokio::test]
async fn a_busy_api_server_is_heard() {
    for code in [429, 503, 504] {
        let mut answer = refused(code, "TooManyRequests");
        answer["details"] = json!({"retryAfterSeconds": 7});
        let (outcome, _) = told(Effect::AddFinalizers { service: web() }, vec![(code, answer)]).await;
        let after = match outcome {
            Outcome::Refused(Refusal::Busy { after, .. }) => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after, Duration::from_secs(7));
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_no_answer() {
    let (outcome, _) = told(Effect::AddFinalizers { service: web() }, vec![(200, json!("hello"))]).await;
    assert_eq!(outcome.name(), "Unavailable");
    let (outcome, _) =
        told(Effect::GetVirtualIp { name: "a".to_owned() }, vec![(404, json!("404 page not found"))]).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Unavailable(message)) if message.contains("crds/")));
}

const GUARD: &str =
    "PATCH /apis/landfall.dev/v1alpha1/serviceguards/shop.web?&fieldManager=landfall-controller";

fn guard() -> Exactly {
    Exactly {
        namespace: String::new(),
        name: "shop.web".into(),
        uid: "g1".into(),
        resource_version: "9".into(),
    }
}

fn guard_spec() -> ServiceGuardSpec {
    ServiceGuardSpec {
        service: GuardedService { namespace: "shop".into(), name: "web".into(), uid: "u1".into() },
        sources: Sources { ipv4: vec!["192.0.2.0/24".into()], ipv6: Vec::new() },
        ports: vec![GuardedPort { protocol: Protocol::Tcp, port: 80, node_port: Some(30080) }],
        closed: None,
    }
}

fn guard_answer() -> Value {
    json!({
        "apiVersion": "landfall.dev/v1alpha1", "kind": "ServiceGuard",
        "metadata": { "name": "shop.web", "uid": "g1", "resourceVersion": "10" }, "spec": guard_spec(),
    })
}

#[tokio::test]
async fn a_guard_is_created_by_its_name() {
    let effect = Effect::CreateServiceGuard { name: "shop.web".into(), spec: Box::new(guard_spec()) };
    let (outcome, seen) = told(effect.clone(), vec![(201, guard_answer())]).await;
    assert_eq!(
        seen[0].line,
        "POST /apis/landfall.dev/v1alpha1/serviceguards?&fieldManager=landfall-controller"
    );
    assert_eq!(seen[0].body["metadata"], json!({ "name": "shop.web" }));
    assert!(matches!(outcome, Outcome::ServiceGuard(guard) if guard.spec == guard_spec()));

    let unknown =
        json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "x" });
    let (outcome, _) = told(effect, vec![(404, unknown)]).await;
    assert!(
        matches!(outcome, Outcome::Refused(Refusal::Unavailable(_))),
        "there is no such kind: {outcome:?}"
    );
}

#[tokio::test]
async fn an_update_of_a_guard_names_every_field() {
    let effect = Effect::UpdateServiceGuard { guard: guard(), spec: Box::new(guard_spec()) };
    let (outcome, seen) = told(effect, vec![(200, guard_answer())]).await;
    assert_eq!(
        seen,
        [Seen {
            line: GUARD.to_owned(),
            content_type: MERGE.to_owned(),
            body: json!({
                "metadata": { "name": "shop.web", "uid": "g1", "resourceVersion": "9" },
                "spec": {
                    "service": { "namespace": "shop", "name": "web", "uid": "u1" },
                    "sources": { "ipv4": ["192.0.2.0/24"], "ipv6": null },
                    "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080 }],
                    "closed": null,
                },
            }),
        }]
    );
    assert!(matches!(outcome, Outcome::ServiceGuard(_)));
}

#[tokio::test]
async fn a_guard_is_deleted_as_it_was_seen() {
    let effect = Effect::DeleteServiceGuard { guard: guard() };
    let (outcome, seen) = told(effect.clone(), vec![(200, guard_answer())]).await;
    assert_eq!(seen[0].line, "DELETE /apis/landfall.dev/v1alpha1/serviceguards/shop.web?");
    assert_eq!(seen[0].body["preconditions"], json!({ "uid": "g1", "resourceVersion": "9" }));
    assert!(matches!(outcome, Outcome::Gone));

    let mut held = guard_answer();
    held["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    held["metadata"]["finalizers"] = json!(["example.com/other"]);
    let (outcome, _) = told(effect, vec![(200, held)]).await;
    assert!(matches!(outcome, Outcome::ServiceGuard(_)), "somebody else holds it: {outcome:?}");
}
