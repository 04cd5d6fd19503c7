//! The thread that owns the filter and its sockets to the kernel.
//!
//! The kernel may need a second for a large change, and whoever asks waits for it; so nothing else is done
//! here, and nobody waits for this thread: what it is told queues up, and what it has to say leaves through
//! queues without end.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use landfall_crds::Protocol;
use tokio::sync::mpsc;

use super::nftables::Nftables;
use crate::filter::frontend::{Port, ServiceName};
use crate::filter::program::{LONGEST_PING, PINGS, REFUSALS};
use crate::filter::{Action, Event, Filter, Health, Notice, Refused, Traffic, TrafficOf};
use crate::metrics::Metrics;
use crate::metrics::filter::{TrafficLabels, Verdict};
use crate::sys::netfilter::{IpSender, LogSocket};
use crate::sys::{Descriptors, Waker, wait};
use crate::wire::echo::{self, IpPacket};

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// When the socket to which the kernel tells of packets is tried again, if it could not be opened.
const RETRY: Duration = Duration::from_secs(2);
/// So much of a refused packet is enough to know who sent it where.
const HEADERS: u32 = 128;

/// What the thread says.
#[derive(Debug)]
pub enum FromFilter {
    /// What addresses are guarded by, if by anything.
    Guarded(Vec<Guarded>),
    /// How it fares.
    Health(Health),
    /// Its table vanished; it is being made again.
    Vanished,
    /// Somebody begins to be refused.
    Notice(Notice),
}

/// What an address is guarded by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The address.
    pub address: IpAddr,
    /// The guards that the kernel enforces there, as the address asks for them; nothing where it does not.
    pub by: Option<Arc<str>>,
    /// Who is let in, in words.
    pub words: Option<String>,
}

/// The thread, as the other drivers hold it.
#[derive(Clone, Debug)]
pub struct FilterThread {
    events: std_mpsc::Sender<Event>,
    waker: Waker,
}

impl FilterThread {
    /// Starts the thread, in the network namespace of the calling one. It ends when all clones of the handle are
    /// dropped; the kernel's table stays.
    ///
    /// # Errors
    /// The kernel has no thread or no file descriptor left.
    pub fn start(metrics: Metrics) -> std::io::Result<(Self, mpsc::UnboundedReceiver<FromFilter>)> {
        Self::start_with(Nftables::new(metrics.clone()), metrics)
    }

    /// As [`Self::start`], with a way to the kernel's tables.
    ///
    /// # Errors
    /// The kernel has no thread or no file descriptor left.
    pub fn start_with(
        kernel: Nftables,
        metrics: Metrics,
    ) -> std::io::Result<(Self, mpsc::UnboundedReceiver<FromFilter>)> {
        let (events, inbox) = std_mpsc::channel();
        let (outbox, said) = mpsc::unbounded_channel();
        let waker = Waker::new()?;
        let turning = Turning {
            filter: Filter::new(),
            kernel,
            log: None,
            log_retry: Some(Instant::now()),
            sender: None,
            inbox,
            waker: waker.clone(),
            outbox,
            metrics,
            series: BTreeSet::new(),
        };
        std::thread::Builder::new().name("filter".into()).spawn(move || turning.run())?;
        Ok((Self { events, waker }, said))
    }

    /// Tells the filter something. Never waits.
    pub fn tell(&self, event: Event) {
        // Its receiver lives as long as the process, save at the very end.
        let _ = self.events.send(event);
        self.waker.wake();
    }
}

/// What the thread owns.
struct Turning {
    filter: Filter,
    kernel: Nftables,
    log: Option<LogSocket>,
    log_retry: Option<Instant>,
    sender: Option<IpSender>,
    inbox: std_mpsc::Receiver<Event>,
    waker: Waker,
    outbox: mpsc::UnboundedSender<FromFilter>,
    metrics: Metrics,
    /// What the metrics tell of.
    series: BTreeSet<TrafficOf>,
}

impl Turning {
    fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            let deadlines = [self.filter.next_deadline(), self.log_retry, Some(now + LONGEST_WAIT)];
            let deadline = deadlines.into_iter().flatten().min().unwrap_or(now);
            let mut fds = Descriptors::from_iter([self.waker.as_fd()]);
            fds.extend(self.log.iter().map(AsFd::as_fd));
            if let Err(error) = wait(&fds, deadline.saturating_duration_since(now), &mut ready) {
                tracing::error!(%error, "cannot wait for the packet filter");
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(fds);
            self.waker.clear();
            loop {
                match self.inbox.try_recv() {
                    Ok(event) => self.handle(event),
                    Err(std_mpsc::TryRecvError::Empty) => break,
                    Err(std_mpsc::TryRecvError::Disconnected) => return,
                }
            }
            if ready.contains(&1) {
                self.read_log();
            }
            let now = Instant::now();
            if self.log_retry.is_some_and(|at| at <= now) {
                self.open_log(now);
            }
            if self.filter.next_deadline().is_some_and(|at| at <= now) {
                self.handle(Event::Deadline);
            }
        }
    }

    fn open_log(&mut self, now: Instant) {
        match LogSocket::open(&[(PINGS, LONGEST_PING), (REFUSALS, HEADERS)]) {
            Ok(log) => (self.log, self.log_retry) = (Some(log), None),
            Err(error) => {
                tracing::debug!(%error, "the kernel does not tell of packets; trying again");
                self.log_retry = Some(now + RETRY);
            }
        }
    }

    fn read_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        let mut events = Vec::new();
        loop {
            let take = |group: u16, packet: &[u8]| {
                let Ok(parsed) = IpPacket::new_checked(packet) else { return };
                events.push(match group {
                    PINGS => Event::Ping(parsed.destination, packet.to_vec()),
                    _ => Event::Refused(refused(&parsed)),
                });
            };
            match log.receive(take) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // Something was lost, which costs an answer or a notice.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => {
                    tracing::warn!(%error, "the kernel tells of packets no more; trying again");
                    (self.log, self.log_retry) = (None, Some(Instant::now() + RETRY));
                    break;
                }
            }
        }
        for event in events {
            self.handle(event);
        }
    }

    /// Hands the mind an event, does what follows, and hands it what came of that.
    fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut actions = Vec::new();
        while let Some(event) = events.pop_front() {
            self.filter.handle(Instant::now(), event, &mut actions);
            for action in actions.drain(..) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Dump => return Some(self.kernel.dump()),
            Action::Commit(transaction) => return Some(self.kernel.commit(&transaction)),
            Action::Look => return Some(self.kernel.look()),
            Action::Count { stale } => {
                self.prune();
                return self.kernel.count(&stale);
            }
            Action::Guarded(guarded) => {
                let guarded = guarded.into_iter().map(|(address, by)| Guarded {
                    address,
                    words: by.as_ref().and(self.filter.explain(address)).map(|words| words.to_string()),
                    by,
                });
                self.say(FromFilter::Guarded(guarded.collect()));
            }
            Action::Health(health) => {
                self.metrics.filter.ready.set(health.missing.is_none().into());
                self.say(FromFilter::Health(health));
            }
            Action::Vanished => {
                self.metrics.filter.vanished.inc();
                self.say(FromFilter::Vanished);
            }
            Action::Notice(notice) => self.say(FromFilter::Notice(notice)),
            Action::Traffic(traffic) => traffic.into_iter().for_each(|traffic| self.count(traffic)),
            Action::AnswerPing(packet) => self.answer_ping(&packet),
        }
        None
    }

    fn say(&self, what: FromFilter) {
        // Its receiver lives as long as the process, save at the very end.
        let _ = self.outbox.send(what);
    }

    fn count(&mut self, Traffic { of, packets, bytes }: Traffic) {
        let labels = labels(&of);
        self.metrics.filter.packets.get_or_create(&labels).inc_by(packets);
        self.metrics.filter.bytes.get_or_create(&labels).inc_by(bytes);
        self.series.insert(of);
    }

    /// Has the metrics tell no more of what is gone: they are as many as there are addresses with traffic.
    fn prune(&mut self) {
        let wanted = self.filter.wanted();
        let is_there = |of: &TrafficOf| match (of.address, &of.service) {
            (Some(address), _) => wanted.frontend(address).is_some(),
            (None, Some(service)) => wanted.guard(service).is_some(),
            (None, None) => false,
        };
        let gone: Vec<_> = self.series.iter().filter(|of| !is_there(of)).cloned().collect();
        for of in gone {
            self.metrics.filter.packets.remove(&labels(&of));
            self.metrics.filter.bytes.remove(&labels(&of));
            self.series.remove(&of);
        }
    }

    fn answer_ping(&mut self, packet: &[u8]) {
        let (to, answer) = match echo::answer(packet) {
            Ok(answer) => answer,
            Err(error) => return tracing::debug!(%error, "a ping is not answered"),
        };
        if self.sender.is_none() {
            match IpSender::open() {
                Ok(sender) => self.sender = Some(sender),
                Err(error) => return tracing::debug!(%error, "pings cannot be answered"),
            }
        }
        let sent = self.sender.as_ref().map(|sender| sender.send(to, &answer));
        match sent {
            Some(Ok(())) => drop(self.metrics.filter.pings_answered.inc()),
            Some(Err(error)) => tracing::debug!(%error, %to, "the answer to a ping could not be sent"),
            None => {}
        }
    }
}

fn labels(of: &TrafficOf) -> TrafficLabels {
    let (namespace, service) = of.service.as_ref().map(ServiceName::parts).unwrap_or_default();
    TrafficLabels {
        address: of.address.map_or_else(|| "nodePort".to_owned(), |address| address.to_string()),
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        verdict: if of.let_in { Verdict::Allowed } else { Verdict::Refused },
    }
}

fn refused(packet: &IpPacket<'_>) -> Refused {
    let protocol = match i32::from(packet.protocol) {
        libc::IPPROTO_TCP => Some(Protocol::Tcp),
        libc::IPPROTO_UDP => Some(Protocol::Udp),
        libc::IPPROTO_SCTP => Some(Protocol::Sctp),
        _ => None,
    };
    let port = protocol.zip(packet.destination_port());
    Refused {
        source: packet.source,
        destination: packet.destination,
        port: port.map(|(protocol, number)| Port { protocol, number }),
    }
}
