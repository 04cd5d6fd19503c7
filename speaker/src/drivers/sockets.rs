//! The sockets of every link that the speaker announces on, opened and closed as links come and go.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::direct::{self, Directory};
use crate::lan::{Link, LinkIndex, MacAddr, PeerInfo};
use crate::mind::Report;
use crate::sys::Descriptors;
use crate::sys::datagram::DatagramSocket;
use crate::sys::groups::Groups;
use crate::sys::packet::{PacketSocket, Receives};

/// The longest frame or datagram that is looked at. What speakers say to each other fits into an
/// Ethernet frame; ARP and neighbour discovery are far shorter.
pub const LONGEST: usize = 2048;
/// How many frames of one link are read before the others get their turn.
const FRAMES: usize = 1024;
/// How many datagrams: all that the socket holds, for none of them must count as missing.
const DATAGRAMS: usize = 8192;

/// All sockets on the LAN.
#[derive(Debug)]
pub struct Sockets {
    port: u16,
    links: Vec<LinkSockets>,
    groups: Groups,
    directory: Directory,
}

#[derive(Debug)]
struct LinkSockets {
    index: LinkIndex,
    name: String,
    mac: MacAddr,
    carrier: bool,
    sender: PacketSocket,
    arp: PacketSocket,
    neighbours: PacketSocket,
    datagram: Option<(IpAddr, DatagramSocket)>,
    /// Whether other speakers could be listened to at least once, or there is no address to do so.
    usable: bool,
}

/// A link of which a socket could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The link's name.
    pub interface: String,
    /// What was tried and what the kernel said.
    pub message: String,
}

/// Names a socket among those that are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// ARP on the link of this position.
    Arp(usize),
    /// Neighbour discovery on it.
    Neighbours(usize),
    /// Datagrams on it.
    Datagram(usize),
    /// What kernels say of datagrams that were sent on it.
    Errors(usize),
}

impl Source {
    /// How much is read of it before the others get their turn.
    pub fn turn(self) -> usize {
        if matches!(self, Self::Datagram(_)) { DATAGRAMS } else { FRAMES }
    }
}

/// What was read from a socket into a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A frame of so many bytes, and when it came.
    Frame(LinkIndex, Instant, usize),
    /// A datagram with so many bytes of payload.
    Datagram {
        /// Where it came in.
        link: LinkIndex,
        /// When.
        at: Instant,
        /// Its sender.
        from: IpAddr,
        /// Its TTL or hop limit on arrival.
        ttl: u8,
        /// The length of its payload.
        length: usize,
    },
    /// A kernel says that nobody listens where a datagram was sent on the link.
    NobodyListens(LinkIndex, IpAddr),
    /// Something that is of no interest.
    Other,
    /// Nothing more waits.
    Nothing,
}

impl Sockets {
    /// None yet. Datagrams will go to and come from `port`.
    pub fn new(port: u16) -> Self {
        Self { port, links: Vec::new(), groups: Groups::default(), directory: Directory::default() }
    }

    /// Opens the raw sockets that `links` need, so that what comes in waits for [`Self::follow`]. What fails is
    /// tried again by that.
    pub fn prepare(&mut self, links: &[Link]) {
        for link in links {
            if self.links.iter().all(|sockets| sockets.index != link.index)
                && let Ok(sockets) = LinkSockets::open(link)
            {
                self.links.push(sockets);
            }
        }
    }

    /// Forgets what has come in.
    pub fn drain(&self, buffer: &mut [u8]) {
        for at in 0..self.links.len() {
            for source in [Source::Arp(at), Source::Neighbours(at), Source::Datagram(at)] {
                for _ in 0..source.turn() {
                    if matches!(self.receive(source, Instant::now(), buffer), Incoming::Nothing) {
                        break;
                    }
                }
            }
        }
    }

    /// Opens what `links` need and closes the rest. What could not be opened is told, and tried again
    /// by the next call.
    pub fn follow(&mut self, links: &[Link]) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.links.retain(|sockets| links.iter().any(|link| link.index == sockets.index));
        self.groups.keep_links(|index| links.iter().any(|link| link.index == index));
        for link in links {
            let mut problem = |what: &str, error: &io::Error| {
                let message = format!("cannot {what} on {}: {error}", link.name);
                problems.push(Problem { interface: link.name.clone(), message });
            };
            let sockets = match self.links.iter_mut().position(|sockets| sockets.index == link.index) {
                Some(at) => &mut self.links[at],
                None => match LinkSockets::open(link) {
                    Ok(sockets) => self.links.push_mut(sockets),
                    Err(error) => {
                        problem("open a raw socket", &error);
                        continue;
                    }
                },
            };
            if link.carrier && !sockets.carrier {
                self.directory.came_up();
            }
            sockets.name.clone_from(&link.name);
            sockets.mac = link.mac;
            sockets.carrier = link.carrier;
            let wanted = link.watched_at();
            if sockets.datagram.as_ref().map(|(address, _)| *address) != wanted {
                sockets.datagram = None;
                if let Some(address) = wanted {
                    match DatagramSocket::open(link.index, &link.name, address, self.port) {
                        Ok(socket) => sockets.datagram = Some((address, socket)),
                        Err(error) => problem(&format!("listen to other speakers at {address}"), &error),
                    }
                }
            }
            sockets.usable |= sockets.datagram.is_some() || wanted.is_none();
        }
        problems
    }

    /// Closes all but the memberships of groups, which another process needs as well: a switch that snoops would
    /// take a moment without any for the end of it.
    pub fn close(&mut self) {
        self.links.clear();
    }

    /// Whether the link can be announced on: a node that is deaf there from the start must not take
    /// part, for nobody would answer for what it claims, or two would.
    pub fn can_use(&self, link: LinkIndex) -> bool {
        self.links.iter().any(|sockets| sockets.index == link && sockets.usable)
    }

    /// Everything to wait for, and what each is.
    pub fn wait_for<'s>(&'s self, fds: &mut Descriptors<'s>, sources: &mut Vec<Source>) {
        // What speakers say goes first: whether a question on the LAN is to be answered may follow from it.
        for (at, link) in self.links.iter().enumerate() {
            if let Some((_, socket)) = &link.datagram {
                fds.extend([socket.as_fd(), socket.errors()]);
                sources.extend([Source::Datagram(at), Source::Errors(at)]);
            }
        }
        for (at, link) in self.links.iter().enumerate() {
            fds.extend([link.arp.as_fd(), link.neighbours.as_fd()]);
            sources.extend([Source::Arp(at), Source::Neighbours(at)]);
        }
    }

    /// Takes the next thing that waits on a socket. When it came is told by the kernel's stamp, which is not
    /// believed to be from before `since`: then the sockets were empty.
    pub fn receive(&self, source: Source, since: Instant, buffer: &mut [u8]) -> Incoming {
        let received = match source {
            Source::Arp(at) => self.frame(at, since, |link| &link.arp, buffer),
            Source::Neighbours(at) => self.frame(at, since, |link| &link.neighbours, buffer),
            Source::Datagram(at) => self.datagram(at, since, buffer),
            Source::Errors(at) => self.nobody_listens(at),
        };
        match received {
            Ok(incoming) => incoming.unwrap_or(Incoming::Other),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Incoming::Other,
            Err(error) => {
                // A link that went down leaves an error on its sockets, once. They live on.
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, "a socket told of an error");
                }
                self.clear_error(source);
                Incoming::Nothing
            }
        }
    }

    fn frame(
        &self,
        at: usize,
        since: Instant,
        which: fn(&LinkSockets) -> &PacketSocket,
        buffer: &mut [u8],
    ) -> io::Result<Option<Incoming>> {
        let link = self.links.get(at).ok_or(io::ErrorKind::WouldBlock)?;
        let received = which(link).receive(buffer)?;
        Ok(received.map(|got| Incoming::Frame(link.index, arrival(got.age, since), got.frame.len())))
    }

    fn datagram(&self, at: usize, since: Instant, buffer: &mut [u8]) -> io::Result<Option<Incoming>> {
        let link = self.links.get(at).ok_or(io::ErrorKind::WouldBlock)?;
        let (_, socket) = link.datagram.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        let received = socket.receive(buffer)?;
        Ok(received.map(|got| Incoming::Datagram {
            link: link.index,
            at: arrival(got.age, since),
            from: got.from,
            ttl: got.ttl,
            length: got.payload.len(),
        }))
    }

    fn nobody_listens(&self, at: usize) -> io::Result<Option<Incoming>> {
        let link = self.links.get(at).ok_or(io::ErrorKind::WouldBlock)?;
        let (_, socket) = link.datagram.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
        Ok(socket.nobody_listens()?.map(|to| Incoming::NobodyListens(link.index, to)))
    }

    fn clear_error(&self, source: Source) {
        let (Source::Arp(at) | Source::Neighbours(at) | Source::Datagram(at) | Source::Errors(at)) = source;
        let Some(link) = self.links.get(at) else { return };
        let error = match source {
            Source::Arp(_) => link.arp.clear_error(),
            Source::Neighbours(_) => link.neighbours.clear_error(),
            Source::Datagram(_) | Source::Errors(_) => {
                link.datagram.as_ref().and_then(|(_, socket)| socket.clear_error())
            }
        };
        if let Some(error) = error {
            tracing::debug!(%error, "an error lay on a socket");
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The link has no sockets (`NotConnected`), or see [`PacketSocket::send`].
    pub fn send_frame(&self, link: LinkIndex, frame: &[u8]) -> io::Result<()> {
        on(&self.links, link)?.sender.send(frame)
    }

    /// Sends a datagram; see [`direct`] for when it is sent twice.
    ///
    /// # Errors
    /// The link has no address yet (`NotConnected`), or see [`DatagramSocket::send`].
    pub fn send_datagram(
        &mut self,
        now: Instant,
        link: LinkIndex,
        to: IpAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        let link = on(&self.links, link)?;
        let (from, socket) = link.datagram.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let sent = socket.send(to, payload);
        let Some(mac) = self.directory.direct(now, &link.name, to) else { return sent };
        match direct::frame((link.mac, *from), (mac, to), (socket.source_port(), self.port), payload) {
            Some(frame) => link.sender.send(&frame).or(sent),
            None => sent,
        }
    }

    /// Learns where the peers are.
    pub fn set_peers(&mut self, peers: &[PeerInfo]) {
        self.directory.set_peers(peers);
    }

    /// Learns which of them live.
    pub fn note(&mut self, now: Instant, report: &Report) {
        self.directory.note(now, report);
    }

    /// Joins a multicast group; see [`Groups::join`].
    ///
    /// # Errors
    /// See [`Groups::join`].
    pub fn join(&mut self, link: LinkIndex, group: Ipv6Addr) -> io::Result<()> {
        self.groups.join(link, group)
    }

    /// Leaves a multicast group; see [`Groups::leave`].
    ///
    /// # Errors
    /// See [`Groups::leave`].
    pub fn leave(&mut self, link: LinkIndex, group: Ipv6Addr) -> io::Result<()> {
        self.groups.leave(link, group)
    }

    /// How many multicast groups are joined.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }
}

/// When something came in that the kernel received so long ago, and not before `since`.
fn arrival(age: Duration, since: Instant) -> Instant {
    Instant::now().checked_sub(age).map_or(since, |at| at.max(since))
}

fn on(links: &[LinkSockets], link: LinkIndex) -> io::Result<&LinkSockets> {
    links.iter().find(|sockets| sockets.index == link).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

impl LinkSockets {
    fn open(link: &Link) -> io::Result<Self> {
        let index = link.index;
        Ok(Self {
            index,
            name: link.name.clone(),
            mac: link.mac,
            carrier: false,
            sender: PacketSocket::open(index, Receives::Nothing)?,
            arp: PacketSocket::open(index, Receives::Arp)?,
            neighbours: PacketSocket::open(index, Receives::NeighbourDiscovery)?,
            datagram: None,
            usable: false,
        })
    }
}
