//! One crash: for how long all is well, a port is dark, and all is well again.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::World;

/// How long each part of a crash takes.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Pace {
    /// All is well, and clients are asking.
    pub(in crate::bench) quiet: Duration,
    /// The port is dark.
    pub(in crate::bench) dark: Duration,
    /// It is back, and clients go on asking: the return is measured too.
    pub(in crate::bench) light: Duration,
}

impl Pace {
    /// For who notices within a second.
    pub(in crate::bench) const FAST: Self = Self {
        quiet: Duration::from_millis(700),
        dark: Duration::from_millis(1500),
        light: Duration::from_millis(2000),
    };
    /// For who needs up to four.
    pub(in crate::bench) const SLOW: Self = Self { dark: Duration::from_secs(5), ..Self::FAST };
}

/// When what happened.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Moments {
    /// All was well.
    pub(in crate::bench) quiet: Instant,
    /// The port went dark.
    pub(in crate::bench) dark: Instant,
    /// It came back.
    pub(in crate::bench) back: Instant,
}

/// Takes these ports through a crash.
pub(in crate::bench) async fn crash(world: &World<'_>, ports: &[&str], pace: Pace) -> Result<Moments> {
    let switch = world.lab.switch();
    // What a prober needs to begin is not measured.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let quiet = Instant::now();
    tokio::time::sleep(pace.quiet).await;
    let dark = Instant::now();
    ports.iter().try_for_each(|port| switch.port_down(port))?;
    tokio::time::sleep(pace.dark).await;
    let back = Instant::now();
    ports.iter().try_for_each(|port| switch.port_up(port))?;
    tokio::time::sleep(pace.light).await;
    Ok(Moments { quiet, dark, back })
}
