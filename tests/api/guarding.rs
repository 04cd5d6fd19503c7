//! Who may come in: ServiceGuards on the real API server, by the controller's account and under its policies.

use anyhow::{Context, Result, ensure};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use landfall_crds::{ServiceGuard, VirtualIP, names::conditions::GRANTED, names::conditions::GUARDED};
use landfall_tests::{
    backend::Service,
    lab::{
        Lab, eventually,
        landfall::{ByHand, CONTROLLER},
        seconds, steadily,
    },
    services::{condition, delete, delete_pool, granted, no_address_is_left, pool, says, services},
    story::Story,
};
use serde_json::{Value, json};

use crate::{crashes::doomed_leader, stop};

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new("guarding: a guard comes before its claims, follows the ranges, and goes last", life),
        Story::new("guarding: ranges that cannot be meant close their Service alone, and say so", closed),
        Story::within(
            seconds(300),
            "guarding: a leader killed at any write leaves nothing open and nothing behind",
            killed,
        ),
    ]
}

fn guards(lab: &Lab) -> Api<ServiceGuard> {
    Api::all(lab.client())
}

fn limited(name: &str, ranges: &Value) -> Service {
    Service::new(name, "nobody")
        .load_balancer()
        .spec("ipFamilyPolicy", json!("SingleStack"))
        .spec("loadBalancerSourceRanges", ranges.clone())
}

/// The guard of a Service once it lets in these, over IPv4.
async fn guarded(lab: &Lab, name: &str, ranges: &[&str]) -> Result<ServiceGuard> {
    eventually(seconds(20), &format!("the guard of {name} lets in {ranges:?}"), async || {
        let guard = guards(lab).get(&format!("default.{name}")).await?;
        ensure!(guard.spec.sources.ipv4 == ranges, "{:?}", guard.spec.sources);
        Ok(guard)
    })
    .await
}

async fn no_guard_is_left(lab: &Lab) -> Result<()> {
    eventually(seconds(20), "no guard is left", async || {
        let left = guards(lab).list(&ListParams::default()).await?.items;
        ensure!(left.is_empty(), "{:?}", left.iter().map(|guard| &guard.metadata.name).collect::<Vec<_>>());
        Ok(())
    })
    .await
}

/// Every claim names the guard that is there.
async fn claims_follow(lab: &Lab) -> Result<()> {
    eventually(seconds(10), "every claim names the guard that is there", async || {
        for vip in Api::<VirtualIP>::all(lab.client()).list(&ListParams::default()).await?.items {
            for claim in vip.spec.claims {
                let guard = guards(lab).get_opt(&format!("{}.{}", claim.namespace, claim.name)).await?;
                let digest = guard.map(|guard| guard.spec.digest());
                ensure!(claim.guard == digest, "{}: {:?}, not {digest:?}", vip.spec.address, claim.guard);
            }
        }
        Ok(())
    })
    .await
}

async fn patch(lab: &Lab, name: &str, body: Value) -> Result<()> {
    services(lab).patch(name, &PatchParams::default(), &Patch::Merge(body)).await?;
    Ok(())
}

async fn prepared(lab: &Lab) -> Result<ByHand> {
    stop(lab, CONTROLLER);
    let by_hand = ByHand::prepare(lab)?;
    by_hand.start_controller(lab, lab.node("n1")?, &[]).await?;
    Ok(by_hand)
}

async fn life(lab: &Lab) -> Result<()> {
    prepared(lab).await?;
    // It waits for an address, and its nodePorts are guarded meanwhile.
    limited("web", &json!(["142.43.0.0/16", " 10.0.0.0/8 "])).apply(lab).await?;
    says(lab, "web", GRANTED, "False", "NoPool").await?;
    let guard = guarded(lab, "web", &["10.0.0.0/8", "142.43.0.0/16"]).await?;
    let web = services(lab).get("web").await?;
    let node_ports = |service: &k8s_openapi::api::core::v1::Service| -> Vec<Option<i32>> {
        service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).map(|port| port.node_port).collect()
    };
    let guarded_ports: Vec<Option<i32>> = guard.spec.ports.iter().map(|port| port.node_port).collect();
    ensure!(guarded_ports == node_ports(&web) && guarded_ports[0].is_some(), "{guarded_ports:?}");
    ensure!(Some(&guard.spec.service.uid) == web.metadata.uid.as_ref(), "{:?}", guard.spec.service);
    let said = says(lab, "web", GUARDED, "True", "Guarded").await?;
    ensure!(said.contains("only 10.0.0.0/8, 142.43.0.0/16 may connect"), "{said}");

    pool(lab, "lan", &json!({"addresses": ["192.168.10.130-192.168.10.139"]})).await?;
    let address = granted(lab, "web", 1).await?[0];
    claims_follow(lab).await?;
    patch(lab, "web", json!({"spec": {"loadBalancerSourceRanges": ["10.0.0.0/9"]}})).await?;
    guarded(lab, "web", &["10.0.0.0/9"]).await?;
    claims_follow(lab).await?;
    ensure!(granted(lab, "web", 1).await? == [address], "a change of ranges moves nothing");
    let open = json!({"metadata": {"annotations": {"landfall.dev/guard-node-ports": "false"}}});
    patch(lab, "web", open).await?;
    eventually(seconds(10), "the nodePorts are left open where that is asked for", async || {
        let guard = guards(lab).get("default.web").await?;
        ensure!(guard.spec.ports.iter().all(|port| port.node_port.is_none()), "{:?}", guard.spec.ports);
        Ok(())
    })
    .await?;

    // Nobody else may remove it, and nothing of it is written where nothing changes.
    let refused = guards(lab).delete("default.web", &DeleteParams::default()).await;
    ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
    let before = guards(lab).get("default.web").await?.metadata.resource_version;
    stop(lab, CONTROLLER);
    prepared(lab).await?;
    steadily(seconds(3), "a restart writes no guard", async || {
        let now = guards(lab).get("default.web").await?.metadata.resource_version;
        ensure!(now == before, "{now:?}, not {before:?}");
        Ok(())
    })
    .await?;

    patch(lab, "web", json!({"spec": {"loadBalancerSourceRanges": null}})).await?;
    no_guard_is_left(lab).await?;
    claims_follow(lab).await?;
    eventually(seconds(10), "nothing more is said of it", async || {
        let web = services(lab).get("web").await?;
        ensure!(condition(&web, GUARDED).is_none(), "{:?}", web.status);
        Ok(())
    })
    .await?;
    // The annotation counts where the field is empty.
    let by_annotation = "service.beta.kubernetes.io/load-balancer-source-ranges";
    patch(lab, "web", json!({"metadata": {"annotations": {by_annotation: "10.0.0.0/8, 192.0.2.0/24"}}}))
        .await?;
    guarded(lab, "web", &["10.0.0.0/8", "192.0.2.0/24"]).await?;
    delete(lab, "web").await?;
    no_address_is_left(lab, "web").await?;
    no_guard_is_left(lab).await?;
    delete_pool(lab, "lan").await?;
    stop(lab, CONTROLLER);
    Ok(())
}

async fn closed(lab: &Lab) -> Result<()> {
    prepared(lab).await?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.130-192.168.10.139"]})).await?;
    limited("other", &json!(["10.0.0.0/8"])).apply(lab).await?;
    let other = guarded(lab, "other", &["10.0.0.0/8"]).await?;
    let many: Vec<String> = (0..1001).map(|n| format!("10.{}.{}.0/25", n / 250, n % 250)).collect();
    // Junk the API server refuses itself.
    limited("many", &json!(many)).apply(lab).await?;
    let one_family = limited("one-family", &json!(["10.0.0.0/8"]));
    one_family.spec("ipFamilyPolicy", json!("PreferDualStack")).apply(lab).await?;
    let said = says(lab, "many", GUARDED, "False", "TooManySourceRanges").await?;
    ensure!(said.contains("states 1001 ranges") && said.contains("nobody may connect"), "{said}");
    let guard = guarded(lab, "many", &[]).await?;
    ensure!(guard.spec.closed.is_some() && guard.spec.sources.ipv6.is_empty(), "{:?}", guard.spec.closed);
    let said = says(lab, "one-family", GUARDED, "True", "FamilyClosed").await?;
    ensure!(said.contains("nobody over IPv6"), "{said}");
    patch(lab, "many", json!({"spec": {"loadBalancerSourceRanges": &many[..1000]}})).await?;
    says(lab, "many", GUARDED, "True", "Guarded").await?;
    let untouched = guards(lab).get("default.other").await?;
    ensure!(untouched.metadata.resource_version == other.metadata.resource_version, "others are not touched");
    claims_follow(lab).await?;
    for name in ["other", "many", "one-family"] {
        delete(lab, name).await?;
        no_address_is_left(lab, name).await?;
    }
    no_guard_is_left(lab).await?;
    delete_pool(lab, "lan").await?;
    stop(lab, CONTROLLER);
    Ok(())
}

/// The leader is killed by SIGKILL at each point of a grant, a change and a release of a guarded Service.
async fn killed(lab: &Lab) -> Result<()> {
    stop(lab, CONTROLLER);
    let by_hand = ByHand::prepare(lab)?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.130-192.168.10.139"]})).await?;
    for moment in ["before", "after"] {
        for effect in ["CreateServiceGuard", "UpdateServiceGuard", "UpdateVirtualIp", "DeleteServiceGuard"] {
            let point = format!("{moment}:{effect}");
            killed_at(lab, &by_hand, &point).await.with_context(|| point.clone())?;
            eprintln!("guarding: {point}: survived");
        }
    }
    delete_pool(lab, "lan").await
}

async fn killed_at(lab: &Lab, by_hand: &ByHand, point: &str) -> Result<()> {
    doomed_leader(lab, by_hand, point).await?;
    limited("web", &json!(["10.0.0.0/8"])).apply(lab).await?;
    guarded(lab, "web", &["10.0.0.0/8"]).await?;
    let address = granted(lab, "web", 1).await?[0];
    patch(lab, "web", json!({"spec": {"loadBalancerSourceRanges": ["10.0.0.0/9"]}})).await?;
    guarded(lab, "web", &["10.0.0.0/9"]).await?;
    claims_follow(lab).await?;
    patch(lab, "web", json!({"spec": {"loadBalancerSourceRanges": null}})).await?;
    no_guard_is_left(lab).await?;
    claims_follow(lab).await?;
    lab.node("n1")?.wait_end(CONTROLLER, seconds(1)).context("nobody was killed")?;
    ensure!(granted(lab, "web", 1).await? == [address]);
    delete(lab, "web").await?;
    no_address_is_left(lab, "web").await?;
    stop(lab, CONTROLLER);
    Ok(())
}
