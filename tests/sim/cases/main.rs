//! What happens, and what must follow, in the pretend world.

// A starting point for virtual time has to come from somewhere; nothing ever reads the clock again.
#![allow(clippy::disallowed_methods)]
// This is a test as a whole, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]

mod checks;
mod lans;
mod promised;
mod random;
mod returns;
mod scenarios;
mod upgrades;
mod verification;
