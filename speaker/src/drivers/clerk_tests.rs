use super::*;
use landfall_crds::{Claim, VirtualIPSpec, virtual_ip_name};

fn vip(address: &str, claimed: bool) -> VirtualIP {
    let claims = if claimed {
        vec![Claim { namespace: "default".into(), name: "web".into(), uid: "u".into(), ..Claim::default() }]
    } else {
        Vec::new()
    };
    let spec = VirtualIPSpec { address: address.into(), claims, ..VirtualIPSpec::default() };
    VirtualIP::new(&virtual_ip_name(address.parse().unwrap()), spec)
}

fn speaker(node: &str) -> Speaker {
    Speaker::new(node, landfall_crds::SpeakerSpec {})
}

/// The events for the mind among the words, in short.
fn to_mind(words: &[Word]) -> Vec<String> {
    let short = |word: &Word| match word {
        Word::Mind(Event::Vips(vips)) => Some(format!("vips {}", vips.len())),
        Word::Mind(Event::Vip(vip)) => Some(format!("vip {}", vip.address)),
        Word::Mind(Event::VipGone(address)) => Some(format!("gone {address}")),
        Word::Mind(Event::Peers(peers)) => Some(format!("peers {}", peers.len())),
        _ => None,
    };
    words.iter().filter_map(short).collect()
}

fn alarms(words: &[Word]) -> usize {
    words.iter().filter(|word| matches!(word, Word::Alarm(_))).count()
}

struct Story {
    clerk: Clerk,
    books: Books,
    now: Instant,
}

impl Story {
    fn begins() -> Self {
        Self { clerk: Clerk::new("n1"), books: Books::default(), now: Instant::now() }
    }

    fn vip(&mut self, event: Watched<VirtualIP>) -> Vec<Word> {
        self.clerk.vip(self.now, event, &mut self.books)
    }

    fn speaker(&mut self, event: Watched<Speaker>) -> Vec<Word> {
        self.clerk.speaker(self.now, event, &mut self.books)
    }

    fn list(&mut self, vips: Vec<VirtualIP>) -> Vec<Word> {
        self.vip(Watched::Init);
        for object in vips {
            assert!(self.vip(Watched::InitApply(object)).is_empty(), "nothing is said of half a list");
        }
        self.vip(Watched::InitDone)
    }

    fn seconds_later(&mut self, seconds: u64) -> Vec<Word> {
        self.now += Duration::from_secs(seconds);
        self.clerk.deadline(self.now, &mut self.books)
    }
}

#[test]
fn a_list_is_told_whole_and_a_change_alone() {
    let mut story = Story::begins();
    let words = story.list(vec![vip("192.168.10.50", true), vip("fd00::50", false)]);
    assert_eq!(to_mind(&words), ["vips 2"]);
    assert!(words.iter().any(|word| matches!(word, Word::VipsListed)));
    assert_eq!(to_mind(&story.vip(Watched::Apply(vip("192.168.10.50", true)))), [""; 0], "nothing new");
    assert_eq!(to_mind(&story.vip(Watched::Apply(vip("192.168.10.50", false)))), ["vip 192.168.10.50"]);
    assert_eq!(to_mind(&story.vip(Watched::Delete(vip("192.168.10.50", false)))), ["gone 192.168.10.50"]);
}

#[test]
fn a_claimed_address_whose_object_vanishes_stays_in_the_books_for_a_while() {
    let mut story = Story::begins();
    story.list(vec![vip("192.168.10.50", true)]);
    let gone = Watched::Delete(vip("192.168.10.50", true));
    assert_eq!(to_mind(&story.vip(gone.clone())), ["gone 192.168.10.50"]);
    assert_eq!(story.books.vips.len(), 1);
    let back = story.vip(Watched::Apply(vip("192.168.10.50", true)));
    assert_eq!(to_mind(&back), ["vip 192.168.10.50"], "the mind must hear that it is back");
    story.vip(gone);
    story.seconds_later(299);
    assert_eq!(story.books.vips.len(), 1);
    story.seconds_later(1);
    assert!(story.books.vips.is_empty());
}

#[test]
fn when_all_vanish_at_once_an_alarm_is_raised() {
    let mut story = Story::begins();
    let all: Vec<VirtualIP> = (1..=20).map(|n| vip(&format!("192.168.10.{n}"), true)).collect();
    story.list(all.clone());
    let words: Vec<Word> = all.into_iter().flat_map(|object| story.vip(Watched::Delete(object))).collect();
    assert_eq!((to_mind(&words).len(), alarms(&words)), (20, 1));
    let words = story.list(Vec::new());
    assert_eq!((to_mind(&words), alarms(&words)), (vec!["vips 0".to_owned()], 0));
    assert_eq!(story.books.vips.len(), 20);
}

#[test]
fn what_only_the_file_knew_goes_with_the_first_list() {
    let mut story = Story::begins();
    story.books.write(books::vip(&vip("192.168.10.50", true)).unwrap());
    assert_eq!(to_mind(&story.list(vec![vip("192.168.10.51", true)])), ["vips 1"]);
}

#[test]
fn peers_are_the_other_speakers() {
    let mut story = Story::begins();
    story.speaker(Watched::Init);
    story.speaker(Watched::InitApply(speaker("n1")));
    story.speaker(Watched::InitApply(speaker("n2")));
    let words = story.speaker(Watched::InitDone);
    assert_eq!(to_mind(&words), ["peers 1"]);
    assert!(words.iter().any(|word| matches!(word, Word::Desk(Note::OwnSpeaker(Some(_))))));
    assert_eq!(to_mind(&story.speaker(Watched::Apply(speaker("n2")))), [""; 0], "nothing new");
    assert_eq!(to_mind(&story.speaker(Watched::Apply(speaker("n3")))), ["peers 2"]);
    let words = story.speaker(Watched::Delete(speaker("n1")));
    assert!(matches!(words.as_slice(), [Word::Desk(Note::OwnSpeaker(None))]));
}

#[test]
fn a_peer_is_not_forgotten_at_once() {
    let mut story = Story::begins();
    story.speaker(Watched::Apply(speaker("n2")));
    assert_eq!(to_mind(&story.speaker(Watched::Delete(speaker("n2")))), [""; 0]);
    story.speaker(Watched::Apply(speaker("n2")));
    assert_eq!(to_mind(&story.seconds_later(60)), [""; 0]);
    story.speaker(Watched::Delete(speaker("n2")));
    assert_eq!(to_mind(&story.seconds_later(10)), ["peers 0"]);
}
