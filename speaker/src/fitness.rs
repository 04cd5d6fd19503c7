//! Whether this node is fit to serve what it announces: a pure machine over what the drivers observe.
//!
//! What it finds is told to the other speakers and orders the candidates ([`Gates`]). It is slow on purpose: a gate
//! must fail for a while before it counts as failing, and pass for a longer while before it counts as passing
//! again, so that a gate that flaps moves an address at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::ownership::gates::Gates;

/// kube-proxy must be unwell for as long. Its own restart takes less.
const PROXY_FAILS: Duration = Duration::from_secs(5);
/// A gate that failed must pass for as long without a break.
const PASSES: Duration = Duration::from_secs(15);
/// A health check must fail for as long.
const CHECK_FAILS: Duration = Duration::from_secs(3);
/// The API server was not heard for as long: longer than its watches are left open, so that one which only had
/// nothing to say is not taken for one that is gone.
pub const STALE: Duration = Duration::from_secs(30);

/// What is observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// kube-proxy was asked how it is, and said that it is well or not, or nothing.
    Proxy(Health),
    /// The API server answered something.
    ApiHeard,
    /// These are the ports of all health checks that concern this node.
    Checks(BTreeSet<u16>),
    /// What the health check of a Service at this port says.
    Check(u16, Health),
    /// A former process of this node lacked this, and what it knew is known.
    Inherited(Gates),
    /// There are complete lists of what is to be announced from this process's own watches.
    Informed,
    /// The time that `next_deadline` named has come.
    Deadline,
}

/// What kube-proxy says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is well.
    Healthy,
    /// It is not, or its node is about to be removed.
    Unhealthy,
    /// It says nothing.
    Unreachable,
}

/// The machine; see the module.
#[derive(Clone, Debug, Default)]
pub struct Fitness {
    proxy: Gate,
    fresh: Gate,
    checks: BTreeMap<u16, Gate>,
    api_heard: Option<Instant>,
    is_informed: bool,
}

/// A gate that moves slowly: only what is observed moves it, not time alone.
#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    passes: bool,
    /// Whether it ever passed: the first time needs no patience.
    has_passed: bool,
    /// Since when it is observed to be other than it counts.
    otherwise_since: Option<Instant>,
}

impl Gate {
    fn observe(&mut self, now: Instant, is_well: bool, fails_after: Duration) {
        if is_well == self.passes {
            self.otherwise_since = None;
        } else if is_well && !self.has_passed {
            *self = Self { passes: true, has_passed: true, otherwise_since: None };
        } else {
            let patience = if self.passes { fails_after } else { PASSES };
            if *self.otherwise_since.get_or_insert(now) + patience <= now {
                (self.passes, self.otherwise_since) = (is_well, None);
            }
        }
    }
}

impl Fitness {
    /// Takes an event in. What the node lacks now.
    pub fn handle(&mut self, now: Instant, event: Event) -> Gates {
        match event {
            Event::Proxy(health) => self.proxy.observe(now, health == Health::Healthy, PROXY_FAILS),
            Event::Inherited(gates) => self.inherit(now, gates),
            Event::Checks(ports) => self.checks.retain(|port, _| ports.contains(port)),
            Event::Check(port, health) => self.check(now, port, health),
            Event::ApiHeard => self.api_heard = Some(now),
            Event::Informed => self.is_informed = true,
            Event::Deadline => {}
        }
        let is_fresh = self.api_heard.is_some_and(|heard| now < heard + STALE);
        self.fresh.observe(now, is_fresh, Duration::ZERO);
        self.gates()
    }

    fn inherit(&mut self, now: Instant, lacked: Gates) {
        if !lacked.contains(Gates::PROXY) {
            self.proxy = Gate { passes: true, has_passed: true, otherwise_since: None };
        }
        if !lacked.contains(Gates::STALE) {
            self.api_heard = self.api_heard.max(Some(now));
        }
        self.is_informed |= !lacked.contains(Gates::COLD);
    }

    fn check(&mut self, now: Instant, port: u16, health: Health) {
        match health {
            // Nothing is known of it, as where kube-proxy listens elsewhere; whether it is well is asked besides.
            Health::Unreachable => drop(self.checks.remove(&port)),
            health => {
                // What begins to be asked has not failed yet.
                let begun = Gate { passes: true, has_passed: true, otherwise_since: None };
                let check = self.checks.entry(port).or_insert(begun);
                check.observe(now, health == Health::Healthy, CHECK_FAILS);
            }
        }
    }

    /// The ports whose health checks do not pass.
    pub fn unfit(&self) -> BTreeSet<u16> {
        self.checks.iter().filter(|(_, check)| !check.passes).map(|(port, _)| *port).collect()
    }

    /// What the node lacks.
    pub fn gates(&self) -> Gates {
        let lacks = |lacks: bool, gate: Gates| if lacks { gate } else { Gates::NONE };
        lacks(!self.proxy.passes, Gates::PROXY)
            .with(lacks(!self.fresh.passes, Gates::STALE))
            .with(lacks(!self.is_informed, Gates::COLD))
    }

    /// When it wants to be woken.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stale = self.api_heard.filter(|_| self.fresh.passes).map(|heard| heard + STALE);
        let fresh = self.fresh.otherwise_since.map(|since| since + PASSES);
        [stale, fresh].into_iter().flatten().min()
    }
}

#[cfg(test)]
#[path = "fitness_tests.rs"]
mod tests;
