use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query};
use hickory_resolver::proto::rr::Record as WireRecord;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::*;
use crate::external_name::name::read as read_name;

/// What a server answers to a question.
#[derive(Clone, Debug)]
enum Reply {
    /// Records, as owner, TTL, and an address or the target of a CNAME.
    Records(Vec<(&'static str, u32, &'static str)>),
    /// The same, but only over TCP.
    TooLong(Vec<(&'static str, u32, &'static str)>),
    /// A code, and how long an absence holds.
    Code(ResponseCode, Option<u32>),
    Garbage,
    Silence,
}

/// Questions that a server heard: name, type, and whether over TCP.
type Heard = Arc<Mutex<Vec<(String, RecordType, bool)>>>;

/// A DNS server with a script, on 127.0.0.1.
struct Server {
    address: ServerAddress,
    heard: Heard,
    _tasks: JoinSet<()>,
}

type Script = BTreeMap<(&'static str, RecordType), Reply>;

impl Server {
    /// Answers by the script, and to everything else that there is no such name.
    async fn start(script: impl IntoIterator<Item = (&'static str, RecordType, Reply)>) -> Self {
        let script: Script = script.into_iter().map(|(name, kind, reply)| ((name, kind), reply)).collect();
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = ServerAddress(tcp.local_addr().unwrap());
        let (heard, script) = (Heard::default(), Arc::new(script));
        let mut tasks = JoinSet::new();
        let (of_udp, heard_udp) = (Arc::clone(&script), Arc::clone(&heard));
        tasks.spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                if let Some(answer) = answer(&of_udp, &buffer[..length], false, &heard_udp) {
                    let _sent = udp.send_to(&answer, from).await;
                }
            }
        });
        let heard_tcp = Arc::clone(&heard);
        tasks.spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                tokio::spawn(serve_stream(stream, Arc::clone(&script), Arc::clone(&heard_tcp)));
            }
        });
        Self { address, heard, _tasks: tasks }
    }

    /// A server that never answers.
    async fn silent() -> Self {
        let silence = |kind| ("db.example.com.", kind, Reply::Silence);
        Self::start([silence(RecordType::A), silence(RecordType::AAAA)]).await
    }

    fn heard(&self) -> Vec<(String, RecordType, bool)> {
        let mut heard = self.heard.lock().unwrap().clone();
        heard.sort();
        heard
    }
}

async fn serve_stream(mut stream: TcpStream, script: Arc<Script>, heard: Heard) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(answer) = answer(&script, &question, true, &heard) else { continue };
        let _sent = stream.write_u16(answer.len().try_into().unwrap()).await;
        let _sent = stream.write_all(&answer).await;
    }
}

fn answer(script: &Script, question: &[u8], by_tcp: bool, heard: &Heard) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query: Query = question.queries[0].clone();
    let name = query.name().to_ascii();
    heard.lock().unwrap().push((name.clone(), query.query_type(), by_tcp));
    let reply = script.iter().find(|((known, kind), _)| *known == name && *kind == query.query_type());
    let reply = reply.map_or(Reply::Code(ResponseCode::NXDomain, None), |(_, reply)| reply.clone());
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    message.add_query(query.clone());
    message.metadata.recursion_available = true;
    match reply {
        Reply::TooLong(_) if !by_tcp => message.metadata.truncation = true,
        Reply::Records(records) | Reply::TooLong(records) => {
            for (owner, ttl, data) in records {
                let data = match data.parse() {
                    Ok(IpAddr::V4(address)) => RData::A(A(address)),
                    Ok(IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
                    Err(_) => RData::CNAME(CNAME(Name::from_ascii(data).unwrap())),
                };
                message.add_answer(WireRecord::from_rdata(Name::from_ascii(owner).unwrap(), ttl, data));
            }
        }
        Reply::Code(code, ttl) => {
            message.metadata.response_code = code;
            if let Some(ttl) = ttl {
                let zone = Name::from_ascii("example.com.").unwrap();
                let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, ttl);
                message.add_authority(WireRecord::from_rdata(zone, ttl, RData::SOA(soa)));
            }
        }
        Reply::Garbage => return Some([&question.metadata.id.to_be_bytes()[..], &[0xff; 9]].concat()),
        Reply::Silence => return None,
    }
    Some(message.to_vec().unwrap())
}

const TIMEOUT: Duration = Duration::from_millis(400);

async fn ask(servers: &[&Server], name: &str) -> Answer {
    let addresses: Vec<ServerAddress> = servers.iter().map(|server| server.address).collect();
    Servers::new(&addresses, TIMEOUT).unwrap().ask(&read_name(name).unwrap()).await
}

fn addresses(all: &[&str], ttl: u64) -> FamilyAnswer {
    let addresses = all.iter().map(|text| text.parse().unwrap()).collect();
    FamilyAnswer::Addresses { addresses, ttl: Duration::from_secs(ttl) }
}

fn good() -> [(&'static str, RecordType, Reply); 2] {
    let (v4, v6) = (("db.example.com.", 60, "192.0.2.1"), ("db.example.com.", 30, "2001:db8::1"));
    [
        ("db.example.com.", RecordType::A, Reply::Records(vec![v4])),
        ("db.example.com.", RecordType::AAAA, Reply::Records(vec![v6])),
    ]
}

fn is_good(answer: &Answer) {
    assert_eq!(answer.v4, addresses(&["192.0.2.1"], 60));
    assert_eq!(answer.v6, addresses(&["2001:db8::1"], 30));
}

#[tokio::test]
async fn both_families_are_asked_for_once_each_and_by_the_absolute_name_alone() {
    let server = Server::start(good()).await;
    is_good(&ask(&[&server], "db.example.com").await);
    let name = "db.example.com.".to_owned();
    assert_eq!(server.heard(), [(name.clone(), RecordType::A, false), (name, RecordType::AAAA, false)]);
    // Nor does one that is only a label get a search domain.
    let servers = Servers::new(&[server.address], TIMEOUT).unwrap();
    let single = crate::external_name::name::read_leniently("db").unwrap();
    let none = FamilyAnswer::Absent { absence: Absence::NoSuchName, ttl: None };
    assert_eq!(servers.ask(&single).await, Answer { v4: none.clone(), v6: none });
    assert!(server.heard().iter().all(|(name, ..)| name == "db.example.com." || name == "db."));
}

#[tokio::test]
async fn a_chain_is_followed_within_an_answer_and_beyond_it() {
    let whole = vec![
        ("db.example.com.", 300, "cdn.example."),
        ("cdn.example.", 20, "x.cdn.example."),
        ("x.cdn.example.", 60, "192.0.2.1"),
        ("x.cdn.example.", 60, "192.0.2.2"),
    ];
    let server = Server::start([
        ("db.example.com.", RecordType::A, Reply::Records(whole)),
        // This server does not follow CNAMEs.
        ("db.example.com.", RecordType::AAAA, Reply::Records(vec![("db.example.com.", 10, "far.example.")])),
        ("far.example.", RecordType::AAAA, Reply::Records(vec![("far.example.", 60, "2001:db8::7")])),
    ])
    .await;
    let answer = ask(&[&server], "db.example.com").await;
    assert_eq!(answer.v4, addresses(&["192.0.2.1", "192.0.2.2"], 20));
    assert_eq!(answer.v6, addresses(&["2001:db8::7"], 10));
}

#[tokio::test]
async fn chains_that_loop_are_given_up() {
    let within = vec![("db.example.com.", 9, "a.example."), ("a.example.", 9, "db.example.com.")];
    let server = Server::start([
        ("db.example.com.", RecordType::A, Reply::Records(within)),
        ("db.example.com.", RecordType::AAAA, Reply::Records(vec![("db.example.com.", 9, "b.example.")])),
        ("b.example.", RecordType::AAAA, Reply::Records(vec![("b.example.", 9, "db.example.com.")])),
    ])
    .await;
    let answer = ask(&[&server], "db.example.com").await;
    let is_failure =
        |answer| matches!(answer, FamilyAnswer::Failed(Failure::ChainLoops | Failure::ChainTooLong));
    assert!(is_failure(answer.v4.clone()) && is_failure(answer.v6.clone()), "{answer:?}");
    assert!(server.heard().len() < 40, "{}", server.heard().len());
}

#[tokio::test]
async fn a_chain_may_end_at_a_name_that_does_not_exist() {
    let chain =
        |kind| ("db.example.com.", kind, Reply::Records(vec![("db.example.com.", 10, "gone.example.")]));
    let server = Server::start([chain(RecordType::A), chain(RecordType::AAAA)]).await;
    let none = FamilyAnswer::Absent { absence: Absence::NoSuchName, ttl: Some(Duration::from_secs(10)) };
    assert_eq!(ask(&[&server], "db.example.com").await, Answer { v4: none.clone(), v6: none });
}

#[tokio::test]
async fn that_there_is_nothing_is_believed_and_for_how_long() {
    let server = Server::start([
        ("db.example.com.", RecordType::A, Reply::Code(ResponseCode::NXDomain, Some(45))),
        ("db.example.com.", RecordType::AAAA, Reply::Code(ResponseCode::NoError, Some(15))),
    ])
    .await;
    let other = Server::start(good()).await;
    let answer = ask(&[&server, &other], "db.example.com").await;
    let absent = |absence, ttl| FamilyAnswer::Absent { absence, ttl: Some(Duration::from_secs(ttl)) };
    assert_eq!(answer, Answer { v4: absent(Absence::NoSuchName, 45), v6: absent(Absence::NoAddress, 15) });
    assert!(other.heard().is_empty());
}

#[tokio::test]
async fn a_server_that_fails_or_is_silent_is_passed_over_now_and_put_last_the_next_time() {
    for code in [Some(ResponseCode::ServFail), Some(ResponseCode::Refused), None] {
        let ill = match code {
            Some(code) => {
                let reply = |kind| ("db.example.com.", kind, Reply::Code(code, None));
                Server::start([reply(RecordType::A), reply(RecordType::AAAA)]).await
            }
            None => Server::silent().await,
        };
        let well = Server::start(good()).await;
        let servers = Servers::new(&[ill.address, well.address], TIMEOUT).unwrap();
        let name = read_name("db.example.com").unwrap();
        let begun = clock::now().monotonic;
        is_good(&servers.ask(&name).await);
        assert!(clock::now().monotonic - begun < 3 * TIMEOUT);
        let heard = ill.heard().len();
        is_good(&servers.ask(&name).await);
        assert_eq!(ill.heard().len(), heard, "{code:?}: asked again although the other one serves");
    }
}

#[tokio::test]
async fn an_answer_that_fits_into_no_datagram_comes_by_tcp() {
    let many: Vec<(&str, u32, &str)> =
        vec![("db.example.com.", 60, "192.0.2.1"), ("db.example.com.", 60, "192.0.2.2")];
    let server = Server::start([
        ("db.example.com.", RecordType::A, Reply::TooLong(many)),
        ("db.example.com.", RecordType::AAAA, Reply::Code(ResponseCode::NoError, None)),
    ])
    .await;
    let answer = ask(&[&server], "db.example.com").await;
    assert_eq!(answer.v4, addresses(&["192.0.2.1", "192.0.2.2"], 60));
    assert!(server.heard().contains(&("db.example.com.".to_owned(), RecordType::A, true)));
}

#[tokio::test]
async fn where_nobody_helps_the_most_telling_reason_is_given_within_a_bound() {
    let code = |code| {
        let reply = move |kind| ("db.example.com.", kind, Reply::Code(code, None));
        Server::start([reply(RecordType::A), reply(RecordType::AAAA)])
    };
    let failed = Answer::from;
    let silent = Server::silent().await;
    let begun = clock::now().monotonic;
    assert_eq!(ask(&[&silent], "db.example.com").await, failed(Failure::Timeout));
    let took = clock::now().monotonic - begun;
    assert!((2 * TIMEOUT..4 * TIMEOUT).contains(&took), "{took:?}");
    let refusing = code(ResponseCode::Refused).await;
    assert_eq!(ask(&[&silent, &refusing], "db.example.com").await, failed(Failure::Refused));
    let ill = code(ResponseCode::ServFail).await;
    assert_eq!(ask(&[&refusing, &ill], "db.example.com").await, failed(Failure::ServerFailure));
    let mad = Server::start([("db.example.com.", RecordType::A, Reply::Garbage)]).await;
    let answer = ask(&[&mad], "db.example.com").await;
    assert!(matches!(answer.v4, FamilyAnswer::Failed(Failure::Malformed | Failure::Timeout)), "{answer:?}");
    assert_eq!(
        Servers::new(&[], TIMEOUT).unwrap().ask(&read_name("a.b").unwrap()).await,
        failed(Failure::Unreachable)
    );
}

#[tokio::test]
async fn queries_are_answered_side_by_side_each_once() {
    let slow = Server::silent().await;
    let (queries, wanted) = mpsc::unbounded_channel();
    let (told, mut answers) = mpsc::channel(8);
    let servers = Servers::new(&[slow.address], TIMEOUT).unwrap();
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let task = tokio::spawn(serve(servers, wanted, told, |name, answer| (name, answer), metrics));
    queries.send(read_name("db.example.com").unwrap()).unwrap();
    queries.send(read_name("gone.example.com").unwrap()).unwrap();
    let (first, _) = answers.recv().await.unwrap();
    assert_eq!(first.as_str(), "gone.example.com", "the slow one holds nobody up");
    let (second, answer) = answers.recv().await.unwrap();
    assert_eq!((second.as_str(), answer), ("db.example.com", Failure::Timeout.into()));
    drop(queries);
    task.await.unwrap();
    assert!(answers.recv().await.is_none());
}

#[test]
fn a_server_is_written_as_an_address_with_or_without_a_port() {
    let read = |text: &str| text.parse::<ServerAddress>().map(|address| address.to_string());
    assert_eq!(read("10.96.0.10").unwrap(), "10.96.0.10:53");
    assert_eq!(read("fd00::10").unwrap(), "[fd00::10]:53");
    assert_eq!(read("[fd00::10]:5353").unwrap(), "[fd00::10]:5353");
    assert!(read("dns.example.com").unwrap_err().contains("write 10.96.0.10"));
}
