//! Calling the roll of many addresses, over and over: who answers for each, and for how long nobody does or two do.

use std::{
    collections::{BTreeMap, BTreeSet},
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

use super::{
    arrival::{receive, stamp, wait, widen},
    frames::{Said, question, read},
    sys::{ETHERTYPE_ALL, go_first, ignore_outgoing, packet_socket},
    watch::{Sighting, Sightings},
};
use crate::lab::{LanClient, plan::Mac};

/// How long after the last question an answer may come.
const PATIENCE: Duration = Duration::from_millis(200);

/// A roll call that is going on.
#[derive(Debug)]
pub struct RollCall {
    stop: Arc<AtomicBool>,
    calling: JoinHandle<Result<Roster>>,
}

/// What a roll call saw, for each address.
#[derive(Clone, Debug, Default)]
pub struct Roster(BTreeMap<IpAddr, Sightings>);

impl Roster {
    /// What was seen of each address.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Sightings)> {
        self.0.iter().map(|(address, seen)| (*address, seen))
    }

    /// What was seen of one address.
    pub fn of(&self, address: IpAddr) -> Option<&Sightings> {
        self.0.get(&address)
    }
}

impl RollCall {
    /// Ends the roll call and returns what it saw.
    ///
    /// # Errors
    /// When the client could not ask.
    pub fn finish(self) -> Result<Roster> {
        self.stop.store(true, Ordering::Relaxed);
        self.calling.join().map_err(|_| anyhow!("the roll call panicked"))?
    }
}

impl LanClient {
    /// Starts to ask the LAN who has each of these addresses, once every `interval`, spread over it.
    ///
    /// Answers also reach the client's own neighbour table, so measure traffic from another client.
    pub fn call_roll(&self, addresses: &[IpAddr], interval: Duration) -> RollCall {
        let own = *self.addresses();
        let (v4, v6) = (IpAddr::V4(own.v4), IpAddr::V6(own.v6));
        let asker = move |wanted: &IpAddr| if wanted.is_ipv4() { v4 } else { v6 };
        let questions: Vec<(IpAddr, Vec<u8>)> = addresses
            .iter()
            .filter_map(|wanted| Some((*wanted, question(own.mac(), asker(wanted), *wanted)?)))
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let port = self.interface();
        let calling =
            self.namespace().start_thread(move || call(port, own.mac(), &questions, interval, &stopped));
        RollCall { stop, calling }
    }

    /// Asks the LAN once who has each of these addresses, and returns everybody who answers within `limit`.
    ///
    /// # Errors
    /// When the client could not ask.
    pub fn who_has_each(
        &self,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<BTreeMap<IpAddr, BTreeSet<Mac>>> {
        let call = self.call_roll(addresses, limit);
        std::thread::sleep(limit.mul_f32(0.9));
        let roster = call.finish()?;
        Ok(roster
            .0
            .into_iter()
            .map(|(address, seen)| (address, seen.answerers().into_keys().collect()))
            .collect())
    }
}

fn call(
    port: &str,
    own: Mac,
    questions: &[(IpAddr, Vec<u8>)],
    interval: Duration,
    stop: &AtomicBool,
) -> Result<Roster> {
    let _as_the_kernel_grants = go_first();
    let interface = nix::net::if_::if_nametoindex(port).context(port.to_owned())?;
    let socket = packet_socket(interface, ETHERTYPE_ALL).context("a packet socket")?;
    ignore_outgoing(&socket)?;
    stamp(&socket)?;
    widen(&socket, 16 << 20);
    let mut roster = Roster(questions.iter().map(|(address, _)| (*address, Sightings::default())).collect());
    let pause = interval.checked_div(u32::try_from(questions.len())?).context("a roll call of nobody")?;
    let mut next = Instant::now();
    let listen = |roster: &mut Roster, until: Instant| -> Result<()> {
        let mut frame = [0; 2048];
        loop {
            while let Some(arrival) = receive(&socket, &mut frame)? {
                let said = frame.get(..arrival.length).and_then(read);
                let Some(Said::Tells { address, mac, .. }) = said.filter(|said| !is_by(said, own)) else {
                    continue;
                };
                if let Some(seen) = roster.0.get_mut(&address) {
                    seen.answers.push(Sighting { at: arrival.at, mac });
                }
            }
            if Instant::now() >= until {
                return Ok(());
            }
            wait(&[socket.as_fd()], until);
        }
    };
    for (wanted, question) in questions.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        listen(&mut roster, next)?;
        let at = Instant::now();
        // While the client's own port is dark nothing can be sent; that question simply has no answer.
        let _dark = socket.send(question);
        if let Some(seen) = roster.0.get_mut(wanted) {
            seen.questions.push(at);
        }
        next = (next + pause).max(at);
    }
    listen(&mut roster, Instant::now() + PATIENCE)?;
    Ok(roster)
}

fn is_by(said: &Said, own: Mac) -> bool {
    matches!(said, Said::Tells { mac, .. } if *mac == own)
}
