//! Other stations say things about addresses: they are noticed, and hold up nothing for long.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use landfall_crds::names::{annotations, conditions::ADDRESS_CONFLICT};
use landfall_tests::{
    backend::Service,
    lab::{
        Lab, Mac, Node, eventually,
        probe::{Lie, Said, Seen},
        seconds,
    },
    services::{announcer, delete, granted, virtual_ip},
    story::Story,
};

use crate::landfall::{self, Reached, reached};

/// How long a takeover may last where somebody answers for the dead: a second more than else.
const DELAYED: Duration = Duration::from_millis(1300);
/// And where that is nobody's business.
const PROMPT: Duration = Duration::from_millis(500);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new(
            "conflicts: a fabric that goes on answering for the dead delays a takeover by a second at most",
            fabric,
        ),
        Story::new("conflicts: a host that answers for others by proxy ARP delays nothing", proxy_arp),
        Story::long(
            seconds(180),
            "conflicts: a stranger that claims an address later is told of, and defended against at a pace",
            stranger,
        ),
        Story::new(
            "conflicts: an address is probed three times before it is ever announced, in both families",
            probes,
        ),
        Story::new("conflicts: an address that somebody has already is not announced", taken),
    ]
}

async fn fabric(lab: &Lab) -> Result<()> {
    answered_for(lab, "fabric", DELAYED, Node::mac).await
}

async fn proxy_arp(lab: &Lab) -> Result<()> {
    let own = lab.lan_client("c2")?.mac();
    answered_for(lab, "proxied", PROMPT, |_| own).await
}

/// The owner's port goes dark, and `c2` answers for the owner's own address from then on.
async fn answered_for(lab: &Lab, name: &str, bound: Duration, with: impl Fn(&Node) -> Mac) -> Result<()> {
    let Reached { target, owner, .. } = reached(lab, name, false).await?;
    let prober = lab.lan_client("c1")?.probe(target);
    tokio::time::sleep(seconds(1)).await;
    let dark = Instant::now();
    lab.switch().port_down(owner.name())?;
    let addresses = [IpAddr::V4(owner.addresses().v4), IpAddr::V6(owner.addresses().v6)];
    let lie = Lie { answers_for: BTreeSet::from(addresses), mac: with(owner), announces_every: None };
    let impostor = lab.lan_client("c2")?.lie(lie);
    tokio::time::sleep(seconds(3)).await;
    let back = Instant::now();
    let told = impostor.finish()?;
    let report = prober.finish()?;
    lab.switch().port_up(owner.name())?;
    let outage = report.outage(dark, back);
    eprintln!("conflicts: {name}: {told} answers for the dead, outage {outage:?}");
    ensure!(told > 0, "nobody asked for the dead node's address: the story proves nothing");
    ensure!(outage < bound, "{report}");
    tokio::time::sleep(seconds(1)).await;
    delete(lab, name).await
}

/// The condition `AddressConflict` of an address, as `True/Reason: message`.
async fn conflict(lab: &Lab, address: IpAddr) -> Result<String> {
    let status = virtual_ip(lab, address).await?.and_then(|vip| vip.status).unwrap_or_default();
    let condition = status.conditions.iter().find(|condition| condition.type_ == ADDRESS_CONFLICT);
    Ok(condition.map(landfall_tests::services::in_words).unwrap_or_default())
}

async fn stranger(lab: &Lab) -> Result<()> {
    let Reached { address, target, owner } = reached(lab, "claimed", false).await?;
    let (client, stranger) = (lab.lan_client("c1")?, lab.lan_client("c2")?);
    // The gratuitous frames after the claim are over by then, so that what is heard is defence.
    tokio::time::sleep(seconds(4)).await;
    let capture = lab.switch().capture()?;
    let lie = Lie {
        answers_for: BTreeSet::from([address]),
        mac: stranger.mac(),
        announces_every: Some(Duration::from_millis(500)),
    };
    let began = Instant::now();
    let impostor = stranger.lie(lie);
    let said = eventually(seconds(10), "the VirtualIP tells of the conflict", async || {
        let said = conflict(lab, address).await?;
        ensure!(said.starts_with("True/ForeignStation"), "{said:?}");
        Ok(said)
    })
    .await?;
    eprintln!("conflicts: after {:?}: {said}", began.elapsed());
    ensure!(said.contains(&stranger.mac().to_string()), "it names the stranger: {said}");
    eventually(seconds(10), "an Event tells of it", async || {
        let events = lab.kubectl(&["get", "events", "-A", "-o", "wide"])?;
        let told =
            events.lines().any(|line| line.contains("Conflict") && line.contains(&address.to_string()));
        ensure!(told, "{events}");
        Ok(())
    })
    .await?;
    let conflicts = owner.speaker_metrics()?.sum("landfall_speaker_address_conflicts", &[]);
    ensure!(conflicts >= 1.0, "the speaker counts {conflicts} conflicts");
    tokio::time::sleep(Duration::from_secs(12).saturating_sub(began.elapsed())).await;
    let told = impostor.finish()?;
    let seen = capture.finish()?;
    let defended: Vec<Duration> = seen
        .iter()
        .filter(|seen| seen.host == owner.name() && seen.at > began && is_told_to_all(seen, address))
        .map(|seen| seen.at - began)
        .collect();
    eprintln!("conflicts: {told} claims of the stranger, defended at {defended:?}");
    ensure!(!defended.is_empty(), "it did not defend the address");
    // RFC 5227, 2.4(c): at a pace; two hosts that both insist must not flood the LAN.
    ensure!(defended.len() <= 6, "{} times in 12 s: {defended:?}", defended.len());
    ensure!(announcer(lab, address).await?.name() == owner.name(), "it has given way");
    eventually(seconds(90), "the conflict is over", async || {
        let said = conflict(lab, address).await?;
        ensure!(!said.starts_with("True/"), "{said:?}");
        Ok(())
    })
    .await?;
    eventually(seconds(10), "it answers", async || {
        client.ask(landfall_tests::lab::probe::Request::udp(target))
    })
    .await?;
    delete(lab, "claimed").await
}

fn is_told_to_all(seen: &Seen, address: IpAddr) -> bool {
    matches!(seen.said, Said::Tells { address: told, to_all: true, .. } if told == address)
}

async fn probes(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    let capture = lab.switch().capture()?;
    // Addresses that no other story uses, so that nobody has announced them yet.
    let wanted = "192.168.10.219,fd10::219";
    Service::new("probed", "web").load_balancer().annotation(annotations::IPS, wanted).apply(lab).await?;
    let addresses = granted(lab, "probed", 2).await?;
    for address in &addresses {
        announcer(lab, *address).await?;
    }
    let seen = capture.finish()?;
    for address in addresses {
        let owner = announcer(lab, address).await?;
        let of_owner = || seen.iter().filter(|seen| seen.host == owner.name());
        let probes: Vec<Instant> = of_owner()
            .filter(|seen| matches!(seen.said, Said::Asks { wanted, asker: None, .. } if wanted == address))
            .map(|seen| seen.at)
            .collect();
        let first = of_owner().find(|seen| seen.tells(address).is_some()).context("never announced")?.at;
        let before: Vec<Instant> = probes.iter().copied().filter(|at| *at < first).collect();
        let all = before.len();
        // A node that gives an address up while it probes, as for a fitter one, begins anew when it has it again.
        let before = &before[before.len().saturating_sub(3)..];
        let apart: Vec<Duration> = before.windows(2).map(|pair| pair[1] - pair[0]).collect();
        eprintln!("conflicts: {address}: {all} probes, the last {apart:?} apart");
        ensure!(before.len() == 3, "{} probes before the first announcement", before.len());
        let pace = Duration::from_millis(40)..Duration::from_millis(100);
        ensure!(apart.iter().all(|apart| pace.contains(apart)), "{apart:?}");
        let pause = first - before[2];
        ensure!(pace.contains(&pause), "announced {pause:?} after the last probe");
    }
    delete(lab, "probed").await
}

async fn taken(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    let address: IpAddr = "192.168.10.218".parse()?;
    let holder = lab.lan_client("c2")?;
    let lie = Lie { answers_for: BTreeSet::from([address]), mac: holder.mac(), announces_every: None };
    let impostor = holder.lie(lie);
    let service = Service::new("taken", "web")
        .load_balancer()
        .spec("ipFamilyPolicy", serde_json::json!("SingleStack"))
        .annotation(annotations::IPS, &address.to_string());
    service.apply(lab).await?;
    granted(lab, "taken", 1).await?;
    let said = eventually(seconds(10), "the VirtualIP tells of the conflict", async || {
        let said = conflict(lab, address).await?;
        ensure!(said.starts_with("True/"), "{said:?}");
        Ok(said)
    })
    .await?;
    let macs = lab.lan_client("c1")?.who_has(address, Duration::from_millis(300))?;
    eprintln!("conflicts: answered by {macs:?}; {said}");
    ensure!(macs.iter().eq([&holder.mac()]), "{macs:?} answer for what {} has", holder.name());
    let told = impostor.finish()?;
    ensure!(told > 0, "nobody asked");
    let target = SocketAddr::from((address, 80));
    eventually(seconds(90), "once it is free it is announced", async || {
        lab.lan_client("c1")?.ask(landfall_tests::lab::probe::Request::udp(target))
    })
    .await?;
    delete(lab, "taken").await
}
