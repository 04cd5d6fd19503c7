//! Which addresses an exposed name may lead to. Judged at every look, since DNS may give another answer each time
//! (DNS rebinding), and the cluster's own addresses change.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What an address is that no endpoint may be, whatever a pool lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// 0.0.0.0/8 (RFC 1122 section 3.2.1.3), `::`.
    Unspecified,
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// 169.254.0.0/16, where clouds have their metadata services; `fe80::/10`.
    LinkLocal,
    /// 224.0.0.0/4, `ff00::/8`.
    Multicast,
    /// 240.0.0.0/4, 255.255.255.255 among them.
    Reserved,
    /// An IPv6 address that stands for an IPv4 one: mapped and compatible (RFC 4291 section 2.5.5), NAT64 (RFC 6052,
    /// RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214).
    Translated,
}

impl Special {
    /// What the address is, if it is one of these.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Option<Self> {
        match address.octets() {
            [0, ..] => Some(Self::Unspecified),
            [127, ..] => Some(Self::Loopback),
            [169, 254, ..] => Some(Self::LinkLocal),
            [224..=239, ..] => Some(Self::Multicast),
            [240..=255, ..] => Some(Self::Reserved),
            _ => None,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Option<Self> {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Some(Self::Unspecified),
            [0, 0, 0, 0, 0, 0, 0, 1] => Some(Self::Loopback),
            // fec0::/10 was site-local, and is still treated so by some.
            [0xfe80..=0xfeff, ..] => Some(Self::LinkLocal),
            [0xff00..=0xffff, ..] => Some(Self::Multicast),
            // Mapped, compatible, and the translated form of RFC 2765.
            [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(Self::Translated),
            [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(Self::Translated),
            [0x2002, ..] | [0x2001, 0, ..] => Some(Self::Translated),
            [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Some(Self::Translated),
            _ => None,
        }
    }
}

/// Whose an address is within the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// It lies where the cluster has its ClusterIPs.
    Service,
    /// It lies where the cluster has its pods.
    Pod,
    /// It is a node's.
    Node,
    /// It is one that Landfall has granted.
    VirtualIp,
}

/// Why an exposed name may not lead to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No endpoint may be that.
    Special(Special),
    /// It is the cluster's own, and no pool names it alone.
    Own(Own),
    /// No pool in question lists it.
    NotListed,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Special(Special::Unspecified) => "is no address of a host",
            Self::Special(Special::Loopback) => "is a loopback address",
            Self::Special(Special::LinkLocal) => "is a link-local address, as clouds' metadata services have",
            Self::Special(Special::Multicast) => "is a multicast address",
            Self::Special(Special::Reserved) => "is a reserved address",
            Self::Special(Special::Translated) => "is an IPv4 address in the form of an IPv6 one",
            Self::Own(Own::Service) => "is an address of a Service of this cluster",
            Self::Own(Own::Pod) => "is an address of a pod of this cluster",
            Self::Own(Own::Node) => "is an address of a node of this cluster",
            Self::Own(Own::VirtualIp) => "is an address of a load balancer of this cluster",
            Self::NotListed => "is in externalTargets of no pool that serves the Service",
        })
    }
}

/// Whether a name may lead to an address. `listed` is what pools list as `externalTargets`; the cluster's own addresses
/// count only where one is listed alone.
///
/// # Errors
/// It may not.
pub fn judge(address: IpAddr, own: Option<Own>, listed: &[IpNet]) -> Result<(), Denied> {
    if let Some(special) = Special::of(address) {
        return Err(Denied::Special(special));
    }
    let mut naming = listed.iter().filter(|network| network.contains(&address));
    match own {
        Some(_) if naming.clone().any(|network| network.prefix_len() == network.max_prefix_len()) => Ok(()),
        Some(own) => Err(Denied::Own(own)),
        None => naming.next().map(|_| ()).ok_or(Denied::NotListed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn everything() -> Vec<IpNet> {
        vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]
    }

    #[test]
    fn what_no_endpoint_may_be_is_denied_even_where_everything_is_listed_and_even_by_name() {
        for (text, special) in [
            ("0.0.0.0", Special::Unspecified),
            ("0.1.2.3", Special::Unspecified),
            ("127.0.0.1", Special::Loopback),
            ("127.255.255.254", Special::Loopback),
            ("169.254.169.254", Special::LinkLocal),
            ("224.0.0.1", Special::Multicast),
            ("239.255.255.255", Special::Multicast),
            ("240.0.0.1", Special::Reserved),
            ("255.255.255.255", Special::Reserved),
            ("::", Special::Unspecified),
            ("::1", Special::Loopback),
            ("fe80::1", Special::LinkLocal),
            ("fec0::1", Special::LinkLocal),
            ("ff02::1", Special::Multicast),
            ("::ffff:169.254.169.254", Special::Translated),
            ("::ffff:192.0.2.1", Special::Translated),
            ("::127.0.0.1", Special::Translated),
            ("::ffff:0:127.0.0.1", Special::Translated),
            ("64:ff9b::a9fe:a9fe", Special::Translated),
            ("64:ff9b:1::7f00:1", Special::Translated),
            ("2002:7f00:1::", Special::Translated),
            ("2001::7f00:1", Special::Translated),
            ("2001:db8::5efe:127.0.0.1", Special::Translated),
        ] {
            let address: IpAddr = text.parse().unwrap();
            let mut listed = everything();
            listed.push(IpNet::from(address));
            assert_eq!(judge(address, None, &listed), Err(Denied::Special(special)), "{text}");
        }
    }

    #[test]
    fn the_clusters_own_addresses_must_be_listed_one_by_one() {
        let node: IpAddr = "192.0.2.11".parse().unwrap();
        assert_eq!(judge(node, Some(Own::Node), &everything()), Err(Denied::Own(Own::Node)));
        assert_eq!(judge(node, Some(Own::Node), &["192.0.2.11/32".parse().unwrap()]), Ok(()));
        assert_eq!(judge(node, None, &everything()), Ok(()));
    }

    #[test]
    fn what_is_not_listed_is_denied() {
        let listed = ["192.0.2.0/28".parse().unwrap(), "2001:db8:7::/48".parse().unwrap()];
        for (text, expected) in [
            ("192.0.2.15", Ok(())),
            ("192.0.2.16", Err(Denied::NotListed)),
            ("2001:db8:7::9", Ok(())),
            ("2001:db8:8::9", Err(Denied::NotListed)),
        ] {
            assert_eq!(judge(text.parse().unwrap(), None, &listed), expected, "{text}");
        }
        assert_eq!(
            judge("192.0.2.1".parse().unwrap(), None, &[]),
            Err(Denied::NotListed),
            "by default nothing is"
        );
    }

    proptest! {
        /// No IPv4 address that is denied has a form in IPv6 that is allowed.
        #[test]
        fn an_address_does_not_slip_through_in_another_form(bits in any::<u32>()) {
            let [a, b, c, d] = bits.to_be_bytes().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            for form in [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert!(Special::of(form.into()).is_some(), "{form}");
            }
        }
    }
}
