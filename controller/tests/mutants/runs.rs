//! The tests of the copy: how they are run with one mistake at a time, and what they say.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Said, output_of};

/// The unit tests of the core; those of the drivers have nothing to do with it.
const CORE: [&str; 5] = ["granting::", "mind::", "ranking::", "status::", "world::"];
/// What is measured there depends on what else the machine does.
const MEASURED: &str = "scale::the_cost";
/// So many seeds of each kind of random run.
const SEEDS: &str = "20";
/// A test that takes longer is run only for mistakes that no other test notices. This decides how long
/// all takes, not what is found.
const QUICK: Duration = Duration::from_millis(300);
/// A run that takes longer has hung: it proves nothing.
const LONGEST_RUN: Duration = Duration::from_secs(180);

/// The test programs of the copy.
pub(crate) struct Programs {
    /// The unit tests.
    pub(crate) units: PathBuf,
    /// The model and its stories.
    pub(crate) model: PathBuf,
    /// Where they expect to be run.
    pub(crate) folder: PathBuf,
}

/// All tests, in the order in which they are asked about a mistake.
pub(crate) struct Suite {
    programs: Programs,
    groups: Vec<Group>,
}

/// Some tests of one program.
struct Group {
    kind: Kind,
    tests: Vec<String>,
}

/// What tests are like.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Story,
    Unit,
    Random,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Story, Self::Unit, Self::Random];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Story => "story",
            Self::Unit => "unit test",
            Self::Random => "random run",
        }
    }

    /// In the model, a test outside of all modules tries things at random.
    fn of(test: &str) -> Self {
        if test.contains("::") { Self::Story } else { Self::Random }
    }
}

/// What some tests said.
struct Answer {
    kind: Kind,
    /// Those that failed.
    failed: Vec<String>,
    /// The first words of the first failure.
    says: String,
    /// Why this is no answer: they hung or crashed.
    broken: Option<String>,
}

/// What the tests said about a mistake.
pub(crate) struct Verdict {
    answers: Vec<Answer>,
    took: Duration,
}

impl Answer {
    fn is_caught(&self) -> bool {
        self.broken.is_none() && !self.failed.is_empty()
    }
}

impl Verdict {
    pub(crate) fn is_caught(&self) -> bool {
        self.answers.iter().any(Answer::is_caught)
    }

    pub(crate) fn is_caught_by(&self, kind: Kind) -> bool {
        self.answers.iter().any(|answer| answer.kind == kind && answer.is_caught())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_caught() { "caught" } else { "NOT CAUGHT" };
        write!(f, "{verdict} in {:.1} s", self.took.as_secs_f64())?;
        for answer in &self.answers {
            let kind = answer.kind.name();
            if let Some(why) = &answer.broken {
                write!(f, "\n         {kind}: no answer, for {why}")?;
            } else if let Some(first) = answer.failed.first() {
                let more = match answer.failed.len() {
                    1 => String::new(),
                    several => format!(" and {} more", several - 1),
                };
                write!(f, "\n         {kind} {first}{more}: {}", answer.says)?;
            }
        }
        Ok(())
    }
}

impl Programs {
    /// Runs all tests without a mistake. All must pass; which of them are slow is remembered.
    pub(crate) fn rehearse(self) -> Result<Suite, String> {
        let units = self.pass(&self.units, &CORE)?;
        let model = self.pass(&self.model, &["--skip", MEASURED])?;
        let units = units.into_iter().map(|(test, took)| (Kind::Unit, test, took));
        let model = model.into_iter().map(|(test, took)| (Kind::of(&test), test, took));
        let all: Vec<(Kind, String, Duration)> = model.chain(units).collect();
        let group = |kind: Kind, slow: bool| {
            let is_slow = |took: &Duration| kind != Kind::Random && *took > QUICK;
            let of_it = all.iter().filter(|(its, _, took)| *its == kind && is_slow(took) == slow);
            Group { kind, tests: of_it.map(|(_, test, _)| test.clone()).collect() }
        };
        let quick = Kind::ALL.map(|kind| group(kind, false));
        let slow = Kind::ALL.map(|kind| group(kind, true));
        let groups = quick.into_iter().chain(slow).filter(|group| !group.tests.is_empty()).collect();
        Ok(Suite { programs: self, groups })
    }

    /// Runs tests that must pass, and says how long each took.
    fn pass(&self, program: &Path, args: &[&str]) -> Result<Vec<(String, Duration)>, String> {
        let said = self.said(program, None, args, |_| false)?;
        let result = |(name, passes, took): (String, bool, Duration)| {
            passes
                .then(|| (name.clone(), took))
                .ok_or_else(|| format!("without a mutation {name} does not pass: {}", first_panic(&said)))
        };
        let all = results_of(&said).into_iter().map(result).collect::<Result<Vec<_>, String>>()?;
        if all.is_empty() || !said.status.success() {
            return Err(format!("without a mutation {} ends with {}", program.display(), said.status));
        }
        Ok(all)
    }

    fn said(
        &self,
        program: &Path,
        mutation: Option<&str>,
        args: &[&str],
        enough: impl Fn(&str) -> bool,
    ) -> Result<Said, String> {
        let mut command = Command::new(program);
        command
            .args(args)
            .arg("--test-threads=1")
            .current_dir(&self.folder)
            .env("LANDFALL_MUTANT", mutation.unwrap_or_default())
            .env("LANDFALL_SEEDS", SEEDS)
            .env_remove("LANDFALL_SEED")
            .env_remove("RUST_BACKTRACE")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_RNG_SEED", "1");
        output_of(command, LONGEST_RUN, enough)
    }
}

impl Suite {
    /// How many tests there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.tests.len()).sum()
    }

    /// Asks one group of tests after the other about a mistake, until a test has noticed it; or all of
    /// them.
    pub(crate) fn judge(&self, mutation: &str, all: bool) -> Verdict {
        let start = Instant::now();
        let mut answers: Vec<Answer> = Vec::new();
        for group in &self.groups {
            if all || !answers.iter().any(Answer::is_caught) {
                answers.push(self.ask(group, mutation, all));
            }
        }
        Verdict { answers, took: start.elapsed() }
    }

    fn ask(&self, group: &Group, mutation: &str, all: bool) -> Answer {
        let kind = group.kind;
        let tests: Vec<&str> = group.tests.iter().map(String::as_str).collect();
        let seen = self.failures(kind, mutation, &tests, all).and_then(|seen| match seen.failed.first() {
            // It was cut off there: that this one fails is seen once more, from beginning to end.
            Some(test) if !seen.is_whole => self.failures(kind, mutation, &[test], true),
            _ => Ok(seen),
        });
        match seen {
            Ok(Failures { failed, says, .. }) => Answer { kind, failed, says, broken: None },
            Err(why) => Answer { kind, failed: Vec::new(), says: String::new(), broken: Some(why) },
        }
    }

    /// Runs tests until one fails, or `all` of them.
    fn failures(&self, kind: Kind, mutation: &str, tests: &[&str], all: bool) -> Result<Failures, String> {
        let program = match kind {
            Kind::Unit => &self.programs.units,
            Kind::Story | Kind::Random => &self.programs.model,
        };
        let args: Vec<&str> = std::iter::once("--exact").chain(tests.iter().copied()).collect();
        let is_failure = |line: &str| !all && result_in(line).is_some_and(|(_, passes)| !passes);
        let said = self.programs.said(program, Some(mutation), &args, is_failure)?;
        let results = results_of(&said);
        let failed: Vec<String> =
            results.iter().filter(|(_, passes, _)| !passes).map(|(name, ..)| name.clone()).collect();
        if !all && !failed.is_empty() {
            return Ok(Failures { failed, says: String::new(), is_whole: false });
        }
        let end = if failed.is_empty() { "test result: ok. " } else { "test result: FAILED. " };
        let has_ended = said.lines.iter().any(|(_, line)| line.starts_with(end));
        if !has_ended || results.len() != tests.len() || said.status.success() != failed.is_empty() {
            return Err(format!("the tests ended with {} and without a result", said.status));
        }
        Ok(Failures { failed, says: first_panic(&said), is_whole: true })
    }
}

/// What a run of some tests showed.
struct Failures {
    failed: Vec<String>,
    /// The first words of the first failure.
    says: String,
    /// Whether it went on to its end.
    is_whole: bool,
}

/// The test that a line tells of, and whether it has passed.
fn result_in(line: &str) -> Option<(&str, bool)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.strip_suffix(" - should panic").unwrap_or(name), result == "ok"))
}

/// The tests that have run, whether each has passed, and how long it took.
fn results_of(said: &Said) -> Vec<(String, bool, Duration)> {
    let mut before = Duration::ZERO;
    let mut results = Vec::new();
    for (at, line) in &said.lines {
        if let Some((name, passes)) = result_in(line) {
            results.push((name.to_owned(), passes, at.saturating_sub(before)));
        }
        before = *at;
    }
    results
}

/// The first line of what the first failing test said.
fn first_panic(said: &Said) -> String {
    let mut lines = said.lines.iter().skip_while(|(_, line)| !line.contains(" panicked at "));
    lines.nth(1).map(|(_, line)| line.chars().take(160).collect()).unwrap_or_default()
}
