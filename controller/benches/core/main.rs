//! What the deciding core costs by itself: the mind alone, with a pretended API server that answers at
//! once. Only the processor's time inside the mind is counted.

#![allow(clippy::expect_used)]

mod api;
mod cluster;
mod replay;

use std::time::Duration;

use cluster::{Family, Kind};
use k8s_openapi::api::core::v1::Service;
use replay::{Cost, Replay};

const SERVICES: usize = 100_000;
const POOLS: usize = 100;
const NODES: usize = 20;
/// So many Services are created at once; their writes are under way together.
const AT_ONCE: usize = 100;
/// For all Services, from nothing to the end.
const GOAL: Duration = Duration::from_secs(2);
/// A cost that grows by less than this is called independent: it is what the processor's caches make of more
/// objects, and the steps of searches in trees.
const GROWTH: f64 = 2.0;

fn main() {
    history();
    pool_sizes();
}

/// The whole history of all Services, and a controller that starts when it is over.
fn history() {
    println!("{SERVICES} Services over {POOLS} pools, {NODES} nodes");
    let mut replay = Replay::of(cluster::of_many_pools(POOLS, NODES));
    let mut total = Cost::default();
    let mut windows: Vec<(usize, Cost)> = Vec::new();
    for first in (0..SERVICES).step_by(AT_ONCE) {
        let services = (first..first + AT_ONCE).map(|number| cluster::service_of(number, POOLS));
        let cost = replay.grant(services.collect());
        total += cost;
        if first % WINDOW == 0 {
            windows.push((first, Cost::default()));
        }
        if let Some((_, window)) = windows.last_mut() {
            *window += cost;
        }
    }
    let rest = replay.until_quiet();
    replay.assert_all_granted(SERVICES);
    let writes = replay.writes();
    println!(
        "{:<58} {:>8.1} us for each Service",
        "  first sight, finalizers, VirtualIP, status",
        each(total.granting, SERVICES)
    );
    println!(
        "{:<58} {:>8.1} us for each Service",
        "  announced by a speaker, and said on the Service",
        each(total.announcing, SERVICES)
    );
    println!(
        "{:<58} {:>8.1} us for each Service ({} writes of pools)",
        "  timers: pools counted, Services looked at again",
        each(total.waking + rest, SERVICES),
        writes.pools
    );
    goal("the whole history", total.sum() + rest);
    let restart = replay.restart();
    println!("{:<58} {:>8.1} us for each Service", "  complete lists, then leading", each(restart, SERVICES));
    goal("a restart with all of it, which writes nothing", restart);
    let first = windows.iter().find(|(from, _)| *from == WINDOW).map(|(_, cost)| cost.granting);
    for from in [WINDOW, 10 * WINDOW, SERVICES - WINDOW] {
        let window = windows.iter().find(|(start, _)| *start == from).map(|(_, cost)| cost.granting);
        let (Some(first), Some(window)) = (first, window) else { continue };
        growth(&format!("a grant with {from} granted before"), each(window, WINDOW), each(first, WINDOW));
    }
}

/// Grants are measured over so many Services.
const WINDOW: usize = 1000;

/// A grant from pools of very different size.
fn pool_sizes() {
    println!("grants from one pool, {NODES} nodes");
    // As many as even the smallest pool has, by as many fresh minds as make a good measure.
    let (few, times) = (12, 400);
    let small = |addresses: &str, family| -> f64 {
        let mut cost = Duration::ZERO;
        for _ in 0..times {
            cost += fill(addresses, family, few, |_| {});
        }
        each(cost, few * times)
    };
    let large = |addresses: &str, family| each(fill(addresses, family, 10 * WINDOW, |_| {}), 10 * WINDOW);
    let pools = [
        ("10.0.0.0/28", Family::IPv4),
        ("10.0.0.0/16", Family::IPv4),
        ("10.0.0.0/8", Family::IPv4),
        ("fd00::/64", Family::IPv6),
    ];
    let first = small(pools[0].0, pools[0].1);
    for (addresses, family) in pools {
        growth(&format!("the first {few} of {addresses}"), small(addresses, family), first);
    }
    let first = large(pools[1].0, pools[1].1);
    for (addresses, family) in &pools[1..] {
        growth(&format!("the first {} of {addresses}", 10 * WINDOW), large(addresses, *family), first);
    }
    let guarded = each(fill(pools[1].0, pools[1].1, 10 * WINDOW, cluster::limit), 10 * WINDOW);
    println!("{:<58} {guarded:>8.1} us", format!("as many of {}, with source ranges", pools[1].0));
}

/// Grants addresses to so many Services that are alike.
fn fill(addresses: &str, family: Family, services: usize, change: fn(&mut Service)) -> Duration {
    let mut replay = Replay::of(cluster::of_one_pool(addresses, NODES));
    let mut granting = Duration::ZERO;
    for first in (0..services).step_by(AT_ONCE) {
        let numbers = first..services.min(first + AT_ONCE);
        let services = numbers.map(|number| {
            let mut service = cluster::service(number, Kind::Single(family), None);
            change(&mut service);
            service
        });
        granting += replay.grant(services.collect()).granting;
    }
    replay.assert_all_granted(services);
    granting
}

fn each(cost: Duration, services: usize) -> f64 {
    cost.as_secs_f64() * 1e6 / services as f64
}

fn goal(what: &str, cost: Duration) {
    let reached = if cost < GOAL { "reached" } else { "NOT reached" };
    println!("{what:<58} {:>8.2} s  goal {} s: {reached}", cost.as_secs_f64(), GOAL.as_secs());
}

fn growth(what: &str, is: f64, first: f64) {
    let growth = is / first;
    let reached = if growth < GROWTH { "reached" } else { "NOT reached" };
    println!("{what:<58} {is:>8.1} us  growth {growth:.2}, goal {GROWTH:.1}: {reached}");
}
