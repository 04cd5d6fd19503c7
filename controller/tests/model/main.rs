//! The mind against a pretended cluster: delays, crashes, twins, and what must hold all the same.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod api;
mod cluster;
mod objects;
mod stories;
