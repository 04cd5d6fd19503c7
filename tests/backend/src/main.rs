//! A server for tests: tells who it is and whom it sees, over TCP and UDP.
//!
//! Every answer holds the line `pod=<POD_NAME> client=<address>`. A TCP client
//! sends an HTTP/1.1 request and gets that line as the body. A UDP client gets
//! the first line of its own datagram back first, so that a prober can match
//! answers to questions by a sequence number.
//!
//! Who asks for the path `/stream` gets a download without end: a hundred
//! numbered lines of 1,024 bytes a second, until it closes the connection.
//!
//! Called as `landfall-backend pause` it only sleeps: a pod's sandbox needs a
//! program that holds its namespaces.

#![allow(clippy::print_stderr)]

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

/// How long a TCP client may take over its request before it is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between the lines of a download.
const STREAM_PAUSE: Duration = Duration::from_millis(10);

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("pause") {
        loop {
            thread::park();
        }
    }
    let name: Arc<str> = std::env::var("POD_NAME").unwrap_or_else(|_| "unnamed".to_owned()).into();
    let port = match std::env::var("LANDFALL_BACKEND_PORT") {
        Ok(port) => {
            port.parse().map_err(|_| io::Error::other(format!("LANDFALL_BACKEND_PORT={port} is no port")))?
        }
        Err(_) => 8080,
    };
    // Bound to [::], a Linux socket serves IPv4 as well (mapped addresses).
    let tcp = TcpListener::bind(("::", port))?;
    let udp = UdpSocket::bind(("::", port))?;
    eprintln!("{name} listens on port {port}, TCP and UDP");

    let udp_name = Arc::clone(&name);
    thread::spawn(move || answer_datagrams(&udp, &udp_name));
    for stream in tcp.incoming().flatten() {
        let name = Arc::clone(&name);
        // A client that cannot be served is that client's loss alone.
        thread::spawn(move || answer_request(stream, &name));
    }
    Ok(())
}

fn words(name: &str, client: IpAddr) -> String {
    format!("pod={name} client={}\n", client.to_canonical())
}

fn answer_request(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = words(name, stream.peer_addr()?.ip());
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    if request.split(' ').nth(1) == Some("/stream") {
        return stream_lines(stream);
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Sends numbered lines until the client has gone.
fn stream_lines(mut stream: TcpStream) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")?;
    for number in 0_u64.. {
        writeln!(stream, "{number:01023}")?;
        thread::sleep(STREAM_PAUSE);
    }
    Ok(())
}

fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut datagram = [0; 2048];
    loop {
        // Errors here are ICMP messages about earlier answers: the next datagram is as good as ever.
        let Ok((length, client)) = socket.recv_from(&mut datagram) else { continue };
        let first_line =
            datagram.get(..length).and_then(|all| all.split(|byte| *byte == b'\n').next()).unwrap_or(&[]);
        let answer = [first_line, b"\n", words(name, client.ip()).as_bytes()].concat();
        let _unreachable = socket.send_to(&answer, client);
    }
}
