//! A database outside the cluster: Redis of the host's distribution on a host of the LAN.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::lab::{LanClient, Namespace, Process, eventually, seconds};

/// The port that Redis listens on.
pub const PORT: u16 = 6379;
/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(1);

/// A running Redis that knows its own name.
#[derive(Debug)]
pub struct Database {
    process: Process,
}

impl Database {
    /// Starts it on a host, and tells it its name.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer within 10 s.
    pub async fn start(host: &LanClient, name: &str) -> Result<Self> {
        let mut command = host.namespace().command("redis-server");
        command.args([
            "--port",
            &PORT.to_string(),
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--dir", "/tmp", "--bind", "0.0.0.0", "::"]);
        let process = Process::start(&format!("redis-{name}"), command)?;
        let at = SocketAddr::from((host.addresses().v4, PORT));
        let (namespace, set) = (host.namespace().clone(), format!("SET who {name}"));
        let what = format!("database {name} answers");
        eventually(seconds(10), &what, async || tell(&namespace, at, &set)).await?;
        Ok(Self { process })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        self.process.kill()
    }
}

/// Asks a database on a new connection from within a namespace for its name.
///
/// # Errors
/// When it does not answer within a second.
pub fn who(from: &Namespace, at: SocketAddr) -> Result<String> {
    tell(from, at, "GET who")
}

fn tell(from: &Namespace, at: SocketAddr, words: &str) -> Result<String> {
    let words = words.to_owned();
    from.on_thread(move || ask(at, &words))
}

/// One command on a new connection, and what the answer says.
///
/// # Errors
/// When there is none within a second.
pub fn ask(at: SocketAddr, words: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, LIMIT).with_context(|| format!("connecting to {at}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("{words}\r\n").as_bytes())?;
    let (mut buffer, until) = (Vec::new(), Instant::now() + LIMIT);
    while Instant::now() < until {
        let mut some = [0; 256];
        let length = stream.read(&mut some)?;
        buffer.extend(some.get(..length).unwrap_or_default());
        let text = String::from_utf8_lossy(&buffer);
        let mut lines = text.split_inclusive("\r\n").filter(|line| line.ends_with("\r\n")).map(str::trim_end);
        // `+OK`, or the length of a text and the text (RESP).
        match lines.next() {
            Some(line) if line.starts_with('+') => return Ok(line.to_owned()),
            Some(line) if line.starts_with('$') => {
                if let Some(word) = lines.next() {
                    return Ok(word.to_owned());
                }
            }
            Some(line) => bail!("the database says {line}"),
            None if length == 0 => break,
            None => {}
        }
    }
    bail!("the database says nothing")
}
