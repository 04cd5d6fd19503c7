//! LANs that are silent, deaf, lossy, filtered or two.

use landfall_sim::world::{Setting, World, ms, vip_address};
use landfall_speaker::lan::Vip;

use crate::checks::{hold_for, i1_no_void, i2_no_split, percentiles, settled, vip};

#[test]
fn two_nodes_are_enough_where_the_gateway_answers() {
    let mut outages = Vec::new();
    for seed in 0..50 {
        let mut world = settled(2, seed);
        world.stations.observes = false;
        world.change_port(0, |port| port.dark = true);
        world.run(ms(1000));
        assert_eq!(world.owner(vip_address(1)), Some(1));
        assert!(world.watcher.longest_outage() <= ms(160), "{:?}", world.watcher.longest_outage());
        outages.push(world.watcher.longest_outage());
    }
    println!("port dark, two nodes: the client's outage: {}", percentiles(outages));
}

#[test]
fn two_nodes_on_a_silent_lan_take_over_after_the_wait_for_the_isolated() {
    let mut world = settled(2, 7);
    world.stations.observes = false;
    world.set_gateway(false);
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
fn an_owner_that_hears_nobody_is_replaced_although_it_is_heard() {
    let mut world = settled(3, 14);
    let address = vip_address(1);
    world.change_port(0, |port| port.loss_in = 1.0);
    world.run(ms(2000));
    assert!(world.answering(address).contains(&1), "{}", world.describe(address));
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
    assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
    world.change_port(0, |port| port.loss_out = 0.0);
    hold_for(&mut world, ms(5000), ms(0));
}

#[test]
fn where_a_firewall_drops_the_datagrams_frames_alone_keep_the_order() {
    for seed in 0..20 {
        let mut world = World::dark(3, seed);
        world.drop_datagrams();
        let address = vip_address(1);
        world.write_vip(&vip(1, 0, 3));
        world.watch(address);
        world.stations.used.insert(address);
        world.stations.observes = true;
        for node in 0..3 {
            world.start_node(node);
            let pause = world.random.below(200);
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
        world.write_vip(&vip(1, 0, 3));
        world.watch(address);
        world.stations.used.insert(address);
        for node in 0..3 {
            world.start_node(node);
        }
        world.run(ms(2000));
        assert_eq!(world.owner(address), Some(0));
        world.watcher.reset();
        world.change_port(0, |port| port.dark = true);
        world.run(ms(1000));
        assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
        let outage = world.watcher.longest_outage();
        assert!(outage <= ms(160), "{outage:?}");
        assert!(!world.mind(0).unwrap().answers(address), "it heard and yielded");
        world.watcher.reset();
        world.change_port(0, |port| port.dark = false);
        hold_for(&mut world, ms(3000), ms(0));
        assert_eq!(world.owner(address), Some(1));
        // The second LAN does not matter to the address.
        world.change_backbone(1, |port| port.dark = true);
        hold_for(&mut world, ms(3000), ms(0));
        assert_eq!(world.owner(address), Some(1));
    }
}

#[test]
fn that_an_owner_that_hears_nobody_still_claims_the_address_holds_nobody_up() {
    for seed in 0..20 {
        let mut world = World::dark(4, seed);
        let address = vip_address(1);
        // n3 announces it, n4 comes next and was never heard; so n1 asks before it claims.
        world.write_vip(&Vip {
            candidates: ["n3", "n4", "n1", "n2"].map(Into::into).to_vec(),
            ..vip(1, 0, 4)
        });
        world.watch(address);
        for node in 0..3 {
            world.start_node(node);
        }
        world.run(ms(4000));
        assert_eq!(world.owner(address), Some(2), "{}", world.describe(address));
        world.change_port(2, |port| port.loss_in = 1.0);
        let taken = world.run_until(ms(2000), |world| world.owner(address) == Some(0));
        assert!(taken <= ms(1100), "seed {seed}: {taken:?}");
    }
}

#[test]
fn who_is_heard_on_another_lan_only_takes_nothing_on_this_one() {
    for seed in 0..20 {
        let mut world = World::with(Setting { backbone: true, ..Setting::usual(3, seed) });
        let address = vip_address(1);
        world.write_vip(&vip(1, 1, 3));
        world.watch(address);
        for node in 0..3 {
            world.start_node(node);
        }
        world.run(ms(3000));
        assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
        world.change_port(0, |port| port.loss_out = 1.0);
        world.run(ms(1000));
        // n1 hears everybody and claims what is to move to it, and on this LAN nobody hears n1.
        world.set_vip(Vip { epoch: 2, ..vip(1, 0, 3) });
        world.run(ms(3000));
        assert_eq!(world.owner(address), Some(1), "{}", world.describe(address));
        world.change_port(0, |port| port.loss_out = 0.0);
        world.run(ms(3000));
        assert_eq!(world.owner(address), Some(0), "{}", world.describe(address));
        i2_no_split(&world);
    }
}
