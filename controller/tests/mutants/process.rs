//! Building the copy, and running other programs within a time.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::runs::Programs;

/// The longest that the copy may take to build, the wait for another cargo included.
const LONGEST_BUILD: Duration = Duration::from_secs(1800);

/// What a program wrote to its standard output, and how it ended.
pub(crate) struct Said {
    /// Its lines, each with the time since the start.
    pub(crate) lines: Vec<(Duration, String)>,
    /// How it ended.
    pub(crate) status: ExitStatus,
}

/// Builds the tests of the copy where everything that it needs is built already.
pub(crate) fn build(scratch: &Path) -> Result<Programs, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .args(["test", "--offline", "--package", "landfall-controller", "--lib", "--test", "model"])
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .current_dir(scratch)
        .env("CARGO_TARGET_DIR", target_folder());
    // What the outer cargo tells this test about its own package would have build scripts run anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let own = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if own.iter().any(|prefix| text.starts_with(prefix)) || text == "CARGO_TARGET_TMPDIR" {
            command.env_remove(&name);
        }
    }
    let said = output_of(command, LONGEST_BUILD, |_| false)?;
    if !said.status.success() {
        return Err(format!("the mutated copy in {} does not build: see above", scratch.display()));
    }
    let program = |target: &str| {
        let mut messages =
            said.lines.iter().filter_map(|(_, line)| serde_json::from_str::<serde_json::Value>(line).ok());
        let found = messages.find_map(|message| {
            let executable = message["executable"].as_str().map(PathBuf::from);
            executable.filter(|_| message["target"]["name"] == target)
        });
        found.ok_or_else(|| format!("cargo built no tests of {target}"))
    };
    let folder = scratch.join("controller");
    Ok(Programs { units: program("landfall_controller")?, model: program("model")?, folder })
}

/// Where cargo builds: `CARGO_TARGET_TMPDIR` lies in it.
fn target_folder() -> &'static Path {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp)
}

/// Runs a command and returns what it wrote to its standard output, unless it takes too long. A line that
/// is `enough` ends it early.
pub(crate) fn output_of(
    mut command: Command,
    longest: Duration,
    enough: impl Fn(&str) -> bool,
) -> Result<Said, String> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("{} does not start: {why}", command.get_program().display()))?;
    let stdout = child.stdout.take();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).split(b'\n')) {
            let line = line.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            if tell.send((start.elapsed(), line)).is_err() {
                return;
            }
        }
    });
    let mut lines = Vec::new();
    let broken = loop {
        match told.recv_timeout(longest.saturating_sub(start.elapsed())) {
            Ok((at, Ok(line))) => {
                let is_enough = enough(&line);
                lines.push((at, line));
                if is_enough {
                    let _ = child.kill();
                    break None;
                }
            }
            Ok((_, Err(why))) => break Some(format!("its output cannot be read: {why}")),
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                break Some(format!("it took longer than {} s", longest.as_secs()));
            }
        }
    };
    if broken.is_some() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|why| format!("its end cannot be awaited: {why}"))?;
    match broken {
        Some(why) => Err(why),
        None => Ok(Said { lines, status }),
    }
}
