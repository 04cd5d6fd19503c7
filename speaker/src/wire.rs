//! Bytes on the LAN, and between the speaker and its kernel, and the values that they mean.
//!
//! Each protocol has a checked view of borrowed bytes, which promises that every field can be read, and
//! a plain value (`…Repr`) that is parsed from the view and emitted as bytes. Nothing that arrives can
//! make parsing panic; what is not exactly as it must be is an error, and its sender is ignored.

pub mod arp;
pub mod bfd;
pub mod bfd_auth;
pub mod echo;
pub mod ethernet;
pub mod ndp;
pub mod netlink;
pub mod nflog;
pub mod nftables;
pub mod speech;

#[cfg(test)]
mod tests;

/// Why bytes are not understood. They are dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the fields need, or than a length field promises.
    #[error("truncated")]
    Truncated,
    /// An Ethernet type that is not ours to read; a VLAN tag is such a one (IEEE 802.1Q).
    #[error("not an Ethernet type of ours")]
    EtherType,
    /// Not ARP for IPv4 over Ethernet, or neither request nor reply (RFC 826).
    #[error("not ARP for IPv4 over Ethernet")]
    NotArp,
    /// Not ICMPv6 neighbour discovery directly in an IPv6 packet.
    #[error("not neighbour discovery")]
    NotNeighborDiscovery,
    /// A hop limit other than 255: a router has passed it on (RFC 4861 section 7.1).
    #[error("a router has passed it on")]
    HopLimit,
    /// A wrong checksum.
    #[error("wrong checksum")]
    Checksum,
    /// Neighbour discovery that breaks a rule of RFC 4861 section 7.1, such as an option of length zero.
    #[error("invalid neighbour discovery")]
    InvalidNeighborDiscovery,
    /// Not the speakers' protocol, or a version that this speaker does not know.
    #[error("not the speakers' protocol")]
    NotSpeech,
    /// The speakers' protocol with a value that has no meaning.
    #[error("invalid speech")]
    InvalidSpeech,
}
