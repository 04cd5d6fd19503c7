//! Stories of a node that becomes fit and unfit.
#![allow(clippy::disallowed_methods)]

use super::*;

struct Story {
    fitness: Fitness,
    now: Instant,
}

impl Story {
    /// A node with everything, that has just started.
    fn fit() -> Self {
        let mut story = Self { fitness: Fitness::default(), now: Instant::now() };
        assert_eq!(story.fitness.gates(), Gates::PROXY.with(Gates::COLD).with(Gates::STALE));
        story.tell(Event::ApiHeard);
        story.tell(Event::Informed);
        assert_eq!(story.tell(Event::Proxy(Health::Healthy)), Gates::NONE, "the first time at once");
        story
    }

    fn tell(&mut self, event: Event) -> Gates {
        self.fitness.handle(self.now, event)
    }

    /// Every second for so long, kube-proxy says this and the API server is heard. What the node lacks at the end.
    fn pass(&mut self, seconds: u64, health: Health) -> Gates {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.tell(Event::ApiHeard);
            self.tell(Event::Proxy(health));
        }
        self.fitness.gates()
    }
}

#[test]
fn a_restart_of_kube_proxy_is_no_failure() {
    let mut story = Story::fit();
    for _ in 0..10 {
        assert_eq!(story.pass(5, Health::Unreachable), Gates::NONE);
        assert_eq!(story.pass(1, Health::Healthy), Gates::NONE);
    }
}

#[test]
fn kube_proxy_fails_after_5_s_and_must_be_well_for_15_to_pass_again() {
    for health in [Health::Unhealthy, Health::Unreachable] {
        let mut story = Story::fit();
        assert_eq!(story.pass(6, health), Gates::PROXY);
        assert_eq!(story.pass(15, Health::Healthy), Gates::PROXY);
        assert_eq!(story.pass(1, health), Gates::PROXY, "a break");
        assert_eq!(story.pass(15, Health::Healthy), Gates::PROXY, "and it must begin anew");
        assert_eq!(story.pass(1, Health::Healthy), Gates::NONE);
    }
}

#[test]
fn a_node_without_kube_proxy_lacks_it_for_ever() {
    let mut story = Story::fit();
    story.fitness = Fitness::default();
    story.tell(Event::Informed);
    assert_eq!(story.pass(100, Health::Unreachable), Gates::PROXY);
}

#[test]
fn who_does_not_hear_the_api_server_is_stale_after_30_s_and_again_fresh_after_15() {
    let mut story = Story::fit();
    let heard = story.now;
    assert_eq!(story.fitness.next_deadline(), Some(heard + STALE));
    story.now = heard + STALE - Duration::from_millis(1);
    assert_eq!(story.tell(Event::Deadline), Gates::NONE);
    story.now = heard + STALE;
    assert_eq!(story.tell(Event::Deadline), Gates::STALE);
    assert_eq!(story.fitness.next_deadline(), None);
    story.tell(Event::ApiHeard);
    let fresh_at = story.now + Duration::from_secs(15);
    assert_eq!(story.fitness.next_deadline(), Some(fresh_at));
    story.now = fresh_at;
    assert_eq!(story.tell(Event::Deadline), Gates::NONE);
}

#[test]
fn lists_that_come_make_a_node_warm_at_once() {
    let mut fitness = Fitness::default();
    let now = Instant::now();
    fitness.handle(now, Event::ApiHeard);
    assert_eq!(fitness.handle(now, Event::Proxy(Health::Healthy)), Gates::COLD);
    assert_eq!(fitness.handle(now, Event::Informed), Gates::NONE);
}

#[test]
fn a_health_check_fails_after_3_s_and_one_that_is_not_heard_says_nothing() {
    let mut story = Story::fit();
    let check = |story: &mut Story, seconds, health| {
        for _ in 0..seconds {
            story.now += Duration::from_secs(1);
            story.tell(Event::Check(30_007, health));
        }
        !story.fitness.unfit().is_empty()
    };
    assert!(!check(&mut story, 3, Health::Unhealthy));
    assert!(check(&mut story, 1, Health::Unhealthy));
    assert!(!check(&mut story, 1, Health::Unreachable), "kube-proxy restarts");
    assert!(check(&mut story, 4, Health::Unhealthy));
    assert!(check(&mut story, 15, Health::Healthy));
    assert!(!check(&mut story, 1, Health::Healthy));
    assert!(check(&mut story, 4, Health::Unhealthy));
    story.tell(Event::Checks(BTreeSet::new()));
    assert!(story.fitness.unfit().is_empty());
}

#[test]
fn what_a_former_process_had_needs_no_patience() {
    let mut fitness = Fitness::default();
    let now = Instant::now();
    assert_eq!(fitness.handle(now, Event::Inherited(Gates::PROXY)), Gates::PROXY);
    let stale = now + STALE;
    assert_eq!(fitness.next_deadline(), Some(stale));
    assert_eq!(fitness.handle(stale, Event::Deadline), Gates::PROXY.with(Gates::STALE));
}
