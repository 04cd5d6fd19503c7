//! What looks like a death and is none, and what is one.

use landfall_sim::world::{World, ms, vip_address};

use crate::checks::{hold_for, settled};

fn assert_nothing_moved(world: &World, what: &str) {
    assert_eq!(world.watcher.moves(), 0, "{what}");
    assert_eq!(world.watcher.longest_split(), ms(0), "{what}");
    assert_eq!(world.owner(vip_address(1)), Some(0), "{what}");
}

#[test]
fn only_the_way_between_the_owner_and_its_successor_is_cut_and_a_witness_hears_both() {
    for seed in 0..20 {
        let mut world = settled(3, seed);
        world.part(0, 1, true);
        world.run(ms(10_000));
        assert_nothing_moved(&world, "cut");
        assert_eq!(world.watcher.longest_outage(), ms(0));
        world.part(0, 1, false);
        world.run(ms(2000));
        assert_nothing_moved(&world, "healed");
        // What the witness says does not outlive the owner.
        world.part(0, 1, true);
        world.run(ms(1000));
        world.change_port(0, |port| port.dark = true);
        world.run(ms(1000));
        assert_eq!(world.owner(vip_address(1)), Some(1));
        assert!(world.watcher.longest_outage() <= ms(300), "{:?}", world.watcher.longest_outage());
    }
}

#[test]
fn all_ports_are_dark_for_two_hundred_milliseconds_and_nothing_moves() {
    for seed in 0..50 {
        let mut world = settled(4, seed);
        for node in 0..4 {
            world.change_port(node, |port| port.dark = true);
        }
        world.run(ms(200));
        for node in 0..4 {
            world.change_port(node, |port| port.dark = false);
        }
        world.run(ms(3000));
        assert_nothing_moved(&world, "a blip");
    }
}

#[test]
fn a_speaker_that_is_not_run_for_most_of_a_second_keeps_what_it_announces() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        // Its last heartbeat may be a tenth of a second old.
        world.freeze(0, ms(100 + 16 * seed));
        world.run(ms(3000));
        assert_nothing_moved(&world, "its kernel answered meanwhile");
    }
}

#[test]
fn a_node_that_dies_while_its_speaker_is_not_run_is_dead_soon_after() {
    for seed in 0..20 {
        let mut world = settled(3, seed);
        world.freeze(0, ms(5000));
        world.run(ms(500));
        assert_eq!(world.watcher.moves(), 0, "its kernel answered meanwhile");
        world.change_port(0, |port| port.dark = true);
        let taken = world.run_until(ms(1000), |world| world.owner(vip_address(1)) == Some(1));
        assert!(taken <= ms(110), "{taken:?}");
    }
}

#[test]
fn a_process_that_is_gone_is_not_waited_for_as_long() {
    for seed in 0..20 {
        let mut world = settled(3, seed);
        world.kill(0);
        let taken = world.run_until(ms(2000), |world| world.owner(vip_address(1)) == Some(1));
        assert!(taken <= ms(305), "{taken:?}");
        assert_eq!(world.watcher.longest_outage(), ms(0), "its node forwards on");
    }
}

#[test]
fn a_speaker_that_stands_still_for_a_second_costs_no_packet() {
    for seed in 0..20 {
        let mut world = settled(3, seed);
        world.freeze(0, ms(1000));
        world.run(ms(5000));
        assert_eq!(world.watcher.longest_outage(), ms(0), "its node forwards on");
        hold_for(&mut world, ms(2000), ms(0));
    }
}

#[test]
fn every_port_is_cut_off_from_every_other_and_heals() {
    for seed in 0..20 {
        let mut world = settled(4, seed);
        for (node, island) in (0..4).zip(1..) {
            world.change_port(node, |port| port.island = island);
        }
        world.run(ms(10_000));
        for node in 0..4 {
            world.change_port(node, |port| port.island = 0);
        }
        let healed = world.now;
        world.run(ms(600));
        world.watcher.reset();
        hold_for(&mut world, ms(3000), ms(0));
        assert!(world.now > healed);
        assert!(world.owner(vip_address(1)).is_some());
    }
}
