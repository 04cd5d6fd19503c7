//! The lab of Landfall: a real Kubernetes on one machine, for tests, demos and people.
//!
//! Start at [`lab`]: its page shows how a test uses it.

// The lab drives real programs in real time; nothing in it decides anything
// that a simulator would want to replay.
#![allow(clippy::disallowed_methods)]

pub mod backend;
pub mod bench;
pub mod database;
pub mod demo;
pub mod lab;
pub mod services;
pub mod story;
