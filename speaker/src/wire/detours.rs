//! The rules by which connections are sent on, as messages of nftables (linux/netfilter/nf_tables.h).
//!
//! A table of its own, and in it for each family:
//!
//! ```text
//! set detour    addresses that were taken over from a node that lives
//! set theirs    connections to them that this node does not know: source, port, address, port
//! chain late    hook prerouting, behind connection tracking, before any translation:
//!                 a TCP packet to a detour that belongs to no connection here and begins none
//!                 → its connection is theirs; the packet is dropped, since it is taken for new already
//! chain early   hook prerouting, before connection tracking:
//!                 a packet of theirs → not tracked, so not translated here; a route leads it to their node
//! ```
//!
//! The one packet that is dropped is sent again by whoever sent it, as TCP does.

use std::net::IpAddr;

use super::netlink::{ACK, APPEND, Attributes, CREATE, REQUEST, Writer};

/// The table.
pub const TABLE: &str = "landfall-detours";

/// `NFNL_SUBSYS_NFTABLES`, as the upper byte of a message's kind.
const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// `NFT_SET_TIMEOUT` and `NFT_SET_EVAL`.
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
/// A connection that is silent for longer is forgotten, in milliseconds.
const FORGET: u64 = 300_000;
/// As many connections are known at most.
const MOST: u32 = 65_536;
/// Before connection tracking (`NF_IP_PRI_CONNTRACK` is -200) and before whoever else looks that early.
const EARLY: i32 = -310;
/// Behind it, before any filter of ours and before kube-proxy's translation.
const LATE: i32 = -190;

/// The two families, with what nftables calls their parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn detour(self) -> &'static str {
        match self {
            Self::V4 => "detour4",
            Self::V6 => "detour6",
        }
    }

    fn theirs(self) -> &'static str {
        match self {
            Self::V4 => "theirs4",
            Self::V6 => "theirs6",
        }
    }

    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    fn protocol(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Number of the type of an address in nft, and its length in bytes.
    fn address(self) -> (u32, u32) {
        match self {
            Self::V4 => (7, 4),
            Self::V6 => (8, 16),
        }
    }

    /// Where the source and the destination stand in the header.
    fn places(self) -> (u32, u32) {
        match self {
            Self::V4 => (12, 16),
            Self::V6 => (8, 24),
        }
    }
}

/// Messages that come true together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    writer: Writer,
    sequence: u32,
}

impl Batch {
    /// The table as it is at first, whatever was there before.
    pub fn set_up() -> Self {
        let mut batch = Self::begin();
        batch.table(NEW_TABLE, CREATE);
        batch.table(DELETE_TABLE, 0);
        batch.table(NEW_TABLE, CREATE);
        for family in [Family::V4, Family::V6] {
            batch.sets(family);
        }
        batch.chain("early", EARLY);
        batch.chain("late", LATE);
        for family in [Family::V4, Family::V6] {
            batch.rule("early", |rule| early(rule, family));
            batch.rule("late", |rule| late(rule, family));
        }
        batch.end()
    }

    /// No table any more.
    pub fn clean_up() -> Self {
        let mut batch = Self::begin();
        batch.table(NEW_TABLE, CREATE);
        batch.table(DELETE_TABLE, 0);
        batch.end()
    }

    /// An address that was taken over.
    pub fn add(address: IpAddr) -> Self {
        Self::element(NEW_ELEMENT, CREATE, address)
    }

    /// It is an address like any other again.
    pub fn remove(address: IpAddr) -> Self {
        Self::element(DELETE_ELEMENT, 0, address)
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// The number of the message that is answered even if all is well: the last one before the end.
    pub fn acknowledged(&self) -> u32 {
        self.sequence - 2
    }

    fn element(kind: u16, flags: u16, address: IpAddr) -> Self {
        let mut batch = Self::begin();
        batch.message(kind, flags, |body| {
            body.text(1, TABLE);
            body.text(2, Family::of(address).detour());
            body.nest(3, |list| {
                list.nest(1, |element| {
                    element.nest(1, |key| match address {
                        IpAddr::V4(v4) => key.bytes(1, &v4.octets()),
                        IpAddr::V6(v6) => key.bytes(1, &v6.octets()),
                    });
                });
            });
        });
        batch.end()
    }

    fn begin() -> Self {
        let mut batch = Self { writer: Writer::default(), sequence: 0 };
        batch.frame(BATCH_BEGIN);
        batch
    }

    /// The last message asks for an answer.
    fn end(mut self) -> Self {
        self.writer.flag_last(ACK);
        self.frame(BATCH_END);
        self
    }

    fn frame(&mut self, kind: u16) {
        let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
        self.writer.message(kind, REQUEST, self.sequence, [0, 0, high, low], |_| {});
        self.sequence += 1;
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let inet = [libc::NFPROTO_INET as u8, 0, 0, 0];
        self.writer.message(SUBSYSTEM | kind, REQUEST | flags, self.sequence, inet, body);
        self.sequence += 1;
    }

    fn table(&mut self, kind: u16, flags: u16) {
        self.message(kind, flags, |body| body.text(1, TABLE));
    }

    fn sets(&mut self, family: Family) {
        let (address, length) = family.address();
        let port = 13;
        let (id, next) = (self.sequence, self.sequence + 1);
        self.message(NEW_SET, CREATE, |body| {
            body.text(1, TABLE);
            body.text(2, family.detour());
            body.number(3, 0);
            body.number(4, address);
            body.number(5, length);
            body.number(10, id);
        });
        self.message(NEW_SET, CREATE, |body| {
            body.text(1, TABLE);
            body.text(2, family.theirs());
            body.number(3, SET_TIMEOUT | SET_EVAL);
            // How nft writes the type of a key of four parts.
            body.number(4, ((address << 6 | port) << 6 | address) << 6 | port);
            body.number(5, 2 * (length + 4));
            body.nest(9, |description| description.number(1, MOST));
            body.number(10, next);
            body.bytes(11, &FORGET.to_be_bytes());
        });
    }

    fn chain(&mut self, name: &str, priority: i32) {
        self.message(NEW_CHAIN, CREATE, |body| {
            body.text(1, TABLE);
            body.text(3, name);
            body.nest(4, |hook| {
                // `NF_INET_PRE_ROUTING`
                hook.number(1, 0);
                hook.bytes(2, &priority.to_be_bytes());
            });
            // `NF_ACCEPT`
            body.number(5, 1);
            body.text(7, "filter");
        });
    }

    fn rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Rule<'_, '_>)) {
        self.message(NEW_RULE, CREATE | APPEND, |body| {
            body.text(1, TABLE);
            body.text(2, chain);
            body.nest(4, |list| expressions(&mut Rule(list)));
        });
    }
}

/// A packet of a connection that is theirs goes on as it is.
fn early(rule: &mut Rule<'_, '_>, family: Family) {
    rule.is_tcp_to_a_detour(family);
    rule.load_connection(family);
    rule.is_in(family.theirs(), FIRST);
    rule.note(family.theirs(), FIRST);
    rule.each("notrack", |_| {});
    rule.verdict(1);
}

/// A connection that is not known here is theirs.
fn late(rule: &mut Rule<'_, '_>, family: Family) {
    const INVALID: u32 = 1;
    const NEW: u32 = 8;
    const SYN: u8 = 0x02;
    const FIN_SYN_RST_ACK: u8 = 0x17;
    rule.is_tcp_to_a_detour(family);
    rule.each("ct", |body| {
        body.number(1, ANY);
        // `NFT_CT_STATE`
        body.number(2, 0);
    });
    // The kernel keeps the state as a number of the machine.
    rule.masked(&(INVALID | NEW).to_ne_bytes());
    rule.compare(false, &[0; 4]);
    rule.load(TRANSPORT, 13, 1, ANY);
    rule.masked(&[FIN_SYN_RST_ACK]);
    rule.compare(false, &[SYN]);
    rule.load_connection(family);
    rule.note(family.theirs(), FIRST);
    rule.verdict(0);
}

/// `NFT_REG_1`, of sixteen bytes.
const ANY: u32 = 1;
/// `NFT_REG32_00`: the first of four bytes.
const FIRST: u32 = 8;
/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Writes the expressions of a rule.
struct Rule<'r, 'w>(&'r mut Attributes<'w>);

impl Rule<'_, '_> {
    fn each(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nest(1, |expression| {
            expression.text(1, name);
            expression.nest(2, data);
        });
    }

    fn is_tcp_to_a_detour(&mut self, family: Family) {
        const PROTOCOL: u32 = 15;
        const TRANSPORT_PROTOCOL: u32 = 16;
        for (key, value) in [(PROTOCOL, family.protocol()), (TRANSPORT_PROTOCOL, libc::IPPROTO_TCP as u8)] {
            self.each("meta", |body| {
                body.number(1, ANY);
                body.number(2, key);
            });
            self.compare(true, &[value]);
        }
        self.load(NETWORK, family.places().1, family.address().1, ANY);
        self.is_in(family.detour(), ANY);
    }

    /// Source, port, destination and port, one behind the other from the first register on.
    fn load_connection(&mut self, family: Family) {
        let ((source, destination), length) = (family.places(), family.address().1);
        let registers = length / 4;
        self.load(NETWORK, source, length, FIRST);
        self.load(TRANSPORT, 0, 2, FIRST + registers);
        self.load(NETWORK, destination, length, FIRST + registers + 1);
        self.load(TRANSPORT, 2, 2, FIRST + 2 * registers + 1);
    }

    fn load(&mut self, base: u32, at: u32, length: u32, to: u32) {
        self.each("payload", |body| {
            body.number(1, to);
            body.number(2, base);
            body.number(3, at);
            body.number(4, length);
        });
    }

    fn compare(&mut self, equal: bool, value: &[u8]) {
        self.each("cmp", |body| {
            body.number(1, ANY);
            body.number(2, u32::from(!equal));
            body.nest(3, |data| data.bytes(1, value));
        });
    }

    fn masked(&mut self, mask: &[u8]) {
        self.each("bitwise", |body| {
            body.number(1, ANY);
            body.number(2, ANY);
            body.number(3, mask.len() as u32);
            body.nest(4, |data| data.bytes(1, mask));
            body.nest(5, |data| data.bytes(1, &vec![0; mask.len()]));
        });
    }

    fn is_in(&mut self, set: &str, register: u32) {
        self.each("lookup", |body| {
            body.text(1, set);
            body.number(2, register);
        });
    }

    /// Adds to a set, or lets what is there begin its time anew.
    fn note(&mut self, set: &str, register: u32) {
        self.each("dynset", |body| {
            body.text(1, set);
            // `NFT_DYNSET_OP_UPDATE`
            body.number(3, 1);
            body.number(4, register);
            body.bytes(6, &FORGET.to_be_bytes());
        });
    }

    fn verdict(&mut self, code: u32) {
        self.each("immediate", |body| {
            // `NFT_REG_VERDICT`
            body.number(1, 0);
            body.nest(2, |data| data.nest(2, |verdict| verdict.number(1, code)));
        });
    }
}
