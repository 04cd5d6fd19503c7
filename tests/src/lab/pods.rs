//! The lab without kubelets: Node and Pod objects written by hand, backends as processes.
//!
//! Nothing watches over them: a pod that is deleted must be deleted with grace
//! period 0, and a node stays Ready whatever becomes of it.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Mutex, time::Duration};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    lab::Lab,
    namespace::{Namespace, host_sysctls},
    node::Node,
    process::Process,
    programs, waiting,
};
use crate::backend::Backends;

/// The pods that the lab holds itself.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    running: Mutex<BTreeMap<String, Process>>,
    numbers: Mutex<BTreeMap<u8, u8>>,
}

/// Makes a Node object Ready, as its kubelet would.
pub(crate) async fn make_ready(api: &Api<NodeObject>, node: &Node) -> Result<()> {
    let addresses = node.addresses();
    let resources = json!({"cpu": "8", "memory": "16Gi", "pods": "250"});
    let ready =
        json!({"type": "Ready", "status": "True", "reason": "Lab", "message": "a node without kubelet"});
    let status = json!({"status": {
        "addresses": [
            {"type": "InternalIP", "address": addresses.v4.to_string()},
            {"type": "InternalIP", "address": addresses.v6.to_string()},
            {"type": "Hostname", "address": node.name()},
        ],
        "conditions": [ready],
        "capacity": resources,
        "allocatable": resources,
    }});
    api.patch_status(node.name(), &PatchParams::default(), &Patch::Merge(&status)).await?;
    // Admission adds the taint of a node that is not ready yet.
    let untaint = json!({"spec": {"taints": null}});
    api.patch(node.name(), &PatchParams::default(), &Patch::Merge(&untaint)).await?;
    Ok(())
}

/// Starts a process for each backend, and writes a Pod object for it.
pub(crate) async fn deploy(lab: &Lab, backends: &Backends) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(lab.client(), &backends.namespace);
    for index in 0..backends.replicas {
        let name = format!("{}-{index}", backends.name);
        let node = match &backends.node {
            Some(node) => lab.node(node)?,
            None => {
                let nodes = lab.nodes();
                nodes
                    .get(usize::try_from(index)? % nodes.len().max(1))
                    .ok_or_else(|| anyhow!("a lab without nodes"))?
            }
        };
        let addresses = start(lab.pods(), node, &name)?;
        let object = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"app": backends.name}},
            "spec": {"nodeName": node.name(), "containers": [{"name": "backend", "image": crate::backend::IMAGE}]},
        }))?;
        // The controller that makes the ServiceAccount may need a moment in a new namespace.
        waiting::eventually(Duration::from_secs(10), &format!("the Pod {name} is created"), async || {
            api.create(&PostParams::default(), &object).await.map_err(anyhow::Error::from)
        })
        .await?;
        let status = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
            "podIP": addresses[0].to_string(),
            "podIPs": addresses.map(|address| json!({"ip": address.to_string()})),
        }});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    }
    Ok(())
}

/// Deletes the Pod objects and ends their processes.
pub(crate) async fn delete(lab: &Lab, backends: &Backends) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(lab.client(), &backends.namespace);
    let selection = ListParams::default().labels(&format!("app={}", backends.name));
    for pod in api.list(&selection).await? {
        let name = pod.metadata.name.context("a pod without a name")?;
        api.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        let running = lab.pods().running.lock().map_err(|_| anyhow!("poisoned"))?.remove(&name);
        if let Some(process) = running {
            process.kill()?;
            Namespace::of_the_lab().run("ip", &["netns", "del", &format!("pod-{name}")])?;
        }
    }
    Ok(())
}

/// Makes a pod's namespace, routed by its node as the CNI plugin `ptp` does it, and starts the backend in it.
fn start(pods: &Pods, node: &Node, name: &str) -> Result<[IpAddr; 2]> {
    let number = {
        let mut numbers = pods.numbers.lock().map_err(|_| anyhow!("poisoned"))?;
        let next = numbers.entry(node.number()).or_insert(1);
        *next = next.checked_add(1).context("no pod address left on the node")?;
        *next
    };
    let (v4, v6) = (format!("10.245.{}", node.number()), format!("fd45:0:0:{}", node.number()));
    let namespace = Namespace::create(&format!("pod-{name}"), host_sysctls)?;
    let host_side = format!("veth{number}");
    // From here, because a node has a /run/netns of its own and does not know the pod's namespace by name.
    Namespace::of_the_lab().ip(&[format!(
        "link add {host_side} netns {} type veth peer name eth0 netns pod-{name}",
        node.name()
    )])?;
    node.namespace().ip(&[
        format!("link set {host_side} up"),
        format!("addr add {v4}.1/32 dev {host_side}"),
        format!("addr add {v6}::1/128 dev {host_side} nodad"),
        format!("route add {v4}.{number}/32 dev {host_side}"),
        format!("route add {v6}::{number:x}/128 dev {host_side}"),
    ])?;
    namespace.ip(&[
        "link set lo up".to_owned(),
        "link set eth0 up".to_owned(),
        format!("addr add {v4}.{number}/32 dev eth0"),
        format!("addr add {v6}::{number:x}/128 dev eth0 nodad"),
        format!("route add {v4}.1 dev eth0 scope link"),
        format!("route add {v6}::1 dev eth0"),
        format!("route add default via {v4}.1"),
        format!("route add ::/0 via {v6}::1"),
    ])?;
    let mut command = namespace.command(binary()?);
    command.env("POD_NAME", name);
    let process = Process::start(&format!("pod-{name}"), command)?;
    pods.running.lock().map_err(|_| anyhow!("poisoned"))?.insert(name.to_owned(), process);
    Ok([format!("{v4}.{number}").parse()?, format!("{v6}::{number:x}").parse()?])
}

fn binary() -> Result<std::path::PathBuf> {
    let binary = programs::ours("landfall-backend")?;
    Ok(Path::new(&binary).to_owned())
}
