//! Packets that the kernel tells of, as a rule asks it to (linux/netfilter/nfnetlink_log.h).

use super::netlink::{ACK, Message, REQUEST, Writer, attribute};

/// `NFNL_SUBSYS_ULOG`, as the upper byte of a message's kind.
const SUBSYSTEM: u16 = 4 << 8;
const PACKET: u16 = 0;
const CONFIG: u16 = 1;
const NFNETLINK_V0: u8 = 0;

/// `NFULNL_CFG_CMD_BIND`.
const BIND: u8 = 1;
/// `NFULNL_COPY_PACKET`.
const COPY_PACKET: u8 = 2;

/// Asks to be told of the packets of a group, each at once, with up to `length` bytes of it.
pub fn bind(group: u16, length: u32, sequence: u32) -> Vec<u8> {
    let [high, low] = group.to_be_bytes();
    let mut writer = Writer::default();
    let header = [libc::AF_UNSPEC as u8, NFNETLINK_V0, high, low];
    writer.message(SUBSYSTEM | CONFIG, REQUEST | ACK, sequence, header, |body| {
        body.bytes(1, &[BIND]);
        let [a, b, c, d] = length.to_be_bytes();
        body.bytes(2, &[a, b, c, d, COPY_PACKET, 0]);
        // One packet is enough to tell of.
        body.number(5, 1);
    });
    writer.bytes().to_vec()
}

/// A packet that was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged<'a> {
    /// The group.
    pub group: u16,
    /// The packet, from its IP header on.
    pub packet: &'a [u8],
}

impl<'a> Logged<'a> {
    /// From a message, if it is one of these.
    pub fn read(message: &Message<'a>) -> Option<Self> {
        (message.kind == SUBSYSTEM | PACKET).then_some(())?;
        let (header, body) = message.body.split_first_chunk::<4>()?;
        Some(Self { group: u16::from_be_bytes([header[2], header[3]]), packet: attribute(body, 9)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::messages;

    #[test]
    fn the_kernel_is_asked_as_its_header_says() {
        #[rustfmt::skip]
        let expected = [
            48, 0, 0, 0, 1, 4, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0, // length, kind, flags, sequence, port
            0, 0, 0x1e, 0xfb, // family, version, group
            5, 0, 1, 0, 1, 0, 0, 0, // command: bind
            10, 0, 2, 0, 0, 0, 0, 128, 2, 0, 0, 0, // mode: 128 bytes of each packet
            8, 0, 5, 0, 0, 0, 0, 1, // at once
        ];
        assert_eq!(bind(7931, 128, 9), expected);
    }

    #[test]
    fn a_packet_is_read_with_its_group() {
        let mut writer = Writer::default();
        writer.message(SUBSYSTEM | PACKET, 0, 0, [2, 0, 0x1e, 0xfc], |body| {
            body.number(4, 2);
            body.bytes(9, b"packet");
        });
        let message = messages(writer.bytes()).next().unwrap();
        assert_eq!(Logged::read(&message), Some(Logged { group: 7932, packet: b"packet" }));
        let other = Message { kind: SUBSYSTEM | CONFIG, ..message };
        assert_eq!(Logged::read(&other), None);
    }
}
