//! A long download over one TCP connection.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use crate::lab::LanClient;

/// A line comes every 10 ms; a download that is silent for this long is over.
const PATIENCE: Duration = Duration::from_secs(20);

/// A download that is going on.
#[derive(Debug)]
pub struct Download {
    stop: Arc<AtomicBool>,
    downloading: JoinHandle<Result<Downloaded>>,
}

/// How a download went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// How many lines of 1,024 bytes came.
    pub lines: u64,
    /// The longest time in which none came.
    pub longest_stall: Duration,
    /// Why it ended before it was told to: the connection was reset or closed, a line was missing, or nothing came
    /// for 20 s.
    pub broken: Option<String>,
}

impl std::fmt::Display for Downloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lines downloaded, longest stall {:?}", self.lines, self.longest_stall)?;
        self.broken.iter().try_for_each(|why| write!(f, ", broken: {why}"))
    }
}

impl Download {
    /// Ends the download and returns how it went.
    ///
    /// # Errors
    /// When it never began.
    pub fn finish(self) -> Result<Downloaded> {
        self.stop.store(true, Ordering::Relaxed);
        self.downloading.join().map_err(|_| anyhow!("the download panicked"))?
    }
}

impl LanClient {
    /// Starts a download from a backend that ends when it is told to.
    pub fn download(&self, from: SocketAddr) -> Download {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let downloading = self.namespace().start_thread(move || download(from, &stopped));
        Download { stop, downloading }
    }
}

fn download(from: SocketAddr, stop: &AtomicBool) -> Result<Downloaded> {
    let mut stream = TcpStream::connect_timeout(&from, Duration::from_secs(5)).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /stream HTTP/1.1\r\nHost: landfall\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).context("awaiting the response")? > 2 {
        line.clear();
    }
    let mut downloaded = Downloaded { lines: 0, longest_stall: Duration::ZERO, broken: None };
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        line.clear();
        let read = reader.read_line(&mut line);
        downloaded.longest_stall = downloaded.longest_stall.max(last.elapsed());
        last = Instant::now();
        downloaded.broken = match read {
            Err(error) => Some(error.to_string()),
            Ok(0) => Some("the other side closed it".to_owned()),
            Ok(_) if line.trim_end().parse() != Ok(downloaded.lines) => {
                Some(format!("line {} reads {:?}", downloaded.lines, line.trim_start_matches('0')))
            }
            Ok(_) => None,
        };
        if downloaded.broken.is_some() {
            break;
        }
        downloaded.lines += 1;
    }
    Ok(downloaded)
}
