//! Changes while traffic flows: what is forbidden ends at once, and what is permitted loses nothing.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use landfall_speaker::filter::Event;
use landfall_speaker::filter::frontend::ServiceName;

use super::lan::{Filter, LISTED, Lan, NODE, NODE_PORT, POD, PORT, VIP, frontend, guard, is_able};
use super::probe::{Sees, Server, connect, udp_socket};

const INSIDE: [&str; 2] = ["10.1.0.0/16", "fd01::/64"];
const ELSEWHERE: [&str; 2] = ["198.51.100.0/24", "2001:db8:9::/48"];
/// Flows that are forbidden end within this time.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Sends without end to whoever says hello, on UDP port 9090 and TCP port 9090 of the pod.
struct Pusher {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Pusher {
    fn start(lan: &Lan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in POD {
            let address: std::net::IpAddr = address.parse().unwrap();
            let udp = lan.pod.within(|| UdpSocket::bind((address, 9090)).unwrap());
            let tcp = lan.pod.within(|| std::net::TcpListener::bind((address, 9090)).unwrap());
            udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            tcp.set_nonblocking(true).unwrap();
            let stopped = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                let mut to = None;
                while !stopped.load(Ordering::Relaxed) {
                    if to.is_none()
                        && let Ok((_, from)) = udp.recv_from(&mut [0; 64])
                    {
                        to = Some(from);
                    }
                    if let Some(to) = to {
                        let _ = udp.send_to(&[0; 100], to);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }));
            let stopped = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let Ok((mut stream, _)) = tcp.accept() else {
                        std::thread::sleep(Duration::from_millis(2));
                        continue;
                    };
                    let _ = stream.set_nonblocking(false);
                    let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
                    while !stopped.load(Ordering::Relaxed) && stream.write_all(&[0; 1000]).is_ok() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }));
        }
        Self { stop, threads }
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// When the last of what is pushed came.
fn listen(
    mut receive: impl FnMut() -> bool + Send + 'static,
) -> (Arc<AtomicBool>, std::thread::JoinHandle<(Instant, u64)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let (mut last, mut count) = (Instant::now(), 0);
        while !stopped.load(Ordering::Relaxed) {
            if receive() {
                (last, count) = (Instant::now(), count + 1);
            }
        }
        (last, count)
    });
    (stop, thread)
}

#[tokio::test]
async fn flows_that_a_change_forbids_end_at_once_in_both_directions() {
    if !is_able() {
        return;
    }
    for masquerade in [false, true] {
        let lan = Lan::new(masquerade).await;
        let mut filter = Filter::with_ranges(&lan, &INSIDE).await;
        for family in [0, 1] {
            let pusher = Pusher::start(&lan);
            filter.let_in(&INSIDE).await;
            let udp = udp_socket(&lan.client, LISTED[family], VIP[family], 90);
            udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            udp.send(b"hello").unwrap();
            let mut tcp = connect(&lan.client, LISTED[family], VIP[family], 90).unwrap();
            tcp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let (stop_udp, heard_udp) = listen(move || udp.recv(&mut [0; 2000]).is_ok());
            let (stop_tcp, heard_tcp) =
                listen(move || tcp.read(&mut [0; 2000]).is_ok_and(|length| length > 0));
            std::thread::sleep(Duration::from_millis(500));
            let change = Instant::now();
            filter.let_in(&ELSEWHERE).await;
            std::thread::sleep(Duration::from_secs(1));
            stop_udp.store(true, Ordering::Relaxed);
            stop_tcp.store(true, Ordering::Relaxed);
            for (what, heard) in [("udp", heard_udp), ("tcp", heard_tcp)] {
                let (last, count) = heard.join().unwrap();
                let after = last.saturating_duration_since(change);
                eprintln!("{what} to {}: {count} pushed, the last {after:?} after the change", VIP[family]);
                assert!(count > 50, "{what}: {count}");
                assert!(after < AT_ONCE, "{what}: {after:?}");
            }
            drop(pusher);
        }
    }
}

#[tokio::test]
async fn flows_to_node_ports_end_at_once_too() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(true).await;
    let mut filter = Filter::with_ranges(&lan, &INSIDE).await;
    let _server = Server::start(&lan.pod);
    for family in [0, 1] {
        filter.let_in(&INSIDE).await;
        // An echo that never ends: each answer is sent again.
        let udp = udp_socket(&lan.client, LISTED[family], NODE[family], NODE_PORT);
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        udp.send(b"hello").unwrap();
        let (stop, heard) = listen(move || {
            let heard = udp.recv(&mut [0; 64]).is_ok();
            let _ = udp.send(b"again");
            heard
        });
        std::thread::sleep(Duration::from_millis(300));
        let change = Instant::now();
        filter.let_in(&ELSEWHERE).await;
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        let (last, count) = heard.join().unwrap();
        let after = last.saturating_duration_since(change);
        eprintln!("nodePort of {}: {count} echoes, the last {after:?} after the change", NODE[family]);
        assert!(count > 50 && after < AT_ONCE, "{count} {after:?}");
    }
}

/// Permitted traffic: every datagram that is sent must come to the pod.
struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    came: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Flow {
    fn start(lan: &Lan, to: &str, port: u16, to_pod: &str) -> Self {
        let (stop, sent, came) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sink = lan.pod.within(|| {
            UdpSocket::bind((to_pod.parse::<std::net::IpAddr>().unwrap(), super::lan::POD_PORT)).unwrap()
        });
        nix::sys::socket::setsockopt(&sink, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20)).unwrap();
        sink.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let family = usize::from(to.contains(':'));
        let source = udp_socket(&lan.client, LISTED[family], to, port);
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let sending = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if source.send(&[0; 20]).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&came));
        let sinking = std::thread::spawn(move || {
            // What is still under way comes within the timeout.
            while !stopped.load(Ordering::Relaxed)
                || sink.recv(&mut [0; 64]).is_ok_and(|_| counted.fetch_add(1, Ordering::Relaxed) < u64::MAX)
            {
                if sink.recv(&mut [0; 64]).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, sent, came, threads: vec![sending, sinking] }
    }

    /// How many were sent, and how many of them were lost.
    fn end(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        let sent = self.sent.load(Ordering::Relaxed);
        (sent, sent - self.came.load(Ordering::Relaxed).min(sent))
    }
}

/// How many datagrams flow while changes are made: a million where the environment asks for them.
fn at_least() -> u64 {
    std::env::var("LANDFALL_FILTER_PACKETS").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000)
}

#[tokio::test]
async fn nothing_permitted_is_lost_whatever_changes() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let mut filter = Filter::with_ranges(&lan, &INSIDE).await;
    let flow = Flow::start(&lan, VIP[0], PORT, POD[0]);
    let mut changes = 0;
    // Others come, change and go; our own list is written in many ways, each of which holds the client.
    let own: [&[&str]; 6] = [
        &INSIDE,
        &["10.0.0.0/8", "fd01::/64"],
        &["10.1.0.2/32"],
        &["0.0.0.0/0"],
        &["10.1.0.0/23", "192.0.2.0/25", "198.51.100.7/32"],
        &["10.1.0.0/20", "172.16.0.0/12"],
    ];
    while flow.sent.load(Ordering::Relaxed) < at_least() || changes < 300 {
        let n = changes % 50;
        let other = ServiceName::new("other", &format!("s{n}"));
        let address = format!("192.168.11.{n}").parse().unwrap();
        let ranges = [format!("10.{n}.0.0/16"), format!("10.{}.{n}.0/{}", n + 60, 17 + n % 16)];
        let ranges: Vec<&str> = ranges.iter().map(String::as_str).collect();
        let mut theirs = guard(&format!("o{changes}"), &ranges);
        theirs.node_ports.clear();
        filter.thread.tell(Event::Guard(other.clone(), (changes % 7 != 6).then(|| theirs.into())));
        let claim = frontend(&other, Some(&format!("o{changes}")));
        filter.thread.tell(Event::Frontend(address, (changes % 5 != 4).then_some(claim)));
        filter.let_in(own[changes % own.len()]).await;
        changes += 1;
    }
    let (sent, lost) = flow.end();
    eprintln!("{changes} changes, {sent} datagrams sent, {lost} lost");
    assert_eq!(lost, 0, "of {sent}");
}

#[tokio::test]
async fn a_new_process_goes_on_beside_the_old_one() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let mut old = Filter::with_ranges(&lan, &INSIDE).await;
    let start = Instant::now();
    let mut new = Filter::with_ranges(&lan, &INSIDE).await;
    eprintln!("the new process may announce after {:?}", start.elapsed());
    // Both hear of a change, and the old one, which owns the table, makes it.
    old.let_in(&ELSEWHERE).await;
    new.let_in(&ELSEWHERE).await;
    drop(old);
    let took = new.let_in(&INSIDE).await;
    eprintln!("after the end of the old process a change took {took:?}");
    assert!(took < Duration::from_secs(1));
}

#[tokio::test]
async fn nothing_permitted_is_lost_while_a_new_speaker_takes_the_table_over() {
    if !is_able() {
        return;
    }
    let lan = Lan::new(false).await;
    let mut filter = Filter::with_ranges(&lan, &INSIDE).await;
    let flow = Flow::start(&lan, VIP[1], PORT, POD[1]);
    for _ in 0..10 {
        drop(filter);
        // The thread of the old one ends, and with it its hold of the table.
        std::thread::sleep(Duration::from_millis(50));
        filter = Filter::with_ranges(&lan, &INSIDE).await;
        assert_eq!(super::probe::udp(&lan.client, super::lan::UNLISTED[1], VIP[1], PORT), Sees::Nothing);
    }
    let (sent, lost) = flow.end();
    eprintln!("10 speakers, {sent} datagrams sent, {lost} lost");
    assert_eq!(lost, 0, "of {sent}");
}
