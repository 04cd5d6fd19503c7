//! What a Service asks for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::{Family, parse_address};
use landfall_crds::names::annotations;

use super::wait::{Until, Wait, quoted, reasons, some_of};

/// More addresses than this in one annotation are not even read.
const MOST_ADDRESSES: usize = 16;

/// What a Service asks for; a Service that names nothing takes what there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Pools in order of preference.
    pub pools: Option<Vec<String>>,
}

impl Request {
    /// The address that is asked for in `family`.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// Whether an address that was taken from `pool` is what is asked for.
    pub fn accepts(&self, address: IpAddr, pool: Option<&str>) -> bool {
        if let Some(wanted) = self.address(Family::of(address)) {
            return wanted == address;
        }
        self.pools.as_ref().is_none_or(|pools| pools.iter().any(|name| Some(name.as_str()) == pool))
    }
}

/// The families of a Service, the primary one first.
pub fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut families: Vec<Family> = Vec::new();
    for family in named.iter().filter_map(|name| match name.as_str() {
        "IPv4" => Some(Family::IPv4),
        "IPv6" => Some(Family::IPv6),
        _ => None,
    }) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    if families.is_empty() {
        // The API server fills the field in, so this is an object from before dual stack.
        families.push(Family::IPv4);
    }
    families
}

/// An annotation's value, or nothing where it is absent or blank.
pub fn annotation<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    let value = service.metadata.annotations.as_ref()?.get(name)?.trim();
    (!value.is_empty()).then_some(value)
}

/// Reads what the Service asks for.
///
/// # Errors
/// What is asked for is not understood or contradicts itself.
pub fn read(service: &Service) -> Result<Request, Wait> {
    let families = families(service);
    let mut asked: Vec<(IpAddr, &'static str)> = Vec::new();
    let from_spec = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    if let Some(text) = from_spec.map(str::trim).filter(|text| !text.is_empty()) {
        asked.push((address(text, "spec.loadBalancerIP")?, "spec.loadBalancerIP"));
    }
    if let Some(list) = annotation(service, annotations::IPS) {
        let texts: Vec<&str> = list.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
        if texts.len() > MOST_ADDRESSES {
            return Err(contradictory(format!(
                "{} names {} addresses: name at most one of each family",
                annotations::IPS,
                texts.len()
            )));
        }
        for text in texts {
            asked.push((address(text, annotations::IPS)?, annotations::IPS));
        }
    }
    let mut request = Request { addresses: Vec::new(), pools: pools(service) };
    let mut sources: Vec<&'static str> = Vec::new();
    for (address, source) in asked {
        let family = Family::of(address);
        if !families.contains(&family) {
            return Err(Wait::new(
                reasons::FAMILY_MISMATCH,
                format!(
                    "{source} asks for {address}, but the Service has no {family} address: name an address \
                     of a family in spec.ipFamilies ({}), or change spec.ipFamilyPolicy",
                    some_of(&families, 2)
                ),
                Until::Edited,
            ));
        }
        match request.addresses.iter().position(|known| Family::of(*known) == family) {
            None => {
                request.addresses.push(address);
                sources.push(source);
            }
            Some(at) if request.addresses[at] == address => {}
            Some(at) => {
                return Err(contradictory(format!(
                    "{} asks for {} and {source} for {address}: ask for one {family} address",
                    sources[at], request.addresses[at]
                )));
            }
        }
    }
    Ok(request)
}

fn contradictory(message: String) -> Wait {
    Wait::new(reasons::REQUEST_CONTRADICTORY, message, Until::Edited)
}

fn address(text: &str, source: &str) -> Result<IpAddr, Wait> {
    parse_address(text).map_err(|error| {
        let said = match &error {
            landfall_crds::address::RangeError::NotAnAddress(_) => {
                format!("{source} says {}, which is not an IPv4 or IPv6 address", quoted(text))
            }
            other => format!("{source} says {}: {other}", quoted(text)),
        };
        Wait::new(reasons::ADDRESS_INVALID, said, Until::Edited)
    })
}

/// The pools that are asked for, in order of preference.
pub fn pools(service: &Service) -> Option<Vec<String>> {
    let list = annotation(service, annotations::POOL)?;
    let mut seen = BTreeSet::new();
    let names: Vec<String> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty() && seen.insert(*name))
        .map(str::to_owned)
        .collect();
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ServiceSpec;

    fn service(families: &[&str], lb_ip: &str, ips: &str, pool: &str) -> Service {
        let mut service = Service {
            spec: Some(ServiceSpec {
                ip_families: Some(families.iter().map(ToString::to_string).collect()),
                load_balancer_ip: (!lb_ip.is_empty()).then(|| lb_ip.to_owned()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        let annotations = service.metadata.annotations.get_or_insert_default();
        annotations.insert("landfall.dev/ips".into(), ips.into());
        annotations.insert("landfall.dev/pool".into(), pool.into());
        service
    }

    #[test]
    fn requests_are_read_from_the_field_and_the_annotations() {
        for (families, lb_ip, ips, addresses) in [
            (&["IPv4"][..], "", "", &[][..]),
            (&["IPv4"], "10.0.0.1", "", &["10.0.0.1"]),
            (&["IPv4"], " 10.0.0.1 ", " 10.0.0.1 , 10.0.0.1,", &["10.0.0.1"]),
            (&["IPv4", "IPv6"], "10.0.0.1", "fd00::1", &["10.0.0.1", "fd00::1"]),
            (&["IPv6", "IPv4"], "", "10.0.0.1,FD00:0::1", &["10.0.0.1", "fd00::1"]),
        ] {
            let request = read(&service(families, lb_ip, ips, "")).unwrap();
            let expected: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(request.addresses, expected, "{lb_ip} {ips}");
            assert_eq!(request.pools, None);
        }
        let request = read(&service(&["IPv4"], "", "", " b, a ,,b ")).unwrap();
        assert_eq!(request.pools, Some(vec!["b".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn bad_requests_say_what_is_wrong() {
        let many = vec!["10.0.0.1"; 1000].join(",");
        for (lb_ip, ips, reason, sentence) in [
            ("web", "", "AddressInvalid", "spec.loadBalancerIP says 'web', which is not an IPv4"),
            ("", "10.0.0.1;10.0.0.2", "AddressInvalid", "landfall.dev/ips says '10.0.0.1;10.0.0.2'"),
            ("", "10.0.0.0/24", "AddressInvalid", "not an IPv4"),
            ("", "010.0.0.1", "AddressInvalid", "not an IPv4"),
            ("", "\u{661}\u{660}.0.0.1", "AddressInvalid", "not an IPv4"),
            ("", "::ffff:10.0.0.1", "AddressInvalid", "write the IPv4 address"),
            ("", "fd00::1", "FamilyMismatch", "the Service has no IPv6 address"),
            ("", "10.0.0.1,10.0.0.2", "RequestContradictory", "ask for one IPv4 address"),
            ("10.0.0.1", "10.0.0.2", "RequestContradictory", "spec.loadBalancerIP asks for 10.0.0.1 and"),
            ("", many.as_str(), "RequestContradictory", "names 1000 addresses"),
        ] {
            let wait = read(&service(&["IPv4"], lb_ip, ips, "")).unwrap_err();
            assert_eq!(wait.reason, reason, "{lb_ip} {ips}");
            assert!(wait.message.contains(sentence), "{}", wait.message);
        }
    }

    #[test]
    fn an_address_in_hand_is_accepted_unless_another_is_asked_for() {
        let held: IpAddr = "10.0.0.5".parse().unwrap();
        for (ips, pools, accepted) in [
            ("", "", true),
            ("10.0.0.5", "", true),
            ("10.0.0.6", "", false),
            ("", "a,b", true),
            ("", "b", false),
            ("10.0.0.5", "b", true),
            ("fd00::1", "", true),
        ] {
            let request = read(&service(&["IPv4", "IPv6"], "", ips, pools)).unwrap();
            assert_eq!(request.accepts(held, Some("a")), accepted, "{ips} {pools}");
        }
    }
}
