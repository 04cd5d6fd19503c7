//! The mind in stories: what is asked for, what the kernel answers, and what must follow.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::model::tcp;
use crate::filter::frontend::{Claim, Frontend, Guard, ServiceName};
use crate::filter::set::Set;
use crate::filter::sources::{Family, Sources};
use crate::filter::table::{Element, Operation, Place, Table, Transaction};
use crate::filter::{
    Action, Count, Event, Failure, FailureKind, Filter, Health, Holds, Notice, Owner, Refused, Stations,
    TableId, Traffic, TrafficOf,
};

const VIP: &str = "192.168.10.50";

fn at(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service() -> ServiceName {
    ServiceName::new("shop", "web")
}

fn frontend(digest: Option<&str>) -> Arc<Frontend> {
    let claim = Claim { service: service(), guard: digest.map(Into::into) };
    Arc::new(Frontend::new(vec![claim], [(tcp(80), service())]))
}

fn guard(digest: &str, ranges: &[&str]) -> Arc<Guard> {
    Arc::new(Guard {
        digest: digest.to_owned(),
        sources: Sources::parse(ranges.iter().copied()).unwrap(),
        ranges: ranges.iter().map(|range| (*range).to_owned()).collect(),
        node_ports: vec![tcp(30080)],
        ..Guard::default()
    })
}

/// A mind and a kernel that does what it is told, unless it is told to fail.
struct Story {
    filter: Filter,
    now: Instant,
    kernel: Option<Table>,
    id: TableId,
    /// What the next answers are instead.
    fails: Vec<FailureKind>,
    commits: Vec<Transaction>,
    said: Vec<Action>,
}

impl Story {
    #[allow(clippy::disallowed_methods)] // Time has to start somewhere; from there on it is pretended.
    fn begins() -> Self {
        let mut story = Self {
            filter: Filter::new(),
            now: Instant::now(),
            kernel: None,
            id: TableId { handle: 1, owner: Owner::Nobody },
            fails: Vec::new(),
            commits: Vec::new(),
            said: Vec::new(),
        };
        story.tell(Event::Stations(Stations::Node, BTreeSet::new()));
        story
    }

    /// Tells the mind something, and does what follows until it asks for nothing more.
    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut events = vec![event];
        let mut out = Vec::new();
        while !events.is_empty() {
            for event in std::mem::take(&mut events) {
                self.filter.handle(self.now, event, &mut out);
            }
            for action in std::mem::take(&mut out) {
                let answer = match action {
                    Action::Dump => Some(self.answer(|story| Event::Dumped(story.holds()))),
                    Action::Look => {
                        Some(self.answer(|story| Event::Seen(story.kernel.as_ref().map(|_| story.id))))
                    }
                    Action::Commit(transaction) => Some(self.answer(|story| story.commit(transaction))),
                    other => {
                        self.said.push(other);
                        None
                    }
                };
                events.extend(answer);
            }
        }
        std::mem::take(&mut self.said)
    }

    fn answer(&mut self, answer: impl FnOnce(&mut Self) -> Event) -> Event {
        match self.fails.pop() {
            Some(kind) => {
                Event::Failed(Failure { what: "the table".to_owned(), error: "no".to_owned(), kind })
            }
            None => answer(self),
        }
    }

    fn holds(&self) -> Holds {
        match &self.kernel {
            Some(table) => Holds::Ours { table: Box::new(table.clone()), id: self.id },
            None => Holds::Nothing,
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Event {
        let mut elements: BTreeSet<Element> = self.kernel.iter().flat_map(Table::elements).collect();
        let mut shape = self.kernel.as_ref().map(|table| table.shape.clone()).unwrap_or_default();
        for operation in &transaction {
            match operation {
                Operation::Create(new) => {
                    self.id.handle += 1;
                    shape = new.clone();
                }
                Operation::Delete => elements.clear(),
                Operation::Reshape { to, .. } => shape = to.clone(),
                Operation::Add(element) => assert!(elements.insert(*element), "{element:?} twice"),
                Operation::Remove(element) => assert!(elements.remove(element), "{element:?} is not there"),
            }
        }
        self.kernel = Some(Table::from_elements(shape, elements));
        self.commits.push(transaction);
        Event::Done
    }

    fn later(&mut self, wait: Duration) -> Vec<Action> {
        let end = self.now + wait;
        let mut said = Vec::new();
        while let Some(due) = self.filter.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            said.extend(self.tell(Event::Deadline));
        }
        self.now = end;
        said
    }

    /// An address is known, and the guard of the Service that claims it.
    fn with_a_guarded_address() -> Self {
        let mut story = Self::begins();
        story.tell(Event::Guards(vec![(service(), guard("d1", &["10.0.0.0/8"]))]));
        let said = story.tell(Event::Frontends(vec![(at(VIP), frontend(Some("d1")))]));
        assert_eq!(guarded(&said), [(at(VIP), Some("d1".into()))]);
        story.commits.clear();
        story
    }

    /// The kernel refuses to make this part of the first table; what is said then.
    fn with_a_kernel_that_lacks(what: &str, kind: FailureKind) -> (Self, Vec<Action>) {
        let mut story = Self::begins();
        story.tell(Event::Guards(vec![(service(), guard("d1", &["10.0.0.0/8"]))]));
        let mut out = Vec::new();
        story.filter.handle(story.now, Event::Frontends(vec![(at(VIP), frontend(Some("d1")))]), &mut out);
        story.filter.handle(story.now, Event::Dumped(Holds::Nothing), &mut out);
        let error = "No such file or directory (os error 2)".to_owned();
        let said = story.tell(Event::Failed(Failure { what: what.to_owned(), error, kind }));
        (story, said)
    }

    fn has(&self, element: Element) -> bool {
        self.kernel.as_ref().unwrap().elements().any(|held| held == element)
    }

    fn lets_in(&self, net: &str) -> bool {
        self.has(Element::Source(Place::Address(at(VIP)), net.parse().unwrap()))
    }
}

fn guarded(said: &[Action]) -> Vec<(IpAddr, Option<Arc<str>>)> {
    let all = said.iter().filter_map(|action| match action {
        Action::Guarded(guarded) => Some(guarded.clone()),
        _ => None,
    });
    all.flatten().collect()
}

fn health(said: &[Action]) -> Option<Health> {
    let mut all = said.iter().rev().filter_map(|action| match action {
        Action::Health(health) => Some(health.clone()),
        _ => None,
    });
    all.next()
}

#[test]
fn nothing_is_touched_before_all_addresses_and_all_guards_are_known() {
    let mut story = Story::begins();
    story.later(Duration::from_secs(10));
    story.tell(Event::Frontends(vec![(at(VIP), frontend(Some("d1")))]));
    story.later(Duration::from_secs(10));
    assert!(story.commits.is_empty());
    story.tell(Event::Guards(Vec::new()));
    assert!(!story.commits.is_empty());
}

#[test]
fn i3_fail_closed_an_address_is_guarded_once_the_kernel_holds_what_its_claim_names() {
    let mut story = Story::begins();
    story.tell(Event::Guards(Vec::new()));
    let said = story.tell(Event::Frontends(vec![(at(VIP), frontend(Some("d1")))]));
    assert_eq!(guarded(&said), [], "the guard is not known yet");
    assert!(story.has(Element::Barrier(Place::Address(at(VIP)))), "and nobody is let in meanwhile");
    let said = story.tell(Event::Guard(service(), Some(guard("d0", &["10.0.0.0/8"]))));
    assert_eq!(guarded(&said), [], "it is another one");
    assert!(story.lets_in("10.0.0.0/8"));
    let said = story.tell(Event::Guard(service(), Some(guard("d1", &["10.0.0.0/8"]))));
    assert_eq!(guarded(&said), [(at(VIP), Some("d1".into()))], "the same ranges, the right name");
    assert!(story.has(Element::Barrier(Place::NodePort(tcp(30080)))));
}

#[test]
fn a_claim_that_still_names_a_former_guard_is_satisfied() {
    let mut story = Story::with_a_guarded_address();
    let mut newer = (*guard("d2", &["10.0.0.0/8", "192.0.2.0/24"])).clone();
    newer.succeed(&guard("d1", &[]));
    let said = story.tell(Event::Guard(service(), Some(Arc::new(newer))));
    assert_eq!(guarded(&said), [], "what was said still holds");
    assert!(story.lets_in("192.0.2.0/24"));
    let said = story.tell(Event::Frontend(at(VIP), Some(frontend(Some("d2")))));
    assert_eq!(guarded(&said), [(at(VIP), Some("d2".into()))]);
}

/// To refuse what comes to such an address would cut the node off from its gateway, or from the API server.
#[test]
fn an_address_that_is_a_stations_is_left_alone_whoever_claims_it() {
    for whose in [Stations::Node, Stations::Peers] {
        let mut story = Story::with_a_guarded_address();
        story.tell(Event::Announcing(at(VIP), true));
        let said = story.tell(Event::Stations(whose, BTreeSet::from([at(VIP), at("192.168.10.1")])));
        assert_eq!(guarded(&said), []);
        assert!(story.lets_in("10.0.0.0/8"), "it is guarded for as long as it is announced");
        let said = story.tell(Event::Announcing(at(VIP), false));
        assert_eq!(guarded(&said), [(at(VIP), None)]);
        assert!(!story.has(Element::Barrier(Place::Address(at(VIP)))));
        assert!(story.has(Element::Barrier(Place::NodePort(tcp(30080)))), "its nodePorts are guarded on");
        story.tell(Event::Frontend(at("192.168.10.1"), Some(frontend(None))));
        assert!(!story.has(Element::Served(at("192.168.10.1"), tcp(80))));
        let said = story.tell(Event::Stations(whose, BTreeSet::new()));
        assert_eq!(guarded(&said), [(at(VIP), Some("d1".into()))]);
        assert!(story.lets_in("10.0.0.0/8") && story.has(Element::Served(at("192.168.10.1"), tcp(80))));
    }
}

#[test]
fn an_address_that_no_host_can_have_is_left_alone() {
    let mut story = Story::with_a_guarded_address();
    for address in ["127.0.0.1", "::1", "224.0.0.18", "ff02::1", "255.255.255.255"] {
        story.tell(Event::Frontend(at(address), Some(frontend(None))));
        assert!(!story.has(Element::Barrier(Place::Address(at(address)))), "{address}");
    }
}

#[test]
fn an_address_without_guards_is_in_the_kernel_and_there_is_nothing_to_say_of_it() {
    let mut story = Story::begins();
    story.tell(Event::Guards(Vec::new()));
    let said = story.tell(Event::Frontends(vec![(at(VIP), frontend(None))]));
    assert_eq!(guarded(&said), []);
    assert!(story.lets_in("0.0.0.0/0") && story.has(Element::Served(at(VIP), tcp(80))));
    let mut others = Story::with_a_guarded_address();
    let said = others.tell(Event::Frontend(at(VIP), Some(frontend(None))));
    assert_eq!(guarded(&said), [(at(VIP), None)], "its ranges were taken away");
}

#[test]
fn i3_fail_closed_a_released_address_keeps_its_barriers_until_it_is_announced_no_more() {
    let mut story = Story::with_a_guarded_address();
    story.tell(Event::Announcing(at(VIP), true));
    assert!(story.has(Element::Announced(at(VIP))));
    story.tell(Event::Frontend(at(VIP), Some(Arc::default())));
    story.later(Duration::from_secs(60));
    assert!(story.lets_in("10.0.0.0/8"), "it is still announced");
    story.tell(Event::Announcing(at(VIP), false));
    story.later(Duration::from_secs(9));
    assert!(story.lets_in("10.0.0.0/8"), "kube-proxy may still lead to its Service");
    let said = story.later(Duration::from_secs(2));
    assert_eq!(guarded(&said), [(at(VIP), None)]);
    assert_eq!(story.kernel.as_ref().unwrap().addresses().count(), 0);
}

#[test]
fn a_released_address_that_is_claimed_again_is_not_let_go() {
    let mut story = Story::with_a_guarded_address();
    story.tell(Event::Frontend(at(VIP), None));
    story.later(Duration::from_secs(5));
    story.tell(Event::Frontend(at(VIP), Some(frontend(Some("d1")))));
    story.later(Duration::from_secs(60));
    assert!(story.lets_in("10.0.0.0/8"));
    assert!(story.commits.is_empty(), "nothing changed");
}

#[test]
fn only_what_changed_is_sent_and_permissions_come_before_prohibitions() {
    let mut story = Story::with_a_guarded_address();
    story.tell(Event::Guard(service(), Some(guard("d2", &["192.0.2.0/24"]))));
    let source = |place, net: &str| Element::Source(place, net.parse().unwrap());
    let places = [Place::Address(at(VIP)), Place::NodePort(tcp(30080))];
    let changes: Vec<_> =
        story.commits.iter().filter(|commit| !matches!(commit[..], [Operation::Reshape { .. }])).collect();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert_eq!(*changes[0], places.map(|place| Operation::Add(source(place, "192.0.2.0/24"))));
    assert_eq!(*changes[1], places.map(|place| Operation::Remove(source(place, "10.0.0.0/8"))));
}

#[test]
fn what_comes_too_fast_is_made_in_one() {
    let mut story = Story::with_a_guarded_address();
    story.later(Duration::from_secs(10));
    story.commits.clear();
    for n in 0..100_u8 {
        story.tell(Event::Guard(service(), Some(guard(&format!("g{n}"), &[&format!("10.{n}.0.0/16")]))));
        story.later(Duration::from_millis(10));
    }
    story.later(Duration::from_secs(1));
    let changes =
        story.commits.iter().filter(|commit| commit.iter().any(|op| matches!(op, Operation::Add(_))));
    let changes = changes.count();
    assert!((10..=17).contains(&changes), "{changes} changes in a second");
    assert!(story.lets_in("10.99.0.0/16") && !story.lets_in("10.98.0.0/16"));
}

#[test]
fn a_table_that_is_there_is_gone_on_with_and_only_what_differs_is_changed() {
    let before = Story::with_a_guarded_address();
    let mut story = Story { kernel: before.kernel, id: before.id, ..Story::begins() };
    story.tell(Event::Frontends(vec![(at(VIP), frontend(Some("d2")))]));
    let said = story.tell(Event::Guards(vec![(service(), guard("d2", &["10.0.0.0/8", "192.0.2.0/24"]))]));
    assert_eq!(guarded(&said), [(at(VIP), Some("d2".into()))]);
    assert!(matches!(story.commits[0][..], [Operation::Reshape { .. }]), "its rules are not trusted");
    let others: Vec<_> = story.commits[1..].iter().flatten().collect();
    assert!(
        others.iter().all(|op| matches!(op, Operation::Add(_) | Operation::Reshape { .. })),
        "{others:?}"
    );
    assert!(!others.iter().any(|op| matches!(op, Operation::Create(_))));
}

#[test]
fn beside_the_process_that_owns_the_table_all_that_it_holds_counts_and_the_rest_waits_for_its_end() {
    let before = Story::with_a_guarded_address();
    let id = TableId { owner: Owner::Another, ..before.id };
    let mut story = Story { kernel: before.kernel, id, ..Story::begins() };
    story.tell(Event::Frontends(vec![(at(VIP), frontend(Some("d1")))]));
    let said = story.tell(Event::Guards(vec![(service(), guard("d1", &["10.0.0.0/8"]))]));
    assert_eq!(guarded(&said), [(at(VIP), Some("d1".into()))], "the new process may announce at once");
    assert_eq!(health(&said), Some(Health::default()));
    // Something changes meanwhile, and the other process does not see to it.
    story.tell(Event::Guard(service(), Some(guard("d2", &["192.0.2.0/24"]))));
    let said = story.later(Duration::from_secs(9));
    assert!(story.commits.is_empty() && guarded(&said).is_empty());
    let said = story.later(Duration::from_secs(2));
    assert!(health(&said).unwrap().missing.unwrap().contains("another process owns"));
    // It ends, and the kernel gives the table to whoever takes it.
    story.id.owner = Owner::Nobody;
    story.later(Duration::from_millis(100));
    assert!(story.lets_in("192.0.2.0/24") && !story.lets_in("10.0.0.0/8"));
}

#[test]
fn a_table_of_another_version_is_replaced_at_once() {
    let mut story = Story::begins();
    story.tell(Event::Guards(vec![(service(), guard("d1", &["10.0.0.0/8"]))]));
    let mut out = Vec::new();
    story.filter.handle(story.now, Event::Frontends(vec![(at(VIP), frontend(Some("d1")))]), &mut out);
    assert_eq!(out, [Action::Dump]);
    let mut out = Vec::new();
    story.filter.handle(story.now, Event::Dumped(Holds::Foreign), &mut out);
    let [Action::Commit(transaction)] = &out[..] else { panic!("{out:?}") };
    assert!(matches!(transaction[..2], [Operation::Delete, Operation::Create(_)]));
    assert!(transaction.contains(&Operation::Add(Element::Barrier(Place::Address(at(VIP))))));
    let mut out = Vec::new();
    story.filter.handle(story.now, Event::Done, &mut out);
    assert_eq!(guarded(&out), [(at(VIP), Some("d1".into()))]);
}

#[test]
fn a_table_that_vanishes_is_made_again_within_a_second() {
    let mut story = Story::with_a_guarded_address();
    story.later(Duration::from_secs(5));
    let before = story.kernel.take();
    let said = story.later(Duration::from_millis(300));
    assert!(said.contains(&Action::Vanished));
    assert_eq!(guarded(&said), [(at(VIP), None), (at(VIP), Some("d1".into()))]);
    assert_eq!(story.kernel, before);
    // A table that another has put in its place is none of ours either.
    story.id.handle += 100;
    let said = story.later(Duration::from_millis(300));
    assert!(said.contains(&Action::Vanished));
}

#[test]
fn after_a_failure_all_begins_with_what_the_kernel_holds_then() {
    for kind in [FailureKind::Busy, FailureKind::Mismatch] {
        let mut story = Story::with_a_guarded_address();
        story.fails = vec![kind; 2];
        story.tell(Event::Guard(service(), Some(guard("d2", &["192.0.2.0/24"]))));
        assert!(!story.lets_in("192.0.2.0/24"));
        let said = story.later(Duration::from_secs(1));
        assert_eq!(health(&said), None, "what passes by itself is nobody's business");
        assert!(story.lets_in("192.0.2.0/24") && !story.lets_in("10.0.0.0/8"));
    }
}

#[test]
fn a_failure_in_the_middle_leaves_no_half_of_a_policy() {
    let mut story = Story::with_a_guarded_address();
    let mut out = Vec::new();
    story.filter.handle(story.now, Event::Guard(service(), Some(guard("d2", &["192.0.2.0/24"]))), &mut out);
    // The first of two transactions comes true, the second does not.
    while let Some(Action::Commit(transaction)) = out.pop() {
        let is_last = transaction.iter().any(|op| matches!(op, Operation::Remove(_)));
        if is_last {
            story.tell(Event::Failed(Failure {
                what: "elements".to_owned(),
                error: "Cannot allocate memory".to_owned(),
                kind: FailureKind::Busy,
            }));
            break;
        }
        story.commit(transaction);
        story.filter.handle(story.now, Event::Done, &mut out);
    }
    assert!(story.lets_in("192.0.2.0/24") && story.lets_in("10.0.0.0/8"), "who was let in and is to be, is");
    story.later(Duration::from_secs(1));
    assert!(story.lets_in("192.0.2.0/24") && !story.lets_in("10.0.0.0/8"));
}

#[test]
fn a_kernel_that_lacks_something_is_said_and_nothing_is_guarded() {
    let (mut story, said) =
        Story::with_a_kernel_that_lacks("rule 4 of the chain prerouting", FailureKind::Unsupported);
    let missing = health(&said).unwrap().missing.unwrap();
    assert!(missing.contains("rule 4 of the chain prerouting: No such file"), "{missing}");
    assert_eq!(guarded(&said), []);
    // A module was loaded.
    let said = story.later(Duration::from_secs(31));
    assert_eq!(health(&said), Some(Health::default()));
    assert_eq!(guarded(&said), [(at(VIP), Some("d1".into()))]);
}

#[test]
fn a_kernel_that_cannot_tell_of_packets_guards_without_that() {
    let (story, said) = Story::with_a_kernel_that_lacks("rule 3 of the chain icmp4", FailureKind::NoLog);
    assert_eq!(guarded(&said), [(at(VIP), Some("d1".into()))]);
    let health = health(&said).unwrap();
    assert_eq!(health.missing, None);
    assert!(health.remark.unwrap().contains("pings"));
    assert!(!story.kernel.unwrap().shape.log);
}

#[test]
fn what_others_changed_is_put_right_when_it_is_compared() {
    let mut story = Story::with_a_guarded_address();
    let table = story.kernel.take().unwrap();
    let kept = table.elements().filter(|element| !matches!(element, Element::Barrier(_)));
    story.kernel = Some(Table::from_elements(table.shape.clone(), kept));
    story.later(Duration::from_secs(601));
    assert_eq!(story.kernel, Some(table));
}

#[test]
fn pings_are_answered_where_the_address_is_announced() {
    let mut story = Story::with_a_guarded_address();
    assert_eq!(story.tell(Event::Ping(at(VIP), vec![1])), []);
    story.tell(Event::Announcing(at(VIP), true));
    assert_eq!(story.tell(Event::Ping(at(VIP), vec![1])), [Action::AnswerPing(vec![1])]);
}

#[test]
fn that_somebody_begins_to_be_refused_is_told_once_and_again_after_a_while() {
    let mut story = Story::with_a_guarded_address();
    let refused = |source: &str, destination: &str, port| Refused {
        source: at(source),
        destination: at(destination),
        port: Some(tcp(port)),
    };
    let said = story.tell(Event::Refused(refused("203.0.113.7", VIP, 80)));
    let [Action::Notice(notice)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(
        notice.to_string(),
        "203.0.113.7 is refused at tcp/80 of 192.168.10.50: the source ranges of shop/web do not hold it"
    );
    assert_eq!(story.tell(Event::Refused(refused("203.0.113.8", VIP, 80))), []);
    story.later(Duration::from_secs(61));
    let said = story.tell(Event::Refused(refused("203.0.113.8", "192.168.10.11", 30080)));
    let [Action::Notice(Notice { is_node_port: true, .. })] = &said[..] else { panic!("{said:?}") };
    assert_eq!(story.tell(Event::Refused(refused("203.0.113.8", "192.168.10.77", 80))), [], "none of ours");
}

#[test]
fn what_is_counted_is_told_as_what_is_new_by_address_and_service() {
    let mut story = Story::with_a_guarded_address();
    let let_in = |packets| Count {
        set: Set::Ports(Family::V4),
        address: Some(at(VIP)),
        port: Some(tcp(80)),
        packets,
        bytes: 100 * packets,
    };
    let refused =
        Count { set: Set::RefusedAddresses(Family::V4), port: None, packets: 3, bytes: 180, ..let_in(0) };
    let of = |let_in| TrafficOf { address: Some(at(VIP)), service: Some(service()), let_in };
    let traffic = |let_in, packets, bytes| Traffic { of: of(let_in), packets, bytes };
    let said = story.tell(Event::Counted(vec![let_in(10), refused]));
    assert_eq!(said, [Action::Traffic(vec![traffic(false, 3, 180), traffic(true, 10, 1000)])]);
    let said = story.tell(Event::Counted(vec![let_in(25), refused]));
    assert_eq!(said, [Action::Traffic(vec![traffic(true, 15, 1500)])]);
    let said = story.tell(Event::Counted(vec![let_in(4)]));
    assert_eq!(
        said,
        [Action::Traffic(vec![traffic(true, 4, 400)])],
        "the element was removed and came again"
    );
}

#[test]
fn it_says_in_words_who_may_come_in() {
    let mut story = Story::with_a_guarded_address();
    let explained = |story: &Story| story.filter.explain(at(VIP)).unwrap().to_string();
    assert_eq!(explained(&story), "192.168.10.50: tcp/80 of shop/web lets in 10.0.0.0/8");
    story.tell(Event::Guard(service(), Some(guard("d2", &["fd00::/8"]))));
    assert_eq!(
        explained(&story),
        "192.168.10.50: tcp/80 of shop/web lets in nobody (it has no source range of this family)"
    );
    let node_ports = story.filter.explain_node_ports(&service()).unwrap().to_string();
    assert_eq!(node_ports, "nodePorts: tcp/30080 of shop/web lets in fd00::/8");
    story.tell(Event::Frontend(at(VIP), Some(frontend(None))));
    story.tell(Event::Guard(service(), None));
    assert_eq!(explained(&story), "192.168.10.50: tcp/80 of shop/web lets in everybody");
    assert!(story.filter.explain(at("192.168.10.51")).is_none());
}
