//! A client, a node and a pod, each in a network namespace of its own, and a filter on the node.
//!
//! ```text
//!  client  10.1.0.2, 203.0.113.2 ── 10.1.0.1 node 10.244.0.1 ── 10.244.0.2  pod
//! ```
//!
//! A table of nftables stands in for kube-proxy.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use landfall_crds::Protocol;
use landfall_speaker::drivers::filter_thread::{FilterThread, FromFilter};
use landfall_speaker::drivers::nftables::Nftables;
use landfall_speaker::filter::frontend::{Claim, Frontend, Guard, Port, ServiceName};
use landfall_speaker::filter::sources::Sources;
use landfall_speaker::filter::{Event, Stations};
use landfall_speaker::metrics::Metrics;
use nix::sched::{CloneFlags, setns, unshare};
use prometheus_client::registry::Registry;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::sync::mpsc;

/// No wait is longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// The client from inside the ranges, the one from outside, the node and the pod, by family.
pub(crate) const LISTED: [&str; 2] = ["10.1.0.2", "fd01::2"];
pub(crate) const UNLISTED: [&str; 2] = ["203.0.113.2", "2001:db8::2"];
pub(crate) const NODE: [&str; 2] = ["10.1.0.1", "fd01::1"];
pub(crate) const POD: [&str; 2] = ["10.244.0.2", "fd44::2"];
/// Addresses of Services.
pub(crate) const VIP: [&str; 2] = ["192.168.10.50", "fd00::50"];
pub(crate) const OTHER_VIP: [&str; 2] = ["192.168.10.51", "fd00::51"];
/// The ports of the Service: at its address, at the node, in the pod.
pub(crate) const PORT: u16 = 80;
pub(crate) const NODE_PORT: u16 = 30080;
pub(crate) const POD_PORT: u16 = 8080;
/// A port that kube-proxy serves and nobody has told the filter of, and one behind which there is no pod.
pub(crate) const UNCLAIMED_PORT: u16 = 81;
pub(crate) const EMPTY_PORT: u16 = 82;

/// Whether the test can run; if not, it says why.
pub(crate) fn is_able() -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test makes network namespaces and needs root");
        return false;
    }
    let has_nft = Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_nft {
        eprintln!("SKIPPED: this test needs the program nft to stand in for kube-proxy");
    }
    has_nft
}

/// A network namespace.
pub(crate) struct Host {
    namespace: File,
    handle: Handle,
}

impl Host {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        Self { namespace, handle }
    }

    /// Does something in the namespace. The calling thread stays there.
    pub(crate) fn within<T>(&self, what: impl FnOnce() -> T) -> T {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
        what()
    }

    async fn index(&self, name: &str) -> u32 {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        found.try_next().await.unwrap().unwrap().header.index
    }

    async fn up(&self, name: &str, addresses: &[&str]) {
        let index = self.index(name).await;
        self.within(|| {
            // No detection of duplicates: the addresses are usable at once.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0");
        });
        for address in addresses {
            let net: ipnet::IpNet = address.parse().unwrap();
            self.handle.address().add(index, net.addr(), net.prefix_len()).execute().await.unwrap();
        }
        self.handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
    }

    async fn route(&self, via: &str) {
        let route = match via.parse().unwrap() {
            IpAddr::V4(via) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(via).build(),
            IpAddr::V6(via) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(via).build(),
        };
        self.handle.route().add(route).execute().await.unwrap();
    }

    /// A route to a network on a link, as a node has one to the LAN that its addresses lie on.
    pub(crate) async fn route_on(&self, net: &str, link: &str) {
        let index = self.index(link).await;
        let net: ipnet::IpNet = net.parse().unwrap();
        let route = match net {
            ipnet::IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .output_interface(index)
                .build(),
            ipnet::IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .output_interface(index)
                .build(),
        };
        self.handle.route().add(route).execute().await.unwrap();
    }

    /// Runs `nft` there.
    pub(crate) fn nft(&self, script: &str) -> String {
        self.within(|| {
            let mut child = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), script.as_bytes()).unwrap();
            drop(child.stdin.take());
            let output = child.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "nft: {error}\n{script}");
            String::from_utf8(output.stdout).unwrap()
        })
    }
}

/// All of them, and the wires between them.
pub(crate) struct Lan {
    pub(crate) client: Host,
    pub(crate) node: Host,
    pub(crate) pod: Host,
}

impl Lan {
    /// Without a filter yet. `masquerade` has the pod see the node in place of the client, as with policy Cluster.
    pub(crate) async fn new(masquerade: bool) -> Self {
        let (client, node, pod) = (Host::new(), Host::new(), Host::new());
        for (host, near, far) in [(&client, "lan0", "eth0"), (&pod, "pod0", "eth0")] {
            node.within(|| ());
            node.handle.link().add(LinkVeth::new(near, far).build()).execute().await.unwrap();
            let far = LinkUnspec::new_with_name(far).setns_by_fd(host.namespace.as_raw_fd()).build();
            node.handle.link().set(far).execute().await.unwrap();
        }
        for host in [&client, &node, &pod] {
            host.up("lo", &[]).await;
        }
        client.up("eth0", &["10.1.0.2/16", "203.0.113.2/24", "fd01::2/64", "2001:db8::2/64"]).await;
        node.up("lan0", &["10.1.0.1/16", "203.0.113.1/24", "fd01::1/64", "2001:db8::1/64"]).await;
        node.up("pod0", &["10.244.0.1/24", "fd44::1/64"]).await;
        pod.up("eth0", &["10.244.0.2/24", "fd44::2/64"]).await;
        node.within(|| {
            for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
            }
        });
        for (host, gateways) in [(&client, NODE), (&pod, ["10.244.0.1", "fd44::1"])] {
            for gateway in gateways {
                host.route(gateway).await;
            }
        }
        let lan = Self { client, node, pod };
        lan.kube_proxy(masquerade);
        lan
    }

    /// What kube-proxy does, in short.
    fn kube_proxy(&self, masquerade: bool) {
        let mut script = String::from("table inet kube-proxy {\n chain services {\n");
        for (family, (vips, pod)) in [
            ("ip", (["192.168.10.50", "192.168.10.51"], "10.244.0.2")),
            ("ip6", (["fd00::50", "fd00::51"], "[fd44::2]")),
        ] {
            for protocol in ["tcp", "udp", "sctp"] {
                for vip in vips {
                    for port in [PORT, UNCLAIMED_PORT] {
                        script += &format!(
                            "  {family} daddr {vip} {protocol} dport {port} dnat {family} to {pod}:{POD_PORT}\n"
                        );
                    }
                    script +=
                        &format!("  {family} daddr {vip} {protocol} dport 90 dnat {family} to {pod}:9090\n");
                }
                script += &format!(
                    "  meta nfproto {} {protocol} dport {NODE_PORT} fib daddr type local dnat {family} to {pod}:{POD_PORT}\n",
                    if family == "ip" { "ipv4" } else { "ipv6" }
                );
            }
        }
        script += " }\n chain prerouting { type nat hook prerouting priority dstnat; jump services\n }\n";
        script += " chain output { type nat hook output priority -100; jump services\n }\n";
        if masquerade {
            script += " chain postrouting { type nat hook postrouting priority srcnat; ct status dnat masquerade\n }\n";
        }
        script += "}\n";
        self.node.nft(&script);
    }
}

/// A filter on the node, as the speaker's other drivers hold it.
pub(crate) struct Filter {
    pub(crate) thread: FilterThread,
    pub(crate) said: mpsc::UnboundedReceiver<FromFilter>,
    pub(crate) registry: Registry,
    guards: std::collections::BTreeMap<ServiceName, u32>,
}

pub(crate) fn web() -> ServiceName {
    ServiceName::new("shop", "web")
}

pub(crate) fn ports(number: u16) -> Vec<Port> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| Port { protocol, number }).to_vec()
}

/// An address of a Service, with the digest of the guard that its claim names.
pub(crate) fn frontend(service: &ServiceName, guard: Option<&str>) -> Arc<Frontend> {
    let claim = Claim { service: service.clone(), guard: guard.map(Into::into) };
    let served = [ports(PORT), ports(EMPTY_PORT), ports(90)].concat();
    Arc::new(Frontend::new(vec![claim], served.into_iter().map(|port| (port, service.clone()))))
}

pub(crate) fn guard(digest: &str, ranges: &[&str]) -> Guard {
    Guard {
        digest: digest.to_owned(),
        sources: Sources::parse(ranges.iter().copied()).unwrap(),
        ranges: ranges.iter().map(|range| (*range).to_owned()).collect(),
        node_ports: ports(NODE_PORT),
        ..Guard::default()
    }
}

impl Filter {
    /// Starts one on the node.
    pub(crate) fn start(lan: &Lan) -> Self {
        Self::start_with(lan, Nftables::new)
    }

    fn start_with(lan: &Lan, kernel: fn(Metrics) -> Nftables) -> Self {
        lan.node.within(|| {
            let (metrics, registry) = Metrics::new();
            let (thread, said) = FilterThread::start_with(kernel(metrics.clone()), metrics).unwrap();
            thread.tell(Event::Stations(Stations::Node, BTreeSet::new()));
            Self { thread, said, registry, guards: Default::default() }
        })
    }

    /// Tells it of both addresses of the Service, which lets in those from `ranges`, and waits until the kernel does.
    pub(crate) async fn with_ranges(lan: &Lan, ranges: &[&str]) -> Self {
        Self::start(lan).and_ranges(ranges).await
    }

    /// The same, with a table that others may change.
    pub(crate) async fn shared_with_ranges(lan: &Lan, ranges: &[&str]) -> Self {
        Self::start_with(lan, Nftables::shared).and_ranges(ranges).await
    }

    async fn and_ranges(self, ranges: &[&str]) -> Self {
        let mut filter = self;
        let frontends = VIP.map(|vip| (vip.parse().unwrap(), frontend(&web(), Some("1"))));
        filter.thread.tell(Event::Frontends(frontends.to_vec()));
        filter.thread.tell(Event::Guards(vec![(web(), Arc::new(guard("1", ranges)))]));
        filter.guards.insert(web(), 1);
        filter.is_guarded(&VIP, "1").await;
        filter
    }

    /// Gives a Service other ranges, and waits until the kernel lets in no others.
    pub(crate) async fn let_in(&mut self, ranges: &[&str]) -> Duration {
        let start = Instant::now();
        let number = self.guards.entry(web()).or_default();
        *number += 1;
        let digest = number.to_string();
        self.thread.tell(Event::Guard(web(), Some(Arc::new(guard(&digest, ranges)))));
        for vip in VIP {
            self.thread.tell(Event::Frontend(vip.parse().unwrap(), Some(frontend(&web(), Some(&digest)))));
        }
        self.is_guarded(&VIP, &digest).await;
        start.elapsed()
    }

    pub(crate) async fn is_guarded(&mut self, addresses: &[&str], by: &str) {
        let mut missing: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.until(|said| {
            if let FromFilter::Guarded(guarded) = said {
                missing.retain(|address| {
                    !guarded.iter().any(|it| it.address == *address && it.by.as_deref() == Some(by))
                });
            }
            missing.is_empty()
        })
        .await;
    }

    pub(crate) async fn until(&mut self, mut is_it: impl FnMut(&FromFilter) -> bool) {
        let mut heard = Vec::new();
        let wait = async {
            while let Some(said) = self.said.recv().await {
                if is_it(&said) {
                    return;
                }
                heard.push(said);
            }
            panic!("the thread has ended");
        };
        let ended = tokio::time::timeout(LIMIT, wait).await;
        assert!(ended.is_ok(), "heard only {heard:#?}");
    }

    /// A metric's value; zero where it is not there.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let found = text.lines().find_map(|other| other.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_default()
    }
}
