//! A station that says things about addresses that are not its own.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{
    arrival::{receive, wait, widen},
    frames::{Said, announcement, read, reply},
    sys::{ETHERTYPE_ALL, go_first, ignore_outgoing, packet_socket},
};
use crate::lab::{LanClient, plan::Mac};

/// A station at work.
#[derive(Debug)]
pub struct Impostor {
    stop: Arc<AtomicBool>,
    working: JoinHandle<Result<u64>>,
}

/// What a station says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lie {
    /// For which addresses it answers.
    pub answers_for: BTreeSet<IpAddr>,
    /// At which MAC address it says they are: its own, as who does proxy ARP, or that of a host which is gone, as a
    /// fabric that answers from a table.
    pub mac: Mac,
    /// How often it tells everybody unasked.
    pub announces_every: Option<Duration>,
}

impl Impostor {
    /// Ends it, and returns how many answers and announcements it sent.
    ///
    /// # Errors
    /// When it could say nothing at all.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.working.join().map_err(|_| anyhow!("the impostor panicked"))?
    }
}

impl LanClient {
    /// Lets this client answer ARP and neighbour solicitations for addresses that it does not have.
    pub fn lie(&self, lie: Lie) -> Impostor {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let interface = self.interface();
        let working = self.namespace().start_thread(move || tell(interface, &lie, &stopped));
        Impostor { stop, working }
    }
}

fn tell(interface: &str, lie: &Lie, stop: &AtomicBool) -> Result<u64> {
    let _as_the_kernel_grants = go_first();
    let interface = nix::net::if_::if_nametoindex(interface).context(interface.to_owned())?;
    let socket = packet_socket(interface, ETHERTYPE_ALL).context("a packet socket")?;
    ignore_outgoing(&socket)?;
    widen(&socket, 4 << 20);
    let mut told = 0;
    let mut frame = [0; 2048];
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Some(every) = lie.announces_every.filter(|_| Instant::now() >= next) {
            next = Instant::now() + every;
            for address in &lie.answers_for {
                socket.send(&announcement(lie.mac, *address))?;
                told += 1;
            }
        }
        let Some(arrival) = receive(&socket, &mut frame)? else {
            let soon = Instant::now() + Duration::from_millis(10);
            wait(&[socket.as_fd()], soon);
            continue;
        };
        let Some(Said::Asks { wanted, asker, mac }) = frame.get(..arrival.length).and_then(read) else {
            continue;
        };
        if mac == lie.mac || !lie.answers_for.contains(&wanted) {
            continue;
        }
        // Who probes for a duplicate is told by a broadcast.
        let answer = asker
            .map_or_else(|| Some(announcement(lie.mac, wanted)), |asker| reply(lie.mac, wanted, mac, asker));
        if let Some(answer) = answer {
            socket.send(&answer)?;
            told += 1;
        }
    }
    Ok(told)
}
