//! When a node claims an address that it does not announce.

use super::*;

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
    let mut ownership = Ownership::new(timing, false);
    let (facts, hush) = (Facts::new(name("n2")), Hush::default());
    let liveness = Liveness::new(timing);
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
    story.pass(ms(154));
    story.assert_waits();
    story.pass(ms(51));
    story.assert_announces(8, 1);
}

#[test]
fn a_claim_after_a_death_tells_how_the_death_was_found_and_any_other_claim_does_not() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    let heard = story.now;
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_announces(8, 1);
    let [death] = story.failovers[..] else { panic!("{:?}", story.failovers) };
    assert_eq!((death.heard, death.suspected), (heard, heard + ms(105)));
    assert_eq!(death.verified, heard + ms(155), "ten probes in 50 ms");

    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    story.falls_silent("n1");
    // It is found dead while this node is no candidate: what it waits for later is not that death.
    story.tell(Event::Vip(vip(&["n1"])));
    story.pass(ms(200));
    story.tell(Event::Vip(vip(&["n2"])));
    story.pass(ms(200));
    story.assert_announces(8, 1);
    assert_eq!(story.failovers, []);
}

#[test]
fn the_third_ranked_leaves_it_to_the_second_and_claims_if_that_one_does_not() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.falls_silent("n1");
    story.pass(ms(300));
    story.assert_waits();
    story.pass(ms(51));
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
fn an_owner_that_does_not_learn_of_the_epoch_that_ranks_it_first_is_overtaken() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    // Released, and granted to another Service.
    story.tell(Event::Vip(Vip { claimed: false, ..vip(&["n1", "n2", "n3"]) }));
    story.tell(Event::Gone(address()));
    story.pass(ms(10_000));
    story.assert_waits();
    story.tell(Event::Vip(Vip { epoch: 2, announced_before: false, ..vip(&["n1", "n2", "n3"]) }));
    story.pass(ms(2_090));
    story.assert_waits();
    story.pass(ms(20));
    story.assert_announces(8, 2);
}

#[test]
fn the_third_ranked_leaves_it_to_the_second_to_overtake_an_owner() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n1", "n3", "n2"]) }));
    story.pass(ms(2_150));
    story.assert_waits();
    story.pass(ms(60));
    story.assert_announces(8, 2);
}

#[test]
fn an_owner_that_learns_late_of_the_epoch_that_ranks_it_first_keeps_the_address() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n1", "n2"]) }));
    story.pass(ms(1_900));
    story.says("n1", claim(2, 7, 0));
    story.pass(ms(5_000));
    story.assert_waits();
    // The time begins anew with the next epoch.
    story.tell(Event::Vip(Vip { epoch: 3, ..vip(&["n1", "n2"]) }));
    story.pass(ms(1_900));
    story.assert_waits();
}

#[test]
fn an_owner_that_a_newer_epoch_does_not_rank_first_keeps_the_address_until_the_first_claims_it() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n3", "n1", "n2"]) }));
    story.pass(ms(10_000));
    story.assert_waits();
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
