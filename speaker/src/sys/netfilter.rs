//! The kernel's packet filter, over netlink (netlink(7)).
//!
//! A request waits for its answer, and a large one for all others who change the kernel's tables: whoever must
//! never wait has another thread do this.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockname, recv, send, setsockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::wire::netlink::{DONE, INTERRUPTED, Message, messages};
use crate::wire::nflog;
use crate::wire::nftables::{About, Batch, Question};

/// How long the kernel may take for an answer: a change of a full table takes a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for more once the kernel has said that it failed altogether.
const AFTERWORD: Duration = Duration::from_millis(200);
/// The longest message that the kernel sends.
const LONGEST: usize = 256 * 1024;
/// How much may wait for us.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// What a batch may need besides its own bytes.
const HEADROOM: usize = 64 * 1024;

/// Why a batch was refused.
#[derive(Debug, thiserror::Error)]
#[error("{about}: {error}{}", .text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Refusal {
    /// What was refused.
    pub about: About,
    /// Why.
    #[source]
    pub error: io::Error,
    /// The kernel's own words, if it has any.
    pub text: Option<String>,
}

impl Refusal {
    fn of(error: io::Error) -> Self {
        Self { about: About::Batch, error, text: None }
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The kernel was changed while it told.
    #[error("the kernel was changed while it told")]
    Interrupted,
    /// Something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A socket over which tables are changed and read.
#[derive(Debug)]
pub struct NftSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    send_buffer: usize,
}

impl NftSocket {
    /// Opens one.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` where the kernel has no netfilter, or no file descriptor is left.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: netfilter()?, sequence: 0, buffer: vec![0; LONGEST], send_buffer: 0 })
    }

    /// By what the kernel knows it, as the owner of a table: zero before anything was sent.
    pub fn port(&self) -> u32 {
        getsockname::<NetlinkAddr>(self.socket.as_raw_fd()).map_or(0, |address| address.pid())
    }

    /// Has the kernel do all that is in a batch, or nothing of it.
    ///
    /// # Errors
    /// The kernel refuses it, or did not answer in time: then it is not known whether it has done it.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Refusal> {
        self.drain();
        let bytes = batch.bytes();
        let needed = bytes.len() + HEADROOM;
        if needed > self.send_buffer {
            // The kernel takes a batch as one message.
            setsockopt(&self.socket, SndBufForce, &needed).map_err(|errno| Refusal::of(errno.into()))?;
            self.send_buffer = needed;
        }
        let sent = send(self.socket.as_raw_fd(), bytes, MsgFlags::empty())
            .map_err(|errno| Refusal::of(errno.into()))?;
        if sent < bytes.len() {
            return Err(Refusal::of(io::ErrorKind::WriteZero.into()));
        }
        let mut refusal: Option<Refusal> = None;
        loop {
            let Self { socket, buffer, .. } = self;
            let received = match receive(socket, buffer) {
                Ok(received) => received,
                Err(error) => {
                    let _ = self.socket.set_read_timeout(Some(PATIENCE));
                    return Err(refusal.unwrap_or_else(|| Refusal::of(error)));
                }
            };
            for message in messages(received) {
                let Some((errno, text)) = message.outcome() else { continue };
                if errno != 0 && refusal.is_none() {
                    refusal = Some(Refusal {
                        about: batch.about(message.sequence),
                        error: io::Error::from_raw_os_error(errno),
                        text: text.map(str::to_owned),
                    });
                }
                if message.sequence == batch.acknowledged() {
                    let _ = self.socket.set_read_timeout(Some(PATIENCE));
                    return refusal.map_or(Ok(()), Err);
                }
                if message.sequence == 0 {
                    // The batch as a whole failed, and nothing else may follow.
                    let _ = self.socket.set_read_timeout(Some(AFTERWORD));
                }
            }
        }
    }

    /// Asks a question and hands over what answers it.
    ///
    /// # Errors
    /// `NotFound` where there is no such thing, and what else the kernel says.
    pub fn ask(&mut self, question: Question, mut take: impl FnMut(&Message<'_>)) -> Result<(), NoAnswer> {
        self.drain();
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let bytes = question.bytes(self.sequence);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(io::Error::from)?;
        let mut interrupted = false;
        loop {
            let received = receive(&self.socket, &mut self.buffer)?;
            for message in messages(received).filter(|message| message.sequence == self.sequence) {
                interrupted |= message.flags & INTERRUPTED != 0;
                match message.outcome() {
                    Some((0, _)) => {}
                    Some((errno, _)) => return Err(io::Error::from_raw_os_error(errno).into()),
                    None if message.kind == DONE => {
                        return if interrupted { Err(NoAnswer::Interrupted) } else { Ok(()) };
                    }
                    None => {
                        take(&message);
                        if !question.is_dump() {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// Throws away what is left of an earlier answer.
    fn drain(&mut self) {
        while recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT)
            .is_ok_and(|length| length > 0)
        {}
    }
}

/// A socket to which the kernel tells of packets. It never blocks.
#[derive(Debug)]
pub struct LogSocket {
    socket: Socket,
    buffer: Vec<u8>,
}

impl LogSocket {
    /// Opens one that is told of the packets of each group, with up to so many bytes of them.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`; `EBUSY` where another process listens to a group; `EOPNOTSUPP` or `EINVAL`
    /// where the kernel cannot tell of packets.
    pub fn open(groups: &[(u16, u32)]) -> io::Result<Self> {
        let socket = netfilter()?;
        let mut buffer = vec![0; LONGEST];
        for (group, length) in groups {
            let request = nflog::bind(*group, *length, u32::from(*group));
            send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
            'answer: loop {
                for message in messages(receive(&socket, &mut buffer)?) {
                    match message.outcome() {
                        Some((0, _)) if message.sequence == u32::from(*group) => break 'answer,
                        Some((0, _)) | None => {}
                        Some((errno, _)) => return Err(io::Error::from_raw_os_error(errno)),
                    }
                }
            }
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket, buffer })
    }

    /// Takes what waits, and hands over each packet with its group.
    ///
    /// # Errors
    /// `WouldBlock` where nothing waits; `ENOBUFS` once after something was lost.
    pub fn receive(&mut self, mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let received = receive(&self.socket, &mut self.buffer)?;
        for logged in messages(received).filter_map(|message| nflog::Logged::read(&message)) {
            take(logged.group, logged.packet);
        }
        Ok(())
    }
}

impl AsFd for LogSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sockets that send whole IP packets, whoever they say they come from.
#[derive(Debug)]
pub struct IpSender {
    v4: Socket,
    v6: Option<Socket>,
}

impl IpSender {
    /// Opens them.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        // This protocol implies that the header comes with the packet (raw(7)).
        let open = |domain| {
            Socket::new(domain, Type::RAW.cloexec().nonblocking(), Some(Protocol::from(libc::IPPROTO_RAW)))
        };
        let v6 = open(Domain::IPV6).ok();
        if let Some(v6) = &v6 {
            set(v6, libc::IPPROTO_IPV6, libc::IPV6_HDRINCL)?;
        }
        Ok(Self { v4: open(Domain::IPV4)?, v6 })
    }

    /// Sends a packet along the route to `to`.
    ///
    /// # Errors
    /// There is no route, or no room.
    pub fn send(&self, to: IpAddr, packet: &[u8]) -> io::Result<()> {
        let socket = match to {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?,
        };
        socket.send_to(packet, &SockAddr::from(std::net::SocketAddr::new(to, 0))).map(drop)
    }
}

fn netfilter() -> io::Result<Socket> {
    let kind = Type::RAW.cloexec();
    let socket =
        Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(Protocol::from(libc::NETLINK_NETFILTER)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Errors do not repeat the request, and say in words what is wrong.
    set(&socket, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK)?;
    set(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK)?;
    // Without the right to more, what there is must do.
    let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
    Ok(socket)
}

fn receive<'b>(socket: &Socket, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => return Ok(&buffer[..length]),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Switches an option on.
#[allow(unsafe_code)]
fn set(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes at the pointer, which is that of an integer that outlives the
    // call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
