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
    /// Services with the same key may share an address.
    pub const SHARING_KEY: &str = "landfall.dev/sharing-key";
    /// Gives an ExternalName Service a companion on the LAN.
    pub const EXPOSE: &str = "landfall.dev/expose";
    /// Keeps the address for this Service's name after it is deleted.
    pub const RESERVE: &str = "landfall.dev/reserve";
    /// Takes over the addresses that another implementation wrote into the Service's status.
    pub const ADOPT: &str = "landfall.dev/adopt";
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
    /// On an IPPool: addresses are granted from it. On a Speaker: it can announce.
    pub const READY: &str = "Ready";
    /// On an IPPool: a family has no address left.
    pub const EXHAUSTED: &str = "Exhausted";
    /// On an IPPool: it overlaps another pool or addresses of the cluster.
    pub const CONFLICTED: &str = "Conflicted";
    /// On an IPPool: no speaker has an interface for some of its addresses.
    pub const UNREACHABLE: &str = "Unreachable";
    /// On a VirtualIP: a node answers for it.
    pub const ANNOUNCED: &str = "Announced";
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
