//! Random faults with clients on: whatever happens, an address is answered by one node, save for bounded times.
//!
//! Faults come in episodes of one to three at a time. A client that nothing is done to calls the roll of all
//! addresses by ARP and neighbour discovery, 25 times a second each, and what it hears is held against what the
//! faults of the episode excuse (`menu.rs`, `account.rs`). After each episode every address must be answered by
//! exactly one node again. A seed decides everything; it is printed.

mod account;
mod menu;
mod play;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fastrand::Rng;

use self::{
    account::{Account, Played},
    menu::Fault,
};
use super::{Figure, World, owners::Owners};
use crate::lab::{eventually, say, seconds};

/// How often each address is asked for.
const ROLL: Duration = Duration::from_millis(40);
/// How soon after an episode each address must be answered by one node.
const HEALED: Duration = seconds(10);
/// How soon after the last one every VirtualIP must name who answers.
const CONVERGED: Duration = seconds(60);
const ADDRESSES: usize = 20;
const ADDRESSES_V6: usize = 5;

/// The worst that was seen in the episodes of one fault alone.
#[derive(Clone, Copy, Debug, Default)]
struct Worst {
    episodes: u32,
    silence: Duration,
    split: Duration,
}

pub(super) async fn measure(world: &World<'_>, faults: u32, seed: Option<u64>) -> Result<Vec<Figure>> {
    let seed = seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    println!("chaos: seed {seed}, {faults} faults");
    let mut rng = Rng::with_seed(seed);
    let population = world.populate("chaos", ADDRESSES, ADDRESSES_V6).await?;
    let addresses: Vec<IpAddr> = world.announcers().await?.into_keys().collect();
    let nodes: Vec<String> = world.speakers().iter().map(|node| node.name().to_owned()).collect();
    let first = *addresses.first().context("no address")?;
    world.answers("c1", first).await?;
    Owners::seen(world, &addresses).await?;
    let (mut played, mut episode, mut unhealed, mut violations) = (0, 0_u32, 0, 0);
    let mut worst: BTreeMap<&'static str, Worst> = BTreeMap::new();
    let (mut lost, mut sent) = (0, 0);
    while played < faults {
        episode += 1;
        let count = [1, 1, 1, 2, 2, 3].get(rng.usize(0..6)).copied().unwrap_or(1).min(faults - played);
        let chosen: Vec<(Fault, Duration)> = (0..count).map(|_| Fault::by_chance(&mut rng, &nodes)).collect();
        played += count;
        let prober = world.lab.lan_client("c1")?.probe(SocketAddr::from((first, 80)));
        let roll = world.lab.lan_client("c2")?.call_roll(&addresses, ROLL);
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let history = play::episode(world, &chosen, &mut rng).await?;
        let healed = healed(world, &addresses).await;
        let report = prober.finish()?;
        lost += report.lost();
        sent += report.sent;
        let account = Account::of(&roll.finish()?, &history);
        if let Err(error) = &healed {
            unhealed += 1;
            println!("episode {episode}: NOT HEALED: {error:#}");
            tell(began, &history);
        }
        if let [(fault, _)] = chosen.as_slice() {
            let of_kind = worst.entry(fault.name()).or_default();
            of_kind.episodes += 1;
            of_kind.silence = of_kind.silence.max(account.silence);
            of_kind.split = of_kind.split.max(account.split);
        }
        if !account.violations.is_empty() {
            violations += account.violations.len();
            println!("episode {episode} (seed {seed}):");
            tell(began, &history);
            for violation in account.violations.iter().take(5) {
                println!(
                    "  {}: {} from {:?} for {:?}, allowed {:?}",
                    violation.invariant,
                    violation.address,
                    violation.from.saturating_duration_since(began),
                    violation.length,
                    violation.allowed
                );
            }
        }
        say(&format!(
            "{played} faults: {:?}; silence {:?}, double {:?}, client {} of {} lost",
            chosen.iter().map(|(fault, _)| fault.name()).collect::<Vec<_>>(),
            account.silence,
            account.split,
            report.lost(),
            report.sent
        ));
    }
    let converged = Owners::are_told(world, CONVERGED).await;
    if let Err(error) = &converged {
        println!("statuses do not tell the truth: {error:#}");
    }
    for (name, Worst { episodes, silence, split }) in &worst {
        println!(
            "  {name:<28} alone {episodes:>3} times: unanswered for {silence:?} at most, by two for {split:?}"
        );
    }
    println!("  the client lost {lost} of {sent} datagrams");
    population.remove().await?;
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Ok(vec![
        Figure::at_most(&format!("I1, I2 violated, {played} faults of seed {seed}"), number(violations), 0),
        Figure::at_most("episodes after which something was not well again", unhealed, 0),
        Figure::at_most("statuses that were wrong a minute later", u64::from(converged.is_err()), 0),
    ])
}

/// Waits until each address is answered by one node.
async fn healed(world: &World<'_>, addresses: &[IpAddr]) -> Result<()> {
    eventually(HEALED, "one node answers for each address", async || Owners::seen(world, addresses).await)
        .await
        .map(|_| ())
}

/// Prints what was played, with times.
fn tell(began: Instant, history: &[Played]) {
    for Played { fault, from, until } in history {
        let [from, until] = [from, until].map(|at| at.saturating_duration_since(began));
        println!("  {from:>8.3?} to {until:.3?}: {fault:?}");
    }
}
