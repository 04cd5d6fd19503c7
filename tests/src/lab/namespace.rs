//! A named network namespace, and for nodes a mount namespace with it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::gettid,
};

use super::process;

/// Namespaces that programs and threads of the lab can be put into.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    net: Option<PathBuf>,
    mount: Option<PathBuf>,
}

impl Namespace {
    /// The lab's own namespaces: the switch, the control plane and the test itself live there.
    pub fn of_the_lab() -> Self {
        Self { name: "lab".to_owned(), net: None, mount: None }
    }

    /// The network namespace of a process, for as long as that lives: a pod's, for example.
    pub fn of_process(name: &str, pid: i32) -> Self {
        Self { name: name.to_owned(), net: Some(format!("/proc/{pid}/ns/net").into()), mount: None }
    }

    /// Makes a network namespace, held by a file in /run/netns so that `ip -n NAME` knows it.
    ///
    /// # Errors
    /// Whatever the kernel refuses, or `prepare` (run inside the new namespace) fails with.
    pub fn create(name: &str, prepare: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Self> {
        Self::make(name, CloneFlags::CLONE_NEWNET, prepare)
    }

    /// Makes a network and a mount namespace; the latter starts as a copy of the lab's.
    ///
    /// # Errors
    /// As [`Namespace::create`].
    pub fn create_with_mounts(
        name: &str,
        prepare: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        Self::make(name, CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS, prepare)
    }

    fn make(
        name: &str,
        flags: CloneFlags,
        prepare: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (made, wait_made) = mpsc::channel();
        let (release, wait_release) = mpsc::channel::<()>();
        // A thread can be in namespaces of its own; it lends them to us.
        thread::spawn(move || {
            let entered = unshare(flags).map_err(Into::into).and_then(|()| prepare());
            let _nobody_waits = made.send(entered.map(|()| gettid()));
            let _released = wait_release.recv();
        });
        let make = || -> Result<Self> {
            let thread = wait_made.recv().context("the thread that prepares it panicked")??;
            let of_thread = format!("/proc/{}/task/{thread}/ns", std::process::id());
            let net = Path::new("/run/netns").join(name);
            hold(&format!("{of_thread}/net"), &net)?;
            if !flags.contains(CloneFlags::CLONE_NEWNS) {
                return Ok(Self { name: name.to_owned(), net: Some(net), mount: None });
            }
            // A mount namespace is not bound to a file: Linux 6.18 refuses that whenever the newer namespace
            // happens to have the lower number. The thread holds it instead, for as long as this process lives.
            std::mem::forget(release);
            let mount = Path::new(super::isolation::RUN).join(format!("{name}.mounts"));
            std::os::unix::fs::symlink(format!("{of_thread}/mnt"), &mount)?;
            Ok(Self { name: name.to_owned(), net: Some(net), mount: Some(mount) })
        };
        make().with_context(|| format!("making the namespace {name}"))
    }

    /// The namespace's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number that tells this network namespace from every other.
    pub(crate) fn inode(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let file = self.net.clone().unwrap_or_else(|| PathBuf::from("/proc/self/ns/net"));
        Ok(fs::metadata(file)?.ino())
    }

    /// A command that will run inside. (`ip netns exec` would not do: it mounts a /sys without cgroups.)
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.net {
            None => Command::new(program),
            Some(net) => {
                let mut nsenter = Command::new("nsenter");
                nsenter.arg(format!("--net={}", net.display()));
                if let Some(mounts) = &self.mount {
                    nsenter.arg(format!("--mount={}", mounts.display()));
                }
                nsenter.arg("--").arg(program);
                nsenter
            }
        };
        process::clean(&mut command);
        command
    }

    /// Runs a short command inside and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started, runs longer than 30 s, or exits with another code than 0 (with what it wrote).
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        process::output(command, None)
    }

    /// Runs `ip -batch` inside with these lines.
    ///
    /// # Errors
    /// As [`Namespace::run`].
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        let mut command = self.command("ip");
        command.args(["-batch", "-"]);
        process::output(command, Some(&lines.join("\n")))
            .map(|_| ())
            .with_context(|| format!("in {}: {lines:?}", self.name))
    }

    /// Runs `work` on a thread of this process that is inside the network namespace, and returns what it returns.
    ///
    /// # Errors
    /// When the namespace is gone, or `work` fails.
    pub fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.start_thread(work).join().map_err(|_| anyhow!("a thread in {} panicked", self.name))?
    }

    /// Starts `work` on a thread of this process that is inside the network namespace.
    pub fn start_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> thread::JoinHandle<Result<T>> {
        let net = self.net.clone();
        thread::spawn(move || {
            if let Some(net) = net {
                let file = File::open(&net).with_context(|| format!("opening {}", net.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering {}", net.display()))?;
            }
            work()
        })
    }
}

fn hold(namespace: &str, file: &Path) -> Result<()> {
    File::create(file)?;
    let none: Option<&str> = None;
    mount(Some(namespace), file, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("binding {namespace} to {}", file.display()))
}

/// Writes sysctls of the calling thread's network namespace, given as `("net/ipv4/ip_forward", "1")`.
///
/// # Errors
/// Names the sysctl that could not be written.
pub(crate) fn sysctl(settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let file = Path::new("/proc/sys").join(name);
        fs::write(&file, value).with_context(|| format!("sysctl {name}={value}"))?;
    }
    Ok(())
}

/// What every host of the lab starts with: no address by router advertisement, and
/// addresses usable at once (duplicate address detection would cost a second each).
pub(crate) fn host_sysctls() -> Result<()> {
    sysctl(&[
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/all/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
    ])?;
    // Frames between ports of one bridge are not the packet filter's business, where this kernel knows of it at all.
    for family in ["ip", "ip6", "arp"] {
        let name = format!("net/bridge/bridge-nf-call-{family}tables");
        if Path::new("/proc/sys").join(&name).exists() {
            sysctl(&[(&name, "0")])?;
        }
    }
    Ok(())
}

/// What a host that forwards for others needs: nodes, and the switch as gateway.
pub(crate) fn router_sysctls() -> Result<()> {
    sysctl(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
    ])
}

/// Lists the processes whose network namespace is the one with this inode.
pub(crate) fn processes_in(inode: u64) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt;
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|file| file.ino() == inode))
        .collect()
}
