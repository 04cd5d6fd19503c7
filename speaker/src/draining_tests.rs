//! Stories of connections that outlive a move.
#![allow(clippy::disallowed_methods)]

use super::*;

const BOUND: Duration = Duration::from_secs(120);

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn detour(last: u8, via: u8) -> Detour {
    Detour { address: address(last), link: LinkIndex(2), via: IpAddr::from([10, 0, 0, via]) }
}

struct Story {
    draining: Draining,
    now: Instant,
}

impl Story {
    fn new() -> Self {
        Self { draining: Draining::new(BOUND), now: Instant::now() }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.draining.handle(self.now, event, &mut out);
        out
    }

    fn prepare(&mut self, last: u8, node: &str, via: u8) -> Vec<Action> {
        self.tell(Event::Prepare(node.into(), detour(last, via)))
    }

    fn pass(&mut self, duration: Duration) -> Vec<Action> {
        self.now += duration;
        self.tell(Event::Deadline)
    }
}

#[test]
fn connections_are_kept_from_before_the_move_until_the_bound() {
    let mut story = Story::new();
    assert_eq!(story.prepare(50, "n1", 1), [Action::Begin(detour(50, 1))]);
    assert_eq!(story.tell(Event::Took(address(50))), []);
    assert_eq!(story.draining.next_deadline(), Some(story.now + BOUND));
    assert_eq!(story.pass(BOUND - Duration::from_millis(1)), []);
    assert_eq!(story.pass(Duration::from_millis(1)), [Action::End(address(50))]);
    assert_eq!(story.draining.next_deadline(), None);
}

#[test]
fn a_move_that_does_not_come_leaves_nothing_behind() {
    let mut story = Story::new();
    story.prepare(50, "n1", 1);
    assert_eq!(story.prepare(50, "n1", 1), [], "the same again is there already");
    assert_eq!(story.pass(PREPARED), [Action::End(address(50))]);
    assert_eq!(story.tell(Event::Took(address(50))), []);
    assert_eq!(story.draining.next_deadline(), None);
}

#[test]
fn who_loses_the_address_or_the_former_announcer_sends_nothing_on() {
    let mut story = Story::new();
    for (last, node, via) in [(50, "n1", 1), (51, "n3", 3), (52, "n1", 1)] {
        story.prepare(last, node, via);
        story.tell(Event::Took(address(last)));
    }
    assert_eq!(story.tell(Event::Lost(address(50))), [Action::End(address(50))]);
    assert_eq!(story.tell(Event::Dead("n1".into())), [Action::End(address(52))]);
    assert_eq!(story.tell(Event::Lost(address(60))), []);
    assert_eq!(story.pass(BOUND), [Action::End(address(51))]);
}

#[test]
fn another_former_announcer_takes_the_place_of_the_first() {
    let mut story = Story::new();
    story.prepare(50, "n1", 1);
    assert_eq!(story.prepare(50, "n3", 3), [Action::End(address(50)), Action::Begin(detour(50, 3))]);
}
