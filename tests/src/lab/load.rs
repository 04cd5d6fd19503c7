//! A machine whose processors and memory are wanted by others.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{cgroups, isolation::RUN, lab::Lab, namespace::Namespace, process::Process};

/// The most memory that those who press on it may hold, so that nobody else on the machine starves.
const MEMORY_LIMIT: u64 = 512 << 20;

/// Programs that do nothing but take processor time or memory. They end when this is dropped, and with the lab.
#[derive(Debug)]
pub struct Load(Vec<Process>);

impl Load {
    /// For each processor so many programs that never rest, as urgent as everything else.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn on_processors(for_each: usize) -> Result<Self> {
        let processors = std::thread::available_parallelism()?.get();
        let start = |number| {
            let mut command = Namespace::of_the_lab().command("sh");
            command.args(["-c", "while :; do :; done"]);
            Process::start(&format!("hog-{number}"), command)
        };
        (0..processors * for_each).map(start).collect::<Result<_>>().map(Self)
    }

    /// Programs that have the kernel look for free memory all the time: two that fill memory and give it back,
    /// and one that reads a file which is larger than what it may hold.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn on_memory(lab: &Lab) -> Result<Self> {
        let group = memory_group(lab)?;
        let file = Path::new(RUN).join("large");
        // Without data in it: read, it fills the cache, and no disk.
        fs::File::create(&file)?.set_len(4 * MEMORY_LIMIT)?;
        let reads = format!("while :; do cat {} >/dev/null; done", file.display());
        // `tail` holds all of a line, and there is no end of it.
        let fills =
            "while :; do head -c 150M /dev/zero | tail -c 1 >/dev/null; head -c 150M /dev/zero | tail; done";
        let start = |(number, loop_): (usize, &str)| {
            let mut command: Command = Namespace::of_the_lab().command("sh");
            let enter = format!("echo $$ > {}/cgroup.procs && {loop_}", group.display());
            command.args(["-c", &enter]);
            Process::start(&format!("memory-hog-{number}"), command)
        };
        [fills, fills, &reads].into_iter().enumerate().map(start).collect::<Result<_>>().map(Self)
    }

    /// Both at once.
    #[must_use]
    pub fn and(mut self, mut other: Self) -> Self {
        self.0.append(&mut other.0);
        self
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for process in &self.0 {
            // The pipeline of a shell that is killed ends by itself a moment later.
            let _it_ends_with_the_lab = process.kill();
        }
    }
}

/// A memory cgroup of the lab's own with a limit.
fn memory_group(lab: &Lab) -> Result<std::path::PathBuf> {
    let name = format!("{}/memory-hogs", lab.inside().cgroup());
    cgroups::create_below(&name)?;
    let group = cgroups::of_memory(&name).context("no cgroup hierarchy counts memory")?;
    let (file, limit) = [("memory.limit_in_bytes", MEMORY_LIMIT), ("memory.max", MEMORY_LIMIT)]
        .into_iter()
        .find(|(file, _)| group.join(file).exists())
        .context("no memory limit can be set")?;
    fs::write(group.join(file), limit.to_string())?;
    Ok(group)
}
