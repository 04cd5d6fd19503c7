//! Tests that are told as stories in one lab, one after the other.
//!
//! ```no_run
//! use landfall_tests::{lab::LabOptions, story::{Story, run}};
//!
//! fn main() -> std::process::ExitCode {
//!     run(LabOptions::default(), vec![
//!         Story::new("the cluster has three nodes", async |lab| {
//!             anyhow::ensure!(lab.kubectl(&["get", "nodes", "-o", "name"])?.lines().count() == 3);
//!             Ok(())
//!         }),
//!     ])
//! }
//! ```
//!
//! The lab comes up when the first story needs it. After each story all faults
//! are mended: ports are up, nodes thawed, the API server runs. A story that
//! fails is followed by what the cluster and the logs say.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::lab::{Lab, LabOptions, isolation, isolation::Inside};

/// The longest that a story may take where it says nothing else.
const LIMIT: Duration = Duration::from_secs(180);

type Tell = Box<dyn FnOnce(&Runtime, &Lab) -> Result<()> + Send>;

/// A test in the lab: a name that says the promise, and what is done to see it kept.
pub struct Story {
    name: String,
    tell: Tell,
    limit: Duration,
    /// Told only where it is asked for.
    long: bool,
}

impl Story {
    /// A story that waits for long: told only with `--include-ignored` (or `--ignored`), not by `make test`.
    pub fn long(
        limit: Duration,
        name: &str,
        tell: impl AsyncFnOnce(&Lab) -> Result<()> + Send + 'static,
    ) -> Self {
        Self { long: true, ..Self::within(limit, name, tell) }
    }

    /// A story of at most 180 s.
    pub fn new(name: &str, tell: impl AsyncFnOnce(&Lab) -> Result<()> + Send + 'static) -> Self {
        Self::within(LIMIT, name, tell)
    }

    /// A story of at most `limit`.
    pub fn within(
        limit: Duration,
        name: &str,
        tell: impl AsyncFnOnce(&Lab) -> Result<()> + Send + 'static,
    ) -> Self {
        let tell: Tell = Box::new(move |runtime, lab| {
            let told = runtime.block_on(async { tokio::time::timeout(limit, tell(lab)).await });
            told.map_err(|_| anyhow!("the story was not over within {limit:?}"))?
        });
        Self { name: name.to_owned(), tell, limit, long: false }
    }
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (at most {:?})", self.name, self.limit)
    }
}

/// The lab that stories share; up once the first one needed it.
struct Shared {
    inside: Inside,
    options: LabOptions,
    runtime: Runtime,
    /// An error here is why it did not come up; it is not tried again.
    lab: Option<Result<Lab, String>>,
}

impl Shared {
    fn tell(&mut self, story: Story) -> Result<()> {
        let Self { inside, options, runtime, lab } = self;
        let lab = lab.get_or_insert_with(|| {
            runtime.block_on(Lab::up(inside, options.clone())).map_err(|error| format!("{error:#}"))
        });
        let lab = lab.as_ref().map_err(|error| anyhow!("the lab did not come up: {error}"))?;
        let begun = Instant::now();
        let told = (story.tell)(runtime, lab);
        eprintln!("told in {:.1?}", begun.elapsed());
        if told.is_err() {
            lab.explain();
        }
        let mended = runtime.block_on(lab.mend()).context("mending the lab after the story");
        told.and(mended)
    }
}

/// Tells the stories in a lab with these options: a test binary's whole `main`.
///
/// Takes the arguments of Rust's test harness (a filter, `--list`, …). Where no
/// lab can be had, it says so loudly and counts all stories as ignored; with
/// `LANDFALL_LAB_REQUIRED=1` that is a failure.
pub fn run(options: LabOptions, stories: Vec<Story>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one lab.
    arguments.test_threads = Some(1);
    let trials = |tell: Box<dyn FnMut(Story) -> Trial>| stories.into_iter().map(tell).collect();
    let trials: Vec<Trial> = if arguments.list {
        trials(Box::new(|story| Trial::test(story.name, || Ok(())).with_ignored_flag(story.long)))
    } else {
        match enter() {
            Ok((inside, runtime)) => {
                let shared = Arc::new(Mutex::new(Shared { inside, options, runtime, lab: None }));
                trials(Box::new(move |story| {
                    let shared = Arc::clone(&shared);
                    let long = story.long;
                    let told = Trial::test(story.name.clone(), move || {
                        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                        shared.tell(story).map_err(|error| Failed::from(format!("{error:#}")))
                    });
                    told.with_ignored_flag(long)
                }))
            }
            Err(reason) => {
                eprintln!("\n*** NO LAB HERE: {reason}\n*** ALL TESTS IN THE LAB ARE SKIPPED\n");
                if std::env::var("LANDFALL_LAB_REQUIRED").is_ok_and(|required| required == "1") {
                    return ExitCode::FAILURE;
                }
                trials(Box::new(|story| Trial::test(story.name, || Ok(())).with_ignored_flag(true)))
            }
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn enter() -> Result<(Inside, Runtime)> {
    let inside = isolation::enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok((inside, runtime))
}
