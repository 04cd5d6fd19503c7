//! A storm of ARP requests at one station. How fast it answers is seen on the wire, by a
//! [`super::Capture`].

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{frames::unicast_question, sys::packet_socket};
use crate::lab::{LanClient, plan::Mac};

/// Requests are sent in bursts, one each millisecond.
const BURST: Duration = Duration::from_millis(1);

/// A storm that is going on.
#[derive(Debug)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    storming: JoinHandle<Result<StormReport>>,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct StormReport {
    /// How many requests.
    pub sent: u64,
    /// In which time.
    pub took: Duration,
}

impl StormReport {
    /// How many requests a second were sent.
    pub fn rate(&self) -> f64 {
        // Exact far beyond what can be sent.
        #[allow(clippy::cast_precision_loss)]
        let sent = self.sent as f64;
        sent / self.took.as_secs_f64()
    }
}

impl Storm {
    /// Ends the storm.
    ///
    /// # Errors
    /// When the client could not send.
    pub fn finish(self) -> Result<StormReport> {
        self.stop.store(true, Ordering::Relaxed);
        self.storming.join().map_err(|_| anyhow!("the storm panicked"))?
    }
}

impl LanClient {
    /// Starts to send so many ARP requests a second to one station, by unicast as a client does that checks a
    /// neighbour, for one of these addresses after the other.
    pub fn storm(&self, station: Mac, addresses: Vec<Ipv4Addr>, per_second: u32) -> Storm {
        let own = *self.addresses();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let interface = self.interface();
        let storming = self.namespace().start_thread(move || {
            let questions =
                addresses.iter().map(|wanted| unicast_question(station, own.mac(), own.v4, *wanted));
            storm(interface, &questions.collect::<Vec<_>>(), per_second, &stopped)
        });
        Storm { stop, storming }
    }
}

fn storm(interface: &str, questions: &[Vec<u8>], per_second: u32, stop: &AtomicBool) -> Result<StormReport> {
    let interface = nix::net::if_::if_nametoindex(interface).context(interface.to_owned())?;
    // Protocol 0: it receives nothing.
    let socket = packet_socket(interface, 0).context("a packet socket")?;
    let mut questions = questions.iter().cycle();
    let (mut sent, started) = (0_u64, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let due = started.elapsed().as_secs_f64() * f64::from(per_second);
        // Exact far beyond what can be sent.
        #[allow(clippy::cast_precision_loss)]
        while (sent as f64) < due {
            // What does not fit into the queue is not sent again: it is a storm.
            let _full = socket.send(questions.next().context("a storm for no address")?);
            sent += 1;
        }
        std::thread::sleep(BURST);
    }
    Ok(StormReport { sent, took: started.elapsed() })
}
