//! What goes wrong on the switch, as rules of nftables.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{Direction, port};
use crate::lab::plan::API_SERVER_PORT;

/// All faults that are played at the moment.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Per port and direction, how many of 10,000 packets are lost.
    pub(super) loss: BTreeMap<(String, Direction), u32>,
    /// Pairs of hosts of which the second does not hear the first.
    pub(super) cuts: BTreeSet<(String, String)>,
    /// Hosts that do not reach the API server.
    pub(super) without_api: BTreeSet<String>,
    /// Hosts that do not reach the switch itself: neither the gateway nor the API server.
    pub(super) without_gateway: BTreeSet<String>,
    /// Whether nothing at all gets through.
    pub(super) blackout: bool,
}

impl Faults {
    /// The rules of all faults, to replace whatever rules were there.
    pub(super) fn rules(&self) -> String {
        let mut rules = String::new();
        for table in ["netdev lab_faults", "bridge lab_faults"] {
            // Added first, so that it can be deleted whether it was there or not.
            let _infallible = write!(rules, "table {table} {{}}\ndelete table {table}\n");
        }
        rules.push_str("table netdev lab_faults {\n");
        for ((host, direction), lost) in &self.loss {
            let (hook, chain) = match direction {
                Direction::FromHost => ("ingress", "from"),
                Direction::ToHost => ("egress", "to"),
            };
            let device = port(host);
            let _infallible = write!(
                rules,
                "chain {chain}_{} {{\ntype filter hook {hook} device \"{device}\" priority 0\n\
                 numgen random mod 10000 < {lost} counter drop\n}}\n",
                device.replace('-', "_")
            );
        }
        rules.push_str("}\ntable bridge lab_faults {\n");
        let nothing = if self.blackout { "drop\n" } else { "" };
        let _infallible = write!(
            rules,
            "chain prerouting {{\ntype filter hook prerouting priority -300\n{nothing}}}\n\
             chain forward {{\ntype filter hook forward priority 0\n"
        );
        for (one, other) in &self.cuts {
            let (one, other) = (port(one), port(other));
            let _infallible = writeln!(rules, "iifname \"{one}\" oifname \"{other}\" drop");
        }
        // What the switch itself answers is not forwarded.
        for (chain, device, side) in [("input", "iifname", "dport"), ("output", "oifname", "sport")] {
            let _infallible =
                write!(rules, "}}\nchain {chain} {{\ntype filter hook {chain} priority 0\n{nothing}");
            for host in &self.without_api {
                let _infallible = writeln!(
                    rules,
                    "{device} \"{}\" meta l4proto tcp th {side} {API_SERVER_PORT} drop",
                    port(host)
                );
            }
            for host in &self.without_gateway {
                let _infallible = writeln!(rules, "{device} \"{}\" drop", port(host));
            }
        }
        rules.push_str("}\n}\n");
        rules
    }
}
