//! Why a Service waits.

use std::fmt::{Display, Write};
use std::net::IpAddr;

use landfall_crds::address::Family;

use crate::world::virtual_ips::SharingKey;

/// Reasons of the condition `landfall.dev/Granted`, and what to do for each.
pub mod reasons {
    /// Every address that was asked for is granted.
    pub const GRANTED: &str = "Granted";
    /// There is no pool at all, or none that serves the family or a Service that names no pool.
    pub const NO_POOL: &str = "NoPool";
    /// Every address of the pools in question is in use.
    pub const POOL_EXHAUSTED: &str = "PoolExhausted";
    /// `landfall.dev/pool` names a pool that does not exist.
    pub const POOL_UNKNOWN: &str = "PoolUnknown";
    /// The pool in question grants nothing: look at its conditions.
    pub const POOL_NOT_READY: &str = "PoolNotReady";
    /// What was asked for is not an address.
    pub const ADDRESS_INVALID: &str = "AddressInvalid";
    /// The address that was asked for lies in no pool, or in none of those that were named.
    pub const ADDRESS_NOT_IN_POOL: &str = "AddressNotInPool";
    /// Somebody else has the address that was asked for.
    pub const ADDRESS_TAKEN: &str = "AddressTaken";
    /// The address that was asked for is kept for another Service.
    pub const ADDRESS_RESERVED: &str = "AddressReserved";
    /// The address that was asked for is a node's own, its gateway, or the edge of a subnet.
    pub const NODE_ADDRESS: &str = "NodeAddress";
    /// An address was asked for in a family that the Service does not have.
    pub const FAMILY_MISMATCH: &str = "FamilyMismatch";
    /// An annotation says something that it cannot say; the message names it and what to write.
    pub const ANNOTATION_INVALID: &str = "AnnotationInvalid";
    /// No pool in question serves Services that ask for an internal load balancer.
    pub const NO_INTERNAL_POOL: &str = "NoInternalPool";
    /// No pool in question selects the Service's namespace.
    pub const NAMESPACE_NOT_SELECTED: &str = "NamespaceNotSelected";
    /// No pool in question selects the Service's labels.
    pub const SERVICE_NOT_SELECTED: &str = "ServiceNotSelected";
    /// The namespace uses as many addresses of the pool in question as it may.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// The pool in question serves only Services with source ranges.
    pub const SOURCE_RANGES_REQUIRED: &str = "SourceRangesRequired";
    /// The address that was asked for lies where the cluster has its ClusterIPs or pods.
    pub const CLUSTER_ADDRESS: &str = "ClusterAddress";
    /// The address cannot be shared with those that have it.
    pub const SHARING_CONFLICT: &str = "SharingConflict";
    /// The address was released lately and rests for the pool's `releaseDelay`.
    pub const ADDRESS_RESTING: &str = "AddressResting";
    /// Two things that were asked for exclude each other.
    pub const REQUEST_CONTRADICTORY: &str = "RequestContradictory";
    /// The Service has more ports than can be served at one address.
    pub const TOO_MANY_PORTS: &str = "TooManyPorts";
    /// The API server refuses to let the address be claimed for the Service.
    pub const WRITE_REFUSED: &str = "WriteRefused";

    /// All of them.
    pub const ALL: [&str; 23] = [
        GRANTED,
        NO_POOL,
        POOL_EXHAUSTED,
        POOL_UNKNOWN,
        POOL_NOT_READY,
        ADDRESS_INVALID,
        ADDRESS_NOT_IN_POOL,
        ADDRESS_TAKEN,
        ADDRESS_RESERVED,
        NODE_ADDRESS,
        FAMILY_MISMATCH,
        ANNOTATION_INVALID,
        NO_INTERNAL_POOL,
        NAMESPACE_NOT_SELECTED,
        SERVICE_NOT_SELECTED,
        QUOTA_EXCEEDED,
        SOURCE_RANGES_REQUIRED,
        CLUSTER_ADDRESS,
        SHARING_CONFLICT,
        ADDRESS_RESTING,
        REQUEST_CONTRADICTORY,
        TOO_MANY_PORTS,
        WRITE_REFUSED,
    ];
}

/// What must change for a Service that waits to be worth another look, beyond the Service itself and
/// the pools, at whose changes everything is looked at anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing else.
    Edited,
    /// This address becomes free.
    Free(IpAddr),
    /// Any address of the family becomes free, in these pools if they are named.
    Any {
        /// The family.
        family: Family,
        /// The pools, where the Service names them.
        pools: Option<Vec<String>>,
    },
    /// Another Service with this sharing key has got an address, or changed. The namespace is that of the one
    /// who waits.
    Shared(SharingKey),
}

/// Why no address can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// One of [`reasons`].
    pub reason: &'static str,
    /// What is wrong and what to do. Holds nothing that changes while the Service waits, so that the
    /// condition is written once.
    pub message: String,
    /// What it waits for.
    pub until: Until,
}

impl Wait {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>, until: Until) -> Self {
        Self { reason, message: message.into(), until }
    }

    /// Whether it could be had another day with no change to what was asked for.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self.until, Until::Any { .. })
    }
}

/// A text from a user, short and printable.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    format!("'{short}'")
}

/// The first few of a list and how many more there are.
pub(crate) fn some_of<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut items = items.into_iter();
    let mut text = String::new();
    for (place, item) in items.by_ref().take(most).enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        // To write into a String cannot fail.
        let _ = write!(text, "{comma}{item}");
    }
    let more = items.count();
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_in_the_list_of_all() {
        let text = include_str!("wait.rs");
        let stated =
            text.lines().filter(|line| line.starts_with("    pub const") && line.contains(": &str ="));
        let stated: Vec<&str> = stated.filter_map(|line| line.split('"').nth(1)).collect();
        assert_eq!(stated, reasons::ALL);
    }

    #[test]
    fn texts_of_users_are_printed_short_and_harmless() {
        assert_eq!(quoted("10.0.0.1"), "'10.0.0.1'");
        assert_eq!(quoted("a\nb\u{7}"), "'a\\nb\\u{7}'");
        assert!(quoted(&"x".repeat(10_000)).len() < 80);
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(some_of([1, 2], 3), "1, 2");
        assert_eq!(some_of(1..=9, 3), "1, 2, 3 and 6 more");
    }
}
