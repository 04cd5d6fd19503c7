//! Conditions as values: what they should say, and whether they already do.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its type.
    pub type_: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// CamelCase, one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Wanted {
    /// A condition that is true or false.
    pub fn new(type_: &'static str, is: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: if is { "True" } else { "False" }, reason, message: message.into() }
    }

    fn is_said_by(&self, known: &Condition, generation: Option<i64>) -> bool {
        known.type_ == self.type_
            && known.status == self.status
            && known.reason == self.reason
            && known.message == self.message
            && known.observed_generation == generation
    }
}

/// Whether `known` says exactly what is wanted, times aside. Conditions of types other than `ours` are
/// somebody else's.
pub fn already_said(known: &[Condition], wanted: &[Wanted], ours: &[&str], generation: Option<i64>) -> bool {
    let mine = || known.iter().filter(|condition| ours.contains(&condition.type_.as_str()));
    mine().count() == wanted.len()
        && wanted.iter().all(|wanted| mine().any(|known| wanted.is_said_by(known, generation)))
}

/// The conditions to write: each keeps its time unless its status changes.
pub fn with_times(
    known: &[Condition],
    wanted: &[Wanted],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .iter()
        .map(|wanted| {
            let before = known
                .iter()
                .find(|known| known.type_ == wanted.type_ && known.status == wanted.status)
                .map(|known| known.last_transition_time.clone());
            Condition {
                type_: wanted.type_.to_owned(),
                status: wanted.status.to_owned(),
                reason: wanted.reason.to_owned(),
                message: wanted.message.clone(),
                observed_generation: generation,
                last_transition_time: before.unwrap_or_else(|| Time(whole_seconds(now))),
            }
        })
        .collect()
}

/// Times in Kubernetes objects have whole seconds.
pub fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The condition of a type.
pub fn find<'a>(known: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    known.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = with_times(&[], &[Wanted::new("A", false, "Why", "x")], None, at(1));
        let second = with_times(&first, &[Wanted::new("A", false, "Other", "y")], None, at(2));
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
        let third = with_times(&second, &[Wanted::new("A", true, "Done", "")], None, at(3));
        assert_eq!(third[0].last_transition_time.0, at(3));
    }

    #[test]
    fn only_our_types_are_compared() {
        let foreign = with_times(&[], &[Wanted::new("Theirs", true, "R", "")], None, at(1));
        assert!(already_said(&foreign, &[], &["A"], None));
        let wanted = [Wanted::new("A", true, "R", "m")];
        assert!(!already_said(&foreign, &wanted, &["A"], None));
        let both = [foreign, with_times(&[], &wanted, Some(1), at(1))].concat();
        assert!(already_said(&both, &wanted, &["A"], Some(1)));
        assert!(!already_said(&both, &wanted, &["A"], Some(2)), "a newer generation has not been observed");
        assert!(!already_said(&both, &[], &["A"], Some(1)), "ours that are not wanted are to go");
    }
}
