use super::*;
use crate::lan::MacAddr;
use crate::mind::Refusal;

fn second(n: i64) -> Timestamp {
    Timestamp::from_second(n).unwrap()
}

fn announcing(term: u64, epoch: i64, since: i64) -> View {
    let announcing = Announcing {
        interface: "eth0".into(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        term,
        epoch,
        since: second(since),
    };
    View { answers: Answers::Now(announcing), ..View::default() }
}

fn withdrawn(reason: Withdrawal, at: i64) -> View {
    View { answers: Answers::NoMore { reason, at: second(at) }, ..View::default() }
}

fn by(node: &str, term: i64, epoch: i64, since: i64) -> Announcer {
    Announcer {
        node: node.into(),
        interface: "eth0".into(),
        mac: "02:00:00:00:00:09".into(),
        term,
        epoch,
        since: Time(second(since)),
    }
}

fn status_of(announcer: Announcer) -> VirtualIPStatus {
    VirtualIPStatus { announcer: Some(announcer), ..VirtualIPStatus::default() }
}

/// The object with this status; the announcer is ranked first, n1 second.
fn known(status: VirtualIPStatus) -> Known {
    Known {
        name: "192.168.10.50".into(),
        uid: "u".into(),
        resource_version: "1".into(),
        status,
        announcers_rank: Some(0),
        own_rank: Some(1),
    }
}

fn n1(view: &View) -> Speaking<'_> {
    Speaking { node: "n1", view, replaces: None, guarded: None, settled: None }
}

fn announced(status: &VirtualIPStatus) -> (&str, &str) {
    let condition = find(&status.conditions, ANNOUNCED).unwrap();
    (condition.status.as_str(), condition.reason.as_str())
}

#[test]
fn the_first_announcement_is_written_once() {
    let view = announcing(1, 7, 100);
    let written = plan(&known(VirtualIPStatus::default()), n1(&view)).unwrap();
    let ours = written.announcer.as_ref().unwrap();
    assert_eq!((ours.node.as_str(), ours.term, ours.epoch), ("n1", 1, 7));
    assert_eq!(ours.mac, "02:00:00:00:00:01");
    assert_eq!(announced(&written), ("True", "Announcing"));
    assert!(written.last_announcers.is_empty());
    assert_eq!(plan(&known(written.clone()), n1(&view)), None);
}

#[test]
fn a_takeover_puts_the_one_before_into_the_history() {
    let view = announcing(4, 7, 100);
    let written = plan(&known(status_of(by("n2", 3, 7, 50))), n1(&view)).unwrap();
    assert_eq!(written.announcer.as_ref().unwrap().node, "n1");
    let past = &written.last_announcers[0];
    assert_eq!((past.node.as_str(), past.since.0, past.until.0), ("n2", second(50), second(100)));
    assert_eq!(plan(&known(written.clone()), n1(&view)), None);
}

#[test]
fn the_history_is_bounded_and_latest_first() {
    let mut status = VirtualIPStatus::default();
    for term in 1..=15 {
        let node = if term % 2 == 0 { "n1" } else { "n2" };
        let view = announcing(term, 7, i64::try_from(term).unwrap());
        status = plan(&known(status.clone()), Speaking { node, ..n1(&view) }).unwrap();
    }
    assert_eq!(status.last_announcers.len(), PAST);
    assert_eq!(status.last_announcers[0].until.0, second(15));
}

#[test]
fn a_newer_announcement_of_another_is_never_overwritten() {
    for (term, epoch, other) in
        [(4, 7, by("n2", 5, 7, 1)), (9, 7, by("n2", 1, 8, 1)), (4, 7, by("n2", 4, 7, 1))]
    {
        assert_eq!(plan(&known(status_of(other)), n1(&announcing(term, epoch, 100))), None);
    }
}

#[test]
fn of_two_equal_announcements_the_one_that_saw_the_other_stays() {
    // An isolated node announces without raising the term.
    let (view, other) = (announcing(4, 7, 100), by("n2", 4, 7, 1));
    let saw_it = Speaking { replaces: Some(&other), ..n1(&view) };
    let written = plan(&known(status_of(other.clone())), saw_it).unwrap();
    assert_eq!(written.announcer.as_ref().unwrap().node, "n1");
    let came_back = by("n2", 4, 7, 200);
    assert_eq!(plan(&known(status_of(came_back)), saw_it), None);
}

#[test]
fn of_two_equal_announcements_the_better_ranked_one_stays() {
    let view = announcing(4, 7, 100);
    let mut known = known(status_of(by("n2", 4, 7, 200)));
    assert_eq!(plan(&known, n1(&view)), None);
    known.own_rank = Some(0);
    known.announcers_rank = Some(1);
    assert!(plan(&known, n1(&view)).is_some());
    known.announcers_rank = None;
    assert!(plan(&known, n1(&view)).is_some());
}

#[test]
fn a_restarted_speaker_that_announces_the_same_goes_on_with_it() {
    let view = announcing(4, 7, 100);
    let before = plan(&known(VirtualIPStatus::default()), n1(&announcing(4, 7, 50))).unwrap();
    assert_eq!(plan(&known(before.clone()), n1(&view)), None);
    let raised = plan(&known(before.clone()), n1(&announcing(5, 7, 100))).unwrap();
    assert_eq!(raised.announcer.as_ref().unwrap().since.0, second(100));
    assert!(raised.last_announcers.is_empty(), "it was this node all the time");
}

#[test]
fn a_withdrawal_clears_the_announcer_only_where_it_was_this_node() {
    let ours = plan(&known(VirtualIPStatus::default()), n1(&announcing(1, 7, 50))).unwrap();
    let view = withdrawn(Withdrawal::Released, 100);
    let written = plan(&known(ours.clone()), n1(&view)).unwrap();
    assert_eq!(written.announcer, None);
    assert_eq!(announced(&written), ("False", "Released"));
    assert_eq!(find(&written.conditions, ANNOUNCED).unwrap().last_transition_time.0, second(100));
    assert_eq!(written.last_announcers[0].until.0, second(100));
    assert_eq!(plan(&known(written.clone()), n1(&view)), None);
    assert_eq!(plan(&known(status_of(by("n2", 1, 7, 1))), n1(&view)), None);
    assert_eq!(plan(&known(VirtualIPStatus::default()), n1(&view)), None);
}

#[test]
fn who_is_superseded_writes_only_where_the_other_has_not() {
    let ours = plan(&known(VirtualIPStatus::default()), n1(&announcing(1, 7, 50))).unwrap();
    let superseded = withdrawn(Withdrawal::Superseded, 100);
    assert_eq!(plan(&known(status_of(by("n2", 1, 8, 1))), n1(&superseded)), None);
    assert_eq!(plan(&known(ours), n1(&superseded)).unwrap().announcer, None);
}

#[test]
fn what_an_earlier_run_announced_is_cleared_when_this_one_has_settled() {
    let ours = plan(&known(VirtualIPStatus::default()), n1(&announcing(1, 7, 50))).unwrap();
    let view = View::default();
    assert_eq!(plan(&known(ours.clone()), n1(&view)), None);
    let settled = Speaking { settled: Some(second(100)), ..n1(&view) };
    let written = plan(&known(ours.clone()), settled).unwrap();
    assert_eq!(written.announcer, None);
    assert_eq!(announced(&written), ("False", "NotEligible"));
    assert_eq!(plan(&known(status_of(by("n2", 1, 7, 1))), settled), None);
}

#[test]
fn a_refusal_is_said_where_nobody_announces_and_nobody_said_it() {
    let view = View { refused: Some((Refusal::GatewayAddress, second(5))), ..View::default() };
    let written = plan(&known(VirtualIPStatus::default()), n1(&view)).unwrap();
    assert_eq!(announced(&written), ("False", "AddressRefused"));
    let n2 = Speaking { node: "n2", ..n1(&view) };
    assert_eq!(plan(&known(written.clone()), n2), None, "two that refuse do not write in turns");
    assert_eq!(plan(&known(status_of(by("n3", 1, 7, 1))), n1(&view)), None);
}

#[test]
fn a_conflict_comes_and_goes() {
    let mut view = announcing(1, 7, 50);
    let quiet = plan(&known(VirtualIPStatus::default()), n1(&view)).unwrap();
    assert_eq!(find(&quiet.conditions, ADDRESS_CONFLICT), None);
    view.conflict = Conflict::Now { mac: MacAddr([6; 6]), at: second(60) };
    let loud = plan(&known(quiet.clone()), n1(&view)).unwrap();
    let condition = find(&loud.conditions, ADDRESS_CONFLICT).unwrap();
    assert_eq!(condition.status, "True");
    assert!(condition.message.contains("06:06:06:06:06:06"), "{}", condition.message);
    assert_eq!(announced(&loud), ("True", "Announcing"));
    view.conflict = Conflict::Over { at: second(70) };
    let over = plan(&known(loud.clone()), n1(&view)).unwrap();
    assert_eq!(find(&over.conditions, ADDRESS_CONFLICT).unwrap().status, "False");
    assert_eq!(plan(&known(over.clone()), n1(&view)), None);
    let successor = announcing(2, 7, 80);
    let taken = plan(&known(loud.clone()), Speaking { node: "n2", ..n1(&successor) }).unwrap();
    assert_eq!(find(&taken.conditions, ADDRESS_CONFLICT).unwrap().status, "False");
}

#[test]
fn a_conflict_is_said_beside_another_nodes_announcement_without_touching_it() {
    let other = status_of(by("n2", 1, 7, 1));
    let view = View { conflict: Conflict::Now { mac: MacAddr([6; 6]), at: second(60) }, ..View::default() };
    let written = plan(&known(other.clone()), n1(&view)).unwrap();
    assert_eq!(written.announcer, other.announcer);
    assert_eq!(plan(&known(written.clone()), n1(&view)), None);
}

#[test]
fn what_is_not_a_speakers_is_left_out_of_what_is_written() {
    let mut status = VirtualIPStatus::default();
    let holder = landfall_crds::PastHolder {
        namespace: "default".into(),
        name: "web".into(),
        uid: "u".into(),
        since: None,
        until: Time(second(1)),
    };
    status.last_holders.push(holder);
    let foreign = condition(
        "Another",
        Says { status: true, reason: "Whatever", message: String::new() },
        &[],
        second(1),
    );
    status.conditions.push(foreign);
    let written = plan(&known(status.clone()), n1(&announcing(1, 7, 50))).unwrap();
    assert!(written.last_holders.is_empty());
    assert_eq!(written.conditions.len(), 1);
}

#[test]
fn the_announcer_says_who_may_come_in() {
    let view = announcing(1, 1, 10);
    let words = "192.168.10.50: tcp/80 of shop/web lets in 10.0.0.0/8";
    let speaking = Speaking { guarded: Some(words), ..n1(&view) };
    let guarded = |status: &VirtualIPStatus| find(&status.conditions, ADDRESS_GUARDED).cloned();
    let status = plan(&known(VirtualIPStatus::default()), speaking).unwrap();
    let says = guarded(&status).unwrap();
    assert_eq!((says.status.as_str(), says.reason.as_str()), ("True", "SourceRangesEnforced"));
    assert_eq!(says.message, words);
    assert_eq!(plan(&known(status.clone()), speaking), None, "once");
    let open = plan(&known(status.clone()), n1(&view)).unwrap();
    assert_eq!(guarded(&open), None, "its ranges were taken away");
    // Another node's word is left alone.
    let silent = View::default();
    let mut theirs = status;
    theirs.announcer = Some(by("n2", 5, 5, 10));
    assert_eq!(plan(&known(theirs), n1(&silent)), None);
}
