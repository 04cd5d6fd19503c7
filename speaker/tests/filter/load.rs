//! How long it takes with as many Services as there ever are: prints figures, and asserts nothing but that they
//! are no disgrace. Run by `cargo test --release -p landfall-speaker --test filter -- --ignored --nocapture`.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_crds::Protocol;
use landfall_speaker::drivers::filter_thread::FromFilter;
use landfall_speaker::filter::Event;
use landfall_speaker::filter::frontend::{Claim, Frontend, Guard, Port, ServiceName};
use landfall_speaker::filter::sources::Sources;

use super::lan::{Filter, Lan, is_able};

const RANGES: u32 = 10;

fn service(n: u32) -> ServiceName {
    ServiceName::new("load", &format!("s{n}"))
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a64_0000 + n).into()
}

fn serves(n: u32, digest: &str) -> Arc<Frontend> {
    let claim = Claim { service: service(n), guard: Some(digest.into()) };
    Arc::new(Frontend::new(vec![claim], [(Port { protocol: Protocol::Tcp, number: 80 }, service(n))]))
}

fn lets_in(n: u32, digest: &str, shift: u32) -> Arc<Guard> {
    let net = |k: u32| format!("{}/24", Ipv4Addr::from_bits(0x2000_0000 + ((n * RANGES + k + shift) << 8)));
    let ranges: Vec<String> = (0..RANGES).map(net).collect();
    Arc::new(Guard {
        digest: digest.to_owned(),
        sources: Sources::parse(ranges.iter().map(String::as_str)).unwrap(),
        ranges,
        // As many as there are nodePorts by default, and then none.
        node_ports: (n < 2767)
            .then(|| Port { protocol: Protocol::Tcp, number: 30_000 + n as u16 })
            .into_iter()
            .collect(),
        ..Guard::default()
    })
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
}

fn nft_call(lan: &Lan) -> Duration {
    let start = Instant::now();
    lan.node.within(|| {
        let status =
            Command::new("nft").args(["add", "element", "ip", "other", "m", "{ 192.0.2.1 : drop }"]).status();
        assert!(status.unwrap().success());
    });
    start.elapsed()
}

#[tokio::test]
#[ignore = "prints figures; takes a minute"]
async fn figures_with_ten_thousand_services_of_ten_ranges() {
    if !is_able() {
        return;
    }
    for count in [1, 1_000, 10_000] {
        let lan = Lan::new(false).await;
        lan.node.nft("add table ip other\nadd map ip other m { type ipv4_addr : verdict; }\n");
        let others_before = (0..5).map(|_| nft_call(&lan)).min().unwrap();
        let mut filter = Filter::start(&lan);
        let before = memory();
        let frontends = (0..count).map(|n| (address(n), serves(n, "1"))).collect();
        let guards = (0..count).map(|n| (service(n), lets_in(n, "1", 0))).collect();
        let start = Instant::now();
        filter.thread.tell(Event::Frontends(frontends));
        filter.thread.tell(Event::Guards(guards));
        let mut guarded = 0;
        filter
            .until(|said| {
                if let FromFilter::Guarded(list) = said {
                    guarded += list.len();
                }
                guarded >= count as usize
            })
            .await;
        println!(
            "{count} Services of {RANGES} ranges: loaded in {:?}; memory {before} -> {}",
            start.elapsed(),
            memory()
        );
        let mut changes = Vec::new();
        for round in 0..20 {
            std::thread::sleep(Duration::from_millis(150));
            let n = (round * 37) % count;
            let digest = format!("c{round}");
            let start = Instant::now();
            filter.thread.tell(Event::Guard(service(n), Some(lets_in(n, &digest, 100_000))));
            filter.thread.tell(Event::Frontend(address(n), Some(serves(n, &digest))));
            let at = address(n);
            filter
                .until(|said| matches!(said, FromFilter::Guarded(list) if list.iter().any(|it| it.address == at && it.by.as_deref() == Some(&digest))))
                .await;
            changes.push(start.elapsed());
        }
        changes.sort();
        println!("  one Service's ten ranges replaced: median {:?}, worst {:?}", changes[10], changes[19]);
        let others_after = (0..5).map(|_| nft_call(&lan)).min().unwrap();
        println!("  another's `nft add element`: {others_before:?} before, {others_after:?} with the table");
        let start = Instant::now();
        drop(filter);
        std::thread::sleep(Duration::from_millis(200));
        let mut next = Filter::start(&lan);
        let frontends = (0..count).map(|n| (address(n), serves(n, "1"))).collect();
        let guards = (0..count).map(|n| (service(n), lets_in(n, "1", 0))).collect();
        let taken_over = Instant::now();
        next.thread.tell(Event::Frontends(frontends));
        next.thread.tell(Event::Guards(guards));
        let mut guarded = 0;
        next.until(|said| {
            if let FromFilter::Guarded(list) = said {
                guarded += list.len();
            }
            guarded >= count as usize
        })
        .await;
        println!(
            "  taken over by the next speaker in {:?} ({:?} with its start)",
            taken_over.elapsed(),
            start.elapsed()
        );
    }
}
