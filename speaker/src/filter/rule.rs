//! Rules of nftables as values: what they ask of a packet and what becomes of it.

use super::set::Set;
use super::shape::Level;
use super::sources::Family;

/// Where a chain is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Where packets come in.
    Prerouting,
    /// Where packets come in that stay.
    Input,
    /// Where packets are passed on.
    Forward,
    /// Where packets of the node itself go out.
    Output,
    /// Where packets go out.
    Postrouting,
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where it is hooked in and with which priority, if it is.
    pub hook: Option<(Hook, i32)>,
    /// Its rules. A packet that none of them decides on goes on.
    pub rules: Vec<Rule>,
}

/// Something that is asked of a packet. Fields are compared as they are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Its family, as a number of Linux.
    Family,
    /// Its transport protocol.
    Protocol,
    /// Where it comes from.
    Source(Family),
    /// Where it goes to.
    Destination(Family),
    /// The port it comes from.
    SourcePort,
    /// The port it goes to.
    DestinationPort,
    /// The kind of ICMP message.
    IcmpType,
    /// Whether it goes from the client to the server (0) or back (1), as the kernel saw the first packet.
    Direction,
    /// Bits for what the kernel knows of its connection.
    State,
    /// Bits for what the kernel does to its connection.
    Status,
    /// To whom its source belongs, by the routing tables.
    SourceType,
    /// To whom its destination belongs, by the routing tables.
    DestinationType,
    /// Whether there is a way to its destination, by the routing tables.
    HasRoute,
}

impl Field {
    /// Its length in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Family | Self::Protocol | Self::IcmpType | Self::Direction => 1,
            Self::SourcePort | Self::DestinationPort => 2,
            Self::Source(family) | Self::Destination(family) => usize::from(family.bits() / 8),
            Self::State | Self::Status | Self::SourceType | Self::DestinationType | Self::HasRoute => 4,
        }
    }
}

/// One expression of a rule. A register is a word of four bytes; fields begin at one and fill as many as they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Puts a field into registers.
    Load(Field, u8),
    /// Keeps only the bits of a mask.
    Mask(u8, Vec<u8>),
    /// Goes on where registers hold (or do not hold) that.
    Compare {
        /// The first register.
        register: u8,
        /// Whether they must be equal.
        equal: bool,
        /// What they are compared with.
        value: Vec<u8>,
    },
    /// Goes on where a set holds (or does not hold) what registers hold.
    Lookup {
        /// The set.
        set: Set,
        /// The first register.
        register: u8,
        /// Whether the set must hold it.
        found: bool,
    },
    /// Adds what registers hold to a set and counts there. With a notice it goes on a few times a minute only.
    Count {
        /// The set.
        set: Set,
        /// The first register.
        register: u8,
        /// Whether a notice follows.
        notice: bool,
    },
    /// Counts.
    Counter,
    /// Goes on so many times a second, and twice as many times at once.
    Limit(u64),
    /// Tells the listener of a group of a packet.
    Log {
        /// The group.
        group: u16,
        /// What it is told for.
        prefix: &'static str,
        /// How much of the packet it is told, in bytes.
        length: u32,
    },
    /// Refuses with a TCP reset.
    Reset,
    /// Refuses with an ICMP message: port unreachable.
    Unreachable,
    /// Decides.
    Verdict(Verdict),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on its way.
    Accept,
    /// It is dropped.
    Drop,
    /// Another chain decides.
    Goto(&'static str),
}

/// Expressions that must all hold, in order, for the last one to decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule(pub Vec<Expression>);

impl Rule {
    /// For all packets.
    pub fn any() -> Self {
        Self::default()
    }

    /// For packets of one family.
    pub fn of(family: Family) -> Self {
        Self::any().and_of(family)
    }

    /// Where it is of one family.
    pub fn and_of(self, family: Family) -> Self {
        let number = match family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        self.is(Field::Family, &[number as u8])
    }

    fn then(mut self, expression: Expression) -> Self {
        self.0.push(expression);
        self
    }

    /// Where a field has a value.
    pub fn is(self, field: Field, value: &[u8]) -> Self {
        let load = self.then(Expression::Load(field, 0));
        load.then(Expression::Compare { register: 0, equal: true, value: value.to_vec() })
    }

    /// Where the bits of a mask in a field have a value.
    pub fn masked(self, field: Field, mask: &[u8], value: &[u8]) -> Self {
        self.then(Expression::Load(field, 0))
            .then(Expression::Mask(0, mask.to_vec()))
            .then(Expression::Compare { register: 0, equal: true, value: value.to_vec() })
    }

    /// Where a field has one of the bits, or none of them.
    pub fn has(self, field: Field, bits: u32, any: bool) -> Self {
        self.then(Expression::Load(field, 0))
            .then(Expression::Mask(0, bits.to_ne_bytes().to_vec()))
            .then(Expression::Compare { register: 0, equal: !any, value: vec![0; size_of::<u32>()] })
    }

    /// Loads fields one behind the other; tells the register of the last one.
    fn load(mut self, fields: &[Field]) -> (Self, u8) {
        let (mut next, mut last) = (0, 0);
        for field in fields {
            last = next;
            self = self.then(Expression::Load(*field, next));
            next += field.length().div_ceil(size_of::<u32>()) as u8;
        }
        (self, last)
    }

    /// Where a set holds the fields.
    pub fn in_set(self, fields: &[Field], set: Set) -> Self {
        self.load(fields).0.then(Expression::Lookup { set, register: 0, found: true })
    }

    /// Where none of the sets of sources holds the fields, the last of which is a source.
    pub fn in_no_sources(self, fields: &[Field], level: Level, family: Family, lengths: &[u8]) -> Self {
        let Some((source, before)) = fields.split_last().filter(|_| !lengths.is_empty()) else { return self };
        let (mut rule, mut register) = self.load(before);
        if let Some(last) = before.last() {
            register += last.length().div_ceil(size_of::<u32>()) as u8;
        }
        for length in lengths {
            rule = rule.then(Expression::Load(*source, register));
            if *length < family.bits() {
                rule = rule.then(Expression::Mask(register, mask(family, *length)));
            }
            let set = Set::Sources(level, family, *length);
            rule = rule.then(Expression::Lookup { set, register: 0, found: false });
        }
        rule
    }

    /// Counts the fields in a set.
    pub fn count(self, fields: &[Field], set: Set, notice: bool) -> Self {
        self.load(fields).0.then(Expression::Count { set, register: 0, notice })
    }

    /// Counts.
    pub fn counted(self) -> Self {
        self.then(Expression::Counter)
    }

    /// So many times a second.
    pub fn at_most(self, per_second: u64) -> Self {
        self.then(Expression::Limit(per_second))
    }

    /// Tells of the packet.
    pub fn log(self, group: u16, prefix: &'static str, length: u32) -> Self {
        self.then(Expression::Log { group, prefix, length })
    }

    /// Refuses with a TCP reset.
    pub fn reset(self) -> Self {
        self.then(Expression::Reset)
    }

    /// Refuses with an ICMP message.
    pub fn unreachable(self) -> Self {
        self.then(Expression::Unreachable)
    }

    /// Lets the packet go on.
    pub fn accept(self) -> Self {
        self.then(Expression::Verdict(Verdict::Accept))
    }

    /// Drops it.
    pub fn drop(self) -> Self {
        self.then(Expression::Verdict(Verdict::Drop))
    }

    /// Has another chain decide.
    pub fn goto(self, chain: &'static str) -> Self {
        self.then(Expression::Verdict(Verdict::Goto(chain)))
    }
}

/// The mask of a prefix length.
fn mask(family: Family, length: u8) -> Vec<u8> {
    (0..family.bits() / 8)
        .map(|byte| {
            let ones = length.saturating_sub(8 * byte).min(8);
            (0xff00_u16 >> ones).to_be_bytes()[1]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_ones_as_the_prefix_is_long() {
        assert_eq!(mask(Family::V4, 0), [0; 4]);
        assert_eq!(mask(Family::V4, 12), [0xff, 0xf0, 0, 0]);
        assert_eq!(mask(Family::V4, 32), [0xff; 4]);
        assert_eq!(mask(Family::V6, 60)[..9], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0]);
    }
}
