//! Source ranges, read anew: an oracle for what a pool requires.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::address::Family;

/// The first and the last address of a range of the family, as numbers.
fn ends(entry: &str, family: Family) -> Option<(u128, u128)> {
    let (address, length) = entry.trim().split_once('/')?;
    let length: u32 = length.parse().ok()?;
    let (first, bits): (u128, u32) = match family {
        Family::IPv4 => (u128::from(u32::from(address.parse::<std::net::Ipv4Addr>().ok()?)), 32),
        Family::IPv6 => (u128::from(address.parse::<std::net::Ipv6Addr>().ok()?), 128),
    };
    let hosts = u128::MAX.checked_shr(128 - bits.checked_sub(length)?).unwrap_or(0);
    Some((first & !hosts, first | hosts))
}

/// Whether kube-proxy keeps anybody out of the Service's address of the family, and somebody of each half of
/// all addresses: the first of the half, or the one after some range that ends in it, is not let in.
pub fn are_limited(service: &Service, family: Family) -> bool {
    let field = service.spec.iter().flat_map(|spec| spec.load_balancer_source_ranges.iter().flatten());
    let open: Vec<(u128, u128)> = field.filter_map(|entry| ends(entry, family)).collect();
    let half = match family {
        Family::IPv4 => 1 << 31,
        Family::IPv6 => 1 << 127,
    };
    let is_let_in = |at: u128| open.iter().any(|(first, last)| (*first..=*last).contains(&at));
    let keeps_out = |from: u128| {
        let after = open.iter().filter_map(|(_, last)| last.checked_add(1));
        let mut points = after.filter(|at| (from..=from + (half - 1)).contains(at)).chain([from]);
        points.any(|at| !is_let_in(at))
    };
    !open.is_empty() && keeps_out(0) && keeps_out(half)
}

#[test]
fn the_oracle_knows_what_is_open() {
    for (ranges, v4, v6) in [
        (&[][..], false, false),
        (&["10.0.0.0/8"], true, false),
        (&["fd00::/8"], false, true),
        (&["::1/128", "1.2.3.4/32"], true, true),
        (&["0.0.0.0/0", "fd00::/8"], false, true),
        (&["0.0.0.0/1"], false, false),
        (&["128.0.0.0/2", "192.0.0.0/2"], false, false),
        (&["128.0.0.0/2", "0.0.0.0/2"], true, false),
        (&["::/0"], false, false),
        (&["8000::/1", "10.0.0.0/8"], true, false),
    ] {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let spec = serde_json::json!({"spec": {"loadBalancerSourceRanges": ranges}});
        let service: Service = serde_json::from_value(spec).unwrap();
        let limited = [Family::IPv4, Family::IPv6].map(|family| are_limited(&service, family));
        assert_eq!(limited, [v4, v6], "{ranges:?}");
    }
}
