//! An API server that is slow, refuses, forgets or lies about the past leads to no second grant and no flap
//! (I4, I5).

mod observer;
mod users;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use landfall_tests::{
    backend::Service,
    lab::{
        Lab, Write,
        api_proxy::{ApiProxy, Fault, Rule, Verb},
        eventually,
        landfall::{self, ByHand, CONTROLLER, NAMESPACE, SPEAKER},
        seconds, steadily,
    },
    services::{addresses, delete_pool, pool, services, virtual_ips},
    story::Story,
};
use serde_json::{Value, json};

use self::{observer::Observer, users::Users};
use crate::{
    crashes::{leader, start_speakers},
    steady::metric,
    stop,
};

/// Nothing is moved to spread addresses evenly, so that every move is a fault.
const STILL: (&str, &str) = ("LANDFALL_REBALANCE_INTERVAL", "0s");

/// A Lease that one need not wait for long, and that a busy machine does not lose.
const SHORT_LEASE: [(&str, &str); 4] = [
    STILL,
    ("LANDFALL_LEADER_ELECT_LEASE_DURATION", "5s"),
    ("LANDFALL_LEADER_ELECT_RENEW_DEADLINE", "4s"),
    ("LANDFALL_LEADER_ELECT_RETRY_PERIOD", "500ms"),
];

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new("faults: the observer sees a second grant and a flap", the_observer_sees),
        Story::within(
            seconds(240),
            "faults: an API server that delays, refuses, loses and forgets causes no second grant and no flap (I4, I5)",
            everything_at_once,
        ),
        Story::new("faults: a leader in a black hole is replaced, and disturbs nothing later", black_hole),
        Story::within(
            seconds(240),
            "faults: a second controller whose watches lag by 5 s, without an election, grants nothing twice (I4, I5)",
            lagging_without_election,
        ),
        Story::new("faults: a controller that starts with everything granted writes nothing", restart),
    ]
}

/// Landfall's accounts and rights, and these pools.
async fn prepared(lab: &Lab, pools: &[(&str, Value)]) -> Result<ByHand> {
    // A story that failed may have left some.
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    let by_hand = ByHand::prepare(lab)?;
    clear(lab).await?;
    for (name, spec) in pools {
        pool(lab, name, spec).await?;
    }
    Ok(by_hand)
}

/// Takes away what a story that failed has left.
async fn clear(lab: &Lab) -> Result<()> {
    let (parameters, patch) =
        (PatchParams::default(), Patch::Merge(json!({"metadata": {"finalizers": null}})));
    let now = DeleteParams::default();
    for service in services(lab).list(&ListParams::default()).await? {
        let name = service.name_any();
        if service.spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer")) {
            services(lab).patch(&name, &parameters, &patch).await?;
            services(lab).delete(&name, &now).await?;
        }
    }
    for vip in virtual_ips(lab).list(&ListParams::default()).await? {
        virtual_ips(lab).patch(&vip.name_any(), &parameters, &patch).await?;
        virtual_ips(lab).delete(&vip.name_any(), &now).await?;
    }
    Ok(())
}

async fn start_behind(
    lab: &Lab,
    by_hand: &ByHand,
    node: &str,
    proxy: &ApiProxy,
    environment: &[(&str, &str)],
) -> Result<()> {
    let kubeconfig = proxy.kubeconfig(lab, CONTROLLER, node).await?;
    let kubeconfig = kubeconfig.to_string_lossy();
    let mut all = environment.to_vec();
    all.push(("KUBECONFIG", &kubeconfig));
    by_hand.start_controller(lab, lab.node(node)?, &all).await
}

async fn leads(lab: &Lab, node: &str) -> Result<()> {
    eventually(seconds(30), "it leads", async || leader(lab, node).await).await
}

/// What the controllers wrote since then, save Leases.
fn written(lab: &Lab, since: landfall_tests::lab::Mark) -> Result<Vec<Write>> {
    let account = format!("system:serviceaccount:{NAMESPACE}:{CONTROLLER}");
    let mut writes = lab.control_plane().audit().writes_since(since)?;
    writes.retain(|write| write.user == account && write.resource != "leases");
    Ok(writes)
}

fn in_lines(writes: &[Write]) -> String {
    writes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Waits until the controllers have written nothing for 3 s.
async fn is_quiet(lab: &Lab) -> Result<()> {
    eventually(seconds(30), "the controllers are done", async || {
        let mark = lab.control_plane().audit().mark()?;
        tokio::time::sleep(seconds(3)).await;
        let writes = written(lab, mark)?;
        ensure!(writes.is_empty(), "written: {}", in_lines(&writes));
        Ok(())
    })
    .await
}

/// Fails where a kind of fault was not played often enough for the story to have a meaning.
fn were_played(proxy: &ApiProxy, faults: impl IntoIterator<Item = Fault>, at_least: u64) -> Result<()> {
    for (name, count) in proxy.counts() {
        eprintln!("faults: {count:6}  {name}");
    }
    for fault in faults {
        let count = proxy.count(&fault.name());
        ensure!(count >= at_least, "{} only {count} times", fault.name());
    }
    Ok(())
}

async fn the_observer_sees(lab: &Lab) -> Result<()> {
    landfall::apply_crds(lab)?;
    let observer = Observer::start(lab).await?;
    for name in ["seen-a", "seen-b"] {
        Service::new(name, "nobody")
            .load_balancer()
            .spec("loadBalancerClass", json!("example.com/by-hand"))
            .apply(lab)
            .await?;
    }
    let say = async |name: &str, address: &str| {
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}});
        services(lab).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await
    };
    say("seen-a", "192.168.10.201").await?;
    say("seen-b", "192.168.10.202").await?;
    ensure!(observer.wrong().is_empty(), "{:?}", observer.wrong());
    say("seen-b", "192.168.10.201").await?;
    for sort in ["I4: 192.168.10.201", "I5: seen-b lost 192.168.10.202"] {
        eventually(seconds(5), sort, async || {
            ensure!(observer.wrong().iter().any(|wrong| wrong.starts_with(sort)), "{:?}", observer.wrong());
            Ok(())
        })
        .await?;
    }
    for name in ["seen-a", "seen-b"] {
        services(lab).delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// Every fault there is. Of a hundred writes, some thirty meet one.
fn everything() -> Vec<(Fault, Rule)> {
    let milliseconds = Duration::from_millis;
    let writes = |fault, share| (fault, Rule::new(fault, share).to(&Verb::WRITES));
    let any = |fault, share| (fault, Rule::new(fault, share));
    let lists = |fault, share| (fault, Rule::new(fault, share).to(&[Verb::List, Verb::Watch]));
    vec![
        writes(Fault::LoseAnswer(500), 0.04),
        writes(Fault::LoseAnswer(504), 0.03),
        writes(Fault::CutAnswer, 0.04),
        writes(Fault::Refuse(409), 0.04),
        any(Fault::Refuse(429), 0.03),
        any(Fault::Refuse(500), 0.03),
        any(Fault::Refuse(503), 0.03),
        any(Fault::Refuse(504), 0.03),
        lists(Fault::Refuse(410), 0.30),
        // Some come later than the controller waits for them.
        any(Fault::Delay(milliseconds(8000)), 0.10),
        any(Fault::EndWatch(milliseconds(3000)), 0.20),
        any(Fault::BreakWatch(milliseconds(3000)), 0.20),
        any(Fault::ExpireWatch(milliseconds(3000)), 0.15),
        any(Fault::Lag(milliseconds(3000)), 0.40),
    ]
}

async fn everything_at_once(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab, &users::pools()).await?;
    start_speakers(lab, &by_hand).await?;
    let proxy = ApiProxy::start(lab, 11)?;
    start_behind(lab, &by_hand, "n1", &proxy, &[STILL]).await?;
    leads(lab, "n1").await?;
    let observer = Observer::start(lab).await?;
    let (faults, rules): (Vec<Fault>, Vec<Rule>) = everything().into_iter().unzip();
    proxy.set(rules);
    let mut users = Users::new("faulty", 60, 1)?;
    users.live(lab, seconds(25)).await?;
    proxy.set(Vec::new());
    // What has failed again and again is tried every 30 s.
    users.are_served(lab, seconds(45)).await?;
    is_quiet(lab).await?;
    users.leave(lab).await?;
    eprintln!("faults: {}", observer.all_was_well()?);
    were_played(&proxy, faults, 3)?;
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    delete_pool(lab, "asked").await
}

/// Creates so many Services at once.
async fn create(lab: &Lab, names: &[String], single: bool) -> Result<()> {
    let policy = if single { "SingleStack" } else { "PreferDualStack" };
    stream::iter(names)
        .map(|name| async move {
            let service = Service::new(name, "nobody").load_balancer().spec("ipFamilyPolicy", json!(policy));
            service.apply(lab).await.map(|_| ())
        })
        .buffer_unordered(8)
        .try_collect()
        .await
}

/// All addresses with those who hold them, as Services and as VirtualIPs say.
async fn held(lab: &Lab) -> Result<Vec<(String, String)>> {
    let mut held = Vec::new();
    for service in services(lab).list(&ListParams::default()).await? {
        let name = service.metadata.name.clone().unwrap_or_default();
        held.extend(addresses(&service).iter().map(|address| (address.to_string(), name.clone())));
    }
    for vip in virtual_ips(lab).list(&ListParams::default()).await? {
        let claims = vip.spec.claims.iter().map(|claim| claim.name.clone());
        held.push((vip.metadata.name.unwrap_or_default(), claims.collect::<Vec<_>>().join(",")));
    }
    held.sort();
    Ok(held)
}

/// Waits until each Service has so many addresses, and as many VirtualIPs are there.
async fn all_granted(lab: &Lab, names: &[String], each: usize) -> Result<()> {
    eventually(seconds(30), "all are granted", async || {
        let found = services(lab).list(&ListParams::default()).await?.items;
        let lacking: Vec<_> = found
            .iter()
            .filter(|service| service.metadata.name.as_ref().is_some_and(|name| names.contains(name)))
            .filter(|service| addresses(service).len() != each)
            .map(|service| (service.metadata.name.clone(), addresses(service)))
            .collect();
        let vips = virtual_ips(lab).list(&ListParams::default()).await?.items.len();
        ensure!(lacking.is_empty() && vips == names.len() * each, "{vips} VirtualIPs, lacking {lacking:?}");
        Ok(())
    })
    .await
}

/// Deletes these, and waits until so many VirtualIPs are left.
async fn delete_all(lab: &Lab, names: &[String], leaves: usize) -> Result<()> {
    stream::iter(names)
        .map(|name| async move { services(lab).delete(name, &DeleteParams::default()).await.map(|_| ()) })
        .buffer_unordered(8)
        .try_collect::<()>()
        .await?;
    eventually(seconds(60), "all are gone", async || {
        let vips = virtual_ips(lab).list(&ListParams::default()).await?.items.len();
        let left = services(lab).list(&ListParams::default()).await?.items;
        let left: Vec<_> = left.into_iter().filter_map(|service| service.metadata.name).collect();
        let left: Vec<_> = left.into_iter().filter(|name| names.contains(name)).collect();
        ensure!(vips == leaves && left.is_empty(), "{vips} VirtualIPs, Services {left:?}");
        Ok(())
    })
    .await
}

async fn black_hole(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab, &users::pools()).await?;
    let (first, second) = (ApiProxy::start(lab, 21)?, ApiProxy::start(lab, 22)?);
    start_behind(lab, &by_hand, "n1", &first, &SHORT_LEASE).await?;
    leads(lab, "n1").await?;
    start_behind(lab, &by_hand, "n2", &second, &SHORT_LEASE).await?;
    let observer = Observer::start(lab).await?;
    let names =
        |range: std::ops::Range<u32>| range.map(|number| format!("hole-{number}")).collect::<Vec<_>>();
    create(lab, &names(0..10), true).await?;
    all_granted(lab, &names(0..10), 1).await?;

    // It opens with the leader's hands full: addresses chosen, claimed, and not yet shown.
    let slow = Rule::new(Fault::Delay(seconds(1)), 1.0);
    first.set(vec![slow.to(&Verb::WRITES).of(&["services", "services/status", "virtualips"])]);
    first.swallow_from(Verb::Patch, "services/status");
    create(lab, &names(10..40), true).await?;
    eventually(seconds(10), "the hole opens", async || {
        ensure!(first.swallows(), "the leader shows no address: {:?}", first.counts());
        Ok(())
    })
    .await?;
    let opened = Instant::now();
    eventually(seconds(8), "the one in the hole stands down", async || {
        let leading = metric(lab, "n1", "landfall_controller_is_leader")?;
        ensure!(leading == 0, "it believes that it leads");
        Ok(())
    })
    .await?;
    eventually(seconds(10), "the other leads", async || leader(lab, "n2").await).await?;
    eprintln!("faults: another led {:.1} s after the hole had opened", opened.elapsed().as_secs_f64());
    let all = names(0..40);
    all_granted(lab, &all, 1).await?;
    // What the old leader had in hand is done by now, and becomes wrong: the names mean other Services,
    // and the addresses are theirs in another order.
    let mut anew = names(10..30);
    delete_all(lab, &anew, 20).await?;
    anew.reverse();
    create(lab, &anew, true).await?;
    all_granted(lab, &all, 1).await?;
    is_quiet(lab).await?;
    let before = held(lab).await?;

    let mark = lab.control_plane().audit().mark()?;
    first.swallow(false);
    steadily(seconds(4), "what was granted stays, and the other leads", async || {
        leader(lab, "n2").await?;
        ensure!(metric(lab, "n1", "landfall_controller_is_leader")? == 0, "both lead");
        Ok(())
    })
    .await?;
    let late = written(lab, mark)?;
    eprintln!("faults: {} writes came out of the hole:\n{}", late.len(), in_lines(&late));
    let counts = first.counts();
    eprintln!("faults: {counts:?}");
    ensure!(late.len() >= 3, "hardly a write was in the hole: {counts:?}");
    is_quiet(lab).await?;
    let after = held(lab).await?;
    ensure!(before == after, "before {before:?}, after {after:?}; {}", in_lines(&late));
    delete_all(lab, &all, 0).await?;
    eprintln!("faults: {}", observer.all_was_well()?);
    stop(lab, CONTROLLER);
    delete_pool(lab, "asked").await
}

async fn lagging_without_election(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab, &users::pools()).await?;
    start_speakers(lab, &by_hand).await?;
    let alone = [STILL, ("LANDFALL_LEADER_ELECT", "false")];
    let proxy = ApiProxy::start(lab, 31)?;
    by_hand.start_controller(lab, lab.node("n1")?, &alone).await?;
    start_behind(lab, &by_hand, "n2", &proxy, &alone).await?;
    eventually(seconds(20), "both know everything", async || {
        for node in ["n1", "n2"] {
            let lists = metric(lab, node, "landfall_controller_watch_lists_total")?;
            ensure!(lists >= 6, "{node} has read {lists} lists");
        }
        Ok(())
    })
    .await?;
    let lag = Fault::Lag(seconds(5));
    proxy.set(vec![Rule::new(lag, 1.0)]);
    let observer = Observer::start(lab).await?;
    let mut users = Users::new("late", 40, 2)?;
    users.live(lab, seconds(15)).await?;
    // Not even the end of the lag is needed.
    users.are_served(lab, seconds(60)).await?;
    is_quiet(lab).await?;
    users.leave(lab).await?;
    eprintln!("faults: {}", observer.all_was_well()?);
    let wrote = metric(lab, "n2", "landfall_controller_effects_total")?;
    eprintln!("faults: the late one tried {wrote} effects");
    ensure!(wrote > 20, "the late one did nothing");
    were_played(&proxy, [lag], 100)?;
    stop(lab, CONTROLLER);
    stop(lab, SPEAKER);
    delete_pool(lab, "asked").await
}

async fn restart(lab: &Lab) -> Result<()> {
    let many = json!({"addresses": ["10.77.0.0/24", "fd77::/112"]});
    let by_hand = prepared(lab, &[("many", many)]).await?;
    by_hand.start_controller(lab, lab.node("n1")?, &SHORT_LEASE).await?;
    leads(lab, "n1").await?;
    let names: Vec<String> = (0..200).map(|number| format!("kept-{number}")).collect();
    create(lab, &names, false).await?;
    all_granted(lab, &names, 2).await?;
    is_quiet(lab).await?;
    let before = held(lab).await?;
    stop(lab, CONTROLLER);

    let mark = lab.control_plane().audit().mark()?;
    by_hand.start_controller(lab, lab.node("n1")?, &SHORT_LEASE).await?;
    leads(lab, "n1").await?;
    tokio::time::sleep(seconds(4)).await;
    stop(lab, CONTROLLER);
    // And once more where watches end, break and forget, so that everything is listed anew again and again.
    let proxy = ApiProxy::start(lab, 41)?;
    let second = seconds(1);
    let faults = [Fault::EndWatch(2 * second), Fault::BreakWatch(2 * second), Fault::ExpireWatch(2 * second)];
    let mut rules: Vec<Rule> = faults.iter().map(|fault| Rule::new(*fault, 0.5)).collect();
    rules.push(Rule::new(Fault::Lag(second), 0.5));
    proxy.set(rules);
    start_behind(lab, &by_hand, "n1", &proxy, &SHORT_LEASE).await?;
    leads(lab, "n1").await?;
    eventually(seconds(30), "all is listed anew", async || {
        let lists = metric(lab, "n1", "landfall_controller_watch_lists_total")?;
        ensure!(lists >= 13, "only {lists} lists");
        Ok(())
    })
    .await?;
    // What the last of them lets it want, it has written by then.
    tokio::time::sleep(seconds(3)).await;
    were_played(&proxy, faults, 3)?;
    let all = lab.control_plane().audit().writes_since(mark)?;
    ensure!(all.iter().any(|write| write.resource == "leases"), "the audit log tells nothing");
    let writes = written(lab, mark)?;
    ensure!(writes.is_empty(), "written: {}", in_lines(&writes));
    ensure!(before == held(lab).await?, "something has changed");
    proxy.set(Vec::new());
    delete_all(lab, &names, 0).await?;
    stop(lab, CONTROLLER);
    delete_pool(lab, "many").await
}
