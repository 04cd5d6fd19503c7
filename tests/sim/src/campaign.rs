//! Many runs, on as many threads as there are processors, with figures.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::invariants::{Broken, Closest};
use crate::play::{Played, play};
use crate::script::Script;
use crate::shrink::shrink;
use crate::story::seconds;

/// So often it is said how far it has come.
const PROGRESS: Duration = Duration::from_secs(10);
/// More seeds than these that fail say nothing more, where the plan does not say.
pub const MOST_FAILURES: usize = 3;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub first: u64,
    /// So many seeds at most.
    pub seeds: u64,
    /// These are left out.
    pub without: Vec<u64>,
    /// No new seed is begun after so many faults.
    pub faults: Option<u64>,
    /// No new seed is begun after so many have failed.
    pub failures: usize,
    /// It is said how far it has come.
    pub is_told: bool,
}

/// What came of it.
#[derive(Default)]
pub struct Summary {
    pub seeds: u64,
    pub faults: BTreeMap<String, u64>,
    pub events: u64,
    pub sent: u64,
    pub lost: u64,
    pub writes: u64,
    pub lasted: Duration,
    pub took: Duration,
    pub closest: Closest,
    pub failed: Vec<(u64, Broken)>,
}

impl Summary {
    fn add(&mut self, seed: u64, played: Played) {
        self.seeds += 1;
        for (kind, count) in played.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.events += played.events;
        self.sent += played.sent;
        self.lost += played.lost;
        self.writes += played.writes;
        self.lasted += played.lasted;
        self.closest.add(&played.closest);
        self.failed.extend(played.broken.map(|broken| (seed, broken)));
    }

    pub fn all_faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// The figures, for people.
    pub fn print(&self) {
        let took = self.took.as_secs_f64().max(1e-9);
        println!(
            "{} seeds, {} faults, {} events in {:.1} s ({:.0} events/s, {:.0} faults/s); {:.1} h of the pretend \
             world, {} frames and datagrams under way, {} of them lost, {} writes to the API",
            self.seeds,
            self.all_faults(),
            self.events,
            took,
            self.events as f64 / took,
            self.all_faults() as f64 / took,
            self.lasted.as_secs_f64() / 3600.0,
            self.sent,
            self.lost,
            self.writes,
        );
        let kinds: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!("faults: {}", kinds.join(", "));
        for (seed, broken) in &self.failed {
            println!("seed {seed} breaks {} at {}: {}", broken.invariant, seconds(broken.at), broken.what);
        }
        println!("the longest that anything did not hold, and how often, by what excused it:");
        for (what, (took, bound, count)) in &self.closest.entries {
            println!("  {what:<12} {took:>10.1?} of {bound:?}, {count} times");
        }
    }
}

/// Plays one seed; a panic is an invariant that is broken, too.
pub fn play_seed(seed: u64) -> Played {
    play_script(&Script::draw(seed))
}

fn play_script(script: &Script) -> Played {
    catch_unwind(AssertUnwindSafe(|| play(script, false))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = text.unwrap_or_default();
        Played { broken: Some(Broken { invariant: "panic", at: Duration::ZERO, what }), ..Played::default() }
    })
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Summary {
    let began = Instant::now();
    let next = AtomicU64::new(plan.first);
    let all = Mutex::new(Summary::default());
    let is_over = AtomicBool::new(false);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= plan.first.saturating_add(plan.seeds) || is_over.load(Ordering::Relaxed) {
                    return;
                }
                if plan.without.contains(&seed) {
                    continue;
                }
                let played = play_seed(seed);
                let mut all = all.lock().unwrap();
                all.add(seed, played);
                let is_enough = plan.faults.is_some_and(|faults| all.all_faults() >= faults);
                if is_enough || all.failed.len() >= plan.failures {
                    is_over.store(true, Ordering::Relaxed);
                }
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut told = began;
        while plan.is_told && workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let all = all.lock().unwrap();
                let took = began.elapsed().as_secs_f64();
                println!(
                    "{took:>6.0} s: {} seeds, {} faults, {:.2} million events/s, {} failed",
                    all.seeds,
                    all.all_faults(),
                    all.events as f64 / took / 1e6,
                    all.failed.len()
                );
            }
        }
    });
    let mut all = all.into_inner().unwrap();
    all.took = began.elapsed();
    all.failed.sort_by_key(|(seed, _)| *seed);
    all
}

/// Tells the story of a seed that fails, as short as it can be made, and how to see it again.
pub fn tell_failure(seed: u64, broken: &Broken) {
    println!("\nseed {seed} breaks {} at {}: {}", broken.invariant, seconds(broken.at), broken.what);
    println!("  again, as it was: make sim SEED={seed}");
    if broken.invariant == "panic" {
        return;
    }
    let script = shrink(&Script::draw(seed), broken.invariant);
    tell(&script);
    match keep(seed, &script) {
        Ok(path) => println!("  again, made short: make sim REPLAY={}", path.display()),
        Err(error) => println!("  (it could not be written to a file: {error})"),
    }
}

/// Plays a script and tells what happens.
pub fn tell(script: &Script) -> Option<Broken> {
    let played = play(script, true);
    let setting = &script.setting;
    println!(
        "{} nodes, {} addresses, {} keys, {}, {}, addresses {:?}, clocks differ by {} ppm, versions {:?}; placed by {}",
        setting.nodes,
        script.vips,
        if setting.keys { "with" } else { "without" },
        if setting.backbone { "two LANs" } else { "one LAN" },
        if setting.gateway { "a gateway" } else { "no other station" },
        setting.families,
        setting.drift,
        setting.versions,
        if script.controller { "a controller" } else { "hand" },
    );
    for line in &played.story {
        println!("  {line}");
    }
    if let Some(broken) = &played.broken {
        println!("  {:>9} {} IS BROKEN: {}", seconds(broken.at), broken.invariant, broken.what);
    }
    played.broken
}

fn keep(seed: u64, script: &Script) -> std::io::Result<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/sim"));
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let path = folder.join(format!("seed-{seed}.json"));
    std::fs::write(&path, serde_json::to_string_pretty(script)?)?;
    Ok(path)
}
