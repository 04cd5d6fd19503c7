//! Source ranges, read anew: an oracle for whom a Service lets in.

use k8s_openapi::api::core::v1::Service;
use landfall_crds::Sources;
use landfall_crds::address::Family;
use landfall_crds::names::annotations;

/// The first and the last address of each range, as numbers, in order and joined where they touch.
pub type Ends = Vec<(u128, u128)>;

/// What a Service states.
#[derive(Debug, PartialEq)]
pub enum Stated {
    Nothing,
    /// Something that is no range, or too much of it.
    Junk,
    /// Of IPv4 and of IPv6.
    Ranges(Ends, Ends),
}

/// The ends of one range.
fn ends(entry: &str) -> Option<(Family, (u128, u128))> {
    let (address, length) = entry.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    let (family, first, bits): (Family, u128, u32) = match address.parse().ok()? {
        std::net::IpAddr::V4(v4) => (Family::IPv4, u128::from(u32::from(v4)), 32),
        std::net::IpAddr::V6(v6) => (Family::IPv6, u128::from(v6), 128),
    };
    let hosts = u128::MAX.checked_shr(128 - bits.checked_sub(length)?).unwrap_or(0);
    let (first, last) = (first & !hosts, first | hosts);
    let is_mapped = family == Family::IPv6 && first >> 32 == 0xffff;
    (!is_mapped).then_some((family, (first, last)))
}

fn joined(mut all: Ends) -> Ends {
    all.sort_unstable();
    let mut joined: Ends = Vec::new();
    for (first, last) in all {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

fn read(entries: &[String]) -> Stated {
    let entries: Vec<&str> = entries.iter().map(|entry| entry.trim()).filter(|it| !it.is_empty()).collect();
    let ranges: Option<Vec<_>> = entries.iter().map(|entry| ends(entry)).collect();
    let Some(ranges) = ranges.filter(|ranges| (1..=1000).contains(&ranges.len())) else {
        return Stated::Junk;
    };
    let of = |family| joined(ranges.iter().filter(|(of, _)| *of == family).map(|(_, ends)| *ends).collect());
    Stated::Ranges(of(Family::IPv4), of(Family::IPv6))
}

/// What the Service states: by the field, or where that is empty by the annotation.
pub fn stated(service: &Service) -> Stated {
    let field = service.spec.as_ref().and_then(|spec| spec.load_balancer_source_ranges.clone());
    if let Some(field) = field.filter(|field| !field.is_empty()) {
        return read(&field);
    }
    let annotation = service.metadata.annotations.iter().flatten();
    let annotation = annotation.filter(|(name, _)| *name == annotations::SOURCE_RANGES);
    match annotation.map(|(_, list)| list.trim()).find(|list| !list.is_empty()) {
        Some(list) => read(&list.split(',').map(str::to_owned).collect::<Vec<_>>()),
        None => Stated::Nothing,
    }
}

/// Whom a guard lets in; the same of one that is closed as of one that lets in nobody.
pub fn let_in(sources: &Sources) -> (Ends, Ends) {
    let all = |list: &[String]| joined(list.iter().map(|text| ends(text).unwrap().1).collect());
    (all(&sources.ipv4), all(&sources.ipv6))
}

/// Whether somebody of each half of all addresses of the family is kept out.
pub fn are_limited(service: &Service, family: Family) -> bool {
    let (ends, half) = match (stated(service), family) {
        (Stated::Nothing, _) => return false,
        (Stated::Junk, _) => return true,
        (Stated::Ranges(v4, _), Family::IPv4) => (v4, 1 << 31),
        (Stated::Ranges(_, v6), Family::IPv6) => (v6, 1 << 127),
    };
    let is_whole = |from: u128| ends.iter().any(|(first, last)| *first <= from && from + (half - 1) <= *last);
    !is_whole(0) && !is_whole(half)
}

#[test]
fn the_oracle_knows_what_is_open() {
    for (ranges, v4, v6) in [
        (&[][..], false, false),
        (&["10.0.0.0/8"], true, true),
        (&["fd00::/8"], true, true),
        (&["::1/128", "1.2.3.4/32"], true, true),
        (&["0.0.0.0/0", "fd00::/8"], false, true),
        (&["0.0.0.0/1"], false, true),
        (&["128.0.0.0/2", "192.0.0.0/2"], false, true),
        (&["128.0.0.0/2", "0.0.0.0/2"], true, true),
        (&["::/0"], true, false),
        (&["8000::/1", "10.0.0.0/8"], true, false),
        (&["::/0", "junk"], true, true),
    ] {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let spec = serde_json::json!({"spec": {"loadBalancerSourceRanges": ranges}});
        let service: Service = serde_json::from_value(spec).unwrap();
        let limited = [Family::IPv4, Family::IPv6].map(|family| are_limited(&service, family));
        assert_eq!(limited, [v4, v6], "{ranges:?}");
    }
}
