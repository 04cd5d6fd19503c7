//! A DNS server with a script, for what an answer says to change in front of who asks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result};

/// Question types (RFC 1035 section 3.2.2, RFC 3596).
const A: u16 = 1;
const AAAA: u16 = 28;
/// How long the header of a message is (RFC 1035 section 4.1.1).
const HEADER: usize = 12;

/// What is said of a name, and how often it was asked for.
#[derive(Debug, Default)]
struct Zone {
    names: BTreeMap<String, (u32, Vec<IpAddr>)>,
    is_silent: bool,
    asked: BTreeMap<String, usize>,
}

/// A server in the lab's own namespace, at the LAN's gateway. Names that it knows nothing of do not exist.
#[derive(Clone, Debug)]
pub struct DnsServer {
    zone: Arc<Mutex<Zone>>,
}

impl DnsServer {
    /// Begins to answer over UDP at an address.
    ///
    /// # Errors
    /// When nobody can listen there.
    pub fn start(at: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind(at).with_context(|| format!("listening on {at}"))?;
        let zone = Arc::new(Mutex::new(Zone::default()));
        let of_thread = Arc::clone(&zone);
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let question = buffer.get(..length).unwrap_or_default();
                let answer = answer(&mut lock(&of_thread), question);
                let _lost = answer.map(|answer| socket.send_to(&answer, from));
            }
        });
        Ok(Self { zone })
    }

    /// From now on a name has these addresses, for so many seconds.
    pub fn has(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        lock(&self.zone).names.insert(name.to_owned(), (ttl, addresses.to_vec()));
    }

    /// From now on there is no such name.
    pub fn lacks(&self, name: &str) {
        lock(&self.zone).names.remove(name);
    }

    /// Whether it leaves questions without an answer, as one does that is dead.
    pub fn is_silent(&self, is_silent: bool) {
        lock(&self.zone).is_silent = is_silent;
    }

    /// How many questions there were for a name.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.zone).asked.get(name).copied().unwrap_or(0)
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer to a message of one question.
fn answer(zone: &mut Zone, message: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = message.split_at_checked(HEADER)?;
    let (name, end) = read_name(rest)?;
    let kind = u16::from_be_bytes(rest.get(end..end + 2)?.try_into().ok()?);
    *zone.asked.entry(name.clone()).or_default() += 1;
    if zone.is_silent {
        return None;
    }
    let known = zone.names.get(&name);
    let of_kind = |address: &&IpAddr| matches!((kind, address), (A, IpAddr::V4(_)) | (AAAA, IpAddr::V6(_)));
    let addresses: Vec<&IpAddr> = known.iter().flat_map(|(_, all)| all).filter(of_kind).collect();
    // A response, recursion desired and available; NXDOMAIN where there is no such name.
    let code = if known.is_some() { 0 } else { 3 };
    let mut answer = header.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(rest.get(..end + 4)?);
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        // The name stands in the question, right behind the header.
        answer.extend([0xc0, u8::try_from(HEADER).ok()?]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(known.map_or(0, |(ttl, _)| *ttl).to_be_bytes());
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

/// The name at the beginning, and where it ends.
fn read_name(bytes: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(bytes.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}
