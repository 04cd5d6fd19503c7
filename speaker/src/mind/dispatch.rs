//! Who tells whom: what one room wants done is an event to another, or an action.

use std::net::IpAddr;
use std::time::Instant;

use super::exchange::everything;
use super::{Action, Mind, Report};
use crate::announcing;
use crate::draining::{self, Detour};
use crate::lan::{LinkIndex, NodeName};
use crate::liveness;
use crate::ownership::{self, Around};
use crate::wire::speech::{Body, MOST_ADDRESSES, MOST_WITNESSED};

impl Mind {
    pub(super) fn watch(&mut self, now: Instant, event: liveness::Event<'_>, out: &mut Vec<Action>) {
        let mut actions = std::mem::take(&mut self.scratch.watched);
        self.liveness.handle(now, event, &mut actions);
        let mut is_changed = false;
        let mut peers = Vec::new();
        for action in actions.drain(..) {
            match action {
                liveness::Action::Ask(link, node) => {
                    let mut outcomes = Vec::new();
                    self.sessions.ask(now, &(link, node), &mut outcomes);
                    self.beat(outcomes, out);
                    continue;
                }
                liveness::Action::AskLan(link) => {
                    self.announce(now, announcing::Event::AskLan(link), out);
                    continue;
                }
                liveness::Action::Probe(link, node) => {
                    self.counters.verification_probes += 1;
                    self.announce(now, announcing::Event::AskPeer(link, &node), out);
                    continue;
                }
                liveness::Action::AskWitnesses(link, node) => {
                    self.ask_witnesses(link, &node, out);
                    continue;
                }
                liveness::Action::Alive(link, node) => {
                    peers.push(node.clone());
                    self.report_peer(link, node, true, out);
                    continue;
                }
                liveness::Action::Dead(link, node) => {
                    if self.liveness.verdicts(&node).all(|(_, verdict)| !verdict.is_heard()) {
                        self.ownership.silence(&node);
                    }
                    if self.is_gone(&node) {
                        self.drain(now, draining::Event::Dead(node.clone()), out);
                    }
                    peers.push(node.clone());
                    self.report_peer(link, node, false, out);
                    continue;
                }
                liveness::Action::Deaf(_, node) | liveness::Action::Restarted(node) => {
                    peers.push(node);
                    continue;
                }
                liveness::Action::Left(node) => {
                    let on = self.reported.keys().filter(|(_, known)| *known == node);
                    for (link, node) in on.cloned().collect::<Vec<_>>() {
                        self.report_peer(link, node, false, out);
                    }
                    self.own(now, ownership::Event::Void(&node), out);
                }
                liveness::Action::Reached(link) => self.reached(now, link, out),
                liveness::Action::Isolated(_) | liveness::Action::Touched(_) => {}
            }
            is_changed = true;
        }
        self.scratch.watched = actions;
        if is_changed {
            return self.own(now, ownership::Event::Around, out);
        }
        for node in peers {
            self.own(now, ownership::Event::Peer(&node), out);
        }
    }

    /// Whether a node that is dead is really gone, and not its speaker alone.
    fn is_gone(&self, node: &NodeName) -> bool {
        self.liveness.verdicts(node).all(|(link, verdict)| {
            !verdict.is_heard() && self.liveness.death(link, node).is_none_or(|death| !death.kernel_answers)
        })
    }

    /// The LAN is heard again: keep silent until it is known who took over meanwhile.
    fn reached(&mut self, now: Instant, link: LinkIndex, out: &mut Vec<Action>) {
        if self.hush.begin(now, link) {
            self.announce(now, announcing::Event::Hush(link), out);
            self.say_on(link, &Body::Query, out);
        }
    }

    fn report_peer(&mut self, link: LinkIndex, node: NodeName, alive: bool, out: &mut Vec<Action>) {
        let key = (link, node);
        let interface = if alive {
            let name = self.facts.link_name(link);
            match self.reported.insert(key.clone(), name.clone()) {
                None => name,
                Some(_) => return,
            }
        } else {
            match self.reported.remove(&key) {
                Some(name) => name,
                None => return,
            }
        };
        out.push(Action::Report(Report::Peer { node: key.1, interface, alive }));
    }

    pub(super) fn own(&mut self, now: Instant, event: ownership::Event<'_>, out: &mut Vec<Action>) {
        let mut actions = std::mem::take(&mut self.scratch.owned);
        let around = Around { facts: &self.facts, liveness: &self.liveness, hush: &self.hush };
        self.ownership.handle(now, around, event, &mut actions);
        for action in actions.drain(..) {
            match action {
                ownership::Action::Announce(address, links) => {
                    self.announce(now, announcing::Event::Announce(address, links), out);
                }
                ownership::Action::Resume(address, links) => {
                    self.announce(now, announcing::Event::Resume(address, links), out);
                }
                ownership::Action::Withdraw(address) => {
                    self.drain(now, draining::Event::Lost(address), out);
                    self.announce(now, announcing::Event::Withdraw(address), out);
                }
                ownership::Action::Probe(address, links) => {
                    self.announce(now, announcing::Event::Probe(address, links), out);
                }
                ownership::Action::Ask(address, links) => {
                    self.announce(now, announcing::Event::Ask(address, links), out);
                }
                ownership::Action::Correct(address) => {
                    self.announce(now, announcing::Event::Correct(address), out);
                }
                ownership::Action::Listen(address, links) => {
                    self.announce(now, announcing::Event::Listen(address, links), out);
                }
                ownership::Action::Tell(addresses) => {
                    for body in self.exchange.tell(now, self.ownership.own_book(), addresses) {
                        self.say(&body, out);
                    }
                }
                ownership::Action::TellAll(node) => {
                    for body in everything(self.ownership.own_book()) {
                        self.say_to(&node, &body, out);
                    }
                }
                ownership::Action::Query(node) => {
                    if self.exchange.may_query(now, &node) {
                        self.counters.queries_sent += 1;
                        self.say_to(&node, &Body::Query, out);
                    }
                }
                ownership::Action::AskKnowledge(node) => self.say_to(&node, &Body::DoYouKnow, out),
                ownership::Action::TellKnowledge(node) => {
                    let buckets = Box::new(*self.ownership.knowledge().buckets());
                    self.say_to(&node, &Body::Know(buckets), out);
                }
                ownership::Action::AskWhoHas(addresses) => {
                    for addresses in addresses.chunks(MOST_ADDRESSES) {
                        self.say(&Body::WhoHas(addresses.to_vec()), out);
                    }
                }
                ownership::Action::KeepConnections(address, node, links) => {
                    self.keep_connections(now, address, node, &links, out);
                }
                ownership::Action::Took(address) => {
                    self.counters.takeovers += 1;
                    self.drain(now, draining::Event::Took(address), out);
                }
                ownership::Action::Testify(node, claims) => {
                    self.counters.testimonies += 1;
                    for claims in claims.chunks(MOST_WITNESSED) {
                        self.say_to(&node, &Body::Claimed(claims.to_vec()), out);
                    }
                }
                ownership::Action::Report(report) => out.push(Action::Report(report)),
                ownership::Action::FailedOver(death) => self.counters.failovers.note(&death, now),
                ownership::Action::Left => {
                    self.say_goodbye(now, out);
                    out.push(Action::Left);
                }
            }
        }
        self.scratch.owned = actions;
    }

    pub(super) fn drain(&mut self, now: Instant, event: draining::Event, out: &mut Vec<Action>) {
        let mut actions = Vec::new();
        self.draining.handle(now, event, &mut actions);
        self.carry_out(actions, out);
    }

    pub(super) fn carry_out(&self, actions: Vec<draining::Action>, out: &mut Vec<Action>) {
        out.extend(actions.into_iter().map(|action| match action {
            draining::Action::Begin(detour) => Action::KeepConnections(detour),
            draining::Action::End(address) => Action::DropConnections(address),
        }));
    }

    /// Where there is no way to the node, nothing is waited for.
    fn keep_connections(
        &mut self,
        now: Instant,
        address: IpAddr,
        node: NodeName,
        links: &[LinkIndex],
        out: &mut Vec<Action>,
    ) {
        let way = links.iter().find_map(|link| {
            let via = self.facts.address_of(*link, &node, address.is_ipv4())?;
            Some(Detour { address, link: *link, via })
        });
        match way {
            Some(detour) => self.drain(now, draining::Event::Prepare(node, detour), out),
            None => self.own(now, ownership::Event::ConnectionsKept(address), out),
        }
    }

    pub(super) fn announce(&mut self, now: Instant, event: announcing::Event<'_>, out: &mut Vec<Action>) {
        let mut actions = std::mem::take(&mut self.scratch.announced);
        self.announcing.handle(now, &self.facts, event, &mut self.counters, &mut actions);
        for action in actions.drain(..) {
            match action {
                announcing::Action::Send(link, frame) => out.push(Action::SendFrame { link, frame }),
                announcing::Action::Join(link, group) => out.push(Action::JoinGroup { link, group }),
                announcing::Action::Leave(link, group) => out.push(Action::LeaveGroup { link, group }),
                announcing::Action::ProbeClear(address) => {
                    self.own(now, ownership::Event::ProbeClear(address), out);
                }
                announcing::Action::ProbeConflict(address, mac) => {
                    self.own(now, ownership::Event::ProbeConflict(address, mac), out);
                }
                announcing::Action::Conflict(address, mac) => {
                    out.push(Action::Report(Report::AddressConflict { address, mac }));
                }
                announcing::Action::ConflictOver(address) => {
                    out.push(Action::Report(Report::AddressConflictOver { address }));
                }
                announcing::Action::SpeakerHas { address, node, mac, gratuitous } => {
                    let sight = ownership::Sight { address, node: &node, mac, gratuitous };
                    self.own(now, ownership::Event::SpeakerHas(sight), out);
                }
                announcing::Action::Station(link, at) => {
                    self.watch(now, liveness::Event::Station(link, at), out);
                }
                announcing::Action::PeerSeen(link, at, node) => {
                    self.watch(now, liveness::Event::Answered(link, at, &node), out);
                }
            }
        }
        self.scratch.announced = actions;
    }
}
