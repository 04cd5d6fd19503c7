//! The filter against a real kernel: a client, a node and a pod in network namespaces, with real traffic.
//!
//! Needs root and the program `nft`; without, each test says that it is skipped.

// Helpers of tests may panic as tests do, and the stories run in real time.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod changes;
mod kernel;
mod lan;
mod load;
mod matrix;
mod probe;
mod refusals;
