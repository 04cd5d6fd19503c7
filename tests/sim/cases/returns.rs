//! Who was away returns, and disturbs nobody.

use landfall_sim::world::{World, ms, vip_address};

use crate::checks::{hold_for, i1_no_void, i2_no_split, percentiles, settled, vip};

#[test]
fn the_former_owner_returns_and_disturbs_nobody() {
    let mut splits = Vec::new();
    for seed in 0..100 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        world.change_port(0, |port| port.dark = true);
        world.run(ms(6000 + seed * 61));
        assert_eq!(world.owner(address), Some(1));
        world.watcher.reset();
        world.stations.double_answers.clear();
        world.change_port(0, |port| port.dark = false);
        let healed = world.now;
        world.run(ms(10_000));
        assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
        let last = world.stations.double_answers.last().map(|(at, _)| *at - healed).unwrap_or_default();
        assert!(last < ms(100), "two answers until {last:?} after the LAN was heard");
        assert!(world.watcher.longest_split() < ms(110), "{:?}", world.watcher.longest_split());
        assert_eq!(world.watcher.longest_void(), ms(0));
        assert_eq!(world.watcher.longest_outage(), ms(0));
        splits.push(last);
    }
    println!("return of the owner: two answers until after the heal: {}", percentiles(splits));
}

#[test]
fn a_restarted_owner_listens_first_and_takes_nothing_back() {
    let mut world = settled(3, 5);
    let address = vip_address(1);
    world.kill(0);
    world.run(ms(1000));
    world.watcher.reset();
    world.watcher.restarted(0);
    world.start_node(0);
    hold_for(&mut world, ms(10_000), ms(0));
    assert_eq!(world.owner(address), Some(1));
    assert_eq!(world.watcher.longest_outage(), ms(0));
}

#[test]
fn an_owner_that_restarts_faster_than_it_is_missed_is_replaced_soon() {
    let mut world = settled(3, 6);
    world.kill(0);
    world.watcher.restarted(0);
    world.run(ms(20));
    world.start_node(0);
    world.run(ms(2000));
    i1_no_void(&world);
    i2_no_split(&world);
    let void = world.watcher.longest_void();
    assert!(void <= ms(450), "{void:?}");
    println!("restart within 20 ms: nobody answers for {void:?}");
}

#[test]
fn a_node_alone_on_a_dark_port_for_ten_seconds_heals() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        // Not the owner: it claims in isolation what another goes on announcing.
        world.change_port(2, |port| port.dark = true);
        world.run(ms(10_000 + seed * 37));
        let alone = world.mind(2).unwrap();
        assert!(alone.answers(address), "{}", world.describe(address));
        world.watcher.reset();
        world.stations.double_answers.clear();
        world.change_port(2, |port| port.dark = false);
        let healed = world.now;
        world.run(ms(8000));
        let told: Vec<_> = world
            .reports
            .iter()
            .filter(|(at, _, _)| *at >= healed)
            .map(|(at, node, report)| format!("{:?} n{} {report:?}", *at - healed, node + 1))
            .collect();
        assert_eq!(world.owner(address), Some(0), "seed {seed}: it yields, whatever the ranks {told:#?}");
        let last = world.stations.double_answers.last().map(|(at, _)| *at - healed).unwrap_or_default();
        assert!(last < ms(100), "{last:?}");
        assert_eq!(world.watcher.moves(), 0);
        assert_eq!(world.watcher.longest_outage(), ms(0));
    }
}

#[test]
fn a_lost_carrier_is_told_where_it_can_be_and_listened_for_when_it_returns() {
    let mut world = settled(3, 13);
    let address = vip_address(1);
    world.set_carrier(0, false);
    world.run(ms(1000));
    assert_eq!(world.owner(address), Some(1));
    world.watcher.reset();
    world.set_carrier(0, true);
    hold_for(&mut world, ms(5000), ms(0));
    assert_eq!(world.owner(address), Some(1));
}

#[test]
fn a_frozen_owner_answers_nothing_stale_when_it_wakes() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        world.freeze(0, ms(3000 + seed * 17));
        world.run(ms(2500));
        assert_eq!(world.owner(address), Some(1));
        world.watcher.reset();
        world.stations.double_answers.clear();
        world.run(ms(10_000));
        assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
        assert_eq!(
            world.stations.double_answers.len(),
            0,
            "seed {seed} {:?} {:?}",
            world.stations.double_answers.first().map(|(at, _)| *at - world.start),
            world
                .reports
                .iter()
                .map(|(at, node, report)| format!("{:?} n{} {report:?}", *at - world.start, node + 1))
                .collect::<Vec<_>>()
        );
        assert_eq!(world.watcher.longest_split(), ms(0));
    }
}

#[test]
fn a_short_stall_of_a_watcher_takes_nothing_from_a_living_owner() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        world.freeze(1, ms(150 + seed * 9));
        world.run(ms(5000));
        assert_eq!(world.owner(vip_address(1)), Some(0));
        assert_eq!(world.watcher.longest_split(), ms(0));
    }
}

#[test]
fn a_node_that_nobody_knows_yet_takes_nothing_although_it_ranks_first() {
    let mut world = World::dark(3, 19);
    let address = vip_address(1);
    world.strangers = vec![(1, 0), (2, 0)];
    world.write_vip(&vip(1, 0, 3));
    world.start_node(1);
    world.start_node(2);
    world.run(ms(2000));
    assert_eq!(world.owner(address), Some(1));
    world.watch(address);
    world.start_node(0);
    hold_for(&mut world, ms(3000), ms(0));
    world.introduce_all();
    hold_for(&mut world, ms(3000), ms(0));
    assert_eq!(world.owner(address), Some(1));
}
