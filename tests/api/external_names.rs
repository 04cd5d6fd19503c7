//! ExternalName Services: what is said of their names, and what an exposed one leads to, with a DNS server whose words
//! change and with databases on the LAN outside the cluster.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use landfall_crds::names::conditions::{EXPOSED, NAME_VALID, RESOLVED};
use landfall_tests::{
    database::{self, Database},
    lab::{
        Lab,
        dns::DnsServer,
        eventually,
        landfall::{ByHand, CONTROLLER, EXPOSER, SPEAKER, kubeconfig, kubectl_as},
        seconds, steadily,
    },
    services::{delete_pool, granted, no_address_is_left, pool, says, services},
    story::Story,
};
use serde_json::{Value, json};

use crate::{granting::events, stop};

/// Where the DNS server answers, by way of the LAN.
const DNS: &str = "192.168.10.1:5300";

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::within(
            seconds(300),
            "external names: what is wrong with a name is said, and what it leads to",
            names_are_told,
        ),
        Story::within(
            seconds(300),
            "external names: an exposed one has an address on the LAN and follows its name",
            exposed_databases,
        ),
        Story::new("external names: the exposer writes what is its own and nothing else", exposer_is_held),
        Story::new("external names: hand-made endpoints and those of pods are told apart", mixed_endpoints),
    ]
}

fn dns_server(port: u16) -> Result<(DnsServer, String)> {
    let at = SocketAddr::new(DNS.parse::<SocketAddr>()?.ip(), port);
    Ok((DnsServer::start(at)?, at.to_string()))
}

async fn external(lab: &Lab, name: &str, external_name: &str, annotations: Value) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations},
        "spec": {"type": "ExternalName", "externalName": external_name}});
    services(lab).patch(name, &PatchParams::apply("landfall-lab").force(), &Patch::Apply(object)).await?;
    Ok(())
}

async fn names_are_told(lab: &Lab) -> Result<()> {
    stop(lab, CONTROLLER);
    let by_hand = ByHand::prepare(lab)?;
    let (dns, at) = dns_server(5301)?;
    let db: IpAddr = "192.0.2.7".parse()?;
    dns.has("db.example.com", 5, &[db, "2001:db8::7".parse()?]);
    let environment = [("LANDFALL_DNS_SERVERS", at.as_str()), ("LANDFALL_DNS_TIMEOUT", "500ms")];
    by_hand.start_controller(lab, lab.node("n1")?, &environment).await?;

    let none = || json!({});
    external(lab, "db", "db.example.com", none()).await?;
    external(lab, "db-too", "db.example.com", none()).await?;
    external(lab, "typo", "db.exmaple.com", none()).await?;
    external(lab, "number", "10.0.0.1", none()).await?;
    external(lab, "itself", "itself.default.svc.cluster.local", none()).await?;
    external(lab, "inside", "kubernetes.default.svc.cluster.local", none()).await?;
    external(lab, "quiet", "10.0.0.1", json!({"landfall.dev/check-name": "false"})).await?;
    for (name, type_, status, reason) in [
        ("db", NAME_VALID, "True", "Valid"),
        ("db", RESOLVED, "True", "Resolved"),
        ("typo", NAME_VALID, "True", "Valid"),
        ("typo", RESOLVED, "False", "NoSuchName"),
        ("number", NAME_VALID, "False", "IpAddress"),
        ("number", RESOLVED, "False", "NameInvalid"),
        ("itself", NAME_VALID, "False", "SelfReference"),
        ("inside", NAME_VALID, "True", "InClusterName"),
        ("inside", RESOLVED, "True", "InClusterName"),
    ] {
        says(lab, name, type_, status, reason).await?;
    }
    let message = says(lab, "db", RESOLVED, "True", "Resolved").await?;
    ensure!(message == "db.example.com has 192.0.2.7, 2001:db8::7", "{message}");
    let quiet = services(lab).get("quiet").await?;
    ensure!(quiet.status.and_then(|status| status.conditions).is_none(), "its owner wants nothing said");

    // Nothing of the user's own has changed.
    let service = services(lab).get("db").await?;
    let spec = service.spec.context("a spec")?;
    ensure!(spec.external_name.as_deref() == Some("db.example.com") && spec.ports.is_none());
    ensure!(service.metadata.finalizers.is_none(), "{:?}", service.metadata);

    // The name is born: said within its time, and one Event for each turn.
    dns.has("db.exmaple.com", 5, &[db]);
    let begun = Instant::now();
    eventually(seconds(70), "the name that is there now is found", async || {
        says_now(lab, "typo", RESOLVED, "True").await
    })
    .await?;
    eprintln!("external names: a name that came into being was found after {:?}", begun.elapsed());
    dns.is_silent(true);
    says_within(lab, "db", RESOLVED, "False", seconds(40)).await?;
    let message = says(lab, "db", RESOLVED, "False", "Timeout").await?;
    ensure!(message.contains("the last answer was 192.0.2.7"), "{message}");
    dns.is_silent(false);
    says_within(lab, "db", RESOLVED, "True", seconds(70)).await?;
    for (name, reason, expected) in [
        ("typo", "NoSuchName", 1),
        ("typo", "Resolved", 1),
        ("number", "IpAddress", 1),
        ("db", "Timeout", 1),
        ("db", "Resolved", 1),
        ("inside", "InClusterName", 0),
    ] {
        let what = format!("{name} is told {reason} {expected} times");
        eventually(seconds(40), &what, async || {
            let told = events(lab, name, reason)?;
            ensure!(told == expected, "{told} times");
            Ok(())
        })
        .await?;
    }
    let asked = dns.asked("db.example.com");
    let seconds_so_far = begun.elapsed().as_secs() as usize;
    // Two questions every five seconds at most, for both Services together.
    ensure!(asked <= 2 * (seconds_so_far / 5 + 4), "asked {asked} times within {seconds_so_far} s");

    services(lab)
        .patch(
            "db",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}})),
        )
        .await?;
    eventually(seconds(10), "a Service of another type loses what was said", async || {
        let status = services(lab).get("db").await?.status.unwrap_or_default();
        ensure!(status.conditions.unwrap_or_default().is_empty());
        Ok(())
    })
    .await?;
    for name in ["db", "db-too", "typo", "number", "itself", "inside", "quiet"] {
        services(lab).delete(name, &DeleteParams::default()).await?;
    }
    stop(lab, CONTROLLER);
    Ok(())
}

async fn says_now(lab: &Lab, name: &str, type_: &str, status: &str) -> Result<()> {
    let service = services(lab).get(name).await?;
    let condition = landfall_tests::services::condition(&service, type_).context("no condition")?;
    ensure!(condition.status == status, "{condition:?}");
    Ok(())
}

async fn says_within(lab: &Lab, name: &str, type_: &str, status: &str, limit: Duration) -> Result<()> {
    eventually(limit, &format!("{name} says {type_}={status}"), async || {
        says_now(lab, name, type_, status).await
    })
    .await
}

async fn exposed_databases(lab: &Lab) -> Result<()> {
    for program in [EXPOSER, CONTROLLER, SPEAKER] {
        stop(lab, program);
    }
    let by_hand = ByHand::prepare_exposing(lab)?;
    let (dns, at) = dns_server(5302)?;
    let client = lab.lan_client("c1")?.namespace().clone();
    let hosts = [lab.lan_client("c2")?, lab.lan_client("c3")?];
    let databases = [Database::start(hosts[0], "first").await?, Database::start(hosts[1], "second").await?];
    let [first, second] = hosts.map(|host| IpAddr::V4(host.addresses().v4));
    dns.has("first.example.com", 5, &[first]);
    dns.has("second.example.com", 5, &[second]);

    let targets = json!([format!("{first}/32"), format!("{second}/32"), "169.254.169.254/32"]);
    pool(lab, "lan", &json!({"addresses": ["192.168.10.200-192.168.10.209"], "externalTargets": targets}))
        .await?;
    let environment = [
        ("LANDFALL_DNS_SERVERS", at.as_str()),
        ("LANDFALL_DNS_TIMEOUT", "500ms"),
        ("LANDFALL_EXPOSING", "true"),
    ];
    by_hand.start_controller(lab, lab.node("n1")?, &environment).await?;
    by_hand.start_exposer(lab, lab.node("n2")?, &environment).await?;
    for node in lab.nodes() {
        by_hand.start_speaker(lab, node, &[]).await?;
    }

    let annotations =
        || json!({"landfall.dev/expose": "true", "landfall.dev/ports": database::PORT.to_string()});
    external(lab, "db", "first.example.com", annotations()).await?;
    eventually(seconds(20), "the companion is there", async || {
        Ok(services(lab).get("db-lan").await.map(|_| ())?)
    })
    .await?;
    let vip = granted(lab, "db-lan", 1).await?[0];
    let from_lan = SocketAddr::new(vip, database::PORT);
    eventually(seconds(20), "a client on the LAN reaches the first database", async || {
        let who = database::who(&client, from_lan)?;
        ensure!(who == "first", "{who}");
        Ok(())
    })
    .await?;
    let companion = services(lab).get("db-lan").await?;
    let cluster_ip: IpAddr =
        companion.spec.and_then(|spec| spec.cluster_ip).context("a ClusterIP")?.parse()?;
    let node = lab.node("n3")?.namespace().clone();
    let who = database::who(&node, SocketAddr::new(cluster_ip, database::PORT))?;
    ensure!(who == "first", "from within the cluster: {who}");
    says(lab, "db", EXPOSED, "True", "Exposed").await?;

    // A client that connects anew all the time, while the name is edited.
    let asking = client.clone();
    let asked = thread::spawn(move || {
        asking.on_thread(move || {
            let (mut heard, begun) = (Vec::new(), Instant::now());
            while begun.elapsed() < seconds(8) {
                let at = Instant::now();
                heard.push((at, database::ask(from_lan, "GET who").unwrap_or_default()));
                thread::sleep(Duration::from_millis(10));
            }
            Ok(heard)
        })
    });
    tokio::time::sleep(seconds(2)).await;
    external(lab, "db", "second.example.com", annotations()).await?;
    let edited = Instant::now();
    // Not to hold up what the lab itself does.
    let heard = tokio::task::spawn_blocking(move || asked.join()).await?;
    let heard: Vec<(Instant, String)> = heard.map_err(|_| anyhow::anyhow!("the client panicked"))??;
    let turned = heard.iter().position(|(_, who)| who == "second").context("nobody reached the second")?;
    let took = heard[turned].0.saturating_duration_since(edited);
    let back = heard[turned..].iter().filter(|(_, who)| who == "first").count();
    let failed = heard.iter().filter(|(_, who)| who.is_empty()).count();
    eprintln!(
        "external names: {took:?} from the edit to the new database; {back} of {} connections to the old one after \
         that, {failed} of {} failed",
        heard.len() - turned,
        heard.len()
    );
    ensure!(took <= seconds(3) && back == 0 && failed == 0, "{took:?}, {back}, {failed}");

    dns.is_silent(true);
    steadily(seconds(15), "everything goes on without DNS", async || {
        let who = database::who(&client, from_lan)?;
        ensure!(who == "second", "{who}");
        Ok(())
    })
    .await?;
    // Another exposer does not know better.
    stop(lab, EXPOSER);
    by_hand.start_exposer(lab, lab.node("n2")?, &environment).await?;
    steadily(seconds(8), "everything goes on with another exposer", async || {
        let who = database::who(&client, from_lan)?;
        ensure!(who == "second", "{who}");
        Ok(())
    })
    .await?;
    dns.has("second.example.com", 5, &["169.254.169.254".parse()?]);
    dns.is_silent(false);
    eventually(seconds(70), "an answer that must not be followed is told", async || {
        says_now(lab, "db", EXPOSED, "False").await
    })
    .await?;
    let message = says(lab, "db", EXPOSED, "False", "TargetRefused").await?;
    ensure!(message.contains("169.254.169.254 is a link-local address"), "{message}");
    let who = database::who(&client, from_lan)?;
    ensure!(who == "second", "the last good answer serves: {who}");

    external(lab, "db", "second.example.com", json!({})).await?;
    eventually(seconds(20), "the companion goes with the wish", async || {
        ensure!(services(lab).get_opt("db-lan").await?.is_none());
        Ok(())
    })
    .await?;
    services(lab).delete("db", &DeleteParams::default()).await?;
    no_address_is_left(lab, "db-lan").await?;
    delete_pool(lab, "lan").await?;
    for program in [EXPOSER, CONTROLLER, SPEAKER] {
        stop(lab, program);
    }
    databases.iter().try_for_each(Database::stop)
}

async fn exposer_is_held(lab: &Lab) -> Result<()> {
    ByHand::prepare_exposing(lab)?;
    external(lab, "db", "db.example.com", json!({})).await?;
    let original = services(lab).get("db").await?;
    let plain =
        json!({"metadata": {"name": "plain"}, "spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}});
    services(lab).create(&PostParams::default(), &serde_json::from_value::<ServiceObject>(plain)?).await?;
    let account = kubeconfig(lab, EXPOSER, None, "policies").await?;
    let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": "db", "uid": original.metadata.uid, "controller": true}]);
    let companion = |name: &str, owner: &Value, spec: Value| {
        let mut all = json!({"type": "LoadBalancer", "loadBalancerClass": "landfall.dev/lan", "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80}]});
        for (key, value) in spec.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default",
            "ownerReferences": owner}, "spec": all})
    };
    let slice = |by: &str, of: &str| {
        let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": of, "uid": "1"}]);
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [],
            "metadata": {"name": "some", "namespace": "default", "ownerReferences": owner,
                "labels": {"kubernetes.io/service-name": of, "endpointslice.kubernetes.io/managed-by": by}}})
    };
    let ours = "landfall.dev/exposer";
    let cases: Vec<(&str, Value, Option<&str>)> = vec![
        ("a companion", companion("db-lan", &owner, json!({})), None),
        (
            "a Service of another name",
            companion("other-lan", &owner, json!({})),
            Some("writes only companions"),
        ),
        ("one without an owner", companion("db-lan", &json!([]), json!({})), Some("writes only companions")),
        (
            "one with a selector",
            companion("db-lan", &owner, json!({"selector": {"a": "b"}})),
            Some("without a selector"),
        ),
        (
            "one of another class",
            companion("db-lan", &owner, json!({"loadBalancerClass": "example.com/x"})),
            Some("of class"),
        ),
        (
            "one with external addresses",
            companion("db-lan", &owner, json!({"externalIPs": ["192.0.2.1"]})),
            Some("external addresses"),
        ),
        ("a slice", slice(ours, "db-lan"), None),
        ("a slice of another maker", slice("people", "db-lan"), Some("managed by landfall.dev/exposer")),
        ("a slice for another Service", slice(ours, "plain"), Some("only for companions")),
    ];
    eventually(seconds(15), "the policy is in effect", async || {
        for (what, object, denied) in &cases {
            let tried = kubectl_as(lab, &account, &["create", "--dry-run=server", "-f", "-"], Some(object));
            match (tried, denied) {
                (Ok(_), None) => {}
                (Err(error), Some(denied)) if format!("{error:#}").contains(denied) => {}
                (answer, _) => bail!("{what}: {answer:?}, expected {denied:?}"),
            }
        }
        Ok(())
    })
    .await?;
    for arguments in [
        &["delete", "service", "plain", "--dry-run=server"][..],
        &[
            "patch",
            "service",
            "plain",
            "--dry-run=server",
            "-p",
            r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#,
        ],
        &[
            "patch",
            "service",
            "db",
            "--dry-run=server",
            "-p",
            r#"{"spec":{"externalName":"other.example.com"}}"#,
        ],
        &["get", "secrets"],
        &["create", "virtualip", "x"],
    ] {
        let tried = kubectl_as(lab, &account, &[&["-n", "default"][..], arguments].concat(), None);
        ensure!(tried.is_err(), "{arguments:?} is let through: {tried:?}");
    }
    for name in ["db", "plain"] {
        services(lab).delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn mixed_endpoints(lab: &Lab) -> Result<()> {
    stop(lab, CONTROLLER);
    let by_hand = ByHand::prepare(lab)?;
    pool(lab, "lan", &json!({"addresses": ["192.168.10.200-192.168.10.209"]})).await?;
    by_hand.start_controller(lab, lab.node("n1")?, &[]).await?;
    let backends = landfall_tests::backend::Backends::new("inside", 1);
    backends.deploy(lab).await?;
    let says_of =
        async |type_: &str, status: &str, reason: &str| says(lab, "moving", type_, status, reason).await;
    let (manual, mixed) = (
        landfall_crds::names::conditions::MANUAL_ENDPOINTS,
        landfall_crds::names::conditions::MIXED_ENDPOINTS,
    );
    let service = |selector: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "moving"},
            "spec": {"type": "LoadBalancer", "selector": selector, "ports": [{"name": "db", "port": 6379, "targetPort": 8080}]}})
    };
    let apply = async |object: Value| {
        services(lab)
            .patch("moving", &PatchParams::apply("landfall-lab").force(), &Patch::Apply(object))
            .await
    };
    apply(service(Value::Null)).await?;
    says_of(manual, "False", "NoSlice").await?;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "moving-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "moving"}},
        "ports": [{"name": "db", "port": 6379, "protocol": "TCP"}], "endpoints": [{"addresses": ["192.168.10.102"]}]});
    lab.apply_yaml(&slice.to_string())?;
    says_of(manual, "True", "Usable").await?;
    // Into the cluster: the slice by hand stays behind.
    apply(service(json!({"app": "inside"}))).await?;
    let message = says_of(mixed, "True", "MixedEndpoints").await?;
    let command = message.rsplit_once("run ").context("a command")?.1.to_owned();
    ensure!(command == "kubectl -n default delete endpointslices moving-1", "{command}");
    run_as_told(lab, &command)?;
    let is_clean = async || {
        let service = services(lab).get("moving").await?;
        ensure!(landfall_tests::services::condition(&service, mixed).is_none(), "{:?}", service.status);
        Ok(())
    };
    eventually(seconds(15), "it is well after the command", is_clean).await?;
    // And out again: what Kubernetes made for the selector stays behind.
    apply(service(Value::Null)).await?;
    says_of(manual, "False", "LeftOver").await?;
    lab.apply_yaml(&slice.to_string())?;
    let message = says_of(mixed, "True", "MixedEndpoints").await?;
    for command in message.rsplit_once("run ").context("a command")?.1.split(" && ") {
        run_as_told(lab, command)?;
    }
    eventually(seconds(15), "it is well after the commands", is_clean).await?;
    says_of(manual, "True", "Usable").await?;
    landfall_tests::services::delete(lab, "moving").await?;
    backends.delete(lab).await?;
    delete_pool(lab, "lan").await?;
    stop(lab, CONTROLLER);
    Ok(())
}

/// Runs a command that a condition tells.
fn run_as_told(lab: &Lab, command: &str) -> Result<()> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let arguments = words.strip_prefix(&["kubectl"]).context("no command for kubectl")?;
    lab.kubectl(arguments).map(|_| ())
}
