//! What a Service's claim looks like in the spec of a VirtualIP.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use landfall_crds::address::Family;
use landfall_crds::{
    Announce, Candidate, Claim, ClaimRef, ClaimTerms, Fallback, IPPool, Placement, Port, Protocol,
    TrafficPolicy, VirtualIPSpec,
};

use super::ServiceKey;
use super::internal::asks_for_internal;
use super::request::{Request, sharing_key};
use super::sharing::sharing_of;
use super::source_ranges::has_source_ranges;
use super::wait::{Until, Wait, reasons};
use crate::conditions::whole_seconds;
use crate::world::virtual_ips::{claim_in, is_of};

/// As many ports may be served at one address (`maxItems` of a VirtualIP's `spec.ports`).
pub(super) const MOST_PORTS: usize = 256;

/// What a claim is made from.
#[derive(Clone, Copy, Debug)]
pub struct Claiming<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its name.
    pub key: &'a ServiceKey,
    /// What it asks for; nothing where that is not understood, and then what was recorded stays.
    pub request: Option<&'a Request>,
    /// The family of the address.
    pub family: Family,
    /// Whether the address's pool requires source ranges.
    pub requires_ranges: bool,
    /// By what it names the address's pool, or the one that the address lies in, if it does.
    pub named: Option<&'a str>,
    /// The digest of the Service's guard, if it needs one.
    pub guard: Option<&'a str>,
    /// Whether the address is what is asked for now. While another is sought in its place, or it is
    /// brought back, what it was given for stays on record: by that the wish to switch is known.
    pub settled: bool,
    /// The time, as people read it.
    pub now: Timestamp,
}

impl Claiming<'_> {
    /// The claim of the Service, which may have one already.
    pub fn claim(&self, known: Option<&Claim>) -> Claim {
        let Self { service, key, .. } = *self;
        let spec = service.spec.as_ref();
        let uid = service.metadata.uid.clone().unwrap_or_default();
        let since = match known {
            Some(known) if known.uid == uid => known.since.clone(),
            _ => Some(Time(whole_seconds(self.now))),
        };
        Claim {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid,
            health_check_node_port: spec
                .and_then(|spec| spec.health_check_node_port)
                .filter(|port| *port > 0),
            traffic_policy: traffic_policy(service),
            since,
            sharing: match self.request {
                Some(request) => sharing_of(service, request.sharing_key.as_deref()),
                None => match known {
                    Some(known) => known.sharing.clone(),
                    None => sharing_of(service, sharing_key(service).ok().flatten().as_deref()),
                },
            },
            terms: self.terms(known),
            guard: self.guard.map(str::to_owned),
        }
    }

    /// What the Service is like now, save that source ranges which it has given up while its pool
    /// requires them are remembered, so that the address stays withheld; and that an address which it
    /// is to leave is still the one that it was given. While its request is not understood, what was
    /// recorded stays; where nothing was, it counts as public unless it says otherwise in plain words, so
    /// that it does not come to be internal unseen.
    fn terms(&self, known: Option<&Claim>) -> Option<ClaimTerms> {
        let before = known.and_then(|known| known.terms.as_ref());
        let (internal, named) = match (self.request, before) {
            (Some(request), Some(before)) if !self.settled => {
                // Who names the pool by another word now keeps the address by that one.
                let stands = |text: &&str| !request.internal || request.mentions(text);
                let recorded = before.named.as_deref();
                let named = recorded.filter(stands).or_else(|| recorded.and(self.named)).or(recorded);
                (before.internal, named.map(str::to_owned))
            }
            (Some(request), _) => {
                // What still stands does so whatever has become of the pool.
                let named = before.and_then(|terms| terms.named.as_deref());
                let named = named.filter(|text| request.mentions(text)).or(self.named);
                (request.internal, named.filter(|_| request.internal).map(str::to_owned))
            }
            (None, Some(before)) => return Some(before.clone()),
            (None, None) => (asks_for_internal(self.service).unwrap_or(false), None),
        };
        let had = before.is_some_and(|terms| terms.source_ranges);
        let source_ranges = has_source_ranges(self.service, self.family) || self.requires_ranges && had;
        Some(ClaimTerms { internal, named, source_ranges })
    }
}

/// `spec.externalTrafficPolicy`.
pub fn traffic_policy(service: &Service) -> TrafficPolicy {
    match service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()) {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

/// The ports of a Service.
pub fn ports(service: &Service, key: &ServiceKey) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    ports
        .iter()
        .map(|port| Port {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            port: port.port,
            claim: key.clone(),
            node_port: port.node_port.filter(|port| *port > 0),
        })
        .collect()
}

/// Whether two serve the same port, which the API server would refuse (`x-kubernetes-list-map-keys`).
pub fn has_a_port_twice(spec: &VirtualIPSpec) -> bool {
    let ports: BTreeSet<_> = spec.ports.iter().map(|port| (port.protocol, port.port)).collect();
    ports.len() < spec.ports.len()
}

/// Why a Service with more ports than a VirtualIP can hold is given no address; nothing for all others.
pub(super) fn too_many_ports(service: &Service) -> Option<Wait> {
    let number = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).map_or(0, Vec::len);
    (number > MOST_PORTS).then(|| {
        let message = format!(
            "the Service has {number} ports, and at most {MOST_PORTS} are served at one address: split it into several"
        );
        Wait::new(reasons::TOO_MANY_PORTS, message, Until::Edited)
    })
}

/// The ports that stand in a VirtualIP for the Service. Where there are more than it can hold, what stood there
/// before stays, so that all else can still be written.
fn ports_on_record(service: &Service, key: &ServiceKey, before: &[Port]) -> Vec<Port> {
    let mut all = ports(service, key);
    if all.len() > MOST_PORTS {
        let known = before.iter().filter(|port| port.claim == *key).cloned().collect::<Vec<_>>();
        match known.is_empty() {
            true => all.truncate(MOST_PORTS),
            false => return known,
        }
    }
    all
}

/// Where a pool wants its addresses announced.
pub fn announce(pool: &IPPool) -> Option<Announce> {
    let interfaces = pool.spec.announce.as_ref().map(|announce| announce.interfaces.clone())?;
    (!interfaces.is_empty()).then_some(Announce { interfaces, fallback: Fallback::None })
}

/// What a VirtualIP should say, to be compared with what it says. Its order of nodes is long and stands
/// most of the time, so that it is not copied before something has changed.
#[derive(Debug)]
pub struct Draft<'a> {
    /// All but the placement.
    pub spec: VirtualIPSpec,
    /// The epoch of the placement.
    pub epoch: i64,
    /// The nodes that may announce, best first.
    pub candidates: Cow<'a, [Candidate]>,
}

impl Draft<'_> {
    /// Whether the spec says all of it already.
    pub fn is(&self, known: &VirtualIPSpec) -> bool {
        let VirtualIPSpec { address, pool, claims, ports, placement, announce, reservation } = known;
        self.spec.address == *address
            && self.spec.pool == *pool
            && self.spec.claims == *claims
            && self.spec.ports == *ports
            && self.spec.announce == *announce
            && self.spec.reservation == *reservation
            && placement
                .as_ref()
                .is_some_and(|known| known.epoch == self.epoch && known.candidates == *self.candidates)
    }

    /// The whole spec.
    pub fn into_spec(self) -> VirtualIPSpec {
        let placement = Placement { epoch: self.epoch, candidates: self.candidates.into_owned() };
        VirtualIPSpec { placement: Some(placement), ..self.spec }
    }
}

/// The address, the claims and the ports of a VirtualIP with the Service's claim as it is now; other claims
/// stay.
pub fn with_claim(
    current: Option<&VirtualIPSpec>,
    address: IpAddr,
    claiming: &Claiming<'_>,
) -> VirtualIPSpec {
    let key = claiming.key;
    let known = current.map(|spec| spec.claims.as_slice()).unwrap_or_default();
    let mut claims: Vec<Claim> = known.iter().filter(|claim| !is_of(claim, key)).cloned().collect();
    let place = known.iter().position(|claim| is_of(claim, key)).unwrap_or(claims.len());
    claims.insert(place, claiming.claim(claim_in(known, key)));
    // Ports keep the place of their claim, so that Services on one address agree on the order.
    let before = current.map(|spec| spec.ports.as_slice()).unwrap_or_default();
    let mut all: Vec<Port> = before.iter().filter(|port| port.claim != *key).cloned().collect();
    all.extend(ports_on_record(claiming.service, key, before));
    all.sort_by_key(|port| claims.iter().position(|claim| is_of(claim, &port.claim)));
    VirtualIPSpec { address: address.to_string(), claims, ports: all, ..VirtualIPSpec::default() }
}

/// The spec of a VirtualIP without the Service's claim. Placement stays, for its epoch.
pub fn without_claim(current: &VirtualIPSpec, key: &ClaimRef) -> VirtualIPSpec {
    let mut spec = current.clone();
    spec.claims.retain(|claim| !is_of(claim, key));
    spec.ports.retain(|port| port.claim != *key);
    spec
}
