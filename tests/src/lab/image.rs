//! Images: built by buildah from a Containerfile, imported into the nodes' containerd.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

use super::{isolation::RUN, namespace::Namespace, node::Node, process, programs};

/// The longest that a build or an import may take.
const LIMIT: Duration = Duration::from_secs(120);

/// An image to build.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// Full name with tag, for example `landfall.dev/speaker:dev`.
    pub name: &'a str,
    /// The Containerfile.
    pub containerfile: &'a Path,
    /// The stage of it, where it has several.
    pub target: Option<&'a str>,
    /// The folder that `COPY` copies from.
    pub context: &'a Path,
}

/// Builds an image and returns the archive of it.
///
/// # Errors
/// With what buildah wrote.
pub fn build(image: &Image<'_>) -> Result<PathBuf> {
    let folder = Path::new(RUN).join("images");
    let file = image.name.replace(['/', ':'], "-");
    // Storage of each build's own, so that builds can go on side by side.
    let storage = folder.join(format!("{file}.storage"));
    fs::create_dir_all(&storage)?;
    let containerfile = storage.join("Containerfile");
    fs::copy(image.containerfile, &containerfile)
        .with_context(|| format!("reading {}", image.containerfile.display()))?;
    let policy = folder.join("policy.json");
    fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
    let buildah = || {
        // It would leave a cache of layers in the machine's /var/lib, whatever its root is.
        let mut command = Namespace::of_the_lab().command("unshare");
        command
            .args(["--mount", "--propagation=private", "--", "sh", "-ec"])
            .args(["mount -t tmpfs tmpfs /var/lib; exec \"$@\"", "sh", "buildah", "--storage-driver=vfs"])
            .arg(format!("--root={}", storage.join("root").display()))
            .arg(format!("--runroot={}", storage.join("run").display()))
            .env("TMPDIR", &storage)
            .env("HOME", &storage)
            .env("BUILDAH_HISTORY", "false");
        command
    };
    let mut bud = buildah();
    bud.args(["bud", "--isolation=chroot", "--pull-never", "--layers=false", "--quiet"])
        .arg(format!("--cni-config-dir={}", storage.display()))
        .arg(format!("--signature-policy={}", policy.display()))
        .arg(format!("--tag={}", image.name))
        .arg(format!("--file={}", containerfile.display()));
    if let Some(target) = image.target {
        bud.arg(format!("--target={target}"));
    }
    bud.arg(image.context);
    process::output_within(LIMIT, bud, None).with_context(|| format!("building {}", image.name))?;
    let archive = folder.join(format!("{file}.tar"));
    let mut push = buildah();
    push.args(["push", "--quiet"])
        .arg(format!("--signature-policy={}", policy.display()))
        .arg(image.name)
        .arg(format!("oci-archive:{}:{}", archive.display(), image.name));
    process::output_within(LIMIT, push, None).with_context(|| format!("writing {}", archive.display()))?;
    fs::remove_dir_all(&storage).with_context(|| format!("removing {}", storage.display()))?;
    Ok(archive)
}

/// Imports archives on all of these nodes at the same time.
///
/// # Errors
/// With what `ctr` wrote.
pub fn import<'a>(nodes: impl IntoIterator<Item = &'a Node>, archives: &[PathBuf]) -> Result<()> {
    let on_node = |node: &Node| {
        for archive in archives {
            let mut ctr = node.namespace().command("ctr");
            ctr.args(["--namespace=k8s.io", "images", "import"]).arg(archive);
            process::output_within(LIMIT, ctr, None)
                .with_context(|| format!("importing {} on {}", archive.display(), node.name()))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let imports: Vec<_> = nodes.into_iter().map(|node| scope.spawn(move || on_node(node))).collect();
        imports.into_iter().try_for_each(|import| import.join().map_err(|_| anyhow!("an import panicked"))?)
    })
}

/// Builds the lab's own images: what holds pods, and the backend.
pub(crate) fn build_own() -> Result<Vec<PathBuf>> {
    let context = Path::new(RUN).join("images/own");
    fs::create_dir_all(&context)?;
    fs::copy(programs::ours("landfall-backend")?, context.join("landfall-backend"))?;
    let containerfile = programs::tests_folder().join("lab-images/Containerfile");
    let build = |name, target| {
        build(&Image { name, containerfile: &containerfile, target: Some(target), context: &context })
    };
    let (pause, backend) = thread::scope(|scope| {
        let pause = scope.spawn(|| build(super::runtime::PAUSE, "pause"));
        let backend = build(crate::backend::IMAGE, "backend");
        (pause.join(), backend)
    });
    Ok(vec![pause.map_err(|_| anyhow!("a build panicked"))??, backend?])
}
