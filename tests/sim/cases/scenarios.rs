//! Scenarios by name, each with the figures that it measured.

use std::time::Duration;

use landfall_sim::world::{World, ms, vip_address};
use landfall_speaker::lan::Vip;

use crate::checks::{hold_for, percentiles, settled, vip};

#[test]
fn a_new_address_is_announced_at_once_and_after_probes_if_it_never_was() {
    let mut world = World::new(3, 1);
    world.run(ms(1000));
    let address = vip_address(1);
    world.set_vip(vip(1, 0, 3));
    let known = world.run_until(ms(1000), |world| world.owner(address) == Some(0));
    assert!(known <= ms(25), "{known:?}");
    let fresh = vip_address(2);
    world.set_vip(Vip { announced_before: false, ..vip(2, 1, 3) });
    let probed = world.run_until(ms(1000), |world| world.owner(fresh) == Some(1));
    assert!(probed >= ms(150) && probed <= ms(180), "{probed:?}");
    println!("first announcement: {known:?} after the API's word, {probed:?} where it is probed first");
    hold_for(&mut world, ms(5000), ms(0));
}

#[test]
fn the_owners_port_goes_dark_and_the_next_takes_over() {
    let mut outages = Vec::new();
    for seed in 0..100 {
        let mut world = settled(3, seed);
        world.change_port(0, |port| port.dark = true);
        world.run(ms(1000));
        assert_eq!(world.owner(vip_address(1)), Some(1));
        assert_eq!(world.watcher.longest_split(), ms(0));
        assert!(world.watcher.longest_outage() <= ms(160), "{:?}", world.watcher.longest_outage());
        outages.push(world.watcher.longest_outage());
    }
    println!("port dark, three nodes: the client's outage: {}", percentiles(outages));
}

#[test]
fn the_process_is_killed_and_nobody_notices_but_for_the_books() {
    let mut world = settled(3, 3);
    world.kill(0);
    world.run(ms(1000));
    assert_eq!(world.owner(vip_address(1)), Some(1));
    assert_eq!(world.watcher.longest_outage(), ms(0), "its kernel forwards on");
    println!("process killed: nobody answers for {:?}", world.watcher.longest_void());
}

#[test]
fn a_graceful_leave_has_no_void() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        let told = world.now;
        world.leave(0);
        world.run(ms(3500));
        assert_eq!(world.owner(vip_address(1)), Some(1));
        assert_eq!(world.watcher.longest_void(), ms(0), "make before break");
        assert_eq!(world.watcher.longest_outage(), ms(0));
        assert!(world.watcher.longest_split() < ms(5), "{:?}", world.watcher.longest_split());
        let (left, _) = world.left[0];
        assert!(left - told < ms(100), "it left as soon as it could");
    }
}

#[test]
fn the_last_node_leaves_without_waiting_for_anybody() {
    let mut world = World::new(1, 1);
    world.set_vip(vip(1, 0, 1));
    world.run(ms(1000));
    assert_eq!(world.owner(vip_address(1)), Some(0));
    world.leave(0);
    assert_eq!(world.left.len(), 1);
}

#[test]
fn all_nodes_start_at_once() {
    for seed in 0..50 {
        let mut world = World::dark(5, seed);
        for number in 1..=20 {
            world.write_vip(&vip(number, number as usize % 5, 5));
            world.watch(vip_address(number));
        }
        for node in 0..5 {
            world.start_node(node);
            let pause = world.random.below(30);
            world.run(ms(pause));
        }
        world.run(ms(1500));
        hold_for(&mut world, ms(3000), ms(0));
    }
}

#[test]
fn an_address_deleted_by_mistake_is_held_and_taken_over_until_it_is_made_again() {
    let mut world = settled(3, 9);
    let address = vip_address(1);
    let object = world.vip(address).unwrap();
    world.delete_vip(address);
    world.run(ms(20_000));
    assert_eq!(world.owner(address), Some(0));
    world.change_port(0, |port| port.dark = true);
    world.run(ms(1000));
    assert_eq!(world.owner(address), Some(1), "held by all candidates: {}", world.describe(address));
    world.set_vip(Vip { epoch: object.epoch, ..object });
    world.watcher.reset();
    hold_for(&mut world, ms(10_000), ms(0));
    assert_eq!(world.owner(address), Some(1));
    world.delete_vip(address);
    world.run(Duration::from_secs(301));
    assert_eq!(world.answering(address), Vec::<usize>::new(), "not for ever");
}

#[test]
fn a_released_address_is_withdrawn_at_once() {
    let mut world = settled(3, 10);
    let address = vip_address(1);
    world.set_vip(Vip { claimed: false, ..vip(1, 0, 3) });
    world.run(ms(30));
    assert!(world.answering(address).is_empty());
    world.delete_vip(address);
    world.run(ms(5000));
    assert!(world.answering(address).is_empty());
}

#[test]
fn an_owner_that_was_not_told_of_the_release_is_overtaken_once_the_address_is_granted_anew() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        world.set_api_cut(0, true);
        world.set_vip(Vip { claimed: false, ..vip(1, 0, 3) });
        world.delete_vip(address);
        world.run(ms(10_000));
        assert_eq!(world.answering(address), [0], "it knows of nothing, and nobody else may claim");
        // The new Service's address is ranked as the old one's was.
        let anew = Vip { epoch: 2, announced_before: false, ..vip(1, 0, 3) };
        world.set_vip(anew.clone());
        world.watcher.reset();
        let taken = world.run_until(ms(5000), |world| world.owner(address) == Some(1));
        assert!((ms(2000)..ms(2300)).contains(&taken), "{taken:?}: {}", world.describe(address));
        world.run(ms(2000));
        assert_eq!(world.watcher.longest_outage(), ms(0));
        assert!(world.watcher.longest_split() < ms(5), "{:?}", world.watcher.longest_split());
        world.set_api_cut(0, false);
        world.set_vip(anew);
        hold_for(&mut world, ms(5000), ms(0));
        assert_eq!(world.owner(address), Some(1), "who learns of it late takes nothing back");
    }
}

#[test]
fn a_raised_epoch_moves_an_address_make_before_break() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        world.set_vip(Vip { epoch: 2, ..vip(1, 2, 3) });
        world.run(ms(2000));
        assert_eq!(world.owner(vip_address(1)), Some(2));
        assert_eq!(world.watcher.longest_void(), ms(0));
        assert_eq!(world.watcher.longest_outage(), ms(0));
        assert!(world.watcher.longest_split() < ms(5), "{:?}", world.watcher.longest_split());
        // The same ranking as an edit that raises nothing moves nothing.
        world.set_vip(Vip { epoch: 2, ..vip(1, 0, 3) });
        hold_for(&mut world, ms(3000), ms(0));
        assert_eq!(world.owner(vip_address(1)), Some(2));
    }
}

#[test]
fn an_owner_that_is_dropped_from_the_ranking_hands_over() {
    let mut world = settled(3, 12);
    let candidates = vec!["n2".into(), "n3".into()];
    world.set_vip(Vip { epoch: 2, candidates, ..vip(1, 0, 3) });
    world.run(ms(2000));
    assert_eq!(world.owner(vip_address(1)), Some(1));
    assert_eq!(world.watcher.longest_void(), ms(0));
    world.set_vip(Vip { epoch: 3, candidates: Vec::new(), ..vip(1, 0, 3) });
    world.run(ms(100));
    assert!(world.answering(vip_address(1)).is_empty(), "no candidates: nobody announces");
}

#[test]
fn a_rolling_restart_of_all_nodes_has_no_void() {
    let mut world = World::new(3, 17);
    world.run(ms(1000));
    for number in 1..=9 {
        world.watch(vip_address(number));
        world.stations.used.insert(vip_address(number));
        world.set_vip(vip(number, number as usize % 3, 3));
    }
    world.run(ms(3000));
    world.watcher.reset();
    for node in 0..3 {
        world.leave(node);
        world.run(ms(3100));
        assert!(world.mind(node).is_none(), "it left");
        world.watcher.restarted(node);
        world.start_node(node);
        world.run(ms(2000));
    }
    assert_eq!(world.watcher.longest_void(), ms(0));
    assert_eq!(world.watcher.longest_outage(), ms(0));
    assert!(world.watcher.longest_split() < ms(5), "{:?}", world.watcher.longest_split());
    hold_for(&mut world, ms(2000), ms(0));
}

#[test]
fn all_leave_at_once_and_the_last_goodbye_is_soon_said() {
    let mut world = settled(3, 18);
    for node in 0..3 {
        world.leave(node);
    }
    world.run(ms(3100));
    assert_eq!(world.left.len(), 3);
}

#[test]
fn a_thousand_addresses_are_taken_over_within_a_blink() {
    let mut world = World::new(3, 16);
    world.run(ms(1000));
    world.status_flows = false;
    for number in 0..1000 {
        world.stations.used.insert(vip_address(number));
        world.write_vip(&vip(number, 0, 3));
    }
    world.run(ms(6000));
    let all = |world: &World, owner| (0..1000).all(|number| world.owner(vip_address(number)) == Some(owner));
    assert!(all(&world, 0));
    world.change_port(0, |port| port.dark = true);
    let dark = world.now;
    world.run_until(ms(1000), |world| world.owner(vip_address(0)) == Some(1));
    let first = world.now - dark;
    world.run_until(ms(1000), |world| all(world, 1));
    let last = world.now - dark;
    world.run(ms(3));
    let moved =
        (0..1000).filter(|number| world.stations.cached(vip_address(*number)) == Some(world.nodes[1].mac));
    assert_eq!(moved.count(), 1000);
    assert!(last - first < ms(100), "{first:?} to {last:?}");
    let frames = world.frames_sent;
    world.run(ms(10_000));
    println!(
        "1000 addresses: first after {first:?}, last after {last:?}, repeats {} frames",
        world.frames_sent - frames
    );
    world.change_port(0, |port| port.dark = false);
    world.run(ms(2000));
    assert!(all(&world, 1), "it returns and takes nothing back");
}
