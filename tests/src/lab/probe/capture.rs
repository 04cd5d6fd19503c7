//! All ARP and neighbour discovery that comes in on the switch's ports, with the kernel's times.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use socket2::{SockFilter, Socket};

use super::{
    arrival::{receive, stamp, wait, widen},
    frames::{Said, read},
    sys::{ETHERTYPE_ALL, go_first, ignore_outgoing, packet_socket},
};
use crate::lab::{Switch, plan::Mac, switch::host_of_port};

/// A capture that is going on.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    capturing: JoinHandle<Result<Vec<Seen>>>,
}

/// A frame that came in on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// The host on the port: `n1`. A second LAN's port reads `n1@2`.
    pub host: String,
    /// The MAC address that the frame names as its sender.
    pub sender: Mac,
    /// What it says.
    pub said: Said,
}

impl Seen {
    /// The MAC address that it tells for `address`, if it does.
    pub fn tells(&self, address: IpAddr) -> Option<Mac> {
        match self.said {
            Said::Tells { address: told, mac, .. } if told == address => Some(mac),
            _ => None,
        }
    }
}

impl Capture {
    /// Ends the capture and returns what it saw, in order.
    ///
    /// # Errors
    /// When nothing could be captured.
    pub fn finish(self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = self.capturing.join().map_err(|_| anyhow!("the capture panicked"))??;
        seen.sort_by_key(|seen| seen.at);
        Ok(seen)
    }
}

impl Switch {
    /// Starts to capture the ARP and neighbour discovery that hosts send into their ports. What the switch itself
    /// sends, and what leaves it again on other ports, is not captured.
    ///
    /// # Errors
    /// When there can be no packet socket.
    pub fn capture(&self) -> Result<Capture> {
        self.capture_of(None)
    }

    /// As [`Switch::capture`], only of ARP in which this IPv4 address is the sender's or the target's.
    ///
    /// # Errors
    /// When there can be no packet socket.
    pub fn capture_of(&self, only: Option<std::net::Ipv4Addr>) -> Result<Capture> {
        let socket = packet_socket(0, ETHERTYPE_ALL).context("a packet socket")?;
        socket.attach_filter(&only.map_or_else(all, of))?;
        ignore_outgoing(&socket)?;
        stamp(&socket)?;
        widen(&socket, 16 << 20);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let capturing = std::thread::spawn(move || capture(&socket, &stopped));
        Ok(Capture { stop, capturing })
    }
}

fn capture(socket: &Socket, stop: &AtomicBool) -> Result<Vec<Seen>> {
    let _as_the_kernel_grants = go_first();
    let hosts: BTreeMap<usize, String> = nix::net::if_::if_nameindex()?
        .iter()
        .filter_map(|interface| {
            let host = host_of_port(interface.name().to_str().ok()?)?;
            Some((usize::try_from(interface.index()).ok()?, host))
        })
        .collect();
    let mut seen = Vec::new();
    let mut frame = [0; 2048];
    loop {
        let Some(arrival) = receive(socket, &mut frame)? else {
            // Only once it has read all that was there when it was told to end.
            if stop.load(Ordering::Relaxed) {
                return Ok(seen);
            }
            wait(&[socket.as_fd()], Instant::now() + Duration::from_millis(20));
            continue;
        };
        let frame = frame.get(..arrival.length).unwrap_or_default();
        let Some(host) = hosts.get(&arrival.interface) else { continue };
        let sender = frame.get(6..12).and_then(|bytes| bytes.try_into().ok()).map(Mac);
        if let (Some(said), Some(sender)) = (read(frame), sender) {
            seen.push(Seen { at: arrival.at, host: host.clone(), sender, said });
        }
    }
}

// Classic BPF (Documentation/networking/filter.rst): load from the frame, compare and jump, return.
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const WHOLE: SockFilter = SockFilter::new(RETURN, 0, 0, 0xffff);
const NONE: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

fn all() -> Vec<SockFilter> {
    vec![
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 6, 0, 0x0806),
        SockFilter::new(JUMP_EQUAL, 0, 6, 0x86dd),
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_EQUAL, 0, 4, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(JUMP_EQUAL, 1, 0, 135),
        SockFilter::new(JUMP_EQUAL, 0, 1, 136),
        WHOLE,
        NONE,
    ]
}

fn of(address: std::net::Ipv4Addr) -> Vec<SockFilter> {
    let address = u32::from(address);
    vec![
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 5, 0x0806),
        SockFilter::new(LOAD_WORD, 0, 0, 28),
        SockFilter::new(JUMP_EQUAL, 2, 0, address),
        SockFilter::new(LOAD_WORD, 0, 0, 38),
        SockFilter::new(JUMP_EQUAL, 0, 1, address),
        WHOLE,
        NONE,
    ]
}
