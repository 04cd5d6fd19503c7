//! What may be done to companions and their slices, as values, and doing it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use landfall_crds::ClaimRef;
use landfall_crds::names::managers;
use serde_json::Value;

use crate::effects::{Exactly, Outcome};
use crate::observe::strip;

/// A deed, and for the sake of which ExternalName Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// The ExternalName Service.
    pub original: ClaimRef,
    /// What to do.
    pub act: Act,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Creates the companion; the API server refuses a second one of the name.
    CreateCompanion(Box<Service>),
    /// Merges this into the companion.
    MendCompanion(Exactly, Box<Value>),
    /// Deletes the companion, and with it what it owns.
    DeleteCompanion(Exactly),
    /// Creates or replaces a slice, by server-side apply.
    ApplySlice(Box<EndpointSlice>),
    /// Deletes a slice.
    DeleteSlice(Exactly),
}

impl Deed {
    /// The name of this kind of deed, as metric labels spell it.
    pub fn name(&self) -> &'static str {
        match self.act {
            Act::CreateCompanion(_) => "CreateCompanion",
            Act::MendCompanion(..) => "MendCompanion",
            Act::DeleteCompanion(_) => "DeleteCompanion",
            Act::ApplySlice(_) => "ApplySlice",
            Act::DeleteSlice(_) => "DeleteSlice",
        }
    }

    /// Kind, namespace and name of the object.
    pub fn target(&self) -> (&'static str, String, String) {
        let of = |meta: &ObjectMeta| {
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
        };
        let (kind, (namespace, name)) = match &self.act {
            Act::CreateCompanion(service) => ("Service", of(&service.metadata)),
            Act::ApplySlice(slice) => ("EndpointSlice", of(&slice.metadata)),
            Act::MendCompanion(service, _) | Act::DeleteCompanion(service) => {
                ("Service", (service.namespace.clone(), service.name.clone()))
            }
            Act::DeleteSlice(slice) => ("EndpointSlice", (slice.namespace.clone(), slice.name.clone())),
        };
        (kind, namespace, name)
    }
}

/// Does it.
///
/// # Errors
/// What the API server answers, or that it does not.
pub async fn apply(client: &Client, deed: &Deed) -> Result<Outcome, kube::Error> {
    let (_, namespace, name) = deed.target();
    let services = || Api::<Service>::namespaced(client.clone(), &namespace);
    let slices = || Api::<EndpointSlice>::namespaced(client.clone(), &namespace);
    let manager = Some(managers::EXPOSER.to_owned());
    Ok(match &deed.act {
        Act::CreateCompanion(service) => {
            let parameters = PostParams { field_manager: manager, ..PostParams::default() };
            kept_service(services().create(&parameters, service).await?)
        }
        Act::MendCompanion(service, change) => {
            let mut patch = Value::clone(change);
            patch["metadata"]["uid"] = Value::from(service.uid.clone());
            patch["metadata"]["resourceVersion"] = Value::from(service.resource_version.clone());
            let parameters = PatchParams { field_manager: manager, ..PatchParams::default() };
            kept_service(services().patch(&name, &parameters, &Patch::Merge(patch)).await?)
        }
        Act::DeleteCompanion(service) => {
            services().delete(&name, &exactly_this(service)).await?;
            Outcome::Done
        }
        Act::ApplySlice(slice) => {
            let parameters = PatchParams::apply(managers::EXPOSER).force();
            let mut answer = slices().patch(&name, &parameters, &Patch::Apply(slice)).await?;
            strip::endpoint_slice(&mut answer);
            Outcome::Slice(Arc::new(answer))
        }
        Act::DeleteSlice(slice) => {
            slices().delete(&name, &exactly_this(slice)).await?;
            Outcome::Gone
        }
    })
}

fn exactly_this(object: &Exactly) -> DeleteParams {
    let preconditions = Preconditions {
        uid: Some(object.uid.clone()),
        resource_version: Some(object.resource_version.clone()),
    };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

fn kept_service(mut service: Service) -> Outcome {
    strip::service(&mut service);
    Outcome::Service(Arc::new(service))
}
