//! Who may come in, as the kernel's sets hold it.
//!
//! The kernel finds a source by looking the network that it lies in up in a hash, once for each prefix
//! length that occurs. So that it never has to look more often than 9 times for IPv4 and 33 times for IPv6,
//! only lengths that are multiples of four occur: a network of any other length is written as the 2, 4 or 8
//! networks that it consists of.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Prefix lengths are multiples of this.
const STEP: u8 = 4;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a network.
    pub fn of_net(net: &IpNet) -> Self {
        Self::of(net.addr())
    }

    /// How many bits an address has.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// All addresses.
    pub fn everyone(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
            Self::V6 => Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// Networks of either family, in order, that do not overlap and whose prefix lengths are multiples of four.
///
/// Cheap to clone: the same list is held wherever the same sources are let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sources(Arc<[IpNet]>);

impl Default for Sources {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

/// A text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a range such as 10.0.0.0/8 or fd00::/8")]
pub struct NotARange(String);

impl Sources {
    /// Reads ranges as people write them: spaces around them, bits behind the prefix, duplicates and
    /// overlaps do no harm.
    ///
    /// # Errors
    /// One of them is none.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, NotARange> {
        let parse = |text: &str| text.trim().parse::<IpNet>().map_err(|_| NotARange(text.to_owned()));
        let nets: Vec<IpNet> = texts.into_iter().map(parse).collect::<Result<_, _>>()?;
        Ok(nets.into_iter().collect())
    }

    /// Everybody of a family.
    pub fn everyone(family: Family) -> Self {
        [family.everyone()].into_iter().collect()
    }

    /// The networks, in order.
    pub fn nets(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of one family.
    pub fn of(&self, family: Family) -> Self {
        if self.0.iter().all(|net| Family::of_net(net) == family) {
            return self.clone();
        }
        Self(self.0.iter().filter(|net| Family::of_net(net) == family).copied().collect())
    }

    /// Whether one of the networks is held as it is. That its addresses are let in may also follow from
    /// another one.
    pub fn holds(&self, net: &IpNet) -> bool {
        self.0.binary_search(net).is_ok()
    }

    /// The networks of this list that another does not hold.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpNet> + 'a {
        let same = Arc::ptr_eq(&self.0, &other.0);
        self.0.iter().filter(move |net| !same && !other.holds(net)).copied()
    }

    /// A list as the kernel holds it.
    pub(super) fn as_held(mut nets: Vec<IpNet>) -> Self {
        nets.sort_unstable();
        nets.dedup();
        Self(nets.into())
    }
}

impl FromIterator<IpNet> for Sources {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let nets: Vec<IpNet> = nets.into_iter().map(|net| net.trunc()).collect();
        Self::as_held(IpNet::aggregate(&nets).into_iter().flat_map(stepped).collect())
    }
}

/// The networks of a permitted length that a network consists of.
fn stepped(net: IpNet) -> Box<dyn Iterator<Item = IpNet>> {
    let length = net.prefix_len().next_multiple_of(STEP);
    match net {
        IpNet::V4(net) => Box::new(net.subnets(length).into_iter().flatten().map(IpNet::from)),
        IpNet::V6(net) => Box::new(net.subnets(length).into_iter().flatten().map(IpNet::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn texts(sources: &Sources) -> Vec<String> {
        sources.nets().iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check(written: &[&str], held: &[&str]) {
        assert_eq!(texts(&Sources::parse(written.iter().copied()).unwrap()), held, "{written:?}");
    }

    #[test]
    fn ranges_are_read_as_people_write_them() {
        check(&[], &[]);
        check(&["142.43.0.0/16"], &["142.43.0.0/16"]);
        check(&[" 10.1.2.3/8\t"], &["10.0.0.0/8"]);
        check(&["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"], &["10.0.0.0/8"]);
        check(&["0.0.0.0/0", "192.0.2.0/24"], &["0.0.0.0/0"]);
        check(&["::/0", "0.0.0.0/0"], &["0.0.0.0/0", "::/0"]);
        check(&["fd00::1/8", "192.0.2.7/32"], &["192.0.2.7/32", "fd00::/8"]);
    }

    #[test]
    fn other_prefix_lengths_are_written_as_the_networks_they_consist_of() {
        check(&["10.0.0.0/23"], &["10.0.0.0/24", "10.0.1.0/24"]);
        check(&["10.0.0.0/22"], &["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]);
        check(
            &["10.0.0.128/25"],
            &[
                "10.0.0.128/28",
                "10.0.0.144/28",
                "10.0.0.160/28",
                "10.0.0.176/28",
                "10.0.0.192/28",
                "10.0.0.208/28",
                "10.0.0.224/28",
                "10.0.0.240/28",
            ],
        );
        check(&["fd00::/63"], &["fd00::/64", "fd00:0:0:1::/64"]);
        check(
            &["::/1"],
            &["::/4", "1000::/4", "2000::/4", "3000::/4", "4000::/4", "5000::/4", "6000::/4", "7000::/4"],
        );
    }

    #[test]
    fn what_is_no_range_is_named() {
        for junk in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "localhost/8",
            "fd00::/129",
            "10.0.0.0/-1",
            "10.0.0.0/8,fd00::/8",
        ] {
            let error = Sources::parse(["192.0.2.0/24", junk]).unwrap_err();
            assert_eq!(error.to_string(), format!("'{junk}' is not a range such as 10.0.0.0/8 or fd00::/8"));
        }
    }

    #[test]
    fn families_are_told_apart() {
        let both = Sources::parse(["10.0.0.0/8", "fd00::/8"]).unwrap();
        assert_eq!(texts(&both.of(Family::V4)), ["10.0.0.0/8"]);
        assert_eq!(texts(&both.of(Family::V6)), ["fd00::/8"]);
        assert!(both.of(Family::V4).of(Family::V6).is_empty());
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<u32>(), 0..=32_u8).prop_map(|(bits, length)| {
                IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), length).unwrap()
            }),
            (any::<u128>(), 0..=128_u8).prop_map(|(bits, length)| {
                IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), length).unwrap()
            }),
        ]
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        ]
    }

    proptest! {
        #[test]
        fn the_very_same_addresses_are_let_in(
            nets in prop::collection::vec(any_net(), 0..20),
            addresses in prop::collection::vec(any_address(), 20),
        ) {
            let sources: Sources = nets.iter().copied().collect();
            prop_assert!(sources.nets().iter().all(|net| net.prefix_len() % STEP == 0 && net.trunc() == *net));
            prop_assert!(sources.nets().len() <= 8 * nets.len());
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for address in addresses.into_iter().chain(edges) {
                prop_assert_eq!(
                    sources.nets().iter().any(|net| net.contains(&address)),
                    nets.iter().any(|net| net.contains(&address)),
                );
            }
        }
    }
}
