//! Our BFD and that of another implementation, FRR's `bfdd`, over a wire between two network namespaces:
//! a session of IPv4 and one of IPv6 (link-local addresses), which go through each story side by side.
//!
//! Needs root, and FRR's programs (`tests/install.sh`); without root, each test says that it is skipped.

// Helpers of tests may panic as tests do, and the story runs in real time.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bfdd::Frr;
use landfall_speaker::bfd::session::Event;
use landfall_speaker::bfd::timing::{Interval, Timing};
use landfall_speaker::wire::bfd::{Diagnostic, State};
use many::Many;
use ours::{Ours, Setup};
use wire::{Wire, is_root};

mod bfdd;
mod many;
mod ours;
#[path = "../wire/mod.rs"]
mod wire;

/// At both ends, at first. Both intervals are 300 ms there.
const DETECT_MULT: u8 = 5;
const AT_FIRST: [&str; 3] = ["detect-multiplier 5", "receive-interval 300", "transmit-interval 300"];

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn timing(tx: u64, rx: u64) -> Timing {
    Timing {
        desired_min_tx: Interval::try_from(ms(tx)).unwrap(),
        required_min_rx: Interval::try_from(ms(rx)).unwrap(),
        detect_mult: NonZeroU8::new(DETECT_MULT).unwrap(),
    }
}

fn setup() -> Setup {
    Setup { timing: timing(300, 300), steady_pace: false, has_trailer: true }
}

/// Our address and theirs, of each session.
fn sessions() -> [(IpAddr, IpAddr); 2] {
    [("192.168.10.11", "192.168.10.99"), ("fe80::ff:fe00:1", "fe80::ff:fe00:9")]
        .map(|(ours, theirs)| (ours.parse().unwrap(), theirs.parse().unwrap()))
}

/// The wire with both ends.
struct Ends {
    ours: Vec<Ours>,
    frr: Frr,
    _wire: Wire,
}

impl Ends {
    async fn up(setup: Setup) -> Self {
        let wire = Wire::new().await;
        let frr = Frr::start(&wire, &sessions(), &AT_FIRST);
        let ours = start_ours(&wire, setup);
        let ends = Self { ours, frr, _wire: wire };
        ends.are_up();
        ends
    }

    /// Our sessions with their addresses.
    fn each(&self) -> impl Iterator<Item = ((IpAddr, IpAddr), &Ours)> {
        sessions().into_iter().zip(&self.ours)
    }

    /// Waits until both ends say so, and have what they were given at first.
    fn are_up(&self) {
        for ((address, _), ours) in self.each() {
            let is_settled = |interval, detection| interval == Some(ms(300)) && detection == Some(ms(1500));
            ours.until("up at the pace of 300 ms", |view| {
                view.state == State::Up && is_settled(view.transmit_interval, view.detection_time)
            });
            let peer = self.frr.until(address, "up at the pace of 300 ms", |peer| {
                let intervals = (peer.remote_transmit_interval, peer.remote_receive_interval);
                peer.status == "up" && intervals == (300, 300)
            });
            assert_eq!(peer.diagnostic(), Diagnostic::NoDiagnostic);
            assert_eq!(peer.remote_diagnostic(), Diagnostic::NoDiagnostic);
            assert_eq!(peer.remote_detect_multiplier, u64::from(DETECT_MULT));
            assert_eq!(ours.view().discarded, []);
        }
    }

    /// How often each end's sessions have changed their states.
    fn changes(&self) -> Vec<(usize, u64, u64)> {
        let of = |((address, _), ours): ((IpAddr, IpAddr), &Ours)| {
            let counters = self.frr.counters(address);
            (ours.view().changes.len(), counters.session_up, counters.session_down)
        };
        self.each().map(of).collect()
    }
}

fn start_ours(wire: &Wire, setup: Setup) -> Vec<Ours> {
    sessions().map(|(address, peer)| Ours::start(wire, address, peer, setup)).into()
}

async fn come_up(is_frr_first: bool, steady_pace: bool) {
    if !is_root() {
        return;
    }
    let setup = Setup { steady_pace, ..setup() };
    let wire = Wire::new().await;
    let (ours, frr);
    if is_frr_first {
        frr = Frr::start(&wire, &sessions(), &AT_FIRST);
        let has_spoken = |(address, _)| frr.counters(address).control_packet_output >= 2;
        let start = Instant::now();
        while !sessions().into_iter().all(has_spoken) {
            assert!(start.elapsed() < wire::LIMIT, "FRR is silent");
            std::thread::sleep(ms(20));
        }
        ours = start_ours(&wire, setup);
    } else {
        ours = start_ours(&wire, setup);
        for ours in &ours {
            ours.until("heard by nobody", |view| view.sent.len() >= 2);
        }
        frr = Frr::start(&wire, &sessions(), &AT_FIRST);
    }
    let ends = Ends { ours, frr, _wire: wire };
    ends.are_up();
    for ((address, _), ours) in ends.each() {
        let mut states: Vec<State> = ours.view().changes.iter().map(|(to, _)| *to).collect();
        states.retain(|state| *state != State::Init);
        assert_eq!(states, [State::Up], "up once, and never down again");
        let counters = ends.frr.counters(address);
        assert_eq!((counters.session_up, counters.session_down), (1, 0));
    }
}

#[tokio::test]
async fn sessions_come_up_when_frr_is_first() {
    come_up(true, false).await;
}

#[tokio::test]
async fn sessions_come_up_when_we_are_first() {
    come_up(false, false).await;
}

#[tokio::test]
async fn sessions_of_a_steady_pace_come_up_when_frr_is_first() {
    come_up(true, true).await;
}

#[tokio::test]
async fn sessions_of_a_steady_pace_come_up_when_we_are_first() {
    come_up(false, true).await;
}

/// Both ends change what they want, one after the other, while the sessions are up.
async fn renegotiate(setup: Setup) {
    if !is_root() {
        return;
    }
    let ends = Ends::up(setup).await;
    let before = ends.changes();
    // What FRR wants to send and to receive at most, what we want, and what comes of it: the interval at
    // which we send, the one at which FRR sends. The first change is FRR's, the second ours, and so on.
    let steps = [
        ((100, 100), (300, 300), (300, 300)),
        ((100, 100), (100, 100), (100, 100)),
        ((400, 250), (100, 100), (250, 400)),
        ((400, 250), (200, 500), (250, 500)),
        ((150, 150), (200, 500), (200, 500)),
        ((150, 150), (150, 100), (150, 150)),
        // Far apart: ten packets of FRR between two of ours.
        ((150, 150), (1500, 100), (1500, 150)),
    ];
    let mut of_frr = (300, 300);
    for (frr, ours, (from_us, from_frr)) in steps {
        for (session, our_end) in ends.each() {
            if frr != of_frr {
                let lines = [format!("transmit-interval {}", frr.0), format!("receive-interval {}", frr.1)];
                ends.frr.configure(session, &[&lines[0], &lines[1]]);
            } else {
                our_end.tell(Event::SetTiming(timing(ours.0, ours.1)));
            }
        }
        of_frr = frr;
        for ((address, _), our_end) in ends.each() {
            let what = format!("at {from_us} ms, and hears {from_frr} ms");
            our_end.until(&what, |view| {
                let is_agreed = view.transmit_interval == Some(ms(from_us))
                    && view.detection_time == Some(ms(from_frr) * u32::from(DETECT_MULT));
                // FRR tells no interval that is in use, so its packets have to: from 75 to 100 % of it.
                is_agreed
                    && view.pace().is_some_and(|pace| {
                        (ms(from_frr) * 78 / 100..ms(from_frr) * 97 / 100).contains(&pace)
                    })
            });
            ends.frr.until(address, "told of what we want", |peer| {
                let told = (peer.remote_transmit_interval, peer.remote_receive_interval);
                told == ours && (peer.transmit_interval, peer.receive_interval) == frr
            });
        }
    }
    for (_, ours) in ends.each() {
        let sent = ours.view().sent.len();
        ours.until("at rest", |view| view.sent.len() >= sent + 3);
    }
    assert_eq!(ends.changes(), before, "no session has changed its state");
    for (_, ours) in ends.each() {
        assert_eq!(ours.view().discarded, []);
    }
}

#[tokio::test]
async fn intervals_are_renegotiated_while_the_sessions_stay_up() {
    renegotiate(setup()).await;
}

#[tokio::test]
async fn intervals_are_renegotiated_without_a_trailer_as_well() {
    renegotiate(Setup { has_trailer: false, ..setup() }).await;
}

#[tokio::test]
async fn frr_is_down_while_we_are_switched_off() {
    if !is_root() {
        return;
    }
    let ends = Ends::up(setup()).await;
    for (_, ours) in ends.each() {
        ours.tell(Event::SetEnabled(false));
    }
    for ((address, _), ours) in ends.each() {
        let peer = ends.frr.until(address, "down", |peer| peer.status == "down");
        assert_eq!(peer.remote_diagnostic(), Diagnostic::AdministrativelyDown);
        let view = ours.view();
        assert_eq!(view.state, State::AdminDown);
        assert_eq!(view.changes.last(), Some(&(State::AdminDown, Diagnostic::AdministrativelyDown)));
    }
    for (_, ours) in ends.each() {
        ours.tell(Event::SetEnabled(true));
    }
    ends.are_up();
    for ((address, _), _) in ends.each() {
        let counters = ends.frr.counters(address);
        assert_eq!((counters.session_up, counters.session_down), (2, 1));
    }
}

#[tokio::test]
async fn we_are_down_and_frr_is_not_taken_for_dead_while_it_is_switched_off() {
    if !is_root() {
        return;
    }
    let ends = Ends::up(setup()).await;
    let (mut before, mut silence) = (Vec::new(), Duration::ZERO);
    for (session, ours) in ends.each() {
        before.push(ours.view().changes.len());
        ends.frr.configure(session, &["shutdown"]);
    }
    for (_, ours) in ends.each() {
        let view = ours.until("told AdminDown", |view| view.state == State::Down);
        assert_eq!(view.remote.0, State::AdminDown);
        silence = silence.max(view.detection_time.unwrap());
    }
    std::thread::sleep(silence + ms(500));
    for ((_, ours), before) in ends.each().zip(before) {
        let changes = ours.view().changes.split_off(before);
        assert_eq!(changes, [(State::Down, Diagnostic::NeighborSignaledSessionDown)]);
    }
    for (session, _) in ends.each() {
        ends.frr.configure(session, &["no shutdown"]);
    }
    ends.are_up();
}

#[tokio::test]
async fn frr_notices_that_we_are_silent() {
    if !is_root() {
        return;
    }
    let ends = Ends::up(setup()).await;
    for (_, ours) in ends.each() {
        ours.be_silent(true);
    }
    for ((address, _), ours) in ends.each() {
        let is_told = |told: &Diagnostic| *told == Diagnostic::ControlDetectionTimeExpired;
        let view = ours.until("told that we are gone", |view| is_told(&view.remote.1));
        assert_eq!(view.remote.0, State::Down);
        // It may be Init again by now: both ends are heard.
        let change = (State::Down, Diagnostic::NeighborSignaledSessionDown);
        assert!(view.changes.contains(&change), "{:?}", view.changes);
        let (told, _) = view.heard.iter().find(|(_, repr)| is_told(&repr.diagnostic)).unwrap();
        let silence = told.duration_since(*view.sent.last().unwrap());
        assert!((ms(1500)..ms(4000)).contains(&silence), "{silence:?} of silence, not 1.5 s");
        let peer = ends.frr.peer(address);
        assert_eq!(
            (peer.status.as_str(), peer.diagnostic()),
            ("down", Diagnostic::ControlDetectionTimeExpired)
        );
    }
    for (_, ours) in ends.each() {
        ours.be_silent(false);
    }
    ends.are_up();
}

#[tokio::test]
async fn we_notice_that_frr_is_silent() {
    if !is_root() {
        return;
    }
    let mut ends = Ends::up(setup()).await;
    ends.frr.signal("STOP");
    for (_, ours) in ends.each() {
        let view = ours.until("down", |view| view.state == State::Down);
        assert_eq!(view.changes.last(), Some(&(State::Down, Diagnostic::ControlDetectionTimeExpired)));
        let silence = view.heard.last().unwrap().0.elapsed();
        assert!((ms(1500)..ms(4000)).contains(&silence), "{silence:?} of silence, not 1.5 s");
    }
    ends.frr.signal("CONT");
    ends.are_up();
}

/// FRR's `bfdd` is killed and comes back: at once, or when we have noticed.
async fn restart(is_noticed: bool) {
    if !is_root() {
        return;
    }
    let mut ends = Ends::up(setup()).await;
    let former: Vec<u32> = sessions().map(|(address, _)| ends.frr.peer(address).id).into();
    let before: Vec<usize> = ends.ours.iter().map(|ours| ours.view().changes.len()).collect();
    ends.frr.signal("KILL");
    if is_noticed {
        for ours in &ends.ours {
            ours.until("down", |view| view.state == State::Down);
        }
    }
    ends.frr.start_again();
    for (ours, before) in ends.ours.iter().zip(before) {
        ours.until("down and up again", |view| {
            view.state == State::Up && view.changes.iter().skip(before).any(|(to, _)| *to == State::Down)
        });
        let changes = ours.view().changes.split_off(before);
        let (to, why) = changes[0];
        assert_eq!(to, State::Down);
        // The other way, a slow start of FRR's is noticed as well.
        assert!(!is_noticed || why == Diagnostic::ControlDetectionTimeExpired, "{why:?}");
        assert_eq!(changes.last(), Some(&(State::Up, Diagnostic::NoDiagnostic)));
        assert_eq!(changes.iter().filter(|(to, _)| *to == State::Down).count(), 1, "{changes:?}");
    }
    ends.are_up();
    for ((address, _), former) in sessions().into_iter().zip(former) {
        assert_ne!(ends.frr.peer(address).id, former, "a new process draws a new discriminator");
    }
}

#[tokio::test]
async fn sessions_come_up_again_when_frr_was_killed_and_starts_later() {
    restart(true).await;
}

#[tokio::test]
async fn sessions_come_up_again_when_frr_was_killed_and_starts_at_once() {
    restart(false).await;
}

#[tokio::test]
async fn frr_takes_in_every_packet_with_its_trailer() {
    if !is_root() {
        return;
    }
    let ends = Ends::up(setup()).await;
    // While a session comes up, FRR drops a packet that was sent before we had heard of it.
    let of = |((address, _), ours)| uncounted(&ends.frr, address, ours);
    let before: Vec<u64> = ends.each().map(of).collect();
    for ((address, _), ours) in ends.each() {
        let sent = ours.view().sent.len();
        let view = ours.until("20 packets later", |view| view.sent.len() >= sent + 20);
        let peer = ends.frr.peer(address);
        let (_, told) = view.heard.last().unwrap();
        assert_eq!(told.my_discriminator.get(), peer.id);
        assert_eq!(told.your_discriminator, Some(ours.discriminator));
        assert_eq!(peer.remote_id, ours.discriminator.get());
    }
    let after: Vec<u64> = ends.each().map(of).collect();
    assert_eq!(before, after, "packets that FRR did not take in");
}

/// How many of our packets FRR has not counted, once two looks have told the same.
fn uncounted(frr: &Frr, address: IpAddr, ours: &Ours) -> u64 {
    let start = Instant::now();
    let mut former = None;
    loop {
        let sent = ours.view().sent.len();
        let taken = frr.counters(address).control_packet_input;
        // Nothing left in between, and what left before has had its time to come.
        let is_still = ours.view().sent.len() == sent;
        let now = is_still.then(|| (sent as u64).checked_sub(taken).unwrap());
        if let Some(uncounted) = now.filter(|_| now == former) {
            return uncounted;
        }
        former = now;
        assert!(start.elapsed() < wire::LIMIT, "no two looks at the counters tell the same");
        std::thread::sleep(ms(10));
    }
}

#[tokio::test]
async fn the_sessions_of_a_speaker_stay_up_at_its_own_pace_until_it_leaves() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    // FRR is to be patient enough for a machine that is busy: it judges each silence by our multiplier,
    // which is 3.
    let lines = ["detect-multiplier 20", "receive-interval 500", "transmit-interval 100"];
    let frr = Frr::start(&wire, &sessions(), &lines);
    let ours = Many::start(&wire, &sessions(), ms(100));
    let is_up = |peer: &bfdd::Peer| {
        peer.status == "up" && (peer.remote_transmit_interval, peer.remote_receive_interval) == (100, 100)
    };
    for (address, _) in sessions() {
        let peer = frr.until(address, "up", is_up);
        assert_eq!(peer.remote_detect_multiplier, 3);
    }
    std::thread::sleep(Duration::from_secs(2));
    for (address, _) in sessions() {
        let counters = frr.counters(address);
        assert_eq!((counters.session_up, counters.session_down), (1, 0));
    }
    let states = ours.end();
    assert_eq!(states.iter().filter(|state| **state == State::Up).count(), 2, "{states:?}");
    assert!(!states.contains(&State::Down), "{states:?}");
    for (address, _) in sessions() {
        let peer = frr.until(address, "down", |peer| peer.status == "down");
        assert_eq!(peer.remote_diagnostic(), Diagnostic::AdministrativelyDown);
    }
}
