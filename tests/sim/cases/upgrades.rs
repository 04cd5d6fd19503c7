//! Speakers that are replaced by another process of their node.

use landfall_sim::world::{World, ms, vip_address};
use landfall_speaker::mind::Report;

use crate::checks::{hold_for, settled, vip};

/// What the speakers told of the first address since then, but that they still announce it as before.
fn told(world: &World, since: usize) -> Vec<&Report> {
    let first = Report::Announcing {
        address: vip_address(1),
        interface: "eth0".into(),
        mac: world.nodes[0].mac,
        term: 1,
        epoch: 1,
    };
    let concerns = |report: &&Report| match report {
        Report::Peer { .. } => false,
        report => **report != first,
    };
    world.reports[since..].iter().map(|(_, _, report)| report).filter(concerns).collect()
}

#[test]
fn an_upgrade_of_all_speakers_moves_nothing_and_loses_nothing() {
    for seed in 0..30 {
        let mut world = settled(3, seed);
        let (since, frames) = (world.reports.len(), world.frames_sent);
        for number in 0..3 {
            world.upgrade(number);
            world.run(ms(1300));
        }
        world.run(ms(2000));
        assert_eq!(told(&world, since), Vec::<&Report>::new(), "seed {seed}");
        assert_eq!(world.watcher.moves(), 0);
        assert_eq!(world.watcher.longest_outage(), ms(0));
        assert_eq!(world.watcher.longest_split(), ms(0));
        let deaths = world.reports[since..]
            .iter()
            .filter(|(_, _, report)| matches!(report, Report::Peer { alive: false, .. }));
        assert_eq!(deaths.count(), 0, "nobody was missed");
        assert!(
            world.frames_sent - frames < 400,
            "only questions of clients and late heartbeats are answered"
        );
    }
}

#[test]
fn a_node_that_dies_after_its_speaker_was_upgraded_is_replaced_as_fast_as_ever() {
    for seed in 0..30 {
        let mut world = settled(3, seed);
        for number in 0..3 {
            world.upgrade(number);
            world.run(ms(50 + seed * 10));
        }
        world.change_port(0, |port| port.dark = true);
        let taken = world.run_until(ms(1000), |world| world.owner(vip_address(1)).is_some_and(|by| by != 0));
        assert!(taken <= ms(200), "seed {seed}: {taken:?}");
    }
}

#[test]
fn an_owner_that_dies_while_its_successor_is_upgraded_is_replaced_all_the_same() {
    for seed in 0..30 {
        let mut world = settled(3, seed);
        world.change_port(0, |port| port.dark = true);
        world.run(ms(5 * seed));
        world.upgrade(1);
        let taken = world.run_until(ms(1000), |world| world.owner(vip_address(1)).is_some_and(|by| by != 0));
        assert!(taken <= ms(400), "seed {seed}: {taken:?}");
    }
}

#[test]
fn a_thousand_addresses_outlive_the_upgrade_of_their_speakers() {
    let mut world = World::new(3, 5);
    world.run(ms(1000));
    world.status_flows = false;
    for number in 1..=1000 {
        world.write_vip(&vip(number, number as usize % 3, 3));
    }
    // Until the first gratuitous frames have been repeated.
    world.run(ms(7000));
    let owners: Vec<_> = (1..=1000).map(|number| world.owner(vip_address(number))).collect();
    assert!(owners.iter().all(Option::is_some));
    let frames = world.frames_sent;
    for number in 0..3 {
        world.upgrade(number);
        world.run(ms(100));
    }
    world.run(ms(500));
    let after: Vec<_> = (1..=1000).map(|number| world.owner(vip_address(number))).collect();
    assert_eq!(owners, after);
    assert!(world.frames_sent - frames < 200, "{}", world.frames_sent - frames);
    hold_for(&mut world, ms(1000), ms(0));
}
