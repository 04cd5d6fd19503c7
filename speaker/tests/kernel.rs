//! The drivers against a real kernel: two network namespaces and a wire between them. On our end runs a
//! speaker's mind with its real sockets; on the other end is nothing but Linux, as a client on the LAN is.
//!
//! Needs root; without, each test says that it is skipped.

// Helpers of tests may panic as tests do, and the story runs in real time.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use landfall_crds::Fallback;
use landfall_speaker::drivers::direct;
use landfall_speaker::drivers::lan_thread::{FromLan, LanThread};
use landfall_speaker::drivers::netlink::{self, Network};
use landfall_speaker::lan::{Link, LinkIndex, MacAddr, PeerInfo, PeerLink, Vip};
use landfall_speaker::metrics::Metrics;
use landfall_speaker::mind::{Config, Event, Mind, Report};
use landfall_speaker::sys::datagram::DatagramSocket;
use landfall_speaker::sys::groups::Groups;
use landfall_speaker::sys::packet::{PacketSocket, Receives};
use landfall_speaker::wire::arp::{ArpRepr, Operation};
use landfall_speaker::wire::ethernet::Frame;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::{LinkVeth, RouteMessageBuilder};
use tokio::sync::{mpsc, watch};
use wire::{End, LIMIT, OTHER_MAC, OUR_MAC, Wire, is_root};

mod wire;

const PORT: u16 = 7931;

impl End {
    /// What the kernel holds for the MAC address of a neighbour.
    async fn neighbour(&self, address: IpAddr) -> Option<Vec<u8>> {
        let mut neighbours = self.handle.neighbours().get().execute();
        while let Some(message) = neighbours.try_next().await.unwrap() {
            let (mut is_it, mut mac) = (false, None);
            for attribute in &message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => is_it = address == *v4,
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => is_it = address == *v6,
                    NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(bytes.clone()),
                    _ => {}
                }
            }
            if is_it {
                return mac;
            }
        }
        None
    }

    /// Waits until the neighbour has the MAC address.
    async fn neighbour_becomes(&self, address: IpAddr, mac: MacAddr) {
        let start = Instant::now();
        while self.neighbour(address).await.as_deref() != Some(&mac.0[..]) {
            let now = self.neighbour(address).await;
            assert!(start.elapsed() < LIMIT, "{address} is at {now:?}, not at {mac}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Has the kernel look for a neighbour, as a client's first packet does.
    fn send_something_to(&self, address: IpAddr) {
        self.enter();
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(any).unwrap().send_to(b"hello", (address, 9)).unwrap();
    }
}

impl Wire {
    fn our_link(&self) -> Link {
        Link {
            index: LinkIndex(self.ours.link),
            name: "lan0".into(),
            mac: OUR_MAC,
            carrier: true,
            addresses: vec!["192.168.10.11/24".parse().unwrap(), "fd00::11/64".parse().unwrap()],
        }
    }
}

fn vip(address: &str) -> Vip {
    Vip {
        address: address.parse().unwrap(),
        claimed: true,
        epoch: 1,
        candidates: vec!["n1".into()],
        interfaces: Vec::new(),
        fallback: Fallback::None,
        health_checks: Vec::new(),
        guard: None,
        last_term: 1,
        announced_before: true,
    }
}

/// Starts a speaker's thread at our end.
async fn speaker(wire: &Wire) -> (LanThread, mpsc::Receiver<FromLan>) {
    wire.ours.enter();
    let (metrics, _) = Metrics::new();
    let mind = Mind::new(Config::new("n1".into(), 1));
    let (lan, reports) = LanThread::start(mind, PORT, metrics).unwrap();
    lan.send(Event::Links(vec![wire.our_link()])).await.unwrap();
    lan.begin(None).await.unwrap();
    lan.send(Event::Peers(Vec::new())).await.unwrap();
    (lan, reports)
}

/// Starts another process of the same node beside it, which knows all that there is to know.
async fn successor(wire: &Wire, vips: Vec<Vip>) -> (LanThread, mpsc::Receiver<FromLan>) {
    wire.ours.enter();
    let mind = Mind::new(Config::new("n1".into(), 2));
    let (lan, reports) = LanThread::start(mind, PORT, Metrics::new().0).unwrap();
    lan.send(Event::Peers(Vec::new())).await.unwrap();
    lan.send(Event::Vips(vips)).await.unwrap();
    lan.send(Event::Links(vec![wire.our_link()])).await.unwrap();
    (lan, reports)
}

async fn until(reports: &mut mpsc::Receiver<FromLan>, mut is_it: impl FnMut(&FromLan) -> bool) {
    let wait = async {
        while let Some(said) = reports.recv().await {
            if is_it(&said) {
                return;
            }
        }
        panic!("the thread has ended");
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap();
}

fn announces(said: &FromLan, wanted: &str) -> bool {
    let FromLan::Told(told) = said else { return false };
    matches!(told.report, Report::Announcing { address, .. } if address == wanted.parse::<IpAddr>().unwrap())
}

#[tokio::test]
async fn a_client_of_the_lan_finds_the_addresses_that_are_announced() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    let (lan, mut reports) = speaker(&wire).await;
    until(&mut reports, |said| matches!(said, FromLan::Sockets(problems) if problems.is_empty())).await;
    lan.send(Event::Vips(vec![vip("192.168.10.50"), vip("fd00::50")])).await.unwrap();
    let mut missing = BTreeSet::from(["192.168.10.50", "fd00::50"]);
    until(&mut reports, |said| {
        missing.retain(|address| !announces(said, address));
        missing.is_empty()
    })
    .await;
    for address in ["192.168.10.50", "fd00::50"] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(wire.theirs.neighbour(address).await, None, "a gratuitous frame creates no entry");
        let start = Instant::now();
        wire.theirs.send_something_to(address);
        wire.theirs.neighbour_becomes(address, OUR_MAC).await;
        eprintln!("{address} was found after {:?}", start.elapsed());
    }
    let not_ours: IpAddr = "192.168.10.51".parse().unwrap();
    wire.theirs.send_something_to(not_ours);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(wire.theirs.neighbour(not_ours).await, None, "nothing else is answered for");
}

#[tokio::test]
async fn a_client_that_knew_the_announcer_before_learns_of_a_takeover() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    let before = MacAddr([2, 0, 0, 0, 0, 7]);
    let addresses: [IpAddr; 2] = ["192.168.10.50".parse().unwrap(), "fd00::50".parse().unwrap()];
    for address in addresses {
        let entry = wire.theirs.handle.neighbours().add(wire.theirs.link, address);
        let entry = entry.link_layer_address(&before.0).state(NeighbourState::Reachable);
        entry.execute().await.unwrap();
        wire.theirs.neighbour_becomes(address, before).await;
    }
    let (lan, mut reports) = speaker(&wire).await;
    lan.send(Event::Vips(vec![vip("192.168.10.50"), vip("fd00::50")])).await.unwrap();
    until(&mut reports, |said| announces(said, "fd00::50")).await;
    for address in addresses {
        wire.theirs.neighbour_becomes(address, OUR_MAC).await;
    }
}

#[tokio::test]
async fn no_question_goes_unanswered_while_one_process_goes_on_in_the_place_of_another() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    let vips = vec![vip("192.168.10.50")];
    let (first, mut reports) = speaker(&wire).await;
    first.send(Event::Vips(vips.clone())).await.unwrap();
    until(&mut reports, |said| announces(said, "192.168.10.50")).await;
    let (next, mut next_reports) = successor(&wire, vips).await;
    wire.theirs.enter();
    let asker = PacketSocket::open(LinkIndex(wire.theirs.link), Receives::Arp).unwrap();
    // Each question names another asker, so that each answer tells its question.
    let question = |number: u16| ArpRepr {
        operation: Operation::Request,
        sha: OTHER_MAC,
        spa: Ipv4Addr::from_bits(0xc0a8_0000 + 0x1_0000 + u32::from(number)),
        tha: MacAddr::ZERO,
        tpa: "192.168.10.50".parse().unwrap(),
    };
    let mut unanswered = BTreeSet::new();
    let mut left = None;
    let hear = |unanswered: &mut BTreeSet<Ipv4Addr>| {
        let mut buffer = [0; 128];
        while let Ok(Some(got)) = asker.receive(&mut buffer) {
            if let Ok(answer) = Frame::new_checked(got.frame).and_then(|frame| ArpRepr::parse_frame(&frame)) {
                unanswered.remove(&answer.tpa);
            }
        }
    };
    for number in 0..3000 {
        let question = question(number);
        unanswered.insert(question.spa);
        asker.send(&question.emit_frame(MacAddr::BROADCAST)).unwrap();
        tokio::time::sleep(Duration::from_micros(200)).await;
        hear(&mut unanswered);
        match number {
            1000 => {
                while reports.try_recv().is_ok() {}
                next.drain().await.unwrap();
                first.send(Event::Cede).await.unwrap();
            }
            1001.. if left.is_none() => {
                if let Ok(FromLan::Ceded(inheritance)) = reports.try_recv() {
                    left = Some(());
                    next.begin(Some(inheritance)).await.unwrap();
                }
            }
            _ => {}
        }
    }
    assert!(left.is_some(), "the first one has left nothing");
    until(&mut next_reports, |said| announces(said, "192.168.10.50")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    hear(&mut unanswered);
    assert_eq!(unanswered, BTreeSet::new(), "questions without an answer");
}

#[tokio::test]
async fn a_candidate_listens_for_solicitations_before_it_announces() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    let (lan, _reports) = speaker(&wire).await;
    let mut second = vip("fd00::ab:cdef");
    second.candidates = vec!["n0".into(), "n1".into()];
    let peer = PeerLink {
        mac: OTHER_MAC,
        subnets: vec!["192.168.10.0/24".parse().unwrap()],
        addresses: vec!["192.168.10.99".parse().unwrap()],
        address: Some("192.168.10.99".parse().unwrap()),
    };
    lan.send(Event::Peers(vec![PeerInfo { node: "n0".into(), links: vec![peer] }])).await.unwrap();
    lan.send(Event::Vips(vec![second])).await.unwrap();
    wire.ours.enter();
    let start = Instant::now();
    // The solicited-node group of fd00::ab:cdef, as the kernel writes it.
    while !std::fs::read_to_string("/proc/thread-self/net/igmp6")
        .unwrap()
        .contains("ff0200000000000000000001ffabcdef")
    {
        assert!(start.elapsed() < LIMIT, "the group is not joined");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn as_many_groups_are_joined_as_there_are_addresses() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    let mut groups = Groups::default();
    for n in 0..5_000_u128 {
        let group = Ipv6Addr::from_bits("ff02::1:ff00:0".parse::<Ipv6Addr>().unwrap().to_bits() + n);
        groups.join(LinkIndex(wire.ours.link), group).unwrap();
        groups.join(LinkIndex(wire.ours.link), group).unwrap();
    }
    assert_eq!(groups.len(), 5_000);
    let listed = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    assert!(listed.lines().filter(|line| line.contains("lan0")).count() >= 5_000);
}

#[tokio::test]
async fn datagrams_carry_a_ttl_of_255_and_say_so_on_arrival() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    for (ours, theirs) in
        [("192.168.10.11", "192.168.10.99"), ("fd00::11", "fd00::99"), ("fe80::ff:fe00:1", "fe80::ff:fe00:9")]
    {
        let (ours, theirs): (IpAddr, IpAddr) = (ours.parse().unwrap(), theirs.parse().unwrap());
        wire.ours.enter();
        let near = DatagramSocket::open(LinkIndex(wire.ours.link), "lan0", ours, PORT).unwrap();
        wire.theirs.enter();
        let far = DatagramSocket::open(LinkIndex(wire.theirs.link), "lan1", theirs, PORT).unwrap();
        near.send(theirs, b"alive").unwrap();
        let mut buffer = [0; 64];
        let start = Instant::now();
        let (from, ttl, payload) = loop {
            match far.receive(&mut buffer) {
                Ok(Some(received)) => break (received.from, received.ttl, received.payload.to_vec()),
                Ok(None) => panic!("no TTL"),
                Err(_) => assert!(start.elapsed() < LIMIT, "nothing came"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!((from, ttl, payload.as_slice()), (ours, 255, &b"alive"[..]));
    }
}

#[tokio::test]
async fn a_kernel_says_where_nobody_listens() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    for (ours, theirs) in [("192.168.10.11", "192.168.10.99"), ("fd00::11", "fd00::99")] {
        let (ours, theirs): (IpAddr, IpAddr) = (ours.parse().unwrap(), theirs.parse().unwrap());
        wire.ours.enter();
        let socket = DatagramSocket::open(LinkIndex(wire.ours.link), "lan0", ours, PORT).unwrap();
        assert!(socket.source_port() >= 49_152, "RFC 5881 section 4");
        assert_eq!(socket.nobody_listens().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        let start = Instant::now();
        while !matches!(socket.nobody_listens(), Ok(Some(to)) if to == theirs) {
            assert!(start.elapsed() < LIMIT, "nothing was said of {theirs}");
            socket.send(theirs, b"alive?").unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What came of earlier ones hinders no later one.
        wire.theirs.enter();
        let far = DatagramSocket::open(LinkIndex(wire.theirs.link), "lan1", theirs, PORT).unwrap();
        socket.send(theirs, b"alive!").unwrap();
        let mut buffer = [0; 64];
        let start = Instant::now();
        while !matches!(far.receive(&mut buffer), Ok(Some(got)) if got.payload == b"alive!") {
            assert!(start.elapsed() < LIMIT, "nothing came to {theirs}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn the_kernel_takes_a_frame_of_our_own_for_a_datagram() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    let link = LinkIndex(wire.ours.link);
    let sender = PacketSocket::open(link, Receives::Nothing).unwrap();
    for (ours, theirs) in [("192.168.10.11", "192.168.10.99"), ("fd00::11", "fd00::99")] {
        let (ours, theirs): (IpAddr, IpAddr) = (ours.parse().unwrap(), theirs.parse().unwrap());
        wire.theirs.enter();
        let far = DatagramSocket::open(LinkIndex(wire.theirs.link), "lan1", theirs, PORT).unwrap();
        let frame = direct::frame((OUR_MAC, ours), (OTHER_MAC, theirs), (PORT, PORT), b"alive!").unwrap();
        let mut buffer = [0; 64];
        let start = Instant::now();
        while !matches!(far.receive(&mut buffer), Ok(Some(got)) if (got.from, got.ttl, got.payload) == (ours, 255, b"alive!"))
        {
            assert!(start.elapsed() < LIMIT, "nothing came to {theirs}");
            // The kernel drops what is sent while the wire comes up.
            sender.send(&frame).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_link_that_goes_down_or_away_kills_nothing() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    let (lan, mut reports) = speaker(&wire).await;
    lan.send(Event::Vips(vec![vip("192.168.10.50")])).await.unwrap();
    until(&mut reports, |said| announces(said, "192.168.10.50")).await;
    wire.ours.set_up(false).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(lan.pulse().age() < Duration::from_secs(2));
    wire.ours.set_up(true).await;
    wire.theirs.send_something_to("192.168.10.50".parse().unwrap());
    wire.theirs.neighbour_becomes("192.168.10.50".parse().unwrap(), OUR_MAC).await;
    wire.ours.handle.link().del(wire.ours.link).execute().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    lan.send(Event::Links(Vec::new())).await.unwrap();
    until(
        &mut reports,
        |said| matches!(said, FromLan::Told(told) if matches!(told.report, Report::Withdrawn { .. })),
    )
    .await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(lan.pulse().age() < Duration::from_secs(2));
}

#[tokio::test]
async fn every_change_of_the_network_is_noticed() {
    if !is_root() {
        return;
    }
    let wire = Wire::new().await;
    let (tell, mut told) = mpsc::unbounded_channel::<Network>();
    let (named, named_seen) = watch::channel(BTreeSet::new());
    let watching = netlink::watch(Vec::new(), named_seen, move |network| tell.send(network).unwrap());
    let mut next = async |what: &str, is_it: &dyn Fn(&Network) -> bool| {
        let start = Instant::now();
        let wait = async {
            while let Some(network) = told.recv().await {
                if is_it(&network) {
                    eprintln!("{what}: noticed after {:?}", start.elapsed());
                    return;
                }
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("not noticed: {what}"));
    };
    let story = async {
        let handle = &wire.ours.handle;
        let has = |network: &Network, text: &str| {
            network.links.iter().any(|link| link.addresses.contains(&text.parse().unwrap()))
        };
        next("the link", &|network| network.links.len() == 1 && network.links[0].mac == OUR_MAC).await;
        handle.address().add(wire.ours.link, "10.1.2.3".parse().unwrap(), 16).execute().await.unwrap();
        next("a new address", &|network| has(network, "10.1.2.3/16")).await;
        let gateway: IpAddr = "192.168.10.1".parse().unwrap();
        let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway("192.168.10.1".parse().unwrap());
        handle.route().add(route.build()).execute().await.unwrap();
        next("a gateway", &|network| network.gateways == [gateway]).await;
        wire.theirs.set_up(false).await;
        next("the loss of carrier", &|network| network.links.iter().all(|link| !link.carrier)).await;
        wire.theirs.set_up(true).await;
        next("its return", &|network| network.links.iter().all(|link| link.carrier)).await;
        handle.link().add(LinkVeth::new("spare0", "spare1").build()).execute().await.unwrap();
        named.send_replace(BTreeSet::from(["spare0".to_owned()]));
        next("a link that a pool names", &|network| network.links.iter().any(|link| link.name == "spare0"))
            .await;
        handle.link().del(wire.ours.link).execute().await.unwrap();
        next("a link that is gone", &|network| network.links.iter().all(|link| link.name == "spare0")).await;
    };
    tokio::select! {
        () = watching => {}
        () = story => {}
    }
}
