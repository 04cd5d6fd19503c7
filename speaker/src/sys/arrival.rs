//! When the kernel received what is read from a socket only later.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;

/// How long ago a packet came in that the kernel stamped like this (SO_TIMESTAMPNS, socket(7)). The stamp is of the
/// wall clock, which may jump in between: whoever uses it must know by when the socket was empty.
pub(super) fn age(stamp: TimeSpec) -> Duration {
    let stamp = Duration::from(stamp);
    let now = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(stamp)
}

#[allow(clippy::disallowed_methods)] // The clock by which the kernel stamps packets.
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
