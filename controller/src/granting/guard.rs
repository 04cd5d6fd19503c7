//! What the ServiceGuard of a Service says, and what its owner is told of it.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::Family;
use landfall_crds::names::annotations;
use landfall_crds::names::conditions::GUARDED;
use landfall_crds::{ClosedReason, GuardedPort, GuardedService, ServiceGuardSpec, Sources};

use super::ServiceKey;
use super::claim::{MOST_PORTS, ports};
use super::request::{annotation, families};
use super::source_ranges::{Limits, limits};
use super::wait::{quoted, some_of};
use crate::conditions::Wanted;

/// So many ranges are named in one message.
const MOST_NAMED: usize = 4;

/// Reasons of the condition `landfall.dev/Guarded`.
pub mod reasons {
    /// Nobody gets in but from the source ranges.
    pub const GUARDED: &str = "Guarded";
    /// So too, and no range is of one of the Service's families, so that nobody gets in over that.
    pub const FAMILY_CLOSED: &str = "FamilyClosed";
    /// An entry is no range, so that nobody gets in.
    pub const INVALID_SOURCE_RANGE: &str = "InvalidSourceRange";
    /// There are more ranges than are enforced, so that nobody gets in.
    pub const TOO_MANY_SOURCE_RANGES: &str = "TooManySourceRanges";
    /// There are more ports than can be guarded; the nodePorts of the rest are open.
    pub const TOO_MANY_PORTS: &str = "TooManyPorts";
    /// The annotation on nodePorts is not understood; they are guarded.
    pub const ANNOTATION_INVALID: &str = "AnnotationInvalid";
    /// The API server refuses the ServiceGuard.
    pub const WRITE_REFUSED: &str = "WriteRefused";

    /// All of them.
    pub const ALL: [&str; 7] = [
        GUARDED,
        FAMILY_CLOSED,
        INVALID_SOURCE_RANGE,
        TOO_MANY_SOURCE_RANGES,
        TOO_MANY_PORTS,
        ANNOTATION_INVALID,
        WRITE_REFUSED,
    ];
}

/// The guard that a Service has to have, if it has source ranges.
pub fn guard_of(service: &Service, key: &ServiceKey) -> Option<ServiceGuardSpec> {
    let (sources, closed) = match limits(service) {
        Limits::None => return None,
        Limits::Ranges(ranges) => (ranges.sources(), None),
        Limits::Closed(closed) => (Sources::default(), Some(closed)),
    };
    let spares_node_ports = annotation(service, annotations::GUARD_NODE_PORTS) == Some("false");
    let guarded = ports(service, key).into_iter().take(MOST_PORTS).map(|port| GuardedPort {
        protocol: port.protocol,
        port: port.port,
        node_port: port.node_port.filter(|_| !spares_node_ports),
    });
    Some(ServiceGuardSpec {
        service: GuardedService {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: service.metadata.uid.clone().unwrap_or_default(),
        },
        sources,
        ports: guarded.collect(),
        closed,
    })
}

/// `landfall.dev/Guarded`. `refused` is what the API server says where it refuses the guard.
pub fn guarded(service: &Service, guard: &ServiceGuardSpec, refused: Option<&str>) -> Wanted {
    if let Some(said) = refused {
        let message = format!(
            "the API server refuses to let the Service be guarded, so it is given no address: {said}"
        );
        return Wanted::new(GUARDED, false, reasons::WRITE_REFUSED, message);
    }
    if let Some(closed) = &guard.closed {
        let reason = match closed.reason {
            ClosedReason::InvalidSourceRange => reasons::INVALID_SOURCE_RANGE,
            ClosedReason::TooManySourceRanges => reasons::TOO_MANY_SOURCE_RANGES,
        };
        return Wanted::new(GUARDED, false, reason, closed.message.clone());
    }
    let number = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).map_or(0, Vec::len);
    if number > MOST_PORTS {
        let message = format!(
            "the Service has {number} ports, and at most {MOST_PORTS} are guarded, so everybody may connect to the \
             nodePorts of the others: split it into several"
        );
        return Wanted::new(GUARDED, false, reasons::TOO_MANY_PORTS, message);
    }
    let all = guard.sources.ipv4.iter().chain(&guard.sources.ipv6);
    let allowed = format!("only {} may connect{}", some_of(all, MOST_NAMED), node_ports(service));
    match annotation(service, annotations::GUARD_NODE_PORTS) {
        None | Some("true" | "false") => {}
        Some(other) => {
            let message = format!(
                "{} says {}: write 'true' or 'false'; until then {allowed}",
                annotations::GUARD_NODE_PORTS,
                quoted(other)
            );
            return Wanted::new(GUARDED, false, reasons::ANNOTATION_INVALID, message);
        }
    }
    let is_closed = |family: &Family| match family {
        Family::IPv4 => guard.sources.ipv4.is_empty(),
        Family::IPv6 => guard.sources.ipv6.is_empty(),
    };
    match families(service).into_iter().find(is_closed) {
        None => Wanted::new(GUARDED, true, reasons::GUARDED, allowed),
        Some(family) => {
            let everybody = match family {
                Family::IPv4 => "0.0.0.0/0",
                Family::IPv6 => "::/0",
            };
            let message = format!(
                "{allowed}; nobody over {family}, of which there is no range: add some if that is not meant, \
                 {everybody} for everybody"
            );
            Wanted::new(GUARDED, true, reasons::FAMILY_CLOSED, message)
        }
    }
}

/// What holds for the nodePorts, to end a sentence.
fn node_ports(service: &Service) -> &'static str {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let has_some = ports.filter_map(|port| port.node_port).any(|port| port > 0);
    match (has_some, annotation(service, annotations::GUARD_NODE_PORTS)) {
        (false, _) => "",
        (true, Some("false")) => ", but everybody to the nodePorts (landfall.dev/guard-node-ports)",
        (true, _) => ", to the nodePorts too",
    }
}
