//! The mind that exposes ExternalName Services: what happens and time in, queries, deeds and conditions out.
//!
//! For each Service that asks for it: may it lead to what its name leads to, and what do its companion and the
//! companion's slices lack? One deed at a time. What it may lead to is judged at every look anew, and it is looked at
//! when DNS answers, when the Service or something of the companion changes, and when the surroundings do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use landfall_crds::ClaimRef;
use landfall_crds::address::Family;
use landfall_crds::names::annotations::{POOL, RESOLVED_FROM};
use landfall_crds::names::conditions::EXPOSED;
use tokio::sync::mpsc;

use super::companion;
use super::deeds::{Act, Deed};
use super::request::{self, RequestError};
use super::surroundings::Surroundings;
use super::targets::{Denied, judge};
use crate::conditions::{Wanted, find};
use crate::effects::{Effect, Exactly, Note, Outcome, Refusal};
use crate::external_name::cluster::{Route, external_name, way};
use crate::external_name::lead::{HANDOVER, Lead, Source};
use crate::external_name::metrics::Metrics;
use crate::external_name::mind as external;
use crate::external_name::name::DnsName;
use crate::external_name::resolution::{self, Resolution, Standing};
use crate::granting::named;
use crate::granting::request::annotation;
use crate::granting::wait::some_of;
use crate::mind::pending::Pending;
use crate::mind::subject::{Subject, exactly, key};
use crate::mind::{Change, Event, Now};
use crate::run::Decide;
use crate::status::conditions_of;
use crate::teller::{Paces, Teller, Told, note};
use crate::world::endpoints;
use crate::world::store::Store;

/// The condition types that are ours.
pub const OURS: [&str; 1] = [EXPOSED];

/// So many addresses are named.
const MOST: usize = 4;
/// How long changes of the surroundings are gathered before all is judged anew.
const GATHER: Duration = Duration::from_millis(500);
/// How long the first answer is waited for before it is said that there is none yet.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often names are counted for the metrics.
const COUNTING: Duration = Duration::from_secs(5);

/// Reasons of `landfall.dev/Exposed`, beside those of [`RequestError`].
pub mod reasons {
    /// The companion leads to the addresses in the message.
    pub const EXPOSED: &str = "Exposed";
    /// The name of the companion would be too long.
    pub const NAME_TOO_LONG: &str = "NameTooLong";
    /// Another Service has the companion's name.
    pub const NAME_COLLISION: &str = "NameCollision";
    /// No pool lets the namespace lead anywhere.
    pub const NOT_ALLOWED: &str = "NotAllowed";
    /// The name is no good, or leads to a Service of the cluster.
    pub const NO_TARGET: &str = "NoTarget";
    /// Nothing of what DNS says may be led to.
    pub const TARGET_REFUSED: &str = "TargetRefused";
    /// DNS knows no address.
    pub const NO_ADDRESS: &str = "NoAddress";
    /// DNS has not answered yet.
    pub const RESOLVING: &str = "Resolving";
    /// The API server refuses the companion or its slices.
    pub const WRITE_REFUSED: &str = "WriteRefused";

    /// All of them.
    pub const ALL: [&str; 11] = [
        EXPOSED,
        "PortsInvalid",
        "SourceRangesInvalid",
        NAME_TOO_LONG,
        NAME_COLLISION,
        NOT_ALLOWED,
        NO_TARGET,
        TARGET_REFUSED,
        NO_ADDRESS,
        RESOLVING,
        WRITE_REFUSED,
    ];
}

/// What the mind is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The domain of the cluster's own names.
    pub domain: DnsName,
    /// How names are resolved.
    pub resolution: resolution::Config,
    /// Whether a pool without a namespaceSelector serves no namespace.
    pub default_deny: bool,
}

/// The last addresses that a Service was allowed to lead to.
#[derive(Clone, Debug)]
struct Kept {
    /// The name that they were resolved from.
    name: String,
    addresses: Vec<IpAddr>,
    /// When DNS said so last.
    good: Instant,
}

/// One Service that is exposed.
#[derive(Debug)]
struct Exposed {
    lead: Option<Lead>,
    /// Since when it leads to the name that it leads to.
    turned: Instant,
    kept: Option<Kept>,
    /// Names that are followed for it.
    follows: BTreeSet<DnsName>,
    /// Services that it leads through.
    through: BTreeSet<ClaimRef>,
    /// What the API server said to the last deed, if it refused it.
    refused: Option<String>,
}

/// What a Service may lead to now.
#[derive(Debug, Default)]
struct Targets {
    addresses: Vec<IpAddr>,
    refused: Vec<(IpAddr, Denied)>,
    /// The name that the addresses were resolved from.
    name: String,
}

/// All Services that are exposed.
pub struct Exposer {
    config: Config,
    services: Store<ClaimRef, Service>,
    /// Ours alone.
    slices: Store<ClaimRef, EndpointSlice>,
    slices_of: BTreeMap<ClaimRef, BTreeSet<ClaimRef>>,
    surroundings: Surroundings,
    resolution: Resolution,
    exposed: BTreeMap<ClaimRef, Exposed>,
    users: BTreeMap<DnsName, BTreeSet<ClaimRef>>,
    dependents: BTreeMap<ClaimRef, BTreeSet<ClaimRef>>,
    teller: Teller,
    /// Deeds under way, by the ExternalName Service.
    pending: Pending,
    /// When all is to be judged anew.
    reconsider: Option<Instant>,
    dirty: BTreeSet<ClaimRef>,
    leading: bool,
    acting: bool,
    step: u64,
    queries: mpsc::UnboundedSender<DnsName>,
    metrics: Metrics,
    counted: Option<Instant>,
}

impl Exposer {
    /// Knows nothing yet. `queries` leads to who asks DNS.
    pub fn new(config: Config, queries: mpsc::UnboundedSender<DnsName>, metrics: Metrics) -> Self {
        Self {
            resolution: Resolution::new(config.resolution.clone()),
            config,
            services: Store::default(),
            slices: Store::default(),
            slices_of: BTreeMap::new(),
            surroundings: Surroundings::default(),
            exposed: BTreeMap::new(),
            users: BTreeMap::new(),
            dependents: BTreeMap::new(),
            teller: Teller::new(&OURS, Paces::default()),
            pending: Pending::default(),
            reconsider: None,
            dirty: BTreeSet::new(),
            leading: false,
            acting: false,
            step: 0,
            queries,
            metrics,
            counted: None,
        }
    }

    fn on_services(&mut self, change: &Change<Service>) {
        match change {
            Change::Applied(service) => self.see_service(service),
            Change::Deleted(service) => {
                let key = key(&service.metadata);
                if self.services.deleted(&key, service).is_some() {
                    self.mark(&key);
                }
            }
            Change::Listed(all) => {
                let listed = all.iter().map(|service| key(&service.metadata)).collect();
                for gone in self.services.missing_from(&listed) {
                    self.services.remove(&gone);
                    self.mark(&gone);
                }
                for service in all {
                    self.see_service(service);
                }
            }
        }
    }

    fn see_service(&mut self, service: &Arc<Service>) {
        let key = key(&service.metadata);
        self.services.offer(&key, Arc::clone(service), self.step, None);
        self.mark(&key);
    }

    /// Looks at a Service, at the one whose companion it may be, and at those that lead there.
    fn mark(&mut self, key: &ClaimRef) {
        self.dirty.extend(companion::original_of(key));
        self.dirty.extend(self.dependents.get(key).into_iter().flatten().cloned());
        self.dirty.insert(key.clone());
    }

    fn on_slices(&mut self, change: &Change<EndpointSlice>) {
        match change {
            Change::Applied(slice) => self.see_slice(slice),
            Change::Deleted(slice) => {
                let key = endpoints::key(slice);
                if let Some(was) = self.slices.deleted(&key, slice) {
                    self.slice_gone(&key, &was);
                }
            }
            Change::Listed(all) => {
                let ours = all.iter().filter(|slice| companion::is_ours(slice));
                let listed = ours.clone().map(|slice| endpoints::key(slice)).collect();
                for key in self.slices.missing_from(&listed) {
                    if let Some(was) = self.slices.remove(&key) {
                        self.slice_gone(&key, &was);
                    }
                }
                for slice in ours {
                    self.see_slice(slice);
                }
            }
        }
    }

    fn see_slice(&mut self, slice: &Arc<EndpointSlice>) {
        let key = endpoints::key(slice);
        if !companion::is_ours(slice) {
            if let Some(was) = self.slices.remove(&key) {
                self.slice_gone(&key, &was);
            }
            return;
        }
        if let Some(of) = companion_of(slice) {
            self.slices.offer(&key, Arc::clone(slice), self.step, None);
            self.slices_of.entry(of.clone()).or_default().insert(key);
            self.dirty.extend(companion::original_of(&of));
        }
    }

    fn slice_gone(&mut self, key: &ClaimRef, slice: &EndpointSlice) {
        let Some(of) = companion_of(slice) else { return };
        if let Some(slices) = self.slices_of.get_mut(&of) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices_of.remove(&of);
            }
        }
        self.dirty.extend(companion::original_of(&of));
    }

    fn ask(&mut self, now: Now, event: resolution::Event) {
        let mut actions = Vec::new();
        self.resolution.handle(now.monotonic, event, &mut actions);
        for action in actions {
            match action {
                // Nobody listens any more when the process ends.
                resolution::Action::Query(name) => drop(self.queries.send(name)),
                resolution::Action::Changed(name) => {
                    self.dirty.extend(self.users.get(&name).into_iter().flatten().cloned());
                }
            }
        }
    }

    fn on_done(&mut self, now: Now, effect: &Effect, outcome: &Outcome, out: &mut Vec<Effect>) {
        match outcome {
            Outcome::Service(service) => self.see_service(service),
            Outcome::Slice(slice) => self.see_slice(slice),
            _ => {}
        }
        if let Some((key, notes)) = self.teller.done(now, effect, outcome) {
            out.extend(notes.into_iter().map(Effect::Publish));
            self.dirty.insert(key);
        }
        let Effect::Expose(deed) = effect else { return };
        let subject = Subject::Service(deed.original.clone());
        if self.pending.lands(&subject).is_none() {
            return;
        }
        let mut refused = None;
        match outcome {
            Outcome::Refused(Refusal::Busy { after, .. }) => {
                self.pending.put_off(&subject, now.monotonic, *after);
            }
            Outcome::Refused(refusal) => {
                if let Refusal::Invalid(message) = refusal {
                    refused = Some(message.clone());
                }
                self.pending.failed(&subject, now.monotonic);
            }
            // What is gone and should not be is seen to be so by the watch, in a moment.
            Outcome::Gone | Outcome::Done => {
                if let Act::DeleteSlice(slice) = &deed.act {
                    let key = ClaimRef { namespace: slice.namespace.clone(), name: slice.name.clone() };
                    if let Some(was) = self.slices.remove(&key) {
                        self.slice_gone(&key, &was);
                    }
                    self.pending.succeeded(&subject);
                } else {
                    self.pending.failed(&subject, now.monotonic);
                }
            }
            _ => self.pending.succeeded(&subject),
        }
        if let Some(exposed) = self.exposed.get_mut(&deed.original) {
            exposed.refused = refused;
        }
        self.dirty.insert(deed.original.clone());
    }

    fn look(&mut self, now: Now, key: &ClaimRef, out: &mut Vec<Effect>) {
        let subject = Subject::Service(key.clone());
        self.teller.is_looked_at(key);
        self.pending.is_looked_at(&subject);
        let service = self.services.get(key).cloned();
        let asked = service.as_ref().filter(|service| request::is_asked_for(service));
        let Some(service) = asked else {
            self.let_go(now, key);
            match service {
                Some(service) => self.withdraw(now, key, &service, out),
                None => self.teller.forget(key),
            }
            return;
        };
        let wanted = self.expose(now, key, service, out);
        self.tell(now, key, service, &wanted.into_iter().collect::<Vec<_>>(), out);
    }

    /// Takes away what was made for a Service that is not to be exposed any more.
    fn withdraw(&mut self, now: Now, key: &ClaimRef, service: &Service, out: &mut Vec<Effect>) {
        let is_told = find(conditions_of(service), EXPOSED).is_some();
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let companion = companion::key_of(key).and_then(|key| self.services.get(&key).cloned());
        let companion = companion.filter(|companion| companion::is_owned_by(&companion.metadata, uid));
        if let Some(companion) = companion.filter(|found| found.metadata.deletion_timestamp.is_none()) {
            self.act(now, key, Act::DeleteCompanion(exactly(&companion.metadata)), out);
        }
        if is_told {
            self.tell(now, key, service, &[], out);
        }
    }

    fn tell(
        &mut self,
        now: Now,
        key: &ClaimRef,
        service: &Service,
        wanted: &[Wanted],
        out: &mut Vec<Effect>,
    ) {
        let notes = || notes(service, wanted);
        if let Told::Write(effect) = self.teller.tell(now, (key, service), wanted, false, notes) {
            out.push(effect);
        }
    }

    /// Begins a deed if none is under way and no pause is running.
    fn act(&mut self, now: Now, key: &ClaimRef, act: Act, out: &mut Vec<Effect>) {
        let subject = Subject::Service(key.clone());
        if self.pending.may_act(&subject, &subject, now.monotonic) {
            self.pending.takes_off(subject, self.step, Vec::new());
            out.push(Effect::Expose(Deed { original: key.clone(), act }));
        }
    }

    /// Does the next thing that is lacking, and returns what is to be said; nothing while that is in doubt.
    fn expose(
        &mut self,
        now: Now,
        key: &ClaimRef,
        service: &Service,
        out: &mut Vec<Effect>,
    ) -> Option<Wanted> {
        let bad = |reason, message: String| Some(Wanted::new(EXPOSED, false, reason, message));
        let Some(companion_key) = companion::key_of(key) else {
            let message =
                "the companion's name would be longer than 63 characters: give the Service a shorter name";
            return bad(reasons::NAME_TOO_LONG, message.to_owned());
        };
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let companion = self.services.get(&companion_key).cloned();
        if companion.as_ref().is_some_and(|found| !companion::is_owned_by(&found.metadata, uid)) {
            let message = format!(
                "there is another Service {}, which is the companion's name: rename one of the two",
                named(&companion_key)
            );
            return bad(reasons::NAME_COLLISION, message);
        }
        let companion = companion.filter(|found| found.metadata.deletion_timestamp.is_none());
        let request = request::read(service);
        let listed =
            self.surroundings.listed_for(&key.namespace, annotation(service, POOL), self.config.default_deny);
        let route = self.follow(now, key, service);
        let targets = self.targets(now, key, companion.as_deref(), &listed);
        // The slices first: what must not be led to any more goes before all else.
        if let Some(companion) = &companion {
            let ports = match &request {
                Ok(request) => request.ports.clone(),
                Err(_) => companion::ports_of(companion),
            };
            if let Some(act) = self.next_slice(companion, &companion_key, &targets, &ports) {
                self.act(now, key, act, out);
            } else if let Ok(request) = &request
                && let Some(patch) = companion::mend(companion, request)
            {
                self.act(now, key, Act::MendCompanion(exactly(&companion.metadata), Box::new(patch)), out);
            }
        } else if let Ok(request) = &request
            && !targets.addresses.is_empty()
        {
            let create = companion::create(service, &companion_key, request);
            self.act(now, key, Act::CreateCompanion(Box::new(create)), out);
        }

        if let Some(refused) = self.exposed.get(key).and_then(|exposed| exposed.refused.clone()) {
            return bad(reasons::WRITE_REFUSED, format!("the API server refuses what is wanted: {refused}"));
        }
        if let Err(error) = &request {
            return bad(RequestError::reason(error), error.to_string());
        }
        if listed.is_empty() {
            let message = "no pool that serves the namespace lists externalTargets: ask an administrator to list the \
                           addresses that the name leads to";
            return bad(reasons::NOT_ALLOWED, message.to_owned());
        }
        if let Some(message) = route {
            return bad(reasons::NO_TARGET, message);
        }
        self.verdict(now, key, &companion_key, companion.is_some(), &targets)
    }

    /// What is to be said of a Service whose request is good.
    fn verdict(
        &mut self,
        now: Now,
        key: &ClaimRef,
        companion: &ClaimRef,
        is_there: bool,
        targets: &Targets,
    ) -> Option<Wanted> {
        let bad = |reason, message: String| Some(Wanted::new(EXPOSED, false, reason, message));
        let told = targets.refused.iter().map(|(address, why)| format!("{address} {why}"));
        let refused = some_of(told, MOST);
        let leads = match &targets.addresses[..] {
            [] => String::new(),
            addresses => format!("Service {} leads to {}", companion.name, some_of(addresses, MOST)),
        };
        if !targets.refused.is_empty() && self.is_all_refused(key, targets) {
            let stays = if leads.is_empty() { String::new() } else { format!("; {leads} as before") };
            let message = format!(
                "the name leads where the Service must not: {refused}: correct the name, or ask an administrator{stays}"
            );
            return bad(reasons::TARGET_REFUSED, message);
        }
        if targets.addresses.is_empty() {
            let exposed = self.exposed.get(key)?;
            let lead = exposed.lead.as_ref()?;
            let state = self.resolution.state(lead.name())?;
            let message = format!("there is no address for {}: see landfall.dev/Resolved", lead.name());
            let until = exposed.turned + PATIENCE;
            return match state.standing {
                Standing::Unknown if now.monotonic < until => {
                    self.teller.wake(key, until);
                    None
                }
                Standing::Unknown => Some(Wanted {
                    status: "Unknown",
                    ..Wanted::new(EXPOSED, false, reasons::RESOLVING, "DNS has not answered yet")
                }),
                _ => bad(reasons::NO_ADDRESS, message),
            };
        }
        // Said once it is so.
        if !is_there {
            return None;
        }
        let but = if refused.is_empty() { String::new() } else { format!("; not used: {refused}") };
        Some(Wanted::new(EXPOSED, true, reasons::EXPOSED, format!("{leads}{but}")))
    }

    /// Whether none of what DNS says now may be led to.
    fn is_all_refused(&self, key: &ClaimRef, targets: &Targets) -> bool {
        let lead = self.exposed.get(key).and_then(|exposed| exposed.lead.as_ref());
        let now: Vec<IpAddr> = lead.map(|lead| lead.addresses(&self.resolution).0).unwrap_or_default();
        !now.iter().any(|address| targets.addresses.contains(address))
    }

    /// Notes where the Service leads and follows the name there. Returns what is wrong if it leads nowhere.
    fn follow(&mut self, now: Now, key: &ClaimRef, service: &Service) -> Option<String> {
        let text = external_name(service).unwrap_or_default();
        let found = |key: &ClaimRef| self.services.get(key).map(|service| &**service);
        let way = way(key, text, &self.config.domain, found);
        let (name, wrong) = match way.route {
            Route::Dns(name) if !way.is_inside || !name.is_within(&self.config.domain) => (Some(name), None),
            Route::Dns(_) | Route::Service(_) | Route::Missing(_) => {
                let message =
                    format!("{text} leads into this cluster: make a Service of type LoadBalancer there");
                (None, Some(message))
            }
            Route::Nowhere(_) | Route::NowhereBy(..) | Route::TooLong => (
                None,
                Some(format!("{text} leads nowhere: see landfall.dev/NameValid and landfall.dev/Resolved")),
            ),
        };
        let through: BTreeSet<ClaimRef> = way.through.into_iter().collect();
        let exposed = self.exposed.entry(key.clone()).or_insert_with(|| Exposed {
            lead: None,
            turned: now.monotonic,
            kept: None,
            follows: BTreeSet::new(),
            through: BTreeSet::new(),
            refused: None,
        });
        match (&mut exposed.lead, name) {
            (Some(lead), Some(name)) => {
                if *lead.name() != name {
                    exposed.turned = now.monotonic;
                }
                lead.turn(now.monotonic, name, &self.resolution);
                lead.settle(now.monotonic, &self.resolution);
            }
            (lead, name) => {
                exposed.turned = now.monotonic;
                *lead = name.map(Lead::new);
            }
        }
        let follows: BTreeSet<DnsName> = exposed.lead.iter().flat_map(Lead::names).cloned().collect();
        let deadline = exposed.lead.as_ref().and_then(Lead::next_deadline);
        let before = std::mem::replace(&mut exposed.follows, follows.clone());
        let through_before = std::mem::replace(&mut exposed.through, through.clone());
        if let Some(deadline) = deadline {
            self.pending.wake(&Subject::Service(key.clone()), deadline);
        }
        self.change_users(now, key, &before, &follows);
        for by in through_before.difference(&through) {
            external::take_out(&mut self.dependents, by, key);
        }
        for by in through {
            self.dependents.entry(by).or_default().insert(key.clone());
        }
        wrong
    }

    fn change_users(
        &mut self,
        now: Now,
        key: &ClaimRef,
        before: &BTreeSet<DnsName>,
        after: &BTreeSet<DnsName>,
    ) {
        for name in after.difference(before) {
            let users = self.users.entry(name.clone()).or_default();
            let is_first = users.is_empty();
            users.insert(key.clone());
            if is_first {
                self.ask(now, resolution::Event::Follow(name.clone()));
            }
        }
        for name in before.difference(after) {
            if external::take_out(&mut self.users, name, key) {
                self.ask(now, resolution::Event::Leave(name.clone()));
            }
        }
    }

    fn let_go(&mut self, now: Now, key: &ClaimRef) {
        let Some(exposed) = self.exposed.remove(key) else { return };
        self.change_users(now, key, &exposed.follows, &BTreeSet::new());
        for by in &exposed.through {
            external::take_out(&mut self.dependents, by, key);
        }
    }

    /// What the Service may lead to now: what DNS says of its name, as far as that is allowed; where nothing of it is,
    /// or DNS says nothing, what it was allowed to lead to before, as far as it still is, and for a bounded time.
    fn targets(
        &mut self,
        now: Now,
        key: &ClaimRef,
        companion: Option<&Service>,
        listed: &[ipnet::IpNet],
    ) -> Targets {
        let now = now.monotonic;
        let recalled = companion.and_then(|companion| self.recall(now, companion));
        let Some(exposed) = self.exposed.get_mut(key) else { return Targets::default() };
        let Some(lead) = &exposed.lead else { return Targets::default() };
        if exposed.kept.is_none() {
            exposed.kept = recalled;
        }
        let (addresses, source) = lead.addresses(&self.resolution);
        let serving = match &source {
            Source::Former(name) => name,
            Source::Name | Source::Nothing => lead.name(),
        };
        let state = self.resolution.state(serving);
        let mut targets = Targets { name: serving.to_string(), ..Targets::default() };
        for address in &addresses {
            match judge(*address, self.surroundings.own(*address), listed) {
                Ok(()) => targets.addresses.push(*address),
                Err(why) => targets.refused.push((*address, why)),
            }
        }
        if !targets.addresses.is_empty() {
            let good = state.and_then(|state| state.good).unwrap_or(now);
            let addresses = targets.addresses.clone();
            exposed.kept = Some(Kept { name: targets.name.clone(), addresses, good });
            return targets;
        }
        let is_gone = addresses.is_empty()
            && state.is_some_and(|state| matches!(state.standing, Standing::Absent { confirmed: true, .. }));
        let of_this_name = |kept: &Kept| kept.name == lead.name().as_str();
        let until = |kept: &Kept| {
            let bound = kept.good + self.config.resolution.last_good_for;
            if of_this_name(kept) { bound } else { bound.min(exposed.turned + HANDOVER) }
        };
        match exposed.kept.as_ref().filter(|kept| !is_gone && now < until(kept)) {
            Some(kept) => {
                let allowed =
                    |address: &&IpAddr| judge(**address, self.surroundings.own(**address), listed).is_ok();
                targets.addresses = kept.addresses.iter().filter(allowed).copied().collect();
                targets.name.clone_from(&kept.name);
                self.pending.wake(&Subject::Service(key.clone()), until(kept));
            }
            None => exposed.kept = None,
        }
        targets
    }

    /// What the slices of the companion hold: what a process before this one was allowed to lead to.
    fn recall(&self, now: Instant, companion: &Service) -> Option<Kept> {
        let slices = self.slices_of.get(&key(&companion.metadata)).into_iter().flatten();
        let slices: Vec<&Arc<EndpointSlice>> = slices.filter_map(|key| self.slices.get(key)).collect();
        let addresses: Vec<IpAddr> = slices.iter().flat_map(|slice| companion::addresses_of(slice)).collect();
        let name = slices.iter().find_map(|slice| slice.metadata.annotations.as_ref()?.get(RESOLVED_FROM))?;
        (!addresses.is_empty()).then(|| Kept { name: name.clone(), addresses, good: now })
    }

    /// What the slices of a companion lack.
    fn next_slice(
        &self,
        companion: &Service,
        key: &ClaimRef,
        targets: &Targets,
        ports: &[request::ExposedPort],
    ) -> Option<Act> {
        let known = self.slices_of.get(key).into_iter().flatten();
        let known: BTreeMap<&str, &Arc<EndpointSlice>> =
            known.filter_map(|key| Some((key.name.as_str(), self.slices.get(key)?))).collect();
        let mut names = BTreeSet::new();
        for family in [Family::IPv4, Family::IPv6] {
            let wanted = companion::slice(companion, family, &targets.addresses, ports, &targets.name);
            let name = wanted.metadata.name.clone().unwrap_or_default();
            let found = known.get(name.as_str());
            // One family that nobody ever had needs no empty slice.
            let is_needed = found.is_some() || !wanted.endpoints.is_empty();
            if is_needed && !found.is_some_and(|found| companion::is_as_wanted(found, &wanted)) {
                return Some(Act::ApplySlice(Box::new(wanted)));
            }
            names.insert(name);
        }
        let extra = known.iter().find(|(name, _)| !names.contains(**name));
        extra.map(|(_, slice)| Act::DeleteSlice(exactly_of(&***slice)))
    }

    fn stand_down(&mut self) {
        self.resolution = Resolution::new(self.config.resolution.clone());
        self.exposed.clear();
        self.users.clear();
        self.dependents.clear();
        self.teller = Teller::new(&OURS, Paces::default());
        self.pending = Pending::default();
        self.reconsider = None;
    }

    fn mark_all(&mut self) {
        self.dirty.extend(self.exposed.keys().cloned());
        let asking = self.services.iter().filter(|(_, service)| {
            request::is_asked_for(service) || find(conditions_of(service), EXPOSED).is_some()
        });
        let asking: Vec<ClaimRef> = asking.map(|(key, _)| key.clone()).collect();
        self.dirty.extend(asking);
    }
}

impl Decide for Exposer {
    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.step += 1;
        if self.surroundings.take(&event) {
            self.reconsider.get_or_insert(now.monotonic + GATHER);
        }
        match event {
            Event::Service(change) => self.on_services(&change),
            Event::EndpointSlice(change) => self.on_slices(&change),
            Event::Answered(name, answer) => self.ask(now, resolution::Event::Answered(name, answer)),
            Event::Done { effect, outcome } => self.on_done(now, &effect, &outcome, out),
            Event::Leading(leading) => self.leading = leading,
            _ => {}
        }
        let is_informed = self.services.listed && self.slices.listed && self.surroundings.is_complete();
        if !(self.leading && is_informed) {
            if std::mem::replace(&mut self.acting, false) {
                self.stand_down();
            }
            self.dirty.clear();
            return;
        }
        if !std::mem::replace(&mut self.acting, true) {
            self.mark_all();
        }
        if self.reconsider.is_some_and(|at| at <= now.monotonic) {
            self.reconsider = None;
            self.mark_all();
        }
        self.ask(now, resolution::Event::Deadline);
        self.dirty.extend(self.teller.due(now.monotonic));
        for subject in self.pending.due(now.monotonic) {
            if let Subject::Service(key) = subject {
                self.dirty.insert(key);
            }
        }
        while let Some(key) = self.dirty.pop_first() {
            self.look(now, &key, out);
        }
        if self.counted.is_none_or(|counted| counted + COUNTING <= now.monotonic) {
            self.counted = Some(now.monotonic);
            self.metrics.standings(self.resolution.states().map(|(_, state)| state.standing));
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.teller.next_deadline(),
            self.pending.next_deadline(),
            self.resolution.next_deadline(),
            self.reconsider,
        ];
        if self.acting { deadlines.into_iter().flatten().min() } else { None }
    }
}

/// The companion that a slice is for.
fn companion_of(slice: &EndpointSlice) -> Option<ClaimRef> {
    use landfall_crds::names::labels::SERVICE_NAME;
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
    Some(ClaimRef { namespace: slice.metadata.namespace.clone().unwrap_or_default(), name })
}

fn exactly_of<K: Resource>(object: &K) -> Exactly {
    exactly(object.meta())
}

/// One Event when exposing fails for another reason than before, or comes right after it failed.
fn notes(service: &Service, wanted: &[Wanted]) -> Vec<Note> {
    let known = find(conditions_of(service), EXPOSED);
    let is_news = |wanted: &&Wanted| {
        let before = known.filter(|known| known.status != "Unknown");
        wanted.status != "Unknown"
            && before.is_none_or(|before| before.status != wanted.status || before.reason != wanted.reason)
    };
    wanted.iter().filter(is_news).map(|wanted| note(service, wanted, wanted.status == "False")).collect()
}

#[cfg(test)]
#[path = "mind_tests.rs"]
mod tests;
