//! Netlink messages and their attributes (RFC 3549; linux/netlink.h), as netfilter uses them: headers in the
//! order of the machine, what is in attributes mostly in that of the network.

const HEADER_LEN: usize = 16;
const ATTRIBUTE_LEN: usize = 4;
/// Marks an attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// What an attribute's kind is besides its marks (`NLA_TYPE_MASK`).
const KIND: u16 = 0x3fff;

/// Asks for something (`NLM_F_REQUEST`).
pub const REQUEST: u16 = 0x1;
/// Wants an answer even if all is well (`NLM_F_ACK`).
pub const ACK: u16 = 0x4;
/// In an answer: the kernel was changed meanwhile (`NLM_F_DUMP_INTR`).
pub const INTERRUPTED: u16 = 0x10;
/// Asks for all there is (`NLM_F_DUMP`).
pub const DUMP: u16 = 0x300;
/// Creates what is not there yet (`NLM_F_CREATE`).
pub const CREATE: u16 = 0x400;
/// Comes after all others (`NLM_F_APPEND`).
pub const APPEND: u16 = 0x800;
/// In an answer with an error: attributes follow (`NLM_F_ACK_TLVS`).
const WITH_ATTRIBUTES: u16 = 0x200;

/// An error, or the word that there is none.
pub const ERROR: u16 = 2;
/// The end of a dump.
pub const DONE: u16 = 3;

/// The attribute of an error that holds its text (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;

/// Writes messages one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    last: usize,
}

impl Writer {
    /// Writes a message with the subsystem's own header and the attributes that `body` writes.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        header: [u8; 4],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(header);
        body(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Gives the last message a flag more.
    pub fn flag_last(&mut self, flag: u16) {
        if let Some([low, high]) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            [*low, *high] = (u16::from_ne_bytes([*low, *high]) | flag).to_ne_bytes();
        }
    }

    /// Everything that was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes attributes one behind the other.
#[derive(Debug)]
pub struct Attributes<'w>(&'w mut Vec<u8>);

impl Attributes<'_> {
    /// Bytes. They must be fewer than 65,532, as the length is a number of 16 bits.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.with(kind, |bytes| bytes.extend(value));
    }

    /// A text, which ends in a zero byte.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.with(kind, |bytes| {
            bytes.extend(value.as_bytes());
            bytes.push(0);
        });
    }

    /// A number in the order of the network.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Attributes in an attribute.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.with(kind | NESTED, |bytes| body(&mut Attributes(bytes)));
    }

    /// How many bytes were written so far.
    pub fn written(&self) -> usize {
        self.0.len()
    }

    fn with(&mut self, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        body(self.0);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its kind.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What it says.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// What the kernel says to a request: an error's number, or zero, and the kernel's own words for it. Nothing
    /// where this is another kind of message.
    pub fn outcome(&self) -> Option<(i32, Option<&'a str>)> {
        let number = self.body.first_chunk().filter(|_| self.kind == ERROR)?;
        let mut text = None;
        if self.flags & WITH_ATTRIBUTES != 0 {
            // Behind the number stands the header of the request; its body was left out (NETLINK_CAP_ACK).
            let rest = self.body.get(4 + HEADER_LEN..).unwrap_or_default();
            text = attribute(rest, ERROR_TEXT).and_then(text_of);
        }
        Some((i32::from_ne_bytes(*number).wrapping_neg(), text))
    }

    /// The attributes behind the subsystem's own header of four bytes.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.body.get(4..).unwrap_or_default())
    }
}

/// All messages in a buffer. Reading ends where one is not as long as it says.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER_LEN>()?;
        let number =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let short = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = number(0) as usize;
        let body = rest.get(HEADER_LEN..length)?;
        let message = Message { kind: short(4), flags: short(6), sequence: number(8), body };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// All attributes in a buffer, each with its kind. Reading ends where one is not as long as it says.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *rest.first_chunk::<ATTRIBUTE_LEN>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(ATTRIBUTE_LEN..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & KIND, value))
    })
}

/// The first attribute of a kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// An attribute's text, without the zero byte at its end.
pub fn text_of(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

/// An attribute's number, in the order of the network.
pub fn number_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// An attribute's long number, in the order of the network.
pub fn long_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.message(7, REQUEST | ACK, 3, [1, 0, 0, 9], |body| {
            body.text(1, "abc");
            body.nest(2, |inner| {
                inner.number(1, 0x0102_0304);
                inner.bytes(2, &[5; 5]);
            });
        });
        writer.message(8, 0, 4, [0; 4], |_| {});
        let read: Vec<_> = messages(writer.bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].flags, read[0].sequence), (7, REQUEST | ACK, 3));
        let inside: Vec<_> = read[0].attributes().collect();
        assert_eq!(inside[0], (1, &b"abc\0"[..]));
        assert_eq!(text_of(inside[0].1), Some("abc"));
        assert_eq!(number_of(attribute(inside[1].1, 1).unwrap()), Some(0x0102_0304));
        assert_eq!(attribute(inside[1].1, 2), Some(&[5; 5][..]));
        assert_eq!(attribute(inside[1].1, 3), None);
        assert_eq!((read[1].kind, read[1].attributes().count()), (8, 0));
    }

    #[test]
    fn an_error_is_read_with_the_kernels_words() {
        let mut writer = Writer::default();
        let request = [0; HEADER_LEN];
        writer.message(ERROR, WITH_ATTRIBUTES, 9, (-2_i32).to_ne_bytes(), |body| {
            // The header of the request, as the kernel repeats it.
            body.0.extend(request);
            body.text(ERROR_TEXT, "no such set");
        });
        let read = messages(writer.bytes()).next().unwrap();
        assert_eq!(read.outcome(), Some((2, Some("no such set"))));
        let mut writer = Writer::default();
        writer.message(ERROR, 0, 9, [0; 4], |_| {});
        assert_eq!(messages(writer.bytes()).next().unwrap().outcome(), Some((0, None)));
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_makes_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                let _ = message.outcome();
                prop_assert!(message.attributes().count() <= bytes.len());
            }
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
