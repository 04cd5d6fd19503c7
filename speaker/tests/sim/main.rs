//! The pretend world: many minds on one pretend LAN, with virtual time, seeded loss, delay and faults.
//!
//! `world` is the LAN, its clocks and its faults; `client` is who uses the addresses; `invariants` names
//! what must hold; `scenarios` and `random` are the tests.

// A starting point for virtual time has to come from somewhere; nothing ever reads the clock again.
#![allow(clippy::disallowed_methods)]
// This is a test as a whole, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]

mod client;
mod invariants;
mod lan;
mod lans;
mod ops;
mod random;
mod returns;
mod scenarios;
mod upgrades;
mod verification;
mod world;

/// How many seeds to try: more when the environment says so.
fn seeds(usually: u32) -> u32 {
    std::env::var("LANDFALL_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usually)
}
