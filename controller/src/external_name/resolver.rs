//! Asks DNS for names, by way of hickory: absolute names only, several servers in turn, TCP where an answer does
//! not fit into a datagram. When to ask is not decided here, and nothing is cached.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use landfall_crds::address::Family;
use tokio::sync::mpsc;

use super::answer::{Absence, Answer, Chain, Data, Failure, FamilyAnswer, Record, Step};
use super::metrics::Metrics;
use super::name::DnsName;
use crate::clock;

/// Each server is asked so often, in turn with the others.
const ROUNDS: usize = 2;

/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;

/// A DNS server, as a person writes it: an address, or an address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerAddress(pub SocketAddr);

impl ServerAddress {
    /// The usual port at an address.
    pub fn at(address: IpAddr) -> Self {
        Self(SocketAddr::new(address, PORT))
    }
}

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse::<IpAddr>().map(Self::at);
        address.or_else(|_| text.parse().map(Self)).map_err(|_| {
            format!(
                "'{text}' is no address of a DNS server: write 10.96.0.10, 10.96.0.10:53 or [fd00::10]:53"
            )
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The servers cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("DNS cannot be asked: {0}")]
pub struct SetupError(#[from] NetError);

/// One server: hickory's pool of connections to it, without hickory's cache, search lists and retries.
type Server = NameServerPool<TokioRuntimeProvider>;

/// DNS servers, and which of them served last.
pub struct Servers {
    all: Vec<Server>,
    timeout: Duration,
    preferred: AtomicUsize,
}

impl Servers {
    /// Servers of which each may take `timeout` to answer: retransmissions, TCP and CNAMEs included.
    ///
    /// # Errors
    /// A server cannot be used.
    pub fn new(addresses: &[ServerAddress], timeout: Duration) -> Result<Self, SetupError> {
        let all = addresses.iter().map(|address| server(address.0, timeout)).collect::<Result<_, _>>()?;
        Ok(Self { all, timeout, preferred: AtomicUsize::new(0) })
    }

    /// The addresses of a name in both families. Always answers, at the latest when every server has let its time
    /// pass in every round.
    pub async fn ask(&self, name: &DnsName) -> Answer {
        let (v4, v6) = futures::join!(self.ask_for(name, Family::IPv4), self.ask_for(name, Family::IPv6));
        Answer { v4, v6 }
    }

    async fn ask_for(&self, name: &DnsName, family: Family) -> FamilyAnswer {
        let mut worst = None;
        let first = self.preferred.load(Ordering::Relaxed);
        for turn in 0..ROUNDS * self.all.len() {
            let number = (first + turn) % self.all.len();
            let Some(server) = self.all.get(number) else { break };
            let asked = tokio::time::timeout(self.timeout, ask_one(server, name, family)).await;
            match asked.unwrap_or(FamilyAnswer::Failed(Failure::Timeout)) {
                FamilyAnswer::Failed(failure) => {
                    worst = Some(worst.map_or(failure, |worst| more_telling(worst, failure)));
                    if is_the_names_own(failure) {
                        break;
                    }
                }
                answer => {
                    // The others failed a moment ago: not they first the next time.
                    self.preferred.store(number, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        FamilyAnswer::Failed(worst.unwrap_or(Failure::Unreachable))
    }
}

fn server(address: SocketAddr, timeout: Duration) -> Result<Server, NetError> {
    let mut config = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut config.connections {
        connection.port = address.port();
    }
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    options.num_concurrent_reqs = 1;
    let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
    Ok(NameServerPool::from_config([config], context, TokioRuntimeProvider::default()))
}

/// Asks one server, and again for what a CNAME leads to where the answer does not say it.
async fn ask_one(server: &Server, name: &DnsName, family: Family) -> FamilyAnswer {
    let record_type = match family {
        Family::IPv4 => RecordType::A,
        Family::IPv6 => RecordType::AAAA,
    };
    let mut chain = Chain::new(name.as_str());
    loop {
        let Ok(mut absolute) = Name::from_ascii(chain.at()) else {
            return FamilyAnswer::Failed(Failure::Malformed);
        };
        absolute.set_fqdn(true);
        let query = Query::query(absolute, record_type);
        let response = server.lookup(query, DnsRequestOptions::default()).first_answer().await;
        let response = match response {
            Ok(response) => response,
            Err(error) => return without_records(&error, chain.ttl()),
        };
        match (chain.follow(family, &records(&response)), response.response_code) {
            (Step::End(answer), _) => return answer,
            // RFC 6604: the code is about the last name of the chain.
            (Step::Ask, ResponseCode::NXDomain) => {
                let negative = response.negative_ttl().map(|seconds| Duration::from_secs(seconds.into()));
                let ttl = [negative, chain.ttl()].into_iter().flatten().min();
                return FamilyAnswer::Absent { absence: Absence::NoSuchName, ttl };
            }
            (Step::Ask, _) => {}
        }
    }
}

fn records(response: &DnsResponse) -> Vec<Record> {
    let record = |record: &hickory_resolver::proto::rr::Record| {
        let data = match &record.data {
            RData::CNAME(target) => Data::Alias(target.0.to_ascii()),
            RData::A(address) => Data::Address(IpAddr::V4(address.0)),
            RData::AAAA(address) => Data::Address(IpAddr::V6(address.0)),
            _ => return None,
        };
        let ttl = Duration::from_secs(record.ttl.into());
        Some(Record { owner: record.name.to_ascii(), data, ttl })
    };
    response.answers.iter().filter_map(record).collect()
}

/// What an answer without records means, or no answer, at the end of CNAMEs that may be kept for so long.
fn without_records(error: &NetError, chain: Option<Duration>) -> FamilyAnswer {
    let failure = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let absence = match none.response_code {
                ResponseCode::NXDomain => Absence::NoSuchName,
                ResponseCode::NoError => Absence::NoAddress,
                _ => return FamilyAnswer::Failed(Failure::ServerFailure),
            };
            let negative = none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
            let ttl = [negative, chain].into_iter().flatten().min();
            return FamilyAnswer::Absent { absence, ttl };
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => Failure::Refused,
        NetError::Dns(_) => Failure::ServerFailure,
        NetError::Timeout => Failure::Timeout,
        NetError::Io(_) | NetError::NoConnections | NetError::Busy => Failure::Unreachable,
        _ => Failure::Malformed,
    };
    FamilyAnswer::Failed(failure)
}

/// Whether another server could not know better.
fn is_the_names_own(failure: Failure) -> bool {
    matches!(failure, Failure::ChainLoops | Failure::ChainTooLong)
}

/// What a server said tells more than that another one was silent.
fn more_telling(one: Failure, other: Failure) -> Failure {
    let rank = |failure| match failure {
        Failure::ChainLoops | Failure::ChainTooLong => 0,
        Failure::ServerFailure => 1,
        Failure::Refused => 2,
        Failure::Malformed => 3,
        Failure::Timeout => 4,
        Failure::Unreachable => 5,
    };
    if rank(other) < rank(one) { other } else { one }
}

/// Asks for the names that come, side by side, and hands each answer to `told`, until no more come.
pub async fn serve<T>(
    servers: Servers,
    mut queries: mpsc::UnboundedReceiver<DnsName>,
    answers: mpsc::Sender<T>,
    told: impl Fn(DnsName, Answer) -> T,
    metrics: Metrics,
) {
    let servers = &servers;
    let metrics = &metrics;
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            query = queries.recv() => match query {
                Some(name) => under_way.push(async move {
                    let begun = clock::now().monotonic;
                    let answer = servers.ask(&name).await;
                    let took = clock::now().monotonic.duration_since(begun);
                    metrics.answered(&answer, took);
                    (name, answer)
                }),
                None => return,
            },
            Some((name, answer)) = under_way.next() => {
                if answers.send(told(name, answer)).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
