//! The UDP socket through which speakers talk on one link.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6TClass, RcvBufForce},
};
use socket2::{Domain, Socket, Type};

use crate::lan::LinkIndex;

/// Sent with every datagram, and demanded of every one that comes (RFC 5082): no router passed it on.
const TTL: u32 = 255;
/// Room for what a thousand speakers say within the detection time; the kernel's default holds some 280
/// datagrams.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Network control, the class of routing protocols (RFC 4594 section 3.1), as a TOS byte.
const CLASS_NETWORK_CONTROL: u32 = 0xc0;

/// A UDP socket that is bound to a link and to the address of ours on it. It never blocks.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: Socket,
    link: LinkIndex,
    port: u16,
}

/// A datagram's sender and how far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'b> {
    /// The sender's address.
    pub from: IpAddr,
    /// IPv4 TTL or IPv6 hop limit on arrival.
    pub ttl: u8,
    /// The payload.
    pub payload: &'b [u8],
}

impl DatagramSocket {
    /// Opens a socket on a link. It hears only what comes in on the link and is for `address`.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` where the address is not ours, or not yet, `EADDRINUSE` where another process
    /// has the port, `ENODEV` where the link is gone, `EPERM` without `CAP_NET_RAW`.
    pub fn open(link: LinkIndex, name: &str, address: IpAddr, port: u16) -> io::Result<Self> {
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
        // Where it may not be forced, the kernel's default has to do.
        let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
        let socket = Self { socket, link, port };
        socket.socket.bind(&socket.at(address).into())?;
        Ok(socket)
    }

    /// The socket address of a station on the link.
    fn at(&self, address: IpAddr) -> SocketAddr {
        match address {
            IpAddr::V4(v4) => SocketAddrV4::new(v4, self.port).into(),
            IpAddr::V6(v6) => {
                let scope = if v6.is_unicast_link_local() { self.link.0 } else { 0 };
                SocketAddrV6::new(v6, self.port, 0, scope).into()
            }
        }
    }

    /// Sends a payload to a station on the link, with TTL 255.
    ///
    /// # Errors
    /// `ENETUNREACH` where there is no route to it on this link, `ENETDOWN` where the link is down,
    /// `EAGAIN` where it cannot keep up, `ECONNREFUSED` where an earlier one found nobody. The datagram
    /// is lost then, as it could be on any wire.
    pub fn send(&self, to: IpAddr, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, &self.at(to).into()).map(drop)
    }

    /// Takes the next datagram. Longer ones than `buffer` are cut.
    ///
    /// Returns nothing where the kernel told no sender or no TTL of a datagram; it is not to be believed.
    ///
    /// # Errors
    /// `WouldBlock` where none waits.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<Received<'b>>> {
        let mut control = nix::cmsg_space!(libc::c_int, [libc::c_int; 4]);
        let (length, from, ttl) = {
            let mut parts = [IoSliceMut::new(buffer)];
            let message = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            )?;
            let ttl = message.cmsgs()?.find_map(|part| match part {
                ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                    u8::try_from(ttl).ok()
                }
                _ => None,
            });
            (message.bytes, message.address.and_then(|from| sender(&from)), ttl)
        };
        Ok(match (from, ttl, buffer.get(..length)) {
            (Some(from), Some(ttl), Some(payload)) => Some(Received { from, ttl, payload }),
            _ => None,
        })
    }

    /// Takes an error that lies on the socket, so that waiting for it does not return at once for ever.
    pub fn clear_error(&self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The address in what the kernel tells of a sender.
fn sender(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
    v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
}
