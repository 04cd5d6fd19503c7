//! Addresses as pools speak of them: a range of one family, and sets of ranges.
//!
//! Every operation costs time by the number of ranges, never by the number of
//! addresses, so a /64 is as cheap as a /24.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use rangemap::RangeInclusiveSet;
use serde::{Deserialize, Serialize};

/// The family of an address, spelled as Kubernetes spells it in `spec.ipFamilies`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[schemars(inline)]
pub enum Family {
    /// Four bytes, resolved by ARP.
    IPv4,
    /// Sixteen bytes, resolved by neighbour discovery.
    IPv6,
}

impl Family {
    /// The family that `address` belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::IPv4,
            IpAddr::V6(_) => Self::IPv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        })
    }
}

/// Why a text is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither `network/length` nor `first-last`.
    #[error(
        "'{0}' is neither a CIDR such as 192.168.10.0/24 nor a range such as 192.168.10.50-192.168.10.99"
    )]
    NotARange(String),
    /// A part of the text is not an address.
    #[error("'{0}' is not an IPv4 or IPv6 address")]
    NotAnAddress(String),
    /// The network address has bits beyond the prefix length.
    #[error("'{given}' has host bits set: write {network} for the network or {host} for the one address")]
    HostBits {
        /// The text as written.
        given: String,
        /// The network it lies in.
        network: IpNet,
        /// The single address, as a CIDR.
        host: IpNet,
    },
    /// The first address is greater than the last.
    #[error("the first address {first} is after the last address {last}")]
    FirstAfterLast {
        /// The first address as written.
        first: IpAddr,
        /// The last address as written.
        last: IpAddr,
    },
    /// The two ends belong to different families.
    #[error("{first} and {last} belong to different families: one range holds IPv4 or IPv6, not both")]
    MixedFamilies {
        /// The first address as written.
        first: IpAddr,
        /// The last address as written.
        last: IpAddr,
    },
    /// `::ffff:a.b.c.d`: an IPv4 address in an IPv6 form (RFC 4291 section 2.5.5.2).
    #[error("{0} is an IPv4-mapped IPv6 address: write the IPv4 address")]
    Mapped(Ipv6Addr),
}

/// A non-empty run of addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// The range from `first` to `last`.
    ///
    /// # Errors
    /// The families differ, or `first` is greater than `last`.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        if Family::of(first) != Family::of(last) {
            return Err(RangeError::MixedFamilies { first, last });
        }
        if first > last {
            return Err(RangeError::FirstAfterLast { first, last });
        }
        Ok(Self { first, last })
    }

    /// The range that holds `address` alone.
    pub fn single(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of every address in the range.
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && self.first <= address && address <= self.last
    }
}

impl From<IpNet> for AddressRange {
    /// Every address of the network, its lowest and highest included.
    fn from(network: IpNet) -> Self {
        Self { first: network.network(), last: network.broadcast() }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        if let Some((first, last)) = text.split_once('-') {
            return Self::new(parse_address(first)?, parse_address(last)?);
        }
        let Some((address, length)) = text.split_once('/') else {
            return Err(RangeError::NotARange(text.to_owned()));
        };
        let address = parse_address(address)?;
        let network = length
            .parse::<u8>()
            .ok()
            .and_then(|length| IpNet::new(address, length).ok())
            .ok_or_else(|| RangeError::NotARange(text.to_owned()))?;
        if network.trunc() != network {
            return Err(RangeError::HostBits {
                given: text.to_owned(),
                network: network.trunc(),
                host: IpNet::from(address),
            });
        }
        Ok(network.into())
    }
}

impl fmt::Display for AddressRange {
    /// A CIDR where the range is one, `first-last` otherwise; parsing gives the same range back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differing = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => 32 - (first.to_bits() ^ last.to_bits()).leading_zeros(),
            (IpAddr::V6(first), IpAddr::V6(last)) => 128 - (first.to_bits() ^ last.to_bits()).leading_zeros(),
            _ => 0,
        };
        let width = if self.family() == Family::IPv4 { 32 } else { 128 };
        match u8::try_from(width - differing).ok().and_then(|length| IpNet::new(self.first, length).ok()) {
            Some(network) if Self::from(network) == *self => write!(f, "{network}"),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Parses an address as a person may write it, refusing IPv4-mapped IPv6.
///
/// # Errors
/// The text is no address, or an IPv4-mapped one.
pub fn parse_address(text: &str) -> Result<IpAddr, RangeError> {
    match text.trim().parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => Err(RangeError::Mapped(v6)),
        Ok(address) => Ok(address),
        Err(_) => Err(RangeError::NotAnAddress(text.to_owned())),
    }
}

/// A set of addresses of both families, kept as disjoint ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: RangeInclusiveSet<u32>,
    v6: RangeInclusiveSet<u128>,
}

impl AddressSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no address is in the set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Adds every address of `range`.
    pub fn insert(&mut self, range: AddressRange) {
        match (range.first, range.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.insert(first.to_bits()..=last.to_bits()),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.v6.insert(first.to_bits()..=last.to_bits()),
            _ => {}
        }
    }

    /// Takes every address of `range` away.
    pub fn remove(&mut self, range: AddressRange) {
        match (range.first, range.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.remove(first.to_bits()..=last.to_bits()),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.v6.remove(first.to_bits()..=last.to_bits()),
            _ => {}
        }
    }

    /// Adds every address of `other`.
    pub fn union(&mut self, other: &Self) {
        for range in other.ranges() {
            self.insert(range);
        }
    }

    /// Takes every address of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        for range in other.ranges() {
            self.remove(range);
        }
    }

    /// Whether `address` is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(&v4.to_bits()),
            IpAddr::V6(v6) => self.v6.contains(&v6.to_bits()),
        }
    }

    /// The lowest address of `family`, at a cost that does not depend on how many there are.
    pub fn first(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::IPv4 => self.v4.first().map(|range| Ipv4Addr::from_bits(*range.start()).into()),
            Family::IPv6 => self.v6.first().map(|range| Ipv6Addr::from_bits(*range.start()).into()),
        }
    }

    /// How many addresses of `family` there are, saturating at `i64::MAX`, which is
    /// the largest count that a Kubernetes integer can carry.
    pub fn count(&self, family: Family) -> i64 {
        let total = match family {
            Family::IPv4 => {
                self.v4.iter().map(|range| u128::from(range.end() - range.start()) + 1).sum::<u128>()
            }
            Family::IPv6 => self.v6.iter().fold(0_u128, |sum, range| {
                sum.saturating_add((range.end() - range.start()).saturating_add(1))
            }),
        };
        i64::try_from(total).unwrap_or(i64::MAX)
    }

    /// The ranges of the set, IPv4 first, ascending, none touching another.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        let v4 = self.v4.iter().map(|range| AddressRange {
            first: Ipv4Addr::from_bits(*range.start()).into(),
            last: Ipv4Addr::from_bits(*range.end()).into(),
        });
        let v6 = self.v6.iter().map(|range| AddressRange {
            first: Ipv6Addr::from_bits(*range.start()).into(),
            last: Ipv6Addr::from_bits(*range.end()).into(),
        });
        v4.chain(v6)
    }

    /// The addresses that both sets hold.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut outside = self.clone();
        outside.subtract(other);
        let mut both = self.clone();
        both.subtract(&outside);
        both
    }
}

impl FromIterator<AddressRange> for AddressSet {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_prints_as_it_is_read() {
        for text in [
            "192.168.10.0/24",
            "10.0.0.5/32",
            "192.168.10.50-192.168.10.99",
            "fd00::/64",
            "fd00::10-fd00::1f1",
            "0.0.0.0/0",
            "::/0",
        ] {
            assert_eq!(range(text).to_string(), text);
        }
    }

    #[test]
    fn a_range_that_is_a_network_prints_as_one() {
        assert_eq!(range("10.0.0.0-10.0.0.255").to_string(), "10.0.0.0/24");
        assert_eq!(range("10.0.0.7-10.0.0.7").to_string(), "10.0.0.7/32");
    }

    #[test]
    fn bad_ranges_say_what_is_wrong() {
        for (text, sentence) in [
            ("pool", "neither a CIDR"),
            ("10.0.0.1", "neither a CIDR"),
            ("10.0.0.0/33", "neither a CIDR"),
            ("10.0.0.300/24", "'10.0.0.300' is not an IPv4 or IPv6 address"),
            ("10.0.0.5/24", "write 10.0.0.0/24 for the network or 10.0.0.5/32"),
            ("10.0.0.9-10.0.0.1", "10.0.0.9 is after the last address 10.0.0.1"),
            ("10.0.0.9-fd00::1", "different families"),
            ("::ffff:10.0.0.1-::ffff:10.0.0.9", "IPv4-mapped"),
        ] {
            let error = text.parse::<AddressRange>().unwrap_err().to_string();
            assert!(error.contains(sentence), "{text}: {error}");
        }
    }

    #[test]
    fn counting_everything_saturates() {
        let everything: AddressSet = [range("::/0"), range("0.0.0.0/0")].into_iter().collect();
        assert_eq!(everything.count(Family::IPv6), i64::MAX);
        assert_eq!(everything.count(Family::IPv4), 1 << 32);
    }

    #[test]
    fn the_lowest_free_address_skips_what_is_taken() {
        let mut free: AddressSet = [range("10.0.0.0/8")].into_iter().collect();
        free.remove(range("10.0.0.0/9"));
        free.remove(range("10.128.0.0/32"));
        assert_eq!(free.first(Family::IPv4), Some("10.128.0.1".parse().unwrap()));
        assert_eq!(free.first(Family::IPv6), None);
    }

    fn small_range() -> impl Strategy<Value = AddressRange> {
        (any::<bool>(), 0_u8..60, 0_u8..60).prop_map(|(v4, a, b)| {
            let (first, last) = (a.min(b), a.max(b));
            if v4 {
                range(&format!("10.0.0.{first}-10.0.0.{last}"))
            } else {
                range(&format!("fd00::{first:x}-fd00::{last:x}"))
            }
        })
    }

    proptest! {
        /// The set agrees with the plain model: a list of operations replayed for one address.
        #[test]
        fn a_set_holds_what_was_inserted_and_not_removed(
            operations in prop::collection::vec((any::<bool>(), small_range()), 0..24),
            probe in small_range(),
        ) {
            let mut set = AddressSet::new();
            let mut held = false;
            for (insert, range) in operations {
                if insert { set.insert(range) } else { set.remove(range) }
                if range.contains(probe.first()) { held = insert; }
            }
            prop_assert_eq!(set.contains(probe.first()), held);
            let listed = set.ranges().any(|range| range.contains(probe.first()));
            prop_assert_eq!(listed, held);
        }

        #[test]
        fn any_range_survives_print_and_parse(range in small_range()) {
            prop_assert_eq!(range.to_string().parse::<AddressRange>().unwrap(), range);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,60}") {
            let _ = text.parse::<AddressRange>();
        }
    }
}
