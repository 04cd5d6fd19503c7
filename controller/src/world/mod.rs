//! The picture of the world that decisions are made on: what was seen last of each kind.

pub mod endpoints;
pub mod nodes;
pub(crate) mod store;
pub mod virtual_ips;
