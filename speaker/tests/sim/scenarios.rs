//! Scenarios by name, each with the figures that it measured.

use std::time::Duration;

use landfall_crds::Fallback;
use landfall_speaker::lan::{NodeName, Vip};

use crate::invariants::{describe, hold_for, i1_no_void, i2_no_split};
use crate::world::{World, ms, vip_address};

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
        last_term: 0,
        announced_before: true,
    }
}

/// A settled world with one address, announced by the first node, with a client that uses it.
pub fn settled(nodes: usize, seed: u64) -> World {
    let mut world = World::new(nodes, seed);
    world.run(ms(1000));
    let address = vip_address(1);
    world.watcher.watch(address);
    world.clients.used.insert(address);
    world.clients.observes = true;
    world.set_vip(vip(1, 0, nodes));
    world.run(ms(2000));
    assert_eq!(world.owner(address), Some(0), "{}", describe(&world, address));
    assert!(world.clients.cached(address).is_some());
    world.watcher.reset();
    world.clients.double_answers.clear();
    world
}

fn percentiles(mut figures: Vec<Duration>) -> String {
    figures.sort();
    let at = |share: usize| figures[(figures.len() - 1) * share / 100];
    format!("median {:?}, 90 % {:?}, worst {:?} of {}", at(50), at(90), at(100), figures.len())
}

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
        assert!(world.watcher.longest_outage() <= ms(302), "{:?}", world.watcher.longest_outage());
        outages.push(world.watcher.longest_outage());
    }
    println!("port dark, three nodes: the client's outage: {}", percentiles(outages));
}

#[test]
fn two_nodes_are_enough_where_the_gateway_answers() {
    let mut outages = Vec::new();
    for seed in 0..50 {
        let mut world = settled(2, seed);
        world.clients.observes = false;
        world.change_port(0, |port| port.dark = true);
        world.run(ms(1000));
        assert_eq!(world.owner(vip_address(1)), Some(1));
        assert!(world.watcher.longest_outage() <= ms(302), "{:?}", world.watcher.longest_outage());
        outages.push(world.watcher.longest_outage());
    }
    println!("port dark, two nodes: the client's outage: {}", percentiles(outages));
}

#[test]
fn two_nodes_on_a_silent_lan_take_over_after_the_wait_for_the_isolated() {
    let mut world = settled(2, 7);
    world.clients.observes = false;
    world.has_gateway = false;
    world.run(ms(1000));
    world.watcher.reset();
    world.change_port(0, |port| port.dark = true);
    world.run(ms(3000));
    assert_eq!(world.owner(vip_address(1)), Some(1));
    let outage = world.watcher.longest_outage();
    assert!(outage >= ms(1200) && outage <= ms(1550), "{outage:?}");
    println!("port dark, two nodes, nobody else on the LAN: {outage:?}");
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
fn the_former_owner_returns_and_disturbs_nobody() {
    let mut splits = Vec::new();
    for seed in 0..100 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        world.change_port(0, |port| port.dark = true);
        world.run(ms(6000 + seed * 61));
        assert_eq!(world.owner(address), Some(1));
        world.watcher.reset();
        world.clients.double_answers.clear();
        world.change_port(0, |port| port.dark = false);
        let healed = world.now;
        world.run(ms(10_000));
        assert_eq!(world.owner(address), Some(1), "{}", describe(&world, address));
        let last = world.clients.double_answers.last().map(|(at, _)| *at - healed).unwrap_or_default();
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
fn a_graceful_leave_has_no_void() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        world.leave(0);
        world.run(ms(3500));
        assert_eq!(world.owner(vip_address(1)), Some(1));
        assert_eq!(world.watcher.longest_void(), ms(0), "make before break");
        assert_eq!(world.watcher.longest_outage(), ms(0));
        assert!(world.watcher.longest_split() < ms(5), "{:?}", world.watcher.longest_split());
        let (left, _) = world.left[0];
        assert!(left - world.start < ms(3100), "it left as soon as it could");
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
            world.vips.insert(vip_address(number), vip(number, number as usize % 5, 5));
            world.watcher.watch(vip_address(number));
        }
        for node in 0..5 {
            world.start_node(node);
            let pause = world.random(30);
            world.run(ms(pause));
        }
        world.run(ms(1500));
        hold_for(&mut world, ms(3000), ms(0));
    }
}

#[test]
fn a_node_alone_on_a_dark_port_for_ten_seconds_heals() {
    for seed in 0..50 {
        let mut world = settled(3, seed);
        let address = vip_address(1);
        // Not the owner: it claims in isolation what another goes on announcing.
        world.change_port(2, |port| port.dark = true);
        world.run(ms(10_000 + seed * 37));
        let alone = world.nodes[2].mind.as_ref().unwrap();
        assert!(alone.answers(address), "{}", describe(&world, address));
        world.watcher.reset();
        world.clients.double_answers.clear();
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
        let last = world.clients.double_answers.last().map(|(at, _)| *at - healed).unwrap_or_default();
        assert!(last < ms(100), "{last:?}");
        assert_eq!(world.watcher.moves(), 0);
        assert_eq!(world.watcher.longest_outage(), ms(0));
    }
}

#[test]
fn an_address_deleted_by_mistake_is_held_and_taken_over_until_it_is_made_again() {
    let mut world = settled(3, 9);
    let address = vip_address(1);
    let object = world.vips[&address].clone();
    world.delete_vip(address);
    world.run(ms(20_000));
    assert_eq!(world.owner(address), Some(0));
    world.change_port(0, |port| port.dark = true);
    world.run(ms(1000));
    assert_eq!(world.owner(address), Some(1), "held by all candidates: {}", describe(&world, address));
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
        world.clients.double_answers.clear();
        world.run(ms(10_000));
        assert_eq!(world.owner(address), Some(1), "{}", describe(&world, address));
        assert_eq!(
            world.clients.double_answers.len(),
            0,
            "seed {seed} {:?} {:?}",
            world.clients.double_answers.first().map(|(at, _)| *at - world.start),
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
fn an_owner_that_hears_nobody_is_replaced_although_it_is_heard() {
    let mut world = settled(3, 14);
    let address = vip_address(1);
    world.change_port(0, |port| port.loss_in = 1.0);
    world.run(ms(2000));
    assert!(world.answering(address).contains(&1), "{}", describe(&world, address));
    world.change_port(0, |port| port.loss_in = 0.0);
    world.run(ms(500));
    hold_for(&mut world, ms(5000), ms(0));
    assert_eq!(world.owner(address), Some(1));
}

#[test]
fn an_owner_whom_nobody_hears_yields_when_it_hears_of_a_successor() {
    let mut world = settled(3, 15);
    let address = vip_address(1);
    world.change_port(0, |port| port.loss_out = 1.0);
    world.run(ms(1000));
    assert_eq!(world.owner(address), Some(1), "{}", describe(&world, address));
    world.change_port(0, |port| port.loss_out = 0.0);
    hold_for(&mut world, ms(5000), ms(0));
}

#[test]
fn a_rolling_restart_of_all_nodes_has_no_void() {
    let mut world = World::new(3, 17);
    world.run(ms(1000));
    for number in 1..=9 {
        world.watcher.watch(vip_address(number));
        world.clients.used.insert(vip_address(number));
        world.set_vip(vip(number, number as usize % 3, 3));
    }
    world.run(ms(3000));
    world.watcher.reset();
    for node in 0..3 {
        world.leave(node);
        world.run(ms(3100));
        assert!(world.nodes[node].mind.is_none(), "it left");
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
fn where_a_firewall_drops_the_datagrams_frames_alone_keep_the_order() {
    for seed in 0..20 {
        let mut world = World::dark(3, seed);
        world.drops_datagrams = true;
        let address = vip_address(1);
        world.vips.insert(address, vip(1, 0, 3));
        world.watcher.watch(address);
        world.clients.used.insert(address);
        world.clients.observes = true;
        for node in 0..3 {
            world.start_node(node);
            let pause = world.random(200);
            world.run(ms(pause));
        }
        world.run(ms(3000));
        hold_for(&mut world, ms(5000), ms(0));
        let owner = world.owner(address).unwrap();
        world.change_port(owner, |port| port.dark = true);
        world.run(ms(3000));
        i1_no_void(&world);
        world.change_port(owner, |port| port.dark = false);
        world.run(ms(65_000));
        i1_no_void(&world);
        i2_no_split(&world);
    }
}

#[test]
fn a_node_that_nobody_knows_yet_takes_nothing_although_it_ranks_first() {
    let mut world = World::dark(3, 19);
    let address = vip_address(1);
    world.strangers = vec![(1, 0), (2, 0)];
    world.vips.insert(address, vip(1, 0, 3));
    world.start_node(1);
    world.start_node(2);
    world.run(ms(2000));
    assert_eq!(world.owner(address), Some(1));
    world.watcher.watch(address);
    world.start_node(0);
    hold_for(&mut world, ms(3000), ms(0));
    world.introduce_all();
    hold_for(&mut world, ms(3000), ms(0));
    assert_eq!(world.owner(address), Some(1));
}

#[test]
fn on_a_lossy_lan_addresses_stay_where_they_are() {
    // Where a quarter of all heartbeats is lost, three in a row now and then are: to tell that from death
    // takes more than heartbeats.
    for (loss, most_moves) in [(0.02, 0), (0.05, 2), (0.15, 90)] {
        let mut moves = 0;
        let mut longest = ms(0);
        for seed in 0..5 {
            let mut world = settled(4, seed);
            for node in 0..4 {
                world.change_port(node, |port| (port.loss_in, port.loss_out) = (loss, loss));
            }
            world.run(ms(60_000));
            moves += world.watcher.moves();
            longest = longest.max(world.watcher.longest_split());
        }
        println!("each port loses {loss} both ways: {moves} moves in 5 minutes, longest split {longest:?}");
        assert!(moves <= most_moves, "{moves} moves with {loss}");
    }
}

#[test]
fn an_owner_cut_off_on_one_lan_hears_of_its_successor_on_the_other() {
    for seed in 0..20 {
        let mut world = World::dark(3, seed);
        world.has_backbone = true;
        let address = vip_address(1);
        world.vips.insert(address, vip(1, 0, 3));
        world.watcher.watch(address);
        world.clients.used.insert(address);
        for node in 0..3 {
            world.start_node(node);
        }
        world.run(ms(2000));
        assert_eq!(world.owner(address), Some(0));
        world.watcher.reset();
        world.change_port(0, |port| port.dark = true);
        world.run(ms(1000));
        assert_eq!(world.owner(address), Some(1), "{}", describe(&world, address));
        let outage = world.watcher.longest_outage();
        assert!(outage <= ms(302), "{outage:?}");
        assert!(!world.nodes[0].mind.as_ref().unwrap().answers(address), "it heard and yielded");
        world.watcher.reset();
        world.change_port(0, |port| port.dark = false);
        hold_for(&mut world, ms(3000), ms(0));
        assert_eq!(world.owner(address), Some(1));
        // The second LAN does not matter to the address.
        world.nodes[1].backbone_dark = true;
        hold_for(&mut world, ms(3000), ms(0));
        assert_eq!(world.owner(address), Some(1));
    }
}

#[test]
fn a_thousand_addresses_are_taken_over_within_a_blink() {
    let mut world = World::new(3, 16);
    world.run(ms(1000));
    for number in 0..1000 {
        world.vips.insert(vip_address(number), vip(number, 0, 3));
        world.clients.used.insert(vip_address(number));
    }
    let vips = world.vips.values().cloned().collect();
    world.status_flows = false;
    world.tell_all(&landfall_speaker::mind::Event::Vips(vips));
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
        (0..1000).filter(|number| world.clients.cached(vip_address(*number)) == Some(world.nodes[1].mac));
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
