//! What is asked for: who serves what at an address, and who may come in to a Service.

use std::fmt;
use std::sync::Arc;

use landfall_crds::{Protocol, ServiceGuard, VirtualIP};

use super::sources::{NotARange, Sources};

/// A Service's namespace and name, as `shop/web`; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Of a Service in a namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The namespace and the name.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

impl From<&str> for ServiceName {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A port with its transport protocol: of an address, or of the node (a nodePort).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{protocol}/{}", self.number)
    }
}

/// A Service that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The Service.
    pub service: ServiceName,
    /// The digest of the guard that must be in the kernel before the address is announced, where the Service
    /// has source ranges.
    pub guard: Option<Arc<str>>,
}

/// Who serves what at one address, as its VirtualIP tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    claims: Vec<Claim>,
    /// Each with the place of its claim.
    ports: Vec<(Port, usize)>,
    asks: Option<Arc<str>>,
}

impl Frontend {
    /// From the claims, and the ports with the Services that serve them. A port of a Service that holds no
    /// claim is left out: nobody serves it.
    pub fn new(claims: Vec<Claim>, ports: impl IntoIterator<Item = (Port, ServiceName)>) -> Self {
        let place = |service: &ServiceName| claims.iter().position(|claim| claim.service == *service);
        let mut ports: Vec<_> =
            ports.into_iter().filter_map(|(port, service)| Some((port, place(&service)?))).collect();
        ports.sort_unstable();
        ports.dedup_by_key(|(port, _)| *port);
        let mut digests: Vec<_> = claims.iter().filter_map(|claim| claim.guard.as_deref()).collect();
        digests.sort_unstable();
        let asks = (!digests.is_empty()).then(|| digests.join("+").into());
        Self { claims, ports, asks }
    }

    /// From the object.
    pub fn of(object: &VirtualIP) -> Self {
        let spec = &object.spec;
        let claims = spec.claims.iter().map(|claim| Claim {
            service: ServiceName::new(&claim.namespace, &claim.name),
            guard: claim.guard.as_deref().map(Into::into),
        });
        let ports = spec.ports.iter().filter_map(|port| {
            let number = port.port.try_into().ok().filter(|number| *number > 0)?;
            let service = ServiceName::new(&port.claim.namespace, &port.claim.name);
            Some((Port { protocol: port.protocol, number }, service))
        });
        Self::new(claims.collect(), ports)
    }

    /// The Services that hold the address. Without any, nobody has a say in it.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// The ports that are served, in order, each with its claim.
    pub fn ports(&self) -> impl Iterator<Item = (Port, &Claim)> {
        self.ports.iter().filter_map(|(port, place)| Some((*port, self.claims.get(*place)?)))
    }

    /// Who serves a port.
    pub fn server(&self, port: Port) -> Option<&Claim> {
        self.ports().find(|(served, _)| *served == port).map(|(_, claim)| claim)
    }

    /// Names the guards that must be in the kernel before the address is announced; nothing where it may be
    /// announced without. It differs as soon as one of them does.
    pub fn asks(&self) -> Option<&Arc<str>> {
        self.asks.as_ref()
    }
}

/// Who may come in to one Service, as its ServiceGuard tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// The uid of its object.
    pub uid: String,
    /// Names all that it enforces; see [`landfall_crds::ServiceGuardSpec::digest`].
    pub digest: String,
    /// Digests that it had before, the latest last: claims that name one of them ask for no more than this.
    pub former: Vec<String>,
    /// Who is let in.
    pub sources: Sources,
    /// The same as a person wrote it.
    pub ranges: Vec<String>,
    /// The nodePorts that are guarded as well.
    pub node_ports: Vec<Port>,
    /// Why nobody is let in, where that is not what the Service says.
    pub closed: Option<String>,
}

/// So many former digests are remembered: claims follow within seconds.
const FORMER: usize = 8;

impl Guard {
    /// From the object. One that cannot be read lets nobody in.
    pub fn of(object: &ServiceGuard) -> Self {
        let spec = &object.spec;
        let ranges: Vec<String> = spec.admitted().map(str::to_owned).collect();
        let (sources, closed) = match Sources::parse(ranges.iter().map(String::as_str)) {
            Ok(sources) => (sources, spec.closed.as_ref().map(|closed| closed.message.clone())),
            Err(error) => (Sources::default(), Some(NotARange::to_string(&error))),
        };
        let node_ports = spec.ports.iter().filter_map(|port| {
            let number = port.node_port?.try_into().ok().filter(|number| *number > 0)?;
            Some(Port { protocol: port.protocol, number })
        });
        let mut node_ports: Vec<_> = node_ports.collect();
        node_ports.sort_unstable();
        node_ports.dedup();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        Self { uid, digest: spec.digest(), former: Vec::new(), sources, ranges, node_ports, closed }
    }

    /// The Service that an object guards.
    pub fn service(object: &ServiceGuard) -> ServiceName {
        ServiceName::new(&object.spec.service.namespace, &object.spec.service.name)
    }

    /// Whether this is what a claim asks for, or newer.
    pub fn is_at_least(&self, digest: &str) -> bool {
        self.digest == digest || self.former.iter().any(|former| former == digest)
    }

    /// Takes the place of another.
    pub fn succeed(&mut self, other: &Self) {
        let mut former = other.former.clone();
        if other.digest != self.digest {
            former.push(other.digest.clone());
        }
        former.retain(|digest| *digest != self.digest);
        former.drain(..former.len().saturating_sub(FORMER));
        self.former = former;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn port(number: u16) -> Port {
        Port { protocol: Protocol::Tcp, number }
    }

    #[test]
    fn an_object_is_read_as_claims_and_their_ports() {
        let object: VirtualIP = serde_json::from_value(json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "VirtualIP", "metadata": {"name": "192.168.10.50"},
            "spec": {
                "address": "192.168.10.50",
                "claims": [
                    {"namespace": "shop", "name": "web", "uid": "u1", "guard": "b"},
                    {"namespace": "shop", "name": "api", "uid": "u2", "guard": "a"},
                    {"namespace": "shop", "name": "open", "uid": "u3"},
                ],
                "ports": [
                    {"protocol": "TCP", "port": 443, "claim": {"namespace": "shop", "name": "web"}},
                    {"protocol": "TCP", "port": 80, "claim": {"namespace": "shop", "name": "open"}},
                    {"protocol": "TCP", "port": 81, "claim": {"namespace": "shop", "name": "gone"}},
                ],
            },
        }))
        .unwrap();
        let frontend = Frontend::of(&object);
        let ports: Vec<_> = frontend.ports().map(|(port, claim)| (port, claim.service.to_string())).collect();
        assert_eq!(ports, [(port(80), "shop/open".to_owned()), (port(443), "shop/web".to_owned())]);
        assert_eq!(frontend.asks().map(|asks| &**asks), Some("a+b"));
        assert_eq!(frontend.server(port(81)), None);
    }

    fn guard_object(spec: serde_json::Value) -> ServiceGuard {
        serde_json::from_value(json!({
            "apiVersion": "landfall.dev/v1alpha1", "kind": "ServiceGuard",
            "metadata": {"name": "shop.web"}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn a_guard_is_read_with_its_ranges_and_node_ports() {
        let object = guard_object(json!({
            "service": {"namespace": "shop", "name": "web", "uid": "u1"},
            "sources": {"ipv4": ["10.0.0.0/8"], "ipv6": ["fd00::/8"]},
            "ports": [{"protocol": "TCP", "port": 80, "nodePort": 30080}, {"protocol": "UDP", "port": 53}],
        }));
        let guard = Guard::of(&object);
        assert_eq!(Guard::service(&object).parts(), ("shop", "web"));
        assert_eq!(guard.node_ports, [port(30080)]);
        assert_eq!(guard.sources, Sources::parse(["10.0.0.0/8", "fd00::/8"]).unwrap());
        assert_eq!((guard.digest, guard.closed), (object.spec.digest(), None));
    }

    #[test]
    fn a_guard_that_is_closed_or_cannot_be_read_lets_nobody_in() {
        let service = json!({"namespace": "shop", "name": "web", "uid": "u1"});
        let closed = Guard::of(&guard_object(json!({
            "service": service, "sources": {"ipv4": ["10.0.0.0/8"]},
            "closed": {"reason": "TooManySourceRanges", "message": "1001 ranges"},
        })));
        assert!(closed.sources.is_empty());
        assert_eq!(closed.closed.as_deref(), Some("1001 ranges"));
        let junk = Guard::of(&guard_object(json!({
            "service": service, "sources": {"ipv4": ["10.0.0.0/8", "10.0.0.0/99"]},
        })));
        assert!(junk.sources.is_empty());
        assert_eq!(
            junk.closed.as_deref(),
            Some("'10.0.0.0/99' is not a range such as 10.0.0.0/8 or fd00::/8")
        );
    }

    #[test]
    fn a_claim_that_names_a_former_guard_asks_for_no_more_than_the_present_one() {
        let guard = |digest: &str| Guard { digest: digest.to_owned(), ..Guard::default() };
        let mut latest = guard("d0");
        for n in 1..=20 {
            let mut next = guard(&format!("d{n}"));
            next.succeed(&latest);
            latest = next;
        }
        assert!(latest.is_at_least("d20") && latest.is_at_least("d12"));
        assert!(!latest.is_at_least("d11") && !latest.is_at_least("d21"));
        let mut back = guard("d15");
        back.succeed(&latest);
        assert_eq!(back.former.iter().filter(|digest| *digest == "d15").count(), 0);
        assert!(back.is_at_least("d20"));
        let mut same = guard("d15");
        same.succeed(&back);
        assert_eq!(same, back);
    }
}
