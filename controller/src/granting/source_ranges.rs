//! Whether a Service limits who may connect.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::{AddressRange, AddressSet};

use ipnet::IpNet;

/// The halves of both families. A list that leaves a whole one open limits nothing worth the name.
const HALVES: [&str; 4] = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"];

/// Whether the Service limits its sources: it states at least one range, and all of its ranges together
/// hold neither half of the IPv4 nor of the IPv6 addresses, so that 0.0.0.0/0 is no limit, nor are
/// two halves of it, nor is it with a narrow range beside it. Entries are trimmed, as the API server does
/// (k8s.io/kubernetes pkg/apis/core/validation); those that are no range are not counted.
///
/// Only the field counts: nothing keeps anybody out who is named by the annotation
/// `service.beta.kubernetes.io/load-balancer-source-ranges` alone, since kube-proxy does not read it.
pub fn has_source_ranges(service: &Service) -> bool {
    let field = service.spec.as_ref().and_then(|spec| spec.load_balancer_source_ranges.as_deref());
    let open: AddressSet = field.unwrap_or_default().iter().filter_map(|entry| range(entry)).collect();
    let halves = || HALVES.iter().filter_map(|half| range(half));
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

    fn limits(list: &str) -> bool {
        has_source_ranges(&service(&list.split(',').collect::<Vec<_>>()))
    }

    #[test]
    fn only_ranges_that_leave_no_half_open_limit_anything() {
        let thousand: Vec<String> = (0..1000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
        for (list, expected) in [
            ("", false),
            (" , ,", false),
            ("10.0.0.0/8", true),
            (" 10.0.0.0/8 ,\t192.168.0.0/16\n", true),
            ("10.0.0.0/8,10.0.0.0/8", true),
            ("192.0.2.7/32", true),
            ("fd00::/8", true),
            ("fd00::/8,10.0.0.0/8", true),
            ("::1/128", true),
            // Host bits, and zeros in front.
            ("10.1.2.3/8", true),
            ("010.001.002.003/8", true),
            ("77.1.2.3/1", false),
            ("1.2.3.4/0", false),
            ("fd00::1/0", false),
            // Everything, or a half.
            ("0.0.0.0/0", false),
            ("::/0", false),
            ("0.0.0.0/1", false),
            ("128.0.0.0/1", false),
            ("::/1", false),
            ("8000::/1", false),
            ("0.0.0.0/0,10.0.0.0/8", false),
            ("10.0.0.0/8,0.0.0.0/0", false),
            ("10.0.0.0/8,::/0", false),
            ("fd00::/8,0.0.0.0/0", false),
            // Halves in pieces.
            ("0.0.0.0/2,64.0.0.0/2", false),
            ("64.0.0.0/2,10.0.0.0/8,0.0.0.0/2", false),
            ("0.0.0.0/2,64.0.0.0/3,96.0.0.0/3,192.0.2.0/24", false),
            ("4000::/2,::/2", false),
            ("0.0.0.0/1,128.0.0.0/1", false),
            ("4000::/2,::/3,2000::/3", false),
            ("c000::/2,8000::/2", false),
            // A quarter of each half is no half.
            ("0.0.0.0/2, 128.0.0.0/2", true),
            ("64.0.0.0/2,128.0.0.0/2,192.0.0.0/3", true),
            ("4000::/2,8000::/2", true),
            ("::/2,c000::/2", true),
            // What is no range.
            ("junk", false),
            ("10.0.0.1", false),
            ("10.0.0.0/33", false),
            ("10.0.0.0-10.0.0.9", false),
            ("10.0.0.0/8;192.168.0.0/16", false),
            ("10.0.0.0 /8", false),
            ("\u{661}\u{660}.0.0.0/8", false),
            ("::ffff:10.0.0.0/104", false),
            ("::ffff:0:0/96", false),
            ("junk,10.0.0.0/8,10.0.0.1", true),
            ("junk,0.0.0.0/0", false),
            (&thousand.join(","), true),
            (&"1".repeat(200_000), false),
        ] {
            assert_eq!(limits(list), expected, "{list:.80}");
        }
        assert!(!has_source_ranges(&Service::default()));
    }

    #[test]
    fn the_annotation_limits_nothing_as_long_as_nobody_enforces_it() {
        let mut annotated = service(&[]);
        let annotations = annotated.metadata.annotations.get_or_insert_default();
        annotations.insert(annotations::SOURCE_RANGES.to_owned(), "10.0.0.0/8".to_owned());
        assert!(!has_source_ranges(&annotated));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(list in any::<String>(), entry in "[0-9a-f:./ ]{0,24}") {
            has_source_ranges(&service(&[&entry, &list]));
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
            prop_assert!(!limits(&all.join(",")));
            all.remove(missing.index(all.len()));
            prop_assert!(limits(&all.join(",")));
        }
    }
}
