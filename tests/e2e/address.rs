//! A Service gets an address, keeps it, and gives it back.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use landfall_crds::names::{
    annotations,
    conditions::{GRANTED, SERVICE_ANNOUNCED},
    finalizers,
};
use landfall_tests::{
    backend::{Backends, Service, node_port},
    lab::{Lab, eventually, probe::Request, seconds, steadily},
    services::{
        addresses, announcer, condition, delete, delete_pool, granted, no_address_is_left, pool,
        pool_condition, says, services, virtual_ip, virtual_ips,
    },
    story::Story,
};
use serde_json::json;

use crate::landfall;

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new("address: a dual-stack Service is reached from the LAN, over TCP and UDP", dual_stack),
        Story::new("address: the example of the book works as written", example_of_the_book),
        Story::new("address: NodePort becomes LoadBalancer and back", node_port_and_back),
        Story::new("address: what cannot be granted waits and says why", waits_and_says_why),
        Story::new("address: a pool deleted while in use takes nothing away", pool_deleted),
        Story::new("address: an edit that asks for nothing moves nothing (I5)", edits_move_nothing),
        Story::new("address: all VirtualIPs deleted by mistake, and traffic goes on", virtual_ips_deleted),
        Story::new("address: policy Local is announced only where endpoints are", policy_local),
    ]
}

async fn dual_stack(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    let started = Instant::now();
    Service::new("dual", "web").load_balancer().apply(lab).await?;
    let granted = granted(lab, "dual", 2).await?;
    eprintln!("address: granted after {:?}", started.elapsed());
    ensure!(granted[0].is_ipv4() && granted[1].is_ipv6(), "the primary family first: {granted:?}");
    let client = lab.lan_client("c1")?;
    for address in granted {
        for request in [Request::tcp((address, 80).into()), Request::udp((address, 80).into())] {
            let what = format!("{address} answers over {:?}", request.protocol);
            let answer = eventually(seconds(10), &what, async || client.ask(request)).await?;
            ensure!(answer.pod.starts_with("web-"), "{answer:?}");
        }
        let owner = announcer(lab, address).await?;
        let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(300))?;
        ensure!(macs.iter().eq([&owner.mac()]), "{address}: {macs:?}, but {} announces", owner.name());
    }
    let service = services(lab).get("dual").await?;
    let modes: Vec<_> = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref())
        .into_iter()
        .flatten()
        .map(|entry| entry.ip_mode.as_deref())
        .collect();
    ensure!(modes == [Some("VIP"), Some("VIP")], "{modes:?}");
    let has = service.metadata.finalizers.unwrap_or_default();
    ensure!(has.iter().any(|name| name == finalizers::LOAD_BALANCER_CLEANUP), "{has:?}");
    ensure!(has.iter().any(|name| name == finalizers::SERVICE_ADDRESS), "{has:?}");
    says(lab, "dual", GRANTED, "True", "Granted").await?;
    says(lab, "dual", SERVICE_ANNOUNCED, "True", "Announced").await?;
    eventually(seconds(10), "one Event tells that it can be reached", async || {
        let about = "regarding.name=dual,reason=EnsuredLoadBalancer";
        let told = lab.kubectl(&["get", "events.events.k8s.io", "--field-selector", about, "-o", "name"])?;
        ensure!(told.lines().count() == 1, "{told:?}");
        Ok(())
    })
    .await?;
    delete(lab, "dual").await?;
    no_address_is_left(lab, "dual").await
}

async fn example_of_the_book(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    // Off every node's subnet: without an interface it cannot be announced, and the pool says so.
    pool(lab, "book", &json!({"addresses": ["13.12.21.0/24"], "autoAssign": false})).await?;
    eventually(seconds(10), "the pool says that nobody reaches it", async || {
        let said = pool_condition(lab, "book", "Unreachable").await?;
        ensure!(said.starts_with("True/") && said.contains("announce.interfaces"), "{said:?}");
        Ok(())
    })
    .await?;
    let spec =
        json!({"addresses": ["13.12.21.0/24"], "autoAssign": false, "announce": {"interfaces": ["eth0"]}});
    pool(lab, "book", &spec).await?;
    let service = Service::new("book", "web")
        .load_balancer()
        .spec("ipFamilyPolicy", json!("SingleStack"))
        .spec("loadBalancerIP", json!("13.12.21.31"))
        .spec("loadBalancerSourceRanges", json!(["142.43.0.0/16"]));
    service.apply(lab).await?;
    let vip: IpAddr = "13.12.21.31".parse()?;
    ensure!(granted(lab, "book", 1).await? == [vip], "the address asked for");
    let client = lab.lan_client("c1")?;
    let inside: IpAddr = "142.43.0.9".parse()?;
    client.add_address(inside)?;
    client.add_on_link_route("13.12.21.31/32", Some(inside))?;
    let request = Request::tcp((vip, 80).into());
    let answer = eventually(seconds(10), "a client in the range is answered", async || {
        client.ask(request.from(inside))
    })
    .await?;
    ensure!(answer.pod.starts_with("web-"), "{answer:?}");
    let outside = lab.lan_client("c2")?;
    outside.add_on_link_route("13.12.21.31/32", None)?;
    ensure!(outside.ask(request.within(seconds(1))).is_err(), "a client outside the range is answered");
    delete(lab, "book").await?;
    delete_pool(lab, "book").await
}

async fn node_port_and_back(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    let before = node_port(&Service::new("turns", "web").node_port().apply(lab).await?, "tcp")?;
    Service::new("turns", "web").load_balancer().apply(lab).await?;
    let granted = granted(lab, "turns", 2).await?;
    ensure!(node_port(&services(lab).get("turns").await?, "tcp")? == before, "the node port is kept");
    let client = lab.lan_client("c1")?;
    let request = Request::tcp((granted[0], 80).into());
    eventually(seconds(10), "the address answers", async || client.ask(request)).await?;
    Service::new("turns", "web").node_port().apply(lab).await?;
    no_address_is_left(lab, "turns").await?;
    for address in granted {
        let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(300))?;
        ensure!(macs.is_empty(), "{address} is still answered by {macs:?}");
    }
    let service = services(lab).get("turns").await?;
    ensure!(node_port(&service, "tcp")? == before, "the node port is kept");
    ensure!(addresses(&service).is_empty());
    ensure!(condition(&service, GRANTED).is_none(), "our conditions go with the type");
    ensure!(service.metadata.finalizers.unwrap_or_default().is_empty(), "and our finalizers");
    delete(lab, "turns").await
}

async fn waits_and_says_why(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    // Both forms: the annotation, and the field as cloud users write it.
    let single = |name: &str, form: &str, ip: &str| {
        let service = Service::new(name, "web").load_balancer().spec("ipFamilyPolicy", json!("SingleStack"));
        match form {
            "field" => service.spec("loadBalancerIP", json!(ip)),
            _ => service.annotation(annotations::IPS, ip),
        }
    };
    single("first", "annotation", "192.168.10.205").apply(lab).await?;
    granted(lab, "first", 1).await?;
    for (form, free) in [("annotation", "192.168.10.206"), ("field", "192.168.10.207")] {
        for (ip, reason, fragment) in [
            ("192.168.77.7", "AddressNotInPool", "192.168.77.7"),
            ("192.168.10.205", "AddressTaken", "default/first"),
            ("the first one", "AddressInvalid", "the first one"),
            ("fd10::200", "FamilyMismatch", "fd10::200"),
        ] {
            single(form, form, ip).apply(lab).await?;
            let message = says(lab, form, GRANTED, "False", reason).await?;
            ensure!(message.contains(fragment), "{form}, {reason}: {message}");
            ensure!(addresses(&services(lab).get(form).await?).is_empty(), "{form}, {reason}");
        }
        eventually(seconds(10), "an Event says so", async || {
            let of = format!("--field-selector=involvedObject.kind=Service,involvedObject.name={form}");
            let events = lab.kubectl(&["get", "events", &of, "-o", "wide"])?;
            ensure!(events.contains("SyncLoadBalancerFailed"), "{form}: {events}");
            Ok(())
        })
        .await?;
        single(form, form, free).apply(lab).await?;
        ensure!(granted(lab, form, 1).await? == [free.parse::<IpAddr>()?], "{form}");
    }
    // What became free is granted to who waits for it.
    single("third", "annotation", "192.168.10.205").apply(lab).await?;
    says(lab, "third", GRANTED, "False", "AddressTaken").await?;
    delete(lab, "first").await?;
    granted(lab, "third", 1).await?;
    for name in ["annotation", "third", "field"] {
        delete(lab, name).await?;
    }
    Ok(())
}

async fn pool_deleted(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    let spec = json!({"addresses": ["192.168.10.230-192.168.10.231"], "autoAssign": false});
    pool(lab, "brief", &spec).await?;
    let service = Service::new("stays", "web")
        .load_balancer()
        .spec("ipFamilyPolicy", json!("SingleStack"))
        .annotation(annotations::IPS, "192.168.10.230");
    service.apply(lab).await?;
    let before = granted(lab, "stays", 1).await?;
    let client = lab.lan_client("c1")?;
    let request = Request::tcp((before[0], 80).into());
    eventually(seconds(10), "it answers", async || client.ask(request)).await?;
    delete_pool(lab, "brief").await?;
    eventually(seconds(10), "the Service says that its pool is gone", async || {
        let granted = condition(&services(lab).get("stays").await?, GRANTED).context("no condition")?;
        ensure!(granted.status == "True" && granted.message.contains("brief"), "{granted:?}");
        Ok(())
    })
    .await?;
    ensure!(granted(lab, "stays", 1).await? == before);
    client.ask(request)?;
    pool(lab, "brief", &spec).await?;
    delete(lab, "stays").await?;
    delete_pool(lab, "brief").await
}

async fn edits_move_nothing(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    let service = Service::new("edited", "web").load_balancer();
    service.apply(lab).await?;
    let before = granted(lab, "edited", 2).await?;
    let owner = announcer(lab, before[0]).await?.name().to_owned();
    let prober = lab.lan_client("c1")?.probe((before[0], 80).into());
    eventually(seconds(10), "it answers", async || {
        lab.lan_client("c1")?.ask(Request::udp((before[0], 80).into()))
    })
    .await?;
    for patch in [
        json!({"metadata": {"labels": {"team": "a"}, "annotations": {"example.com/note": "x"}}}),
        json!({"spec": {"sessionAffinity": "ClientIP"}}),
        json!({"spec": {"loadBalancerSourceRanges": ["192.168.0.0/16", "fd10::/64"]}}),
        json!({"spec": {"ports": [
            {"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"},
            {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"},
            {"name": "more", "port": 81, "targetPort": 8080, "protocol": "TCP"},
        ]}}),
    ] {
        services(lab).patch("edited", &PatchParams::default(), &Patch::Merge(patch)).await?;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let more = Request::tcp((before[0], 81).into());
    eventually(seconds(10), "the new port answers", async || lab.lan_client("c1")?.ask(more)).await?;
    ensure!(granted(lab, "edited", 2).await? == before, "the addresses are kept");
    ensure!(announcer(lab, before[0]).await?.name() == owner, "the owner is kept");
    prober.finish()?;
    let object = virtual_ip(lab, before[0]).await?.context("the VirtualIP")?;
    ensure!(object.spec.ports.iter().any(|port| port.port == 81), "{:?}", object.spec.ports);
    delete(lab, "edited").await
}

async fn virtual_ips_deleted(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    for name in ["kept-a", "kept-b"] {
        Service::new(name, "web").load_balancer().apply(lab).await?;
    }
    let before = [granted(lab, "kept-a", 2).await?, granted(lab, "kept-b", 2).await?];
    let client = lab.lan_client("c1")?;
    let target = SocketAddr::from((before[0][0], 80));
    eventually(seconds(10), "it answers", async || client.ask(Request::udp(target))).await?;
    tokio::time::sleep(seconds(2)).await;
    let prober = client.probe(target);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let uids = |list: Vec<landfall_crds::VirtualIP>| -> Vec<_> {
        list.into_iter().map(|vip| vip.metadata.uid).collect()
    };
    let old = uids(virtual_ips(lab).list(&ListParams::default()).await?.items);
    virtual_ips(lab).delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    eventually(seconds(20), "every VirtualIP is there anew", async || {
        let list = virtual_ips(lab).list(&ListParams::default()).await?.items;
        let (count, now) = (list.len(), uids(list));
        ensure!(count == old.len() && now.iter().all(|uid| !old.contains(uid)), "{count} of {}", old.len());
        Ok(())
    })
    .await?;
    tokio::time::sleep(seconds(2)).await;
    let report = prober.finish()?;
    ensure!(report.lost() == 0, "traffic goes on: {report}");
    ensure!([granted(lab, "kept-a", 2).await?, granted(lab, "kept-b", 2).await?] == before, "same addresses");
    for name in ["kept-a", "kept-b"] {
        delete(lab, name).await?;
        no_address_is_left(lab, name).await?;
    }
    Ok(())
}

async fn policy_local(lab: &Lab) -> Result<()> {
    landfall::installed(lab).await?;
    Backends::new("local", 1).on("n2").deploy(lab).await?;
    let service = Service::new("local", "local")
        .load_balancer()
        .spec("ipFamilyPolicy", json!("SingleStack"))
        .spec("externalTrafficPolicy", json!("Local"));
    service.apply(lab).await?;
    let address = granted(lab, "local", 1).await?[0];
    let client = lab.lan_client("c1")?;
    let request = Request::tcp((address, 80).into());
    let answer = eventually(seconds(10), "it answers", async || client.ask(request)).await?;
    ensure!(answer.client == IpAddr::V4(client.addresses().v4), "the client's address is kept: {answer:?}");
    ensure!(announcer(lab, address).await?.name() == "n2");
    // Endpoints move: the address follows.
    Backends::new("local", 1).on("n3").deploy(lab).await?;
    eventually(seconds(20), "n3 announces", async || {
        let owner = announcer(lab, address).await?.name();
        ensure!(owner == "n3", "{owner}");
        client.ask(request)
    })
    .await?;
    Backends::new("local", 1).delete(lab).await?;
    eventually(seconds(20), "without an endpoint nobody announces", async || {
        let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(200))?;
        ensure!(macs.is_empty(), "{macs:?}");
        Ok(())
    })
    .await?;
    steadily(seconds(1), "and the address stays", async || {
        ensure!(addresses(&services(lab).get("local").await?) == [address]);
        Ok(())
    })
    .await?;
    delete(lab, "local").await
}
