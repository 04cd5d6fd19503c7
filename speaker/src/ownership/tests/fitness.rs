//! Which candidates go before others: those that know of the address, and lack less to serve it.

use super::*;

/// n2 announces an address for which n1 and n3 are candidates as well.
fn announcing_beside_others() -> Story {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1", "n3"])));
    story.assert_announces(1, 1);
    story
}

fn lacks(story: &mut Story, peer: &'static str, gates: Gates) {
    story.peers.get_mut(peer).unwrap().gates = gates;
    story.speak(peer);
}

#[test]
fn an_owner_that_lacks_something_says_so_and_goes_on_until_another_claims() {
    let mut story = announcing_beside_others();
    story.tell(Event::Gates(Gates::PROXY));
    story.pass(OUTDONE);
    assert!(story.own_claim().unwrap().reluctant);
    story.pass(ms(10_000));
    assert!(story.own_claim().is_some(), "nobody claims, so it goes on");
    assert_eq!(story.done(), []);
    story.says("n1", claim(1, 2, 1));
    story.assert_withdrew(Withdrawal::Superseded);
}

#[test]
fn an_owner_that_lacks_no_more_than_others_keeps_what_it_has() {
    let mut story = announcing_beside_others();
    for peer in ["n1", "n3"] {
        lacks(&mut story, peer, Gates::STALE);
    }
    story.tell(Event::Gates(Gates::PROXY));
    story.pass(OUTDONE);
    assert!(!story.own_claim().unwrap().reluctant, "none is better");
    lacks(&mut story, "n3", Gates::NONE);
    story.pass(OUTDONE);
    assert!(story.own_claim().unwrap().reluctant);
    story.tell(Event::Gates(Gates::NONE));
    assert!(!story.own_claim().unwrap().reluctant);
    story.pass(ms(5000));
    assert_eq!(story.done(), []);
}

#[test]
fn an_owner_is_not_reluctant_for_somebody_who_is_dead_or_cannot() {
    let mut story = announcing_beside_others();
    story.says("n1", Statement::Refusing);
    story.falls_silent("n3");
    story.pass(ms(500));
    story.tell(Event::Gates(Gates::PROXY));
    story.pass(OUTDONE);
    assert!(!story.own_claim().unwrap().reluctant);
}

#[test]
fn what_befalls_all_nodes_one_shortly_after_the_other_moves_nothing() {
    let mut story = announcing_beside_others();
    story.tell(Event::Gates(Gates::PROXY));
    story.pass(OUTDONE - ms(100));
    for peer in ["n1", "n3"] {
        lacks(&mut story, peer, Gates::PROXY);
    }
    story.pass(ms(5000));
    assert!(!story.own_claim().unwrap().reluctant, "others lack as much by now");
    for peer in ["n1", "n3"] {
        lacks(&mut story, peer, Gates::NONE);
    }
    story.pass(OUTDONE - ms(100));
    story.tell(Event::Gates(Gates::NONE));
    story.pass(ms(5000));
    assert!(!story.own_claim().unwrap().reluctant, "nothing is lacked any more");
    assert_eq!(story.done(), []);
}

#[test]
fn a_better_candidate_takes_over_from_a_reluctant_owner() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    lacks(&mut story, "n1", Gates::PROXY);
    story.pass(ms(1000));
    story.assert_waits();
    story.says("n1", with(claim(1, 7, 0), |claim| claim.reluctant = true));
    story.assert_announces(8, 1);
}

#[test]
fn of_two_better_candidates_the_one_that_is_ranked_first_takes_over() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    lacks(&mut story, "n1", Gates::PROXY);
    story.says("n1", with(claim(1, 7, 0), |claim| claim.reluctant = true));
    story.pass(ms(40));
    story.assert_waits();
    story.says("n3", claim(1, 8, 1));
    story.pass(ms(1000));
    story.assert_waits();
}

#[test]
fn who_lacks_as_much_does_not_take_over_from_a_reluctant_owner() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    lacks(&mut story, "n1", Gates::PROXY);
    story.tell(Event::Gates(Gates::STALE));
    story.says("n1", with(claim(1, 7, 0), |claim| claim.reluctant = true));
    story.pass(ms(5000));
    story.assert_waits();
}

#[test]
fn after_a_death_those_that_lack_less_go_first() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    lacks(&mut story, "n3", Gates::PROXY);
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_announces(8, 1);
}

#[test]
fn where_all_lack_something_the_best_announces_all_the_same() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    lacks(&mut story, "n3", Gates::PROXY);
    story.tell(Event::Gates(Gates::PROXY));
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_announces(8, 1);
}

#[test]
fn who_is_meant_but_lacks_more_leaves_the_address_where_it_is_until_it_does_not() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::Gates(Gates::COLD));
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n2", "n1"]) }));
    story.pass(ms(1000));
    story.assert_waits();
    story.tell(Event::Gates(Gates::NONE));
    story.assert_announces(8, 2);
}

#[test]
fn a_better_candidate_that_does_not_know_of_the_address_is_passed_over() {
    let mut story = Story::settled();
    story.peers.get_mut("n3").unwrap().knows = None;
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.pass(ms(2000));
    story.assert_waits();
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_announces(8, 1);
}

#[test]
fn so_is_one_that_knows_an_older_epoch_only() {
    let mut story = Story::settled();
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n1", "n3", "n2"]) }));
    story.peers.get_mut("n1").unwrap().knows = Some(2);
    story.says("n1", claim(2, 7, 0));
    story.pass(ms(2000));
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_announces(8, 2);
}

#[test]
fn a_node_that_is_cut_off_from_the_api_server_takes_nobody_for_ignorant() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.peers.get_mut("n3").unwrap().knows = Some(2);
    for peer in ["n1", "n3"] {
        lacks(&mut story, peer, Gates::STALE);
    }
    story.tell(Event::Gates(Gates::STALE));
    story.pass(ms(2000));
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_waits();
}

#[test]
fn a_node_that_lost_only_the_api_server_hands_over_to_one_that_has_not() {
    let mut story = announcing_beside_others();
    story.tell(Event::Gates(Gates::STALE));
    story.pass(ms(24_000));
    assert!(!story.own_claim().unwrap().reluctant, "the others may notice it only now");
    story.pass(ms(2000));
    assert!(story.own_claim().unwrap().reluctant);
    story.says("n3", claim(1, 2, 2));
    story.assert_withdrew(Withdrawal::Superseded);
    story.tell(Event::Gates(Gates::NONE));
    story.pass(ms(5000));
    story.assert_waits();
}

#[test]
fn when_the_api_server_goes_and_returns_those_who_notice_it_first_change_nothing() {
    let mut story = announcing_beside_others();
    for gates in [Gates::STALE, Gates::API] {
        story.tell(Event::Gates(gates));
        story.pass(ms(20_000));
        for peer in ["n1", "n3"] {
            lacks(&mut story, peer, gates);
        }
        story.pass(ms(100_000));
        for peer in ["n1", "n3"] {
            lacks(&mut story, peer, Gates::NONE);
            story.pass(ms(10_000));
            assert!(!story.own_claim().unwrap().reluctant);
        }
        story.tell(Event::Gates(Gates::NONE));
        story.pass(ms(60_000));
        assert!(!story.own_claim().unwrap().reluctant);
    }
}

#[test]
fn an_owner_that_lost_the_api_server_is_relieved_of_what_it_is_not_ranked_for_any_more() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::Vip(vip(&["n2", "n3"])));
    story.pass(ms(2000));
    story.assert_waits();
    lacks(&mut story, "n1", Gates::STALE);
    story.assert_announces(8, 1);
}

#[test]
fn but_not_by_one_that_lost_it_too() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::Vip(vip(&["n2", "n3"])));
    story.tell(Event::Gates(Gates::STALE));
    lacks(&mut story, "n1", Gates::STALE);
    story.pass(ms(2000));
    story.assert_waits();
}

const CHECK: u16 = 30_007;

fn unfit() -> Event<'static> {
    Event::Unfit([CHECK].into())
}

#[test]
fn an_owner_without_endpoints_hands_over_to_a_candidate_that_has_some() {
    let mut story = Story::settled();
    story.tell(Event::Vip(Vip { health_checks: vec![CHECK], ..vip(&["n2", "n1"]) }));
    story.assert_announces(1, 1);
    story.tell(unfit());
    let claim = story.own_claim().unwrap();
    assert!(claim.unfit && claim.reluctant);
    story.says("n1", self::claim(1, 2, 1));
    story.assert_withdrew(Withdrawal::Superseded);
    assert_eq!(story.ownership.own_statement(address()), Statement::Unfit);
    story.tell(Event::Unfit(BTreeSet::new()));
    assert_eq!(story.ownership.own_statement(address()), Statement::Nothing);
    story.pass(ms(1000));
    story.assert_waits();
}

#[test]
fn where_nobody_has_endpoints_the_owner_goes_on() {
    let mut story = Story::settled();
    story.says("n1", Statement::Unfit);
    story.tell(Event::Vip(Vip { health_checks: vec![CHECK], ..vip(&["n2", "n1"]) }));
    story.done();
    story.tell(unfit());
    let claim = story.own_claim().unwrap();
    assert!(claim.unfit && !claim.reluctant);
}

#[test]
fn endpoints_of_another_service_are_no_concern() {
    let mut story = announcing_beside_others();
    story.tell(unfit());
    assert!(!story.own_claim().unwrap().unfit);
}

#[test]
fn a_candidate_without_endpoints_is_passed_over_after_a_death() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.says("n3", Statement::Unfit);
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_announces(8, 1);
}
