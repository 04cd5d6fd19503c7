//! The one place of this crate where time is read.

use std::time::Instant;

use jiff::Timestamp;

use crate::mind::Now;

/// The time now.
pub fn now() -> Now {
    // tokio's clock, so that tests can hold it still.
    Now { monotonic: tokio::time::Instant::now().into_std(), wall: Timestamp::now() }
}

/// Sleeps until the given time; for ever if there is none.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
