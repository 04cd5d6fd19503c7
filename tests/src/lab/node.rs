//! A node of the cluster: namespaces of its own, and in them a kubelet, containerd and kube-proxy.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    explain::ProcessState,
    isolation::{self, RUN},
    namespace::{Namespace, host_sysctls, processes_in, router_sysctls, sysctl},
    plan::{self, Addresses, Mac},
    process::Process,
};

/// A node: `n1`, `n2`, …
#[derive(Debug)]
pub struct Node {
    number: u8,
    namespace: Namespace,
    addresses: Addresses,
    cgroup: String,
    processes: Mutex<Vec<(Process, Launch)>>,
}

/// What starts a program of a node, at first and again.
#[derive(Clone, Debug)]
struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Launch {
    fn start(&self, namespace: &Namespace) -> Result<Process> {
        let mut command = namespace.command(&self.program);
        command.args(&self.arguments);
        Process::start(&format!("{}-{}", namespace.name(), self.name), command)
    }
}

/// A process that was found on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its process id inside the lab.
    pub pid: i32,
    /// Its command line.
    pub command: Vec<String>,
}

impl Node {
    /// Makes the node's namespaces; it has no interface yet and runs nothing.
    pub(crate) fn create(number: u8, cgroup: &str) -> Result<Self> {
        let name = format!("n{number}");
        let folder = Path::new(RUN).join("nodes").join(&name);
        let cgroup = format!("{cgroup}/{name}");
        super::cgroups::create_below(&cgroup)?;
        let namespace = Namespace::create_with_mounts(&name, move || {
            host_sysctls()?;
            router_sysctls()?;
            mounts(&folder)
        })?;
        Ok(Self {
            number,
            namespace,
            addresses: Addresses::of_node(number),
            cgroup,
            processes: Mutex::default(),
        })
    }

    /// Routes to the pods of all nodes, and the node's own address for what its pods send elsewhere.
    pub(crate) fn route(&self, nodes: u8) -> Result<()> {
        let others = (1..=nodes).filter(|number| *number != self.number);
        let routes = others.flat_map(|number| {
            let via = Addresses::of_node(number);
            [
                format!("route add {} via {}", plan::pods_v4(number), via.v4),
                format!("route add {} via {}", plan::pods_v6(number), via.v6),
            ]
        });
        self.namespace.ip(&routes.collect::<Vec<_>>())?;
        let [pods, pods6] =
            [plan::PODS.split(',').next(), plan::PODS.split(',').nth(1)].map(Option::unwrap_or_default);
        let mut nft = self.namespace.command("nft");
        nft.args(["-f", "-"]);
        let rules = format!(
            "table inet lab_pods {{\nchain out {{\ntype nat hook postrouting priority 110\n\
             ip saddr {pods} ip daddr != {pods} oifname eth0 masquerade\n\
             ip6 saddr {pods6} ip6 daddr != {pods6} oifname eth0 masquerade\n}}\n}}\n"
        );
        super::process::output(nft, Some(&rules)).map(|_| ())
    }

    /// The node's number, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The node's name, as Kubernetes and the switch's ports know it.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its addresses on the LAN.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The MAC address of its `eth0`.
    pub fn mac(&self) -> Mac {
        self.addresses.mac()
    }

    /// Its namespaces, to run things in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The cgroup below which its containers live.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Starts a program on the node. It can be killed and started again by `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, name: &str, program: &Path, arguments: Vec<String>) -> Result<()> {
        let launch = Launch { name: name.to_owned(), program: program.to_owned(), arguments };
        let process = launch.start(&self.namespace)?;
        self.started().push((process, launch));
        Ok(())
    }

    /// Kills one of the programs that the lab started on the node (`kubelet`,
    /// `containerd`, `kube-proxy`) as a crash would.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.with_program(name, |process, _| process.kill())
    }

    /// Starts a program again that has ended, for example by [`Node::kill`].
    ///
    /// # Errors
    /// When there was none of that name, or it still runs.
    pub fn restart(&self, name: &str) -> Result<()> {
        self.with_program(name, |process, launch| {
            if process.ended().is_none() {
                bail!("{} runs", process.name());
            }
            *process = launch.start(&self.namespace)?;
            Ok(())
        })
    }

    /// Sends a signal to one of the programs that the lab started on the node.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn signal_program(&self, name: &str, signal: Signal) -> Result<()> {
        self.with_program(name, |process, _| {
            process.signal(signal);
            Ok(())
        })
    }

    /// Whether a program that the lab started on the node runs.
    pub fn runs(&self, name: &str) -> bool {
        self.with_program(name, |process, _| Ok(process.ended().is_none())).unwrap_or(false)
    }

    /// Waits until a program that the lab started on the node has ended.
    ///
    /// # Errors
    /// When there is none of that name, or it still runs after `limit`.
    pub fn wait_end(&self, name: &str, limit: Duration) -> Result<()> {
        self.with_program(name, |process, _| process.wait(limit).map(|_| ()))
    }

    fn with_program<T>(&self, name: &str, act: impl FnOnce(&mut Process, &Launch) -> Result<T>) -> Result<T> {
        let mut started = self.started();
        let (process, launch) = started
            .iter_mut()
            // The latest: one that ended may have been started anew with other arguments.
            .rfind(|(_, launch)| launch.name == name)
            .ok_or_else(|| anyhow!("the lab started no {name} on {}", self.name()))?;
        act(process, launch)
    }

    /// All processes of the node: those in its network namespace (its own
    /// programs, and pods with `hostNetwork`), and all its containers.
    pub fn processes(&self) -> Vec<Found> {
        let mut pids = self.namespace.inode().map(processes_in).unwrap_or_default();
        pids.extend(super::cgroups::processes_below(&self.cgroup));
        pids.sort_unstable();
        pids.dedup();
        let found = |pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let command =
                line.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
            Some(Found { pid, command: command.filter(|part| !part.is_empty()).collect() })
        };
        pids.into_iter().filter_map(found).collect()
    }

    /// Sends a signal to every process of the node whose program has this file
    /// name (`landfall-speaker`), and returns their ids.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn signal(&self, program: &str, signal: Signal) -> Result<Vec<i32>> {
        let is_it = |found: &Found| {
            let first = found.command.first().map(Path::new).and_then(Path::file_name);
            first.is_some_and(|name| name == program)
        };
        let pids: Vec<i32> = self.processes().into_iter().filter(is_it).map(|found| found.pid).collect();
        if pids.is_empty() {
            bail!("no process {program} on {}", self.name());
        }
        for pid in &pids {
            let _ended_meanwhile = kill(Pid::from_raw(*pid), signal);
        }
        Ok(pids)
    }

    /// Stops every process of the node where it is. Its kernel goes on: it
    /// forwards packets and answers ARP for the node's own addresses.
    pub fn freeze(&self) {
        // Twice, for what was started while the first pass went on.
        for _ in 0..2 {
            self.signal_all(Signal::SIGSTOP);
        }
    }

    /// Lets all processes of the node go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let myself = std::process::id();
        for found in self.processes() {
            // A thread of the test may be measuring in there.
            if u32::try_from(found.pid) != Ok(myself) {
                let _ended_meanwhile = kill(Pid::from_raw(found.pid), signal);
            }
        }
    }

    /// A file on the node, as the lab's own processes can open it.
    ///
    /// # Errors
    /// When nothing runs on the node.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        let started = self.started();
        let (process, _) = started
            .iter()
            .find(|(process, _)| process.ended().is_none())
            .context("nothing runs on the node")?;
        Ok(PathBuf::from(format!("/proc/{}/root{path}", process.pid())))
    }

    pub(crate) fn state(&self) -> Vec<ProcessState> {
        self.started().iter().map(|(process, _)| process.into()).collect()
    }

    fn started(&self) -> MutexGuard<'_, Vec<(Process, Launch)>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node has to itself of the file system: /run, /var/lib and /var/log,
/// so that host paths of pods on different nodes are different folders.
fn mounts(folder: &Path) -> Result<()> {
    let none: Option<&str> = None;
    let bind = |from: &Path, to: &Path, more: MsFlags| {
        mount(Some(from), to, none, MsFlags::MS_BIND | more, none)
            .with_context(|| format!("binding {} to {}", from.display(), to.display()))
    };
    isolation::fresh_sys(&folder.join("cgroup"))?;
    for (name, target) in [("lib", "/var/lib"), ("log", "/var/log")] {
        let own = folder.join(name);
        fs::create_dir_all(&own)?;
        bind(&own, Path::new(target), MsFlags::empty())?;
    }
    let run = folder.join("run");
    fs::create_dir_all(&run)?;
    mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    let lab = run.join("landfall-lab");
    fs::create_dir_all(&lab)?;
    fs::create_dir_all(run.join("netns"))?;
    bind(Path::new(RUN), &lab, MsFlags::empty())?;
    bind(&run, Path::new("/run"), MsFlags::MS_REC)?;
    kernel_settings(folder)?;
    // As on a machine that systemd has booted, so that pods can ask for any mount propagation.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    Ok(())
}

/// A kubelet wants a handful of settings that belong to the whole machine. It
/// finds them as it wants them in files of its node's own, and so writes none.
fn kernel_settings(folder: &Path) -> Result<()> {
    let settings = folder.join("settings");
    fs::create_dir_all(&settings)?;
    let wanted = [
        ("vm/overcommit_memory", "1"),
        ("vm/panic_on_oom", "0"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxkeys", "1000000"),
        ("kernel/keys/root_maxbytes", "25000000"),
    ];
    let none: Option<&str> = None;
    for (name, value) in wanted {
        let file = settings.join(name.replace('/', "-"));
        fs::write(&file, format!("{value}\n"))?;
        let target = Path::new("/proc/sys").join(name);
        mount(Some(&file), &target, none, MsFlags::MS_BIND, none)
            .with_context(|| target.display().to_string())?;
    }
    // Not the machine's business either: every network namespace has its own.
    sysctl(&[("net/ipv4/conf/all/rp_filter", "0")])
}
