//! BFD: two systems on one link find out fast that the path between them is gone (RFC 5880, RFC 5881).
//!
//! Asynchronous mode over a single hop, one [`Session`](session::Session) for each peer and link. Pure
//! machines: packets and time go in, packets and news come out.
//!
//! - [`state`]: the state machine of section 6.2, as one table
//! - [`timing`]: intervals, their negotiation by Poll Sequences, jitter
//! - [`auth`]: Meticulous Keyed SHA1, keys and their rotation; `replay` is its memory
//! - [`session`]: all of it together, and what its caller has to do
//! - [`sessions`]: all sessions of this node, and what they may cost
//! - [`discriminators`]: numbers for the sessions of one process

pub mod auth;
pub mod discard;
pub mod discriminators;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod lan_tests;
mod remote;
mod replay;
pub mod session;
pub mod sessions;
pub mod state;
#[cfg(test)]
mod story;
pub mod timing;
