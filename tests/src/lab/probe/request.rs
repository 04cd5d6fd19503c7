//! One question to a backend, and the backend's words.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use socket2::{Domain, Socket, Type};

use crate::lab::{LanClient, Namespace};

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// An HTTP request over TCP.
    Tcp,
    /// One datagram.
    Udp,
}

/// What a backend answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The pod that answered.
    pub pod: String,
    /// The client's address as the pod saw it.
    pub client: IpAddr,
}

impl Answer {
    /// Reads the backend's line `pod=… client=…`.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let field =
            |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        match (field("pod"), field("client")) {
            (Some(pod), Some(client)) => Ok(Self { pod: pod.to_owned(), client: client.parse()? }),
            _ => bail!("no backend answers {line:?}"),
        }
    }
}

/// A question to ask.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Over TCP or UDP.
    pub protocol: Protocol,
    /// Where to.
    pub to: SocketAddr,
    /// From which of the client's addresses; the kernel's choice where absent.
    pub from: Option<IpAddr>,
    /// How long to wait for the answer.
    pub limit: Duration,
}

impl Request {
    /// Over TCP, with a limit of 2 s.
    pub fn tcp(to: SocketAddr) -> Self {
        Self { protocol: Protocol::Tcp, to, from: None, limit: Duration::from_secs(2) }
    }

    /// Over UDP, with a limit of 1 s.
    pub fn udp(to: SocketAddr) -> Self {
        Self { protocol: Protocol::Udp, to, from: None, limit: Duration::from_secs(1) }
    }

    /// From this address of the client.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        Self { from: Some(address), ..self }
    }

    /// With this limit.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    fn ask(&self) -> Result<Answer> {
        match self.protocol {
            Protocol::Tcp => self.ask_tcp(),
            Protocol::Udp => self.ask_udp(),
        }
    }

    fn source(&self) -> SocketAddr {
        let unspecified = if self.to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        SocketAddr::new(self.from.unwrap_or(unspecified), 0)
    }

    fn ask_tcp(&self) -> Result<Answer> {
        let deadline = Instant::now() + self.limit;
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        socket.bind(&self.source().into())?;
        socket.connect_timeout(&self.to.into(), self.limit).context("connecting")?;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        let mut stream = std::net::TcpStream::from(socket);
        write!(stream, "GET / HTTP/1.1\r\nHost: landfall\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response).context("awaiting the response")?;
        let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| anyhow!("response {response:?}"))?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("response {head:?}");
        }
        Answer::parse(body)
    }

    fn ask_udp(&self) -> Result<Answer> {
        let socket = UdpSocket::bind(self.source())?;
        socket.connect(self.to)?;
        socket.set_read_timeout(Some(self.limit))?;
        socket.send(b"?").context("sending")?;
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer).context("awaiting the answer")?;
        let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
        Answer::parse(answer.lines().nth(1).unwrap_or_default())
    }
}

impl Namespace {
    /// Asks a backend from in here, and returns what it says.
    ///
    /// # Errors
    /// When there is no answer within the request's limit, or it is none of our backends'.
    pub fn ask(&self, request: Request) -> Result<Answer> {
        let asked = self.on_thread(move || request.ask());
        asked.with_context(|| format!("{} asks {} over {:?}", self.name(), request.to, request.protocol))
    }
}

impl LanClient {
    /// Asks a backend, and returns what it says.
    ///
    /// # Errors
    /// When there is no answer within the request's limit, or it is none of our backends'.
    pub fn ask(&self, request: Request) -> Result<Answer> {
        self.namespace().ask(request)
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn only_a_backends_words_are_an_answer() {
        let answer = Answer::parse("pod=web-1 client=fd10::101\n").unwrap();
        assert_eq!((answer.pod.as_str(), answer.client.to_string().as_str()), ("web-1", "fd10::101"));
        assert!(Answer::parse("<html>").is_err());
    }
}
