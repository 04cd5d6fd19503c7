//! What stories begin with, and what they end with.

use std::time::Duration;

use landfall_crds::Fallback;
use landfall_sim::world::{World, ms, vip_address};
use landfall_speaker::lan::{NodeName, Vip};

/// An address with so many candidates, ranked from the first node on.
pub fn vip(number: u32, first: usize, nodes: usize) -> Vip {
    let candidates = (0..nodes).map(|place| NodeName::from(format!("n{}", (first + place) % nodes + 1)));
    Vip {
        address: vip_address(number),
        claimed: true,
        epoch: 1,
        candidates: candidates.collect(),
        interfaces: Vec::new(),
        fallback: Fallback::None,
        health_checks: Vec::new(),
        last_term: 0,
        guard: None,
        announced_before: true,
    }
}

/// A settled world with one address, announced by the first node, with a client that uses it.
pub fn settled(nodes: usize, seed: u64) -> World {
    let mut world = World::new(nodes, seed);
    world.run(ms(1000));
    let address = vip_address(1);
    world.watch(address);
    world.stations.used.insert(address);
    world.stations.observes = true;
    world.set_vip(vip(1, 0, nodes));
    world.run(ms(3000));
    assert_eq!(world.owner(address), Some(0), "{}", world.describe(address));
    assert!(world.stations.cached(address).is_some());
    world.watcher.reset();
    world.stations.double_answers.clear();
    world
}

pub fn percentiles(mut figures: Vec<Duration>) -> String {
    figures.sort();
    let at = |share: usize| figures[(figures.len() - 1) * share / 100];
    format!("median {:?}, 90 % {:?}, worst {:?} of {}", at(50), at(90), at(100), figures.len())
}

/// I1: in a connected LAN that was left alone for a while, somebody answers for every address that is looked at.
#[track_caller]
pub fn i1_no_void(world: &World) {
    for address in world.watcher.addresses() {
        let Some(vip) = world.vip(address).filter(|vip| vip.claimed) else { continue };
        let can = |name: &NodeName| {
            let node = world.nodes.iter().position(|node| node.name == *name);
            node.is_some_and(|number| world.is_reachable(number) && world.mind(number).is_some())
        };
        if vip.candidates.iter().any(can) {
            assert!(
                !world.answering(address).is_empty(),
                "nobody answers for {address}: {}",
                world.describe(address)
            );
        }
    }
}

/// I2: in a connected LAN that was left alone for a while, at most one node answers for an address.
#[track_caller]
pub fn i2_no_split(world: &World) {
    for address in world.watcher.addresses() {
        let answering = world.answering(address);
        assert!(answering.len() <= 1, "{answering:?} answer for {address}: {}", world.describe(address));
    }
}

/// Both, at every instant from now on for so long, with a handover of at most `handover`.
#[track_caller]
pub fn hold_for(world: &mut World, duration: Duration, handover: Duration) {
    world.watcher.reset();
    world.run(duration);
    i1_no_void(world);
    i2_no_split(world);
    let (split, void) = (world.watcher.longest_split(), world.watcher.longest_void());
    assert!(split <= handover, "two nodes answered for {split:?}");
    assert!(void <= ms(1), "nobody answered for {void:?}");
}
