//! A client that is new to the LAN with every packet.
//!
//! It knows no neighbour and has no kernel that would ask, keep or send again for it: it asks who has the address
//! (ARP or neighbour discovery), waits for the answer, and sends one packet there, over and over. So whatever is
//! lost is seen, and so is everybody who answers.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use socket2::Socket;

use super::{
    arrival::{receive, stamp, wait, widen},
    datagrams::{INTERVAL, PATIENCE, numbered},
    frames::{claim, question},
    packets::{End, Heard, datagram, opening, read},
    report::{Answered, Report},
    sys::{ETHERTYPE_ALL, go_first, ignore_outgoing, packet_socket},
    watch::{Sighting, Sightings},
};
use crate::lab::{LanClient, plan::Mac};

/// Each so-manieth packet opens a TCP connection; the others are datagrams.
const OPENING: usize = 4;
/// TCP source ports, from here on, each used again after so many connections.
const PORTS: (u16, u16) = (20_000, 10_000);

/// A cold client that is at work.
#[derive(Debug)]
pub struct ColdProber {
    stop: Arc<AtomicBool>,
    measuring: JoinHandle<Result<ColdReport>>,
}

/// What a cold client saw.
#[derive(Clone, Debug)]
pub struct ColdReport {
    /// The packets: those that nobody told where to send, and those that were sent and not answered, are lost.
    pub packets: Report,
    /// Of the lost ones, for how many nobody answered who has the address.
    pub unresolved: u64,
    /// Of the lost ones, how many were to open a TCP connection.
    pub connections_lost: u64,
    /// Of the lost ones, how many were refused by a TCP reset.
    pub refused: u64,
    /// Who answered for the address, when.
    pub seen: Sightings,
}

impl std::fmt::Display for ColdReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { packets, unresolved, connections_lost, refused, seen } = self;
        write!(f, "{packets}; ")?;
        write!(f, "{unresolved} of the lost had no answer to who has it, ")?;
        write!(f, "{connections_lost} were connections, {refused} refused; ")?;
        write!(f, "answered by {:?}, by two for {:?}", seen.answerers(), seen.longest_split())
    }
}

impl ColdProber {
    /// Ends the measurement and returns what was measured.
    ///
    /// # Errors
    /// When the client could not send at all.
    pub fn finish(self) -> Result<ColdReport> {
        self.stop.store(true, Ordering::Relaxed);
        self.measuring.join().map_err(|_| anyhow!("the cold client panicked"))?
    }
}

impl LanClient {
    /// Starts to be cold 200 times a second: three datagrams to a backend behind this address, then the first
    /// packet of a TCP connection, each after asking the LAN who has the address.
    ///
    /// The answers reach the client's own neighbour table too, so probe warm from another client.
    pub fn probe_cold(&self, to: SocketAddr) -> ColdProber {
        let own = *self.addresses();
        let mac = own.mac();
        let address = if to.is_ipv4() { IpAddr::V4(own.v4) } else { IpAddr::V6(own.v6) };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let interface = self.interface();
        let measuring = self
            .namespace()
            .start_thread(move || Cold::begin(interface, mac, address, to)?.measure(&stopped));
        ColdProber { stop, measuring }
    }
}

/// A question that waits for its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has said yet who has the address.
    Asking,
    /// The packet was sent.
    Sent,
    /// The other side refused it.
    Refused,
}

/// A cold client at work.
struct Cold {
    /// Packets in and out.
    wire: Socket,
    /// Keeps the datagrams' port, so that the kernel refuses none of the answers.
    _port: UdpSocket,
    mac: Mac,
    own: SocketAddr,
    to: SocketAddr,
    question: Vec<u8>,
    asked: Vec<Instant>,
    states: Vec<State>,
    /// The first question that may still be without an answer to who has the address.
    first_asking: usize,
    answers: Vec<Answered>,
    sightings: Vec<Sighting>,
}

impl Cold {
    fn begin(interface: &str, mac: Mac, address: IpAddr, to: SocketAddr) -> Result<Self> {
        let question =
            question(mac, address, to.ip()).ok_or_else(|| anyhow!("{address} cannot ask for {}", to.ip()))?;
        let interface = nix::net::if_::if_nametoindex(interface).context(interface.to_owned())?;
        let wire = packet_socket(interface, ETHERTYPE_ALL).context("a packet socket")?;
        ignore_outgoing(&wire)?;
        stamp(&wire)?;
        widen(&wire, 4 << 20);
        // Nobody reads it: what does not fit any more is dropped without a word.
        let port = UdpSocket::bind((address, 0)).context("a port of its own")?;
        let own = port.local_addr()?;
        Ok(Self {
            wire,
            _port: port,
            mac,
            own,
            to,
            question,
            asked: Vec::new(),
            states: Vec::new(),
            first_asking: 0,
            answers: Vec::new(),
            sightings: Vec::new(),
        })
    }

    fn measure(mut self, stop: &AtomicBool) -> Result<ColdReport> {
        let _as_the_kernel_grants = go_first();
        let started = Instant::now();
        let mut next = started;
        while !stop.load(Ordering::Relaxed) {
            self.listen(next)?;
            let at = Instant::now();
            // While the client's own port is dark nothing can be sent; that question simply has no answer.
            let _dark = self.wire.send(&self.question);
            self.asked.push(at);
            self.states.push(State::Asking);
            next = (next + INTERVAL).max(at);
        }
        self.listen(Instant::now() + PATIENCE)?;
        Ok(self.report(started))
    }

    /// Takes in what comes until then.
    fn listen(&mut self, until: Instant) -> Result<()> {
        let mut frame = [0; 2048];
        loop {
            while let Some(arrival) = receive(&self.wire, &mut frame)? {
                if let Some(frame) = frame.get(..arrival.length) {
                    self.hear(arrival.at, frame);
                }
            }
            if Instant::now() >= until {
                return Ok(());
            }
            wait(&[self.wire.as_fd()], until);
        }
    }

    fn hear(&mut self, at: Instant, frame: &[u8]) {
        if let Some(mac) = claim(frame, self.to.ip()) {
            self.sightings.push(Sighting { at, mac });
            self.send_to(mac);
            return;
        }
        match read(frame) {
            Some(Heard::Datagram { from, to, payload }) if from == self.to && to == self.own.port() => {
                self.answers.extend(numbered(payload).map(|(number, pod)| (number, at, pod)));
            }
            Some(Heard::Accepted { from, sequence, .. }) if from == self.to => {
                if let Ok(number) = usize::try_from(sequence) {
                    self.answers.push((number, at, "tcp".to_owned()));
                }
            }
            Some(Heard::Refused { from, sequence, .. }) if from == self.to => {
                let state = usize::try_from(sequence).ok().and_then(|number| self.states.get_mut(number));
                if let Some(state) = state {
                    *state = State::Refused;
                }
            }
            _ => {}
        }
    }

    /// Sends every packet that waits to the station that has just said that it has the address.
    fn send_to(&mut self, mac: Mac) {
        let waiting = self.states.iter().enumerate().skip(self.first_asking);
        let waiting: Vec<usize> =
            waiting.filter(|(_, state)| **state == State::Asking).map(|(number, _)| number).collect();
        self.first_asking = self.states.len();
        let to = End { mac, address: self.to };
        for number in waiting {
            let frame = if is_opening(number) {
                let nth = u16::try_from(number / OPENING % usize::from(PORTS.1)).unwrap_or_default();
                let from = End { mac: self.mac, address: SocketAddr::new(self.own.ip(), PORTS.0 + nth) };
                u32::try_from(number).ok().and_then(|sequence| opening(from, to, sequence))
            } else {
                let from = End { mac: self.mac, address: self.own };
                datagram(from, to, format!("{number}\n").as_bytes())
            };
            let _dark = frame.map(|frame| self.wire.send(&frame));
            if let Some(state) = self.states.get_mut(number) {
                *state = State::Sent;
            }
        }
    }

    fn report(self, started: Instant) -> ColdReport {
        let mut lost: Vec<bool> = vec![true; self.asked.len()];
        for (number, ..) in &self.answers {
            if let Some(lost) = lost.get_mut(*number) {
                *lost = false;
            }
        }
        let count = |is_it: &dyn Fn(usize, State) -> bool| {
            let of_these = self.states.iter().zip(&lost).enumerate().filter(|(_, (_, lost))| **lost);
            let number = of_these.filter(|(number, (state, _))| is_it(*number, **state)).count();
            u64::try_from(number).unwrap_or(u64::MAX)
        };
        ColdReport {
            unresolved: count(&|_, state| state == State::Asking),
            connections_lost: count(&|number, _| is_opening(number)),
            refused: count(&|_, state| state == State::Refused),
            packets: Report::new(started, &self.asked, &self.answers),
            seen: Sightings { questions: self.asked, answers: self.sightings },
        }
    }
}

fn is_opening(number: usize) -> bool {
    number % OPENING == OPENING - 1
}
