//! Our end as the speaker has it: one machine for the sessions with all peers, at the usual pace.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use landfall_speaker::bfd::sessions::{Key, Outcome, Sessions};
use landfall_speaker::lan::LinkIndex;
use landfall_speaker::mind::rng::Rng;
use landfall_speaker::sys::datagram::DatagramSocket;
use landfall_speaker::wire::bfd::State;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::ours::{heartbeat, listener};
use crate::wire::Wire;

/// Waits are no longer, so that an order to end is soon seen.
const GLANCE: u16 = 5;

/// A peer: its session, where it is, and the sockets of the address at which it watches us.
struct Peer {
    key: Key,
    at: IpAddr,
    socket: DatagramSocket,
}

/// The sessions, which run until they are told to end.
pub(crate) struct Many {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<State>>>,
}

impl Many {
    /// Starts them, from these addresses of ours to those of theirs.
    pub(crate) fn start(wire: &Wire, pairs: &[(IpAddr, IpAddr)], interval: Duration) -> Self {
        wire.ours.enter();
        let link = LinkIndex(wire.ours.link);
        let peer = |(ours, theirs): &(IpAddr, IpAddr)| Peer {
            key: (link, theirs.to_string().into()),
            at: *theirs,
            socket: listener(link, *ours),
        };
        let peers: Vec<Peer> = pairs.iter().map(peer).collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || run(&peers, interval, &flag));
        Self { is_over, thread: Some(thread) }
    }

    /// Ends them as a speaker does that leaves, and tells to which states they have changed so far.
    pub(crate) fn end(mut self) -> Vec<State> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("our end has panicked");
        }
    }
}

fn run(peers: &[Peer], interval: Duration, is_over: &AtomicBool) -> Vec<State> {
    const THREE: NonZeroU8 = NonZeroU8::new(3).unwrap();
    let mut sessions = Sessions::new(interval, THREE, Rng::new(u64::from(std::process::id())));
    let wanted: BTreeSet<Key> = peers.iter().map(|peer| peer.key.clone()).collect();
    let (mut outcomes, mut states, mut buffer) = (Vec::new(), Vec::new(), [0; 2048]);
    sessions.follow(Instant::now(), &wanted, &mut outcomes);
    loop {
        perform(peers, &mut outcomes, &mut states);
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let mut fds: Vec<PollFd<'_>> =
            peers.iter().map(|peer| PollFd::new(peer.socket.as_fd(), PollFlags::POLLIN)).collect();
        let due = sessions.next_deadline().map(|at| at.saturating_duration_since(Instant::now()).as_millis());
        let wait = due.map_or(GLANCE, |due| u16::try_from(due + 1).map_or(GLANCE, |due| due.min(GLANCE)));
        poll(&mut fds, PollTimeout::from(wait)).unwrap();
        // What has come is taken in before a deadline is judged.
        for peer in peers {
            while let Ok(Some(got)) = peer.socket.receive(&mut buffer) {
                let now = Instant::now();
                sessions.receive(now, &peer.key, got.payload, got.ttl, &mut outcomes).unwrap();
            }
        }
        sessions.handle_deadline(Instant::now(), &mut outcomes);
    }
    sessions.end(Instant::now(), &mut outcomes);
    perform(peers, &mut outcomes, &mut Vec::new());
    states
}

fn perform(peers: &[Peer], outcomes: &mut Vec<Outcome>, states: &mut Vec<State>) {
    for outcome in outcomes.drain(..) {
        match outcome {
            Outcome::Send(key, control) => {
                let peer = peers.iter().find(|peer| peer.key == key).unwrap();
                // What the kernel cannot send is lost, as it could be on any wire.
                let _ = peer.socket.send(peer.at, &[control.as_ref(), &heartbeat()].concat());
            }
            Outcome::StateChanged(_, state) => states.push(state),
        }
    }
}
