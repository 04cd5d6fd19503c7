//! Plays the faults of an episode, each for its time, and mends them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;
use nix::sys::signal::Signal;

use super::{account::Played, menu::Fault};
use crate::{
    bench::World,
    lab::{Direction, LanClient, Node, landfall::SPEAKER},
};

/// A later fault of an episode begins at most so long after the first.
const APART: u64 = 1500;

/// Plays these faults, one after the other began while the others may still last; all are over when it returns.
pub(super) async fn episode(
    world: &World<'_>,
    chosen: &[(Fault, Duration)],
    rng: &mut Rng,
) -> Result<Vec<Played>> {
    let began = Instant::now();
    let mut steps: Vec<(Instant, usize, bool)> = Vec::new();
    for (number, (_, length)) in chosen.iter().enumerate() {
        let delay = if number == 0 { 0 } else { rng.u64(0..APART) };
        let from = began + Duration::from_millis(delay);
        steps.extend([(from, number, true), (from + *length, number, false)]);
    }
    steps.sort_by_key(|(at, ..)| *at);
    let mut times: Vec<(Instant, Instant)> = vec![(began, began); chosen.len()];
    for (at, number, begins) in steps {
        tokio::time::sleep_until(at.into()).await;
        let (fault, _) = chosen.get(number).context("a fault")?;
        let time = times.get_mut(number).context("a fault")?;
        if begins {
            time.0 = Instant::now();
            begin(world, fault)?;
        } else {
            end(world, fault).await?;
            time.1 = Instant::now();
        }
    }
    let played = chosen.iter().zip(times);
    Ok(played.map(|((fault, _), (from, until))| Played { fault: fault.clone(), from, until }).collect())
}

fn begin(world: &World<'_>, fault: &Fault) -> Result<()> {
    let (lab, switch) = (world.lab, world.lab.switch());
    match fault {
        Fault::Dark(node) => switch.port_down(node),
        Fault::Mute(node) => switch.lose(node, Direction::FromHost, 1.0),
        Fault::Deaf(node) => switch.lose(node, Direction::ToHost, 1.0),
        Fault::Loss(node, share) => switch.lose_both_ways(node, *share),
        Fault::Pause(node) => lab.node(node)?.signal_program(SPEAKER, Signal::SIGSTOP),
        Fault::Freeze(node) => {
            lab.node(node)?.freeze();
            Ok(())
        }
        Fault::Kill(node) => {
            let node = lab.node(node)?;
            // It may be dead already, by another fault of the episode.
            if node.runs(SPEAKER) { node.kill(SPEAKER) } else { Ok(()) }
        }
        Fault::WithoutApi(node) => switch.cut_from_api(node),
        Fault::ApiDown => {
            if lab.control_plane().api_server_runs() {
                lab.control_plane().kill_api_server()
            } else {
                Ok(())
            }
        }
        Fault::Cut(one, other) => switch.cut(one, other),
        Fault::Part(nodes) => {
            let inside: Vec<&str> = nodes.iter().map(String::as_str).collect();
            let clients = lab.lan_clients().iter().map(LanClient::name);
            let hosts = lab.nodes().iter().map(Node::name).chain(clients);
            let outside: Vec<&str> = hosts.filter(|host| !inside.contains(host)).collect();
            switch.part(&inside, &outside)?;
            switch.cut_from_gateway(&inside)
        }
        Fault::Blackout => switch.blackout(true),
        Fault::AllDark => switch.all_ports_down(),
    }
}

/// Mends a fault. Cuts are mended together: of two in an episode the first that ends takes the other with it.
async fn end(world: &World<'_>, fault: &Fault) -> Result<()> {
    let (lab, switch) = (world.lab, world.lab.switch());
    match fault {
        Fault::Dark(node) => switch.port_up(node),
        Fault::Mute(node) | Fault::Deaf(node) | Fault::Loss(node, _) => switch.lose_both_ways(node, 0.0),
        Fault::Pause(node) => lab.node(node)?.signal_program(SPEAKER, Signal::SIGCONT),
        Fault::Freeze(node) => {
            lab.node(node)?.thaw();
            Ok(())
        }
        Fault::Kill(node) => {
            let node = lab.node(node)?;
            if node.runs(SPEAKER) { Ok(()) } else { node.restart(SPEAKER) }
        }
        Fault::WithoutApi(node) => switch.heal_way_to_api(node),
        Fault::ApiDown => {
            if !lab.control_plane().api_server_runs() {
                lab.control_plane().start_api_server()?;
            }
            lab.api_server_answers().await
        }
        Fault::Cut(..) | Fault::Part(_) => switch.heal_cuts(),
        Fault::Blackout => switch.blackout(false),
        Fault::AllDark => switch.all_ports_up(),
    }
}
