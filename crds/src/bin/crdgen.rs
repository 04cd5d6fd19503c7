//! Writes the custom resource definitions into the folder named by the first argument.

use std::path::PathBuf;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: crdgen FOLDER")?;
    for (file, definition) in landfall_crds::definitions() {
        let path = folder.join(file);
        std::fs::write(&path, landfall_crds::to_yaml(&definition)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
