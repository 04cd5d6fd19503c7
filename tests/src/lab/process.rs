//! A program that runs in the lab for a while, with a log file of its own.
//!
//! Nothing here needs to end processes when the lab ends: the kernel does, with
//! the PID namespace.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{isolation, programs};

/// The longest that a short command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A started program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    pid: i32,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to the log file `<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        let log = log_folder()?.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}: {}", words(&command)))?;
        let pid = i32::try_from(child.id())?;
        Ok(Self { name: name.to_owned(), child: Mutex::new(child), pid, log })
    }

    /// What the process is called in the lab, for example `n1-kubelet`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, inside the lab.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal; to a process that has ended already, nothing happens.
    pub fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            let _ended_meanwhile = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} has not ended within {limit:?}", self.name);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When it is still there after 10 s.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL);
        // A stopped process cannot die of SIGKILL's friends, but it does of SIGKILL itself.
        self.wait(Duration::from_secs(10)).map(|_| ())
    }
}

/// Where the logs of the lab's programs are.
///
/// `LANDFALL_LAB_LOGS` names a folder that is kept; otherwise they go with the lab.
///
/// # Errors
/// When the folder cannot be made.
pub(crate) fn log_folder() -> Result<PathBuf> {
    let folder = std::env::var_os("LANDFALL_LAB_LOGS")
        .map_or_else(|| Path::new(isolation::RUN).join("logs"), PathBuf::from);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Gives a command the environment that everything in the lab has.
pub(crate) fn clean(command: &mut Command) {
    for variable in isolation::VARIABLES {
        command.env_remove(variable);
    }
    for proxy in ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(proxy);
    }
    command.env("PATH", programs::path());
    // Another lab has another cluster at the same address: what kubectl learned of one must not outlive it.
    command.env("KUBECACHEDIR", Path::new(isolation::RUN).join("kubectl"));
}

/// Runs a short command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started, runs longer than 30 s, or exits with another code than 0 (with what it wrote).
pub(crate) fn output(command: Command, input: Option<&str>) -> Result<String> {
    output_within(COMMAND_LIMIT, command, input)
}

/// As [`output`], with a limit of the caller's.
///
/// # Errors
/// As [`output`].
pub(crate) fn output_within(limit: Duration, mut command: Command, input: Option<&str>) -> Result<String> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", words(&command)))?;
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, written, complaints) = thread::scope(|scope| {
        scope.spawn(move || {
            if let (Some(mut pipe), Some(text)) = (stdin, input) {
                let _ended_early = pipe.write_all(text.as_bytes());
            }
        });
        let written = scope.spawn(move || drain(stdout));
        let complaints = scope.spawn(move || drain(stderr));
        let status = wait_or_kill(&mut child, limit);
        (status, written.join().unwrap_or_default(), complaints.join().unwrap_or_default())
    });
    match status? {
        Some(status) if status.success() => Ok(written),
        Some(status) => bail!("{}: {status}: {}{}", words(&command), complaints.trim(), written.trim()),
        None => bail!("{}: not done within {limit:?}: {}", words(&command), complaints.trim()),
    }
}

/// The command as a person would type it, without its environment.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn drain(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _cut_short = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait_or_kill(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The last lines of a log that explain most: errors where it has some, else simply its end.
pub(crate) fn telling_lines(log: &Path, count: usize) -> Vec<String> {
    let text =
        File::open(log).map_err(|error| anyhow!(error)).map(|file| drain(Some(file))).unwrap_or_default();
    let is_error = |line: &&str| {
        let of_klog =
            line.starts_with(['E', 'F']) && line.chars().nth(1).is_some_and(|next| next.is_ascii_digit());
        of_klog
            || ["level=error", "level=fatal", "panic:", "ERROR", "\"level\":\"error\""]
                .iter()
                .any(|word| line.contains(word))
    };
    let all: Vec<&str> = text.lines().collect();
    let errors: Vec<&str> = all.iter().copied().filter(is_error).collect();
    let chosen = if errors.is_empty() { all } else { errors };
    chosen
        .iter()
        .skip(chosen.len().saturating_sub(count))
        .map(|line| line.chars().take(400).collect())
        .collect()
}
