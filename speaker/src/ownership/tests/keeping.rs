//! When a node goes on announcing an address, and when it stops.

use super::*;

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
    assert_eq!(story.done(), [Action::Ask(address(), vec![LAN])], "does it answer for the address?");
    story.tell(Event::SpeakerHas(Sight { gratuitous: false, ..sight }));
    story.assert_withdrew(Withdrawal::Superseded);
}

#[test]
fn a_better_one_that_is_not_heard_and_answers_nobody_is_not_given_way_to() {
    let mut story = Story::settled();
    story.facts.set_peers([1, 3, 4].map(peer_info).to_vec());
    story.watch_all();
    story.tell(Event::Vip(vip(&["n3", "n4", "n2"])));
    story.says("n3", Statement::Refusing);
    story.pass(ms(500));
    assert!(story.own_claim().is_some());
    story.done();
    let n4 = name("n4");
    let sight = Sight { address: address(), node: &n4, mac: MacAddr([2, 0, 0, 0, 0, 4]), gratuitous: true };
    for _ in 0..3 {
        story.tell(Event::SpeakerHas(sight));
        story.tell(Event::SpeakerHas(sight));
        assert_eq!(story.done(), [Action::Ask(address(), vec![LAN])]);
        story.pass(ms(60));
        assert_eq!(story.done(), [Action::Correct(address())], "clients are to come here");
    }
    story.tell(Event::SpeakerHas(Sight { gratuitous: false, ..sight }));
    assert_eq!(story.done(), [], "nobody asked");
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
