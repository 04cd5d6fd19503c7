//! What the API says of LoadBalancer Services and of the addresses they hold.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use landfall_crds::{IPPool, VirtualIP, virtual_ip_name};
use serde_json::{Value, json};

use crate::lab::{Lab, Node, eventually};

/// The Services of the namespace `default`.
pub fn services(lab: &Lab) -> Api<Service> {
    Api::namespaced(lab.client(), "default")
}

/// All VirtualIPs.
pub fn virtual_ips(lab: &Lab) -> Api<VirtualIP> {
    Api::all(lab.client())
}

/// Applies an IPPool with this spec.
///
/// # Errors
/// When the API server refuses it.
pub async fn pool(lab: &Lab, name: &str, spec: &Value) -> Result<IPPool> {
    let object = json!({"apiVersion": "landfall.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec});
    let api: Api<IPPool> = Api::all(lab.client());
    Ok(api.patch(name, &PatchParams::apply("landfall-lab").force(), &Patch::Apply(object)).await?)
}

/// Deletes an IPPool, and waits for nothing.
///
/// # Errors
/// When the API server refuses it.
pub async fn delete_pool(lab: &Lab, name: &str) -> Result<()> {
    let api: Api<IPPool> = Api::all(lab.client());
    api.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// The status of a pool's condition, as `True/Reason: message`; empty where it has none.
///
/// # Errors
/// When the API server does not answer.
pub async fn pool_condition(lab: &Lab, name: &str, type_: &str) -> Result<String> {
    let api: Api<IPPool> = Api::all(lab.client());
    let status = api.get(name).await?.status.unwrap_or_default();
    Ok(status.conditions.iter().find(|condition| condition.type_ == type_).map(in_words).unwrap_or_default())
}

/// The addresses in a Service's status, in its order.
pub fn addresses(service: &Service) -> Vec<IpAddr> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect()
}

/// The condition of a Service, where it has one of that type.
pub fn condition(service: &Service, type_: &str) -> Option<Condition> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == type_).cloned()
}

/// A condition as `True/Reason: message`.
pub fn in_words(condition: &Condition) -> String {
    format!("{}/{}: {}", condition.status, condition.reason, condition.message)
}

/// Waits until a Service has `count` addresses in its status, and returns them.
///
/// # Errors
/// When it has not within 15 s; the error tells its conditions.
pub async fn granted(lab: &Lab, name: &str, count: usize) -> Result<Vec<IpAddr>> {
    let api = services(lab);
    eventually(Duration::from_secs(15), &format!("Service {name} has {count} addresses"), async || {
        let service = api.get(name).await?;
        let addresses = addresses(&service);
        ensure!(addresses.len() == count, "{addresses:?}, {}", story(&service));
        Ok(addresses)
    })
    .await
}

/// Waits until a Service's condition is `status` with `reason`, and returns its message.
///
/// # Errors
/// When it is not within 15 s; the error tells its conditions.
pub async fn says(lab: &Lab, name: &str, type_: &str, status: &str, reason: &str) -> Result<String> {
    let api = services(lab);
    eventually(
        Duration::from_secs(15),
        &format!("Service {name} says {type_}={status}/{reason}"),
        async || {
            let service = api.get(name).await?;
            match condition(&service, type_) {
                Some(condition) if condition.status == status && condition.reason == reason => {
                    Ok(condition.message)
                }
                _ => Err(anyhow!("{}", story(&service))),
            }
        },
    )
    .await
}

/// All that a Service's status tells, in one line.
fn story(service: &Service) -> String {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let conditions: Vec<_> =
        conditions.iter().map(|condition| format!("{}={}", condition.type_, in_words(condition))).collect();
    let finalizers = service.metadata.finalizers.as_ref();
    format!("addresses {:?}, conditions {conditions:?}, finalizers {finalizers:?}", addresses(service))
}

/// Deletes a Service and waits until it is gone.
///
/// # Errors
/// When it is not gone within 20 s.
pub async fn delete(lab: &Lab, name: &str) -> Result<()> {
    let api = services(lab);
    api.delete(name, &DeleteParams::default()).await?;
    eventually(Duration::from_secs(20), &format!("Service {name} is gone"), async || {
        match api.get_opt(name).await? {
            None => Ok(()),
            Some(service) => Err(anyhow!("{}", story(&service))),
        }
    })
    .await
}

/// The VirtualIP of an address, where there is one.
///
/// # Errors
/// When the API server does not answer.
pub async fn virtual_ip(lab: &Lab, address: IpAddr) -> Result<Option<VirtualIP>> {
    Ok(virtual_ips(lab).get_opt(&virtual_ip_name(address)).await?)
}

/// Waits until a node says that it announces `address`, and returns the node.
///
/// # Errors
/// When none does within 15 s.
pub async fn announcer(lab: &Lab, address: IpAddr) -> Result<&Node> {
    let name = eventually(Duration::from_secs(15), &format!("{address} is announced"), async || {
        let object = virtual_ip(lab, address).await?.context("there is no VirtualIP")?;
        let announcer = object.status.as_ref().and_then(|status| status.announcer.as_ref());
        announcer
            .map(|announcer| announcer.node.clone())
            .with_context(|| format!("{:?} {:?}", object.spec, object.status))
    })
    .await?;
    lab.node(&name)
}

/// Waits until no VirtualIP claims the Service, and none is left without a claim or a reservation.
///
/// # Errors
/// When there still is one after 20 s.
pub async fn no_address_is_left(lab: &Lab, service: &str) -> Result<()> {
    eventually(Duration::from_secs(20), &format!("no VirtualIP of {service} is left"), async || {
        for object in virtual_ips(lab).list(&ListParams::default()).await? {
            let orphan = object.spec.claims.is_empty() && object.spec.reservation.is_none();
            if orphan || object.spec.claims.iter().any(|claim| claim.name == service) {
                bail!("{:?}: {:?}", object.metadata.name, object.spec);
            }
        }
        Ok(())
    })
    .await
}
