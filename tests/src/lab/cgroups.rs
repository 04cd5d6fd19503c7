//! The cgroup directories of a lab: the one thing that outlives its processes.
//!
//! Each lab has a root directory of its own in every hierarchy. Its janitor
//! holds a lock on it; a root that nobody has locked belongs to a lab that is
//! dead, whatever PID namespace it lived in, and is swept.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

const PREFIX: &str = "landfall-lab-";
/// What all containers of a lab weigh together, where any other group or program on the machine weighs 1024.
/// With as little as that, builds beside a lab were seen to keep all its pods from running for seconds.
const SHARES: &str = "20480";

/// The mount point of every cgroup hierarchy (several with version 1, one with version 2).
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_cgroup = |line: &&str| line.split(" - ").nth(1).is_some_and(|rest| rest.starts_with("cgroup"));
    mounts.lines().filter(of_cgroup).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// Makes the root `name` in every hierarchy; it is owned for as long as the returned lock is held.
pub(crate) fn create(name: &str) -> Result<Flock<File>> {
    let mut lock = None;
    for hierarchy in hierarchies() {
        let root = hierarchy.join(name);
        fs::create_dir_all(&root).with_context(|| format!("making the cgroup {}", root.display()))?;
        let shares = root.join("cpu.shares");
        if shares.exists() {
            fs::write(&shares, SHARES).with_context(|| format!("writing {}", shares.display()))?;
        }
        if lock.is_none() {
            let taken = Flock::lock(File::open(&root)?, FlockArg::LockExclusiveNonblock);
            lock = Some(taken.map_err(|(_, error)| error)?);
        }
    }
    lock.ok_or_else(|| anyhow!("no cgroup hierarchy is mounted"))
}

/// Makes the cgroup `path` (from a hierarchy's root) in every hierarchy, below a lab's root.
pub(crate) fn create_below(path: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder).with_context(|| format!("making the cgroup {}", folder.display()))?;
    }
    Ok(())
}

/// The folder of a cgroup in the hierarchy that counts memory.
pub(crate) fn of_memory(path: &str) -> Option<PathBuf> {
    let mut folders = hierarchies().into_iter().map(|hierarchy| hierarchy.join(path.trim_start_matches('/')));
    let counts = |folder: &PathBuf| {
        ["memory.limit_in_bytes", "memory.max"].iter().any(|file| folder.join(file).exists())
    };
    folders.find(counts)
}

/// Whether processor time is shared out by cgroups of version 1.
pub(crate) fn are_of_version_1() -> bool {
    hierarchies().iter().any(|hierarchy| hierarchy.join("cpu.shares").exists())
}

/// Removes the root `name` with all below it, as soon as the processes in it are gone.
/// Says whether all of it went within `limit`.
pub(crate) fn remove(name: &str, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let roots: Vec<PathBuf> = hierarchies().into_iter().map(|hierarchy| hierarchy.join(name)).collect();
        roots.iter().for_each(|root| remove_tree(root));
        if !roots.iter().any(|root| root.exists()) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// A cgroup's files cannot be removed, its directories only from the leaves up.
fn remove_tree(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _still_in_use = fs::remove_dir(directory);
}

/// The names of the roots of all labs, dead or alive.
pub fn roots() -> Vec<String> {
    let mut names: Vec<String> = hierarchies()
        .iter()
        .flat_map(|hierarchy| fs::read_dir(hierarchy).into_iter().flatten().flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Removes the roots of labs whose janitor was killed as well.
pub(crate) fn sweep() {
    for name in roots() {
        let locked = hierarchies().iter().any(|hierarchy| {
            File::open(hierarchy.join(&name))
                .is_ok_and(|root| Flock::lock(root, FlockArg::LockExclusiveNonblock).is_err())
        });
        if !locked {
            remove(&name, Duration::ZERO);
        }
    }
}

/// The processes in the cgroup `path` (from a hierarchy's root) and below.
pub(crate) fn processes_below(path: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        collect(&hierarchy.join(path.trim_start_matches('/')), &mut found);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn collect(directory: &Path, found: &mut Vec<i32>) {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}
