//! What a client on the LAN can measure.
//!
//! Everything here runs on threads of this process that have entered the
//! client's network namespace, so a measurement starts in well under a millisecond.

mod datagrams;
mod frames;
mod neighbour;
mod request;
#[allow(unsafe_code)]
mod sys;
mod watch;

pub use datagrams::{Gap, Prober, Report};
pub use neighbour::Neighbour;
pub use request::{Answer, Protocol, Request};
pub use watch::{Sighting, Sightings, Watch};
