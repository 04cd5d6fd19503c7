//! Every name that Landfall puts into or reads from Kubernetes objects, in one place.

/// The API group of all our custom resources.
pub const GROUP: &str = "landfall.dev";
/// The version of the API group.
pub const VERSION: &str = "v1alpha1";
/// The load balancer class that is ours by name; class-less Services are ours by a flag.
pub const LOAD_BALANCER_CLASS: &str = "landfall.dev/lan";

/// Field managers, under which our server-side applies are recorded.
pub mod managers {
    /// The controller.
    pub const CONTROLLER: &str = "landfall-controller";
    /// The speaker of any node.
    pub const SPEAKER: &str = "landfall-speaker";
}

/// Finalizers.
pub mod finalizers {
    /// The standard finalizer of load balancers (k8s.io/cloud-provider, service/helpers).
    /// A cloud controller in the same cluster may remove it, so it is not our guard.
    pub const LOAD_BALANCER_CLEANUP: &str = "service.kubernetes.io/load-balancer-cleanup";
    /// Ours on a Service: its address is withdrawn from the LAN before the Service goes.
    pub const SERVICE_ADDRESS: &str = "landfall.dev/address";
    /// Ours on a VirtualIP that is claimed: the address is neither lost nor granted again by a mistaken delete.
    pub const VIRTUAL_IP_CLAIMED: &str = "landfall.dev/claimed";
}

/// Annotations that users write on Services.
pub mod annotations {
    /// Addresses asked for, comma separated, at most one per family.
    pub const IPS: &str = "landfall.dev/ips";
    /// Pools to take the addresses from, comma separated, in order of preference.
    pub const POOL: &str = "landfall.dev/pool";
    /// Services with the same key may share an address where their ports do not collide.
    pub const SHARING_KEY: &str = "landfall.dev/sharing-key";
    /// Gives an ExternalName Service a companion on the LAN.
    pub const EXPOSE: &str = "landfall.dev/expose";
    /// Keeps the address for this Service's name while it is gone, where the pool allows it.
    pub const RESERVE: &str = "landfall.dev/reserve";
    /// Takes over the addresses that another implementation wrote into the Service's status.
    pub const ADOPT: &str = "landfall.dev/adopt";
    /// `"false"` leaves the nodePorts of a Service with source ranges as they are.
    pub const GUARD_NODE_PORTS: &str = "landfall.dev/guard-node-ports";
    /// `spec.loadBalancerSourceRanges` as an annotation, read where the field is empty.
    pub const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

    /// All of them.
    pub const ALL: [&str; 8] =
        [IPS, POOL, SHARING_KEY, EXPOSE, RESERVE, ADOPT, GUARD_NODE_PORTS, SOURCE_RANGES];

    /// Annotations of other implementations that mean the same as ours, so that a manifest moves over
    /// unchanged.
    pub mod foreign {
        /// Addresses asked for, comma separated: MetalLB and Cilium (both spellings), kube-vip
        /// (metallb controller/service.go, cilium pkg/annotation/k8s.go, kube-vip
        /// pkg/kubevip/annotations.go).
        pub const IPS: [&str; 5] = [
            "metallb.io/loadBalancerIPs",
            "metallb.universe.tf/loadBalancerIPs",
            "lbipam.cilium.io/ips",
            "io.cilium/lb-ipam-ips",
            "kube-vip.io/loadbalancerIPs",
        ];
        /// The one pool asked for: MetalLB, both spellings.
        pub const POOL: [&str; 2] = ["metallb.io/address-pool", "metallb.universe.tf/address-pool"];
        /// A sharing key: MetalLB and Cilium, both spellings.
        pub const SHARING_KEY: [&str; 4] = [
            "metallb.io/allow-shared-ip",
            "metallb.universe.tf/allow-shared-ip",
            "lbipam.cilium.io/sharing-key",
            "io.cilium/lb-ipam-sharing-key",
        ];
    }

    /// What clouds call an internal load balancer (Kubernetes documentation, "Internal load balancer").
    pub mod internal {
        /// Azure.
        pub const AZURE: &str = "service.beta.kubernetes.io/azure-load-balancer-internal";
        /// Google.
        pub const GKE: &str = "networking.gke.io/load-balancer-type";
        /// Google, before 1.17.
        pub const GKE_LEGACY: &str = "cloud.google.com/load-balancer-type";
        /// AWS, the controller in Kubernetes' tree.
        pub const AWS: &str = "service.beta.kubernetes.io/aws-load-balancer-internal";
        /// AWS Load Balancer Controller.
        pub const AWS_SCHEME: &str = "service.beta.kubernetes.io/aws-load-balancer-scheme";
        /// OpenStack.
        pub const OPENSTACK: &str = "service.beta.kubernetes.io/openstack-internal-load-balancer";
        /// IBM.
        pub const IBM: &str = "service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type";
        /// Baidu.
        pub const BAIDU: &str = "service.beta.kubernetes.io/cce-load-balancer-internal-vpc";
        /// Tencent: the id of a subnet.
        pub const TENCENT: &str = "service.kubernetes.io/qcloud-loadbalancer-internal-subnetid";
        /// Alibaba.
        pub const ALIBABA: &str = "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type";
        /// Oracle.
        pub const OCI: &str = "service.beta.kubernetes.io/oci-load-balancer-internal";
        /// Oracle, network load balancers.
        pub const OCI_NETWORK: &str = "oci-network-load-balancer.oraclecloud.com/internal";
        /// All of them.
        pub const ALL: [&str; 12] = [
            AZURE,
            GKE,
            GKE_LEGACY,
            AWS,
            AWS_SCHEME,
            OPENSTACK,
            IBM,
            BAIDU,
            TENCENT,
            ALIBABA,
            OCI,
            OCI_NETWORK,
        ];
    }
}

/// Labels that we read from Nodes.
pub mod labels {
    /// Excludes a node from announcing (k8s.io/api core/v1, well-known).
    pub const EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS: &str =
        "node.kubernetes.io/exclude-from-external-load-balancers";
    /// Names the Service of an EndpointSlice.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
}

/// Condition types.
pub mod conditions {
    /// On a Service: it has the addresses it asked for.
    pub const GRANTED: &str = "landfall.dev/Granted";
    /// On a Service: its addresses are answered on the LAN.
    pub const SERVICE_ANNOUNCED: &str = "landfall.dev/Announced";
    /// On a Service that has source ranges: nobody else gets in.
    pub const GUARDED: &str = "landfall.dev/Guarded";
    /// On a Service that holds an address: another Service lists it in `spec.externalIPs`.
    pub const EXTERNAL_IP_CONFLICT: &str = "landfall.dev/ExternalIPConflict";
    /// On an IPPool: addresses are granted from it. On a Speaker: it can announce.
    pub const READY: &str = "Ready";
    /// On a Speaker: its node has what it needs to serve what it announces.
    pub const FIT: &str = "Fit";
    /// On an IPPool: a family has no address left.
    pub const EXHAUSTED: &str = "Exhausted";
    /// On an IPPool: it overlaps another pool or addresses of the cluster.
    pub const CONFLICTED: &str = "Conflicted";
    /// On an IPPool: no speaker has an interface for some of its addresses.
    pub const UNREACHABLE: &str = "Unreachable";
    /// On a VirtualIP: a node answers for it.
    pub const ANNOUNCED: &str = "Announced";
    /// On a VirtualIP whose Services have source ranges: the node that announces it lets in nobody else.
    pub const ADDRESS_GUARDED: &str = "Guarded";
    /// On a VirtualIP: another station of the LAN uses the address.
    pub const ADDRESS_CONFLICT: &str = "AddressConflict";
}

/// Default ports of our processes on the node's or pod's network.
pub mod ports {
    /// Heartbeats and claims between speakers, UDP.
    pub const SPEAKER_LAN: u16 = 7931;
    /// `/metrics`, `/healthz` and `/readyz` of the speaker, TCP on the node's network.
    pub const SPEAKER_HTTP: u16 = 7932;
    /// `/metrics`, `/healthz` and `/readyz` of the controller, TCP.
    pub const CONTROLLER_HTTP: u16 = 7933;
}
