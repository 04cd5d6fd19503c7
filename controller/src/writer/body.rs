//! What is sent for each effect, as JSON. Every body names the uid and the resourceVersion that the effect
//! was decided on, which the API server compares before it changes anything.
//!
//! In a merge patch (RFC 7396) what is absent stays and `null` takes away. So where an effect gives the
//! whole of something, every field of it is spelt out, and an empty one is `null`.

use k8s_openapi::api::core::v1::LoadBalancerIngress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use landfall_crds::names::finalizers;
use landfall_crds::{
    Announce, IPPoolStatus, Outside, Placement, Reservation, ServiceGuardSpec, Sources, VirtualIP,
    VirtualIPSpec, VirtualIPStatus,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::effects::Exactly;

/// The uid and resourceVersion as preconditions, in the way that every kind of patch takes them.
fn metadata(object: &Exactly) -> Value {
    json!({ "name": object.name, "uid": object.uid, "resourceVersion": object.resource_version })
}

/// A strategic merge patch: the API server holds finalizers as a set, to which these are added whatever
/// else is in it (`patchStrategy: merge` of `metadata.finalizers`).
pub(super) fn add_finalizers(service: &Exactly) -> Value {
    let mut metadata = metadata(service);
    metadata["finalizers"] = json!([finalizers::LOAD_BALANCER_CLEANUP, finalizers::SERVICE_ADDRESS]);
    json!({ "metadata": metadata })
}

/// A strategic merge patch that takes these out of the set and leaves all others.
pub(super) fn remove_finalizers(service: &Exactly) -> Value {
    let mut metadata = metadata(service);
    metadata["$deleteFromPrimitiveList/finalizers"] =
        json!([finalizers::LOAD_BALANCER_CLEANUP, finalizers::SERVICE_ADDRESS]);
    json!({ "metadata": metadata })
}

/// The object to create, with our finalizer.
pub(super) fn create_virtual_ip(name: &str, spec: &VirtualIPSpec) -> VirtualIP {
    let mut virtual_ip = VirtualIP::new(name, spec.clone());
    virtual_ip.metadata.finalizers = Some(vec![finalizers::VIRTUAL_IP_CLAIMED.to_owned()]);
    virtual_ip
}

/// A merge patch of the whole spec. The reservation is mostly a person's and is written as it was: the
/// resourceVersion guarantees that nobody has changed it since.
pub(super) fn update_virtual_ip(virtual_ip: &Exactly, spec: &VirtualIPSpec) -> Value {
    // Spelt out without `..`, so that a new field of the spec cannot be forgotten here.
    let VirtualIPSpec { address, pool, claims, ports, placement, announce, reservation } = spec;
    let placement = placement
        .as_ref()
        .map(|Placement { epoch, candidates }| json!({ "epoch": epoch, "candidates": list(candidates) }));
    let announce = announce.as_ref().map(
        |Announce { interfaces, fallback }| json!({ "interfaces": list(interfaces), "fallback": fallback }),
    );
    json!({
        "metadata": metadata(virtual_ip),
        "spec": {
            "address": address,
            "pool": pool,
            "claims": list(claims),
            "ports": list(ports),
            "placement": placement,
            "announce": announce,
            "reservation": reservation.as_ref().map(reservation_fields),
        },
    })
}

/// A merge patch of the whole spec.
pub(super) fn update_service_guard(guard: &Exactly, spec: &ServiceGuardSpec) -> Value {
    // Spelt out without `..`, so that a new field of the spec cannot be forgotten here.
    let ServiceGuardSpec { service, sources: Sources { ipv4, ipv6 }, ports, closed } = spec;
    json!({
        "metadata": metadata(guard),
        "spec": {
            "service": service,
            "sources": { "ipv4": list(ipv4), "ipv6": list(ipv6) },
            "ports": list(ports),
            "closed": closed,
        },
    })
}

fn reservation_fields(reservation: &Reservation) -> Value {
    let Reservation { namespace, name, expires, namespace_uid, note } = reservation;
    json!({
        "namespace": namespace,
        "name": name,
        "expires": expires,
        "namespaceUid": namespace_uid,
        "note": note,
    })
}

/// A merge patch of the whole list of finalizers of a VirtualIP: custom resources know no strategic merge,
/// and the resourceVersion guarantees that `all` is still the list there.
pub(super) fn set_finalizers(virtual_ip: &Exactly, all: &[String]) -> Value {
    let mut metadata = metadata(virtual_ip);
    metadata["finalizers"] = list(all);
    json!({ "metadata": metadata })
}

/// A server-side apply of the controller's part of the status.
pub(super) fn set_virtual_ip_status(virtual_ip: &Exactly, status: &VirtualIPStatus) -> Value {
    let mut part = json!({});
    if !status.last_holders.is_empty() {
        part["lastHolders"] = list(&status.last_holders);
    }
    json!({
        "apiVersion": format!("{}/{}", landfall_crds::names::GROUP, landfall_crds::names::VERSION),
        "kind": "VirtualIP",
        "metadata": metadata(virtual_ip),
        "status": part,
    })
}

/// A strategic merge patch of `status.loadBalancer.ingress`, the whole list, and of our conditions.
pub(super) fn set_ingress(
    service: &Exactly,
    ingress: &[LoadBalancerIngress],
    conditions: &[Condition],
) -> Value {
    let status =
        json!({ "loadBalancer": { "ingress": list(ingress) }, "conditions": our_conditions(conditions) });
    json!({ "metadata": metadata(service), "status": status })
}

/// A strategic merge patch of our conditions.
pub(super) fn set_conditions(service: &Exactly, conditions: &[Condition]) -> Value {
    json!({ "metadata": metadata(service), "status": { "conditions": our_conditions(conditions) } })
}

/// `status.conditions` of a Service is merged by type (`patchMergeKey: type`): those of our types that are
/// given are set, the others of our types taken away, and types of others are not named.
///
/// A server-side apply could not do this beside the addresses in one write: a later apply of conditions
/// alone would take the addresses away, because the same manager had applied them.
fn our_conditions(conditions: &[Condition]) -> Vec<Value> {
    let absent = crate::status::OURS
        .iter()
        .filter(|ours| !conditions.iter().any(|condition| condition.type_ == **ours))
        .map(|ours| json!({ "type": ours, "$patch": "delete" }));
    conditions.iter().map(|condition| json!(condition)).chain(absent).collect()
}

/// A merge patch of a pool's whole status.
pub(super) fn set_pool_status(pool: &Exactly, status: &IPPoolStatus) -> Value {
    let IPPoolStatus { observed_generation, ipv4, ipv6, outside, history, conditions } = status;
    json!({
        "metadata": metadata(pool),
        "status": {
            "observedGeneration": observed_generation,
            "ipv4": ipv4,
            "ipv6": ipv6,
            "outside": outside.as_ref().map(
                |Outside { count, addresses }| json!({ "count": count, "addresses": list(addresses) }),
            ),
            "history": list(history),
            "conditions": list(conditions),
        },
    })
}

/// The items, or `null` where there is none.
fn list<T: Serialize>(items: &[T]) -> Value {
    if items.is_empty() { Value::Null } else { json!(items) }
}
