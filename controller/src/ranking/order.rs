//! In which order nodes may announce an address.

use std::borrow::Cow;
use std::net::IpAddr;

use landfall_crds::Candidate;

use super::loads::{Load, Loads};
use super::reach::Eligible;

/// So many nodes stand in an order at most. More could not all die before the order is made anew, and an object
/// for every address that names a thousand nodes is a burden to everybody who watches it.
pub const MOST_CANDIDATES: usize = 128;

/// Orders the eligible nodes, which come by name, for an address: those that stand in `current` keep their order, new ones
/// are appended. Without any that stay, the first place goes to the node with the fewest first
/// places, the second to the one that would inherit the fewest from that node, the rest is
/// scattered. Cordoned nodes come last. At most [`MOST_CANDIDATES`] are listed. An order that stands is not
/// made anew, since it is asked for often.
pub fn order<'a>(
    address: IpAddr,
    current: &'a [Candidate],
    eligible: &[Eligible<'_>],
    loads: &Loads,
) -> Cow<'a, [Candidate]> {
    let mut stays = vec![false; eligible.len()];
    let mut placed: Vec<&Eligible<'_>> = Vec::with_capacity(eligible.len());
    for known in current {
        if let Ok(at) = eligible.binary_search_by_key(&known.node.as_str(), |node| node.node) {
            placed.push(&eligible[at]);
            stays[at] = true;
        }
    }
    let newcomers = eligible.iter().zip(stays).filter(|(node, stays)| node.may_join && !stays);
    let mut newcomers: Vec<Newcomer<'_>> = newcomers
        .map(|(node, _)| Newcomer {
            node,
            last: (node.cordoned, node.dead),
            lot: scatter(address, node.node),
        })
        .collect();
    let all_stay = placed.len() == current.len() && !placed.iter().any(|node| node.cordoned);
    if all_stay && (newcomers.is_empty() || current.len() == MOST_CANDIDATES) {
        return Cow::Borrowed(current);
    }
    // Only the first two places count as a load.
    while placed.len() < 2 {
        let first = placed.first().map(|first| loads.of(first.node));
        let load = |newcomer: &Newcomer<'_>| {
            let name = newcomer.node.node;
            let (firsts, seconds) = loads.of(name).map_or((0, 0), |load| (load.firsts, load.seconds));
            let inherits = |load: Option<&Load>| load.map_or(0, |load| load.inherited_by(name));
            (first.map_or(firsts, inherits), seconds)
        };
        let key = |newcomer: &Newcomer<'_>| (newcomer.last, load(newcomer), newcomer.lot);
        let best = newcomers.iter().enumerate().min_by_key(|(_, newcomer)| key(newcomer));
        let Some((best, _)) = best else { break };
        placed.push(newcomers.remove(best).node);
    }
    newcomers.sort_by_key(|newcomer| (newcomer.last, newcomer.lot));
    placed.extend(newcomers.into_iter().map(|newcomer| newcomer.node));
    placed.sort_by_key(|node| node.cordoned);
    placed.truncate(MOST_CANDIDATES);
    placed.into_iter().map(|node| Candidate { node: node.node.to_owned() }).collect()
}

/// A node that comes into the order.
struct Newcomer<'a> {
    node: &'a Eligible<'a>,
    /// Whether it comes after others, for being cordoned or dead.
    last: (bool, bool),
    lot: u64,
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

    fn firsts(loads: &Loads, node: &str) -> u32 {
        loads.of(node).map_or(0, |load| load.firsts)
    }

    fn seconds(loads: &Loads, node: &str) -> u32 {
        loads.of(node).map_or(0, |load| load.seconds)
    }

    fn candidates(names: &[&str]) -> Vec<Candidate> {
        names.iter().map(|name| Candidate { node: (*name).to_owned() }).collect()
    }

    fn ordered(current: &[&str], eligible: &[Eligible<'_>]) -> Vec<String> {
        let address = "10.0.0.1".parse().unwrap();
        let current = candidates(current);
        let ordered = order(address, &current, eligible, &Loads::default());
        ordered.iter().map(|candidate| candidate.node.clone()).collect()
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
                let candidates = order(address, &[], &eligible, &loads).into_owned();
                let pair = (candidates[0].node.clone(), candidates[1].node.clone());
                *inherits.entry(pair).or_default() += 1;
                loads.set(address, Some(&Placement { epoch: 1, candidates }));
            }
            let mean = f64::from(addresses) / nodes as f64;
            for name in &names {
                assert!(
                    f64::from(firsts(&loads, name)) <= mean * 1.05,
                    "{nodes} nodes: {}",
                    firsts(&loads, name)
                );
                assert!(
                    f64::from(seconds(&loads, name)) <= mean * 1.05 + 1.0,
                    "{nodes}: {}",
                    seconds(&loads, name)
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
        assert_eq!((firsts(&loads, "a"), firsts(&loads, "b"), seconds(&loads, "b")), (0, 1, 0));
        loads.set(address, None);
        assert_eq!((loads.of("a"), loads.of("b")), (None, None));
    }
}
