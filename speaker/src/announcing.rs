//! What is sent and answered on the LAN for the addresses that are announced.
//!
//! A pure machine: it is told what to announce and what came in, and says which frames to send. It does
//! not decide what is announced; of what it hears it tells what bears on that.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::lan::{LinkIndex, MacAddr, NodeName};
use crate::mind::counters::Counters;
use crate::mind::facts::Facts;
use crate::mind::rng::Rng;
use crate::wire::ethernet::EmittedFrame;

mod conflict;
mod demand;
mod frames;
mod groups;
mod hearing;
mod pacing;
mod probing;
mod stations;
#[cfg(test)]
mod tests;

use conflict::Conflict;
use demand::Demand;
use groups::Groups;
use pacing::Pacer;
use probing::Probing;
use stations::Stations;

/// When gratuitous frames are sent after a takeover. A neighbour's entry is locked for a second after it
/// was made (Linux `locktime`), and any of them may be lost.
const SCHEDULE: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(1100), Duration::from_millis(2200), Duration::from_millis(4000)];
/// From then on they are sent once in this time, or up to a quarter sooner.
const REFRESH: Duration = Duration::from_secs(60);
/// Neighbours that another node misled about an address are corrected at most this often.
const CORRECTION_PACE: Duration = Duration::from_millis(100);

/// What happens to the announcer.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Announce an address on exactly these links from now on.
    Announce(IpAddr, Vec<LinkIndex>),
    /// Go on announcing an address that a former process of this node announced: nobody needs to be told.
    Resume(IpAddr, Vec<LinkIndex>),
    /// Announce it, or probe for it, no more.
    Withdraw(IpAddr),
    /// Find out whether a station uses an address.
    Probe(IpAddr, Vec<LinkIndex>),
    /// Ask once who answers for an address.
    Ask(IpAddr, Vec<LinkIndex>),
    /// Another node announced an address wrongly: tell the neighbours again.
    Correct(IpAddr),
    /// Listen to the multicast group of an address on exactly these links.
    Listen(IpAddr, Vec<LinkIndex>),
    /// The links or the peers changed.
    Facts,
    /// Answer nothing on a link for now.
    Hush(LinkIndex),
    /// Answer there again, and tell the neighbours anew.
    Unhush(LinkIndex),
    /// Whether nothing at all is heard on a link: then a refresh would only mislead once it heals.
    Isolated(LinkIndex, bool),
    /// Ask the gateways and other stations whether they are there.
    AskLan(LinkIndex),
    /// Ask a peer's kernel whether the node is there.
    AskPeer(LinkIndex, &'a NodeName),
    /// An Ethernet frame came in.
    Frame(Heard<'a>),
    /// The time that `next_deadline` named has come.
    Deadline,
}

/// An Ethernet frame as it came.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Where.
    pub link: LinkIndex,
    /// When.
    pub at: Instant,
    /// It came before this process was not run for a while. Who answers may be another one by now.
    pub is_stale: bool,
    /// The whole frame.
    pub frame: &'a [u8],
}

/// What the announcer wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a frame.
    Send(LinkIndex, EmittedFrame),
    /// Listen to a group.
    Join(LinkIndex, std::net::Ipv6Addr),
    /// Listen to it no more.
    Leave(LinkIndex, std::net::Ipv6Addr),
    /// Probes for an address went unanswered.
    ProbeClear(IpAddr),
    /// A station uses the address that was probed for.
    ProbeConflict(IpAddr, MacAddr),
    /// A station that is no speaker uses an address that is announced.
    Conflict(IpAddr, MacAddr),
    /// No such station was heard for a while.
    ConflictOver(IpAddr),
    /// A speaker says on the LAN that it has an address.
    SpeakerHas {
        /// The address.
        address: IpAddr,
        /// The speaker's node.
        node: NodeName,
        /// The hardware address that it told.
        mac: MacAddr,
        /// It told everybody, unasked.
        gratuitous: bool,
    },
    /// Another station was heard, when.
    Station(LinkIndex, Instant),
    /// A frame came from a speaker's node, when: at least its kernel lives.
    PeerSeen(LinkIndex, Instant, NodeName),
}

#[derive(Clone, Debug)]
struct Entry {
    links: Vec<LinkIndex>,
    announced_at: Instant,
    /// Which time of the schedule comes next.
    step: usize,
    due: Instant,
    corrected: Option<Instant>,
    conflict: Option<Conflict>,
}

impl Entry {
    /// Tells the neighbours of the address as soon as the pace allows, and again as after a takeover.
    fn tell_anew(&mut self, now: Instant, address: IpAddr, timers: &mut BTreeSet<(Instant, Due)>) {
        timers.remove(&(self.due, Due::Gratuitous(address)));
        (self.announced_at, self.step, self.due) = (now, 0, now);
        timers.insert((now, Due::Gratuitous(address)));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Gratuitous(IpAddr),
    Probe(IpAddr),
    ConflictOver(IpAddr),
}

/// The machine; see the module.
#[derive(Clone, Debug)]
pub struct Announcing {
    table: HashMap<IpAddr, Entry>,
    probing: HashMap<IpAddr, Probing>,
    groups: Groups,
    stations: Stations,
    hushed: HashSet<LinkIndex>,
    isolated: HashSet<LinkIndex>,
    /// With which hardware address each link was last seen.
    macs: HashMap<LinkIndex, MacAddr>,
    timers: BTreeSet<(Instant, Due)>,
    pacer: Pacer,
    /// Addresses of which nobody has been told yet, those first that were asked for last.
    firsts: BTreeSet<(Reverse<Option<Instant>>, IpAddr)>,
    first_pacer: Pacer,
    /// Since when any of them waits.
    firsts_since: Option<Instant>,
    demand: Demand,
    rng: Rng,
}

impl Announcing {
    /// Announces nothing yet.
    pub fn new(rng: Rng) -> Self {
        Self {
            table: HashMap::new(),
            probing: HashMap::new(),
            groups: Groups::default(),
            stations: Stations::default(),
            hushed: HashSet::new(),
            isolated: HashSet::new(),
            macs: HashMap::new(),
            timers: BTreeSet::new(),
            pacer: Pacer::of_repeats(),
            firsts: BTreeSet::new(),
            first_pacer: Pacer::of_firsts(),
            firsts_since: None,
            demand: Demand::default(),
            rng,
        }
    }

    /// Takes an event in and pushes what follows from it.
    pub fn handle(
        &mut self,
        now: Instant,
        facts: &Facts,
        event: Event<'_>,
        counters: &mut Counters,
        out: &mut Vec<Action>,
    ) {
        match event {
            Event::Announce(address, links) => self.announce(now, facts, address, links, out),
            Event::Resume(address, links) => self.resume(now, address, links),
            Event::Withdraw(address) => self.withdraw(address, out),
            Event::Probe(address, links) => self.probe(now, facts, address, links, out),
            Event::Ask(address, links) => frames::ask(facts, address, &links, out),
            Event::Correct(address) => self.correct(now, address),
            Event::Listen(address, links) => self.groups.listen(address, links, facts, out),
            Event::Facts => self.facts_changed(now, facts),
            Event::Hush(link) => {
                self.hushed.insert(link);
            }
            Event::Unhush(link) => self.unhush(now, link),
            Event::Isolated(link, true) => {
                self.isolated.insert(link);
            }
            Event::Isolated(link, false) => {
                self.isolated.remove(&link);
            }
            Event::AskLan(link) => self.stations.ask(facts, link, out),
            Event::AskPeer(link, node) => frames::ask_peer(facts, link, node, out),
            Event::Frame(heard) => self.hear(now, facts, heard, counters, out),
            Event::Deadline => {
                self.tell_firsts(now, facts, out);
                self.due(now, facts, out);
            }
        }
    }

    /// When it wants to be woken.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, due)| match due {
            Due::Gratuitous(_) => self.pacer.earliest(*at),
            Due::Probe(_) | Due::ConflictOver(_) => *at,
        });
        let firsts = self.firsts_since.map(|since| self.first_pacer.earliest(since));
        timer.into_iter().chain(firsts).min()
    }

    /// Whether it answers for an address, anywhere, right now.
    pub fn answers(&self, address: IpAddr) -> bool {
        self.table
            .get(&address)
            .is_some_and(|entry| entry.links.iter().any(|link| !self.hushed.contains(link)))
    }

    /// Whether a station that is no speaker uses an address that is announced.
    pub fn has_conflict(&self, address: IpAddr) -> bool {
        self.table.get(&address).is_some_and(|entry| entry.conflict.is_some())
    }

    /// How many addresses it answers for.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it answers for none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn announce(
        &mut self,
        now: Instant,
        facts: &Facts,
        address: IpAddr,
        links: Vec<LinkIndex>,
        out: &mut Vec<Action>,
    ) {
        self.stop_probing(address);
        let due = now + SCHEDULE[1];
        let former = self.table.remove(&address);
        if let Some(former) = &former {
            self.timers.remove(&(former.due, Due::Gratuitous(address)));
        }
        self.timers.insert((due, Due::Gratuitous(address)));
        let entry = Entry {
            links,
            announced_at: now,
            step: 1,
            due,
            corrected: None,
            conflict: former.and_then(|former| former.conflict),
        };
        self.table.insert(address, entry);
        self.firsts.insert((Reverse(self.demand.of(address)), address));
        self.firsts_since.get_or_insert(now);
        self.tell_firsts(now, facts, out);
    }

    /// Tells the neighbours of addresses that are new here, as many as the pace allows.
    fn tell_firsts(&mut self, now: Instant, facts: &Facts, out: &mut Vec<Action>) {
        while self.first_pacer.allows(now)
            && let Some((_, address)) = self.firsts.pop_first()
        {
            let Some(entry) = self.table.get_mut(&address) else { continue };
            let audible = entry.links.iter().filter(|link| !self.hushed.contains(link));
            let before = out.len();
            frames::gratuitous(facts, address, audible, out);
            self.first_pacer.sent(now, out.len() - before);
        }
        if self.firsts.is_empty() {
            self.firsts_since = None;
        }
    }

    fn resume(&mut self, now: Instant, address: IpAddr, links: Vec<LinkIndex>) {
        let (step, due) = (SCHEDULE.len(), now + self.rng.between(Duration::ZERO, REFRESH));
        self.timers.insert((due, Due::Gratuitous(address)));
        let entry = Entry { links, announced_at: now, step, due, corrected: None, conflict: None };
        self.table.insert(address, entry);
    }

    fn withdraw(&mut self, address: IpAddr, out: &mut Vec<Action>) {
        self.stop_probing(address);
        if let Some(entry) = self.table.remove(&address) {
            self.timers.remove(&(entry.due, Due::Gratuitous(address)));
            if let Some(conflict) = entry.conflict {
                self.timers.remove(&(conflict.over_at(), Due::ConflictOver(address)));
                out.push(Action::ConflictOver(address));
            }
        }
    }

    fn correct(&mut self, now: Instant, address: IpAddr) {
        let Some(entry) = self.table.get_mut(&address) else { return };
        if entry.corrected.is_some_and(|at| now < at + CORRECTION_PACE) {
            return;
        }
        entry.corrected = Some(now);
        // The wrong word may have locked a neighbour's entry: repeat as after a takeover.
        entry.tell_anew(now, address, &mut self.timers);
    }

    fn facts_changed(&mut self, now: Instant, facts: &Facts) {
        self.groups.prune(facts);
        for link in facts.links() {
            if self.macs.insert(link.index, link.mac).is_some_and(|former| former != link.mac) {
                self.tell_anew(now, link.index);
            }
        }
        self.macs.retain(|link, _| facts.link(*link).is_some());
        self.hushed.retain(|link| facts.link(*link).is_some());
        self.isolated.retain(|link| facts.link(*link).is_some());
        self.stations.prune(facts);
    }

    fn unhush(&mut self, now: Instant, link: LinkIndex) {
        if self.hushed.remove(&link) {
            self.tell_anew(now, link);
        }
    }

    /// Tells the neighbours on a link of all addresses there, as after a takeover but paced.
    fn tell_anew(&mut self, now: Instant, link: LinkIndex) {
        for (address, entry) in self.table.iter_mut().filter(|(_, entry)| entry.links.contains(&link)) {
            entry.tell_anew(now, *address, &mut self.timers);
        }
    }

    fn due(&mut self, now: Instant, facts: &Facts, out: &mut Vec<Action>) {
        while let Some((at, due)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            match due {
                Due::Gratuitous(address) => {
                    if !self.pacer.allows(now) {
                        // Whatever else is due comes after this one and is sent in its turn.
                        self.due_beside_gratuitous(now, facts, out);
                        return;
                    }
                    self.timers.remove(&(at, due));
                    self.repeat(now, facts, address, out);
                }
                Due::Probe(_) | Due::ConflictOver(_) => {
                    self.timers.remove(&(at, due));
                    self.due_now(now, facts, due, out);
                }
            }
        }
    }

    fn due_beside_gratuitous(&mut self, now: Instant, facts: &Facts, out: &mut Vec<Action>) {
        let is_other = |due: &Due| !matches!(due, Due::Gratuitous(_));
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        let others: Vec<_> = due.filter(|(_, due)| is_other(due)).copied().collect();
        for (at, due) in others {
            self.timers.remove(&(at, due));
            self.due_now(now, facts, due, out);
        }
    }

    fn due_now(&mut self, now: Instant, facts: &Facts, due: Due, out: &mut Vec<Action>) {
        match due {
            Due::Probe(address) => self.continue_probing(now, facts, address, out),
            Due::ConflictOver(address) => self.conflict_over(address, out),
            Due::Gratuitous(_) => {}
        }
    }

    fn repeat(&mut self, now: Instant, facts: &Facts, address: IpAddr, out: &mut Vec<Action>) {
        let Some(entry) = self.table.get_mut(&address) else { return };
        let is_refresh = entry.step >= SCHEDULE.len();
        let speaks =
            |link: &&LinkIndex| !(self.hushed.contains(link) || is_refresh && self.isolated.contains(link));
        let before = out.len();
        frames::gratuitous(facts, address, entry.links.iter().filter(speaks), out);
        self.pacer.sent(now, out.len() - before);
        entry.step += 1;
        entry.due = match SCHEDULE.get(entry.step) {
            // Where the pace held the last one up, at least it is not repeated in the same breath.
            Some(after) => (entry.announced_at + *after).max(now + SCHEDULE[1] / 2),
            None => now + self.rng.between(REFRESH * 3 / 4, REFRESH),
        };
        self.timers.insert((entry.due, Due::Gratuitous(address)));
    }
}
