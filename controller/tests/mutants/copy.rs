//! The copy of the controller that is mutated.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::table::{MUTATIONS, Mutation};

/// What is added to the copy: the switch of each mutation.
const SWITCH: &str = r#"//! Which mistake is made in this run.
use std::sync::OnceLock;

pub(crate) fn is(name: &str) -> bool {
    static ON: OnceLock<String> = OnceLock::new();
    ON.get_or_init(|| std::env::var("LANDFALL_MUTANT").unwrap_or_default()) == name
}
"#;

/// The root of the repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Keeps the scratch folder to one run at a time, for as long as the file is held.
pub(crate) fn lock(scratch: &Path) -> Result<File, String> {
    fs::create_dir_all(scratch).map_err(|why| format!("{} cannot be made: {why}", scratch.display()))?;
    let path = scratch.join("lock");
    let file = File::create(&path).map_err(|why| format!("{} cannot be made: {why}", path.display()))?;
    file.try_lock()
        .map_err(|why| format!("another run has {}: wait until it is over ({why})", path.display()))?;
    Ok(file)
}

/// Brings the copy in `scratch` up to date. What has not changed is not touched, so that it need not be
/// built again.
pub(crate) fn write(scratch: &Path) -> Result<(), String> {
    let sources = mutated_sources()?;
    let told = |path: &Path, why: io::Error| format!("{}: {why}", path.display());
    let mut kept = BTreeSet::new();
    let mut put = |path: &str, content: &[u8]| {
        let path = scratch.join(path);
        kept.insert(path.clone());
        if fs::read(&path).is_ok_and(|known| known == content) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|why| told(folder, why))?;
        }
        fs::write(&path, content).map_err(|why| told(&path, why))
    };
    for name in ["Cargo.lock", "rust-toolchain.toml"] {
        put(name, &read(&Path::new(ROOT).join(name))?)?;
    }
    put("Cargo.toml", workspace()?.as_bytes())?;
    for path in files_below(Path::new("controller"))? {
        let name = path.to_string_lossy().into_owned();
        match sources.iter().find(|(file, _)| Path::new("controller/src").join(file) == path) {
            Some((_, text)) => put(&name, text.as_bytes())?,
            None if is_left_out(&path) => {}
            None if name == "controller/src/lib.rs" => {
                let text = format!("#![allow(warnings)]\n{}\nmod mutant;\n", text_of(&path)?);
                put(&name, text.as_bytes())?;
            }
            None if name == "controller/Cargo.toml" => put(&name, manifest(&path)?.as_bytes())?,
            None => put(&name, &read(&Path::new(ROOT).join(&path))?)?,
        }
    }
    put("controller/src/mutant.rs", SWITCH.as_bytes())?;
    for folder in ["deploy", "docs"] {
        let link = scratch.join(folder);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(Path::new(ROOT).join(folder), &link).map_err(|why| told(&link, why))?;
    }
    let mut there = Vec::new();
    walk(&scratch.join("controller"), &mut there).map_err(|why| told(scratch, why))?;
    for path in there.into_iter().filter(|path| !kept.contains(path)) {
        fs::remove_file(&path).map_err(|why| told(&path, why))?;
    }
    Ok(())
}

/// The binary and the tests that are not run are left out, so that they are not built.
fn is_left_out(path: &Path) -> bool {
    let tests = Path::new("controller/tests");
    path == Path::new("controller/src/main.rs")
        || path.starts_with(tests) && !path.starts_with(tests.join("model"))
}

/// The manifest of the workspace with the controller as its only member; the kinds come from where they are.
fn workspace() -> Result<String, String> {
    let root = fs::canonicalize(ROOT).map_err(|why| format!("{ROOT}: {why}"))?;
    let text = text_of(Path::new("Cargo.toml"))?;
    let members = text.lines().find(|line| line.starts_with("members = ")).unwrap_or("members = ");
    let kinds = r#"landfall-crds = { path = "crds" }"#;
    let there = format!(r#"landfall-crds = {{ path = "{}" }}"#, root.join("crds").display());
    let text = replaced_once(&text, members, r#"members = ["controller"]"#)?;
    replaced_once(&text, kinds, &there)
}

/// The manifest of the controller without the tests that are left out.
fn manifest(path: &Path) -> Result<String, String> {
    let text = text_of(path)?;
    Ok(text.split("[[test]]").next().unwrap_or_default().to_owned())
}

fn replaced_once(text: &str, what: &str, with: &str) -> Result<String, String> {
    match text.matches(what).count() {
        1 => Ok(text.replacen(what, with, 1)),
        _ => Err(format!(
            "'{what}' is not once in Cargo.toml: bring controller/tests/mutants/copy.rs up to date"
        )),
    }
}

/// The files that have mutations, with all of them behind their switches.
fn mutated_sources() -> Result<Vec<(&'static str, String)>, String> {
    let files: BTreeSet<&str> = MUTATIONS.iter().map(|mutation| mutation.file).collect();
    let names: BTreeSet<&str> = MUTATIONS.iter().map(|mutation| mutation.name).collect();
    if names.len() < MUTATIONS.len() {
        return Err("two mutations have the same name: see controller/tests/mutants/table.rs".to_owned());
    }
    files
        .into_iter()
        .map(|file| {
            let text = text_of(&Path::new("controller/src").join(file))?;
            let of_file: Vec<&Mutation> = MUTATIONS.iter().filter(|mutation| mutation.file == file).collect();
            Ok((file, mutated(&text, &of_file)?))
        })
        .collect()
}

/// The text with every mutation in place of its original. Each is found in the text as it was, so that
/// none is found in what another has put there.
fn mutated(text: &str, mutations: &[&Mutation]) -> Result<String, String> {
    let mut places = Vec::new();
    for mutation in mutations {
        let times = text.matches(mutation.original).count();
        let (Some(at), 1) = (text.find(mutation.original), times) else {
            return Err(format!(
                "the mutation '{}' must be brought up to date in controller/tests/mutants/table.rs: its \
                 original is to be found once in controller/src/{}, and is there {times} times:\n{}",
                mutation.name, mutation.file, mutation.original
            ));
        };
        places.push((at, mutation));
    }
    places.sort_by_key(|(at, _)| *at);
    let mut whole = String::with_capacity(text.len() * 2);
    let mut done = 0;
    for (at, mutation) in places {
        let Some(between) = text.get(done..at) else {
            return Err(format!("the mutation '{}' overlaps with another one", mutation.name));
        };
        whole.push_str(between);
        let switch = format!("crate::mutant::is({:?})", mutation.name);
        whole.push_str(&mutation.mutated.replace("MUTANT", &switch).replace("ORIGINAL", mutation.original));
        done = at + mutation.original.len();
    }
    whole.push_str(text.get(done..).unwrap_or_default());
    Ok(whole)
}

/// The files below a folder of the repository, by their paths in it.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let root = Path::new(ROOT);
    let mut files = Vec::new();
    walk(&root.join(folder), &mut files).map_err(|why| format!("{}: {why}", folder.display()))?;
    Ok(files.into_iter().filter_map(|file| file.strip_prefix(root).ok().map(Path::to_owned)).collect())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|why| format!("{}: {why}", path.display()))
}

fn text_of(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read(&Path::new(ROOT).join(path))?);
    text.map_err(|why| format!("{}: {why}", path.display()))
}
