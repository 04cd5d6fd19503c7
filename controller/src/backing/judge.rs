//! What is wrong with what stands behind a Service, and what to do about it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use landfall_crds::address::Family;
use landfall_crds::names::conditions::{MANUAL_ENDPOINTS, MIXED_ENDPOINTS};
use landfall_crds::names::labels;

use super::slices::{Facts, Maker};
use crate::conditions::Wanted;
use crate::granting::wait::some_of;

/// The condition types that are ours to say of what stands behind a Service.
pub const OURS: [&str; 2] = [MIXED_ENDPOINTS, MANUAL_ENDPOINTS];

/// So many slices, ports or addresses are named.
const MOST: usize = 4;

/// Reasons of `landfall.dev/MixedEndpoints` and `landfall.dev/ManualEndpoints`.
pub mod reasons {
    /// Connections go to the endpoints of several makers.
    pub const MIXED_ENDPOINTS: &str = "MixedEndpoints";
    /// What stands behind a Service without a selector can be used.
    pub const USABLE: &str = "Usable";
    /// A Service without a selector has no EndpointSlice.
    pub const NO_SLICE: &str = "NoSlice";
    /// It has those that were made for a selector that it had.
    pub const LEFT_OVER: &str = "LeftOver";
    /// An endpoint is an address of a Service of the cluster.
    pub const CLUSTER_IP_ENDPOINT: &str = "ClusterIPEndpoint";
    /// A port of the Service has no port of that name in its slices.
    pub const PORT_NAME_MISMATCH: &str = "PortNameMismatch";
    /// The traffic policy is Local, and no endpoint is on a node.
    pub const LOCAL_POLICY: &str = "LocalPolicy";
    /// No endpoint is ready.
    pub const NO_READY_ENDPOINT: &str = "NoReadyEndpoint";

    /// All of `landfall.dev/ManualEndpoints`.
    pub const OF_MANUAL_ENDPOINTS: [&str; 7] = [
        USABLE,
        NO_SLICE,
        LEFT_OVER,
        CLUSTER_IP_ENDPOINT,
        PORT_NAME_MISMATCH,
        LOCAL_POLICY,
        NO_READY_ENDPOINT,
    ];
}

/// Judges what stands behind a load balancer. `is_cluster_ip` says whether an address is one that the cluster gives
/// to Services.
pub fn judge(service: &Service, slices: &[&Facts], is_cluster_ip: impl Fn(IpAddr) -> bool) -> Vec<Wanted> {
    let Some(spec) = &service.spec else { return Vec::new() };
    // An empty one says that there is one, which nobody reads.
    let has_selector = spec.selector.is_some();
    let makers = makers(slices);
    let mixed = (makers.len() > 1).then(|| mixed(service, has_selector, slices, &makers));
    let manual = (!has_selector).then(|| manual(service, spec, slices, is_cluster_ip));
    mixed.into_iter().chain(manual).collect()
}

/// Those whose slices have endpoints.
fn makers(slices: &[&Facts]) -> BTreeSet<Maker> {
    slices.iter().filter(|slice| slice.has_endpoint).map(|slice| slice.maker).collect()
}

fn mixed(service: &Service, has_selector: bool, slices: &[&Facts], makers: &BTreeSet<Maker>) -> Wanted {
    // What stays: what Kubernetes makes where there is a selector, else what somebody wrote.
    let keep = match has_selector {
        true => Maker::Selector,
        false => makers.last().copied().unwrap_or(Maker::Hand),
    };
    let (kept, others) = match keep {
        Maker::Selector => ("the pods of its selector", "what somebody wrote"),
        Maker::Mirroring => ("its Endpoints object", "pods that a former selector selected"),
        Maker::Hand => ("the EndpointSlices that somebody wrote", "what is left over"),
    };
    let away = makers.iter().filter(|maker| **maker != keep);
    let commands = away.map(|maker| delete(service, *maker, slices)).collect::<Vec<_>>().join(" && ");
    let message =
        format!("connections go to {kept} and to {others} alike: if the former are meant, run {commands}");
    Wanted::new(MIXED_ENDPOINTS, true, reasons::MIXED_ENDPOINTS, message)
}

/// The command that takes away what a maker has made for the Service.
fn delete(service: &Service, maker: Maker, slices: &[&Facts]) -> String {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    match maker {
        Maker::Selector => format!(
            "kubectl -n {namespace} delete endpointslices -l {}={name},{}=endpointslice-controller.k8s.io",
            labels::SERVICE_NAME,
            labels::MANAGED_BY
        ),
        Maker::Mirroring => format!("kubectl -n {namespace} delete endpoints {name}"),
        Maker::Hand => {
            let names = slices.iter().filter(|slice| slice.maker == maker && slice.has_endpoint);
            let names = names.map(|slice| slice.name.as_str()).collect::<Vec<_>>().join(" ");
            format!("kubectl -n {namespace} delete endpointslices {names}")
        }
    }
}

fn manual(
    service: &Service,
    spec: &ServiceSpec,
    slices: &[&Facts],
    is_cluster_ip: impl Fn(IpAddr) -> bool,
) -> Wanted {
    let bad = |reason, message: String| Wanted::new(MANUAL_ENDPOINTS, false, reason, message);
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let written: Vec<&Facts> =
        slices.iter().copied().filter(|slice| slice.maker != Maker::Selector).collect();
    if written.is_empty() {
        if slices.iter().any(|slice| slice.has_endpoint) {
            let command = delete(service, Maker::Selector, slices);
            let message = format!(
                "the Service has no selector any more, and connections go to the pods of the one it had, which nobody \
                 keeps up to date: write an EndpointSlice with label {}={name}, then run {command}",
                labels::SERVICE_NAME
            );
            return bad(reasons::LEFT_OVER, message);
        }
        let message = format!(
            "the Service has no selector and no EndpointSlice: write one with label {}={name}",
            labels::SERVICE_NAME
        );
        return bad(reasons::NO_SLICE, message);
    }
    let families = spec.ip_families.iter().flatten().filter_map(|family| match family.as_str() {
        "IPv4" => Some(Family::IPv4),
        "IPv6" => Some(Family::IPv6),
        _ => None,
    });
    let families: Vec<Family> = families.collect();
    let of_family: Vec<&Facts> =
        written.into_iter().filter(|slice| families.is_empty() || families.contains(&slice.family)).collect();
    if of_family.is_empty() {
        let message = format!(
            "the Service is of {}, and none of its EndpointSlices is: write one of that addressType",
            some_of(&families, MOST)
        );
        return bad(reasons::NO_SLICE, message);
    }
    let inside =
        of_family.iter().flat_map(|slice| &slice.addresses).filter(|address| is_cluster_ip(**address));
    let inside: BTreeSet<&IpAddr> = inside.collect();
    if !inside.is_empty() {
        let message = format!(
            "{} cannot be an endpoint, since it is a ClusterIP, which kube-proxy leads nowhere from here: write the \
             addresses behind that Service, or have clients use its name",
            some_of(inside, MOST)
        );
        return bad(reasons::CLUSTER_IP_ENDPOINT, message);
    }
    let theirs: BTreeSet<&str> =
        of_family.iter().flat_map(|slice| &slice.ports).map(String::as_str).collect();
    let ours = spec.ports.iter().flatten().map(|port| port.name.as_deref().unwrap_or_default());
    let quoted = |names: &mut dyn Iterator<Item = &str>| {
        some_of(
            names.map(
                |name| if name.is_empty() { "one without a name".to_owned() } else { format!("'{name}'") },
            ),
            MOST,
        )
    };
    let missing: Vec<&str> = ours.filter(|port| !theirs.contains(port)).collect();
    if !missing.is_empty() {
        let message = format!(
            "of the ports of the Service {} is in none of its EndpointSlices, which have {}: ports are matched by \
             their names, so write the same names there",
            quoted(&mut missing.into_iter()),
            if theirs.is_empty() { "no port".to_owned() } else { quoted(&mut theirs.into_iter()) },
        );
        return bad(reasons::PORT_NAME_MISMATCH, message);
    }
    let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
    if is_local && !of_family.iter().any(|slice| slice.is_on_a_node) {
        let message = "externalTrafficPolicy is Local, and no endpoint is on a node, so that none takes connections: \
                       set it to Cluster";
        return bad(reasons::LOCAL_POLICY, message.to_owned());
    }
    if !of_family.iter().any(|slice| slice.is_ready) {
        let message = "no endpoint is ready: set conditions.ready of the endpoints that are, or leave it out";
        return bad(reasons::NO_READY_ENDPOINT, message.to_owned());
    }
    let addresses: BTreeSet<&IpAddr> = of_family.iter().flat_map(|slice| &slice.addresses).collect();
    Wanted::new(
        MANUAL_ENDPOINTS,
        true,
        reasons::USABLE,
        format!("connections go to {}", some_of(addresses, MOST)),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use landfall_crds::ClaimRef;
    use serde_json::{Value, json};

    use super::super::slices::Slices;
    use super::*;

    fn said(spec: Value, slices: &[Value]) -> Vec<(String, String)> {
        let service: Service =
            serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "db"}, "spec": spec}))
                .unwrap();
        let mut known = Slices::default();
        for slice in slices {
            let slice: EndpointSlice = serde_json::from_value(slice.clone()).unwrap();
            known.put(&slice);
        }
        let key = ClaimRef { namespace: "shop".into(), name: "db".into() };
        let of: Vec<&Facts> = known.of(&key).collect();
        let is_cluster_ip = |address: IpAddr| address.to_string().starts_with("10.96.");
        let told = judge(&service, &of, is_cluster_ip).into_iter();
        told.map(|wanted| (format!("{}/{}", wanted.status, wanted.reason), wanted.message)).collect()
    }

    /// A slice of this name and maker, with these endpoints, and with a port of the name `db`.
    fn slice(name: &str, maker: &str, endpoints: Value) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name,
                "labels": {"kubernetes.io/service-name": "db", "endpointslice.kubernetes.io/managed-by": maker}},
            "addressType": "IPv4", "ports": [{"name": "db", "port": 5432}], "endpoints": endpoints})
    }

    fn hand() -> Value {
        slice("db-1", "people", json!([{"addresses": ["192.0.2.7"]}]))
    }

    fn pods() -> Value {
        let pods = json!([{"addresses": ["10.1.0.1"], "nodeName": "n1", "conditions": {"ready": true}}]);
        slice("db-x7f", "endpointslice-controller.k8s.io", pods)
    }

    fn mirrored() -> Value {
        slice("db-m", "endpointslicemirroring-controller.k8s.io", json!([{"addresses": ["192.0.2.8"]}]))
    }

    fn ports() -> Value {
        json!([{"name": "db", "port": 5432}])
    }

    fn selected() -> Value {
        json!({"type": "LoadBalancer", "selector": {}, "ports": ports()})
    }

    fn by_hand() -> Value {
        json!({"type": "LoadBalancer", "ports": ports()})
    }

    #[test]
    fn of_an_ordinary_service_nothing_is_said() {
        assert_eq!(said(selected(), &[pods()]), []);
        assert_eq!(said(selected(), &[]), []);
        let none = slice("db-1", "people", json!([]));
        assert_eq!(said(selected(), &[pods(), none]), [], "a slice without endpoints does no harm");
    }

    #[test]
    fn endpoints_of_two_makers_are_told_with_the_command_to_run() {
        let mixed = said(selected(), &[pods(), hand()]);
        assert_eq!(mixed[0].0, "True/MixedEndpoints");
        assert!(mixed[0].1.ends_with("run kubectl -n shop delete endpointslices db-1"), "{mixed:?}");
        assert_eq!(mixed.len(), 1);
        let mixed = said(by_hand(), &[pods(), hand()]);
        let command = "run kubectl -n shop delete endpointslices -l kubernetes.io/service-name=db,\
                       endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io";
        assert!(mixed[0].1.ends_with(command), "{mixed:?}");
        assert_eq!(mixed[1].0, "True/Usable");
        let mixed = said(by_hand(), &[mirrored(), hand()]);
        assert!(mixed[0].1.ends_with("run kubectl -n shop delete endpoints db"), "{mixed:?}");
        let mixed = said(by_hand(), &[mirrored(), pods()]);
        assert!(mixed[0].1.ends_with(command), "{mixed:?}");
    }

    #[test]
    fn each_trap_of_a_service_without_a_selector_has_its_reason() {
        let with = |change: Value| {
            let mut spec = by_hand();
            for (key, value) in change.as_object().unwrap() {
                spec[key] = value.clone();
            }
            spec
        };
        let unnamed = json!({"ports": [{"port": 5432}]});
        let not_ready =
            slice("db-1", "people", json!([{"addresses": ["192.0.2.7"], "conditions": {"ready": false}}]));
        let cluster_ip = slice("db-1", "people", json!([{"addresses": ["10.96.0.7"]}]));
        let on_node = slice("db-1", "people", json!([{"addresses": ["192.0.2.7"], "nodeName": "n1"}]));
        let local = || with(json!({"externalTrafficPolicy": "Local"}));
        let table: Vec<(Value, Vec<Value>, &str, &str)> = vec![
            (by_hand(), vec![hand()], "True/Usable", "connections go to 192.0.2.7"),
            (by_hand(), vec![mirrored()], "True/Usable", "192.0.2.8"),
            (by_hand(), vec![], "False/NoSlice", "with label kubernetes.io/service-name=db"),
            (with(json!({"ipFamilies": ["IPv6"]})), vec![hand()], "False/NoSlice", "is of IPv6"),
            (by_hand(), vec![pods()], "False/LeftOver", "nobody keeps up to date"),
            (by_hand(), vec![cluster_ip], "False/ClusterIPEndpoint", "10.96.0.7 cannot be an endpoint"),
            (
                with(unnamed),
                vec![hand()],
                "False/PortNameMismatch",
                "one without a name is in none of its EndpointSlices, which have 'db'",
            ),
            (local(), vec![hand()], "False/LocalPolicy", "set it to Cluster"),
            (local(), vec![on_node], "True/Usable", ""),
            (by_hand(), vec![not_ready], "False/NoReadyEndpoint", "conditions.ready"),
        ];
        for (spec, slices, expected, words) in table {
            let told = said(spec, &slices);
            let (reason, message) = told.last().unwrap();
            assert!(reason == expected && message.contains(words), "{expected}: {told:?}");
            assert!(reasons::OF_MANUAL_ENDPOINTS.contains(&expected.split_once('/').unwrap().1));
        }
    }
}
