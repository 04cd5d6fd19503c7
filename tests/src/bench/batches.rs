//! Subjects that need the same lab are measured in one, and each lab is a process of its own: it ends with
//! everything that is in it, and the next one begins with nothing.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::{Bench, Subject, subject::Arena};

/// A subject's name, as it is given on the command line.
pub(super) fn name_of(subject: Subject) -> String {
    subject.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Bench {
    /// What is to be measured, in order.
    pub(super) fn wanted(&self) -> Vec<Subject> {
        let whole = Subject::value_variants().iter().copied().filter(|subject| subject.is_of_the_whole());
        let mut subjects: Vec<Subject> =
            if self.subjects.is_empty() { whole.collect() } else { self.subjects.clone() };
        // Grants end what all others need.
        subjects.sort_by_key(|subject| *subject == Subject::Grants);
        subjects
    }

    /// What is to be measured, by the lab that it needs.
    fn batches(&self) -> Vec<(Arena, Vec<Subject>)> {
        let mut batches: Vec<(Arena, Vec<Subject>)> = Vec::new();
        for subject in self.wanted() {
            let arena = subject.arena();
            match batches.iter_mut().find(|(of, _)| *of == arena) {
                Some((_, subjects)) => subjects.push(subject),
                None => batches.push((arena, vec![subject])),
            }
        }
        batches
    }

    /// Whether all fits into one lab, so that [`Bench::run`] can measure it.
    pub fn fits_one_lab(&self) -> bool {
        self.batches().len() == 1
    }

    /// Measures in one lab after the other, each in a process of its own.
    ///
    /// # Errors
    /// When one of them fails; the others are measured all the same.
    pub fn run_each(&self) -> Result<ExitCode> {
        let folder = tempfile::tempdir()?;
        let mut failed = Vec::new();
        let mut figures = Vec::new();
        for (number, (_, subjects)) in self.batches().iter().enumerate() {
            let file = folder.path().join(format!("{number}.json"));
            let names: Vec<String> = subjects.iter().map(|subject| name_of(*subject)).collect();
            // It ends when this process does.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "TERM", "--"]).arg(std::env::current_exe()?).arg("bench");
            command.args(&names).args(self.flags()).arg(format!("--json-file={}", file.display()));
            if command.status().context("starting a lab")?.success() {
                figures.extend(serde_json::from_slice::<Vec<Value>>(&std::fs::read(&file)?)?);
            } else {
                failed.push(names.join(" "));
            }
        }
        if let Some(file) = &self.json_file {
            std::fs::write(file, serde_json::to_string_pretty(&figures)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        if !failed.is_empty() {
            bail!("not measured: {}", failed.join(", "));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// All that was set besides subjects and file.
    fn flags(&self) -> Vec<String> {
        let Self { subjects: _, crashes, moves, minutes, faults, seed, services, rounds, json_file: _ } =
            self;
        let services = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut flags = vec![
            format!("--crashes={crashes}"),
            format!("--moves={moves}"),
            format!("--minutes={minutes}"),
            format!("--faults={faults}"),
            format!("--services={services}"),
            format!("--rounds={rounds}"),
        ];
        flags.extend(seed.map(|seed| format!("--seed={seed}")));
        flags
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::{Bench, Subject};

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        bench: Bench,
    }

    fn bench(arguments: &[&str]) -> Bench {
        let words = std::iter::once(&"bench").chain(arguments);
        let matches = Arguments::command().get_matches_from(words);
        Arguments::from_arg_matches(&matches).unwrap().bench
    }

    #[test]
    fn subjects_that_need_the_same_lab_share_it() {
        assert!(bench(&[]).fits_one_lab(), "what is measured when nothing is said needs one lab");
        let batches = bench(&["failover", "failover-nodes", "grants", "moves"]).batches();
        let subjects: Vec<_> = batches.iter().map(|(_, subjects)| subjects.as_slice()).collect();
        assert_eq!(
            subjects,
            [&[Subject::Failover, Subject::Moves, Subject::Grants][..], &[Subject::FailoverNodes][..]]
        );
    }

    #[test]
    fn a_lab_of_its_own_is_told_all_flags() {
        let said = [
            "--crashes=3",
            "--moves=4",
            "--minutes=5",
            "--faults=6",
            "--services=7,8",
            "--rounds=9",
            "--seed=1",
        ];
        let flags = bench(&said).flags();
        assert!(said.iter().all(|flag| flags.iter().any(|other| other == flag)), "{flags:?}");
    }
}
