//! A lab leaves nothing behind, by construction.
//!
//! A program that uses the lab calls [`enter`] first thing in `main`. That
//! call re-executes the program three processes deep:
//!
//! ```text
//! outermost   the process that the caller started: forwards signals and the exit code
//! ├─ janitor  waits until the outermost is gone, then removes the lab's cgroups
//! └─ init     PID 1 of new PID, mount and network namespaces: reaps, mounts, forwards
//!    └─ inside  the program itself; here `enter` returns
//! ```
//!
//! The kernel kills init when the outermost dies (`PR_SET_PDEATHSIG`), and
//! with init everything in its PID namespace; with the last process go the
//! mounts and the network namespaces. Only cgroup directories outlive their
//! processes, hence the janitor.

use std::{
    fs,
    io::{IsTerminal, PipeWriter},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio, exit},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid, getppid, setsid},
};

use super::{cgroups, programs};

/// Which of the processes of the module's picture this one is.
const ROLE: &str = "LANDFALL_LAB_ROLE";
/// The process id of the outermost process, as the machine sees it.
const OUTERMOST: &str = "LANDFALL_LAB_OUTERMOST";
/// The process id of init, as the machine sees it.
const INIT: &str = "LANDFALL_LAB_INIT";
/// The name of the lab's cgroup root.
const CGROUP: &str = "LANDFALL_LAB_CGROUP";

/// Variables that must not reach programs started from inside a lab: one of
/// them may want a lab of its own.
pub(crate) const VARIABLES: [&str; 4] = [ROLE, OUTERMOST, INIT, CGROUP];

/// Where the lab keeps its files: a tmpfs of its own.
pub const RUN: &str = "/run/landfall-lab";

/// The proof that this process is inside namespaces of its own; [`super::Lab::up`] asks for it.
#[derive(Clone, Debug)]
pub struct Inside {
    cgroup: String,
    programs: PathBuf,
    init: u32,
}

impl Inside {
    /// The folder with the Kubernetes programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The cgroup, from the root of each hierarchy, below which containers live.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The process id of the lab's PID 1 as seen from outside, for
    /// `nsenter --target … --all` from another terminal.
    pub fn init(&self) -> u32 {
        self.init
    }
}

/// Why no lab can be had here, in words for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Unavailable(anyhow::Error);

/// Moves this program into namespaces of its own and returns there.
///
/// In the outermost process this call does not return: it exits with the exit
/// code of the program inside. The program must not have started any thread.
///
/// # Errors
/// [`Unavailable`], where this machine cannot hold a lab: not root, Debian
/// packages missing, or the Kubernetes programs could not be built.
pub fn enter() -> Result<Inside, Unavailable> {
    let role = std::env::var(ROLE).unwrap_or_default();
    if !role.is_empty() {
        // A process of the chain inherits the blocked signals of the one above it.
        let _infallible = SigSet::all().thread_unblock();
    }
    let entered = match role.as_str() {
        "janitor" => janitor(),
        "init" if getpid() == Pid::from_raw(1) => init(),
        "inside" if getppid() == Pid::from_raw(1) => return inside().map_err(Unavailable),
        _ => outermost(),
    };
    match entered {
        Ok(code) => exit(code),
        Err(error) if role.is_empty() => Err(Unavailable(error)),
        Err(error) => {
            super::say(&format!("no lab: {error:#}"));
            exit(1)
        }
    }
}

fn inside() -> Result<Inside> {
    let variable = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
    Ok(Inside {
        cgroup: format!("/{}", variable(CGROUP)?),
        programs: variable(programs::KUBERNETES_BIN)?.into(),
        init: variable(INIT)?.parse().context(INIT)?,
    })
}

fn outermost() -> Result<i32> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a lab needs root (namespaces, mounts, cgroups): run this as root, for example with `sudo -E`"
    );
    programs::require_packages()?;
    let kubernetes = programs::kubernetes()?;
    cgroups::sweep();

    let name = format!("landfall-lab-{}-{}", std::process::id(), started()?);
    let (waiting, hold) = std::io::pipe()?;
    let mut janitor = again("janitor")?
        .env(CGROUP, &name)
        .stdin(waiting)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the janitor")?;

    // Blocked before init exists, so that no signal is lost.
    let signals = Signals::block()?;
    // The next child is PID 1 of a new namespace; this process itself stays where it is.
    unshare(CloneFlags::CLONE_NEWPID).context("this machine refuses a new PID namespace")?;
    let init = again("init")?
        .env(OUTERMOST, std::process::id().to_string())
        .env(CGROUP, &name)
        .env(programs::KUBERNETES_BIN, kubernetes)
        .spawn()
        .context("starting the lab's init")?;
    let status = signals.forward_until_end(init)?;
    finish(hold, &mut janitor);
    Ok(code(status))
}

/// This program once more with the same arguments (it may read them before it calls [`enter`]), in another role.
fn again(role: &str) -> Result<Command> {
    let myself = std::env::current_exe()?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(&myself);
    command.arg0(arguments.next().unwrap_or_else(|| myself.into())).args(arguments).env(ROLE, role);
    Ok(command)
}

/// Ends the janitor's wait, and waits for its work.
fn finish(hold: PipeWriter, janitor: &mut Child) {
    drop(hold);
    if !janitor.wait().is_ok_and(|status| status.success()) {
        super::say("some cgroup directories of this lab may be left; the next lab removes them");
    }
}

fn janitor() -> Result<i32> {
    // Out of the terminal's foreground group, so that Ctrl-C does not end the janitor before the lab.
    setsid()?;
    let name = std::env::var(CGROUP)?;
    let _owned = cgroups::create(&name)?;
    // Nobody writes: the read ends when the last holder of the other end, the outermost process, is gone.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(i32::from(!cgroups::remove(&name, std::time::Duration::from_secs(20))))
}

fn init() -> Result<i32> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // /proc is still the machine's here: it tells our parent and our own number as the machine sees them.
    let status = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let (number, parent) = ids(&status).ok_or_else(|| anyhow!("/proc/self/stat says {status}"))?;
    let outermost = std::env::var(OUTERMOST)?;
    // Had it died before the prctl above, nobody would ever end this lab.
    ensure!(parent == outermost, "the outermost process {outermost} is gone already");

    let signals = Signals::block()?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("new mount and network namespaces")?;
    mounts().context("mounts of the lab")?;
    let program =
        again("inside")?.env(INIT, number).spawn().context("starting the program inside the lab")?;
    Ok(code(signals.forward_until_end(program)?))
}

fn mounts() -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    // Everything that programs put into /run (sockets, locks, named namespaces) is the lab's own.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    fs::create_dir_all("/run/netns")?;
    fs::create_dir_all(RUN)?;
    fresh_sys(&Path::new(RUN).join("cgroup"))
}

/// Mounts a new /sys, which shows this network namespace's interfaces, and
/// keeps the cgroup hierarchies that were mounted in the old one.
pub(crate) fn fresh_sys(stash: &Path) -> Result<()> {
    let none: Option<&str> = None;
    fs::create_dir_all(stash)?;
    mount(Some("/sys/fs/cgroup"), stash, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    mount(Some(stash), "/sys/fs/cgroup", none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    nix::mount::umount2(stash, nix::mount::MntFlags::MNT_DETACH)?;
    Ok(())
}

/// The signals that a process of the chain takes on behalf of the program inside.
struct Signals(SignalFd);

impl Signals {
    fn block() -> Result<Self> {
        let mask = SigSet::from_iter([
            Signal::SIGCHLD,
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ]);
        mask.thread_block()?;
        Ok(Self(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)?))
    }

    /// Reaps whatever ends, and returns when `child` does.
    fn forward_until_end(&self, child: Child) -> Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        loop {
            let Some(event) = self.0.read_signal()? else { continue };
            let signal = Signal::try_from(i32::try_from(event.ssi_signo)?)?;
            if signal != Signal::SIGCHLD {
                // A signal from the terminal has reached the whole foreground group already.
                if event.ssi_code == libc::SI_USER || !std::io::stdin().is_terminal() {
                    let _gone = kill(pid, signal);
                }
                continue;
            }
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(ended, code)) if ended == pid => {
                        return Ok(ExitStatus::from_raw(code << 8));
                    }
                    Ok(WaitStatus::Signaled(ended, by, _)) if ended == pid => {
                        return Ok(ExitStatus::from_raw(by as i32));
                    }
                    Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                    Ok(_) => {}
                    Err(error) => bail!("waiting for the program inside: {error}"),
                }
            }
        }
    }
}

/// The exit code that a shell would report.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// The first and the fourth field of a `/proc/…/stat` line: process id and parent's.
fn ids(stat: &str) -> Option<(String, String)> {
    // The second field is the program's name in parentheses, and may hold anything.
    let number = stat.split(' ').next()?.to_owned();
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.to_owned();
    Some((number, parent))
}

/// When this process started, in clock ticks since boot: with the process id it makes a unique name.
fn started() -> Result<String> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    ticks.map(str::to_owned).ok_or_else(|| anyhow!("/proc/self/stat says {stat}"))
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_confuse_the_ids() {
        assert_eq!(ids("17 (a) b) S 4 17 17 0"), Some(("17".to_owned(), "4".to_owned())));
        assert_eq!(ids("garbage"), None);
    }
}
