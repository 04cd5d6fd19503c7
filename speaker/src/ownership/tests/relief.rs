//! An announcer that waits to be relieved, and others that do not know of the newest epoch.

use super::*;

fn leaving(epoch: i64, term: u64) -> Statement {
    with(claim(epoch, term, 0), |claim| claim.leaving = true)
}

#[test]
fn one_that_leaves_is_relieved_by_a_node_that_knows_of_an_older_epoch_only() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.says("n1", leaving(2, 7));
    story.assert_announces(8, 1);
    story.says("n1", leaving(2, 7));
    story.pass(ms(20));
    assert!(story.own_claim().is_some(), "it does not give way to the one that it relieves");
    story.says("n1", Statement::Nothing);
    story.pass(ms(1000));
    assert_eq!(story.own_claim().map(|claim| claim.term), Some(8));
}

#[test]
fn one_that_leaves_stops_for_whoever_relieves_it_whatever_the_epochs() {
    let mut story = Story::settled();
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n2", "n1", "n3"]) }));
    story.assert_announces(1, 2);
    story.tell(Event::Leave);
    story.done();
    story.says("n1", claim(1, 2, 1));
    let report = Report::Withdrawn { address: address(), reason: Withdrawal::Left };
    assert_eq!(story.done(), [Action::Withdraw(address()), Action::Report(report), Action::Left]);
}

#[test]
fn one_that_is_reluctant_is_not_relieved_by_a_node_that_knows_of_an_older_epoch_only() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n2", "n3"])));
    story.peers.get_mut("n1").unwrap().gates = Gates::COLD;
    story.says("n1", with(claim(2, 7, 0), |claim| claim.reluctant = true));
    story.pass(ms(1000));
    story.assert_waits();
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n1", "n2", "n3"]) }));
    story.assert_announces(8, 2);
}
