//! Brings a lab up and stays.
use landfall_tests::lab::{Lab, LabOptions, isolation};
fn main() -> anyhow::Result<()> {
    let inside = isolation::enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let lab = Lab::up(&inside, LabOptions::default()).await?;
        eprintln!("{}", lab.kubectl(&["get", "nodes", "-o", "wide"])?);
        Ok(())
    })
}
