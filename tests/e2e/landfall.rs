//! Landfall as the stories find it: installed as a user would, with one pool and backends to reach.

use anyhow::Result;
use landfall_crds::names::labels::EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS;
use landfall_tests::{
    backend::Backends,
    lab::{Lab, landfall},
    services::pool,
};
use serde_json::json;

/// The node that never announces. Backends that are measured run there, so that what is measured is the
/// address and not kube-proxy's choice of a backend on the node that dies.
pub(crate) const BYSTANDER: &str = "n4";

/// Installs Landfall where it is not yet, with the pool `lan` and the backends `web` on the bystander.
pub(crate) async fn installed(lab: &Lab) -> Result<()> {
    lab.kubectl(&[
        "label",
        "--overwrite",
        "node",
        BYSTANDER,
        &format!("{EXCLUDE_FROM_EXTERNAL_LOAD_BALANCERS}=true"),
    ])?;
    landfall::install(lab).await?;
    let addresses = json!({"addresses": ["192.168.10.200-192.168.10.220", "fd10::200-fd10::220"]});
    pool(lab, "lan", &addresses).await?;
    Backends::new("web", 2).on(BYSTANDER).deploy(lab).await
}
