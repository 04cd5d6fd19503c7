//! The words between the mind and whoever drives it: events in, actions out.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use crate::draining::Detour;
use crate::lan::{Link, LinkIndex, MacAddr, NodeName, PeerInfo, Vip};
use crate::ownership::gates::Gates;
use crate::seal::Keyring;
use crate::succession::Inheritance;
use crate::wire::ethernet::EmittedFrame;

/// What happens to a speaker.
#[derive(Clone, Debug)]
pub enum Event {
    /// All interfaces of the node that could announce, whenever anything about them changed.
    Links(Vec<Link>),
    /// All addresses of the node, on whatever interface, whenever they changed. They are never announced.
    OwnAddresses(Vec<IpAddr>),
    /// All next hops of default routes, whenever they changed. They are never announced.
    Gateways(Vec<IpAddr>),
    /// All other speakers, whenever anything about them changed.
    Peers(Vec<PeerInfo>),
    /// All addresses to look after, after a complete list; those missing here are gone.
    Vips(Vec<Vip>),
    /// One address to look after is new or changed.
    Vip(Vip),
    /// The object of an address is gone from the API.
    VipGone(IpAddr),
    /// An Ethernet frame of ARP, or of IPv6 neighbour discovery, came in on a link.
    Frame {
        /// Where it came in.
        link: LinkIndex,
        /// When the kernel received it.
        at: Instant,
        /// The whole frame, from the destination MAC on, as it came: nothing is checked yet.
        frame: Vec<u8>,
    },
    /// A datagram of the speakers' own protocol came in.
    Datagram {
        /// Where it came in.
        link: LinkIndex,
        /// When the kernel received it.
        at: Instant,
        /// The address of its sender.
        from: IpAddr,
        /// IPv4 TTL or IPv6 hop limit on arrival. Only 255 is believed: no router has passed it on
        /// (RFC 5082).
        ttl: u8,
        /// Its payload, unchecked.
        payload: Vec<u8>,
    },
    /// The kernel of a station said that nobody listens where a datagram was sent (RFC 1122 section 3.2.2.1,
    /// RFC 4443 section 3.1: port unreachable).
    NobodyListens {
        /// Where the datagram was sent.
        link: LinkIndex,
        /// To whom.
        to: IpAddr,
    },
    /// What the node lacks to serve what it announces, whenever that changed.
    Gates(Gates),
    /// At these ports kube-proxy says that there is no endpoint on this node, whenever that changed.
    Unfit(BTreeSet<u16>),
    /// The kernel enforces these guards at these addresses, as [`Vip::guard`] names them, or none any more; whenever
    /// that changed.
    Guarded(Vec<(IpAddr, Option<Arc<str>>)>),
    /// Speakers prove to each other by these keys who they are, from now on; or not at all.
    Keys(Option<Arc<Keyring>>),
    /// The time that `next_deadline` named has come.
    Deadline,
    /// Go on as a former process of this node, which ended just now. To be told before the links.
    Inherit(Box<Inheritance>),
    /// Another process of this node goes on: answer with [`Action::Ceded`] and do nothing ever after.
    Cede,
    /// [`Action::KeepConnections`] is done.
    ConnectionsKept(IpAddr),
    /// Leave: hand every address over and answer with [`Action::Left`] when that is done.
    Leave,
}

/// What a speaker wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this Ethernet frame on a link.
    SendFrame {
        /// The link.
        link: LinkIndex,
        /// The whole frame.
        frame: EmittedFrame,
    },
    /// Send this datagram of the speakers' own protocol, with TTL 255, from the link's address.
    SendDatagram {
        /// The link to send on.
        link: LinkIndex,
        /// The address to send to.
        to: IpAddr,
        /// The payload.
        payload: Vec<u8>,
    },
    /// Listen to an IPv6 multicast group, so that snooping switches pass it on (RFC 4541).
    JoinGroup {
        /// On this link.
        link: LinkIndex,
        /// The solicited-node group of an address (RFC 4291 section 2.7.1).
        group: Ipv6Addr,
    },
    /// Listen to it no more.
    LeaveGroup {
        /// On this link.
        link: LinkIndex,
        /// The group.
        group: Ipv6Addr,
    },
    /// Send on what belongs to connections that this node does not know, and say so with
    /// [`Event::ConnectionsKept`].
    KeepConnections(Detour),
    /// Send on nothing more of the address.
    DropConnections(IpAddr),
    /// Tell the world: it goes into objects, events, metrics and logs.
    Report(Report),
    /// What the other process needs; nothing follows any more.
    Ceded(Box<Inheritance>),
    /// Leaving is done; the process may end.
    Left,
}

/// What a speaker tells the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// This node answers for the address from now on, or still does with another interface, hardware
    /// address, term or epoch.
    Announcing {
        /// The address.
        address: IpAddr,
        /// The name of the interface.
        interface: String,
        /// The MAC address that it answers with.
        mac: MacAddr,
        /// The term under which it does.
        term: u64,
        /// The epoch under which it does.
        epoch: i64,
    },
    /// This node answers for the address no more.
    Withdrawn {
        /// The address.
        address: IpAddr,
        /// Why.
        reason: Withdrawal,
    },
    /// This node will not announce an address that it was asked to.
    Refused {
        /// The address.
        address: IpAddr,
        /// Why.
        reason: Refusal,
    },
    /// A refusal is over.
    NoLongerRefused {
        /// The address.
        address: IpAddr,
    },
    /// A station that is no speaker uses the address.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// The station's MAC address.
        mac: MacAddr,
    },
    /// No such station has been heard for a while.
    AddressConflictOver {
        /// The address.
        address: IpAddr,
    },
    /// A peer came alive on a link, or is alive there no more.
    Peer {
        /// The peer.
        node: NodeName,
        /// The interface's name.
        interface: String,
        /// Whether it is alive.
        alive: bool,
    },
}

/// Why a node answers for an address no more. The variant's name is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Withdrawal {
    /// No Service claims it any more, or its object is gone.
    Released,
    /// Another node's claim goes before ours.
    Superseded,
    /// It was handed over because this speaker leaves.
    Left,
    /// The link went down or away, or this node is no candidate any more.
    NotEligible,
    /// The speaker refuses the address; see [`Refusal`].
    Refused,
}

/// Why a node refuses to announce an address, whatever the API says. The variant's name is a metric
/// label and the reason of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is one of this node's own addresses.
    OwnAddress,
    /// It is an address of another speaker's node.
    PeerAddress,
    /// It is a gateway of this node.
    GatewayAddress,
    /// It is unspecified, loopback, link-local, multicast, or a subnet's broadcast address.
    SpecialAddress,
    /// The kernel does not enforce its source ranges.
    NotGuarded,
}
