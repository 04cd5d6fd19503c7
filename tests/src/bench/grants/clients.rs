//! Those who ask the API server: the users who create Services, the plain client that is the floor, and the
//! watch that both are measured by. None of them reads more of an answer than it needs.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::WatchEvent,
};
use landfall_crds::{VirtualIP, names::finalizers, virtual_ip_name};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::lab::{Lab, eventually, seconds};

/// How many users create Services at once, and how many plain clients grant them blindly.
pub(super) const WRITERS: usize = 8;

/// A Service that its namespace has besides the measured ones.
pub(super) const FIRST: &str = "first-of-all";

/// Who asks.
pub(super) struct Clients {
    /// The users, who create Services and delete them.
    pub(super) users: Client,
    /// The controller's account: nobody else may create VirtualIPs.
    pub(super) account: Client,
}

impl Clients {
    /// The lab's own client, and one with the credentials of a kubeconfig.
    pub(super) async fn new(lab: &Lab, account: &Path) -> Result<Self> {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(account)?, &options).await?;
        Ok(Self { users: lab.client(), account: Client::try_from(config)? })
    }

    /// Creates so many Services, one after the other by each user.
    pub(super) async fn create_all(&self, namespace: &str, count: usize) -> Result<()> {
        let create = |number| create(&self.users, namespace, name_of(number));
        stream::iter(0..count).map(create).buffer_unordered(WRITERS).try_collect().await
    }

    /// Does for so many Services what the users and the controller must at least do, and asks for nothing.
    pub(super) async fn grant_blindly(&self, grant: &Grant, namespace: &str, count: usize) -> Result<()> {
        let one = async |number| {
            let name = name_of(number);
            create(&self.users, namespace, name.clone()).await?;
            let service = format!("/api/v1/namespaces/{namespace}/services/{name}");
            let address = address_of(number)?;
            send(&self.account, Verb::StrategicPatch, &service, grant.finalizers.clone()).await?;
            let virtual_ip = grant.filled(&grant.virtual_ip, namespace, &name, address);
            send(&self.account, Verb::Create, VIRTUAL_IPS, virtual_ip).await?;
            let status = grant.filled(&grant.status, namespace, &name, address);
            send(&self.account, Verb::StrategicPatch, &format!("{service}/status"), status).await
        };
        stream::iter(0..count).map(one).buffer_unordered(WRITERS).try_collect().await
    }

    /// A namespace that has nothing in it but one Service of type LoadBalancer.
    pub(super) async fn fresh_namespace(&self, namespace: &str) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.users.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
        api.create(&PostParams::default(), &object).await?;
        create(&self.users, namespace, FIRST.to_owned()).await
    }

    /// Deletes all Services of the namespace and all VirtualIPs, whatever guards them, and waits until they
    /// are gone. No controller may run.
    pub(super) async fn clean(&self, namespace: &str) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.users.clone(), namespace);
        let virtual_ips: Api<VirtualIP> = Api::all(self.users.clone());
        let all = ListParams::default();
        let names = |names: Vec<String>, folder: String| {
            names.into_iter().map(move |name| format!("{folder}/{name}"))
        };
        let found = services.list_metadata(&all).await?.items.iter().map(ResourceExt::name_any).collect();
        let guarded =
            virtual_ips.list_metadata(&all).await?.items.iter().map(ResourceExt::name_any).collect();
        let paths = names(found, format!("/api/v1/namespaces/{namespace}/services"))
            .chain(names(guarded, VIRTUAL_IPS.to_owned()));
        let unguarded = json!({"metadata": {"finalizers": null}});
        let remove = |path: String| {
            let body = unguarded.to_string();
            async move {
                send(&self.users, Verb::MergePatch, &path, body).await?;
                send(&self.users, Verb::Delete, &path, String::new()).await
            }
        };
        stream::iter(paths).map(remove).buffer_unordered(WRITERS).try_collect::<()>().await?;
        Api::<Namespace>::all(self.users.clone()).delete(namespace, &DeleteParams::default()).await?;
        eventually(seconds(90), &format!("namespace {namespace} is gone"), async || {
            match Api::<Namespace>::all(self.users.clone()).get_opt(namespace).await? {
                None => Ok(()),
                Some(namespace) => bail!("{:?}", namespace.status),
            }
        })
        .await
    }
}

const VIRTUAL_IPS: &str = "/apis/landfall.dev/v1alpha1/virtualips";

/// What the controller wrote for one Service, to be written for others: so the floor writes the same,
/// whatever the controller comes to write.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    finalizers: String,
    virtual_ip: String,
    status: String,
    namespace: String,
    address: IpAddr,
}

impl Grant {
    /// What is there of [`FIRST`] in this namespace, which has its address already.
    pub(super) async fn learn(client: &Client, namespace: &str) -> Result<Self> {
        let service = Api::<Service>::namespaced(client.clone(), namespace).get(FIRST).await?;
        let address = *crate::services::addresses(&service).first().context("it has no address")?;
        let virtual_ip = Api::<VirtualIP>::all(client.clone()).get(&virtual_ip_name(address)).await?;
        let mut fresh = VirtualIP::new(&virtual_ip_name(address), virtual_ip.spec);
        fresh.metadata.finalizers = Some(vec![finalizers::VIRTUAL_IP_CLAIMED.to_owned()]);
        let status = service.status.context("it has no status")?;
        Ok(Self {
            finalizers: json!({"metadata": {"finalizers": service.metadata.finalizers}}).to_string(),
            virtual_ip: serde_json::to_string(&fresh)?,
            status: json!({"status": status}).to_string(),
            namespace: namespace.to_owned(),
            address,
        })
    }

    /// How many nodes may announce the address.
    pub(super) fn candidates(&self) -> Result<usize> {
        let object: VirtualIP = serde_json::from_str(&self.virtual_ip)?;
        Ok(object.spec.placement.map_or(0, |placement| placement.candidates.len()))
    }

    fn filled(&self, body: &str, namespace: &str, name: &str, address: Ipv4Addr) -> String {
        body.replace(FIRST, name)
            .replace(&self.namespace, namespace)
            .replace(&self.address.to_string(), &address.to_string())
    }
}

fn name_of(number: usize) -> String {
    format!("service-{number:05}")
}

/// An address of [`super::RANGE`] for the Service with this number.
fn address_of(number: usize) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 1, 0).to_bits() + u32::try_from(number)?))
}

async fn create(client: &Client, namespace: &str, name: String) -> Result<()> {
    // Without a selector nobody writes endpoints, and there are only some 2,700 node ports.
    let service: Value = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        },
    });
    send(client, Verb::Create, &format!("/api/v1/namespaces/{namespace}/services"), service.to_string()).await
}

#[derive(Clone, Copy)]
enum Verb {
    Create,
    StrategicPatch,
    MergePatch,
    Delete,
}

async fn send(client: &Client, verb: Verb, path: &str, body: String) -> Result<()> {
    let (method, content) = match verb {
        Verb::Create => ("POST", "application/json"),
        Verb::StrategicPatch => ("PATCH", "application/strategic-merge-patch+json"),
        Verb::MergePatch => ("PATCH", "application/merge-patch+json"),
        Verb::Delete => ("DELETE", "application/json"),
    };
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", content);
    let answer = client.request::<IgnoredAny>(request.body(body.into_bytes())?).await;
    answer.map(|_| ()).with_context(|| format!("{method} {path}"))
}

/// A Service as far as the watch must know it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Seen {
    metadata: SeenMetadata,
    #[serde(default)]
    status: SeenStatus,
}

#[derive(Clone, Debug, Deserialize)]
struct SeenMetadata {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SeenStatus {
    load_balancer: SeenBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SeenBalancer {
    #[serde(default)]
    ingress: Vec<IgnoredAny>,
}

/// A watch of the Services of a namespace; it is under way when this returns.
pub(super) async fn watch(
    client: &Client,
    namespace: &str,
) -> Result<impl Stream<Item = kube::Result<WatchEvent<Seen>>> + Unpin + use<>> {
    let path = format!("/api/v1/namespaces/{namespace}/services?watch=true&timeoutSeconds=1200");
    let events = client.request_events::<Seen>(http::Request::get(path).body(Vec::new())?).await?;
    Ok(events.boxed())
}

/// When `count` Services, [`FIRST`] not among them, have an address in their status.
pub(super) async fn all_granted(
    mut watch: impl Stream<Item = kube::Result<WatchEvent<Seen>>> + Unpin,
    count: usize,
) -> Result<Instant> {
    let mut granted = HashSet::new();
    while let Some(event) = watch.try_next().await.context("the watch")? {
        let (WatchEvent::Added(seen) | WatchEvent::Modified(seen)) = event else { continue };
        if seen.metadata.name == FIRST || seen.status.load_balancer.ingress.is_empty() {
            continue;
        }
        granted.insert(seen.metadata.name);
        if granted.len() == count {
            return Ok(Instant::now());
        }
    }
    bail!("the watch has ended with {} of {count} addresses seen", granted.len())
}
