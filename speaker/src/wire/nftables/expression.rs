//! Expressions as attributes (linux/netfilter/nf_tables.h, `NFTA_EXPR_*` and those of each kind).

use crate::filter::rule::{Expression, Field, Verdict};
use crate::filter::sources::Family;
use crate::wire::netlink::Attributes;

/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFT_REG32_00`: the first register of four bytes.
const FIRST_REGISTER: u32 = 8;
/// How often a minute a notice follows a count, and how often at once.
const NOTICES_PER_MINUTE: u64 = 1;
const NOTICES_AT_ONCE: u32 = 5;

/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Writes an expression.
pub(super) fn write(expression: &Expression, body: &mut Attributes<'_>) {
    match expression {
        Expression::Load(field, to) => load(*field, register(*to), body),
        Expression::Mask(at, mask) => each(body, "bitwise", |body| {
            body.number(1, register(*at));
            body.number(2, register(*at));
            body.number(3, mask.len() as u32);
            body.nest(4, |body| body.bytes(1, mask));
            body.nest(5, |body| body.bytes(1, &vec![0; mask.len()]));
        }),
        Expression::Compare { register: at, equal, value } => each(body, "cmp", |body| {
            body.number(1, register(*at));
            body.number(2, if *equal { 0 } else { 1 });
            body.nest(3, |body| body.bytes(1, value));
        }),
        Expression::Lookup { set, register: at, found } => each(body, "lookup", |body| {
            body.text(1, &set.to_string());
            body.number(2, register(*at));
            if !found {
                // `NFT_LOOKUP_F_INV`
                body.number(5, 1);
            }
        }),
        Expression::Count { set, register: at, notice } => each(body, "dynset", |body| {
            body.text(1, &set.to_string());
            // `NFT_DYNSET_OP_ADD`
            body.number(3, 0);
            body.number(4, register(*at));
            if *notice {
                // `NFT_DYNSET_F_EXPR`
                body.number(9, 2);
                body.nest(10, |body| {
                    counter(body);
                    limit(body, NOTICES_PER_MINUTE, 60, NOTICES_AT_ONCE);
                });
            } else {
                body.nest(7, |body| body.text(1, "counter"));
            }
        }),
        Expression::Counter => counter(body),
        Expression::Limit(per_second) => {
            let burst = u32::try_from(2 * per_second).unwrap_or(u32::MAX);
            limit(body, *per_second, 1, burst);
        }
        Expression::Log { group, prefix, length } => each(body, "log", |body| {
            body.bytes(1, &group.to_be_bytes());
            body.text(2, prefix);
            body.number(3, *length);
            body.bytes(4, &0_u16.to_be_bytes());
        }),
        Expression::Reset => each(body, "reject", |body| {
            // `NFT_REJECT_TCP_RST`
            body.number(1, 1);
            body.bytes(2, &[0]);
        }),
        Expression::Unreachable => each(body, "reject", |body| {
            // `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`
            body.number(1, 2);
            body.bytes(2, &[1]);
        }),
        Expression::Verdict(verdict) => each(body, "immediate", |body| {
            body.number(1, VERDICT);
            body.nest(2, |body| {
                body.nest(2, |body| match verdict {
                    Verdict::Drop => body.number(1, 0),
                    Verdict::Accept => body.number(1, 1),
                    Verdict::Goto(chain) => {
                        // `NFT_GOTO`
                        body.bytes(1, &(-4_i32).to_be_bytes());
                        body.text(2, chain);
                    }
                });
            });
        }),
    }
}

fn register(word: u8) -> u32 {
    FIRST_REGISTER + u32::from(word)
}

/// An element of a list of expressions.
fn each(body: &mut Attributes<'_>, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
    body.nest(1, |body| {
        body.text(1, name);
        body.nest(2, data);
    });
}

fn counter(body: &mut Attributes<'_>) {
    body.nest(1, |body| body.text(1, "counter"));
}

fn limit(body: &mut Attributes<'_>, times: u64, seconds: u64, burst: u32) {
    each(body, "limit", |body| {
        body.bytes(1, &times.to_be_bytes());
        body.bytes(2, &seconds.to_be_bytes());
        body.number(3, burst);
        // `NFT_LIMIT_PKTS`
        body.number(4, 0);
    });
}

fn load(field: Field, to: u32, body: &mut Attributes<'_>) {
    let mut meta = |key: u32| {
        each(body, "meta", |body| {
            body.number(1, to);
            body.number(2, key);
        });
    };
    match field {
        Field::Family => return meta(15),
        Field::Protocol => return meta(16),
        _ => {}
    }
    let mut ct = |key: u32| {
        each(body, "ct", |body| {
            body.number(1, to);
            body.number(2, key);
        });
    };
    match field {
        Field::State => return ct(0),
        Field::Direction => return ct(1),
        Field::Status => return ct(2),
        _ => {}
    }
    /// `NFT_FIB_RESULT_OIF` and `NFT_FIB_RESULT_ADDRTYPE`
    const INTERFACE: u32 = 1;
    const KIND: u32 = 3;
    /// `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR` and `NFTA_FIB_F_PRESENT`
    const OF_SOURCE: u32 = 1 << 0;
    const OF_DESTINATION: u32 = 1 << 1;
    const WHETHER: u32 = 1 << 5;
    let mut fib = |result: u32, flags: u32| {
        each(body, "fib", |body| {
            body.number(1, to);
            body.number(2, result);
            body.number(3, flags);
        });
    };
    let (base, offset) = match field {
        Field::SourceType => return fib(KIND, OF_SOURCE),
        Field::DestinationType => return fib(KIND, OF_DESTINATION),
        Field::HasRoute => return fib(INTERFACE, OF_DESTINATION | WHETHER),
        Field::Source(Family::V4) => (NETWORK, 12),
        Field::Destination(Family::V4) => (NETWORK, 16),
        Field::Source(Family::V6) => (NETWORK, 8),
        Field::Destination(Family::V6) => (NETWORK, 24),
        Field::DestinationPort => (TRANSPORT, 2),
        _ => (TRANSPORT, 0),
    };
    each(body, "payload", |body| {
        body.number(1, to);
        body.number(2, base);
        body.number(3, offset);
        body.number(4, field.length() as u32);
    });
}
