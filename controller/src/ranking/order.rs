//! In which order nodes may announce an address.

use std::net::IpAddr;

use landfall_crds::Candidate;

use super::loads::Loads;
use super::reach::Eligible;

/// Orders the eligible nodes for an address: those that stand in `current` keep their order, new ones
/// are appended. Without any that stay, the first place goes to the node with the fewest first
/// places, the second to the one that would inherit the fewest from that node, the rest is
/// scattered. Cordoned nodes come last.
pub fn order(
    address: IpAddr,
    current: &[Candidate],
    eligible: &[Eligible<'_>],
    loads: &Loads,
) -> Vec<Candidate> {
    let find = |name: &str| eligible.iter().find(|node| node.node == name);
    let mut placed: Vec<&Eligible<'_>> = current.iter().filter_map(|known| find(&known.node)).collect();
    let mut newcomers: Vec<&Eligible<'_>> = eligible
        .iter()
        .filter(|node| node.may_join && !current.iter().any(|known| known.node == node.node))
        .collect();
    while !newcomers.is_empty() {
        let first = placed.first().map(|node| node.node);
        let key = |node: &Eligible<'_>| {
            let load = match (placed.len(), first) {
                (0, _) => (loads.firsts(node.node), loads.seconds(node.node)),
                (1, Some(first)) => (loads.pairs(first, node.node), loads.seconds(node.node)),
                _ => (0, 0),
            };
            (node.cordoned, node.dead, load, scatter(address, node.node))
        };
        let best = newcomers.iter().enumerate().min_by_key(|(_, node)| key(node)).map(|(at, _)| at);
        let Some(best) = best else { break };
        placed.push(newcomers.remove(best));
    }
    placed.sort_by_key(|node| node.cordoned);
    placed.into_iter().map(|node| Candidate { node: node.node.to_owned() }).collect()
}

/// A number that differs from address to address and from node to node, the same everywhere and in
/// every version (FNV-1a with a final mix, for the low bits alone would follow the last byte).
fn scatter(address: IpAddr, node: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    match address {
        IpAddr::V4(v4) => v4.octets().into_iter().for_each(&mut eat),
        IpAddr::V6(v6) => v6.octets().into_iter().for_each(&mut eat),
    }
    node.bytes().for_each(&mut eat);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_crds::Placement;
    use std::collections::BTreeMap;

    fn node(name: &str) -> Eligible<'_> {
        Eligible { node: name, may_join: true, cordoned: false, dead: false }
    }

    fn candidates(names: &[&str]) -> Vec<Candidate> {
        names.iter().map(|name| Candidate { node: (*name).to_owned() }).collect()
    }

    fn ordered(current: &[&str], eligible: &[Eligible<'_>]) -> Vec<String> {
        let address = "10.0.0.1".parse().unwrap();
        let ordered = order(address, &candidates(current), eligible, &Loads::default());
        ordered.into_iter().map(|candidate| candidate.node).collect()
    }

    #[test]
    fn an_order_that_stands_is_kept() {
        assert_eq!(ordered(&["c", "a", "b"], &[node("a"), node("b"), node("c")]), ["c", "a", "b"]);
        assert_eq!(ordered(&["c", "a", "b"], &[node("b"), node("c")]), ["c", "b"]);
        assert_eq!(ordered(&["c", "a"], &[node("a"), node("b"), node("c")]), ["c", "a", "b"]);
    }

    #[test]
    fn a_crash_and_a_return_change_nothing() {
        let dead = Eligible { dead: true, ..node("c") };
        let dark = Eligible { may_join: false, dead: true, ..node("c") };
        for crashed in [dead, dark] {
            assert_eq!(ordered(&["c", "a", "b"], &[node("a"), node("b"), crashed]), ["c", "a", "b"]);
        }
    }

    #[test]
    fn cordoned_nodes_come_last_and_dead_ones_join_behind_live_ones() {
        let cordoned = Eligible { cordoned: true, ..node("c") };
        assert_eq!(ordered(&["c", "a", "b"], &[node("a"), node("b"), cordoned.clone()]), ["a", "b", "c"]);
        let dead = Eligible { dead: true, ..node("a") };
        assert_eq!(ordered(&[], &[dead, node("b"), cordoned]), ["b", "a", "c"]);
        let dark = Eligible { may_join: false, ..node("a") };
        assert_eq!(ordered(&[], &[dark, node("b")]), ["b"]);
    }

    /// First places: max over mean at most 1.05. Second places: so too, in all and behind each first.
    #[test]
    fn places_are_spread_evenly() {
        for (nodes, addresses) in [(3_usize, 100_u32), (5, 200), (20, 4000)] {
            let names: Vec<String> = (0..nodes).map(|n| format!("node-{n}")).collect();
            let eligible: Vec<Eligible<'_>> = names.iter().map(|name| node(name)).collect();
            let mut loads = Loads::default();
            let mut inherits: BTreeMap<(String, String), u32> = BTreeMap::new();
            for n in 0..addresses {
                let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
                let candidates = order(address, &[], &eligible, &loads);
                let pair = (candidates[0].node.clone(), candidates[1].node.clone());
                *inherits.entry(pair).or_default() += 1;
                loads.set(address, Some(&Placement { epoch: 1, candidates }));
            }
            let mean = f64::from(addresses) / nodes as f64;
            for name in &names {
                assert!(
                    f64::from(loads.firsts(name)) <= mean * 1.05,
                    "{nodes} nodes: {}",
                    loads.firsts(name)
                );
                assert!(
                    f64::from(loads.seconds(name)) <= mean * 1.05 + 1.0,
                    "{nodes}: {}",
                    loads.seconds(name)
                );
            }
            let pairs_mean = mean / (nodes - 1) as f64;
            let most = inherits.values().max().copied().unwrap_or(0);
            assert!(f64::from(most) <= pairs_mean.ceil() + 1.0, "{nodes} nodes: {most} behind one");
        }
    }

    #[test]
    fn counts_follow_every_change() {
        let mut loads = Loads::default();
        let address = "10.0.0.1".parse().unwrap();
        let placement = |names| Placement { epoch: 1, candidates: candidates(names) };
        loads.set(address, Some(&placement(&["a", "b"])));
        loads.set(address, Some(&placement(&["b"])));
        assert_eq!((loads.firsts("a"), loads.firsts("b"), loads.seconds("b")), (0, 1, 0));
        loads.set(address, None);
        assert_eq!((loads.firsts("b"), loads.pairs("a", "b")), (0, 0));
    }
}
