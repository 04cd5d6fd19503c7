//! From one process of a node to the next: a socket beside the state file, on which the next one first says that
//! it prepares, and then asks for what the present one has to leave.
//!
//! ```text
//! next: "prepares 1 n2\n"  …  "goes on\n"      present: "{…}\n", an Inheritance
//! ```
//!
//! The name of the socket stands for the node, and the node is told as well: speakers of several nodes may be run by
//! hand with one folder. The next one keeps the connection for as long as it lives, so that the former one knows.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::lan_thread::{Gone, LanThread};
use crate::mind::Event;
use crate::succession::{Inheritance, VERSION};

const PREPARES: &str = "prepares";
const GOES_ON: &str = "goes on";
/// How long the other process may take to answer. Nobody announces meanwhile.
const ANSWER: Duration = Duration::from_secs(2);
/// The longest inheritance: a hundred thousand addresses take less.
const LONGEST: u64 = 64 << 20;

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the other process does not answer")]
    Silent,
    #[error("the other process is gone: {0}")]
    Connection(#[from] io::Error),
    #[error("what the other process left makes no sense: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error(
        "the other process leaves version {0} of what it knows, and this one goes on from version {VERSION}"
    )]
    Version(u32),
}

/// The process that speaks for this node at the moment.
#[derive(Debug)]
pub struct Predecessor(BufReader<UnixStream>);

impl Predecessor {
    /// Finds it, if there is one, and tells it that this one prepares to go on.
    pub async fn find(folder: &Path, node: &str) -> Option<Self> {
        let path = folder.join(socket_of(node));
        let mut stream = timeout(ANSWER, UnixStream::connect(path)).await.ok()?.ok()?;
        stream.write_all(format!("{PREPARES} {VERSION} {node}\n").as_bytes()).await.ok()?;
        Some(Self(BufReader::new(stream)))
    }

    /// Has it stop, and takes what it leaves.
    ///
    /// # Errors
    /// It does not answer, or leaves nothing that can be gone on from. It may have stopped nevertheless.
    pub async fn take_over(&mut self) -> Result<Inheritance, Error> {
        let answer = async {
            self.0.get_mut().write_all(format!("{GOES_ON}\n").as_bytes()).await?;
            let mut line = String::new();
            let mut limited = tokio::io::AsyncReadExt::take(&mut self.0, LONGEST);
            match limited.read_line(&mut line).await? {
                0 => Err(Error::Connection(io::ErrorKind::UnexpectedEof.into())),
                _ => Ok(line),
            }
        };
        let line = timeout(ANSWER, answer).await.map_err(|_| Error::Silent)??;
        let left: Inheritance = serde_json::from_str(&line)?;
        if left.version == VERSION { Ok(left) } else { Err(Error::Version(left.version)) }
    }
}

/// Where the next process comes in.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
    node: String,
}

impl Door {
    /// Opens it in the folder. A socket that is there already belongs to nobody any more.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn open(folder: &Path, node: &str) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(socket_of(node));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path, node: node.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until another process has gone on, and returns the connection that it keeps. `is_expected` tells
    /// whether one prepares.
    ///
    /// # Errors
    /// The thread of the mind has ended.
    pub async fn wait(
        self,
        lan: &LanThread,
        left: oneshot::Receiver<Box<Inheritance>>,
        is_expected: &watch::Sender<bool>,
    ) -> Result<UnixStream, Gone> {
        let mut stream = loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file descriptors, at worst: whoever comes then takes the long way.
                tokio::time::sleep(ANSWER).await;
                continue;
            };
            is_expected.send_replace(true);
            if let Some(stream) = wants_to_go_on(stream, &self.node).await {
                break stream;
            }
            is_expected.send_replace(false);
        };
        lan.send(Event::Cede).await?;
        let left = left.await.map_err(|_| Gone)?;
        match serde_json::to_string(&*left) {
            Ok(text) => {
                let written = stream.write_all(format!("{text}\n").as_bytes()).await;
                written.unwrap_or_else(|error| tracing::error!(%error, "nothing could be handed over"));
            }
            Err(error) => tracing::error!(%error, "nothing could be handed over"),
        }
        Ok(stream)
    }
}

/// The name of a node's socket: as short as the path of one must be, whatever the node is called (FNV-1a).
fn socket_of(node: &str) -> String {
    let hash = node
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("speaker-{hash:016x}.sock")
}

/// Reads what a process says that has come in, until it wants to go on or is gone.
async fn wants_to_go_on(stream: UnixStream, node: &str) -> Option<UnixStream> {
    let mut reader = BufReader::new(stream);
    let mut is_of_this_node = false;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            GOES_ON => return is_of_this_node.then(|| reader.into_inner()),
            line => {
                is_of_this_node = line.starts_with(PREPARES) && line.split(' ').nth(2) == Some(node);
                tracing::info!(is_of_this_node, "another process {line}");
            }
        }
    }
}

/// Waits until the process at the other end is gone.
pub async fn is_gone(stream: UnixStream) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while matches!(reader.read_line(&mut line).await, Ok(read) if read > 0) {
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::lan_thread::FromLan;
    use crate::metrics::Metrics;
    use crate::mind::{Config, Mind};

    #[tokio::test]
    async fn the_next_process_prepares_and_goes_on_where_the_present_one_stops() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Predecessor::find(folder.path(), "n1").await.is_none());
        let mind = Mind::new(Config::new("n1".into(), 17));
        let (lan, mut said) = LanThread::start(mind, 0, Metrics::new().0).unwrap();
        lan.begin(None).await.unwrap();
        let door = Door::open(folder.path(), "n1").unwrap();
        let (leave, left) = oneshot::channel();
        let (expected, mut is_expected) = watch::channel(false);
        let waiting = tokio::spawn({
            let lan = lan.clone();
            async move { door.wait(&lan, left, &expected).await.unwrap() }
        });

        assert!(Predecessor::find(folder.path(), "n2").await.is_none(), "another node's");
        let idle = Predecessor::find(folder.path(), "n1").await.unwrap();
        is_expected.wait_for(|expected| *expected).await.unwrap();
        drop(idle);
        is_expected.wait_for(|expected| !expected).await.unwrap();

        let mut next = Predecessor::find(folder.path(), "n1").await.unwrap();
        is_expected.wait_for(|expected| *expected).await.unwrap();
        let telling = tokio::spawn(async move {
            loop {
                if let FromLan::Ceded(left) = said.recv().await.unwrap() {
                    return leave.send(left).unwrap();
                }
            }
        });
        let left = next.take_over().await.unwrap();
        assert_eq!((left.version, left.instance), (VERSION, 17));
        telling.await.unwrap();
        let connection = waiting.await.unwrap();
        let gone = tokio::spawn(is_gone(connection));
        drop(next);
        gone.await.unwrap();
        // A socket that is left behind is nobody's.
        assert!(Predecessor::find(folder.path(), "n1").await.is_none());
        assert!(Door::open(folder.path(), "n1").unwrap().path().exists());
    }
}
