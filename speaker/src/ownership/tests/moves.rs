//! Planned moves that wait until connections are kept.

use super::*;

/// n2, which keeps connections, waits for an address that n1 announces.
fn waiting() -> Story {
    let mut story = Story::starting_with(true);
    story.pass(ms(400));
    story.tell(Event::Vip(vip(&["n1", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.done();
    story
}

fn asked() -> Action {
    Action::KeepConnections(address(), name("n1"), vec![LAN])
}

#[test]
fn connections_are_kept_before_an_address_is_taken_over_from_a_node_that_lives() {
    let mut story = waiting();
    story.says("n1", with(claim(1, 7, 0), |claim| claim.leaving = true));
    assert_eq!(story.done(), [asked()]);
    story.pass(ms(20));
    story.assert_waits();
    story.tell(Event::ConnectionsKept(address()));
    story.assert_announces(8, 1);
}

#[test]
fn so_it_is_with_a_newer_epoch() {
    let mut story = waiting();
    story.tell(Event::Vip(Vip { epoch: 2, ..vip(&["n2", "n1"]) }));
    assert_eq!(story.done(), [asked()]);
    story.tell(Event::ConnectionsKept(address()));
    story.assert_announces(8, 2);
}

#[test]
fn what_takes_too_long_is_not_waited_for() {
    let mut story = waiting();
    story.says("n1", with(claim(1, 7, 0), |claim| claim.leaving = true));
    assert_eq!(story.done(), [asked()]);
    story.pass(ms(149));
    story.assert_waits();
    story.pass(ms(1));
    story.assert_announces(8, 1);
}

#[test]
fn after_a_death_there_is_nothing_to_wait_for() {
    let mut story = waiting();
    story.falls_silent("n1");
    story.pass(ms(200));
    story.assert_announces(8, 1);
}

#[test]
fn a_node_that_dies_while_connections_are_about_to_be_kept_is_not_waited_for() {
    let mut story = waiting();
    story.says("n1", with(claim(1, 7, 0), |claim| claim.leaving = true));
    story.done();
    story.watch(liveness::Event::Goodbye { node: &name("n1"), instance: 1 });
    story.assert_announces(8, 1);
}

#[test]
fn a_move_that_does_not_come_and_then_does_is_made_ready_anew() {
    let mut story = waiting();
    story.says("n1", with(claim(1, 7, 0), |claim| claim.leaving = true));
    assert_eq!(story.done(), [asked()]);
    story.says("n1", claim(1, 7, 0));
    story.tell(Event::ConnectionsKept(address()));
    story.pass(ms(5000));
    story.assert_waits();
    story.says("n1", with(claim(1, 7, 0), |claim| claim.leaving = true));
    assert_eq!(story.done(), [asked()]);
}
