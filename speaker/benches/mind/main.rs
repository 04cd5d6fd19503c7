//! What the mind of a speaker costs by itself: its processor time and its memory, with a hundred peers that are
//! minds like it and thousands of addresses. Only what happens inside the one mind is counted.

// The cost is measured by the clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod cost;
mod crowd;

use std::time::{Duration, Instant};

use cost::{Cost, resident};
use crowd::{Crowd, vip_address};
use landfall_speaker::lan::MacAddr;
use landfall_speaker::mind::Action;
use landfall_speaker::wire::arp::{ArpRepr, Operation};

const PEERS: usize = 100;
const VIPS: u32 = 10_000;
/// Goals of the whole speaker; the mind is the part that grows.
const GOAL_SHARE: f64 = 0.05;
const GOAL_MEMORY: f64 = 60e6;
const SIMULATED: Duration = Duration::from_secs(20);
const REQUESTS: u32 = 100_000;

fn main() {
    // Argument of `cargo bench`, and one part alone where one is named.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_meant = |part: &str| only.as_ref().is_none_or(|only| part.contains(only.as_str()));
    for with_keys in [false, true] {
        if is_meant("steady") {
            steady(with_keys);
        }
    }
    for vips in [1000, VIPS] {
        if is_meant("answers") {
            answers(vips);
        }
    }
    for with_keys in [false, true] {
        if is_meant("takeover") {
            takeover(with_keys);
        }
    }
}

/// Heartbeats of all peers, and nothing else.
fn steady(with_keys: bool) {
    let mut crowd = Crowd::new(PEERS, VIPS, with_keys);
    crowd.pass(Duration::from_secs(3));
    println!(
        "{PEERS} peers, {VIPS} addresses, {} keys: on the heap {:.1} MB for the mind, {:.1} MB with books and \
         desk; this process with all peers {:.0} MB",
        if with_keys { "with" } else { "without" },
        crowd.heap() as f64 / 1e6,
        crowd.heap_with_books() as f64 / 1e6,
        resident() as f64 / 1e6,
    );
    crowd.begin();
    crowd.pass(SIMULATED);
    let (cost, events) = (crowd.cost(), crowd.events());
    let share = cost.time.as_secs_f64() / SIMULATED.as_secs_f64();
    let reached = |is: bool| if is { "reached" } else { "NOT reached" };
    println!(
        "  {:.2} % of a core, goal {} %: {}; {:.1} us and {:.1} allocations for each of {:.0} events a second, the \
         longest {:?}",
        share * 100.0,
        GOAL_SHARE * 100.0,
        reached(share < GOAL_SHARE),
        cost.time.as_secs_f64() * 1e6 / events as f64,
        cost.allocations as f64 / events as f64,
        events as f64 / SIMULATED.as_secs_f64(),
        cost.longest,
    );
    println!(
        "  memory of {:.1} MB, goal {} MB for the whole speaker: {}",
        crowd.heap_with_books() as f64 / 1e6,
        GOAL_MEMORY / 1e6,
        reached((crowd.heap_with_books() as f64) < GOAL_MEMORY),
    );
}

/// ARP requests for addresses that this node announces.
fn answers(vips: u32) {
    let mut crowd = Crowd::new(2, vips, false);
    crowd.all_to_us();
    crowd.pass(Duration::from_secs(5));
    let requests: Vec<Vec<u8>> = (0..1000)
        .map(|number| {
            let std::net::IpAddr::V4(tpa) = vip_address(number * 7919 % vips) else { unreachable!() };
            let sha = MacAddr([2, 0, 0, 9, 9, number as u8]);
            let spa = std::net::Ipv4Addr::new(10, 0, 9, number as u8);
            ArpRepr { operation: Operation::Request, sha, spa, tha: MacAddr::ZERO, tpa }
                .emit_frame(MacAddr::BROADCAST)
                .to_vec()
        })
        .collect();
    let (mut answered, mut out) = (0, Vec::with_capacity(8));
    let mut cost = Cost::default();
    let began = Instant::now();
    let region = cost.begin();
    for number in 0..REQUESTS {
        let frame = &requests[number as usize % requests.len()];
        crowd.mind.hear_frame(crowd.now, (crowd::LAN, crowd.now), frame, &mut out);
        answered += u32::from(out.iter().any(|action| matches!(action, Action::SendFrame { .. })));
        out.clear();
    }
    cost.end(region, began.elapsed());
    println!(
        "{vips} addresses: {:.0} ns and {:.2} allocations for each ARP request ({answered} of {REQUESTS} answered)",
        cost.time.as_secs_f64() * 1e9 / f64::from(REQUESTS),
        cost.allocations as f64 / f64::from(REQUESTS),
    );
}

/// The node that announces a thousand addresses falls silent.
fn takeover(with_keys: bool) {
    let mut crowd = Crowd::new(PEERS, VIPS, with_keys);
    crowd.thousand_to_first_peer();
    crowd.pass(Duration::from_secs(6));
    crowd.begin();
    crowd.silence_first_peer();
    let silent = crowd.now;
    crowd.pass(Duration::from_millis(400));
    let (first, last) = crowd.claimed().expect("the first and the last claim");
    let cost = crowd.cost();
    println!(
        "takeover of 1,000 of {VIPS} addresses, {PEERS} peers, {} keys: claimed {:?} to {:?} after the last heartbeat, \
         {:.1} ms of the processor in these 400 ms, the longest event {:?}",
        if with_keys { "with" } else { "without" },
        first - silent,
        last - silent,
        cost.time.as_secs_f64() * 1e3,
        cost.longest,
    );
    for (kind, time, count, longest) in crowd.by_kind() {
        println!(
            "  {kind:<10} {count:>6} times {:>8.1} us each, the longest {longest:?}",
            time.as_secs_f64() * 1e6 / count as f64
        );
    }
}
