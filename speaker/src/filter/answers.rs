//! What the kernel answers, and what follows from it for people.

use super::table::Table;

/// What the kernel holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Holds {
    /// No table of ours.
    Nothing,
    /// A table of our name that is not as this version makes them.
    Foreign,
    /// A table as this version makes them.
    Ours {
        /// What is in it. Its rules are not known but for the sets they look into.
        table: Box<Table>,
        /// Which table it is.
        id: TableId,
    },
}

/// Tells a table from another of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableId {
    /// Its handle, which no other table has.
    pub handle: u64,
    /// Who may change it.
    pub owner: Owner,
}

/// Who may change a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Everybody, or whoever takes it over: the process that made it has ended.
    Nobody,
    /// This process alone.
    Us,
    /// Another process alone: the speaker in whose place this one is about to go on.
    Another,
}

/// Why the kernel did not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it was asked for, for people.
    pub what: String,
    /// What it said, for people.
    pub error: String,
    /// What follows.
    pub kind: FailureKind,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// It could not do it at the moment: no memory, interrupted, no answer.
    Busy,
    /// It does not hold what it was thought to hold.
    Mismatch,
    /// It lacks a feature.
    Unsupported,
    /// It lacks the feature that packets are told of.
    NoLog,
    /// It may not: a capability is missing, or another process owns the table.
    NotPermitted,
}

/// How the filter fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why nothing can be guarded, where that is so.
    pub missing: Option<String>,
    /// What a person should know although addresses are guarded.
    pub remark: Option<String>,
}
