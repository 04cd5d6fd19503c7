//! What becomes of those who are not served: told at once, or not answered at all.

use std::time::{Duration, Instant};

use landfall_speaker::drivers::filter_thread::FromFilter;
use landfall_speaker::filter::Event;

use super::lan::{
    EMPTY_PORT, Filter, LISTED, Lan, NODE, NODE_PORT, PORT, UNCLAIMED_PORT, UNLISTED, VIP, is_able,
};
use super::probe::{PATIENCE, Sees, Server, ping, tcp, udp};

const INSIDE: [&str; 2] = ["10.1.0.0/16", "fd01::/64"];

#[tokio::test]
async fn ports_that_nobody_serves_refuse_at_once_whoever_may_come_in() {
    if !is_able() {
        return;
    }
    for has_route in [false, true] {
        let lan = Lan::new(false).await;
        if has_route {
            lan.node.route_on("192.168.10.0/24", "lan0").await;
            lan.node.route_on("fd00::/64", "lan0").await;
        }
        let _server = Server::start(&lan.pod);
        let _filter = Filter::with_ranges(&lan, &INSIDE).await;
        for family in [0, 1] {
            // One that kube-proxy leads somewhere though nobody claims it, one behind which there is no
            // pod, and one of which nobody knows.
            for port in [UNCLAIMED_PORT, EMPTY_PORT, 7777] {
                for probe in [tcp, udp] {
                    let start = Instant::now();
                    let seen = probe(&lan.client, LISTED[family], VIP[family], port);
                    assert_eq!(seen, Sees::Refusal, "{} port {port}, route: {has_route}", VIP[family]);
                    assert!(start.elapsed() < PATIENCE / 2, "at once");
                    assert_eq!(probe(&lan.client, UNLISTED[family], VIP[family], port), Sees::Nothing);
                }
            }
        }
    }
}

#[tokio::test]
async fn the_node_itself_is_refused_at_once_too() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(true).await;
    lan.node.route_on("192.168.10.0/24", "lan0").await;
    lan.node.route_on("fd00::/64", "lan0").await;
    let _filter = Filter::with_ranges(&lan, &INSIDE).await;
    for family in [0, 1] {
        for port in [UNCLAIMED_PORT, EMPTY_PORT] {
            assert_eq!(tcp(&lan.node, NODE[family], VIP[family], port), Sees::Refusal, "{port}");
        }
    }
}

#[tokio::test]
async fn the_announcer_answers_pings_of_those_who_may_come_in() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let filter = Filter::with_ranges(&lan, &INSIDE).await;
    for family in [0, 1] {
        assert_eq!(ping(&lan.client, LISTED[family], VIP[family], 1), None, "it is not announced");
        filter.thread.tell(Event::Announcing(VIP[family].parse().unwrap(), true));
    }
    std::thread::sleep(Duration::from_millis(300));
    for family in [0, 1] {
        for number in 0..5 {
            let took = ping(&lan.client, LISTED[family], VIP[family], number);
            eprintln!("{} answered after {took:?}", VIP[family]);
            assert!(took.is_some());
        }
        assert_eq!(ping(&lan.client, UNLISTED[family], VIP[family], 9), None);
    }
    assert_eq!(filter.metric("landfall_speaker_pings_answered_total"), 10);
}

#[tokio::test]
async fn that_somebody_is_refused_is_told_and_counted() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let _server = Server::start(&lan.pod);
    let mut filter = Filter::with_ranges(&lan, &INSIDE).await;
    // The socket by which packets are told of is opened beside all else.
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    assert_eq!(udp(&lan.client, UNLISTED[0], VIP[0], PORT), Sees::Nothing);
    let mut told = None;
    filter
        .until(|said| {
            if let FromFilter::Notice(notice) = said {
                told = Some(notice.clone());
            }
            told.is_some()
        })
        .await;
    eprintln!("told after {:?}", start.elapsed() - PATIENCE);
    let expected =
        "203.0.113.2 is refused at udp/80 of 192.168.10.50: the source ranges of shop/web do not hold it";
    assert_eq!(told.unwrap().to_string(), expected);
    for _ in 0..4 {
        assert_eq!(udp(&lan.client, LISTED[0], VIP[0], PORT), Sees::Answer);
        assert_eq!(udp(&lan.client, UNLISTED[0], NODE[0], NODE_PORT), Sees::Nothing);
        assert_eq!(udp(&lan.client, LISTED[0], NODE[0], NODE_PORT), Sees::Answer);
    }
    let counted = |address: &str, verdict: &str| {
        filter.metric(&format!(
            "landfall_speaker_filter_packets_total{{address=\"{address}\",namespace=\"shop\",service=\"web\",verdict=\"{verdict}\"}}"
        ))
    };
    let start = Instant::now();
    while counted("nodePort", "Allowed") == 0 && start.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(counted(VIP[0], "Allowed"), 4);
    assert_eq!(counted(VIP[0], "Refused"), 1);
    assert_eq!(counted("nodePort", "Allowed"), 4);
    assert_eq!(counted("nodePort", "Refused"), 4);
}

#[tokio::test]
async fn a_flood_of_refused_packets_is_told_of_a_few_times_only() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let filter = Filter::with_ranges(&lan, &INSIDE).await;
    let socket = super::probe::udp_socket(&lan.client, UNLISTED[0], VIP[0], PORT);
    for _ in 0..5_000 {
        let _ = socket.send(b"flood");
    }
    let listed = lan.node.nft("list set inet landfall refused4\n");
    assert!(listed.contains("192.168.10.50") && listed.contains("packets 5000"), "{listed}");
    drop(filter);
}
