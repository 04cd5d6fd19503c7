//! Addresses go back to where they belong, slowly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use landfall_controller::effects::Effect;
use landfall_controller::mind::{Change, Config, Event};
use landfall_crds::{Carrier, Peer, PeerState, Speaker, VirtualIP};
use serde_json::json;

use crate::cluster::Cluster;
use crate::objects::{pool, service, speaker};

const SECOND: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(60);

/// So many nodes and Services, all announced where they should be, and quiet.
fn spread(nodes: u8, services: usize) -> Cluster {
    with(nodes, services, Config::default())
}

fn with(nodes: u8, services: usize, config: Config) -> Cluster {
    let mut cluster = Cluster::with(1, config);
    for number in 1..=nodes {
        cluster.api.put_speaker(speaker(&format!("n{number}"), number));
    }
    cluster.api.put_pool(pool("lan", &["10.0.0.100-10.0.0.250"]));
    for number in 0..services {
        cluster.api.put_service(service(&format!("web-{number:02}")));
    }
    cluster.settle();
    cluster.announce_all();
    cluster.quiet();
    cluster
}

impl Cluster {
    /// How many addresses each node announces.
    fn announced(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for vip in self.api.vips.values() {
            let announcer = vip.status.as_ref().and_then(|status| status.announcer.as_ref());
            *counts.entry(announcer.map_or("nobody".to_owned(), |it| it.node.clone())).or_default() += 1;
        }
        counts
    }

    /// Lets time pass second by second while speakers do as they are asked. Returns after how many
    /// seconds a raised epoch asked for an address, and which.
    fn moves(&mut self, time: Duration) -> Vec<(u64, String)> {
        let mut moves = Vec::new();
        for second in 1..=time.as_secs() {
            self.pass(SECOND);
            self.settle();
            moves.extend(self.follow_epochs().into_iter().map(|name| (second, name)));
            self.settle();
        }
        moves
    }

    fn updates(&self) -> u64 {
        self.api.writes.get("UpdateVirtualIp").copied().unwrap_or(0)
    }

    /// A node goes dark as its peers and itself see it, and the seconds take over.
    fn fails(&mut self, node: &str, number: u8) {
        let mut dark = speaker(node, number);
        dark.status.as_mut().unwrap().interfaces[0].carrier = Carrier::Down;
        self.api.put_speaker(dark);
        self.settle();
        for name in self.api.vips.keys().cloned().collect::<Vec<_>>() {
            let vip = &self.api.vips[&name];
            let status = vip.status.as_ref().unwrap();
            if status.announcer.as_ref().is_some_and(|announcer| announcer.node == node) {
                let candidates = &vip.spec.placement.as_ref().unwrap().candidates;
                let next = candidates.iter().map(|it| it.node.clone()).find(|name| name != node);
                self.announce(&name, next.as_deref());
            }
        }
        self.settle();
    }

    fn comes(&mut self, node: &str, number: u8) {
        self.api.put_speaker(speaker(node, number));
        self.settle();
    }

    fn tell_node(&mut self, name: &str, cordoned: bool) {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"unschedulable": cordoned}}))
                .unwrap();
        let now = self.now();
        self.controllers[0].tell(now, Event::Node(Change::Applied(Arc::new(node))));
        self.settle();
    }

    fn sleeps(&self) -> bool {
        self.controllers[0].mind.next_deadline().is_none()
    }

    /// What people were told of moves.
    fn moves_told(&self) -> Vec<String> {
        let message = |effect: &Effect| match effect {
            Effect::Publish(note) if note.reason == "Rebalanced" => {
                assert_eq!((note.kind, note.namespace.as_str()), ("VirtualIP", ""));
                Some(format!("{}: {}", note.name, note.message))
            }
            _ => None,
        };
        self.controllers[0].published.iter().filter_map(message).collect()
    }
}

fn seconds(moves: &[(u64, String)]) -> Vec<u64> {
    moves.iter().map(|(second, _)| *second).collect()
}

fn unready(mut speaker: Speaker) -> Speaker {
    let status = speaker.status.as_mut().unwrap();
    status.conditions = vec![Condition {
        type_: "Ready".into(),
        status: "False".into(),
        reason: "Warming".into(),
        message: "no list of VirtualIPs yet".into(),
        last_transition_time: Time(k8s_openapi::jiff::Timestamp::from_second(1_800_000_000).unwrap()),
        observed_generation: None,
    }];
    speaker
}

#[test]
fn a_node_that_comes_gets_its_share_one_by_one() {
    let mut cluster = spread(3, 24);
    cluster.comes("n4", 4);
    let written = cluster.updates();
    assert_eq!(written, 24, "it joins every order");
    let moves = cluster.moves(4 * SETTLE);
    assert_eq!(seconds(&moves), [60, 70, 80, 90, 100, 110], "after the settle time, at the pace");
    let counts: Vec<usize> = cluster.announced().into_values().collect();
    assert_eq!(counts, [6, 6, 6, 6]);
    let told = cluster.moves_told();
    assert_eq!(told.len(), 6);
    assert_eq!(
        told[0],
        "10.0.0.100: moves from node n1 to node n4: n1 ranked first for 8 addresses, n4 for 0"
    );
    cluster.quiet();
    assert!(cluster.sleeps());
    assert_eq!(cluster.moves_told().len(), 6);
}

#[test]
fn second_places_become_even_too_which_moves_nothing_and_is_not_told() {
    let mut cluster = spread(3, 120);
    cluster.comes("n4", 4);
    let moves = cluster.moves(6 * SETTLE);
    assert_eq!(moves.len(), 27, "three times from 40 to 31");
    let before = (cluster.announced(), cluster.updates());
    cluster.quiet();
    let mut seconds: BTreeMap<String, usize> = BTreeMap::new();
    for vip in cluster.api.vips.values() {
        let placement = vip.spec.placement.as_ref().unwrap();
        *seconds.entry(placement.candidates[1].node.clone()).or_default() += 1;
    }
    assert!(seconds.len() == 4 && seconds.values().all(|count| *count <= 33), "{seconds:?}");
    assert!(cluster.updates() > before.1, "the newcomer stood second nowhere");
    assert_eq!((cluster.announced(), cluster.follow_epochs()), (before.0, Vec::new()));
    assert_eq!(cluster.moves_told().len(), 27);
}

#[test]
fn a_node_that_returns_has_its_addresses_back_after_a_while() {
    let mut cluster = spread(3, 12);
    cluster.fails("n1", 1);
    assert_eq!(cluster.moves(3 * SETTLE), [], "while it is away nothing moves");
    assert!(cluster.sleeps(), "and nothing is waited for");
    cluster.comes("n1", 1);
    let before = cluster.updates();
    assert_eq!(cluster.moves(SETTLE - SECOND), []);
    assert_eq!(cluster.updates(), before, "a return writes nothing");
    let moves = cluster.moves(2 * SETTLE);
    assert_eq!(seconds(&moves), [1, 11, 21, 31]);
    assert_eq!(cluster.announced(), BTreeMap::from([("n1".into(), 4), ("n2".into(), 4), ("n3".into(), 4)]));
    assert!(cluster.moves_told()[0].ends_with("to node n1: n1 ranks first and is well"));
    cluster.quiet();
    assert_eq!(cluster.updates(), before + 4, "each once, and no order has changed");
}

#[test]
fn an_address_that_was_taken_over_a_moment_ago_is_left_alone() {
    // Of what makes a speaker step down the API may tell last, or nothing.
    let mut cluster = spread(3, 12);
    let on_n1 = |cluster: &Cluster| -> Vec<String> {
        let announcer = |name: &String| cluster.api.vips[name].status.as_ref()?.announcer.clone();
        let names = cluster.api.vips.keys().cloned();
        names.filter(|name| announcer(name).is_some_and(|it| it.node == "n1")).collect()
    };
    let names = on_n1(&cluster);
    cluster.announce(&names[0], Some("n2"));
    cluster.settle();
    assert_eq!(cluster.moves(50 * SECOND), []);
    cluster.announce(&names[1], Some("n3"));
    cluster.settle();
    let moves = cluster.moves(3 * SETTLE);
    assert_eq!(moves, [(10, names[0].clone()), (60, names[1].clone())]);
}

#[test]
fn the_next_move_waits_for_the_last_one() {
    let mut cluster = spread(3, 12);
    cluster.comes("n4", 4);
    let before = cluster.updates();
    // No speaker does what it is asked.
    cluster.pass(SETTLE);
    cluster.settle();
    assert_eq!(cluster.updates(), before + 1);
    cluster.pass(Duration::from_secs(29));
    cluster.settle();
    assert_eq!(cluster.updates(), before + 1, "it is under way");
    cluster.pass(SECOND);
    cluster.settle();
    assert_eq!(cluster.updates(), before + 2, "the bound has passed");
    cluster.pass(Duration::from_secs(15));
    assert_eq!(cluster.follow_epochs().len(), 2);
    cluster.settle();
    assert_eq!(cluster.updates(), before + 3, "more than the pace has passed, so it is next at once");
}

#[test]
fn who_was_asked_and_does_not_take_over_is_not_asked_again() {
    let mut cluster = spread(3, 12);
    cluster.fails("n1", 1);
    cluster.comes("n1", 1);
    let before = cluster.updates();
    cluster.quiet();
    assert_eq!(cluster.updates(), before + 4);
    cluster.crash(0);
    cluster.quiet();
    assert_eq!(cluster.updates(), before + 4, "nor by a successor: the epoch still asks");
    assert_eq!(cluster.follow_epochs().len(), 4);
}

#[test]
fn a_successor_finishes_what_was_begun_and_moves_nothing_twice() {
    for killed_after in [65, 70, 75, 90] {
        let mut cluster = spread(3, 24);
        cluster.comes("n4", 4);
        let mut moves = cluster.moves(Duration::from_secs(killed_after));
        if killed_after == 70 {
            // In the middle of a move: it is written, and the answer is lost.
            cluster.pass(PACE);
            cluster.write(0, 0, crate::cluster::Way::LostAfter).unwrap();
        }
        let begun = moves.len();
        cluster.crash(0);
        cluster.settle();
        moves.extend(cluster.follow_epochs().into_iter().map(|name| (0, name)));
        let rest = cluster.moves(4 * SETTLE);
        assert_eq!(rest[0].0, 60, "who has just begun to lead waits for the settle time");
        moves.extend(rest);
        let once: BTreeSet<&String> = moves.iter().map(|(_, name)| name).collect();
        assert_eq!((once.len(), moves.len()), (6, 6), "killed after {begun} moves");
        let counts: Vec<usize> = cluster.announced().into_values().collect();
        assert_eq!(counts, [6, 6, 6, 6]);
    }
}

#[test]
fn a_node_that_is_never_well_for_long_gets_nothing() {
    let mut cluster = spread(3, 12);
    cluster.comes("n4", 4);
    for turn in 0..20 {
        match turn % 4 {
            0 => {
                let mut dark = speaker("n4", 4);
                dark.status.as_mut().unwrap().interfaces[0].carrier = Carrier::Down;
                cluster.api.put_speaker(dark);
            }
            1 => drop(cluster.api.put_speaker(unready(speaker("n4", 4)))),
            2 => {
                let mut peer = speaker("n1", 1);
                let since = cluster.api.time();
                let dead =
                    Peer { node: "n4".into(), interface: "eth0".into(), state: PeerState::Dead, since };
                peer.status.as_mut().unwrap().peers = vec![dead];
                cluster.api.put_speaker(peer);
            }
            _ => cluster.tell_node("n4", true),
        }
        cluster.settle();
        cluster.pass(SECOND);
        cluster.api.put_speaker(speaker("n1", 1));
        cluster.tell_node("n4", false);
        cluster.comes("n4", 4);
        assert_eq!(cluster.moves(SETTLE - SECOND), [], "turn {turn}");
    }
    assert_eq!(cluster.moves(SECOND).len(), 1, "it is well for long enough");
}

#[test]
fn a_link_that_comes_back_begins_the_settle_time_anew() {
    let mut cluster = spread(3, 12);
    let with_two_links = |carrier| {
        let mut both = speaker("n4", 4);
        let interfaces = &mut both.status.as_mut().unwrap().interfaces;
        let mut other = interfaces[0].clone();
        interfaces[0].carrier = carrier;
        (other.name, other.subnets) = ("eth1".into(), vec!["10.9.0.0/24".into()]);
        interfaces.push(other);
        both
    };
    cluster.api.put_speaker(with_two_links(Carrier::Up));
    cluster.settle();
    assert_eq!(cluster.moves(50 * SECOND), []);
    for carrier in [Carrier::Down, Carrier::Up] {
        cluster.api.put_speaker(with_two_links(carrier));
        cluster.settle();
    }
    assert_eq!(seconds(&cluster.moves(2 * SETTLE)), [60, 70, 80]);
}

#[test]
fn a_speaker_that_is_not_ready_receives_nothing() {
    let mut cluster = spread(3, 12);
    cluster.api.put_speaker(unready(speaker("n4", 4)));
    cluster.settle();
    assert_eq!(cluster.moves(3 * SETTLE), []);
    assert!(cluster.sleeps());
    cluster.comes("n4", 4);
    assert_eq!(seconds(&cluster.moves(3 * SETTLE)), [60, 70, 80]);
}

#[test]
fn a_node_that_is_dark_on_one_of_its_lans_receives_nothing() {
    let mut cluster = spread(3, 12);
    let mut peer = speaker("n1", 1);
    let since = cluster.api.time();
    let heard = |interface: &str, state| Peer {
        node: "n4".into(),
        interface: interface.into(),
        state,
        since: since.clone(),
    };
    let peers = &mut peer.status.as_mut().unwrap().peers;
    *peers = vec![heard("eth0", PeerState::Dead), heard("eth1", PeerState::Alive)];
    cluster.api.put_speaker(peer);
    cluster.comes("n4", 4);
    assert_eq!(cluster.moves(2 * SETTLE), []);
}

#[test]
fn a_cordoned_node_is_relieved_and_gets_its_share_when_it_is_released() {
    let mut cluster = spread(4, 24);
    cluster.tell_node("n1", true);
    assert_eq!(cluster.announced()["n1"], 6, "the order changes, the owner does not");
    assert_eq!(seconds(&cluster.moves(3 * SETTLE)), [60, 70, 80, 90, 100, 110]);
    assert_eq!(cluster.announced(), BTreeMap::from([("n2".into(), 8), ("n3".into(), 8), ("n4".into(), 8)]));
    cluster.quiet();
    cluster.tell_node("n1", false);
    assert_eq!(seconds(&cluster.moves(3 * SETTLE)), [60, 70, 80, 90, 100, 110]);
    assert_eq!(cluster.announced()["n1"], 6);
}

#[test]
fn with_an_interval_of_zero_nothing_moves() {
    let config = Config { rebalance_interval: Duration::ZERO, ..Config::default() };
    let mut cluster = with(3, 12, config);
    cluster.fails("n1", 1);
    cluster.comes("n1", 1);
    cluster.comes("n4", 4);
    let start = cluster.elapsed;
    cluster.quiet();
    assert!(cluster.elapsed - start < SETTLE, "it is not even waited for");
    assert_eq!(cluster.moves(5 * SETTLE), []);
}

#[test]
fn interval_and_settle_time_are_what_they_are_set_to() {
    let (rebalance_interval, rebalance_settle) = (3 * SECOND, 7 * SECOND);
    let mut cluster = with(3, 12, Config { rebalance_interval, rebalance_settle, ..Config::default() });
    cluster.comes("n4", 4);
    assert_eq!(seconds(&cluster.moves(SETTLE)), [7, 10, 13]);
}

#[test]
fn a_refused_move_holds_up_no_others() {
    let mut cluster = spread(3, 24);
    cluster.comes("n4", 4);
    cluster.pass(SETTLE);
    let (effect, done) = cluster.write(0, 0, crate::cluster::Way::LostBefore).unwrap();
    assert!(matches!(&effect, Effect::UpdateVirtualIp { .. }) && !done);
    cluster.answer(0);
    assert_eq!(cluster.moves_told(), [""; 0], "what was not done is not told");
    let moves = cluster.moves(3 * SETTLE);
    assert_eq!(seconds(&moves), [10, 20, 30, 40, 50, 60]);
}

#[test]
fn a_released_address_is_not_moved() {
    let mut cluster = spread(3, 12);
    let before = cluster.api.vips.clone();
    let placed_on_n1 = |vip: &&Arc<VirtualIP>| {
        vip.spec.placement.as_ref().is_some_and(|placement| placement.candidates[0].node == "n1")
    };
    let released: Vec<&str> =
        before.values().filter(placed_on_n1).map(|vip| vip.spec.claims[0].name.as_str()).collect();
    assert_eq!(released.len(), 4);
    for name in released {
        cluster.api.delete_service(&format!("shop/{name}"));
    }
    cluster.settle();
    assert_eq!(cluster.moves(3 * SECOND), []);
    for (name, vip) in cluster.api.vips.clone() {
        if vip.spec.claims.is_empty() {
            cluster.announce(&name, None);
        }
    }
    // The eight that are left are evened out.
    assert_eq!(cluster.moves(3 * SETTLE).len(), 2);
    assert_eq!(cluster.announced(), BTreeMap::from([("n1".into(), 2), ("n2".into(), 3), ("n3".into(), 3)]));
}

#[test]
fn what_is_granted_is_even_from_the_beginning() {
    for nodes in 2..=6 {
        for services in [1, 2, 5, 8, 12, 16, 17, 24, 40, 48, 100, 120] {
            let cluster = spread(nodes, services);
            assert_eq!(cluster.updates(), 0, "{services} addresses on {nodes} nodes");
        }
    }
}

#[test]
fn what_a_pool_kept_to_some_nodes_stays_there_when_the_pool_is_gone() {
    let mut cluster = spread(3, 0);
    for (name, rack) in [("n1", "1"), ("n2", "1"), ("n3", "3")] {
        let labelled: Node =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"rack": rack}}})).unwrap();
        cluster.api.put_node(labelled);
    }
    let mut edge = pool("lan", &["10.0.0.100-10.0.0.250"]);
    let announce = json!({"interfaces": ["eth0"], "nodeSelector": {"matchLabels": {"rack": "1"}}});
    edge.spec.announce = serde_json::from_value(announce).unwrap();
    cluster.api.put_pool(edge);
    for number in 0..6 {
        cluster.api.put_service(service(&format!("web-{number}")));
    }
    cluster.settle();
    cluster.announce_all();
    cluster.quiet();
    assert_eq!(cluster.announced(), [("n1".into(), 3), ("n2".into(), 3)].into());
    cluster.api.delete_pool("lan");
    // A node that comes back is looked at as one that could take its share.
    let mut dark = speaker("n3", 3);
    dark.status.as_mut().unwrap().interfaces[0].carrier = Carrier::Down;
    for state in [dark, speaker("n3", 3)] {
        cluster.api.put_speaker(state);
        cluster.settle();
    }
    assert_eq!(cluster.moves(600 * SECOND), []);
    for vip in cluster.api.vips.values() {
        let candidates = &vip.spec.placement.as_ref().unwrap().candidates;
        assert!(candidates.iter().all(|candidate| candidate.node != "n3"), "{candidates:?}");
    }
    assert!(cluster.sleeps());
}
