//! One effect, told to the API server, and its answer, told as an outcome.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, Client, Resource, ResourceExt};
use landfall_crds::names::{finalizers, managers};
use landfall_crds::{IPPool, ServiceGuard, VirtualIP};

use super::body;
use crate::effects::{Effect, Exactly, Outcome, Refusal};
use crate::observe::strip;
use crate::trouble::in_short;

/// Applies `effect`. `between` is asked before each request but the first and can call the rest off.
///
/// [`Effect::Publish`] is not for here; it goes by the writer's own slow lane.
pub(super) async fn apply(
    client: &Client,
    effect: &Effect,
    between: &(dyn Fn() -> Result<(), Refusal> + Sync),
) -> Outcome {
    match try_apply(client, effect, between).await {
        Ok(outcome) => outcome,
        Err(Problem::Refused(refusal)) => Outcome::Refused(refusal),
        Err(Problem::Api(error)) => outcome_of(effect, &error),
    }
}

enum Problem {
    Api(kube::Error),
    Refused(Refusal),
}

impl From<kube::Error> for Problem {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

async fn try_apply(
    client: &Client,
    effect: &Effect,
    between: &(dyn Fn() -> Result<(), Refusal> + Sync),
) -> Result<Outcome, Problem> {
    let services = |namespace: &str| Api::<Service>::namespaced(client.clone(), namespace);
    let virtual_ips = || Api::<VirtualIP>::all(client.clone());
    let guards = || Api::<ServiceGuard>::all(client.clone());
    Ok(match effect {
        Effect::AddFinalizers { service } => {
            let patch = Patch::Strategic(body::add_finalizers(service));
            let answer = services(&service.namespace).patch(&service.name, &ours(), &patch).await?;
            service_outcome(answer)
        }
        Effect::RemoveFinalizers { service } => {
            let patch = Patch::Strategic(body::remove_finalizers(service));
            let answer = services(&service.namespace).patch(&service.name, &ours(), &patch).await?;
            if has_ended(&answer) { Outcome::Gone } else { service_outcome(answer) }
        }
        Effect::CreateVirtualIp { name, spec } => {
            let answer = virtual_ips().create(&creating(), &body::create_virtual_ip(name, spec)).await?;
            virtual_ip_outcome(answer)
        }
        Effect::UpdateVirtualIp { virtual_ip, spec } => {
            let patch = Patch::Merge(body::update_virtual_ip(virtual_ip, spec));
            let answer = virtual_ips().patch(&virtual_ip.name, &ours(), &patch).await?;
            guard_claims(&virtual_ips(), answer, between).await?
        }
        Effect::SetVirtualIpStatus { virtual_ip, status } => {
            let parameters = PatchParams::apply(managers::CONTROLLER).force();
            let patch = Patch::Apply(body::set_virtual_ip_status(virtual_ip, status));
            let answer = virtual_ips().patch_status(&virtual_ip.name, &parameters, &patch).await?;
            virtual_ip_outcome(answer)
        }
        Effect::DeleteVirtualIp { virtual_ip } => delete(&virtual_ips(), virtual_ip, between).await?,
        Effect::UnclaimVirtualIp { virtual_ip } => unclaim(&virtual_ips(), virtual_ip, between).await?,
        Effect::CreateServiceGuard { name, spec } => {
            let object = ServiceGuard::new(name, (**spec).clone());
            guard_outcome(guards().create(&creating(), &object).await?)
        }
        Effect::UpdateServiceGuard { guard, spec } => {
            let patch = Patch::Merge(body::update_service_guard(guard, spec));
            guard_outcome(guards().patch(&guard.name, &ours(), &patch).await?)
        }
        Effect::DeleteServiceGuard { guard } => {
            match guards().delete(&guard.name, &deleting(guard)).await?.left() {
                // Somebody else's finalizer holds it.
                Some(rest) if rest.metadata.deletion_timestamp.is_some() && !has_ended(&rest) => {
                    guard_outcome(rest)
                }
                _ => Outcome::Gone,
            }
        }
        Effect::SetIngress { service, ingress, conditions } => {
            let patch = Patch::Strategic(body::set_ingress(service, ingress, conditions));
            let answer = services(&service.namespace).patch_status(&service.name, &ours(), &patch).await?;
            service_outcome(answer)
        }
        Effect::SetConditions { service, conditions } => {
            let patch = Patch::Strategic(body::set_conditions(service, conditions));
            let answer = services(&service.namespace).patch_status(&service.name, &ours(), &patch).await?;
            service_outcome(answer)
        }
        Effect::SetPoolStatus { pool, status } => {
            let patch = Patch::Merge(body::set_pool_status(pool, status));
            let pools = Api::<IPPool>::all(client.clone());
            let mut answer = pools.patch_status(&pool.name, &ours(), &patch).await?;
            strip::metadata(&mut answer);
            Outcome::Pool(Arc::new(answer))
        }
        Effect::GetService { namespace, name } => service_outcome(services(namespace).get(name).await?),
        Effect::GetVirtualIp { name } => virtual_ip_outcome(virtual_ips().get(name).await?),
        Effect::Publish(_) => Outcome::Done,
    })
}

/// Answers are kept like what watches tell, and so they are stripped alike.
fn service_outcome(mut service: Service) -> Outcome {
    strip::service(&mut service);
    Outcome::Service(Arc::new(service))
}

fn virtual_ip_outcome(mut virtual_ip: VirtualIP) -> Outcome {
    strip::metadata(&mut virtual_ip);
    Outcome::VirtualIp(Arc::new(virtual_ip))
}

fn guard_outcome(mut guard: ServiceGuard) -> Outcome {
    strip::metadata(&mut guard);
    Outcome::ServiceGuard(Arc::new(guard))
}

/// A creation under our manager.
fn creating() -> PostParams {
    PostParams { field_manager: Some(managers::CONTROLLER.to_owned()), ..PostParams::default() }
}

/// The deletion of exactly this object.
fn deleting(object: &Exactly) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(object.uid.clone()),
            resource_version: Some(object.resource_version.clone()),
        }),
        ..DeleteParams::default()
    }
}

/// A patch under our manager.
fn ours() -> PatchParams {
    PatchParams { field_manager: Some(managers::CONTROLLER.to_owned()), ..PatchParams::default() }
}

/// Deletes a VirtualIP and then takes our finalizer off what the API server still keeps of it.
async fn delete(
    api: &Api<VirtualIP>,
    virtual_ip: &Exactly,
    between: &(dyn Fn() -> Result<(), Refusal> + Sync),
) -> Result<Outcome, Problem> {
    let Some(rest) = api.delete(&virtual_ip.name, &deleting(virtual_ip)).await?.left() else {
        return Ok(Outcome::Gone);
    };
    let (Some(kept), Some(_)) = (exactly(&rest), &rest.metadata.deletion_timestamp) else {
        return Ok(Outcome::Gone);
    };
    let others = others_finalizers(&rest);
    if others.len() == rest.finalizers().len() {
        // Ours is off already: the object is gone, or waits for somebody else.
        return Ok(if others.is_empty() { Outcome::Gone } else { virtual_ip_outcome(rest) });
    }
    between().map_err(Problem::Refused)?;
    let patch = Patch::Merge(body::set_finalizers(&kept, &others));
    let answer = api.patch(&kept.name, &ours(), &patch).await?;
    Ok(if has_ended(&answer) { Outcome::Gone } else { virtual_ip_outcome(answer) })
}

/// Takes our finalizer off a VirtualIP, which must be read first: only whole lists can be written.
async fn unclaim(
    api: &Api<VirtualIP>,
    virtual_ip: &Exactly,
    between: &(dyn Fn() -> Result<(), Refusal> + Sync),
) -> Result<Outcome, Problem> {
    let found = api.get(&virtual_ip.name).await?;
    if exactly(&found).is_none_or(|found| found != *virtual_ip) {
        return Ok(Outcome::Refused(Refusal::Conflict));
    }
    let others = others_finalizers(&found);
    if others.len() == found.finalizers().len() {
        return Ok(virtual_ip_outcome(found));
    }
    between().map_err(Problem::Refused)?;
    let answer = api
        .patch(&virtual_ip.name, &ours(), &Patch::Merge(body::set_finalizers(virtual_ip, &others)))
        .await?;
    Ok(if has_ended(&answer) { Outcome::Gone } else { virtual_ip_outcome(answer) })
}

fn others_finalizers(virtual_ip: &VirtualIP) -> Vec<String> {
    let is_ours = |name: &&String| *name == finalizers::VIRTUAL_IP_CLAIMED;
    virtual_ip.finalizers().iter().filter(|name| !is_ours(name)).cloned().collect()
}

/// Sees to it that a claimed VirtualIP has our finalizer, also where a person created the object (to
/// reserve the address) and it never had it.
async fn guard_claims(
    api: &Api<VirtualIP>,
    virtual_ip: VirtualIP,
    between: &(dyn Fn() -> Result<(), Refusal> + Sync),
) -> Result<Outcome, Problem> {
    let guarded = virtual_ip.finalizers().iter().any(|name| name == finalizers::VIRTUAL_IP_CLAIMED);
    let ending = virtual_ip.metadata.deletion_timestamp.is_some();
    let Some(object) =
        exactly(&virtual_ip).filter(|_| !guarded && !ending && !virtual_ip.spec.claims.is_empty())
    else {
        return Ok(virtual_ip_outcome(virtual_ip));
    };
    between().map_err(Problem::Refused)?;
    let mut all = virtual_ip.finalizers().to_vec();
    all.push(finalizers::VIRTUAL_IP_CLAIMED.to_owned());
    let answer = api.patch(&object.name, &ours(), &Patch::Merge(body::set_finalizers(&object, &all))).await?;
    Ok(virtual_ip_outcome(answer))
}

/// Whether the object in an answer was the last that there was of it: being deleted, and nothing holds it.
fn has_ended<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
        && object.meta().finalizers.as_deref().unwrap_or_default().is_empty()
}

fn exactly<K: Resource>(object: &K) -> Option<Exactly> {
    let metadata = object.meta();
    Some(Exactly {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
        resource_version: metadata.resource_version.clone()?,
    })
}

/// What the API server's refusal, or its silence, means for the effect.
fn outcome_of(effect: &Effect, error: &kube::Error) -> Outcome {
    let kube::Error::Api(status) = error else {
        return Outcome::Refused(Refusal::Unavailable(in_short(error)));
    };
    match (status.code, status.reason.as_str()) {
        // Only an answer that names the object says that it is the object which is missing; a bare 404
        // means that the API server does not know the kind, and creating needs no object to be there.
        (404, "NotFound") if !creates(effect) => Outcome::Gone,
        (404, _) => Outcome::Refused(Refusal::Unavailable(
            "the API server does not know this kind; kubectl apply -f crds/".to_owned(),
        )),
        _ => Outcome::Refused(refusal_of(status)),
    }
}

fn creates(effect: &Effect) -> bool {
    matches!(effect, Effect::CreateVirtualIp { .. } | Effect::CreateServiceGuard { .. })
}

fn refusal_of(status: &Status) -> Refusal {
    match (status.code, status.reason.as_str()) {
        (409, "AlreadyExists") => Refusal::AlreadyExists,
        (409, _) => Refusal::Conflict,
        (400 | 403 | 405 | 413 | 415 | 422, _) => Refusal::Invalid(status.message.clone()),
        // 401 is here too: credentials expire and are renewed, and the object is not to blame.
        (code, _) => {
            let message = format!("{code} {}", status.message);
            // The header Retry-After is not to be seen here, but where the answer is a Status it says the same.
            match status.details.as_ref().map_or(0, |details| details.retry_after_seconds) {
                0 => Refusal::Unavailable(message),
                seconds => Refusal::Busy { message, after: Duration::from_secs(seconds.into()) },
            }
        }
    }
}
