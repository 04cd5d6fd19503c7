//! What is said when something went wrong: which programs have ended, and what the logs tell.

use std::path::PathBuf;

use super::process::{Process, telling_lines};

/// A program of the lab as it is now.
#[derive(Debug)]
pub(crate) struct ProcessState {
    name: String,
    log: PathBuf,
    ended: Option<std::process::ExitStatus>,
}

impl From<&Process> for ProcessState {
    fn from(process: &Process) -> Self {
        Self { name: process.name().to_owned(), log: process.log().to_owned(), ended: process.ended() }
    }
}

/// Prints the ends of the logs, those of programs that have ended last, where they are read first.
pub(crate) fn print_logs(mut states: Vec<ProcessState>, lines: usize) {
    states.sort_by_key(|state| state.ended.is_some());
    for state in states {
        let how = state.ended.map_or("runs".to_owned(), |status| format!("HAS ENDED, {status}"));
        eprintln!("--- {} ({how}), {}", state.name, state.log.display());
        for line in telling_lines(&state.log, lines) {
            eprintln!("    {line}");
        }
    }
}
