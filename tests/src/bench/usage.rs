//! What processes cost, as the kernel counts it (proc(5)), and what the API server was asked.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

use crate::lab::Lab;

/// How many parts a second has in the times of `/proc/<pid>/stat`: `USER_HZ`, which is 100 wherever
/// Landfall runs (time(7), "The software clock").
const USER_HZ: f64 = 100.0;

/// What a process has used and holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// CPU time since its start, user and system, in seconds.
    pub(super) cpu: f64,
    /// Resident memory, in megabytes.
    pub(super) resident: f64,
    /// The most resident memory that it ever had, in megabytes.
    pub(super) peak: f64,
}

impl Usage {
    /// Of this process.
    pub(super) fn of_myself() -> Result<Self> {
        Self::of("self")
    }

    /// Of the one process in the lab whose program has this file name.
    pub(super) fn of_program(name: &str) -> Result<Self> {
        Self::of(&process(name)?.to_string())
    }

    fn of(pid: &str) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let megabytes = |field: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no memory")?;
            let kilobytes: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
            Ok(kilobytes * 1024.0 / 1e6)
        };
        Ok(Self {
            cpu: cpu_of(&stat).with_context(|| format!("/proc/{pid}/stat says {stat}"))?,
            resident: megabytes("VmRSS")?,
            peak: megabytes("VmHWM")?,
        })
    }
}

/// CPU seconds in a line of `/proc/<pid>/stat`: its fields 14 and 15.
fn cpu_of(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / USER_HZ)
}

/// The id of the process in the lab whose program has this file name.
fn process(name: &str) -> Result<i32> {
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
        Path::new(&*String::from_utf8_lossy(first)).file_name().is_some_and(|file| file == name)
    };
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(is_it).with_context(|| format!("no {name} runs"))
}

/// Requests by what they asked, for example `GET virtualips`.
pub(super) type Requests = BTreeMap<String, f64>;

/// How many requests of anybody the API server has answered that read what the controller alone reads:
/// single objects and lists. Watches are counted by nobody until they end.
pub(super) async fn reads(lab: &Lab) -> Result<Requests> {
    const OURS: [&str; 4] = ["services", "virtualips", "ippools", "speakers"];
    let text = lab.client().request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let mut reads = Requests::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let Some((series, count)) = line.rsplit_once(' ') else { continue };
        let (verb, resource) = (label(series, "verb"), label(series, "resource"));
        if matches!(verb, "GET" | "LIST") && OURS.contains(&resource) {
            *reads.entry(format!("{verb} {resource}")).or_default() += count.parse::<f64>().unwrap_or(0.0);
        }
    }
    Ok(reads)
}

/// What was asked between two counts.
pub(super) fn between(before: &Requests, after: &Requests) -> Requests {
    let more = |(name, count): (&String, &f64)| {
        let more = count - before.get(name).copied().unwrap_or_default();
        (more > 0.0).then(|| (name.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

/// The value of a label of a series in the text format of Prometheus; empty where it has none.
pub(super) fn label<'a>(series: &'a str, name: &str) -> &'a str {
    let starts = [format!("{{{name}=\""), format!(",{name}=\"")];
    let rest = starts.iter().find_map(|start| series.split_once(start.as_str()));
    rest.and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{cpu_of, label};

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_confuse_its_times() {
        let stat = "17 (a) b) S 4 17 17 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 99";
        assert_eq!(cpu_of(stat), Some(1.75));
        assert_eq!(cpu_of("garbage"), None);
    }

    #[test]
    fn a_label_is_found_by_its_whole_name() {
        let series = "requests_total{resource=\"services\",subresource=\"status\",verb=\"GET\"}";
        assert_eq!(label(series, "resource"), "services");
        assert_eq!(label(series, "source"), "");
        assert_eq!(label(series, "verb"), "GET");
    }
}
