use std::collections::{BTreeMap, BTreeSet};

use landfall_crds::Placement;

use super::*;
use crate::ranking::order;
use crate::ranking::reach::Eligible;

/// Numbers that look random and are the same for the same seed (SplitMix64, Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

fn address(number: usize) -> IpAddr {
    IpAddr::from((0x0a00_0000_u32 + number as u32).to_be_bytes())
}

/// What is placed, without a mind: speakers do at once what they are asked to.
#[derive(Default)]
struct World {
    loads: Loads,
    /// Candidates and announcer.
    placed: BTreeMap<IpAddr, (Vec<Candidate>, Option<String>)>,
    /// The nodes, and whether each is cordoned.
    nodes: BTreeMap<String, bool>,
    /// Nodes that are there and may not be given anything now.
    unwell: BTreeSet<String>,
    /// Addresses that only some nodes can announce.
    limited: BTreeMap<IpAddr, BTreeSet<String>>,
}

impl World {
    fn with_nodes(names: &[&str]) -> Self {
        let nodes = names.iter().map(|name| ((*name).to_owned(), false)).collect();
        Self { nodes, ..Self::default() }
    }

    /// An address with exactly these candidates, announced by the first.
    fn put(&mut self, number: usize, candidates: &[&str]) {
        let named = |name: &&str| Candidate { node: (*name).to_owned() };
        self.set(address(number), candidates.iter().map(named).collect());
        self.announce(number, candidates.first().copied());
    }

    fn announce(&mut self, number: usize, node: Option<&str>) {
        self.placed.get_mut(&address(number)).unwrap().1 = node.map(ToOwned::to_owned);
    }

    fn set(&mut self, address: IpAddr, candidates: Vec<Candidate>) {
        self.loads.set(address, Some(&Placement { epoch: 1, candidates: candidates.clone() }));
        self.placed.entry(address).or_default().0 = candidates;
    }

    fn may(&self, address: IpAddr, node: &str) -> bool {
        self.limited.get(&address).is_none_or(|nodes| nodes.contains(node))
    }

    /// Orders an address as the mind does when something changes.
    fn order(&mut self, address: IpAddr) {
        let eligible: Vec<Eligible<'_>> = self
            .nodes
            .iter()
            .filter(|(node, _)| self.may(address, node))
            .map(|(node, cordoned)| Eligible { node, may_join: true, cordoned: *cordoned, dead: false })
            .collect();
        let current = self.placed.get(&address).map(|placed| placed.0.clone()).unwrap_or_default();
        let candidates = order(address, &current, &eligible, &self.loads).into_owned();
        let first = candidates.first().map(|first| first.node.clone());
        let is_new = current.is_empty();
        self.set(address, candidates);
        let announcer = &mut self.placed.get_mut(&address).unwrap().1;
        if is_new || announcer.as_ref().is_some_and(|node| !self.nodes.contains_key(node)) {
            *announcer = first;
        }
    }

    fn order_all(&mut self) {
        for address in self.placed.keys().copied().collect::<Vec<_>>() {
            self.order(address);
        }
    }

    fn able(&self, address: IpAddr) -> Vec<&str> {
        let well = self.nodes.iter().filter(|(node, cordoned)| !**cordoned && !self.unwell.contains(*node));
        well.map(|(node, _)| node.as_str()).filter(|node| self.may(address, node)).collect()
    }

    fn next(&self) -> Option<Move> {
        let places = self.placed.iter().map(|(address, (candidates, announcer))| Place {
            address: *address,
            candidates,
            announcer: announcer.as_deref(),
            may_return: true,
            able: self.able(*address),
        });
        next_move(&self.loads, places)
    }

    fn take(&mut self, step: &Move) {
        self.set(step.address, step.candidates.clone());
        if step.raises_epoch {
            self.placed.get_mut(&step.address).unwrap().1 = Some(step.candidates[0].node.clone());
        }
    }

    /// Takes step after step to the end.
    fn finish(&mut self) -> Vec<Move> {
        let mut steps = Vec::new();
        while let Some(step) = self.next() {
            let before: BTreeSet<String> =
                self.placed[&step.address].0.iter().map(|candidate| candidate.node.clone()).collect();
            let after: BTreeSet<String> =
                step.candidates.iter().map(|candidate| candidate.node.clone()).collect();
            assert_eq!((before, step.candidates.len()), (after.clone(), after.len()), "the same nodes");
            assert!(self.able(step.address).contains(&step.candidates[0].node.as_str()), "{step:?}");
            self.take(&step);
            steps.push(step);
            assert!(steps.len() <= 4 * self.placed.len(), "it does not come to an end");
        }
        steps
    }

    /// What a node announces goes to the best that is well, and stays there when it comes back.
    fn fail(&mut self, node: &str) {
        self.unwell.insert(node.to_owned());
        for address in self.placed.keys().copied().collect::<Vec<_>>() {
            let able: Vec<String> = self.able(address).into_iter().map(ToOwned::to_owned).collect();
            let (candidates, announcer) = self.placed.get_mut(&address).unwrap();
            if announcer.as_deref() == Some(node) {
                let names = candidates.iter().map(|candidate| &candidate.node);
                *announcer = names.into_iter().find(|name| able.contains(name)).cloned();
            }
        }
    }

    fn firsts(&self) -> BTreeMap<&str, u32> {
        self.nodes.keys().map(|node| (node.as_str(), self.loads.firsts(node))).collect()
    }
}

fn told(step: &Option<Move>) -> String {
    step.as_ref().map_or("nothing".to_owned(), |step| {
        let order: Vec<&str> = step.candidates.iter().map(|candidate| candidate.node.as_str()).collect();
        let fence = if step.raises_epoch { "raised" } else { "kept" };
        format!("{} {} {fence}: {step}", step.address, order.join(","))
    })
}

#[test]
fn a_node_with_more_than_its_share_gives_to_the_one_with_the_fewest() {
    let mut world = World::with_nodes(&["a", "b", "c"]);
    for (number, order) in [["a", "b", "c"], ["a", "b", "c"], ["a", "c", "b"]].iter().enumerate() {
        world.put(number, order);
    }
    assert_eq!(
        told(&world.next()),
        "10.0.0.0 c,a,b raised: moves from node a to node c: a ranked first for 3 addresses, c for 0",
        "of two that have none, the one that is second less often; of the addresses, one whose second has most"
    );
}

#[test]
fn nothing_moves_where_no_order_is_more_even() {
    for firsts in [&[2, 1, 1][..], &[1, 1, 0], &[3, 3, 2], &[1, 0, 0], &[0, 0, 0], &[35, 35, 30]] {
        let mut world = World::with_nodes(&["a", "b", "c"]);
        let orders = [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]];
        let mut number = 0;
        for (order, count) in orders.iter().zip(firsts) {
            for turn in 0..*count {
                let [first, second, third] = *order;
                let order = if turn % 2 == 0 { [first, second, third] } else { [first, third, second] };
                world.put(number, &order);
                number += 1;
            }
        }
        assert_eq!(told(&world.next()), "nothing", "{firsts:?}");
    }
}

#[test]
fn what_is_more_than_five_percent_above_the_mean_is_too_much() {
    let mut world = World::with_nodes(&["a", "b"]);
    for number in 0..211 {
        world.put(number, if number < 105 { &["a", "b"] } else { &["b", "a"] });
    }
    assert_eq!(told(&world.next()), "nothing");
    for number in 0..6 {
        world.put(number, &["b", "a"]);
    }
    // 112 of 211 is more than 110, which is 1.05 times the mean.
    let steps = world.finish();
    assert_eq!(steps.len(), 2);
    assert_eq!(world.firsts(), BTreeMap::from([("a", 101), ("b", 110)]));
}

#[test]
fn who_is_not_able_is_neither_given_anything_nor_counted() {
    let mut world = World::with_nodes(&["a", "b", "c"]);
    for number in 0..4 {
        world.put(number, &["a", "b", "c"]);
    }
    world.unwell = ["b".to_owned(), "c".to_owned()].into();
    assert_eq!(told(&world.next()), "nothing");
    world.unwell = ["b".to_owned()].into();
    assert!(world.finish().iter().all(|step| step.candidates[0].node == "c"));
    assert_eq!(world.firsts(), BTreeMap::from([("a", 2), ("b", 0), ("c", 2)]));
    // One that is unwell keeps what it has.
    world.unwell = ["a".to_owned(), "b".to_owned()].into();
    assert_eq!(told(&world.next()), "nothing");
}

#[test]
fn an_address_moves_only_among_the_nodes_that_can_announce_it() {
    let mut world = World::with_nodes(&["a", "b", "c", "d"]);
    for number in 0..6 {
        world.put(number, &["a", "b"]);
        world.limited.insert(address(number), ["a".to_owned(), "b".to_owned()].into());
    }
    for number in 6..12 {
        world.put(number, &["c", "a", "b", "d"]);
    }
    world.finish();
    assert_eq!(world.firsts(), BTreeMap::from([("a", 3), ("b", 3), ("c", 3), ("d", 3)]));
    assert!((0..6).all(|number| world.placed[&address(number)].0.len() == 2));
}

#[test]
fn a_first_candidate_that_is_well_again_is_asked_to_take_over() {
    let mut world = World::with_nodes(&["a", "b", "c"]);
    world.put(1, &["a", "b", "c"]);
    world.put(2, &["b", "c", "a"]);
    world.put(3, &["c", "a", "b"]);
    world.announce(1, Some("b"));
    let step = world.next();
    assert_eq!(
        told(&step),
        "10.0.0.1 a,b,c raised: moves from node b to node a: a ranks first and is well",
        "the order stays"
    );
    world.unwell.insert("a".to_owned());
    assert_eq!(told(&world.next()), "nothing", "one that is not well is not asked");
    world.unwell.clear();
    world.announce(1, None);
    assert_eq!(told(&world.next()), "nothing", "where nobody announces the speakers know why");
}

#[test]
fn what_is_announced_elsewhere_already_is_given_up_first_and_moves_nowhere_if_it_can_stay() {
    let mut world = World::with_nodes(&["a", "b", "c"]);
    for number in 0..5 {
        world.put(number, &["a", "b", "c"]);
    }
    world.put(5, &["b", "c", "a"]);
    world.announce(3, Some("b"));
    world.announce(4, Some("c"));
    let steps: Vec<String> = world.finish().into_iter().map(|step| told(&Some(step))).collect();
    assert_eq!(steps[0], "10.0.0.4 c,a,b kept: stays on node c: a ranked first for 5 addresses, c for 0");
    assert_eq!(steps[1], "10.0.0.3 b,a,c kept: stays on node b: a ranked first for 4 addresses, b for 1");
    assert_eq!(world.firsts(), BTreeMap::from([("a", 2), ("b", 2), ("c", 2)]));
    assert_eq!(steps.iter().filter(|step| step.contains("raised")).count(), 1, "{steps:?}");
}

#[test]
fn second_places_are_evened_out_without_a_new_epoch() {
    let mut world = World::with_nodes(&["a", "b", "c", "d"]);
    for number in 0..120 {
        let order = [["a", "b", "c", "d"], ["b", "a", "c", "d"], ["c", "b", "a", "d"], ["d", "b", "a", "c"]];
        world.put(number, &order[number % 4]);
    }
    let firsts = world.firsts().into_iter().map(|(node, count)| (node.to_owned(), count));
    let firsts: BTreeMap<String, u32> = firsts.collect();
    let steps = world.finish();
    assert!(steps.iter().all(|step| step.reason == Reason::Second && !step.raises_epoch), "{steps:?}");
    assert!(firsts.iter().all(|(node, count)| world.loads.firsts(node) == *count));
    for node in ["a", "b", "c", "d"] {
        assert!((27..=33).contains(&world.loads.seconds(node)), "{node}: {}", world.loads.seconds(node));
    }
}

/// Nodes come, go, fail, return, are cordoned and released, addresses come and go; then everything is made
/// even, with no more moves than there is excess, and only from where there is any.
#[test]
fn equal_nodes_become_even_by_the_fewest_moves() {
    let (mut moved, mut returned, mut seconds_moved) = (0, 0, 0);
    let seeds = std::env::var("LANDFALL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    for seed in 0..seeds {
        let mut random = Random(seed);
        let mut world = World::default();
        let mut born = 0;
        let mut new_node = |world: &mut World| {
            born += 1;
            world.nodes.insert(format!("n{born}"), false);
        };
        for _ in 0..3 + random.below(4) {
            new_node(&mut world);
        }
        let mut number = 0;
        for _ in 0..100 + random.below(150) {
            world.order(address(number));
            number += 1;
        }
        for _ in 0..8 {
            for _ in 0..1 + random.below(3) {
                let names: Vec<String> = world.nodes.keys().cloned().collect();
                let name = names[random.below(names.len())].clone();
                let are_enough = world.able(address(0)).len() > 3;
                match random.below(7) {
                    0 | 1 if names.len() < 12 => new_node(&mut world),
                    2 if are_enough => {
                        world.nodes.remove(&name);
                        world.unwell.remove(&name);
                    }
                    3 if are_enough => {
                        world.nodes.insert(name, true);
                    }
                    4 if are_enough => world.fail(&name),
                    5 => world.unwell.clear(),
                    _ => {
                        world.nodes.insert(name, false);
                    }
                }
                world.order_all();
            }
            for _ in 0..random.below(20) {
                let gone = address(random.below(number));
                if world.placed.len() > 100 && world.placed.remove(&gone).is_some() {
                    world.loads.set(gone, None);
                }
                if random.once_in(2) {
                    world.order(address(number));
                    number += 1;
                }
            }
            for step in settle_and_check(&mut world, seed) {
                match step.reason {
                    Reason::Even { .. } => moved += 1,
                    Reason::Return => returned += 1,
                    Reason::Second => seconds_moved += 1,
                }
            }
        }
    }
    let counts = [moved, returned, seconds_moved];
    assert!(counts.iter().all(|count| *count > 10 * seeds), "moves, returns, second places: {counts:?}");
}

fn settle_and_check(world: &mut World, seed: u64) -> Vec<Move> {
    let able: Vec<String> = world.able(address(0)).into_iter().map(ToOwned::to_owned).collect();
    let count = |world: &World, of: &dyn Fn(&Loads, &str) -> u32| -> Vec<u32> {
        able.iter().map(|node| of(&world.loads, node)).collect()
    };
    let firsts = |loads: &Loads, node: &str| loads.firsts(node);
    let seconds = |loads: &Loads, node: &str| loads.seconds(node);
    let before = count(world, &firsts);
    let limit = allowed(&before, FIRSTS);
    let excess: u32 = before.iter().map(|held| held.saturating_sub(limit)).sum();
    let content: BTreeSet<&String> =
        able.iter().zip(&before).filter(|(_, held)| **held <= limit).map(|(node, _)| node).collect();
    let stays: BTreeSet<IpAddr> = world
        .placed
        .iter()
        .filter(|(_, (candidates, _))| content.contains(&candidates[0].node))
        .map(|(address, _)| *address)
        .collect();

    let steps = world.finish();
    let evened: Vec<&Move> = steps.iter().filter(|step| matches!(step.reason, Reason::Even { .. })).collect();
    assert_eq!(evened.len(), excess as usize, "seed {seed}: {before:?}");
    assert!(evened.iter().all(|step| !stays.contains(&step.address)), "seed {seed}");
    let once: BTreeSet<IpAddr> = evened.iter().map(|step| step.address).collect();
    assert_eq!(once.len(), evened.len(), "seed {seed}: an address moves twice");

    let are_within = |held: Vec<u32>, tolerance: f64| {
        let mean = held.iter().map(|held| f64::from(*held)).sum::<f64>() / held.len() as f64;
        let most = f64::from(held.iter().copied().max().unwrap_or(0));
        assert!(most <= (mean * tolerance).max(mean.ceil()), "seed {seed}: {held:?}, mean {mean}");
    };
    are_within(count(world, &firsts), 1.05);
    if world.unwell.is_empty() {
        // The addresses of a node that is not well are left alone, and so their second places.
        let seconds = count(world, &seconds);
        assert!(u64::from(seconds.iter().sum::<u32>()) >= FEW, "seed {seed}");
        are_within(seconds, 1.10);
    }
    for (candidates, announcer) in world.placed.values() {
        let first = &candidates[0].node;
        assert!(!able.contains(first) || announcer.as_ref() == Some(first), "seed {seed}");
    }
    steps
}

/// Where each address can be announced by some nodes only, it comes to an end too, and no single move
/// would make it more even.
#[test]
fn unequal_nodes_become_as_even_as_single_moves_make_them() {
    let mut moved = 0;
    for seed in 0..25 {
        let mut random = Random(1000 + seed);
        let names: Vec<String> = (1..=3 + random.below(6)).map(|number| format!("n{number}")).collect();
        let nodes = names.iter().map(|name| (name.clone(), false)).collect();
        let mut world = World { nodes, ..World::default() };
        for number in 0..150 {
            if random.once_in(2) {
                let mut some: BTreeSet<String> =
                    names.iter().filter(|_| random.once_in(2)).cloned().collect();
                some.insert(names[random.below(names.len())].clone());
                world.limited.insert(address(number), some);
            }
            world.order(address(number));
        }
        for _ in 0..4 {
            let name = names[random.below(names.len())].clone();
            world.nodes.insert(name.clone(), true);
            world.order_all();
            moved += world.finish().len();
            world.nodes.insert(name, false);
            world.order_all();
            moved += world.finish().len();
            for (address, (candidates, _)) in &world.placed {
                let able = world.able(*address);
                let held: Vec<u32> = able.iter().map(|node| world.loads.firsts(node)).collect();
                let own = world.loads.firsts(&candidates[0].node);
                let fewest = held.iter().min().copied().unwrap_or(own);
                assert!(own <= allowed(&held, FIRSTS) || own < fewest + 2, "seed {seed}: {address} {held:?}");
            }
        }
    }
    assert!(moved > 1000, "{moved} steps");
}
