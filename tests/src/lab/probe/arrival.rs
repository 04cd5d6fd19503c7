//! Reading packets with the moment at which the kernel received them.
//!
//! A thread that reads late, because the machine is busy, measures its own delay instead of the network's. The
//! kernel stamps a packet when it arrives, whoever reads it when.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        socket::{ControlMessageOwned, LinkAddr, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
};

/// A packet that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// How many bytes of the buffer it fills.
    pub(super) length: usize,
    /// When the kernel received it.
    pub(super) at: Instant,
    /// The interface it came in on, for packet sockets.
    pub(super) interface: usize,
}

/// Has the kernel stamp what a socket receives.
pub(super) fn stamp(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::ReceiveTimestampns, &true).map_err(Into::into)
}

/// Gives a socket room for what arrives while its reader is not run.
pub(super) fn widen(socket: &impl AsFd, bytes: usize) {
    // Beyond the machine's limit where the capability is there; else as much as is allowed.
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _as_it_was = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
}

/// Reads a packet if one is there.
pub(super) fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Option<Arrival>> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
    {
        Ok(message) => message,
        // ICMP errors about earlier packets, and a port that is dark, are no packets.
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETDOWN) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let now = Instant::now();
    let stamps = message.cmsgs()?.filter_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
        _ => None,
    });
    let at = stamps.last().map_or(now, |stamp| now.checked_sub(age(stamp)).unwrap_or(now));
    let interface =
        message.address.as_ref().and_then(SockaddrStorage::as_link_addr).map_or(0, LinkAddr::ifindex);
    Ok(Some(Arrival { length: message.bytes, at, interface }))
}

/// How long ago the kernel's clock said this.
fn age(stamp: TimeSpec) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from(stamp))
}

/// Waits until one of the sockets can be read, or `until`; as precise as the kernel's timers.
pub(super) fn wait(sockets: &[BorrowedFd<'_>], until: Instant) {
    let left = until.saturating_duration_since(Instant::now());
    let mut polled: Vec<PollFd<'_>> =
        sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::POLLIN)).collect();
    // What made it return is seen when the sockets are read.
    let _interrupted = ppoll(&mut polled, Some(TimeSpec::from(left)), None);
}
