//! The table in the kernel is the one that was planned, and others may do what they like.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_crds::Protocol;
use landfall_speaker::drivers::filter_thread::FromFilter;
use landfall_speaker::drivers::nftables::Nftables;
use landfall_speaker::filter::frontend::{Claim, Frontend, Port, ServiceName};
use landfall_speaker::filter::{Action, Event, Filter as Mind, Holds, Stations};
use landfall_speaker::metrics::Metrics;
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::lan::{Filter, Lan, PORT, UNLISTED, VIP, guard, is_able};
use super::probe::{Sees, Server, udp};

/// A mind and its kernel, without a thread between them.
struct Direct {
    mind: Mind,
    kernel: Nftables,
    now: Instant,
    said: Vec<Action>,
}

impl Direct {
    fn new(kernel: Nftables) -> Self {
        Self { mind: Mind::new(), kernel, now: Instant::now(), said: Vec::new() }
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let mut out = Vec::new();
            for event in std::mem::take(&mut events) {
                self.mind.handle(self.now, event, &mut out);
            }
            for action in out {
                match action {
                    Action::Dump => events.push(self.kernel.dump()),
                    Action::Commit(transaction) => events.push(self.kernel.commit(&transaction)),
                    Action::Look => events.push(self.kernel.look()),
                    Action::Count { stale } => events.extend(self.kernel.count(&stale)),
                    other => self.said.push(other),
                }
            }
        }
    }

    /// Lets time pass until nothing is left to be done at once.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.now += Duration::from_millis(200);
            self.tell(Event::Deadline);
        }
    }

    /// What the kernel holds is what is wanted, element by element.
    fn compare(&mut self) {
        let Event::Dumped(Holds::Ours { table, .. }) = self.kernel.dump() else { panic!("no table of ours") };
        let wanted = self.mind.wanted().table();
        assert!(table.elements().eq(wanted.elements()), "kernel: {table:#?}\nwanted: {wanted:#?}");
        assert!(
            table.shape.covers(&wanted.needs())
                && wanted.needs().sets().count() == table.shape.sets().count()
        );
    }
}

/// How the table comes into being.
type Making = fn(Metrics) -> Nftables;

fn kernels() -> [(&'static str, Making); 2] {
    [("exclusive", Nftables::new), ("shared", Nftables::shared)]
}

fn any_events() -> impl Strategy<Value = Event> {
    let services = ["a/a", "a/b", "b/a"].map(ServiceName::from);
    let addresses: [IpAddr; 4] =
        ["192.168.10.50", "192.168.10.51", "fd00::50", "fd00::51"].map(|at| at.parse().unwrap());
    let nets = vec![
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.2.0/23",
        "192.0.2.7/32",
        "::/0",
        "fd00::/7",
        "fd00:1::/63",
        "2001:db8::1/128",
    ];
    let ports = [(Protocol::Tcp, 80), (Protocol::Udp, 80), (Protocol::Sctp, 7), (Protocol::Tcp, 443)]
        .map(|(protocol, number)| Port { protocol, number });
    let (guarded, claiming) = (services.clone(), services);
    let guards = (0..3_usize, subsequence(nets, 0..=5), 0..4_u16, any::<u8>());
    let guards = guards.prop_map(move |(which, ranges, node_ports, digest)| {
        let mut guard = guard(&digest.to_string(), &ranges);
        guard.node_ports = (0..node_ports)
            .map(|n| Port { protocol: Protocol::Tcp, number: 30_000 + 10 * which as u16 + n })
            .collect();
        Event::Guard(guarded[which].clone(), (digest > 40).then(|| Arc::new(guard)))
    });
    let frontends = (0..4_usize, subsequence(claiming.to_vec(), 0..=3), any::<[u8; 4]>(), any::<bool>());
    let frontends = frontends.prop_map(move |(which, services, owners, needs)| {
        let claims: Vec<_> = services
            .iter()
            .map(|service| Claim { service: service.clone(), guard: needs.then(|| "x".into()) })
            .collect();
        let owned = ports
            .iter()
            .zip(owners)
            .filter_map(|(port, owner)| Some((*port, services.get(usize::from(owner) % 4)?.clone())));
        Event::Frontend(addresses[which], Some(Arc::new(Frontend::new(claims, owned))))
    });
    let announcing =
        (0..4_usize, any::<bool>()).prop_map(move |(which, is)| Event::Announcing(addresses[which], is));
    prop_oneof![3 => guards, 3 => frontends, 1 => announcing]
}

#[tokio::test]
async fn whatever_is_asked_for_the_kernel_holds_it() {
    if !is_able() {
        return;
    }
    for (name, kernel) in kernels() {
        let lan = Lan::new(false).await;
        lan.node.within(|| ());
        let (metrics, _) = Metrics::new();
        let mut direct = Direct::new(kernel(metrics.clone()));
        direct.tell(Event::Stations(Stations::Node, BTreeSet::new()));
        direct.tell(Event::Frontends(Vec::new()));
        direct.tell(Event::Guards(Vec::new()));
        let mut runner = TestRunner::deterministic();
        for round in 0..60 {
            let events = prop::collection::vec(any_events(), 1..8).new_tree(&mut runner).unwrap().current();
            for event in events {
                direct.tell(event);
            }
            // Let what was released go as well, now and then.
            if round % 10 == 9 {
                direct.now += Duration::from_secs(20);
            }
            direct.settle();
            direct.compare();
            if round % 10 == 5 {
                // A new process goes on with the table of the old one.
                let (mut mind, kernel) = (Mind::new(), kernel(metrics.clone()));
                std::mem::swap(&mut mind, &mut direct.mind);
                direct.kernel = kernel;
                let wanted = mind.wanted();
                let frontends = wanted.frontends().iter().map(|(at, it)| (*at, Arc::clone(it))).collect();
                let guards = wanted.guards().iter().map(|(of, it)| (of.clone(), Arc::clone(it))).collect();
                direct.tell(Event::Stations(Stations::Node, BTreeSet::new()));
                direct.tell(Event::Frontends(frontends));
                direct.tell(Event::Guards(guards));
                direct.settle();
                direct.compare();
            }
        }
        let problems: Vec<_> = direct
            .said
            .iter()
            .filter(|said| matches!(said, Action::Health(health) if health.missing.is_some()))
            .collect();
        assert!(problems.is_empty(), "{name}: {problems:?}");
        // People can read it, and load again what they read.
        let listed = lan.node.nft("list table inet landfall\n");
        assert!(listed.contains("comment \"Landfall, layout 1\""), "{listed}");
        let count = |what: &str| listed.matches(what).count();
        assert_eq!(count("type filter hook"), 7, "{listed}");
        if name == "shared" {
            lan.node.nft("delete table inet landfall\n");
            lan.node.nft(&listed);
            assert_eq!(without_counts(&lan.node.nft("list table inet landfall\n")), without_counts(&listed));
        }
    }
}

fn without_counts(listed: &str) -> Vec<String> {
    let mut words: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
    // The order of elements is the kernel's own affair.
    words.sort();
    words
}

#[tokio::test]
async fn a_flush_by_others_lets_nobody_in_where_the_kernel_can_prevent_it() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let _server = Server::start(&lan.pod);
    let mut filter = Filter::with_ranges(&lan, &["10.1.0.0/16"]).await;
    let proxy = lan.node.nft("list table inet kube-proxy\n");
    lan.node.nft("flush ruleset\n");
    lan.node.nft(&proxy);
    assert_eq!(udp(&lan.client, UNLISTED[0], VIP[0], PORT), Sees::Nothing);
    std::thread::sleep(Duration::from_millis(600));
    let listed = lan.node.nft("list table inet landfall\n");
    assert!(listed.contains("192.168.10.50"), "{listed}");
    if lan.node.nft("list tables\n").contains("landfall") && filter.said.try_recv().is_err() {
        eprintln!("the kernel kept the table");
    }
}

#[tokio::test]
async fn a_table_that_a_former_process_left_is_kept_from_others_too() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let delete = || {
        let status =
            lan.node.within(|| Command::new("nft").args(["delete", "table", "inet", "landfall"]).status());
        status.unwrap().success()
    };
    let former = Filter::with_ranges(&lan, &["10.1.0.0/16"]).await;
    if delete() {
        eprintln!("SKIPPED: this kernel keeps no table from others");
        return;
    }
    drop(former);
    std::thread::sleep(Duration::from_millis(400));
    let mut next = Filter::with_ranges(&lan, &["10.1.0.0/16"]).await;
    std::thread::sleep(Duration::from_millis(400));
    assert!(!delete(), "the next process has not taken it over");
    while let Ok(said) = next.said.try_recv() {
        assert!(!matches!(said, FromFilter::Vanished), "it was there all the time");
    }
}

#[tokio::test]
async fn a_table_that_was_flushed_is_there_again_within_a_second() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let _server = Server::start(&lan.pod);
    let mut filter = Filter::shared_with_ranges(&lan, &["10.1.0.0/16"]).await;
    let proxy = lan.node.nft("list table inet kube-proxy\n");
    for round in 0..3 {
        std::thread::sleep(Duration::from_millis(400));
        let start = Instant::now();
        lan.node.nft("flush ruleset\n");
        lan.node.nft(&proxy);
        filter.until(|said| matches!(said, FromFilter::Vanished)).await;
        filter.is_guarded(&[VIP[0]], "1").await;
        let took = start.elapsed();
        eprintln!("there again after {took:?}");
        assert!(took < Duration::from_secs(1));
        assert_eq!(udp(&lan.client, UNLISTED[0], VIP[0], PORT), Sees::Nothing);
        assert_eq!(filter.metric("landfall_speaker_filter_vanished_total"), round + 1);
    }
}

#[tokio::test]
async fn a_table_of_the_same_name_that_is_none_of_ours_is_replaced() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let _server = Server::start(&lan.pod);
    lan.node.nft("table inet landfall {\n set addresses4 { type ipv4_addr; }\n chain x { type filter hook prerouting priority 0; udp dport 80 drop\n }\n }\n");
    let _filter = Filter::with_ranges(&lan, &["10.1.0.0/16"]).await;
    assert_eq!(udp(&lan.client, super::lan::LISTED[0], VIP[0], PORT), Sees::Answer);
    assert_eq!(udp(&lan.client, UNLISTED[0], VIP[0], PORT), Sees::Nothing);
    assert!(!lan.node.nft("list table inet landfall\n").contains("chain x"));
}

#[tokio::test]
async fn cleaning_up_removes_the_table_and_nothing_else_does() {
    if !is_able() {
        return;
    }
    use landfall_speaker::drivers::cleanup::{self, Cleanup};
    let lan = Lan::new(false).await;
    let clean_up = || lan.node.within(cleanup::run);
    assert_eq!(clean_up().unwrap(), Cleanup::Nothing);
    let filter = Filter::with_ranges(&lan, &["10.1.0.0/16"]).await;
    let error = clean_up().unwrap_err().to_string();
    assert!(error.contains("stop the speaker"), "{error}");
    drop(filter);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(clean_up().unwrap(), Cleanup::Removed);
    assert!(!lan.node.nft("list tables\n").contains("landfall"));
}
