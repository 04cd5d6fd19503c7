//! The whole mind of one node, n1, on one link with one peer, n2.

#![allow(clippy::disallowed_methods)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use landfall_crds::Fallback;
use proptest::prelude::*;

use super::*;
use crate::lan::{Link, MacAddr, PeerInfo, PeerLink, Vip};
use crate::ownership::claim::{Claim, Statement};
use crate::ownership::gates::Gates;
use crate::ownership::knowledge::BUCKETS;
use crate::seal::SealError;
use crate::wire::arp::{ArpRepr, Operation};
use crate::wire::bfd::{ControlRepr, Diagnostic, Discriminator, Micros, Polling, State, is_bfd};
use crate::wire::speech::{Body, Entry, Header, SpeechRepr, Witnessed, digest};

pub(super) const LAN: LinkIndex = LinkIndex(2);
const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(super) const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

pub(super) struct Story {
    pub(super) mind: Mind,
    pub(super) now: Instant,
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn peer_address() -> IpAddr {
    "10.0.0.2".parse().unwrap()
}

pub(super) fn peer() -> PeerInfo {
    let on = PeerLink {
        mac: PEER,
        subnets: vec!["10.0.0.0/24".parse().unwrap()],
        addresses: vec![peer_address()],
        address: Some(peer_address()),
    };
    PeerInfo { node: "n2".into(), links: vec![on] }
}

pub(super) fn vip4() -> IpAddr {
    "10.0.0.50".parse().unwrap()
}

fn vip6() -> IpAddr {
    "fd00::50".parse().unwrap()
}

pub(super) fn vip(address: IpAddr, candidates: &[&str]) -> Vip {
    Vip {
        address,
        claimed: true,
        epoch: 1,
        candidates: candidates.iter().map(|node| (*node).into()).collect(),
        interfaces: Vec::new(),
        fallback: Fallback::None,
        health_checks: Vec::new(),
        guard: None,
        last_term: 1,
        announced_before: true,
    }
}

pub(super) fn link(carrier: bool) -> Link {
    let addresses = vec!["10.0.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()];
    Link { index: LAN, name: "eth0".into(), mac: OWN, carrier, addresses }
}

fn speech(instance: u64, body: Body) -> Vec<u8> {
    let entries = match &body {
        Body::Changes(entries) => entries.as_slice(),
        _ => &[],
    };
    let digest = entries.iter().map(digest).fold(0, u64::wrapping_add);
    let header = Header { mac: PEER, instance, sequence: 1, digest, ..Header::default() };
    SpeechRepr { header, body }.emit()
}

/// What the peer's process says in its session, and behind it.
fn heartbeat(instance: u64, header: Header, body: Body) -> Vec<u8> {
    let control = ControlRepr {
        diagnostic: Diagnostic::NoDiagnostic,
        state: State::Down,
        polling: Polling::None,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: Discriminator::new(1 + instance as u32).unwrap(),
        your_discriminator: None,
        desired_min_tx: Micros(100_000),
        required_min_rx: Micros(100_000),
        required_min_echo_rx: Micros(0),
        auth: None,
    };
    [control.emit().as_ref(), &SpeechRepr { header, body }.emit()].concat()
}

pub(super) fn beat(instance: u64) -> Vec<u8> {
    let header = Header { mac: PEER, instance, sequence: 1, digest: 0, ..Header::default() };
    heartbeat(instance, header, Body::Heartbeat)
}

/// What a datagram says, whether it is a heartbeat or not.
pub(super) fn said(payload: &[u8]) -> Option<Body> {
    let message = if is_bfd(payload) { payload.get(usize::from(payload[3])..)? } else { payload };
    SpeechRepr::parse_payload(message).ok().map(|repr| repr.body)
}

impl Story {
    pub(super) fn settled() -> Self {
        let mut story = Self { mind: Mind::new(Config::new("n1".into(), 7)), now: Instant::now() };
        story.tell(Event::Links(vec![link(true)]));
        story.tell(Event::Peers(vec![peer()]));
        for _ in 0..5 {
            story.hear(beat(1));
            story.pass(ms(80));
        }
        story
    }

    pub(super) fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.mind.handle(self.now, event, &mut out);
        out
    }

    pub(super) fn hear(&mut self, payload: Vec<u8>) -> Vec<Action> {
        self.tell(Event::Datagram { link: LAN, at: self.now, from: peer_address(), ttl: 255, payload })
    }

    fn hear_frame(&mut self, frame: Vec<u8>) -> Vec<Action> {
        self.tell(Event::Frame { link: LAN, at: self.now, frame })
    }

    pub(super) fn pass(&mut self, duration: Duration) -> Vec<Action> {
        let until = self.now + duration;
        let mut done = Vec::new();
        while let Some(due) = self.mind.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            done.extend(self.tell(Event::Deadline));
        }
        self.now = until;
        done
    }
}

pub(super) fn reports(actions: &[Action]) -> Vec<Report> {
    let report = |action: &Action| match action {
        Action::Report(report) => Some(report.clone()),
        _ => None,
    };
    actions.iter().filter_map(report).collect()
}

#[test]
fn a_datagram_is_believed_only_from_a_neighbour_that_is_known() {
    let mut story = Story::settled();
    let before = story.mind.counters().clone();
    let payload = beat(1);
    let at = story.now;
    let datagram = |from: IpAddr, ttl, payload: &[u8]| Event::Datagram {
        link: LAN,
        at,
        from,
        ttl,
        payload: payload.to_vec(),
    };
    story.tell(datagram(peer_address(), 254, &payload));
    story.tell(datagram("10.0.0.3".parse().unwrap(), 255, &payload));
    story.tell(datagram(peer_address(), 255, &speech(1, Body::Query)[1..]));
    story.tell(datagram(peer_address(), 255, &payload[..30]));
    story.hear(speech(2, Body::Query));
    story.hear(beat(2));
    story.hear(payload);
    let counters = story.mind.counters();
    assert_eq!(counters.datagrams_routed - before.datagrams_routed, 1);
    assert_eq!(counters.datagrams_unknown_sender - before.datagrams_unknown_sender, 1);
    let refused = |error| counters.seals_refused.get(&error).copied().unwrap_or_default();
    assert_eq!(refused(SealError::Truncated), 2);
    assert_eq!(refused(SealError::OtherProcess), 1, "its process had not been heard by a heartbeat");
    assert_eq!(counters.datagrams_stale - before.datagrams_stale, 1, "its process was replaced");
}

#[test]
fn whatever_waited_in_the_sockets_while_the_process_was_not_run_it_is_one_gap() {
    let mut story = Story::settled();
    let before = story.mind.counters().gaps;
    story.now += ms(400);
    let mut done = Vec::new();
    for _ in 0..1000 {
        story.now += Duration::from_micros(100);
        done.extend(story.hear(beat(1)));
    }
    assert_eq!(story.mind.counters().gaps - before, 1);
    assert!(done.len() < 100, "{} things are done for a thousand heartbeats", done.len());
}

#[test]
fn a_takeover_is_first_told_to_the_lan_then_to_the_peers() {
    let mut story = Story::settled();
    let done = story.tell(Event::Vip(vip(vip4(), &["n1", "n2"])));
    let kinds: Vec<_> = done
        .iter()
        .map(|action| match action {
            Action::SendFrame { .. } => "frame",
            Action::SendDatagram { .. } => "datagram",
            Action::Report(_) => "report",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["frame", "frame", "report", "datagram"]);
    let again = story.pass(ms(40));
    assert!(again.iter().any(|action| matches!(action, Action::SendDatagram { .. })), "and once more");
}

#[test]
fn an_answer_costs_no_more_with_many_addresses_and_names_our_address() {
    let mut story = Story::settled();
    let vips = (0..250).map(|last| vip(IpAddr::from([10, 0, 0, last]), &["n1"]));
    story.tell(Event::Vips(vips.filter(|vip| vip.address != IpAddr::from([10, 0, 0, 9])).collect()));
    let asker = Ipv4Addr::new(10, 0, 0, 9);
    let IpAddr::V4(target) = vip4() else { panic!("an IPv4 address") };
    let question =
        ArpRepr { operation: Operation::Request, sha: CLIENT, spa: asker, tha: MacAddr::ZERO, tpa: target };
    let done = story.hear_frame(question.emit_frame(MacAddr::BROADCAST).to_vec());
    let answer = ArpRepr { operation: Operation::Reply, sha: OWN, spa: target, tha: CLIENT, tpa: asker };
    assert_eq!(done, [Action::SendFrame { link: LAN, frame: answer.emit_frame(CLIENT) }]);
}

#[test]
fn a_candidate_listens_for_solicitations_before_it_has_the_address() {
    let mut story = Story::settled();
    let entry = Entry {
        address: vip6(),
        statement: Statement::Announcing(Claim { epoch: 1, term: 1, ..Claim::default() }),
    };
    story.hear(speech(1, Body::Changes(vec![entry])));
    let group: Ipv6Addr = "ff02::1:ff00:50".parse().unwrap();
    let done = story.tell(Event::Vip(vip(vip6(), &["n2", "n1"])));
    assert_eq!(done, [Action::JoinGroup { link: LAN, group }]);
    let done = story.tell(Event::Vip(vip(vip6(), &["n2"])));
    assert_eq!(done, [Action::LeaveGroup { link: LAN, group }]);
}

#[test]
fn peers_are_reported_when_they_come_and_go() {
    let mut story = Story::settled();
    let told = |alive| Report::Peer { node: "n2".into(), interface: "eth0".into(), alive };
    assert_eq!(reports(&story.pass(ms(400))), [told(false)]);
    assert_eq!(reports(&story.hear(beat(1))), [told(true)]);
    assert_eq!(reports(&story.hear(speech(1, Body::Goodbye))), [told(false)]);
    story.hear(beat(1));
    assert_eq!(reports(&story.hear(beat(2))), [told(true)], "it started again");
    assert_eq!(reports(&story.tell(Event::Links(vec![link(false)]))), [told(false)]);
}

#[test]
fn leaving_ends_with_a_goodbye() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(vip4(), &["n1"])));
    let done = story.tell(Event::Leave);
    assert_eq!(done.last(), Some(&Action::Left));
    let last = done.iter().filter_map(|action| match action {
        Action::SendDatagram { payload, .. } if is_bfd(payload) => Some(payload),
        _ => None,
    });
    for payload in last.clone() {
        assert_eq!(said(payload), Some(Body::Goodbye));
        assert_eq!(ControlRepr::parse_payload(payload).unwrap().state, State::AdminDown);
    }
    assert_eq!(last.count(), 2);
}

#[test]
fn what_is_going_on_is_explained() {
    let mut story = Story::settled();
    assert_eq!(story.mind.explain(vip4()), None);
    story.tell(Event::Gateways(vec!["10.0.0.254".parse().unwrap()]));
    story.tell(Event::Vip(vip(vip4(), &["n1", "n2"])));
    let text = |story: &Story| story.mind.explain(vip4()).unwrap().to_string();
    assert_eq!(text(&story), "10.0.0.50 is announced by n1 (term 2, epoch 1); 1. n1; 2. n2 Alive");
    story.tell(Event::Gates(Gates::PROXY.with(Gates::STALE)));
    assert_eq!(
        text(&story),
        "10.0.0.50 is announced by n1 (term 2, epoch 1); 1. n1 (ProxyNotHealthy, Stale); 2. n2 Alive"
    );
    let gateway: IpAddr = "10.0.0.254".parse().unwrap();
    story.tell(Event::Vip(vip(gateway, &["n1", "n2"])));
    let explanation = story.mind.explain(gateway).unwrap();
    assert_eq!(explanation.gates, [Gate::Refused(Refusal::GatewayAddress)]);
    assert_eq!((explanation.owner, explanation.answers), (None, false));
}

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Frame(Vec<u8>),
    Payload(Vec<u8>),
    Speech(u64, bool, Gates, u8, u64, Body),
    Gates(Gates),
    Link(bool),
    NoLinks,
    Vip(u8, bool, i64),
    Gone(u8),
    Leave,
}

fn any_op() -> impl Strategy<Value = Op> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..120);
    let entry = (0_u8..4, 0_u64..5, 0_i64..3, any::<[bool; 5]>()).prop_map(
        |(last, term, epoch, [unfit, reluctant, isolated, leaving, probing])| Entry {
            address: IpAddr::from([10, 0, 0, 50 + last]),
            statement: match term {
                0 => Statement::Nothing,
                1 => Statement::Refusing,
                term => Statement::Announcing(Claim {
                    epoch,
                    term,
                    rank: 1,
                    unfit,
                    reluctant,
                    isolated,
                    leaving,
                    probing,
                }),
            },
        },
    );
    let entries = || proptest::collection::vec(entry.clone(), 0..4);
    let (first, last) = (IpAddr::from([0, 0, 0, 0]), IpAddr::from([255, 255, 255, 255]));
    let body = prop_oneof![
        4 => Just(Body::Heartbeat),
        2 => entries().prop_map(Body::Changes),
        1 => Just(Body::Query),
        1 => entries().prop_map(move |entries| Body::Range { first, last, entries }),
        1 => Just(Body::Goodbye),
        1 => Just(Body::DoYouKnow),
        1 => (0_u64..3).prop_map(|digest| Body::Know(Box::new([digest; BUCKETS]))),
        1 => Just(Body::WhoHas(vec![IpAddr::from([10, 0, 0, 50]), IpAddr::from([10, 0, 0, 51])])),
        2 => entries().prop_map(|entries| {
            Body::Claimed(entries.into_iter().map(|entry| Witnessed { mac: PEER, entry }).collect())
        }),
        1 => Just(Body::Other),
    ];
    let gates = (0_u16..4).prop_map(Gates::from_bits);
    prop_oneof![
        4 => (0_u64..500).prop_map(Op::Pass),
        2 => bytes().prop_map(Op::Frame),
        1 => bytes().prop_map(Op::Payload),
        6 => (0_u64..3, any::<bool>(), gates.clone(), 0_u8..4, 0_u64..4, body).prop_map(
            |(instance, isolated, gates, sequence, digest, body)| {
                Op::Speech(instance, isolated, gates, sequence, digest, body)
            }
        ),
        1 => gates.prop_map(Op::Gates),
        1 => any::<bool>().prop_map(Op::Link),
        1 => Just(Op::NoLinks),
        4 => (0_u8..4, any::<bool>(), 0_i64..3).prop_map(|(last, claimed, epoch)| Op::Vip(last, claimed, epoch)),
        1 => (0_u8..4).prop_map(Op::Gone),
        1 => Just(Op::Leave),
    ]
}

proptest! {
    /// Whatever comes, in whatever order: no panic, deadlines come to rest, and every frame is well-formed.
    #[test]
    fn nothing_that_arrives_shakes_the_mind(ops in proptest::collection::vec(any_op(), 1..80)) {
        let mut story = Story::settled();
        for op in ops {
            let done = match op {
                Op::Pass(duration) => story.pass(ms(duration)),
                Op::Frame(frame) => story.hear_frame(frame),
                Op::Payload(payload) => story.hear(payload),
                Op::Gates(gates) => story.tell(Event::Gates(gates)),
                Op::Speech(instance, isolated, gates, sequence, digest, body) => {
                    let sequence = u64::from(sequence);
                    let header = Header { mac: PEER, gates, instance, sequence, digest, knowledge: digest, isolated, leaving: false };
                    match body {
                        Body::Heartbeat | Body::Goodbye => story.hear(heartbeat(instance, header, body)),
                        body => story.hear(SpeechRepr { header, body }.emit()),
                    }
                }
                Op::Link(carrier) => story.tell(Event::Links(vec![link(carrier)])),
                Op::NoLinks => story.tell(Event::Links(Vec::new())),
                Op::Vip(last, claimed, epoch) => {
                    let address = IpAddr::from([10, 0, 0, 50 + last]);
                    story.tell(Event::Vip(Vip { claimed, epoch, ..vip(address, &["n1", "n2"]) }))
                }
                Op::Gone(last) => story.tell(Event::VipGone(IpAddr::from([10, 0, 0, 50 + last]))),
                Op::Leave => story.tell(Event::Leave),
            };
            for action in &done {
                if let Action::SendDatagram { payload, .. } = action {
                    prop_assert!(said(payload).is_some());
                }
            }
            let mut rounds = 0;
            while story.mind.next_deadline().is_some_and(|due| due <= story.now) {
                story.tell(Event::Deadline);
                rounds += 1;
                prop_assert!(rounds < 20, "it never rests");
            }
        }
    }
}
