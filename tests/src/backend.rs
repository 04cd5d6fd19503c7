//! Backends: servers that tell their pod's name and the client address that they saw.
//!
//! In a lab with kubelets they are a real Deployment; in one without, pods
//! written by hand with a process in a namespace each. A Service in front looks
//! the same in both.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service as ServiceObject},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::lab::{Lab, eventually};

/// The backend's image.
pub const IMAGE: &str = "lab.landfall.dev/backend:1";
/// The port that backends listen on, TCP and UDP.
pub const PORT: u16 = 8080;
/// Who the lab is to the API server when it applies objects.
const MANAGER: &str = "landfall-lab";

/// A set of backends, labelled `app: <name>`.
#[derive(Clone, Debug)]
pub struct Backends {
    /// Name and `app` label.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// How many pods.
    pub replicas: u32,
    /// The node that all of them must run on; anywhere where absent.
    pub node: Option<String>,
    /// For how long a pod still serves after it was told to stop (a
    /// terminating endpoint that still serves).
    pub grace: Duration,
}

impl Backends {
    /// So many in the namespace `default`, anywhere.
    pub fn new(name: &str, replicas: u32) -> Self {
        let (name, namespace) = (name.to_owned(), "default".to_owned());
        Self { name, namespace, replicas, node: None, grace: Duration::from_secs(1) }
    }

    /// All on this node.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), ..self }
    }

    fn deployment(&self) -> Value {
        let labels = json!({"app": self.name});
        // With one pod at least this far from the next, a test that kills a node keeps others.
        let spread = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }]);
        let selector = self.node.as_ref().map(|node| json!({"kubernetes.io/hostname": node}));
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "nodeSelector": selector.unwrap_or_else(|| json!({})),
                        "topologySpreadConstraints": spread,
                        // The server has no handler for SIGTERM: as PID 1 it serves until the grace is over.
                        "terminationGracePeriodSeconds": self.grace.as_secs(),
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "containers": [{
                            "name": "backend",
                            "image": IMAGE,
                            "imagePullPolicy": "Never",
                            "ports": [{"containerPort": PORT, "protocol": "TCP"}, {"containerPort": PORT, "protocol": "UDP"}],
                            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        })
    }

    /// Applies them and waits until all are available.
    ///
    /// # Errors
    /// When they are not within 60 s.
    pub async fn deploy(&self, lab: &Lab) -> Result<()> {
        if !lab.options().kubelets {
            return crate::lab::pods::deploy(lab, self).await;
        }
        let api: Api<Deployment> = Api::namespaced(lab.client(), &self.namespace);
        apply(&api, &self.name, self.deployment()).await?;
        let what = format!("{} backends {} are available", self.replicas, self.name);
        eventually(Duration::from_secs(60), &what, async || {
            let deployment = api.get(&self.name).await?;
            let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
            let status = deployment.status.unwrap_or_default();
            let available = status.available_replicas.unwrap_or(0);
            let fresh =
                observed >= deployment.metadata.generation && status.replicas == status.updated_replicas;
            let wanted = i32::try_from(self.replicas)?;
            ensure!(fresh && available == wanted, "{available} available, status {status:?}");
            Ok(())
        })
        .await
    }

    /// The names of their pods, with the nodes they run on.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, lab: &Lab) -> Result<BTreeMap<String, String>> {
        let api: Api<Pod> = Api::namespaced(lab.client(), &self.namespace);
        let pods = api.list(&ListParams::default().labels(&format!("app={}", self.name))).await?;
        let placed = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let named =
            placed.filter_map(|pod| Some((pod.metadata.name?, pod.spec?.node_name.unwrap_or_default())));
        Ok(named.collect())
    }

    /// Deletes them.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn delete(&self, lab: &Lab) -> Result<()> {
        if !lab.options().kubelets {
            return crate::lab::pods::delete(lab, self).await;
        }
        let api: Api<Deployment> = Api::namespaced(lab.client(), &self.namespace);
        api.delete(&self.name, &DeleteParams::foreground()).await.map(|_| ()).map_err(Into::into)
    }
}

/// A Service to be applied: 80/TCP and 80/UDP to the backends, dual stack where nothing else is said.
#[derive(Clone, Debug)]
pub struct Service(Value);

impl Service {
    /// A ClusterIP Service of that name in the namespace `default`, in front of
    /// the backends `app`.
    pub fn new(name: &str, app: &str) -> Self {
        let port =
            |name, protocol| json!({"name": name, "protocol": protocol, "port": 80, "targetPort": PORT});
        Self(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "ClusterIP",
                "selector": {"app": app},
                "ipFamilyPolicy": "PreferDualStack",
                "ports": [port("tcp", "TCP"), port("udp", "UDP")],
            },
        }))
    }

    /// Of type NodePort.
    #[must_use]
    pub fn node_port(self) -> Self {
        self.spec("type", json!("NodePort"))
    }

    /// Of type LoadBalancer.
    #[must_use]
    pub fn load_balancer(self) -> Self {
        self.spec("type", json!("LoadBalancer"))
    }

    /// Sets a field of the spec: `.spec("loadBalancerIP", json!("13.12.21.31"))`.
    #[must_use]
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.0["spec"][field] = value;
        self
    }

    /// In this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.0["metadata"]["namespace"] = json!(namespace);
        self
    }

    /// With this annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.0["metadata"]["annotations"][name] = json!(value);
        self
    }

    /// The object as it is applied; JSON is YAML.
    pub fn object(&self) -> &Value {
        &self.0
    }

    /// Applies it and returns what the API server made of it.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, lab: &Lab) -> Result<ServiceObject> {
        let text = |field: &str| self.0["metadata"][field].as_str().unwrap_or_default().to_owned();
        let api: Api<ServiceObject> = Api::namespaced(lab.client(), &text("namespace"));
        apply(&api, &text("name"), self.0.clone()).await
    }
}

/// The node port of a Service's port with this name (`tcp`, `udp`).
///
/// # Errors
/// When it has none.
pub fn node_port(service: &ServiceObject, port: &str) -> Result<u16> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let found =
        ports.and_then(|ports| ports.iter().find(|candidate| candidate.name.as_deref() == Some(port)));
    let number =
        found.and_then(|port| port.node_port).ok_or_else(|| anyhow!("no node port {port}: {ports:?}"))?;
    u16::try_from(number).context("a node port")
}

async fn apply<K>(api: &Api<K>, name: &str, object: Value) -> Result<K>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await;
    applied.with_context(|| format!("applying {name}"))
}
