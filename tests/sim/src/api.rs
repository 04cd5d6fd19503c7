//! The pretend API server, and the way of each node to it: watches that lag, break, or say nothing any more, and
//! writes that are lost.
//!
//! Its objects, their revisions and what it does with a controller's effects are those of the model of the
//! controller (`controller/tests/model/api.rs`). Here are the two kinds that speakers read and write.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::watcher::Event as Watched;
use landfall_controller::mind::{Change, Event as Told};
use landfall_crds::{
    Announce, Candidate, Claim, IPPool, PastAnnouncer, Placement, Speaker, SpeakerSpec, VirtualIP,
    VirtualIPSpec, VirtualIPStatus, virtual_ip_name,
};
use landfall_speaker::drivers::desk::{Key, Write, Written};
use landfall_speaker::drivers::virtual_ip_status::Known;
use landfall_speaker::lan::Vip;

use crate::process::Input;
use crate::random::draw;
use crate::world::{What, World, ms};

#[path = "../../../controller/tests/model/api.rs"]
#[allow(dead_code, unreachable_pub)] // The model uses it all.
mod store;

pub use store::{Api as Store, KINDS, NODES, SERVICES, SPEAKERS, VIPS};

/// The kinds that speakers watch.
const WATCHED: [usize; 2] = [VIPS, SPEAKERS];
/// How long a watch takes to bring a change where nothing is wrong, at least, and how much longer at most.
const LAG: Duration = Duration::from_millis(2);
const LAG_JITTER: Duration = Duration::from_millis(20);
/// How long a request or an answer takes.
const REQUEST: Duration = Duration::from_millis(1);
const REQUEST_JITTER: Duration = Duration::from_millis(5);
/// A watch that failed is begun again after so long at most (`watch.rs`).
const RECONNECT: Duration = Duration::from_secs(2);
/// A connection that died without a word is noticed after as long (`watch.rs`).
const NOTICED: Duration = Duration::from_secs(21);
/// A write that gets no answer has failed after as long (`report.rs`).
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// The server.
#[derive(Default)]
pub struct ApiServer {
    pub store: Store,
    /// When each entry of each log was made.
    times: [Vec<Instant>; KINDS],
    /// It does not answer anybody.
    pub away: bool,
    /// Counts the restores from a backup: what was watched before is to be listed anew.
    generation: u32,
}

/// All objects, as they were.
#[derive(Clone)]
pub struct Snapshot {
    version: u64,
    vips: BTreeMap<String, Arc<VirtualIP>>,
    speakers: BTreeMap<String, Arc<Speaker>>,
    services: BTreeMap<String, Arc<k8s_openapi::api::core::v1::Service>>,
    pools: BTreeMap<String, Arc<IPPool>>,
}

/// How far one node has followed one kind.
#[derive(Clone, Debug, Default)]
struct Watch {
    /// Up to where it was told; nothing before the first list.
    cursor: Option<usize>,
    generation: u32,
    /// When it brings something next.
    due: Option<Instant>,
}

/// A node's way to the API server.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Nothing passes, and nobody is told so.
    pub cut: bool,
    /// All news come so much later.
    pub lag: Duration,
    cuts: u64,
    watches: [Watch; 2],
}

impl ApiServer {
    /// Notes when what was written lately was written.
    fn stamp(&mut self, now: Instant) {
        for (log, times) in self.store.logs.iter().zip(&mut self.times) {
            times.resize(log.len(), now);
        }
    }

    /// When an entry of a log was made.
    pub fn time_of(&self, kind: usize, at: usize) -> Option<Instant> {
        self.times[kind].get(at).copied()
    }

    pub fn snapshot(&self) -> Snapshot {
        let Store { version, vips, speakers, services, pools, .. } = &self.store;
        let (vips, speakers) = (vips.clone(), speakers.clone());
        Snapshot { version: *version, vips, speakers, services: services.clone(), pools: pools.clone() }
    }

    fn restore(&mut self, snapshot: Snapshot) {
        let Snapshot { version, vips, speakers, services, pools } = snapshot;
        self.store.version = version;
        (self.store.vips, self.store.speakers) = (vips, speakers);
        (self.store.services, self.store.pools) = (services, pools);
        self.generation += 1;
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn vip(&self, address: IpAddr) -> Option<&Arc<VirtualIP>> {
        self.store.vips.get(&virtual_ip_name(address))
    }

    /// What a speaker wants written.
    fn write(&mut self, node: &str, write: Write) -> Written {
        match write {
            Write::CreateSpeaker if self.store.speakers.contains_key(node) => Written::Failed,
            Write::CreateSpeaker => {
                let speaker = self.store.put_speaker(Speaker::new(node, SpeakerSpec {}));
                Written::Speaker(Box::new((*speaker).clone()))
            }
            Write::SpeakerStatus(status) => {
                let Some(known) = self.store.speakers.get(node) else { return Written::Gone };
                let mut object = (**known).clone();
                object.status = Some(*status);
                let object = self.store.put_speaker(object);
                Written::Speaker(Box::new((*object).clone()))
            }
            Write::VirtualIpStatus { known, status } => {
                let Some(object) = self.store.vips.get(&known.name) else { return Written::Gone };
                let now = Known::of(object, node);
                if (&now.uid, &now.resource_version) != (&known.uid, &known.resource_version) {
                    return Written::Stale(Box::new(now));
                }
                let mut object = (**object).clone();
                let said = object.status.get_or_insert_default();
                said.announcer = status.announcer;
                said.last_announcers = status.last_announcers;
                said.conditions = status.conditions;
                let object = self.store.put_vip(object);
                Written::VirtualIp(Box::new(Known::of(&object, node)))
            }
        }
    }
}

/// The object of an address that is looked after like this.
pub fn object(
    vip: &Vip,
    known: Option<&VirtualIP>,
    since: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
) -> VirtualIP {
    let name = virtual_ip_name(vip.address);
    let mut object = known.cloned().unwrap_or_else(|| VirtualIP::new(&name, VirtualIPSpec::default()));
    let claim =
        Claim { namespace: "shop".into(), name: "web".into(), uid: "web-1".into(), ..Claim::default() };
    let candidate = |node: &landfall_speaker::lan::NodeName| Candidate { node: node.to_string() };
    object.spec.address = vip.address.to_string();
    object.spec.claims = if vip.claimed { vec![claim] } else { Vec::new() };
    object.spec.placement =
        Some(Placement { epoch: vip.epoch, candidates: vip.candidates.iter().map(candidate).collect() });
    object.spec.announce = Some(Announce { interfaces: vip.interfaces.clone(), fallback: vip.fallback });
    if vip.announced_before && object.status.is_none() {
        let past = PastAnnouncer { node: "n0".into(), since: since.clone(), until: since.clone() };
        object.status = Some(VirtualIPStatus { last_announcers: vec![past], ..VirtualIPStatus::default() });
    }
    object
}

impl World {
    /// Whether requests of a node get to the API server and answers back.
    pub fn reaches_api(&self, number: usize) -> bool {
        !self.api.away && !self.nodes[number].api.cut
    }

    /// Something was written: whoever watches hears of it.
    pub fn api_changed(&mut self) {
        self.api.stamp(self.now);
        self.refresh_truth();
        for number in 0..self.nodes.len() {
            for watch in 0..WATCHED.len() {
                self.await_news(number, watch);
            }
        }
        self.controller_awaits_news();
    }

    /// Sees to it that a watch brings what is new, when its time has come.
    fn await_news(&mut self, number: usize, watch: usize) {
        if self.nodes[number].process.is_none() || !self.reaches_api(number) {
            return;
        }
        let Watch { cursor: Some(at), due: None, .. } = self.nodes[number].api.watches[watch] else { return };
        let Some(made) = self.api.time_of(WATCHED[watch], at) else { return };
        let due = (made + self.lag(number, watch, at)).max(self.now);
        self.follow_at(number, watch, due);
    }

    fn lag(&self, number: usize, watch: usize, at: usize) -> Duration {
        let chance = draw([self.seed, number as u64, watch as u64, at as u64]);
        LAG + Duration::from_nanos(chance % LAG_JITTER.as_nanos() as u64) + self.nodes[number].api.lag
    }

    fn follow_at(&mut self, number: usize, watch: usize, due: Instant) {
        self.nodes[number].api.watches[watch].due = Some(due);
        self.schedule(due, What::Follow(number, watch));
    }

    /// Both watches of a node begin anew after up to so long: with a list where they cannot go on.
    pub fn begin_watches(&mut self, number: usize, within: Duration, anew: bool) {
        for watch in 0..WATCHED.len() {
            if anew {
                self.nodes[number].api.watches[watch].cursor = None;
            }
            let due = self.now + LAG + self.random.up_to(within);
            self.follow_at(number, watch, due);
        }
    }

    /// A watch brings what is due.
    pub fn follow(&mut self, number: usize, watch: usize) {
        let state = &mut self.nodes[number].api.watches[watch];
        if state.due.is_some_and(|due| due > self.now) {
            return;
        }
        state.due = None;
        if self.nodes[number].process.is_none() || !self.reaches_api(number) {
            return;
        }
        let generation = self.api.generation;
        let state = &mut self.nodes[number].api.watches[watch];
        if std::mem::replace(&mut state.generation, generation) != generation {
            state.cursor = None;
        }
        let kind = WATCHED[watch];
        let mut inputs = Vec::new();
        match state.cursor {
            None => {
                state.cursor = Some(self.api.store.logs[kind].len());
                inputs.push(Input::ApiAway(false));
                inputs.extend(self.listed(number, kind));
            }
            Some(mut at) => {
                while let Some(made) = self.api.time_of(kind, at) {
                    if made + self.lag(number, watch, at) > self.now {
                        break;
                    }
                    inputs.extend(self.watched(number, &self.api.store.logs[kind][at]));
                    at += 1;
                }
                self.nodes[number].api.watches[watch].cursor = Some(at);
            }
        }
        for input in inputs {
            self.arrive(number, input);
        }
        self.await_news(number, watch);
    }

    fn is_hidden(&self, number: usize, name: Option<&str>) -> bool {
        self.strangers
            .iter()
            .any(|(viewer, other)| *viewer == number && name == Some(&*self.nodes[*other].name))
    }

    fn watched(&self, number: usize, told: &Told) -> Option<Input> {
        Some(match told {
            Told::VirtualIp(Change::Applied(object)) => Input::Vip(Watched::Apply((**object).clone())),
            Told::VirtualIp(Change::Deleted(object)) => Input::Vip(Watched::Delete((**object).clone())),
            Told::Speaker(change) => {
                let (object, is_gone) = match change {
                    Change::Applied(object) => (object, false),
                    Change::Deleted(object) => (object, true),
                    Change::Listed(_) => return None,
                };
                if self.is_hidden(number, object.metadata.name.as_deref()) {
                    return None;
                }
                let object = (**object).clone();
                Input::Speaker(if is_gone { Watched::Delete(object) } else { Watched::Apply(object) })
            }
            _ => return None,
        })
    }

    fn listed(&self, number: usize, kind: usize) -> Vec<Input> {
        if kind == VIPS {
            let all = self.api.store.vips.values().map(|object| Watched::InitApply((**object).clone()));
            return [Watched::Init]
                .into_iter()
                .chain(all)
                .chain([Watched::InitDone])
                .map(Input::Vip)
                .collect();
        }
        let all = self.api.store.speakers.values();
        let all = all.filter(|object| !self.is_hidden(number, object.metadata.name.as_deref()));
        let all = all.map(|object| Watched::InitApply((**object).clone()));
        [Watched::Init].into_iter().chain(all).chain([Watched::InitDone]).map(Input::Speaker).collect()
    }

    /// A new process of a node lists everything before it takes over, and goes on watching from there.
    pub fn list_all(&mut self, number: usize) -> Vec<Input> {
        if !self.reaches_api(number) {
            return Vec::new();
        }
        let mut inputs = Vec::new();
        for (watch, kind) in WATCHED.into_iter().enumerate() {
            inputs.extend(self.listed(number, kind));
            let (cursor, generation) = (Some(self.api.store.logs[kind].len()), self.api.generation);
            self.nodes[number].api.watches[watch] = Watch { cursor, generation, due: None };
        }
        inputs
    }

    /// The API server answers nobody any more, or everybody again.
    pub fn set_api_away(&mut self, away: bool) {
        self.api.away = away;
        for number in 0..self.nodes.len() {
            if self.nodes[number].api.cut {
                continue;
            }
            if away {
                self.schedule(self.now + REQUEST, What::Hear(number, Input::ApiAway(true)));
            } else {
                self.meet_api_again(number);
            }
        }
        self.controller_awaits_news();
    }

    /// A node's way to the API server is cut, or mended.
    pub fn set_api_cut(&mut self, number: usize, cut: bool) {
        let way = &mut self.nodes[number].api;
        way.cut = cut;
        way.cuts += 1;
        let cuts = way.cuts;
        if cut {
            self.schedule(self.now + NOTICED, What::NoticeCut(number, cuts));
        } else if !self.api.away {
            self.meet_api_again(number);
        }
    }

    pub fn notice_cut(&mut self, number: usize, cuts: u64) {
        let way = &self.nodes[number].api;
        if way.cut && way.cuts == cuts {
            self.arrive(number, Input::ApiAway(true));
        }
    }

    fn meet_api_again(&mut self, number: usize) {
        // The history that a watch would go on with is sometimes gone.
        let anew = self.random.percent(30);
        self.begin_watches(number, RECONNECT, anew);
        self.schedule(self.now + RECONNECT, What::Hear(number, Input::ApiAway(false)));
    }

    /// The API server is as it was when the snapshot was made, and nobody was told.
    pub fn restore_api(&mut self, snapshot: Snapshot) {
        self.api.restore(snapshot);
        self.api_changed();
        for number in 0..self.nodes.len() {
            self.begin_watches(number, RECONNECT, true);
        }
        self.controller_awaits_news();
    }

    /// Has a process write what it wants written.
    pub fn send_writes(&mut self, number: usize) {
        let now = self.now;
        loop {
            let start = self.start;
            let node = &mut self.nodes[number];
            let Some(process) = node.process.as_mut() else { return };
            let local = node.clock.local(now);
            let wall = crate::node::wall_at(local - start, node.wall_error);
            let Some((key, write)) = process.next_write(local, wall) else { return };
            let incarnation = process.incarnation;
            if !self.status_flows {
                // It is never answered, and little more is written as long as that is awaited.
                continue;
            }
            let what = if self.reaches_api(number) {
                let at = now + self.on_the_way();
                (at, What::Request(number, incarnation, key, Box::new(write)))
            } else {
                let after = if self.api.away { REQUEST } else { WRITE_LIMIT };
                (now + after, What::Answer(number, incarnation, key, Written::Failed))
            };
            self.schedule(what.0, what.1);
        }
    }

    /// A request comes to the API server.
    pub fn request(&mut self, number: usize, incarnation: u64, key: Key, write: Write) {
        let name = self.nodes[number].name.clone();
        let answer = if self.reaches_api(number) {
            let written = self.api.write(&name, write);
            self.writes += 1;
            self.api_changed();
            let at = self.now + self.on_the_way();
            (at, written)
        } else {
            (self.now + WRITE_LIMIT, Written::Failed)
        };
        self.schedule(answer.0, What::Answer(number, incarnation, key, answer.1));
    }

    /// An answer of the API server comes to the process that waits for it.
    pub fn answer(&mut self, number: usize, incarnation: u64, key: Key, written: Written) {
        let process = self.nodes[number].process.as_ref();
        if process.is_some_and(|process| process.incarnation == incarnation) {
            self.arrive(number, Input::Written(key, written));
        }
    }

    pub fn on_the_way(&mut self) -> Duration {
        REQUEST + self.random.up_to(REQUEST_JITTER)
    }

    /// Writes an address as the controller would.
    pub fn write_vip(&mut self, vip: &Vip) {
        self.api.store.now = wall_second(self);
        let known = self.api.vip(vip.address).map(Arc::clone);
        let since = self.api.store.time();
        self.api.store.put_vip(object(vip, known.as_deref(), &since));
        self.api_changed();
    }

    /// The object of an address goes, as when somebody deletes it by mistake.
    pub fn delete_vip(&mut self, address: IpAddr) {
        self.api.store.delete_vip(&virtual_ip_name(address));
        self.told_at = self.now;
        self.api_changed();
    }

    /// How far a node lags behind the API, in changes of addresses.
    pub fn lags_behind(&self, number: usize) -> bool {
        let watch = &self.nodes[number].api.watches[0];
        watch.generation != self.api.generation || watch.cursor != Some(self.api.store.logs[VIPS].len())
    }
}

fn wall_second(world: &World) -> i64 {
    crate::node::wall_at(world.elapsed(), 0).as_second()
}

/// How long after a change nodes that lag no more than usual have heard of it.
pub fn usual_lag() -> Duration {
    LAG + LAG_JITTER + ms(1)
}
