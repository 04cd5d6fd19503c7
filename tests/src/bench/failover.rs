//! The outage that a client measures when the switch port of the announcing node goes dark.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::Figure;
use crate::{
    backend::{Backends, Service},
    lab::{Lab, eventually, probe::Request, seconds},
    services::{self, announcer, granted},
};

pub(super) async fn measure(lab: &Lab, crashes: u32) -> Result<Vec<Figure>> {
    // The backend runs where nobody announces.
    Backends::new("web", 1).on("n4").deploy(lab).await?;
    Service::new("crashes", "web")
        .load_balancer()
        .spec("ipFamilyPolicy", serde_json::json!("SingleStack"))
        .apply(lab)
        .await?;
    let address = granted(lab, "crashes", 1).await?[0];
    let target = SocketAddr::from((address, 80));
    let client = lab.lan_client("c1")?;
    eventually(seconds(10), "it answers", async || client.ask(Request::udp(target))).await?;
    let (mut outages, mut returns, mut splits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..crashes {
        let owner = announcer(lab, address).await?;
        let prober = client.probe(target);
        let watch = lab.lan_client("c2")?.watch(address, Duration::from_millis(10));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let dark = Instant::now();
        lab.switch().port_down(owner.name())?;
        tokio::time::sleep(seconds(2)).await;
        let back = Instant::now();
        lab.switch().port_up(owner.name())?;
        tokio::time::sleep(seconds(3)).await;
        let (report, seen) = (prober.finish()?, watch.finish()?);
        let during = report.gaps.iter().filter(|gap| gap.from < back && gap.from + gap.length > dark);
        outages.push(during.map(|gap| gap.length).max().unwrap_or_default());
        returns.push(report.longest_gap_after(back));
        splits.push(seen.longest_split());
    }
    services::delete(lab, "crashes").await?;
    let longest = outages.iter().copied().max().unwrap_or_default();
    Ok(vec![
        Figure::times("outage when the owner's port goes dark", &outages, 120.0, None),
        Figure::times("the longest of these", &[longest], 200.0, None),
        Figure::times("outage when that node comes back", &returns, 50.0, None),
        Figure::times("two nodes answer when that node comes back", &splits, 1000.0, None),
    ])
}
