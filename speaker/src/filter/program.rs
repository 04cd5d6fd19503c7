//! The rules. They are the same whatever is guarded; what differs from one moment to another is in the sets.
//!
//! ```text
//!  prerouting, output (-150: after conntrack, before kube-proxy translates)
//!     ├─▶ address4, address6 ─▶ icmp4, icmp6     source not let in ─▶ refused…
//!     │                      └▶ others           port not served: reset, or unreachable
//!     └─▶ nodeports
//!  prerouting (-90: after kube-proxy has translated)
//!     └─▶ untranslated ─▶ others                 nothing is behind the port, and there is no way to the address
//!  forward, output (10: after kube-proxy has had its say)
//!     └─▶ untranslated ─▶ others                 nothing is behind the port
//!  postrouting, input (110: after the kernel has translated back)
//!     └─▶ replies4, replies6, nodeport_replies   to a client that is not let in any more ─▶ cut
//! ```

use super::rule::{Chain, Field, Hook, Rule};
use super::set::Set;
use super::shape::{Level, Shape};
use super::sources::Family;

/// The table, which is of the family `inet`.
pub const TABLE: &str = "landfall";
/// What the table says of itself. It changes whenever a table of an earlier version could not be gone on with.
pub const LAYOUT: &str = "Landfall, layout 1";
/// The group to whose listener pings are told.
pub const PINGS: u16 = 7931;
/// The group to whose listener refused packets are told.
pub const REFUSALS: u16 = 7932;
/// How much of a ping is told: what is longer is not answered.
pub const LONGEST_PING: u32 = 9216;
/// How much of a refused packet is told: the headers.
const HEADERS: u32 = 128;
/// So many pings are answered in a second, on all addresses together.
const PINGS_PER_SECOND: u64 = 200;
/// So many packets to ports that are not served are answered in a second, of TCP and of anything else.
const REFUSALS_PER_SECOND: u64 = 200;

/// Behind conntrack (-200) and before the destination is translated (-100).
const EARLY: i32 = -150;
/// Behind the translation of destinations (-100).
const TRANSLATED: i32 = -90;
/// Behind all filters of others (0).
const LATE: i32 = 10;
/// Behind the translation of sources (100), where those of replies become the client's destination again.
const LAST: i32 = 110;

/// `ip_conntrack_dir` of Linux.
const ORIGINAL: u8 = 0;
const REPLY: u8 = 1;
/// `NF_CT_STATE_BIT` of Linux.
const INVALID: u32 = 1 << 0;
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
/// `IPS_DST_NAT` of Linux.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `RTN_LOCAL` of Linux.
const LOCAL: u32 = 2;

const TCP: u8 = libc::IPPROTO_TCP as u8;

/// All chains with their rules. Each goes to none but those before it.
pub fn chains(shape: &Shape) -> Vec<Chain> {
    let inner = |name, rules| Chain { name, hook: None, rules };
    let hooked = |name, hook, priority, rules| Chain { name, hook: Some((hook, priority)), rules };
    vec![
        inner("cut", vec![Rule::any().counted().drop()]),
        inner("others", others()),
        inner("untranslated", untranslated()),
        inner("refused4", refused_address(shape, Family::V4)),
        inner("refused6", refused_address(shape, Family::V6)),
        inner("refused_ports4", refused_port(shape, Family::V4)),
        inner("refused_ports6", refused_port(shape, Family::V6)),
        inner("refused_nodeports", refused_node_port(shape)),
        inner("icmp4", icmp(shape, Family::V4)),
        inner("icmp6", icmp(shape, Family::V6)),
        inner("address4", address(shape, Family::V4)),
        inner("address6", address(shape, Family::V6)),
        inner("nodeports", node_ports(shape)),
        inner("replies4", replies(shape, Family::V4)),
        inner("replies6", replies(shape, Family::V6)),
        inner("nodeport_replies", node_port_replies(shape)),
        hooked("prerouting", Hook::Prerouting, EARLY, arriving(shape)),
        hooked("output", Hook::Output, EARLY, arriving(shape)),
        hooked("unroutable", Hook::Prerouting, TRANSLATED, passing(true)),
        hooked("forward", Hook::Forward, LATE, passing(false)),
        hooked("output_late", Hook::Output, LATE, passing(false)),
        hooked("postrouting", Hook::Postrouting, LAST, returning(shape)),
        hooked("input", Hook::Input, LAST, returning(shape)),
    ]
}

fn by_family(family: Family, v4: &'static str, v6: &'static str) -> &'static str {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

/// From clients, and from the node itself. Replies to what the node or a pod asked of others are none of them.
fn arriving(shape: &Shape) -> Vec<Rule> {
    let mut rules = vec![Rule::any().is(Field::Direction, &[REPLY]).accept()];
    for family in Family::BOTH {
        let rule = Rule::of(family).in_set(&[Field::Destination(family)], Set::Addresses(family));
        rules.push(rule.goto(by_family(family, "address4", "address6")));
    }
    if shape.node_ports {
        let rule = Rule::any().in_set(&[Field::Protocol, Field::DestinationPort], Set::NodePorts);
        rules.push(rule.is(Field::DestinationType, &LOCAL.to_ne_bytes()).goto("nodeports"));
    }
    rules
}

/// To an address of ours.
fn address(shape: &Shape, family: Family) -> Vec<Rule> {
    let port = [Field::Destination(family), Field::Protocol, Field::DestinationPort];
    let mut rules = vec![
        Rule::any().is(Field::Protocol, &[icmp_protocol(family)]).goto(by_family(family, "icmp4", "icmp6")),
    ];
    if shape.ports {
        let fields = [&port[..], &[Field::Source(family)]].concat();
        let lengths = shape.lengths(Level::Port, family);
        let rule = Rule::of(family).in_set(&port, Set::Guarded(family));
        let rule = rule.in_no_sources(&fields, Level::Port, family, lengths);
        rules.push(rule.goto(by_family(family, "refused_ports4", "refused_ports6")));
    }
    rules.push(not_let_in(shape, family));
    rules.push(Rule::of(family).in_set(&port, Set::Ports(family)).accept());
    rules.push(Rule::any().goto("others"));
    rules
}

/// From a source that the barrier before the address does not let in.
fn not_let_in(shape: &Shape, family: Family) -> Rule {
    let fields = [Field::Destination(family), Field::Source(family)];
    let lengths = shape.lengths(Level::Address, family);
    let rule = Rule::of(family).in_no_sources(&fields, Level::Address, family, lengths);
    rule.goto(by_family(family, "refused4", "refused6"))
}

/// What the path needs passes, from wherever it comes: too large a packet, an unreachable client. Pings go to
/// the speaker where it announces the address, and else on to the node that does. Neighbour discovery is the
/// speaker's own.
fn icmp(shape: &Shape, family: Family) -> Vec<Rule> {
    let neighbours: &[u8] = match family {
        Family::V4 => &[],
        Family::V6 => &[135, 136],
    };
    let mut rules: Vec<Rule> =
        neighbours.iter().map(|message| Rule::any().is(Field::IcmpType, &[*message]).drop()).collect();
    rules.push(Rule::any().has(Field::State, RELATED, true).accept());
    rules.push(not_let_in(shape, family));
    let ping = || Rule::any().is(Field::IcmpType, &[echo_request(family)]);
    let announced = || ping().and_of(family).in_set(&[Field::Destination(family)], Set::Announced(family));
    if shape.log {
        rules.push(announced().at_most(PINGS_PER_SECOND).log(PINGS, "landfall ping", LONGEST_PING));
    }
    rules.push(announced().drop());
    rules.push(ping().accept());
    rules.push(Rule::any().drop());
    rules
}

/// What goes to an address of ours and kube-proxy has not translated: nothing is behind the port. Only pings are
/// on their way to the node that announces.
fn untranslated() -> Vec<Rule> {
    let mut rules = vec![Rule::any().has(Field::State, INVALID, true).drop()];
    for family in Family::BOTH {
        let rule = Rule::any().is(Field::Protocol, &[icmp_protocol(family)]);
        rules.push(rule.is(Field::IcmpType, &[echo_request(family)]).accept());
    }
    rules.push(Rule::any().goto("others"));
    rules
}

/// To a port that is not served, or behind which there is nothing: the client is told at once, and nothing goes
/// back to the LAN.
fn others() -> Vec<Rule> {
    vec![
        Rule::any().is(Field::Protocol, &[TCP]).at_most(REFUSALS_PER_SECOND).reset(),
        Rule::any().at_most(REFUSALS_PER_SECOND).unreachable(),
        Rule::any().drop(),
    ]
}

/// To a port of the node itself. What stays within the node by its loopback addresses does not come from anywhere.
fn node_ports(shape: &Shape) -> Vec<Rule> {
    if !shape.node_ports {
        return Vec::new();
    }
    let port = [Field::Protocol, Field::DestinationPort];
    let mut rules = loopback(Field::Destination);
    for family in Family::BOTH {
        let fields = [port[0], port[1], Field::Source(family)];
        let lengths = shape.lengths(Level::NodePort, family);
        let rule = Rule::of(family).in_no_sources(&fields, Level::NodePort, family, lengths);
        rules.push(rule.goto("refused_nodeports"));
    }
    rules.push(Rule::any().count(&port, Set::NodePortTraffic, false).accept());
    rules
}

fn loopback(field: fn(Family) -> Field) -> Vec<Rule> {
    let v4 = Rule::of(Family::V4).masked(field(Family::V4), &[0xff, 0, 0, 0], &[127, 0, 0, 0]);
    let v6 = Rule::of(Family::V6).is(field(Family::V6), &std::net::Ipv6Addr::LOCALHOST.octets());
    vec![v4.accept(), v6.accept()]
}

/// What kube-proxy has not translated, although it goes to an address of ours: it would go back to the LAN. Where
/// there is no way there either, the kernel would say so once a second at most, and in a way that UDP does not heed.
fn passing(unroutable: bool) -> Vec<Rule> {
    let mut rules = vec![Rule::any().has(Field::State, ESTABLISHED | RELATED, true).accept()];
    for family in Family::BOTH {
        let mut rule = Rule::of(family).in_set(&[Field::Destination(family)], Set::Addresses(family));
        if unroutable {
            rule = rule.is(Field::HasRoute, &0_u32.to_ne_bytes());
        }
        rules.push(rule.goto("untranslated"));
    }
    rules
}

/// Back to clients, as they see it.
fn returning(shape: &Shape) -> Vec<Rule> {
    let mut rules = vec![
        Rule::any().is(Field::Direction, &[ORIGINAL]).accept(),
        Rule::any().has(Field::Status, DESTINATION_TRANSLATED, false).accept(),
    ];
    for family in Family::BOTH {
        let rule = Rule::of(family).in_set(&[Field::Source(family)], Set::Addresses(family));
        rules.push(rule.goto(by_family(family, "replies4", "replies6")));
    }
    if shape.node_ports {
        let rule = Rule::any().in_set(&[Field::Protocol, Field::SourcePort], Set::NodePorts);
        rules.push(rule.is(Field::SourceType, &LOCAL.to_ne_bytes()).goto("nodeport_replies"));
    }
    rules
}

fn replies(shape: &Shape, family: Family) -> Vec<Rule> {
    let port = [Field::Source(family), Field::Protocol, Field::SourcePort];
    let client = Field::Destination(family);
    let mut rules = Vec::new();
    if shape.ports {
        let fields = [&port[..], &[client]].concat();
        let lengths = shape.lengths(Level::Port, family);
        let rule = Rule::of(family).in_set(&port, Set::Guarded(family));
        rules.push(rule.in_no_sources(&fields, Level::Port, family, lengths).goto("cut"));
    }
    let lengths = shape.lengths(Level::Address, family);
    let rule = Rule::of(family).in_no_sources(&[port[0], client], Level::Address, family, lengths);
    rules.push(rule.goto("cut"));
    rules
}

fn node_port_replies(shape: &Shape) -> Vec<Rule> {
    if !shape.node_ports {
        return Vec::new();
    }
    let mut rules = loopback(Field::Source);
    for family in Family::BOTH {
        let fields = [Field::Protocol, Field::SourcePort, Field::Destination(family)];
        let lengths = shape.lengths(Level::NodePort, family);
        rules.push(Rule::of(family).in_no_sources(&fields, Level::NodePort, family, lengths).goto("cut"));
    }
    rules
}

fn refused_address(shape: &Shape, family: Family) -> Vec<Rule> {
    refused(shape, Rule::of(family), &[Field::Destination(family)], Set::RefusedAddresses(family))
}

fn refused_port(shape: &Shape, family: Family) -> Vec<Rule> {
    let fields = [Field::Destination(family), Field::Protocol, Field::DestinationPort];
    refused(shape, Rule::of(family), &fields, Set::RefusedPorts(family))
}

fn refused_node_port(shape: &Shape) -> Vec<Rule> {
    refused(shape, Rule::any(), &[Field::Protocol, Field::DestinationPort], Set::RefusedNodePorts)
}

/// Counts by what was asked for, of which there is as much as the table holds; never by who asked.
fn refused(shape: &Shape, rule: Rule, fields: &[Field], set: Set) -> Vec<Rule> {
    let mut rule = rule.count(fields, set, shape.log);
    if shape.log {
        rule = rule.log(REFUSALS, "landfall refused", HEADERS);
    }
    vec![rule, Rule::any().drop()]
}

fn echo_request(family: Family) -> u8 {
    match family {
        Family::V4 => 8,
        Family::V6 => 128,
    }
}

fn icmp_protocol(family: Family) -> u8 {
    let number = match family {
        Family::V4 => libc::IPPROTO_ICMP,
        Family::V6 => libc::IPPROTO_ICMPV6,
    };
    number as u8
}
