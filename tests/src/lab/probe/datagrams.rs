//! A stream of datagrams to a backend, and how long it went unanswered.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::request::Answer;
use crate::lab::LanClient;

/// The pause between datagrams: 200 a second.
const INTERVAL: Duration = Duration::from_millis(5);
/// A gap this long is reported even when nothing was lost in it.
const NOTEWORTHY: Duration = Duration::from_millis(50);
/// How long after the last datagram its answer may come.
const PATIENCE: Duration = Duration::from_millis(500);

/// A prober that is at work.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    measuring: JoinHandle<Result<Report>>,
}

/// What a prober measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began.
    pub started: Instant,
    /// How many datagrams were sent.
    pub sent: u64,
    /// How many of them were answered.
    pub answered: u64,
    /// The longest time without an answer.
    pub longest_gap: Duration,
    /// Every time without an answer in which a datagram was lost, or which was longer than 50 ms, in order.
    pub gaps: Vec<Gap>,
    /// How many answers each pod gave.
    pub pods: BTreeMap<String, u64>,
}

/// A time without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the last answer before it came.
    pub from: Instant,
    /// Until the next answer.
    pub length: Duration,
    /// How many datagrams that were sent in it were never answered.
    pub lost: u64,
}

impl Report {
    /// How many datagrams were never answered.
    pub fn lost(&self) -> u64 {
        self.sent - self.answered
    }

    /// The longest gap that ended after `moment`: the outage that an event at that moment caused.
    pub fn longest_gap_after(&self, moment: Instant) -> Duration {
        let after = self.gaps.iter().filter(|gap| gap.from + gap.length > moment);
        after.map(|gap| gap.length).max().unwrap_or_default()
    }

    fn new(started: Instant, sent: &[Instant], answers: &[(usize, Instant, String)]) -> Self {
        let mut answered = vec![false; sent.len()];
        let mut pods = BTreeMap::new();
        let mut arrivals = Vec::new();
        for (number, at, pod) in answers {
            // A second answer to the same datagram proves nothing new.
            if let Some(seen) = answered.get_mut(*number).filter(|seen| !**seen) {
                *seen = true;
                *pods.entry(pod.clone()).or_default() += 1;
                arrivals.push(*at);
            }
        }
        arrivals.sort_unstable();
        if answered.last() == Some(&false) {
            arrivals.extend(sent.last());
        }
        let lost_between = |from: Instant, to: Instant| {
            let lost =
                sent.iter().zip(&answered).filter(|(at, answered)| !**answered && from <= **at && **at <= to);
            u64::try_from(lost.count()).unwrap_or(u64::MAX)
        };
        let mut gaps = Vec::new();
        let mut longest_gap = Duration::ZERO;
        let mut from = started;
        for to in arrivals {
            let length = to.saturating_duration_since(from);
            longest_gap = longest_gap.max(length);
            // Only these can be worth a look: each look goes through all that was sent.
            if length > INTERVAL {
                let lost = lost_between(from, to);
                if lost > 0 || length >= NOTEWORTHY {
                    gaps.push(Gap { from, length, lost });
                }
            }
            from = to;
        }
        let count = |yes: usize| u64::try_from(yes).unwrap_or(u64::MAX);
        Self {
            started,
            sent: count(sent.len()),
            answered: count(answered.iter().filter(|yes| **yes).count()),
            longest_gap,
            gaps,
            pods,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sent, {} lost, longest gap {:?}", self.sent, self.lost(), self.longest_gap)?;
        for gap in &self.gaps {
            let at = gap.from.saturating_duration_since(self.started);
            write!(f, "; at {at:?} for {:?}, {} lost", gap.length, gap.lost)?;
        }
        Ok(())
    }
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
    /// They all have the same source port (one flow), so that a flow's fate is measured.
    pub fn probe(&self, to: SocketAddr) -> Prober {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let measuring = self.namespace().start_thread(move || measure(to, &stopped));
        Prober { stop, measuring }
    }
}

fn measure(to: SocketAddr, stop: &AtomicBool) -> Result<Report> {
    let unspecified = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((unspecified, 0)).context("a socket to probe from")?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let receiving = socket.try_clone()?;
    let started = Instant::now();
    let done = AtomicBool::new(false);
    let (sent, answers) = thread::scope(|scope| {
        let answers = scope.spawn(|| receive(&receiving, &done));
        let sent = send(&socket, to, started, stop);
        thread::sleep(PATIENCE);
        done.store(true, Ordering::Relaxed);
        (sent, answers.join())
    });
    let answers = answers.map_err(|_| anyhow!("the receiver panicked"))?;
    Ok(Report::new(started, &sent, &answers))
}

fn send(socket: &UdpSocket, to: SocketAddr, started: Instant, stop: &AtomicBool) -> Vec<Instant> {
    let mut sent = Vec::new();
    let mut next = started;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        // A datagram that the kernel refuses to send (no route, no neighbour) is as lost as any other.
        let _refused = socket.send_to(format!("{}\n", sent.len()).as_bytes(), to);
        sent.push(at);
        // After a pause of the whole machine it goes on at its pace, without catching up.
        next = (next + INTERVAL).max(at);
    }
    sent
}

fn receive(socket: &UdpSocket, done: &AtomicBool) -> Vec<(usize, Instant, String)> {
    let mut answers = Vec::new();
    let mut datagram = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        let Ok((length, _)) = socket.recv_from(&mut datagram) else { continue };
        let at = Instant::now();
        let text = String::from_utf8_lossy(datagram.get(..length).unwrap_or_default());
        let mut lines = text.lines();
        let number = lines.next().and_then(|line| line.parse().ok());
        if let (Some(number), Ok(answer)) = (number, Answer::parse(lines.next().unwrap_or_default())) {
            answers.push((number, at, answer.pod));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Gap, Report};

    #[test]
    fn a_gap_lasts_from_answer_to_answer_and_counts_what_was_lost_in_it() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let sent: Vec<Instant> = (0..6).map(|number| at(number * 5)).collect();
        let answer = |number: usize, milliseconds| (number, at(milliseconds), "a".to_owned());
        let report = Report::new(
            start,
            &sent,
            &[answer(0, 1), answer(1, 6), answer(4, 21), answer(4, 22), answer(5, 26)],
        );
        assert_eq!((report.sent, report.answered, report.lost()), (6, 4, 2));
        assert_eq!(report.gaps, [Gap { from: at(6), length: Duration::from_millis(15), lost: 2 }]);
        assert_eq!(report.longest_gap_after(at(20)), Duration::from_millis(15));
        assert_eq!(report.longest_gap_after(at(21)), Duration::ZERO);
        assert_eq!(report.pods["a"], 4);
    }

    #[test]
    fn silence_to_the_end_is_a_gap() {
        let start = Instant::now();
        let sent: Vec<Instant> = (0..101).map(|number| start + Duration::from_millis(number * 5)).collect();
        let silent = Report::new(start, &sent, &[]);
        assert_eq!((silent.longest_gap, silent.lost()), (Duration::from_millis(500), 101));
    }
}
