//! The API group `landfall.dev/v1alpha1`: what users and the parts of Landfall say to each other.
//!
//! The types here are the source of the YAML beside this crate (`cargo run -p landfall-crds --bin
//! crdgen`), and a test holds the two together.

// Both lints misread what the derive macros of kube make of our attributes: every `printcolumn` repeats
// `type_`, and a validated copy of each spec is generated in a private scope.
#![allow(clippy::duplicated_attributes, unreachable_pub)]

pub mod address;
pub mod duration;
pub mod ip_pool;
pub mod names;
mod schema;
pub mod service_guard;
pub mod speaker;
pub mod virtual_ip;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use ip_pool::*;
pub use service_guard::*;
pub use speaker::*;
pub use virtual_ip::*;

/// Every custom resource definition with the name of the file that holds it.
pub fn definitions() -> [(&'static str, CustomResourceDefinition); 4] {
    [
        ("ippools.yaml", IPPool::crd()),
        ("virtualips.yaml", VirtualIP::crd()),
        ("serviceguards.yaml", ServiceGuard::crd()),
        ("speakers.yaml", Speaker::crd()),
    ]
}

/// The text of a definition's file.
///
/// # Errors
/// The definition cannot be written as YAML.
pub fn to_yaml(definition: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    let header = "# Generated from crds/src by `make manifests`; do not edit.\n";
    Ok(format!("{header}{}", serde_saphyr::to_string(definition)?))
}
