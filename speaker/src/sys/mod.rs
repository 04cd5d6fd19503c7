//! What Linux is asked for by hand: raw Ethernet sockets, datagram sockets that are bound to one link,
//! multicast memberships, waiting for all of them at once, and precedence over other work.
//!
//! This is the only place in the speaker with `unsafe` code. Nothing here decides anything, and nothing
//! blocks save [`wait`].

mod arrival;
pub mod datagram;
pub mod groups;
pub mod netfilter;
pub mod packet;
pub mod scheduling;
mod wake;

pub use wake::{Descriptors, Waker, wait};
