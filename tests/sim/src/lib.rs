//! The pretend world: many speakers and a controller on pretend LANs and a pretend API server, with virtual time
//! and seeded faults.
//!
//! It runs the very code that decides in production, the minds of speaker and controller and the planners of the
//! speaker's drivers, and nothing that touches a socket, a file or a clock. `world` turns it, `node` and
//! `process` are what lives in it, `lan`, `api` and `controller` what is between them; `deeds` is what can be
//! done to it, `invariants` names what must hold after every event.

// A starting point for virtual time has to come from somewhere; nothing ever reads the clock again.
#![allow(clippy::disallowed_methods)]
// Few of the values that come and happen live at once.
#![allow(clippy::large_enum_variant)]
// This is a test as a whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    missing_debug_implementations
)]

pub mod api;
pub mod campaign;
pub mod clock;
pub mod controller;
pub mod deeds;
pub mod fault;
pub mod invariants;
pub mod lan;
mod lives;
pub mod node;
pub mod play;
pub mod process;
pub mod random;
pub mod script;
pub mod shrink;
pub mod stations;
pub mod story;
pub mod version;
pub mod watcher;
pub mod world;
