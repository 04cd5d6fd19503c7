//! What is measured: time, and what is asked of the heap.

use std::alloc::System;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Time and heap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub time: Duration,
    pub longest: Duration,
    pub allocations: u64,
    /// What was taken from the heap and not given back, in bytes.
    pub kept: i64,
}

impl Cost {
    /// Begins to look at the heap.
    pub fn begin(&self) -> Region<'static, System> {
        Region::new(HEAP)
    }

    /// Adds what was asked of the heap since then, and the time.
    pub fn end(&mut self, region: Region<'static, System>, took: Duration) {
        let change = region.change();
        self.time += took;
        self.longest = self.longest.max(took);
        self.allocations += (change.allocations + change.reallocations) as u64;
        self.kept += change.bytes_allocated as i64 - change.bytes_deallocated as i64;
    }
}

/// The memory that this process occupies, in bytes (proc(5), `VmHWM`).
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
