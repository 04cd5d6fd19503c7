//! Grants addresses from pools to LoadBalancer Services and ranks the nodes that may announce them.
//!
//! Everything that decides is in [`mind`] and its rooms; everything that touches Kubernetes is in the
//! drivers: `observe` turns watches into events, `writer` applies effects.

pub mod backing;
pub mod clock;
pub mod conditions;
pub mod config;
pub mod effects;
pub mod exposing;
pub mod external_name;
pub mod granting;
pub mod heap;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod mind;
pub mod minds;
pub mod observe;
pub mod ranking;
pub mod run;
pub mod status;
pub mod sys;
pub mod teller;
pub mod trouble;
pub mod uninstall;
pub mod world;
pub mod writer;
