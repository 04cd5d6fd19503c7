//! Who is given which address, and what is said to those who wait, by the real API server.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service as ServiceObject};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use landfall_crds::{
    IPPool, VirtualIP,
    names::conditions::{EXTERNAL_IP_CONFLICT, GRANTED},
};
use landfall_tests::{
    backend::Service,
    lab::{
        Lab, eventually,
        landfall::{ByHand, CONTROLLER},
        seconds, steadily,
    },
    services::{
        addresses, condition, delete, delete_pool, granted, in_words, no_address_is_left, pool, says,
        services, virtual_ip, virtual_ips,
    },
    story::Story,
};
use serde_json::{Value, json};

use crate::stop;

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new("granting: the rules of pools hold, and whoever waits is told why, once", rules),
        Story::new("granting: Services share an address; an edit that collides costs the editor", sharing),
        Story::new("granting: addresses are kept, rest, and tell who had them", keeping),
        Story::new("granting: families come and go in place", families),
        Story::new("granting: an edit of a pool moves nothing and is said", edited_pool),
        Story::new("granting: type, class and node ports flip as at a cloud", parity),
        Story::new("granting: restored with new uids, every Service keeps its address (I5)", restored),
    ]
}

/// CRDs, accounts, rights and policies; a story that failed may have left a controller.
fn prepared(lab: &Lab) -> Result<ByHand> {
    stop(lab, CONTROLLER);
    ByHand::prepare(lab)
}

async fn start(lab: &Lab, by_hand: &ByHand) -> Result<()> {
    by_hand.start_controller(lab, lab.node("n1")?, &[]).await
}

/// Takes away what a story made.
async fn cleared(lab: &Lab, names: &[&str], pools: &[&str]) -> Result<()> {
    for name in names {
        if services(lab).get_opt(name).await?.is_some() {
            delete(lab, name).await?;
        }
    }
    for name in names {
        no_address_is_left(lab, name).await?;
    }
    for name in pools {
        delete_pool(lab, name).await?;
    }
    stop(lab, CONTROLLER);
    Ok(())
}

fn single(name: &str) -> Service {
    Service::new(name, "nobody").load_balancer().spec("ipFamilyPolicy", json!("SingleStack"))
}

fn port(name: &str, number: u16) -> Service {
    single(name).spec("ports", json!([{"name": "tcp", "protocol": "TCP", "port": number}]))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

/// How many Events with this reason are about a Service; each counts as often as it happened.
fn events(lab: &Lab, service: &str, reason: &str) -> Result<u64> {
    let all = lab.kubectl(&["get", "events.events.k8s.io", "-A", "-o", "json"])?;
    let all: Value = serde_json::from_str(&all)?;
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let about =
        |event: &&Value| event["regarding"]["name"] == json!(service) && event["reason"] == json!(reason);
    Ok(items.iter().filter(about).map(|event| event["series"]["count"].as_u64().unwrap_or(1)).sum())
}

async fn rules(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab)?;
    let selected = json!({"matchLabels": {"landfall-story": "yes"}});
    for (name, spec) in [
        ("open", json!({"addresses": ["192.168.10.130/32"], "quota": {"perNamespace": 1}})),
        (
            "chosen-few",
            json!({"addresses": ["192.168.10.131/32"], "autoAssign": false, "namespaceSelector": selected}),
        ),
        (
            "labelled",
            json!({"addresses": ["192.168.10.132/32"], "autoAssign": false, "serviceSelector": {"matchLabels": {"tier": "front"}}}),
        ),
        (
            "guarded",
            json!({"addresses": ["192.168.10.133/32"], "autoAssign": false, "requireSourceRanges": true}),
        ),
        ("inside", json!({"addresses": ["192.168.10.134/32"], "scope": "Internal"})),
        ("cluster", json!({"addresses": ["10.0.0.0/8"], "autoAssign": false})),
    ] {
        pool(lab, name, &spec).await?;
    }
    start(lab, &by_hand).await?;
    port("first", 80).apply(lab).await?;
    ensure!(granted(lab, "first", 1).await? == [ip("192.168.10.130")]);
    let services_range = services(lab).get("first").await?.spec.and_then(|spec| spec.cluster_ip);
    let cluster_ip = services_range.context("a ClusterIP")?;

    let by = |name: &str, pool: &str| port(name, 80).annotation("landfall.dev/pool", pool);
    let table: Vec<(&str, Service, &str, &str)> = vec![
        (
            "by-quota",
            by("by-quota", "open"),
            "QuotaExceeded",
            "open gives namespace default 1 addresses at most",
        ),
        (
            "by-address",
            port("by-address", 80).spec("loadBalancerIP", json!("192.168.10.131")),
            "NamespaceNotSelected",
            "pool chosen-few does not select namespace default",
        ),
        (
            "by-label",
            by("by-label", "labelled"),
            "ServiceNotSelected",
            "labelled does not select the Service's labels",
        ),
        (
            "by-ranges",
            by("by-ranges", "guarded"),
            "SourceRangesRequired",
            "guarded requires spec.loadBalancerSourceRanges",
        ),
        (
            "in-cluster",
            port("in-cluster", 80).annotation("metallb.io/loadBalancerIPs", &cluster_ip),
            "ClusterAddress",
            "it lies in the range of the cluster's own Service addresses",
        ),
        (
            "at-odds",
            port("at-odds", 80)
                .annotation("metallb.universe.tf/loadBalancerIPs", "192.168.10.131")
                .annotation("lbipam.cilium.io/ips", "192.168.10.132"),
            "RequestContradictory",
            "lbipam.cilium.io/ips",
        ),
    ];
    for (name, service, reason, sentence) in &table {
        service.apply(lab).await?;
        let said = says(lab, name, GRANTED, "False", reason).await?;
        ensure!(said.contains(sentence), "{name}: {said}");
    }
    // An internal load balancer gets an internal address and nothing else does.
    let internal =
        port("internal", 80).annotation("service.beta.kubernetes.io/azure-load-balancer-internal", "true");
    internal.apply(lab).await?;
    ensure!(granted(lab, "internal", 1).await? == [ip("192.168.10.134")]);
    let conflicted = landfall_tests::services::pool_condition(lab, "cluster", "Conflicted").await?;
    ensure!(conflicted.starts_with("True/"), "{conflicted}");

    for (name, ..) in &table {
        let told = eventually(seconds(10), "the Event is published", async || {
            let told = events(lab, name, "SyncLoadBalancerFailed")?;
            ensure!(told > 0, "{name}: none");
            Ok(told)
        })
        .await?;
        ensure!(told == 1, "{name}: told {told} times");
    }
    // Each rule lifted, each Service served.
    let ranges = json!({"spec": {"loadBalancerSourceRanges": ["192.168.10.0/24"]}});
    services(lab).patch("by-ranges", &PatchParams::default(), &Patch::Merge(ranges)).await?;
    let label = json!({"metadata": {"labels": {"tier": "front"}}});
    services(lab).patch("by-label", &PatchParams::default(), &Patch::Merge(label)).await?;
    let label = json!({"metadata": {"labels": {"landfall-story": "yes"}}});
    let namespaces: Api<Namespace> = Api::all(lab.client());
    namespaces.patch("default", &PatchParams::default(), &Patch::Merge(label)).await?;
    delete(lab, "first").await?;
    for (name, address) in
        [("by-ranges", "133"), ("by-label", "132"), ("by-address", "131"), ("by-quota", "130")]
    {
        let has = granted(lab, name, 1).await?;
        ensure!(has == [ip(&format!("192.168.10.{address}"))], "{name} has {has:?}");
    }
    let unlabel = json!({"metadata": {"labels": {"landfall-story": null}}});
    namespaces.patch("default", &PatchParams::default(), &Patch::Merge(unlabel)).await?;
    let said = eventually(seconds(10), "the pool says what lies outside", async || {
        let pools: Api<IPPool> = Api::all(lab.client());
        let outside = pools.get("chosen-few").await?.status.and_then(|status| status.outside);
        outside.context("nothing is outside")
    })
    .await?;
    ensure!(said.addresses == ["192.168.10.131"], "{said:?}");
    ensure!(granted(lab, "by-address", 1).await? == [ip("192.168.10.131")]);
    let names: Vec<&str> = table.iter().map(|(name, ..)| *name).chain(["internal"]).collect();
    cleared(lab, &names, &["open", "chosen-few", "labelled", "guarded", "inside", "cluster"]).await
}

async fn sharing(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab)?;
    Service::new("early", "nobody").spec("externalIPs", json!(["192.168.10.142"])).apply(lab).await?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.140-192.168.10.149"]})).await?;
    start(lab, &by_hand).await?;
    let sharer = |name: &str, number: u16| port(name, number).annotation("landfall.dev/sharing-key", "web");
    for (name, number) in [("plain", 80), ("tls", 443)] {
        sharer(name, number).apply(lab).await?;
    }
    port("metal", 8080).annotation("metallb.io/allow-shared-ip", "web").apply(lab).await?;
    for name in ["plain", "tls", "metal"] {
        let has = granted(lab, name, 1).await?;
        ensure!(has == [ip("192.168.10.140")], "{name} has {has:?}");
    }
    let shared = virtual_ip(lab, ip("192.168.10.140")).await?.context("the VirtualIP")?;
    ensure!(shared.spec.claims.len() == 3 && shared.spec.ports.len() == 3, "{:?}", shared.spec);
    let before = services(lab).get("plain").await?;

    // The editor goes, and gets an address of its own; the neighbours do not even notice.
    sharer("tls", 80).apply(lab).await?;
    eventually(seconds(10), "the editor has another address", async || {
        let has = addresses(&services(lab).get("tls").await?);
        ensure!(has == [ip("192.168.10.141")], "{has:?}");
        Ok(())
    })
    .await?;
    let after = services(lab).get("plain").await?;
    ensure!(before.metadata.resource_version == after.metadata.resource_version, "{before:?} {after:?}");
    let shared = virtual_ip(lab, ip("192.168.10.140")).await?.context("the VirtualIP")?;
    ensure!(shared.spec.claims.len() == 2 && shared.spec.ports.len() == 2, "{:?}", shared.spec);
    // One that insists on the address is told what is in the way.
    sharer("third", 80).annotation("landfall.dev/ips", "192.168.10.140").apply(lab).await?;
    let said = says(lab, "third", GRANTED, "False", "SharingConflict").await?;
    ensure!(said.contains("Service default/plain serves port 80/TCP"), "{said}");
    delete(lab, "plain").await?;
    ensure!(granted(lab, "third", 1).await? == [ip("192.168.10.140")]);

    // An externalIP that is somebody's address is refused; one that was there before is said.
    let thief = Service::new("thief", "nobody").spec("externalIPs", json!(["192.168.10.140"]));
    let refused = thief.apply(lab).await;
    ensure!(refused.is_err(), "the admission policy lets an external IP pass that is a VirtualIP");
    sharer("late", 80).apply(lab).await?;
    let has = granted(lab, "late", 1).await?;
    ensure!(has != [ip("192.168.10.142")], "what stands in externalIPs is not granted to others: {has:?}");
    let held = has[0].to_string();
    lab.kubectl(&["delete", "validatingadmissionpolicybinding", "landfall-external-ips"])?;
    eventually(seconds(15), "the policy is off", async || {
        Service::new("thief", "nobody").spec("externalIPs", json!([held])).apply(lab).await.map(|_| ())
    })
    .await?;
    let said = says(lab, "late", EXTERNAL_IP_CONFLICT, "True", "ExternalIPConflict").await?;
    ensure!(said.contains("default/thief"), "{said}");
    eventually(seconds(10), "both are told", async || {
        for name in ["late", "thief"] {
            ensure!(events(lab, name, "ExternalIPConflict")? == 1, "{name}");
        }
        Ok(())
    })
    .await?;
    services(lab).delete("thief", &DeleteParams::default()).await?;
    eventually(seconds(10), "the conflict is over", async || {
        let conflict = condition(&services(lab).get("late").await?, EXTERNAL_IP_CONFLICT);
        ensure!(conflict.is_none(), "{conflict:?}");
        Ok(())
    })
    .await?;
    services(lab).delete("early", &DeleteParams::default()).await?;
    cleared(lab, &["tls", "metal", "third", "late"], &["lan"]).await
}

async fn keeping(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab)?;
    pool(
        lab,
        "kept",
        &json!({"addresses": ["192.168.10.150-192.168.10.151"], "reservations": {"expireAfter": "1h"}}),
    )
    .await?;
    pool(
        lab,
        "resting",
        &json!({"addresses": ["192.168.10.152/32"], "autoAssign": false, "releaseDelay": "4s"}),
    )
    .await?;
    start(lab, &by_hand).await?;
    let keeper = || port("keeper", 80).annotation("landfall.dev/reserve", "true");
    keeper().apply(lab).await?;
    ensure!(granted(lab, "keeper", 1).await? == [ip("192.168.10.150")]);
    delete(lab, "keeper").await?;
    for name in ["other", "more"] {
        port(name, 80).apply(lab).await?;
    }
    let has = [granted(lab, "other", 1).await.ok(), granted(lab, "more", 1).await.ok()].concat_some();
    ensure!(has == [ip("192.168.10.151")], "one gets the free address, none the kept one: {has:?}");
    let kept = virtual_ip(lab, ip("192.168.10.150")).await?.context("the kept VirtualIP")?;
    let reservation = kept.spec.reservation.context("a reservation")?;
    ensure!(
        reservation.name.as_deref() == Some("keeper") && reservation.expires.is_some(),
        "{reservation:?}"
    );
    keeper().apply(lab).await?;
    ensure!(granted(lab, "keeper", 1).await? == [ip("192.168.10.150")], "given back to it alone");
    port("keeper", 80).apply(lab).await?;
    eventually(seconds(10), "nothing is kept any more", async || {
        let vip = virtual_ip(lab, ip("192.168.10.150")).await?.context("the VirtualIP")?;
        ensure!(vip.spec.reservation.is_none(), "{:?}", vip.spec.reservation);
        Ok(())
    })
    .await?;

    let rester = |name: &str| port(name, 80).annotation("landfall.dev/ips", "192.168.10.152");
    rester("rester").apply(lab).await?;
    let uid = services(lab).get("rester").await?.metadata.uid;
    granted(lab, "rester", 1).await?;
    delete(lab, "rester").await?;
    rester("heir").apply(lab).await?;
    let said = says(lab, "heir", GRANTED, "False", "AddressResting").await?;
    ensure!(said.contains("rests until"), "{said}");
    ensure!(granted(lab, "heir", 1).await? == [ip("192.168.10.152")], "once it has rested");
    let pools: Api<IPPool> = Api::all(lab.client());
    let history = pools.get("resting").await?.status.map(|status| status.history).unwrap_or_default();
    let past = history.first().context("a history")?;
    ensure!(past.address == "192.168.10.152" && past.name == "rester", "{past:?}");
    ensure!(Some(&past.uid) == uid.as_ref() && past.since.is_some(), "{past:?}");
    cleared(lab, &["keeper", "other", "more", "heir"], &["kept", "resting"]).await
}

/// The addresses of those that have some.
trait ConcatSome {
    fn concat_some(self) -> Vec<IpAddr>;
}

impl<const N: usize> ConcatSome for [Option<Vec<IpAddr>>; N] {
    fn concat_some(self) -> Vec<IpAddr> {
        self.into_iter().flatten().flatten().collect()
    }
}

async fn families(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab)?;
    pool(lab, "four", &json!({"addresses": ["192.168.10.160-192.168.10.169"]})).await?;
    start(lab, &by_hand).await?;
    port("grown", 80).apply(lab).await?;
    let first = granted(lab, "grown", 1).await?;
    let policy = |policy: &str, families: Value| {
        Patch::Merge(json!({"spec": {"ipFamilyPolicy": policy, "ipFamilies": families}}))
    };
    let both = json!(["IPv4", "IPv6"]);
    services(lab).patch("grown", &PatchParams::default(), &policy("PreferDualStack", both.clone())).await?;
    steadily(seconds(2), "what there is stays", async || {
        let service = services(lab).get("grown").await?;
        ensure!(addresses(&service) == first, "{:?}", addresses(&service));
        Ok(())
    })
    .await?;
    // All or nothing: the first of a Service that requires both waits for the second.
    port("strict", 80).spec("ipFamilyPolicy", json!("RequireDualStack")).apply(lab).await?;
    says(lab, "strict", GRANTED, "False", "NoPool").await?;
    ensure!(addresses(&services(lab).get("strict").await?).is_empty(), "all or nothing");
    pool(lab, "six", &json!({"addresses": ["fd10::5:0/112"]})).await?;
    let grown = granted(lab, "grown", 2).await?;
    ensure!(grown[0] == first[0] && grown[1].is_ipv6(), "{grown:?}");
    granted(lab, "strict", 2).await?;
    services(lab).patch("grown", &PatchParams::default(), &policy("SingleStack", json!(["IPv4"]))).await?;
    let shrunk = eventually(seconds(10), "the second address is gone", async || {
        let has = addresses(&services(lab).get("grown").await?);
        ensure!(has.len() == 1, "{has:?}");
        Ok(has)
    })
    .await?;
    ensure!(shrunk == first, "{shrunk:?}");
    eventually(seconds(10), "and so is its VirtualIP", async || {
        ensure!(virtual_ip(lab, grown[1]).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    cleared(lab, &["grown", "strict"], &["four", "six"]).await
}

async fn edited_pool(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab)?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.170-192.168.10.179"]})).await?;
    start(lab, &by_hand).await?;
    for name in ["a", "b"] {
        port(name, 80).apply(lab).await?;
        granted(lab, name, 1).await?;
    }
    let has = async || -> Result<Vec<IpAddr>> {
        let mut all = addresses(&services(lab).get("a").await?);
        all.extend(addresses(&services(lab).get("b").await?));
        Ok(all)
    };
    let before = has().await?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.175-192.168.10.179"], "scope": "Internal", "quota": {"perNamespace": 0}})).await?;
    eventually(seconds(10), "Service and pool say that they are outside", async || {
        for name in ["a", "b"] {
            let said = condition(&services(lab).get(name).await?, GRANTED).map(|said| in_words(&said));
            let said = said.unwrap_or_default();
            ensure!(
                said.starts_with("True/") && said.contains("no longer in pool lan; address kept"),
                "{said}"
            );
        }
        let pools: Api<IPPool> = Api::all(lab.client());
        let outside = pools.get("lan").await?.status.and_then(|status| status.outside);
        ensure!(outside.as_ref().map(|outside| outside.count) == Some(2), "{outside:?}");
        Ok(())
    })
    .await?;
    let listed = lab.kubectl(&["get", "virtualips", "--field-selector", "spec.pool=lan", "-o", "name"])?;
    ensure!(listed.lines().count() == 2, "{listed}");
    stop(lab, CONTROLLER);
    start(lab, &by_hand).await?;
    steadily(seconds(4), "nothing has moved, also after a restart", async || {
        let now = has().await?;
        ensure!(now == before, "{now:?}");
        Ok(())
    })
    .await?;
    cleared(lab, &["a", "b"], &["lan"]).await
}

async fn parity(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab)?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.180-192.168.10.189"]})).await?;
    start(lab, &by_hand).await?;
    port("web", 80).apply(lab).await?;
    let first = granted(lab, "web", 1).await?;
    // Node ports off: what is allocated stays until it is taken away, and neither moves the address.
    for spec in [
        json!({"allocateLoadBalancerNodePorts": false}),
        json!({"ports": [{"name": "tcp", "protocol": "TCP", "port": 80, "nodePort": null}]}),
        json!({"allocateLoadBalancerNodePorts": true}),
        json!({"externalTrafficPolicy": "Local"}),
        json!({"externalTrafficPolicy": "Cluster"}),
        json!({"sessionAffinity": "ClientIP"}),
    ] {
        services(lab).patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
        eventually(seconds(10), "the VirtualIP follows", async || follows(lab, "web", first[0]).await)
            .await?;
        ensure!(addresses(&services(lab).get("web").await?) == first, "{spec}");
    }
    let class = json!({"spec": {"loadBalancerClass": "landfall.dev/lan"}});
    let refused = services(lab).patch("web", &PatchParams::default(), &Patch::Merge(class)).await;
    ensure!(refused.is_err(), "the class of a load balancer does not change");
    // A cloud controller in the same cluster may strip the standard finalizer; ours holds.
    let finalizers = json!({"metadata": {"finalizers": ["landfall.dev/address"]}});
    services(lab).patch("web", &PatchParams::default(), &Patch::Merge(finalizers)).await?;
    eventually(seconds(10), "the standard finalizer is back", async || {
        let on_it = services(lab).get("web").await?.metadata.finalizers.unwrap_or_default();
        ensure!(on_it.len() == 2, "{on_it:?}");
        Ok(())
    })
    .await?;
    for type_ in ["ClusterIP", "NodePort"] {
        let flip = |to: &str| Patch::Merge(json!({"spec": {"type": to}}));
        services(lab).patch("web", &PatchParams::default(), &flip(type_)).await?;
        eventually(seconds(15), "every mark of ours is gone", async || {
            let web = services(lab).get("web").await?;
            ensure!(web.metadata.finalizers.is_none() && condition(&web, GRANTED).is_none(), "{web:?}");
            ensure!(virtual_ip(lab, first[0]).await?.is_none(), "the VirtualIP is still there");
            Ok(())
        })
        .await?;
        services(lab).patch("web", &PatchParams::default(), &flip("LoadBalancer")).await?;
        ensure!(granted(lab, "web", 1).await? == first);
    }
    let web = services(lab).get("web").await?;
    let said = condition(&web, GRANTED).context("a condition")?;
    ensure!(said.observed_generation == web.metadata.generation, "{said:?}");
    // No speaker runs here, and so nobody is told that the balancer is ensured.
    for reason in ["UnAvailableLoadBalancer", "DeletingLoadBalancer", "DeletedLoadBalancer"] {
        eventually(seconds(10), "the Events of a cloud are published", async || {
            ensure!(events(lab, "web", reason)? > 0, "{reason}");
            Ok(())
        })
        .await?;
    }
    cleared(lab, &["web"], &["lan"]).await
}

/// Whether the VirtualIP says what the Service says.
async fn follows(lab: &Lab, name: &str, address: IpAddr) -> Result<()> {
    let spec = services(lab).get(name).await?.spec.unwrap_or_default();
    let vip = virtual_ip(lab, address).await?.context("the VirtualIP")?.spec;
    let ports: Vec<_> = spec.ports.iter().flatten().map(|port| (port.port, port.node_port)).collect();
    let told: Vec<_> = vip.ports.iter().map(|port| (port.port, port.node_port)).collect();
    ensure!(ports == told, "the Service has {ports:?}, the VirtualIP {told:?}");
    let claim = vip.claims.first().context("a claim")?;
    let policy = format!("{:?}", claim.traffic_policy);
    ensure!(spec.external_traffic_policy.as_deref() == Some(policy.as_str()), "{claim:?}");
    ensure!(claim.health_check_node_port == spec.health_check_node_port, "{claim:?}");
    Ok(())
}

async fn restored(lab: &Lab) -> Result<()> {
    let by_hand = prepared(lab)?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.190-192.168.10.229", "fd10::6:0/112"]})).await?;
    start(lab, &by_hand).await?;
    let names: Vec<String> = (0..12).map(|number| format!("kept-{number}")).collect();
    for name in &names {
        Service::new(name, "nobody").load_balancer().apply(lab).await?;
    }
    // Gaps, so that a controller that chose anew would choose otherwise.
    for name in &names {
        granted(lab, name, 2).await?;
    }
    for name in ["kept-0", "kept-3", "kept-4"] {
        delete(lab, name).await?;
    }
    let names: Vec<String> =
        names.into_iter().filter(|name| !["kept-0", "kept-3", "kept-4"].contains(&&**name)).collect();
    let api = services(lab);
    let before = saved(&api, &names).await?;
    let vips = virtual_ips(lab).list(&ListParams::default()).await?.items;
    stop(lab, CONTROLLER);
    // The cluster is lost: no finalizer holds anything.
    for name in &names {
        let off = json!({"metadata": {"finalizers": null}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(off.clone())).await?;
        api.delete(name, &DeleteParams::default()).await?;
    }
    for vip in &vips {
        let name = vip.metadata.name.as_deref().unwrap_or_default();
        let off = json!({"metadata": {"finalizers": null}});
        virtual_ips(lab).patch(name, &PatchParams::default(), &Patch::Merge(off)).await?;
        virtual_ips(lab).delete(name, &DeleteParams::default()).await?;
    }
    // As deploy/README says for a restore: the policy is lifted, the objects come back without their status.
    lab.kubectl(&["delete", "validatingadmissionpolicybinding", "landfall-virtual-ip-spec"])?;
    eventually(seconds(15), "VirtualIPs can be restored", async || {
        for vip in &vips {
            let mut object =
                VirtualIP::new(vip.metadata.name.as_deref().unwrap_or_default(), vip.spec.clone());
            object.metadata.finalizers = vip.metadata.finalizers.clone();
            match virtual_ips(lab).create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
                other => drop(other?),
            }
        }
        Ok(())
    })
    .await?;
    for name in &names {
        Service::new(name, "nobody").load_balancer().apply(lab).await?;
    }
    start(lab, &by_hand).await?;
    for name in &names {
        granted(lab, name, 2).await?;
    }
    let after = saved(&api, &names).await?;
    ensure!(before == after, "before {before:?}, after {after:?}");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cleared(lab, &names, &["lan"]).await
}

async fn saved(api: &Api<ServiceObject>, names: &[String]) -> Result<Vec<Vec<IpAddr>>> {
    let mut all = Vec::new();
    for name in names {
        all.push(addresses(&api.get(name).await?));
    }
    Ok(all)
}
