//! Books come into step whatever is lost, doubled or late.

#![allow(clippy::disallowed_methods)]

use proptest::prelude::*;

use super::*;

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn claim(term: u64) -> Statement {
    Statement::Announcing(Claim { epoch: 1, term, ..Claim::default() })
}

fn header(book: &OwnBook) -> Header {
    Header {
        mac: MacAddr::ZERO,
        instance: 1,
        sequence: book.sequence(),
        digest: book.digest(),
        ..Header::default()
    }
}

fn everything(book: &OwnBook) -> Body {
    Body::Range { first: address(0), last: address(255), entries: book.entries() }
}

#[test]
fn a_missed_change_shows_in_the_next_heartbeat_and_is_asked_for() {
    let (mut theirs, mut books) = (OwnBook::default(), PeerBooks::default());
    let (node, now) = (NodeName::from("n2"), Instant::now());
    books.hear(now, &node, &header(&theirs), &Body::Heartbeat);
    assert!(books.is_in_step(&node));
    theirs.say(address(1), claim(1));
    let heard = books.hear(now, &node, &header(&theirs), &Body::Heartbeat);
    assert!(heard.step_changed && !heard.query, "perhaps it is on its way");
    assert_eq!(books.next_deadline(), Some(now + PATIENCE));
    assert_eq!(books.overdue(now + PATIENCE), std::slice::from_ref(&node));
    assert_eq!(books.overdue(now + PATIENCE), [], "not twice in a row");
    let heard = books.hear(now + PATIENCE, &node, &header(&theirs), &everything(&theirs));
    assert_eq!((heard.changed, heard.step_changed), (vec![address(1)], true));
    assert_eq!(books.next_deadline(), None);
}

#[test]
fn a_peer_met_for_the_first_time_is_asked_at_once() {
    let (mut theirs, mut books) = (OwnBook::default(), PeerBooks::default());
    theirs.say(address(1), claim(1));
    let heard = books.hear(Instant::now(), &NodeName::from("n2"), &header(&theirs), &Body::Heartbeat);
    assert!(heard.query);
}

#[test]
fn a_late_copy_of_what_was_withdrawn_does_not_come_back() {
    let (mut theirs, mut books) = (OwnBook::default(), PeerBooks::default());
    let (node, now) = (NodeName::from("n2"), Instant::now());
    theirs.say(address(1), claim(1));
    let (old_header, entry) = (header(&theirs), Entry { address: address(1), statement: claim(1) });
    theirs.say(address(1), Statement::Nothing);
    let gone = Body::Changes(vec![Entry { address: address(1), statement: Statement::Nothing }]);
    books.hear(now, &node, &header(&theirs), &gone);
    books.hear(now, &node, &old_header, &Body::Changes(vec![entry]));
    assert_eq!(books.claims(address(1)).count(), 0);
    assert!(books.is_in_step(&node));
}

#[test]
fn what_a_former_process_said_is_void_even_if_its_end_was_not_seen() {
    let (mut theirs, mut books) = (OwnBook::default(), PeerBooks::default());
    let (node, now) = (NodeName::from("n2"), Instant::now());
    theirs.say(address(1), claim(1));
    theirs.say(address(2), claim(1));
    books.hear(now, &node, &header(&theirs), &everything(&theirs));
    let mut restarted = OwnBook::default();
    restarted.say(address(3), claim(2));
    let another = Header { instance: 2, ..header(&restarted) };
    let heard = books.hear(now, &node, &another, &everything(&restarted));
    assert_eq!(heard.changed, [address(1), address(2), address(3)]);
    assert!(books.is_in_step(&node));
    assert_eq!(books.claims(address(1)).count(), 0);
}

#[test]
fn what_a_peer_said_before_it_was_dead_is_doubted_until_it_is_in_step() {
    let (mut theirs, mut books) = (OwnBook::default(), PeerBooks::default());
    let (node, now) = (NodeName::from("n2"), Instant::now());
    theirs.say(address(1), claim(1));
    theirs.say(address(2), claim(1));
    books.hear(now, &node, &header(&theirs), &everything(&theirs));
    books.silence(&node);
    theirs.say(address(2), Statement::Nothing);
    books.hear(now, &node, &header(&theirs), &Body::Heartbeat);
    assert_eq!((books.claims(address(1)).count(), books.claims(address(2)).count()), (0, 0));
    let heard = books.hear(now, &node, &header(&theirs), &everything(&theirs));
    assert_eq!((books.claims(address(1)).count(), books.claims(address(2)).count()), (1, 0));
    assert!(heard.changed.contains(&address(1)), "it is believed again");
    books.silence(&node);
    books.hear(now, &node, &header(&theirs), &Body::Heartbeat);
    assert_eq!(books.claims(address(1)).count(), 1, "nothing changed meanwhile");
}

#[test]
fn queries_are_answered_at_a_pace() {
    let mut books = PeerBooks::default();
    let (node, now) = (NodeName::from("n2"), Instant::now());
    let header = header(&OwnBook::default());
    assert!(books.hear(now, &node, &header, &Body::Query).answer);
    assert!(!books.hear(now, &node, &header, &Body::Query).answer);
    assert!(books.hear(now + ANSWER_PACE, &node, &header, &Body::Query).answer);
}

#[test]
fn a_peer_that_says_too_much_is_bounded() {
    let mut books = PeerBooks::default();
    let (node, now) = (NodeName::from("n2"), Instant::now());
    let header = header(&OwnBook::default());
    for high in 0..=300_u32 {
        let entry =
            |low: u32| Entry { address: IpAddr::from((high << 8 | low).to_be_bytes()), statement: claim(1) };
        books.hear(now, &node, &header, &Body::Changes((0..256).map(entry).collect()));
    }
    assert_eq!(books.speaking.len(), MAX_STATEMENTS);
}

proptest! {
    /// However changes are lost, doubled and late: once everything is told, both books say the same.
    #[test]
    fn books_come_into_step(
        ops in proptest::collection::vec((0_u8..6, 0_u64..4, any::<bool>(), 0_usize..4), 1..80),
    ) {
        let (mut theirs, mut books) = (OwnBook::default(), PeerBooks::default());
        let (node, now) = (NodeName::from("n2"), Instant::now());
        let mut under_way = Vec::new();
        for (number, term, is_lost, delay) in ops {
            let statement = match term {
                0 => Statement::Nothing,
                1 => Statement::Refusing,
                term => claim(term),
            };
            if theirs.say(address(number), statement) && !is_lost {
                let body = Body::Changes(vec![Entry { address: address(number), statement }]);
                under_way.push((header(&theirs), body));
            }
            if let Some((header, body)) = under_way.get(under_way.len().wrapping_sub(delay + 1)).cloned() {
                books.hear(now, &node, &header, &body);
            }
        }
        books.hear(now, &node, &header(&theirs), &everything(&theirs));
        for (header, body) in under_way {
            books.hear(now, &node, &header, &body);
        }
        prop_assert!(books.is_in_step(&node));
        for number in 0..6 {
            prop_assert_eq!(books.statement(&node, address(number)), theirs.statement(address(number)));
            let is_claimed = theirs.statement(address(number)).claim().is_some();
            prop_assert_eq!(books.claims(address(number)).count(), usize::from(is_claimed));
        }
    }
}
