//! The system calls that no crate wraps: binding a packet socket, telling it whose frames count, and going
//! before other work.

use std::{io, os::fd::AsRawFd};

use socket2::{Domain, Socket, Type};

/// Every protocol (linux/if_ether.h).
pub(super) const ETHERTYPE_ALL: u16 = 0x0003;
/// Frames that this host sends are not received again (linux/if_packet.h).
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Opens a raw packet socket on one interface of the calling thread's network namespace, or with 0 on all of
/// them: it receives and sends whole Ethernet frames of one protocol.
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

/// Lets a packet socket receive only what comes in, not what this host sends.
pub(super) fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&yes)).map_err(io::Error::other)?;
    // SAFETY: the pointer is to an int of that length, which the kernel reads during the call only.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            length,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the calling thread go before all ordinary work of the machine (`SCHED_FIFO`, sched(7)), and says
/// whether the kernel granted it. What it starts does not inherit it.
pub(super) fn go_first() -> bool {
    // SAFETY: all fields of `sched_param` are integers, for which zero is a valid value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // Above the speakers that have precedence as well (they have 1): they must not delay who measures them.
    parameters.sched_priority = 2;
    // SAFETY: 0 names the calling thread, and `parameters` outlives the call, which only reads it.
    let refused = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    refused == 0
}
