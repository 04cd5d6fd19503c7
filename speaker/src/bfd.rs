//! BFD: two systems on one link find out fast that the path between them is gone (RFC 5880, RFC 5881).
//!
//! Asynchronous mode over a single hop, one session for each peer and link. Pure
//! machines: packets and time go in, packets and news come out.
//!
//! - [`auth`]: Meticulous Keyed SHA1, keys and their rotation; `replay` is its memory

pub mod auth;
mod replay;
