//! What the design promises of ownership by name.

use std::net::IpAddr;
use std::time::Duration;

use landfall_sim::version::Version;
use landfall_sim::world::{Setting, World, ms, vip_address};
use landfall_speaker::lan::Vip;
use serde_json::json;

use crate::checks::{hold_for, i1_no_void, i2_no_split, settled, vip};

/// A world with a controller and a Service whose address has settled.
pub fn served(nodes: usize, seed: u64, spec: &serde_json::Value) -> (World, IpAddr) {
    let mut world = World::new(nodes, seed);
    world.furnish_cluster("10.0.16.1-10.0.16.9");
    world.start_controller();
    if spec["externalTrafficPolicy"] == "Local" {
        world.set_endpoints("web", &[0]);
    }
    world.write_service("web", spec);
    let address = vip_address(1);
    world.watch(address);
    world.stations.used.insert(address);
    world.run(ms(6000));
    assert!(world.owner(address).is_some(), "{}", world.describe(address));
    world.watcher.reset();
    (world, address)
}

#[test]
fn a_better_candidate_that_is_alive_but_ignorant_of_the_address_is_waited_for_only_briefly() {
    for seed in 0..30 {
        let mut world = World::new(3, seed);
        world.run(ms(3000));
        let address = vip_address(1);
        world.watch(address);
        world.set_api_cut(0, true);
        world.set_vip(vip(1, 0, 3));
        let taken = world.run_until(ms(1000), |world| world.owner(address) == Some(1));
        assert!(taken <= ms(200), "seed {seed}: {taken:?}");
        // The better one learns of it and takes nothing.
        world.set_api_cut(0, false);
        hold_for(&mut world, ms(5000), ms(0));
        assert_eq!(world.owner(address), Some(1));
    }
}

#[test]
fn a_better_candidate_that_is_alive_but_ignorant_of_the_address_costs_a_failover_no_time() {
    for seed in 0..30 {
        let mut world = World::new(3, seed);
        world.run(ms(3000));
        let address = vip_address(1);
        world.watch(address);
        world.stations.used.insert(address);
        world.set_api_cut(0, true);
        // n3 announces it, n1 comes next and has never heard of it, n2 comes last.
        world.set_vip(Vip { candidates: ["n3", "n1", "n2"].map(Into::into).to_vec(), ..vip(1, 0, 3) });
        world.run(ms(3000));
        assert_eq!(world.owner(address), Some(2), "{}", world.describe(address));
        world.watcher.reset();
        world.change_port(2, |port| port.dark = true);
        world.run(ms(1000));
        assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
        assert!(
            world.watcher.longest_outage() <= ms(170),
            "seed {seed}: {:?}",
            world.watcher.longest_outage()
        );
    }
}

#[test]
fn an_etcd_restore_moves_nothing() {
    for seed in 0..30 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        let backup = world.api.snapshot();
        // After the backup the address is moved, so its epoch in the backup is an old one.
        world.set_vip(Vip { epoch: 7, ..vip(1, 2, 3) });
        world.run(ms(4000));
        assert_eq!(world.owner(address), Some(2));
        world.restore_api(backup);
        hold_for(&mut world, ms(8000), ms(0));
        assert_eq!(world.owner(address), Some(2), "what is announced stays: {}", world.describe(address));
        // A failover works by what was restored, and so does the next move.
        world.watcher.reset();
        world.change_port(2, |port| port.dark = true);
        world.run(ms(3000));
        assert_eq!(world.owner(address), Some(0), "{}", world.describe(address));
        assert!(world.watcher.longest_outage() <= ms(170), "{:?}", world.watcher.longest_outage());
        world.change_port(2, |port| port.dark = false);
        world.run(ms(3000));
        world.set_vip(Vip { epoch: 8, ..vip(1, 1, 3) });
        world.run(ms(3000));
        assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
        i2_no_split(&world);
    }
}

#[test]
fn an_etcd_restore_under_a_controller_moves_nothing() {
    for seed in 0..20 {
        let (mut world, address) = served(3, seed, &json!({}));
        let owner = world.owner(address).unwrap();
        let backup = world.api.snapshot();
        world.change_port(owner, |port| port.dark = true);
        world.run(ms(4000));
        let heir = world.owner(address).unwrap();
        world.change_port(owner, |port| port.dark = false);
        world.run(ms(4000));
        world.restore_api(backup);
        hold_for(&mut world, ms(10_000), ms(0));
        assert_eq!(world.owner(address), Some(heir), "{}", world.describe(address));
    }
}

#[test]
fn an_edit_of_ranges_after_a_failover_moves_nothing() {
    for seed in 0..30 {
        let (mut world, address) = served(3, seed, &json!({}));
        let first = world.owner(address).unwrap();
        world.change_port(first, |port| port.dark = true);
        world.run(ms(3000));
        let heir = world.owner(address).unwrap();
        assert_ne!(heir, first);
        world.change_port(first, |port| port.dark = false);
        world.run(ms(3000));
        world.write_service("web", &json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "192.168.0.0/16"]}));
        hold_for(&mut world, ms(5000), ms(0));
        assert_eq!(world.owner(address), Some(heir));
        world.write_service("web", &json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}));
        hold_for(&mut world, ms(5000), ms(0));
        assert_eq!(world.owner(address), Some(heir));
    }
}

#[test]
fn an_owner_that_is_superseded_and_does_not_hear_its_successor_is_told_by_a_witness() {
    for seed in 0..30 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        world.change_port(0, |port| port.dark = true);
        world.run(ms(3000));
        assert_eq!(world.owner(address), Some(1));
        world.part(0, 1, true);
        world.change_port(0, |port| port.dark = false);
        world.run(ms(300));
        world.watcher.reset();
        world.stations.double_answers.clear();
        world.run(ms(5000));
        assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
        assert!(world.stations.double_answers.is_empty());
    }
}

#[test]
fn two_nodes_powered_on_with_old_state_files_agree_without_the_api() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        world.run(ms(3000));
        // n1 goes while it comes first; n2 knows of a later move to itself; n3 is gone for good.
        world.power_off(0);
        world.run(ms(2000));
        world.set_vip(Vip { epoch: 9, ..vip(1, 1, 3) });
        world.run(ms(3000));
        world.set_api_away(true);
        world.power_off(1);
        world.power_off(2);
        world.run(ms(5000));
        world.watcher.reset();
        world.power_on(0);
        let pause = ms(seed * 40);
        world.run(pause);
        world.power_on(1);
        world.run(ms(3000).saturating_sub(pause));
        i1_no_void(&world);
        i2_no_split(&world);
        let owner = world.owner(address).unwrap();
        hold_for(&mut world, ms(10_000), ms(0));
        // The API server returns and tells what was decided last; nobody who is well loses anything but to that.
        world.set_api_away(false);
        world.run(ms(8000));
        i1_no_void(&world);
        i2_no_split(&world);
        let now = world.owner(address);
        assert!(
            [Some(owner), Some(1)].contains(&now),
            "seed {seed}: {owner}, then {now:?}: {}",
            world.describe(address)
        );
    }
}

#[test]
fn a_node_that_lost_only_the_api_while_pods_roll_lets_go_of_an_address_that_is_ranked_elsewhere() {
    for seed in 0..30 {
        let (mut world, address) = served(3, seed, &json!({"externalTrafficPolicy": "Local"}));
        assert_eq!(world.owner(address), Some(0), "{}", world.describe(address));
        world.set_api_cut(0, true);
        // The pods move to n2, first one more, then the old one goes.
        world.set_endpoints("web", &[0, 1]);
        world.run(ms(2000));
        assert_eq!(world.owner(address), Some(0));
        world.set_endpoints("web", &[1]);
        world.watcher.reset();
        // It counts as stale when it has not heard of the API server for longer than its watches are left open.
        let taken = world.run_until(ms(60_000), |world| world.owner(address) == Some(1));
        assert!(taken < ms(52_000), "{taken:?}");
        assert_eq!(world.watcher.longest_void(), ms(0));
        world.set_api_cut(0, false);
        hold_for(&mut world, ms(25_000), ms(0));
        assert_eq!(world.owner(address), Some(1));
    }
}

#[test]
fn a_node_that_lost_only_the_api_loses_an_address_that_is_released_and_granted_again() {
    for seed in 0..20 {
        let (mut world, address) = served(3, seed, &json!({}));
        let owner = world.owner(address).unwrap();
        world.set_api_cut(owner, true);
        world.delete_service("web");
        world.run(ms(3000));
        assert_eq!(world.answering(address), [owner], "it knows of nothing");
        world.write_service("shop", &json!({"loadBalancerIP": address.to_string()}));
        // The bound of the withdrawal passes, and the address is granted to another Service.
        let taken = world.run_until(ms(30_000), |world| world.owner(address).is_some_and(|now| now != owner));
        assert!(taken > ms(5000), "not before it had its time: {taken:?}");
        world.run(ms(3000));
        i2_no_split(&world);
        assert_ne!(world.owner(address), Some(owner));
        world.set_api_cut(owner, false);
        hold_for(&mut world, ms(20_000), ms(0));
    }
}

#[test]
fn an_hour_without_the_api_moves_nothing_and_a_failover_is_as_fast_as_ever() {
    let mut world = settled(3, 21);
    let address = vip_address(1);
    world.stations.observes = false;
    world.set_api_away(true);
    hold_for(&mut world, Duration::from_secs(3600), ms(0));
    assert_eq!(world.watcher.moves(), 0);
    world.change_port(0, |port| port.dark = true);
    world.run(ms(2000));
    assert_eq!(world.owner(address), Some(1));
    assert!(world.watcher.longest_outage() <= ms(170), "{:?}", world.watcher.longest_outage());
    world.change_port(0, |port| port.dark = false);
    world.run(ms(3000));
    let writes = world.writes;
    world.set_api_away(false);
    world.run(Duration::from_secs(60));
    assert!(world.writes - writes < 20, "no storm when it returns: {} writes", world.writes - writes);
    let object = world.api.vip(address).unwrap();
    let said = object.status.as_ref().and_then(|status| status.announcer.as_ref()).unwrap();
    assert_eq!(said.node, "n2");
}

#[test]
fn a_speaker_restarts_without_the_api_and_announces_within_three_seconds_what_nobody_else_holds() {
    for seed in 0..30 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        world.set_api_away(true);
        world.run(ms(3000));
        for node in 0..3 {
            world.kill(node);
        }
        world.run(ms(seed * 31));
        world.watcher.reset();
        world.start_node(0);
        let alone = world.run_until(ms(3000), |world| world.owner(address) == Some(0));
        assert!(alone < ms(3000), "{alone:?}");
        world.start_node(1);
        world.start_node(2);
        hold_for(&mut world, ms(5000), ms(0));
        assert_eq!(world.owner(address), Some(0));
    }
}

#[test]
fn a_node_that_is_drained_or_excluded_hands_over_without_a_gap() {
    for seed in 0..30 {
        let (mut world, address) = served(3, seed, &json!({}));
        let owner = world.owner(address).unwrap();
        let is_cordoned = seed.is_multiple_of(2);
        world.write_node(owner, is_cordoned, !is_cordoned);
        // Who is cordoned comes last, and what is not where it ranks first is moved one by one.
        let bound = ms(if is_cordoned { 100_000 } else { 1000 });
        world.run_until(bound, |world| world.owner(address).is_some_and(|now| now != owner));
        world.run(ms(3000));
        assert_eq!(world.watcher.longest_void(), ms(0));
        assert_eq!(world.watcher.longest_outage(), ms(0));
        assert!(world.watcher.longest_split() < ms(50), "{:?}", world.watcher.longest_split());
    }
}

#[test]
fn speakers_of_two_versions_get_along_in_a_rolling_upgrade() {
    for seed in 0..20 {
        for (old, new) in [(Version::Former, Version::Present), (Version::Present, Version::Later)] {
            let mut world = World::with(Setting { versions: vec![old; 4], ..Setting::usual(4, seed) });
            for node in 0..4 {
                world.start_node(node);
            }
            for number in 1..=4 {
                world.write_vip(&vip(number, number as usize % 4, 4));
                world.watch(vip_address(number));
                world.stations.used.insert(vip_address(number));
            }
            world.run(ms(6000));
            world.watcher.reset();
            for node in 0..4 {
                world.nodes[node].next_version = new;
                world.upgrade(node);
                world.run(ms(3000));
                assert_eq!(world.nodes[node].version, new);
                assert_eq!(world.watcher.moves(), 0);
                // Half way through, a failover between the versions.
                if node == 1 {
                    world.change_port(3, |port| port.dark = true);
                    world.run(ms(3000));
                    assert!(
                        world.watcher.longest_outage() <= ms(320),
                        "{:?}",
                        world.watcher.longest_outage()
                    );
                    world.change_port(3, |port| port.dark = false);
                    world.run(ms(3000));
                    world.watcher.reset();
                }
            }
            assert_eq!(world.watcher.longest_void(), ms(0));
            assert_eq!(world.watcher.longest_outage(), ms(0));
            hold_for(&mut world, ms(2000), ms(0));
        }
    }
}

#[test]
fn a_machine_that_was_paused_with_its_clock_answers_nothing_stale_for_long() {
    for seed in 0..50 {
        for clock_stops in [false, true] {
            let mut world = settled(3, seed);
            let address = vip_address(1);
            world.pause(0, clock_stops);
            let paused = ms(1000 + seed * 97);
            world.run(paused);
            assert_eq!(world.owner(address), Some(1));
            assert!(world.watcher.longest_outage() <= ms(170), "{:?}", world.watcher.longest_outage());
            world.watcher.reset();
            world.resume(0);
            world.run(ms(5000));
            i2_no_split(&world);
            assert_eq!(world.owner(address), Some(1));
            assert!(
                world.watcher.longest_split() < ms(100),
                "seed {seed}: {:?}",
                world.watcher.longest_split()
            );
        }
    }
}
