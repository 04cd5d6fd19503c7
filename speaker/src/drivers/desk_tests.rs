use super::*;
use crate::lan::MacAddr;

use super::super::readiness::Known as KnownFrom;

const ADDRESS: &str = "192.168.10.50";

struct Story {
    desk: Desk,
    now: Instant,
}

fn address() -> IpAddr {
    ADDRESS.parse().unwrap()
}

fn object(revision: u32, status: VirtualIPStatus) -> Known {
    Known {
        name: ADDRESS.into(),
        uid: "u".into(),
        resource_version: revision.to_string(),
        status,
        announcers_rank: Some(0),
        own_rank: Some(1),
    }
}

fn announcing(term: u64) -> Report {
    Report::Announcing { address: address(), interface: "eth0".into(), mac: MacAddr([2; 6]), term, epoch: 7 }
}

fn withdrawn(reason: Withdrawal) -> Report {
    Report::Withdrawn { address: address(), reason }
}

impl Story {
    fn begins() -> Self {
        let now = Instant::now();
        let mut desk = Desk::new("n1");
        desk.note(now, Note::Vips(vec![(address(), object(1, VirtualIPStatus::default()))]));
        Self { desk, now }
    }

    fn tell(&mut self, report: Report) -> Option<Announcement> {
        self.desk.told(self.now, &Told { at: Timestamp::UNIX_EPOCH, report })
    }

    fn next(&mut self) -> Option<Write> {
        self.desk.next(self.now, Timestamp::UNIX_EPOCH).map(|(_, write)| write)
    }

    /// Takes the next write of the address, has it succeed, and returns the status that was written.
    fn writes(&mut self) -> VirtualIPStatus {
        let Some(Write::VirtualIpStatus { known, status }) = self.next() else {
            panic!("nothing is written")
        };
        let revision = known.resource_version.parse::<u32>().unwrap() + 1;
        let written = Written::VirtualIp(Box::new(object(revision, (*status).clone())));
        self.desk.written(self.now, Key::VirtualIp(address()), written);
        *status
    }

    fn later(&mut self, wait: Duration) {
        self.now += wait;
    }
}

fn ready() -> Readiness {
    Readiness {
        links: 1,
        network: true,
        sockets: Some(Vec::new()),
        vips: KnownFrom::FromApi,
        peers: KnownFrom::FromApi,
        guards: KnownFrom::FromApi,
        filter: Some(crate::filter::Health::default()),
        ..Readiness::default()
    }
}

#[test]
fn an_announcement_is_written_once_and_told_once() {
    let mut story = Story::begins();
    let event = story.tell(announcing(1)).unwrap();
    assert_eq!(event.reason, "nodeAssigned");
    assert_eq!(event.note, "announcing from node \"n1\" on eth0");
    let status = story.writes();
    assert_eq!(status.announcer.unwrap().node, "n1");
    assert_eq!(story.next(), None);
    assert_eq!(story.tell(announcing(1)), None, "it goes on");
    assert_eq!(story.next(), None);
    assert!(story.desk.is_idle());
}

#[test]
fn the_latest_wins_and_what_came_between_is_never_written() {
    let mut story = Story::begins();
    story.tell(announcing(1));
    story.tell(withdrawn(Withdrawal::Released));
    assert_eq!(story.next(), None);
    story.tell(announcing(2));
    assert_eq!(story.writes().announcer.unwrap().term, 2);
}

#[test]
fn what_was_announced_before_the_object_was_known_is_written_when_it_is() {
    let now = Instant::now();
    let mut story = Story { desk: Desk::new("n1"), now };
    assert_eq!(story.tell(announcing(1)), None, "an Event needs an object");
    assert_eq!(story.next(), None);
    story.desk.note(now, Note::Vip(address(), Box::new(object(5, VirtualIPStatus::default()))));
    assert_eq!(story.writes().announcer.unwrap().term, 1);
}

#[test]
fn a_write_that_came_too_late_is_planned_anew() {
    let mut story = Story::begins();
    story.tell(announcing(1));
    let Some(Write::VirtualIpStatus { .. }) = story.next() else { panic!() };
    let theirs = Announcer {
        node: "n2".into(),
        interface: "eth0".into(),
        mac: MacAddr([3; 6]).to_string(),
        term: 9,
        epoch: 7,
        since: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
    };
    let newer = VirtualIPStatus { announcer: Some(theirs), ..VirtualIPStatus::default() };
    let stale = Written::Stale(Box::new(object(2, newer)));
    story.desk.written(story.now, Key::VirtualIp(address()), stale);
    assert_eq!(story.next(), None, "n2's announcement is newer");
}

#[test]
fn an_older_revision_does_not_replace_a_newer_one() {
    let mut story = Story::begins();
    story.tell(announcing(1));
    let status = story.writes();
    story.desk.note(story.now, Note::Vip(address(), Box::new(object(1, VirtualIPStatus::default()))));
    assert_eq!(story.next(), None);
    story.desk.note(story.now, Note::Vip(address(), Box::new(object(2, status))));
    assert_eq!(story.next(), None);
}

#[test]
fn a_leaver_lets_its_successor_write_first() {
    let mut story = Story::begins();
    story.tell(announcing(1));
    let ours = story.writes();
    story.tell(withdrawn(Withdrawal::Left));
    assert_eq!(story.next(), None);
    let mut theirs = ours.clone();
    theirs.announcer.as_mut().unwrap().node = "n2".into();
    story.desk.note(story.now, Note::Vip(address(), Box::new(object(9, theirs))));
    story.later(LEAVE);
    assert_eq!(story.next(), None);
}

#[test]
fn what_was_left_behind_is_cleared_when_the_speaker_has_settled() {
    let mut story = Story::begins();
    story.tell(announcing(1));
    let ours = story.writes();
    let mut story = Story { desk: Desk::new("n1"), now: story.now };
    story.desk.note(story.now, Note::Vips(vec![(address(), object(2, ours))]));
    story.later(SETTLE * 2);
    assert_eq!(story.next(), None, "not before it is warm");
    story.desk.note(story.now, Note::Readiness(ready()));
    assert_eq!(story.next(), None);
    story.later(SETTLE);
    assert_eq!(story.writes().announcer, None);
}

#[test]
fn a_failed_write_is_tried_again() {
    let mut story = Story::begins();
    story.tell(announcing(1));
    assert!(story.next().is_some());
    story.desk.written(story.now, Key::VirtualIp(address()), Written::Failed);
    assert_eq!(story.next(), None);
    story.later(Duration::from_millis(200));
    story.writes();
    assert_eq!(story.next(), None);
    assert!(story.desk.is_idle());
}

#[test]
fn the_speaker_is_created_and_then_told_of() {
    let mut story = Story::begins();
    story.desk.note(story.now, Note::Readiness(ready()));
    story.later(GATHER);
    assert_eq!(story.next(), None, "it may exist: nobody has looked");
    story.desk.note(story.now, Note::OwnSpeaker(None));
    story.later(GATHER);
    assert_eq!(story.next(), Some(Write::CreateSpeaker));
    let mut speaker = Speaker::new("n1", landfall_crds::SpeakerSpec {});
    story.desk.written(story.now, Key::Speaker, Written::Speaker(Box::new(speaker.clone())));
    let Some(Write::SpeakerStatus(status)) = story.next() else { panic!() };
    assert_eq!(status.conditions[0].reason, "NoInterface");
    speaker.status = Some(*status);
    story.desk.written(story.now, Key::Speaker, Written::Speaker(Box::new(speaker.clone())));
    story.later(Duration::from_secs(1));
    assert_eq!(story.next(), None);
    story.desk.note(story.now, Note::OwnSpeaker(Some(Box::new(speaker))));
    story.later(Duration::from_secs(1));
    assert_eq!(story.next(), None, "a steady speaker writes nothing");
    story.desk.note(story.now, Note::OwnSpeaker(None));
    story.later(Duration::from_secs(1));
    assert_eq!(story.next(), Some(Write::CreateSpeaker), "a deleted one comes back");
}

#[test]
fn peers_that_come_alive_together_are_one_write() {
    let mut story = Story::begins();
    story.desk.note(story.now, Note::Readiness(ready()));
    story
        .desk
        .note(story.now, Note::OwnSpeaker(Some(Box::new(Speaker::new("n1", landfall_crds::SpeakerSpec {})))));
    for n in 2..20 {
        story.tell(Report::Peer { node: format!("n{n}").into(), interface: "eth0".into(), alive: true });
    }
    story.later(GATHER);
    let Some(Write::SpeakerStatus(status)) = story.next() else { panic!() };
    assert_eq!(status.peers.len(), 18);
    assert_eq!(story.next(), None);
}

#[test]
fn after_a_loss_the_whole_picture_is_compared() {
    let mut story = Story::begins();
    let mut picture = Picture::default();
    picture.take(&Told { at: Timestamp::UNIX_EPOCH, report: announcing(3) });
    story.desk.resync(story.now, picture);
    assert_eq!(story.writes().announcer.unwrap().term, 3);
}

#[test]
fn conflicts_and_refusals_are_events() {
    use crate::mind::Refusal;
    let mut story = Story::begins();
    let conflict = story.tell(Report::AddressConflict { address: address(), mac: MacAddr([6; 6]) }).unwrap();
    assert!(conflict.warning);
    assert_eq!(conflict.reason, "AddressConflict");
    let refused = story.tell(Report::Refused { address: address(), reason: Refusal::PeerAddress }).unwrap();
    assert_eq!(refused.reason, "AddressRefused");
    assert_eq!(refused.note, "node \"n1\" refuses to announce it: it is an address of another node");
}
