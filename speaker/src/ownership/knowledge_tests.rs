//! Stories of who knows of what.
#![allow(clippy::disallowed_methods)]

use super::*;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn peer() -> NodeName {
    "n2".into()
}

/// Knows of these addresses under epoch 1 since `now`.
fn knowing(now: Instant, addresses: &[u8]) -> Knowledge {
    let mut knowledge = Knowledge::default();
    for last in addresses {
        knowledge.change(now, address(*last), None, Some(1));
    }
    knowledge
}

#[test]
fn who_knows_the_same_tells_the_same_whatever_the_order() {
    let now = Instant::now();
    let mut one = knowing(now, &[1, 2, 3]);
    let other = knowing(now, &[3, 1, 2]);
    assert_eq!((one.total(), one.buckets()), (other.total(), other.buckets()));
    one.change(now, address(2), Some(1), Some(2));
    assert_ne!(one.total(), other.total());
    one.change(now, address(2), Some(2), None);
    assert_eq!(one.total(), knowing(now, &[1, 3]).total());
}

/// A peer that knows of less is asked what it knows, and tells.
fn asked(knowledge: &mut Knowledge, now: Instant, knows: &Knowledge) -> Instant {
    knowledge.hear(now, &peer(), knows.total());
    let due = knowledge.next_deadline().unwrap();
    assert_eq!(knowledge.overdue(due - ms(1)), None);
    assert_eq!(knowledge.overdue(due), Some(peer()));
    assert_eq!(knowledge.overdue(due), None, "not twice at once");
    knowledge.told(due, &peer(), knows.buckets());
    due
}

#[test]
fn a_peer_that_has_not_heard_of_an_address_is_ignorant_of_that_one() {
    let now = Instant::now();
    let (mut knowledge, knows) = (knowing(now, &[1, 2]), knowing(now, &[1]));
    assert_ne!(bucket_of(address(1)), bucket_of(address(2)));
    asked(&mut knowledge, now + ms(400), &knows);
    assert!(knowledge.is_ignorant(&peer(), address(2)));
    assert!(!knowledge.is_ignorant(&peer(), address(1)));
    assert!(!knowledge.is_ignorant(&"n3".into(), address(2)), "of whom nothing is known");
    // It learns.
    knowledge.hear(now + ms(900), &peer(), knowledge.total());
    assert!(!knowledge.is_ignorant(&peer(), address(2)));
    assert_eq!(knowledge.next_deadline(), None);
}

#[test]
fn a_peer_that_knows_an_older_epoch_is_ignorant_too() {
    let now = Instant::now();
    let (mut knowledge, knows) = (knowing(now, &[1]), knowing(now, &[1]));
    knowledge.change(now, address(1), Some(1), Some(7));
    asked(&mut knowledge, now + ms(400), &knows);
    assert!(knowledge.is_ignorant(&peer(), address(1)));
}

#[test]
fn what_is_news_here_too_proves_nothing() {
    let now = Instant::now();
    let (mut knowledge, knows) = (knowing(now, &[1]), knowing(now, &[]));
    let told = asked(&mut knowledge, now, &knows);
    assert!(told < now + SPREAD && !knowledge.is_ignorant(&peer(), address(1)));
    // Asked again later, it still has not heard of it.
    let again = knowledge.next_deadline().unwrap();
    assert_eq!(again, told + ASK_PACE);
    assert_eq!(knowledge.overdue(again), Some(peer()));
    knowledge.told(again, &peer(), knows.buckets());
    assert!(knowledge.is_ignorant(&peer(), address(1)));
    knowledge.change(again, address(1), Some(1), Some(2));
    assert!(!knowledge.is_ignorant(&peer(), address(1)), "the new epoch may be on its way");
}

#[test]
fn a_difference_that_is_soon_over_is_not_looked_into() {
    let now = Instant::now();
    let mut knowledge = knowing(now, &[1]);
    knowledge.hear(now, &peer(), 0);
    knowledge.hear(now + ms(100), &peer(), knowledge.total());
    assert_eq!(knowledge.next_deadline(), None);
    knowledge.told(now + ms(100), &peer(), &[0; BUCKETS]);
    assert!(!knowledge.is_ignorant(&peer(), address(1)), "told unasked, from before");
}

#[test]
fn many_peers_are_asked_one_after_the_other() {
    let now = Instant::now();
    let mut knowledge = knowing(now, &[1]);
    for number in 0..10 {
        knowledge.hear(now, &format!("n{number}").into(), 0);
    }
    let (mut asked, mut times) = (Vec::new(), Vec::new());
    while asked.len() < 10 {
        let due = knowledge.next_deadline().unwrap();
        times.push(due);
        asked.push(knowledge.overdue(due).unwrap());
    }
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 10, "each once");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= ASK_SPACING));
    knowledge.retain(|node| **node == *"n1");
    knowledge.forget(&"n1".into());
    assert_eq!(knowledge.next_deadline(), None);
}
