//! Our end: one session with the speaker's own sockets and messages, driven by a thread of its own that
//! decides nothing. (The mind itself hears nobody who has nothing to say behind a packet, as FRR has not.)

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use landfall_speaker::bfd::discard::Discard;
use landfall_speaker::bfd::discriminators::Discriminators;
use landfall_speaker::bfd::session::{Action, Config, Event, Session};
use landfall_speaker::bfd::timing::Timing;
use landfall_speaker::lan::LinkIndex;
use landfall_speaker::mind::rng::Rng;
use landfall_speaker::seal::{Ends, Sealer};
use landfall_speaker::sys::datagram::DatagramSocket;
use landfall_speaker::wire::bfd::{ControlRepr, Diagnostic, Discriminator, Polling, State};
use landfall_speaker::wire::speech::{Body, Header, SpeechRepr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::wire::{LIMIT, OUR_MAC, Wire};

/// FRR knows no other (RFC 5881 section 4).
const PORT: u16 = 3784;
/// Orders wait no longer than this.
const GLANCE: Duration = Duration::from_millis(5);

/// How our end is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) timing: Timing,
    pub(crate) steady_pace: bool,
    /// Whether a message follows each packet in its datagram, as it does between speakers.
    pub(crate) has_trailer: bool,
}

/// What happened at our end since it began, and how the session stands.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) state: State,
    /// What the other end told last.
    pub(crate) remote: (State, Diagnostic),
    pub(crate) detection_time: Option<Duration>,
    pub(crate) transmit_interval: Option<Duration>,
    /// Each state that was reached, and why.
    pub(crate) changes: Vec<(State, Diagnostic)>,
    /// What was taken in, and when.
    pub(crate) heard: Vec<(Instant, ControlRepr)>,
    /// When packets left.
    pub(crate) sent: Vec<Instant>,
    pub(crate) discarded: Vec<Discard>,
}

impl View {
    /// The time between the last ten packets of the other end that answered nothing, on average.
    pub(crate) fn pace(&self) -> Option<Duration> {
        let in_turn = self.heard.iter().rev().filter(|(_, repr)| repr.polling != Polling::Final);
        let times: Vec<Instant> = in_turn.map(|(at, _)| *at).take(11).collect();
        let (last, first) = (times.first()?, times.get(10)?);
        Some(last.duration_since(*first) / 10)
    }
}

/// What a speaker says behind a packet.
pub(crate) fn heartbeat() -> Vec<u8> {
    let header = Header { mac: OUR_MAC, instance: 1, sequence: 0, digest: 0, ..Header::default() };
    SpeechRepr { header, body: Body::Heartbeat }.emit()
}

/// The sockets at our address. A link-local address is there a moment after its link is up.
pub(crate) fn listener(link: LinkIndex, address: IpAddr) -> DatagramSocket {
    let start = Instant::now();
    loop {
        match DatagramSocket::open(link, "lan0", address, PORT) {
            Ok(socket) => return socket,
            Err(error) => assert!(start.elapsed() < LIMIT, "no socket for {address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

enum Order {
    Tell(Event<'static>),
    /// Nothing leaves any more, or again.
    BeSilent(bool),
}

/// A session that runs. It ends when this is dropped.
pub(crate) struct Ours {
    /// The address of the other end.
    pub(crate) peer: IpAddr,
    pub(crate) discriminator: Discriminator,
    orders: Option<Sender<Order>>,
    view: Arc<Mutex<View>>,
    thread: Option<JoinHandle<()>>,
}

impl Ours {
    /// Opens the sockets at our end of the wire and starts the session.
    pub(crate) fn start(wire: &Wire, address: IpAddr, peer: IpAddr, setup: Setup) -> Self {
        wire.ours.enter();
        let near = listener(LinkIndex(wire.ours.link), address);
        let config = Config {
            timing: setup.timing,
            steady_pace: setup.steady_pace,
            keys: None,
            discriminator: Discriminators::default().draw(&mut Rng::new(u64::from(std::process::id()))),
            first_sequence: 0,
        };
        let discriminator = config.discriminator;
        let session = Session::new(Instant::now(), config, Rng::new(1));
        let view = View {
            state: session.state(),
            remote: session.remote(),
            detection_time: None,
            transmit_interval: None,
            changes: Vec::new(),
            heard: Vec::new(),
            sent: Vec::new(),
            discarded: Vec::new(),
        };
        let view = Arc::new(Mutex::new(view));
        let (orders, taken) = channel();
        let loop_ = Loop {
            session,
            near,
            ends: Ends { from: address, to: peer },
            sealer: Sealer::new(1),
            has_trailer: setup.has_trailer,
            is_silent: false,
            orders: taken,
            view: Arc::clone(&view),
        };
        let thread = std::thread::spawn(move || loop_.run());
        Self { peer, discriminator, orders: Some(orders), view, thread: Some(thread) }
    }

    /// Hands an event to the session.
    pub(crate) fn tell(&self, event: Event<'static>) {
        self.order(Order::Tell(event));
    }

    /// Lets nothing leave any more, or again. What comes in is taken in all the while.
    pub(crate) fn be_silent(&self, is_silent: bool) {
        self.order(Order::BeSilent(is_silent));
    }

    fn order(&self, order: Order) {
        self.orders.as_ref().unwrap().send(order).unwrap();
    }

    /// How it stands now.
    pub(crate) fn view(&self) -> View {
        self.view.lock().unwrap().clone()
    }

    /// Waits until it stands so.
    pub(crate) fn until(&self, what: &str, is_it: impl Fn(&View) -> bool) -> View {
        let start = Instant::now();
        loop {
            let view = self.view();
            if is_it(&view) {
                eprintln!("{}: {what} after {:?}", self.peer, start.elapsed());
                return view;
            }
            if start.elapsed() > LIMIT {
                let View { state, remote, changes, discarded, .. } = &view;
                let told = view.heard.last();
                let pace = view.pace();
                panic!(
                    "{}: not {what}; {state:?}, the other end {remote:?}, so far {changes:?}, \
                     detection time {:?}, interval {:?}, heard at a pace of {pace:?} and last {told:?}, \
                     refused {discarded:?}",
                    self.peer, view.detection_time, view.transmit_interval,
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("{}: our end has panicked", self.peer);
        }
    }
}

struct Loop {
    session: Session,
    near: DatagramSocket,
    ends: Ends,
    sealer: Sealer,
    has_trailer: bool,
    is_silent: bool,
    orders: Receiver<Order>,
    view: Arc<Mutex<View>>,
}

impl Loop {
    fn run(mut self) {
        let mut buffer = [0; 2048];
        loop {
            loop {
                match self.orders.try_recv() {
                    Ok(Order::Tell(event)) => self.handle(event, None),
                    Ok(Order::BeSilent(is_silent)) => self.is_silent = is_silent,
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            // What has come is taken in before a deadline is judged.
            let near = &self.near;
            let mut received = Vec::new();
            while let Ok(Some(got)) = near.receive(&mut buffer) {
                if got.from == self.ends.to {
                    received.push((got.ttl, got.payload.to_vec()));
                }
            }
            for (ttl, payload) in received {
                let repr = ControlRepr::parse_payload(&payload).ok();
                self.handle(Event::Received { payload: &payload, ttl }, repr);
            }
            if self.session.next_deadline().is_some_and(|at| at <= Instant::now()) {
                self.handle(Event::Deadline, None);
            }
            let deadline = self.session.next_deadline();
            let timeout = deadline.map_or(GLANCE, |at| at.saturating_duration_since(Instant::now()));
            // Rounded up: a deadline is never too early.
            let timeout = PollTimeout::try_from(timeout.min(GLANCE) + Duration::from_millis(1)).unwrap();
            poll(&mut [PollFd::new(self.near.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
        }
    }

    fn handle(&mut self, event: Event<'_>, repr: Option<ControlRepr>) {
        let (now, mut actions) = (Instant::now(), Vec::new());
        self.session.handle(now, event, &mut actions);
        let mut view = self.view.lock().unwrap();
        for action in actions {
            match action {
                Action::Send(_) if self.is_silent => {}
                Action::Send(packet) => {
                    let mut payload = packet.as_ref().to_vec();
                    if self.has_trailer {
                        let mut message = heartbeat();
                        self.sealer.seal(self.ends, packet.as_ref(), &mut message);
                        payload.extend(message);
                    }
                    // What the kernel cannot send is lost, as it could be on any wire.
                    if self.near.send(self.ends.to, &payload).is_ok() {
                        view.sent.push(now);
                    }
                }
                Action::Heard { .. } => view.heard.extend(repr.map(|repr| (now, repr))),
                Action::StateChanged { to, diagnostic, .. } => view.changes.push((to, diagnostic)),
                Action::Discarded(discard) => view.discarded.push(discard),
            }
        }
        view.state = self.session.state();
        view.remote = self.session.remote();
        view.detection_time = self.session.detection_time();
        view.transmit_interval = self.session.transmit_interval();
    }
}
