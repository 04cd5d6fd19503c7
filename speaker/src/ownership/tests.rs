//! Stories of one node, n2, among its peers n1 and n3, whose words the story writes.

#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use landfall_crds::Fallback;

use super::claim::Claim;
use super::*;
use crate::lan::{Link, PeerInfo, PeerLink};
use crate::liveness;
use crate::mind::rng::Rng;
use crate::mind::{Refusal, Withdrawal};
use crate::wire::speech::{Entry, digest};

const LAN: LinkIndex = LinkIndex(2);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn name(text: &str) -> NodeName {
    text.into()
}

fn address() -> IpAddr {
    "10.0.0.50".parse().unwrap()
}

fn vip(candidates: &[&str]) -> Vip {
    Vip {
        address: address(),
        claimed: true,
        epoch: 1,
        candidates: candidates.iter().map(|node| name(node)).collect(),
        interfaces: Vec::new(),
        fallback: Fallback::None,
        last_term: 0,
        announced_before: true,
    }
}

fn claim(epoch: i64, term: u64, rank: u16) -> Statement {
    Statement::Announcing(Claim { epoch, term, rank, isolated: false, leaving: false, probing: false })
}

fn with(statement: Statement, change: impl FnOnce(&mut Claim)) -> Statement {
    let mut claim = *statement.claim().unwrap();
    change(&mut claim);
    Statement::Announcing(claim)
}

struct Peer {
    speaks: bool,
    leaving: bool,
    sequence: u64,
    said: Statement,
}

struct Story {
    ownership: Ownership,
    facts: Facts,
    liveness: Liveness,
    hush: Hush,
    now: Instant,
    peers: BTreeMap<&'static str, Peer>,
    /// What was done, without messages to peers.
    done: Vec<Action>,
}

impl Story {
    /// n2 has listened and heard n1 and n3 say nothing.
    fn settled() -> Self {
        let mut story = Self::starting();
        story.pass(ms(400));
        story
    }

    fn starting() -> Self {
        let timing = Timing { interval: ms(100), multiplier: 3 };
        let mut story = Self {
            ownership: Ownership::new(timing),
            facts: Facts::new(name("n2")),
            liveness: Liveness::new(timing, Rng::new(1)),
            hush: Hush::default(),
            now: Instant::now(),
            peers: BTreeMap::new(),
            done: Vec::new(),
        };
        for peer in ["n1", "n3"] {
            let silent = Peer { speaks: true, leaving: false, sequence: 0, said: Statement::Nothing };
            story.peers.insert(peer, silent);
        }
        story.facts.set_peers([1, 3].map(peer_info).to_vec());
        story.set_carrier(true);
        story
    }

    fn set_carrier(&mut self, carrier: bool) {
        let mac = MacAddr([2, 0, 0, 0, 0, 2]);
        let addresses = vec!["10.0.0.2/24".parse().unwrap()];
        self.facts.set_links(vec![Link { index: LAN, name: "eth0".into(), mac, carrier, addresses }]);
        self.watch_all();
    }

    fn watch_all(&mut self) {
        let sessions = self.facts.sessions().iter();
        let watched = sessions.map(|(link, peers)| (*link, peers.keys().cloned().collect())).collect();
        self.watch(liveness::Event::Watch(&watched));
        self.tell(Event::Around);
    }

    fn watch(&mut self, event: liveness::Event<'_>) {
        let mut out = Vec::new();
        self.liveness.handle(self.now, event, &mut out);
        for action in out {
            match action {
                liveness::Action::Beat(_) | liveness::Action::AskLan(_) => continue,
                liveness::Action::Left(node) => self.tell(Event::Void(&node)),
                _ => {}
            }
            self.tell(Event::Around);
        }
    }

    fn tell(&mut self, event: Event<'_>) {
        let around = Around { facts: &self.facts, liveness: &self.liveness, hush: &self.hush };
        let mut out = Vec::new();
        self.ownership.handle(self.now, around, event, &mut out);
        let to_peers = |action: &Action| {
            matches!(action, Action::Tell(_) | Action::TellAll(_) | Action::Query(_) | Action::Listen(..))
        };
        self.done.extend(out.into_iter().filter(|action| !to_peers(action)));
    }

    /// A peer speaks: its heartbeat, with all that it says.
    fn speak(&mut self, peer: &'static str) {
        let state = &self.peers[peer];
        let entry = Entry { address: address(), statement: state.said };
        let header = Header {
            mac: MacAddr([2, 0, 0, 0, 0, peer.as_bytes()[1] - b'0']),
            instance: 1,
            sequence: state.sequence,
            digest: digest(&entry),
            isolated: false,
            leaving: state.leaving,
        };
        let node = name(peer);
        self.watch(liveness::Event::Heard { link: LAN, node: &node, instance: 1, isolated: false });
        self.tell(Event::Said(&node, &header, &Body::Changes(vec![entry])));
    }

    fn says(&mut self, peer: &'static str, statement: Statement) {
        let state = self.peers.get_mut(peer).unwrap();
        state.said = statement;
        state.sequence += 1;
        self.speak(peer);
    }

    fn falls_silent(&mut self, peer: &str) {
        self.peers.get_mut(peer).unwrap().speaks = false;
    }

    /// Lets time pass, in which every living peer speaks every 50 ms, and a station is heard.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut speak_at = self.now;
        loop {
            let due = [Some(speak_at), self.liveness.next_deadline(), self.ownership.next_deadline()];
            let Some(next) = due.into_iter().flatten().min().filter(|due| *due <= until) else { break };
            self.now = self.now.max(next);
            if speak_at <= self.now {
                let living: Vec<_> =
                    self.peers.iter().filter(|(_, peer)| peer.speaks).map(|(name, _)| *name).collect();
                living.into_iter().for_each(|peer| self.speak(peer));
                speak_at = self.now + ms(50);
            }
            self.watch(liveness::Event::Deadline);
            self.tell(Event::Deadline);
        }
        self.now = until;
    }

    fn done(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.done)
    }

    fn own_claim(&self) -> Option<Claim> {
        self.ownership.own_statement(address()).claim().copied()
    }

    #[track_caller]
    fn assert_announces(&mut self, term: u64, epoch: i64) {
        let claim = self.own_claim().expect("it announces");
        assert_eq!((claim.term, claim.epoch), (term, epoch));
        assert_eq!(self.done(), [Action::Announce(address(), vec![LAN]), announcing(term, epoch)]);
    }

    #[track_caller]
    fn assert_withdrew(&mut self, reason: Withdrawal) {
        let report = Report::Withdrawn { address: address(), reason };
        assert_eq!(self.done(), [Action::Withdraw(address()), Action::Report(report)]);
        assert_eq!(self.own_claim(), None);
    }

    #[track_caller]
    fn assert_waits(&mut self) {
        assert_eq!(self.done(), []);
        assert_eq!(self.own_claim(), None);
    }
}

fn peer_info(number: u8) -> PeerInfo {
    let address = format!("10.0.0.{number}").parse().unwrap();
    PeerInfo {
        node: name(&format!("n{number}")),
        links: vec![PeerLink {
            mac: MacAddr([2, 0, 0, 0, 0, number]),
            subnets: vec!["10.0.0.0/24".parse().unwrap()],
            addresses: vec![address],
            address: Some(address),
        }],
    }
}

fn announcing(term: u64, epoch: i64) -> Action {
    Action::Report(Report::Announcing {
        address: address(),
        interface: "eth0".into(),
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        term,
        epoch,
    })
}

#[test]
fn the_first_ranked_claims_a_new_address_at_once() {
    let mut story = Story::settled();
    story.tell(Event::Vip(Vip { last_term: 4, ..vip(&["n2", "n1"]) }));
    story.assert_announces(5, 1);
}

#[test]
fn who_just_started_listens_first() {
    let mut story = Story::starting();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.pass(ms(299));
    story.assert_waits();
    story.pass(ms(1));
    story.assert_announces(1, 1);
}

#[test]
fn who_just_started_hears_of_an_owner_and_takes_nothing_from_it() {
    let mut story = Story::starting();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.says("n1", claim(1, 7, 1));
    story.pass(ms(5000));
    story.assert_waits();
}

#[test]
fn nothing_is_decided_before_links_and_peers_are_known() {
    let timing = Timing { interval: ms(100), multiplier: 3 };
    let mut ownership = Ownership::new(timing);
    let (facts, hush) = (Facts::new(name("n2")), Hush::default());
    let liveness = Liveness::new(timing, Rng::new(1));
    let around = Around { facts: &facts, liveness: &liveness, hush: &hush };
    let mut out = Vec::new();
    ownership.handle(Instant::now(), around, Event::Vip(vip(&["n2"])), &mut out);
    assert_eq!(out, []);
}

#[test]
fn the_second_ranked_claims_as_soon_as_the_first_is_dead() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    story.pass(ms(1000));
    story.assert_waits();
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_waits();
    story.pass(ms(101));
    story.assert_announces(8, 1);
}

#[test]
fn the_third_ranked_leaves_it_to_the_second_and_claims_if_that_one_does_not() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.falls_silent("n1");
    story.pass(ms(300));
    story.assert_waits();
    story.pass(ms(150));
    assert_eq!(story.done(), [Action::Ask(address(), vec![LAN])], "does anybody answer after all?");
    story.pass(ms(50));
    story.assert_announces(8, 1);
}

#[test]
fn a_backstop_is_put_off_while_a_speaker_answers() {
    let mut story = Story::settled();
    story.facts.set_peers([1, 3, 4].map(peer_info).to_vec());
    story.watch_all();
    story.tell(Event::Vip(vip(&["n4", "n2"])));
    for _ in 0..10 {
        story.pass(ms(70));
        // n4 is not heard, and yet its answers show on the LAN.
        let mac = MacAddr([2, 0, 0, 0, 0, 4]);
        let sight = Sight { address: address(), node: &name("n4"), mac, gratuitous: false };
        story.tell(Event::SpeakerHas(sight));
    }
    assert!(story.done().iter().all(|action| matches!(action, Action::Ask(..))));
    assert_eq!(story.own_claim(), None);
    story.pass(ms(400));
    assert!(story.own_claim().is_some(), "it answers no more");
}

#[test]
fn a_better_candidate_that_refuses_is_passed_over_at_once() {
    let mut story = Story::settled();
    story.says("n1", Statement::Refusing);
    story.tell(Event::Vip(vip(&["n1", "n2"])));
    story.assert_announces(1, 1);
}

#[test]
fn an_owner_that_leaves_is_relieved_at_once() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.peers.get_mut("n1").unwrap().leaving = true;
    story.says("n1", with(claim(1, 7, 0), |claim| claim.leaving = true));
    story.assert_announces(8, 1);
}

#[test]
fn a_raised_epoch_that_ranks_this_node_first_makes_it_claim_beside_the_owner() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::Vip(Vip { epoch: 1, ..vip(&["n2", "n1"]) }));
    story.assert_waits();
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n2", "n1"]) }));
    story.assert_announces(8, 2);
}

#[test]
fn an_incumbent_waits_for_the_claim_of_the_one_that_a_raised_epoch_ranks_first() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n1", "n2"]) }));
    story.pass(ms(2000));
    assert_eq!(story.own_claim().map(|claim| claim.epoch), Some(1), "it is not for it to stamp");
    story.says("n1", claim(2, 2, 0));
    story.assert_withdrew(Withdrawal::Superseded);
    story.pass(ms(2000));
    story.assert_waits();
}

#[test]
fn an_incumbent_that_a_raised_epoch_ranks_first_stamps_its_claim() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n2", "n3"]) }));
    assert_eq!(story.done(), [announcing(1, 2)]);
    story.says("n1", claim(1, 9, 0));
    assert_eq!(story.done(), [Action::Correct(address())], "the higher epoch goes before the term");
}

#[test]
fn of_two_claims_the_loser_stops_and_the_winner_corrects_the_lan() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.says("n1", claim(1, 1, 1));
    assert_eq!(story.done(), [Action::Correct(address())]);
    story.says("n1", claim(1, 2, 1));
    story.assert_withdrew(Withdrawal::Superseded);
}

#[test]
fn frames_alone_settle_where_nothing_else_is_heard() {
    let mut story = Story::settled();
    story.facts.set_peers([1, 3, 4].map(peer_info).to_vec());
    story.watch_all();
    story.tell(Event::Vip(vip(&["n3", "n2", "n4"])));
    story.says("n3", Statement::Refusing);
    story.done();
    let mac = |number| MacAddr([2, 0, 0, 0, 0, number]);
    let n4 = name("n4");
    let sight = Sight { address: address(), node: &n4, mac: mac(4), gratuitous: true };
    story.tell(Event::SpeakerHas(sight));
    assert_eq!(story.done(), [Action::Correct(address())], "a worse rank, of whom nothing is heard");
    story.tell(Event::Vip(vip(&["n4", "n2", "n3"])));
    story.done();
    story.tell(Event::SpeakerHas(Sight { gratuitous: false, ..sight }));
    assert_eq!(story.done(), [], "an answer to somebody else's question");
    story.tell(Event::SpeakerHas(sight));
    story.assert_withdrew(Withdrawal::Superseded);
}

#[test]
fn who_hears_nobody_claims_late_and_does_not_raise_the_term() {
    let mut story = Story::settled();
    story.tell(Event::Vip(Vip { last_term: 7, ..vip(&["n1", "n2"]) }));
    story.says("n1", claim(1, 7, 0));
    story.falls_silent("n1");
    story.falls_silent("n3");
    story.pass(ms(1350));
    assert_eq!(story.own_claim(), None);
    story.pass(ms(150));
    let claim = story.own_claim().unwrap();
    assert_eq!((claim.term, claim.isolated), (7, true));
    story.done();
    story.peers.get_mut("n1").unwrap().speaks = true;
    story.pass(ms(60));
    story.assert_withdrew(Withdrawal::Superseded);
}

#[test]
fn a_claim_made_in_isolation_that_nobody_contests_becomes_a_whole_one() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.falls_silent("n1");
    story.falls_silent("n3");
    story.pass(ms(1600));
    assert!(story.own_claim().unwrap().isolated);
    story.done();
    story.peers.get_mut("n3").unwrap().speaks = true;
    story.pass(ms(60));
    let claim = story.own_claim().unwrap();
    assert_eq!((claim.term, claim.isolated), (8, false));
    assert_eq!(story.done(), [announcing(8, 1)]);
}

#[test]
fn leaving_waits_for_a_successor_but_not_for_ever() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.tell(Event::Leave);
    assert!(story.own_claim().unwrap().leaving);
    assert_eq!(story.done(), []);
    story.says("n1", claim(1, 2, 1));
    let report = Report::Withdrawn { address: address(), reason: Withdrawal::Left };
    assert_eq!(story.done(), [Action::Withdraw(address()), Action::Report(report), Action::Left]);

    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.tell(Event::Leave);
    story.pass(ms(2999));
    assert_eq!(story.done(), []);
    story.pass(ms(1));
    assert_eq!(story.done().last(), Some(&Action::Left));
}

#[test]
fn leaving_with_nobody_to_take_over_waits_for_nothing() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2"])));
    story.done();
    story.tell(Event::Leave);
    assert_eq!(story.done().last(), Some(&Action::Left));
}

#[test]
fn no_claim_or_no_candidate_is_withdrawn_at_once() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.tell(Event::Vip(Vip { claimed: false, ..vip(&["n2", "n1"]) }));
    story.assert_withdrew(Withdrawal::Released);
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.tell(Event::Vip(vip(&[])));
    story.assert_withdrew(Withdrawal::NotEligible);
}

#[test]
fn an_address_deleted_by_mistake_is_held_for_five_minutes() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.tell(Event::Vips(Vec::new()));
    story.pass(Duration::from_secs(200));
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.pass(Duration::from_secs(200));
    assert_eq!(story.done(), [], "nothing happened");
    story.tell(Event::Gone(address()));
    story.pass(Duration::from_secs(299));
    assert_eq!(story.done(), []);
    story.pass(Duration::from_secs(1));
    story.assert_withdrew(Withdrawal::Released);
    assert!(story.ownership.record(address()).is_none(), "and forgotten");
}

#[test]
fn what_was_released_while_this_node_was_not_told_is_not_claimed() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::Vips(Vec::new()));
    story.says("n1", Statement::Nothing);
    story.pass(Duration::from_secs(10));
    story.assert_waits();
}

#[test]
fn a_refused_address_is_withdrawn_and_reported_once() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.facts.set_gateways(vec![address()]);
    story.tell(Event::Around);
    let refused = Report::Refused { address: address(), reason: Refusal::GatewayAddress };
    let withdrawn = Report::Withdrawn { address: address(), reason: Withdrawal::Refused };
    let expected = [Action::Report(refused), Action::Withdraw(address()), Action::Report(withdrawn)];
    assert_eq!(story.done(), expected);
    assert_eq!(story.ownership.own_statement(address()), Statement::Refusing, "peers are told");
    story.tell(Event::Around);
    story.pass(ms(2000));
    assert_eq!(story.done(), []);
    story.facts.set_gateways(Vec::new());
    story.tell(Event::Around);
    let over = Action::Report(Report::NoLongerRefused { address: address() });
    assert_eq!(story.done(), [over, Action::Announce(address(), vec![LAN]), announcing(2, 1)]);
}

#[test]
fn a_lost_carrier_ends_it_and_a_returned_one_is_listened_to_first() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.done();
    story.set_carrier(false);
    story.assert_withdrew(Withdrawal::NotEligible);
    story.set_carrier(true);
    story.says("n1", claim(1, 2, 1));
    story.pass(ms(3000));
    story.assert_waits();
}

#[test]
fn the_first_announcement_ever_is_probed_for_and_told_of_meanwhile() {
    let mut story = Story::settled();
    story.tell(Event::Vip(Vip { announced_before: false, ..vip(&["n2", "n1"]) }));
    assert_eq!(story.done(), [Action::Probe(address(), vec![LAN])]);
    assert!(story.own_claim().unwrap().probing, "so that nobody else probes or claims");
    let mac = MacAddr([2, 0, 0, 0, 9, 9]);
    story.tell(Event::ProbeConflict(address(), mac));
    let conflict = Report::AddressConflict { address: address(), mac };
    assert_eq!(story.done(), [Action::Report(conflict)]);
    story.pass(ms(9_900));
    assert_eq!(story.done(), []);
    story.pass(ms(200));
    assert_eq!(story.done(), [Action::Probe(address(), vec![LAN])]);
    story.tell(Event::ProbeConflict(address(), mac));
    story.pass(ms(19_000));
    assert_eq!(story.done(), [], "twice as long, and reported once");
    story.pass(ms(1_100));
    assert_eq!(story.done(), [Action::Probe(address(), vec![LAN])]);
    story.tell(Event::ProbeClear(address()));
    let over = Report::AddressConflictOver { address: address() };
    let expected = [Action::Report(over), Action::Announce(address(), vec![LAN]), announcing(1, 1)];
    assert_eq!(story.done(), expected);
}

#[test]
fn nobody_probes_what_a_peer_announced() {
    let mut story = Story::settled();
    story.tell(Event::Vip(Vip { announced_before: false, ..vip(&["n1", "n2"]) }));
    story.says("n1", claim(1, 1, 0));
    story.falls_silent("n1");
    story.pass(ms(310));
    story.assert_announces(2, 1);
}

#[test]
fn past_the_list_only_what_the_fallback_allows() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1"])));
    story.falls_silent("n1");
    story.pass(ms(5000));
    story.assert_waits();
    story.tell(Event::Vip(Vip { fallback: Fallback::AnyOnSubnet, ..vip(&["n1"]) }));
    story.assert_announces(1, 1);
}

#[test]
fn what_a_peer_says_of_addresses_unknown_here_is_known_when_they_come() {
    let mut story = Story::settled();
    story.says("n1", claim(1, 7, 1));
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.pass(ms(1000));
    story.assert_waits();
    let known: BTreeSet<_> = story.ownership.peer_books().claims(address()).map(|(node, ..)| node).collect();
    assert_eq!(known, BTreeSet::from([&name("n1")]));
}
