//! Why things are as they are, for logs, metrics and people.

use std::net::IpAddr;

use landfall_crds::ClaimRef;

use super::Mind;
use super::subject::Subject;
use crate::granting::plan::{Slot, plan};
use crate::granting::request::read;
use crate::granting::verdict::Verdict;

/// What the mind thinks of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it is ours; nothing if there is no such Service.
    pub verdict: Option<Verdict>,
    /// The addresses that it claims.
    pub claims: Vec<IpAddr>,
    /// Whether something is being done for it or its addresses.
    pub busy: bool,
    /// What comes next or what it waits for, in sentences.
    pub next: Vec<String>,
}

impl Mind {
    /// Explains a Service.
    pub fn explain(&self, key: &ClaimRef) -> Explanation {
        let claims: Vec<IpAddr> = self.vips.claimed_by(key).collect();
        let busy = self.pending.in_flight(&Subject::Service(key.clone()))
            || claims.iter().any(|address| self.pending.in_flight(&Subject::VirtualIp(*address)))
            || self.pending.in_flight(&Subject::Guard(key.clone()))
            || self.claiming.contains_key(key);
        let mut next = Vec::new();
        let verdict = self.services.get(key).map(|service| {
            let verdict = self.judge(service, key);
            match &verdict {
                Verdict::Ours | Verdict::HeldByAnother { .. } if self.awaits_namespace(service, key) => {
                    next.push(format!("namespace {} is not known yet", key.namespace));
                }
                Verdict::Ours => next = self.explain_plan(key, service),
                Verdict::NotOurs if claims.is_empty() => {}
                Verdict::NotOurs => next.push("its addresses are being released".to_owned()),
                Verdict::HeldByAnother { advice } => next.push(advice.clone()),
            }
            verdict
        });
        if !self.is_acting() {
            next.push("nothing is done now: this process does not lead or is not informed yet".to_owned());
        }
        Explanation { verdict, claims, busy, next }
    }

    fn explain_plan(&self, key: &ClaimRef, service: &k8s_openapi::api::core::v1::Service) -> Vec<String> {
        let plan = plan(self.view(), service, key, &read(service));
        let mut next = Vec::new();
        for family in &plan.families {
            match &family.slot {
                Slot::Held(_) | Slot::Empty => {}
                Slot::UnderWay(address) => next.push(format!("a claim on {address} is being written")),
                Slot::Take(chosen) => next.push(format!("{} is to be claimed", chosen.address)),
                Slot::Switch { from, to } => {
                    next.push(format!("{} is to be claimed before {from} is given up", to.address));
                }
            }
            next.extend(family.wait.as_ref().map(|wait| format!("{}: {}", wait.reason, wait.message)));
        }
        next.extend(plan.surplus.iter().map(|address| format!("{address} is to be released")));
        next
    }

    /// Whether the API server was found to hold an older state than it did, as after a restore of etcd. What is known
    /// cannot be told from what is no more then, so a mind that says so is to be replaced by a new one.
    pub fn went_back(&self) -> bool {
        self.went_back
    }

    /// How many Services wait for an address.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How often some Service was looked at so far: by this the work is counted.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// How many effects have no outcome yet.
    pub fn in_flight(&self) -> usize {
        self.pending.flights()
    }
}
