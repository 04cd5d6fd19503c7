//! What is not ours is left alone.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::api::{DeleteParams, Patch, PatchParams};
use landfall_crds::names::conditions::GRANTED;
use landfall_tests::{
    backend::Service,
    lab::{
        Lab, eventually,
        landfall::{ByHand, CONTROLLER},
        seconds, steadily,
    },
    services::{addresses, condition, granted, pool, services},
    story::Story,
};
use serde_json::json;

use crate::stop;

pub(crate) fn stories() -> Vec<Story> {
    vec![Story::new(
        "neighbours: Services of another class, or with another's addresses, do not change",
        others_do_not_change,
    )]
}

async fn others_do_not_change(lab: &Lab) -> Result<()> {
    let by_hand = ByHand::prepare(lab)?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.128-192.168.10.250"]})).await?;
    let single = |name: &str| {
        Service::new(name, "nobody").load_balancer().spec("ipFamilyPolicy", json!("SingleStack"))
    };
    // As MetalLB leaves them: class-less, an address in the status, no finalizer of ours.
    let mut theirs = Vec::new();
    for (number, name) in ["metal-a", "metal-b"].into_iter().enumerate() {
        single(name).annotation("metallb.universe.tf/address-pool", "first").apply(lab).await?;
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": format!("192.168.10.{}", 140 + number), "ipMode": "VIP"}]}}});
        theirs.push(services(lab).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?);
    }
    theirs.push(single("foreign").spec("loadBalancerClass", json!("example.com/other")).apply(lab).await?);
    theirs.push(
        single("foreign-asks")
            .spec("loadBalancerClass", json!("example.com/other"))
            .annotation("landfall.dev/ips", "192.168.10.150")
            .apply(lab)
            .await?,
    );

    by_hand.start_controller(lab, lab.node("n1")?, &[]).await?;
    single("ours").spec("loadBalancerClass", json!("landfall.dev/lan")).apply(lab).await?;
    let own = granted(lab, "ours", 1).await?;
    single("classless").apply(lab).await?;
    let next = granted(lab, "classless", 1).await?;
    let held = theirs.iter().flat_map(addresses).collect::<Vec<_>>();
    ensure!(
        !held.contains(&own[0]) && !held.contains(&next[0]),
        "granted {own:?} and {next:?}, but {held:?} are in use"
    );
    let unchanged = async || {
        for before in &theirs {
            let now = services(lab).get(before.metadata.name.as_deref().unwrap_or_default()).await?;
            same(before, &now)?;
        }
        Ok(())
    };
    steadily(seconds(3), "nothing of theirs changes", unchanged).await?;
    eventually(seconds(10), "an Event says who holds it", async || {
        let events = lab.kubectl(&["get", "events", "-o", "wide"])?;
        ensure!(events.contains("HeldByAnother") && events.contains("metal-a"), "{events}");
        Ok(())
    })
    .await?;

    // Adopted on request, with exactly the address it has.
    let adopt = json!({"metadata": {"annotations": {"landfall.dev/adopt": "true"}}});
    services(lab).patch("metal-a", &PatchParams::default(), &Patch::Merge(adopt)).await?;
    eventually(seconds(10), "metal-a is ours", async || {
        let service = services(lab).get("metal-a").await?;
        ensure!(condition(&service, GRANTED).is_some_and(|granted| granted.status == "True"), "{service:?}");
        ensure!(addresses(&service) == addresses(&theirs[0]), "{:?}", addresses(&service));
        Ok(())
    })
    .await?;
    for name in ["ours", "classless", "metal-a", "metal-b", "foreign", "foreign-asks"] {
        services(lab).delete(name, &DeleteParams::default()).await?;
    }
    eventually(seconds(30), "all are gone", async || {
        let left = lab.kubectl(&["get", "virtualips", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
    .await?;
    stop(lab, CONTROLLER);
    Ok(())
}

fn same(before: &ServiceObject, now: &ServiceObject) -> Result<()> {
    ensure!(
        before.metadata.resource_version == now.metadata.resource_version,
        "before {before:?}, now {now:?}"
    );
    Ok(())
}
