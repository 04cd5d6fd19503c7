//! Grants addresses from pools to LoadBalancer Services and ranks the nodes that may announce them.
//!
//! Everything that decides is in [`mind`] and its rooms; everything that touches Kubernetes is in the
//! drivers: `observe` turns watches into events, `writer` applies effects.

pub mod effects;
pub mod mind;
