//! The thread that owns the mind and all sockets on the LAN.
//!
//! It waits for the sockets, for events of the other drivers and for the mind's own deadline, and for
//! nothing else: no file, no lock, no API. What it has to say leaves through a queue that may be full;
//! then the whole picture follows as soon as there is room, so a slow reader costs detail, not truth.
//!
//! All sockets are drained before the deadline is looked at: a datagram that came in while the thread
//! was kept from running must not count as missing.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::picture::{Picture, Told};
use super::sockets::{Incoming, LONGEST, Problem, Sockets, Source};
use crate::lan::Link;
use crate::metrics::{Metrics, SchedulingLabels, Traffic, TrafficResult};
use crate::mind::{Action, Event, Letter, Mind};
use crate::succession::Inheritance;
use crate::sys::{Descriptors, Waker, scheduling, wait};

/// Events that may wait for the thread.
const EVENTS: usize = 1024;
/// Reports that may wait for their reader.
const REPORTS: usize = 4096;
/// Events that are handled before the sockets get their turn again.
const TURN: usize = 256;
/// The longest wait. The pulse is felt at least so often.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// When sockets that could not be opened are tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What the thread says.
#[derive(Debug)]
pub enum FromLan {
    /// The mind reports something.
    Told(Told),
    /// Reports were dropped; this is how things are.
    Resync(Box<Picture>),
    /// The sockets were opened, save those named.
    Sockets(Vec<Problem>),
    /// The mind has handed everything over.
    Left,
    /// All sockets are closed, and another process may go on from this.
    Ceded(Box<Inheritance>),
}

/// What the thread is told.
#[derive(Debug)]
enum ToLan {
    Event(Event),
    /// Forget what has come in so far, and tell when that is done.
    Drain(oneshot::Sender<()>),
    /// Speak, and go on where a former process stopped, if there was one.
    Begin(Option<Box<Inheritance>>),
}

/// The thread, as the other drivers hold it.
#[derive(Clone, Debug)]
pub struct LanThread {
    events: std_mpsc::SyncSender<ToLan>,
    waker: Waker,
    pulse: Arc<Pulse>,
}

/// Tells when the thread last turned.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    last: AtomicU64,
}

impl Pulse {
    fn beat(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.start).as_millis();
        self.last.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago the thread last turned.
    pub fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// The thread is gone; nothing can be done without it.
#[derive(Debug, thiserror::Error)]
#[error("the thread that serves the LAN has ended")]
pub struct Gone;

impl LanThread {
    /// Starts the thread, which opens sockets and sends nothing before [`Self::begin`]. It ends when all clones of
    /// the handle are dropped.
    ///
    /// # Errors
    /// The kernel has no thread or no file descriptor left.
    pub fn start(
        mind: Mind,
        port: u16,
        metrics: Metrics,
    ) -> std::io::Result<(Self, mpsc::Receiver<FromLan>)> {
        let (events, inbox) = std_mpsc::sync_channel(EVENTS);
        let (outbox, reports) = mpsc::channel(REPORTS);
        let waker = Waker::new()?;
        let now = Instant::now();
        let pulse = Arc::new(Pulse { start: now, last: AtomicU64::new(0) });
        let turning = Turning {
            mind,
            sockets: Sockets::new(port),
            links: Vec::new(),
            usable: None,
            has_begun: false,
            has_ceded: false,
            retry: None,
            inbox,
            waker: waker.clone(),
            pulse: Arc::clone(&pulse),
            outbox: Outbox { queue: outbox, picture: Picture::default(), lost: false, owed: VecDeque::new() },
            metrics,
            published: now,
            actions: Vec::new(),
            buffer: vec![0; LONGEST].into(),
        };
        std::thread::Builder::new().name("lan".into()).spawn(move || turning.run())?;
        Ok((Self { events, waker, pulse }, reports))
    }

    /// Gives the mind an event. Waits while too many are waiting already.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn send(&self, event: Event) -> Result<(), Gone> {
        self.tell(ToLan::Event(event)).await
    }

    /// Forgets what has come in before the thread speaks: another process has answered it.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn drain(&self) -> Result<(), Gone> {
        let (tell, told) = oneshot::channel();
        self.tell(ToLan::Drain(tell)).await?;
        told.await.map_err(|_| Gone)
    }

    /// Has the thread speak from now on, and go on where a former process of this node stopped, if there was one.
    /// The mind is to know of peers and addresses by then.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn begin(&self, left: Option<Box<Inheritance>>) -> Result<(), Gone> {
        self.tell(ToLan::Begin(left)).await
    }

    async fn tell(&self, mut event: ToLan) -> Result<(), Gone> {
        loop {
            match self.events.try_send(event) {
                Ok(()) => {
                    self.waker.wake();
                    return Ok(());
                }
                Err(std_mpsc::TrySendError::Full(back)) => {
                    event = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(std_mpsc::TrySendError::Disconnected(_)) => return Err(Gone),
            }
        }
    }

    /// When the thread last turned.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }
}

/// What the thread owns.
struct Turning {
    mind: Mind,
    sockets: Sockets,
    links: Vec<Link>,
    /// The links that the mind knows of: those that can be used.
    usable: Option<Vec<Link>>,
    /// Before that, links are only got ready.
    has_begun: bool,
    /// Another process of this node speaks.
    has_ceded: bool,
    retry: Option<Instant>,
    inbox: std_mpsc::Receiver<ToLan>,
    waker: Waker,
    pulse: Arc<Pulse>,
    outbox: Outbox,
    metrics: Metrics,
    published: Instant,
    actions: Vec<Action>,
    /// Where what comes in is read to.
    buffer: Box<[u8]>,
}

/// The way out, which never blocks.
struct Outbox {
    queue: mpsc::Sender<FromLan>,
    picture: Picture,
    lost: bool,
    owed: VecDeque<FromLan>,
}

impl Turning {
    fn run(mut self) {
        // Deadlines are kept to the microsecond where the kernel lets us (PR_SET_TIMERSLACK).
        let _ = nix::sys::prctl::set_timerslack(1);
        let scheduling = scheduling::prefer_this_thread();
        tracing::info!(?scheduling, "the thread that serves the LAN runs");
        let labels = SchedulingLabels { scheduling: format!("{scheduling:?}") };
        self.metrics.scheduling.get_or_create(&labels).set(1);
        let mut ready = Vec::new();
        let mut sources = Vec::new();
        loop {
            let now = Instant::now();
            self.pulse.beat(now);
            self.wait(now, &mut sources, &mut ready);
            let woken = ready.first() == Some(&0);
            if woken {
                self.waker.clear();
            }
            for at in ready.iter().filter_map(|at| at.checked_sub(1)) {
                if let Some(source) = sources.get(at) {
                    self.read(*source, now);
                }
            }
            if woken && !self.take_events() {
                return;
            }
            let now = Instant::now();
            if self.mind.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.handle(now, Event::Deadline);
            }
            if self.retry.is_some_and(|retry| retry <= now) {
                self.open_sockets(now);
            }
            self.outbox.catch_up();
            if now.saturating_duration_since(self.published) >= LONGEST_WAIT {
                self.published = now;
                self.metrics.mind.publish(self.mind.counters());
                self.metrics.groups.set(self.sockets.groups().try_into().unwrap_or(i64::MAX));
            }
        }
    }

    /// Waits for something to do. `ready` then holds 0 for the waker and n + 1 for `sources[n]`.
    fn wait(&mut self, now: Instant, sources: &mut Vec<Source>, ready: &mut Vec<usize>) {
        let deadlines = [self.mind.next_deadline(), self.retry, Some(now + LONGEST_WAIT)];
        let deadline = deadlines.into_iter().flatten().min().unwrap_or(now);
        sources.clear();
        let mut fds = Descriptors::from_iter([self.waker.as_fd()]);
        if self.has_begun {
            self.sockets.wait_for(&mut fds, sources);
        }
        if let Err(error) = wait(&fds, deadline.saturating_duration_since(now), ready) {
            tracing::error!(%error, "cannot wait for the LAN");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Hands the mind what waits on a socket. Nothing is allocated for it.
    fn read(&mut self, source: Source, since: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut actions = std::mem::take(&mut self.actions);
        for _ in 0..source.turn() {
            let incoming = self.sockets.receive(source, since, &mut buffer);
            let now = Instant::now();
            match incoming {
                Incoming::Frame(link, at, length) => {
                    self.metrics.count_traffic(Traffic::Frame, TrafficResult::Received);
                    let frame = buffer.get(..length).unwrap_or_default();
                    self.mind.hear_frame(now, (link, at), frame, &mut actions);
                }
                Incoming::Datagram { link, at, from, ttl, length } => {
                    self.metrics.count_traffic(Traffic::Datagram, TrafficResult::Received);
                    let payload = buffer.get(..length).unwrap_or_default();
                    let letter = Letter { link, at, from, ttl, payload };
                    self.mind.hear_datagram(now, letter, &mut actions);
                }
                Incoming::NobodyListens(link, to) => {
                    self.mind.handle(now, Event::NobodyListens { link, to }, &mut actions);
                }
                Incoming::Other => continue,
                Incoming::Nothing => break,
            }
            for action in actions.drain(..) {
                self.perform(now, action);
            }
        }
        (self.buffer, self.actions) = (buffer, actions);
    }

    /// Hands the mind what the other drivers sent. False where they are all gone.
    fn take_events(&mut self) -> bool {
        for _ in 0..TURN {
            match self.inbox.try_recv() {
                Ok(event) => {
                    let now = Instant::now();
                    match event {
                        ToLan::Event(Event::Links(links)) => {
                            self.links = links;
                            self.open_sockets(now);
                        }
                        ToLan::Event(event) => {
                            self.look_at(&event);
                            self.handle(now, event);
                        }
                        ToLan::Drain(done) => {
                            self.sockets.drain(&mut self.buffer);
                            // Whoever has asked may have ended meanwhile.
                            let _ = done.send(());
                        }
                        ToLan::Begin(left) => self.begin(now, left),
                    }
                }
                Err(std_mpsc::TryRecvError::Empty) => return true,
                Err(std_mpsc::TryRecvError::Disconnected) => return false,
            }
        }
        self.waker.wake();
        true
    }

    fn begin(&mut self, now: Instant, left: Option<Box<Inheritance>>) {
        self.has_begun = true;
        if let Some(left) = left {
            self.handle(now, Event::Inherit(left));
        }
        self.open_sockets(now);
    }

    /// What this thread itself learns from an event.
    fn look_at(&mut self, event: &Event) {
        match event {
            Event::Vips(vips) => {
                self.outbox.picture.keep(&vips.iter().map(|vip| vip.address).collect());
            }
            Event::VipGone(address) => self.outbox.picture.forget(*address),
            Event::Peers(peers) => {
                self.sockets.set_peers(peers);
                self.outbox.picture.keep_peers(|node| peers.iter().any(|peer| peer.node == *node));
            }
            _ => {}
        }
    }

    fn open_sockets(&mut self, now: Instant) {
        if self.has_ceded {
            return;
        }
        if !self.has_begun {
            // What comes in from now on waits there, so that no question on the LAN is lost in between.
            return self.sockets.prepare(&self.links);
        }
        let problems = self.sockets.follow(&self.links);
        self.retry = (!problems.is_empty()).then(|| now + RETRY);
        self.outbox.say(FromLan::Sockets(problems));
        let usable: Vec<_> =
            self.links.iter().filter(|link| self.sockets.can_use(link.index)).cloned().collect();
        if self.usable.as_ref() != Some(&usable) {
            self.usable = Some(usable.clone());
            self.handle(now, Event::Links(usable));
        }
    }

    fn handle(&mut self, now: Instant, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.mind.handle(now, event, &mut actions);
        for action in actions.drain(..) {
            self.perform(now, action);
        }
        self.actions = actions;
    }

    fn perform(&mut self, now: Instant, action: Action) {
        match action {
            Action::SendFrame { link, frame } => {
                let sent = self.sockets.send_frame(link, &frame);
                self.count_sent(Traffic::Frame, sent);
            }
            Action::SendDatagram { link, to, payload } => {
                let sent = self.sockets.send_datagram(now, link, to, &payload);
                self.count_sent(Traffic::Datagram, sent);
            }
            Action::JoinGroup { link, group } => {
                if let Err(error) = self.sockets.join(link, group) {
                    self.metrics.group_errors.inc();
                    tracing::warn!(%error, %group, link = link.0, "cannot join a multicast group");
                }
            }
            Action::LeaveGroup { link, group } => {
                if let Err(error) = self.sockets.leave(link, group) {
                    tracing::debug!(%error, %group, link = link.0, "cannot leave a multicast group");
                }
            }
            Action::Report(report) => {
                self.sockets.note(now, &report);
                let told = Told { at: Timestamp::now(), report };
                if !self.outbox.tell(told) {
                    self.metrics.dropped_reports.inc();
                }
            }
            Action::KeepConnections(_) | Action::DropConnections(_) => {}
            Action::Left => self.outbox.say(FromLan::Left),
            Action::Ceded(left) => {
                // Before anybody else wants the ports.
                self.has_ceded = true;
                self.sockets.close();
                self.outbox.say(FromLan::Ceded(left));
            }
        }
    }

    fn count_sent(&self, what: Traffic, sent: std::io::Result<()>) {
        let result = match sent {
            Ok(()) => TrafficResult::Sent,
            Err(error) => {
                tracing::debug!(%error, ?what, "could not be sent");
                TrafficResult::Failed
            }
        };
        self.metrics.count_traffic(what, result);
    }
}

impl Outbox {
    /// Reports something, if there is room and nothing was lost before it. What is lost is said later,
    /// with the whole picture.
    fn tell(&mut self, told: Told) -> bool {
        self.picture.take(&told);
        let said = !self.lost && self.queue.try_send(FromLan::Told(told)).is_ok();
        self.lost = !said;
        said
    }

    /// Says something that no picture holds: now, or as soon as there is room.
    fn say(&mut self, what: FromLan) {
        self.owed.push_back(what);
        self.pay();
    }

    fn pay(&mut self) {
        while let (Some(_), Ok(room)) = (self.owed.front(), self.queue.try_reserve()) {
            if let Some(what) = self.owed.pop_front() {
                room.send(what);
            }
        }
    }

    /// Says what is owed; after a loss also how things are, once half of the queue is free again.
    fn catch_up(&mut self) {
        self.pay();
        if self.lost && self.queue.capacity() >= REPORTS / 2 {
            let picture = Box::new(self.picture.clone());
            self.lost = self.queue.try_send(FromLan::Resync(picture)).is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lan::Vip;
    use crate::mind::{Config, Report};
    use landfall_crds::Fallback;

    async fn next(reports: &mut mpsc::Receiver<FromLan>) -> FromLan {
        tokio::time::timeout(Duration::from_secs(5), reports.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn events_go_in_and_reports_come_out() {
        let (metrics, _) = Metrics::new();
        let mind = Mind::new(Config::new("n1".into(), 1));
        let (lan, mut reports) = LanThread::start(mind, 0, metrics).unwrap();
        lan.send(Event::Links(Vec::new())).await.unwrap();
        lan.begin(None).await.unwrap();
        assert!(matches!(next(&mut reports).await, FromLan::Sockets(problems) if problems.is_empty()));
        lan.send(Event::Peers(Vec::new())).await.unwrap();
        let loopback = Vip {
            address: "127.0.0.1".parse().unwrap(),
            claimed: true,
            epoch: 1,
            candidates: vec!["n1".into()],
            interfaces: Vec::new(),
            fallback: Fallback::None,
            health_checks: Vec::new(),
            guard: None,
            last_term: 0,
            announced_before: false,
        };
        lan.send(Event::Vips(vec![loopback])).await.unwrap();
        let FromLan::Told(told) = next(&mut reports).await else { panic!() };
        assert!(matches!(told.report, Report::Refused { .. }), "{told:?}");
        assert!(lan.pulse().age() < Duration::from_secs(5));
        lan.send(Event::Leave).await.unwrap();
        assert!(matches!(next(&mut reports).await, FromLan::Left));
    }

    #[test]
    fn what_is_lost_comes_back_as_a_picture() {
        let (queue, mut reports) = mpsc::channel(REPORTS);
        let mut outbox = Outbox { queue, picture: Picture::default(), lost: false, owed: VecDeque::new() };
        let told = |n: usize| Told {
            at: Timestamp::UNIX_EPOCH,
            report: Report::Peer { node: format!("n{n}").into(), interface: "eth0".into(), alive: true },
        };
        for n in 0..=REPORTS {
            assert_eq!(outbox.tell(told(n)), n < REPORTS);
        }
        outbox.say(FromLan::Left);
        outbox.catch_up();
        for _ in 0..REPORTS {
            assert!(matches!(reports.try_recv(), Ok(FromLan::Told(_))));
        }
        assert!(reports.try_recv().is_err(), "nothing more while there was no room");
        outbox.catch_up();
        assert!(matches!(reports.try_recv(), Ok(FromLan::Left)));
        let Ok(FromLan::Resync(picture)) = reports.try_recv() else { panic!() };
        assert_eq!(picture.peers.len(), REPORTS + 1);
        assert!(outbox.tell(told(0)));
    }
}
