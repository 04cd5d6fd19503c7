//! The one system call that no crate wraps: binding a packet socket to an interface.

use std::{io, os::fd::AsRawFd};

use socket2::{Domain, Socket, Type};

/// Opens a raw packet socket on one interface of the calling thread's network
/// namespace: it receives and sends whole Ethernet frames of one protocol.
pub(super) fn packet_socket(interface: u32, ethertype: u16) -> io::Result<Socket> {
    // Protocol 0: nothing is received before the socket is bound to the interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a sockaddr_ll of that length, which the kernel reads during the call only.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}
