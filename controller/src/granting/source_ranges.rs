//! Who may connect to a Service, by what its source ranges say.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::Family;
use landfall_crds::names::annotations;
use landfall_crds::{Closed, ClosedReason, MOST_SOURCE_RANGES, Sources};

use super::request::annotation;
use super::wait::{quoted, some_of};

/// The field, as messages name it.
const FIELD: &str = "spec.loadBalancerSourceRanges";
/// So many entries that are no ranges are named in one message.
const MOST_NAMED: usize = 4;

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Everybody: no ranges are stated.
    None,
    /// Those within these ranges alone.
    Ranges(Ranges),
    /// Nobody, since what is stated cannot be meant.
    Closed(Closed),
}

/// Ranges of both families: the networks themselves without host bits, none of which lies in another or could
/// be joined with it, in order. A family of which none is stated is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl Ranges {
    /// Whether nobody may connect over the family.
    pub fn is_closed(&self, family: Family) -> bool {
        match family {
            Family::IPv4 => self.v4.is_empty(),
            Family::IPv6 => self.v6.is_empty(),
        }
    }

    /// Whether about half of all addresses of the family may connect: that limits nothing worth the name. A few
    /// holes change nothing of that, so a hundredth of the half may be missing.
    fn is_half_open(&self, family: Family) -> bool {
        /// Addresses in halves of the family's, so that all of them do not overflow.
        const HALF: u128 = 1 << 127;
        let size = |prefix_len: u8, bits: u8| 1u128 << (127 - u32::from(prefix_len.clamp(1, bits)) + 1);
        let open = match family {
            Family::IPv4 => {
                self.v4.iter().map(|range| size(range.prefix_len(), 32)).fold(0, u128::saturating_add)
            }
            Family::IPv6 => {
                self.v6.iter().map(|range| size(range.prefix_len(), 128)).fold(0, u128::saturating_add)
            }
        };
        open >= HALF - HALF / 100
    }

    /// As a ServiceGuard states them.
    pub fn sources(&self) -> Sources {
        Sources {
            ipv4: self.v4.iter().map(ToString::to_string).collect(),
            ipv6: self.v6.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Who may connect to a Service. The field goes before the annotation, as with the clouds
/// (k8s.io/cloud-provider service/helpers/helper.go). Entries are trimmed, as the API server does
/// (k8s.io/kubernetes pkg/apis/core/validation), and blank ones passed over. One that is no range closes the
/// Service: to pass it over would let in or keep out whom nobody meant.
pub fn limits(service: &Service) -> Limits {
    let field = service.spec.as_ref().and_then(|spec| spec.load_balancer_source_ranges.as_deref());
    let field = field.filter(|entries| !entries.is_empty());
    match (field, annotation(service, annotations::SOURCE_RANGES)) {
        (Some(entries), _) => read(FIELD, entries.iter().map(String::as_str)),
        (None, Some(list)) => read(annotations::SOURCE_RANGES, list.split(',')),
        (None, None) => Limits::None,
    }
}

/// Whether the Service limits who may connect to its address of this family: it states ranges, and those of the
/// family together hold less than about half of its addresses, so that 0.0.0.0/0 is no limit, nor are two halves
/// of it, nor is it with a hole in it. A family of which no range is stated is closed, and that is a limit.
pub fn has_source_ranges(service: &Service, family: Family) -> bool {
    match limits(service) {
        Limits::None => false,
        Limits::Ranges(ranges) => !ranges.is_half_open(family),
        Limits::Closed(_) => true,
    }
}

/// Reads the entries that stand in `place`.
fn read<'a>(place: &str, entries: impl Iterator<Item = &'a str>) -> Limits {
    let entries: Vec<&str> = entries.map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if entries.len() > MOST_SOURCE_RANGES {
        let message = format!(
            "{place} states {} ranges, and at most {MOST_SOURCE_RANGES} are enforced, so nobody may connect: \
             join them to fewer",
            entries.len()
        );
        return Limits::Closed(Closed { reason: ClosedReason::TooManySourceRanges, message });
    }
    let (mut v4, mut v6, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &entries {
        match range(entry) {
            Ok(IpNet::V4(range)) => v4.push(range),
            Ok(IpNet::V6(range)) => v6.push(range),
            Err(why) => errors.push(format!("{}, which is {why}", quoted(entry))),
        }
    }
    if entries.is_empty() {
        errors.push("nothing that is a range".to_owned());
    }
    if errors.is_empty() {
        let ranges = Ranges { v4: Ipv4Net::aggregate(&v4), v6: Ipv6Net::aggregate(&v6) };
        return Limits::Ranges(ranges);
    }
    let message = format!(
        "{place} states {}, so nobody may connect: write ranges such as 192.0.2.0/24 or 2001:db8::/32, one \
         address as a /32 (IPv6: /128)",
        some_of(errors, MOST_NAMED)
    );
    Limits::Closed(Closed { reason: ClosedReason::InvalidSourceRange, message })
}

/// The range that an entry states: the whole network, whatever host bits it has, which the API server
/// admitted until KEP-4858. An IPv4 range in an IPv6 form is none: it matches no packet, or all of them,
/// by who reads it.
fn range(entry: &str) -> Result<IpNet, &'static str> {
    let network = entry.parse::<IpNet>().map_err(|_| "no range")?.trunc();
    match network {
        IpNet::V6(v6) if v6.network().to_ipv4_mapped().is_some() => Err("IPv4 in an IPv6 form"),
        _ => Ok(network),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use k8s_openapi::api::core::v1::ServiceSpec;
    use proptest::prelude::*;

    fn service(ranges: &[&str]) -> Service {
        let ranges = Some(ranges.iter().map(ToString::to_string).collect());
        let spec = ServiceSpec { load_balancer_source_ranges: ranges, ..ServiceSpec::default() };
        Service { spec: Some(spec), ..Service::default() }
    }

    fn annotated(mut service: Service, list: &str) -> Service {
        let annotations = service.metadata.annotations.get_or_insert_default();
        annotations.insert(annotations::SOURCE_RANGES.to_owned(), list.to_owned());
        service
    }

    /// The ranges of both families, joined by a bar; or why nobody may connect.
    fn told(service: &Service) -> String {
        match limits(service) {
            Limits::None => "open".to_owned(),
            Limits::Ranges(ranges) => {
                let Sources { ipv4, ipv6 } = ranges.sources();
                format!("{} | {}", ipv4.join(" "), ipv6.join(" ")).trim().to_owned()
            }
            Limits::Closed(closed) => format!("{:?}", closed.reason),
        }
    }

    #[test]
    fn ranges_are_read_trimmed_canonical_and_joined() {
        const JUNK: &str = "InvalidSourceRange";
        for (list, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8 |"),
            (" 10.0.0.0/8 ,\t192.168.0.0/16\n", "10.0.0.0/8 192.168.0.0/16 |"),
            ("192.168.0.0/16,10.0.0.0/8,10.0.0.0/8", "10.0.0.0/8 192.168.0.0/16 |"),
            ("192.0.2.7/32", "192.0.2.7/32 |"),
            ("fd00::/8", "| fd00::/8"),
            ("FD00:0:0::/8,10.0.0.0/8", "10.0.0.0/8 | fd00::/8"),
            ("::1/128", "| ::1/128"),
            ("10.0.0.0/8,,", "10.0.0.0/8 |"),
            // Host bits, and zeros in front.
            ("10.1.2.3/8", "10.0.0.0/8 |"),
            ("010.001.002.003/8", "10.0.0.0/8 |"),
            ("fd00::1/16", "| fd00::/16"),
            // Everything.
            ("0.0.0.0/0", "0.0.0.0/0 |"),
            ("::/0", "| ::/0"),
            ("1.2.3.4/0,::1/0", "0.0.0.0/0 | ::/0"),
            // What lies in another, or makes one with its neighbour.
            ("10.0.0.0/8,10.1.0.0/16", "10.0.0.0/8 |"),
            ("10.0.1.0/24,10.0.0.0/24", "10.0.0.0/23 |"),
            ("10.0.0.0/25,10.0.0.128/26,10.0.0.192/27", "10.0.0.0/25 10.0.0.128/26 10.0.0.192/27 |"),
            ("128.0.0.0/1,0.0.0.0/1", "0.0.0.0/0 |"),
            ("8000::/1,::/1", "| ::/0"),
            ("0.0.0.0/0,255.255.255.255/32", "0.0.0.0/0 |"),
            // What is no range closes the Service, whatever stands beside it.
            ("", JUNK),
            (" , ,", JUNK),
            ("junk", JUNK),
            ("10.0.0.1", JUNK),
            ("10.0.0.0/33", JUNK),
            ("10.0.0.0/-1", JUNK),
            ("fd00::/129", JUNK),
            ("10.0.0.0-10.0.0.9", JUNK),
            ("10.0.0.0/8;192.168.0.0/16", JUNK),
            ("10.0.0.0 /8", JUNK),
            ("\u{661}\u{660}.0.0.0/8", JUNK),
            ("::ffff:10.0.0.0/104", JUNK),
            ("::ffff:0:0/96", JUNK),
            ("10.0.0.0/8,junk", JUNK),
            ("0.0.0.0/0,10.0.0.1", JUNK),
            (&"1".repeat(200_000), JUNK),
        ] {
            let entries: Vec<&str> = list.split(',').collect();
            assert_eq!(told(&service(&entries)), expected, "the field: {list:.80}");
            let by_annotation = told(&annotated(service(&[]), list));
            let expected = if list.is_empty() { "open" } else { expected };
            assert_eq!(by_annotation, expected, "the annotation: {list:.80}");
        }
        assert_eq!(told(&Service::default()), "open");
    }

    #[test]
    fn the_field_goes_before_the_annotation() {
        assert_eq!(told(&annotated(service(&["10.0.0.0/8"]), "192.0.2.0/24")), "10.0.0.0/8 |");
        assert_eq!(told(&annotated(service(&["10.0.0.0/8"]), "junk")), "10.0.0.0/8 |");
        assert_eq!(told(&annotated(service(&["junk"]), "10.0.0.0/8")), "InvalidSourceRange");
        assert_eq!(told(&annotated(service(&[]), " ")), "open");
    }

    #[test]
    fn more_than_a_thousand_ranges_are_too_many() {
        for (number, expected) in [(1000, true), (1001, false), (10_000, false)] {
            let ranges: Vec<String> =
                (0..number).map(|n| format!("10.{}.{}.0/25", n / 250, n % 250)).collect();
            let limits = limits(&service(&ranges.iter().map(String::as_str).collect::<Vec<_>>()));
            match limits {
                Limits::Ranges(ranges) => {
                    assert!(expected && ranges.sources().ipv4.len() == 1000, "{number}");
                }
                Limits::Closed(closed) => {
                    assert!(!expected && closed.reason == ClosedReason::TooManySourceRanges, "{number}");
                    assert!(closed.message.contains(&format!("states {number} ranges")), "{closed:?}");
                }
                Limits::None => panic!("{number}"),
            }
        }
    }

    #[test]
    fn what_closes_a_service_is_named_and_never_at_length() {
        let Limits::Closed(closed) = limits(&service(&["10.0.0.1", "10.0.0.0/8", "::ffff:0:0/96"])) else {
            panic!("open")
        };
        assert_eq!(
            closed.message,
            "spec.loadBalancerSourceRanges states '10.0.0.1', which is no range, '::ffff:0:0/96', which is IPv4 in an \
             IPv6 form, so nobody may connect: write ranges such as 192.0.2.0/24 or 2001:db8::/32, one address as a \
             /32 (IPv6: /128)"
        );
        let long = "x".repeat(10_000);
        let Limits::Closed(closed) = limits(&annotated(service(&[]), &vec![long.as_str(); 900].join(",")))
        else {
            panic!("open")
        };
        assert!(closed.message.contains("and 896 more") && closed.message.len() < 1024, "{closed:?}");
    }

    #[test]
    fn only_ranges_that_leave_no_half_open_limit_anything() {
        const BOTH: [bool; 2] = [true, true];
        const V4: [bool; 2] = [true, false];
        const V6: [bool; 2] = [false, true];
        const NONE: [bool; 2] = [false, false];
        for (list, expected) in [
            // A family without a range is closed.
            ("10.0.0.0/8", BOTH),
            ("fd00::/8", BOTH),
            ("0.0.0.0/0", V6),
            ("::/0", V4),
            ("0.0.0.0/0,::/0", NONE),
            ("10.0.0.0/8,::/0", V4),
            ("fd00::/8,0.0.0.0/0", V6),
            // A half, also in pieces.
            ("0.0.0.0/1", V6),
            ("128.0.0.0/1", V6),
            ("77.1.2.3/1", V6),
            ("::/1", V4),
            ("8000::/1", V4),
            ("0.0.0.0/2,64.0.0.0/2", V6),
            ("64.0.0.0/2,10.0.0.0/8,0.0.0.0/2", V6),
            ("0.0.0.0/2,64.0.0.0/3,96.0.0.0/3,192.0.2.0/24", V6),
            ("4000::/2,::/3,2000::/3", V4),
            ("0.0.0.0/2,128.0.0.0/2", V6),
            ("64.0.0.0/2,128.0.0.0/2,192.0.0.0/3", V6),
            ("4000::/2,8000::/2", V4),
            // Three eighths are no half.
            ("0.0.0.0/2,128.0.0.0/3", BOTH),
            ("4000::/2,8000::/3", BOTH),
            // Who is closed is limited.
            ("junk,0.0.0.0/0", BOTH),
        ] {
            let service = service(&list.split(',').collect::<Vec<_>>());
            let limited = [Family::IPv4, Family::IPv6].map(|family| has_source_ranges(&service, family));
            assert_eq!(limited, expected, "{list}");
        }
        assert!(!has_source_ranges(&Service::default(), Family::IPv4));
        assert!(has_source_ranges(&annotated(service(&[]), "10.0.0.0/8"), Family::IPv4));
    }

    /// All of 0.0.0.0/0 but one address of each half, which takes 62 ranges.
    #[test]
    fn all_addresses_but_a_few_are_no_limit() {
        let around = |alone: u32| {
            (2..=32u8).map(move |length| {
                let other_branch = alone ^ (1 << (32 - u32::from(length)));
                format!(
                    "{}/{length}",
                    Ipv4Addr::from_bits(other_branch & (u32::MAX << (32 - u32::from(length))))
                )
            })
        };
        let ranges: Vec<String> = around(0x0a00_0001).chain(around(0xc000_0201)).collect();
        let service = service(&ranges.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ranges.len(), 62);
        assert!(!has_source_ranges(&service, Family::IPv4));
        assert!(has_source_ranges(&service, Family::IPv6));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(list in any::<String>(), entry in "[0-9a-f:./ ]{0,24}") {
            limits(&annotated(service(&[&entry, &list]), &list));
            limits(&annotated(service(&[]), &list));
        }

        /// Joined ranges let in exactly whom the stated ones do, do not overlap, and are no more than were stated.
        #[test]
        fn who_may_connect_stays_the_same(
            stated in prop::collection::vec((any::<u32>(), 0_u8..=32), 1..30),
            probes in prop::collection::vec(any::<u32>(), 30),
        ) {
            let texts: Vec<String> =
                stated.iter().map(|(at, length)| format!("{}/{length}", Ipv4Addr::from_bits(*at))).collect();
            let Limits::Ranges(Ranges { v4, v6 }) =
                limits(&service(&texts.iter().map(String::as_str).collect::<Vec<_>>()))
            else {
                panic!("closed")
            };
            prop_assert!(v6.is_empty() && v4.len() <= stated.len());
            let ranges: Vec<Ipv4Net> = texts.iter().map(|text| text.parse::<Ipv4Net>().unwrap()).collect();
            let edges = ranges.iter().flat_map(|range| {
                let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for probe in probes.into_iter().chain(edges).map(Ipv4Addr::from_bits) {
                let count = v4.iter().filter(|range| range.contains(&probe)).count();
                prop_assert_eq!(count, usize::from(ranges.iter().any(|range| range.contains(&probe))));
            }
        }
    }
}
