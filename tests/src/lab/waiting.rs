//! Waiting, always with a limit, and with the last state in the failure's words.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

/// The longest that one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(15);

/// Tries until `attempt` succeeds, every 50 ms; its error says what is still missing.
///
/// ```text
/// eventually(seconds(10), "the Service has an address", async || {
///     let service = services.get("web").await?;
///     address_of(&service).ok_or_else(|| anyhow!("status is {:?}", service.status))
/// }).await?
/// ```
///
/// # Errors
/// When it has not succeeded within `limit`: with `what` was awaited and the last attempt's error.
pub async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut last = anyhow!("never tried");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.min(ATTEMPT), attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            // An attempt that the deadline cut short says less than the one before.
            Err(_) if left < ATTEMPT => {}
            Err(_) => last = anyhow!("one attempt took longer than {ATTEMPT:?}"),
        }
        if Instant::now() >= deadline {
            bail!("not within {limit:?}: {what}; last: {last:#}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As [`eventually`], for what is no future and ends quickly.
///
/// # Errors
/// As [`eventually`].
pub fn eventually_blocking<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= deadline => bail!("not within {limit:?}: {what}; last: {last:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Checks every 100 ms that `check` holds, for the whole of `duration`.
///
/// # Errors
/// The first error of `check`, with the time after which it came.
pub async fn steadily(
    duration: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < duration {
        match tokio::time::timeout(ATTEMPT, check()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => bail!("after {:?}, no longer: {what}; {error:#}", start.elapsed()),
            Err(_) => bail!("after {:?}, a check took longer than {ATTEMPT:?}: {what}", start.elapsed()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// So many seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::{anyhow, bail};

    use super::eventually;

    #[tokio::test(flavor = "current_thread")]
    async fn a_failure_tells_the_last_state() {
        let mut count = 0;
        let failed =
            eventually(Duration::from_millis(120), "three and more", async || -> anyhow::Result<()> {
                count += 1;
                bail!("{count} so far")
            });
        let words = failed.await.unwrap_err().to_string();
        assert!(words.contains("three and more") && words.contains("so far"), "{words}");
        let mut once = Some(anyhow!("not yet"));
        eventually(Duration::from_secs(5), "the second time", async || once.take().map_or(Ok(()), Err))
            .await
            .unwrap();
    }
}
