//! Sees every state that a Service was ever in, and says where an address served two (I4), or changed or
//! went although nobody had asked for that (I5).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, ensure};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use landfall_crds::{VirtualIP, names::annotations::IPS};
use landfall_tests::{
    lab::{Lab, eventually, seconds},
    services::{addresses, services, virtual_ips},
};
use tokio::task::JoinHandle;

/// Watches by its own way to the API server, from its start until it is dropped.
pub(crate) struct Observer {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What was seen, and what was wrong with it.
#[derive(Default)]
struct Seen {
    services: BTreeMap<String, Shown>,
    placed: BTreeMap<String, Placed>,
    lists: u32,
    states: u64,
    shown: u64,
    taken_away: u64,
    wrong: Vec<String>,
}

/// The addresses of a Service as they were last.
#[derive(Default)]
struct Shown {
    uid: String,
    addresses: BTreeSet<IpAddr>,
    /// Those that its user did not want at some time since they were shown.
    unwanted: BTreeSet<IpAddr>,
}

/// Where a VirtualIP was placed last.
struct Placed {
    claims: Vec<String>,
    epoch: i64,
    first: Option<String>,
}

impl Observer {
    /// Starts watching; what is there already is seen when this returns.
    pub(crate) async fn start(lab: &Lab) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(watch(services(lab), virtual_ips(lab), Arc::clone(&seen)));
        let observer = Self { seen, task };
        eventually(seconds(10), "the observer sees", async || {
            ensure!(observer.seen().lists == 2, "{} lists", observer.seen().lists);
            Ok(())
        })
        .await?;
        Ok(observer)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was wrong until now.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.seen().wrong.clone()
    }

    /// Fails if anything was wrong, or was not seen; returns what was, for people.
    pub(crate) fn all_was_well(&self) -> Result<String> {
        let seen = self.seen();
        ensure!(seen.wrong.is_empty(), "{} times: {}", seen.wrong.len(), seen.wrong.join("\n"));
        // A list tells where things stand, not how they came there.
        ensure!(seen.lists == 2, "states were missed: {} lists", seen.lists);
        let Seen { states, shown, taken_away, .. } = &*seen;
        Ok(format!("{states} states seen, {shown} addresses shown, {taken_away} taken away on request"))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(services: Api<Service>, virtual_ips: Api<VirtualIP>, seen: Arc<Mutex<Seen>>) {
    enum Either {
        Service(watcher::Event<Service>),
        VirtualIp(watcher::Event<VirtualIP>),
    }
    // The lab's client takes a silence of 30 s for a broken connection.
    let config = || watcher::Config::default().timeout(20);
    let services = watcher(services, config()).default_backoff().map(|event| event.map(Either::Service));
    let virtual_ips =
        watcher(virtual_ips, config()).default_backoff().map(|event| event.map(Either::VirtualIp));
    let mut all = stream::select(services.boxed(), virtual_ips.boxed());
    while let Some(event) = all.next().await {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(Either::Service(watcher::Event::Apply(service) | watcher::Event::InitApply(service))) => {
                seen.service(&service);
            }
            Ok(Either::Service(watcher::Event::Delete(service))) => seen.service_gone(&service),
            Ok(Either::VirtualIp(watcher::Event::Apply(vip) | watcher::Event::InitApply(vip))) => {
                seen.virtual_ip(&vip);
            }
            Ok(Either::VirtualIp(watcher::Event::Delete(vip))) => {
                seen.placed.remove(&vip.uid().unwrap_or_default());
            }
            Ok(Either::Service(watcher::Event::InitDone) | Either::VirtualIp(watcher::Event::InitDone)) => {
                seen.lists += 1
            }
            Ok(Either::Service(watcher::Event::Init) | Either::VirtualIp(watcher::Event::Init)) => {}
            // It goes on where it was, or lists anew, which is counted.
            Err(error) => eprintln!("faults: the observer was disturbed: {error}"),
        }
    }
}

impl Seen {
    fn service(&mut self, service: &Service) {
        self.states += 1;
        let (name, uid) = (service.name_any(), service.uid().unwrap_or_default());
        let now: BTreeSet<IpAddr> = addresses(service).into_iter().collect();
        let mut known = self.services.remove(&name).unwrap_or_default();
        if known.uid != uid {
            known = Shown { uid, ..Shown::default() };
        }
        for address in &known.addresses {
            if !wants(service, *address) {
                known.unwanted.insert(*address);
            }
        }
        for address in known.addresses.difference(&now) {
            self.taken_away += 1;
            if !known.unwanted.remove(address) {
                self.wrong.push(format!("I5: {name} lost {address}, which it still wanted, and has {now:?}"));
            }
        }
        for address in now.difference(&known.addresses) {
            self.shown += 1;
            let others = self.services.iter().filter(|(_, other)| other.addresses.contains(address));
            for (other, _) in others {
                self.wrong.push(format!("I4: {address} was granted to {name} while {other} had it"));
            }
            // Whoever asks for nothing else may keep what was granted before it changed its mind.
            if !wants(service, *address) {
                known.unwanted.insert(*address);
            }
        }
        known.addresses = now;
        self.services.insert(name, known);
    }

    fn service_gone(&mut self, service: &Service) {
        self.states += 1;
        let gone = self.services.remove(&service.name_any()).unwrap_or_default();
        self.taken_away += u64::try_from(gone.addresses.len()).unwrap_or_default();
    }

    /// Nodes do not change in these stories, so nothing that is placed has a reason to move.
    fn virtual_ip(&mut self, vip: &VirtualIP) {
        self.states += 1;
        let claims: Vec<String> = vip.spec.claims.iter().map(|claim| claim.uid.clone()).collect();
        let Some(placement) = vip.spec.placement.as_ref().filter(|_| !claims.is_empty()) else { return };
        let first = placement.candidates.first().map(|candidate| candidate.node.clone());
        let placed = Placed { claims, epoch: placement.epoch, first };
        if let Some(before) = self.placed.insert(vip.uid().unwrap_or_default(), placed)
            && let Some(now) = self.placed.get(&vip.uid().unwrap_or_default())
            && before.claims == now.claims
            && (before.epoch != now.epoch || before.first.is_some() && before.first != now.first)
        {
            let text = format!(
                "a flap: {} went from {:?} in epoch {} to {:?} in epoch {}",
                vip.name_any(),
                before.first,
                before.epoch,
                now.first,
                now.epoch
            );
            self.wrong.push(text);
        }
    }
}

/// Whether a Service, as it now is, can keep this address for all that its user says.
fn wants(service: &Service, address: IpAddr) -> bool {
    let spec = service.spec.clone().unwrap_or_default();
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let asks: Vec<IpAddr> = service
        .annotations()
        .get(IPS)
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter_map(|text| text.trim().parse().ok())
        .collect();
    let asks_another =
        asks.iter().any(|asked| asked.is_ipv4() == address.is_ipv4()) && !asks.contains(&address);
    service.metadata.deletion_timestamp.is_none()
        && spec.type_.as_deref() == Some("LoadBalancer")
        && spec.ip_families.unwrap_or_default().iter().any(|name| name == family)
        && !asks_another
}
