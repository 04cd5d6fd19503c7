//! Mistakes seeded into the core of the controller, each of which its tests must notice.
//!
//! A copy of the controller is built once, with every mutation of `table.rs` behind a switch that the
//! environment sets. Then its stories, unit tests and random runs of the model are run for one of them
//! at a time, until some test fails. A mutation that no test notices is a test that is missing. The
//! source that ships knows nothing of all this.
//!
//! Words on the command line pick the mutations whose names contain them; `--all` goes on after the
//! first tests that noticed, and so tells all that do.

#![allow(clippy::disallowed_methods)] // It measures how long builds and runs take.

mod copy;
mod process;
mod runs;
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use runs::{Kind, Suite, Verdict};
use table::{MUTATIONS, Mutation};

/// As many mutants are run at a time, each on one thread, so that its tests always come in the same order.
const AT_A_TIME: usize = 2;

fn main() -> ExitCode {
    let (flags, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.starts_with('-'));
    match run(&words.join(" "), flags.iter().any(|flag| flag == "--all")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nerror: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &str, all: bool) -> Result<(), String> {
    let picked: Vec<&Mutation> = MUTATIONS.iter().filter(|mutation| mutation.name.contains(words)).collect();
    if picked.is_empty() {
        return Err(format!("no mutation is named '{words}': see controller/tests/mutants/table.rs"));
    }
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    let _lock = copy::lock(&scratch)?;
    copy::write(&scratch)?;

    let start = Instant::now();
    println!("building the controller with {} mutations behind switches", MUTATIONS.len());
    let programs = process::build(&scratch)?;
    let built = start.elapsed();
    println!("built in {:.0} s; running the tests without any", built.as_secs_f64());
    let suite = programs.rehearse()?;
    let rehearsed = start.elapsed() - built;
    let tests = suite.len();
    println!("{tests} tests pass in {:.0} s; now with one mutation at a time:", rehearsed.as_secs_f64());

    let verdicts = judge_all(&suite, &picked, all);
    let by = |kind: Kind| {
        let count = verdicts.values().filter(|verdict| verdict.is_caught_by(kind)).count();
        format!("{count} by a {}", kind.name())
    };
    let caught = verdicts.values().filter(|verdict| verdict.is_caught()).count();
    let first = if all { "" } else { ", first" };
    println!(
        "{caught} of {} mutants caught{first} {} in {:.0} s",
        picked.len(),
        Kind::ALL.map(by).join(", "),
        start.elapsed().as_secs_f64()
    );
    let missed = |mutation: &&&Mutation| !verdicts.get(mutation.name).is_some_and(Verdict::is_caught);
    let missed: Vec<String> = picked.iter().filter(missed).map(|it| format!("\n  {}", it.name)).collect();
    if missed.is_empty() {
        return Ok(());
    }
    Err(format!("no test notices these mistakes; each needs one that does:{}", missed.concat()))
}

/// Asks the tests about each mutation and tells of each as it is known.
fn judge_all(suite: &Suite, picked: &[&'static Mutation], all: bool) -> BTreeMap<&'static str, Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(mutation) = picked.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = suite.judge(mutation.name, all);
                    let Ok(mut verdicts) = verdicts.lock() else { return };
                    let place = format!("{}/{}", verdicts.len() + 1, picked.len());
                    println!("{place:>6} {}\n       {verdict}", mutation.name);
                    verdicts.insert(mutation.name, verdict);
                }
            });
        }
    });
    verdicts.into_inner().unwrap_or_default()
}
