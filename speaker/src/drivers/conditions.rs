//! Kubernetes conditions as a speaker writes them. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message that the API server takes (metav1.Condition).
const LONGEST_MESSAGE: usize = 32_768;

/// What a condition says, without when it began to say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Says {
    /// `True` or `False`.
    pub status: bool,
    /// Why, as one word.
    pub reason: &'static str,
    /// Why, in words.
    pub message: String,
}

/// The condition of type `type_` that says `says`. It goes on from `before`, if its status is the same.
pub fn condition(type_: &str, says: Says, before: &[Condition], at: Timestamp) -> Condition {
    let status = if says.status { "True" } else { "False" };
    let before = find(before, type_).filter(|before| before.status == status);
    let mut message = says.message;
    if message.len() > LONGEST_MESSAGE {
        let end = (0..LONGEST_MESSAGE - 3).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: says.reason.to_owned(),
        message,
        last_transition_time: before.map_or(Time(at), |before| before.last_transition_time.clone()),
        observed_generation: None,
    }
}

/// The condition of a type.
pub fn find<'c>(conditions: &'c [Condition], type_: &str) -> Option<&'c Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}
