use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::keys::element;
use super::read::{Chains, Sets, TableFacts, counts, elements};
use super::*;
use crate::filter::Count;
use crate::filter::frontend::Port;
use crate::filter::rule::Field;
use crate::filter::shape::Level;
use crate::filter::table::{Element, Place};
use crate::wire::netlink::{Message, messages};
use ipnet::IpNet;
use landfall_crds::Protocol;
use proptest::prelude::*;

fn tcp(number: u16) -> Port {
    Port { protocol: Protocol::Tcp, number }
}

fn vip() -> IpAddr {
    "192.168.10.50".parse().unwrap()
}

#[test]
fn elements_are_written_as_the_kernel_reads_them() {
    let source = Element::Source(Place::Address(vip()), "10.16.0.0/12".parse().unwrap());
    let batch = Batch::new(&[Operation::Add(source), Operation::Remove(Element::Served(vip(), tcp(80)))], 0);
    #[rustfmt::skip]
    let expected: &[u8] = &[
        // NFNL_MSG_BATCH_BEGIN for subsystem 10
        20, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        // NFT_MSG_DELSETELEM
        76, 0, 0, 0, 14, 10, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
        13, 0, 1, 0, b'l', b'a', b'n', b'd', b'f', b'a', b'l', b'l', 0, 0, 0, 0,
        11, 0, 2, 0, b'p', b'o', b'r', b't', b's', b'4', 0, 0,
        28, 0, 3, 0x80, 24, 0, 1, 0x80, 20, 0, 1, 0x80, 16, 0, 1, 0,
        192, 168, 10, 50, 6, 0, 0, 0, 0, 80, 0, 0,
        // NFT_MSG_NEWSETELEM with NLM_F_CREATE, and NLM_F_ACK since it is the last
        76, 0, 0, 0, 12, 10, 5, 4, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
        13, 0, 1, 0, b'l', b'a', b'n', b'd', b'f', b'a', b'l', b'l', 0, 0, 0, 0,
        16, 0, 2, 0, b's', b'o', b'u', b'r', b'c', b'e', b's', b'4', b'/', b'1', b'2', 0,
        24, 0, 3, 0x80, 20, 0, 1, 0x80, 16, 0, 1, 0x80, 12, 0, 1, 0,
        192, 168, 10, 50, 10, 16, 0, 0,
        // NFNL_MSG_BATCH_END
        20, 0, 0, 0, 0x11, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
    ];
    assert_eq!(batch.bytes(), expected);
    assert_eq!(batch.acknowledged(), 2);
    assert_eq!(batch.about(1), About::Elements(Set::Ports(Family::V4)));
    assert_eq!(batch.about(2).to_string(), "elements of the set sources4/12");
}

#[test]
fn a_rule_is_written_as_the_kernel_reads_it() {
    let mut writer = Writer::default();
    let rule = Rule::any().in_no_sources(
        &[Field::Destination(Family::V4), Field::Source(Family::V4)],
        Level::Address,
        Family::V4,
        &[12],
    );
    writer.message(0, 0, 0, [0; 4], |body| {
        rule.goto("refused4").0.iter().for_each(|each| expression::write(each, body));
    });
    let text = |bytes: &'static [u8]| bytes.iter().copied();
    #[rustfmt::skip]
    let expected: Vec<u8> = [
        // payload: register 8, network header, offset 16, 4 bytes
        text(b"\x34\0\x01\x80\x0c\0\x01\0payload\0\x24\0\x02\x80"),
        text(b"\x08\0\x01\0\0\0\0\x08\x08\0\x02\0\0\0\0\x01\x08\0\x03\0\0\0\0\x10\x08\0\x04\0\0\0\0\x04"),
        // payload: register 9, network header, offset 12, 4 bytes
        text(b"\x34\0\x01\x80\x0c\0\x01\0payload\0\x24\0\x02\x80"),
        text(b"\x08\0\x01\0\0\0\0\x09\x08\0\x02\0\0\0\0\x01\x08\0\x03\0\0\0\0\x0c\x08\0\x04\0\0\0\0\x04"),
        // bitwise: register 9 & 255.240.0.0
        text(b"\x44\0\x01\x80\x0c\0\x01\0bitwise\0\x34\0\x02\x80"),
        text(b"\x08\0\x01\0\0\0\0\x09\x08\0\x02\0\0\0\0\x09\x08\0\x03\0\0\0\0\x04"),
        text(b"\x0c\0\x04\x80\x08\0\x01\0\xff\xf0\0\0\x0c\0\x05\x80\x08\0\x01\0\0\0\0\0"),
        // lookup: sources4/12, from register 8, inverted
        text(b"\x34\0\x01\x80\x0b\0\x01\0lookup\0\0\x24\0\x02\x80"),
        text(b"\x10\0\x01\0sources4/12\0\x08\0\x02\0\0\0\0\x08\x08\0\x05\0\0\0\0\x01"),
        // immediate: verdict register, goto refused4
        text(b"\x40\0\x01\x80\x0e\0\x01\0immediate\0\0\0\x2c\0\x02\x80"),
        text(b"\x08\0\x01\0\0\0\0\0\x20\0\x02\x80\x1c\0\x02\x80\x08\0\x01\0\xff\xff\xff\xfc\x0d\0\x02\0refused4\0\0\0\0"),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert_eq!(writer.bytes()[20..], expected);
}

#[test]
fn a_table_is_created_whole_and_each_message_says_what_it_is_about() {
    let mut shape = Shape::new(true, true).telling(true);
    shape.look_for(Level::Address, Family::V6, 64);
    let batch = Batch::new(&[Operation::Create(shape.clone())], OWNED | PERSISTENT);
    let read: Vec<Message<'_>> = messages(batch.bytes()).collect();
    assert_eq!(read.len() as u32, batch.acknowledged() + 2);
    let count = |kind: u16| read.iter().filter(|message| message.kind == SUBSYSTEM | kind).count();
    assert_eq!(count(kind::NEW_SET), Set::FIXED.len() + 1);
    assert_eq!(count(kind::NEW_CHAIN), chains(&shape).len());
    assert_eq!(count(kind::NEW_RULE), chains(&shape).iter().map(|chain| chain.rules.len()).sum::<usize>());
    for (sequence, message) in read.iter().enumerate() {
        assert_eq!(message.sequence as usize, sequence);
        let about = batch.about(message.sequence);
        let is_right = match message.kind ^ SUBSYSTEM {
            kind::NEW_TABLE => about == About::Table,
            kind::NEW_SET => matches!(about, About::Set(_)),
            kind::NEW_CHAIN => matches!(about, About::Chain(_)),
            kind::NEW_RULE => matches!(about, About::Rule { .. }),
            _ => about == About::Batch,
        };
        assert!(is_right, "{message:?} {about}");
    }
    let logging =
        read.iter().filter(|message| matches!(batch.about(message.sequence), About::Rule { logs: true, .. }));
    assert_eq!(logging.count(), 7, "pings and refusals of both families");
}

#[test]
fn many_elements_are_spread_over_messages_that_the_kernel_takes() {
    let add = |n: u32| Operation::Add(Element::Barrier(Place::Address(Ipv4Addr::from_bits(n).into())));
    let transaction: Vec<_> = (0..10_000).map(add).collect();
    let batch = Batch::new(&transaction, 0);
    let read: Vec<Message<'_>> = messages(batch.bytes()).collect();
    assert!(read.iter().all(|message| message.body.len() < usize::from(u16::MAX)));
    let set = Set::Addresses(Family::V4);
    let told =
        |message: &Message<'_>| elements(set, message).map(|element| element.unwrap()).collect::<Vec<_>>();
    let all: Vec<Element> = read.iter().flat_map(told).collect();
    assert_eq!(all.len(), 10_000);
    assert!(
        transaction.iter().eq(all.iter().map(|element| Operation::Add(*element)).collect::<Vec<_>>().iter())
    );
}

/// A message as the kernel sends it.
fn told(kind: u16, body: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(SUBSYSTEM | kind, 2, 1, inet(), body);
    writer.bytes().to_vec()
}

fn read<T>(bytes: &[u8], what: impl FnOnce(&Message<'_>) -> T) -> T {
    what(&messages(bytes).next().unwrap())
}

#[test]
fn the_table_is_known_by_its_name_and_its_comment() {
    let table = |name: &str, layout: &str, flags: u32, owner: u32| {
        told(kind::NEW_TABLE, |body| {
            body.text(1, name);
            body.number(2, flags);
            body.number(3, 31);
            body.bytes(4, &7_u64.to_be_bytes());
            body.bytes(6, &comment(layout));
            body.number(7, owner);
        })
    };
    let facts = read(&table(TABLE, LAYOUT, OWNED | PERSISTENT, 4711), TableFacts::read).unwrap();
    let expected =
        TableFacts { handle: 7, is_of_this_layout: true, flags: OWNED | PERSISTENT, owner: Some(4711) };
    assert_eq!(facts, expected);
    let facts = read(&table(TABLE, "Landfall, layout 0", 0, 0), TableFacts::read).unwrap();
    assert!(!facts.is_of_this_layout && facts.owner.is_none());
    assert_eq!(read(&table("kube-proxy", LAYOUT, 0, 0), TableFacts::read), None);
}

#[test]
fn chains_and_sets_are_ours_only_if_all_are_there_and_no_others() {
    let shape = Shape::default();
    let mut batch = Batch::new(&[Operation::Create(shape)], 0);
    let all = |batch: &Batch| {
        let (mut known_chains, mut known_sets) = (Chains::default(), Sets::default());
        for message in messages(batch.bytes()) {
            known_chains.take(&message);
            known_sets.take(&message);
        }
        (known_chains, known_sets)
    };
    let (known_chains, known_sets) = all(&batch);
    assert!(known_chains.are_ours());
    let expected = Shape::new(true, true);
    assert_eq!(known_sets.shape(), Some(expected.clone()));
    batch.set(Set::Sources(Level::Port, Family::V6, 48));
    let shape = all(&batch).1.shape().unwrap();
    assert!(shape.has(Level::Port, Family::V6, 48) && !expected.has(Level::Port, Family::V6, 48));
    let stranger = told(kind::NEW_SET, |body| {
        body.text(1, TABLE);
        body.text(2, "stranger");
    });
    let (mut known_chains, mut known_sets) = all(&batch);
    known_sets.take(&messages(&stranger).next().unwrap());
    assert_eq!(known_sets.shape(), None);
    let unhooked = told(kind::NEW_CHAIN, |body| {
        body.text(1, TABLE);
        body.text(3, "input");
    });
    known_chains.take(&messages(&unhooked).next().unwrap());
    assert!(!known_chains.are_ours());
    assert!(!Chains::default().are_ours());
}

#[test]
fn counts_are_read_whether_they_stand_alone_or_before_a_limit() {
    let counter = |body: &mut Attributes<'_>, bytes: u64, packets: u64| {
        body.text(1, "counter");
        body.nest(2, |body| {
            body.bytes(1, &bytes.to_be_bytes());
            body.bytes(2, &packets.to_be_bytes());
        });
    };
    let set = Set::RefusedPorts(Family::V4);
    let message = told(kind::NEW_ELEMENT, |body| {
        body.text(1, TABLE);
        body.text(2, &set.to_string());
        body.nest(3, |body| {
            body.nest(1, |body| {
                body.nest(1, |body| body.bytes(1, &key(&Element::Served(vip(), tcp(80)))));
                body.nest(7, |body| counter(body, 100, 2));
            });
            body.nest(1, |body| {
                body.nest(1, |body| body.bytes(1, &key(&Element::Served(vip(), tcp(81)))));
                body.nest(11, |body| {
                    body.nest(1, |body| counter(body, 300, 4));
                    body.nest(1, |body| body.text(1, "limit"));
                });
            });
        });
    });
    let count =
        |port, packets, bytes| Count { set, address: Some(vip()), port: Some(tcp(port)), packets, bytes };
    let all = read(&message, |message| counts(set, message).collect::<Vec<_>>());
    assert_eq!(all, [count(80, 2, 100), count(81, 4, 300)]);
}

fn any_element() -> impl Strategy<Value = Element> {
    let address = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let port = (protocol, 1..=u16::MAX).prop_map(|(protocol, number)| Port { protocol, number });
    (address, port, any::<u128>(), 0..=32_u8, 0..7_u8).prop_map(|(address, port, source, step, which)| {
        let place = match which {
            0 | 3 => Place::Address(address),
            1 | 4 => Place::Port(address, port),
            _ => Place::NodePort(port),
        };
        let net = match address {
            IpAddr::V4(_) => IpNet::new(Ipv4Addr::from_bits(source as u32).into(), (step % 9) * 4),
            IpAddr::V6(_) => IpNet::new(Ipv6Addr::from_bits(source).into(), step * 4),
        };
        match which {
            0..=2 => Element::Barrier(place),
            3 | 4 => Element::Source(place, net.unwrap().trunc()),
            5 => Element::Served(address, port),
            _ => Element::Announced(address),
        }
    })
}

proptest! {
    #[test]
    fn every_element_is_read_as_it_was_written(elements in any_element()) {
        prop_assert_eq!(element(set(&elements), &key(&elements)), Some(elements));
    }

    #[test]
    fn nothing_that_the_kernel_could_say_makes_reading_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..16_u16, set in any_element(),
    ) {
        let mut writer = Writer::default();
        writer.message(SUBSYSTEM | kind, 0, 0, inet(), |body| body.bytes(3, &bytes));
        for source in [writer.bytes(), &bytes] {
            for message in messages(source) {
                let set = super::set(&set);
                let _ = (TableFacts::read(&message), elements(set, &message).count(), counts(set, &message).count());
                Chains::default().take(&message);
                Sets::default().take(&message);
            }
        }
    }
}
