//! Raw Ethernet sockets of one link (packet(7)).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt,
    sockopt::{RcvBufForce, ReceiveTimestampns},
};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::arrival::age;
use crate::lan::LinkIndex;

/// Room for what comes in within some 50 ms of a storm of requests.
const RECEIVE_BUFFER: usize = 2 << 20;

/// What a packet socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receives {
    /// Nothing. Protocol 0 keeps the kernel from queueing anything behind a socket that only sends.
    Nothing,
    /// ARP.
    Arp,
    /// Neighbour solicitations and advertisements of IPv6 (ICMPv6 types 135 and 136), without
    /// extension headers: RFC 4861 knows none in them.
    NeighbourDiscovery,
}

impl Receives {
    /// The EtherType to bind to.
    fn ethertype(self) -> u16 {
        match self {
            Self::Nothing => 0,
            Self::Arp => libc::ETH_P_ARP as u16,
            Self::NeighbourDiscovery => libc::ETH_P_IPV6 as u16,
        }
    }

    /// The classic BPF program that the kernel runs before it queues a frame, where the EtherType alone
    /// says too little.
    fn filter(self) -> Option<[SockFilter; 7]> {
        const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
        const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        // Offsets from the start of the Ethernet header of 14 bytes: IPv6's next header, and the first
        // byte behind its header of 40 bytes.
        const NEXT_HEADER: u32 = 14 + 6;
        const ICMP_TYPE: u32 = 14 + 40;
        const ICMPV6: u32 = 58;
        const SOLICITATION: u32 = 135;
        const ADVERTISEMENT: u32 = 136;
        match self {
            Self::Nothing | Self::Arp => None,
            Self::NeighbourDiscovery => Some([
                SockFilter::new(LOAD_BYTE, 0, 0, NEXT_HEADER),
                SockFilter::new(JUMP_IF_EQUAL, 0, 4, ICMPV6),
                SockFilter::new(LOAD_BYTE, 0, 0, ICMP_TYPE),
                SockFilter::new(JUMP_IF_EQUAL, 1, 0, SOLICITATION),
                SockFilter::new(JUMP_IF_EQUAL, 0, 1, ADVERTISEMENT),
                SockFilter::new(RETURN, 0, 0, u32::from(u16::MAX)),
                SockFilter::new(RETURN, 0, 0, 0),
            ]),
        }
    }
}

/// A frame, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'b> {
    /// How long ago the kernel received it, by the wall clock.
    pub age: Duration,
    /// The whole frame.
    pub frame: &'b [u8],
}

/// A raw Ethernet socket of one link. It is not promiscuous and never blocks.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
}

impl PacketSocket {
    /// Opens a socket on a link.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`; `ENXIO` or `ENODEV` where the link is gone. A link that is only
    /// down is no error.
    pub fn open(link: LinkIndex, receives: Receives) -> io::Result<Self> {
        // The protocol is set by bind() only, after the filter: nothing slips in before it.
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
        if let Some(filter) = receives.filter() {
            socket.attach_filter(&filter)?;
        }
        if receives != Receives::Nothing {
            // Where it may not be forced, the kernel's default of some 280 frames has to do.
            let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
            setsockopt(&socket, ReceiveTimestampns, &true)?;
        }
        socket.bind(&link_address(link, receives.ethertype())?)?;
        Ok(Self { socket })
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// `ENETDOWN` or `ENXIO` where the link is down or gone, `EAGAIN` or `ENOBUFS` where it cannot keep
    /// up. The frame is lost then, as it could be on any wire.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Takes the next frame that was addressed to this station, to a group or to all.
    ///
    /// Returns nothing where a frame came that was not. Frames longer than `buffer` are cut.
    ///
    /// # Errors
    /// `WouldBlock` where no frame waits; `ENETDOWN` once after the link went down.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<Received<'b>>> {
        let mut control = nix::cmsg_space!(libc::timespec);
        let (length, is_foreign, age) = {
            let mut parts = [IoSliceMut::new(buffer)];
            let descriptor = self.socket.as_raw_fd();
            let message = recvmsg::<LinkAddr>(descriptor, &mut parts, Some(&mut control), MsgFlags::empty())?;
            let stamps = message.cmsgs()?.filter_map(|part| match part {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(age(stamp)),
                _ => None,
            });
            let age = stamps.last().unwrap_or_default();
            let is_foreign = message.address.is_some_and(|from| {
                let foreign = [libc::PACKET_OUTGOING, libc::PACKET_OTHERHOST, libc::PACKET_LOOPBACK];
                foreign.contains(&from.pkttype())
            });
            (message.bytes, is_foreign, age)
        };
        Ok(buffer.get(..length).filter(|_| !is_foreign).map(|frame| Received { age, frame }))
    }

    /// Takes an error that lies on the socket, so that waiting for it does not return at once for ever.
    pub fn clear_error(&self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The address that binds a packet socket to a link.
#[allow(unsafe_code)]
fn link_address(link: LinkIndex, ethertype: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(link.0).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let length = size_of::<libc::sockaddr_ll>();
    // SAFETY: the kernel takes a `sockaddr_ll` here, which is plain integers, so all-zero is a valid
    // one; `sockaddr_storage` is larger than it and at least as strictly aligned; the length that is
    // reported is that of the type that was written.
    unsafe {
        SockAddr::try_init(|storage, storage_length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            address.write(MaybeUninit::zeroed().assume_init());
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = ethertype.to_be();
            (*address).sll_ifindex = index;
            *storage_length = length as libc::socklen_t;
            Ok(())
        })
    }
    .map(|((), address)| address)
}
