//! Asks DNS for names, by way of hickory: absolute names only, several servers in turn, TCP where an answer does
//! not fit into a datagram. When to ask is not decided here, and nothing is cached.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use landfall_crds::address::Family;
use tokio::sync::mpsc;

use super::answer::{Absence, Answer, Data, Failure, FamilyAnswer, Record, read};
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

/// DNS servers, and which of them served last.
pub struct Servers {
    all: Vec<TokioResolver>,
    preferred: AtomicUsize,
}

impl Servers {
    /// Servers of which each may take `timeout` to answer, retransmissions and TCP included.
    ///
    /// # Errors
    /// A server cannot be used.
    pub fn new(addresses: &[ServerAddress], timeout: Duration) -> Result<Self, SetupError> {
        let all = addresses.iter().map(|address| resolver(address.0, timeout)).collect::<Result<_, _>>()?;
        Ok(Self { all, preferred: AtomicUsize::new(0) })
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
            match ask_one(server, name, family).await {
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

/// One server alone, asked without a cache, a search list, or a hosts file.
fn resolver(address: SocketAddr, timeout: Duration) -> Result<TokioResolver, NetError> {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    options.attempts = 0;
    options.cache_size = 0;
    options.num_concurrent_reqs = 1;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    Resolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

async fn ask_one(server: &TokioResolver, name: &DnsName, family: Family) -> FamilyAnswer {
    let Ok(mut absolute) = Name::from_ascii(name.as_str()) else {
        return FamilyAnswer::Failed(Failure::Malformed);
    };
    // So that no search list applies.
    absolute.set_fqdn(true);
    let record_type = match family {
        Family::IPv4 => RecordType::A,
        Family::IPv6 => RecordType::AAAA,
    };
    match server.lookup(absolute, record_type).await {
        Ok(lookup) => read(name.as_str(), family, &records(&lookup)),
        Err(error) => without_records(&error),
    }
}

fn records(lookup: &Lookup) -> Vec<Record> {
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
    lookup.answers().iter().filter_map(record).collect()
}

/// What an answer without records means, or no answer.
fn without_records(error: &NetError) -> FamilyAnswer {
    let failure = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let absence = match none.response_code {
                ResponseCode::NXDomain => Absence::NoSuchName,
                ResponseCode::NoError => Absence::NoAddress,
                _ => return FamilyAnswer::Failed(Failure::ServerFailure),
            };
            let ttl = none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
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
