//! Announces the addresses of LoadBalancer Services on the LAN of its node and takes over when a peer
//! dies.
//!
//! Everything that decides is in the rooms of the [`mind`]; everything that touches Linux or Kubernetes
//! is in `drivers` and `sys`.

pub mod announcing;
pub mod bfd;
pub mod config;
pub mod draining;
pub mod drivers;
pub mod filter;
pub mod fitness;
pub mod lan;
pub mod liveness;
pub mod metrics;
pub mod mind;
pub mod ownership;
pub mod seal;
pub mod succession;
pub mod sys;
pub mod wire;
