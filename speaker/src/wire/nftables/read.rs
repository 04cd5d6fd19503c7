//! What the kernel tells of our table.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::keys::{element, parts};
use super::{LAYOUT, OWNED, PERSISTENT, SUBSYSTEM, TABLE, comment, kind};
use crate::filter::frontend::Port;
use crate::filter::set::Set;
use crate::filter::shape::Shape;
use crate::filter::table::Element;
use crate::filter::{Count, program};
use crate::wire::netlink::{Message, attribute, attributes, long_of, number_of, text_of};

/// What the kernel tells of the table itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFacts {
    /// Its handle.
    pub handle: u64,
    /// Whether this version made it, or one that makes the same.
    pub is_of_this_layout: bool,
    /// The flags that it has.
    pub flags: u32,
    /// The netlink port of the process that owns it, where one does.
    pub owner: Option<u32>,
}

impl TableFacts {
    /// From a message, if it is about our table.
    pub fn read(message: &Message<'_>) -> Option<Self> {
        let body = about(message, kind::NEW_TABLE)?;
        (text_of(attribute(body, 1)?)? == TABLE).then_some(())?;
        Some(Self {
            handle: long_of(attribute(body, 4)?)?,
            is_of_this_layout: attribute(body, 6) == Some(&comment(LAYOUT)),
            flags: attribute(body, 2).and_then(number_of).unwrap_or_default() & (OWNED | PERSISTENT),
            owner: attribute(body, 7).and_then(number_of).filter(|owner| *owner != 0),
        })
    }
}

/// The attributes of a message of ours of a kind.
fn about<'a>(message: &Message<'a>, wanted: u16) -> Option<&'a [u8]> {
    (message.kind == SUBSYSTEM | wanted).then(|| message.body.get(4..)).flatten()
}

/// The names of the table's chains, each with whether it is hooked in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains(BTreeSet<(String, bool)>);

impl Chains {
    /// Takes a message in.
    pub fn take(&mut self, message: &Message<'_>) {
        let chain = about(message, kind::NEW_CHAIN).and_then(|body| {
            (text_of(attribute(body, 1)?)? == TABLE).then_some(())?;
            Some((text_of(attribute(body, 3)?)?.to_owned(), attribute(body, 4).is_some()))
        });
        self.0.extend(chain);
    }

    /// Whether they are the chains that this version makes.
    pub fn are_ours(&self) -> bool {
        let ours = program::chains(&Shape::default());
        self.0 == ours.into_iter().map(|chain| (chain.name.to_owned(), chain.hook.is_some())).collect()
    }
}

/// The table's sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    known: BTreeSet<Set>,
    has_strangers: bool,
}

impl Sets {
    /// Takes a message in.
    pub fn take(&mut self, message: &Message<'_>) {
        let Some(body) = about(message, kind::NEW_SET) else { return };
        let text = |kind| attribute(body, kind).and_then(text_of);
        if text(1) != Some(TABLE) {
            return;
        }
        match text(2).and_then(Set::named) {
            Some(set) => drop(self.known.insert(set)),
            None => self.has_strangers = true,
        }
    }

    /// The shape of rules that look into them; nothing where they are not the sets that this version makes.
    pub fn shape(&self) -> Option<Shape> {
        if self.has_strangers || !Set::FIXED.iter().all(|set| self.known.contains(set)) {
            return None;
        }
        let mut shape = Shape::new(true, true);
        for set in &self.known {
            if let Set::Sources(level, family, length) = set {
                shape.look_for(*level, *family, *length);
            }
        }
        Some(shape)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Set> {
        self.known.iter().copied()
    }
}

/// The elements of a set that a message tells of; nothing in place of one that this version would not add.
pub fn elements<'a>(set: Set, message: &Message<'a>) -> impl Iterator<Item = Option<Element>> + use<'a> {
    listed(message).map(move |body| element(set, key_of(body)?))
}

/// What the elements of a set count that a message tells of.
pub fn counts<'a>(set: Set, message: &Message<'a>) -> impl Iterator<Item = Count> + use<'a> {
    listed(message).filter_map(move |body| {
        let (address, port, _): (Option<IpAddr>, Option<Port>, _) = parts(set, key_of(body)?)?;
        // One expression, or the first one of a list.
        let counter = attribute(body, 7).or_else(|| attribute(attribute(body, 11)?, 1))?;
        (text_of(attribute(counter, 1)?)? == "counter").then_some(())?;
        let data = attribute(counter, 2)?;
        let number = |kind| long_of(attribute(data, kind)?);
        Some(Count { set, address, port, packets: number(2)?, bytes: number(1)? })
    })
}

fn listed<'a>(message: &Message<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let list = about(message, kind::NEW_ELEMENT).and_then(|body| attribute(body, 3)).unwrap_or_default();
    attributes(list).map(|(_, body)| body)
}

fn key_of(body: &[u8]) -> Option<&[u8]> {
    attribute(attribute(body, 1)?, 1)
}
