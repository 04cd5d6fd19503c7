//! The API server itself refuses a bad object, with a sentence that says what is wrong, on create and
//! on update.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use landfall_crds::{IPPool, Speaker, VirtualIP, virtual_ip_name};
use serde_json::{Value, json};

/// What the API server is expected to say.
enum Answer {
    Accepted,
    /// Refused, with this in the message.
    Refused(&'static str),
}
use Answer::{Accepted, Refused};

fn pools() -> Vec<(Value, Answer)> {
    let addresses = |list: &[&str]| json!({ "addresses": list });
    vec![
        (addresses(&["192.168.10.0/24"]), Accepted),
        (
            addresses(&["192.168.10.50-192.168.10.99", "fd00::/64", "10.0.0.7/32", "10.0.0.9-10.0.0.9"]),
            Accepted,
        ),
        (addresses(&["10.0.0.255-10.0.1.0", "fd00::1:50-fd00::2:10", "fd00::-fd00:0:0:ffff::"]), Accepted),
        (addresses(&["0A00::/64"]), Accepted),
        (
            json!({
                "addresses": ["13.12.21.0/24"], "exclude": ["13.12.21.0-13.12.21.9"], "autoAssign": false,
                "priority": 7, "avoidNetworkAndBroadcast": true, "scope": "External", "releaseDelay": "1h30m",
                "quota": {"perNamespace": 3}, "requireSourceRanges": true, "sharing": {"namespaces": ["a", "b"]},
                "reservations": {"expireAfter": "720h"}, "serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                "externalTargets": ["10.9.0.0/16"], "namespaceSelector": {"matchLabels": {"team": "a"}},
                "announce": {"interfaces": ["eth1", "enp*"], "nodeSelector": {"matchLabels": {"lan": "yes"}}},
            }),
            Accepted,
        ),
        (json!({}), Refused("spec.addresses: Required value")),
        (addresses(&[]), Refused("should have at least 1 items")),
        (addresses(&["lan"]), Refused("must be a CIDR such as 192.168.10.0/24 or a range")),
        (addresses(&["10.0.0.5"]), Refused("a single address is a /32")),
        (addresses(&["10.0.0.0/33"]), Refused("must be a CIDR")),
        (addresses(&["10.0.0.300-10.0.0.301"]), Refused("must be a CIDR")),
        (addresses(&["10.0.0.1-10.0.0.2-10.0.0.3"]), Refused("must be a CIDR")),
        (addresses(&["::ffff:10.0.0.1-::ffff:10.0.0.9"]), Refused("must be a CIDR")),
        (addresses(&["10.0.0.5/24"]), Refused("bits beyond the prefix length")),
        (addresses(&["10.0.0.9-fd00::9"]), Refused("different families")),
        (addresses(&["10.0.0.9-10.0.0.8"]), Refused("the first address is after the last")),
        (addresses(&["10.1.0.0-10.0.255.255"]), Refused("the first address is after the last")),
        (addresses(&["fd00::99-fd00::50"]), Refused("the first address is after the last")),
        (addresses(&["fd00:0:0:1::-fd00::ffff"]), Refused("the first address is after the last")),
        (addresses(&["10.0.0.0/24", "10.0.0.0/24"]), Refused("Duplicate value: \"10.0.0.0/24\"")),
        (addresses(&["2001:db8::/16"]), Refused("bits beyond the prefix length")),
        (addresses(&["fd00::/16"]), Refused("too large to be meant")),
        (addresses(&["fd00::-fdff::"]), Refused("too large to be meant")),
        (addresses(&["0.0.0.0/0"]), Refused("too large to be meant")),
        (addresses(&["127.0.0.0/24"]), Refused("loopback")),
        (addresses(&["169.254.0.0/16"]), Refused("link-local")),
        (addresses(&["224.0.0.1-224.0.0.9"]), Refused("multicast")),
        (addresses(&["fe80::1-fe80::2"]), Refused("link-local")),
        (
            json!({"addresses": ["10.0.0.0/24"], "scope": "Private"}),
            Refused("Unsupported value: \"Private\""),
        ),
        (json!({"addresses": ["10.0.0.0/24"], "exclude": ["nothing"]}), Refused("spec.exclude[0]")),
        (json!({"addresses": ["10.0.0.0/24"], "externalTargets": ["db.example"]}), Refused("must be a CIDR")),
        (
            json!({"addresses": ["10.0.0.0/24"], "announce": {"interfaces": ["a b"]}}),
            Refused("announce.interfaces[0]"),
        ),
    ]
}

/// What a pool may say beside its addresses of those who may use it.
fn terms() -> Vec<(Value, Answer)> {
    let names = |count: usize| (0..count).map(|n| format!("team-{n}")).collect::<Vec<_>>();
    let mut table = vec![
        (json!({"releaseDelay": null, "reservations": {}, "quota": {}, "sharing": {}}), Accepted),
        (json!({"namespaceSelector": {}, "serviceSelector": {}}), Accepted),
        (json!({"quota": {"perNamespace": 0}}), Accepted),
        (json!({"quota": {"perNamespace": 1_000_000}}), Accepted),
        (json!({"quota": {"perNamespace": -1}}), Refused("spec.quota.perNamespace")),
        (json!({"quota": {"perNamespace": 1_000_001}}), Refused("spec.quota.perNamespace")),
        (json!({"quota": {"perNamespace": "3"}}), Refused("spec.quota.perNamespace")),
        (json!({"quota": 3}), Refused("spec.quota")),
        (json!({"sharing": {"namespaces": names(64)}}), Accepted),
        (json!({"sharing": {"namespaces": names(65)}}), Refused("must have at most 64 items")),
        (json!({"sharing": {"namespaces": ["n".repeat(63)]}}), Accepted),
        (json!({"sharing": {"namespaces": ["n".repeat(64)]}}), Refused("may not be more than 63")),
        (json!({"sharing": {"namespaces": [""]}}), Refused("spec.sharing.namespaces[0]")),
        (json!({"sharing": {"namespaces": "a"}}), Refused("spec.sharing.namespaces")),
        (json!({"sharing": ["a"]}), Refused("spec.sharing")),
        (json!({"reservations": true}), Refused("spec.reservations")),
        (json!({"requireSourceRanges": "yes"}), Refused("spec.requireSourceRanges")),
        (json!({"scope": ""}), Refused("Unsupported value: \"\"")),
        (json!({"scope": "internal"}), Refused("Unsupported value: \"internal\"")),
        (json!({"namespaceSelector": "team"}), Refused("spec.namespaceSelector")),
        (
            json!({"serviceSelector": {"matchLabels": {"a": 1}}}),
            Refused("spec.serviceSelector.matchLabels.a"),
        ),
        (
            json!({"serviceSelector": {"matchExpressions": [{"key": "a"}]}}),
            Refused("matchExpressions[0].operator: Required value"),
        ),
    ];
    for text in ["0s", "500ms", "30s", "5m", "72h", "1h30m", "99999h", "1h2m3s4ms"] {
        table.push((json!({ "releaseDelay": text }), Accepted));
        table.push((json!({"reservations": {"expireAfter": text}}), Accepted));
    }
    for text in ["", "soon", "30", "s", "-1s", "1.5h", "1d", "1h 30m", " 30s", "100000s", "1s1s1s1s1s"] {
        table.push((json!({ "releaseDelay": text }), Refused("spec.releaseDelay")));
        table
            .push((json!({"reservations": {"expireAfter": text}}), Refused("spec.reservations.expireAfter")));
    }
    table.push((json!({"releaseDelay": 30}), Refused("spec.releaseDelay")));
    table
}

/// What the controller says of a pool.
fn pool_statuses() -> Vec<(Value, Answer)> {
    let past = |fields: Value| {
        let mut past = json!({
            "address": "10.0.0.7", "namespace": "shop", "name": "web", "uid": "u", "until": "2026-01-02T00:00:00Z",
        });
        merge(&mut past, fields);
        past
    };
    let outside = |count: usize| (0..count).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>();
    vec![
        (json!({"outside": {"count": 9_000, "addresses": outside(64)}}), Accepted),
        (json!({"outside": {"count": 9_000}}), Accepted),
        (
            json!({"outside": {"count": 9_000, "addresses": outside(65)}}),
            Refused("must have at most 64 items"),
        ),
        (json!({"outside": {"addresses": ["10.0.0.7"]}}), Refused("status.outside.count: Required value")),
        (json!({"history": vec![past(json!({})); 256]}), Accepted),
        (json!({"history": vec![past(json!({})); 257]}), Refused("must have at most 256 items")),
        (json!({"history": [past(json!({"since": "2026-01-01T00:00:00Z"}))]}), Accepted),
        (json!({"history": [past(json!({"since": "last Tuesday"}))]}), Refused("status.history[0].since")),
        (
            json!({"history": [past(json!({"until": null}))]}),
            Refused("status.history[0].until: Required value"),
        ),
        (json!({"history": [past(json!({"name": ""}))]}), Refused("status.history[0].name")),
        (json!({"history": [past(json!({"address": "1".repeat(46)}))]}), Refused("may not be more than 45")),
    ]
}

/// Puts the fields of one object over those of another.
fn merge(object: &mut Value, fields: Value) {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
}

fn claim(service: &str) -> Value {
    json!({"namespace": "default", "name": service, "uid": "u"})
}

fn port(protocol: &str, port: u16, service: &str) -> Value {
    json!({"protocol": protocol, "port": port, "claim": {"namespace": "default", "name": service}})
}

/// What a claim says of its Service, and a reservation of whom it is for.
fn claims_and_reservations() -> Vec<(Value, Answer)> {
    let held = |fields: Value| {
        let mut claim = claim("a");
        merge(&mut claim, fields);
        json!({ "claims": [claim] })
    };
    let kept = |fields: Value| {
        let mut reservation = json!({"namespace": "shop"});
        merge(&mut reservation, fields);
        json!({ "reservation": reservation })
    };
    vec![
        (
            held(json!({
                "since": "2026-01-01T00:00:00Z", "healthCheckNodePort": 30_000, "trafficPolicy": "Local",
                "sharing": {"key": "k".repeat(256), "selector": "s".repeat(4096)},
                "terms": {"internal": true, "sourceRanges": false},
            })),
            Accepted,
        ),
        (held(json!({"since": null, "sharing": null, "terms": {}})), Accepted),
        (held(json!({"since": "yesterday"})), Refused("spec.claims[0].since")),
        (held(json!({"sharing": {}})), Refused("spec.claims[0].sharing.key: Required value")),
        (held(json!({"sharing": {"key": ""}})), Refused("spec.claims[0].sharing.key")),
        (held(json!({"sharing": {"key": "k".repeat(257)}})), Refused("may not be more than 256")),
        (
            held(json!({"sharing": {"key": "k", "selector": "s".repeat(4097)}})),
            Refused("may not be more than 4096"),
        ),
        (held(json!({"sharing": "k"})), Refused("spec.claims[0].sharing")),
        (held(json!({"terms": {"internal": true, "named": "lan"}})), Accepted),
        (held(json!({"terms": {"named": "a".repeat(254)}})), Refused("spec.claims[0].terms.named")),
        (held(json!({"terms": {"internal": "yes"}})), Refused("spec.claims[0].terms.internal")),
        (held(json!({"terms": {"sourceRanges": 1}})), Refused("spec.claims[0].terms.sourceRanges")),
        (held(json!({"trafficPolicy": "Nearest"})), Refused("Unsupported value: \"Nearest\"")),
        (
            kept(json!({
                "name": "web", "expires": "2030-01-01T00:00:00Z", "namespaceUid": "u".repeat(64),
                "note": "n".repeat(256),
            })),
            Accepted,
        ),
        (kept(json!({"namespaceUid": ""})), Refused("spec.reservation.namespaceUid")),
        (kept(json!({"namespaceUid": "u".repeat(65)})), Refused("may not be more than 64")),
        (kept(json!({"expires": "in spring"})), Refused("spec.reservation.expires")),
        (kept(json!({"note": "n".repeat(257)})), Refused("may not be more than 256")),
        (kept(json!({"name": ""})), Refused("spec.reservation.name")),
        (kept(json!({"namespace": null})), Refused("spec.reservation.namespace: Required value")),
    ]
}

fn virtual_ips() -> Vec<(&'static str, Value, Answer)> {
    let named = "a VirtualIP is named by its address";
    vec![
        ("192.0.2.1", json!({"address": "192.0.2.1"}), Accepted),
        ("fd00-0000-0000-0000-0000-0000-0000-0010", json!({"address": "fd00::10"}), Accepted),
        (
            "192.0.2.2",
            json!({
                "address": "192.0.2.2", "pool": "lan", "claims": [claim("a"), claim("b")],
                "ports": [port("TCP", 80, "a"), port("UDP", 80, "b")],
                "placement": {"epoch": 1, "candidates": [{"node": "n1"}]},
                "announce": {"interfaces": [], "fallback": "AnyOnSubnet"},
            }),
            Accepted,
        ),
        (
            "192.0.2.3",
            json!({"address": "192.0.2.3", "reservation": {"namespace": "a", "name": "db"}}),
            Accepted,
        ),
        ("192.0.2.9", json!({"address": "192.0.2.1"}), Refused(named)),
        ("web", json!({"address": "192.0.2.1"}), Refused(named)),
        ("fd00-0-0-0-0-0-0-10", json!({"address": "fd00::10"}), Refused(named)),
        ("fd00-0000-0000-0000-0000-0000-0000-0011", json!({"address": "fd00::10"}), Refused(named)),
        (
            "fd00-0000-0000-0000-0000-0000-0000-0010",
            json!({"address": "fd00:0::10"}),
            Refused("in its canonical form"),
        ),
        ("192.0.2.1", json!({}), Refused("spec.address: Required value")),
        ("lan", json!({"address": "lan"}), Refused("must be an IPv4 address")),
        ("127.0.0.1", json!({"address": "127.0.0.1"}), Refused("loopback")),
        ("224.0.0.5", json!({"address": "224.0.0.5"}), Refused("multicast")),
        (
            "192.0.2.1",
            json!({"address": "192.0.2.1", "claims": [claim("a")], "ports": [port("TCP", 80, "a"), port("TCP", 80, "a")]}),
            Refused("Duplicate value"),
        ),
        (
            "192.0.2.1",
            json!({"address": "192.0.2.1", "claims": [claim("a"), claim("a")]}),
            Refused("Duplicate value"),
        ),
        (
            "192.0.2.1",
            json!({"address": "192.0.2.1", "claims": [claim("a")], "ports": [port("TCP", 80, "b")]}),
            Refused("every port names one of spec.claims"),
        ),
        (
            "192.0.2.1",
            json!({"address": "192.0.2.1", "claims": [claim("a")], "ports": [port("ICMP", 80, "a")]}),
            Refused("Unsupported value: \"ICMP\""),
        ),
        (
            "192.0.2.1",
            json!({"address": "192.0.2.1", "claims": [claim("a")], "ports": [port("TCP", 0, "a")]}),
            Refused("spec.ports[0].port"),
        ),
    ]
}

/// The address that a VirtualIP of this name holds; none where no VirtualIP can have the name.
fn address_named(name: &str) -> Option<IpAddr> {
    let address: IpAddr = name.replace('-', ":").parse().ok()?;
    let announceable = !address.is_loopback() && !address.is_multicast();
    (announceable && virtual_ip_name(address) == name).then_some(address)
}

/// What a Speaker's status may not hold. Its spec is empty, so the status is what can be wrong.
fn speaker_statuses() -> Vec<(Value, Answer)> {
    let interface = |fields: Value| {
        let mut interface = json!({"name": "eth0", "mac": "02:00:00:00:00:01"});
        merge(&mut interface, fields);
        json!({ "interfaces": [interface] })
    };
    let peer = |state: &str| json!({"peers": [{"node": "n2", "interface": "eth0", "state": state, "since": "2026-01-01T00:00:00Z"}]});
    vec![
        (json!({}), Accepted),
        (
            interface(json!({"carrier": "Up", "subnets": ["192.0.2.0/24"], "addresses": ["192.0.2.1"]})),
            Accepted,
        ),
        (peer("Dead"), Accepted),
        (interface(json!({"carrier": "Sideways"})), Refused("Unsupported value: \"Sideways\"")),
        (interface(json!({"name": "an-interface-name-of-more-than-15"})), Refused("may not be more than 15")),
        (interface(json!({"name": ""})), Refused("status.interfaces[0].name")),
        (interface(json!({"mac": null})), Refused("status.interfaces[0].mac: Required value")),
        (peer("Asleep"), Refused("Unsupported value: \"Asleep\"")),
        (json!({"warm": {"state": "Cold"}}), Refused("Unsupported value: \"Cold\"")),
        (json!({"warm": {}}), Refused("status.warm.state: Required value")),
        (json!({"conditions": [{"type": "Ready"}]}), Refused("status.conditions[0].reason: Required value")),
    ]
}

fn object(kind: &str, name: &str, spec: &Value) -> anyhow::Result<DynamicObject> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "landfall.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    }))?)
}

fn check(what: &str, result: Result<DynamicObject, kube::Error>, answer: &Answer) -> anyhow::Result<()> {
    match (result, answer) {
        (Ok(_), Accepted) => Ok(()),
        (Err(kube::Error::Api(status)), Refused(fragment)) => {
            ensure!(
                status.message.contains(fragment),
                "{what}: refused, but not with '{fragment}': {}",
                status.message
            );
            Ok(())
        }
        (Ok(_), Refused(fragment)) => anyhow::bail!("{what}: accepted instead of refused with '{fragment}'"),
        (Err(error), _) => Err(error).with_context(|| what.to_owned()),
    }
}

/// A patch that puts another value in the place of what is there, and merges nothing.
fn replaced(path: &str, value: &Value) -> anyhow::Result<Patch<()>> {
    Ok(Patch::Json(serde_json::from_value(json!([{"op": "add", "path": path, "value": value}]))?))
}

/// As `kubectl get virtualips --field-selector spec.pool=lan` does. One VirtualIP without a pool is there.
async fn virtual_ips_can_be_listed_by_pool(api: &Api<DynamicObject>) -> anyhow::Result<()> {
    let of_pools = [("192.0.2.81", "lan"), ("192.0.2.82", "lan"), ("192.0.2.83", "dmz")];
    for (address, pool) in of_pools {
        let stored = object("VirtualIP", address, &json!({"address": address, "pool": pool}))?;
        api.create(&PostParams::default(), &stored).await?;
    }
    for (selector, expected) in [
        ("spec.pool=lan", &["192.0.2.81", "192.0.2.82"][..]),
        ("spec.pool=dmz", &["192.0.2.83"]),
        ("spec.pool=", &["192.0.2.77"]),
        ("spec.pool=wan", &[]),
    ] {
        let found = api.list(&ListParams::default().fields(selector)).await?;
        let mut names: Vec<String> = found.into_iter().filter_map(|object| object.metadata.name).collect();
        names.sort();
        ensure!(names == expected, "{selector}: {names:?}");
    }
    match api.list(&ListParams::default().fields("spec.address=192.0.2.81")).await {
        Err(kube::Error::Api(status)) if status.message.contains("field label not supported") => {}
        answer => anyhow::bail!("by a field that is not declared: {:?}", answer.map(|list| list.items.len())),
    }
    for (address, _) in of_pools {
        api.delete(address, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// Runs the tables as an administrator, by dry runs for create and against stored objects for update.
pub(crate) async fn bad_objects_are_refused_with_a_sentence(client: Client) -> anyhow::Result<()> {
    let pool_api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<IPPool>(&()));
    let vip_api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<VirtualIP>(&()));
    let speaker_api: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<Speaker>(&()));
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let dry_patch = PatchParams { dry_run: true, ..PatchParams::default() };

    pool_api
        .create(
            &PostParams::default(),
            &object("IPPool", "table", &json!({"addresses": ["203.0.113.0/28"], "autoAssign": false}))?,
        )
        .await?;
    let terms = terms().into_iter().map(|(mut spec, answer)| {
        merge(&mut spec, json!({"addresses": ["10.0.0.0/24"]}));
        (spec, answer)
    });
    for (spec, answer) in pools().into_iter().chain(terms) {
        let what = format!("IPPool {spec}");
        check(
            &format!("create {what}"),
            pool_api.create(&dry_run, &object("IPPool", "table-new", &spec)?).await,
            &answer,
        )?;
        let patched = pool_api.patch("table", &dry_patch, &replaced("/spec", &spec)?).await;
        check(&format!("update to {what}"), patched, &answer)?;
    }
    for (status, answer) in pool_statuses() {
        let what = format!("update IPPool to status {status}");
        let patched = pool_api.patch_status("table", &dry_patch, &replaced("/status", &status)?).await;
        check(&what, patched, &answer)?;
    }
    pool_api.delete("table", &DeleteParams::default()).await?;

    for (name, spec, answer) in virtual_ips() {
        let what = format!("VirtualIP {name} {spec}");
        check(
            &format!("create {what}"),
            vip_api.create(&dry_run, &object("VirtualIP", name, &spec)?).await,
            &answer,
        )?;
        let Some(address) = address_named(name) else { continue };
        let stored = object("VirtualIP", name, &json!({ "address": address }))?;
        vip_api.create(&PostParams::default(), &stored).await?;
        let patched = vip_api.patch(name, &dry_patch, &replaced("/spec", &spec)?).await;
        check(&format!("update to {what}"), patched, &answer)?;
        vip_api.delete(name, &DeleteParams::default()).await?;
    }
    let stored = json!({"address": "192.0.2.77"});
    vip_api.create(&PostParams::default(), &object("VirtualIP", "192.0.2.77", &stored)?).await?;
    for (patch, answer) in [
        (json!({"address": "192.0.2.78"}), Refused("never changes")),
        (json!({"pool": "lan", "claims": [claim("a")], "ports": [port("TCP", 80, "a")]}), Accepted),
        (
            json!({"claims": [claim("a")], "ports": [port("TCP", 80, "b")]}),
            Refused("every port names one of spec.claims"),
        ),
        (
            json!({"claims": [claim("a")], "ports": [port("UDP", 53, "a"), port("UDP", 53, "a")]}),
            Refused("Duplicate value"),
        ),
    ] {
        let what = format!("update VirtualIP with {patch}");
        check(
            &what,
            vip_api.patch("192.0.2.77", &dry_patch, &Patch::Merge(json!({"spec": patch}))).await,
            &answer,
        )?;
    }
    for (fields, answer) in claims_and_reservations() {
        let mut spec = json!({"address": "192.0.2.77"});
        merge(&mut spec, fields);
        let what = format!("update VirtualIP to {spec}");
        let patched = vip_api.patch("192.0.2.77", &dry_patch, &replaced("/spec", &spec)?).await;
        check(&what, patched, &answer)?;
    }
    virtual_ips_can_be_listed_by_pool(&vip_api).await?;
    vip_api.delete("192.0.2.77", &DeleteParams::default()).await?;

    speaker_api.create(&PostParams::default(), &object("Speaker", "table", &json!({}))?).await?;
    for (spec, answer) in [
        (json!({}), Accepted),
        (Value::Null, Refused("spec: Required value")),
        (json!("eth0"), Refused("spec in body must be of type object")),
        (json!([]), Refused("spec in body must be of type object")),
    ] {
        let what = format!("Speaker with spec {spec}");
        let created = speaker_api.create(&dry_run, &object("Speaker", "table-new", &spec)?).await;
        check(&format!("create {what}"), created, &answer)?;
        let patched = speaker_api.patch("table", &dry_patch, &replaced("/spec", &spec)?).await;
        check(&format!("update to {what}"), patched, &answer)?;
    }
    for (status, answer) in speaker_statuses() {
        let what = format!("update Speaker to status {status}");
        let patched = speaker_api.patch_status("table", &dry_patch, &replaced("/status", &status)?).await;
        check(&what, patched, &answer)?;
    }
    speaker_api.delete("table", &DeleteParams::default()).await?;
    Ok(())
}
