//! What an ExternalName Service asks for by its annotations.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use landfall_crds::names::annotations::{EXPOSE, IPS, POOL, PORTS, SHARING_KEY, SOURCE_RANGES};

use crate::external_name::cluster::external_name;
use crate::granting::request::annotation;

/// So many ports an EndpointSlice may have (k8s.io/kubernetes pkg/apis/discovery/validation).
const MOST_PORTS: usize = 100;
/// The annotations that a companion has from its Service.
pub const CARRIED: [&str; 3] = [POOL, IPS, SHARING_KEY];

/// A port of the companion, and the one that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExposedPort {
    /// The port that clients use.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// The port of the target.
    pub target: u16,
}

impl ExposedPort {
    /// The name of the port, the same in the companion and its slices.
    pub fn name(&self) -> String {
        format!("{}-{}", self.protocol.to_lowercase(), self.port)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The ports, in their order.
    pub ports: Vec<ExposedPort>,
    /// Who may connect; empty means everybody.
    pub source_ranges: Vec<String>,
    /// Annotations for the companion.
    pub annotations: BTreeMap<String, String>,
}

/// Why a request cannot be read. The variant's name is the reason of the condition `landfall.dev/Exposed`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The ports.
    #[error(
        "{PORTS} {0}: write the ports that clients use, for example 5432, or 6543:5432/TCP to lead to another port"
    )]
    PortsInvalid(String),
    /// The source ranges.
    #[error("{SOURCE_RANGES} has '{0}', which is no range: write for example 10.0.0.0/8")]
    SourceRangesInvalid(String),
}

impl RequestError {
    /// CamelCase, one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PortsInvalid(_) => "PortsInvalid",
            Self::SourceRangesInvalid(_) => "SourceRangesInvalid",
        }
    }
}

/// Whether the Service asks to be exposed.
pub fn is_asked_for(service: &Service) -> bool {
    external_name(service).is_some()
        && service.metadata.deletion_timestamp.is_none()
        && annotation(service, EXPOSE) == Some("true")
}

/// Reads what it asks for.
///
/// # Errors
/// An annotation is missing or not understood.
pub fn read(service: &Service) -> Result<Request, RequestError> {
    let carried =
        CARRIED.iter().filter_map(|key| Some(((*key).to_owned(), annotation(service, key)?.to_owned())));
    let texts = annotation(service, SOURCE_RANGES).unwrap_or_default();
    let texts = texts.split(',').map(str::trim).filter(|text| !text.is_empty());
    let range = |text: &str| match text.parse::<IpNet>() {
        // As the API server keeps them, so that they compare equal.
        Ok(range) => Ok(range.trunc().to_string()),
        Err(_) => Err(RequestError::SourceRangesInvalid(text.to_owned())),
    };
    Ok(Request {
        ports: ports(annotation(service, PORTS))?,
        source_ranges: texts.map(range).collect::<Result<_, _>>()?,
        annotations: carried.collect(),
    })
}

fn ports(text: Option<&str>) -> Result<Vec<ExposedPort>, RequestError> {
    let invalid = |what: String| RequestError::PortsInvalid(what);
    let text = text.ok_or_else(|| invalid("is missing".to_owned()))?;
    let all = text.split(',').map(|entry| {
        let entry = entry.trim();
        port(entry).ok_or_else(|| invalid(format!("has '{entry}', which is no port")))
    });
    let all: Vec<ExposedPort> = all.collect::<Result<_, _>>()?;
    let different: BTreeSet<(u16, &str)> = all.iter().map(|port| (port.port, port.protocol)).collect();
    if different.len() < all.len() {
        return Err(invalid("has a port twice".to_owned()));
    }
    if all.len() > MOST_PORTS {
        return Err(invalid(format!("has more than {MOST_PORTS} ports")));
    }
    Ok(all)
}

/// `port[:target][/protocol]`.
fn port(entry: &str) -> Option<ExposedPort> {
    let (numbers, protocol) = entry.split_once('/').unwrap_or((entry, "TCP"));
    let protocol = ["TCP", "UDP", "SCTP"].into_iter().find(|known| known.eq_ignore_ascii_case(protocol))?;
    let (port, target) = numbers.split_once(':').unwrap_or((numbers, numbers));
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| digits && *number > 0)
    };
    Some(ExposedPort { port: number(port)?, protocol, target: number(target)? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(annotations: serde_json::Value) -> Service {
        let spec = json!({"type": "ExternalName", "externalName": "db.example.com"});
        serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap()
    }

    fn ports_of(text: &str) -> Result<String, RequestError> {
        let read = read(&with(json!({PORTS: text})))?;
        let words = read.ports.iter().map(|port| format!("{}>{}", port.name(), port.target));
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn ports_are_written_briefly() {
        assert_eq!(ports_of("5432").unwrap(), "tcp-5432>5432");
        assert_eq!(
            ports_of(" 5432, 6543:5432/TCP ,53/udp").unwrap(),
            "tcp-5432>5432 tcp-6543>5432 udp-53>53"
        );
        for bad in ["", "0", "70000", "5432/HTTP", "5432:", "5432,,80", "+80", "80,80/tcp", "postgres"] {
            assert!(matches!(ports_of(bad), Err(RequestError::PortsInvalid(_))), "{bad}");
        }
        let many: Vec<String> = (1..=101).map(|port: u32| port.to_string()).collect();
        assert!(ports_of(&many.join(",")).is_err());
    }

    #[test]
    fn our_annotations_are_carried_over_and_no_others() {
        let all = json!({PORTS: "80", POOL: "lan", IPS: "192.0.2.1", EXPOSE: "true", "argocd.argoproj.io/tracking-id": "x",
            SOURCE_RANGES: "10.1.2.3/8, fd00::/8"});
        let read = read(&with(all)).unwrap();
        assert_eq!(read.annotations.keys().map(String::as_str).collect::<Vec<_>>(), [IPS, POOL]);
        assert_eq!(read.source_ranges, ["10.0.0.0/8", "fd00::/8"]);
        let bad = super::read(&with(json!({PORTS: "80", SOURCE_RANGES: "office"})));
        assert_eq!(bad, Err(RequestError::SourceRangesInvalid("office".to_owned())));
    }

    #[test]
    fn only_an_external_name_that_says_true_is_exposed() {
        assert!(is_asked_for(&with(json!({EXPOSE: "true"}))));
        assert!(!is_asked_for(&with(json!({EXPOSE: "yes"}))) && !is_asked_for(&with(json!({}))));
        let other = json!({"metadata": {"annotations": {EXPOSE: "true"}}, "spec": {"type": "ClusterIP"}});
        assert!(!is_asked_for(&serde_json::from_value(other).unwrap()));
    }
}
