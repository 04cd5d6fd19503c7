//! A storm of ARP requests at one owner. How fast it answers one client among them is measured on the wire: from the
//! request on the client's port to the answer on the owner's.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Figure, World, starved::Counts};
use crate::lab::{
    Node,
    probe::{Said, Seen, Storm},
    say, seconds,
};

const ADDRESSES: usize = 1000;
/// Requests a second.
const STORM: u32 = 50_000;
/// Those among them that are measured.
const MEASURED: u32 = 500;
const LENGTH: Duration = seconds(20);
/// What 99 of 100 answers must not exceed, in milliseconds.
const GOAL: f64 = 1.0;

pub(super) async fn measure(world: &World<'_>) -> Result<Vec<Figure>> {
    world.add_large_pool().await?;
    let population = world.populate("storm", ADDRESSES, 0).await?;
    let by_owner = world.by_owner().await?;
    let (owner, addresses) =
        by_owner.iter().max_by_key(|(_, all)| all.len()).context("nothing is announced")?;
    let owner = world.lab.node(owner)?;
    let v4 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let v4: Vec<Ipv4Addr> = v4.collect();
    let floor = answers(world, owner, &v4, None).await?;
    let counts = Counts::told(world).await?;
    let stormy = answers(world, owner, &v4, Some(STORM)).await?;
    let counted = Counts::told(world).await?.since(&counts);
    population.remove().await?;
    world.remove_large_pool().await?;
    let figure = |name: &str, measured: &Measured| {
        let mut sorted = measured.times.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            // An index into some ten thousand values.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let index = (sorted.len() as f64 * share) as usize;
            sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        say(&format!(
            "{name}: {} answers, median {:.3} ms, 99 % {:.3}, 99.9 % {:.3}, worst {:.3}; {} without",
            sorted.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            measured.unanswered
        ));
        at(0.99)
    };
    let at_rest = figure("at rest", &floor);
    let in_storm = figure("in the storm", &stormy);
    Ok(vec![
        Figure::of("99 % of answers to ARP at rest (the floor)", &[at_rest], "ms", None),
        Figure::of(
            &format!("99 % of answers at {:.0} requests/s", stormy.rate),
            &[in_storm],
            "ms",
            Some(GOAL),
        ),
        Figure::at_most("requests of the measured client without an answer", stormy.unanswered, 0),
        Figure::of(
            "heartbeats that peers missed (questions to its kernel)",
            &[counted.probes()],
            "",
            Some(0.0),
        ),
        Figure::of("moves", &[counted.takeovers()], "", Some(0.0)),
    ])
}

/// How fast requests were answered.
struct Measured {
    /// Of each answer, in milliseconds.
    times: Vec<f64>,
    unanswered: u64,
    /// Of the whole storm, requests a second.
    rate: f64,
}

async fn answers(
    world: &World<'_>,
    owner: &Node,
    addresses: &[Ipv4Addr],
    storm: Option<u32>,
) -> Result<Measured> {
    let (crowd, one) = (world.lab.lan_client("c1")?, world.lab.lan_client("c2")?);
    let storm = storm.map(|rate| crowd.storm(owner.mac(), addresses.to_vec(), rate));
    tokio::time::sleep(seconds(1)).await;
    let capture = world.lab.switch().capture_of(Some(one.addresses().v4))?;
    let measured = one.storm(owner.mac(), addresses.to_vec(), MEASURED);
    tokio::time::sleep(LENGTH).await;
    let report = measured.finish()?;
    tokio::time::sleep(seconds(1)).await;
    let seen = capture.finish()?;
    let rate = storm.map(Storm::finish).transpose()?.map_or(0.0, |report| report.rate());
    let (times, unanswered) = times(&seen, one.name(), owner.name());
    Ok(Measured { times, unanswered, rate: rate + report.rate() })
}

/// From each request on the client's port to the next answer on the owner's, in milliseconds; and how many had none.
fn times(seen: &[Seen], client: &str, owner: &str) -> (Vec<f64>, u64) {
    let mut asked: BTreeMap<IpAddr, Instant> = BTreeMap::new();
    let (mut times, mut unanswered) = (Vec::new(), 0);
    for seen in seen {
        match seen.said {
            Said::Asks { wanted, .. } if seen.host == client => {
                unanswered += u64::from(asked.insert(wanted, seen.at).is_some());
            }
            Said::Tells { address, .. } if seen.host == owner => {
                times.extend(asked.remove(&address).map(|at| (seen.at - at).as_secs_f64() * 1000.0));
            }
            _ => {}
        }
    }
    (times, unanswered + u64::try_from(asked.len()).unwrap_or_default())
}
