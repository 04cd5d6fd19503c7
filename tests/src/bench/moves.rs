//! Planned moves: what clients lose when a node is told to leave, drained, excluded, or relieved of an address.
//!
//! A client that knows the node sends datagrams in one flow. One that does not asks who has the address with every
//! packet, and opens TCP connections too; it has no kernel that would ask or send again. Both send 200 packets a
//! second to each address. A download over TCP runs beside them: whether it outlives the move is told, and no goal.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use landfall_crds::names::labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS;
use nix::sys::signal::Signal;

use super::{Figure, World, world::Family};
use crate::{
    lab::{Node, eventually, landfall::SPEAKER, say, seconds},
    pair::{Pair, Paired},
};

/// How long two nodes may answer in a move, in milliseconds.
const DOUBLE: f64 = 50.0;

/// Why an address moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The owner's speaker is told to end.
    Sigterm,
    /// The owner is cordoned, and a little later its speaker is told to end, as a drain that evicts it does.
    Drain,
    /// The owner is labelled as one that no load balancer may use.
    Label,
    /// The controller ranks another node first, for an even spread.
    Rerank,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Sigterm => "SIGTERM",
            Self::Drain => "drain",
            Self::Label => "label",
            Self::Rerank => "re-ranking",
        }
    }
}

/// What was lost in many moves of one kind.
#[derive(Debug, Default)]
struct Losses {
    /// How many addresses moved.
    moves: u32,
    /// Datagrams of clients that knew the node.
    warm: u64,
    /// Packets of clients that did not.
    cold: u64,
    /// How many packets were sent by both.
    sent: u64,
    /// How many downloads ran, and how many of them broke.
    downloads: u32,
    broken: u32,
    /// For how long two nodes answered.
    double: Vec<Duration>,
    /// The longest time without an answer, of either client.
    pauses: Vec<Duration>,
}

pub(super) async fn measure(world: &World<'_>, moves: u32) -> Result<Vec<Figure>> {
    // Re-ranking is asked for often and soon.
    world.stop_controller()?;
    let soon = [("LANDFALL_REBALANCE_INTERVAL", "2s"), ("LANDFALL_REBALANCE_SETTLE", "3s")];
    world.start_controller(&soon).await?;
    let population = world.populate("moves", 4, 2).await?;
    let mut figures = Vec::new();
    for kind in [Kind::Sigterm, Kind::Drain, Kind::Label, Kind::Rerank] {
        let mut losses = Losses::default();
        let mut turn = 0;
        while losses.moves < moves {
            turn += 1;
            ensure!(
                turn <= 3 * moves,
                "after {turn} turns only {} addresses had moved by {}",
                losses.moves,
                kind.name()
            );
            match kind {
                Kind::Rerank => losses.one_relief(world).await?,
                Kind::Sigterm | Kind::Drain | Kind::Label => losses.one(world, kind).await?,
            }
        }
        figures.extend(losses.figures(kind));
    }
    population.remove().await?;
    world.stop_controller()?;
    world.start_controller(&[]).await?;
    Ok(figures)
}

/// Both clients for each of these addresses, once it answers.
async fn pairs(world: &World<'_>, addresses: &[IpAddr]) -> Result<Vec<Pair>> {
    for address in addresses {
        world.answers("c1", *address).await?;
    }
    addresses.iter().map(|address| Pair::begin(world.lab, *address)).collect()
}

impl Losses {
    /// The node with the most addresses leaves, in one of the ways, and returns.
    async fn one(&mut self, world: &World<'_>, kind: Kind) -> Result<()> {
        let (lab, by_owner) = (world.lab, world.by_owner().await?);
        let most = by_owner.iter().max_by_key(|(_, addresses)| addresses.len());
        let (owner, addresses) = most.context("nothing is announced")?;
        // One of each family where there is one: more clients at once would measure the machine.
        let of = |family| addresses.iter().find(|address| Family::of(**address) == family).copied();
        let probed: Vec<IpAddr> = [of(Family::V4), of(Family::V6)].into_iter().flatten().collect();
        let node = lab.node(owner)?;
        let clients = pairs(world, &probed).await?;
        let first = *probed.first().context("nothing is announced")?;
        let download = lab.lan_client("c1")?.download((first, 80).into());
        tokio::time::sleep(Duration::from_millis(500)).await;
        leave(world, node, kind)?;
        has_none(world, owner).await?;
        // The old node forwards for 2.5 s after the move; what comes after that is lost if anybody still sends there.
        tokio::time::sleep(seconds(3)).await;
        let finished = clients.into_iter().map(Pair::finish).collect::<Result<Vec<_>>>()?;
        self.take(kind, owner, &finished);
        self.downloads += 1;
        self.broken += u32::from(download.finish()?.broken.is_some());
        enter(world, node, kind).await
    }

    /// An excluded node comes back, and the controller gives it addresses that others announce.
    async fn one_relief(&mut self, world: &World<'_>) -> Result<()> {
        let (lab, by_owner) = (world.lab, world.by_owner().await?);
        let most = by_owner.iter().max_by_key(|(_, addresses)| addresses.len());
        let owner = most.context("nothing is announced")?.0.clone();
        lab.kubectl(&["label", "node", &owner, &format!("{EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS}=true")])?;
        has_none(world, &owner).await?;
        tokio::time::sleep(seconds(3)).await;
        let before = world.announcers().await?;
        let addresses: Vec<IpAddr> = before.keys().copied().collect();
        let clients = pairs(world, &addresses).await?;
        lab.kubectl(&["label", "node", &owner, &format!("{EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS}-")])?;
        eventually(seconds(60), &format!("{owner} is given two addresses"), async || {
            let given = world.by_owner().await?.get(&owner).map_or(0, Vec::len);
            ensure!(given >= 2, "{given}");
            Ok(())
        })
        .await?;
        tokio::time::sleep(seconds(3)).await;
        let after = world.announcers().await?;
        let finished = clients.into_iter().map(Pair::finish).collect::<Result<Vec<_>>>()?;
        let moved: Vec<_> = finished
            .into_iter()
            .filter(|pair| before.get(&pair.address) != after.get(&pair.address))
            .collect();
        self.take(Kind::Rerank, &owner, &moved);
        Ok(())
    }

    fn take(&mut self, kind: Kind, owner: &str, finished: &[Paired]) {
        for pair in finished {
            self.moves += 1;
            self.warm += pair.warm.lost();
            self.cold += pair.cold.packets.lost();
            self.sent += pair.sent();
            self.double.push(pair.split());
            self.pauses.push(pair.longest_gap());
            if pair.lost() > 0 {
                say(&format!("{} of {owner}: LOST: {pair}", kind.name()));
            }
        }
    }

    fn figures(&self, kind: Kind) -> Vec<Figure> {
        let name = kind.name();
        let mut figures = vec![
            Figure::at_most(
                &format!("{name}: datagrams lost by who knew the node, {} moves", self.moves),
                self.warm,
                0,
            ),
            Figure::at_most(
                &format!("{name}: packets lost by who did not, of {} in all", self.sent),
                self.cold,
                0,
            ),
            Figure::spread(&format!("{name}: two nodes answer"), &self.double).worst_goal(DOUBLE),
            Figure::times(&format!("{name}: longest time without an answer"), &self.pauses, 50.0, None),
        ];
        if self.downloads > 0 {
            let downloads = format!("{name}: downloads that broke, of {}", self.downloads);
            figures.push(Figure::of(&downloads, &[f64::from(self.broken)], "", None));
        }
        figures
    }
}

/// Has a node leave.
fn leave(world: &World<'_>, node: &Node, kind: Kind) -> Result<()> {
    let lab = world.lab;
    match kind {
        Kind::Sigterm => node.signal_program(SPEAKER, Signal::SIGTERM),
        Kind::Drain => {
            lab.kubectl(&["cordon", node.name()])?;
            std::thread::sleep(Duration::from_millis(300));
            node.signal_program(SPEAKER, Signal::SIGTERM)
        }
        Kind::Label => {
            let label = format!("{EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS}=true");
            lab.kubectl(&["label", "node", node.name(), &label]).map(|_| ())
        }
        Kind::Rerank => bail!("nobody leaves when the controller ranks anew"),
    }
}

/// Lets it come back.
async fn enter(world: &World<'_>, node: &Node, kind: Kind) -> Result<()> {
    let lab = world.lab;
    match kind {
        Kind::Sigterm | Kind::Drain => {
            node.wait_end(SPEAKER, seconds(15))?;
            node.restart(SPEAKER)?;
            if kind == Kind::Drain {
                lab.kubectl(&["uncordon", node.name()])?;
            }
        }
        Kind::Label | Kind::Rerank => {
            lab.kubectl(&[
                "label",
                "node",
                node.name(),
                &format!("{EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS}-"),
            ])?;
        }
    }
    eventually(seconds(20), &format!("the speaker of {} is ready", node.name()), async || {
        let url = format!("http://{}:7932/readyz", node.addresses().v4);
        node.namespace().run("curl", &["-sS", "--fail", "--max-time", "1", &url]).map(|_| ())
    })
    .await
}

/// Waits until a node announces nothing, as far as the API knows, and all is announced.
async fn has_none(world: &World<'_>, owner: &str) -> Result<()> {
    eventually(seconds(20), &format!("{owner} announces nothing"), async || {
        let announcers = world.announcers().await?;
        ensure!(
            announcers.values().all(|node| node.as_deref().is_some_and(|node| node != owner)),
            "{announcers:?}"
        );
        Ok(())
    })
    .await
}
