//! Clients and servers: who gets an answer, who is refused at once, and who hears nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use super::lan::{Host, POD, POD_PORT};

/// Long enough for an answer within one machine.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);

/// What a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// An answer.
    Answer,
    /// That it is refused: a reset, or an ICMP message.
    Refusal,
    /// Nothing.
    Nothing,
}

/// Answers whatever it is sent, over TCP and UDP, until it is dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Server {
    /// In the pod.
    pub(crate) fn start(host: &Host) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in POD {
            let address: IpAddr = address.parse().unwrap();
            let udp = host.within(|| UdpSocket::bind((address, POD_PORT)).unwrap());
            let tcp = host.within(|| TcpListener::bind((address, POD_PORT)).unwrap());
            udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            tcp.set_nonblocking(true).unwrap();
            let stopped = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !stopped.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = udp.recv_from(&mut buffer) {
                        let _ = udp.send_to(&buffer[..length], from);
                    }
                }
            }));
            let stopped = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    match tcp.accept() {
                        Ok((mut stream, _)) => {
                            std::thread::spawn(move || {
                                let _ = stream.set_nonblocking(false);
                                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                                let mut buffer = [0; 2048];
                                while let Ok(length) = stream.read(&mut buffer)
                                    && length > 0
                                    && stream.write_all(&buffer[..length]).is_ok()
                                {
                                }
                            });
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            }));
        }
        Self { stop, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// A TCP connection from an address of a host, and an answer over it.
pub(crate) fn tcp(host: &Host, from: &str, to: &str, port: u16) -> Sees {
    match connect(host, from, to, port) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = [0; 5];
            match stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut buffer)) {
                Ok(()) => Sees::Answer,
                Err(error) => sees(&error),
            }
        }
        Err(error) => sees(&error),
    }
}

pub(crate) fn connect(host: &Host, from: &str, to: &str, port: u16) -> std::io::Result<TcpStream> {
    host.within(|| {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM.cloexec(), None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&SocketAddr::new(to, port).into(), PATIENCE)?;
        Ok(socket.into())
    })
}

/// A datagram from an address of a host, and its answer.
pub(crate) fn udp(host: &Host, from: &str, to: &str, port: u16) -> Sees {
    let socket = udp_socket(host, from, to, port);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    match socket.send(b"hello").and_then(|_| socket.recv(&mut [0; 64])) {
        Ok(_) => Sees::Answer,
        Err(error) => sees(&error),
    }
}

pub(crate) fn udp_socket(host: &Host, from: &str, to: &str, port: u16) -> UdpSocket {
    host.within(|| {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect((to, port)).unwrap();
        socket
    })
}

fn sees(error: &std::io::Error) -> Sees {
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable => Sees::Refusal,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Sees::Nothing,
        // What the node itself sends is dropped before it is sent.
        ErrorKind::PermissionDenied => Sees::Nothing,
        _ => panic!("{error}"),
    }
}

/// A ping from an address of a host: how long its answer took, if there is one.
pub(crate) fn ping(host: &Host, from: &str, to: &str, number: u8) -> Option<Duration> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let (domain, protocol, request, reply, header) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0, 20),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
    };
    let socket = host.within(|| {
        let socket = Socket::new(domain, Type::RAW.cloexec(), Some(protocol)).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket
    });
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    // The kernel fills in the checksum of ICMPv6 only.
    let mut message = [request, 0, 0, 0, 0x1e, 0xfb, 0, number, b'p', b'i', b'n', b'g'];
    if to.is_ipv4() {
        let sum: u32 = message.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        message[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    let start = Instant::now();
    socket.send_to(&message, &SocketAddr::new(to, 0).into()).unwrap();
    while start.elapsed() < PATIENCE {
        let mut buffer = [0; 256];
        let Ok((length, sender)) = receive(&socket, &mut buffer) else { continue };
        let answer = &buffer[header..length];
        if sender == Some(to) && answer.first() == Some(&reply) && answer[4..] == message[4..] {
            return Some(start.elapsed());
        }
    }
    None
}

/// Receives, and tells who sent it.
fn receive(socket: &Socket, buffer: &mut [u8]) -> std::io::Result<(usize, Option<IpAddr>)> {
    let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer)?;
    let v4 = from.as_ref().and_then(|from| from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip())));
    let v6 = from.as_ref().and_then(|from| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())));
    Ok((length, v4.or(v6)))
}
