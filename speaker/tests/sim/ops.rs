//! Any sequence of deeds and faults, shrunk to the shortest that breaks an invariant.

use landfall_speaker::lan::Vip;
use proptest::prelude::*;

use crate::invariants::{describe, hold_for};
use crate::scenarios::vip;
use crate::world::{World, ms, vip_address};

const NODES: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Dark(usize, bool),
    Deaf(usize, bool),
    Mute(usize, bool),
    Carrier(usize, bool),
    Kill(usize),
    Start(usize),
    Leave(usize),
    Freeze(usize, u64),
    Rank(usize, i64),
    Claimed(bool),
    Delete,
    Create,
}

fn any_op() -> impl Strategy<Value = Op> {
    let node = 0..NODES;
    prop_oneof![
        4 => (1_u64..2000).prop_map(Op::Pass),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, is_so)| Op::Dark(node, is_so)),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, is_so)| Op::Deaf(node, is_so)),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, is_so)| Op::Mute(node, is_so)),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, is_so)| Op::Carrier(node, is_so)),
        1 => node.clone().prop_map(Op::Kill),
        2 => node.clone().prop_map(Op::Start),
        1 => node.clone().prop_map(Op::Leave),
        1 => (node.clone(), 1_u64..1500).prop_map(|(node, duration)| Op::Freeze(node, duration)),
        2 => (node, 0_i64..2).prop_map(|(node, raise)| Op::Rank(node, raise)),
        1 => any::<bool>().prop_map(Op::Claimed),
        1 => Just(Op::Delete),
        1 => Just(Op::Create),
    ]
}

fn perform(world: &mut World, object: &mut Vip, op: Op) {
    match op {
        Op::Pass(duration) => world.run(ms(duration)),
        Op::Dark(node, is_so) => world.change_port(node, |port| port.dark = is_so),
        Op::Deaf(node, is_so) => world.change_port(node, |port| port.loss_in = f64::from(u8::from(is_so))),
        Op::Mute(node, is_so) => world.change_port(node, |port| port.loss_out = f64::from(u8::from(is_so))),
        Op::Carrier(node, carrier) => world.set_carrier(node, carrier),
        Op::Kill(node) => {
            world.kill(node);
            world.watcher.restarted(node);
        }
        Op::Start(node) if world.nodes[node].mind.is_none() => {
            world.watcher.restarted(node);
            world.start_node(node);
        }
        Op::Leave(node) => world.leave(node),
        Op::Freeze(node, duration) => world.freeze(node, ms(duration)),
        Op::Rank(first, raise) => {
            *object = Vip { epoch: object.epoch + raise, claimed: object.claimed, ..vip(1, first, NODES) };
            world.set_vip(object.clone());
        }
        Op::Claimed(claimed) => {
            object.claimed = claimed;
            world.set_vip(object.clone());
        }
        Op::Delete => world.delete_vip(object.address),
        Op::Create => world.set_vip(object.clone()),
        Op::Start(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::seeds(64), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_well(seed: u64, ops in proptest::collection::vec(any_op(), 1..25)) {
        let mut world = World::new(NODES, seed);
        let mut object = vip(1, 0, NODES);
        world.watcher.watch(object.address);
        world.clients.used.insert(object.address);
        world.run(ms(500));
        world.set_vip(object.clone());
        world.run(ms(500));
        for op in ops {
            perform(&mut world, &mut object, op);
        }
        // All is mended, and whoever was about to leave has left.
        for node in 0..NODES {
            world.change_port(node, |port| (port.dark, port.loss_in, port.loss_out) = (false, 0.0, 0.0));
            world.set_carrier(node, true);
        }
        world.run(ms(3100));
        for node in 0..NODES {
            if world.nodes[node].mind.is_none() {
                world.watcher.restarted(node);
                world.start_node(node);
            }
        }
        object.claimed = true;
        world.set_vip(object.clone());
        world.run(ms(1500));
        hold_for(&mut world, ms(1000), ms(0));
        let late = world.watcher.late_split();
        prop_assert!(late < ms(5), "two nodes answered for {:?} on a whole LAN", late);
        let void = world.watcher.late_void();
        prop_assert!(void < ms(700), "nobody answered for {:?} although somebody could", void);
        prop_assert!(world.owner(vip_address(1)).is_some(), "{}", describe(&world, object.address));
    }
}
