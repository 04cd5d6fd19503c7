//! In which order effects are tried: different objects side by side, the same object in turn, and all of
//! them no faster than the API server is to be asked.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::effects::{Effect, Exactly, Refusal};
use crate::effects::{Note, Outcome};

/// The object that an effect is about: kind, namespace (empty if cluster-scoped), name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    kind: &'static str,
    namespace: String,
    name: String,
}

impl Effect {
    /// The names of all effects, as metric labels and fault points spell them.
    pub const NAMES: [&'static str; 16] = [
        "AddFinalizers",
        "RemoveFinalizers",
        "CreateVirtualIp",
        "UpdateVirtualIp",
        "SetVirtualIpStatus",
        "DeleteVirtualIp",
        "UnclaimVirtualIp",
        "CreateServiceGuard",
        "UpdateServiceGuard",
        "DeleteServiceGuard",
        "SetIngress",
        "SetConditions",
        "SetPoolStatus",
        "GetService",
        "GetVirtualIp",
        "Publish",
    ];

    /// The name of this kind of effect.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AddFinalizers { .. } => "AddFinalizers",
            Self::RemoveFinalizers { .. } => "RemoveFinalizers",
            Self::CreateVirtualIp { .. } => "CreateVirtualIp",
            Self::UpdateVirtualIp { .. } => "UpdateVirtualIp",
            Self::SetVirtualIpStatus { .. } => "SetVirtualIpStatus",
            Self::DeleteVirtualIp { .. } => "DeleteVirtualIp",
            Self::UnclaimVirtualIp { .. } => "UnclaimVirtualIp",
            Self::CreateServiceGuard { .. } => "CreateServiceGuard",
            Self::UpdateServiceGuard { .. } => "UpdateServiceGuard",
            Self::DeleteServiceGuard { .. } => "DeleteServiceGuard",
            Self::SetIngress { .. } => "SetIngress",
            Self::SetConditions { .. } => "SetConditions",
            Self::SetPoolStatus { .. } => "SetPoolStatus",
            Self::GetService { .. } => "GetService",
            Self::GetVirtualIp { .. } => "GetVirtualIp",
            Self::Publish(_) => "Publish",
        }
    }

    /// Whether it only reads, so that it needs no Lease.
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::GetService { .. } | Self::GetVirtualIp { .. })
    }

    /// Whether it changes nothing about who has which address and only tells people how things are.
    fn only_tells(&self) -> bool {
        matches!(self, Self::SetConditions { .. } | Self::SetPoolStatus { .. })
    }

    pub(super) fn target(&self) -> Target {
        let exactly = |kind, object: &Exactly| Target {
            kind,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        match self {
            Self::AddFinalizers { service }
            | Self::RemoveFinalizers { service }
            | Self::SetIngress { service, .. }
            | Self::SetConditions { service, .. } => exactly("Service", service),
            Self::UpdateVirtualIp { virtual_ip, .. }
            | Self::SetVirtualIpStatus { virtual_ip, .. }
            | Self::DeleteVirtualIp { virtual_ip }
            | Self::UnclaimVirtualIp { virtual_ip } => exactly("VirtualIP", virtual_ip),
            Self::UpdateServiceGuard { guard, .. } | Self::DeleteServiceGuard { guard } => {
                exactly("ServiceGuard", guard)
            }
            Self::SetPoolStatus { pool, .. } => exactly("IPPool", pool),
            Self::CreateVirtualIp { name, .. } | Self::GetVirtualIp { name } => {
                Target { kind: "VirtualIP", namespace: String::new(), name: name.clone() }
            }
            Self::CreateServiceGuard { name, .. } => {
                Target { kind: "ServiceGuard", namespace: String::new(), name: name.clone() }
            }
            Self::GetService { namespace, name } => {
                Target { kind: "Service", namespace: namespace.clone(), name: name.clone() }
            }
            Self::Publish(Note { kind, namespace, name, .. }) => {
                Target { kind, namespace: namespace.clone(), name: name.clone() }
            }
        }
    }
}

impl Outcome {
    /// The name of this outcome, as the metric label spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Service(_) | Self::VirtualIp(_) | Self::ServiceGuard(_) | Self::Pool(_) | Self::Done => {
                "Done"
            }
            Self::Gone => "Gone",
            Self::Refused(refusal) => refusal.name(),
        }
    }
}

impl Refusal {
    /// The name of this refusal, as the metric label spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::AlreadyExists => "AlreadyExists",
            Self::Invalid(_) => "Invalid",
            Self::Unavailable(_) => "Unavailable",
            Self::Busy { .. } => "Busy",
            Self::NotLeading => "NotLeading",
        }
    }
}

/// An effect that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// In which term of ours it was decided, counted from 0 and raised at each loss of the Lease. What was
    /// decided in an earlier term is not tried any more.
    pub term: u64,
    /// What is wanted.
    pub effect: Effect,
}

/// As many that grant and release go before one that only tells, where both wait.
const GRANTS_FIRST: u32 = 8;

/// Orders that wait. An object has at most one effect under way. Those that only tell how things are let
/// those go first that grant and release; first come, first served otherwise.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Orders by object. An object is here exactly while it has an effect waiting or under way.
    waiting: HashMap<Target, VecDeque<Order>>,
    /// Objects that have an effect waiting and none under way, in the order of their turn.
    ready: VecDeque<Target>,
    /// The same, for those whose next effect only tells.
    telling: VecDeque<Target>,
    /// How many have gone before those that only tell.
    went_first: u32,
    busy: HashSet<Target>,
    len: usize,
}

impl Queue {
    /// Adds an order behind the others of its object.
    pub(super) fn push(&mut self, order: Order) {
        let target = order.effect.target();
        let line = self.waiting.entry(target.clone()).or_default();
        let is_next = line.is_empty() && !self.busy.contains(&target);
        line.push_back(order);
        self.len += 1;
        if is_next {
            self.line_up(target);
        }
    }

    /// Gives an object with an effect waiting and none under way its turn.
    fn line_up(&mut self, target: Target) {
        let next = self.waiting.get(&target).and_then(VecDeque::front);
        match next.is_some_and(|order| order.effect.only_tells()) {
            true => self.telling.push_back(target),
            false => self.ready.push_back(target),
        }
    }

    fn next_target(&mut self) -> Option<Target> {
        if self.telling.is_empty() || !self.ready.is_empty() && self.went_first < GRANTS_FIRST {
            self.went_first += u32::from(!self.telling.is_empty());
            return self.ready.pop_front();
        }
        self.went_first = 0;
        self.telling.pop_front()
    }

    /// The next order that may be tried now. [`Queue::done`] must follow with what is returned first.
    pub(super) fn pop(&mut self) -> Option<(Target, Order)> {
        let target = self.next_target()?;
        let order = self.waiting.get_mut(&target)?.pop_front()?;
        self.busy.insert(target.clone());
        self.len -= 1;
        Some((target, order))
    }

    /// The effect that was under way for this object has been tried.
    pub(super) fn done(&mut self, target: Target) {
        self.busy.remove(&target);
        if self.waiting.get(&target).is_some_and(|line| !line.is_empty()) {
            self.line_up(target);
        } else {
            self.waiting.remove(&target);
        }
    }

    /// Whether [`Queue::pop`] would return something.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.telling.is_empty()
    }

    /// How many effects wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// A token bucket: `rate` requests a second in the long run, `burst` of them without a pause.
#[derive(Debug)]
pub(super) struct Pace {
    rate: f64,
    burst: f64,
    tokens: f64,
    counted: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, tokens: burst, counted: None }
    }

    /// Takes a token, or says how long to wait for one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = self.counted.map_or(Duration::ZERO, |counted| now.saturating_duration_since(counted));
        self.counted = Some(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // Never zero, so that a rounding error cannot make the caller spin.
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.rate).max(Duration::from_micros(100)))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // A point in time to count from; nothing waits.
mod tests {
    use super::*;

    fn get(name: &str) -> Order {
        Order { term: 0, effect: Effect::GetVirtualIp { name: name.to_owned() } }
    }

    fn create(name: &str) -> Order {
        let effect = Effect::CreateVirtualIp { name: name.to_owned(), spec: Box::default() };
        Order { term: 0, effect }
    }

    #[test]
    fn one_object_is_served_in_turn_while_others_pass() {
        let mut queue = Queue::default();
        queue.push(create("a"));
        queue.push(get("a"));
        queue.push(create("b"));
        let (a, first) = queue.pop().unwrap();
        assert_eq!(first, create("a"));
        let (b, second) = queue.pop().unwrap();
        assert_eq!(second, create("b"));
        assert!(queue.pop().is_none(), "the second effect of a waits for the first");
        assert_eq!(queue.len(), 1);
        queue.done(a);
        let (a, third) = queue.pop().unwrap();
        assert_eq!(third, get("a"));
        queue.done(a);
        queue.done(b);
        assert!(queue.waiting.is_empty() && queue.busy.is_empty() && !queue.has_ready());
    }

    #[test]
    fn an_object_with_many_effects_does_not_starve_the_others() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push(get("a"));
        }
        queue.push(get("b"));
        let (a, _) = queue.pop().unwrap();
        queue.done(a);
        assert_eq!(queue.pop().unwrap().1, get("b"));
    }

    #[test]
    fn what_only_tells_lets_grants_go_first_but_not_for_ever() {
        let tell = |name: &str| {
            let service = Exactly {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
                uid: String::new(),
                resource_version: String::new(),
            };
            Order { term: 0, effect: Effect::SetConditions { service, conditions: Vec::new() } }
        };
        let mut queue = Queue::default();
        for name in ["x", "y"] {
            queue.push(tell(name));
        }
        for number in 0..12 {
            queue.push(create(&number.to_string()));
        }
        let names: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(target, _)| target.name).collect();
        assert_eq!(names, ["0", "1", "2", "3", "4", "5", "6", "7", "x", "8", "9", "10", "11", "y"]);
    }

    #[test]
    fn a_service_and_an_address_of_the_same_name_are_two_objects() {
        let service = Effect::GetService { namespace: String::new(), name: "a".to_owned() };
        assert_ne!(service.target(), get("a").effect.target());
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let mut pace = Pace::new(10.0, 3.0);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(pace.take(start), Ok(()));
        }
        assert_eq!(pace.take(start), Err(Duration::from_millis(100)));
        let mut sent = 0;
        for millisecond in 1..=10_000 {
            sent += u32::from(pace.take(start + Duration::from_millis(millisecond)).is_ok());
        }
        assert!((99..=101).contains(&sent), "{sent} in ten seconds at ten a second");
    }

    #[test]
    fn every_effect_has_a_name_of_its_own() {
        let names: HashSet<_> = Effect::NAMES.into_iter().collect();
        assert_eq!(names.len(), Effect::NAMES.len());
        assert!(Effect::NAMES.contains(&get("a").effect.name()));
    }
}
