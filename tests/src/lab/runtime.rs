//! What runs on a node: containerd, kubelet and kube-proxy, and how they are set.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{cgroups, isolation::RUN, node::Node, pki::Pki, plan, programs, waiting};

/// How kube-proxy programs the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyMode {
    /// nftables, the coming default of Kubernetes.
    #[default]
    Nftables,
    /// iptables.
    Iptables,
}

impl std::fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "lab.landfall.dev/pause:1";

fn folder(node: &Node) -> Result<PathBuf> {
    let folder = Path::new(RUN).join("nodes").join(node.name()).join("etc");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Starts containerd on a node.
pub(crate) fn start_containerd(node: &Node) -> Result<()> {
    let folder = folder(node)?;
    let number = node.number();
    fs::create_dir_all(folder.join("cni"))?;
    // Each pod is routed by its node, never bridged past the node's NAT to a neighbouring pod.
    let network = json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": plan::pods_v4(number)}], [{"subnet": plan::pods_v6(number)}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }],
    });
    fs::write(folder.join("cni/10-lab.conflist"), serde_json::to_vec_pretty(&network)?)?;
    let config = folder.join("containerd.toml");
    fs::write(
        &config,
        format!(
            r#"version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.grpc.v1.cri"]
# Where root lacks CAP_SYS_RESOURCE, runc could not lower a score.
restrict_oom_score_adj = true
sandbox_image = "{PAUSE}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
"#,
            cni = programs::CNI_BIN,
            folder = folder.display(),
        ),
    )?;
    node.start("containerd", Path::new("containerd"), vec![format!("--config={}", config.display())])
}

/// Waits until containerd answers.
pub(crate) fn containerd_answers(node: &Node) -> Result<()> {
    waiting::eventually_blocking(
        waiting::seconds(20),
        &format!("containerd of {} answers", node.name()),
        || node.namespace().run("ctr", &["--connect-timeout", "2s", "version"]).map(|_| ()),
    )
}

/// Starts the kubelet of a node; its Node object and the pause image are there already.
pub(crate) fn start_kubelet(node: &Node, programs: &Path, pki: &Pki) -> Result<()> {
    let folder = folder(node)?;
    let addresses = node.addresses();
    let kubeconfig = pki.kubeconfig(&format!("system:node:{}", node.name()), Some("system:nodes"))?;
    let serving = pki
        .server(&format!("kubelet-{}", node.name()), &[addresses.v4.to_string(), addresses.v6.to_string()])?;
    fs::write(folder.join("resolv.conf"), "")?;
    let settings = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.authority_file()},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": serving.certificate,
        "tlsPrivateKeyFile": serving.key,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": folder.join("resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup(),
        // Otherwise the kubelet names no parent, and containerd puts the containers of all nodes and all labs
        // side by side into one cgroup of its own. With version 2 it would also want its controllers handed
        // down to the node's cgroup, which the lab does not do yet.
        "cgroupsPerQOS": cgroups::are_of_version_1(),
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "localStorageCapacityIsolation": false,
        "imageGCHighThresholdPercent": 100,
        "imageMaximumGCAge": "0s",
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%",
        },
        "syncFrequency": "10s",
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "serializeImagePulls": false,
        "shutdownGracePeriod": "0s",
    });
    let config = folder.join("kubelet.json");
    fs::write(&config, serde_json::to_vec_pretty(&settings)?)?;
    let arguments = vec![
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={}", node.name()),
        format!("--node-ip={},{}", addresses.v4, addresses.v6),
    ];
    node.start("kubelet", &programs.join("kubelet"), arguments)
}

/// Starts kube-proxy on a node; its Node object is there already.
pub(crate) fn start_proxy(node: &Node, programs: &Path, kubeconfig: &Path, mode: ProxyMode) -> Result<()> {
    let mut arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={}", node.name()),
        format!("--proxy-mode={mode}"),
        format!("--cluster-cidr={}", plan::PODS),
    ];
    let fixed = [
        "--healthz-bind-address=0.0.0.0:10256",
        // These belong to the machine: a network namespace may not set them.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--conntrack-udp-timeout=0",
        "--conntrack-udp-timeout-stream=0",
    ];
    arguments.extend(fixed.map(str::to_owned));
    node.start("kube-proxy", &programs.join("kube-proxy"), arguments)
}

/// Waits until kube-proxy of a node says that it has written its rules.
pub(crate) async fn proxy_answers(node: &Node) -> Result<()> {
    let target = (node.addresses().v4, 10256).into();
    waiting::eventually(
        waiting::seconds(30),
        &format!("kube-proxy of {} is healthy", node.name()),
        async || {
            let mut stream = std::net::TcpStream::connect_timeout(&target, waiting::seconds(1))?;
            stream.set_read_timeout(Some(waiting::seconds(1)))?;
            write!(stream, "GET /healthz HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            ensure!(
                response.starts_with("HTTP/1.1 200"),
                "it says {}",
                response.lines().next().unwrap_or_default()
            );
            Ok(())
        },
    )
    .await
}
