//! Whether a Service limits who may connect to its addresses.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::{AddressRange, AddressSet, Family};

use ipnet::IpNet;

/// The halves of each family. A list that leaves a whole one open limits nothing worth the name.
const HALVES: [&str; 4] = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"];

/// Whether the Service limits who may connect to its address of this family: it states at least one range
/// of the family, and all of these together hold neither half of the family's addresses, so that 0.0.0.0/0 is
/// no limit, nor are two halves of it, nor is it with a narrow range beside it. Ranges of the other family
/// count for nothing: kube-proxy leaves a family open of which it is told no range
/// (k8s.io/kubernetes pkg/proxy/serviceport.go). Entries are trimmed, as the API server does
/// (k8s.io/kubernetes pkg/apis/core/validation); those that are no range are not counted.
///
/// Only the field counts: nothing keeps anybody out who is named by the annotation
/// `service.beta.kubernetes.io/load-balancer-source-ranges` alone, since kube-proxy does not read it.
pub fn has_source_ranges(service: &Service, family: Family) -> bool {
    let field = service.spec.as_ref().and_then(|spec| spec.load_balancer_source_ranges.as_deref());
    let of_family = |entry: &&str| range(entry).filter(|range| range.family() == family);
    let open: AddressSet =
        field.unwrap_or_default().iter().filter_map(|entry| of_family(&entry.as_str())).collect();
    let halves = || HALVES.iter().filter_map(of_family);
    // Ranges of a set do not touch, so one that lies in the set lies in a single range of it.
    let is_whole = |half: AddressRange| {
        open.ranges().any(|range| range.contains(half.first()) && range.contains(half.last()))
    };
    !open.is_empty() && !halves().any(is_whole)
}

/// The range that an entry states: the whole network, whatever host bits it has, which the API server
/// admitted until KEP-4858. An IPv4 range in an IPv6 form is none: it matches no packet, or all of them,
/// by who reads it.
fn range(entry: &str) -> Option<AddressRange> {
    let network = entry.trim().parse::<IpNet>().ok()?;
    match network {
        IpNet::V6(v6) if v6.network().to_ipv4_mapped().is_some() => None,
        _ => Some(AddressRange::from(network)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ServiceSpec;
    use landfall_crds::names::annotations;
    use proptest::prelude::*;

    fn service(ranges: &[&str]) -> Service {
        let ranges = Some(ranges.iter().map(ToString::to_string).collect());
        let spec = ServiceSpec { load_balancer_source_ranges: ranges, ..ServiceSpec::default() };
        Service { spec: Some(spec), ..Service::default() }
    }

    fn limits(list: &str, family: Family) -> bool {
        has_source_ranges(&service(&list.split(',').collect::<Vec<_>>()), family)
    }

    #[test]
    fn only_ranges_that_leave_no_half_open_limit_anything() {
        const NONE: [bool; 2] = [false, false];
        const V4: [bool; 2] = [true, false];
        const V6: [bool; 2] = [false, true];
        const BOTH: [bool; 2] = [true, true];
        let thousand: Vec<String> = (0..1000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
        for (list, expected) in [
            ("", NONE),
            (" , ,", NONE),
            ("10.0.0.0/8", V4),
            (" 10.0.0.0/8 ,\t192.168.0.0/16\n", V4),
            ("10.0.0.0/8,10.0.0.0/8", V4),
            ("192.0.2.7/32", V4),
            ("fd00::/8", V6),
            ("fd00::/8,10.0.0.0/8", BOTH),
            ("::1/128", V6),
            // Host bits, and zeros in front.
            ("10.1.2.3/8", V4),
            ("010.001.002.003/8", V4),
            ("77.1.2.3/1", NONE),
            ("1.2.3.4/0", NONE),
            ("fd00::1/0", NONE),
            // Everything, or a half.
            ("0.0.0.0/0", NONE),
            ("::/0", NONE),
            ("0.0.0.0/1", NONE),
            ("128.0.0.0/1", NONE),
            ("::/1", NONE),
            ("8000::/1", NONE),
            ("0.0.0.0/0,10.0.0.0/8", NONE),
            ("10.0.0.0/8,0.0.0.0/0", NONE),
            ("10.0.0.0/8,::/0", V4),
            ("fd00::/8,0.0.0.0/0", V6),
            // Halves in pieces.
            ("0.0.0.0/2,64.0.0.0/2", NONE),
            ("64.0.0.0/2,10.0.0.0/8,0.0.0.0/2", NONE),
            ("0.0.0.0/2,64.0.0.0/3,96.0.0.0/3,192.0.2.0/24", NONE),
            ("4000::/2,::/2", NONE),
            ("0.0.0.0/1,128.0.0.0/1", NONE),
            ("4000::/2,::/3,2000::/3", NONE),
            ("c000::/2,8000::/2", NONE),
            // A quarter of each half is no half.
            ("0.0.0.0/2, 128.0.0.0/2", V4),
            ("64.0.0.0/2,128.0.0.0/2,192.0.0.0/3", V4),
            ("4000::/2,8000::/2", V6),
            ("::/2,c000::/2", V6),
            // What is no range.
            ("junk", NONE),
            ("10.0.0.1", NONE),
            ("10.0.0.0/33", NONE),
            ("10.0.0.0-10.0.0.9", NONE),
            ("10.0.0.0/8;192.168.0.0/16", NONE),
            ("10.0.0.0 /8", NONE),
            ("\u{661}\u{660}.0.0.0/8", NONE),
            ("::ffff:10.0.0.0/104", NONE),
            ("::ffff:0:0/96", NONE),
            ("junk,10.0.0.0/8,10.0.0.1", V4),
            ("junk,0.0.0.0/0", NONE),
            (&thousand.join(","), V4),
            (&"1".repeat(200_000), NONE),
        ] {
            let limited = [Family::IPv4, Family::IPv6].map(|family| limits(list, family));
            assert_eq!(limited, expected, "{list:.80}");
        }
        assert!(!has_source_ranges(&Service::default(), Family::IPv4));
    }

    #[test]
    fn the_annotation_limits_nothing_as_long_as_nobody_enforces_it() {
        let mut annotated = service(&[]);
        let annotations = annotated.metadata.annotations.get_or_insert_default();
        annotations.insert(annotations::SOURCE_RANGES.to_owned(), "10.0.0.0/8".to_owned());
        assert!(!has_source_ranges(&annotated, Family::IPv4));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(list in any::<String>(), entry in "[0-9a-f:./ ]{0,24}") {
            for family in [Family::IPv4, Family::IPv6] {
                has_source_ranges(&service(&[&entry, &list]), family);
            }
        }

        /// Pieces that tile a half leave it open in whatever order they stand; without one of them they
        /// limit.
        #[test]
        fn pieces_of_a_half_leave_it_open_only_together(
            length in 2_u8..8,
            missing in any::<prop::sample::Index>(),
            upper in any::<bool>(),
        ) {
            let count = 1_u32 << (length - 1);
            let base = if upper { 1_u32 << 31 } else { 0 };
            let piece =
                |n: u32| format!("{}/{length}", std::net::Ipv4Addr::from_bits(base + n * (1 << (32 - length))));
            let mut all: Vec<String> = (0..count).rev().map(piece).collect();
            prop_assert!(!limits(&all.join(","), Family::IPv4));
            all.remove(missing.index(all.len()));
            prop_assert!(limits(&all.join(","), Family::IPv4));
        }
    }
}
