//! The keys that all speakers share, in a folder as Kubernetes mounts a Secret.
//!
//! A file that is named by a number of 1 to 255 holds the secret of the key with this ID, and the file `send`
//! the ID of the key to seal with. The folder is read anew while the speaker runs, so that keys can be
//! exchanged without a restart. Whatever happens to it, the speaker never goes back to no keys by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::seal::{Keyring, KeyringError};

/// How often the folder is read anew. The kubelet takes up to some minutes to bring a change to all nodes.
const REREAD: Duration = Duration::from_secs(10);
/// The file with the ID of the key to seal with.
const SEND: &str = "send";
/// The link by which the kubelet exchanges all files of a folder at once.
const DATA: &str = "..data";
/// How often reading begins again because the kubelet exchanged the files meanwhile.
const ATTEMPTS: usize = 3;

/// The contents of the folder's files, by their names.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Why the files are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysFileError {
    /// A file has another name.
    #[error(
        "{0:?} is no name of a key: each secret is in a file that is named by its ID, a number of 1 to 255, and \
         the file `send` holds the ID of the key to seal with"
    )]
    Name(String),
    /// The file `send` holds something else. It is not told, for it may be a secret.
    #[error("the file `send` does not hold the ID of a key, a number of 1 to 255")]
    Send,
    /// Several keys and no file `send`.
    #[error("there are {0} keys and no file `send` with the ID of the one to seal with")]
    NoSend(usize),
    /// The keys are no set of keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot read them: {0}")]
    Read(String),
    #[error(transparent)]
    Files(#[from] KeysFileError),
    #[error("all of them have vanished, and without keys nobody would be asked who he is")]
    Vanished,
}

/// The process cannot start with the keys that it finds.
#[derive(Debug, thiserror::Error)]
#[error("the keys in {} (--keys-dir, LANDFALL_KEYS_DIR) cannot be used: {error}", folder.display())]
pub struct Unusable {
    /// Where they are.
    pub folder: PathBuf,
    /// What is wrong with them.
    pub error: Error,
}

/// Makes keys of files; none where there are no files.
///
/// # Errors
/// A file has a name that is none of a key, or the secrets are no set of keys.
pub fn parse(files: &Files) -> Result<Option<Keyring>, KeysFileError> {
    let (mut secrets, mut sending) = (Vec::new(), None);
    for (name, bytes) in files {
        if name == SEND {
            let text = str::from_utf8(bytes).map_err(|_| KeysFileError::Send)?;
            sending = Some(key_id(text.trim()).ok_or(KeysFileError::Send)?);
        } else {
            let id = key_id(name).ok_or_else(|| KeysFileError::Name(name.clone()))?;
            secrets.push((id, without_newline(bytes).to_vec()));
        }
    }
    let sending = match (sending, &secrets[..]) {
        (None, []) => return Ok(None),
        (None, [(only, _)]) => *only,
        (None, several) => return Err(KeysFileError::NoSend(several.len())),
        (Some(sending), _) => sending,
    };
    Ok(Some(Keyring::new(secrets, sending)?))
}

/// A number of 1 to 255 in the one way to write it, so that no two files mean one key.
fn key_id(text: &str) -> Option<u8> {
    text.parse().ok().filter(|id: &u8| *id > 0 && id.to_string() == text)
}

/// Editors and `echo` end a file with a newline; a secret that was made otherwise has none.
fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// The folder and what was seen there last.
pub struct KeysFolder {
    folder: PathBuf,
    /// What was last found there, or why it could not be read.
    seen: Result<Files, String>,
    /// The files of the keys in use.
    used: Files,
}

/// What a look at the folder brings that was not known before.
#[derive(Debug)]
enum News {
    /// Other keys.
    Keys(Arc<Keyring>),
    /// The keys in use are there again.
    AsBefore,
    /// What is there is of no use.
    Refused(Error),
}

impl KeysFolder {
    /// Reads the keys to start with; none where the folder is missing or empty.
    ///
    /// # Errors
    /// What is there cannot be read or makes no keys.
    pub fn open(folder: &Path) -> Result<(Self, Option<Arc<Keyring>>), Unusable> {
        let mut this = Self { folder: folder.to_owned(), seen: Ok(Files::default()), used: Files::default() };
        match this.look(read(folder)) {
            Some(News::Refused(error)) => return Err(Unusable { folder: this.folder, error }),
            Some(News::Keys(keys)) => {
                tracing::info!(folder = %folder.display(), ?keys, "what speakers say is authenticated");
                return Ok((this, Some(keys)));
            }
            Some(News::AsBefore) | None => {}
        }
        tracing::info!(folder = %folder.display(), "no keys: what speakers say is not authenticated");
        Ok((this, None))
    }

    /// Reads the folder anew every 10 s, for ever, and tells of other keys. It never tells that there are none.
    pub async fn watch(mut self, mut tell: impl FnMut(Option<Arc<Keyring>>)) {
        loop {
            tokio::time::sleep(REREAD).await;
            // A slow disk must not hold the other drivers up.
            let folder = self.folder.clone();
            let task = tokio::task::spawn_blocking(move || read(&folder));
            let found = task.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            let folder = self.folder.display().to_string();
            match self.look(found) {
                None => {}
                Some(News::Keys(keys)) => {
                    tracing::info!(folder, ?keys, "uses other keys from now on");
                    tell(Some(keys));
                }
                Some(News::AsBefore) => tracing::info!(folder, "the keys are again those that are in use"),
                Some(News::Refused(error)) => tracing::error!(folder, %error,
                    "these keys are not used and the speaker goes on as before; mend the Secret \
                     landfall-speaker-keys, or what else fills this folder"),
            }
        }
    }

    /// What is new about what was found.
    fn look(&mut self, found: io::Result<Files>) -> Option<News> {
        let found = found.map_err(|error| error.to_string());
        if found == self.seen {
            return None;
        }
        let news = match &found {
            Err(error) => News::Refused(Error::Read(error.clone())),
            Ok(files) if *files == self.used => News::AsBefore,
            Ok(files) => match parse(files) {
                Ok(Some(keys)) => {
                    self.used.clone_from(files);
                    News::Keys(Arc::new(keys))
                }
                Ok(None) => News::Refused(Error::Vanished),
                Err(error) => News::Refused(error.into()),
            },
        };
        self.seen = found;
        Some(news)
    }
}

/// Reads files that belong together; none where there is no folder.
fn read(folder: &Path) -> io::Result<Files> {
    if !folder.try_exists()? {
        return Ok(Files::default());
    }
    let link = folder.join(DATA);
    for _ in 0..ATTEMPTS {
        let data = fs::read_link(&link).ok();
        // Not by the links beside it, of which each could lead to another generation of files.
        let files = read_files(&data.as_ref().map_or_else(|| folder.to_owned(), |data| folder.join(data)));
        if fs::read_link(&link).ok() == data {
            return files;
        }
    }
    Err(io::Error::other("it changes while it is read"))
}

fn read_files(folder: &Path) -> io::Result<Files> {
    let mut files = Files::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The kubelet's own.
        if name.starts_with("..") {
            continue;
        }
        let bytes = fs::read(entry.path());
        let bytes = bytes.map_err(|error| io::Error::new(error.kind(), format!("{name:?}: {error}")))?;
        files.insert(name, bytes);
    }
    Ok(files)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
