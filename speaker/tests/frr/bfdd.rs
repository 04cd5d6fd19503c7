//! FRR's end: its `zebra` (which tells `bfdd` of links) and `bfdd`, in a folder of their own.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use landfall_speaker::wire::bfd::Diagnostic;
use serde::Deserialize;
use tempfile::TempDir;

use crate::wire::{LIMIT, Wire};

/// Starts both, passes on to `bfdd` the signals whose names come in, and at the word `start` starts it anew
/// once it has ended. It is the first process of a
/// namespace of processes: when it ends, as it does at the end of its input, the kernel ends what it has
/// started. Crash logs and the like land on a `/var/tmp` that nobody else sees.
const SUPERVISOR: &str = r#"
set -e
mount -t tmpfs none /var/tmp
chown frr: "$1"
cd "$1"
common="-z $1/zserv.api --vty_socket $1 -P 0 --log-level debug"
/usr/lib/frr/zebra $common -f $1/zebra.conf -i $1/zebra.pid --log file:$1/zebra.log &
# Where bfdd finds no zebra it tries again ten seconds later.
tries=0
until [ -S "$1/zserv.api" ]; do tries=$((tries + 1)); [ $tries -lt 500 ]; sleep 0.01; done
start() {
  rm -f "$1/bfdd.pid" "$1/bfdd.sock" "$1/bfdd.vty"
  /usr/lib/frr/bfdd $common -f $1/bfdd.conf -i $1/bfdd.pid --log file:$1/bfdd.log --bfdctl $1/bfdd.sock &
  bfdd=$!
}
start "$1"
while read -r word; do
  case "$word" in
  start) wait "$bfdd" || true; start "$1" ;;
  *) kill -s "$word" "$bfdd" ;;
  esac
done
"#;

/// A session as FRR tells it. Intervals are in milliseconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Peer {
    peer: IpAddr,
    pub(crate) status: String,
    diagnostic: String,
    remote_diagnostic: String,
    pub(crate) receive_interval: u64,
    pub(crate) transmit_interval: u64,
    pub(crate) id: u32,
    pub(crate) remote_id: u32,
    pub(crate) remote_detect_multiplier: u64,
    pub(crate) remote_receive_interval: u64,
    pub(crate) remote_transmit_interval: u64,
}

impl Peer {
    /// Why FRR's session changed its state last.
    pub(crate) fn diagnostic(&self) -> Diagnostic {
        diagnostic(&self.diagnostic)
    }

    /// What FRR was told by us of the same.
    pub(crate) fn remote_diagnostic(&self) -> Diagnostic {
        diagnostic(&self.remote_diagnostic)
    }
}

/// What FRR has counted of a session.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Counters {
    peer: IpAddr,
    pub(crate) control_packet_input: u64,
    pub(crate) control_packet_output: u64,
    pub(crate) session_up: u64,
    pub(crate) session_down: u64,
}

/// A diagnostic in FRR's words.
fn diagnostic(text: &str) -> Diagnostic {
    match text {
        "ok" => Diagnostic::NoDiagnostic,
        "control detection time expired" => Diagnostic::ControlDetectionTimeExpired,
        "neighbor signaled session down" => Diagnostic::NeighborSignaledSessionDown,
        "administratively down" => Diagnostic::AdministrativelyDown,
        other => panic!("FRR tells of a diagnostic that no story has: {other}"),
    }
}

/// Both daemons. They end when this is dropped, and when the test's process ends.
pub(crate) struct Frr {
    folder: TempDir,
    supervisor: Child,
    signals: Option<ChildStdin>,
}

impl Frr {
    /// Starts them at the other end of the wire, with sessions to these addresses of ours from those of
    /// theirs, and waits until they can be asked.
    pub(crate) fn start(wire: &Wire, sessions: &[(IpAddr, IpAddr)], lines: &[&str]) -> Self {
        for program in ["/usr/lib/frr/bfdd", "/usr/lib/frr/zebra", "/usr/bin/vtysh"] {
            assert!(std::path::Path::new(program).exists(), "{program} is missing: see tests/install.sh");
        }
        let folder = TempDir::new().unwrap();
        let mut config = String::from("debug bfd peer\ndebug bfd network\nbfd\n");
        for (ours, theirs) in sessions {
            config += &format!(" {}\n", peer_line(*ours, *theirs));
            config.extend(lines.iter().map(|line| format!("  {line}\n")));
        }
        for (name, content) in [("bfdd.conf", config.as_str()), ("zebra.conf", ""), ("vtysh.conf", "")] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let errors = std::fs::File::create(folder.path().join("errors")).unwrap();
        wire.theirs.enter();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", SUPERVISOR, "frr"]);
        command.arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
        let mut supervisor = command.spawn().unwrap();
        wire.ours.enter();
        let signals = supervisor.stdin.take();
        let frr = Self { folder, supervisor, signals };
        let start = Instant::now();
        while frr.show::<Peer>("show bfd peers json").is_none_or(|peers| peers.len() < sessions.len()) {
            assert!(start.elapsed() < LIMIT, "bfdd does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        frr
    }

    /// Sends `bfdd` a signal: `STOP`, `CONT`, `KILL`.
    pub(crate) fn signal(&mut self, name: &str) {
        writeln!(self.signals.as_mut().unwrap(), "{name}").unwrap();
    }

    /// Starts `bfdd` anew, which has been killed. Nothing that was configured meanwhile is kept.
    pub(crate) fn start_again(&mut self) {
        writeln!(self.signals.as_mut().unwrap(), "start").unwrap();
    }

    /// Changes the configuration of a session.
    pub(crate) fn configure(&self, session: (IpAddr, IpAddr), lines: &[&str]) {
        let peer = peer_line(session.0, session.1);
        let mut commands = vec!["configure terminal", "bfd", &peer];
        commands.extend(lines);
        let said = self.vtysh(&commands).unwrap_or_else(|| panic!("bfdd refuses {commands:?}"));
        assert_eq!(said, "", "bfdd is not content with {commands:?}");
    }

    /// The session with this address of ours.
    pub(crate) fn peer(&self, ours: IpAddr) -> Peer {
        self.find_peer(ours).unwrap()
    }

    fn find_peer(&self, ours: IpAddr) -> Option<Peer> {
        let peers = self.show::<Peer>("show bfd peers json")?;
        peers.into_iter().find(|peer| peer.peer == ours)
    }

    /// What is counted of it.
    pub(crate) fn counters(&self, ours: IpAddr) -> Counters {
        let peers = self.show::<Counters>("show bfd peers counters json").unwrap();
        peers.into_iter().find(|peer| peer.peer == ours).unwrap()
    }

    /// Waits until FRR tells this of the session.
    pub(crate) fn until(&self, ours: IpAddr, what: &str, is_it: impl Fn(&Peer) -> bool) -> Peer {
        let start = Instant::now();
        loop {
            let peer = self.find_peer(ours);
            if let Some(peer) = peer.as_ref().filter(|peer| is_it(peer)) {
                eprintln!("FRR with {ours}: {what} after {:?}", start.elapsed());
                return peer.clone();
            }
            assert!(start.elapsed() < LIMIT, "FRR with {ours}: not {what}: {peer:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn show<T: for<'de> Deserialize<'de>>(&self, command: &str) -> Option<Vec<T>> {
        serde_json::from_str(&self.vtysh(&[command])?).ok()
    }

    /// What `bfdd` answers; nothing where it does not, or fails.
    fn vtysh(&self, commands: &[&str]) -> Option<String> {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "5", "vtysh", "-d", "bfdd", "--vty_socket"]).arg(self.folder.path());
        command.arg("--config_dir").arg(self.folder.path());
        command.args(commands.iter().flat_map(|line| ["-c", line])).stdin(Stdio::null());
        let output = command.output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
}

/// The line that names a session.
fn peer_line(ours: IpAddr, theirs: IpAddr) -> String {
    format!("peer {ours} local-address {theirs} interface lan1")
}

impl Drop for Frr {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["errors", "bfdd.log"] {
                let text = std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
                eprintln!("FRR's {name}:\n{text}");
            }
        }
        self.signals = None;
        let start = Instant::now();
        while matches!(self.supervisor.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(2) {
                // The kernel ends the rest.
                let _ = self.supervisor.kill();
            }
            if start.elapsed() > LIMIT {
                eprintln!("FRR's daemons do not end");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
