//! Two nodes that do not hear each other, and a third that hears both.

use super::*;

fn mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

fn claimed(number: u8, statement: Statement) -> Witnessed {
    Witnessed { mac: mac(number), entry: Entry { address: address(), statement } }
}

#[test]
fn of_two_that_claim_the_same_the_one_that_does_not_go_before_is_told() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.says("n3", claim(1, 8, 1));
    story.pass(ms(24));
    assert_eq!(story.testified, [], "they may have heard of each other just now");
    story.pass(ms(10));
    let told = (name("n1"), vec![claimed(3, claim(1, 8, 1))]);
    assert_eq!(story.testified, std::slice::from_ref(&told));
    story.pass(ms(100));
    assert_eq!(story.testified, [told.clone(), told], "again, as long as both go on");
    story.says("n1", Statement::Nothing);
    story.testified.clear();
    story.pass(ms(1000));
    assert_eq!(story.testified, []);
}

#[test]
fn a_handover_needs_no_witness() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.says("n3", claim(1, 8, 1));
    story.pass(ms(20));
    story.says("n1", Statement::Nothing);
    story.pass(ms(1000));
    assert_eq!(story.testified, []);
}

#[test]
fn who_asks_is_told_what_others_claim() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    let other = "10.0.0.51".parse().unwrap();
    story.say("n3", &Body::WhoHas(vec![address(), other]));
    assert_eq!(story.testified, [(name("n3"), vec![claimed(1, claim(1, 7, 0))])]);
    story.testified.clear();
    story.say("n1", &Body::WhoHas(vec![address()]));
    assert_eq!(story.testified, [], "of itself it knows better");
}

#[test]
fn an_owner_that_is_told_of_a_better_claim_stops_at_once_and_claims_nothing_back() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1", "n3"])));
    story.assert_announces(1, 1);
    // n1 is cut off from n2 alone: n3 hears it.
    story.falls_silent("n1");
    story.pass(ms(60));
    story.say("n3", &Body::Claimed(vec![claimed(1, claim(2, 2, 0))]));
    story.assert_withdrew(Withdrawal::Superseded);
    for _ in 0..20 {
        story.pass(ms(50));
        vouch(&mut story, "n1");
        story.say("n3", &Body::Claimed(vec![claimed(1, claim(2, 2, 0))]));
    }
    story.assert_waits();
}

/// A witness hears the peer.
fn vouch(story: &mut Story, peer: &str) {
    story.watch(liveness::Event::Vouched { link: LAN, node: &name(peer), ago: ms(10) });
}

#[test]
fn a_worse_claim_that_is_told_of_changes_nothing() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1", "n3"])));
    story.assert_announces(1, 1);
    story.say("n3", &Body::Claimed(vec![claimed(1, claim(1, 1, 1)), claimed(9, claim(9, 9, 0))]));
    assert!(story.own_claim().is_some());
    assert_eq!(story.done(), []);
}

#[test]
fn what_a_witness_said_is_forgotten_when_it_is_not_said_again() {
    let mut story = Story::settled();
    story.facts.set_peers([1, 3, 4].map(peer_info).to_vec());
    story.watch_all();
    story.tell(Event::Vip(vip(&["n4", "n2"])));
    story.say("n3", &Body::Claimed(vec![claimed(4, claim(1, 2, 0))]));
    story.pass(ms(600));
    story.assert_waits();
    story.pass(ms(600));
    assert!(story.own_claim().is_some(), "n4 is never heard, and nobody speaks for it any more");
}

#[test]
fn a_witness_is_believed_of_a_node_that_was_taken_for_dead_before() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n2", "n1", "n3"])));
    story.assert_announces(1, 1);
    story.falls_silent("n1");
    story.pass(ms(500));
    story.say("n3", &Body::Claimed(vec![claimed(1, claim(1, 2, 1))]));
    story.assert_withdrew(Withdrawal::Superseded);
}

#[test]
fn nobody_speaks_for_a_node_that_hears_nobody() {
    let mut story = Story::settled();
    story.tell(Event::Vip(vip(&["n1", "n3", "n2"])));
    story.says("n1", claim(1, 7, 0));
    story.peers.get_mut("n1").unwrap().deaf = true;
    story.pass(ms(500));
    story.testified.clear();
    story.say("n3", &Body::WhoHas(vec![address()]));
    assert_eq!(story.testified, [], "it is to be replaced, and its claim must not put that off");
}
