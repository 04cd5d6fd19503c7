//! The state file, as a disk may give it back.

use std::path::Path;

use landfall_crds::{Fallback, Protocol};
use landfall_speaker::drivers::books::Books;
use landfall_speaker::drivers::state_file::{Error, StateFile};
use landfall_speaker::filter::frontend::{Claim, Frontend, Guard, Port, ServiceName};
use landfall_speaker::filter::sources::Sources;
use landfall_speaker::lan::{PeerInfo, PeerLink, Vip};

use crate::fuzz;
use crate::mutate::{Random, mutate};

fn books(random: &mut Random) -> Books {
    let mut books = Books::default();
    for number in 0..random.below(4) as u8 {
        let address = [10, 0, 1, number].into();
        let service = ServiceName::new("shop", &format!("s{number}"));
        let claim = Claim { service: service.clone(), guard: random.once_in(2).then(|| "d2".into()) };
        let port = Port { protocol: Protocol::Tcp, number: 80 };
        let is_claimed = random.once_in(2);
        let claims = is_claimed.then_some(claim).into_iter().collect();
        let frontend = Frontend::new(claims, is_claimed.then(|| (port, service.clone())));
        if random.once_in(2) {
            let ranges = vec!["10.0.0.0/8".to_owned(), "fd00::/64".to_owned()];
            let guard = Guard {
                uid: "u1".to_owned(),
                digest: "d2".to_owned(),
                former: vec!["d1".to_owned()],
                sources: Sources::parse(ranges.iter().map(String::as_str)).unwrap(),
                ranges,
                node_ports: vec![Port { protocol: Protocol::Udp, number: 30080 }],
                closed: None,
            };
            books.guard(service, guard);
        }
        books.write(Vip {
            address,
            claimed: is_claimed,
            epoch: random.edge() as i64,
            candidates: (0..random.below(4)).map(|node| format!("n{node}").as_str().into()).collect(),
            interfaces: vec!["eth*".into()],
            fallback: *random.pick(&[Fallback::None, Fallback::Listed, Fallback::AnyOnSubnet]),
            health_checks: vec![30000 + u16::from(number)],
            last_term: random.edge(),
            guard: frontend.asks().cloned(),
            announced_before: random.once_in(2),
        });
        books.serve(address, frontend);
        let link = PeerLink {
            mac: "02:00:00:00:00:02".parse().unwrap(),
            subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            addresses: vec![[10, 0, 0, number].into()],
            address: Some([10, 0, 0, number].into()),
        };
        let node: landfall_speaker::lan::NodeName = format!("n{number}").as_str().into();
        books.peers.insert(node.clone(), PeerInfo { node, links: vec![link] });
    }
    books
}

/// What a disk gives back is what was written, or it is refused.
#[test]
fn a_state_file_of_any_kind_is_read_as_it_was_written_or_refused() {
    let file = StateFile::new(Path::new("/nowhere"), "n1");
    let mut corpus_of = Random::new(5);
    let written: Vec<Books> = (0..32).map(|_| books(&mut corpus_of)).collect();
    let corpus: Vec<Vec<u8>> = written.iter().map(|books| file.text(books).unwrap()).collect();
    let other = StateFile::new(Path::new("/nowhere"), "n2").text(&Books::default()).unwrap();
    let tally = fuzz("state file", 200, |random, tally| {
        for _ in 0..200 {
            let mut text = random.pick(&corpus).clone();
            match random.below(8) {
                0 => {
                    text = String::from_utf8(text)
                        .unwrap()
                        .replace("\"version\":2", "\"version\":3")
                        .into_bytes()
                }
                1 => text = other.clone(),
                2 => {}
                _ => mutate(random, &mut text, &corpus),
            }
            match file.parse(&text) {
                Ok(books) => {
                    assert!(written.contains(&books), "{}", String::from_utf8_lossy(&text));
                    tally.count("taken in");
                }
                Err(error) => tally.count(match error {
                    Error::NotOurs(_) => "NotOurs",
                    Error::Version(_) => "Version",
                    Error::OtherNode(_) => "OtherNode",
                    Error::Damaged => "Damaged",
                    _ => "another reason",
                }),
            }
        }
    });
    let reasons = ["taken in", "NotOurs", "Version", "OtherNode", "Damaged"];
    assert!(reasons.iter().all(|what| tally.of(what) > 0));
}
