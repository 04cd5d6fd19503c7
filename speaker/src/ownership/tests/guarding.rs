//! Stories of `i3_fail_closed`: source ranges, and a kernel that does or does not enforce them.

use std::sync::Arc;

use super::*;
use crate::ownership::guarding::PATIENCE;

fn guarded(candidates: &[&str], guard: &str) -> Event<'static> {
    Event::Vip(Vip { guard: Some(guard.into()), ..vip(candidates) })
}

fn kernel(by: Option<&str>) -> Event<'static> {
    Event::Guarded(vec![(address(), by.map(Arc::from))])
}

fn refused(story: &mut Story) -> bool {
    let refusal = Report::Refused { address: address(), reason: Refusal::NotGuarded };
    story.done().contains(&Action::Report(refusal))
}

#[test]
fn i3_fail_closed_nothing_is_announced_before_its_ranges_are_in_the_kernel() {
    let mut story = Story::settled();
    story.tell(guarded(&["n2", "n1"], "d1"));
    story.pass(ms(2900));
    story.assert_waits();
    assert_eq!(story.ownership.own_statement(address()), Statement::Nothing, "it may yet come");
    story.tell(kernel(Some("d0")));
    story.assert_waits();
    story.tell(kernel(Some("d1")));
    story.assert_announces(1, 1);
}

#[test]
fn ranges_that_are_in_the_kernel_before_the_address_is_known_make_nobody_wait() {
    let mut story = Story::settled();
    story.tell(kernel(Some("d1")));
    story.tell(guarded(&["n2", "n1"], "d1"));
    story.assert_announces(1, 1);
}

#[test]
fn an_address_that_asks_for_nothing_is_announced_whatever_the_kernel_does() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1"])));
    story.assert_announces(1, 1);
    story.tell(kernel(None));
    story.pass(PATIENCE);
    assert!(story.own_claim().is_some());
}

#[test]
fn a_node_whose_kernel_does_not_enforce_them_refuses_and_is_not_waited_for() {
    let mut story = Story::settled();
    story.tell(guarded(&["n2", "n1"], "d1"));
    story.pass(PATIENCE);
    assert!(refused(&mut story));
    assert_eq!(story.ownership.own_statement(address()), Statement::Refusing);
    story.tell(kernel(Some("d1")));
    assert_eq!(story.done()[0], Action::Report(Report::NoLongerRefused { address: address() }));
    assert!(story.own_claim().is_some());
}

#[test]
fn a_dead_owner_is_not_followed_by_a_node_whose_kernel_does_not_enforce_them() {
    let mut story = Story::settled();
    story.tell(guarded(&["n1", "n2"], "d1"));
    story.says("n1", claim(1, 7, 0));
    story.falls_silent("n1");
    story.pass(ms(2000));
    story.assert_waits();
    story.tell(kernel(Some("d1")));
    story.pass(ms(500));
    story.assert_announces(8, 1);
}

#[test]
fn i3_fail_closed_a_holder_whose_ranges_are_flushed_stops_unless_they_are_soon_back() {
    let mut story = Story::settled();
    story.tell(kernel(Some("d1")));
    story.tell(guarded(&["n2", "n1"], "d1"));
    story.done();
    story.tell(kernel(None));
    story.pass(ms(500));
    story.tell(kernel(Some("d1")));
    story.pass(PATIENCE);
    assert!(story.own_claim().is_some(), "they were soon back");
    story.tell(kernel(None));
    story.pass(PATIENCE);
    let withdrawn = Report::Withdrawn { address: address(), reason: Withdrawal::Refused };
    assert!(story.done().ends_with(&[Action::Withdraw(address()), Action::Report(withdrawn)]));
    assert_eq!(story.ownership.own_statement(address()), Statement::Refusing);
}

#[test]
fn a_holder_whose_ranges_change_goes_on_while_the_kernel_follows() {
    let mut story = Story::settled();
    story.tell(kernel(Some("d1")));
    story.tell(guarded(&["n2", "n1"], "d1"));
    story.done();
    story.tell(guarded(&["n2", "n1"], "d2"));
    story.pass(ms(200));
    story.tell(kernel(Some("d2")));
    story.pass(PATIENCE);
    assert!(story.own_claim().is_some());
    assert!(!refused(&mut story));
}
