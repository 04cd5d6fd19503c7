//! What a client on the LAN can measure, and what goes over the wire.
//!
//! Everything here runs on threads of this process that have entered a network namespace, so a measurement starts
//! in well under a millisecond. Threads that measure go before other work where the kernel grants it, and what
//! arrives counts from when the kernel received it: a busy machine must not be taken for a silent network.

mod arrival;
mod capture;
mod cold;
mod datagrams;
mod download;
mod frames;
mod impostor;
mod neighbour;
mod packets;
mod report;
mod request;
mod roll_call;
mod storm;
#[allow(unsafe_code)]
mod sys;
mod watch;

pub use capture::{Capture, Seen};
pub use cold::{ColdProber, ColdReport};
pub use datagrams::Prober;
pub use download::{Download, Downloaded};
pub use frames::Said;
pub use impostor::{Impostor, Lie};
pub use neighbour::Neighbour;
pub use report::{Gap, Report};
pub use request::{Answer, Protocol, Request};
pub use roll_call::{RollCall, Roster};
pub use storm::{Storm, StormReport};
pub use watch::{Sighting, Sightings, Watch};
