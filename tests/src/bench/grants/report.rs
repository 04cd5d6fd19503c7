//! What the runs were like, and the figures that are made of them.

use std::collections::BTreeMap;

use crate::{
    bench::{
        Figure,
        usage::{Requests, Usage},
    },
    lab::say,
};

/// How much longer ours may take than the floor.
const RATIO: f64 = 1.25;

/// The most that one figure may be above another to be called no growth: a tenth.
const NO_GROWTH: f64 = 1.1;

/// The resource of Events, as the audit log names it.
const EVENTS: &str = " events";

/// How long one run took, and what it cost whom.
pub(super) struct Run {
    /// From the first create to the last address in a status.
    pub(super) seconds: f64,
    /// From the first create to the last.
    pub(super) creating: f64,
    pub(super) count: usize,
    /// CPU seconds by process until the last address.
    pub(super) cpu: BTreeMap<&'static str, f64>,
    /// Writes by verb and resource until the last address.
    pub(super) writes: BTreeMap<String, f64>,
    pub(super) reads: Requests,
    /// What the controller's metrics tell of its effects.
    pub(super) effects: Vec<String>,
}

/// What the controller did and cost beyond the last address.
pub(super) struct Rest {
    /// Until it had written everything, counted from the last address.
    pub(super) quiet_after: Option<f64>,
    /// CPU seconds from the first create until then.
    pub(super) cpu: f64,
    /// Writes until then, the users' included.
    pub(super) writes: BTreeMap<String, f64>,
    pub(super) memory: Usage,
    pub(super) idle_cpu: f64,
    pub(super) idle_writes: f64,
    pub(super) idle_reads: f64,
}

/// All runs of one size.
pub(super) struct Size {
    pub(super) size: usize,
    pub(super) floors: Vec<Run>,
    pub(super) ours: Vec<Run>,
    pub(super) rest: Option<Rest>,
}

/// Single reads among requests.
pub(super) fn single_reads(requests: &Requests) -> f64 {
    let single = requests.iter().filter(|(name, _)| name.starts_with("GET"));
    single.fold(0.0, |sum, (_, count)| sum + count)
}

impl Run {
    fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    /// CPU seconds of the API server, etcd, the users and the controller.
    fn all_cpu(&self) -> f64 {
        self.cpu.values().sum()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seconds, creating, cpu, writes, reads, effects, .. } = self;
        let words = |what: &BTreeMap<String, f64>| {
            what.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        let cpu: Vec<_> = cpu.iter().map(|(name, used)| format!("{name} {used:.1}")).collect();
        write!(f, "{seconds:.2} s ({:.0}/s), users done after {creating:.2} s", self.rate())?;
        write!(f, "; CPU seconds: {}", cpu.join(", "))?;
        write!(f, "; writes: {}; reads: {}", words(writes), words(reads))?;
        if !effects.is_empty() {
            write!(f, "; effects: {}", effects.join(", "))?;
        }
        Ok(())
    }
}

/// What the figures are called and held to.
pub(super) fn figures(sizes: &[Size]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for measured in sizes {
        measured.add_figures(&mut figures);
    }
    if let (Some(small), Some(large)) = (sizes.first(), sizes.last())
        && small.size < large.size
    {
        let grown = format!("at {} against {} Services", large.size, small.size);
        let ratio = median(&large.ratios()) / median(&small.ratios());
        figures.push(Figure::of(&format!("growth of the ratio {grown}"), &[ratio], "x", Some(NO_GROWTH)));
        if let (Some(few), Some(many)) = (&small.rest, &large.rest) {
            let growth = many.cpu / large.size as f64 * small.size as f64 / few.cpu;
            let name = format!("growth of the CPU per Service {grown}");
            figures.push(Figure::of(&name, &[growth], "x", Some(NO_GROWTH)));
        }
    }
    figures
}

impl Size {
    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.floors).map(|(ours, floor)| ours.seconds / floor.seconds).collect()
    }

    fn add_figures(&self, figures: &mut Vec<Figure>) {
        let Self { size, floors, ours, rest } = self;
        let rates = |runs: &[Run]| runs.iter().map(Run::rate).collect::<Vec<_>>();
        let named = |what: &str| format!("{size} Services: {what}");
        figures.push(Figure::of(
            &named("time until all have addresses / floor"),
            &self.ratios(),
            "x",
            Some(RATIO),
        ));
        let cpu: Vec<f64> =
            ours.iter().zip(floors).map(|(ours, floor)| ours.all_cpu() / floor.all_cpu()).collect();
        figures.push(Figure::of(&named("CPU of all who took part / floor"), &cpu, "x", None));
        figures.push(Figure::rates(&named("granted per second"), &rates(ours)));
        figures.push(Figure::rates(&named("granted per second by the floor"), &rates(floors)));
        let Some(rest) = rest else { return };
        let each = |count: f64| count / *size as f64;
        let floor: f64 = floors.last().map(|floor| floor.writes.values().sum()).unwrap_or_default();
        let written: f64 = rest.writes.values().sum();
        let told: f64 =
            rest.writes.iter().filter(|(name, _)| name.contains(EVENTS)).map(|(_, count)| count).sum();
        // What the floor wrote, and one status of the VirtualIP.
        let goal = each(floor) + 1.0;
        figures.push(Figure::of(&named("writes per Service"), &[each(written)], "", Some(goal)));
        figures.push(Figure::of("  to objects", &[each(written - told)], "", None));
        figures.push(Figure::of("  Events", &[each(told)], "", None));
        for (name, count) in &rest.writes {
            figures.push(Figure::of(&format!("    {name}"), &[each(*count)], "", None));
        }
        let reads: Vec<f64> = ours.iter().map(|run| each(single_reads(&run.reads))).collect();
        figures.push(Figure::of(&named("single reads per Service"), &reads, "", None));
        if let Some(after) = rest.quiet_after {
            figures.push(Figure::of(&named("last write after the last address"), &[after], "s", None));
        } else {
            say(&format!("the controller never ceased to write after the last of {size} addresses"));
        }
        let cpu = rest.cpu * 1000.0 / *size as f64;
        figures.push(Figure::of(&named("CPU of the controller per 1,000"), &[cpu], "s", None));
        let memory = Figure {
            worst: rest.memory.peak,
            ..Figure::of(
                &named("memory of the controller"),
                &[rest.memory.resident],
                "MB",
                memory_goal(*size),
            )
        };
        figures.push(memory);
        figures.push(Figure::of(&named("CPU in 30 s without change"), &[rest.idle_cpu], "s", Some(0.1)));
        figures.push(Figure::of(&named("writes in 30 s without change"), &[rest.idle_writes], "", Some(0.0)));
        figures.push(Figure::of(
            &named("single reads in 30 s without change"),
            &[rest.idle_reads],
            "",
            Some(0.0),
        ));
    }
}

/// What the controller may hold with so many Services, in megabytes.
fn memory_goal(size: usize) -> Option<f64> {
    match size {
        0..=4_000 => Some(50.0),
        4_001..=10_000 => Some(100.0),
        _ => None,
    }
}

fn median(values: &[f64]) -> f64 {
    Figure::of("", values, "", None).value
}
