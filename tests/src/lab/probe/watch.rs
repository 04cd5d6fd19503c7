//! Asking the LAN again and again who has an address, and noting every answer:
//! two nodes that answer for one VIP are seen here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use socket2::Socket;

use super::{
    arrival::{receive, stamp, wait, widen},
    frames::{ETHERTYPE_ARP, ETHERTYPE_IPV6, claim, question},
    sys::{go_first, packet_socket},
};
use crate::lab::{LanClient, plan::Mac};

/// How long after the last question an answer may come.
const PATIENCE: Duration = Duration::from_millis(200);

/// A watch that is going on.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<Result<Sightings>>,
}

/// One answer, or one announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When it came.
    pub at: Instant,
    /// The MAC address it named.
    pub mac: Mac,
}

/// All that a watch saw.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    /// When each question was sent.
    pub questions: Vec<Instant>,
    /// Every answer, in the order of arrival.
    pub answers: Vec<Sighting>,
}

impl Sightings {
    /// Everybody who answered, with the number of answers.
    pub fn answerers(&self) -> BTreeMap<Mac, usize> {
        let mut answerers = BTreeMap::new();
        for sighting in &self.answers {
            *answerers.entry(sighting.mac).or_default() += 1;
        }
        answerers
    }

    /// The last who answered.
    pub fn last(&self) -> Option<Mac> {
        self.answers.last().map(|sighting| sighting.mac)
    }

    /// Who answered alone, in turn: one more than the address has moved. Parts of a second in which several
    /// answered, as in a handover, are passed over.
    pub fn reigns(&self) -> Vec<Mac> {
        let Some(first) = self.answers.first() else { return Vec::new() };
        let part = |sighting: &Sighting| sighting.at.saturating_duration_since(first.at).as_millis() / 100;
        let mut parts: BTreeMap<u128, BTreeSet<Mac>> = BTreeMap::new();
        for sighting in &self.answers {
            parts.entry(part(sighting)).or_default().insert(sighting.mac);
        }
        let alone =
            parts.into_values().filter(|macs| macs.len() == 1).filter_map(|macs| macs.first().copied());
        let mut reigns: Vec<Mac> = alone.collect();
        reigns.dedup();
        reigns
    }

    /// The longest time in which question after question was answered by more
    /// than one MAC address; zero where each question had one answerer at most.
    pub fn longest_split(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut since = None;
        let mut answers = self.answers.iter().peekable();
        for (index, asked) in self.questions.iter().enumerate() {
            let until = self.questions.get(index + 1).copied().unwrap_or(*asked + PATIENCE);
            let mut macs = BTreeSet::new();
            while let Some(sighting) = answers.next_if(|sighting| sighting.at < until) {
                macs.extend((sighting.at >= *asked).then_some(sighting.mac));
            }
            let split = macs.len() > 1;
            since = if split { since.or(Some(*asked)) } else { None };
            if let Some(since) = since {
                longest = longest.max(until.saturating_duration_since(since));
            }
        }
        longest
    }

    /// The longest time in which question after question had no answer at all.
    pub fn longest_silence(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut since = self.questions.first().copied();
        let end = self.questions.last().copied();
        for at in self.answers.iter().map(|sighting| sighting.at).chain(end) {
            if let Some(since) = since {
                longest = longest.max(at.saturating_duration_since(since));
            }
            since = Some(at);
        }
        longest
    }
}

impl Watch {
    /// Ends the watch and returns what it saw.
    ///
    /// # Errors
    /// When the client could not ask.
    pub fn finish(self) -> Result<Sightings> {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.join().map_err(|_| anyhow!("the watch panicked"))?
    }
}

impl LanClient {
    /// Starts to ask the LAN who has `address` (by ARP or by neighbour
    /// solicitation), once every `interval`.
    ///
    /// Answers also reach the client's own neighbour table, so measure traffic
    /// from another client than the one that watches.
    pub fn watch(&self, address: IpAddr, interval: Duration) -> Watch {
        let own = *self.addresses();
        let asker = if address.is_ipv4() { IpAddr::V4(own.v4) } else { IpAddr::V6(own.v6) };
        let interface = self.interface();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watching = self
            .namespace()
            .start_thread(move || watch(interface, (own.mac(), asker), address, interval, &stopped));
        Watch { stop, watching }
    }

    /// Asks the LAN once who has `address`, and returns everybody who answers within `limit`.
    ///
    /// # Errors
    /// When the client could not ask.
    pub fn who_has(&self, address: IpAddr, limit: Duration) -> Result<BTreeSet<Mac>> {
        let watch = self.watch(address, limit);
        thread::sleep(limit.mul_f32(0.9));
        Ok(watch.finish()?.answerers().into_keys().collect())
    }
}

fn watch(
    interface: &str,
    (own, asker): (Mac, IpAddr),
    wanted: IpAddr,
    interval: Duration,
    stop: &AtomicBool,
) -> Result<Sightings> {
    let question = question(own, asker, wanted).ok_or_else(|| anyhow!("{asker} cannot ask for {wanted}"))?;
    let ethertype = if wanted.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 };
    let interface = nix::net::if_::if_nametoindex(interface).context(interface.to_owned())?;
    let socket = packet_socket(interface, ethertype).context("a packet socket")?;
    stamp(&socket)?;
    widen(&socket, 4 << 20);
    let done = AtomicBool::new(false);
    let (questions, answers) = thread::scope(|scope| {
        let answers = scope.spawn(|| listen(&socket, own, wanted, &done));
        let _as_the_kernel_grants = go_first();
        let mut questions = Vec::new();
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            // In small steps, so that the end of a slow watch is not awaited for long.
            let pause = next.saturating_duration_since(Instant::now());
            thread::sleep(pause.min(Duration::from_millis(20)));
            if pause.is_zero() {
                questions.push(Instant::now());
                // While the client's own port is dark nothing can be sent; that question simply has no answer.
                let _dark = socket.send(&question);
                next += interval;
            }
        }
        thread::sleep(PATIENCE);
        done.store(true, Ordering::Relaxed);
        (questions, answers.join())
    });
    Ok(Sightings { questions, answers: answers.map_err(|_| anyhow!("the listener panicked"))?? })
}

fn listen(socket: &Socket, own: Mac, wanted: IpAddr, done: &AtomicBool) -> Result<Vec<Sighting>> {
    let _as_the_kernel_grants = go_first();
    let mut answers = Vec::new();
    let mut frame = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        let Some(arrival) = receive(socket, &mut frame)? else {
            wait(&[socket.as_fd()], Instant::now() + Duration::from_millis(20));
            continue;
        };
        let claimed = frame.get(..arrival.length).and_then(|frame| claim(frame, wanted));
        let sighting = |mac| Sighting { at: arrival.at, mac };
        answers.extend(claimed.filter(|mac| *mac != own).map(sighting));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Sighting, Sightings};
    use crate::lab::plan::Mac;

    #[test]
    fn a_split_lasts_from_the_first_question_with_two_answers_to_the_end_of_the_last() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let answer = |milliseconds, last| Sighting { at: at(milliseconds), mac: Mac([2, 0, 0, 0, 1, last]) };
        let mut seen = Sightings {
            questions: [0, 10, 20, 30, 40].map(at).to_vec(),
            answers: vec![
                answer(1, 1),
                answer(11, 1),
                answer(12, 2),
                answer(21, 2),
                answer(22, 1),
                answer(41, 2),
            ],
        };
        assert_eq!(seen.longest_split(), Duration::from_millis(20));
        assert_eq!(seen.longest_silence(), Duration::from_millis(19));
        assert_eq!(seen.last(), Some(Mac([2, 0, 0, 0, 1, 2])));
        assert!(seen.reigns().is_empty(), "within a tenth of a second");
        seen.answers.extend([answer(130, 2), answer(220, 1), answer(250, 2), answer(310, 1), answer(420, 1)]);
        assert_eq!(seen.reigns(), [Mac([2, 0, 0, 0, 1, 2]), Mac([2, 0, 0, 0, 1, 1])]);
        seen.answers.retain(|sighting| sighting.mac == Mac([2, 0, 0, 0, 1, 1]));
        assert_eq!(seen.longest_split(), Duration::ZERO);
    }
}
