//! The UDP sockets through which speakers talk on one link.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{
        Ipv4RecvErr, Ipv4RecvTtl, Ipv6RecvErr, Ipv6RecvHopLimit, Ipv6TClass, RcvBufForce, ReceiveTimestampns,
    },
};
use socket2::{Domain, SockFilter, Socket, Type};

use super::arrival::age;
use crate::lan::LinkIndex;

/// Sent with every datagram, and demanded of every one that comes (RFC 5082): no router passed it on.
const TTL: u32 = 255;
/// Room for what a thousand speakers say within the detection time; the kernel's default holds some 280
/// datagrams.
const RECEIVE_BUFFER: usize = 4 << 20;
/// BFD packets come from these ports (RFC 5881 section 4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
/// So many of them are tried. They are the kernel's to give away as well, but seldom in such numbers.
const TRIES: u16 = 1024;
/// The classic BPF program of one instruction that lets nothing through (BPF_RET | BPF_K, 0).
const RETURN_NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);
/// Network control, the class of routing protocols (RFC 4594 section 3.1), as a TOS byte.
const CLASS_NETWORK_CONTROL: u32 = 0xc0;

/// A pair of UDP sockets that are bound to a link and to the address of ours on it: one listens on the port
/// on which speakers listen, the other sends to it from a port of its own. They never block.
#[derive(Debug)]
pub struct DatagramSocket {
    listener: Socket,
    sender: Socket,
    link: LinkIndex,
    port: u16,
    source_port: u16,
}

/// A datagram, its sender, how far it came and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'b> {
    /// The sender's address.
    pub from: IpAddr,
    /// IPv4 TTL or IPv6 hop limit on arrival.
    pub ttl: u8,
    /// How long ago the kernel received it, by the wall clock.
    pub age: Duration,
    /// The payload.
    pub payload: &'b [u8],
}

impl DatagramSocket {
    /// Opens sockets on a link. Heard is only what comes in on the link and is for `address`.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` where the address is not ours, or not yet, `EADDRINUSE` where another process
    /// has the port, or all ports to send from, `ENODEV` where the link is gone, `EPERM` without
    /// `CAP_NET_RAW`.
    pub fn open(link: LinkIndex, name: &str, address: IpAddr, port: u16) -> io::Result<Self> {
        let at = |port| station(link, address, port).into();
        let listener = new_socket(name, address)?;
        // Where it may not be forced, the kernel's default has to do.
        let _ = setsockopt(&listener, RcvBufForce, &RECEIVE_BUFFER);
        setsockopt(&listener, ReceiveTimestampns, &true)?;
        listener.bind(&at(port))?;
        let sender = new_socket(name, address)?;
        // Nothing is received there, save what kernels say of what was sent.
        sender.attach_filter(&[RETURN_NOTHING])?;
        match address {
            IpAddr::V4(_) => setsockopt(&sender, Ipv4RecvErr, &true)?,
            IpAddr::V6(_) => setsockopt(&sender, Ipv6RecvErr, &true)?,
        }
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for source_port in SOURCE_PORTS.take(TRIES.into()) {
            bound = sender.bind(&at(source_port)).map(|()| source_port);
            match &bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                _ => break,
            }
        }
        Ok(Self { listener, sender, link, port, source_port: bound? })
    }

    /// The port that datagrams come from.
    pub fn source_port(&self) -> u16 {
        self.source_port
    }

    /// Sends a payload to a station on the link, with TTL 255.
    ///
    /// # Errors
    /// `ENETUNREACH` where there is no route to it on this link, `ENETDOWN` where the link is down,
    /// `EAGAIN` where it cannot keep up. The datagram is lost then, as it could be on any wire.
    pub fn send(&self, to: IpAddr, payload: &[u8]) -> io::Result<()> {
        let to = station(self.link, to, self.port).into();
        match self.sender.send_to(payload, &to) {
            // That is what came of an earlier one, to whomever; `nobody_listens` tells.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.sender.send_to(payload, &to).map(drop)
            }
            sent => sent.map(drop),
        }
    }

    /// The next station whose kernel says that nobody listens where a datagram was sent. Other things that
    /// kernels and routers say are passed over.
    ///
    /// # Errors
    /// `WouldBlock` where nothing more was said.
    pub fn nobody_listens(&self) -> io::Result<Option<IpAddr>> {
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6, [libc::c_int; 4]);
        let mut cut = [0; 1];
        let mut parts = [IoSliceMut::new(&mut cut)];
        let message = recvmsg::<SockaddrStorage>(
            self.sender.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_ERRQUEUE,
        )?;
        let is_refusal = message.cmsgs()?.any(|part| match part {
            ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                let is_icmp = [libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6].contains(&error.ee_origin);
                is_icmp && error.ee_errno == libc::ECONNREFUSED as u32
            }
            _ => false,
        });
        // The kernel tells to whom the datagram was sent, as if that were the sender.
        Ok(message.address.filter(|_| is_refusal).and_then(|to| sender(&to)))
    }

    /// What becomes readable when [`Self::nobody_listens`] has something to tell.
    pub fn errors(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }

    /// Takes the next datagram. Longer ones than `buffer` are cut.
    ///
    /// Returns nothing where the kernel told no sender or no TTL of a datagram; it is not to be believed.
    ///
    /// # Errors
    /// `WouldBlock` where none waits.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<Received<'b>>> {
        let mut control = nix::cmsg_space!(libc::c_int, libc::timespec, [libc::c_int; 4]);
        let (length, from, ttl, age) = {
            let mut parts = [IoSliceMut::new(buffer)];
            let message = recvmsg::<SockaddrStorage>(
                self.listener.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            )?;
            let (mut ttl, mut received) = (None, Duration::ZERO);
            for part in message.cmsgs()? {
                match part {
                    ControlMessageOwned::Ipv4Ttl(told) | ControlMessageOwned::Ipv6HopLimit(told) => {
                        ttl = u8::try_from(told).ok();
                    }
                    ControlMessageOwned::ScmTimestampns(stamp) => received = age(stamp),
                    _ => {}
                }
            }
            (message.bytes, message.address.and_then(|from| sender(&from)), ttl, received)
        };
        Ok(match (from, ttl, buffer.get(..length)) {
            (Some(from), Some(ttl), Some(payload)) => Some(Received { from, ttl, age, payload }),
            _ => None,
        })
    }

    /// Takes an error that lies on a socket, so that waiting for it does not return at once for ever.
    pub fn clear_error(&self) -> Option<io::Error> {
        self.listener.take_error().ok().flatten().or_else(|| self.sender.take_error().ok().flatten())
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn new_socket(name: &str, address: IpAddr) -> io::Result<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), None)?;
    socket.bind_device(Some(name.as_bytes()))?;
    match address {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(TTL)?;
            setsockopt(&socket, Ipv4RecvTtl, &true)?;
            socket.set_tos_v4(CLASS_NETWORK_CONTROL)?;
        }
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(TTL)?;
            setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, Ipv6TClass, &(CLASS_NETWORK_CONTROL as i32))?;
        }
    }
    Ok(socket)
}

/// The socket address of a station on a link.
fn station(link: LinkIndex, address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V4(v4) => SocketAddrV4::new(v4, port).into(),
        IpAddr::V6(v6) => {
            let scope = if v6.is_unicast_link_local() { link.0 } else { 0 };
            SocketAddrV6::new(v6, port, 0, scope).into()
        }
    }
}

/// The address in what the kernel tells of a sender.
fn sender(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
    v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
}
