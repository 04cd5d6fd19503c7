//! A stream of datagrams to a backend, and how long it went unanswered.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{
    arrival::{receive, stamp, wait, widen},
    report::{Answered, Report},
    request::Answer,
    sys::go_first,
};
use crate::lab::LanClient;

/// The pause between datagrams: 200 a second.
pub(super) const INTERVAL: Duration = Duration::from_millis(5);
/// How long after the last datagram its answer may come.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// A prober that is at work.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    measuring: JoinHandle<Result<Report>>,
}

impl Prober {
    /// Ends the measurement and returns what was measured.
    ///
    /// # Errors
    /// When the client could not send at all.
    pub fn finish(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        self.measuring.join().map_err(|_| anyhow!("the prober panicked"))?
    }
}

impl LanClient {
    /// Starts to send 200 datagrams a second to a backend behind this address.
    ///
    /// They all have the same source port (one flow), so that a flow's fate is measured. Sender and receiver go
    /// before other work, and answers count from when the kernel received them.
    pub fn probe(&self, to: SocketAddr) -> Prober {
        self.probe_every(INTERVAL, to)
    }

    /// As [`LanClient::probe`], with this pause between datagrams.
    pub fn probe_every(&self, interval: Duration, to: SocketAddr) -> Prober {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let measuring = self.namespace().start_thread(move || measure(to, interval, &stopped));
        Prober { stop, measuring }
    }
}

fn measure(to: SocketAddr, interval: Duration, stop: &AtomicBool) -> Result<Report> {
    let unspecified = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((unspecified, 0)).context("a socket to probe from")?;
    stamp(&socket)?;
    widen(&socket, 1 << 20);
    let started = Instant::now();
    let done = AtomicBool::new(false);
    let (sent, answers) = thread::scope(|scope| {
        let answers = scope.spawn(|| listen(&socket, &done));
        let sent = send(&socket, to, interval, started, stop);
        thread::sleep(PATIENCE);
        done.store(true, Ordering::Relaxed);
        (sent, answers.join())
    });
    let answers = answers.map_err(|_| anyhow!("the receiver panicked"))??;
    Ok(Report::new(started, &sent, &answers))
}

fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    interval: Duration,
    started: Instant,
    stop: &AtomicBool,
) -> Vec<Instant> {
    let _as_the_kernel_grants = go_first();
    let mut sent = Vec::new();
    let mut next = started;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        // A datagram that the kernel refuses to send (no route, no neighbour) is as lost as any other.
        let _refused = socket.send_to(format!("{}\n", sent.len()).as_bytes(), to);
        sent.push(at);
        // After a pause of the whole machine it goes on at its pace, without catching up.
        next = (next + interval).max(at);
    }
    sent
}

fn listen(socket: &UdpSocket, done: &AtomicBool) -> Result<Vec<Answered>> {
    let _as_the_kernel_grants = go_first();
    let mut answers = Vec::new();
    let mut datagram = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        let Some(arrival) = receive(socket, &mut datagram)? else {
            wait(&[socket.as_fd()], Instant::now() + Duration::from_millis(20));
            continue;
        };
        let answered = datagram.get(..arrival.length).and_then(numbered);
        answers.extend(answered.map(|(number, pod)| (number, arrival.at, pod)));
    }
    Ok(answers)
}

/// The number of the question that a backend's datagram answers, and the pod.
pub(super) fn numbered(datagram: &[u8]) -> Option<(usize, String)> {
    let text = std::str::from_utf8(datagram).ok()?;
    let mut lines = text.lines();
    let number = lines.next()?.parse().ok()?;
    Some((number, Answer::parse(lines.next()?).ok()?.pod))
}
