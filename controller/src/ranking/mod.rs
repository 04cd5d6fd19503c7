//! Which nodes may announce an address, best first.
//!
//! Steadiness is the rule: an order that stands is kept, and only nodes that may no longer announce
//! leave it and new ones join at its end. A node that fails, or whose link goes down, stays in it, so
//! that a failover and a return write nothing: the speakers pass over it by themselves. What has become
//! uneven for that is made even later, one address at a time (`rebalance`).

pub mod loads;
pub mod order;
pub mod reach;
pub mod rebalance;

pub use loads::{Load, Loads};
pub use order::order;
pub use reach::{Eligible, Reach, eligible};
