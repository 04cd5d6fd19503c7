//! Who gets which address, or why not: the pools, what a Service asks for, and the choice.
//!
//! Nothing here writes or remembers effects; [`crate::mind`] takes the steps.

pub mod book;
mod candidates;
pub mod choice;
pub mod claim;
pub mod guard;
pub mod internal;
pub mod outside;
pub mod plan;
pub mod pool_status;
pub mod refused;
pub mod request;
pub mod reservation;
pub mod rules;
pub mod sharers;
pub mod sharing;
pub mod source_ranges;
pub(crate) mod tally;
pub mod usage;
pub mod verdict;
pub mod wait;

use landfall_crds::ClaimRef;

/// Names a Service.
pub type ServiceKey = ClaimRef;

/// `namespace/name`, as people write it.
pub(crate) fn named(service: &ServiceKey) -> String {
    format!("{}/{}", service.namespace, service.name)
}
