//! Leaving a cluster: our finalizers come off, so that everything can be deleted without us.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use landfall_crds::VirtualIP;
use landfall_crds::names::{finalizers, managers};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::trouble::in_short;

/// How often one object is tried that others change at the same time.
const TRIES: u32 = 5;

/// How many objects are fetched at once.
const PAGE: u32 = 200;

/// How long the API server may take to answer.
const LIMIT: Duration = Duration::from_secs(15);

/// Takes our finalizers off all Services that carry our own one, and off all VirtualIPs, and prints what
/// it did. Objects and addresses in Service status stay as they are. Harmless when repeated.
///
/// # Errors
/// The API server cannot be reached, or does not allow it. What was done until then stays done.
pub async fn uninstall(client: Client) -> anyhow::Result<()> {
    warn_of_a_controller(&client).await;
    println!("Taking Landfall's finalizers off Services and VirtualIPs. Objects and Service status stay.");
    let services = strip::<Service>(
        &client,
        &[finalizers::SERVICE_ADDRESS, finalizers::LOAD_BALANCER_CLEANUP],
        |api_client, service| Api::namespaced(api_client, &service.namespace().unwrap_or_default()),
    )
    .await?;
    println!("Services: {services} freed.");
    let virtual_ips =
        strip::<VirtualIP>(&client, &[finalizers::VIRTUAL_IP_CLAIMED], |api_client, _| Api::all(api_client))
            .await?;
    println!("VirtualIPs: {virtual_ips} freed.");
    println!(
        "Done. Speakers go on announcing until they are stopped: kubectl delete -k deploy/, then kubectl delete -f crds/"
    );
    Ok(())
}

/// A controller that runs would put the finalizers back on at once.
async fn warn_of_a_controller(client: &Client) {
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_else(|_| "landfall-system".to_owned());
    let api = Api::<Lease>::namespaced(client.clone(), &namespace);
    let asked = tokio::time::timeout(LIMIT, api.get_opt(crate::lease::driver::NAME)).await;
    let Ok(Ok(Some(lease))) = asked else { return };
    let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
    if let Some(holder) = holder {
        eprintln!(
            "Note: the Lease names {holder} as the leading controller. If it still runs it will put the finalizers \
             back on: kubectl -n {namespace} delete deployment landfall-controller, then repeat this."
        );
    }
}

/// Takes `ours` off every object of a kind that has the first of them; says how many there were.
async fn strip<K>(client: &Client, ours: &[&str], home: fn(Client, &K) -> Api<K>) -> anyhow::Result<usize>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let plural = K::plural(&());
    let everywhere = Api::<K>::all(client.clone());
    let mut page = ListParams::default().limit(PAGE);
    let mut freed = 0;
    loop {
        let list = match tokio::time::timeout(LIMIT, everywhere.list(&page)).await {
            Ok(Ok(list)) => list,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                println!("There are no {plural}: the API server does not know the kind.");
                return Ok(freed);
            }
            Ok(Err(error)) => return Err(explained(error, "list", &plural)),
            Err(_) => bail!("no answer from the API server in {} s", LIMIT.as_secs()),
        };
        for object in list.items {
            if object.finalizers().iter().any(|name| name == ours[0]) {
                free(&home(client.clone(), &object), object, ours).await?;
                freed += 1;
            }
        }
        page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            return Ok(freed);
        }
    }
}

/// Takes `ours` off one object, and leaves what others put on.
async fn free<K>(api: &Api<K>, mut object: K, ours: &[&str]) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let name = object.name_any();
    let parameters =
        PatchParams { field_manager: Some(managers::CONTROLLER.to_owned()), ..PatchParams::default() };
    for _ in 0..TRIES {
        let is_ours = |finalizer: &&String| ours.contains(&finalizer.as_str());
        let others: Vec<_> = object.finalizers().iter().filter(|finalizer| !is_ours(finalizer)).collect();
        // The whole list is replaced, which is safe while the resourceVersion is the one it was read at.
        let patch = json!({ "metadata": {
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
            "finalizers": others,
        }});
        let answer = tokio::time::timeout(LIMIT, api.patch(&name, &parameters, &Patch::Merge(patch))).await;
        match answer.context("no answer from the API server")? {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(explained(error, "patch", &K::plural(&()))),
        }
        match api.get_opt(&name).await.map_err(|error| explained(error, "get", &K::plural(&())))? {
            Some(current) => object = current,
            None => return Ok(()),
        }
    }
    bail!("{name} is changed by somebody else all the time; stop that and repeat this")
}

fn explained(error: kube::Error, verb: &str, plural: &str) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => anyhow::anyhow!(
            "these credentials may not {verb} {plural}: {}. Use those of a cluster administrator, or of the \
             ServiceAccount landfall-controller of deploy/",
            status.message
        ),
        _ => anyhow::anyhow!("cannot {verb} {plural}: {}", in_short(&error)),
    }
}
