//! The file that lets a speaker restart while the API server is away.
//!
//! It is a copy of the [`Books`], written whole, aside and then renamed, so that it is never half a
//! file. Its first line tells the version, whose it is, and the SHA-256 of all that follows, so that a disk that
//! changes a bit is noticed. A term in it is a floor for the next claim; it makes nobody an owner.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::books::Books;
use super::state_format::{Header, Stored};
use crate::metrics::{Metrics, ResultLabels, WriteResult};

/// Raised when an older speaker could not make sense of the file any more.
const VERSION: u32 = 2;
/// Changes that come within this time of the first are written at once.
const SETTLE: Duration = Duration::from_secs(1);
/// A file larger than this is not ours: a hundred thousand addresses take less.
const LARGEST: u64 = 256 << 20;

/// The file of one node's speaker.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: PathBuf,
    node: String,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot read it: {0}")]
    Read(#[source] io::Error),
    #[error("cannot write it: {0}")]
    Write(#[source] io::Error),
    #[error("it is no state of a speaker: {0}")]
    NotOurs(#[source] serde_json::Error),
    #[error("it has version {0}, this speaker writes and reads version {VERSION}")]
    Version(u32),
    #[error("it is damaged: its checksum is wrong")]
    Damaged,
    #[error("it belongs to node {0}")]
    OtherNode(String),
    #[error("it is too large to be ours: {0} bytes")]
    TooLarge(u64),
}

impl StateFile {
    /// The file of `node`'s speaker in `folder`.
    pub fn new(folder: &Path, node: &str) -> Self {
        Self { folder: folder.to_owned(), node: node.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    /// What the speaker knew when it last ran; nothing where there is no file, or none that it can use.
    /// Such a file is moved aside and said.
    pub fn restore(&self) -> Option<Books> {
        let path = self.path();
        match self.read() {
            Ok(books) => {
                tracing::info!(path = %path.display(), vips = books.vips.len(), peers = books.peers.len(),
                    "read what this speaker knew when it last ran");
                Some(books)
            }
            Err(Error::Read(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let aside = path.with_extension("json.ignored");
                let moved = fs::rename(&path, &aside);
                tracing::warn!(path = %path.display(), %error, aside = %aside.display(), moved = moved.is_ok(),
                    "the state file is of no use; it is moved aside and the speaker starts without");
                None
            }
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// There is none, or it is not one that this node's speaker has written.
    pub fn read(&self) -> Result<Books, Error> {
        let path = self.path();
        let length = fs::metadata(&path).map_err(Error::Read)?.len();
        if length > LARGEST {
            return Err(Error::TooLarge(length));
        }
        self.parse(&fs::read(&path).map_err(Error::Read)?)
    }

    /// Reads what such a file holds.
    ///
    /// # Errors
    /// It is not what this node's speaker writes.
    pub fn parse(&self, bytes: &[u8]) -> Result<Books, Error> {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let (first, rest) = bytes.split_at(end);
        let header: Header = serde_json::from_slice(first).map_err(Error::NotOurs)?;
        if header.version != VERSION {
            return Err(Error::Version(header.version));
        }
        if header.node != self.node {
            return Err(Error::OtherNode(header.node));
        }
        if header.sha256 != checksum(rest) {
            return Err(Error::Damaged);
        }
        let stored: Stored = serde_json::from_slice(rest).map_err(Error::NotOurs)?;
        Ok(stored.into_books())
    }

    /// The text of the file for `books`.
    ///
    /// # Errors
    /// They cannot be put into words.
    pub fn text(&self, books: &Books) -> Result<Vec<u8>, Error> {
        let stored = Stored::of(books);
        let mut rest = b"\n".to_vec();
        serde_json::to_writer(&mut rest, &stored).map_err(|error| Error::Write(error.into()))?;
        let header = Header { version: VERSION, node: self.node.clone(), sha256: checksum(&rest) };
        let mut text = serde_json::to_vec(&header).map_err(|error| Error::Write(error.into()))?;
        text.append(&mut rest);
        Ok(text)
    }

    /// Replaces the file in one step; it is on the disk when this returns.
    fn replace(&self, text: &[u8]) -> Result<(), Error> {
        let aside = self.folder.join("state.json.new");
        let replace = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let mut options = File::options();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&aside, self.path())?;
            File::open(&self.folder)?.sync_all()
        };
        replace().map_err(Error::Write)
    }

    /// Keeps the file as the books are, for ever, until the books are closed.
    pub async fn keep(self, mut books: watch::Receiver<Books>, metrics: Metrics) {
        let mut written = fs::read(self.path()).unwrap_or_default();
        let mut failed = false;
        while books.changed().await.is_ok() {
            tokio::time::sleep(SETTLE).await;
            let text = self.text(&books.borrow_and_update());
            let result = match text {
                Ok(text) if text == written => continue,
                Ok(text) => {
                    // A slow disk must not hold the other drivers up.
                    let file = self.clone();
                    let task = tokio::task::spawn_blocking(move || file.replace(&text).map(|()| text));
                    task.await.unwrap_or_else(|panic| Err(Error::Write(io::Error::other(panic))))
                }
                Err(error) => Err(error),
            };
            let counted = if result.is_ok() { WriteResult::Done } else { WriteResult::Failed };
            metrics.state_writes.get_or_create(&ResultLabels { result: counted }).inc();
            match result {
                Ok(text) => (written, failed) = (text, false),
                Err(error) if failed => tracing::debug!(%error, "the state file still cannot be written"),
                Err(error) => {
                    failed = true;
                    tracing::warn!(path = %self.path().display(), %error,
                        "without a state file this speaker cannot restart while the API server is away");
                }
            }
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::frontend::{Claim, Frontend, Guard, Port, ServiceName};
    use crate::filter::sources::Sources;
    use crate::lan::{PeerInfo, PeerLink, Vip};
    use landfall_crds::{Fallback, Protocol};
    use std::net::IpAddr;
    use std::os::unix::fs::PermissionsExt;

    fn books() -> Books {
        let address: IpAddr = "fd00::50".parse().unwrap();
        let mut books = Books::default();
        books.write(Vip {
            address,
            claimed: true,
            epoch: 1_790_000_000_000,
            candidates: vec!["n1".into(), "n2".into()],
            interfaces: vec!["eth*".into()],
            fallback: Fallback::AnyOnSubnet,
            health_checks: Vec::new(),
            guard: Some("d2".into()),
            last_term: 12,
            announced_before: true,
        });
        let link = PeerLink {
            mac: "02:00:00:00:00:02".parse().unwrap(),
            subnets: vec!["192.168.10.0/24".parse().unwrap()],
            addresses: vec!["192.168.10.12".parse().unwrap(), "fd00::12".parse().unwrap()],
            address: Some("192.168.10.12".parse().unwrap()),
        };
        books.peers.insert("n2".into(), PeerInfo { node: "n2".into(), links: vec![link] });
        let service = ServiceName::new("shop", "web");
        let port = |number| Port { protocol: Protocol::Sctp, number };
        let claims = vec![
            Claim { service: service.clone(), guard: Some("d2".into()) },
            Claim { service: ServiceName::new("shop", "open"), guard: None },
        ];
        books.serve(address, Frontend::new(claims, [(port(80), service.clone())]));
        let guard = |digest: &str| Guard {
            uid: "u1".into(),
            digest: digest.into(),
            sources: Sources::parse(["10.0.0.0/9", "fd00::/8"]).unwrap(),
            ranges: vec!["10.0.0.0/9".into(), "fd00::/8".into()],
            node_ports: vec![port(30080)],
            ..Guard::default()
        };
        books.guard(service.clone(), guard("d1"));
        books.guard(service, guard("d2"));
        let closed = Guard { closed: Some("1001 ranges".into()), digest: "d3".into(), ..Guard::default() };
        books.guard(ServiceName::new("shop", "closed"), closed);
        books
    }

    #[test]
    fn a_file_from_before_there_were_guards_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), "n1");
        let mut books = books();
        books.frontends.values_mut().for_each(|frontend| *frontend = Default::default());
        books.vips.values_mut().for_each(|vip| vip.guard = None);
        books.guards.clear();
        let text = String::from_utf8(file.text(&books).unwrap()).unwrap();
        let (_, rest) = text.split_at(text.find('\n').unwrap());
        let older = rest.replace(",\"guards\":[]", "");
        assert_ne!(older, rest);
        let header = Header { version: VERSION, node: "n1".into(), sha256: checksum(older.as_bytes()) };
        fs::write(file.path(), serde_json::to_string(&header).unwrap() + &older).unwrap();
        assert_eq!(file.restore().unwrap(), books);
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(&folder.path().join("deep/er"), "n1");
        assert!(file.restore().is_none());
        file.replace(&file.text(&books()).unwrap()).unwrap();
        assert_eq!(file.restore().unwrap(), books());
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(file.path().parent().unwrap()).unwrap().count(),
            1,
            "nothing else lies there"
        );
    }

    #[test]
    fn a_file_of_no_use_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), "n1");
        let of_n2 = StateFile::new(folder.path(), "n2").text(&books()).unwrap();
        let newer = String::from_utf8(file.text(&books()).unwrap()).unwrap();
        let newer = newer.replace("\"version\":2", "\"version\":3");
        let mut damaged = file.text(&books()).unwrap();
        let digit = damaged.iter().rposition(u8::is_ascii_digit).unwrap();
        damaged[digit] ^= 1;
        for (text, sentence) in [
            (b"{".to_vec(), "no state of a speaker"),
            (b"[]".to_vec(), "no state of a speaker"),
            (vec![0xff, 0, 7], "no state of a speaker"),
            (Vec::new(), "no state of a speaker"),
            (of_n2, "belongs to node n2"),
            (newer.into_bytes(), "version 3"),
            (damaged, "checksum"),
        ] {
            fs::write(file.path(), &text).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
            assert!(file.restore().is_none());
            assert!(!file.path().exists());
            assert_eq!(fs::read(folder.path().join("state.json.ignored")).unwrap(), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_written_a_while_after_a_change_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), "n1");
        let (metrics, _) = Metrics::new();
        let (sender, receiver) = watch::channel(Books::default());
        let keeping = tokio::spawn(file.clone().keep(receiver, metrics.clone()));
        let done = || metrics.state_writes.get_or_create(&ResultLabels { result: WriteResult::Done }).get();
        sender.send_replace(books());
        while done() == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(file.read().unwrap(), books());
        sender.send_replace(books());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(done(), 1, "the same again is not written");
        drop(sender);
        keeping.await.unwrap();
    }
}
