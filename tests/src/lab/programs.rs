//! The programs that the lab runs: Kubernetes' own, Debian's and ours.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// The folder with ready Kubernetes programs.
pub(crate) const KUBERNETES_BIN: &str = "LANDFALL_KUBERNETES_BIN";
/// The folder with our own static binaries.
const LANDFALL_BIN_DIR: &str = "LANDFALL_BIN_DIR";
/// Where Debian's containernetworking-plugins puts its programs.
pub(crate) const CNI_BIN: &str = "/usr/lib/cni";

const FROM_PACKAGES: [&str; 11] = [
    "buildah",
    "conntrack",
    "containerd",
    "ctr",
    "ip",
    "iptables",
    "nft",
    "nsenter",
    "runc",
    "setpriv",
    "unshare",
];

/// The folder of this crate in the repository that this program was built from.
pub(crate) fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The repository that this program was built from.
pub fn repository() -> PathBuf {
    tests_folder().parent().map(Path::to_owned).unwrap_or_default()
}

/// Fails with a sentence when a Debian package that the lab needs is missing.
pub(crate) fn require_packages() -> Result<()> {
    let mut missing: Vec<&str> =
        FROM_PACKAGES.into_iter().filter(|program| find(program).is_none()).collect();
    if !Path::new(CNI_BIN).join("ptp").exists() {
        missing.push("the CNI plugin ptp");
    }
    ensure!(missing.is_empty(), "missing on this machine: {}; run tests/install.sh", missing.join(", "));
    Ok(())
}

/// Finds a program by name in PATH, or in the system folders that a user's PATH often lacks.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// PATH for everything that the lab starts: the system's folders are in it whatever the caller's has.
pub(crate) fn path() -> String {
    format!(
        "{}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        std::env::var("PATH").unwrap_or_default()
    )
}

/// The folder of Kubernetes programs, built now where that has not been done on this machine.
pub(crate) fn kubernetes() -> Result<PathBuf> {
    let script = tests_folder().join("kubernetes/build.sh");
    let output = Command::new("bash")
        .arg(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", script.display()))?;
    ensure!(output.status.success(), "the Kubernetes programs could not be had (see above)");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// One of our own binaries, by name; the newest, where cargo has left several.
///
/// # Errors
/// A sentence that says what to do, when it is absent or not statically linked
/// (an image from scratch has no dynamic linker).
pub fn ours(name: &str) -> Result<PathBuf> {
    let folders = match std::env::var_os(LANDFALL_BIN_DIR) {
        Some(folder) => vec![PathBuf::from(folder)],
        None => {
            let target = repository().join("target");
            let triple = format!("{}-unknown-linux-gnu/release", std::env::consts::ARCH);
            vec![target.join("release"), target.join(triple)]
        }
    };
    let mut candidates: Vec<PathBuf> =
        folders.iter().map(|folder| folder.join(name)).filter(|path| path.is_file()).collect();
    candidates.sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    let Some(binary) = candidates.pop() else {
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        bail!("{name} is in none of {}: run `make build`, or set {LANDFALL_BIN_DIR}", places.join(", "));
    };
    ensure!(
        is_static(&fs::read(&binary)?)?,
        "{} is not statically linked, so it cannot run in an image from scratch: run `make build`",
        binary.display()
    );
    Ok(binary)
}

/// Whether a 64-bit little-endian ELF file asks for no dynamic linker: it has no `PT_INTERP` (ELF-64, "Program Header").
fn is_static(elf: &[u8]) -> Result<bool> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| {
        let field = elf.get(at..at + bytes).context("not a 64-bit ELF file")?;
        Ok::<u64, anyhow::Error>(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        if number(usize::try_from(first + index * size)?, 4)? == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::is_static;

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        assert!(is_static(&elf).unwrap());
        elf[64] = 3;
        assert!(!is_static(&elf).unwrap());
        assert!(is_static(b"#!/bin/sh").is_err());
        assert!(is_static(&elf[..64]).is_err(), "cut off");
    }
}
