//! The API server is away for long: nothing moves by itself, crashes are as short as ever, speakers restart, and
//! when it returns there is no storm of writes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Figure, World,
    failover::{MEDIAN, Pace, WORST, crash},
    owners::Owners,
};
use crate::lab::{landfall::SPEAKER, say, seconds};

/// How many crashes are measured while it is away.
const CRASHES: usize = 10;
/// How soon a restarted speaker announces what nobody else does, in milliseconds.
const RESTART: f64 = 3000.0;
/// For how long the return is watched.
const RETURN: Duration = seconds(60);

pub(super) async fn measure(world: &World<'_>, minutes: u32) -> Result<Vec<Figure>> {
    let lab = world.lab;
    let population = world.populate("offline", 30, 0).await?;
    let addresses: Vec<IpAddr> = world.announcers().await?.into_keys().collect();
    let owners = Owners::seen(world, &addresses).await?;
    let c1 = lab.lan_client("c1")?;
    let mut turns = addresses.iter().cycle().copied();
    world.answers("c1", addresses[0]).await?;
    lab.control_plane().kill_api_server()?;
    say(&format!("the API server is away, for {minutes} minutes"));
    let mut outages = Vec::new();
    let (mut moved, mut lost) = (0, 0);
    let pause = Duration::from_secs(u64::from(minutes) * 60) / u32::try_from(CRASHES)?;
    let mut before = owners;
    for turn in 0..CRASHES {
        // A long quiet time first: nothing may move in it.
        let address = turns.next().context("no address")?;
        let prober = c1.probe(SocketAddr::from((address, 80)));
        tokio::time::sleep(pause).await;
        let quiet = prober.finish()?;
        lost += quiet.lost();
        let now = Owners::seen(world, &addresses).await?;
        moved += now.differ(&before);
        let victim = now.node_of(world, address)?;
        let prober = c1.probe(SocketAddr::from((address, 80)));
        let moments = crash(world, &[victim.name()], Pace::FAST).await?;
        let report = prober.finish()?;
        let outage = report.outage(moments.dark, moments.back);
        say(&format!("crash {} of {} without an API server: {outage:?}", turn + 1, victim.name()));
        outages.push(outage);
        before = Owners::seen(world, &addresses).await?;
    }
    let restarts = restart(world, &addresses).await?;
    let (writes, peak, converged) = return_of_api(world).await?;
    population.remove().await?;
    Ok(vec![
        Figure::at_most(
            &format!("addresses that moved in {minutes} quiet minutes without an API server"),
            moved,
            0,
        ),
        Figure::at_most("datagrams lost in them", lost, 0),
        Figure::spread("outage of a crash without an API server", &outages)
            .median_goal(MEDIAN)
            .worst_goal(WORST),
        Figure::times(
            "the only speaker that restarts announces again, each address",
            &restarts,
            RESTART,
            None,
        )
        .worst_goal(RESTART),
        Figure::at_most("writes by Landfall in the minute after its return", writes, 400),
        Figure::at_most("the most of them in one second", peak, 100),
        Figure::times("its return to statuses that tell the truth", &[converged], 60_000.0, None),
    ])
}

/// All speakers are killed, and one starts again with what lies on its node: how long until it answers for each.
async fn restart(world: &World<'_>, addresses: &[IpAddr]) -> Result<Vec<Duration>> {
    let speakers = world.speakers();
    speakers.iter().try_for_each(|node| node.kill(SPEAKER))?;
    let (first, others) = speakers.split_first().context("no speaker")?;
    let call = world.lab.lan_client("c2")?.call_roll(addresses, Duration::from_millis(300));
    tokio::time::sleep(seconds(1)).await;
    let started = Instant::now();
    first.restart(SPEAKER)?;
    tokio::time::sleep(seconds(6)).await;
    let roster = call.finish()?;
    let mut times = Vec::new();
    for (address, seen) in roster.iter() {
        let first = seen.answers.iter().find(|sighting| sighting.at > started);
        let first = first.with_context(|| format!("{address} was not announced within 6 s"))?;
        times.push(first.at - started);
    }
    others.iter().try_for_each(|node| node.restart(SPEAKER))?;
    Ok(times)
}

/// The API server returns: how much is written, the most in a second, and when what is written is right.
async fn return_of_api(world: &World<'_>) -> Result<(u64, u64, Duration)> {
    let lab = world.lab;
    let mark = lab.control_plane().audit().mark()?;
    lab.control_plane().start_api_server()?;
    lab.api_server_answers().await?;
    let back = Instant::now();
    Owners::are_told(world, RETURN).await?;
    let converged = back.elapsed();
    tokio::time::sleep(RETURN.saturating_sub(back.elapsed())).await;
    let writes = lab.control_plane().audit().writes_since(mark)?;
    let ours =
        writes.iter().filter(|write| write.user.contains("landfall") && !write.resource.contains("leases"));
    let mut by_second: BTreeMap<&str, u64> = BTreeMap::new();
    for write in ours {
        *by_second.entry(write.at.split('.').next().unwrap_or_default()).or_default() += 1;
    }
    say(&format!("writes by second after the API server's return: {by_second:?}"));
    Ok((by_second.values().sum(), by_second.values().copied().max().unwrap_or_default(), converged))
}
