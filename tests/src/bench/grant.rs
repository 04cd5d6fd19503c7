//! From a Service's creation to its address, and to the first ARP answer for it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use kube::{
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use landfall_crds::{VirtualIP, names::annotations};
use serde_json::json;

use super::{Figure, median};
use crate::{
    backend::Service,
    lab::{Lab, eventually, seconds},
    services::{self, addresses},
};

const COUNT: usize = 40;
const ANNOUNCED: usize = 12;

pub(super) async fn measure(lab: &Lab) -> Result<Vec<Figure>> {
    let mut by_hand = Vec::new();
    let mut granted = Vec::new();
    for number in 0..COUNT {
        by_hand.push(until_address(lab, &format!("hand-{number}"), true).await?);
        granted.push(until_address(lab, &format!("grant-{number}"), false).await?);
    }
    for number in 0..COUNT {
        services::delete(lab, &format!("hand-{number}")).await?;
        services::delete(lab, &format!("grant-{number}")).await?;
    }
    by_hand.sort_unstable();
    let (first, again) = until_arp(lab).await?;
    Ok(vec![
        Figure::times("creation to address in the status", &granted, 50.0, Some(median(&by_hand))),
        Figure::times("creation to ARP answer, never announced before", &first, 250.0, None),
        Figure::times("creation to ARP answer, announced before", &again, 50.0, None),
    ])
}

fn single(name: &str) -> Service {
    Service::new(name, "nobody").load_balancer().spec("ipFamilyPolicy", json!("SingleStack"))
}

/// How long it takes until a watch sees the address of a new Service; by hand: one whose status we patch
/// ourselves as soon as it is created, which is what any implementation must do at least.
async fn until_address(lab: &Lab, name: &str, by_hand: bool) -> Result<Duration> {
    let api = services::services(lab);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut watch = watcher(api.clone(), only).applied_objects().boxed();
    let service = if by_hand {
        single(name).spec("loadBalancerClass", json!("example.com/by-hand"))
    } else {
        single(name)
    };
    let created = Instant::now();
    let (seen, patched) = tokio::join!(
        async {
            while let Some(service) = watch.try_next().await? {
                if !addresses(&service).is_empty() {
                    return Ok(created.elapsed());
                }
            }
            anyhow::bail!("the watch ended")
        },
        async {
            service.apply(lab).await?;
            if by_hand {
                let status =
                    json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}]}}});
                api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
            }
            anyhow::Ok(())
        }
    );
    patched?;
    seen
}

/// Times to the first ARP answer: of addresses that were never announced, and of the same once more.
/// Between the two a reservation keeps each VirtualIP, which remembers that it was announced.
async fn until_arp(lab: &Lab) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for number in 0..ANNOUNCED {
        let address: IpAddr = format!("192.168.10.{}", 200 + number).parse()?;
        let name = format!("arp-{number}");
        first.push(one_arp(lab, &name, address).await?);
        let api = services::virtual_ips(lab);
        services::announcer(lab, address).await?;
        let keep = json!({"spec": {"reservation": {"namespace": "default", "name": name}}});
        let _kept: VirtualIP =
            api.patch(&address.to_string(), &PatchParams::default(), &Patch::Merge(keep)).await?;
        services::delete(lab, &name).await?;
        eventually(seconds(10), "nobody answers", async || {
            let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(50))?;
            ensure!(macs.is_empty(), "{macs:?}");
            Ok(())
        })
        .await?;
        again.push(one_arp(lab, &name, address).await?);
        let free = json!({"spec": {"reservation": null}});
        let _free: VirtualIP =
            api.patch(&address.to_string(), &PatchParams::default(), &Patch::Merge(free)).await?;
        services::delete(lab, &name).await?;
    }
    Ok((first, again))
}

async fn one_arp(lab: &Lab, name: &str, address: IpAddr) -> Result<Duration> {
    let watch = lab.lan_client("c2")?.watch(address, Duration::from_millis(2));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let created = Instant::now();
    single(name).annotation(annotations::IPS, &address.to_string()).apply(lab).await?;
    services::announcer(lab, address).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let seen = watch.finish()?;
    let answer =
        seen.answers.iter().find(|sighting| sighting.at >= created).context("nobody answered ARP")?;
    Ok(answer.at - created)
}
