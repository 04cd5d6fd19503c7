//! An address is given on only when nobody answers any more for the Service that had it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use landfall_crds::names::conditions::{GRANTED, SERVICE_ANNOUNCED};
use landfall_tests::{
    backend::{Backends, Service},
    lab::{
        Lab, LanClient, Node, eventually,
        landfall::{CONTROLLER, NAMESPACE},
        probe::Request,
        seconds, steadily,
    },
    services::{
        addresses, announcer, condition, delete, delete_pool, granted, in_words, no_address_is_left, pool,
        says, services, virtual_ip, virtual_ips,
    },
    story::Story,
};
use serde_json::{Value, json};

use crate::landfall::{self, BYSTANDER};

/// How long a release waits for the announcer's word where nothing else is said (`--withdrawal-bound`).
const BOUND: Duration = Duration::from_secs(10);
/// How soon after a grant the address is answered for its new Service, though a node that was not told
/// still answers for the former one.
const TAKEOVER: Duration = Duration::from_secs(5);
/// How long two nodes may answer, as in any handover.
const LONGEST_SPLIT: Duration = Duration::from_secs(1);
/// How soon a node is up to date again after its way to the API server is back: its connections notice.
const RECOVERY: Duration = Duration::from_secs(60);

pub(crate) fn stories() -> Vec<Story> {
    vec![
        Story::new(
            "release: an address that a node cut off from the API server holds is granted anew after the bound, and \
         then another answers alone",
            deleted_while_cut_off,
        ),
        Story::new(
            "release: an address that is kept for another Service waits for a node that is cut off as well",
            kept_for_another,
        ),
    ]
}

async fn deleted_while_cut_off(lab: &Lab) -> Result<()> {
    let story = CutOff::begin(lab, "former", "192.168.10.240").await?;
    let released = Instant::now();
    services(lab).delete("former", &DeleteParams::default()).await?;
    story.given_on("latter", released).await?;
    ensure!(services(lab).get_opt("former").await?.is_none(), "the former Service is gone");
    story.end("latter").await
}

async fn kept_for_another(lab: &Lab) -> Result<()> {
    let story = CutOff::begin(lab, "before", "192.168.10.241").await?;
    let reservation = json!({"spec": {"reservation": {"namespace": "default", "name": "after"}}});
    let name = landfall_crds::virtual_ip_name(story.address);
    virtual_ips(lab).patch(&name, &PatchParams::default(), &Patch::Merge(reservation)).await?;
    let released = Instant::now();
    Service::new("before", "web").node_port().apply(lab).await?;
    story.given_on("after", released).await?;
    ensure!(addresses(&services(lab).get("before").await?).is_empty(), "a NodePort has no address");
    delete(lab, "before").await?;
    let drop = json!([{"op": "remove", "path": "/spec/reservation"}]);
    let drop: Patch<Value> = Patch::Json(serde_json::from_value(drop)?);
    virtual_ips(lab).patch(&name, &PatchParams::default(), &drop).await?;
    story.end("after").await
}

/// A Service with an address that a node announces, and that node cut off from the API server.
struct CutOff<'a> {
    lab: &'a Lab,
    address: IpAddr,
    /// The node.
    node: &'a Node,
    /// Which Service answers is told from here.
    client: &'a LanClient,
}

impl<'a> CutOff<'a> {
    async fn begin(lab: &'a Lab, service: &str, address: &str) -> Result<Self> {
        landfall::installed(lab).await?;
        Backends::new("other", 2).on(BYSTANDER).deploy(lab).await?;
        // The node that will be cut off is not the controller's: this is no story of an election. Nor is it one of
        // evening out, so two nodes are left: with a third, the controller may have that take the address in the end.
        let leader = leader(lab)?;
        let third = if leader == BYSTANDER { "n3".to_owned() } else { leader };
        let spec = json!({
            "addresses": ["192.168.10.240/31"],
            "autoAssign": false,
            "announce": {"nodeSelector": {"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [third]},
            ]}},
        });
        pool(lab, "given-on", &spec).await?;
        single(service, "web", address).apply(lab).await?;
        let address = granted(lab, service, 1).await?[0];
        let client = lab.lan_client("c1")?;
        answers(client, address, "web-", seconds(10)).await?;
        let node = announcer(lab, address).await?;
        lab.switch().cut_from_api(node.name())?;
        eprintln!("release: {address} is announced by {}, which is cut off", node.name());
        Ok(Self { lab, address, node, client })
    }

    /// The former Service was released at `released`, and `latter` asks for its address.
    async fn given_on(&self, latter: &str, released: Instant) -> Result<()> {
        let Self { lab, address, node, client } = *self;
        let watch = lab.lan_client("c2")?.watch(address, Duration::from_millis(20));
        single(latter, "other", &address.to_string()).apply(lab).await?;
        let mut reasons = BTreeSet::new();
        let after = eventually(BOUND + seconds(15), "it is granted anew", async || {
            let service = services(lab).get(latter).await?;
            let said = condition(&service, GRANTED);
            reasons.extend(said.iter().map(|condition| condition.reason.clone()));
            ensure!(addresses(&service) == [address], "{:?}", said.as_ref().map(in_words));
            Ok(released.elapsed())
        })
        .await?;
        let reached = answers(client, address, "other-", TAKEOVER).await;
        let takeover = released.elapsed() - after;
        let seen = watch.finish()?;
        let spec = virtual_ip(lab, address).await?.context("the VirtualIP")?.spec;
        let ranking: Vec<String> = spec
            .placement
            .into_iter()
            .flat_map(|placement| placement.candidates)
            .map(|node| node.node)
            .collect();
        eprintln!(
            "release: granted anew after {after:?} to {ranking:?}, reached {takeover:?} later; {:?} answered, two of \
             them for {:?}",
            seen.answerers(),
            seen.longest_split()
        );
        ensure!(seen.answerers().contains_key(&node.mac()), "{} did not answer meanwhile", node.name());
        ensure!(after >= BOUND, "granted {after:?} after its release, while {} answered", node.name());
        ensure!(reasons.contains("AddressTaken"), "until then it waits and says why: {reasons:?}");
        reached?;
        ensure!(seen.longest_split() < LONGEST_SPLIT, "two answered for {:?}", seen.longest_split());
        steadily(seconds(3), "one node answers, for the new Service", async || self.is_given_on().await)
            .await?;
        says(lab, latter, SERVICE_ANNOUNCED, "True", "Announced").await.map(|_| ())
    }

    /// One node answers for the address, not the one that was cut off, and leads to the new Service.
    async fn is_given_on(&self) -> Result<()> {
        let Self { lab, address, node, client } = *self;
        let macs = lab.lan_client("c2")?.who_has(address, Duration::from_millis(200))?;
        let owner = announcer(lab, address).await?;
        ensure!(macs.iter().eq([&owner.mac()]), "{macs:?} answer, {} is the announcer", owner.name());
        ensure!(owner.name() != node.name(), "{} has it", node.name());
        let answer = client.ask(Request::tcp(SocketAddr::from((address, 80))))?;
        ensure!(answer.pod.starts_with("other-"), "{answer:?} answers");
        Ok(())
    }

    /// The node reaches the API server again, learns what it missed, and disturbs nobody.
    async fn end(self, latter: &str) -> Result<()> {
        let Self { lab, address, node, .. } = self;
        let owner = announcer(lab, address).await?;
        let watch = lab.lan_client("c2")?.watch(address, Duration::from_millis(20));
        lab.switch().heal_way_to_api(node.name())?;
        let healed = Instant::now();
        // An address that only this node can announce: when it does, it knows of all that came before.
        let spec = json!({
            "addresses": ["192.168.10.242/32"],
            "autoAssign": false,
            "announce": {"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": node.name()}}},
        });
        pool(lab, "healed", &spec).await?;
        single("healed", "web", "192.168.10.242").apply(lab).await?;
        eventually(RECOVERY, "the node announces again what it is told to", async || {
            let object = virtual_ip(lab, "192.168.10.242".parse()?).await?.context("no VirtualIP yet")?;
            let announcer =
                object.status.and_then(|status| status.announcer).context("nobody announces it")?;
            ensure!(announcer.node == node.name(), "{announcer:?}");
            Ok(())
        })
        .await?;
        eprintln!("release: {} is up to date after {:?}", node.name(), healed.elapsed());
        steadily(seconds(3), "one node answers, for the new Service", async || self.is_given_on().await)
            .await?;
        let seen = watch.finish()?;
        ensure!(seen.answerers().keys().eq([&owner.mac()]), "{:?} answered", seen.answerers());
        for name in ["healed", latter] {
            delete(lab, name).await?;
            no_address_is_left(lab, name).await?;
        }
        delete_pool(lab, "healed").await?;
        delete_pool(lab, "given-on").await?;
        lab.nodes_ready().await
    }
}

/// A Service in front of these backends that asks for exactly this address.
fn single(name: &str, app: &str, address: &str) -> Service {
    Service::new(name, app)
        .load_balancer()
        .spec("ipFamilyPolicy", json!("SingleStack"))
        .spec("loadBalancerIP", json!(address))
}

/// Waits until a pod of this name answers through the address.
async fn answers(client: &LanClient, address: IpAddr, pod: &str, limit: Duration) -> Result<()> {
    eventually(limit, &format!("a pod {pod}… answers at {address}"), async || {
        let answer = client.ask(Request::tcp(SocketAddr::from((address, 80))).within(seconds(1)))?;
        ensure!(answer.pod.starts_with(pod), "{answer:?}");
        Ok(())
    })
    .await
}

/// The node on which the leading controller runs.
fn leader(lab: &Lab) -> Result<String> {
    let get = |what: [&str; 2], path: &str| {
        lab.kubectl(&["-n", NAMESPACE, "get", what[0], what[1], "-o", &format!("jsonpath={path}")])
    };
    let holder = get(["lease", CONTROLLER], "{.spec.holderIdentity}")?;
    // The identity begins with the pod's name.
    let pods = get(
        ["pods", "-lapp.kubernetes.io/name=landfall-controller"],
        "{range .items[*]}{.metadata.name} {.spec.nodeName}\n{end}",
    )?;
    let of_leader = pods.lines().filter_map(|line| line.split_once(' '));
    let node =
        of_leader.into_iter().find(|(pod, _)| holder.starts_with(pod)).map(|(_, node)| node.to_owned());
    node.with_context(|| format!("{holder:?} leads, and the pods are {pods:?}"))
}
