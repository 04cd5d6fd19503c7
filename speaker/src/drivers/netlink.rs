//! Watches the node's links, addresses and default routes over rtnetlink(7).
//!
//! It subscribes first and dumps second, and dumps again after every change, so that it can miss
//! nothing: neither what happens between the two, nor what the kernel dropped when its queue was full.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::interfaces::{self, RawLink};
use crate::lan::{Link, MacAddr};

/// Changes that come within this time of the first are answered by one dump.
const SETTLE: Duration = Duration::from_millis(20);
/// The shortest time between two dumps, for nodes on which routes change all the time.
const PACE: Duration = Duration::from_millis(100);
/// How long to wait before netlink is opened again after a failure.
const REOPEN: Duration = Duration::from_secs(1);
/// How long a dump may take.
const DUMP_LIMIT: Duration = Duration::from_secs(10);

/// What the speaker wants to know of the node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The links to announce on.
    pub links: Vec<Link>,
    /// The node's own addresses on all links that answer ARP or neighbour discovery for them. Those on
    /// others, such as the dummy of kube-proxy's IPVS mode, may well be ours to announce.
    pub addresses: Vec<IpAddr>,
    /// The next hops of default routes.
    pub gateways: Vec<IpAddr>,
}

impl Network {
    /// The addresses of this node and its gateways, and those of everybody on its subnets.
    pub fn stations(&self) -> BTreeSet<IpAddr> {
        let on_links = self.links.iter().flat_map(|link| link.addresses.iter().map(IpNet::addr));
        let broadcasts = self.links.iter().flat_map(Link::broadcasts);
        on_links
            .chain(broadcasts)
            .chain(self.addresses.iter().copied())
            .chain(self.gateways.iter().copied())
            .collect()
    }
}

/// What a dump of the kernel's tables holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// All links.
    pub links: Vec<RawLink>,
    /// The next hops of default routes, each once.
    pub gateways: Vec<IpAddr>,
}

/// Netlink failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be opened.
    #[error("cannot subscribe to changes of the network: {0}")]
    Open(#[source] std::io::Error),
    /// A dump failed.
    #[error("cannot list the network: {0}")]
    Dump(#[from] rtnetlink::Error),
    /// A dump did not end.
    #[error("listing the network took longer than {} s", DUMP_LIMIT.as_secs())]
    Slow,
    /// The connection ended.
    #[error("the subscription to changes of the network ended")]
    Ended,
}

/// Watches for ever and tells of every change that matters, first of how things are.
///
/// `flag` and `named` say which links are meant; see [`interfaces::choose`].
pub async fn watch(
    flag: Vec<String>,
    mut named: watch::Receiver<BTreeSet<String>>,
    mut tell: impl FnMut(Network),
) {
    let mut told = None;
    loop {
        let error = watch_once(&flag, &mut named, &mut told, &mut tell).await;
        if let Err(error) = error {
            tracing::warn!(%error, "netlink failed; it is opened again");
        }
        sleep(REOPEN).await;
    }
}

async fn watch_once(
    flag: &[String],
    named: &mut watch::Receiver<BTreeSet<String>>,
    told: &mut Option<Network>,
    tell: &mut impl FnMut(Network),
) -> Result<(), Error> {
    let (connection, handle, mut changes) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ])
    .map_err(Error::Open)?;
    // Ends with this function, whatever way it ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut tables = None;
    loop {
        let next_dump = Instant::now() + PACE;
        let stale = match &tables {
            Some(tables) => tables,
            None => {
                let dumped = timeout(DUMP_LIMIT, dump(&handle)).await.map_err(|_| Error::Slow)??;
                tables.insert(dumped)
            }
        };
        let network = Network {
            links: interfaces::choose(&stale.links, flag, &named.borrow_and_update()),
            addresses: own_addresses(&stale.links),
            gateways: stale.gateways.clone(),
        };
        if told.as_ref() != Some(&network) {
            *told = Some(network.clone());
            tell(network);
        }
        tokio::select! {
            changed = next_change(&mut changes) => {
                if !changed {
                    return Err(Error::Ended);
                }
                sleep(SETTLE).await;
                sleep_until(next_dump).await;
                while changes.try_recv().is_ok() {}
                tables = None;
            }
            // The sender outlives this future, so an error cannot come; if it did, waiting is right.
            Ok(()) = named.changed() => {}
        }
    }
}

/// Waits for a message that may change the answer. False where no further one can come.
async fn next_change(
    changes: &mut UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
) -> bool {
    while let Some((message, _)) = changes.next().await {
        match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
            ) if !is_default_route(&route.header) => {}
            _ => return true,
        }
    }
    false
}

/// Asks the kernel for everything.
///
/// # Errors
/// The kernel refuses one of the requests.
pub async fn dump(handle: &Handle) -> Result<Tables, rtnetlink::Error> {
    let links = handle.link().get().set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
    let mut tables = Tables::default();
    let mut links = links.execute();
    while let Some(message) = links.try_next().await? {
        tables.links.push(raw_link(&message));
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let Some(address) = usable_address(&message) else { continue };
        if let Some(link) = tables.links.iter_mut().find(|link| link.index == message.header.index) {
            link.addresses.push(address);
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request: RouteMessage = RouteMessageBuilder::<IpAddr>::new().build();
        request.header.address_family = family;
        let mut routes = handle.route().get(request).execute();
        while let Some(route) = routes.try_next().await? {
            if is_default_route(&route.header) {
                add_default_route(&mut tables, &route);
            }
        }
    }
    Ok(tables)
}

fn own_addresses(links: &[RawLink]) -> Vec<IpAddr> {
    let answering = links.iter().filter(|link| !link.loopback && !link.no_arp);
    let mut addresses: Vec<_> =
        answering.flat_map(|link| link.addresses.iter().map(ipnet::IpNet::addr)).collect();
    addresses.sort_unstable();
    addresses
}

fn raw_link(message: &LinkMessage) -> RawLink {
    let flags = message.header.flags;
    let mut link = RawLink {
        index: message.header.index,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        loopback: flags.contains(LinkFlags::Loopback),
        no_arp: flags.contains(LinkFlags::Noarp),
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        ..RawLink::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(MacAddr),
            LinkAttribute::Controller(master) => link.master = (*master != 0).then_some(*master),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

/// The address and prefix length that a message tells of, if the node may use it.
fn usable_address(message: &AddressMessage) -> Option<IpNet> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Flags(all) => flags |= *all,
            AddressAttribute::Local(own) => local = Some(*own),
            // The peer's address on point-to-point links, our own elsewhere.
            AddressAttribute::Address(own) => address = Some(*own),
            _ => {}
        }
    }
    if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
        && !flags.contains(AddressFlags::Optimistic)
    {
        return None;
    }
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

/// Whether it is a route of the main table to everywhere.
fn is_default_route(route: &RouteHeader) -> bool {
    route.destination_prefix_length == 0
        && route.table == RouteHeader::RT_TABLE_MAIN
        && route.kind == RouteType::Unicast
}

fn add_default_route(tables: &mut Tables, route: &RouteMessage) {
    let mut hops = vec![hop(&route.attributes, None)];
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(paths) = attribute {
            hops.extend(paths.iter().map(|path| hop(&path.attributes, Some(path.interface_index))));
        }
    }
    for (gateway, index) in hops {
        tables.gateways.extend(gateway.filter(|gateway| !tables.gateways.contains(gateway)));
        if let Some(link) = tables.links.iter_mut().find(|link| Some(link.index) == index) {
            link.default_route = true;
        }
    }
}

/// The gateway and the outgoing link that attributes tell of.
fn hop(attributes: &[RouteAttribute], mut index: Option<u32>) -> (Option<IpAddr>, Option<u32>) {
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(RouteAddress::Inet(v4)) | RouteAttribute::Via(RouteVia::Inet(v4)) => {
                gateway = Some(IpAddr::V4(*v4));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(v6)) | RouteAttribute::Via(RouteVia::Inet6(v6)) => {
                gateway = Some(IpAddr::V6(*v6));
            }
            _ => {}
        }
    }
    (gateway, index)
}
