//! The lab is what it says it is: a real Kubernetes whose faults are real.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use landfall_tests::{
    backend::{Backends, Service, node_port},
    lab::{
        Direction, Lab, eventually, plan,
        probe::{Protocol, Request},
        seconds,
    },
    story::Story,
};

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new(
            "lab: backends answer through ClusterIP and NodePort, both families, TCP and UDP",
            backends_answer,
        ),
        Story::new("lab: a port that goes dark is dark until it is up again", port_goes_dark),
        Story::new("lab: loss is what was asked for, one way or both", loss),
        Story::new("lab: two hosts that are cut off from each other still reach the others", cut),
        Story::new("lab: a node that is cut off from the API server still reaches its peers", cut_from_api),
        Story::new("lab: a frozen node's kernel goes on", frozen_node),
        Story::new("lab: everybody who answers for an address is seen", who_has),
        Story::new("lab: the API server is killed and comes back with all it knew", api_server_killed),
        Story::new("lab: the audit log tells who wrote what", audit),
    ]
}

async fn service_on_node_port(lab: &Lab) -> Result<[u16; 2]> {
    Backends::new("echo", 2).on("n2").deploy(lab).await?;
    let service = Service::new("echo", "echo").node_port().apply(lab).await?;
    Ok([node_port(&service, "tcp")?, node_port(&service, "udp")?])
}

async fn backends_answer(lab: &Lab) -> Result<()> {
    let [tcp, udp] = service_on_node_port(lab).await?;
    let service = Service::new("echo", "echo").node_port().apply(lab).await?;
    let cluster_ips = service.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
    ensure!(cluster_ips.len() == 2, "dual stack: {cluster_ips:?}");
    let backends = Backends::new("echo", 2);
    let pods = backends.pods(lab).await?;
    let (n1, client) = (lab.node("n1")?, lab.lan_client("c1")?);

    let node_addresses = [IpAddr::V4(n1.addresses().v4), IpAddr::V6(n1.addresses().v6)];
    // ClusterIPs are reachable from the LAN for who routes them to a node.
    client.add_route("10.96.0.0/16", node_addresses[0])?;
    client.add_route("fd96::/108", node_addresses[1])?;
    let mut targets = Vec::new();
    for address in node_addresses {
        targets.extend([Request::tcp((address, tcp).into()), Request::udp((address, udp).into())]);
    }
    for address in &cluster_ips {
        let address: IpAddr = address.parse()?;
        targets.extend([Request::tcp((address, 80).into()), Request::udp((address, 80).into())]);
    }
    for request in targets {
        let what = format!("{:?} {} answers", request.protocol, request.to);
        let answer = eventually(seconds(10), &what, async || client.ask(request)).await?;
        ensure!(pods.contains_key(&answer.pod), "{what}: {answer:?}, but the pods are {pods:?}");
    }
    Ok(())
}

async fn port_goes_dark(lab: &Lab) -> Result<()> {
    let [_, udp] = service_on_node_port(lab).await?;
    let (n1, client) = (lab.node("n1")?, lab.lan_client("c1")?);
    let target = SocketAddr::from((n1.addresses().v4, udp));
    eventually(seconds(10), "the NodePort answers", async || client.ask(Request::udp(target))).await?;

    let prober = client.probe(target);
    tokio::time::sleep(seconds(1)).await;
    let dark = Instant::now();
    lab.switch().port_down("n1")?;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let carrier = n1.namespace().run("ip", &["link", "show", "eth0"])?;
    ensure!(carrier.contains("NO-CARRIER"), "the node sees its port dark: {carrier}");
    ensure!(
        client.ask(Request::udp(target).within(Duration::from_millis(200))).is_err(),
        "dark, and yet it answers"
    );
    lab.switch().port_up("n1")?;
    eventually(seconds(10), "the NodePort answers again", async || client.ask(Request::udp(target))).await?;
    let report = prober.finish()?;
    let outage = report.longest_gap_after(dark);
    eprintln!("port dark for 1 s: {report}");
    ensure!(outage >= Duration::from_millis(800) && outage < seconds(5), "an outage of {outage:?}: {report}");
    ensure!(
        report.gaps.iter().all(|gap| gap.from + gap.length > dark || gap.lost == 0),
        "lossless before: {report}"
    );
    Ok(())
}

async fn loss(lab: &Lab) -> Result<()> {
    let [_, udp] = service_on_node_port(lab).await?;
    let (n1, client) = (lab.node("n1")?, lab.lan_client("c1")?);
    let target = SocketAddr::from((n1.addresses().v4, udp));
    let share_lost = async || -> Result<f64> {
        let prober = client.probe(target);
        tokio::time::sleep(seconds(3)).await;
        let report = prober.finish()?;
        // At most a few thousand: exact in a float.
        #[allow(clippy::cast_precision_loss)]
        Ok(report.lost() as f64 / report.sent as f64)
    };
    lab.switch().lose("c1", Direction::FromHost, 0.3)?;
    let one_way = share_lost().await?;
    ensure!((0.2..0.4).contains(&one_way), "30 % were to be lost, {one_way:.3} were");
    lab.switch().lose_both_ways("c1", 0.3)?;
    let both_ways = share_lost().await?;
    ensure!((0.4..0.62).contains(&both_ways), "51 % were to be lost, {both_ways:.3} were");
    lab.switch().mend()?;
    let mended = share_lost().await?;
    ensure!(mended < 0.02, "nothing was to be lost, {mended:.3} were");
    Ok(())
}

async fn cut(lab: &Lab) -> Result<()> {
    let [tcp, _] = service_on_node_port(lab).await?;
    let (c1, c2) = (lab.lan_client("c1")?, lab.lan_client("c2")?);
    let target = Request::tcp((lab.node("n2")?.addresses().v4, tcp).into()).within(seconds(1));
    eventually(seconds(10), "both reach n2", async || {
        c1.ask(target)?;
        c2.ask(target)
    })
    .await?;
    lab.switch().cut("c1", "n2")?;
    ensure!(c1.ask(target).is_err(), "c1 is cut off from n2");
    c2.ask(target)?;
    c1.ask(Request { to: (lab.node("n1")?.addresses().v4, tcp).into(), ..target })?;
    Ok(())
}

async fn cut_from_api(lab: &Lab) -> Result<()> {
    let reaches = |from: &str, to: SocketAddr| -> Result<bool> {
        let connects = move || Ok(TcpStream::connect_timeout(&to, seconds(1)).is_ok());
        lab.node(from)?.namespace().on_thread(connects)
    };
    let gateways = [IpAddr::V4(plan::GATEWAY_V4), IpAddr::V6(plan::GATEWAY_V6)];
    let by_address = gateways.map(|gateway| SocketAddr::from((gateway, plan::API_SERVER_PORT)));
    let by_service: SocketAddr = (plan::SERVICE_OF_API[0].parse::<IpAddr>()?, 443).into();
    let ways = [by_address[0], by_address[1], by_service];
    let kubelet = (lab.node("n3")?.addresses().v4, 10250).into();
    for way in ways {
        ensure!(reaches("n2", way)?, "{way} is to be reached at first");
    }
    lab.switch().cut_from_api("n2")?;
    for way in ways {
        ensure!(!reaches("n2", way)?, "n2 is cut off, and yet reaches {way}");
        ensure!(reaches("n1", way)?, "n1 is not cut off, and does not reach {way}");
    }
    ensure!(reaches("n2", kubelet)?, "n2 is to reach n3");
    lab.switch().heal_way_to_api("n2")?;
    for way in ways {
        ensure!(reaches("n2", way)?, "{way} is to be reached again");
    }
    Ok(())
}

async fn frozen_node(lab: &Lab) -> Result<()> {
    let [tcp, _] = service_on_node_port(lab).await?;
    let (n1, client) = (lab.node("n1")?, lab.lan_client("c1")?);
    let through_n1 = Request::tcp((n1.addresses().v4, tcp).into());
    eventually(seconds(10), "n1 forwards", async || client.ask(through_n1)).await?;
    n1.freeze();
    let stopped = |found: &landfall_tests::lab::Found| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", found.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    let running: Vec<_> = n1.processes().into_iter().filter(|found| !stopped(found)).collect();
    ensure!(running.is_empty(), "still running on a frozen node: {running:?}");
    client.ask(through_n1)?;
    ensure!(client.ask(Request::tcp((n1.addresses().v4, 10250).into())).is_err(), "its kubelet is silent");
    n1.thaw();
    eventually(seconds(20), "kubectl reaches the kubelet again", async || {
        lab.kubectl(&["get", "--raw", "/api/v1/nodes/n1/proxy/healthz"])
    })
    .await?;
    Ok(())
}

async fn who_has(lab: &Lab) -> Result<()> {
    let (n1, c2, client) = (lab.node("n1")?, lab.lan_client("c2")?, lab.lan_client("c1")?);
    for address in ["192.168.10.150", "fd10::150"] {
        let address: IpAddr = address.parse()?;
        ensure!(client.who_has(address, Duration::from_millis(300))?.is_empty(), "nobody has {address} yet");
        let watch = client.watch(address, Duration::from_millis(20));
        n1.namespace().ip(&[format!("addr add {address} dev eth0")])?;
        tokio::time::sleep(Duration::from_millis(400)).await;
        c2.namespace().ip(&[format!("addr add {address} dev eth0")])?;
        tokio::time::sleep(Duration::from_millis(400)).await;
        n1.namespace().ip(&[format!("addr del {address} dev eth0")])?;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let seen = watch.finish()?;
        c2.namespace().ip(&[format!("addr del {address} dev eth0")])?;
        let split = seen.longest_split();
        ensure!(seen.answerers().keys().eq([&n1.mac(), &c2.mac()]), "{address}: {:?}", seen.answerers());
        ensure!(
            (Duration::from_millis(300)..Duration::from_millis(600)).contains(&split),
            "{address}: split {split:?}"
        );
        ensure!(seen.last() == Some(c2.mac()), "{address}: {:?}", seen.last());
    }
    let address = IpAddr::V4(n1.addresses().v4);
    let _warms_the_entry = client.ask(Request::tcp((address, 10256).into()));
    let entry = client.neighbour(address)?.ok_or_else(|| anyhow!("no entry for {address}"))?;
    ensure!(entry.mac == Some(n1.mac()), "{entry:?}");
    client.forget(address)
}

async fn api_server_killed(lab: &Lab) -> Result<()> {
    let [tcp, _] = service_on_node_port(lab).await?;
    lab.control_plane().kill_api_server()?;
    ensure!(lab.client().apiserver_version().await.is_err(), "killed, and yet it answers");
    let through_n3 = Request::tcp((lab.node("n3")?.addresses().v4, tcp).into());
    ensure!(through_n3.protocol == Protocol::Tcp);
    lab.lan_client("c1")?.ask(through_n3)?;
    lab.control_plane().start_api_server()?;
    lab.api_server_answers().await?;
    lab.nodes_ready().await?;
    Backends::new("after", 1).deploy(lab).await?;
    Backends::new("after", 1).delete(lab).await
}

async fn audit(lab: &Lab) -> Result<()> {
    let audit = lab.control_plane().audit();
    let mark = audit.mark()?;
    lab.kubectl(&["create", "configmap", "written", "--from-literal=a=b"])?;
    lab.kubectl(&["get", "configmap", "written"])?;
    lab.kubectl(&["delete", "configmap", "written"])?;
    let writes = audit.writes_since(mark)?;
    let mine: Vec<_> = writes.iter().filter(|write| write.name == "written").collect();
    let verbs: Vec<_> = mine.iter().map(|write| write.verb.as_str()).collect();
    ensure!(verbs == ["create", "delete"], "{mine:?}");
    ensure!(mine.iter().all(|write| write.user == "admin" && write.resource == "configmaps"), "{mine:?}");
    Ok(())
}
