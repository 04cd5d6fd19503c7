//! Who is let in, wherever he comes from and whatever he asks for.

use super::lan::{
    Filter, LISTED, Lan, NODE, NODE_PORT, OTHER_VIP, POD, PORT, UNLISTED, VIP, frontend, is_able, web,
};
use super::probe::{Sees, Server, tcp, udp};
use landfall_crds::Protocol;
use landfall_speaker::filter::Event;
use landfall_speaker::filter::frontend::{Port, ServiceName};

const INSIDE: [&str; 2] = ["10.1.0.0/16", "fd01::/64"];

#[track_caller]
fn check(lan: &super::lan::Host, from: &str, to: &str, port: u16, expected: Sees) {
    assert_eq!(tcp(lan, from, to, port), expected, "tcp {from} -> {to}:{port}");
    assert_eq!(udp(lan, from, to, port), expected, "udp {from} -> {to}:{port}");
}

#[tokio::test]
async fn clients_of_the_lan_are_let_in_by_their_address() {
    if !is_able() {
        return;
    }
    for masquerade in [false, true] {
        let lan = Lan::new(masquerade).await;
        let _server = Server::start(&lan.pod);
        for family in [0, 1] {
            for (to, port) in [(VIP[family], PORT), (NODE[family], NODE_PORT)] {
                check(&lan.client, UNLISTED[family], to, port, Sees::Answer);
            }
        }
        let filter = Filter::with_ranges(&lan, &INSIDE).await;
        for family in [0, 1] {
            for (to, port) in [(VIP[family], PORT), (NODE[family], NODE_PORT)] {
                check(&lan.client, LISTED[family], to, port, Sees::Answer);
                check(&lan.client, UNLISTED[family], to, port, Sees::Nothing);
            }
        }
        // The speaker ends, and the table stays.
        drop(filter);
        for family in [0, 1] {
            check(&lan.client, LISTED[family], VIP[family], PORT, Sees::Answer);
            check(&lan.client, UNLISTED[family], VIP[family], PORT, Sees::Nothing);
        }
    }
}

#[tokio::test]
async fn pods_and_the_node_itself_are_clients_like_any_other() {
    if !is_able() {
        return;
    }
    // A pod that reaches itself through an address needs to be masqueraded.
    let lan = Lan::new(true).await;
    lan.node.route_on("192.168.10.0/24", "lan0").await;
    lan.node.route_on("fd00::/64", "lan0").await;
    let _server = Server::start(&lan.pod);
    let mut filter = Filter::with_ranges(&lan, &INSIDE).await;
    for family in [0, 1] {
        for (to, port) in [(VIP[family], PORT), (NODE[family], NODE_PORT)] {
            check(&lan.pod, POD[family], to, port, Sees::Nothing);
            check(&lan.node, NODE[family], to, port, Sees::Answer);
        }
    }
    filter.let_in(&["10.244.0.0/16", "fd44::/64"]).await;
    for family in [0, 1] {
        for (to, port) in [(VIP[family], PORT), (NODE[family], NODE_PORT)] {
            check(&lan.pod, POD[family], to, port, Sees::Answer);
            check(&lan.node, NODE[family], to, port, Sees::Nothing);
        }
    }
}

#[tokio::test]
async fn a_family_without_a_range_is_closed() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let _server = Server::start(&lan.pod);
    let mut filter = Filter::with_ranges(&lan, &["0.0.0.0/0"]).await;
    let check_both = |open: usize| {
        for family in [0, 1] {
            let expected = if family == open { Sees::Answer } else { Sees::Nothing };
            for (to, port) in [(VIP[family], PORT), (NODE[family], NODE_PORT)] {
                check(&lan.client, LISTED[family], to, port, expected);
                check(&lan.client, UNLISTED[family], to, port, expected);
            }
        }
    };
    check_both(0);
    filter.let_in(&["::/0"]).await;
    check_both(1);
    filter.let_in(&[]).await;
    for family in [0, 1] {
        check(&lan.client, LISTED[family], VIP[family], PORT, Sees::Nothing);
    }
}

#[tokio::test]
async fn each_service_on_a_shared_address_has_its_own_ranges() {
    if !is_able() {
        return;
    }
    use landfall_speaker::filter::frontend::{Claim, Frontend};
    let lan = Lan::new(false).await;
    let _server = Server::start(&lan.pod);
    let open = ServiceName::new("shop", "open");
    let mut filter = Filter::with_ranges(&lan, &INSIDE).await;
    let claims = || {
        vec![Claim { service: web(), guard: Some("1".into()) }, Claim { service: open.clone(), guard: None }]
    };
    for family in [0, 1] {
        let ports = super::lan::ports(PORT).into_iter().map(|port| (port, web()));
        let others = super::lan::ports(81).into_iter().map(|port| (port, open.clone()));
        let shared = Frontend::new(claims(), ports.chain(others));
        filter.thread.tell(Event::Frontend(OTHER_VIP[family].parse().unwrap(), Some(shared.into())));
    }
    filter.is_guarded(&OTHER_VIP, "1").await;
    for family in [0, 1] {
        check(&lan.client, LISTED[family], OTHER_VIP[family], PORT, Sees::Answer);
        check(&lan.client, UNLISTED[family], OTHER_VIP[family], PORT, Sees::Nothing);
        check(&lan.client, LISTED[family], OTHER_VIP[family], 81, Sees::Answer);
        check(&lan.client, UNLISTED[family], OTHER_VIP[family], 81, Sees::Answer);
    }
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let _server = Server::start(&lan.pod);
    let filter = Filter::with_ranges(&lan, &INSIDE).await;
    // Reserved: nobody claims it.
    for family in [0, 1] {
        filter.thread.tell(Event::Frontend(OTHER_VIP[family].parse().unwrap(), Some(Default::default())));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    for family in [0, 1] {
        check(&lan.client, UNLISTED[family], OTHER_VIP[family], PORT, Sees::Answer);
        // To the pod itself, past kube-proxy.
        check(&lan.client, UNLISTED[family], POD[family], super::lan::POD_PORT, Sees::Answer);
    }
    // The node's own connections to the very port of another host are answered.
    let elsewhere = lan.client.within(|| std::net::UdpSocket::bind(("203.0.113.2", NODE_PORT)).unwrap());
    let ours = super::probe::udp_socket(&lan.node, "203.0.113.1", "203.0.113.2", NODE_PORT);
    ours.set_read_timeout(Some(super::probe::PATIENCE)).unwrap();
    ours.send(b"hello").unwrap();
    let mut buffer = [0; 64];
    let (length, from) = elsewhere.recv_from(&mut buffer).unwrap();
    elsewhere.send_to(&buffer[..length], from).unwrap();
    assert_eq!(ours.recv(&mut buffer).unwrap(), 5);
    // From the nodePort itself, as a masqueraded connection may go out.
    let ours = lan.node.within(|| std::net::UdpSocket::bind(("203.0.113.1", NODE_PORT)).unwrap());
    ours.set_read_timeout(Some(super::probe::PATIENCE)).unwrap();
    ours.send_to(b"hello", ("203.0.113.2", NODE_PORT)).unwrap();
    let (length, from) = elsewhere.recv_from(&mut buffer).unwrap();
    elsewhere.send_to(&buffer[..length], from).unwrap();
    assert_eq!(ours.recv(&mut buffer).unwrap(), 5, "a reply is a reply");
    // Within the node, by its loopback addresses, even to a guarded port.
    let mut within = super::lan::guard("1", &[]);
    within.node_ports = vec![Port { protocol: Protocol::Udp, number: 30_999 }];
    filter.thread.tell(Event::Guard(ServiceName::new("shop", "within"), Some(within.into())));
    std::thread::sleep(std::time::Duration::from_millis(300));
    for (address, expected) in [("127.0.0.1", true), ("203.0.113.1", false)] {
        let address: std::net::IpAddr = address.parse().unwrap();
        let server = lan.node.within(|| std::net::UdpSocket::bind((address, 30_999)).unwrap());
        server.set_read_timeout(Some(super::probe::PATIENCE)).unwrap();
        let client = lan.node.within(|| std::net::UdpSocket::bind((address, 0)).unwrap());
        let _ = client.send_to(b"hello", (address, 30_999));
        assert_eq!(server.recv(&mut buffer).is_ok(), expected, "{address}");
    }
}

#[tokio::test]
async fn an_address_is_closed_while_its_guard_is_not_known() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let _server = Server::start(&lan.pod);
    let filter = Filter::start(&lan);
    let frontends = VIP.map(|vip| (vip.parse().unwrap(), frontend(&web(), Some("1"))));
    filter.thread.tell(Event::Frontends(frontends.to_vec()));
    filter.thread.tell(Event::Guards(Vec::new()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    for family in [0, 1] {
        check(&lan.client, LISTED[family], VIP[family], PORT, Sees::Nothing);
        check(&lan.client, LISTED[family], NODE[family], NODE_PORT, Sees::Answer);
    }
}
