//! Controllers die, sleep and double, and no address is granted twice, lost or left behind (I4, I5).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use landfall_crds::names::{conditions::GRANTED, finalizers};
use landfall_tests::{
    backend::Service,
    lab::{
        Lab, eventually,
        landfall::{ByHand, CONTROLLER, SPEAKER},
        seconds,
    },
    services::{addresses, announcer, condition, granted, pool, services, virtual_ips},
    story::Story,
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::stop;

/// Leases short enough that a test need not wait long for a successor.
const QUICK_LEASE: [(&str, &str); 3] = [
    ("LANDFALL_LEADER_ELECT_LEASE_DURATION", "2s"),
    ("LANDFALL_LEADER_ELECT_RENEW_DEADLINE", "1500ms"),
    ("LANDFALL_LEADER_ELECT_RETRY_PERIOD", "300ms"),
];

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::within(
            seconds(400),
            "crashes: a leader killed between any two writes of a grant and a release",
            killed_between_any_two_writes,
        ),
        Story::new("crashes: two controllers without an election grant each Service once (I4)", two_leaders),
        Story::new("crashes: a leader that sleeps for 30 s and wakes disturbs nothing", sleeping_leader),
        Story::new("crashes: with the API server away at start, both wait and carry on", api_away_at_start),
    ]
}

/// Landfall's accounts and rights, a pool, and a speaker on each node.
async fn prepared(lab: &Lab) -> Result<ByHand> {
    // A story that failed may have left some.
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    let by_hand = ByHand::prepare(lab)?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.128-192.168.10.250", "fd10::1:0/112"]})).await?;
    Ok(by_hand)
}

pub(crate) async fn start_speakers(lab: &Lab, by_hand: &ByHand) -> Result<()> {
    for node in lab.nodes() {
        by_hand.start_speaker(lab, node, &[]).await?;
    }
    Ok(())
}

/// Creates so many dual-stack Services at once.
async fn create(lab: &Lab, names: &[String]) -> Result<()> {
    stream::iter(names)
        .map(|name| async move { Service::new(name, "nobody").load_balancer().apply(lab).await.map(|_| ()) })
        .buffer_unordered(8)
        .try_collect()
        .await
}

/// Deletes all of them and waits until every trace of them is gone.
async fn gone(lab: &Lab, names: &[String]) -> Result<()> {
    for name in names {
        services(lab).delete(name, &DeleteParams::default()).await?;
    }
    eventually(seconds(40), "Services and VirtualIPs are gone", async || {
        let left = services(lab).list(&ListParams::default()).await?.items;
        let left: Vec<_> = left
            .into_iter()
            .filter_map(|service| service.metadata.name)
            .filter(|name| names.contains(name))
            .collect();
        let vips = virtual_ips(lab).list(&ListParams::default()).await?.items;
        let vips: Vec<_> = vips.into_iter().map(|vip| (vip.metadata.name, vip.spec.claims)).collect();
        ensure!(left.is_empty() && vips.is_empty(), "Services {left:?}, VirtualIPs {vips:?}");
        Ok(())
    })
    .await
}

/// Whether each Service has one address per family, of its own, with a VirtualIP that says so.
async fn each_has_its_own(lab: &Lab, names: &[String]) -> Result<()> {
    let mut holders: BTreeMap<IpAddr, String> = BTreeMap::new();
    for name in names {
        let service = services(lab).get(name).await?;
        let own = addresses(&service);
        ensure!(own.len() == 2 && own[0].is_ipv4() && own[1].is_ipv6(), "{name} has {own:?}");
        for address in own {
            let other = holders.insert(address, name.clone());
            ensure!(other.is_none(), "{address} was granted to {name} and {other:?}");
        }
    }
    let vips = virtual_ips(lab).list(&ListParams::default()).await?.items;
    let told: BTreeSet<(IpAddr, String)> = vips
        .iter()
        .flat_map(|vip| {
            vip.spec.claims.iter().map(|claim| Ok((vip.spec.address.parse()?, claim.name.clone())))
        })
        .collect::<Result<_>>()?;
    let held: BTreeSet<(IpAddr, String)> = holders.into_iter().collect();
    ensure!(told == held, "VirtualIPs say {told:?}, Services {held:?}");
    Ok(())
}

async fn killed_between_any_two_writes(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab).await?;
    start_speakers(lab, &by_hand).await?;
    for point in [
        "before:AddFinalizers",
        "after:AddFinalizers",
        "before:CreateVirtualIp",
        "after:CreateVirtualIp",
        "before:SetIngress",
        "after:SetIngress",
    ] {
        killed_while_granting(lab, &by_hand, point).await.with_context(|| point.to_owned())?;
        eprintln!("crashes: granting, {point}: survived");
    }
    for point in [
        "before:SetVirtualIpStatus",
        "before:UpdateVirtualIp",
        "after:UpdateVirtualIp",
        "before:SetConditions",
        "before:RemoveFinalizers",
        "after:RemoveFinalizers",
        "before:DeleteVirtualIp",
        "between:DeleteVirtualIp",
        "after:DeleteVirtualIp",
    ] {
        killed_while_releasing(lab, &by_hand, point).await.with_context(|| point.to_owned())?;
        eprintln!("crashes: releasing, {point}: survived");
    }
    stop(lab, SPEAKER);
    Ok(())
}

/// Starts a leader on n1 that will be killed at `point`, and its successor on n2.
pub(crate) async fn doomed_leader(lab: &Lab, by_hand: &ByHand, point: &str) -> Result<()> {
    let mut environment = QUICK_LEASE.to_vec();
    environment.push(("LANDFALL_FAULT_POINT", point));
    by_hand.start_controller(lab, lab.node("n1")?, &environment).await?;
    eventually(seconds(30), "the one to be killed leads", async || leader(lab, "n1").await).await?;
    by_hand.start_controller(lab, lab.node("n2")?, &QUICK_LEASE).await
}

async fn killed_while_granting(lab: &Lab, by_hand: &ByHand, point: &str) -> Result<()> {
    doomed_leader(lab, by_hand, point).await?;
    let names = ["crash-a".to_owned(), "crash-b".to_owned()];
    create(lab, &names).await?;
    lab.node("n1")?.wait_end(CONTROLLER, seconds(20)).context("nobody was killed")?;
    for name in &names {
        granted(lab, name, 2).await.context("after the other took over")?;
    }
    eventually(seconds(20), "each Service has its own, and no VirtualIP is left over", async || {
        each_has_its_own(lab, &names).await
    })
    .await?;
    gone(lab, &names).await?;
    stop(lab, CONTROLLER);
    Ok(())
}

/// One Service is deleted, another changes its type, a third stays.
async fn killed_while_releasing(lab: &Lab, by_hand: &ByHand, point: &str) -> Result<()> {
    let names = ["deleted", "retyped", "stays"].map(str::to_owned);
    by_hand.start_controller(lab, lab.node("n2")?, &QUICK_LEASE).await?;
    create(lab, &names).await?;
    eventually(seconds(30), "all are granted", async || each_has_its_own(lab, &names).await).await?;
    for address in addresses(&services(lab).get("retyped").await?) {
        announcer(lab, address).await?;
    }
    stop(lab, CONTROLLER);

    doomed_leader(lab, by_hand, point).await?;
    services(lab).delete("deleted", &DeleteParams::default()).await?;
    let retyped = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    services(lab).patch("retyped", &PatchParams::default(), &retyped).await?;
    lab.node("n1")?.wait_end(CONTROLLER, seconds(30)).context("nobody was killed")?;
    eventually(seconds(30), "the other finished the release", async || {
        ensure!(services(lab).get_opt("deleted").await?.is_none(), "the deleted one is still there");
        let service = services(lab).get("retyped").await?;
        ensure!(condition(&service, GRANTED).is_none(), "our condition is still on it");
        ensure!(service.metadata.finalizers.unwrap_or_default().is_empty(), "our finalizers are still on it");
        each_has_its_own(lab, &names[2..]).await
    })
    .await?;
    gone(lab, &names[1..]).await?;
    stop(lab, CONTROLLER);
    Ok(())
}

/// Whether the controller that was started on this node holds the Lease.
pub(crate) async fn leader(lab: &Lab, node: &str) -> Result<()> {
    let holder = lab.kubectl(&[
        "-n",
        landfall_tests::lab::landfall::NAMESPACE,
        "get",
        "lease",
        CONTROLLER,
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ])?;
    ensure!(holder.contains(&format!("{CONTROLLER}-{node}")), "{holder:?} leads");
    Ok(())
}

async fn two_leaders(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab).await?;
    start_speakers(lab, &by_hand).await?;
    for node in ["n1", "n2"] {
        by_hand.start_controller(lab, lab.node(node)?, &[("LANDFALL_LEADER_ELECT", "false")]).await?;
    }
    let names: Vec<String> = (0..40).map(|number| format!("both-{number}")).collect();
    create(lab, &names).await?;
    eventually(seconds(40), "each Service has its own addresses", async || {
        each_has_its_own(lab, &names).await
    })
    .await?;
    // Quiet: what they agreed on stays.
    tokio::time::sleep(seconds(3)).await;
    each_has_its_own(lab, &names).await?;
    gone(lab, &names).await?;
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    Ok(())
}

async fn sleeping_leader(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab).await?;
    start_speakers(lab, &by_hand).await?;
    let (first, second) = (lab.node("n1")?, lab.node("n2")?);
    by_hand.start_controller(lab, first, &[]).await?;
    // The Lease of one that was killed has to expire.
    eventually(seconds(30), "the first leads", async || leader(lab, "n1").await).await?;
    by_hand.start_controller(lab, second, &[]).await?;
    let before: Vec<String> = (0..10).map(|number| format!("before-{number}")).collect();
    create(lab, &before).await?;
    eventually(seconds(20), "each has its own", async || each_has_its_own(lab, &before).await).await?;
    // It sleeps with work in its hands.
    let during: Vec<String> = (0..20).map(|number| format!("during-{number}")).collect();
    let creating = create(lab, &during);
    let sleeping = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        first.signal_program(CONTROLLER, Signal::SIGSTOP)
    };
    let (created, stopped) = tokio::join!(creating, sleeping);
    created.and(stopped)?;
    tokio::time::sleep(seconds(30)).await;
    eventually(seconds(5), "the second leads", async || leader(lab, "n2").await).await?;
    let all: Vec<String> = before.iter().chain(&during).cloned().collect();
    eventually(seconds(20), "the second finished the work", async || each_has_its_own(lab, &all).await)
        .await?;
    let held = lab.kubectl(&["get", "virtualips", "-o", "name"])?;
    first.signal_program(CONTROLLER, Signal::SIGCONT)?;
    tokio::time::sleep(seconds(3)).await;
    leader(lab, "n2").await?;
    each_has_its_own(lab, &all).await?;
    ensure!(lab.kubectl(&["get", "virtualips", "-o", "name"])? == held, "waking moved addresses");
    gone(lab, &all).await?;
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    Ok(())
}

async fn api_away_at_start(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab).await?;
    // Their credentials have to be had while it is there.
    start_speakers(lab, &by_hand).await?;
    by_hand.start_controller(lab, lab.node("n1")?, &QUICK_LEASE).await?;
    eventually(seconds(30), "it leads", async || leader(lab, "n1").await).await?;
    Service::new("waits", "nobody").load_balancer().apply(lab).await?;
    let address = granted(lab, "waits", 2).await?[0];
    // What a speaker has announced it also finds in its state after a restart.
    announcer(lab, address).await?;
    tokio::time::sleep(seconds(2)).await;
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    lab.control_plane().kill_api_server()?;
    for node in lab.nodes() {
        node.restart(SPEAKER)?;
    }
    lab.node("n1")?.restart(CONTROLLER)?;
    // The speakers know from their state what to announce.
    eventually(seconds(15), "the address is answered without the API server", async || {
        let macs = lab.lan_client("c1")?.who_has(address, Duration::from_millis(200))?;
        ensure!(macs.len() == 1, "{macs:?}");
        Ok(())
    })
    .await?;
    lab.control_plane().start_api_server()?;
    lab.api_server_answers().await?;
    Service::new("later", "nobody").load_balancer().apply(lab).await?;
    granted(lab, "later", 2).await?;
    let names = ["waits".to_owned(), "later".to_owned()];
    each_has_its_own(lab, &names).await?;
    let has = services(lab).get("waits").await?.metadata.finalizers.unwrap_or_default();
    ensure!(has.iter().any(|name| name == finalizers::SERVICE_ADDRESS), "{has:?}");
    gone(lab, &names).await?;
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    Ok(())
}
