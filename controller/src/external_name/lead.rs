//! Which name a Service leads to while its `spec.externalName` changes.
//!
//! The old name's addresses serve until the new name's first answer, and for a bounded time.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::name::DnsName;
use super::resolution::{Resolution, Standing, is_conclusive};

/// For so long at most the old name's addresses serve after an edit.
pub const HANDOVER: Duration = Duration::from_secs(30);

/// A name, and the one before it as long as that serves.
#[derive(Clone, Debug)]
pub struct Lead {
    name: DnsName,
    former: Option<(DnsName, Instant)>,
}

/// Where the addresses come from that a Service leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From its name.
    Name,
    /// From the name before, since there is no answer yet for its name.
    Former(DnsName),
    /// There are none, and no answer for its name.
    Nothing,
}

impl Lead {
    /// Leads to a name.
    pub fn new(name: DnsName) -> Self {
        Self { name, former: None }
    }

    /// The name that it leads to, or is to lead to.
    pub fn name(&self) -> &DnsName {
        &self.name
    }

    /// The names that must be followed for it.
    pub fn names(&self) -> impl Iterator<Item = &DnsName> {
        [&self.name].into_iter().chain(self.former.as_ref().map(|(name, _)| name))
    }

    /// `spec.externalName` was edited.
    pub fn turn(&mut self, now: Instant, name: DnsName, resolution: &Resolution) {
        self.settle(now, resolution);
        if name == self.name {
            return;
        }
        let before = std::mem::replace(&mut self.name, name);
        match &self.former {
            // Back to the name that has served all along.
            Some((former, _)) if *former == self.name => self.former = None,
            // The name between never served: what was before it goes on, for no longer than it might have.
            Some(_) => {}
            None => self.former = Some((before, now + HANDOVER)),
        }
    }

    /// Lets go of the name before if its time is over, and tells whether it did.
    pub fn settle(&mut self, now: Instant, resolution: &Resolution) -> bool {
        let Some((_, until)) = &self.former else { return false };
        let is_over = now >= *until || is_conclusive(self.standing(resolution));
        if is_over {
            self.former = None;
        }
        is_over
    }

    /// When the name before serves no longer.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.former.as_ref().map(|(_, until)| *until)
    }

    /// The addresses that it leads to, once [`Lead::settle`] has been called, and where they come from.
    pub fn addresses(&self, resolution: &Resolution) -> (Vec<IpAddr>, Source) {
        let of = |name| resolution.state(name).map(|state| state.addresses).unwrap_or_default();
        match &self.former {
            Some((former, _)) => (of(former), Source::Former(former.clone())),
            None if self.standing(resolution) == Standing::Unknown => (Vec::new(), Source::Nothing),
            None => (of(&self.name), Source::Name),
        }
    }

    fn standing(&self, resolution: &Resolution) -> Standing {
        resolution.state(&self.name).map_or(Standing::Unknown, |state| state.standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external_name::answer::{Absence, Answer, Failure, FamilyAnswer};
    use crate::external_name::name::read;
    use crate::external_name::resolution::{Action, Config, Event};

    struct Play {
        resolution: Resolution,
        lead: Lead,
        now: Instant,
    }

    fn name(text: &str) -> DnsName {
        read(text).unwrap()
    }

    fn address(text: &str) -> Answer {
        let v4 = FamilyAnswer::Addresses {
            addresses: [text.parse().unwrap()].into(),
            ttl: Duration::from_secs(5),
        };
        Answer { v4, v6: FamilyAnswer::Absent { absence: Absence::NoAddress, ttl: None } }
    }

    impl Play {
        /// Leads to `a.example`, which has 192.0.2.1.
        fn new() -> Self {
            #[allow(clippy::disallowed_methods)] // A point in time to count from.
            let now = Instant::now();
            let resolution = Resolution::new(Config { rate: 100_000, ..Config::default() });
            let mut play = Self { resolution, lead: Lead::new(name("a.example")), now };
            play.tell(Event::Follow(name("a.example")));
            play.answer("a.example", address("192.0.2.1"));
            play
        }

        fn tell(&mut self, event: Event) {
            let mut out: Vec<Action> = Vec::new();
            // Each has its slot.
            self.now += Duration::from_millis(1);
            self.resolution.handle(self.now, event, &mut out);
        }

        /// Answers the query that is in flight.
        fn answer(&mut self, to: &str, answer: Answer) {
            self.tell(Event::Answered(name(to), answer));
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
            self.tell(Event::Deadline);
        }

        fn edit(&mut self, to: &str) {
            self.lead.turn(self.now, name(to), &self.resolution);
            for name in self.lead.names().cloned().collect::<Vec<_>>() {
                self.tell(Event::Follow(name));
            }
        }

        fn leads_to(&mut self) -> (String, Source) {
            self.lead.settle(self.now, &self.resolution);
            let (addresses, source) = self.lead.addresses(&self.resolution);
            (addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), source)
        }
    }

    #[test]
    fn after_an_edit_the_old_name_serves_until_the_new_names_first_answer() {
        let mut play = Play::new();
        assert_eq!(play.leads_to(), ("192.0.2.1".into(), Source::Name));
        play.edit("b.example");
        assert_eq!(play.leads_to(), ("192.0.2.1".into(), Source::Former(name("a.example"))));
        play.answer("b.example", Failure::Timeout.into());
        assert_eq!(play.leads_to().0, "192.0.2.1", "no answer is none");
        play.pass(6);
        play.answer("b.example", address("192.0.2.2"));
        assert_eq!(play.leads_to(), ("192.0.2.2".into(), Source::Name));
        assert_eq!(play.lead.names().count(), 1);
    }

    #[test]
    fn for_half_a_minute_at_most() {
        let mut play = Play::new();
        play.edit("b.example");
        let until = play.lead.next_deadline().unwrap();
        assert!(until > play.now && until <= play.now + HANDOVER);
        play.pass(29);
        assert_eq!(play.leads_to().0, "192.0.2.1");
        play.pass(1);
        assert_eq!(play.leads_to(), (String::new(), Source::Nothing));
    }

    #[test]
    fn not_for_a_new_name_that_surely_does_not_exist() {
        let mut play = Play::new();
        play.edit("b.example");
        let none = FamilyAnswer::Absent { absence: Absence::NoSuchName, ttl: None };
        let none = Answer { v4: none.clone(), v6: none };
        play.answer("b.example", none.clone());
        assert_eq!(play.leads_to().0, "192.0.2.1", "said once");
        play.pass(6);
        play.answer("b.example", none);
        assert_eq!(play.leads_to(), (String::new(), Source::Name));
    }

    #[test]
    fn edits_in_a_row_do_not_lengthen_it_and_a_step_back_ends_it() {
        let mut play = Play::new();
        play.edit("b.example");
        play.pass(20);
        play.edit("c.example");
        assert_eq!(play.leads_to(), ("192.0.2.1".into(), Source::Former(name("a.example"))));
        play.edit("a.example");
        assert_eq!(play.leads_to(), ("192.0.2.1".into(), Source::Name));
        play.edit("c.example");
        play.pass(29);
        assert_eq!(play.leads_to().0, "192.0.2.1");
        play.pass(1);
        assert_eq!(play.leads_to().0, "");
    }

    #[test]
    fn a_name_whose_answer_is_known_already_takes_over_at_once() {
        let mut play = Play::new();
        play.tell(Event::Follow(name("b.example")));
        play.answer("b.example", address("192.0.2.2"));
        play.edit("b.example");
        assert_eq!(play.leads_to(), ("192.0.2.2".into(), Source::Name));
    }
}
