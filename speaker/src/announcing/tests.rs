//! Stories of one link on which addresses are announced, in frames.

#![allow(clippy::disallowed_methods)]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::lan::{Link, PeerInfo, PeerLink};
use crate::mind::rng::Rng;
use crate::wire::arp::{ArpRepr, Operation};
use crate::wire::ethernet::Frame;
use crate::wire::ndp::{ALL_NODES, Message, NdpRepr, multicast_mac, solicited_node_group};

const LAN: LinkIndex = LinkIndex(2);
const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
const VIP4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x50);

struct Story {
    announcing: Announcing,
    facts: Facts,
    counters: Counters,
    now: Instant,
    start: Instant,
}

#[derive(Clone, Debug, PartialEq)]
enum Sent {
    Arp(MacAddr, ArpRepr),
    Ndp(MacAddr, NdpRepr),
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Story {
    fn new() -> Self {
        let mut facts = Facts::new("n1".into());
        let addresses = vec!["10.0.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()];
        facts.set_links(vec![Link { index: LAN, name: "eth0".into(), mac: OWN, carrier: true, addresses }]);
        let link = PeerLink { mac: PEER, subnets: Vec::new(), addresses: Vec::new(), address: None };
        facts.set_peers(vec![PeerInfo { node: "n2".into(), links: vec![link] }]);
        facts.set_gateways(vec!["10.0.0.254".parse().unwrap()]);
        let now = Instant::now();
        let announcing = Announcing::new(Rng::new(3));
        Self { announcing, facts, counters: Counters::default(), now, start: now }
    }

    fn announcing(addresses: &[IpAddr]) -> Self {
        let mut story = Self::new();
        for address in addresses {
            story.tell(Event::Announce(*address, vec![LAN]));
        }
        story
    }

    fn tell(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.announcing.handle(self.now, &self.facts, event, &mut self.counters, &mut out);
        out.retain(|action| !matches!(action, Action::Station(LAN, _) | Action::PeerSeen(LAN, ..)));
        out
    }

    fn hear(&mut self, frame: &[u8]) -> Vec<Action> {
        self.hear_on(LAN, frame)
    }

    fn hear_on(&mut self, link: LinkIndex, frame: &[u8]) -> Vec<Action> {
        let (at, is_stale) = (self.now, false);
        self.tell(Event::Frame(Heard { link, at, is_stale, frame }))
    }

    /// Lets time pass; when what was done.
    fn pass(&mut self, duration: Duration) -> Vec<(Duration, Action)> {
        let until = self.now + duration;
        let mut done = Vec::new();
        while let Some(due) = self.announcing.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let at = self.now - self.start;
            done.extend(self.tell(Event::Deadline).into_iter().map(|action| (at, action)));
        }
        self.now = until;
        done
    }
}

fn sent(actions: &[Action]) -> Vec<Sent> {
    let frames = actions.iter().filter_map(|action| match action {
        Action::Send(LAN, bytes) => Some(bytes),
        _ => None,
    });
    frames
        .map(|bytes| {
            let frame = Frame::new_checked(bytes).unwrap();
            assert_eq!(frame.source(), OWN);
            match ArpRepr::parse_frame(&frame) {
                Ok(packet) => Sent::Arp(frame.destination(), packet),
                Err(_) => Sent::Ndp(frame.destination(), NdpRepr::parse_frame(&frame).unwrap()),
            }
        })
        .collect()
}

fn request(sha: MacAddr, spa: Ipv4Addr, tpa: Ipv4Addr) -> ArpRepr {
    ArpRepr { operation: Operation::Request, sha, spa, tha: MacAddr::ZERO, tpa }
}

fn reply(sha: MacAddr, spa: Ipv4Addr, tha: MacAddr, tpa: Ipv4Addr) -> ArpRepr {
    ArpRepr { operation: Operation::Reply, sha, spa, tha, tpa }
}

fn broadcast(packet: ArpRepr) -> Vec<u8> {
    packet.emit_frame(MacAddr::BROADCAST).to_vec()
}

fn gratuitous4() -> Vec<Sent> {
    let to_all = |packet| Sent::Arp(MacAddr::BROADCAST, packet);
    vec![to_all(request(OWN, VIP4, VIP4)), to_all(reply(OWN, VIP4, OWN, VIP4))]
}

fn advertisement(to: Ipv6Addr, to_mac: MacAddr, solicited: bool) -> Sent {
    let target_mac = Some(OWN);
    let message =
        Message::Advertisement { target: VIP6, target_mac, router: false, solicited, overrides: true };
    Sent::Ndp(to_mac, NdpRepr { source: VIP6, destination: to, message })
}

fn solicitation(from: Ipv6Addr, source_mac: Option<MacAddr>) -> Vec<u8> {
    let group = solicited_node_group(VIP6);
    let message = Message::Solicitation { target: VIP6, source_mac };
    NdpRepr { source: from, destination: group, message }.emit_frame(CLIENT, multicast_mac(group)).to_vec()
}

#[test]
fn a_takeover_is_told_at_once_and_again_past_a_second_two_and_four() {
    let mut story = Story::new();
    let first = story.tell(Event::Announce(VIP4.into(), vec![LAN]));
    assert_eq!(sent(&first), gratuitous4());
    let repeats = story.pass(ms(5000));
    let times: Vec<_> = repeats.iter().map(|(at, _)| at.as_millis()).collect();
    assert_eq!(times, [1100, 1100, 2200, 2200, 4000, 4000]);
    let all: Vec<_> = repeats.into_iter().map(|(_, action)| action).collect();
    assert_eq!(sent(&all), [gratuitous4(), gratuitous4(), gratuitous4()].concat());
    let refreshes = story.pass(Duration::from_secs(600));
    assert!((20..=28).contains(&refreshes.len()), "two frames each 45 to 60 s: {}", refreshes.len());
}

#[test]
fn an_ipv6_address_is_advertised_to_all_nodes() {
    let mut story = Story::new();
    let first = story.tell(Event::Announce(VIP6.into(), vec![LAN]));
    assert_eq!(sent(&first), [advertisement(ALL_NODES, multicast_mac(ALL_NODES), false)]);
    assert_eq!(story.pass(ms(5000)).len(), 3);
}

#[test]
fn a_withdrawn_address_is_told_of_and_answered_for_no_more() {
    let mut story = Story::announcing(&[VIP4.into()]);
    story.tell(Event::Withdraw(VIP4.into()));
    assert_eq!(story.pass(ms(100_000)), []);
    assert_eq!(story.hear(&broadcast(request(CLIENT, CLIENT4, VIP4))), []);
    assert_eq!(story.announcing.next_deadline(), None);
}

#[test]
fn a_request_is_answered_to_its_sender_alone() {
    let mut story = Story::announcing(&[VIP4.into()]);
    let answer = Sent::Arp(CLIENT, reply(OWN, VIP4, CLIENT, CLIENT4));
    assert_eq!(sent(&story.hear(&broadcast(request(CLIENT, CLIENT4, VIP4)))), std::slice::from_ref(&answer));
    let to_us = request(CLIENT, CLIENT4, VIP4).emit_frame(OWN);
    assert_eq!(sent(&story.hear(&to_us)), [answer], "a neighbour that validates its entry");
    let probe = broadcast(request(CLIENT, Ipv4Addr::UNSPECIFIED, VIP4));
    let answer = Sent::Arp(CLIENT, reply(OWN, VIP4, CLIENT, Ipv4Addr::UNSPECIFIED));
    assert_eq!(sent(&story.hear(&probe)), [answer], "a probe for duplicates");
    assert_eq!(story.counters.answers_sent, 3);
}

#[test]
fn what_is_not_asked_of_us_is_not_answered() {
    let mut story = Story::announcing(&[VIP4.into()]);
    let other = Ipv4Addr::new(10, 0, 0, 51);
    for (frame, why) in [
        (broadcast(request(CLIENT, CLIENT4, other)), "another address"),
        (broadcast(request(OWN, CLIENT4, VIP4)), "our own frame that came back"),
        (request(CLIENT, CLIENT4, VIP4).emit_frame(PEER).to_vec(), "a frame to somebody else"),
        (broadcast(reply(CLIENT, CLIENT4, OWN, VIP4)), "no question"),
        (broadcast(request(MacAddr::BROADCAST, CLIENT4, VIP4)), "a sender that is a group"),
        (broadcast(request(MacAddr::ZERO, CLIENT4, VIP4)), "a sender that is nobody"),
    ] {
        assert_eq!(sent(&story.hear(&frame)), [], "{why}");
    }
    let elsewhere = broadcast(request(CLIENT, CLIENT4, VIP4));
    assert_eq!(story.hear_on(LinkIndex(3), &elsewhere), [], "another link");
}

#[test]
fn a_solicitation_is_answered_as_rfc_4861_wants_it() {
    let mut story = Story::announcing(&[VIP6.into()]);
    let client: Ipv6Addr = "fd00::99".parse().unwrap();
    let asked = story.hear(&solicitation(client, Some(CLIENT)));
    assert_eq!(sent(&asked), [advertisement(client, CLIENT, true)]);
    let without = story.hear(&solicitation(client, None));
    assert_eq!(sent(&without), [advertisement(client, CLIENT, true)], "no option: the frame's source");
    let probe = story.hear(&solicitation(Ipv6Addr::UNSPECIFIED, None));
    let to_all = advertisement(ALL_NODES, multicast_mac(ALL_NODES), false);
    assert_eq!(sent(&probe), [to_all], "a probe for duplicates hears that the address is taken");
}

#[test]
fn a_hushed_link_is_silent_and_then_tells_anew() {
    let mut story = Story::announcing(&[VIP4.into()]);
    story.tell(Event::Hush(LAN));
    assert_eq!(story.hear(&broadcast(request(CLIENT, CLIENT4, VIP4))), []);
    assert!(!story.announcing.answers(VIP4.into()));
    assert_eq!(story.pass(ms(3000)), []);
    story.tell(Event::Unhush(LAN));
    let told: Vec<_> = story.pass(ms(10)).into_iter().map(|(_, action)| action).collect();
    assert_eq!(sent(&told), gratuitous4());
    assert_eq!(story.pass(ms(4500)).len(), 6, "and repeats as after a takeover");
}

#[test]
fn another_hardware_address_is_told_at_once() {
    let mut story = Story::announcing(&[VIP4.into()]);
    story.tell(Event::Facts);
    story.pass(ms(5000));
    let mut link = story.facts.link(LAN).unwrap().clone();
    link.mac = MacAddr([2, 0, 0, 0, 0, 0x11]);
    story.facts.set_links(vec![link.clone()]);
    story.tell(Event::Facts);
    let told = story.pass(ms(10));
    assert_eq!(told.len(), 2);
    let Action::Send(LAN, frame) = &told[0].1 else { panic!("a frame") };
    assert_eq!(Frame::new_checked(frame).unwrap().source(), link.mac);
}

#[test]
fn an_isolated_link_is_not_refreshed_lest_it_mislead_once_it_heals() {
    let mut story = Story::announcing(&[VIP4.into()]);
    story.tell(Event::Isolated(LAN, true));
    assert_eq!(story.pass(ms(5000)).len(), 6, "a takeover is told all the same");
    assert_eq!(story.pass(ms(120_000)), []);
    story.tell(Event::Isolated(LAN, false));
    assert!(!story.pass(ms(61_000)).is_empty());
}

#[test]
fn a_thousand_takeovers_are_told_at_once_and_their_repeats_are_paced() {
    let mut story = Story::new();
    let address = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_1000 + number));
    for number in 0..1000 {
        assert_eq!(story.tell(Event::Announce(address(number), vec![LAN])).len(), 2);
    }
    let mut most: HashMap<u128, usize> = HashMap::new();
    for (at, _) in story.pass(ms(8000)) {
        *most.entry(at.as_millis() / 100).or_default() += 1;
    }
    assert_eq!(most.values().sum::<usize>(), 6000);
    let most = most.values().max().copied().unwrap();
    assert!(most <= 250, "{most} frames in a tenth of a second");
}

#[test]
fn of_very_many_takeovers_those_that_were_asked_for_last_are_told_first() {
    let mut story = Story::new();
    let address = |number: u32| Ipv4Addr::from_bits(0x0a00_1000 + number);
    // Somebody asks for the last two of them, and the very last one was asked for last.
    for number in [4998, 4999] {
        story.hear(&broadcast(request(CLIENT, CLIENT4, address(number))));
        story.now += ms(10);
    }
    story.start = story.now;
    let mut told: Vec<Duration> = Vec::new();
    let mut order = Vec::new();
    let mut note = |at: Duration, actions: &[Action]| {
        for action in actions {
            let Action::Send(LAN, frame) = action else { continue };
            let packet = ArpRepr::parse_frame(&Frame::new_checked(frame).unwrap()).unwrap();
            // A reply follows each request.
            if packet.operation == Operation::Request {
                order.push(packet.spa);
                told.push(at);
            }
        }
    };
    for number in 0..5000 {
        let done = story.tell(Event::Announce(address(number).into(), vec![LAN]));
        note(ms(0), &done);
    }
    for (at, action) in story.pass(ms(100)) {
        note(at, &[action]);
    }
    assert_eq!(order.len(), 5000);
    assert!(told.last().unwrap() <= &ms(90), "{:?}", told.last());
    let at_once = told.iter().take_while(|at| **at == ms(0)).count();
    assert!((1000..=1002).contains(&at_once), "{at_once}");
    assert_eq!(order[at_once..at_once + 2], [address(4999), address(4998)]);
}

#[test]
fn a_foreign_station_with_our_address_is_told_of_and_the_address_defended_now_and_then() {
    let mut story = Story::announcing(&[VIP4.into()]);
    let foreign = broadcast(request(CLIENT, VIP4, VIP4));
    let heard = story.hear(&foreign);
    assert_eq!(heard[0], Action::Conflict(VIP4.into(), CLIENT));
    assert_eq!(sent(&heard), gratuitous4(), "RFC 5227 section 2.4 (b)");
    story.pass(ms(9_000));
    assert_eq!(story.hear(&foreign), [], "neither told nor defended twice in ten seconds");
    story.pass(ms(1_000));
    assert_eq!(sent(&story.hear(&foreign)), gratuitous4());
    let is_over = |done: &[(Duration, Action)]| {
        done.iter().any(|(_, action)| *action == Action::ConflictOver(VIP4.into()))
    };
    assert!(!is_over(&story.pass(ms(29_000))));
    assert!(is_over(&story.pass(ms(1_001))));
}

#[test]
fn a_foreign_neighbor_advertisement_of_our_address_is_a_conflict() {
    let mut story = Story::announcing(&[VIP6.into()]);
    let message = Message::Advertisement {
        target: VIP6,
        target_mac: Some(CLIENT),
        router: false,
        solicited: false,
        overrides: true,
    };
    let frame = NdpRepr { source: VIP6, destination: ALL_NODES, message }
        .emit_frame(CLIENT, multicast_mac(ALL_NODES));
    assert_eq!(story.hear(&frame)[0], Action::Conflict(VIP6.into(), CLIENT));
}

#[test]
fn another_speaker_with_our_address_is_no_conflict_but_told_of() {
    let mut story = Story::announcing(&[VIP4.into()]);
    let has =
        |gratuitous| Action::SpeakerHas { address: VIP4.into(), node: "n2".into(), mac: PEER, gratuitous };
    assert_eq!(story.hear(&broadcast(request(PEER, VIP4, VIP4))), [has(true)]);
    let answer = reply(PEER, VIP4, OWN, Ipv4Addr::UNSPECIFIED).emit_frame(OWN);
    assert_eq!(story.hear(&answer), [has(false)]);
}

#[test]
fn three_unanswered_probes_make_an_address_free() {
    let mut story = Story::new();
    let first = story.tell(Event::Probe(VIP4.into(), vec![LAN]));
    let probe = || Sent::Arp(MacAddr::BROADCAST, request(OWN, Ipv4Addr::UNSPECIFIED, VIP4));
    assert_eq!(sent(&first), [probe()]);
    assert_eq!(story.hear(&broadcast(request(CLIENT, CLIENT4, VIP4))), [], "it is not ours yet");
    let rest = story.pass(ms(500));
    let actions: Vec<_> = rest.iter().map(|(_, action)| action.clone()).collect();
    assert_eq!(sent(&actions), [probe(), probe()]);
    assert_eq!(rest.last(), Some(&(ms(150), Action::ProbeClear(VIP4.into()))));
}

#[test]
fn whoever_has_or_probes_for_a_probed_address_is_a_conflict_unless_a_speaker() {
    let has = broadcast(reply(CLIENT, VIP4, OWN, Ipv4Addr::UNSPECIFIED));
    let probes = broadcast(request(CLIENT, Ipv4Addr::UNSPECIFIED, VIP4));
    for frame in [has, probes] {
        let mut story = Story::new();
        story.tell(Event::Probe(VIP4.into(), vec![LAN]));
        assert!(story.hear(&frame).contains(&Action::ProbeConflict(VIP4.into(), CLIENT)));
        assert_eq!(story.pass(ms(500)), []);
    }
    let mut story = Story::new();
    story.tell(Event::Probe(VIP4.into(), vec![LAN]));
    story.hear(&broadcast(request(PEER, Ipv4Addr::UNSPECIFIED, VIP4)));
    assert_eq!(story.pass(ms(500)).last(), Some(&(ms(150), Action::ProbeClear(VIP4.into()))));
}

#[test]
fn addresses_that_share_a_group_join_it_once_and_leave_it_last() {
    let mut story = Story::new();
    let (one, other): (IpAddr, IpAddr) = ("fd00::50".parse().unwrap(), "fd00:1::50".parse().unwrap());
    let group = solicited_node_group(VIP6);
    assert_eq!(story.tell(Event::Listen(one, vec![LAN])), [Action::Join(LAN, group)]);
    assert_eq!(story.tell(Event::Listen(one, vec![LAN])), []);
    assert_eq!(story.tell(Event::Listen(other, vec![LAN])), []);
    assert_eq!(story.tell(Event::Listen(one, Vec::new())), []);
    assert_eq!(story.tell(Event::Listen(other, Vec::new())), [Action::Leave(LAN, group)]);
    assert_eq!(story.tell(Event::Listen(VIP4.into(), vec![LAN])), [], "ARP is broadcast");
}

#[test]
fn the_lan_is_asked_through_the_gateway_and_the_stations_last_heard() {
    let mut story = Story::new();
    let gateway = Ipv4Addr::new(10, 0, 0, 254);
    let asked = story.tell(Event::AskLan(LAN));
    let own = Ipv4Addr::new(10, 0, 0, 1);
    assert_eq!(sent(&asked), [Sent::Arp(MacAddr::BROADCAST, request(OWN, own, gateway))]);
    story.hear(&broadcast(request(CLIENT, CLIENT4, Ipv4Addr::new(10, 0, 0, 77))));
    let asked = sent(&story.tell(Event::AskLan(LAN)));
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1], Sent::Arp(CLIENT, request(OWN, own, CLIENT4)), "by unicast");
    for number in 0..100 {
        let station = Ipv4Addr::new(10, 0, 0, 100 + number);
        let mac = MacAddr([2, 0, 0, 0, 8, number]);
        story.hear(&broadcast(request(mac, station, VIP4)));
    }
    assert_eq!(sent(&story.tell(Event::AskLan(LAN))).len(), 4, "few are remembered");
}

#[test]
fn what_is_not_understood_is_counted() {
    let mut story = Story::announcing(&[VIP4.into()]);
    story.hear(&[0; 5]);
    let mut tagged = broadcast(request(CLIENT, CLIENT4, VIP4));
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    assert_eq!(story.hear(&tagged), []);
    let mut routed = solicitation("fd00::99".parse().unwrap(), None);
    routed[21] = 64;
    story.hear(&routed);
    let mut spoiled = solicitation("fd00::99".parse().unwrap(), None);
    spoiled[60] ^= 1;
    story.hear(&spoiled);
    let counters = &story.counters;
    assert_eq!(counters.frames_received, 4);
    let dropped = (
        counters.frames_truncated,
        counters.frames_other_protocol,
        counters.frames_routed,
        counters.frames_bad_checksum,
    );
    assert_eq!(dropped, (1, 1, 1, 1));
}

proptest! {
    /// Nothing that arrives makes the announcer send more than one answer, or remember without bound.
    #[test]
    fn whatever_arrives_is_survived(
        frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..100), 0_u8..4), 1..40),
    ) {
        let mut story = Story::announcing(&[VIP4.into(), VIP6.into()]);
        for (bytes, kind) in frames {
            let frame = match kind {
                0 => bytes,
                1 => [&broadcast(request(CLIENT, CLIENT4, VIP4))[..28], &bytes].concat(),
                2 => [&solicitation(VIP6, None)[..54], &bytes].concat(),
                _ => [&[0xff; 6][..], &CLIENT.0, &[0x86, 0xdd], &bytes].concat(),
            };
            let heard = story.hear(&frame);
            prop_assert!(sent(&heard).len() <= 3, "an answer, or a defence and an answer");
        }
        prop_assert!(story.announcing.len() == 2);
    }
}
