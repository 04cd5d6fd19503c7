//! The picture of the world that decisions are made on: what was seen last of each kind.

pub mod cluster_ranges;
pub mod endpoints;
pub(crate) mod guards;
pub mod namespaces;
pub mod nodes;
pub(crate) mod store;
pub mod virtual_ips;
