//! Random faults for many seeds: whatever happened, once the LAN is whole again and was left alone for a
//! while, every address has exactly one node that answers.

use std::time::Duration;

use landfall_speaker::lan::Vip;

use crate::invariants::{hold_for, i1_no_void};
use crate::scenarios::vip;
use crate::world::{World, ms, vip_address};

const NODES: usize = 4;
const ADDRESSES: u32 = 6;

fn break_something(world: &mut World) {
    let node = world.random(NODES as u64) as usize;
    let address = world.random(u64::from(ADDRESSES)) as u32;
    match world.random(12) {
        0 | 1 => world.change_port(node, |port| port.dark = true),
        2 => world.change_port(node, |port| port.island = 1),
        3 => {
            let (into, out) = (world.random(60) as f64 / 100.0, world.random(60) as f64 / 100.0);
            world.change_port(node, |port| (port.loss_in, port.loss_out) = (into, out));
        }
        4 => world.change_port(node, |port| port.loss_in = 1.0),
        5 => world.change_port(node, |port| port.loss_out = 1.0),
        6 => {
            world.kill(node);
            world.watcher.restarted(node);
        }
        7 if world.nodes[node].mind.is_some() => world.leave(node),
        8 => {
            let duration = ms(50 + world.random(3000));
            world.freeze(node, duration);
        }
        9 => world.set_carrier(node, false),
        10 => {
            let first = world.random(NODES as u64) as usize;
            let known = world.vips[&vip_address(address)].clone();
            let epoch = known.epoch + world.random(2) as i64;
            world.set_vip(Vip { epoch, candidates: vip(address, first, NODES).candidates, ..known });
        }
        _ => world.nodes[node].api_cut = true,
    }
}

fn mend_everything(world: &mut World) {
    for node in 0..NODES {
        world.change_port(node, |port| {
            (port.dark, port.island, port.loss_in, port.loss_out) = (false, 0, 0.0, 0.0);
        });
        world.nodes[node].api_cut = false;
        if !world.nodes[node].carrier {
            world.set_carrier(node, true);
        }
        if world.nodes[node].mind.is_none() {
            world.watcher.restarted(node);
            world.start_node(node);
        }
    }
    for vip in world.vips.values().cloned().collect::<Vec<_>>() {
        world.set_vip(vip);
    }
}

#[test]
fn random_faults_end_with_one_owner_for_every_address() {
    let first: u64 = std::env::var("LANDFALL_SIM_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let seeds = u64::from(crate::seeds(200));
    let (mut longest_split, mut events) = (Duration::ZERO, 0);
    for seed in first..first + seeds {
        let mut world = World::new(NODES, seed + 1000);
        world.run(ms(600));
        for number in 0..ADDRESSES {
            world.watcher.watch(vip_address(number));
            world.clients.used.insert(vip_address(number));
            world.set_vip(vip(number, number as usize % NODES, NODES));
        }
        world.run(ms(1000));
        i1_no_void(&world);
        for _ in 0..3 {
            for _ in 0..=world.random(3) {
                break_something(&mut world);
                let pause = world.random(1500);
                world.run(ms(pause));
            }
            mend_everything(&mut world);
            world.watcher.reset();
            // A frozen process may sleep on for three seconds.
            world.run(ms(4000));
            longest_split = longest_split.max(world.watcher.longest_split());
            println!("seed {seed} at {:?}", world.elapsed());
            hold_for(&mut world, ms(1000), ms(0));
        }
        let late = world.watcher.late_split();
        assert!(late < ms(5), "two nodes answered for {late:?} on a whole LAN");
        events += world.datagrams_sent + world.frames_sent;
    }
    println!("{seeds} seeds, {events} frames and datagrams; longest split after a heal {longest_split:?}");
}
